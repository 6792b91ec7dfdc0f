"""The frames that tests on NICs build, against those that scapy builds."""

import logging

import pytest
from modes import gre, gue, ipip
from plan import FIRST_CLIENT, MACS, OWN, ROUTER_MAC, SERVERS, both
from segment import ETH_LEN, GUE_PORT, IP_IN_IP, PSH, SYN, TCP, UDP, Segment, frame

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers import inet, inet6, l2  # noqa: E402
from scapy.packet import Raw  # noqa: E402

VIP = both("198.51.100.100", "2001:db8:1::100")
EACH_VERSION = pytest.mark.parametrize("version", [4, 6])
EACH_PROTOCOL = pytest.mark.parametrize("protocol", [TCP, UDP])


def segment(version, protocol, payload=b"odd", **fields):
    """A packet of a client to a VIP."""
    ends = {"src": FIRST_CLIENT[version], "sport": 31337, "dst": VIP[version], "dport": 80}
    return Segment(protocol, **ends, payload=payload, **fields)


def ip_header(version, src, dst, ttl=64, tos=0, identification=0, df=False):
    """Scapy's header of either version."""
    if version == 6:
        return inet6.IPv6(src=str(src), dst=str(dst), hlim=ttl, tc=tos)
    flags = "DF" if df else 0
    return inet.IP(src=str(src), dst=str(dst), ttl=ttl, tos=tos, id=identification, flags=flags)


@EACH_VERSION
@EACH_PROTOCOL
@pytest.mark.parametrize("payload", [b"", b"odd", b"even", b"\xff" * 1400])
def test_a_frame_is_as_scapy_builds_it(version, protocol, payload):
    fields = {"ttl": 9, "tos": 0xB9, "id": 0x1D5A, "df": True}
    ours = segment(version, protocol, payload, flags=SYN | PSH, seq=7, ack=8, **fields)
    tcp = inet.TCP(sport=31337, dport=80, flags="SP", seq=7, ack=8)
    l4 = tcp if protocol == TCP else inet.UDP(sport=31337, dport=80)
    ip = ip_header(version, FIRST_CLIENT[version], VIP[version], 9, 0xB9, 0x1D5A, True)
    wanted = l2.Ether(src=ROUTER_MAC, dst=MACS["clients"]) / ip / l4 / Raw(payload)
    assert frame(MACS["clients"], ROUTER_MAC, ours.packet()) == bytes(wanted)


@EACH_VERSION
def test_a_udp_checksum_of_zero_is_sent_as_all_ones(version):
    without = inet.UDP(segment(version, UDP, b"\0\0").packet()[20 if version == 4 else 40 :]).chksum
    packet = segment(version, UDP, without.to_bytes(2, "big")).packet()
    assert inet.UDP(packet[20 if version == 4 else 40 :]).chksum == 0xFFFF


@EACH_VERSION
@pytest.mark.parametrize("wrap", [ipip, gre, gue])
@pytest.mark.parametrize("df", [True, False])
def test_a_tunnel_is_as_scapy_builds_it(version, wrap, df):
    inner, server = segment(version, TCP, ttl=63, tos=0xB8, df=df), SERVERS[1]
    identification = 0 if df else 0x4242
    outer = (version, OWN["servers"][version], server.addresses[version], 63, 0xB8, identification, df)
    between = {
        ipip: Raw(b""),
        gre: l2.GRE(proto={4: 0x0800, 6: 0x86DD}[version]),
        gue: inet.UDP(sport=0xC0DE, dport=GUE_PORT) / Raw(bytes([0, IP_IN_IP[version], 0, 0])),
    }[wrap]
    header = ip_header(*outer)
    if wrap is ipip:
        header.setfieldval("proto" if version == 4 else "nh", IP_IN_IP[version])
    wanted = bytes(l2.Ether(src=ROUTER_MAC, dst=server.mac) / header / between / Raw(inner.packet()))
    packet, seen = wrap(inner, server, wanted)
    assert packet == wanted[ETH_LEN:]
    assert seen == inner

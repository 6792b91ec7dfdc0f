"""Replay: malformed, hostile and stray packets of both IP versions, each counted under its own name.

One run for each reason: all of its frames, and then good ones, which are served as if the others had not been.
"""

import itertools
import random

import pytest

import drops
from appliance import BOTH_FAMILIES, PORT_IP, PORT_IP6, Appliance, Backend, Interface, Service, split
from frames import (
    ETH_LEN,
    IP,
    IPV6_LEN,
    framed,
    icmp,
    icmpv6,
    ip_packet,
    pattern,
    pieces,
    tagged,
    tcp,
    tcp_of_ip_len,
    udp,
    with_headers,
)
from replay import Scenario
from verdict import Dropped

CLIENT, CLIENT6 = "198.51.100.7:31337", "[2001:db8:51::7]:31337"
WEB, WEB6, DNS, DNS6 = "192.0.2.100:80", "[2001:db8:2::100]:80", "192.0.2.100:53", "[2001:db8:2::100]:53"
TUNNEL, TUNNEL6, EMPTY6 = "192.0.2.102:80", "[2001:db8:2::102]:80", "[2001:db8:2::103]:80"
SERVER, SERVER6 = "192.0.2.11:8000", "[2001:db8:2::11]:8000"
DNS_SERVER, DNS_SERVER6 = "192.0.2.11:53", "[2001:db8:2::11]:53"
APPLIANCE = Appliance(
    services=(
        Service(WEB, (Backend(SERVER),)),
        Service(WEB6, (Backend(SERVER6),)),
        Service(DNS, (Backend(DNS_SERVER),), "udp"),
        Service(DNS6, (Backend(DNS_SERVER6),), "udp"),
        Service(TUNNEL, (Backend("192.0.2.13:80", "tunnel"),)),
        Service(TUNNEL6, (Backend("[2001:db8:2::13]:80", "tunnel"),)),
        Service(EMPTY6, (Backend(SERVER6, weight=0),), no_backend="drop"),
    ),
    interfaces=(*BOTH_FAMILIES, Interface(("203.0.113.254/24",), (100,)), Interface(("10.0.0.254/24",), (200, 7))),
)
IDENTS = itertools.count(0x100)
PAD6, PAD14 = b"\0\x01\x04\0\0\0\0", b"\x01\x01\x0c" + bytes(12)
HOP_BY_HOP, ROUTING, FRAGMENT, ESP, AUTHENTICATION, NOTHING, DESTINATION, MOBILITY = 0, 43, 44, 50, 51, 59, 60, 135


def syn(**changes) -> bytes:
    """A SYN over IPv4 with one fault."""
    return tcp(CLIENT, WEB, "S", **changes)


def syn6(*headers: tuple[int, bytes], **changes) -> bytes:
    """A SYN over IPv6 with extension headers or one fault."""
    if headers:
        changes["ip"] = {"headers": list(headers), **changes.get("ip", {})}
    return tcp(CLIENT6, WEB6, "S", **changes)


def query6(**changes) -> bytes:
    """A query over IPv6 with one fault."""
    return udp(CLIENT6, DNS6, b"query", **changes)


def optioned(options: bytes) -> bytes:
    """A SYN whose IPv4 header has options, byte by byte."""
    packet = ip_packet(syn())
    ip = IP(packet[:20])
    ip.ihl, ip.len = 5 + len(options) // 4, len(packet) + len(options)
    del ip.chksum
    header = IP(bytes(ip)[:20] + options)
    del header.chksum
    return framed(bytes(header)[:20] + options + packet[20:], "198.51.100.7")


def piece(source: bytes, begin: int, end: int, more: bool = True) -> bytes:
    """The bytes from `begin` to `end` of an IP packet's payload as a fragment."""
    packet, ident = ip_packet(source), next(IDENTS)
    if packet[0] >> 4 == 4:
        ip = IP(packet[:20])
        ip.id, ip.frag, ip.flags = ident, begin // 8, "MF" if more else 0
        del ip.len, ip.chksum
        return framed(bytes(ip / packet[20 + begin : 20 + end]), "198.51.100.7")
    field = (begin // 8 << 3 | more).to_bytes(2, "big")
    body = packet[IPV6_LEN + begin : IPV6_LEN + end]
    cut = packet[:4] + len(body).to_bytes(2, "big") + packet[6:IPV6_LEN] + body
    return framed(with_headers(cut, [(FRAGMENT, b"\0" + field + ident.to_bytes(4, "big"))]), "2001:db8:51::7")


def far_piece(source: bytes) -> bytes:
    """A last fragment that ends beyond the longest packet there may be."""
    frame = piece(source, 0, 16, more=False)
    at = ETH_LEN + (6 if frame[ETH_LEN] >> 4 == 4 else 42)
    far = frame[:at] + (65528 // 8 if at == ETH_LEN + 6 else 65528).to_bytes(2, "big") + frame[at + 2 :]
    if at != ETH_LEN + 6:
        return far
    ip = IP(far[ETH_LEN:])
    del ip.chksum
    return framed(bytes(ip), "198.51.100.7")


def cut(frame: bytes, length: int) -> bytes:
    """The IPv6 frame with only the first bytes of its payload."""
    packet = ip_packet(frame)
    return framed(packet[:4] + length.to_bytes(2, "big") + packet[6 : IPV6_LEN + length], "2001:db8:51::7")


def error(src: str, dst: str, quote: bytes) -> bytes:
    """An ICMPv6 error."""
    return icmpv6(src, dst, 1, quote, code=4)


LONG = tcp(CLIENT, WEB, "PA", pattern(100))
LONG6 = tcp(CLIENT6, WEB6, "PA", pattern(100))
LONG_UDP, LONG_UDP6 = udp(CLIENT, DNS, pattern(100)), udp(CLIENT6, DNS6, pattern(100))
PING = icmp("198.51.100.7", PORT_IP, 8, pattern(100))
PING6 = icmpv6("2001:db8:51::7", PORT_IP6, 128, pattern(100))
TO_CLIENT6 = ip_packet(tcp(WEB6, CLIENT6, "A", b"odd"))
MARTIANS = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "224.0.0.7", "239.1.2.3", "240.0.0.1", "255.255.255.255"]
MARTIANS6 = ["::", "::1", "ff02::1", "ff0e::7", "::ffff:198.51.100.7", "::ffff:127.0.0.1"]

# Reason: name and frame. Every frame has one fault and would be forwarded or answered without it.
REFUSED = {
    drops.TRUNCATED: [
        ("nothing behind Ethernet", syn6()[:ETH_LEN]),
        ("half an IPv6 header", syn6()[: ETH_LEN + 39]),
        ("payload length beyond the frame", syn6(ip={"plen": 21})),
        ("payload length of a giant", syn6(ip={"plen": 60000})),
        ("last byte missing", syn6()[:-1]),
        ("a tag and nothing else", tagged(syn(), (100,))[:16]),
        ("half a tag", tagged(syn(), (100,))[:15]),
        ("half a second tag", tagged(syn(), (200, 7))[:19]),
    ],
    drops.BAD_VLAN: [
        ("a VLAN of nobody", tagged(syn(), (101,))),
        ("the inner number alone", tagged(syn(), (7,))),
        ("the outer number alone", tagged(syn(), (200,))),
        ("numbers the other way round", tagged(syn(), (7, 200))),
        ("a known VLAN in another one", tagged(syn(), (200, 100))),
        ("number 4095", tagged(syn(), (4095,))),
        ("three tags", tagged(tagged(syn(), (200, 7)), (5,))),
        ("IPv6 in a VLAN of nobody", tagged(syn6(), (101,))),
    ],
    drops.UNKNOWN_ETHERTYPE: [
        ("LLDP", syn(eth={"type": 0x88CC})),
        ("MPLS", syn(eth={"type": 0x8847})),
        ("PPPoE", syn(eth={"type": 0x8864})),
        ("802.3 length instead of a type", syn(eth={"type": 0x0026})),
        ("LLC in a VLAN", tagged(syn(eth={"type": 0x0026}), (100,))),
    ],
    drops.NOT_OUR_MAC: [
        ("another station's IPv6", syn6(eth={"dst": "02:00:5e:00:53:fe"})),
        # RFC 1812, 5.3.4
        ("a broadcast", syn(eth={"dst": "ff:ff:ff:ff:ff:ff"})),
        ("a multicast frame", syn6(eth={"dst": "33:33:00:00:00:01"})),
        ("a ping to everybody", icmp("198.51.100.7", PORT_IP, 8, eth={"dst": "ff:ff:ff:ff:ff:ff"})),
        ("another station's IPv6 in a VLAN", tagged(syn6(eth={"dst": "02:00:5e:00:53:fe"}), (100,))),
    ],
    drops.BAD_IP_HEADER: [
        ("IPv4 behind IPv6's type", syn(eth={"type": 0x86DD})),
        ("IPv6 behind IPv4's type", syn6(eth={"type": 0x0800})),
        ("version 0 behind IPv6's type", syn6(ip={"version": 0})),
        ("version 15 behind IPv6's type", syn6(ip={"version": 15})),
        ("an option of length 0", optioned(b"\x94\0\0\0")),
        ("an option of length 1", optioned(b"\x94\x01\0\0")),
        ("an option beyond the header", optioned(b"\x94\x05\0\0")),
        ("an option without its length", optioned(b"\x01\x01\x01\x94")),
    ],
    drops.BAD_IP_LENGTH: [
        ("payload length 0", syn6(ip={"plen": 0})),
        ("a jumbogram", syn6((HOP_BY_HOP, b"\0\xc2\x04\0\x01\0\0"), ip={"plen": 0})),
    ],
    drops.SOURCE_ROUTE: [
        ("loose source route", optioned(b"\x83\x07\x04\xc0\0\x02\x0b\0")),
        ("strict source route", optioned(b"\x89\x07\x04\xc0\0\x02\x0b\0")),
        ("source route at its end", optioned(b"\x01\x83\x07\x08\xc0\0\x02\x0b")),
    ],
    drops.MARTIAN_ADDRESS: [
        *((f"from {src}", tcp(f"{src}:31337", WEB, "S")) for src in MARTIANS),
        *((f"from {src}", tcp(f"[{src}]:31337", WEB6, "S")) for src in MARTIANS6),
        *((f"to {dst}", tcp(CLIENT, f"{dst}:80", "S")) for dst in ("127.0.0.1", "0.0.0.0")),
        *((f"to {dst}", tcp(CLIENT6, f"[{dst}]:80", "S")) for dst in ("::", "::1", "::ffff:192.0.2.100")),
        ("ping from loopback", icmp("127.0.0.1", PORT_IP, 8)),
        ("ping from multicast", icmpv6("ff02::1", PORT_IP6, 128)),
        ("land", tcp(WEB, WEB, "S")),
        ("land", tcp(WEB6, WEB6, "S")),
        ("from another VIP", tcp("192.0.2.102:31337", WEB, "S")),
        ("from another VIP", tcp("[2001:db8:2::102]:31337", WEB6, "S")),
        ("from our own address", tcp(f"{PORT_IP}:31337", WEB, "S")),
        ("from our own address", tcp(f"[{PORT_IP6}]:31337", WEB6, "S")),
    ],
    drops.BAD_EXTENSION_HEADER: [
        ("nine headers", syn6(*[(DESTINATION, PAD6)] * 9)),
        ("thirty headers", syn6(*[(DESTINATION, PAD6)] * 30)),
        ("hop-by-hop options twice", syn6((HOP_BY_HOP, PAD6), (HOP_BY_HOP, PAD6))),
        ("hop-by-hop options second", syn6((DESTINATION, PAD6), (HOP_BY_HOP, PAD6))),
        ("a header beyond the packet", syn6((DESTINATION, b"\xff" + PAD6[1:]))),
        ("a header that ends with the frame", syn6((DESTINATION, b"\x04" + PAD6[1:]))),
        ("half a header", syn6((DESTINATION, PAD6), ip={"plen": 7})),
        ("one byte of a header", syn6((DESTINATION, PAD6), ip={"plen": 1})),
        ("half a fragment header", syn6((FRAGMENT, bytes(7)), ip={"plen": 7})),
        ("half a second header", syn6((DESTINATION, PAD6), (DESTINATION, PAD6), ip={"plen": 12})),
    ],
    drops.ROUTING_HEADER: [
        ("type 0", syn6((ROUTING, b"\x02\0\x01" + bytes(20)))),
        ("type 0 with many segments", syn6((ROUTING, b"\x08\0\x04" + bytes(68)))),
        ("type 2 with a segment left", syn6((ROUTING, b"\x02\x02\x01" + bytes(20)))),
        ("type 4 with a segment left", syn6((ROUTING, b"\x02\x04\x01\0\0\0\0" + bytes(16)))),
        ("an unknown type with segments left", syn6((ROUTING, b"\0\xc8\x05\0\0\0\0"))),
        ("type 0 behind other headers", syn6((HOP_BY_HOP, PAD6), (DESTINATION, PAD14), (ROUTING, b"\x02\0\x01" + bytes(20)))),
    ],
    drops.NO_NEXT_HEADER: [
        ("nothing behind IPv6", syn6(ip={"nh": NOTHING})),
        ("nothing behind options", syn6((HOP_BY_HOP, PAD6), (NOTHING, PAD6))),
        ("nothing behind two headers", syn6((HOP_BY_HOP, PAD6), (DESTINATION, PAD6), (NOTHING, PAD6))),
    ],
    drops.UNKNOWN_PROTOCOL: [
        ("SCTP", syn6(ip={"nh": 132})),
        ("GRE", syn6(ip={"nh": 47})),
        ("IPv4 in IPv6", syn6(ip={"nh": 4})),
        ("IPv6 in IPv6", syn6(ip={"nh": 41})),
        ("IPv6 in IPv4", syn(ip={"proto": 41})),
        ("IPv4 in IPv4", syn(ip={"proto": 4})),
        ("ICMPv4 in IPv6", syn6(ip={"nh": 1})),
        ("ICMPv6 in IPv4", syn(ip={"proto": 58})),
        ("encrypted", syn6(ip={"nh": ESP})),
        ("authenticated", syn6(ip={"nh": AUTHENTICATION})),
        ("mobility header", syn6(ip={"nh": MOBILITY})),
        ("an unknown header", syn6(ip={"nh": 253})),
        ("SCTP behind options", syn6((HOP_BY_HOP, PAD6), (132, PAD6))),
    ],
    drops.BAD_TCP_HEADER: [
        ("half a header", syn6(ip={"plen": 19})),
        ("one byte of a header", syn6(ip={"plen": 1})),
        ("half a header", syn(ip={"len": 39})),
        ("data offset 4", syn6(dataofs=4)),
        ("data offset 0", syn6(dataofs=0)),
        ("data offset beyond the packet", syn6(dataofs=6)),
        ("data offset beyond the packet", syn(dataofs=15)),
    ],
    drops.BAD_TCP_FLAGS: [
        *((f"flags {flags}", tcp(CLIENT6, WEB6, flags)) for flags in ("SR", "SF", "SFPU", "SRA", 0, "EC")),
        *((f"flags {flags}", tcp(CLIENT, WEB, flags)) for flags in ("SR", "SF", "SFPU", "SRA", 0, "EC")),
    ],
    drops.BAD_UDP_LENGTH: [
        ("half a header", query6(ip={"plen": 7})),
        ("half a header", udp(CLIENT, DNS, b"query", ip={"len": 27})),
        ("length 7", query6(len=7)),
        ("length 0", query6(len=0)),
        ("length beyond the packet", query6(len=14)),
    ],
    drops.FRAGMENT: [
        ("first piece of a ping", piece(PING, 0, 64)),
        ("last piece of a ping", piece(PING, 64, 108, more=False)),
        ("first piece of a ping over IPv6", piece(PING6, 0, 64)),
    ],
    drops.BAD_FRAGMENT: [
        ("13 bytes, and more to come", piece(LONG, 0, 37)),
        ("13 bytes, and more to come", piece(LONG6, 0, 37)),
        ("1 byte, and more to come", piece(LONG_UDP, 64, 65)),
        ("1 byte, and more to come", piece(LONG_UDP6, 64, 65)),
        ("beyond 65,535 bytes", far_piece(LONG_UDP)),
        ("beyond 65,535 bytes", far_piece(LONG_UDP6)),
    ],
    drops.FRAGMENT_TINY: [
        ("8 bytes of TCP", piece(LONG, 0, 8)),
        ("16 bytes of TCP", piece(LONG, 0, 16)),
        ("8 bytes of TCP", piece(LONG6, 0, 8)),
        ("16 bytes of TCP", piece(LONG6, 0, 16)),
        ("TCP from its flags on", piece(LONG, 8, 64)),
        ("TCP options beyond the piece", piece(tcp(CLIENT, WEB, "S", pattern(9), options=[("Timestamp", (1, 0))]), 0, 24)),
        ("TCP options beyond the piece", piece(tcp(CLIENT6, WEB6, "S", pattern(9), options=[("Timestamp", (1, 0))]), 0, 24)),
        ("options and no TCP", piece(syn6((DESTINATION, PAD14)), 0, 16)),
        ("half the options", piece(syn6((DESTINATION, PAD14)), 0, 8)),
    ],
    drops.BAD_ICMP: [
        *((f"{length} bytes of a message", cut(icmpv6("2001:db8:51::7", PORT_IP6, 128), length)) for length in range(1, 8)),
        *(
            (f"{length} bytes quoted", error("2001:db8:51::1", "2001:db8:2::100", TO_CLIENT6[:length]))
            for length in (0, 1, 39, 40, 47)
        ),
        ("a quote of IPv4", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(tcp(WEB, CLIENT, "A", b"12345678" * 3)))),
        ("to another VIP", error("2001:db8:51::1", "2001:db8:2::102", TO_CLIENT6)),
        ("to another client", error("2001:db8:2::11", "2001:db8:51::8", ip_packet(tcp(CLIENT6, SERVER6, "A", b"odd")))),
        ("a quoted piece", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(piece(tcp(WEB6, CLIENT6, "A", pattern(99)), 64, 80)))),
    ],
    drops.UNKNOWN_ICMP: [
        *((f"type {kind}", icmpv6("2001:db8:51::7", PORT_IP6, kind, bytes(20))) for kind in (0, 5, 100, 127, 129, 130, 138, 139, 200, 255)),
        *((f"type {kind} to a VIP", icmpv6("2001:db8:51::7", "2001:db8:2::100", kind, bytes(20))) for kind in (0, 5, 129, 140, 255)),
        ("ping to somebody else", icmpv6("2001:db8:51::7", "2001:db8:2::77", 128)),
        ("ping to a server", icmpv6("2001:db8:51::7", "2001:db8:2::11", 128)),
    ],
    drops.NO_SERVICE: [
        ("from one client to another", tcp(CLIENT6, "[2001:db8:51::8]:80", "S")),
        ("another port", tcp(CLIENT6, "[2001:db8:2::100]:81", "S")),
        ("another port, hop limit 1", tcp(CLIENT6, "[2001:db8:2::100]:81", "S", ip={"ttl": 1})),
        ("another protocol", udp(CLIENT6, WEB6, b"query")),
        ("our own address", tcp(CLIENT6, f"[{PORT_IP6}]:80", "S")),
        ("our own address", tcp(CLIENT, f"{PORT_IP}:80", "S")),
    ],
    drops.NO_BACKEND: [("every server has weight 0", tcp(CLIENT6, EMPTY6, "S"))],
    drops.NO_FLOW_NOT_SYN: [
        *((f"flags {flags}", tcp("[2001:db8:51::8]:7", WEB6, flags)) for flags in ("A", "FA", "R", "SA", "PA", "FPU")),
    ],
    drops.NO_FLOW: [
        ("a server's reply to nobody", tcp(SERVER6, "[2001:db8:51::8]:7", "SA")),
        ("a server's answer to nobody", udp(DNS_SERVER6, "[2001:db8:51::8]:7", b"answer")),
        ("error about nothing", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(tcp(WEB6, "[2001:db8:51::8]:7", "A", b"1234")))),
        ("error about another protocol", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(udp(WEB6, CLIENT6, b"1234")))),
        ("error about SCTP", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(tcp(WEB6, CLIENT6, "A", b"1234", ip={"nh": 132})))),
        ("error about an error", error("2001:db8:51::1", "2001:db8:2::100", ip_packet(error("2001:db8:2::100", "2001:db8:51::7", TO_CLIENT6)))),
    ],
    drops.TOO_BIG: [
        ("longer than the link, may be fragmented", tcp_of_ip_len(CLIENT, WEB, 1501)),
        ("too long for the tunnel, may be fragmented", tcp_of_ip_len(CLIENT, TUNNEL, 1481, ip={"flags": 0})),
    ],
}

# RFC 8200, 4.1: a header that comes twice should not, but is to be read all the same.
TWICE = (FRAGMENT, bytes(7)), (FRAGMENT, bytes(7)), (ROUTING, b"\x02\x02\0" + bytes(20)), (ROUTING, b"\0\xc8\0\0\0\0\0")
GOOD = syn(), syn6(), syn6(*TWICE), udp(CLIENT, DNS, b"query"), query6(), syn6((HOP_BY_HOP, PAD6), (DESTINATION, PAD14)), tagged(syn(), (100,))


@pytest.mark.parametrize("reason", REFUSED)
def test_refused(replay, reason):
    scenario = Scenario(APPLIANCE)
    # A TCP packet too long for its tunnel belongs to a flow, or it is refused for another reason.
    scenario.feed(*GOOD, tcp(CLIENT, TUNNEL, "S"), tcp(CLIENT6, TUNNEL6, "S"))
    for name, frame in REFUSED[reason]:
        scenario.feed(frame)
        assert scenario.verdicts[-1] == Dropped(reason), name
    replay(scenario.feed(*GOOD))


@pytest.mark.parametrize("good", (GOOD[1], GOOD[3], GOOD[4], GOOD[5]), ids=["SYN", "UDP over IPv4", "query", "SYN behind options"])
def test_no_beginning_of_a_frame_is_forwarded(replay, good):
    scenario = Scenario(APPLIANCE).feed(*(good[:length] for length in range(ETH_LEN, len(good))))
    assert not scenario.expected()
    replay(scenario.feed(good), exact_reasons=False)


def test_only_a_syn_opens_a_flow_over_ipv6(replay):
    """Every combination of the six flags of RFC 793, each from a client of its own."""
    scenario = Scenario(APPLIANCE)
    replay(scenario.feed(*(tcp(f"[2001:db8:51::9]:{1024 + flags}", WEB6, flags) for flags in range(64))))


@pytest.mark.parametrize("source", [LONG_UDP, LONG_UDP6], ids=["IPv4", "IPv6"])
def test_an_overlapping_piece_is_dropped(replay, source):
    """In IPv6 with all others of its packet (RFC 5722); the next packet is none the worse for it."""
    whole = pieces(ip_packet(source), (32, 64), 0x77)
    frames = [framed(packet, split(CLIENT if source is LONG_UDP else CLIENT6)[0]) for packet in whole]
    scenario = Scenario(APPLIANCE).feed(frames[0], frames[1], piece_of(frames[1], 8), frames[2], source)
    assert scenario.drops()[drops.FRAGMENT_OVERLAP] == (1 if source is LONG_UDP else 2)
    replay(scenario)


def piece_of(frame: bytes, back: int) -> bytes:
    """The fragment, moved towards the beginning of its packet."""
    packet = bytearray(ip_packet(frame))
    if packet[0] >> 4 == 4:
        ip = IP(bytes(packet))
        ip.frag -= back // 8
        del ip.chksum
        return framed(bytes(ip), split(CLIENT)[0])
    field = int.from_bytes(packet[IPV6_LEN + 2 : IPV6_LEN + 4], "big") - back
    packet[IPV6_LEN + 2 : IPV6_LEN + 4] = field.to_bytes(2, "big")
    return framed(bytes(packet), split(CLIENT6)[0])


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bytes_are_survived_over_ipv6(replay, seed):
    """One to three bytes of good frames are overwritten; whatever still is a packet is forwarded.

    But for TCP flags: they may end a flow, and when its endpoints may be used again is left open here.
    """
    rng = random.Random(seed)
    optional = syn6((HOP_BY_HOP, PAD6), (DESTINATION, PAD14))
    good = [syn6(), query6(), tcp(CLIENT6, WEB6, "PA", b"data"), tcp(SERVER6, CLIENT6, "PA", b"data"), optional]
    flags_at = {ETH_LEN + IPV6_LEN + 13, ETH_LEN + IPV6_LEN + 24 + 13}
    scenario = Scenario(APPLIANCE).feed(syn6(), query6())
    for _ in range(400):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            frame[rng.choice([at for at in range(ETH_LEN, len(frame)) if at not in flags_at])] = rng.randrange(256)
        scenario.feed(bytes(frame))
    assert len(scenario.expected()) > 20
    replay(scenario, exact_reasons=False)

"""Replay: what is said to who asks for something that is not there, to pings, and of packets that can not go on."""

import pytest

import drops
from appliance import BOTH_FAMILIES, GATEWAY6, NEAR_CLIENT6, PORT_IP, PORT_IP6, Appliance, Backend, Service, join
from frames import ETH_LEN, ICMP, IP, TCP, Ether, IPv6, icmpv6, ip_packet, padded, pattern, tcp, tcp_of_ip_len, udp
from replay import Scenario, play

CLIENTS = {4: "198.51.100.7", 6: "2001:db8:51::7"}
VIPS = {4: "192.0.2.100", 6: "2001:db8:2::100"}
QUIET = {4: "192.0.2.101", 6: "2001:db8:2::101"}
OWN = {4: PORT_IP, 6: PORT_IP6}
SERVERS = {4: "192.0.2.11", 6: "2001:db8:2::11"}
EACH_VERSION = pytest.mark.parametrize("ip", [4, 6], ids=["IPv4", "IPv6"])
UNREACHABLE = {4: (3, 3), 6: (1, 4)}


def without_backends(ip: int, answer: str | None) -> Appliance:
    """A TCP and a UDP service that nobody serves."""
    services = (
        Service(join(VIPS[ip], port), (Backend(join(SERVERS[ip], port), weight=0),), protocol, no_backend=answer)
        for protocol, port in (("tcp", 80), ("udp", 53))
    )
    return Appliance(tuple(services), interfaces=BOTH_FAMILIES)


def kind_of(frame: bytes) -> tuple | str:
    """Type and code of an ICMP message, or the flags of a TCP segment."""
    packet = Ether(frame)
    if IPv6 in packet and packet[IPv6].nh == 58:
        return tuple(frame[ETH_LEN + 40 : ETH_LEN + 42])
    return (packet[ICMP].type, packet[ICMP].code) if ICMP in packet else str(packet[TCP].flags)


@EACH_VERSION
@pytest.mark.parametrize("answer", [None, "icmp", "rst", "drop"])
def test_without_a_backend(replay, ip, answer):
    """A UDP service can not reset; a dropped packet is counted, an answered one is not."""
    scenario = Scenario(without_backends(ip, answer))
    client, far = join(CLIENTS[ip], 31337), {"seq": 0xFFFFFFFE}
    asked = [
        tcp(client, join(VIPS[ip], 80), "S"),
        tcp(client, join(VIPS[ip], 80), "S", b"data", **far),
        padded(tcp(client, join(VIPS[ip], 80), "S", options=[("MSS", 1460)], ip={"tos": 0xB9, "ttl": 2})),
        udp(client, join(VIPS[ip], 53), b"query"),
        udp(client, join(VIPS[ip], 53), pattern(1400)),
    ]
    kinds = [kind_of(frame) for frame in replay(scenario.feed(*asked)).sent]
    expected = {"drop": [], "rst": ["RA"] * 3 + [UNREACHABLE[ip]] * 2}.get(answer, [UNREACHABLE[ip]] * 5)
    assert sorted(map(str, kinds)) == sorted(map(str, expected))
    assert scenario.drops() == ({drops.NO_BACKEND: 5} if answer == "drop" else {})


@EACH_VERSION
@pytest.mark.parametrize("answer", ["icmp", "rst", "drop"])
@pytest.mark.parametrize("where", [VIPS, OWN], ids=["VIP", "own address"])
def test_without_a_service(replay, ip, answer, where):
    services = (Service(join(VIPS[ip], 80), (Backend(join(SERVERS[ip], 80)),)),)
    appliance = Appliance(services, interfaces=BOTH_FAMILIES, no_service=answer)
    client, there = join(CLIENTS[ip], 31337), join(where[ip], 81)
    scenario = Scenario(appliance)
    for flags in ("S", "SA", "A", "FA", "PA", "R", "RA"):
        scenario.feed(tcp(client, there, flags, b"odd" if "P" in flags else b"", ack=77))
    scenario.feed(udp(client, there, b"query"), tcp(client, there, "S", ip={"ttl": 1}))
    replay(scenario)


# The rest is about IPv6; `test_icmp` has the same of IPv4.


def appliance6(mtu: int = 1500) -> Appliance:
    """A service of each mode over IPv6, and one that answers no pings."""
    servers = {"nat": "[2001:db8:2::11]:8000", "dr": "[2001:db8:2::12]:80", "tunnel": "[2001:db8:2::13]:80"}
    services = [
        Service(f"[2001:db8:2::20{number}]:80", (Backend(server, mode),))
        for number, (mode, server) in enumerate(servers.items())
    ]
    quiet = Service(join(QUIET[6], 80), (Backend("[2001:db8:2::12]:80", "dr"),), echo=False)
    loud = Service(join(QUIET[6], 81), (Backend("[2001:db8:2::12]:81", "dr"),))
    quiet4 = Service(join(QUIET[4], 80), (Backend("192.0.2.12:80", "dr"),), echo=False)
    return Appliance((*services, quiet, loud, quiet4), mtu=mtu, interfaces=BOTH_FAMILIES)


MODES6 = {"nat": "[2001:db8:2::200]:80", "dr": "[2001:db8:2::201]:80", "tunnel": "[2001:db8:2::202]:80"}
EACH_MODE = pytest.mark.parametrize("mode", MODES6)
CLIENT6 = "[2001:db8:51::7]:31337"


def ping6(dst: str, body: bytes = b"abcdefgh", src: str = CLIENTS[6], **fields) -> bytes:
    """An echo request over IPv6."""
    return icmpv6(src, dst, 128, body, **{"rest": b"\x04\xd2\0\x07", **fields})


@pytest.mark.parametrize("dst", [PORT_IP6, "2001:db8:2::200", "2001:db8:2::201", "2001:db8:2::202"])
@pytest.mark.parametrize("src", [CLIENTS[6], NEAR_CLIENT6, GATEWAY6])
def test_pings_over_ipv6_are_answered(replay, dst, src):
    scenario = Scenario(appliance6())
    scenario.feed(*(ping6(dst, pattern(length), src) for length in (0, 1, 2, 17, 55, 56, 57, 1451, 1452)))
    for ip in ({"tos": 0xB9}, {"fl": 0}, {"ttl": 255}, {"ttl": 1}, {"ttl": 0}):
        scenario.feed(ping6(dst, b"odd", src, ip=ip))
    answers = [Ether(frame)[IPv6] for frame in replay(scenario).sent]
    assert {(p.src, p.dst, p.hlim) for p in answers} == {(dst, src, 64)}


def test_wrong_and_zero_checksums_of_pings_over_ipv6(replay):
    right = int.from_bytes(ping6(PORT_IP6)[ETH_LEN + 42 : ETH_LEN + 44], "big")
    scenario = Scenario(appliance6())
    replay(scenario.feed(*(ping6(PORT_IP6, chksum=(right + error) % 0xFFFF) for error in (0, 1, 0x0100, 0xFFFE))))


def test_every_checksum_of_a_ping_over_ipv6_is_right(replay):
    scenario = Scenario(appliance6())
    numbers = ((number * 0x0101).to_bytes(2, "big") + (0xFFFF - number * 255).to_bytes(2, "big") for number in range(256))
    replay(scenario.feed(*(ping6(PORT_IP6, b"", rest=rest) for rest in numbers)))


def test_a_vip_answers_pings_only_if_all_its_services_do(replay):
    scenario = Scenario(appliance6()).feed(ping6(QUIET[6]), ping6(PORT_IP6))
    assert scenario.drops() == {drops.ECHO_REFUSED: 1}
    replay(scenario)


@EACH_MODE
@pytest.mark.parametrize("hop_limit", [0, 1])
def test_the_sender_learns_that_the_hop_limit_is_exceeded(replay, mode, hop_limit):
    scenario = Scenario(appliance6())
    for client in (CLIENT6, f"[{NEAR_CLIENT6}]:40000"):
        ip = {"ttl": hop_limit, "tos": 7}
        scenario.feed(tcp(client, MODES6[mode], "S", ip=ip), tcp(client, MODES6[mode], "S"))
        scenario.feed(tcp(client, MODES6[mode], "PA", pattern(1400), ip=ip))
    told = [frame for frame in replay(scenario).sent if kind_of(frame) == (3, 0)]
    assert len(told) == 4
    assert {Ether(frame)[IPv6].src for frame in told} == {PORT_IP6}
    assert told[0][ETH_LEN + 48 :] == ip_packet(scenario.frames[0])


def test_as_much_is_quoted_as_fits_into_1280_bytes(replay):
    scenario = Scenario(appliance6())
    lengths = (60, 61, 1231, 1232, 1233, 1280, 1500)
    scenario.feed(*(tcp_of_ip_len(CLIENT6, MODES6["nat"], length, ip={"ttl": 1}) for length in lengths))
    quoted = [len(frame) - ETH_LEN - 48 for frame in replay(scenario).sent]
    assert quoted == [60, 61, 1231, 1232, 1232, 1232, 1232]


@pytest.mark.parametrize("mtu", [1500, 1320, 9000])
def test_the_sender_learns_the_mtu_over_ipv6(replay, mtu):
    """In the tunnel 40 bytes less, but never less than IPv6 asks of every link."""
    scenario = Scenario(appliance6(mtu))
    longest = {"nat": mtu, "dr": mtu, "tunnel": mtu - 40}
    for mode, limit in longest.items():
        scenario.feed(tcp(CLIENT6, MODES6[mode], "S"))
        scenario.feed(*(tcp_of_ip_len(CLIENT6, MODES6[mode], length) for length in (limit, limit + 1, limit)))
    told = [frame for frame in replay(scenario).sent if kind_of(frame) == (2, 0)]
    assert [int.from_bytes(frame[ETH_LEN + 44 : ETH_LEN + 48], "big") for frame in told] == list(longest.values())


def test_nobody_is_told_of_less_than_ipv6_asks_of_a_link(replay):
    """RFC 8200, 5: every link carries 1280 bytes; one that can not is no reason to ask a sender for less."""
    scenario = Scenario(appliance6(1300)).feed(tcp(CLIENT6, MODES6["tunnel"], "S"))
    scenario.feed(*(tcp_of_ip_len(CLIENT6, MODES6["tunnel"], length) for length in (1260, 1261, 1280, 1281, 1300)))
    replay(scenario)


def test_answers_over_ipv6_are_limited(tmp_path_factory):
    """RFC 4443, 2.4 (f)"""
    limited = Appliance(appliance6().services, interfaces=BOTH_FAMILIES, sections=("[icmp]\nrate = 10",))
    scenario = Scenario(limited).feed(*(ping6(PORT_IP6, rest=n.to_bytes(4, "big")) for n in range(64)))
    outcome = play(scenario, tmp_path_factory.mktemp("run"), lambda sent: None)
    assert 10 <= len(outcome.sent) < 20
    assert outcome.drops == {drops.ICMP_RATE: 64 - len(outcome.sent)}

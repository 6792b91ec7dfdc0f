"""Replay: what the appliance says itself by ICMP: echo replies, time exceeded, fragmentation needed."""

from collections import Counter

import pytest

import drops
from appliance import GATEWAY, NEAR_CLIENT, PORT_IP, Appliance, Backend, Service, split
from frames import ETH_LEN, ICMP, IP, Ether, icmp, ip_packet, padded, pattern, tcp, tcp_of_ip_len, udp
from replay import Scenario, is_answer, play, what_is
from verdict import Dropped

FAR_CLIENT = "198.51.100.7"
CLIENT = f"{FAR_CLIENT}:31337"
NAT, DR, TUNNEL, DNS = "192.0.2.100:80", "192.0.2.101:80", "192.0.2.102:80", "192.0.2.103:53"
SERVER, DNS_SERVER = "192.0.2.11:8000", "192.0.2.11:5353"
MODES = {"nat": NAT, "dr": DR, "tunnel": TUNNEL}
EACH_MODE = pytest.mark.parametrize("mode", MODES)
ANSWERED = [PORT_IP, *(split(vip)[0] for vip in (NAT, DR, TUNNEL, DNS))]
ANSWERS_PER_SEC = 1000


def appliance(mtu: int = 1500) -> Appliance:
    """A TCP service for each mode and a UDP service, each with one server."""
    return Appliance(
        services=(
            Service(NAT, (Backend(SERVER, "nat"),)),
            Service(DR, (Backend("192.0.2.12:80", "dr"),)),
            Service(TUNNEL, (Backend("192.0.2.13:80", "tunnel"),)),
            Service(DNS, (Backend(DNS_SERVER, "nat"),), "udp"),
        ),
        mtu=mtu,
    )


def ping(dst: str, body: bytes = b"abcdefgh", src: str = FAR_CLIENT, **fields) -> bytes:
    """An echo request."""
    return icmp(src, dst, 8, body, **{"id": 0x4D2, "seq": 7, **fields})


@pytest.mark.parametrize("address", ANSWERED)
@pytest.mark.parametrize("src", [FAR_CLIENT, NEAR_CLIENT])
def test_echo_is_answered_by_the_route_to_its_sender(replay, address, src):
    scenario = Scenario(appliance()).feed(ping(address, src=src), ping(address, src=src, seq=8))
    # A request that came by another way: its answer goes where the routes say.
    scenario.feed(ping(address, src=src, eth={"src": "02:00:5e:00:53:aa"}))
    next_hop = scenario.appliance.neighbours[NEAR_CLIENT if src == NEAR_CLIENT else GATEWAY]
    answers = [Ether(frame) for frame in replay(scenario).sent]
    assert [(p.dst, p[IP].src, p[IP].dst, p[IP].ttl) for p in answers] == [(next_hop, address, src, 64)] * 3
    assert [(p[ICMP].type, p[ICMP].id, p[ICMP].seq) for p in answers] == [(0, 0x4D2, seq) for seq in (7, 8, 7)]


def test_echo_data_and_header_fields_come_back_unchanged(replay):
    scenario = Scenario(appliance())
    scenario.feed(*(ping(PORT_IP, pattern(length)) for length in (0, 1, 2, 17, 55, 56, 57, 1471, 1472)))
    for ip in ({"tos": 0xB9}, {"id": 0}, {"id": 0xFFFF}, {"flags": "DF"}, {"ttl": 255}, {"ttl": 1}, {"ttl": 0}):
        scenario.feed(ping(PORT_IP, ip=ip), ping(split(NAT)[0], ip=ip))
    scenario.feed(padded(ping(PORT_IP, b"odd"), 0xA5), padded(ping(PORT_IP, b""), 0xFF))
    replay(scenario)


def test_echo_keeps_ip_options(replay):
    options = IP(bytes(IP(ihl=7))[:20] + b"\x94\x04\0\0\x01\x01\x01\x01").options
    replay(Scenario(appliance()).feed(ping(PORT_IP, ip={"options": options}), ping(ANSWERED[1], b"odd")))


def test_echo_of_a_jumbo_frame(replay):
    scenario = Scenario(appliance(mtu=9000))
    replay(scenario.feed(*(ping(PORT_IP, pattern(length)) for length in (2000, 2049, 8971, 8972))))


def test_a_wrong_echo_checksum_stays_wrong(replay):
    scenario = Scenario(appliance())
    right = ICMP(ip_packet(ping(PORT_IP))[20:]).chksum
    scenario.feed(*(ping(PORT_IP, chksum=(right + error) % 0xFFFF) for error in (0, 1, 0x0100, 0x8000, 0xFFFE)))
    replay(scenario)


def test_the_checksum_of_an_echo_reply_of_zeros_is_all_ones(replay):
    """The sum of nothing but zeros is 0, so its complement can not be written as 0 here (RFC 1071)."""
    scenario = Scenario(appliance()).feed(ping(PORT_IP, bytes(56), id=0, seq=0), ping(PORT_IP, b"", id=0, seq=0))
    assert [Ether(frame)[ICMP].chksum for frame in replay(scenario).sent] == [0xFFFF, 0xFFFF]


def test_every_echo_checksum_is_right(replay):
    """Requests whose checksums go through all carries of the sum."""
    scenario = Scenario(appliance())
    scenario.feed(*(ping(PORT_IP, b"", id=number * 0x0101, seq=0x0800 - number) for number in range(256)))
    replay(scenario)


# name, reason, frame
UNANSWERED = [
    ("echo to somebody else", drops.UNKNOWN_ICMP, ping("192.0.2.77")),
    ("echo to a server", drops.UNKNOWN_ICMP, ping("192.0.2.11")),
    ("echo to a client", drops.UNKNOWN_ICMP, ping("198.51.100.9", src="192.0.2.11")),
    ("fragment of an echo", drops.FRAGMENT, ping(PORT_IP, ip={"flags": "MF"})),
    ("echo to another MAC", drops.NOT_OUR_MAC, ping(PORT_IP, eth={"dst": "02:00:5e:00:53:fe"})),
    ("echo with a wrong IP checksum", drops.BAD_IP_CHECKSUM, ping(PORT_IP, ip={"chksum": 0x1234})),
    ("echo cut short", drops.FRAME_CUT_SHORT, ping(PORT_IP)[:-1]),
    *(
        (f"type {kind} to {address}", drops.UNKNOWN_ICMP, icmp(FAR_CLIENT, address, kind, bytes(20)))
        for kind in (0, 4, 5, 9, 10, 13, 14, 15, 17, 30, 42, 255)
        for address in (PORT_IP, "192.0.2.100", "192.0.2.77")
    ),
]


def test_other_messages_are_dropped(replay):
    scenario = Scenario(appliance())
    for name, reason, frame in UNANSWERED:
        scenario.feed(frame)
        assert scenario.verdicts[-1] == Dropped(reason), name
    replay(scenario.feed(ping(PORT_IP)))


def test_a_message_without_all_of_its_header_is_dropped(replay):
    scenario = Scenario(appliance())
    for length in range(8):
        for kind in (8, 3):
            ip = IP(src=FAR_CLIENT, dst=PORT_IP, proto=1)
            message = bytes(ICMP(type=kind))[:length]
            scenario.feed(padded(bytes(Ether(ping(PORT_IP)[:ETH_LEN]) / ip / message)))
    assert scenario.drops() == {drops.BAD_ICMP: 16}
    replay(scenario)


@pytest.mark.parametrize("src", ["0.0.0.0", "127.0.0.1", "224.0.0.7", "240.0.0.1", "255.255.255.255"])
def test_nobody_is_told_anything(replay, src):
    """RFC 1122, 3.2.2: a source that is no single host gets no ICMP error; an echo reply neither."""
    scenario = Scenario(appliance()).feed(
        tcp(f"{src}:31337", NAT, "S", ip={"ttl": 1}),
        tcp(f"{src}:31337", TUNNEL, "S", pattern(1450), ip={"flags": "DF"}),
    )
    assert not scenario.expected()
    scenario.feed(ping(PORT_IP, src=src))
    scenario.verdicts[-1] = Dropped(drops.UNKNOWN_ICMP)
    replay(scenario.feed(ping(PORT_IP)), exact_reasons=False)


def test_broadcast_frames_are_not_answered(replay):
    everybody = {"dst": "ff:ff:ff:ff:ff:ff"}
    scenario = Scenario(appliance()).feed(
        tcp(CLIENT, NAT, "S", ip={"ttl": 1}, eth=everybody),
        tcp(CLIENT, TUNNEL, "S", pattern(1450), ip={"flags": "DF"}, eth=everybody),
    )
    assert not scenario.expected()
    replay(scenario, exact_reasons=False)


def test_answers_are_limited_and_nothing_else_is(tmp_path_factory):
    """More at once than may be answered in a second; whatever is forwarded is not held up."""
    scenario = Scenario(appliance()).feed(tcp(CLIENT, NAT, "S"))
    for number in range(1500):
        scenario.feed(ping(PORT_IP, seq=number), tcp(CLIENT, NAT, "S", ip={"ttl": 1, "id": number}))
        scenario.feed(tcp(CLIENT, NAT, "A"))
    outcome = play(scenario, tmp_path_factory.mktemp("run"), lambda sent: None)
    answers = [frame for frame in outcome.sent if is_answer(frame)]
    assert ANSWERS_PER_SEC <= len(answers) < 2 * ANSWERS_PER_SEC
    assert len(outcome.sent) - len(answers) == 1501
    assert set(answers) <= {verdict.frame for _, verdict in scenario.expected()}
    assert len(set(answers)) == len(answers)
    said = Counter(map(what_is, answers))
    # A packet nobody is told about is dropped for what it is.
    silent = {drops.ICMP_RATE: 1500 - said["echo reply"], drops.TTL_EXCEEDED: 1500 - said["error 11"]}
    assert said["echo reply"] and said["error 11"] and outcome.drops == silent


@EACH_MODE
@pytest.mark.parametrize("ttl", [0, 1])
def test_the_sender_learns_that_the_ttl_is_exceeded(replay, mode, ttl):
    scenario = Scenario(appliance())
    for client in (CLIENT, f"{NEAR_CLIENT}:40000"):
        opening = tcp(client, MODES[mode], "S", ip={"ttl": ttl, "tos": 7, "flags": "DF"})
        scenario.feed(opening, tcp(client, MODES[mode], "S"), tcp(client, MODES[mode], "PA", ip={"ttl": ttl}))
    answers = [frame for frame in replay(scenario).sent if is_answer(frame)]
    [first, *_] = answers
    assert len(answers) == 4
    assert (Ether(first)[IP].src, Ether(first)[IP].dst, Ether(first)[IP].tos) == (PORT_IP, FAR_CLIENT, 0xC0)
    assert (Ether(first)[ICMP].type, Ether(first)[ICMP].code) == (11, 0)
    assert first[ETH_LEN + 28 :] == ip_packet(scenario.frames[0])


def test_ttl_exceeded_over_udp_and_by_a_servers_reply(replay):
    scenario = Scenario(appliance()).feed(
        udp(CLIENT, DNS, b"query", ip={"ttl": 1}), udp(CLIENT, DNS, b"query"), tcp(CLIENT, NAT, "S")
    )
    for ttl in (1, 0):
        scenario.feed(udp(DNS_SERVER, CLIENT, b"answer", ip={"ttl": ttl}), tcp(SERVER, CLIENT, "SA", ip={"ttl": ttl}))
    scenario.feed(udp(DNS_SERVER, CLIENT, b"answer"), tcp(SERVER, CLIENT, "SA"))
    told = [Ether(frame)[IP].dst for frame in replay(scenario).sent if is_answer(frame)]
    assert told == [FAR_CLIENT, *["192.0.2.11"] * 4]


def test_a_packet_that_ends_here_makes_no_flow(replay):
    scenario = Scenario(Appliance((Service(NAT, (Backend(SERVER), Backend("192.0.2.12:8000"))),)))
    scenario.feed(
        tcp(CLIENT, NAT, "S", ip={"ttl": 1}),
        tcp(CLIENT, NAT, "A"),
        tcp(SERVER, CLIENT, "SA"),
        tcp("198.51.100.8:1024", NAT, "S"),
    )
    assert scenario.drops() == {drops.NO_FLOW_NOT_SYN: 1, drops.NO_FLOW: 1}
    assert scenario.backend("198.51.100.8:1024", NAT) == SERVER
    replay(scenario)


def test_as_much_is_quoted_as_fits_into_576_bytes(replay):
    scenario = Scenario(appliance())
    for length in (40, 41, 547, 548, 549, 576, 1499, 1500):
        scenario.feed(tcp_of_ip_len(CLIENT, NAT, length, ip={"ttl": 1}))
    sent = replay(scenario).sent
    assert [len(frame) - ETH_LEN - 28 for frame in sent] == [40, 41, 547, 548, 548, 548, 548, 548]


def test_the_quote_is_the_packet_as_it_came(replay):
    options = IP(bytes(IP(ihl=6))[:20] + b"\x94\x04\0\0").options
    scenario = Scenario(appliance()).feed(
        padded(tcp(CLIENT, NAT, "S", ip={"ttl": 1}), 0xA5),
        padded(udp(CLIENT, DNS, b"", ip={"ttl": 1}), 0xFF),
        tcp(CLIENT, NAT, "S", ip={"ttl": 1, "options": options}),
        tcp(CLIENT, NAT, "S", b"odd", ip={"ttl": 1}, chksum=0x1234),
        udp(CLIENT, DNS, b"odd", ip={"ttl": 1}, chksum=0),
    )
    for received, sent in zip(scenario.frames, replay(scenario).sent, strict=True):
        total_len = int.from_bytes(received[16:18], "big")
        assert sent[ETH_LEN + 28 :] == ip_packet(received, total_len)


@pytest.mark.parametrize("mtu", [1500, 9000])
def test_the_sender_learns_the_mtu_of_the_next_hop(replay, mtu):
    """What a packet that must not be fragmented is too long for; in the tunnel 20 bytes less."""
    scenario = Scenario(appliance(mtu))
    longest = {NAT: mtu, DR: mtu, TUNNEL: mtu - 20}
    for vip, limit in longest.items():
        scenario.feed(tcp(CLIENT, vip, "S"))
        for length in (limit, limit + 1, limit + 20, limit):
            scenario.feed(tcp_of_ip_len(CLIENT, vip, length, ip={"flags": "DF"}))
    scenario.feed(*(tcp_of_ip_len(SERVER, CLIENT, length, ip={"flags": "DF"}) for length in (mtu, mtu + 1)))
    answers = [Ether(frame) for frame in replay(scenario).sent if is_answer(frame)]
    assert {(p[ICMP].type, p[ICMP].code) for p in answers} == {(3, 4)}
    assert [p[ICMP].nexthopmtu for p in answers] == [*[mtu] * 4, *[mtu - 20] * 2, mtu]
    assert [p[IP].dst for p in answers] == [*[FAR_CLIENT] * 6, "192.0.2.11"]


@EACH_MODE
def test_a_packet_that_may_be_fragmented_is_dropped_if_too_long(replay, mode):
    scenario = Scenario(appliance()).feed(tcp(CLIENT, MODES[mode], "S"))
    scenario.feed(tcp_of_ip_len(CLIENT, MODES[mode], 1501), tcp(CLIENT, MODES[mode], "A"))
    assert scenario.drops() == {drops.TOO_BIG: 1}
    replay(scenario)


def test_a_packet_too_old_and_too_long_is_too_old(replay):
    ip = {"ttl": 1, "flags": "DF"}
    scenario = Scenario(appliance()).feed(tcp(CLIENT, TUNNEL, "S"), tcp_of_ip_len(CLIENT, TUNNEL, 1500, ip=ip))
    [answer] = [frame for frame in replay(scenario).sent if is_answer(frame)]
    assert Ether(answer)[ICMP].type == 11

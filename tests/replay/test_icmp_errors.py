"""Replay: ICMP errors of others, passed to whoever sent the packet that they quote."""

import pytest

import drops
from appliance import Appliance, Backend, Service, split
from frames import ETH_LEN, ICMP, IP, MIN_FRAME_LEN, TCP, UDP, Ether, icmp, ip_packet, padded, pattern, tcp, udp
from frames import word_that_zeroes_udp
from replay import Scenario
from session import BURST
from verdict import Dropped, Sent

CLIENT_IP, ROUTER = "198.51.100.7", "198.51.100.1"
CLIENT = f"{CLIENT_IP}:31337"
NAT, DR, TUNNEL, DNS = "192.0.2.100:80", "192.0.2.101:80", "192.0.2.102:80", "192.0.2.103:53"
SERVER_IP, SERVER, DNS_SERVER = "192.0.2.11", "192.0.2.11:8000", "192.0.2.11:5353"
MODES = {"nat": NAT, "dr": DR, "tunnel": TUNNEL}
EACH_MODE = pytest.mark.parametrize("mode", MODES)
# type, code, fields
ERRORS = [
    (3, 0, {}),
    (3, 1, {}),
    (3, 3, {}),
    (3, 4, {"nexthopmtu": 1400}),
    (3, 13, {}),
    (11, 0, {}),
    (11, 1, {}),
    (12, 0, {"ptr": 20}),
]
APPLIANCE = Appliance(
    services=(
        Service(NAT, (Backend(SERVER, "nat"),)),
        Service(DR, (Backend("192.0.2.12:80", "dr"),)),
        Service(TUNNEL, (Backend("192.0.2.13:80", "tunnel"),)),
        Service(DNS, (Backend(DNS_SERVER, "nat"),), "udp"),
    )
)


def opened() -> Scenario:
    """One live flow of each service, all opened in an earlier burst: no error is as quick as that."""
    scenario = Scenario(APPLIANCE).feed(*(tcp(CLIENT, vip, "S") for vip in MODES.values()))
    return scenario.feed(*(udp(CLIENT, DNS, b"query") for _ in range(BURST - len(MODES))))


def to_client(vip: str, payload: bytes = b"", **fields) -> bytes:
    """The packet that a client's router sees from a VIP, and may send an error about."""
    build = udp if vip == DNS else tcp
    return ip_packet(build(vip, CLIENT, payload=payload, **fields))


def to_server(endpoint: str, payload: bytes = b"", **fields) -> bytes:
    """The packet that a NAT server, or a router before it, sees from the client."""
    build = udp if endpoint == DNS_SERVER else tcp
    return ip_packet(build(CLIENT, endpoint, payload=payload, **fields))


def error(src: str, quote: bytes, kind: int = 3, code: int = 3, **fields) -> bytes:
    """An ICMP error to the sender of the packet that it quotes."""
    return icmp(src, ".".join(map(str, quote[12:16])), kind, quote, code=code, **fields)


def sent_last(replay, scenario: Scenario) -> Ether:
    """The frame that came of the last one."""
    replay(scenario)
    return Ether(scenario.verdicts[-1].frame)


@EACH_MODE
@pytest.mark.parametrize("kind, code, fields", ERRORS)
def test_a_clients_error_reaches_the_server(replay, mode, kind, code, fields):
    quote = to_client(MODES[mode], b"odd")
    scenario = opened()
    for src in (CLIENT_IP, ROUTER):
        for length in (28, 32, 36, 37, 38, 39, 40, 43):
            scenario.feed(error(src, quote[:length], kind, code, **fields))
            scenario.feed(padded(error(src, quote[:length], kind, code, ip={"tos": 0xC0, "ttl": 2}, **fields), 0xA5))
    packet = sent_last(replay, scenario)[IP]
    server = {"nat": SERVER_IP, "dr": split(DR)[0], "tunnel": "192.0.2.13"}[mode]
    assert (packet.dst, packet.ttl) == (server, 1)


@pytest.mark.parametrize("kind, code, fields", ERRORS)
def test_a_clients_error_reaches_a_udp_server(replay, kind, code, fields):
    scenario = opened()
    for payload in (b"", b"odd", pattern(512)):
        quote = to_client(DNS, payload)
        scenario.feed(*(error(CLIENT_IP, quote[:length], kind, code, **fields) for length in (28, 29, 30, 540)))
    scenario.feed(error(CLIENT_IP, to_client(DNS, b"odd", chksum=0), kind, code, **fields))
    packet = sent_last(replay, scenario)
    assert (packet[IP].dst, UDP(bytes(packet)[ETH_LEN + 48 :]).chksum) == (SERVER_IP, 0)


@pytest.mark.parametrize("server", [SERVER, DNS_SERVER])
@pytest.mark.parametrize("kind, code, fields", ERRORS)
def test_an_error_behind_the_appliance_reaches_the_client(replay, server, kind, code, fields):
    scenario = opened()
    for payload in (b"", b"odd", pattern(512)):
        quote = to_server(server, payload)
        for src in (SERVER_IP, "192.0.2.12", "203.0.113.1"):
            lengths = (28, 36, 37, 38, 548)
            scenario.feed(*(error(src, quote[:length], kind, code, **fields) for length in lengths))
    scenario.feed(error(SERVER_IP, quote, kind, code, **fields))
    packet = sent_last(replay, scenario)
    vip = NAT if server == SERVER else DNS
    assert (packet[IP].src, packet[IP].dst) == (split(vip)[0], CLIENT_IP)
    assert split(vip)[0] == packet[ICMP].payload.dst


def test_what_nat_changed_is_changed_back_in_the_quote(replay):
    """The server finds its own packet in the error about it, the client its own too, byte by byte."""
    scenario = opened()
    said = {
        ROUTER: [tcp(SERVER, CLIENT, "PA", pattern(99)), udp(DNS_SERVER, CLIENT, pattern(99))],
        "192.0.2.12": [tcp(CLIENT, NAT, "PA", pattern(99)), udp(CLIENT, DNS, pattern(99))],
    }
    said[ROUTER].append(udp(DNS_SERVER, CLIENT, word_that_zeroes_udp(DNS_SERVER, CLIENT)))
    said[ROUTER].append(udp(DNS_SERVER, CLIENT, word_that_zeroes_udp(DNS, CLIENT)))
    said["192.0.2.12"].append(udp(CLIENT, DNS, word_that_zeroes_udp(CLIENT, DNS)))
    said["192.0.2.12"].append(udp(CLIENT, DNS, word_that_zeroes_udp(CLIENT, DNS_SERVER)))
    own = []
    for src, frames in said.items():
        for frame in frames:
            scenario.feed(frame)
            seen = ip_packet(scenario.verdicts[-1].frame)
            scenario.feed(error(src, seen))
            one_hop_on = IP(ip_packet(frame))
            one_hop_on.ttl -= 1
            del one_hop_on.chksum
            own.append(bytes(one_hop_on))
    replay(scenario)
    errors = [frame for frame in (v.frame for v in scenario.verdicts) if ICMP in Ether(frame)]
    assert [frame[ETH_LEN + 28 :] for frame in errors] == own


def test_a_quoted_tcp_checksum_of_zero_is_a_checksum(replay):
    """One packet in 65,536 has it; only UDP has checksums that are not there."""
    scenario = opened()
    for build, src in ((to_client, NAT), (to_server, SERVER)):
        zero = TCP(build(src, b"\0\0")[20:]).chksum.to_bytes(2, "big")
        quote = build(src, zero)
        assert TCP(quote[20:]).chksum == 0
        scenario.feed(error(ROUTER, quote))
    replay(scenario)


@EACH_MODE
def test_direct_modes_leave_the_message_as_it_is(replay, mode):
    frame = error(ROUTER, to_client(MODES[mode], b"odd"))
    sent = bytes(sent_last(replay, opened().feed(frame)))
    inner = sent[ETH_LEN + (20 if mode == "tunnel" else 0) :]
    assert (inner[20:] == ip_packet(frame)[20:]) == (mode != "nat")


@EACH_MODE
def test_options_in_the_quote_and_around_it_are_carried(replay, mode):
    options = IP(bytes(IP(ihl=7))[:20] + b"\x94\x04\0\0\x01\x01\x01\x01").options
    quote = to_client(MODES[mode], b"odd", ip={"options": options})
    scenario = opened().feed(*(error(ROUTER, quote[:length]) for length in (36, 44, 46, 51)))
    scenario.feed(error(ROUTER, quote[:36], ip={"options": options}))
    if mode == "nat":
        back = to_server(SERVER, b"odd", ip={"options": options})
        scenario.feed(*(error(SERVER_IP, back[:length], ip={"options": options}) for length in (36, 46, 51)))
    replay(scenario)


@EACH_MODE
def test_extensions_behind_the_quote_are_carried(replay, mode):
    """RFC 4884: the original datagram fills 128 bytes, its length is told in words, objects follow."""
    quote = to_client(MODES[mode], b"odd").ljust(128, b"\0") + bytes.fromhex("2000000000080101 00640145")
    replay(opened().feed(error(ROUTER, quote, 11, 0, length=32), error(ROUTER, quote, 3, 1, length=32)))


@EACH_MODE
def test_the_first_fragment_may_be_quoted(replay, mode):
    scenario = opened().feed(error(ROUTER, to_client(MODES[mode], b"odd", ip={"flags": "MF"}), 11, 1))
    assert isinstance(scenario.verdicts[-1], Sent)
    replay(scenario)


@EACH_MODE
def test_a_wrong_checksum_of_an_error_stays_wrong(replay, mode):
    """In the message, the quoted IPv4 header and the quoted segment alike."""
    scenario = opened()
    right = ICMP(ip_packet(error(ROUTER, to_client(MODES[mode])))[20:]).chksum
    for difference in (1, 0x0100, 0xFFFE):
        scenario.feed(error(ROUTER, to_client(MODES[mode]), chksum=(right + difference) % 0xFFFF))
    scenario.feed(error(ROUTER, to_client(MODES[mode], ip={"chksum": 0x1234})))
    scenario.feed(error(ROUTER, to_client(MODES[mode], chksum=0x1234)))
    replay(scenario)


@EACH_MODE
def test_a_quoted_ttl_of_any_value_is_kept(replay, mode):
    quotes = [to_client(MODES[mode], ip={"ttl": ttl}) for ttl in (0, 1, 255)]
    replay(opened().feed(*(error(ROUTER, quote, 11, 0) for quote in quotes)))


@EACH_MODE
def test_errors_never_change_the_flow(replay, mode):
    """Not even such as say that all is over, or quote the packet that ends it."""
    scenario = opened()
    for flags in ("R", "RA", "FA", "S", "SA"):
        scenario.feed(*(error(ROUTER, to_client(MODES[mode], flags=flags), 3, code) for code in (1, 2, 3)))
        scenario.feed(tcp(CLIENT, MODES[mode], "PA", b"data"))
        if mode == "nat":
            scenario.feed(error(SERVER_IP, to_server(SERVER, flags=flags), 3, 3), tcp(SERVER, CLIENT, "PA", b"data"))
    replay(scenario)


def test_errors_are_not_limited_like_answers(replay):
    scenario = opened()
    replay(scenario.feed(*(error(ROUTER, to_client(NAT, ip={"id": number})) for number in range(1500))))


@EACH_MODE
def test_an_error_at_the_end_of_its_ttl_is_dropped_in_silence(replay, mode):
    """RFC 1122, 3.2.2: no ICMP error about an ICMP error."""
    scenario = opened().feed(*(error(ROUTER, to_client(MODES[mode]), ip={"ttl": ttl}) for ttl in (0, 1)))
    if mode == "nat":
        scenario.feed(*(error(SERVER_IP, to_server(SERVER), ip={"ttl": ttl}) for ttl in (0, 1)))
    assert scenario.drops() == {drops.TTL_EXCEEDED: 4 if mode == "nat" else 2}
    replay(scenario)


@EACH_MODE
def test_an_error_too_long_for_the_next_hop_is_dropped_in_silence(replay, mode):
    room = 1480 if mode == "tunnel" else 1500
    quote = to_client(MODES[mode], pattern(1440))
    scenario = opened()
    for length in (room - 28, room - 27):
        scenario.feed(*(error(ROUTER, quote.ljust(1500, b"\0")[:length], ip={"flags": flags}) for flags in ("DF", 0)))
    assert scenario.drops() == {drops.TOO_BIG: 2}
    replay(scenario)


# name, reason, frame
DROPPED = [
    ("another client's", drops.NO_FLOW, error(ROUTER, ip_packet(tcp(NAT, "198.51.100.8:31337", "A")))),
    ("another port's", drops.NO_FLOW, error(ROUTER, ip_packet(tcp(NAT, f"{CLIENT_IP}:31338", "A")))),
    ("another service's", drops.NO_FLOW, error(ROUTER, ip_packet(tcp("192.0.2.100:81", CLIENT, "A")))),
    ("UDP of a TCP flow", drops.NO_FLOW, error(ROUTER, ip_packet(udp(NAT, CLIENT, b"abc")))),
    ("SCTP of a TCP flow", drops.NO_FLOW, error(ROUTER, to_client(NAT, ip={"proto": 132}))),
    ("an echo", drops.NO_FLOW, error(ROUTER, ip_packet(icmp("192.0.2.100", CLIENT_IP, 0)))),
    ("the tunnel's", drops.NO_FLOW, error(ROUTER, ip_packet(icmp("192.0.2.254", "192.0.2.13", 0, ip={"proto": 4})))),
    ("another server's", drops.NO_FLOW, error("192.0.2.12", to_server("192.0.2.12:8000"))),
    ("a server's other port", drops.NO_FLOW, error(SERVER_IP, to_server("192.0.2.11:8001"))),
    ("a direct server's own", drops.NO_FLOW, error("192.0.2.12", to_server("192.0.2.12:80"))),
    ("to another VIP", drops.BAD_ICMP, icmp(ROUTER, "192.0.2.101", 3, to_client(NAT), code=3)),
    ("to our own address", drops.BAD_ICMP, icmp(ROUTER, "192.0.2.254", 3, to_client(NAT), code=3)),
    ("to another client", drops.BAD_ICMP, icmp(SERVER_IP, "198.51.100.8", 3, to_server(SERVER), code=3)),
    ("to the server itself", drops.BAD_ICMP, icmp(ROUTER, SERVER_IP, 3, to_client(NAT), code=3)),
    ("options, then 7 bytes", drops.BAD_ICMP, error(ROUTER, b"\x46" + to_client(NAT)[1:31])),
    *((f"{n} bytes quoted", drops.BAD_ICMP, icmp(ROUTER, "192.0.2.100", 3, to_client(NAT)[:n])) for n in range(28)),
]


def test_errors_about_nothing_of_ours_are_dropped(replay):
    scenario = opened()
    for name, reason, frame in DROPPED:
        for message in (frame, frame.ljust(MIN_FRAME_LEN, b"\xa5")):
            scenario.feed(message)
            assert scenario.verdicts[-1] == Dropped(reason), name
    replay(scenario.feed(tcp(CLIENT, NAT, "A")))


@pytest.mark.parametrize(
    "change",
    [{"ip": {"frag": 1}}, {"ip": {"flags": "MF", "frag": 185}}, {"ip": {"version": 6}}, {"ip": {"ihl": 4}}],
    ids=["last fragment", "middle fragment", "version 6", "IHL 4"],
)
def test_quotes_without_ports_are_dropped(replay, change):
    scenario = opened().feed(error(ROUTER, to_client(NAT, **change)), error(SERVER_IP, to_server(SERVER, **change)))
    assert not isinstance(scenario.verdicts[-1], Sent)
    replay(scenario, exact_reasons=False)


def test_a_closed_port_behind_nat_is_told_to_the_client(replay):
    """The whole story: a query, the server's port unreachable, and what the client makes of it."""
    scenario = opened()
    scenario.feed(error(SERVER_IP, ip_packet(scenario.verdicts[-1].frame)))
    packet = sent_last(replay, scenario)
    quoted = packet[ICMP].payload
    assert (packet[IP].src, packet[IP].dst) == (split(DNS)[0], CLIENT_IP)
    assert (f"{quoted.src}:{quoted.sport}", f"{quoted.dst}:{quoted.dport}") == (CLIENT, DNS)
    assert packet[ICMP].type == 3 and TCP not in packet

"""The oracle against itself and against arithmetic that neither it nor scapy does: needs no trutinad."""

import random

import pytest

import drops
from appliance import PORT_MAC, Appliance, Backend, Service
from frames import ETH_LEN, IP, TCP, UDP, Ether, padded, tcp, udp, word_that_zeroes_udp
from mix import mixed
from checksums import ones_sum
from oracle import Oracle, schedule
from replay import Matcher, Scenario
from session import read_counters
from verdict import Dropped, Held

CLIENT, VIP, SERVER = "198.51.100.7:31337", "192.0.2.100:80", "192.0.2.11:8000"


def one_server(protocol: str = "tcp", mode: str = "nat") -> Oracle:
    """An oracle of one service with one server."""
    backend = Backend(SERVER if mode == "nat" else "192.0.2.11:80", mode)
    return Oracle(Appliance((Service(VIP, (backend,), protocol),)))


def checksum_error(packet: bytes) -> int | None:
    """One's complement sum of an IPv4 packet's payload, 0 if its checksum is right; None if it has none."""
    header_len = (packet[0] & 15) * 4
    segment = packet[header_len:]
    if packet[9] == 1:
        return ones_sum(segment) % 0xFFFF
    if packet[9] == 17 and segment[6:8] == b"\0\0":
        return None
    pseudo = packet[12:20] + bytes([0, packet[9]]) + len(segment).to_bytes(2, "big")
    return ones_sum(pseudo + segment) % 0xFFFF


def test_ones_sum_of_the_example_in_rfc_1071():
    assert ones_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@pytest.mark.parametrize("seed", range(4))
def test_checksums_of_all_that_is_sent_are_as_right_as_they_came(seed):
    for source, verdict in mixed(random.Random(seed), 300).expected():
        packet = verdict.frame[ETH_LEN:]
        assert ones_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF
        assert len(packet) == int.from_bytes(packet[2:4], "big")
        if packet[9] == 4:
            packet = packet[20:]
            assert ones_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF
        received = source[ETH_LEN : ETH_LEN + int.from_bytes(source[16:18], "big")]
        told = packet[9] == 1 and received[9] != 1
        assert checksum_error(packet) == (0 if told else checksum_error(received))


def test_a_mix_has_everything_in_it():
    scenario = mixed(random.Random(1), 500)
    assert len(scenario.drops()) >= 7
    assert {Ether(verdict.frame)[IP].proto for _, verdict in scenario.expected()} == {1, 4, 6, 17}
    assert {verdict.kind for _, verdict in scenario.expected()} >= {"forwarded", "passed on", "echo reply"}


def test_nat_is_undone_by_the_reply():
    judge = one_server()
    request = judge.predict(tcp(CLIENT, VIP, "S", b"x"))
    seen = Ether(request.frame)
    assert (seen.src, seen.dst) == (PORT_MAC, "02:00:5e:00:53:0b")
    assert (seen[IP].dst, seen[TCP].dport) == ("192.0.2.11", 8000)
    reply = Ether(judge.predict(tcp(SERVER, CLIENT, "SA")).frame)
    assert (reply[IP].src, reply[TCP].sport, reply.dst) == ("192.0.2.100", 80, "02:00:5e:00:53:01")


def test_udp_checksums_of_zero_and_all_ones():
    judge = one_server("udp")
    sent = judge.predict(udp(CLIENT, VIP, word_that_zeroes_udp(CLIENT, SERVER)))
    assert Ether(sent.frame)[UDP].chksum == 0xFFFF
    sent = judge.predict(udp(CLIENT, VIP, b"abc", chksum=0))
    assert Ether(sent.frame)[UDP].chksum == 0


def test_the_tunnel_header_follows_the_inner_one():
    judge = one_server(mode="tunnel")
    sent = judge.predict(padded(tcp(CLIENT, VIP, "S", ip={"ttl": 9, "tos": 7, "flags": "DF"})))
    outer, inner = Ether(sent.frame)[IP], Ether(sent.frame)[IP].payload
    assert (outer.ttl, outer.tos, outer.id, outer.proto, outer.len) == (8, 7, 0, 4, 60)
    assert (inner.ttl, inner.tos, inner.dst, inner.len) == (8, 7, "192.0.2.100", 40)
    assert outer.flags.DF


def test_a_free_identification_needs_a_right_checksum():
    judge = one_server(mode="tunnel")
    sent = judge.predict(tcp(CLIENT, VIP, "S"))
    actual = bytearray(sent.frame)
    actual[ETH_LEN + 4 : ETH_LEN + 6] = b"\x12\x34"
    assert sent.as_sent(bytes(actual)) != bytes(actual)
    actual[ETH_LEN + 10 : ETH_LEN + 12] = sent.as_sent(bytes(actual))[ETH_LEN + 10 : ETH_LEN + 12]
    assert sent.as_sent(bytes(actual)) == bytes(actual)
    assert ones_sum(bytes(actual[ETH_LEN : ETH_LEN + 20])) == 0xFFFF


@pytest.mark.parametrize(
    "scheduler, weights, sequence",
    [
        ("rr", [1, 1, 1], "ABCABC"),
        ("rr", [5, 0, 1], "ACACAC"),
        ("wrr", [4, 3, 2], "AABABCABC" * 2),
        ("wrr", [5, 1, 1], "AAAAABC"),
        ("wrr", [0, 2, 4], "CBC"),
    ],
)
def test_schedules(scheduler, weights, sequence):
    backends = tuple(Backend(f"192.0.2.{11 + i}:80", weight=w) for i, w in enumerate(weights))
    choices = schedule(Service(VIP, backends, scheduler=scheduler))
    assert "".join("ABC"[backends.index(next(choices))] for _ in sequence) == sequence


def problems(scenario: Scenario, *sent: bytes) -> list[str]:
    """What is wrong with the frames sent."""
    matcher = Matcher(scenario)
    matcher.take([(0, frame) for frame in sent])
    return matcher.problems()


def test_the_comparison_sees_a_wrong_byte_a_lost_and_a_surplus_frame():
    scenario = Scenario(Appliance((Service(VIP, (Backend(SERVER),)),))).feed(tcp(CLIENT, VIP, "S", b"ab"))
    [(_, verdict)] = scenario.expected()
    right = verdict.frame
    assert problems(scenario, right) == []
    for wrong in ([], [right, right], [right[:-1]], [right + b"\0"], [right[:-1] + b"c"]):
        assert problems(scenario, *wrong)


def test_counters_are_read_from_the_log():
    places = "received=9 injected=2 taken_over=0 made=0 sent=7 punted=1 handed_over=0 dropped=3"
    log = f"INFO ready\nINFO worker 0: {places} fragment=2 no_service=1\n"
    counters, drops = read_counters(log)
    assert counters["dropped"] == 3 and drops == {"fragment": 2, "no_service": 1}


def test_a_fragment_that_hides_tcp_flags_is_no_fragment_that_waits():
    assert one_server().predict(tcp(CLIENT, VIP, "S", ip={"frag": 1})) == Dropped(drops.FRAGMENT_TINY)
    assert isinstance(one_server().predict(tcp(CLIENT, VIP, "S", ip={"frag": 8})), Held)

"""Replay: fragments in time and in numbers; `test_grid` has them in all modes, `test_refusals` the malformed ones."""

import random
import time

import pytest

import drops
from appliance import BOTH_FAMILIES, Appliance, Backend, Service, join
from frames import framed, ip_packet, pattern, pieces, udp
from replay import Scenario
from verdict import Dropped

CLIENTS = {4: "198.51.100.7", 6: "2001:db8:51::7"}
VIPS = {4: "192.0.2.100", 6: "2001:db8:2::100"}
SERVERS = {4: ("192.0.2.11", "192.0.2.12", "192.0.2.13"), 6: tuple(f"2001:db8:2::1{n}" for n in (1, 2, 3))}
EACH_VERSION = pytest.mark.parametrize("ip", [4, 6], ids=["IPv4", "IPv6"])
MODES = ("nat", "dr", "tunnel", "full-nat")


def appliance(ip: int, mode: str = "nat", servers: int = 1, **other) -> Appliance:
    """A UDP service."""
    backends = tuple(Backend(join(address, 53), mode) for address in SERVERS[ip][:servers])
    pool = "out" if mode == "full-nat" else None
    service = Service(join(VIPS[ip], 53), backends, "udp", snat_pool=pool)
    pools = {"out": ("192.0.2.230", "2001:db8:2::230")} if pool else {}
    return Appliance((service,), interfaces=BOTH_FAMILIES, pools=pools, **other)


def fragments(ip: int, client_port: int, length: int = 200, cuts: tuple[int, ...] = (64, 128), ident: int = 0) -> list[bytes]:
    """A query in pieces."""
    ident = ident or client_port
    header = {"id": ident} if ip == 4 else {}
    packet = ip_packet(udp(join(CLIENTS[ip], client_port), join(VIPS[ip], 53), pattern(length), ip=header))
    return [framed(piece, CLIENTS[ip]) for piece in pieces(packet, cuts, ident)]


@EACH_VERSION
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("workers", [1, 2])
def test_pieces_of_many_packets_in_any_order(replay, ip, mode, workers):
    """Whichever worker receives which piece: every packet arrives whole at one server."""
    rng = random.Random(7)
    scenario = Scenario(appliance(ip, mode, workers=workers))
    frames = []
    for number in range(40):
        cuts = tuple(sorted(rng.sample(range(24, 1000, 8), rng.randint(1, 5))))
        frames += fragments(ip, 3000 + number, rng.randint(1000, 1400), cuts)
    rng.shuffle(frames)
    replay(scenario.feed(*frames))


@EACH_VERSION
def test_all_pieces_go_to_the_server_of_the_flow(replay, ip):
    scenario = Scenario(appliance(ip, "dr", servers=3))
    for number in range(9):
        first, middle, last = fragments(ip, 3000 + number)
        scenario.feed(last, first, middle)
    replay(scenario)


@EACH_VERSION
def test_identifications_may_come_again(replay, ip):
    """IPv4 has 65,536 of them: a complete packet must not be taken for part of the next."""
    scenario = Scenario(appliance(ip, servers=3))
    for number in range(12):
        scenario.feed(*fragments(ip, 3000 + number, ident=77))
        scenario.oracle.fragments.gathered.clear()
    replay(scenario)


@EACH_VERSION
def test_two_clients_may_use_one_identification(replay, ip):
    other = {4: "198.51.100.8", 6: "2001:db8:51::8"}[ip]
    mine = fragments(ip, 3000, ident=77)
    packet = ip_packet(udp(join(other, 3000), join(VIPS[ip], 53), pattern(99), ip={"id": 77} if ip == 4 else {}))
    theirs = [framed(piece, other) for piece in pieces(packet, (64,), 77)]
    replay(Scenario(appliance(ip)).feed(mine[1], theirs[1], theirs[0], mine[0], mine[2]))


@EACH_VERSION
def test_a_piece_that_waits_in_vain_is_dropped(replay, ip):
    scenario = Scenario(appliance(ip, sections=("[fragments]\ntimeout_secs = 1",)))
    first, middle, last = fragments(ip, 3000)
    scenario.feed(middle, last)

    def much_later(scenario: Scenario) -> None:
        time.sleep(2.5)
        scenario.session.keep_house()
        for held in scenario.verdicts:
            held.verdict = Dropped(drops.FRAGMENT_TIMEOUT)

    replay(scenario.later(much_later))


@EACH_VERSION
def test_pieces_that_wait_have_bounded_room(replay, ip):
    """However many come without a first one: good ones are served, and every frame is accounted for."""
    scenario = Scenario(appliance(ip, sections=("[fragments]\ncapacity = 64\ntimeout_secs = 1",)))
    for number in range(300):
        scenario.feed(*fragments(ip, 3000 + number)[1:])
    scenario.feed(udp(join(CLIENTS[ip], 9), join(VIPS[ip], 53), b"query"))

    def much_later(scenario: Scenario) -> None:
        time.sleep(2.5)
        scenario.session.keep_house()
        for held in scenario.verdicts[:-1]:
            held.verdict = Dropped(drops.FRAGMENT_TIMEOUT)
        scenario.feed(*fragments(ip, 9000))

    outcome = replay(scenario.later(much_later), exact_reasons=False)
    assert set(outcome.drops) <= {drops.FRAGMENT_TIMEOUT, drops.FRAGMENT_TABLE_FULL}
    assert outcome.drops[drops.FRAGMENT_TIMEOUT] <= 64
    assert outcome.drops.total() == 600


@EACH_VERSION
def test_the_longest_packet_there_may_be(replay, ip):
    """65,535 bytes over IPv4, 65,535 behind the header of IPv6."""
    length = 65535 - 8 - (20 if ip == 4 else 0)
    cuts = tuple(range(1440, length, 1440))
    replay(Scenario(appliance(ip)).feed(*fragments(ip, 3000, length, cuts)))


@EACH_VERSION
def test_pieces_of_eight_bytes(replay, ip):
    """The smallest that there may be, if the first one has all of the UDP header."""
    frames = fragments(ip, 3000, 120, tuple(range(8, 128, 8)))
    random.Random(1).shuffle(frames)
    replay(Scenario(appliance(ip)).feed(*frames))

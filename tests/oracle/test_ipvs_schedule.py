"""Whom schedulers choose, connection by connection, and how many connections are counted: as in Linux IPVS."""

import ours
import pytest
import schedules
from packets import TCP, Ether
from play import Play
from scenario import REFUSED, Made, Server, chosen
from scenarios import (
    DIFFERENT,
    DIFFERENT_ENDING,
    ENDING,
    EXPIRATION_SECS,
    FORGOTTEN_SECS,
    SAME,
    STEADY,
)

# How long a connection is kept that its client has ended, and one of UDP; and how long it takes until it is
# gone, and so is what persistence knows of its client.
ENDED_SECS, GONE_SECS = 3, 5.5
DAY = 86400
ENDING_TOML = f"timeouts = {{ fin_wait_secs = {ENDED_SECS}, udp_secs = {ENDED_SECS} }}\n"
DEFAULT_TIMEOUTS = 900, 120, 300


@pytest.fixture(scope="module")
def seen(judge, tmp_path_factory):
    """What both sides did, by scenario."""
    scenarios = [*SAME, *(each.scenario for each in DIFFERENT.values())]
    return Play(scenarios, judge, tmp_path_factory.mktemp("ours")).play()


@pytest.fixture(scope="module")
def ended(judge, tmp_path_factory):
    """The same of those in which connections end."""
    judge.sh(f"ipvsadm --set 0 {ENDED_SECS} {ENDED_SECS}")
    judge.sh("echo 1 >/proc/sys/net/ipv4/vs/expire_quiescent_template")
    judge.sh(f"echo {EXPIRATION_SECS} >/proc/sys/net/ipv4/vs/lblcr_expiration")
    judge.sh(f"echo {FORGOTTEN_SECS} >/proc/sys/net/ipv4/vs/lblc_expiration")
    directory = tmp_path_factory.mktemp("ours")
    scenarios = [*ENDING, *(each.scenario for each in DIFFERENT_ENDING.values())]
    yield Play(scenarios, judge, directory, len(SAME) + len(DIFFERENT), ENDING_TOML).play(GONE_SECS)
    judge.sh("echo 0 >/proc/sys/net/ipv4/vs/expire_quiescent_template")
    for scheduler in ("lblc", "lblcr"):
        judge.sh(f"echo {DAY} >/proc/sys/net/ipv4/vs/{scheduler}_expiration")
    judge.sh(f"ipvsadm --set {' '.join(map(str, DEFAULT_TIMEOUTS))}")


@pytest.mark.parametrize("scenario", SAME, ids=str)
def test_both_choose_the_same(seen, scenario):
    our_side, their_side = zip(*seen[scenario], strict=True)
    assert our_side == their_side


@pytest.mark.parametrize("scenario", ENDING, ids=str)
def test_both_choose_the_same_when_connections_end(ended, scenario):
    our_side, their_side = zip(*ended[scenario], strict=True)
    assert our_side == their_side


@pytest.mark.parametrize(
    "scenario", [each for each in STEADY if each.scheduler in schedules.SEQUENCES], ids=str
)
def test_golden_sequences_are_those_of_ipvs(seen, scenario):
    """So the unit tests that use them compare with IPVS, too."""
    [phase] = scenario.phases
    weights = tuple(server.weight for server in Server.listed(phase.servers))
    [(_, (their_choice, _))] = seen[scenario]
    assert schedules.sequence(scenario.scheduler, weights, len(their_choice)) == their_choice


def test_connections_of_one_burst_are_chosen_one_after_the_other(seen, tmp_path):
    """Each sees those before it, though nothing is sent before all of them are chosen for."""
    made = [Made(scenario, number) for number, scenario in enumerate(STEADY)]
    with ours.Running("".join(line for each in made for line in each.toml(0)), tmp_path) as running:
        for each in made:
            [steps] = each.steps
            sent = running.burst([syn for syn, _ in steps])
            letter_of_port = {client_port(frame): chosen([frame]) for frame in sent}
            letters = "".join(letter_of_port.get(client_port(syn), REFUSED) for syn, _ in steps)
            [(_, (their_choice, _))] = seen[each.scenario]
            assert letters == their_choice, each.scenario


@pytest.mark.parametrize("name", DIFFERENT)
def test_deliberate_differences_are_as_described(seen, name):
    """The differences of docs/ipvs-differences.md that only a sequence shows."""
    assert_different(seen, DIFFERENT[name])


@pytest.mark.parametrize("name", DIFFERENT_ENDING)
def test_deliberate_differences_when_connections_end(ended, name):
    assert_different(ended, DIFFERENT_ENDING[name])


def assert_different(seen, different):
    sides = zip(*seen[different.scenario], strict=True)
    our_choice, their_choice = (tuple(letters for letters, _ in side) for side in sides)
    assert (our_choice, their_choice) == (different.ours, different.theirs)


def client_port(frame):
    """The client's port in a segment to a service; `None` for any other frame."""
    packet = Ether(frame)
    return packet[TCP].sport if TCP in packet else None

"""Whom schedulers choose, connection by connection, and how many connections are counted: as in Linux IPVS."""

import functools

import ours
import pytest
from play import Play
from scenario import Made
from scenarios import DIFFERENT, DIFFERENT_ENDING, ENDING, SAME

# Of a connection that its client has ended, and of one of UDP, in seconds; and how long it takes until it is gone, and
# so is what persistence knows of its client.
ENDED_SECS, GONE_SECS = 3, 5.5
ENDING_TOML = f"timeouts = {{ fin_wait_secs = {ENDED_SECS}, udp_secs = {ENDED_SECS} }}\n"
DEFAULT_TIMEOUTS = 900, 120, 300


@functools.cache
def refusal(scenario):
    """Why this trutinad can not do it; empty if it can."""
    return ours.refusal(Made(scenario, 0))


def known(scenarios):
    """Those that can be compared."""
    return [scenario for scenario in scenarios if not refusal(scenario)]


@pytest.fixture(scope="module")
def seen(judge, tmp_path_factory):
    """What both sides did, by scenario."""
    scenarios = [*SAME, *(each.scenario for each in DIFFERENT.values())]
    return Play(known(scenarios), judge, tmp_path_factory.mktemp("ours")).play()


@pytest.fixture(scope="module")
def ended(judge, tmp_path_factory):
    """The same of those in which connections end."""
    judge.sh(f"ipvsadm --set 0 {ENDED_SECS} {ENDED_SECS}")
    judge.sh("echo 1 >/proc/sys/net/ipv4/vs/expire_quiescent_template")
    directory = tmp_path_factory.mktemp("ours")
    scenarios = [*ENDING, *(each.scenario for each in DIFFERENT_ENDING.values())]
    yield Play(known(scenarios), judge, directory, len(SAME) + len(DIFFERENT), ENDING_TOML).play(GONE_SECS)
    judge.sh("echo 0 >/proc/sys/net/ipv4/vs/expire_quiescent_template")
    judge.sh(f"ipvsadm --set {' '.join(map(str, DEFAULT_TIMEOUTS))}")


@pytest.mark.parametrize("scenario", SAME, ids=str)
def test_both_choose_the_same(seen, scenario):
    if scenario not in seen:
        pytest.skip(refusal(scenario))
    our_side, their_side = zip(*seen[scenario], strict=True)
    assert our_side == their_side


@pytest.mark.parametrize("scenario", ENDING, ids=str)
def test_both_choose_the_same_when_connections_end(ended, scenario):
    if scenario not in ended:
        pytest.skip(refusal(scenario))
    our_side, their_side = zip(*ended[scenario], strict=True)
    assert our_side == their_side


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

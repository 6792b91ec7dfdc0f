"""Replay: the grid, one test for each of its cases; see `grid`."""

import functools

import pytest

from grid import LAYOUTS, Case, Layout, cases
from replay import Matcher, Scenario, check_announcements, check_counters, run, write_capture
from session import Outcome
from verdict import Sent, settled


def scenario_of(layout: Layout, played: list[Case]) -> Scenario:
    """All cases at once: first every flow is opened, then every case does what it is about."""
    scenario = Scenario(layout.appliance())
    for case in played:
        case.open(scenario, layout)
    return scenario.later(lambda scenario: [case.act(scenario, layout) for case in played])


class Played:
    """A layout's cases after their run."""

    def __init__(self, layout: Layout, directory):
        self.cases = {str(case): case for case in cases(layout)}
        self.scenario, self.directory = scenario_of(layout, list(self.cases.values())), directory
        self.outcome, self.matcher = run(self.scenario, directory)
        self.faults = self.matcher.faults()

    def judge(self, name: str) -> None:
        """Asserts that nothing is wrong with a case; keeps its frames if something is."""
        case = self.cases[name]
        problems = [text for number in case.frames for text in self.faults.get(number, [])]
        if problems:
            for kind, frames in self.frames_of(case).items():
                write_capture(self.directory / f"case-{case.number}-{kind}.pcap", frames)
        assert not problems, "\n\n".join([f"captures: {self.directory}/case-{case.number}-*.pcap", *problems])

    def frames_of(self, case: Case) -> dict[str, list[bytes]]:
        """What a case received, and what had to be sent of it."""
        verdicts = [settled(self.scenario.verdicts[number]) for number in case.frames]
        return {
            "received": [self.scenario.frames[number] for number in case.frames],
            "wanted": [verdict.frame for verdict in verdicts if isinstance(verdict, Sent)],
        }


@pytest.fixture(scope="session")
def played(tmp_path_factory):
    """A function that gives a layout's cases after their run, which it has but once."""
    return functools.cache(lambda layout: Played(layout, tmp_path_factory.mktemp("grid")))


@pytest.mark.parametrize(
    "layout, name",
    [
        pytest.param(layout, str(case), id=f"{layout}: {case}".replace("[", "(").replace("]", ")"))
        for layout in LAYOUTS
        for case in cases(layout)
    ],
)
def test_case(played, layout, name):
    played(layout).judge(name)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_frame_is_accounted_for(played, layout):
    done = played(layout)
    assert not done.faults.get(None), "\n".join(done.faults[None])
    check_announcements(done.scenario.appliance, done.outcome)
    check_counters(done.scenario, done.outcome)
    assert done.outcome.drops == done.scenario.drops()

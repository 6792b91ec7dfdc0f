"""The fixture that replay tests share."""

import pytest

# Before the import: only then do its assertions show their values.
pytest.register_assert_rewrite("replay")

from replay import Scenario, check, run, write_captures  # noqa: E402
from session import Outcome  # noqa: E402


@pytest.fixture
def replay(tmp_path_factory):
    """A function that sends a scenario through trutinad, checks all of it and gives the outcome."""

    def replayed(scenario: Scenario, exact_reasons: bool = True) -> Outcome:
        # A short name: DPDK puts Unix sockets there, whose paths end at 107 bytes.
        directory = tmp_path_factory.mktemp("run")
        outcome, matcher = run(scenario, directory)
        try:
            check(scenario, outcome, matcher, exact_reasons)
        except AssertionError:
            write_captures(directory, scenario, outcome)
            print(f"captures are in {directory}")
            raise
        return outcome

    return replayed

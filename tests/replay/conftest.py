"""The fixture that replay tests share."""

import pytest

# Before the import: only then do its assertions show their values.
pytest.register_assert_rewrite("replay")

from replay import Outcome, Scenario, check, run  # noqa: E402


@pytest.fixture
def replay(tmp_path_factory):
    """A function that sends a scenario through trutinad, checks all of it and gives the outcome."""

    def replayed(scenario: Scenario, exact_reasons: bool = True) -> Outcome:
        # A short name: DPDK puts Unix sockets there, whose paths end at 107 bytes.
        outcome = run(scenario, tmp_path_factory.mktemp("run"))
        check(scenario, outcome, exact_reasons)
        return outcome

    return replayed

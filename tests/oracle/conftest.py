"""Fixtures of the comparison with IPVS: the judge, and what both sides made of everything they were fed."""

import functools
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "replay")]
# Before the imports: only then do their assertions show values.
pytest.register_assert_rewrite("judge", "marks", "ours", "replay", "scenario")

import ours  # noqa: E402
from judge import Judge  # noqa: E402
from outcome import steps, topics  # noqa: E402
from services import SERVICES  # noqa: E402

from vm import parts  # noqa: E402


@pytest.fixture(scope="session")
def judge():
    """The judge, or the reason why there can be none."""
    try:
        parts.fetch()
    except parts.MissingError as error:
        pytest.skip(str(error))
    with Judge() as booted:
        yield booted


@pytest.fixture(scope="session")
def outcome(judge, tmp_path_factory):
    """All steps of all topics, by topic, fed to both sides."""
    known = [service for service in SERVICES if not ours.refusal(service)]
    for service in known:
        judge.add(service.vip, service.ipvsadm())
    text = functools.partial(ours.toml, known)
    our_side = functools.partial(ours.outcome, text=text, directory=tmp_path_factory.mktemp("ours"))
    return steps(topics(known), our_side, judge.outcome)

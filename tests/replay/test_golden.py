"""Golden frames: what is kept is what the oracle makes."""

import pytest

from golden import GOLDEN, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All files as they are made now, by name."""
    directory = tmp_path_factory.mktemp("golden")
    write(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_is_kept_is_what_the_oracle_makes(made):
    kept = {path.name: path.read_bytes() for path in GOLDEN.iterdir() if path.name != "README.md"}
    assert sorted(kept) == sorted(made)
    stale = [name for name in made if kept[name] != made[name]]
    assert not stale, "run tests/replay/golden.py and look at the difference"


def test_enough_is_kept(made):
    cases = [line.split("\t") for line in made["cases.tsv"].decode().splitlines()[1:]]
    assert len(cases) >= 400
    assert {mode for _, mode, *_ in cases} >= {"nat", "full-nat", "dr", "ipip", "gue", "gue-csum", "gre", "gre-csum"}
    assert sum(map(len, made.values())) < 1_000_000

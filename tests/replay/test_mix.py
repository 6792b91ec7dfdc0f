"""Replay: hundreds of frames of many flows in all modes, in one run."""

import random

import pytest

from mix import mixed
from replay import Scenario


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_mix_of_everything(replay, seed):
    scenario: Scenario = mixed(random.Random(seed), 500)
    replay(scenario)

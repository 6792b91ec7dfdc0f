"""Whom schedulers choose, worked out from their definitions: golden sequences and shares.

Written from what the schedulers are said to do and not from how the appliance does it. Linux IPVS in the virtual
machine chooses as `SEQUENCES` says, which the tests against it see to.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import accumulate, permutations, product
from math import gcd, lcm
from pathlib import Path

SEED, RANDOM_SETS, MOST_SERVERS, MOST_WEIGHT, LENGTH = 5, 12, 9, 20, 48
WEIGHTS = [
    (1, 1, 1),
    (1, 2, 3),
    (3, 2, 1),
    (5, 1, 1),
    (4, 3, 2),
    (2, 4, 6),
    (7, 5),
    (200, 600, 400),
    (1,),
    (0, 2, 1),
    (2, 0, 4, 6),
]
# How much each server has to do, for schedulers that look at that alone.
LOADS = [
    ((1, 1, 1), (0, 0, 0)),
    ((1, 1, 1), (5, 3, 9)),
    ((1, 1, 1), (5, 3, 3)),
    ((1, 2, 3), (10, 20, 30)),
    ((1, 2, 3), (10, 19, 29)),
    ((1, 2, 3), (10, 20, 29)),
    ((2, 0, 1), (8, 0, 4)),
    ((4, 3), (4_000_000_000, 3_000_000_001)),
    ((65_535, 1), (10**15, 10**10)),
]


def letters(places: Iterator[int]) -> str:
    """Places in a list as letters."""
    return "".join(chr(ord("A") + place) for place in places)


def least(weights: tuple[int, ...], cost: Callable[[int], Fraction]) -> int:
    """The first of the servers that cost least and have any weight."""
    return min((place for place, weight in enumerate(weights) if weight), key=cost)


def rr(weights: tuple[int, ...]) -> Iterator[int]:
    """In turn."""
    while True:
        yield from (place for place, weight in enumerate(weights) if weight)


def wrr(weights: tuple[int, ...]) -> Iterator[int]:
    """Laps in which only those have a turn whose weight reaches a mark that falls from lap to lap."""
    step = gcd(*weights)
    while True:
        for mark in range(max(weights), 0, -step):
            yield from (place for place, weight in enumerate(weights) if weight >= mark)


def swrr(weights: tuple[int, ...]) -> Iterator[int]:
    """nginx's: all gain their weight, the first of the richest has a turn and pays what all have gained."""
    purses = [0] * len(weights)
    while True:
        purses = [purse + weight for purse, weight in zip(purses, weights, strict=True)]
        richest = purses.index(max(purses))
        purses[richest] -= sum(weights)
        yield richest


def opened(choose: Callable[[tuple[int, ...], list[int]], int | None]) -> Callable:
    """The choices for connections that come in turn and stay; `choose` sees how many each server has."""

    def choices(weights: tuple[int, ...]) -> Iterator[int]:
        active = [0] * len(weights)
        while (place := choose(weights, active)) is not None:
            active[place] += 1
            yield place

    return choices


def lc(weights: tuple[int, ...], active: list[int]) -> int:
    """Fewest connections."""
    return least(weights, lambda place: active[place])


def wlc(weights: tuple[int, ...], active: list[int]) -> int:
    """Fewest connections for its weight."""
    return least(weights, lambda place: Fraction(active[place], weights[place]))


def sed(weights: tuple[int, ...], active: list[int]) -> int:
    """Fewest connections for its weight, the new one included."""
    return least(weights, lambda place: Fraction(active[place] + 1, weights[place]))


def nq(weights: tuple[int, ...], active: list[int]) -> int:
    """The first that has nothing to do, or as `sed`."""
    idle = [place for place, weight in enumerate(weights) if weight and not active[place]]
    return idle[0] if idle else sed(weights, active)


def fo(weights: tuple[int, ...], _active: list[int]) -> int:
    """The largest weight."""
    return weights.index(max(weights))


def ovf(weights: tuple[int, ...], active: list[int]) -> int | None:
    """The largest weight of those that have no more connections than weight."""
    free = [weight if weight and busy <= weight else 0 for weight, busy in zip(weights, active, strict=True)]
    return free.index(max(free)) if any(free) else None


SEQUENCES = {"rr": rr, "wrr": wrr, "swrr": swrr, **{f.__name__: opened(f) for f in (lc, wlc, sed, nq, fo, ovf)}}


def sequence(scheduler: str, weights: tuple[int, ...], length: int) -> str:
    """The first choices of a scheduler, `!` where it finds nobody."""
    choices = SEQUENCES[scheduler](weights)
    return letters(place for place, _ in zip(choices, range(length), strict=False)).ljust(length, "!")


def by_weight(weights: tuple[int, ...], _loads: tuple[int, ...]) -> list[Fraction]:
    """`random`: shares by weight."""
    return [Fraction(weight, sum(weights)) for weight in weights]


def better(weights: tuple[int, ...], loads: tuple[int, ...], one: int, other: int) -> int:
    """The one of two that has less to do for its weight; of equals the first."""
    return one if loads[one] * weights[other] <= loads[other] * weights[one] else other


def twos(weights: tuple[int, ...], loads: tuple[int, ...]) -> list[Fraction]:
    """Two are drawn by numbers from 0 to the sum of weights, both included, and the better one is taken.

    A server has the numbers up to the sum of the weights so far, so the first has one more than its weight.
    """
    ends = list(accumulate(weights))
    drawn = [
        next(place for place, end in enumerate(ends) if number <= end and weights[place])
        for number in range(ends[-1] + 1)
    ]
    return shares(Counter(better(weights, loads, *two) for two in product(drawn, repeat=2)), len(weights))


def p2c(weights: tuple[int, ...], loads: tuple[int, ...]) -> list[Fraction]:
    """Two different ones, all pairs alike, and the better one is taken."""
    places = [place for place, weight in enumerate(weights) if weight]
    pairs = permutations(places, 2) if len(places) > 1 else [(places[0],) * 2]
    return shares(Counter(better(weights, loads, *pair) for pair in pairs), len(weights))


def shares(counts: Counter, servers: int) -> list[Fraction]:
    """Counts as parts of one."""
    return [Fraction(counts[place], counts.total()) for place in range(servers)]


SHARES = {"random": by_weight, "twos": twos, "p2c": p2c}
DRAWN = [
    ((1, 1, 1), (0, 0, 0)),
    ((1, 2, 3), (0, 0, 0)),
    ((1, 2, 3), (2, 2, 2)),
    ((3, 0, 1, 4), (5, 0, 1, 4)),
    ((7,), (3,)),
    ((2, 2), (4, 1)),
]


def weight_sets() -> Iterator[tuple[int, ...]]:
    """The chosen ones, and others by lot."""
    yield from WEIGHTS
    rng = random.Random(SEED)
    for _ in range(RANDOM_SETS):
        yield tuple(rng.randint(1, MOST_WEIGHT) for _ in range(rng.randint(2, MOST_SERVERS)))


def rows() -> Iterator[tuple[str, str, str, str]]:
    """Scheduler, weights, what servers have to do, and the choices, or for a lot the shares."""
    for scheduler in SEQUENCES:
        for weights in weight_sets():
            yield scheduler, joined(weights), "-", sequence(scheduler, weights, LENGTH)
    for scheduler in ("least-packets", "least-bandwidth"):
        for weights, loads in LOADS:
            place = least(weights, lambda place, w=weights, load=loads: Fraction(load[place], w[place]))
            yield scheduler, joined(weights), joined(loads), letters([place])
    for scheduler, draw in SHARES.items():
        for weights, loads in DRAWN:
            parts = draw(weights, loads)
            whole = lcm(*(part.denominator for part in parts))
            yield scheduler, joined(weights), joined(loads), joined(part * whole for part in parts)


def joined(numbers: Iterator[int]) -> str:
    """Numbers in one word."""
    return ":".join(map(str, numbers))


def write(directory: Path) -> None:
    """Writes the table."""
    lines = ["\t".join(row) for row in (("scheduler", "weights", "loads", "choices"), *rows())]
    (directory / "schedules.tsv").write_text("\n".join(lines) + "\n")

"""The law of the frames: each one that came in is somewhere.

received + injected + taken over + made = sent + punted + handed over + dropped, for every worker.
"""

from dataclasses import dataclass

from lab.netns import wait_until

CAME = ("received", "injected", "taken_over", "made")
WENT = ("sent", "punted", "handed_over", "dropped")


@dataclass(frozen=True)
class Balance:
    """The two sides for one worker."""

    worker: int
    counts: dict

    @property
    def holds(self):
        """Whether both sides are equal, and the drops by reason add up to all drops."""
        named = sum(drop["packets"] for drop in self.counts["drops"])
        came, went = (sum(self.counts[name] for name in side) for side in (CAME, WENT))
        return came == went and named == self.counts["dropped"]

    def __str__(self):
        came, went = (self._side(side) for side in (CAME, WENT))
        return f"worker {self.worker}: {came} {'=' if self.holds else '!='} {went}"

    def _side(self, names):
        return " + ".join(f"{self.counts[name]} {name.replace('_', ' ')}" for name in names)


def of(stats):
    """Balances of all workers, from what `trutina --json stats` answers."""
    return [Balance(number, worker) for number, worker in enumerate(stats["workers"])]


def settled(appliance, timeout=5):
    """Waits until every balance holds and returns them.

    Frames in a worker's hands while it is asked are on neither side, so one unequal answer proves nothing;
    unequal ones for so long do.
    """

    def holds():
        balances = of(appliance.ask("stats"))
        return balances if all(balance.holds for balance in balances) else None

    return wait_until(holds, "the frame counts of every worker add up", timeout, every=0.2)

"""What must be true of the appliance, in the form that demo and tests share."""

import contextlib
from dataclasses import dataclass

from lab import load
from lab.netns import LabError, wait_until


@dataclass(frozen=True)
class Split:
    """How one load was spread, by server name, counted twice: by the appliance and by the servers."""

    result: load.Result
    wanted: dict
    scheduled: dict
    served: dict

    @property
    def exact(self):
        """Whether every request was answered, and by whom it should have been."""
        return self.result.failed == 0 and self.scheduled == self.served == self.wanted

    def __str__(self):
        counts = ", ".join(f"{name} {count}" for name, count in self.scheduled.items())
        text = f"{self.result.complete} connections, {self.result.failed} failed: {counts}"
        if self.exact:
            return text
        return f"{text} (by the servers' logs {self.served}; wanted {self.wanted})"


def split(lab, service, requests):
    """Sends a service so many requests, each over a connection of its own, and counts who got how many."""
    conns_before, served_before = lab.appliance.conns(service.key), settled(lambda: served(lab))
    result = load.hey(lab.client, service.vip, requests)

    def scheduled():
        return since(conns_before, lab.appliance.conns(service.key))

    def logged():
        return since(served_before, served(lab))

    # Both counts trail the last answer a little. If they never get there, they are what is to be shown.
    for count in (scheduled, logged):
        with contextlib.suppress(LabError):
            wait_until(lambda count=count: sum(count().values()) >= requests, "all are counted", timeout=3)
    return Split(result, shares(lab, service, requests), scheduled(), logged())


def settled(count):
    """A count that does not grow any more: servers write their logs a little after they answered."""
    seen = [None]

    def still():
        seen.append(count())
        return seen[-1] == seen[-2]

    wait_until(still, "the servers' logs are complete", timeout=5, every=0.2)
    return seen[-1]


def shares(lab, service, requests):
    """How many of `requests` each server has to get, by weight."""
    weights = {name: backend.weight for name, backend in zip(lab.servers, service.backends, strict=True)}
    total = sum(weights.values())
    return {name: requests * weight // total for name, weight in weights.items()}


def served(lab):
    """Requests answered so far, by server name."""
    return {name: server.served() for name, server in lab.servers.items()}


def since(before, now):
    """How much each count grew."""
    return {name: now[name] - before[name] for name in now}


def packets(lab, service):
    """Packets the appliance saw from and to a service's clients; the second is 0 if replies pass it by."""
    counters = lab.appliance.service(service.key)["counters"]
    return counters["in_packets"], counters["out_packets"]

"""What tests with two arms do."""

import contextlib
import dataclasses

from support import PREFIX

from lab import balance, load
from lab.arms import SERVERS, Arms
from lab.arms_config import ArmsConfig
from lab.netns import wait_until

# What a bridge floods, before it has learned where a station is.
HARMLESS = {"not_our_mac"}


@contextlib.contextmanager
def started(queues=1, trunk=None, **settings):
    """A lab with two arms whose appliance runs; it must end in good order."""
    with Arms(f"{PREFIX}-arms", queues, trunk) as lab:
        start(lab, **settings)
        yield lab
        assert lab.lb.stop() == 0
        assert "ERROR" not in lab.lb.log.read_text()


def start(lab, **settings):
    """Starts the appliance with these settings of its file."""
    lab.lb.start(ArmsConfig(lab, **settings))


def conns(lab, service):
    """Flows scheduled so far by the appliance, one number for each server."""
    return [backend["counters"]["conns"] for backend in lab.lb.service(service.key)["backends"]]


def assert_serves(lab, service, requests, workers=1):
    """Sends a service requests over connections of their own; each is answered, in turns."""
    before = conns(lab, service)
    result = load.hey(lab.client, service.vip, requests)
    assert (result.complete, result.failed) == (requests, 0), service.name
    wait_until(lambda: sum(conns(lab, service)) - sum(before) == requests, "all are counted")
    grown = [now - then for now, then in zip(conns(lab, service), before, strict=True)]
    # Every worker's own sequence is exact; together they differ by less than one turn for each.
    assert max(grown) - min(grown) <= workers, (service.name, grown)


def assert_accounted(lab, harmless=HARMLESS):
    """Every frame is somewhere, and none was dropped that should not have been."""
    balances = balance.settled(lab.lb)
    dropped = {drop["reason"] for each in balances for drop in each.counts["drops"] if drop["packets"]}
    assert dropped <= harmless, dropped
    return [each.counts for each in balances]


@dataclasses.dataclass(frozen=True)
class ForClients:
    """The lab as `support.Client` knows labs."""

    state: object
    client: object


def for_clients(lab):
    """A lab that recording clients can be started in."""
    return ForClients(lab.state, lab.client)


def server_names():
    """Names of all servers."""
    return set(SERVERS)

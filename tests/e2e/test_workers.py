"""Several workers on one port, which share a core here if there are not enough: replies of NAT come to another
queue than requests as a rule, so that workers hand packets over to each other."""

import pytest

from lab import balance, checks, load
from lab.appliance import worker_core
from lab.netns import wait_until

WORKERS = 2


@pytest.fixture(scope="module")
def crowded_lab(idle_lab):
    """A lab whose appliance has two workers, each with a queue of its own."""
    device = f"{idle_lab.config.device},qpairs={WORKERS}"
    config = idle_lab.config.changed(device=device, workers=[worker_core()] * WORKERS, shared=True)
    idle_lab.appliance.start(config)
    yield idle_lab
    assert idle_lab.appliance.stop() == 0


@pytest.mark.parametrize("mode", ["nat-4", "dr-4", "ipip-4in4"])
def test_no_request_fails_and_each_worker_takes_turns(crowded_lab, mode):
    service = crowded_lab.service(mode)
    before = crowded_lab.appliance.conns(service.key)
    result = load.hey(crowded_lab.client, service.vip, 300)
    assert result.complete == 300
    assert result.failed == 0
    balance.settled(crowded_lab.appliance)
    conns = checks.since(before, crowded_lab.appliance.conns(service.key))
    assert sum(conns.values()) == 300
    # Every worker's own sequence is exact; together they differ by less than one turn for each.
    assert max(conns.values()) - min(conns.values()) <= WORKERS, conns


def test_workers_hand_packets_over_to_the_owners_of_their_flows(crowded_lab):
    load.hey(crowded_lab.client, crowded_lab.service("nat-4").vip, 60)

    def at_rest():
        workers = crowded_lab.appliance.ask("stats")["workers"]
        handed, taken = (sum(worker[side] for worker in workers) for side in ("handed_over", "taken_over"))
        return workers if handed == taken else None

    # A packet in the queue between two workers was handed over and not yet taken over.
    workers = wait_until(at_rest, "every packet handed over is taken over")
    assert len(workers) == WORKERS
    assert sum(worker["handed_over"] for worker in workers) > 0
    assert all(worker["received"] > 0 for worker in workers)


def test_flows_of_all_workers_are_listed(crowded_lab):
    load.hey(crowded_lab.client, crowded_lab.service("nat-4").vip, 60)
    flows = crowded_lab.appliance.ask("flow", "list")
    assert {flow["worker"] for flow in flows["flows"]} == set(range(WORKERS))
    assert flows["total"] >= 60

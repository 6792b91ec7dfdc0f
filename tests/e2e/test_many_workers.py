"""One, two and four workers on software devices that spread frames each in its own way.

af_packet gives one device several queues; af_xdp gives a device one, so that several make up one port. Neither
knows who owns a flow, and replies of NAT come by another queue than requests as a rule. The workers share a core.
"""

import pytest

import arms
from lab import load
from lab.arms import V4
from lab.arms_config import SERVICES
from lab.netns import wait_until
from support import assert_kept, clients, errors

WORKERS = (1, 2, 4)
DEVICES = ("af_packet", "af_xdp")
HELD, REQUESTS = 6, 100


@pytest.fixture(scope="module", params=WORKERS, ids=[f"{workers}-workers" for workers in WORKERS])
def workers(request):
    """How many there are."""
    return request.param


@pytest.fixture(scope="module", params=DEVICES)
def lab(request, workers):
    """A lab whose appliance has so many workers, each with a queue of its own on both ports."""
    queues = workers if request.param == "af_xdp" else 1
    with arms.started(queues, device=request.param, workers=workers) as built:
        yield built


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
def test_no_request_fails_and_each_worker_takes_turns(lab, workers, service):
    arms.assert_serves(lab, service, REQUESTS, workers)


def test_kept_connections_stay_with_their_servers(lab):
    kept = [service for service in SERVICES if service.family is V4]
    with clients(arms.for_clients(lab), kept, "held", str(HELD)) as busy:
        for service in kept:
            assert load.hey(lab.client, service.vip, REQUESTS).failed == 0
        for client in busy:
            client.wait_for(HELD)
    assert_kept(busy)
    for client in busy:
        # Each worker takes turns for itself, and one of them has two of these connections at least.
        assert len({request.server for request in client.requests()}) > 1
        assert not errors(client.requests())


def test_every_worker_has_its_part_and_every_frame_is_accounted_for(lab, workers):
    def at_rest():
        counts = arms.assert_accounted(lab)
        handed, taken = (sum(worker[side] for worker in counts) for side in ("handed_over", "taken_over"))
        # A packet in the queue between two workers was handed over and not yet taken over.
        return counts if handed == taken else None

    counts = wait_until(at_rest, "every packet handed over is taken over")
    assert len(counts) == workers
    assert all(worker["received"] > 0 and worker["sent"] > 0 for worker in counts)
    assert all((worker["handed_over"] > 0) == (workers > 1) for worker in counts)
    flows = lab.lb.ask("flow", "list", "--limit", "10000")
    assert {flow["worker"] for flow in flows["flows"]} == set(range(workers))


def test_a_port_counts_what_all_its_devices_do(lab):
    """The drivers' counts of a port are at least those of the workers, whatever its devices are."""
    stats = lab.lb.ask("stats")
    drivers = sum(port["rx_packets"] for port in stats["ports"])
    received = sum(worker["received"] for worker in stats["workers"])
    assert 0 < received <= drivers
    assert lab.lb.ask("status")["ports"][0]["link_up"]

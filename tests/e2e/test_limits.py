"""Limits of services and backends, as real clients meet them and as the counters have them.

What passes is held against the time that passed while it did: how fast this machine is does not matter.
"""

import contextlib
import itertools
import time
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from lab import dial, flood, load
from lab.addresses import SERVERS, V4, endpoint
from lab.appliance import Backend, Service, by_server, worker_core
from lab.modes import NAT_PORT
from lab.netns import wait_until
from support import reloaded

WORKERS = 2
CLIENTS = (V4.client, f"{V4.clients}3")
# Flows that ended are gone a second later.
SHORT = {f"{state}_secs": 1 for state in ("fin_wait", "time_wait", "close", "close_wait", "last_ack", "udp")}
NUMBERS = itertools.count(120)
# Of a bucket: what may come at once, in seconds of its rate.
DEPTH_SECS = 0.1
EXACT = 0.01


@pytest.fixture(scope="module")
def lab(idle_lab):
    """A lab with two clients and two workers."""
    idle_lab.client.ip(f"addr add {V4.net(CLIENTS[1])} dev c0")
    device = f"{idle_lab.config.device},qpairs={WORKERS}"
    workers = [worker_core()] * WORKERS
    idle_lab.config = idle_lab.config.changed(device=device, workers=workers, shared=True)
    idle_lab.appliance.start(idle_lab.config)
    yield idle_lab
    assert idle_lab.appliance.stop() == 0


def service(protocol="tcp", servers=("s1", "s2"), **limits):
    """A new service with limits, in turn over some servers: nobody has flows of it."""
    number = next(NUMBERS)
    backends = [Backend(endpoint(V4.server(name), NAT_PORT)) for name in servers]
    options = {"limits": limits, "timeouts": SHORT}
    vip = endpoint(V4.vip(number), 80)
    return Service(f"limited-{number}", vip, "nat", "rr", backends, None, protocol, options)


def dropped(lab, reason):
    """Frames that were dropped for this reason."""
    return next(drop["packets"] for drop in lab.appliance.call("drops") if drop["reason"] == reason)


def errors_received(lab):
    """ICMP messages by which the client was told that something is unreachable."""
    lines = lab.client.run("cat", "/proc/net/snmp").stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Icmp:"))
    return int(values[names.index("InDestUnreachs")])


@contextlib.contextmanager
def held(lab, service, count):
    """So many connections that stay open; the rest is cut at the end."""
    connections = [dial.connect(lab.client, service.vip) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            if connection.sock:
                dial.cut(connection)


ANSWERS = {
    "rst": ("ConnectionRefusedError", 0),
    "icmp": ("ConnectionRefusedError", 1),
    "drop": ("TimeoutError", 0),
    "sorry": ("s3", 0),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_the_client_hears_of_a_service_that_is_full(lab, answer):
    full = service(connections=4, answer=answer)
    if answer == "sorry":
        full.options["sorry"] = [{"address": endpoint(V4.server("s3"), NAT_PORT)}]
    with reloaded(lab, [full]):
        sees, told = ANSWERS[answer]
        errors, drops = errors_received(lab), dropped(lab, "service_full")
        with held(lab, full, 4) as connections:
            assert {dial.ask(connection) for connection in connections} == {"s1", "s2"}
            assert dial.outcome(lab.client, full.vip) == sees
            assert errors_received(lab) - errors == told
            assert (dropped(lab, "service_full") > drops) == (answer == "drop")
            assert {dial.ask(connection) for connection in connections} == {"s1", "s2"}
        # With one of them gone there is room for another one.
        wait_until(lambda: dial.outcome(lab.client, full.vip) in ("s1", "s2"), "there is room again")


def test_backend_is_full_at_its_upper_limit_until_it_is_below_the_lower_one(lab):
    web = service()
    first, second = web.backends
    web = replace(web, backends=[replace(first, upper=6, lower=3), second], options={"timeouts": SHORT})
    with reloaded(lab, [web]), held(lab, web, 16) as connections:

        def flows(server):
            told = by_server(lab.appliance.service(web.key), lambda it: it["active"] + it["inactive"])
            return told[server]

        servers = [dial.ask(connection) for connection in connections]
        assert servers.count("s1") == 6
        of_s1 = [connection for connection, server in zip(connections, servers, strict=True) if server == "s1"]

        def leave(count):
            for _ in range(count):
                dial.cut(of_s1.pop())
            wait_until(lambda: flows("s1") == len(of_s1), "those that were cut are gone", 15)

        leave(3)
        assert {dial.get(lab.client, web.vip) for _ in range(6)} == {"s2"}, "3 are not below 3"
        leave(1)
        assert "s1" in {dial.get(lab.client, web.vip) for _ in range(6)}


def asked(lab, service, requests=400):
    """How many of so many requests at once were served, and for how many seconds of a rate, with what is in its bucket."""
    began = time.monotonic()
    result = load.hey(lab.client, service.vip, requests, concurrency=40)
    return result.complete, time.monotonic() - began + DEPTH_SECS


@pytest.mark.parametrize("answer", ("rst", "icmp"))
def test_new_connections_in_a_second_are_as_many_as_the_service_may_have(lab, answer):
    rate = 40
    slow = service(new_per_sec=rate, answer=answer)
    with reloaded(lab, [slow]):
        served, secs = asked(lab, slow)
        assert rate * DEPTH_SECS <= served <= rate * secs * (1 + EXACT)
        assert sum(lab.appliance.conns(slow.key).values()) == served


def test_new_connections_go_to_backends_that_are_not_at_their_own_rate(lab):
    rate = 20
    slow = service(new_per_sec_per_backend=rate)
    slow = replace(slow, scheduler="wrr", options=slow.options | {"no_backend": "rst"})
    slow.backends[0].weight = 9
    with reloaded(lab, [slow]):
        served, secs = asked(lab, slow)
        conns = lab.appliance.conns(slow.key)
    assert sum(conns.values()) == served
    for server in ("s1", "s2"):
        # Workers that look at the same moment may both give it the last flow.
        assert rate * DEPTH_SECS <= conns[server] <= rate * secs * (1 + EXACT) + WORKERS - 1


def test_one_source_that_asks_too_often_takes_nothing_from_another(lab):
    rate = 20
    slow = service(new_per_sec_per_source=rate, answer="rst")
    with reloaded(lab, [slow]):
        served, secs = asked(lab, slow)
        assert rate * DEPTH_SECS <= served <= rate * secs * (1 + EXACT)
        assert dial.outcome(lab.client, slow.vip, CLIENTS[1]) in SERVERS


@dataclass(frozen=True)
class Look:
    """What was counted at some moment between two."""

    before: float
    after: float
    passed: int
    # By worker.
    refused: list[int]


def look(lab, key, counted, reason):
    """Looks at a counter of a service, and at what was dropped for a reason."""
    before = time.monotonic()
    stats = lab.appliance.call("stats")
    after = time.monotonic()
    counters = next(service["counters"] for service in stats["services"] if service["service"] == key)
    drops = [{drop["reason"]: drop["packets"] for drop in worker["drops"]} for worker in stats["workers"]]
    return Look(before, after, counters[counted], [drop[reason] for drop in drops])


@dataclass(frozen=True)
class Rate:
    """A limit, and the load that is too much for it."""

    limit: str
    rate: int
    # The counter of what passes, and what it counts in a second.
    counter: str
    per_sec: int
    # Why the rest is dropped.
    reason: str
    # From where so many flows come, in packets of so many bytes. Each has its own, for servers know flows by that.
    source: str
    flows: int
    length: int


RATES = (
    Rate("new_per_sec", 2000, "conns", 2000, "new_flow_rate", "198.18.0.1", 200_000, 64),
    Rate("packets_per_sec", 3000, "in_packets", 3000, "traffic_rate", "198.18.1.1", 64, 64),
    Rate("bits_per_sec", 20_000_000, "in_bytes", 2_500_000, "traffic_rate", "198.18.2.1", 64, 1000),
)
SECONDS = 3
LONG_SECS = 1
# Between looks.
PITCH_SECS = 0.005
SINK = "import socket, signal; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', {})); signal.pause()"


@contextlib.contextmanager
def flooded(lab, service, rate):
    """More than the service takes, during the block."""
    # Nobody reads: what is too much for its buffer is dropped, and no error comes back.
    sink = lab.servers["s1"].space.popen("/usr/bin/python3", "-c", SINK.format(NAT_PORT), log=lab.state / "sink.log")
    words = (*service.vip.split(":"), rate.source, rate.flows, rate.length)
    source = lab.client.popen("/usr/bin/python3", flood.__file__, *words, log=lab.state / "flood.log")
    try:
        yield
    finally:
        source.stop()
        sink.stop()


@pytest.mark.parametrize("rate", RATES, ids=[rate.limit for rate in RATES])
def test_workers_together_let_as_much_pass_as_the_rate_says(lab, rate):
    limited = service("udp", ("s1",), **{rate.limit: rate.rate})

    def now():
        return look(lab, limited.key, rate.counter, rate.reason)

    with reloaded(lab, [limited]):
        idle = now()
        with flooded(lab, limited, rate):
            wait_until(
                lambda: all(new > old for new, old in zip(now().refused, idle.refused, strict=True)),
                "it is too much for both workers",
            )
            looks = [now()]
            while looks[-1].before < looks[0].before + SECONDS:
                time.sleep(PITCH_SECS)
                looks.append(now())
    looks = empty(looks)
    assert_no_more_passed(looks, rate.per_sec)
    for stretch in busy_stretches(looks):
        assert_no_less_passed(stretch, rate.per_sec)


def empty(looks):
    """Those looks before which something was refused since the one before: then the bucket was empty for a moment."""
    kept = looks[:1]
    for each in looks[1:]:
        if sum(each.refused) > sum(kept[-1].refused):
            kept.append(each)
    return kept


def assert_no_more_passed(looks, per_sec):
    """Since the bucket was empty for a moment between the first two looks, as much passed as the rate says."""
    first, second, *_, last = looks
    assert last.passed - second.passed <= per_sec * (last.after - first.before) * (1 + EXACT)


def busy_stretches(looks):
    """Looks that follow each other so fast that the bucket was never full, with what it then loses."""
    stretch = looks[:1]
    for one, other in pairwise(looks):
        if other.after - one.before > DEPTH_SECS / 2:
            yield stretch
            stretch = []
        stretch.append(other)
    yield stretch


def assert_no_less_passed(stretch, per_sec):
    """Between the moments at which the bucket was empty, as much passed as the rate says. Of short times nothing is
    said: the counters of a worker that has to wait for its core are late."""
    if stretch[-1].before - stretch[0].after > LONG_SECS:
        first, second, *_, before, last = stretch
        assert last.passed - first.passed >= per_sec * (before.before - second.after) * (1 - EXACT)

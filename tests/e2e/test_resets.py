"""Connections that nobody uses: when their server is given up, both ends are told so, whatever the mode."""

import contextlib
import json

import pytest

from lab import balance, modes, silent
from lab.addresses import endpoint, split
from lab.appliance import Backend, Check, Service
from lab.netns import LabError, wait_until
from support import reloaded

FIRST_PORT = 2601
# Connections to each service; every second one has said something, so that PROXY headers have gone before it.
EACH = 4
# Rounds of questions are some seconds apart, and much else may be at work on the machine.
PATIENCE_SECS = 60


def services():
    """All modes, and all ways to tell a server its client's address, each with a port of its own."""
    ways = [(mode, {}) for mode in modes.ALL]
    ways += [
        (mode, {"client_address": way})
        for mode in modes.ALL
        if mode.mode == "full-nat"
        for way in ("proxy-v1", "proxy-v2", "toa")
    ]
    for port, (mode, options) in enumerate(ways, FIRST_PORT):
        address, backend = endpoint(mode.address, port), endpoint(mode.inside.server("s1"), port)
        name = "-".join([mode.name, *options.values()])
        yield Service(name, address, mode.mode, "rr", [Backend(backend)], None, options=mode.options | options)


class Ends:
    """What one side's processes say of all connections."""

    def __init__(self, *processes):
        self.processes = processes

    def lines(self, ended):
        """The connections of which it says that they have begun, or ended; of the latter why, too."""
        said = [json.loads(line) for it in self.processes for line in it.log.read_text().splitlines()]
        return {(it["port"], it["number"]): it["end"] for it in said if bool(it["end"]) == ended}


@contextlib.contextmanager
def connected(lab, chosen):
    """Silent connections through all these services: their clients' and their server's ends."""
    ports = [split(service.vip)[1] for service in chosen]
    server = lab.topology.servers["s1"].popen(
        "/usr/bin/python3", silent.__file__, "serve", *ports, log=lab.state / "silent-server.log"
    )
    clients = []
    try:
        listening = lab.topology.servers["s1"].run
        wait_until(
            lambda: all(f":{port} " in listening("ss", "-Hltn").stdout for port in ports), "the server listens"
        )
        for service in chosen:
            words = ("connect", EACH, *split(service.vip))
            log = lab.state / f"silent-{service.name}.log"
            clients.append(lab.client.popen("/usr/bin/python3", silent.__file__, *words, log=log))
        ends = Ends(*clients), Ends(server)
        wanted = EACH * len(chosen)
        for side in ends:
            wait_until(lambda side=side: len(side.lines(False)) == wanted, "all are connected", PATIENCE_SECS)
        assert not any(side.lines(True) for side in ends)
        yield ends
    finally:
        for process in (server, *clients):
            process.stop()
            process.log.unlink()


def assert_reset(sides, chosen):
    """All connections end, at both ends, and by a reset."""
    names = {int(split(service.vip)[1]): service.name for service in chosen}
    for side, ends in zip(("clients", "the server"), sides, strict=True):

        def left(ends=ends):
            return sorted({names[port] for port, _ in ends.lines(False).keys() - ends.lines(True).keys()})

        with contextlib.suppress(LabError):
            wait_until(lambda: not left(), "all are told", PATIENCE_SECS)
        assert left() == [], f"{side} are not told"
        assert set(ends.lines(True).values()) == {"ConnectionResetError"}


@pytest.mark.parametrize("how", [("drain", "--timeout", "2s", "--then", "reset"), ("disable",)], ids=lambda it: it[0])
def test_both_silent_ends_are_told_that_their_server_is_taken_out_of_use(lab, how):
    chosen = list(services())
    with reloaded(lab, chosen), connected(lab, chosen) as sides:
        word, *options = how
        for service in chosen:
            lab.appliance.cli("backend", word, service.key, service.backends[0].address, *options)
        assert_reset(sides, chosen)
        balance.settled(lab.appliance)


@pytest.fixture
def strict(lab):
    """A router that passes to the client only what is in the window of a connection, as a firewall before it does."""
    router = lab.topology.router
    router.run("nft", "add table inet strict")
    router.run("nft", "add chain inet strict forward { type filter hook forward priority 0; }")
    router.run("nft", "add rule inet strict forward iifname br0 oifname p-client ct state invalid drop")
    yield
    router.run("nft", "delete table inet strict")


def test_clients_behind_a_firewall_are_told_by_what_their_server_says(lab, strict):
    chosen = [service for service in services() if service.mode in ("nat", "full-nat")]
    with reloaded(lab, chosen), connected(lab, chosen) as sides:
        for service in chosen:
            lab.appliance.cli("backend", "disable", service.key, service.backends[0].address)
        assert_reset(sides, chosen)


def test_both_silent_ends_are_told_that_their_server_is_down(lab):
    check = Check(port=modes.NAT_PORT, interval_ms=200, timeout_ms=200, rise=1, fall=2)
    chosen = list(services())
    for service in chosen:
        service.check = check
        service.options |= {"on_down": "reset"}
    with reloaded(lab, chosen), connected(lab, chosen) as sides:
        lab.servers["s1"].kill()
        try:
            assert_reset(sides, chosen)
        finally:
            lab.servers["s1"].restart()

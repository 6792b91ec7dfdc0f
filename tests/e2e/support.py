"""What several end to end tests do."""

import contextlib
import itertools
import json
from dataclasses import dataclass

from lab import client as client_script
from lab.addresses import split
from lab.appliance import by_server
from lab.netns import wait_until

# Of the names of all namespaces and files.
PREFIX = "trutina-e2e"
SERIAL = itertools.count()


@dataclass(frozen=True)
class Request:
    """One line of the client's record; see `lab/client.py`."""

    began: float
    ended: float
    connection: int
    server: str | None
    error: str | None


class Client:
    """The recording client at work on one VIP."""

    def __init__(self, lab, vip, *kind):
        words = (kind[0], *split(vip), *kind[1:])
        self.log = lab.state / f"client-{next(SERIAL)}.log"
        self.process = lab.client.popen("/usr/bin/python3", client_script.__file__, *words, log=self.log)

    def requests(self):
        """What is recorded so far; a line that is being written is left for the next time."""
        text = self.log.read_text()
        complete = text[: text.rfind("\n") + 1]
        return [Request(**json.loads(line)) for line in complete.splitlines()]

    def wait_for(self, count):
        """Waits for so many requests more than there are now."""
        wanted = len(self.requests()) + count
        wait_until(lambda: len(self.requests()) >= wanted, f"the client sends {count} requests", timeout=20)


@contextlib.contextmanager
def clients(lab, services, *kind):
    """One recording client for each service, at work during the block."""
    started = [Client(lab, service.vip, *kind) for service in services]
    try:
        for client in started:
            client.wait_for(20)
        yield started
    finally:
        for client in started:
            client.process.stop()


def errors(requests):
    """Requests nobody answered."""
    return [request for request in requests if request.error]


def servers_by_connection(requests):
    """Who answered on each connection; more than one name means that a flow changed its backend."""
    answered = {}
    for request in requests:
        answered.setdefault(request.connection, set()).add(request.server)
    return answered


def assert_kept(clients_):
    """No request on a held connection failed, and each connection stayed with its server."""
    for client in clients_:
        requests = client.requests()
        assert not errors(requests)
        moved = {n: names for n, names in servers_by_connection(requests).items() if len(names) != 1}
        assert not moved


def healths(lab, server):
    """What the checks say of one server, in every service."""
    services = lab.appliance.ask("service", "list")
    return {by_server(service, lambda backend: backend["health"])[server] for service in services}


@contextlib.contextmanager
def reloaded(lab, services):
    """The appliance balances other services while the block runs."""

    def put(config):
        lab.appliance.write(config)
        lab.appliance.cli("reload")

    put(lab.config.changed(services=services))
    try:
        yield
    finally:
        put(lab.config)

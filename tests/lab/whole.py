"""The whole lab: topology, servers and the appliance, with the services that demo and tests balance."""

import contextlib
import os
import shutil
import socket
from pathlib import Path

from lab import modes, netns, servers
from lab.addresses import FAMILIES, SERVERS, endpoint
from lab.appliance import DIR, SOCKET, Appliance, Backend, Config, Service, usable_cores, worker_core
from lab.netns import LabError
from lab.topology import DEVICES, Topology

HTTP_PORT = 80


def services():
    """One service per mode, round robin, and a weighted one for each IP version."""
    return [*map(balanced, modes.ALL), *map(weighted, FAMILIES)]


def balanced(mode):
    """Web servers behind one mode."""
    port = modes.VIP_PORT if mode.direct else modes.NAT_PORT
    backends = [Backend(address) for address in mode.backends(port)]
    vip = endpoint(mode.address, HTTP_PORT)
    return Service(mode.name, vip, mode.mode, "rr", backends, options=mode.options)


def weighted(family):
    """Web servers that get connections by their weights."""
    addresses = [endpoint(family.server(name), modes.WRR_PORT) for name in SERVERS]
    backends = list(map(Backend, addresses, modes.WRR_WEIGHTS))
    vip = endpoint(family.vip(modes.WRR_VIP), HTTP_PORT)
    return Service(f"weighted-{family.version}", vip, "nat", "wrr", backends)


def state_dir(prefix):
    """Where a lab keeps its files."""
    return Path("/run", prefix)


def clean(prefix):
    """Takes away what an earlier lab of this name left; returns whether there was anything."""
    spaces = netns.named(f"{prefix}-")
    for name in spaces:
        netns.delete(name)
    left = bool(spaces) or state_dir(prefix).exists()
    shutil.rmtree(state_dir(prefix), ignore_errors=True)
    return left


@contextlib.contextmanager
def alone(prefix):
    """Makes sure that no other process runs a lab of this name.

    The name of an abstract socket is a lock that leaves no file and ends with its process, however that ends.
    """
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind(f"\0{prefix}")
        except OSError:
            raise LabError(f"another {prefix} is running; wait for its end or stop it by Ctrl-C") from None
        yield


@contextlib.contextmanager
def confined_to(cores):
    """Keeps this process and all it starts on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Lab:
    """Everything up: `with Lab(...) as lab`, then `lab.client`, `lab.servers["s1"]`, `lab.appliance`."""

    def __init__(self, prefix, device="af_packet", logged=True):
        self.stack = contextlib.ExitStack()
        self.prefix = prefix
        self.state = state_dir(prefix)
        self.config = Config(DEVICES[device], services(), str(self.state / DIR / SOCKET), prefix)
        self.topology = Topology(prefix, self.state, device)
        self.servers = {
            name: servers.Server(name, space, self.state, logged)
            for name, space in self.topology.servers.items()
        }
        self.appliance = None
        self.cleaned = False

    def __enter__(self):
        try:
            self._build()
        except BaseException:
            self.take_down()
            raise
        return self

    def _build(self):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root; try it with sudo")
        self.stack.enter_context(alone(self.prefix))
        self.cleaned = clean(self.prefix)
        self.state.mkdir(parents=True)
        self.stack.callback(shutil.rmtree, self.state, ignore_errors=True)
        # The worker polls without a pause: whatever shared its core would crawl, and it with it.
        self.stack.enter_context(confined_to(set(usable_cores()) - {worker_core()}))
        self.stack.enter_context(self.topology)
        for server in self.servers.values():
            server.start()
        self.appliance = Appliance(self.topology, self.state)

    def __exit__(self, *_):
        self.take_down()

    def take_down(self):
        """Takes everything away, newest first, undisturbed by signals."""
        with netns.signals_wait():
            self.stack.close()

    def leave(self):
        """Leaves everything up, for the next `clean` to take away."""
        self.stack.pop_all()

    @property
    def client(self):
        """The client's namespace."""
        return self.topology.client

    def service(self, name):
        """The service of that name, as configured."""
        return next(service for service in self.config.services if service.name == name)

"""The appliance under test: its configuration file, trutinad itself, and what the CLI says of it."""

import dataclasses
import json
import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

from lab import modes
from lab.addresses import FAMILIES, server_of
from lab.netns import LabError, run, wait_until

ROOT = Path(__file__).resolve().parents[2]
DIR, SOCKET = "appliance", "trutina.sock"

EXIT_FAILED, EXIT_USAGE, EXIT_INVALID, EXIT_UNREACHABLE = 1, 2, 3, 4


def binary(name):
    """Path of one of our programs: `$TRUTINAD` or `$TRUTINA`, else the release build, else the debug one."""
    chosen = os.environ.get(name.upper())
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for path in [Path(chosen)] if chosen else [target / "release" / name, target / "debug" / name]:
        if path.is_file():
            return path.resolve()
    raise LabError(f"there is no {name} in {target}; build it by `make build`")


def usable_cores():
    """CPU cores the kernel would let this process use, also if it has confined itself to some of them."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count()))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, mine)
    if len(cores) < 2:
        raise LabError("2 cores are needed: the appliance keeps one busy, and everything else needs another")
    return cores


def worker_core():
    """The core that polls: the last one, for the kernel likes the first ones for its own work."""
    return usable_cores()[-1]


@dataclass
class Backend:
    """`[[service.backend]]`"""

    address: str
    weight: int = 1
    upper: int | None = None
    lower: int | None = None


@dataclass
class Check:
    """`check = { ... }`"""

    kind: str = "http"
    interval_ms: int = 500
    timeout_ms: int = 500
    rise: int = 2
    fall: int = 3
    port: int | None = None


@dataclass
class Service:
    """`[[service]]`; `key` is what the CLI calls it, and `options` are keys that have no field here."""

    name: str
    vip: str
    mode: str
    scheduler: str
    backends: list[Backend]
    check: Check | None = field(default_factory=Check)
    protocol: str = "tcp"
    options: dict = field(default_factory=dict)

    @property
    def key(self):
        return f"{self.protocol}:{self.vip}"


@dataclass
class Config:
    """A configuration file; what has no place here is left to the defaults of trutinad."""

    device: str
    services: list[Service]
    socket: str
    file_prefix: str
    hugepages: bool = False
    memory_mib: int = 128
    control: int = field(default_factory=lambda: usable_cores()[0])
    workers: list[int] = field(default_factory=lambda: [worker_core()])
    shared: bool = False
    idle: str = "poll"
    flows: int = 100_000
    # On the loopback of the appliance's own namespace.
    metrics: str = "127.0.0.1:9400"

    def changed(self, **values):
        """A copy with other values."""
        return dataclasses.replace(self, **values)

    def toml(self):
        """The file's text."""
        dpdk = {"hugepages": self.hugepages, "memory_mib": self.memory_mib, "file_prefix": self.file_prefix}
        cores = {"control": self.control, "workers": self.workers, "shared": self.shared, "idle": self.idle}
        own = [family.net(family.own) for family in FAMILIES]
        routes = [{"to": family.everywhere, "via": family.router} for family in FAMILIES]
        pool = {"name": modes.POOL, "addresses": [family.pool for family in FAMILIES]}
        parts = [
            table("[dpdk]", dpdk),
            table("[cores]", cores),
            table("[[port]]", {"name": "lan", "device": self.device, "addresses": own}),
            *(table("[[route]]", route) for route in routes),
            table("[[snat_pool]]", pool),
            table("[flow_table]", {"capacity": self.flows, "wide_capacity": 100_000}),
            table("[control]", {"socket": self.socket}),
            table("[metrics]", {"listen": self.metrics}),
        ]
        for service in self.services:
            keys = {"name": service.name, "vip": service.vip, "protocol": service.protocol}
            keys |= {"scheduler": service.scheduler, "mode": service.mode, "check": service.check}
            parts.append(table("[[service]]", keys | service.options))
            parts += [table("[[service.backend]]", vars(backend)) for backend in service.backends]
        return "\n".join(parts)


def table(header, keys):
    """One table of TOML; keys whose value is `None` are left out."""
    lines = [f"{key} = {toml_value(value)}" for key, value in keys.items() if value is not None]
    return "\n".join([header, *lines, ""])


def toml_value(value):
    """A value as TOML writes it, which but for inline tables is as JSON does."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    keys = vars(value) if isinstance(value, Check) else value
    if isinstance(keys, dict):
        given = (f"{key} = {json.dumps(entry)}" for key, entry in keys.items() if entry is not None)
        return "{ " + ", ".join(given) + " }"
    return json.dumps(value)


class Appliance:
    """trutinad in the appliance's namespace, with everything it writes in one directory."""

    def __init__(self, topo, state):
        self.topology = topo
        self.dir = Path(state) / DIR
        self.dir.mkdir(parents=True, exist_ok=True)
        self.file = self.dir / "trutina.toml"
        self.socket = self.dir / SOCKET
        self.log = self.dir / "trutinad.log"
        self.process = None

    def write(self, config):
        """Writes the configuration file."""
        self.file.write_text(config.toml())

    def launch(self):
        """Starts trutinad and does not wait for it."""
        # DPDK's runtime files then go to a directory that is taken away with the lab.
        env = {"RUNTIME_DIRECTORY": str(self.dir)}
        argv = (binary("trutinad"), "--config", self.file)
        space = self.topology.appliance
        self.process = space.popen(*argv, log=self.log, env=env, cores=usable_cores())

    def start(self, config):
        """Starts trutinad on `config` and waits until it is ready and, with a tap device, plugged in."""
        self.write(config)
        self.launch()
        self.wait_ready()
        if self.topology.device == "tap":
            self.topology.adopt_tap()

    def wait_ready(self, timeout=20):
        """Waits until the control socket answers."""

        def ready():
            if not self.process.running():
                raise LabError(f"trutinad ended with {self.process.wait(1)}; its log:\n{self.process.tail()}")
            return self.cli("status", check=False).returncode == 0

        try:
            wait_until(ready, "trutinad answers `status`", timeout, every=0.05)
        except LabError as error:
            raise LabError(f"{error}\nits log:\n{self.process.tail()}") from None

    def cli(self, *words, check=True):
        """Runs `trutina WORDS` to its end."""
        return run(binary("trutina"), "--socket", self.socket, *words, check=check)

    def ask(self, *words):
        """What `trutina --json WORDS` answers, parsed."""
        return json.loads(self.cli("--json", *words).stdout)

    def call(self, method, **params):
        """The same by the control socket itself, which takes a millisecond and starts no program."""
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.socket))
            control.sendall(line.encode() + b"\n")
            with control.makefile("rb") as answers:
                return json.loads(answers.readline())["result"]

    def service(self, key):
        """The status of one service."""
        return next(service for service in self.ask("service", "list") if service["service"] == key)

    def conns(self, key):
        """Flows scheduled so far, by server name, for one service."""
        return by_server(self.service(key), lambda backend: backend["counters"]["conns"])

    def hang_up(self):
        """SIGHUP: reload the file."""
        self.process.popen.send_signal(signal.SIGHUP)

    def stop(self):
        """SIGTERM; returns the exit code."""
        return self.process.stop(timeout=10)


def by_server(service, value):
    """One value per backend, by the name of its server."""
    return {server_of(backend["address"]): value(backend) for backend in service["backends"]}

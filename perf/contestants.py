"""Who is compared: each one's set-up on the appliance's interface, as a user would do it with default settings.

A contestant is a context: while it is entered, the address that it yields is served by the lab's three web servers
(by one of them without any balancer). All use the same interface with the same wires; only one is up at a time.
"""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import modes
from lab.addresses import SERVERS, V4, endpoint
from lab.appliance import usable_cores, worker_core
from lab.netns import LabError, wait_until
from lab.topology import DEVICES, PORT_DEVICE

PROGRAMS = {"haproxy": "haproxy", "nft": "nftables", "nginx": "nginx-light", "wrk": "wrk"}
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

VIP = V4.vip(modes.BY_NAME["nat-4"].vip)
BACKENDS = [endpoint(V4.server(name), modes.NAT_PORT) for name in SERVERS]

HAPROXY = """\
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind {vip}:80
    balance roundrobin
{servers}
"""

NGINX = """\
load_module {module};
user root;
daemon off;
worker_processes 1;
pid {dir}/stream.pid;
events {{ worker_connections 8192; }}
stream {{
    upstream web {{ {servers} }}
    server {{
        listen {vip}:80 backlog=4096;
        proxy_pass web;
    }}
}}
"""

NFTABLES = """\
table ip balance {{
    chain in {{
        type nat hook prerouting priority dstnat;
        ip daddr {vip} tcp dport 80 dnat to {choice} mod {count} map {{ {servers} }}
    }}
}}
"""


@dataclass(frozen=True)
class Contestant:
    """`up` is a context of a lab that yields the endpoint to load; others run on the cores that it leaves."""

    name: str
    up: Callable
    own_core: bool = False

    def cores_of_others(self):
        """Where clients and servers run: a worker that polls leaves nothing of its core."""
        return set(usable_cores()) - ({worker_core()} if self.own_core else set())


def require_programs():
    """Says which packages are missing."""
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    missing += [] if Path(STREAM_MODULE).exists() else ["libnginx-mod-stream"]
    if missing:
        raise LabError(f"packages are missing; try `make compare`, or apt-get install {' '.join(missing)}")


@contextlib.contextmanager
def direct(lab):
    """No balancer: the router sends the address of one server's loopback there; replies go straight back."""
    address = V4.vip(modes.BY_NAME["dr-4"].vip)
    route = f"route add {address} via {V4.server('s1')}"
    lab.topology.router.ip(route)
    try:
        yield endpoint(address, modes.VIP_PORT)
    finally:
        lab.topology.router.ip(route.replace("add", "del"))


@contextlib.contextmanager
def in_kernel(lab, forward):
    """The appliance's interface as the kernel's own, with what trutinad is told of addresses and routes."""
    space = lab.topology.appliance
    space.sysctl(f"net.ipv4.ip_forward={int(forward)}", f"net.ipv4.conf.{PORT_DEVICE}.arp_ignore=0")
    for address in (V4.net(V4.own), V4.alone(VIP)):
        space.ip(f"addr add {address} dev {PORT_DEVICE}")
    space.ip(f"route add default via {V4.router}")
    try:
        yield space
    finally:
        space.ip(f"addr flush dev {PORT_DEVICE}")
        space.sysctl("net.ipv4.ip_forward=0", f"net.ipv4.conf.{PORT_DEVICE}.arp_ignore=8")


def nftables(choice):
    """DNAT by the kernel; `choice` is the expression that picks a server."""

    @contextlib.contextmanager
    def up(lab):
        targets = enumerate(f"{V4.server(name)} . {modes.NAT_PORT}" for name in SERVERS)
        servers = ", ".join(f"{number} : {target}" for number, target in targets)
        rules = NFTABLES.format(vip=VIP, choice=choice, count=len(SERVERS), servers=servers)
        with in_kernel(lab, forward=True) as space:
            space.run("nft", "-f", "-", input=rules)
            try:
                yield endpoint(VIP, 80)
            finally:
                space.run("nft", "flush", "ruleset")

    return up


@contextlib.contextmanager
def proxy(lab, argv):
    """A program that listens on the address."""
    with in_kernel(lab, forward=False) as space:
        process = space.popen(*argv, log=lab.state / "proxy.log", cores=usable_cores())

        def answers():
            if not process.running():
                raise LabError(f"`{' '.join(process.argv)}` ended:\n{process.tail()}")
            return space.run("curl", "-fs", f"http://{VIP}/", check=False).returncode == 0

        try:
            wait_until(answers, f"`{' '.join(process.argv)}` answers")
            yield endpoint(VIP, 80)
        finally:
            process.stop()


@contextlib.contextmanager
def haproxy(lab):
    """HAProxy, TCP mode, one thread."""
    file = lab.state / "haproxy.cfg"
    servers = "\n".join(f"    server s{number} {address}" for number, address in enumerate(BACKENDS))
    file.write_text(HAPROXY.format(vip=VIP, servers=servers))
    with proxy(lab, ("haproxy", "-db", "-f", file)) as address:
        yield address


@contextlib.contextmanager
def nginx(lab):
    """nginx's stream module, one worker."""
    file = lab.state / "stream.conf"
    servers = " ".join(f"server {address};" for address in BACKENDS)
    file.write_text(NGINX.format(module=STREAM_MODULE, dir=lab.state, vip=VIP, servers=servers))
    with proxy(lab, ("nginx", "-e", lab.state / "stream.log", "-c", file)) as address:
        yield address


def trutina(device, **options):
    """trutinad in NAT mode on one of the lab's devices; no checks, as the others have none."""

    @contextlib.contextmanager
    def up(lab):
        service = lab.service("nat-4")
        service.check = None
        lab.appliance.start(lab.config.changed(device=device, services=[service], **options))
        try:
            yield service.vip
        finally:
            lab.appliance.stop()

    return up


ALL = [
    Contestant("direct", direct),
    Contestant("nft-numgen", nftables("numgen inc")),
    Contestant("nft-jhash", nftables("jhash ip saddr . tcp sport")),
    Contestant("haproxy", haproxy),
    Contestant("nginx-stream", nginx),
    Contestant("trutina-af_packet", trutina(DEVICES["af_packet"]), own_core=True),
    Contestant("trutina-af_xdp", trutina(DEVICES["af_xdp"]), own_core=True),
    Contestant("trutina-af_packet-sleep", trutina(DEVICES["af_packet"], idle="sleep")),
    Contestant("trutina-af_xdp-sleep", trutina(DEVICES["af_xdp"], idle="sleep")),
]

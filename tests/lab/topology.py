"""Who is connected to whom, and who answers for which address.

The servers answer in three ways at once. What they say from their own address (NAT) goes back through the
appliance, by policy routing; what they say from a virtual address (DR, tunnel) goes straight to the router.
"""

import contextlib
import os
from pathlib import Path

from lab import netns
from lab.netns import Namespace, run, wait_until

PICTURE = r"""
   client              router                    appliance
 10.80.0.2 ---- 10.80.0.1 | 10.90.0.1 ----+---- own 10.90.0.254, VIPs 10.90.0.101-104   (DPDK port)
    c0           p-client |    br0        +---- mgmt0 10.90.0.250                       (health checks)
                                          |
                                          +---- s1 10.90.0.11   nginx
                                          +---- s2 10.90.0.12   nginx
                                          +---- s3 10.90.0.13   nginx
"""

CLIENT = "10.80.0.2"
ROUTER = "10.90.0.1"
OWN = "10.90.0.254"
MANAGEMENT = "10.90.0.250"
VIP_NAT, VIP_DR, VIP_TUNNEL, VIP_WRR = "10.90.0.101", "10.90.0.102", "10.90.0.103", "10.90.0.104"
SERVERS = {"s1": "10.90.0.11", "s2": "10.90.0.12", "s3": "10.90.0.13"}

PORT_DEVICE = "l0"
TAP_DEVICE = "t0"
DEVICES = {
    "af_packet": f"net_af_packet0,iface={PORT_DEVICE},"
    "framesz=2048,framecnt=4096,blocksz=65536,qdisc_bypass=1",
    "af_xdp": f"net_af_xdp0,iface={PORT_DEVICE}",
    "tap": f"net_tap0,iface={TAP_DEVICE}",
}

NAT_TABLE = 100


class Topology(contextlib.ExitStack):
    """The namespaces, named `<prefix>-client` and so on, and their links; `with` builds it and takes it away."""

    def __init__(self, prefix, state, device="af_packet"):
        super().__init__()
        self.prefix = prefix
        self.state = Path(state)
        self.device = device
        self.client, self.router, self.appliance = map(self._space, ("client", "router", "appliance"))
        self.servers = {name: self._space(name) for name in SERVERS}
        self.decapsulated_by = None

    def _space(self, name):
        return Namespace(f"{self.prefix}-{name}")

    def __enter__(self):
        super().__enter__()
        try:
            for space in (self.router, self.client, self.appliance, *self.servers.values()):
                self.enter_context(space)
            self._wire_router_and_client()
            self._wire_appliance()
            for name in self.servers:
                self._wire_server(name)
            self._decapsulate()
        except BaseException:
            self.close()
            raise
        return self

    def _wire_router_and_client(self):
        self.router.sysctl(
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        )
        # A fixed address: a bridge otherwise takes the lowest of its ports' and changes it as ports come.
        self.router.ip("link add br0 address 02:00:5e:00:53:01 type bridge")
        self.router.ip(f"addr add {ROUTER}/24 dev br0")
        self.router.ip("link set br0 up")
        netns.plug(self.client, "c0", self.router, "p-client")
        self.router.ip("addr add 10.80.0.1/24 dev p-client")
        self.client.ip(f"addr add {CLIENT}/24 dev c0")
        self.client.ip("route add default via 10.80.0.1")
        # The kernel leaves about 9 ports between one connection's port and the next one's. The whole range
        # lets 7000 connections to one VIP pass before a port, and with it an old flow, comes again.
        self.client.sysctl("net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")

    def _wire_appliance(self):
        if self.device != "tap":
            self._join_bridge(self.appliance, PORT_DEVICE)
            # The kernel sees the port's frames too, but the port is DPDK's: 8 means never answer ARP there.
            self.appliance.sysctl(f"net.ipv4.conf.{PORT_DEVICE}.arp_ignore=8")
        self._join_bridge(self.appliance, "mgmt0")
        self.appliance.ip(f"addr add {MANAGEMENT}/24 dev mgmt0")

    def _wire_server(self, name):
        space, address = self.servers[name], SERVERS[name]
        self._join_bridge(space, "e0", peer=f"p-{name}")
        space.ip(f"addr add {address}/24 dev e0")
        space.ip(f"route add default via {ROUTER}")
        # The virtual addresses are here too, but only the appliance may answer ARP for them.
        space.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        for vip in (VIP_DR, VIP_TUNNEL):
            space.ip(f"addr add {vip}/32 dev lo")
        space.ip(f"route add 10.90.0.0/24 dev e0 table {NAT_TABLE}")
        space.ip(f"route add default via {OWN} table {NAT_TABLE}")
        space.ip(f"rule add from {address} lookup {NAT_TABLE}")
        space.sysctl("net.core.somaxconn=4096")

    def _join_bridge(self, space, device, peer=None):
        peer = peer or f"p-{device}"
        netns.plug(space, device, self.router, peer)
        self.router.ip(f"link set {peer} master br0")

    def _decapsulate(self):
        """Takes tunnel packets' outer header off, by the kernel's ipip device or, if it has none, by XDP."""
        first = next(iter(self.servers.values()))
        tried = run("ip", "-n", first.name, "link", "add", "probe0", "type", "ipip", check=False)
        if tried.returncode == 0:
            first.ip("link del probe0")
            self.decapsulated_by = "the kernel's ipip device"
            for name, space in self.servers.items():
                space.ip(f"link add ipip0 type ipip local {SERVERS[name]} remote any")
                space.sysctl("net.ipv4.conf.ipip0.rp_filter=0")
                space.ip("link set ipip0 up")
            return
        self.decapsulated_by = "an XDP program, for this kernel has no ipip device"
        program = compile_xdp(Path(__file__).with_name("decap.c"), self.state / "decap.o")
        for space in self.servers.values():
            space.ip(f"link set e0 xdpgeneric obj {program} sec xdp")

    def adopt_tap(self):
        """Moves the tap device that trutinad made to the router, and plugs it in as the cable of the port."""

        def made():
            shown = run("ip", "-n", self.appliance.name, "link", "show", TAP_DEVICE, check=False)
            return shown.returncode == 0

        wait_until(made, f"trutinad makes {TAP_DEVICE}")
        self.appliance.ip(f"link set {TAP_DEVICE} netns {self.router.name}")
        # Both ends of a tap start with one Ethernet address; with the port's own on its near end the
        # bridge would take the port's frames for its own.
        self.router.ip(f"link set {TAP_DEVICE} address 02:00:5e:00:53:fe")
        netns.wire(self.router, TAP_DEVICE)
        self.router.ip(f"link set {TAP_DEVICE} master br0")
        self.router.ip(f"link set {TAP_DEVICE} up")


def compile_xdp(source, target):
    """Compiles an XDP program with clang."""
    headers = f"/usr/include/{os.uname().machine}-linux-gnu"
    run("clang", "-O2", "-g", "-target", "bpf", f"-I{headers}", "-c", source, "-o", target)
    return target

"""Who is connected to whom, and who answers for which address.

The servers answer in three ways at once. What they say from their own address (NAT) goes back through the
appliance, by policy routing; what they say to the appliance (full NAT) needs no way back of its own; what they say
from a virtual address (DR, tunnel) goes straight to the router.
"""

import contextlib
import os
from pathlib import Path

from lab import modes, netns
from lab.addresses import FAMILIES, SERVERS
from lab.netns import Namespace, run, wait_until

PICTURE = r"""
   client              router                    appliance
 10.80.0.2 ---- 10.80.0.1 | 10.90.0.1 ----+---- own 10.90.0.254, VIPs 10.90.0.101-109   (DPDK port)
    c0           p-client |    br0        +---- mgmt0 10.90.0.250                       (health checks)
                                          |
                                          +---- s1 10.90.0.11   nginx
                                          +---- s2 10.90.0.12   nginx
                                          +---- s3 10.90.0.13   nginx

 and all of it once more over IPv6, with the same last numbers in 2001:db8:80::/64 and 2001:db8:90::/64
"""

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

    def _space(self, name):
        return Namespace(f"{self.prefix}-{name}")

    def __enter__(self):
        super().__enter__()
        try:
            for space in (self.router, self.client, self.appliance, *self.servers.values()):
                self.enter_context(space)
            self._wire_router_and_client()
            self._wire_appliance()
            program = compile_xdp(Path(__file__).with_name("decap.c"), self.state / "decap.o")
            for name in self.servers:
                self._wire_server(name, program)
            # Who traces a route wants an answer to each probe, not one a second.
            for space in (self.router, *self.servers.values()):
                space.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        except BaseException:
            self.close()
            raise
        return self

    def _wire_router_and_client(self):
        self.router.sysctl(
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
        )
        # A fixed address: a bridge otherwise takes the lowest of its ports' and changes it as ports come.
        self.router.ip("link add br0 address 02:00:5e:00:53:01 type bridge mcast_snooping 0")
        self.router.ip("link set br0 up")
        netns.plug(self.client, "c0", self.router, "p-client")
        for family in FAMILIES:
            self.router.ip(f"addr add {family.net(family.router)} dev br0")
            self.router.ip(f"addr add {family.net(family.clients_router)} dev p-client")
            self.client.ip(f"addr add {family.net(family.client)} dev c0")
            self.client.ip(f"-{family.version} route add default via {family.clients_router}")
        # The kernel leaves about 9 ports between one connection's port and the next one's. The whole range
        # lets 7000 connections to one VIP pass before a port, and with it an old flow, comes again.
        self.client.sysctl("net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")

    def _wire_appliance(self):
        if self.device != "tap":
            self._join_bridge(self.appliance, PORT_DEVICE)
            # The kernel sees the port's frames too, but the port is DPDK's: 8 means never answer ARP there.
            self.appliance.sysctl(
                f"net.ipv4.conf.{PORT_DEVICE}.arp_ignore=8",
                f"net.ipv6.conf.{PORT_DEVICE}.disable_ipv6=1",
            )
        self._join_bridge(self.appliance, "mgmt0")
        for family in FAMILIES:
            self.appliance.ip(f"addr add {family.net(family.management)} dev mgmt0")

    def _wire_server(self, name, program):
        space = self.servers[name]
        self._join_bridge(space, "e0", peer=f"p-{name}")
        # The virtual addresses are here too, but only the appliance may answer ARP for them. (Discovery of IPv6
        # answers for addresses of the interface that is asked, and so not for those of lo.)
        space.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        for family in FAMILIES:
            address = family.server(name)
            space.ip(f"addr add {family.net(address)} dev e0")
            space.ip(f"-{family.version} route add default via {family.router}")
            for number in modes.DIRECT_VIPS:
                space.ip(f"addr add {family.alone(family.vip(number))} dev lo")
            space.ip(f"route add {family.network(family.servers)} dev e0 table {NAT_TABLE}")
            space.ip(f"-{family.version} route add default via {family.own} table {NAT_TABLE}")
            space.ip(f"-{family.version} rule add from {address} lookup {NAT_TABLE}")
        space.sysctl("net.core.somaxconn=4096")
        space.ip(f"link set e0 xdpgeneric obj {program} sec xdp")

    def _join_bridge(self, space, device, peer=None):
        peer = peer or f"p-{device}"
        netns.plug(space, device, self.router, peer)
        self.router.ip(f"link set {peer} master br0")

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

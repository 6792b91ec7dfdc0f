"""A lab with two arms: clients on one port of the appliance, servers on another, or on two VLANs of one port.

Servers have the appliance as their plain default route, so it is their NAT gateway. Only what they say from a
virtual address (DR, tunnel) goes past it, by a router.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import netns, tags, whole
from lab.appliance import Appliance
from lab.netns import LabError, Namespace
from lab.servers import Server
from lab.topology import compile_xdp

PICTURE = r"""
  client                      net                                   s1, s2, s3
 +-----------------+         +-----------------------------+       +------------------+
 | c0   10.81.0.2  +---------+ outside       inside        +-------+ e0  10.91.0.11.. |
 +-----------------+         | 10.81.0.1     10.91.0.1     |       +------------------+
                             +---+---------------+---------+
                             +---+---------------+---------+
                             | l0 10.81.0.254    l1 10.91.0.254    DPDK's ports, appliance
                             +-----------------------------+
"""


@dataclass(frozen=True)
class Family:
    """Addresses of one IP version: networks of clients and servers, with the same last numbers in both."""

    version: int
    outside: str
    inside: str
    prefix_len: int
    address_len: int
    everywhere: str

    @property
    def client(self):
        return f"{self.outside}2"

    @property
    def own(self):
        """The appliance's addresses, outside and inside."""
        return f"{self.outside}254", f"{self.inside}254"

    @property
    def routers(self):
        """The other way between the two networks, outside and inside."""
        return f"{self.outside}1", f"{self.inside}1"

    @property
    def full_nat(self):
        """What full NAT speaks from to servers."""
        return f"{self.inside}200"

    @property
    def masquerade(self):
        """What servers' own traffic comes from, when the gateway translates it."""
        return f"{self.outside}201"

    def vip(self, number):
        return f"{self.outside}{number}"

    def server(self, name):
        return f"{self.inside}1{name.removeprefix('s')}"

    def net(self, address):
        """An address with the length of its network."""
        return f"{address}/{self.prefix_len}"


V4 = Family(4, "10.81.0.", "10.91.0.", 24, 32, "0.0.0.0/0")
V6 = Family(6, "2001:db8:81::", "2001:db8:91::", 64, 128, "::/0")
FAMILIES = (V4, V6)
SERVERS = ("s1", "s2", "s3")
# Last number of each mode's virtual address; the direct ones are on the servers, too.
VIPS = {"nat": 101, "full-nat": 105, "dr": 102, "tunnel": 103}
DIRECT = ("dr", "tunnel")
PORTS = ("l0", "l1")
PAST_TABLE = 100


class Arms(contextlib.ExitStack):
    """The lab: namespaces, web servers and an appliance that is not started; `with` takes all of it away again.

    `queues` is how many each port has. With `trunk`, a pair of tag stacks, there is one port, which both networks
    reach with those VLAN tags.
    """

    # What `Appliance` asks of a topology: this one has no tap device to be plugged in.
    device = None

    def __init__(self, prefix, queues=1, trunk=None):
        super().__init__()
        self.prefix, self.queues, self.trunk = prefix, queues, trunk
        self.state = whole.state_dir(prefix)
        self.client, self.net, self.appliance = (Namespace(f"{prefix}-{name}") for name in ("client", "net", "lb"))
        self.servers = {name: Namespace(f"{prefix}-{name}") for name in SERVERS}
        self.nginx = {name: Server(name, space, self.state) for name, space in self.servers.items()}
        # The world has one, too.
        self.nginx["outside"] = Server("outside", self.client, self.state)

    def __enter__(self):
        super().__enter__()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *what):
        with netns.signals_wait():
            return super().__exit__(*what)

    def _build(self):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root; try it with sudo")
        self.enter_context(whole.alone(self.prefix))
        whole.clean(self.prefix)
        self.state.mkdir(parents=True)
        self.callback(shutil.rmtree, self.state, ignore_errors=True)
        self.enter_context(whole.confined_to(set(whole.usable_cores()) - {whole.worker_core()}))
        for space in (self.net, self.client, self.appliance, *self.servers.values()):
            self.enter_context(space)
            space.sysctl("net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0")
            # Addresses are good at once: nobody is asked whether they are taken.
            space.sysctl("net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.default.accept_dad=0")
        self._wire_net()
        self._wire_appliance()
        self._wire_client()
        program = compile_xdp(Path(__file__).with_name("decap.c"), self.state / "decap.o")
        for name in SERVERS:
            self._wire_server(name, program)
        for server in self.nginx.values():
            server.start()
        self.lb = Appliance(self, self.state)

    def _wire_net(self):
        self.net.sysctl(
            "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0"
        )
        for number, bridge in enumerate(("outside", "inside")):
            # A fixed address: a bridge otherwise takes the lowest of its ports' and changes it as ports come.
            self.net.ip(f"link add {bridge} address 02:00:5e:00:53:0{number} type bridge mcast_snooping 0")
            for family in FAMILIES:
                self.net.ip(f"addr add {family.net(family.routers[number])} dev {bridge}")
            self.net.ip(f"link set {bridge} up")

    def _wire_appliance(self):
        if self.trunk:
            self._own_port("l0")
            # A link has room for one tag beyond its MTU, and these may have two.
            self.net.ip("link set p-l0 mtu 1504")
            tags.split_trunk(self.net, "p-l0", dict(zip(("outside", "inside"), self.trunk, strict=True)), self.state)
            return
        for device, bridge in zip(PORTS, ("outside", "inside"), strict=True):
            self._own_port(device)
            self.net.ip(f"link set p-{device} master {bridge}")

    def _own_port(self, device):
        netns.plug(self.appliance, device, self.net, f"p-{device}", self.queues)
        # The kernel sees the port's frames too, but the port is DPDK's. An arp_ignore of 8 means never to answer ARP
        # there. With an rp_filter of 1 it leaves alone what is for addresses that it has by the tap of a host port.
        self.appliance.sysctl(f"net.ipv4.conf.{device}.arp_ignore=8", f"net.ipv4.conf.{device}.rp_filter=1")
        self.appliance.sysctl(f"net.ipv6.conf.{device}.disable_ipv6=1")

    def _wire_client(self):
        self._join(self.client, "c0", "p-client", "outside")
        for family in FAMILIES:
            self.client.ip(f"addr add {family.net(family.client)} dev c0")
            # Servers that keep their own addresses are behind the appliance.
            self.client.ip(f"-{family.version} route add default via {family.own[0]}")
        self.client.sysctl("net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1")

    def _wire_server(self, name, program):
        space = self.servers[name]
        self._join(space, "e0", f"p-{name}", "inside")
        # The virtual addresses are here too, but only the appliance may answer for them.
        space.sysctl("net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
        space.sysctl("net.core.somaxconn=4096")
        for family in FAMILIES:
            past = f"default via {family.routers[1]}"
            space.ip(f"addr add {family.net(family.server(name))} dev e0")
            space.ip(f"-{family.version} route add default via {family.own[1]}")
            space.ip(f"-{family.version} route add {past} table {PAST_TABLE}")
            for mode in DIRECT:
                space.ip(f"addr add {family.vip(VIPS[mode])}/{family.address_len} dev lo")
                space.ip(f"-{family.version} rule add from {family.vip(VIPS[mode])} lookup {PAST_TABLE}")
        space.ip(f"link set e0 xdpgeneric obj {program} sec xdp")

    def _join(self, space, device, peer, bridge):
        netns.plug(space, device, self.net, peer)
        self.net.ip(f"link set {peer} master {bridge}")

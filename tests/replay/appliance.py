"""The appliance under test as plain data, and its configuration file.

Addresses are those of RFC 5737 and RFC 3849. On the link, in 192.0.2.0/24 and 2001:db8:2::/64, are the
appliance, its VIPs and the servers; clients live behind the gateway in 198.51.100.0/24 and 2001:db8:51::/64, far
tunnel servers behind it too, in 203.0.113.0/24 and 2001:db8:113::/64.
"""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

# What DPDK's net_pcap gives its devices, in order; the driver can not change it.
PORT_MACS = tuple(f"02:70:63:61:70:{number:02x}" for number in range(4))
PORT_MAC = PORT_MACS[0]
PORT_IP, PORT_IP6 = "192.0.2.254", "2001:db8:2::fe"
GATEWAY, GATEWAY6 = "192.0.2.1", "2001:db8:2::1"
NEAR_CLIENT, NEAR_CLIENT6 = "192.0.2.201", "2001:db8:2::c9"

NEIGHBOURS = {
    GATEWAY: "02:00:5e:00:53:01",
    "192.0.2.11": "02:00:5e:00:53:0b",
    "192.0.2.12": "02:00:5e:00:53:0c",
    "192.0.2.13": "02:00:5e:00:53:0d",
    NEAR_CLIENT: "02:00:5e:00:53:c9",
    GATEWAY6: "02:00:5e:00:53:61",
    "2001:db8:2::11": "02:00:5e:00:53:6b",
    "2001:db8:2::12": "02:00:5e:00:53:6c",
    "2001:db8:2::13": "02:00:5e:00:53:6d",
    NEAR_CLIENT6: "02:00:5e:00:53:69",
}


def split(endpoint: str) -> tuple[str, int]:
    """Address and port of `192.0.2.1:80` or `[2001:db8::1]:80`; the first port of a range."""
    ip, port = endpoint.rsplit(":", 1)
    return ip.strip("[]"), int(port.split("-")[0])


def join(ip: str, port: int) -> str:
    """The endpoint of an address and a port."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def version(ip: str) -> int:
    """IP version of an address."""
    return 6 if ":" in ip else 4


@dataclass(frozen=True)
class Tunnel:
    """How packets to a backend are wrapped."""

    type: str = "ipip"
    port: int = 6080
    checksum: bool = False

    def toml(self) -> str:
        """The inline table."""
        port = f", port = {self.port}" if self.type == "gue" else ""
        checksum = f", checksum = {str(self.checksum).lower()}" if self.type != "ipip" else ""
        return f'{{ type = "{self.type}"{port}{checksum} }}'


@dataclass(frozen=True)
class Backend:
    """A real server. `address` is written `192.0.2.11:8000`; port 0 is whatever port the client asked for."""

    address: str
    mode: str = "nat"
    weight: int = 1
    tunnel: Tunnel | None = None


@dataclass(frozen=True)
class Service:
    """A virtual address with a port, `8000-8099` or 0 for any, and its servers in the scheduler's order.

    What is `None` is left to the appliance's defaults.
    """

    vip: str
    backends: tuple[Backend, ...]
    protocol: str = "tcp"
    scheduler: str = "rr"
    no_backend: str | None = None
    mss: int | None = None
    one_packet: bool = False
    snat_pool: str | None = None
    client_address: str | None = None
    packet_class: str | None = None
    echo: bool = True

    @property
    def ports(self) -> range:
        """The ports that it answers."""
        first, _, last = self.vip.rsplit(":", 1)[1].partition("-")
        return range(1, 65536) if first == "0" else range(int(first), int(last or first) + 1)

    def toml(self) -> list[str]:
        """The lines of its table."""
        keys = {"vip": self.vip, "protocol": self.protocol, "scheduler": self.scheduler}
        keys |= {"no_backend": self.no_backend, "snat_pool": self.snat_pool, "class": self.packet_class}
        keys |= {"client_address": self.client_address}
        lines = ["[[service]]", *(f'{key} = "{value}"' for key, value in keys.items() if value)]
        lines += [f"mss = {self.mss}"] if self.mss else []
        lines += ["one_packet = true"] if self.one_packet else []
        lines += [] if self.echo else ["echo = false"]
        for backend in self.backends:
            lines += ["[[service.backend]]", f'address = "{backend.address}"', f'mode = "{backend.mode}"']
            lines += [f"weight = {backend.weight}"]
            lines += [f"tunnel = {backend.tunnel.toml()}"] if backend.tunnel else []
        return lines


@dataclass(frozen=True)
class Class:
    """A named kind of packets: all that is given must hold."""

    name: str
    sources: tuple[str, ...] = ()
    vlan: int | None = None
    dscp: int | None = None

    def toml(self) -> list[str]:
        """The lines of its table."""
        lines = ["[[class]]", f'name = "{self.name}"']
        lines += [f"source = {list_of(self.sources)}"] if self.sources else []
        lines += [f"vlan = {self.vlan}"] if self.vlan is not None else []
        return lines + ([f"dscp = {self.dscp}"] if self.dscp is not None else [])


@dataclass(frozen=True)
class Interface:
    """Where IP is spoken: a port, or with `tags`, outermost first, a VLAN of it.

    `gateway` is `True` for the servers' way out, or the name of the pool whose addresses they get on it.
    """

    addresses: tuple[str, ...]
    tags: tuple[int, ...] = ()
    port: int = 0
    gateway: bool | str = False

    def own(self, ip_version: int) -> str | None:
        """Its first address of an IP version."""
        addresses = (address.split("/")[0] for address in self.addresses)
        return next((address for address in addresses if version(address) == ip_version), None)

    def networks(self) -> list:
        """The prefixes that it is connected to."""
        return [ipaddress.ip_network(address, strict=False) for address in self.addresses]

    def toml(self) -> list[str]:
        """The lines of its table that say what it is."""
        lines = [f"id = {self.tags[-1]}"] if self.tags else []
        lines += [f"outer = {self.tags[0]}"] if len(self.tags) == 2 else []
        lines += [f"addresses = {list_of(self.addresses)}"] if self.addresses else []
        if isinstance(self.gateway, str):
            lines += [f'gateway = {{ snat_pool = "{self.gateway}" }}']
        return lines + (["gateway = true"] if self.gateway is True else [])


ONLY_IPV4 = (Interface((f"{PORT_IP}/24",)),)
BOTH_FAMILIES = (Interface((f"{PORT_IP}/24", f"{PORT_IP6}/64")),)


@dataclass(frozen=True)
class Appliance:
    """One or more ports, every neighbour known beforehand.

    The interfaces of a port stand together, the untagged one first.
    """

    services: tuple[Service, ...]
    mtu: int = 1500
    interfaces: tuple[Interface, ...] = ONLY_IPV4
    neighbours: dict[str, str] = field(default_factory=lambda: dict(NEIGHBOURS))
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[Class, ...] = ()
    workers: int = 1
    # Rated number of flows; IPv6 and others that need more room have a table of their own.
    flows: int = 4096
    no_service: str = "drop"
    # Further sections of the file, as they have to stand there.
    sections: tuple[str, ...] = ()
    gateways: tuple[str, ...] = (GATEWAY, GATEWAY6)

    @property
    def ports(self) -> range:
        """Numbers of its ports."""
        return range(1 + max(interface.port for interface in self.interfaces))

    def way(self, ip: str) -> tuple[Interface, str | None] | None:
        """The interface by which an address is reached, and the Ethernet address that frames to it carry, if known."""
        for next_hop in (ip, *(gateway for gateway in self.gateways if version(gateway) == version(ip))):
            interface = self.connected(next_hop)
            if interface:
                return interface, self.neighbours.get(next_hop)
        return None

    def connected(self, ip: str) -> Interface | None:
        """The interface on whose link an address is."""
        address = ipaddress.ip_address(ip)
        return next((i for i in self.interfaces for network in i.networks() if address in network), None)

    def own(self) -> set[str]:
        """Its own addresses."""
        return {address.split("/")[0] for interface in self.interfaces for address in interface.addresses}

    def vips(self) -> set[str]:
        """Its virtual addresses."""
        return {split(service.vip)[0] for service in self.services}

    def announced(self) -> set[str]:
        """Addresses that the appliance tells its neighbours of."""
        return self.own() | self.vips() | {address for pool in self.pools.values() for address in pool}

    def echoes(self, ip: str) -> bool:
        """Whether it answers pings to an address."""
        switches = [service.echo for service in self.services if split(service.vip)[0] == ip]
        return ip in self.announced() and all(switches)

    def toml(self, directory: Path) -> str:
        """The configuration that replays `directory`'s captures into others there."""
        cpus = sorted(os.sched_getaffinity(0))
        several = "shared = true\n" if self.workers > 1 else ""
        lines = [
            "[dpdk]",
            "hugepages = false",
            f"memory_mib = {128 * self.workers * len(self.ports)}",
            f'file_prefix = "replay-{os.getpid()}"',
            "[cores]",
            f"{several}control = {cpus[0]}",
            f"workers = {[cpus[-1 - worker % len(cpus)] for worker in range(self.workers)]}",
            "[flow_table]",
            f"capacity = {self.flows}",
            *([f"wide_capacity = {self.flows}"] if self.flows != 4096 else []),
            "[control]",
            f'socket = "{directory}/trutina.sock"',
        ]
        lines += ["[icmp]", f'no_service = "{self.no_service}"'] if self.no_service != "drop" else []
        for name, addresses in self.pools.items():
            lines += ["[[snat_pool]]", f'name = "{name}"', f"addresses = {list_of(addresses)}"]
        for packet_class in self.classes:
            lines += packet_class.toml()
        for port in self.ports:
            lines += self._port(port, directory)
        for gateway in self.gateways:
            if self.connected(gateway):
                to = "0.0.0.0/0" if version(gateway) == 4 else "::/0"
                lines += ["[[route]]", f'to = "{to}"', f'via = "{gateway}"']
        for ip, mac in self.neighbours.items():
            if self.connected(ip):
                lines += ["[[neighbour]]", f'address = "{ip}"', f'mac = "{mac}"']
        for service in self.services:
            lines += service.toml()
        return "\n".join([*lines, *self.sections]) + "\n"

    def _port(self, port: int, directory: Path) -> list[str]:
        files = [f",rx_pcap={received(directory, port, worker)}" for worker in range(self.workers)]
        files += [f",tx_pcap={transmitted(directory, port, worker)}" for worker in range(self.workers)]
        untagged, *vlans = (interface for interface in self.interfaces if interface.port == port)
        lines = ["[[port]]", f'name = "replay{port}"', f'device = "net_pcap{port}{"".join(files)}"']
        lines += [f"mtu = {self.mtu}", *untagged.toml()]
        for vlan in vlans:
            lines += ["[[port.vlan]]", *vlan.toml()]
        return lines


def received(directory: Path, port: int, worker: int) -> Path:
    """The capture of what a worker receives by a port."""
    return directory / f"in-{port}-{worker}.pcap"


def transmitted(directory: Path, port: int, worker: int) -> Path:
    """The capture of what a worker sends by a port."""
    return directory / f"out-{port}-{worker}.pcap"


def list_of(texts: tuple[str, ...]) -> str:
    """A list of texts as TOML writes it."""
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"

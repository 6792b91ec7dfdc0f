"""The appliance under test as plain data, and its configuration file.

Addresses are those of RFC 5737: the servers and VIPs share 192.0.2.0/24 with the appliance, clients
live in 198.51.100.0/24 behind the gateway, far tunnel servers in 203.0.113.0/24 behind it too.
"""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

# What DPDK's net_pcap gives its first device; the driver can not change it.
PORT_MAC = "02:70:63:61:70:00"
PORT_IP = "192.0.2.254"
GATEWAY = "192.0.2.1"
NEAR_CLIENT = "192.0.2.201"

NEIGHBOURS = {
    GATEWAY: "02:00:5e:00:53:01",
    "192.0.2.11": "02:00:5e:00:53:0b",
    "192.0.2.12": "02:00:5e:00:53:0c",
    "192.0.2.13": "02:00:5e:00:53:0d",
    NEAR_CLIENT: "02:00:5e:00:53:c9",
}


def split(endpoint: str) -> tuple[str, int]:
    """Address and port of `192.0.2.1:80`."""
    ip, port = endpoint.split(":")
    return ip, int(port)


@dataclass(frozen=True)
class Backend:
    """A real server. `address` is written `192.0.2.11:8000`."""

    address: str
    mode: str = "nat"
    weight: int = 1


@dataclass(frozen=True)
class Service:
    """A virtual address and port, and its servers in the scheduler's order."""

    vip: str
    backends: tuple[Backend, ...]
    protocol: str = "tcp"
    scheduler: str = "rr"


@dataclass(frozen=True)
class Appliance:
    """One port, one worker, every neighbour known beforehand."""

    services: tuple[Service, ...]
    mtu: int = 1500
    network: str = "192.0.2.0/24"
    neighbours: dict[str, str] = field(default_factory=lambda: dict(NEIGHBOURS))

    def next_hop_mac(self, ip: str) -> str:
        """Ethernet address that frames to `ip` carry."""
        on_link = ipaddress.ip_address(ip) in ipaddress.ip_network(self.network)
        return self.neighbours[ip if on_link else GATEWAY]

    def announced(self) -> set[str]:
        """Addresses that the appliance answers for."""
        return {PORT_IP} | {split(service.vip)[0] for service in self.services}

    def toml(self, directory: Path) -> str:
        """The configuration that replays `in.pcap` of `directory` into its `out.pcap`."""
        cpus = sorted(os.sched_getaffinity(0))
        prefix_len = self.network.split("/")[1]
        lines = [
            "[dpdk]",
            "hugepages = false",
            "memory_mib = 128",
            f'file_prefix = "replay-{os.getpid()}"',
            "[cores]",
            f"control = {cpus[0]}",
            f"workers = [{cpus[-1]}]",
            "[flow_table]",
            "capacity = 4096",
            "[control]",
            f'socket = "{directory}/trutina.sock"',
            "[[port]]",
            'name = "replay"',
            f'device = "net_pcap0,rx_pcap={directory}/in.pcap,tx_pcap={directory}/out.pcap"',
            f'addresses = ["{PORT_IP}/{prefix_len}"]',
            f"mtu = {self.mtu}",
            "[[route]]",
            'to = "0.0.0.0/0"',
            f'via = "{GATEWAY}"',
        ]
        for ip, mac in self.neighbours.items():
            lines += ["[[neighbour]]", f'address = "{ip}"', f'mac = "{mac}"']
        for service in self.services:
            lines += [
                "[[service]]",
                f'vip = "{service.vip}"',
                f'protocol = "{service.protocol}"',
                f'scheduler = "{service.scheduler}"',
            ]
            for backend in service.backends:
                lines += [
                    "[[service.backend]]",
                    f'address = "{backend.address}"',
                    f'mode = "{backend.mode}"',
                    f"weight = {backend.weight}",
                ]
        return "\n".join(lines) + "\n"

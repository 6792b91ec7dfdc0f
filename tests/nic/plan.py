"""Who is where: clients behind a router on one side of the appliance, servers on the other, all played by us.

clients 203.0.113.0/24 -- router 198.51.100.1 -- [clients] appliance [servers] -- servers 192.0.2.11, .12, .13
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address


def both(four, six):
    """An address of each version, by version."""
    return {4: ip_address(four), 6: ip_address(six)}


@dataclass(frozen=True)
class Server:
    """A backend of every service."""

    mac: str
    addresses: dict[int, IPv4Address | IPv6Address]
    weight: int


SIDES = ("clients", "servers")
MACS = {"clients": "02:00:5e:00:53:f0", "servers": "02:00:5e:00:53:f1"}
OWN = {
    "clients": both("198.51.100.254", "2001:db8:1::254"),
    "servers": both("192.0.2.254", "2001:db8:2::254"),
}
ROUTER_MAC = "02:00:5e:00:53:01"
ROUTER = both("198.51.100.1", "2001:db8:1::1")
FIRST_CLIENT = both("203.0.113.1", "2001:db8:c::1")
SNAT_POOL = {4: "192.0.2.208/28", 6: "2001:db8:2::d0/124"}
SERVERS = (
    Server("02:00:5e:00:53:0b", both("192.0.2.11", "2001:db8:2::11"), 3),
    Server("02:00:5e:00:53:0c", both("192.0.2.12", "2001:db8:2::12"), 2),
    Server("02:00:5e:00:53:0d", both("192.0.2.13", "2001:db8:2::13"), 1),
)
PREFIX_LEN = {4: 24, 6: 64}

# Addresses that a side answers for, with the Ethernet address to answer.
STATIONS = {
    "clients": {address: ROUTER_MAC for address in ROUTER.values()},
    "servers": {address: server.mac for server in SERVERS for address in server.addresses.values()},
}

"""Every forwarding mode, from clients of either IP version to servers of either."""

from dataclasses import dataclass

from lab.addresses import SERVERS, V4, V6, Family, endpoint

# Ports of the servers. One for each NAT service: with a port in common, two connections from one client port
# through two virtual addresses would be the same connection to the server.
NAT_PORT, WRR_PORT, VIP_PORT = 8000, 8001, 80

POOL = "out"
WRR_VIP, WRR_WEIGHTS = 104, (4, 3, 2)


@dataclass(frozen=True)
class Mode:
    """One way to forward: `vip` is the last number of its virtual address, in either IP version."""

    name: str
    vip: int
    mode: str
    outside: Family
    inside: Family
    tunnel: str | None = None

    @property
    def direct(self):
        """Whether replies go past the appliance."""
        return self.mode in ("dr", "tunnel")

    @property
    def address(self):
        """The virtual address."""
        return self.outside.vip(self.vip)

    @property
    def peer(self):
        """Whom the servers believe to talk to."""
        return self.inside.pool if self.mode == "full-nat" else self.outside.client

    @property
    def options(self):
        """What the service's table says besides."""
        if self.mode == "full-nat":
            return {"snat_pool": POOL}
        if self.mode == "tunnel":
            checksum = {} if self.tunnel == "ipip" else {"checksum": True}
            return {"tunnel": {"type": self.tunnel} | checksum}
        return {}

    def backends(self, port):
        """Endpoints of the servers, as this mode reaches them."""
        return [endpoint(self.inside.server(name), port) for name in SERVERS]


def plain(vip, mode):
    """A mode that does not cross the IP versions, for both of them."""
    return [Mode(f"{mode}-{family.version}", vip, mode, family, family) for family in (V4, V6)]


def full_nat(vip, *pairs):
    """Full NAT; 64 is from IPv6 to IPv4."""
    return [Mode(f"full-nat-{out.version}{into.version}", vip, "full-nat", out, into) for out, into in pairs]


def tunnel(vip, kind, *pairs):
    """Tunnels of one kind; 6in4 has packets of IPv6 in packets of IPv4."""
    return [Mode(f"{kind}-{out.version}in{into.version}", vip, "tunnel", out, into, kind) for out, into in pairs]


SAME, CROSSED = ((V4, V4), (V6, V6)), ((V4, V6), (V6, V4))

ALL = [
    *plain(101, "nat"),
    *full_nat(105, *SAME),
    *full_nat(106, *CROSSED),
    *plain(102, "dr"),
    *tunnel(103, "ipip", *SAME),
    *tunnel(107, "ipip", *CROSSED),
    *tunnel(108, "gue", *SAME),
    *tunnel(109, "gre", *SAME),
]
BY_NAME = {mode.name: mode for mode in ALL}
NAMES = list(BY_NAME)
DIRECT = [mode.name for mode in ALL if mode.direct]
TRANSLATED = [mode.name for mode in ALL if not mode.direct]
TUNNELS = [mode.name for mode in ALL if mode.tunnel]
VIPS = sorted({WRR_VIP, *(mode.vip for mode in ALL)})
DIRECT_VIPS = sorted({mode.vip for mode in ALL if mode.direct})

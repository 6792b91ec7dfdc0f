"""The appliance's file for the lab with two arms."""

from dataclasses import dataclass

from lab.appliance import Check, table, usable_cores, worker_core
from lab.arms import DIRECT, FAMILIES, PORTS, SERVERS, VIPS, Family
from lab.modes import NAT_PORT, VIP_PORT

FULL_NAT_POOL, GATEWAY_POOL = "full-nat", "gateway"


def af_packet(port, workers, ring):
    """One device with a queue for each worker."""
    rings = f"framesz=2048,framecnt={ring},blocksz=65536,qdisc_bypass=1"
    return {"device": f"net_af_packet{port},iface={PORTS[port]},{rings},qpairs={workers}"}


def af_xdp(port, workers, _ring):
    """A device for each queue of the interface, and so for each worker."""
    first = 16 * port
    names = [f"net_af_xdp{first + queue},iface={PORTS[port]},start_queue={queue}" for queue in range(workers)]
    return {"devices": names} if workers > 1 else {"device": names[0]}


DEVICES = {"af_packet": af_packet, "af_xdp": af_xdp}


@dataclass(frozen=True)
class ArmsService:
    """A round robin over all servers by one mode; `key` is what the CLI calls it."""

    mode: str
    family: Family

    @property
    def name(self):
        return f"{self.mode}-{self.family.version}"

    @property
    def vip(self):
        """Where clients find it."""
        return endpoint(self.family.vip(VIPS[self.mode]), 80)

    @property
    def key(self):
        return f"tcp:{self.vip}"

    def tables(self, check):
        """Its part of the file."""
        keys = {"name": self.name, "vip": self.vip, "protocol": "tcp", "mode": self.mode}
        keys |= {"scheduler": "rr", "check": check}
        if self.mode == "full-nat":
            keys["snat_pool"] = FULL_NAT_POOL
        port = VIP_PORT if self.mode in DIRECT else NAT_PORT
        backends = [endpoint(self.family.server(name), port) for name in SERVERS]
        return [table("[[service]]", keys), *(table("[[service.backend]]", {"address": it}) for it in backends)]


SERVICES = [ArmsService(mode, family) for family in FAMILIES for mode in VIPS]


@dataclass
class ArmsConfig:
    """What the lab's tests change; `toml` is the file."""

    lab: object
    device: str = "af_packet"
    workers: int = 1
    # Frames in each queue of af_packet.
    ring: int = 4096
    memory_mib: int = 256
    # `True` routes servers' own traffic out as it is, "snat" from an address outside.
    gateway: bool | str = False
    # Names of tap devices outside and inside.
    hosts: tuple[str, str] | None = None
    check: Check | None = None
    def toml(self):
        """The file's text."""
        lab = self.lab
        cores = [worker_core()] * self.workers
        dpdk = {"hugepages": False, "memory_mib": self.memory_mib, "file_prefix": lab.prefix}
        parts = [
            table("[dpdk]", dpdk),
            table("[cores]", {"control": usable_cores()[0], "workers": cores, "shared": self.workers > 1}),
            *self._ports(),
            *(table("[[route]]", {"to": family.everywhere, "via": family.client}) for family in FAMILIES),
            table("[[snat_pool]]", {"name": FULL_NAT_POOL, "addresses": [each.full_nat for each in FAMILIES]}),
            table("[[snat_pool]]", {"name": GATEWAY_POOL, "addresses": [each.masquerade for each in FAMILIES]}),
            table("[flow_table]", {"capacity": 50_000, "wide_capacity": 50_000}),
            table("[control]", {"socket": str(lab.lb.socket)}),
        ]
        for service in SERVICES:
            parts += service.tables(self.check)
        return "\n".join(parts)

    def _device(self, port):
        return DEVICES[self.device](port, self.workers, self.ring)

    def _ports(self):
        """Both ports, or one with two VLANs."""
        outside, inside = ({"addresses": [f.net(f.own[side]) for f in FAMILIES]} for side in (0, 1))
        if self.gateway == "snat":
            inside["gateway.snat_pool"] = GATEWAY_POOL
        elif self.gateway:
            inside["gateway"] = True
        if self.hosts:
            outside["host"], inside["host"] = self.hosts
        if not self.lab.trunk:
            arms = zip(("outside", "inside"), (0, 1), (outside, inside), strict=True)
            return [table("[[port]]", {"name": name} | self._device(port) | keys) for name, port, keys in arms]
        vlans = [
            table("[[port.vlan]]", vlan(stack) | keys)
            for stack, keys in zip(self.lab.trunk, (outside, inside), strict=True)
        ]
        return [table("[[port]]", {"name": "trunk"} | self._device(0)), *vlans]


def vlan(stack):
    """What its tags make of an interface."""
    *outer, inner = stack
    # Packet sockets, and so af_packet, leave room beyond the MTU of 1500 for an 802.1Q tag alone.
    return {"id": inner, "outer": outer[0], "mtu": 1500 - 2 * 4} if outer else {"id": inner}


def endpoint(address, port):
    """An address with a port, as configurations and URLs write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

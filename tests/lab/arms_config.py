"""The appliance's file for the lab with two arms."""

import dataclasses
from dataclasses import dataclass, field

from lab.appliance import Check, table, usable_cores, worker_core
from lab.arms import DIRECT, FAMILIES, PORTS, SERVERS, VIPS
from lab.servers import NAT_PORT, VIP_PORT

AF_PACKET = "framesz=2048,framecnt=4096,blocksz=65536,qdisc_bypass=1"
FULL_NAT_POOL, GATEWAY_POOL = "full-nat", "gateway"


def af_packet(port, workers=1):
    """One device with a queue for each worker."""
    return {"device": f"net_af_packet{port},iface={PORTS[port]},{AF_PACKET},qpairs={workers}"}


def af_xdp(port, workers=1):
    """A device for each queue of the interface, and so for each worker."""
    first = 16 * port
    names = [f"net_af_xdp{first + queue},iface={PORTS[port]},start_queue={queue}" for queue in range(workers)]
    return {"devices": names} if workers > 1 else {"device": names[0]}


DEVICES = {"af_packet": af_packet, "af_xdp": af_xdp}


@dataclass
class ArmsConfig:
    """What the lab's tests change; `toml` is the file."""

    lab: object
    device: str = "af_packet"
    workers: int = 1
    memory_mib: int = 256
    # `True` routes servers' own traffic out as it is, "snat" from an address outside.
    gateway: bool | str = False
    # Names of tap devices outside and inside.
    hosts: tuple[str, str] | None = None
    check: Check | None = None
    modes: tuple[str, ...] = tuple(VIPS)
    families: tuple = FAMILIES
    metrics: str | None = None
    services: list = field(init=False)

    def __post_init__(self):
        self.services = [(mode, family) for mode in self.modes for family in self.families]

    def changed(self, **values):
        """A copy with other values."""
        return dataclasses.replace(self, **values)

    def toml(self):
        """The file's text."""
        lab = self.lab
        cores = [worker_core()] * self.workers
        dpdk = {"hugepages": False, "memory_mib": self.memory_mib, "file_prefix": lab.prefix}
        parts = [
            table("[dpdk]", dpdk),
            table("[cores]", {"control": usable_cores()[0], "workers": cores, "shared": self.workers > 1}),
            *self._ports(),
            *(table("[[route]]", {"to": family.everywhere, "via": family.routers[0]}) for family in FAMILIES),
            table("[[snat_pool]]", {"name": FULL_NAT_POOL, "addresses": [each.full_nat for each in FAMILIES]}),
            table("[[snat_pool]]", {"name": GATEWAY_POOL, "addresses": [each.masquerade for each in FAMILIES]}),
            table("[flow_table]", {"capacity": 50_000, "wide_capacity": 50_000}),
            table("[control]", {"socket": str(lab.lb.socket)}),
        ]
        for mode, family in self.services:
            parts += self._service(mode, family)
        return "\n".join(parts)

    def _ports(self):
        """Both ports, or one with two VLANs."""
        outside, inside = ({"addresses": [f.net(f.own[side]) for f in FAMILIES]} for side in (0, 1))
        if self.gateway == "snat":
            inside["gateway.snat_pool"] = GATEWAY_POOL
        elif self.gateway:
            inside["gateway"] = True
        if self.hosts:
            outside["host"], inside["host"] = self.hosts
        device = DEVICES[self.device]
        if not self.lab.trunk:
            arms = zip(("outside", "inside"), (0, 1), (outside, inside), strict=True)
            return [table("[[port]]", {"name": name} | device(port, self.workers) | keys) for name, port, keys in arms]
        ids = [dict(zip(("id", "outer"), reversed(stack))) for stack in self.lab.trunk]
        vlans = [table("[[port.vlan]]", vlan | keys) for vlan, keys in zip(ids, (outside, inside), strict=True)]
        return [table("[[port]]", {"name": "trunk"} | device(0, self.workers)), *vlans]

    def _service(self, mode, family):
        keys = {"name": f"{mode}-{family.version}", "vip": vip(mode, family), "protocol": "tcp", "mode": mode}
        keys |= {"scheduler": "rr", "check": self.check}
        if mode == "full-nat":
            keys["snat_pool"] = FULL_NAT_POOL
        port = VIP_PORT if mode in DIRECT else NAT_PORT
        backends = [endpoint(family.server(name), port) for name in SERVERS]
        return [table("[[service]]", keys), *(table("[[service.backend]]", {"address": it}) for it in backends)]


def vip(mode, family):
    """Where clients find a mode's service."""
    return endpoint(family.vip(VIPS[mode]), 80)


def endpoint(address, port):
    """An address with a port, as configurations and URLs write it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

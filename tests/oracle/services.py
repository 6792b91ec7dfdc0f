"""The services that both balancers have, one a line in `SERVICES`, and the network around them.

One port, as in the replay tests: a router with the clients behind it, and the servers, all on the same wire.
The judge has the same addresses, also that of the port, so that frames can be compared from their first byte to
the last.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


def both(four, six):
    """An address of each version, by version."""
    return {4: ip_address(four), 6: ip_address(six)}


# What DPDK's net_pcap gives its first device; the driver can not change it.
PORT_MAC = "02:70:63:61:70:00"
OWN = both("192.0.2.254", "2001:db8:2::254")
PREFIX_LEN = {4: 24, 6: 64}
ROUTER = both("192.0.2.1", "2001:db8:2::1")
CLIENTS = both("198.51.100.0", "2001:db8:c::")
SERVERS = [both(f"192.0.2.{n}", f"2001:db8:2::{n}") for n in range(11, 17)]
MACS = {
    **dict.fromkeys(ROUTER.values(), "02:00:5e:00:53:01"),
    **{
        server[version]: f"02:00:5e:00:53:{n:02x}"
        for n, server in enumerate(SERVERS, 11)
        for version in (4, 6)
    },
}
VIP_PORTS = {"tcp": 80, "udp": 53}
OTHER_PORTS = {"tcp": 8000, "udp": 5353}


@dataclass(frozen=True, eq=False)
class Service:
    """A TCP and a UDP service on a VIP of their own, both with the first server.

    `ipvs` is what ipvsadm is told of the server, `ours` what our file says of the service.
    """

    name: str
    ipvs: str
    ours: str
    version: int = 4
    server_version: int = 0
    ports: dict[str, int] = None
    weight: int = 1

    @property
    def vip(self):
        """Its virtual address."""
        return both("192.0.2.100", "2001:db8:2::100")[self.version] + SERVICES.index(self)

    @property
    def server(self):
        """Its server's address."""
        return SERVERS[0][self.server_version or self.version]

    @property
    def versions(self):
        """The versions of IP that it needs."""
        return {self.vip.version, self.server.version}

    @property
    def replies(self):
        """Whether replies come back through the balancer."""
        return self.ports is OTHER_PORTS

    def ipvsadm(self):
        """The commands that make it in the judge."""
        for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
            vip, server = endpoint(self.vip, VIP_PORTS[protocol]), endpoint(self.server, self._port(protocol))
            yield f"ipvsadm -A {flag} {vip} -s rr"
            yield f"ipvsadm -a {flag} {vip} -r {server} {self.ipvs} -w {self.weight}"

    def toml(self):
        """What it is in our configuration file."""
        for protocol in VIP_PORTS:
            vip, server = endpoint(self.vip, VIP_PORTS[protocol]), endpoint(self.server, self._port(protocol))
            yield f'[[service]]\nvip = "{vip}"\nprotocol = "{protocol}"\n{self.ours}\n'
            yield f'[[service.backend]]\naddress = "{server}"\nweight = {self.weight}\n'

    def _port(self, protocol):
        return (self.ports or VIP_PORTS)[protocol]


def endpoint(address, port):
    """Address and port as both balancers write them."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


TUNNEL = 'mode = "tunnel"\n'
GUE, GRE = TUNNEL + 'tunnel = { type = "gue" }', TUNNEL + 'tunnel = { type = "gre" }'
GUE_SUM = TUNNEL + 'tunnel = { type = "gue", checksum = true }'
GRE_SUM = TUNNEL + 'tunnel = { type = "gre", checksum = true }'
IPVS_GUE, IPVS_GRE = "-i --tun-type gue --tun-port 6080 --tun-nocsum", "-i --tun-type gre --tun-nocsum"
IPVS_GUE_SUM, IPVS_GRE_SUM = "-i --tun-type gue --tun-port 6080 --tun-csum", "-i --tun-type gre --tun-csum"

# It would leave the checksum of the packet inside to the server, had not its sender computed it already.
IPVS_GUE_REMOTE = "-i --tun-type gue --tun-port 6080 --tun-remcsum"

SERVICES = [
    Service("nat", "-m", 'mode = "nat"', ports=OTHER_PORTS),
    Service("dr", "-g", 'mode = "dr"'),
    Service("ipip", "-i", TUNNEL),
    Service("gue", IPVS_GUE, GUE),
    Service("gue with checksum", IPVS_GUE_SUM, GUE_SUM),
    Service("gue with remote checksum", IPVS_GUE_REMOTE, GUE_SUM),
    Service("gre", IPVS_GRE, GRE),
    Service("gre with checksum", IPVS_GRE_SUM, GRE_SUM),
    Service("nat v6", "-m", 'mode = "nat"', 6, ports=OTHER_PORTS),
    Service("dr v6", "-g", 'mode = "dr"', 6),
    Service("ipip v6", "-i", TUNNEL, 6),
    Service("gue v6", IPVS_GUE, GUE, 6),
    Service("gue v6 with checksum", IPVS_GUE_SUM, GUE_SUM, 6),
    Service("gre v6", IPVS_GRE, GRE, 6),
    Service("gre v6 with checksum", IPVS_GRE_SUM, GRE_SUM, 6),
    Service("4 in 6", "-i", TUNNEL, 4, 6),
    Service("6 in 4", "-i", TUNNEL, 6, 4),
    Service("gue, 4 in 6", IPVS_GUE_SUM, GUE_SUM, 4, 6),
    Service("gue, 6 in 4", IPVS_GUE, GUE, 6, 4),
    Service("gre, 4 in 6", IPVS_GRE, GRE, 4, 6),
    Service("gre, 6 in 4", IPVS_GRE_SUM, GRE_SUM, 6, 4),
    Service("no server", "-m", 'mode = "nat"', ports=OTHER_PORTS, weight=0),
    Service("no server v6", "-m", 'mode = "nat"', 6, ports=OTHER_PORTS, weight=0),
]

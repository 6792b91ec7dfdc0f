"""The modes under test, one a line in `MODES`: what the file says of a service, and what has to arrive then."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from plan import OWN, SERVERS, SNAT_POOL, Server
from segment import ETH_LEN, GRE, GUE_PORT, IP_IN_IP, TCP, UDP, Outer, Segment, ip_packet

VIP_PORTS = {TCP: 80, UDP: 53}
OTHER_PORTS = {TCP: 8000, UDP: 5353}
# What an IPv6 link carries in any case, as IPv4 (RFC 7915, 5.1).
FRAGMENTABLE_LEN = 1260


@dataclass(frozen=True, eq=False)
class Mode:
    """A forwarding mode for one version of IP.

    `arrives` says which IP packet a server gets for a packet one hop on from its sender, and how the server's
    own stack sees it. It is given the frame that did arrive, for what the appliance may choose freely.
    """

    name: str
    keys: str
    arrives: Callable[[Segment, Server, bytes], tuple[bytes, Segment]]
    version: int = 4
    ports: dict[int, int] = None
    server_version: int = 0

    @property
    def vip(self):
        """Its own virtual address, so that one file has all modes."""
        return ip_address({4: "198.51.100.100", 6: "2001:db8:1::100"}[self.version]) + MODES.index(self)

    @property
    def through(self):
        """Whether replies come back through the appliance."""
        return self.ports is OTHER_PORTS

    def toml(self):
        """A TCP service with weights and a UDP service in turn."""
        return "".join(
            self._service(protocol, *words) for protocol, *words in ((TCP, "tcp", "wrr"), (UDP, "udp", "rr"))
        )

    def _service(self, protocol, name, scheduler):
        vip = endpoint(self.vip, VIP_PORTS[protocol])
        lines = [
            "[[service]]",
            f'vip = "{vip}"',
            f'protocol = "{name}"',
            f'scheduler = "{scheduler}"',
            self.keys,
        ]
        for server in SERVERS:
            port = (self.ports or VIP_PORTS)[protocol]
            address = server.addresses[self.server_version or self.version]
            lines += [
                "[[service.backend]]",
                f'address = "{endpoint(address, port)}"',
                f"weight = {server.weight if scheduler == 'wrr' else 1}",
            ]
        return "\n".join(lines) + "\n"


def endpoint(address, port):
    """Address and port as the file writes them."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def nat(sent, server, _frame):
    """Another destination."""
    dst = server.addresses[sent.dst.version]
    segment = sent.changed(dst=dst, dport=OTHER_PORTS[sent.protocol])
    return segment.packet(), segment


def full_nat(sent, server, frame):
    """Another destination, and a source out of the pool, whichever it is; maybe of the other IP version."""
    version = frame[ETH_LEN] >> 4
    dst = server.addresses[version]
    segment = sent.changed(dst=dst, dport=OTHER_PORTS[sent.protocol])
    at, size = (ETH_LEN + 12, 4) if version == 4 else (ETH_LEN + 8, 16)
    src, sport = ip_address(frame[at : at + size]), int.from_bytes(frame[at + 2 * size :][:2], "big")
    if src in ip_network(SNAT_POOL[version]) and sport >= 1024:
        segment = segment.changed(src=src, sport=sport)
    if version != sent.dst.version:
        segment = between_versions(segment, frame[ETH_LEN:])
    return segment.packet(), segment


def between_versions(segment, packet):
    """A packet whose header was replaced by one of the other version (RFC 7915, 4.1 and 5.1).

    One that came by IPv6 may be fragmented by IPv4 if it is short; its identification is the appliance's choice.
    """
    if segment.dst.version == 6:
        return segment.changed(id=0, df=False)
    long = len(segment.packet()) > FRAGMENTABLE_LEN
    return segment.changed(df=long, id=int.from_bytes(packet[4:6], "big"))


def dr(sent, _server, _frame):
    """As it is: all that changes is in the Ethernet header."""
    return sent.packet(), sent


def ipip(sent, server, frame):
    """Behind an outer IP header."""
    outer = outer_header(sent, server, frame)
    return ip_packet(outer, IP_IN_IP[sent.dst.version], sent.packet()), sent


def gre(sent, server, frame):
    """Behind a GRE header without options (RFC 2784)."""
    ethertype = {4: b"\x08\x00", 6: b"\x86\xdd"}[sent.dst.version]
    return ip_packet(outer_header(sent, server, frame), GRE, b"\0\0" + ethertype + sent.packet()), sent


def gue(sent, server, frame):
    """Behind UDP and a GUE header without options; the source port is the appliance's choice."""
    inner = sent.packet()
    outer = outer_header(sent, server, frame)
    header = bytes([0, IP_IN_IP[sent.dst.version], 0, 0])
    at = ETH_LEN + (20 if outer.dst.version == 4 else 40)
    sport = int.from_bytes(frame[at : at + 2], "big")
    # Fields that UDP has and a header of IP has not are the packet's own.
    udp = sent.changed(
        protocol=UDP, src=outer.src, dst=outer.dst, sport=sport, dport=GUE_PORT, payload=header + inner
    )
    return udp.changed(id=outer.id, label=outer.label).packet(), sent


def outer_header(sent, server, frame):
    """A tunnel's header: TTL, TOS and DF of the packet in it, any identification if it may be fragmented, and any
    flow label.
    """
    version = sent.dst.version
    label = int.from_bytes(frame[ETH_LEN : ETH_LEN + 4], "big") & 0xFFFFF
    identification = int.from_bytes(frame[ETH_LEN + 4 : ETH_LEN + 6], "big")
    return Outer(
        src=OWN["servers"][version],
        dst=server.addresses[version],
        ttl=sent.ttl,
        tos=sent.tos,
        label=label if version == 6 else 0,
        id=0 if sent.df else identification,
        df=sent.df,
    )


FULL_NAT = {version: f'mode = "full-nat"\nsnat_pool = "out{version}"' for version in SNAT_POOL}

MODES = [
    Mode("nat", 'mode = "nat"', nat, ports=OTHER_PORTS),
    Mode("dr", 'mode = "dr"', dr),
    Mode("ipip", 'mode = "tunnel"', ipip),
    Mode("gue", 'mode = "tunnel"\ntunnel = { type = "gue", checksum = true }', gue),
    Mode("gre", 'mode = "tunnel"\ntunnel = { type = "gre" }', gre),
    Mode("full-nat", FULL_NAT[4], full_nat, ports=OTHER_PORTS),
    Mode("nat v6", 'mode = "nat"', nat, 6, OTHER_PORTS),
    Mode("dr v6", 'mode = "dr"', dr, 6),
    Mode("ipip v6", 'mode = "tunnel"', ipip, 6),
    Mode("gue v6", 'mode = "tunnel"\ntunnel = { type = "gue", checksum = true }', gue, 6),
    Mode("gre v6", 'mode = "tunnel"\ntunnel = { type = "gre" }', gre, 6),
    Mode("full-nat v6", FULL_NAT[6], full_nat, 6, OTHER_PORTS),
    Mode("full-nat 6 to 4", FULL_NAT[4], full_nat, 6, OTHER_PORTS, server_version=4),
    Mode("full-nat 4 to 6", FULL_NAT[6], full_nat, 4, OTHER_PORTS, server_version=6),
]

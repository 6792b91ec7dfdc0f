"""The grid: every mode between every two IP versions, by every protocol and direction, in every shape of packet.

A case is one flow of one client: it is opened, then a packet of one shape goes through it one way. All cases of a
layout, that is of one arrangement of interfaces, are played in one run of trutinad; each is judged by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from appliance import (
    BOTH_FAMILIES,
    GATEWAY,
    GATEWAY6,
    NEIGHBOURS,
    PORT_MACS,
    Appliance,
    Backend,
    Interface,
    Service,
    Tunnel,
    join,
    split,
    version,
)
from checksums import put, right
from frames import (
    ETH_LEN,
    IP,
    IPV4_LEN,
    IPV6_LEN,
    TCP_LEN,
    UDP_LEN,
    framed,
    icmp,
    icmpv6,
    ip_packet,
    padded,
    pattern,
    pieces,
    tagged,
    tcp,
    udp,
)
from packet import Link
from replay import Scenario
from tunnel import overhead
from verdict import DEFAULT

MTU = 1500
IP_LEN, L4_LEN = {4: IPV4_LEN, 6: IPV6_LEN}, {"tcp": TCP_LEN, "udp": UDP_LEN}
VIP_PORT = {"tcp": 80, "udp": 53}
POOL = ("192.0.2.230", "192.0.2.231", "2001:db8:2::230", "2001:db8:2::231")
ROUTERS = {4: "198.51.100.1", 6: "2001:db8:51::1"}
INNER_ROUTERS = {4: "192.0.2.77", 6: "2001:db8:2::77"}


@dataclass(frozen=True)
class Lane:
    """A mode between two IP versions, with a virtual address of its own."""

    number: int
    mode: str
    vip: int
    server: int
    tunnel: Tunnel | None = None

    def __str__(self) -> str:
        kind = self.tunnel.type + ("-csum" if self.tunnel.checksum else "") if self.tunnel else self.mode
        return f"{kind} {self.vip}to{self.server}"

    @property
    def vip_ip(self) -> str:
        """The virtual address."""
        return f"192.0.2.{100 + self.number}" if self.vip == 4 else f"2001:db8:2::1:{self.number:x}"

    @property
    def server_ip(self) -> str:
        """The server's address."""
        last = {"nat": 11, "full-nat": 11, "dr": 12, "tunnel": 13}[self.mode]
        return f"192.0.2.{last}" if self.server == 4 else f"2001:db8:2::{last}"

    @property
    def translates(self) -> bool:
        """Whether replies come back through the appliance."""
        return self.mode in ("nat", "full-nat")

    def service(self, protocol: str) -> Service:
        """The service of a protocol."""
        port = {"nat": 8000, "full-nat": 9000}.get(self.mode, 0) + VIP_PORT[protocol]
        backend = Backend(join(self.server_ip, port), self.mode, tunnel=self.tunnel)
        pool = "out" if self.mode == "full-nat" else None
        return Service(join(self.vip_ip, VIP_PORT[protocol]), (backend,), protocol, snat_pool=pool)


TUNNELS = [
    Tunnel("ipip"),
    Tunnel("gue", 6080),
    Tunnel("gue", 6081, True),
    Tunnel("gre"),
    Tunnel("gre", checksum=True),
]
# Mode, IP version of the VIP, IP version of the server, tunnel.
WAYS = [
    ("nat", 4, 4, None),
    ("nat", 6, 6, None),
    ("dr", 4, 4, None),
    ("dr", 6, 6, None),
    *(("full-nat", vip, server, None) for vip in (4, 6) for server in (4, 6)),
    *(("tunnel", vip, server, tunnel) for tunnel in TUNNELS for vip in (4, 6) for server in (4, 6)),
]
LANES = [Lane(number, *way) for number, way in enumerate(WAYS)]


@dataclass(frozen=True)
class Shape:
    """What is special about a packet; `only` says which IP versions and protocols can be of it."""

    name: str
    payload: int = 64
    ip: dict = field(default_factory=dict)
    headers: tuple = ()
    options: bytes = b""
    l4: dict = field(default_factory=dict)
    fill: int | None = None
    cuts: tuple[int, ...] | None = None
    order: tuple[int, ...] = ()
    # Bytes by which the packet is longer than what can be sent, if it is filled up at all.
    beyond: int | None = None
    only: tuple = (4, 6, "tcp", "udp")

    def __str__(self) -> str:
        return self.name

    def is_impossible(self, lane: Lane, direction: str) -> bool:
        """Whether nothing that a link carries is too long, since packets become shorter here."""
        here, there = (lane.vip, lane.server) if direction == "request" else (lane.server, lane.vip)
        return self.beyond == 1 and lane.mode == "full-nat" and (here, there) == (6, 4)

    def fits(self, ip_version: int, protocol: str) -> bool:
        """Whether there are such packets."""
        return ip_version in self.only and protocol in self.only


PAD6 = b"\0\x01\x04\0\0\0\0"
ROUTER_ALERT6 = b"\0\x05\x02\0\0\x01\0"
PAD14 = b"\x01\x01\x0c" + bytes(12)
# Type 2 (RFC 6275) and 4 (RFC 8754), at their end: no segments are left.
ROUTING2, ROUTING4 = b"\x02\x02\0" + bytes(20), b"\x02\x04\0\0\0\0\0" + bytes(16)
NO_FRAGMENT = b"\0\0\0\0\0\x12\x34"
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
V4, V6 = (4, "tcp", "udp"), (6, "tcp", "udp")
FOUR_PIECES = (40, 80, 96)

SHAPES = [
    Shape("plain"),
    Shape("empty", payload=0),
    Shape("odd length", payload=3),
    Shape("padded by zeros", payload=0, fill=0, only=V4),
    Shape("padded by ones, odd", payload=1, fill=0xFF, only=V4),
    Shape("as long as may be", beyond=0, ip={"flags": "DF"}, only=V4),
    Shape("as long as may be", beyond=0, only=V6),
    Shape("too long, DF", beyond=1, ip={"flags": "DF"}, only=V4),
    Shape("too long, no DF", beyond=1, only=V4),
    Shape("too long", beyond=1, only=V6),
    Shape("DF", ip={"flags": "DF", "id": 0}, only=V4),
    Shape("identification 65535", ip={"id": 65535}, only=V4),
    Shape("DSCP 46, ECT(0)", ip={"tos": 46 << 2 | 2}),
    Shape("DSCP 10, ECT(1)", ip={"tos": 10 << 2 | 1}),
    Shape("CE", ip={"tos": 3}),
    Shape("TTL 255", ip={"ttl": 255}),
    Shape("TTL 2", ip={"ttl": 2}),
    Shape("TTL 1", ip={"ttl": 1}),
    Shape("TTL 0", ip={"ttl": 0}),
    Shape("router alert", options=b"\x94\x04\0\0", only=V4),
    Shape("40 bytes of options", options=b"\x94\x04\0\0" + b"\x01" * 36, only=V4),
    Shape("flow label 0", ip={"fl": 0}, only=V6),
    Shape("flow label of ones", ip={"fl": 0xFFFFF}, only=V6),
    Shape("hop-by-hop options", headers=((HOP_BY_HOP, PAD6),), only=V6),
    Shape("router alert", headers=((HOP_BY_HOP, ROUTER_ALERT6),), only=V6),
    Shape("destination options", headers=((DESTINATION, PAD14),), only=V6),
    Shape("routing type 2, none left", headers=((ROUTING, ROUTING2),), only=V6),
    Shape("routing type 4, none left", headers=((ROUTING, ROUTING4),), only=V6),
    Shape("atomic fragment", headers=((FRAGMENT, NO_FRAGMENT),), only=V6),
    Shape(
        "five extension headers",
        headers=(
            (HOP_BY_HOP, PAD6),
            (DESTINATION, PAD6),
            (ROUTING, ROUTING2),
            (FRAGMENT, NO_FRAGMENT),
            (DESTINATION, PAD14),
        ),
        only=V6,
    ),
    Shape("eight extension headers", headers=((DESTINATION, PAD6),) * 8, only=V6),
    Shape("wrong checksum", l4={"chksum": 0x1234}),
    Shape("no checksum", l4={"chksum": 0}, only=(4, "udp")),
    Shape("two pieces", payload=133, cuts=(64,), order=(0, 1)),
    Shape("pieces in order", payload=133, cuts=FOUR_PIECES, order=(0, 1, 2, 3)),
    Shape("pieces in reverse", payload=133, cuts=FOUR_PIECES, order=(3, 2, 1, 0)),
    Shape("first piece third", payload=133, cuts=FOUR_PIECES, order=(2, 1, 0, 3)),
    Shape("padded pieces", payload=33, cuts=(24, 40), order=(1, 0, 2), fill=0xA5, only=V4),
    Shape("pieces with options", payload=133, cuts=(64,), order=(1, 0), options=b"\x94\x04\0\0", only=V4),
    Shape("pieces, hop-by-hop", payload=133, cuts=(64,), order=(1, 0), headers=((HOP_BY_HOP, PAD6),), only=V6),
]
OPENING = {"tcp": Shape("SYN", payload=0), "udp": Shape("first packet", payload=3)}
# What layouts other than the first are tried with, and by which protocol.
BASIC = {"plain": "tcp", "odd length": "udp", "first piece third": "udp", "TTL 1": "tcp", "too long": "tcp"}


@dataclass(frozen=True)
class Fault:
    """An ICMP error about a packet of the flow, by one of its ends or by a router on the way there."""

    kind: int
    code: int
    rest: bytes = bytes(4)
    router: bool = False
    # How much of the packet is quoted: 8 bytes behind the IP header, or all of it.
    short: bool = False

    def frame(self, src: str, quote: bytes) -> bytes:
        """The error from `src` about a packet, to whoever sent that."""
        if quote[0] >> 4 == 4:
            dst, length = str(IPv4Address(quote[12:16])), (quote[0] & 15) * 4 + 8
            body = quote[:length] if self.short else quote[:548]
            frame = bytearray(icmp(src, dst, self.kind, body, code=self.code, ip={"tos": 0xC0}))
            at = ETH_LEN + IPV4_LEN
            message = bytes(frame[at : at + 4]) + self.rest + bytes(frame[at + 8 :])
            return bytes(frame[:at]) + put(1, message, right(1, src, dst, message))
        dst = str(IPv6Address(quote[8:24]))
        return icmpv6(src, dst, self.kind, quote[:48] if self.short else quote, code=self.code, rest=self.rest)

    def __str__(self) -> str:
        sender = "router's" if self.router else "end's"
        return f"{sender} error {self.kind}/{self.code}" + (", short quote" if self.short else "")


# In IPv4 the MTU stands in the last two bytes.
MTU_1400 = (1400).to_bytes(4, "big")
FAULTS = {
    4: [
        Fault(3, 0, router=True),
        Fault(3, 1, router=True),
        Fault(3, 2),
        Fault(3, 3),
        Fault(3, 3, short=True),
        Fault(3, 4, MTU_1400, router=True),
        Fault(3, 10, router=True),
        Fault(3, 13, router=True, short=True),
        Fault(11, 0, router=True),
        Fault(11, 1),
        Fault(12, 0, bytes([8, 0, 0, 0])),
        Fault(12, 0, bytes([12, 0, 0, 0]), router=True),
    ],
    6: [
        Fault(1, 0, router=True),
        Fault(1, 1, router=True),
        Fault(1, 3, router=True),
        Fault(1, 4),
        Fault(1, 4, short=True),
        Fault(2, 0, MTU_1400, router=True),
        Fault(2, 0, (1280).to_bytes(4, "big"), router=True, short=True),
        Fault(3, 0, router=True),
        Fault(3, 1),
        Fault(4, 0, (7).to_bytes(4, "big")),
        Fault(4, 0, (24).to_bytes(4, "big"), router=True),
        Fault(4, 1),
    ],
}
# What the tunnel's path says about the outer packet.
TUNNEL_FAULTS = {
    4: [
        Fault(3, 1, router=True),
        Fault(3, 2),
        Fault(3, 4, MTU_1400, router=True),
        Fault(11, 0, router=True),
    ],
    6: [
        Fault(1, 3, router=True),
        Fault(1, 4),
        Fault(2, 0, MTU_1400, router=True),
        Fault(3, 0, router=True),
    ],
}


@dataclass(frozen=True)
class Layout:
    """Where clients and servers are: behind which interface each."""

    name: str
    front: Interface
    back: Interface
    # Those of the ports that carry VLANs only.
    others: tuple[Interface, ...] = ()
    workers: int = 1

    def __str__(self) -> str:
        return self.name

    def appliance(self) -> Appliance:
        """The appliance with a TCP and a UDP service for each lane."""
        interfaces = {*self.others, self.front, self.back}
        return Appliance(
            tuple(lane.service(protocol) for lane in LANES for protocol in VIP_PORT),
            interfaces=tuple(sorted(interfaces, key=lambda interface: (interface.port, interface.tags))),
            neighbours={**NEIGHBOURS, **FRONT_NEIGHBOURS},
            pools={"out": POOL},
            workers=self.workers,
            gateways=(GATEWAY, GATEWAY6) if self.front == self.back else tuple(FRONT_NEIGHBOURS),
            flows=16384,
        )


FRONT_NEIGHBOURS = {"203.0.113.1": "02:00:5e:00:53:f1", "2001:db8:113::1": "02:00:5e:00:53:f6"}
FRONT, BACK = ("203.0.113.254/24", "2001:db8:113::fe/64"), ("192.0.2.254/24", "2001:db8:2::fe/64")
ONE_ARM = Layout("one arm", *BOTH_FAMILIES * 2)
LAYOUTS = [
    ONE_ARM,
    Layout("one arm, two workers", *BOTH_FAMILIES * 2, workers=2),
    Layout("two ports", Interface(FRONT), Interface(BACK, port=1)),
    Layout("two ports, two workers", Interface(FRONT), Interface(BACK, port=1), workers=2),
    Layout("two VLANs", Interface(FRONT, (10,)), Interface(BACK, (20,)), (Interface(()),)),
    Layout("clients in a VLAN", Interface(FRONT, (4094,)), Interface(BACK)),
    Layout("servers in a VLAN", Interface(FRONT), Interface(BACK, (1,))),
    Layout("QinQ", Interface(FRONT, (5, 10)), Interface(BACK, (5, 20)), (Interface(()),)),
    Layout("clients in QinQ", Interface(FRONT, (100, 100)), Interface(BACK, (100,)), (Interface(()),)),
    Layout("servers in QinQ on another port", Interface(FRONT), Interface(BACK, (7, 8), 1), (Interface((), (), 1),)),
]


@dataclass
class Case:
    """A flow in a lane, and what goes through it which way."""

    number: int
    lane: Lane
    protocol: str
    direction: str
    what: Shape | Fault
    # Numbers of its frames in the scenario.
    frames: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.lane} {self.protocol} {self.direction}: {self.what}"

    @property
    def client(self) -> str:
        """A client of its own, whose port is in no other case."""
        ip = f"198.51.100.{2 + self.number % 250}" if self.lane.vip == 4 else f"2001:db8:51::{2 + self.number:x}"
        return join(ip, 10000 + self.number)

    @property
    def vip(self) -> str:
        """Where the client sends to."""
        return join(self.lane.vip_ip, VIP_PORT[self.protocol])

    def open(self, scenario: Scenario, layout: Layout) -> None:
        """Feeds the packet that opens the flow."""
        self._feed(scenario, layout.front, self.packet(self.client, self.vip, OPENING[self.protocol], "S"))

    def act(self, scenario: Scenario, layout: Layout) -> None:
        """Feeds what the case is about."""
        flow = scenario.oracle.flows[self.protocol, self.client, self.vip]
        # If it was not opened, any address of the pool is as wrong as another.
        seen_by_server = flow.local_of(DEFAULT)
        if isinstance(self.what, Fault):
            self._err(scenario, layout, flow.server, seen_by_server)
        elif self.direction == "request":
            self._send(scenario, layout.front, self.client, self.vip)
        else:
            self._send(scenario, layout.back, flow.server, seen_by_server)

    def _send(self, scenario: Scenario, interface: Interface, src: str, dst: str) -> None:
        packet = ip_packet(self.packet(src, dst, self.what))
        if self.what.order:
            whole = pieces(packet, self.what.cuts, self.number)
            packets = [whole[place] for place in self.what.order]
        else:
            packets = [packet]
        for packet in packets:
            frame = framed(packet, split(src)[0])
            self._feed(scenario, interface, frame if self.what.fill is None else padded(frame, self.what.fill))

    def _err(self, scenario: Scenario, layout: Layout, server: str, seen_by_server: str) -> None:
        if self.direction == "request":
            interface, quote = layout.front, ip_packet(self.packet(self.vip, self.client, SHAPES[0]))
            sender, router = split(self.client)[0], ROUTERS[self.lane.vip]
        elif self.direction == "reply":
            interface, quote = layout.back, ip_packet(self.packet(seen_by_server, server, SHAPES[0]))
            sender, router = split(server)[0], INNER_ROUTERS[self.lane.server]
        else:
            # The packet that opened the flow, as it was sent through the tunnel.
            interface, quote = layout.back, Link(scenario.sent[self.frames[0]]).payload
            sender, router = split(server)[0], INNER_ROUTERS[self.lane.server]
        self._feed(scenario, interface, self.what.frame(router if self.what.router else sender, quote))

    def packet(self, src: str, dst: str, shape: Shape, flags: str = "PA") -> bytes:
        """The frame of a packet of this flow, in one piece."""
        ip = {"id": self.number, **shape.ip} if version(split(src)[0]) == 4 else dict(shape.ip)
        if shape.headers:
            ip["headers"] = list(shape.headers)
        if shape.options:
            ip["options"] = IP(bytes(IP(ihl=5 + len(shape.options) // 4))[:IPV4_LEN] + shape.options).options
        # The number tells packets of different cases apart even behind full NAT.
        payload = (self.number.to_bytes(3, "big") + pattern(2 * MTU))[: self._payload_len(src, shape)]
        if self.protocol == "udp":
            return udp(src, dst, payload, ip=ip, **shape.l4)
        return tcp(src, dst, flags, payload, ip=ip, seq=0x10000000 + self.number, ack=self.number, **shape.l4)

    def _feed(self, scenario: Scenario, interface: Interface, frame: bytes) -> None:
        self.frames.append(len(scenario.frames))
        mac = bytes.fromhex(PORT_MACS[interface.port].replace(":", ""))
        scenario.feed(tagged(mac + frame[6:], interface.tags), port=interface.port)

    def _payload_len(self, src: str, shape: Shape) -> int:
        if shape.beyond is None:
            return shape.payload
        here, there = version(split(src)[0]), self.lane.server if self.direction == "request" else self.lane.vip
        if self.lane.tunnel:
            growth = overhead(self.lane.tunnel, there)
        else:
            growth = IP_LEN[there] - IP_LEN[here]
        return min(MTU, MTU - growth) + shape.beyond - IP_LEN[here] - L4_LEN[self.protocol]


def cases(layout: Layout) -> list[Case]:
    """What is played on a layout: everything on one arm, a little of everything on the others."""
    return [
        Case(number, lane, protocol, direction, what)
        for number, (lane, protocol, direction, what) in enumerate(
            (lane, protocol, direction, what)
            for lane in LANES
            for direction, ip_version in _directions(lane)
            for protocol in VIP_PORT
            for what in _shapes_and_faults(layout, lane, direction, ip_version, protocol)
        )
    ]


def _directions(lane: Lane) -> list[tuple[str, int]]:
    """The ways by which packets come, with their IP version."""
    if lane.translates:
        return [("request", lane.vip), ("reply", lane.server)]
    return [("request", lane.vip), *([("tunnel's path", lane.server)] if lane.tunnel else [])]


def _shapes_and_faults(layout: Layout, lane: Lane, direction: str, ip_version: int, protocol: str) -> Iterator:
    faults = TUNNEL_FAULTS[ip_version] if direction == "tunnel's path" else FAULTS[ip_version]
    if direction != "tunnel's path":
        for shape in SHAPES:
            wanted = layout == ONE_ARM or BASIC.get(shape.name) == protocol
            if wanted and shape.fits(ip_version, protocol) and not shape.is_impossible(lane, direction):
                yield shape
    if layout == ONE_ARM:
        yield from faults if protocol == "tcp" else faults[2:6]
    elif protocol == "tcp":
        yield from faults[2:4]

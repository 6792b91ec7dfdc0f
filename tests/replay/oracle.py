"""What the appliance must do with a frame, worked out without it.

The oracle reads the input byte by byte, keeps flows in dictionaries and builds what has to come out with scapy,
field by field and with every checksum computed from zero: it shares neither code nor method with the appliance,
which patches bytes and updates checksums incrementally.
"""

import contextlib
import ipaddress
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import drops
import icmp
import translate
import tunnel
from appliance import PORT_MACS, Appliance, Backend, Interface, Service, Tunnel, join, split, version
from drops import Drop
from fragments import Fragments
from frames import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ether, Raw, tagged
from packet import ACK, PROTOCOLS, RST, SYN, Datagram, Link, Segment
from verdict import ANY_ADDRESS, LOCAL_PORTS, Choice, Dropped, Held, Punted, Sent, Verdict

LEAST_MTU = {4: 68, 6: 1280}


@dataclass
class Flow:
    """A client bound to a server."""

    protocol: str
    client: str
    vip: str
    backend: Backend
    service: Service
    # The server's own endpoint, and in full NAT the one that it sees as its client, once known.
    server: str
    pool: tuple[str, ...] = ()
    local: str = ""
    gue_port: int = 0

    @property
    def mode(self) -> str:
        """How packets reach the server."""
        return self.backend.mode

    def local_of(self, choice: Choice) -> str:
        """What the server sees as its client: an address of the pool, and a port that no system needs."""
        if self.local or not self.pool:
            return self.local or self.client
        if choice.local == ANY_ADDRESS:
            return join(self.pool[-1], choice.sport)
        allowed = choice.local and split(choice.local)[0] in self.pool and split(choice.local)[1] in LOCAL_PORTS
        # Any other would do; this one differs for clients whose ports differ.
        other = join(self.pool[0], LOCAL_PORTS[split(self.client)[1] % len(LOCAL_PORTS)])
        return choice.local if allowed else other

    def gue_port_of(self, choice: Choice) -> int:
        """The outer source port, which is one and the same for all packets of a flow."""
        return self.gue_port or (choice.sport if choice.sport in tunnel.GUE_PORTS else tunnel.GUE_PORTS[0])


def schedule(service: Service):
    """Endless choices of a service, as IPVS makes them; `None` while nobody may be chosen."""
    usable = [backend for backend in service.backends if backend.weight > 0]
    if not usable:
        return itertools.repeat(None)
    if service.scheduler == "rr":
        return itertools.cycle(usable)
    weights = [backend.weight for backend in usable]
    levels = range(max(weights), 0, -math.gcd(*weights))
    return itertools.cycle([backend for level in levels for backend in usable if backend.weight >= level])


@dataclass
class Oracle:
    """One worker of `appliance`; frames must be given in the order in which they are received."""

    appliance: Appliance
    # Flows by protocol with client and VIP, and by protocol with server and what the server sees as its client.
    flows: dict[tuple[str, str, str], Flow] = field(default_factory=dict)
    replies: dict[tuple[str, str, str], Flow] = field(default_factory=dict)
    # Pings that went out by source NAT, by their sender's address and identifier.
    pings: dict[str, Flow] = field(default_factory=dict)
    fragments: Fragments = field(default_factory=Fragments)

    def __post_init__(self):
        self.choices = {service.vip + service.protocol + str(service.packet_class): schedule(service)
                        for service in self.appliance.services}
        self.vips, self.own = self.appliance.vips(), self.appliance.own()
        self.interfaces = {(i.port, i.tags): i for i in self.appliance.interfaces}
        self.translated = {
            (service.protocol, self._server(backend, split(service.vip)[1], service))
            for service in self.appliance.services
            for backend in service.backends
            if backend.mode in ("nat", "full-nat")
        }

    def predict(self, frame: bytes, port: int = 0) -> Verdict:
        """What becomes of `frame`, received by `port`."""
        try:
            return self._forward(frame, port)
        except Drop as drop:
            return Dropped(drop.args[0])

    def backend(self, client: str, vip: str, protocol: str = "tcp") -> str:
        """Address of the server that has the client's flow."""
        return self.flows[protocol, client, vip].backend.address

    # The journey of a frame

    def _forward(self, frame: bytes, port: int) -> Verdict:
        link = Link(frame)
        if link.unicast and link.dst != bytes.fromhex(PORT_MACS[port].replace(":", "")):
            raise Drop(drops.NOT_OUR_MAC)
        # IEEE 802.1Q: a tag of number 0 only tells the priority.
        interface = self.interfaces.get((port, tuple(tag for tag in link.tags if tag)))
        if interface is None:
            raise Drop(drops.BAD_VLAN)
        if link.ethertype == ETHERTYPE_ARP:
            return Punted()
        if link.ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
            raise Drop(drops.UNKNOWN_ETHERTYPE)
        packet = Datagram(link.ethertype, link.payload)
        # RFC 1812, 5.3.4: what was sent to all stations is for none to pass on. Neighbour discovery is.
        if not link.unicast and not icmp.is_discovery(packet):
            raise Drop(drops.NOT_OUR_MAC)
        self._refuse_martians(packet)
        if packet.proto == icmp.PROTO[packet.version] and not self._is_routed(interface, packet):
            return self._icmp(packet)
        if icmp.is_echo(packet, "request") and isinstance(interface.gateway, str):
            return self._echo_out(packet, self.appliance.pools[interface.gateway])
        if packet.proto == icmp.PROTO[packet.version]:
            return self._routed(interface, packet, drops.UNKNOWN_ICMP)
        if packet.proto not in PROTOCOLS:
            return self._routed(interface, packet, drops.UNKNOWN_PROTOCOL)
        if packet.piece:
            return self.fragments.take(packet, partial(self._way_of_pieces, interface))
        segment = Segment(packet)
        way = self._way(interface, segment)
        return way if isinstance(way, Sent) else way(packet, segment)

    def _refuse_martians(self, packet: Datagram) -> None:
        src, dst = map(ipaddress.ip_address, packet.ends)
        if src.is_unspecified and icmp.is_discovery(packet):
            return  # RFC 4862, 5.4.2: whoever looks whether an address is free has none yet
        nobody = src.is_multicast or src.is_loopback or dst.is_loopback or src.is_unspecified or dst.is_unspecified
        if packet.version == 4:
            nobody = nobody or src.is_reserved or int(src) >> 24 == 0
        else:
            nobody = nobody or src.ipv4_mapped or dst.ipv4_mapped
        if nobody or packet.src in self.own | self.vips:
            raise Drop(drops.MARTIAN_ADDRESS)

    def _way_of_pieces(self, interface: Interface, first: Datagram) -> Callable[[Datagram], Sent]:
        segment = Segment(first)
        way = self._way(interface, segment)
        if isinstance(way, Sent):
            # The first piece is answered; nobody is told about the others.
            return lambda piece: way if piece is first else _drop(drops.NO_SERVICE)
        return lambda piece: way(piece, segment if piece is first else None)

    def _way(self, interface: Interface, segment: Segment) -> Sent | Callable[[Datagram, Segment | None], Sent]:
        """What happens to a segment and to all pieces of its datagram, or the answer to it."""
        packet = segment.packet
        if packet.dst in self.vips:
            return self._request(interface, segment)
        flow = self.replies.get((segment.protocol, segment.src, segment.dst))
        if flow is None and packet.dst in self.own:
            return self._refused(segment, self.appliance.no_service, drops.NO_SERVICE)
        if packet.ttl <= 1 and (flow or (segment.protocol, segment.src) in self.translated):
            return self._time_exceeded(packet)
        if flow is None and (segment.protocol, segment.src) in self.translated:
            # Not even a gateway passes it on: it would show the server's address to a client.
            raise Drop(drops.NO_FLOW)
        if flow is None and any(packet.dst in pool for pool in self.appliance.pools.values()):
            raise Drop(drops.NO_FLOW)
        if flow is None:
            return self._way_out(interface, segment)
        return partial(self._to_client, flow)

    # Plain routing, for the servers behind a gateway

    def _is_routed(self, interface: Interface, packet: Datagram) -> bool:
        """Whether a packet that is for nobody here comes from hosts that we are the gateway of, or goes to them."""
        if packet.dst in self.vips | self.own:
            return False
        way = self.appliance.way(packet.dst)
        return bool(interface.gateway) or bool(way) and way[0].gateway is True

    def _routed(self, interface: Interface, packet: Datagram, otherwise: str, kind: str = "routed") -> Sent:
        """The packet one hop on, if it is to be routed; else it is dropped."""
        if not self._is_routed(interface, packet) or isinstance(interface.gateway, str):
            raise Drop(otherwise)
        if packet.ttl <= 1:
            return self._time_exceeded(packet)
        return self._send(lambda choice: packet.hop_on(), packet.dst, packet, kind=kind)

    def _way_out(self, interface: Interface, segment: Segment) -> Sent | Callable:
        """What happens to a segment that belongs to no service."""
        if not self._is_routed(interface, segment.packet):
            raise Drop(drops.NO_SERVICE)
        if segment.packet.ttl <= 1:
            return self._time_exceeded(segment.packet)
        if not isinstance(interface.gateway, str):
            return lambda packet, _: self._routed(interface, packet, drops.NO_SERVICE, "forwarded")
        key = segment.protocol, segment.src, segment.dst
        if key not in self.flows:
            backend, service = Backend(segment.dst, "full-nat"), Service(segment.dst, ())
            pool = tuple(ip for ip in self.appliance.pools[interface.gateway] if version(ip) == segment.packet.version)
            self.flows[key] = Flow(*key, backend, service, segment.dst, pool)
        return partial(self._to_server, self.flows[key])

    # Pings by source NAT: a sender's identifier is for it what a port is for UDP (RFC 5508, 3.1)

    def _echo_out(self, packet: Datagram, addresses: tuple[str, ...]) -> Sent:
        if packet.ttl <= 1:
            return self._time_exceeded(packet)
        station = join(packet.src, icmp.identifier(packet))
        pool = tuple(ip for ip in addresses if version(ip) == packet.version)
        fresh = Flow("icmp", station, "", Backend("", "full-nat"), Service("", ()), "", pool)
        flow = self.pings.setdefault(station, fresh)

        def built(choice: Choice) -> bytes:
            local, identifier = split(flow.local_of(choice))
            return icmp.echo_between(packet, local, packet.dst, identifier)

        return self._send(built, packet.dst, packet, partial(self._learn, flow, True), kind="routed")

    def _echo_home(self, packet: Datagram) -> Sent:
        asked = join(packet.dst, icmp.identifier(packet))
        flow = next((flow for flow in self.pings.values() if flow.local == asked), None)
        if packet.ttl <= 1:
            return self._time_exceeded(packet)
        if flow is None:
            raise Drop(drops.NO_FLOW)
        station, identifier = split(flow.client)
        built = icmp.echo_between(packet, packet.src, station, identifier)
        return self._send(lambda choice: built, station, packet, kind="routed")

    # Requests

    def _request(self, interface: Interface, segment: Segment) -> Sent | Callable:
        service = self._service(interface, segment)
        if service is None:
            return self._refused(segment, self.appliance.no_service, drops.NO_SERVICE)
        if segment.packet.ttl <= 1:
            return self._time_exceeded(segment.packet)
        flow = self._flow(service, segment)
        if flow is None:
            return self._refused(segment, service.no_backend or "icmp", drops.NO_BACKEND)
        return partial(self._to_server, flow)

    def _service(self, interface: Interface, segment: Segment) -> Service | None:
        """The first service in the order of the file whose class matches; one without class comes last."""
        address, port = split(segment.dst)
        candidates = [
            service
            for service in self.appliance.services
            if service.protocol == segment.protocol and split(service.vip)[0] == address and port in service.ports
        ]
        # An exact port goes before a range that has it, and that before any port.
        candidates.sort(key=lambda service: (len(service.ports), service.packet_class is None))
        return next((s for s in candidates if self._is_of_class(interface, segment, s.packet_class)), None)

    def _is_of_class(self, interface: Interface, segment: Segment, name: str | None) -> bool:
        if name is None:
            return True
        wanted = next(packet_class for packet_class in self.appliance.classes if packet_class.name == name)
        src = ipaddress.ip_address(segment.packet.src)
        from_there = not wanted.sources or any(src in ipaddress.ip_network(source) for source in wanted.sources)
        by_vlan = wanted.vlan is None or interface.tags[-1:] == (wanted.vlan,)
        return from_there and by_vlan and wanted.dscp in (None, segment.packet.tos >> 2)

    def _flow(self, service: Service, segment: Segment) -> Flow | None:
        key = segment.protocol, segment.src, segment.dst
        if key in self.flows and not service.one_packet:
            return self.flows[key]
        # RFC 9293, 3.10.7.2: neither RST nor ACK opens a connection.
        if segment.protocol == "tcp" and segment.flags & (SYN | RST | ACK) != SYN:
            raise Drop(drops.NO_FLOW_NOT_SYN)
        flow = self._chosen(service, segment)
        if flow:
            self.flows[key] = flow
            if flow.mode == "nat":
                self.replies[segment.protocol, flow.server, segment.src] = flow
        return flow

    def _chosen(self, service: Service, segment: Segment) -> Flow | None:
        """A flow to the next server whose replies to this client can not be taken for those to another VIP."""
        choices = self.choices[service.vip + service.protocol + str(service.packet_class)]
        for _ in service.backends:
            backend = next(choices)
            if backend is None:
                return None
            server = self._server(backend, split(segment.dst)[1], service)
            if backend.mode != "nat" or (segment.protocol, server, segment.src) not in self.replies:
                pool = self._pool(service, backend) if backend.mode == "full-nat" else ()
                return Flow(segment.protocol, segment.src, segment.dst, backend, service, server, pool)
        raise Drop(drops.REPLY_AMBIGUOUS)

    def _server(self, backend: Backend, asked: int, service: Service) -> str:
        """The server's endpoint: one of several ports is mapped to one of as many, port 0 keeps it."""
        ip, port = split(backend.address)
        if port == 0:
            return join(ip, asked)
        return join(ip, port + asked - service.ports[0] if len(service.ports) > 1 else port)

    def _pool(self, service: Service, backend: Backend) -> tuple[str, ...]:
        name = service.snat_pool or next(iter(self.appliance.pools))
        return tuple(ip for ip in self.appliance.pools[name] if version(ip) == version(split(backend.address)[0]))

    def _to_server(self, flow: Flow, packet: Datagram, segment: Segment | None) -> Sent:
        if packet.ttl <= 1:
            raise Drop(drops.TTL_EXCEEDED)
        mss = flow.service.mss

        def built(choice: Choice) -> bytes:
            if flow.mode in ("dr", "tunnel"):
                ends = split(flow.client), split(flow.vip)
            else:
                ends = split(flow.local_of(choice)), split(flow.server)
            payload = segment.between(*ends, mss) if segment else packet.payload
            return self._packet(packet, ends[0][0], ends[1][0], payload, choice)

        return self._deliver(flow, built, packet, shows_ports=segment is not None)

    def _packet(self, packet: Datagram, src: str, dst: str, payload: bytes, choice: Choice) -> bytes:
        """The packet one hop on, in the IP version of its new addresses."""
        if version(dst) == packet.version:
            return packet.hop_on(src, dst, payload)
        return translate.datagram(packet, src, dst, payload, packet.proto, choice.ident, 0)

    def _deliver(
        self, flow: Flow, built: Callable[[Choice], bytes], packet: Datagram, shows_ports: bool = False
    ) -> Sent:
        """Sends a packet to its server as its mode says; `shows_ports` that it begins with the flow's own ports."""
        ip, learn = split(flow.server)[0], partial(self._learn, flow, shows_ports)
        if flow.mode != "tunnel":
            return self._send(built, ip, packet, learn)
        kind = flow.backend.tunnel or Tunnel()

        def wrapped(choice: Choice) -> bytes:
            df = packet.df if packet.version == 4 else choice.df
            sport = flow.gue_port_of(choice)
            own = self._own_towards(ip)
            return tunnel.wrapped(kind, own, ip, built(choice), choice.ident, choice.label, df, sport)

        return self._send(wrapped, ip, packet, learn)

    def _learn(self, flow: Flow, shows_ports: bool, choice: Choice) -> None:
        """Keeps what the appliance chose for a flow when its first packet was seen."""
        if flow.mode == "tunnel":
            flow.gue_port = flow.gue_port_of(choice)
        if flow.pool and not flow.local and shows_ports:
            flow.local = flow.local_of(choice)
            key = flow.protocol, flow.server, flow.local
            assert key not in self.replies, f"{flow.local} stands for two clients of {flow.server}"
            self.replies[key] = flow

    # Replies

    def _to_client(self, flow: Flow, packet: Datagram, segment: Segment | None) -> Sent:
        if packet.ttl <= 1:
            raise Drop(drops.TTL_EXCEEDED)
        ends = split(flow.vip), split(flow.client)
        payload = segment.between(*ends, flow.service.mss) if segment else packet.payload
        return self._send(partial(self._packet, packet, ends[0][0], ends[1][0], payload), ends[1][0], packet)

    # ICMP

    def _icmp(self, packet: Datagram) -> Sent | Punted:
        if packet.piece:
            raise Drop(drops.FRAGMENT)
        if len(packet.payload) < icmp.HEADER_LEN:
            raise Drop(drops.BAD_ICMP)
        kind = packet.payload[0]
        if packet.version == 6 and kind in icmp.NEIGHBOUR_DISCOVERY:
            # RFC 4861, 7.1: a router would have made the hop limit smaller.
            return Punted() if packet.ttl == 255 else _drop(drops.BAD_ICMP)
        if kind in icmp.ERRORS[packet.version]:
            return self._pass_on(packet)
        if icmp.is_echo(packet, "reply") and any(packet.dst in pool for pool in self.appliance.pools.values()):
            return self._echo_home(packet)
        if kind != icmp.ECHO[packet.version][0] or packet.dst not in self.appliance.announced():
            raise Drop(drops.UNKNOWN_ICMP)
        if not self.appliance.echoes(packet.dst):
            raise Drop(drops.ECHO_REFUSED)
        return self._send(
            lambda choice: icmp.echo_reply(packet, choice.label), packet.src, packet, kind="echo reply"
        )

    def _pass_on(self, packet: Datagram) -> Sent:
        """An ICMP error goes to whoever sent the packet that it quotes."""
        try:
            quote = icmp.Quote(packet.version, packet.payload[icmp.HEADER_LEN :])
        except ValueError:
            raise Drop(drops.BAD_ICMP) from None
        if packet.dst != quote.ends[0]:
            raise Drop(drops.BAD_ICMP)
        if packet.dst in self.own:
            return self._tunnel_error(packet, quote)
        protocol = PROTOCOLS.get(quote.proto)
        to_server = self.flows.get((protocol, quote.dst, quote.src))
        to_client = self.replies.get((protocol, quote.dst, quote.src))
        if to_server is None and to_client is None:
            raise Drop(drops.NO_FLOW)
        if packet.ttl <= 1:
            raise Drop(drops.TTL_EXCEEDED)
        return self._error_to_server(to_server, packet, quote) if to_server else self._error_to_client(
            to_client, packet, quote
        )

    def _error_to_server(self, flow: Flow, packet: Datagram, quote: icmp.Quote) -> Sent:
        def built(choice: Choice) -> bytes:
            if flow.mode in ("dr", "tunnel"):
                return icmp.passed_on(packet, quote.quoted)
            local = flow.local_of(choice)
            # RFC 5508, 4.2: a router keeps its address, if the other side can have it at all.
            known = packet.src != quote.ends[1] and version(packet.src) == version(split(local)[0])
            src = packet.src if known or flow.mode == "nat" else split(local)[0]
            return self._error(packet, quote, flow.server, local, src, split(flow.server)[0], choice)

        return replace(self._deliver(flow, built, packet), kind="passed on")

    def _error_to_client(self, flow: Flow, packet: Datagram, quote: icmp.Quote) -> Sent:
        vip, client = split(flow.vip)[0], split(flow.client)[0]
        # A router keeps its address, for it shows the way; the server's is nobody's business.
        hidden = packet.src == quote.ends[1] or version(packet.src) != version(client)
        src = vip if hidden else packet.src
        built = partial(self._error, packet, quote, flow.client, flow.vip, src, client)
        return self._send(built, client, packet, kind="passed on")

    def _error(
        self, packet: Datagram, quote: icmp.Quote, quoted_src: str, quoted_dst: str, src: str, dst: str, choice: Choice
    ) -> bytes:
        """An ICMP error from `src` to `dst` about a packet between the endpoints given."""
        if version(dst) == packet.version:
            return icmp.passed_on(packet, quote.changed(quoted_src, quoted_dst), src, dst)
        ends = split(quoted_src)[0], split(quoted_dst)[0]
        inner = translate.quote(quote, quoted_src, quoted_dst, *ends, 0)
        message = translate.message(packet, src, dst, inner, self.appliance.mtu)
        if message is None:
            raise Drop(drops.UNKNOWN_ICMP)
        return translate.datagram(packet, src, dst, *message, choice.ident, 0)

    def _tunnel_error(self, packet: Datagram, outer: icmp.Quote) -> Sent:
        """What a tunnel's path says of the outer packet, told to the sender of the inner one: RFC 2003, 4, and 2473, 8.

        That its packets are too long it can mend. As the outer TTL is the inner one, it is the sender's own that ran
        out, and the way through the tunnel can be traced. Of all else it learns that the server is not reached.
        """
        wrapping, inner = self._tunnelled(outer)
        overhead = tunnel.overhead(wrapping, outer.version)
        told = int.from_bytes(packet.payload[4:8], "big")
        what = tunnel.told(packet.version, *packet.payload[:2])
        mtu = max(LEAST_MTU[6], told - overhead) if inner.version == 6 else told - overhead
        kind = (*tunnel.TELLS[inner.version, what], mtu if what == "too big" else 0)
        client = inner.ends[0]
        return replace(self._told(self._own_towards(client), client, inner.quoted, *kind), kind="tunnel error")

    def _tunnelled(self, outer: icmp.Quote) -> tuple[Tunnel, icmp.Quote]:
        """The tunnel of the flow whose packet is in the outer one, and that packet as far as it is quoted."""
        tunnels = {
            (b.tunnel or Tunnel(), split(s.vip)[0])
            for s in self.appliance.services
            for b in s.backends
            if b.mode == "tunnel" and split(b.address)[0] == outer.ends[1]
        }
        for kind, vip in tunnels:
            with contextlib.suppress(ValueError):
                inner = icmp.Quote(version(vip), tunnel.unwrapped(kind, outer.proto, outer.l4))
                flow = self.flows.get((PROTOCOLS.get(inner.proto), inner.src, inner.dst))
                if flow and (flow.backend.tunnel or Tunnel()) == kind and split(flow.server)[0] == outer.ends[1]:
                    return kind, inner
        raise Drop(drops.NO_FLOW)

    # Answers

    def _may_be_told(self, packet: Datagram) -> bool:
        """Whether an ICMP error may be sent about it: RFC 1122, 3.2.2, and RFC 4443, 2.4 (e)."""
        if not packet.first or icmp.is_error(packet):
            return False
        if packet.version == 6:
            return True
        networks = [network for interface in self.appliance.interfaces for network in interface.networks()]
        broadcasts = {str(network.broadcast_address) for network in networks if network.version == 4}
        return packet.src not in broadcasts

    def _refused(self, segment: Segment, answer: str, reason: str) -> Sent:
        packet = segment.packet
        resets = answer == "rst" and segment.protocol == "tcp"
        if answer == "drop" or not self._may_be_told(packet) or resets and segment.flags & RST:
            raise Drop(reason)
        if resets:
            return self._tell(packet.src, lambda choice: icmp.reset(segment, choice.tos, choice.label), "reset")
        kind = (icmp.UNREACHABLE, icmp.PORT_UNREACHABLE)
        kind = kind if packet.version == 4 else (icmp.UNREACHABLE6, icmp.PORT_UNREACHABLE6)
        return self._told(packet.dst, packet.src, packet.received, *kind)

    def _time_exceeded(self, packet: Datagram) -> Sent:
        if not self._may_be_told(packet):
            raise Drop(drops.TTL_EXCEEDED)
        kind = icmp.TIME_EXCEEDED if packet.version == 4 else icmp.TIME_EXCEEDED6
        return self._told(self._own_towards(packet.src), packet.src, packet.received, kind)

    def _too_big(self, packet: Datagram, mtu: int) -> Sent:
        # RFC 8200, 5: no link asks for less than 1280 bytes, so nobody is told of less.
        if not packet.df or not self._may_be_told(packet) or len(packet.received) <= LEAST_MTU[packet.version]:
            raise Drop(drops.TOO_BIG)
        mtu = max(mtu, LEAST_MTU[packet.version])
        kind = (icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED) if packet.version == 4 else (icmp.TOO_BIG6, 0)
        return self._told(self._own_towards(packet.src), packet.src, packet.received, *kind, mtu)

    def _told(self, own: str, dst: str, about: bytes, kind: int, code: int = 0, mtu: int = 0) -> Sent:
        def built(choice: Choice) -> bytes:
            tos = choice.tos if version(own) == 6 and choice.tos in (0, 0xC0) else 0xC0
            return icmp.error(own, dst, about, kind, code, mtu, tos, choice.label)

        return self._tell(dst, built, f"error {kind}")

    def _tell(self, dst: str, built: Callable[[Choice], bytes], kind: str) -> Sent:
        interface, mac = self._way_to(dst)
        return Sent(partial(self._framed, built, interface, mac), port=interface.port, kind=kind)

    # Leaving

    def _own_towards(self, ip: str) -> str:
        """The own address that is nearest to another one."""
        return self._way_to(ip)[0].own(version(ip))

    def _way_to(self, ip: str) -> tuple[Interface, str]:
        return self.appliance.way(ip) or _drop("no_route")

    def _send(
        self,
        built: Callable[[Choice], bytes],
        next_hop: str,
        source: Datagram,
        learn: Callable[[Choice], None] = lambda choice: None,
        kind: str = "forwarded",
    ) -> Sent:
        """Sends what became of `source`, or tells its sender that it is too long."""
        length = len(built(Choice()))
        if length > self.appliance.mtu:
            return self._too_big(source, self.appliance.mtu - (length - len(source.received)))
        interface, mac = self._way_to(next_hop)
        return Sent(partial(self._framed, built, interface, mac), learn, interface.port, kind)

    def _framed(self, built: Callable[[Choice], bytes], interface: Interface, mac: str, choice: Choice) -> bytes:
        packet = built(choice)
        ethertype = ETHERTYPE_IPV4 if packet[0] >> 4 == 4 else ETHERTYPE_IPV6
        ethernet = Ether(src=PORT_MACS[interface.port], dst=mac, type=ethertype)
        return tagged(bytes(ethernet / Raw(packet)), interface.tags)


def _drop(reason: str):
    raise Drop(reason)

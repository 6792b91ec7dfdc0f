"""What the appliance must do with a frame, worked out without it.

The oracle reads the input byte by byte, keeps flows in a dictionary and builds what has to come out with
scapy, field by field and with every checksum computed from zero: it shares neither code nor method with
the appliance, which patches bytes and updates checksums incrementally.
"""

import ipaddress
import itertools
import math
from dataclasses import dataclass

import icmp
from appliance import PORT_IP, PORT_MAC, Appliance, Backend, Service, split
from frames import ETH_LEN, IP, TCP, UDP, Ether, Packet, Raw

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ICMP = 1
PROTOCOLS = {6: "tcp", 17: "udp"}
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

# Why a frame is dropped, by the appliance's name for it. The only place where these names stand.
TRUNCATED = "truncated"
NOT_OUR_MAC = "not_our_mac"
UNKNOWN_ETHERTYPE = "unknown_ethertype"
BAD_IP_HEADER = "bad_ip_header"
BAD_IP_LENGTH = "bad_ip_length"
FRAME_CUT_SHORT = "truncated"
BAD_IP_CHECKSUM = "bad_ip_checksum"
FRAGMENT = "fragment"
UNKNOWN_PROTOCOL = "unknown_protocol"
BAD_TCP_HEADER = "bad_tcp_header"
BAD_TCP_FLAGS = "bad_tcp_flags"
BAD_UDP_LENGTH = "bad_udp_length"
BAD_ICMP = "bad_icmp"
UNKNOWN_ICMP = "unknown_icmp"
ICMP_RATE = "icmp_rate"
TTL_EXCEEDED = "ttl_exceeded"
NO_SERVICE = "no_service"
NO_BACKEND = "no_backend"
NO_FLOW = "no_flow"
NO_FLOW_NOT_SYN = "no_flow_not_syn"
REPLY_AMBIGUOUS = "reply_ambiguous"
TOO_BIG = "too_big"


@dataclass(frozen=True)
class Sent:
    """The frame leaves as `frame`; with `free_id` the outer IPv4 identification may be anything."""

    frame: bytes
    free_id: bool = False

    def as_sent(self, actual: bytes) -> bytes:
        """The expected bytes, with `actual`'s outer identification where that is free."""
        if not self.free_id or len(actual) < ETH_LEN + 20:
            return self.frame
        packet = Ether(self.frame)
        del packet[IP].chksum
        packet[IP].id = int.from_bytes(actual[ETH_LEN + 4 : ETH_LEN + 6], "big")
        return bytes(packet)


@dataclass(frozen=True)
class Dropped:
    """The frame is dropped and counted under `reason`."""

    reason: str


@dataclass(frozen=True)
class Punted:
    """The frame is handed to the control thread."""


class _Drop(Exception):
    """Ends the journey of a frame; its argument is the reason."""


def ones_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words (RFC 1071); 0xffff over a header with a right checksum."""
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


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


class Packet4:
    """A valid, whole IPv4 packet: its header, the bytes behind that, and all of it as it was received."""

    def __init__(self, frame: bytes):
        """Reads `frame`, whose Ethernet type says IPv4, or raises the reason to drop it."""
        packet = frame[ETH_LEN:]
        if len(packet) < 20:
            raise _Drop(TRUNCATED)
        header_len = (packet[0] & 0x0F) * 4
        total_len = int.from_bytes(packet[2:4], "big")
        if packet[0] >> 4 != 4 or header_len < 20:
            raise _Drop(BAD_IP_HEADER)
        if len(packet) < header_len:
            raise _Drop(TRUNCATED)
        if total_len < header_len:
            raise _Drop(BAD_IP_LENGTH)
        if total_len > len(packet):
            raise _Drop(FRAME_CUT_SHORT)
        if ones_sum(packet[:header_len]) != 0xFFFF:
            raise _Drop(BAD_IP_CHECKSUM)
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            raise _Drop(FRAGMENT)
        self.ip = IP(packet[:header_len])
        self.payload = packet[header_len:total_len]
        self.received = packet[:total_len]
        self.unicast = frame[0] & 1 == 0

    def may_be_answered(self, network: str) -> bool:
        """Whether an ICMP error may be sent about it (RFC 1122, 3.2.2): only to a single, known host."""
        src = ipaddress.ip_address(self.ip.src)
        nobody = src.is_multicast or src.is_reserved or src.is_loopback or int(src) >> 24 == 0
        return self.unicast and not nobody and src != ipaddress.ip_network(network).broadcast_address


class Segment:
    """A TCP or UDP packet, as header fields and the bytes behind them."""

    def __init__(self, packet: Packet4):
        """Reads what `packet` carries or raises the reason to drop it."""
        self.packet, self.ip = packet, packet.ip
        self.protocol = PROTOCOLS[packet.ip.proto]
        self._read_tcp(packet.payload) if self.protocol == "tcp" else self._read_udp(packet.payload)
        self.src = f"{self.ip.src}:{self.l4.sport}"
        self.dst = f"{self.ip.dst}:{self.l4.dport}"

    def _read_tcp(self, segment: bytes):
        if len(segment) < 20:
            raise _Drop(TRUNCATED)
        if not 20 <= (segment[12] >> 4) * 4 <= len(segment):
            raise _Drop(BAD_TCP_HEADER)
        self.flags = segment[13]
        # Only scanners send SYN with FIN or RST, or none of the six flags of RFC 793.
        if self.flags & SYN and self.flags & (FIN | RST) or not self.flags & 0x3F:
            raise _Drop(BAD_TCP_FLAGS)
        # Options ride with the payload: nothing may touch either, so nothing here needs to read them.
        self.l4, self.rest = TCP(segment[:20]), segment[20:]

    def _read_udp(self, segment: bytes):
        if len(segment) < 8:
            raise _Drop(TRUNCATED)
        if not 8 <= int.from_bytes(segment[4:6], "big") <= len(segment):
            raise _Drop(BAD_UDP_LENGTH)
        self.flags = 0
        self.l4, self.rest = UDP(segment[:8]), segment[8:]

    def _built(self, src: str, dst: str, ttl: int, **l4) -> Packet:
        ports = {"sport": split(src)[1], "dport": split(dst)[1]}
        fields = {name: value for name, value in self.l4.fields.items() if name not in ("chksum", "len")}
        header = type(self.l4)(**{**fields, **ports, **l4})
        ip = icmp.header_like(self.ip, src=split(src)[0], dst=split(dst)[0], ttl=ttl)
        return ip / header / Raw(self.rest)

    def _checksum(self, packet: Packet) -> int:
        return type(self.l4)(bytes(packet)[self.ip.ihl * 4 :]).chksum

    def forwarded(self, src: str = "", dst: str = "") -> Packet:
        """The packet one hop on, with other endpoints where they are given.

        A checksum that is wrong now is then wrong by the same difference; a UDP checksum of 0 stays 0.
        """
        src, dst, ttl = src or self.src, dst or self.dst, self.ip.ttl - 1
        if self.protocol == "udp" and self.l4.chksum == 0:
            return self._built(src, dst, ttl, chksum=0)
        right = self._built(src, dst, ttl)
        error = (self.l4.chksum - self._checksum(self._built(self.src, self.dst, ttl))) % 0xFFFF
        if error == 0:
            return right
        wrong = (self._checksum(right) + error) % 0xFFFF
        if self.protocol == "udp" and wrong == 0:
            wrong = 0xFFFF  # RFC 768: a computed 0 is sent as all ones
        return self._built(src, dst, ttl, chksum=wrong)


class Oracle:
    """One worker of `appliance`; frames must be given in the order in which they are received."""

    def __init__(self, appliance: Appliance):
        self.appliance = appliance
        self.services = {(s.protocol, s.vip): s for s in appliance.services}
        self.choices = {key: schedule(service) for key, service in self.services.items()}
        self.vips = {split(s.vip)[0] for s in appliance.services}
        self.nat_backends = {
            (s.protocol, b.address) for s in appliance.services for b in s.backends if b.mode == "nat"
        }
        self.backends: dict[tuple[str, str, str], Backend] = {}  # (protocol, client, vip)
        self.nat_vips: dict[tuple[str, str, str], str] = {}  # (protocol, backend, client)

    def predict(self, frame: bytes) -> Sent | Dropped | Punted:
        """What becomes of `frame`."""
        try:
            return self._forward(frame)
        except _Drop as drop:
            return Dropped(drop.args[0])

    def backend(self, client: str, vip: str, protocol: str = "tcp") -> str:
        """Address of the server that has the client's flow."""
        return self.backends[protocol, client, vip].address

    def _forward(self, frame: bytes) -> Sent | Punted:
        if len(frame) < ETH_LEN:
            raise _Drop(TRUNCATED)
        unicast = frame[0] & 1 == 0
        if unicast and frame[:6] != bytes.fromhex(PORT_MAC.replace(":", "")):
            raise _Drop(NOT_OUR_MAC)
        ethertype = int.from_bytes(frame[12:14], "big")
        if ethertype == ETHERTYPE_ARP:
            return Punted()
        if ethertype != ETHERTYPE_IPV4:
            raise _Drop(UNKNOWN_ETHERTYPE)
        packet = Packet4(frame)
        if packet.ip.proto == ICMP:
            return self._icmp(packet)
        if packet.ip.proto not in PROTOCOLS:
            raise _Drop(UNKNOWN_PROTOCOL)
        segment = Segment(packet)
        if packet.ip.dst in self.vips:
            return self._request(segment)
        return self._reply(segment)

    def _request(self, segment: Segment) -> Sent:
        if (segment.protocol, segment.dst) not in self.services:
            raise _Drop(NO_SERVICE)
        if segment.ip.ttl <= 1:
            return self._time_exceeded(segment.packet)
        backend = self._flow(segment)
        nat = backend.mode == "nat"
        return self._to_backend(backend, segment.forwarded(dst=backend.address if nat else ""), segment.packet)

    def _to_backend(self, backend: Backend, packet: Packet, source: Packet4) -> Sent:
        ip = split(backend.address)[0]
        if backend.mode != "tunnel":
            return self._send(packet, ip, source)
        keeps_whole = bool(packet.flags.DF)
        flags = "DF" if keeps_whole else 0
        outer = IP(src=PORT_IP, dst=ip, proto=4, tos=packet.tos, ttl=packet.ttl, flags=flags, id=0)
        return self._send(outer / packet, ip, source, free_id=not keeps_whole)

    def _flow(self, segment: Segment) -> Backend:
        service = segment.protocol, segment.dst
        key = segment.protocol, segment.src, segment.dst
        if key in self.backends:
            return self.backends[key]
        # RFC 9293, 3.10.7.2: neither RST nor ACK opens a connection.
        if segment.protocol == "tcp" and segment.flags & (SYN | RST | ACK) != SYN:
            raise _Drop(NO_FLOW_NOT_SYN)
        backend = self._choose(service, segment)
        self.backends[key] = backend
        if backend.mode == "nat":
            self.nat_vips[segment.protocol, backend.address, segment.src] = segment.dst
        return backend

    def _choose(self, service: tuple[str, str], segment: Segment) -> Backend:
        """The next server whose replies to this client can not be taken for those to another VIP."""
        for _ in self.services[service].backends:
            backend = next(self.choices[service])
            if backend is None:
                raise _Drop(NO_BACKEND)
            reply = segment.protocol, backend.address, segment.src
            if backend.mode != "nat" or reply not in self.nat_vips:
                return backend
        raise _Drop(REPLY_AMBIGUOUS)

    def _reply(self, segment: Segment) -> Sent:
        if segment.ip.ttl <= 1 and (segment.protocol, segment.src) in self.nat_backends:
            return self._time_exceeded(segment.packet)
        vip = self.nat_vips.get((segment.protocol, segment.src, segment.dst))
        if vip is None:
            raise _Drop(NO_FLOW)
        return self._send(segment.forwarded(src=vip), segment.ip.dst, segment.packet)

    def _icmp(self, packet: Packet4) -> Sent:
        if len(packet.payload) < icmp.HEADER_LEN:
            raise _Drop(BAD_ICMP)
        kind = packet.payload[0]
        if kind in icmp.ERRORS:
            return self._pass_on(packet)
        if kind != icmp.ECHO_REQUEST or packet.ip.dst not in self.appliance.announced():
            raise _Drop(UNKNOWN_ICMP)
        return self._send(icmp.echo_reply(packet.ip, packet.payload), packet.ip.src, packet)

    def _pass_on(self, packet: Packet4) -> Sent:
        """An ICMP error goes to whoever sent the packet that it quotes."""
        try:
            quote = icmp.Quote(packet.payload[icmp.HEADER_LEN :])
        except ValueError:
            raise _Drop(BAD_ICMP) from None
        if packet.ip.dst != quote.ip.src:
            raise _Drop(BAD_ICMP)
        protocol = PROTOCOLS.get(quote.ip.proto)
        backend = self.backends.get((protocol, quote.dst, quote.src))
        vip = self.nat_vips.get((protocol, quote.dst, quote.src))
        if backend is None and vip is None:
            raise _Drop(NO_FLOW)
        if packet.ip.ttl <= 1:
            raise _Drop(TTL_EXCEEDED)
        message = packet.ip, packet.payload
        if backend is None:
            src = split(vip)[0] if packet.ip.src == quote.ip.dst else packet.ip.src
            return self._send(icmp.passed_on(*message, quote.changed(dst=vip), src=src), packet.ip.dst, packet)
        if backend.mode == "nat":
            dst, quoted = split(backend.address)[0], quote.changed(src=backend.address)
            return self._to_backend(backend, icmp.passed_on(*message, quoted, dst=dst), packet)
        return self._to_backend(backend, icmp.passed_on(*message, quote.quoted), packet)

    def _time_exceeded(self, packet: Packet4) -> Sent:
        if not packet.may_be_answered(self.appliance.network):
            raise _Drop(TTL_EXCEEDED)
        return self._tell(icmp.error(packet.received, icmp.TIME_EXCEEDED))

    def _too_big(self, packet: Packet4, mtu: int) -> Sent:
        is_error = packet.ip.proto == ICMP and packet.payload[0] in icmp.ERRORS
        if not packet.ip.flags.DF or is_error or not packet.may_be_answered(self.appliance.network):
            raise _Drop(TOO_BIG)
        code = icmp.FRAGMENTATION_NEEDED
        return self._tell(icmp.error(packet.received, icmp.UNREACHABLE, code, mtu))

    def _tell(self, error: Packet) -> Sent:
        return Sent(self._framed(error, error.dst))

    def _send(self, packet: Packet, next_hop: str, source: Packet4, free_id: bool = False) -> Sent:
        """Sends what became of `source`, or tells its sender that it is too long."""
        if len(packet) > self.appliance.mtu:
            return self._too_big(source, self.appliance.mtu - (len(packet) - len(source.received)))
        return Sent(self._framed(packet, next_hop), free_id)

    def _framed(self, packet: Packet, next_hop: str) -> bytes:
        ethernet = Ether(src=PORT_MAC, dst=self.appliance.next_hop_mac(next_hop), type=ETHERTYPE_IPV4)
        return bytes(ethernet / packet)

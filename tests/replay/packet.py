"""Reading frames: Ethernet with its VLAN tags, IP of both versions, TCP and UDP.

Whatever can not be read ends in `Drop` with the reason.
"""

import ipaddress
from dataclasses import dataclass

import checksums
import drops
from appliance import join, version
from drops import Drop
from frames import (
    ETH_LEN,
    ETHERTYPE_IPV4,
    IP,
    IPV4_LEN,
    IPV6_LEN,
    PROTO_TCP,
    PROTO_UDP,
    TCP_LEN,
    UDP_LEN,
    IPv6,
    Raw,
)

VLAN_TYPES = (0x8100, 0x88A8)
PROTOCOLS = {PROTO_TCP: "tcp", PROTO_UDP: "udp"}
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, NO_NEXT_HEADER, DESTINATION = 0, 43, 44, 59, 60
EXTENSION_HEADERS = {HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, DESTINATION}
MOST_EXTENSION_HEADERS = 8
SOURCE_ROUTES = (131, 137)
LARGEST_PACKET = 65535


class Link:
    """What stands before the IP packet."""

    def __init__(self, frame: bytes):
        """Reads the Ethernet header and up to two tags."""
        if len(frame) < ETH_LEN:
            raise Drop(drops.TRUNCATED)
        self.dst, self.unicast = frame[:6], frame[0] & 1 == 0
        tags, at = [], 12
        while int.from_bytes(frame[at : at + 2], "big") in VLAN_TYPES:
            if len(tags) == 2:
                raise Drop(drops.BAD_VLAN)
            if len(frame) < at + 6:
                raise Drop(drops.TRUNCATED)
            tags.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0x0FFF)
            at += 4
        self.tags = tuple(tags)
        self.ethertype = int.from_bytes(frame[at : at + 2], "big")
        self.payload = frame[at + 2 :]


@dataclass(frozen=True)
class Piece:
    """Where in its datagram a fragment belongs: its first byte, its length, and whether more follow."""

    ident: int
    offset: int
    length: int
    more: bool


class Datagram:
    """One IP packet: what its headers say, all of these headers as bytes, and what is behind them."""

    def __init__(self, ethertype: int, data: bytes):
        """Reads the packet at the beginning of `data`, which padding may follow."""
        self.piece: Piece | None = None
        self.version = 4 if ethertype == ETHERTYPE_IPV4 else 6
        self._read_ipv4(data) if self.version == 4 else self._read_ipv6(data)
        self.ends = self.src, self.dst

    def _read_ipv4(self, data: bytes):
        if len(data) < IPV4_LEN:
            raise Drop(drops.TRUNCATED)
        header_len, total_len = (data[0] & 0x0F) * 4, int.from_bytes(data[2:4], "big")
        if data[0] >> 4 != 4 or header_len < IPV4_LEN:
            raise Drop(drops.BAD_IP_HEADER)
        if len(data) < header_len:
            raise Drop(drops.TRUNCATED)
        if total_len < header_len:
            raise Drop(drops.BAD_IP_LENGTH)
        if total_len > len(data):
            raise Drop(drops.FRAME_CUT_SHORT)
        self.header, self.payload, self.received = data[:header_len], data[header_len:total_len], data[:total_len]
        if checksums.ones_sum(self.header) != checksums.ALL_ONES:
            raise Drop(drops.BAD_IP_CHECKSUM)
        check_options(self.header[IPV4_LEN:])
        self.src, self.dst = (str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16))
        self.tos, self.ttl, self.proto = data[1], data[8], data[9]
        field = int.from_bytes(data[6:8], "big")
        self.ident, self.df = int.from_bytes(data[4:6], "big"), bool(field & 0x4000)
        if field & 0x3FFF:
            self.piece = Piece(self.ident, (field & 0x1FFF) * 8, len(self.payload), bool(field & 0x2000))

    def _read_ipv6(self, data: bytes):
        if len(data) < IPV6_LEN:
            raise Drop(drops.TRUNCATED)
        if data[0] >> 4 != 6:
            raise Drop(drops.BAD_IP_HEADER)
        length = IPV6_LEN + int.from_bytes(data[4:6], "big")
        # RFC 2675: 0 announces a jumbogram, which no Ethernet carries.
        if length == IPV6_LEN:
            raise Drop(drops.BAD_IP_LENGTH)
        if length > len(data):
            raise Drop(drops.FRAME_CUT_SHORT)
        self.received = data[:length]
        self.src, self.dst = (str(ipaddress.IPv6Address(data[at : at + 16])) for at in (8, 24))
        self.tos, self.ttl = int.from_bytes(data[:2], "big") >> 4 & 0xFF, data[7]
        self.ident, self.df = None, True
        header_len, self.proto = self._walk(self.received)
        self.header, self.payload = self.received[:header_len], self.received[header_len:]

    def _walk(self, packet: bytes) -> tuple[int, int]:
        """Length of all headers, and the protocol behind them (RFC 8200, 4)."""
        at, kind, count = IPV6_LEN, packet[6], 0
        while kind in EXTENSION_HEADERS:
            count += 1
            # RFC 8200, 4.1: hop-by-hop options stand first or not at all.
            if count > MOST_EXTENSION_HEADERS or kind == HOP_BY_HOP and count > 1:
                raise Drop(drops.BAD_EXTENSION_HEADER)
            length = 8 if kind == FRAGMENT_HEADER or len(packet) < at + 2 else 8 * (packet[at + 1] + 1)
            if len(packet) < at + length:
                # RFC 7112: the first fragment holds all headers.
                raise Drop(drops.FRAGMENT_TINY if self.piece else drops.BAD_EXTENSION_HEADER)
            if kind == ROUTING and (packet[at + 2] == 0 or packet[at + 3]):
                raise Drop(drops.ROUTING_HEADER)
            if kind == FRAGMENT_HEADER:
                self._read_fragment_header(packet[at : at + 8], len(packet) - at - 8)
                if self.piece and self.piece.offset:
                    return at + length, packet[at]
            at, kind = at + length, packet[at]
        if kind == NO_NEXT_HEADER:
            raise Drop(drops.NO_NEXT_HEADER)
        return at, kind

    def _read_fragment_header(self, header: bytes, length: int):
        field, self.ident = int.from_bytes(header[2:4], "big"), int.from_bytes(header[4:8], "big")
        # RFC 6946: an atomic fragment is a whole packet.
        if field & 0xFFF9:
            self.piece = Piece(self.ident, field & 0xFFF8, length, bool(field & 1))

    @property
    def first(self) -> bool:
        """Whether the upper layer's header begins in it."""
        return self.piece is None or self.piece.offset == 0

    @property
    def largest(self) -> int:
        """Bytes that a datagram of this version may have behind its headers."""
        return LARGEST_PACKET - (len(self.header) if self.version == 4 else 0)

    def hop_on(self, src: str = "", dst: str = "", payload: bytes | None = None) -> bytes:
        """The packet one hop on, with other addresses and another payload where they are given."""
        payload = self.payload if payload is None else payload
        src, dst = src or self.src, dst or self.dst
        if self.version == 4:
            return bytes(header_like(IP(self.header), src=src, dst=dst, ttl=self.ttl - 1) / Raw(payload))
        fixed = IPv6(self.header[:IPV6_LEN])
        fixed.src, fixed.dst, fixed.hlim = src, dst, self.ttl - 1
        behind = self.header[IPV6_LEN:] + payload
        fixed.plen = len(behind)
        return bytes(fixed)[:IPV6_LEN] + behind


def check_options(options: bytes) -> None:
    """Drops IPv4 options that are malformed (RFC 791, 3.1) or choose the route (RFC 7126, 4.3 and 4.4)."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            raise Drop(drops.BAD_IP_HEADER)
        if options[at] in SOURCE_ROUTES:
            raise Drop(drops.SOURCE_ROUTE)
        at += length


def header_like(ip: IP, **changes) -> IP:
    """The same IPv4 header with other values; lengths and checksum are left to scapy."""
    computed = ("chksum", "len", "ihl")
    return IP(**{name: value for name, value in ip.fields.items() if name not in computed} | changes)


class Segment:
    """A TCP or UDP packet, or the first fragment of one."""

    def __init__(self, packet: Datagram):
        """Reads what `packet` carries."""
        self.packet, self.data = packet, packet.payload
        self.protocol = PROTOCOLS[packet.proto]
        self.flags = 0
        self._read_tcp(self.data) if self.protocol == "tcp" else self._read_udp(self.data)
        sport, dport = (int.from_bytes(self.data[at : at + 2], "big") for at in (0, 2))
        self.src, self.dst = join(packet.src, sport), join(packet.dst, dport)

    def _read_tcp(self, segment: bytes):
        if len(segment) < TCP_LEN:
            raise Drop(drops.FRAGMENT_TINY if self.packet.piece else drops.BAD_TCP_HEADER)
        self.header_len = (segment[12] >> 4) * 4
        if self.header_len < TCP_LEN or self.header_len > len(segment) and not self.packet.piece:
            raise Drop(drops.BAD_TCP_HEADER)
        if self.header_len > len(segment):
            raise Drop(drops.FRAGMENT_TINY)
        self.flags = segment[13]
        # Only scanners send SYN with FIN or RST, or none of the six flags of RFC 793.
        if self.flags & SYN and self.flags & (FIN | RST) or not self.flags & 0x3F:
            raise Drop(drops.BAD_TCP_FLAGS)

    def _read_udp(self, segment: bytes):
        if len(segment) < UDP_LEN:
            raise Drop(drops.FRAGMENT_TINY if self.packet.piece else drops.BAD_UDP_LENGTH)
        length = int.from_bytes(segment[4:6], "big")
        # Of a fragmented datagram only the beginning is here.
        if length < UDP_LEN or length > len(segment) and not self.packet.piece:
            raise Drop(drops.BAD_UDP_LENGTH)
        self.header_len = UDP_LEN

    def between(self, src: tuple[str, int], dst: tuple[str, int], mss: int | None = None) -> bytes:
        """The segment between other addresses and ports, with a smaller maximum segment size if it opens."""
        new = src[1].to_bytes(2, "big") + dst[1].to_bytes(2, "big") + self.data[4:]
        if mss and self.flags & SYN:
            new = self._clamped(new, mss)
        if self.packet.version == 4 and version(dst[0]) == 6 and checksums.stored(self.packet.proto, self.data) is None:
            return self._with_checksum(new, src[0], dst[0])
        fix = checksums.moved if self.packet.piece else checksums.like
        return fix(self.packet.proto, self.data, self.packet.ends, new, (src[0], dst[0]))

    def _with_checksum(self, new: bytes, src: str, dst: str) -> bytes:
        """RFC 7915, 4.5: UDP in IPv6 has a checksum, and over a piece there is no computing it."""
        if self.packet.piece:
            raise Drop(drops.BAD_UDP_LENGTH)
        return checksums.put(self.packet.proto, new, checksums.right(self.packet.proto, src, dst, new))

    def _clamped(self, segment: bytes, most: int) -> bytes:
        """RFC 9293, 3.2: the MSS option has kind 2 and length 4; 0 ends the options, 1 fills up."""
        at = TCP_LEN
        while at < self.header_len and segment[at] != 0:
            if segment[at] == 1:
                at += 1
                continue
            length = segment[at + 1] if at + 1 < self.header_len else 0
            if length < 2 or at + length > self.header_len:
                break
            if segment[at] == 2 and length == 4 and int.from_bytes(segment[at + 2 : at + 4], "big") > most:
                return segment[: at + 2] + most.to_bytes(2, "big") + segment[at + 4 :]
            at += length
        return segment

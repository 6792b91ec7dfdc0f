"""ICMP messages of both versions as they have to be: RFC 792, 1191, 1812 and 4443."""

import checksums
from appliance import join, split, version
from checksums import words
from frames import (
    ICMP,
    IP,
    IPV4_LEN,
    IPV6_LEN,
    PROTO_ICMP,
    PROTO_ICMPV6,
    TCP,
    IPv6,
    Packet,
    Raw,
)
from packet import ACK, EXTENSION_HEADERS, FIN, FRAGMENT_HEADER, SYN, Datagram, Segment, header_like

ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED, PARAMETER_PROBLEM = 0, 3, 8, 11, 12
FRAGMENTATION_NEEDED, PORT_UNREACHABLE, HOST_UNREACHABLE = 4, 3, 1
UNREACHABLE6, TOO_BIG6, TIME_EXCEEDED6, PARAMETER_PROBLEM6, ECHO_REQUEST6, ECHO_REPLY6 = 1, 2, 3, 4, 128, 129
PORT_UNREACHABLE6, ADDRESS_UNREACHABLE6 = 4, 3
NEIGHBOUR_DISCOVERY = range(133, 138)
HEADER_LEN = 8
ERRORS = {4: {UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM}, 6: {1, 2, 3, 4}}
PROTO = {4: PROTO_ICMP, 6: PROTO_ICMPV6}
ECHO = {4: (ECHO_REQUEST, ECHO_REPLY), 6: (ECHO_REQUEST6, ECHO_REPLY6)}
# RFC 1812, 4.3.2.3: as much of the packet as fits into 576 bytes; RFC 4443, 2.4 (c): into 1280.
QUOTE_LEN = {4: 576 - IPV4_LEN - HEADER_LEN, 6: 1280 - IPV6_LEN - HEADER_LEN}
OWN_TTL = 64


def is_discovery(packet: Datagram) -> bool:
    """Whether a packet is neighbour discovery (RFC 4861)."""
    is_icmp = packet.version == 6 and packet.proto == PROTO_ICMPV6 and packet.first
    return is_icmp and packet.payload[:1] in {bytes([kind]) for kind in NEIGHBOUR_DISCOVERY}


def is_error(packet: Datagram) -> bool:
    """Whether a packet is an ICMP error."""
    is_icmp = packet.proto == PROTO[packet.version] and packet.first
    return is_icmp and packet.payload[:1] in {bytes([kind]) for kind in ERRORS[packet.version]}


def is_echo(packet: Datagram, what: str) -> bool:
    """Whether a packet is a whole echo request, or a whole reply to one."""
    kind = ECHO[packet.version][what == "reply"]
    long_enough = len(packet.payload) >= HEADER_LEN and not packet.piece
    return packet.proto == PROTO[packet.version] and long_enough and packet.payload[0] == kind


def identifier(packet: Datagram) -> int:
    """The identifier of an echo packet."""
    return int.from_bytes(packet.payload[4:6], "big")


def echo_between(packet: Datagram, src: str, dst: str, ident: int) -> bytes:
    """An echo packet one hop on, between other addresses and with another identifier."""
    message = packet.payload[:4] + ident.to_bytes(2, "big") + packet.payload[6:]
    return packet.hop_on(src, dst, checksums.like(packet.proto, packet.payload, packet.ends, message, (src, dst)))


def echo_reply(packet: Datagram, label: int = 0) -> bytes:
    """What answers an echo request: RFC 1122, 3.2.2.6, and RFC 4443, 4.2. A flow label is the sender's choice."""
    message = bytes([ECHO[packet.version][1]]) + packet.payload[1:]
    back = packet.dst, packet.src
    answer = checksums.like(packet.proto, packet.payload, packet.ends, message, back)
    if packet.version == 4:
        return bytes(header_like(IP(packet.header), src=back[0], dst=back[1], ttl=OWN_TTL) / Raw(answer))
    header = IPv6(src=back[0], dst=back[1], nh=PROTO_ICMPV6, hlim=OWN_TTL, tc=packet.tos, fl=label)
    return bytes(header / Raw(answer))


def error(
    own: str, dst: str, packet: bytes, kind: int, code: int = 0, mtu: int = 0, tos: int = 0xC0, label: int = 0
) -> bytes:
    """What tells the sender of `packet`, which is quoted as it was received."""
    quote = packet[: QUOTE_LEN[version(own)]]
    if version(own) == 4:
        fields = {"nexthopmtu": mtu} if kind == UNREACHABLE else {}
        ip = IP(src=own, dst=dst, tos=tos, id=0, flags="DF", ttl=OWN_TTL)
        return bytes(ip / ICMP(type=kind, code=code, **fields) / Raw(quote))
    message = bytes([kind, code, 0, 0]) + mtu.to_bytes(4, "big") + quote
    value = checksums.right(PROTO_ICMPV6, own, dst, message)
    ip = IPv6(src=own, dst=dst, nh=PROTO_ICMPV6, hlim=OWN_TTL, tc=tos, fl=label)
    return bytes(ip / Raw(checksums.put(PROTO_ICMPV6, message, value)))


def reset(segment: Segment, tos: int = 0, label: int = 0) -> bytes:
    """The RST that refuses a segment: RFC 9293, 3.10.7.1."""
    packet, tcp = segment.packet, TCP(segment.data)
    length = len(segment.data) - segment.header_len + bool(segment.flags & SYN) + bool(segment.flags & FIN)
    fields = {"seq": 0, "ack": (tcp.seq + length) % (1 << 32), "flags": "RA"}
    if segment.flags & ACK:
        fields = {"seq": tcp.ack, "ack": 0, "flags": "R"}
    answer = TCP(sport=tcp.dport, dport=tcp.sport, window=0, **fields)
    if packet.version == 4:
        return bytes(IP(src=packet.dst, dst=packet.src, tos=tos, id=0, flags="DF", ttl=OWN_TTL) / answer)
    return bytes(IPv6(src=packet.dst, dst=packet.src, tc=tos, fl=label, hlim=OWN_TTL) / answer)


def passed_on(packet: Datagram, quote: bytes, src: str = "", dst: str = "") -> bytes:
    """An ICMP error one hop on, with another quote and other addresses."""
    ends = src or packet.src, dst or packet.dst
    new = packet.payload[:HEADER_LEN] + quote
    return packet.hop_on(*ends, checksums.like(packet.proto, packet.payload, packet.ends, new, ends))


class Quote:
    """The packet that an ICMP error is about; may be cut off eight bytes behind its IP headers."""

    def __init__(self, ip_version: int, quoted: bytes):
        """Reads it; raises `ValueError` if it does not hold the IP headers and eight bytes more."""
        self.version, self.quoted = ip_version, quoted
        if not quoted or quoted[0] >> 4 != ip_version:
            raise ValueError("no IP header")
        self._read_ipv4() if ip_version == 4 else self._read_ipv6()
        if len(quoted) < self.header_len + 8:
            raise ValueError("no ports")
        self.header, self.l4 = quoted[: self.header_len], quoted[self.header_len :]
        ports = [int.from_bytes(self.l4[at : at + 2], "big") for at in (0, 2)]
        self.src, self.dst = (join(ip, port) for ip, port in zip(self.ends, ports, strict=True))

    def _read_ipv4(self):
        self.header_len = (self.quoted[0] & 0x0F) * 4
        if self.header_len < IPV4_LEN or len(self.quoted) < self.header_len:
            raise ValueError("no IPv4 header")
        if int.from_bytes(self.quoted[6:8], "big") & 0x1FFF:
            raise ValueError("no first fragment")
        ip = IP(self.quoted[: self.header_len])
        self.ends, self.proto, self.tos, self.ttl = (ip.src, ip.dst), ip.proto, ip.tos, ip.ttl
        self.whole_len = ip.len - self.header_len

    def _read_ipv6(self):
        if len(self.quoted) < IPV6_LEN:
            raise ValueError("no IPv6 header")
        ip = IPv6(self.quoted[:IPV6_LEN])
        self.ends, self.proto, self.tos, self.ttl = (ip.src, ip.dst), ip.nh, ip.tc, ip.hlim
        at = IPV6_LEN
        while self.proto in EXTENSION_HEADERS:
            if len(self.quoted) < at + 8:
                raise ValueError("extension headers cut off")
            if self.proto == FRAGMENT_HEADER and self.quoted[at + 2] << 8 | self.quoted[at + 3] & 0xF8:
                raise ValueError("no first fragment")
            length = 8 if self.proto == FRAGMENT_HEADER else 8 * (self.quoted[at + 1] + 1)
            self.proto, at = self.quoted[at], at + length
        self.header_len, self.whole_len = at, ip.plen - (at - IPV6_LEN)

    def between(self, src: str, dst: str) -> bytes:
        """What is behind the headers, between other endpoints."""
        (src_ip, sport), (dst_ip, dport) = split(src), split(dst)
        new = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + self.l4[4:]
        return checksums.moved(self.proto, self.l4, self.ends, new, (src_ip, dst_ip))

    def changed(self, src: str = "", dst: str = "") -> bytes:
        """The quote with other endpoints of the same version."""
        src, dst = src or self.src, dst or self.dst
        ends = split(src)[0], split(dst)[0]
        return self._addressed(*map(checksums.bytes_of, ends)) + self.between(src, dst)

    def _addressed(self, src: bytes, dst: bytes) -> bytes:
        at = 12 if self.version == 4 else 8
        new = self.header[:at] + src + dst + self.header[at + 2 * len(src) :]
        if self.version == 6:
            return new
        # What is wrong with the quoted header's checksum stays wrong.
        value = int.from_bytes(new[10:12], "big") + words(self.header[at:20]) - words(src + dst)
        return new[:10] + (value % checksums.ALL_ONES).to_bytes(2, "big") + new[12:]

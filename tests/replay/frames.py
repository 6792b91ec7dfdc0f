"""Frames to feed, written as they are spoken of: who sends to whom, with which flags and payload.

Endpoints are `192.0.2.1:80` or `[2001:db8::1]:80`, and decide the IP version. What stands in `ip` overrides or
adds fields of the IP header, by scapy's names; `ttl` and `tos` may be said of both versions.
"""

import logging

from appliance import GATEWAY, NEIGHBOURS, PORT_MAC, split, version

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, in6_chksum  # noqa: E402
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

ETH_LEN, IPV4_LEN, IPV6_LEN, TCP_LEN, UDP_LEN = 14, 20, 40, 20, 8
MIN_FRAME_LEN = 60
ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
PROTO_ICMP, PROTO_TCP, PROTO_UDP, PROTO_ICMPV6 = 1, 6, 17, 58
IPV6_NAMES = {"ttl": "hlim", "tos": "tc"}


def packet_of(src: str, dst: str, proto: int, l4: Packet, payload: bytes = b"", ip: dict | None = None) -> bytes:
    """An IP packet. `headers` in `ip` are IPv6 extension headers: their types, and them but for the first byte."""
    fields = dict(ip or {})
    if version(src) == 4:
        return bytes(IP(**{"src": src, "dst": dst, "id": 0x1D5A, "proto": proto, **fields}) / l4 / Raw(payload))
    headers = fields.pop("headers", [])
    fields = {IPV6_NAMES.get(name, name): value for name, value in fields.items()}
    packet = bytes(IPv6(**{"src": src, "dst": dst, "fl": 0x5D5A7, "nh": proto, **fields}) / l4 / Raw(payload))
    if not headers:
        return packet
    packet = with_headers(packet, headers)
    length = fields.get("plen", len(packet) - IPV6_LEN)
    return packet[:4] + length.to_bytes(2, "big") + packet[6:]


def with_headers(packet: bytes, headers: list[tuple[int, bytes]]) -> bytes:
    """The IPv6 packet with extension headers before all that follows its fixed header."""
    following = [*(kind for kind, _ in headers[1:]), packet[6]]
    chain = b"".join(bytes([kind]) + rest for kind, (_, rest) in zip(following, headers, strict=True))
    length = int.from_bytes(packet[4:6], "big") + len(chain)
    fixed = packet[:4] + length.to_bytes(2, "big") + bytes([headers[0][0]]) + packet[7:IPV6_LEN]
    return fixed + chain + packet[IPV6_LEN:]


def framed(packet: bytes, src: str, eth: dict | None = None, tags: tuple[int, ...] = ()) -> bytes:
    """The frame in which a neighbour passes on a packet from the address `src`."""
    mac = NEIGHBOURS.get(src, NEIGHBOURS[GATEWAY])
    ethertype = ETHERTYPE_IPV4 if packet[:1] and packet[0] >> 4 == 4 else ETHERTYPE_IPV6
    fields = {"src": mac, "dst": PORT_MAC, "type": ethertype, **(eth or {})}
    return tagged(bytes(Ether(**fields) / Raw(packet)), tags)


def tagged(frame: bytes, tags: tuple[int, ...], priority: int = 0) -> bytes:
    """The frame in a VLAN (IEEE 802.1Q), or with two tags, outermost first, in one within another (802.1ad)."""
    types = (0x8100,) if len(tags) == 1 else (0x88A8, 0x8100)
    words = [kind.to_bytes(2, "big") + (priority << 13 | tag).to_bytes(2, "big") for kind, tag in zip(types, tags)]
    return frame[:12] + b"".join(words) + frame[12:]


def _frame(src: str, dst: str, proto: int, l4: Packet, payload: bytes, eth, ip, tags) -> bytes:
    src_ip, dst_ip = split(src)[0], split(dst)[0]
    packet = packet_of(src_ip, dst_ip, proto, l4, payload, ip)
    # Decided by the addresses, for tests may write another version into the header.
    ethertype = ETHERTYPE_IPV4 if version(src_ip) == 4 else ETHERTYPE_IPV6
    return framed(packet, src_ip, {"type": ethertype, **(eth or {})}, tags)


def tcp(
    src: str, dst: str, flags: str = "A", payload: bytes = b"", *, eth=None, ip=None, tags=(), **fields
) -> bytes:
    """A TCP frame to the appliance; `eth`, `ip` and `fields` override or add header fields."""
    l4 = TCP(**{"sport": split(src)[1], "dport": split(dst)[1], "seq": 0x12345678, "flags": flags, **fields})
    return _frame(src, dst, PROTO_TCP, l4, payload, eth, ip, tags)


def udp(src: str, dst: str, payload: bytes = b"", *, eth=None, ip=None, tags=(), **fields) -> bytes:
    """A UDP frame to the appliance; a `chksum` of 0 means that the sender computed none."""
    l4 = UDP(**{"sport": split(src)[1], "dport": split(dst)[1], **fields})
    return _frame(src, dst, PROTO_UDP, l4, payload, eth, ip, tags)


def icmp(src: str, dst: str, kind: int, body: bytes = b"", *, eth=None, ip=None, tags=(), **fields) -> bytes:
    """An ICMP frame to the appliance; `src` and `dst` are addresses, `body` follows the 8 bytes of header."""
    message = ICMP(**{"type": kind, **fields})
    return _frame(f"{src}:0", f"{dst}:0", PROTO_ICMP, message, body, eth, ip, tags)


def icmpv6(
    src: str, dst: str, kind: int, body: bytes = b"", *, code=0, rest=bytes(4), chksum=None, eth=None, ip=None, tags=()
) -> bytes:
    """An ICMPv6 frame to the appliance; `rest` are the four bytes behind the checksum."""
    message = bytes([kind, code, 0, 0]) + rest + body
    if chksum is None:
        chksum = in6_chksum(PROTO_ICMPV6, IPv6(src=src, dst=dst), message)
    whole = message[:2] + chksum.to_bytes(2, "big") + message[4:]
    return _frame(f"[{src}]:0", f"[{dst}]:0", PROTO_ICMPV6, Raw(whole), b"", eth, ip, tags)


def ip_packet(frame: bytes, length: int | None = None) -> bytes:
    """The IP packet in a frame without tags, or the beginning of it that an ICMP error quotes."""
    return frame[ETH_LEN:][:length]


def pieces(packet: bytes, cuts: tuple[int, ...], ident: int = 0x1234) -> list[bytes]:
    """The fragments of an IP packet whose payload is cut at the offsets `cuts`, multiples of 8.

    Without cuts it is an atomic fragment (RFC 6946), which only IPv6 has. What can be fragmented of an IPv6 packet
    here is all behind the extension headers up to routing and hop-by-hop options; others stay with the payload.
    """
    header, payload = _unfragmentable(packet)
    ends = [0, *cuts, len(payload)]
    frames = []
    for begin, end in zip(ends, ends[1:]):
        more = end < len(payload)
        if packet[0] >> 4 == 4:
            piece = IP(header)
            piece.flags, piece.frag = ("MF" if more else 0), begin // 8
            del piece.len, piece.chksum
            frames.append(bytes(piece / Raw(payload[begin:end])))
        else:
            frames.append(_ipv6_piece(header, payload, begin, end, ident))
    return frames


def _unfragmentable(packet: bytes) -> tuple[bytes, bytes]:
    if packet[0] >> 4 == 4:
        length = (packet[0] & 15) * 4
        return packet[:length], packet[length:]
    length, following = IPV6_LEN, packet[6]
    while following in (0, 43):
        following, length = packet[length], length + 8 * (packet[length + 1] + 1)
    return packet[:length], packet[length:]


def _ipv6_piece(header: bytes, payload: bytes, begin: int, end: int, ident: int) -> bytes:
    chain = bytearray(header)
    # The last header of the part that is never cut says what follows it.
    at, length, following = 6, IPV6_LEN, header[6]
    while length < len(header):
        at, following, length = length, header[length], length + 8 * (header[length + 1] + 1)
    chain[at] = 44
    more = end < len(payload)
    fragment = IPv6ExtHdrFragment(nh=following, offset=begin // 8, m=more, id=ident)
    body = bytes(chain[IPV6_LEN:]) + bytes(fragment) + payload[begin:end]
    fixed = IPv6(bytes(chain[:IPV6_LEN]))
    fixed.plen = len(body)
    return bytes(fixed)[:IPV6_LEN] + body


def arp_request(sender_ip: str, wanted_ip: str) -> bytes:
    """A broadcast question of a neighbour."""
    mac = NEIGHBOURS[sender_ip]
    return bytes(
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=sender_ip, pdst=wanted_ip)
    )


def padded(frame: bytes, fill: int = 0) -> bytes:
    """The frame as the shortest one Ethernet allows; `fill` shows whether padding is taken for data."""
    return frame.ljust(MIN_FRAME_LEN, bytes([fill]))


def pattern(length: int) -> bytes:
    """A payload in which every displaced or lost byte is seen."""
    return bytes((i * 7 + i // 251) % 256 for i in range(length))


def word_that_zeroes_udp(src: str, dst: str) -> bytes:
    """Two bytes of payload with which the UDP checksum from `src` to `dst` computes to 0 (sent as 0xffff)."""
    header_len = ETH_LEN + (IPV4_LEN if version(split(src)[0]) == 4 else IPV6_LEN)
    return UDP(udp(src, dst, b"\0\0")[header_len:]).chksum.to_bytes(2, "big")


def tcp_of_ip_len(src: str, dst: str, ip_len: int, **fields) -> bytes:
    """A TCP frame whose IP packet is `ip_len` bytes long."""
    headers = TCP_LEN + (IPV4_LEN if version(split(src)[0]) == 4 else IPV6_LEN)
    return tcp(src, dst, "PA", pattern(ip_len - headers), **fields)

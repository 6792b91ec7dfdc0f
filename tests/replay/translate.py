"""From one IP version to the other: RFC 7915."""

import checksums
from appliance import version
from frames import IP, IPV4_LEN, IPV6_LEN, PROTO_ICMP, PROTO_ICMPV6, IPv6, IPv6ExtHdrFragment, Raw
from icmp import HEADER_LEN, PROTO, Quote
from packet import Datagram

# RFC 7915, 5.1: only longer packets tell their path not to fragment them.
LONGEST_WITHOUT_DF = 1260
LEAST_MTU6, HEADER_DIFFERENCE = 1280, IPV6_LEN - IPV4_LEN
# RFC 7915, figures 3 and 6: where the field that a pointer points to stands in the other header.
POINTERS_4_TO_6 = {0: 0, 1: 1, 2: 4, 3: 4, 8: 7, 9: 6, **dict.fromkeys(range(12, 16), 8)}
POINTERS_4_TO_6 |= dict.fromkeys(range(16, 20), 24)
POINTERS_6_TO_4 = {0: 0, 1: 1, 4: 2, 5: 2, 6: 9, 7: 8, **dict.fromkeys(range(8, 24), 12)}
POINTERS_6_TO_4 |= dict.fromkeys(range(24, 40), 16)
# RFC 7915, 4.2: codes of destination unreachable; 2 and 4 become other types.
UNREACHABLE_4_TO_6 = {0: 0, 1: 0, 3: 4, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1, 10: 1, 11: 0, 12: 0, 13: 1, 15: 1}
# RFC 7915, 5.2
UNREACHABLE_6_TO_4 = {0: 1, 1: 10, 2: 1, 3: 1, 4: 3}


def datagram(packet: Datagram, src: str, dst: str, payload: bytes, proto: int, ident: int, label: int) -> bytes:
    """The packet one hop on, as one of the other version; extension headers and options stay behind."""
    if version(src) == 6:
        return _to_ipv6(packet, src, dst, payload, proto, label)
    return _to_ipv4(packet, src, dst, payload, proto, ident)


def _to_ipv6(packet: Datagram, src: str, dst: str, payload: bytes, proto: int, label: int) -> bytes:
    fixed = IPv6(src=src, dst=dst, tc=packet.tos, fl=label, hlim=packet.ttl - 1, nh=proto)
    if not packet.piece:
        return bytes(fixed / Raw(payload))
    fixed.nh = 44
    piece = packet.piece
    fragment = IPv6ExtHdrFragment(nh=proto, offset=piece.offset // 8, m=piece.more, id=piece.ident)
    return bytes(fixed / fragment / Raw(payload))


def _to_ipv4(packet: Datagram, src: str, dst: str, payload: bytes, proto: int, ident: int) -> bytes:
    ip = IP(src=src, dst=dst, tos=packet.tos, ttl=packet.ttl - 1, proto=proto, id=ident)
    if packet.piece:
        # 5.1.1: the low half of the fragment's identification, and the path may fragment further. An atomic fragment
        # is none (RFC 6946).
        ip.id = packet.ident & 0xFFFF
        ip.flags, ip.frag = ("MF" if packet.piece.more else 0), packet.piece.offset // 8
    elif IPV4_LEN + len(payload) > LONGEST_WITHOUT_DF:
        ip.flags = "DF"
    return bytes(ip / Raw(payload))


def message(old: Datagram, src: str, dst: str, quote: bytes, mtu: int) -> tuple[bytes, int] | None:
    """An ICMP error's payload in the other version, from `src` to `dst`, and its protocol.

    `mtu` is that of the links here. `None` if the message has no counterpart.
    """
    kind, code, rest = old.payload[0], old.payload[1], old.payload[4:HEADER_LEN]
    head = _head_to_6(kind, code, rest, mtu) if old.version == 4 else _head_to_4(kind, code, rest, mtu)
    if head is None:
        return None
    new_kind, new_code, new_rest = head
    new = bytes([new_kind, new_code, 0, 0]) + new_rest + quote
    proto = PROTO_ICMPV6 if old.version == 4 else PROTO_ICMP
    return checksums.like(PROTO[old.version], old.payload, old.ends, new, (src, dst), proto), proto


def _head_to_6(kind: int, code: int, rest: bytes, mtu: int) -> tuple[int, int, bytes] | None:
    """RFC 7915, 4.2"""
    if kind == 3 and code == 2:
        return 4, 1, (6).to_bytes(4, "big")  # unknown protocol: the pointer names the next header field
    if kind == 3 and code == 4:
        told = int.from_bytes(rest[2:], "big")
        most = max(LEAST_MTU6, min(told + HEADER_DIFFERENCE, mtu, mtu + HEADER_DIFFERENCE))
        return 2, 0, most.to_bytes(4, "big")
    if kind == 3:
        return (1, UNREACHABLE_4_TO_6[code], bytes(4)) if code in UNREACHABLE_4_TO_6 else None
    if kind == 11:
        return 3, code, bytes(4)
    pointer = POINTERS_4_TO_6.get(rest[0])
    return (4, 0, pointer.to_bytes(4, "big")) if code in (0, 2) and pointer is not None else None


def _head_to_4(kind: int, code: int, rest: bytes, mtu: int) -> tuple[int, int, bytes] | None:
    """RFC 7915, 5.2"""
    value = int.from_bytes(rest, "big")
    if kind == 1:
        return (3, UNREACHABLE_6_TO_4[code], bytes(4)) if code in UNREACHABLE_6_TO_4 else None
    if kind == 2:
        most = min(value - HEADER_DIFFERENCE, mtu, mtu - HEADER_DIFFERENCE)
        return 3, 4, bytes(2) + most.to_bytes(2, "big")
    if kind == 3:
        return 11, code, bytes(4)
    if code == 1:
        return 3, 2, bytes(4)
    pointer = POINTERS_6_TO_4.get(value)
    return (12, 0, bytes([pointer, 0, 0, 0])) if code == 0 and pointer is not None else None


def quote(old: Quote, src: str, dst: str, src_ip: str, dst_ip: str, ident: int) -> bytes:
    """The packet in an error between the endpoints `src` and `dst` of the other version; its TTL stays."""
    behind = old.between(src, dst)
    if old.version == 4:
        header = IPv6(src=src_ip, dst=dst_ip, tc=old.tos, hlim=old.ttl, nh=old.proto, plen=old.whole_len)
        return bytes(header) + behind
    length = IPV4_LEN + old.whole_len
    flags = "DF" if length > LONGEST_WITHOUT_DF else 0
    header = IP(src=src_ip, dst=dst_ip, tos=old.tos, ttl=old.ttl, proto=old.proto, len=length, flags=flags, id=ident)
    return bytes(header) + behind

"""Internet checksums (RFC 1071): by scapy over whole packets, by arithmetic where a part of one is missing."""

from frames import IP, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, IPv6, in6_chksum, version

from scapy.layers.inet import in4_chksum
from scapy.utils import checksum

# Where a protocol's header has its checksum.
CHECKSUM_AT = {PROTO_ICMP: 2, PROTO_TCP: 16, PROTO_UDP: 6, PROTO_ICMPV6: 2}
ALL_ONES = 0xFFFF


def ones_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words; 0xffff over a header with a right checksum."""
    total = words(data)
    while total > ALL_ONES:
        total = (total & ALL_ONES) + (total >> 16)
    return total


def words(data: bytes) -> int:
    """Sum of 16-bit words, the last one filled up by a zero."""
    return sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))


def address_words(*addresses: str) -> int:
    """Sum of the 16-bit words of addresses."""
    return sum(words(bytes_of(address)) for address in addresses)


def bytes_of(address: str) -> bytes:
    """An address as it stands in a header."""
    header = bytes(IP(dst=address) if version(address) == 4 else IPv6(dst=address))
    return header[16:20] if version(address) == 4 else header[24:40]


def stored(proto: int, segment: bytes) -> int | None:
    """The checksum in a segment; `None` if that part of it is missing, or a UDP sender computed none."""
    at = CHECKSUM_AT[proto]
    if len(segment) < at + 2:
        return None
    value = int.from_bytes(segment[at : at + 2], "big")
    return None if proto == PROTO_UDP and value == 0 else value


def right(proto: int, src: str, dst: str, segment: bytes) -> int:
    """The checksum that scapy computes for a whole segment from `src` to `dst`."""
    at = CHECKSUM_AT[proto]
    blank = segment[:at] + b"\0\0" + segment[at + 2 :]
    if proto == PROTO_ICMP:
        return checksum(blank)
    if version(src) == 4:
        return in4_chksum(proto, IP(src=src, dst=dst), blank)
    return in6_chksum(proto, IPv6(src=src, dst=dst), blank)


def like(proto: int, old: bytes, old_ends: tuple, new: bytes, new_ends: tuple, new_proto: int | None = None) -> bytes:
    """The whole segment `new`, its checksum right if that of `old` is, and else wrong by the same difference.

    `old_ends` and `new_ends` are the addresses that they go from and to. A UDP checksum of 0 stays 0.
    """
    new_proto = new_proto or proto
    there = stored(proto, old)
    if there is None:
        return new
    error = (there - right(proto, *old_ends, old)) % ALL_ONES
    value = right(new_proto, *new_ends, new)
    return put(new_proto, new, (value + error) % ALL_ONES if error else value)


def moved(proto: int, old: bytes, old_ends: tuple, new: bytes, new_ends: tuple) -> bytes:
    """The beginning `new` of a segment whose other bytes stay as they are, behind the beginning `old`.

    A checksum is minus the sum of what it covers, modulo 0xffff: that needs no byte that is not there.
    """
    there = stored(proto, old)
    if there is None:
        return new
    at = CHECKSUM_AT[proto]
    covered_old = words(old[:at] + old[at + 2 :]) + address_words(*old_ends)
    covered_new = words(new[:at] + new[at + 2 :]) + address_words(*new_ends)
    return put(proto, new, (there + covered_old - covered_new) % ALL_ONES)


def put(proto: int, segment: bytes, value: int) -> bytes:
    """The segment with a checksum; RFC 768: one computed as 0 is sent as all ones."""
    at = CHECKSUM_AT[proto]
    if proto == PROTO_UDP and value == 0:
        value = ALL_ONES
    return segment[:at] + value.to_bytes(2, "big") + segment[at + 2 :]

"""ICMP messages as they have to be, built by scapy from RFC 792, 1191 and 1812."""

from appliance import PORT_IP, split
from frames import ICMP, IP, Packet, Raw

ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED, PARAMETER_PROBLEM = 0, 3, 8, 11, 12
FRAGMENTATION_NEEDED = 4
ERRORS = {UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM}
HEADER_LEN = 8
# RFC 1812, 4.3.2.3: as much of the packet as fits into 576 bytes.
QUOTE_LEN = 576 - 20 - HEADER_LEN
CHECKSUM_AT = {6: 16, 17: 6}


def header_like(ip: IP, **changes) -> IP:
    """The same IPv4 header with other values; lengths and checksum are left to scapy."""
    computed = ("chksum", "len", "ihl")
    return IP(**{name: value for name, value in ip.fields.items() if name not in computed} | changes)


def echo_reply(ip: IP, message: bytes) -> Packet:
    """What answers an echo request: RFC 1122, 3.2.2.6."""
    answer = _like(message, bytes([ECHO_REPLY]) + message[1:])
    return header_like(ip, src=ip.dst, dst=ip.src, ttl=64) / answer


def error(packet: bytes, kind: int, code: int = 0, mtu: int = 0) -> Packet:
    """What tells the sender of `packet`, which is quoted as it was received."""
    ip = IP(src=PORT_IP, dst=IP(packet[:20]).src, tos=0xC0, id=0, flags="DF", ttl=64)
    fields = {"nexthopmtu": mtu} if kind == UNREACHABLE else {}
    return ip / ICMP(type=kind, code=code, **fields) / Raw(packet[:QUOTE_LEN])


def passed_on(ip: IP, message: bytes, quote: bytes, **changes) -> Packet:
    """An ICMP error one hop on, with another quote and other header fields."""
    return header_like(ip, ttl=ip.ttl - 1, **changes) / _like(message, message[:HEADER_LEN] + quote)


def _like(old: bytes, new: bytes) -> Packet:
    """The message `new`, its checksum right if that of `old` is, and else wrong by the same difference."""
    wrong = (ICMP(old[:HEADER_LEN]).chksum - _right(old)) % 0xFFFF
    right = _right(new)
    chksum = (right + wrong) % 0xFFFF if wrong else right
    return Raw(new[:2] + chksum.to_bytes(2, "big") + new[4:])


def _right(message: bytes) -> int:
    """The checksum that scapy computes for a message."""
    header = ICMP(message[:HEADER_LEN])
    header.chksum = None
    return ICMP(bytes(header / Raw(message[HEADER_LEN:]))[:HEADER_LEN]).chksum


class Quote:
    """The packet that an ICMP error is about; may be cut off eight bytes behind its IPv4 header."""

    def __init__(self, quoted: bytes):
        """Reads it; raises `ValueError` if it does not hold an IPv4 header and both ports."""
        self.quoted = quoted
        self.header_len = (quoted[0] & 0x0F) * 4 if quoted else 0
        if not quoted or quoted[0] >> 4 != 4 or self.header_len < 20:
            raise ValueError("no IPv4 header")
        if len(quoted) < self.header_len + 8 or int.from_bytes(quoted[6:8], "big") & 0x1FFF:
            raise ValueError("no ports")
        self.ip = IP(quoted[: self.header_len])
        ports = [int.from_bytes(quoted[self.header_len + i :][:2], "big") for i in (0, 2)]
        self.src, self.dst = f"{self.ip.src}:{ports[0]}", f"{self.ip.dst}:{ports[1]}"

    def changed(self, src: str = "", dst: str = "") -> bytes:
        """The quote with other endpoints.

        A checksum is minus the sum of what it covers, modulo 0xffff: that needs no byte that was cut off.
        """
        new = bytearray(self.quoted)
        for endpoint, ip_at, port_at in ((src, 12, 0), (dst, 16, 2)):
            if endpoint:
                ip, port = split(endpoint)
                port_at += self.header_len
                new[ip_at : ip_at + 4] = bytes(map(int, ip.split(".")))
                new[port_at : port_at + 2] = port.to_bytes(2, "big")
        addresses = _sum(self.quoted[12:20]) - _sum(new[12:20])
        ports_at = slice(self.header_len, self.header_len + 4)
        ports = _sum(self.quoted[ports_at]) - _sum(new[ports_at])
        _add(new, 10, addresses)
        at = self.header_len + CHECKSUM_AT[self.ip.proto]
        absent = self.ip.proto == 17 and not any(new[at : at + 2])
        if at + 2 <= len(new) and not absent:
            _add(new, at, addresses + ports)
            if self.ip.proto == 17 and not any(new[at : at + 2]):
                new[at : at + 2] = b"\xff\xff"  # RFC 768: a computed 0 is sent as all ones
        return bytes(new)


def _sum(words: bytes) -> int:
    return sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))


def _add(data: bytearray, at: int, difference: int) -> None:
    value = (int.from_bytes(data[at : at + 2], "big") + difference) % 0xFFFF
    data[at : at + 2] = value.to_bytes(2, "big")

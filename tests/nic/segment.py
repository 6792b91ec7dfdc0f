"""TCP and UDP packets as values, and the frames they are on a wire, with every checksum summed from zero.

A changed packet is another value, so what an appliance must send is written as what it received with other
fields. Scapy does all this too, but a hundred times slower; `test_segment.py` compares the two.
"""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

ETH_LEN = 14
TCP, UDP, IPIP, IPV6_IN_IP, GRE = 6, 17, 4, 41, 47
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
GUE_PORT = 6080
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
IP_IN_IP = {4: IPIP, 6: IPV6_IN_IP}

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Segment:
    """A TCP or UDP packet. `flags`, `seq` and `ack` are those of TCP, `id` and `df` those of IPv4."""

    protocol: int
    src: Address
    sport: int
    dst: Address
    dport: int
    payload: bytes = b""
    ttl: int = 64
    tos: int = 0
    label: int = 0
    id: int = 0
    df: bool = False
    flags: int = ACK
    seq: int = 0
    ack: int = 0

    def changed(self, **fields):
        """The same packet with other fields."""
        return replace(self, **fields)

    def packet(self):
        """It as an IP packet."""
        return ip_packet(self, self.protocol, self._l4())

    def _l4(self):
        if self.protocol == TCP:
            ports_to_window = (self.sport, self.dport, self.seq, self.ack, 5 << 4, self.flags, 8192)
            header = struct.pack(">HHIIBBHHH", *ports_to_window, 0, 0)
            at = 16
        else:
            header = struct.pack(">HHHH", self.sport, self.dport, 8 + len(self.payload), 0)
            at = 6
        segment = header + self.payload
        pseudo = self.src.packed + self.dst.packed + struct.pack(">II", len(segment), self.protocol)
        # RFC 768: a sum of 0 is sent as all ones, for 0 says that there is none. TCP has no such meaning.
        total = checksum(pseudo + segment) or (0xFFFF if self.protocol == UDP else 0)
        return with_checksum(segment, at, total)


def ip_packet(header, protocol, payload):
    """A payload behind the IP header that `header`, by its fields, asks for."""
    src, dst = header.src, header.dst
    if src.version == 6:
        first = 6 << 28 | header.tos << 20 | header.label
        return (
            struct.pack(">IHBB", first, len(payload), protocol, header.ttl)
            + src.packed
            + dst.packed
            + payload
        )
    flags = 0x4000 if header.df else 0
    fields = (0x45, header.tos, 20 + len(payload), header.id, flags, header.ttl, protocol, 0)
    fixed = struct.pack(">BBHHHBBH", *fields) + src.packed + dst.packed
    return with_checksum(fixed, 10, checksum(fixed)) + payload


@dataclass(frozen=True)
class Outer:
    """The header that a tunnel puts before a packet."""

    src: Address
    dst: Address
    ttl: int
    tos: int = 0
    label: int = 0
    id: int = 0
    df: bool = False


def frame(dst_mac, src_mac, packet):
    """An Ethernet frame around an IP packet; addresses are written `02:00:5e:00:53:01`."""
    ethertype = ETHERTYPES[packet[0] >> 4]
    return mac_bytes(dst_mac) + mac_bytes(src_mac) + ethertype.to_bytes(2, "big") + packet


def mac_bytes(mac):
    """The six bytes of an Ethernet address."""
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data):
    """The Internet checksum of RFC 1071."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def with_checksum(data, at, value):
    """The data with a checksum in its place."""
    return data[:at] + value.to_bytes(2, "big") + data[at + 2 :]

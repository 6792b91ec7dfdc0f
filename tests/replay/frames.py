"""Frames to feed, written as they are spoken of: who sends to whom, with which flags and payload."""

import logging

from appliance import GATEWAY, NEIGHBOURS, PORT_MAC, split

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

ETH_LEN = 14
MIN_FRAME_LEN = 60


def _frame(src: str, dst: str, l4: Packet, payload: bytes, eth: dict, ip: dict) -> bytes:
    src_ip, dst_ip = split(src)[0], split(dst)[0]
    sender_mac = NEIGHBOURS.get(src_ip, NEIGHBOURS[GATEWAY])
    return bytes(
        Ether(**{"src": sender_mac, "dst": PORT_MAC, "type": 0x0800, **eth})
        / IP(**{"src": src_ip, "dst": dst_ip, "id": 0x1D5A, **ip})
        / l4
        / Raw(payload)
    )


def tcp(src: str, dst: str, flags: str = "A", payload: bytes = b"", *, eth=None, ip=None, **fields) -> bytes:
    """A TCP frame to the appliance; `eth`, `ip` and `fields` override or add header fields."""
    l4 = TCP(**{"sport": split(src)[1], "dport": split(dst)[1], "seq": 0x12345678, "flags": flags, **fields})
    return _frame(src, dst, l4, payload, eth or {}, ip or {})


def udp(src: str, dst: str, payload: bytes = b"", *, eth=None, ip=None, **fields) -> bytes:
    """A UDP frame to the appliance; a `chksum` of 0 means that the sender computed none."""
    l4 = UDP(**{"sport": split(src)[1], "dport": split(dst)[1], **fields})
    return _frame(src, dst, l4, payload, eth or {}, ip or {})


def icmp(src: str, dst: str, kind: int, body: bytes = b"", *, eth=None, ip=None, **fields) -> bytes:
    """An ICMP frame to the appliance; `src` and `dst` are addresses, `body` follows the 8 bytes of header."""
    return _frame(f"{src}:0", f"{dst}:0", ICMP(**{"type": kind, **fields}), body, eth or {}, ip or {})


def ip_packet(frame: bytes, length: int | None = None) -> bytes:
    """The IP packet in a frame, or the beginning of it that an ICMP error quotes."""
    return frame[ETH_LEN:][:length]


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
    return UDP(udp(src, dst, b"\0\0")[ETH_LEN + 20 :]).chksum.to_bytes(2, "big")


def tcp_of_ip_len(src: str, dst: str, ip_len: int, **fields) -> bytes:
    """A TCP frame whose IP total length is `ip_len`."""
    return tcp(src, dst, "PA", pattern(ip_len - 40), **fields)

"""Frames of one flow, written as they are spoken of, for both versions of IP."""

import logging
from dataclasses import dataclass, replace

from services import CLIENTS, MACS, OTHER_PORTS, PORT_MAC, ROUTER, VIP_PORTS, Service

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402, F401
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # noqa: E402, F401
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402
from scapy.utils import checksum  # noqa: E402, F401

ETH_LEN, MIN_FRAME_LEN = 14, 60
ICMPV6 = 58


@dataclass(frozen=True)
class Flow:
    """One client endpoint that talks to a service; up to ten endpoints of a client have the same number."""

    number: int
    service: Service
    protocol: str
    sibling: int = 0

    @property
    def client(self):
        """Address and port of the client."""
        return CLIENTS[self.service.version] + 1 + self.number % 250, 10_000 + self.number * 10 + self.sibling

    def siblings(self, count):
        """Other flows of the same client."""
        return [replace(self, sibling=number) for number in range(1, count + 1)]

    @property
    def vip(self):
        """Address and port it talks to."""
        return self.service.vip, VIP_PORTS[self.protocol]

    @property
    def server(self):
        """Address and port of the server, as it sees itself: behind DR and tunnels it has the VIP."""
        if self.service.replies:
            return self.service.server, OTHER_PORTS[self.protocol]
        return self.vip

    def request(self, payload=b"", ip=(), **l4):
        """A frame to the VIP."""
        return framed(self.packet(self.client, self.vip, payload, ip, **l4))

    def reply(self, payload=b"", ip=(), **l4):
        """A frame of the server's to the client."""
        return framed(self.packet(self.server, self.client, payload, ip, **l4), self.service.server)

    def packet(self, source, to, payload=b"", ip=(), **l4):
        """A packet of this flow's protocol, as scapy builds it; `ip` and `l4` say more of its headers."""
        (src, sport), (dst, dport) = source, to
        if self.protocol == "tcp":
            header = TCP(**{"sport": sport, "dport": dport, "flags": "A", "seq": 0x12345678, **l4})
        else:
            header = UDP(**{"sport": sport, "dport": dport, **l4})
        return ip_header(src, dst, **dict(ip)) / header / Raw(payload)


def ip_header(src, dst, **fields):
    """An IP header; `ttl` and `tos` are called so for both versions."""
    if src.version == 4:
        return IP(**{"src": str(src), "dst": str(dst), "id": 0x1D5A, **fields})
    names = {"ttl": "hlim", "tos": "tc"}
    return IPv6(
        src=str(src), dst=str(dst), **{names.get(name, name): value for name, value in fields.items()}
    )


def framed(packet, sender=None, **eth):
    """A frame to the balancer, from a station on its wire or from the router."""
    mac = MACS[sender or ROUTER[4]]
    return bytes(Ether(**{"src": mac, "dst": PORT_MAC, **eth}) / packet)


def padded(frame, fill=0):
    """The frame as the shortest one Ethernet allows; `fill` shows whether padding is taken for data."""
    return frame.ljust(MIN_FRAME_LEN, bytes([fill]))


def pattern(length):
    """A payload in which every displaced or lost byte is seen."""
    return bytes((i * 7 + i // 251) % 256 for i in range(length))

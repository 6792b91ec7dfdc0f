"""What both balancers are fed, one topic a function: what happens in a new flow, step by step.

A step is a frame, or a list of frames whose outcomes are taken together. `CASES` says for which versions and
protocols each topic is.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from packets import (
    ETH_LEN,
    ICMP,
    ICMPV6,
    IP,
    UDP,
    Flow,
    ICMPv6EchoRequest,
    Raw,
    checksum,
    framed,
    ip_header,
    padded,
    pattern,
)
from services import OWN, ROUTER, SERVERS

CASES = []
SYN = {"tcp": {"flags": "S"}, "udp": {}}


@dataclass(frozen=True, eq=False)
class Case:
    """A topic, and what it is for."""

    name: str
    steps: Callable[[Flow], Iterator[bytes | list[bytes]]]
    versions: tuple[int, ...]
    protocols: tuple[str, ...]
    served: bool

    def fits(self, service, protocol):
        """Whether there is such a thing for a service."""
        return (
            service.version in self.versions
            and protocol in self.protocols
            and self.served == (service.weight > 0)
        )


def case(versions=(4, 6), protocols=("tcp", "udp"), served=True):
    """Makes a case of a function, whose name tells the topic; `served` are those for services with a server."""

    def add(function):
        CASES.append(Case(function.__name__.replace("_", " "), function, versions, protocols, served))
        return function

    return add


def opened(flow, **ip):
    """The first packet of a flow."""
    return flow.request(ip=ip, **SYN[flow.protocol])


def either_way(flow, payload=b"", ip=(), **l4):
    """A packet of the client's and, if those come back this way, one of the server's."""
    yield flow.request(payload, ip, **l4)
    if flow.service.replies:
        yield flow.reply(payload, ip, **l4)


@case(protocols=["tcp"])
def a_whole_connection(flow):
    """From SYN to the last ACK, with options and with payloads of odd and even lengths."""
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("NOP", None), ("WScale", 7)]
    yield flow.request(flags="S", options=options)
    if flow.service.replies:
        yield flow.reply(flags="SA", options=options)
    yield flow.request()
    for length in (1, 2, 517, 1400):
        yield from either_way(flow, pattern(length), flags="PA")
    yield flow.request(b"urgent", flags="PAU", urgptr=3, window=1)
    yield from either_way(flow, flags="FA")
    yield from either_way(flow)


@case(protocols=["tcp"])
def a_connection_that_is_reset(flow):
    """By the client, and at once."""
    yield opened(flow)
    yield from either_way(flow, flags="R")


@case()
def lengths(flow):
    """Payloads from nothing to what fits into a tunnel."""
    yield opened(flow)
    for length in (0, 1, 2, 3, 63, 64, 65, 1401, 1404):
        yield from either_way(flow, pattern(length))


@case()
def padding(flow):
    """Frames that are longer than the packets in them."""
    yield padded(opened(flow))
    for fill in (0, 0xA5):
        for frame in (*either_way(flow), *either_way(flow, b"odd")):
            yield padded(frame, fill)


@case()
def time_to_live(flow):
    """Hop limits from the highest to where it ends."""
    yield opened(flow)
    for ttl in (255, 128, 3, 2, 1, 0):
        yield from either_way(flow, b"data", {"ttl": ttl})


@case()
def service_class_and_congestion(flow):
    """DSCP and all four marks of ECN."""
    yield opened(flow)
    for tos in (0x01, 0x02, 0x03, 0xB8, 0xB9, 0xFF):
        yield from either_way(flow, b"data", {"tos": tos})


@case(versions=[4])
def identification_and_dont_fragment(flow):
    """Both of them in either direction."""
    yield opened(flow, flags="DF")
    for flags in ("DF", 0, "evil"):
        for identification in (0, 1, 0xFFFF):
            yield from either_way(flow, b"data", {"flags": flags, "id": identification})


@case(versions=[4])
def options_that_are_carried(flow):
    """Router alert, padding, and one that nobody knows."""
    yield opened(flow)
    for options in (b"\x94\x04\0\0", b"\x01" * 4, b"\x01" * 40, b"\x1e\x04ab", b"\x88\x04\0\0"):
        yield from either_way(flow, b"odd", {"options": raw_options(options)})


@case(versions=[4])
def options_that_routers_write_into(flow):
    """Record route and time stamp."""
    yield opened(flow)
    for options in (b"\x07\x07\x04\0\0\0\0\x01", b"\x44\x08\x05\0\0\0\0\0"):
        yield from either_way(flow, b"odd", {"options": raw_options(options)})


@case(versions=[4])
def source_routes(flow):
    """Loose and strict."""
    yield opened(flow)
    for kind in (0x83, 0x89):
        yield from either_way(flow, b"odd", {"options": raw_options(bytes([kind, 7, 4, 192, 0, 2, 77, 1]))})


def raw_options(options):
    """Bytes as scapy takes them for options."""
    return IP(bytes(IP(ihl=5 + len(options) // 4))[:20] + options).options


@case(versions=[4], protocols=["udp"])
def absent_checksums(flow):
    """A UDP checksum of zero is none."""
    yield from either_way(flow, b"data", chksum=0)


@case()
def wrong_checksums(flow):
    """They stay wrong, by as much."""
    yield opened(flow)
    for error in (1, 0x0100, 0x8000, 0xFFFE):
        for frame in either_way(flow, b"data"):
            yield with_checksum(frame, flow, lambda chksum, error=error: (chksum + error) % 0xFFFF or 0xFFFF)


@case(protocols=["udp"])
def checksums_that_come_out_as_zero(flow):
    """They are sent as all ones: before and behind the change."""
    yield opened(flow)
    for source, to, frame in (
        (flow.client, flow.vip, flow.request),
        (flow.client, flow.server, flow.request),
        (flow.server, flow.client, flow.reply),
        (flow.vip, flow.client, flow.reply),
    ):
        if flow.service.replies or frame == flow.request:
            word = UDP(bytes(flow.packet(source, to, b"\0\0").payload)).chksum
            yield frame(word.to_bytes(2, "big"))


def with_checksum(frame, flow, change):
    """The frame with another checksum in its TCP or UDP header."""
    at = ETH_LEN + (20 if flow.service.version == 4 else 40) + (16 if flow.protocol == "tcp" else 6)
    chksum = change(int.from_bytes(frame[at : at + 2], "big"))
    return frame[:at] + chksum.to_bytes(2, "big") + frame[at + 2 :]


FLAGS = ("A", "FA", "R", "RA", "SA", "PA", "FPU", 0, "SF", "SR")


@case(protocols=["tcp"])
def flags_of_first_packets(flow):
    """All that is no plain SYN, each from a client that is not known yet."""
    for flags, sibling in zip(FLAGS, flow.siblings(len(FLAGS)), strict=True):
        yield sibling.request(flags=flags)


@case(protocols=["tcp"])
def flags_of_later_packets(flow):
    """The same on a connection that is open."""
    for flags, sibling in zip(FLAGS, flow.siblings(len(FLAGS)), strict=True):
        yield opened(sibling)
        yield sibling.request(flags=flags)


@case(protocols=["tcp"])
def a_syn_for_congestion_notification(flow):
    """SYN with ECE and CWR, and a payload in a SYN."""
    yield flow.request(flags="SEC")
    yield flow.request(b"early", flags="S")


@case(versions=[4])
def broken_headers(flow):
    """IPv4 headers with lies in them."""
    yield opened(flow)
    for fault in ({"chksum": 0x0BAD}, {"len": 12}, {"len": 1400}, {"ihl": 4}, {"version": 5}):
        yield from either_way(flow, b"data", fault)


@case(versions=[4])
def fragments(flow):
    """A packet in two pieces, in their order."""
    yield opened(flow)
    pieces = []
    whole = flow.request(pattern(64))
    ip, payload = IP(whole[ETH_LEN:][:20]), whole[ETH_LEN + 20 :]
    for at, flags in ((0, "MF"), (40, 0)):
        part = payload[at : at + 40] if flags else payload[at:]
        header = ip_header(flow.client[0], flow.vip[0], flags=flags, frag=at // 8, proto=ip.proto)
        pieces.append(framed(header / Raw(part)))
    yield pieces


@case(served=False)
def no_server(flow):
    """First packets to a service whose servers take none."""
    yield opened(flow)


@case()
def no_such_service(flow):
    """A port of the VIP without a service."""
    yield framed(flow.packet(flow.client, (flow.vip[0], 81), **SYN[flow.protocol]))


@case()
def a_server_that_answers_nobody(flow):
    """A reply that belongs to no flow."""
    if flow.service.replies:
        yield flow.reply(b"data")


# Type, code and the word behind the checksum, of ICMP and ICMPv6.
ERRORS = {
    4: {
        "network unreachable": (3, 0, 0),
        "host unreachable": (3, 1, 0),
        "port unreachable": (3, 3, 0),
        "fragmentation needed": (3, 4, 1400),
        "prohibited": (3, 13, 0),
        "source quench": (4, 0, 0),
        "redirect": (5, 1, 0xC0000201),
        "time exceeded": (11, 0, 0),
        "reassembly time exceeded": (11, 1, 0),
        "parameter problem": (12, 0, 0x14000000),
    },
    6: {
        "no route": (1, 0, 0),
        "prohibited": (1, 1, 0),
        "address unreachable": (1, 3, 0),
        "port unreachable": (1, 4, 0),
        "packet too big": (2, 0, 1400),
        "time exceeded": (3, 0, 0),
        "parameter problem": (4, 0, 40),
    },
}


ECHO = {4: partial(ICMP, type=8), 6: ICMPv6EchoRequest}


@case()
def errors_of_clients(flow):
    """What a client, and a router on its way, say of the server's packets."""
    yield opened(flow)
    quote = bytes(flow.packet(flow.vip, flow.client, b"data"))
    for sender in (flow.client[0], ROUTER[flow.service.version]):
        for kind in ERRORS[flow.service.version]:
            yield framed(error(sender, flow.vip[0], kind, quote))


@case()
def errors_of_servers(flow):
    """What a server, and a router before it, say of the client's packets."""
    yield opened(flow)
    quote = bytes(flow.packet(flow.client, flow.server, b"data"))
    if flow.service.replies:
        for sender in (flow.server[0], SERVERS[1][flow.service.version]):
            for kind in ERRORS[flow.service.version]:
                yield framed(error(sender, flow.client[0], kind, quote), flow.server[0])


@case()
def errors_with_short_quotes(flow):
    """Quotes cut off within the headers and behind them."""
    yield opened(flow)
    to_client = bytes(flow.packet(flow.vip, flow.client, b"data"))
    to_server = bytes(flow.packet(flow.client, flow.server, b"data"))
    header_len = 20 if flow.service.version == 4 else 40
    for length in (-1, 0, 4, 7, 8, 9, 12, 16, 18, 20, 23):
        cut = header_len + length
        yield framed(error(flow.client[0], flow.vip[0], "port unreachable", to_client[:cut]))
        if flow.service.replies:
            yield framed(
                error(flow.server[0], flow.client[0], "port unreachable", to_server[:cut]), flow.server[0]
            )


@case()
def errors_with_a_hop_limit(flow):
    """Errors are forwarded like packets: they live as long."""
    yield opened(flow)
    quote = bytes(flow.packet(flow.vip, flow.client, b"data"))
    for ttl in (255, 2, 1):
        yield framed(error(flow.client[0], flow.vip[0], "port unreachable", quote, ttl=ttl, tos=0xC0))


@case()
def errors_about_nothing(flow):
    """A quote of a flow that is not there."""
    quote = bytes(flow.packet(flow.vip, flow.client, b"data"))
    yield framed(error(flow.client[0], flow.vip[0], "port unreachable", quote))


def error(src, dst, kind, quote, **ip):
    """An ICMP error about a packet, of which it quotes the beginning."""
    number, code, word = ERRORS[src.version][kind]
    message = struct.pack(">BBHI", number, code, 0, word) + quote
    protocol, pseudo = (1, b"") if src.version == 4 else (ICMPV6, struct.pack(">II", len(message), ICMPV6))
    addresses = src.packed + dst.packed if pseudo else b""
    chksum = checksum(addresses + pseudo + message).to_bytes(2, "big")
    ip["proto" if src.version == 4 else "nh"] = protocol
    return ip_header(src, dst, **ip) / Raw(message[:2] + chksum + message[4:])


@case(protocols=["udp"])
def pings(flow):
    """Echo requests to the VIP and to the balancer itself."""
    version, client = flow.service.version, flow.client[0]
    for dst in (flow.vip[0], OWN[version]):
        for length, ip in ((0, {}), (1, {}), (56, {}), (0, {"ttl": 1, "tos": 0xB8})):
            yield framed(ip_header(client, dst, **ip) / ECHO[version](id=7, seq=9) / Raw(pattern(length)))


@case(protocols=["udp"])
def packets_too_long_for_the_tunnel(flow):
    """As long as the MTU, with and without the wish to stay whole."""
    yield opened(flow)
    header = 28 if flow.service.version == 4 else 48
    for length in (1480 - header, 1481 - header, 1500 - header):
        if flow.service.version == 4:
            yield flow.request(pattern(length), {"flags": "DF"})
        yield flow.request(pattern(length))


@case(versions=[4], protocols=["udp"])
def frames_of_others(flow):
    """To another station, and to all."""
    packet = flow.packet(flow.client, flow.vip, b"data")
    for mac in ("02:00:5e:00:53:fe", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"):
        yield framed(packet, dst=mac)


@case(versions=[4])
def impossible_sources(flow):
    """Addresses that no packet on a wire comes from."""
    for src in ("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", flow.vip[0]):
        source = ip_address(src), flow.client[1]
        yield framed(flow.packet(source, flow.vip, b"data", **SYN[flow.protocol]))

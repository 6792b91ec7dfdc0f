"""The deliberate differences between IPVS and us, each by the name it has in docs/ipvs-differences.md.

Each is a function that takes its difference, and nothing else, out of a step. What then still differs is a
defect, of one side or the other; and a difference that no step shows any more has to go, here and there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from outcome import Step
from packets import ETH_LEN, ICMP, ICMPV6, IP, TCP, UDP, Ether, checksum
from services import MACS, OWN, PORT_MAC, ROUTER, VIP_PORTS

DIFFERENCES = []
TUNNELS, GUE_PORT = (4, 41, 47), 6080
SOURCE_QUENCH, PARAMETER_PROBLEM = 4, {4: 12, 6: 4}
PORT_UNREACHABLE, TOO_BIG = {4: (3, 3), 6: (1, 4)}, {4: (3, 4), 6: (2, 0)}
SYN, RST, ACK, FIN = 0x02, 0x04, 0x10, 0x01
CE, ECT0 = 3, 2
WRITTEN_OPTIONS = 0x07, 0x44
GRE, GRE_LEN, GUE_LEN, FRAGMENT = 47, 4, 12, 44
NETWORK_CONTROL = 0xC0


@dataclass(frozen=True)
class Difference:
    """One of them; `wanted` says of a service whether it has to show there, and may."""

    name: str
    settle: Callable[[Step], Step]
    wanted: Callable[[object], bool]


def difference(name, wanted=lambda _service: True):
    """Makes a difference of a function."""

    def add(settle):
        DIFFERENCES.append(Difference(name, settle, wanted))
        return settle

    return add


@functools.cache
def settled(step):
    """The step without deliberate differences, and the names of those that it had."""
    seen = []
    for each in DIFFERENCES:
        if step.ours == step.theirs:
            break
        if not each.wanted(step.flow.service):
            continue
        without = each.settle(step)
        if without != step:
            seen.append(each.name)
            step = without
    return step, seen


@difference("not-a-router")
def _(step):
    return without_theirs(step, lambda frame: frame == routed(step))


@difference("closed-ports")
def _(step):
    closed = TCP in step.packet or UDP in step.packet
    closed = closed and step.packet.dport not in (VIP_PORTS["tcp"], VIP_PORTS["udp"])
    return without_theirs(step, lambda frame: closed and refuses(step, frame))


@difference("unknown-connections")
def _(step):
    return without_theirs(step, lambda frame: TCP in step.packet and refuses(step, frame))


@difference("impossible-flags")
def _(step):
    flags = tcp_flags(step)
    impossible = flags == 0 or (flags or 0) & SYN and flags & (FIN | RST)
    return without_theirs(step, lambda frame: impossible and not refuses(step, frame))


@difference("syn-with-ack")
def _(step):
    flags = tcp_flags(step) or 0
    return without_theirs(step, lambda frame: flags & (SYN | ACK) == SYN | ACK and not refuses(step, frame))


@difference("fragments", lambda service: service.version == 4 and in_tunnel_mode(service))
def _(step):
    if len(step.fed) < 2 or not step.theirs:
        return step
    whole = reassembled(step.theirs)
    at = inner_at(whole)
    wrapped = whole[at:] == routed_packet(reassembled(step.fed)[ETH_LEN:])
    if not (in_tunnel(whole) and wrapped and tunnel_sound(whole)):
        return step
    pieces = tuple(repacked(whole[:at], routed_packet(frame[ETH_LEN:])) for frame in step.fed)
    return replace(step, theirs=pieces)


@difference("too-long", lambda service: service.version == 4 and in_tunnel_mode(service))
def _(step):
    may_be_cut = IP in step.packet and not step.packet.flags.DF
    return without_theirs(step, lambda frame: may_be_cut and len(step.fed) == 1 and is_piece(frame))


@difference("written-options", lambda service: service.version == 4)
def _(step):
    if not (options(step)[:1] and options(step)[0] in WRITTEN_OPTIONS):
        return step
    return pairwise(step, lambda ours, theirs: (ours, with_options_of(ours, theirs)))


@difference("congestion-mark", lambda service: in_tunnel_mode(service))
def _(step):
    if step.packet.fields.get("tos", step.packet.fields.get("tc")) & 3 != CE:
        return step
    return pairwise(step, lambda ours, theirs: (ours, marked(theirs) if in_tunnel(theirs) else theirs))


@difference("tunnel-identification", lambda service: service.server.version == 4 and in_tunnel_mode(service))
def _(step):
    def without(frame):
        return rebuilt(frame, id=0) if in_tunnel(frame) and is_version(4, frame) else frame

    return pairwise(step, lambda ours, theirs: (without(ours), without(theirs)))


@difference("flow-label", lambda service: service.server.version == 6 and in_tunnel_mode(service))
def _(step):
    def without_label(ours, theirs):
        labelled = in_tunnel(ours) and is_version(6, ours) and label(ours) and not label(theirs)
        return (rebuilt(ours, fl=0) if labelled else ours), theirs

    return pairwise(step, without_label)


@difference("gue-port", lambda service: "gue" in service.name)
def _(step):
    return pairwise(step, lambda ours, theirs: (without_gue_port(ours), without_gue_port(theirs)))


@difference("absent-checksums", lambda service: service.version == 4 and service.replies)
def _(step):
    absent = UDP in step.packet and ICMP not in step.packet and step.packet[UDP].chksum == 0
    if not absent:
        return step
    return pairwise(step, lambda ours, theirs: (ours, without_udp_sum(theirs)))


@difference("answer-address")
def _(step):
    return pairwise(
        step, lambda ours, theirs: (ours, rebuilt(theirs, src=own(step)) if told(step, ours) else theirs)
    )


@difference("answer-class", lambda service: service.version == 6)
def _(step):
    def classed(ours, theirs):
        own_error = quoted(step.fed[0]) is None and (told(step, ours) or refuses(step, ours))
        own_error = own_error and is_version(6, ours) and icmp_kind(ours) is not None
        return ours, rebuilt(theirs, tc=NETWORK_CONTROL) if own_error else theirs

    return pairwise(step, classed)


@difference("answer-identification", lambda service: service.version == 4)
def _(step):
    def like_ours(ours, theirs):
        refused = quoted(step.fed[0]) is None and refuses(step, ours)
        answers = told(step, ours) or refused or is_echo_reply(ours)
        if not (answers and is_version(4, ours)):
            return ours, theirs
        header = Ether(ours)[IP]
        return ours, rebuilt(theirs, id=header.id, flags=header.flags)

    return pairwise(step, like_ours)


@difference("too-big-quote", lambda service: in_tunnel_mode(service))
def _(step):
    version = step.flow.service.version

    def as_received(ours, theirs):
        if not told(step, ours) or icmp_kind(theirs) != TOO_BIG[version]:
            return ours, theirs
        at = ETH_LEN + len_of_ip(theirs) + 8
        return ours, with_icmp_sum(theirs[:at] + one_hop_back(theirs[at:]))

    return pairwise(step, as_received)


@difference("source-quench", lambda service: service.version == 4)
def _(step):
    return without_theirs(
        step, lambda _frame: (icmp_kind(step.fed[0]) or (0,))[0] == SOURCE_QUENCH and IP in step.packet
    )


@difference("parameter-problem")
def _(step):
    kind = icmp_kind(step.fed[0])
    problem = kind and kind[0] == PARAMETER_PROBLEM[step.flow.service.version]
    unaltered = step.theirs in ((), (routed(step),))
    return replace(step, ours=(), theirs=()) if problem and unaltered else step


@difference("short-quotes")
def _(step):
    quote = quoted(step.fed[0])
    return without_theirs(step, lambda _frame: quote is not None and len(quote) < len_of_header(quote) + 8)


@difference("routers-of-servers", lambda service: service.replies)
def _(step):
    def from_router(ours, theirs):
        passed = quoted(step.fed[0]) is not None and step.packet.src != str(step.flow.server[0])
        return ours, rebuilt(theirs, src=step.packet.src) if passed else theirs

    return pairwise(step, from_router)


@difference("quoted-checksums", lambda service: service.replies)
def _(step):
    def without(frame):
        at = ETH_LEN + len_of_ip(frame) + 8
        at += len_of_header(frame[at:]) + {"tcp": 16, "udp": 6}[step.flow.protocol]
        return with_icmp_sum(frame[:at] + bytes(2) + frame[at + 2 :]) if len(frame) >= at + 2 else frame

    if quoted(step.fed[0]) is None:
        return step
    return pairwise(step, lambda ours, theirs: (without(ours), without(theirs)))


def without_theirs(step, explained):
    """The step without frames of the judge's that are explained, if it has more than we have."""
    if len(step.theirs) <= len(step.ours):
        return step
    return replace(step, theirs=tuple(f for f in step.theirs if f in step.ours or not explained(f)))


def pairwise(step, change):
    """The step with a change to each pair of frames that differ, if the checksums in both are right."""
    if len(step.ours) != len(step.theirs):
        return step
    pairs = [
        change(ours, theirs) if ours != theirs and sound(ours) and sound(theirs) else (ours, theirs)
        for ours, theirs in zip(step.ours, step.theirs, strict=True)
    ]
    return replace(step, ours=tuple(p[0] for p in pairs), theirs=tuple(p[1] for p in pairs))


def routed(step):
    """What a router makes of the first frame fed."""
    if getattr(step.packet, "ttl", getattr(step.packet, "hlim", 0)) <= 1:
        return None
    names = {"ttl": step.packet.ttl - 1} if IP in step.packet else {"hlim": step.packet.hlim - 1}
    frame = bytearray(rebuilt(step.fed[0], **names))
    frame[:12] = mac_bytes(MACS[ROUTER[4]]) + mac_bytes(PORT_MAC)
    return bytes(frame)


def mac_bytes(mac):
    """The six bytes of an Ethernet address."""
    return bytes.fromhex(mac.replace(":", ""))


def refuses(step, frame):
    """Whether a frame says that nobody wants the packet: a reset or a port unreachable of the VIP's."""
    packet = Ether(frame).payload
    if packet.src != str(step.flow.vip[0]):
        return False
    reset = TCP in packet and ICMP not in packet and bool(int(packet[TCP].flags) & RST)
    return reset or icmp_kind(frame) == PORT_UNREACHABLE[step.flow.service.version]


def told(step, frame):
    """Whether a frame is an ICMP error that the balancer itself tells the sender, from its own address."""
    packet = Ether(frame).payload
    return icmp_kind(frame) is not None and (packet.src, packet.dst) == (own(step), step.packet.src)


def own(step):
    """The balancer's own address."""
    return str(OWN[step.flow.service.version])


def is_echo_reply(frame):
    """Whether a frame answers a ping."""
    return icmp_kind(frame) in ((0, 0), (129, 0))


def tcp_flags(step):
    """Flags of the TCP packet fed; `None` if it is none."""
    return int(step.packet[TCP].flags) if TCP in step.packet and ICMP not in step.packet else None


def options(step):
    """IPv4 options of the packet fed."""
    return step.fed[0][ETH_LEN + 20 : ETH_LEN + len_of_ip(step.fed[0])] if IP in step.packet else b""


def in_tunnel_mode(service):
    """Whether a service wraps packets."""
    return service.ipvs.startswith("-i")


def in_tunnel(frame):
    """Whether a frame is a tunnel's, from this balancer."""
    packet = Ether(frame).payload
    protocol = packet.proto if isinstance(packet, IP) else packet.nh
    return packet.src in map(str, OWN.values()) and (protocol in TUNNELS or is_gue(frame))


def is_version(version, frame):
    """Whether the outermost IP header of a frame is of a version."""
    return frame[ETH_LEN] >> 4 == version


def is_gue(frame):
    """Whether a frame is one of GUE."""
    udp = Ether(frame).payload.payload
    return isinstance(udp, UDP) and udp.dport == GUE_PORT


def icmp_kind(frame):
    """Type and code of an ICMP or ICMPv6 message; `None` for anything else."""
    packet = Ether(frame).payload
    if packet.fields.get("proto") != 1 and packet.fields.get("nh") != ICMPV6:
        return None
    at = ETH_LEN + len_of_ip(frame)
    return frame[at], frame[at + 1]


def quoted(frame):
    """The beginning of a packet that an ICMP error quotes; `None` if the frame is none."""
    kind = icmp_kind(frame)
    is_error = kind is not None and (
        kind[0] in (3, 4, 5, 11, 12) if Ether(frame).type == 0x0800 else kind[0] < 128
    )
    return frame[ETH_LEN + len_of_ip(frame) + 8 :] if is_error else None


def len_of_ip(frame):
    """Bytes of a frame's IP header."""
    return len_of_header(frame[ETH_LEN:])


def len_of_header(packet):
    """Bytes of an IP header."""
    return (packet[0] & 0x0F) * 4 if packet[0] >> 4 == 4 else 40


@functools.cache
def rebuilt(frame, **fields):
    """The frame with other fields in its IP header, and the checksums of that and of ICMP right again."""
    frame = Ether(frame)
    header = frame.payload
    for name, value in fields.items():
        setattr(header, name, value)
    if isinstance(header, IP):
        header.chksum = None
    return with_icmp_sum(bytes(frame))


def sound(frame):
    """Whether it is a frame of IP, and those checksums are right."""
    version = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
    return version == frame[ETH_LEN] >> 4 and rebuilt(frame) == frame


def with_icmp_sum(frame):
    """The frame with the right checksum in its ICMP header, if it has one."""
    if icmp_kind(frame) is None or is_piece(frame):
        return frame
    at = ETH_LEN + len_of_ip(frame)
    message = frame[at : at + 2] + bytes(2) + frame[at + 4 :]
    version6 = is_version(6, frame)
    pseudo = frame[ETH_LEN + 8 : ETH_LEN + 40] + len(message).to_bytes(4, "big") + bytes([0, 0, 0, ICMPV6])
    total = checksum((pseudo if version6 else b"") + message).to_bytes(2, "big")
    return frame[:at] + message[:2] + total + message[4:]


def one_hop_back(packet):
    """A quoted packet, one hop before."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] + 1]) + packet[8:]
    size = len_of_header(packet)
    return header_sum(packet[:8] + bytes([packet[8] + 1]) + packet[9:size]) + packet[size:]


def header_sum(header):
    """An IPv4 header with its checksum right."""
    blank = header[:10] + bytes(2) + header[12:]
    return blank[:10] + checksum(blank).to_bytes(2, "big") + blank[12:]


def with_options_of(ours, theirs):
    """Their frame with the options of our innermost IPv4 header."""
    at = inner_at(ours)
    if inner_at(theirs) != at or not tunnel_sound(theirs):
        return theirs
    end = at + len_of_header(ours[at:])
    return with_tunnel_sum(theirs[:at] + header_sum(theirs[at : at + 20] + ours[at + 20 : end]) + theirs[end:])


def inner_at(frame):
    """Where the innermost IP header of a frame begins."""
    if not in_tunnel(frame):
        return ETH_LEN
    at = ETH_LEN + len_of_ip(frame)
    if is_gue(frame):
        return at + GUE_LEN
    if is_gre(frame):
        return at + (2 * GRE_LEN if frame[at] & 0x80 else GRE_LEN)
    return at


def is_gre(frame):
    """Whether a frame is one of GRE."""
    return frame[ETH_LEN + (9 if is_version(4, frame) else 6)] == GRE


def is_piece(frame):
    """Whether a frame is a fragment."""
    if is_version(6, frame):
        return frame[ETH_LEN + 6] == FRAGMENT
    return int.from_bytes(frame[ETH_LEN + 6 : ETH_LEN + 8], "big") & 0x3FFF != 0


def reassembled(frames):
    """The frame whose IPv4 fragments these are, in their order; or the only one."""
    if not all(is_piece(frame) for frame in frames):
        return frames[0]
    payload = b"".join(frame[ETH_LEN + len_of_ip(frame) :] for frame in frames)
    head = frames[0][: ETH_LEN + len_of_ip(frames[0])]
    return rebuilt(head + payload, flags=0, frag=0, len=len(head) - ETH_LEN + len(payload))


def routed_packet(packet):
    """An IPv4 packet, one hop later."""
    size = len_of_header(packet)
    return header_sum(packet[:8] + bytes([packet[8] - 1]) + packet[9:size]) + packet[size:]


def repacked(head, packet):
    """A packet behind the headers of a tunnel, whose lengths and checksums are made right."""
    frame, at = head + packet, ETH_LEN + len_of_ip(head)
    if is_gue(head):
        frame = frame[: at + 4] + (len(frame) - at).to_bytes(2, "big") + frame[at + 6 :]
    if is_version(6, frame):
        return with_tunnel_sum(rebuilt(frame, plen=len(frame) - at))
    return with_tunnel_sum(rebuilt(frame, len=len(frame) - ETH_LEN))


def tunnel_sound(frame):
    """Whether the checksum of a tunnel, if it has one, is right."""
    return with_tunnel_sum(frame) == frame


def with_tunnel_sum(frame):
    """The frame with the right checksum in its GUE or GRE header, if it has one."""
    if not in_tunnel(frame):
        return frame
    at = ETH_LEN + len_of_ip(frame)
    if is_gue(frame):
        field, covered = at + 6, gue_pseudo(frame)
    else:
        field, covered = at + 4, b""
    if not (is_gue(frame) or is_gre(frame) and frame[at] & 0x80) or frame[field : field + 2] == b"\0\0":
        return frame
    blank = frame[:field] + bytes(2) + frame[field + 2 :]
    total = checksum(covered + blank[at:]) or (0xFFFF if is_gue(frame) else 0)
    return frame[:field] + total.to_bytes(2, "big") + frame[field + 2 :]


def gue_pseudo(frame):
    """The pseudo header of a frame of GUE."""
    at = ETH_LEN + len_of_ip(frame)
    addresses = frame[ETH_LEN + 12 : ETH_LEN + 20] if frame[12:14] == b"\x08\x00" else frame[ETH_LEN + 8 : at]
    return addresses + bytes([0, 17]) + frame[at + 4 : at + 6]


def label(frame):
    """Flow label of an IPv6 frame."""
    return int.from_bytes(frame[ETH_LEN : ETH_LEN + 4], "big") & 0xFFFFF


def entropy(frame):
    """A mask of the bits of a tunnel's frame that may have any value, if only it is that of the flow.

    It goes to the last byte with such bits, and is empty where there are none.
    """
    mask = bytearray(len(frame))
    if in_tunnel(frame):
        at = ETH_LEN + len_of_ip(frame)
        if is_version(6, frame):
            mask[ETH_LEN + 1 : ETH_LEN + 4] = b"\x0f\xff\xff"
        if is_gue(frame):
            mask[at : at + 2] = b"\xff\xff"
    return bytes(mask.rstrip(b"\0"))


def marked(frame):
    """A tunnel's frame with the congestion mark of RFC 6040 for that of RFC 3168."""
    packet = Ether(frame).payload
    name = "tos" if isinstance(packet, IP) else "tc"
    value = getattr(packet, name)
    return rebuilt(frame, **{name: value | CE}) if value & 3 == ECT0 else frame


def without_gue_port(frame):
    """A GUE frame with a source port of 0, and with a right checksum, if it has one, replaced by 1."""
    if not is_gue(frame):
        return frame
    at = ETH_LEN + len_of_ip(frame)
    absent = frame[at + 6 : at + 8] == b"\0\0"
    if not absent and checksum(gue_pseudo(frame) + frame[at:]) != 0:
        return frame
    return frame[:at] + b"\0\0" + frame[at + 2 : at + 6] + bytes([0, not absent]) + frame[at + 8 :]


def without_udp_sum(frame):
    """A frame whose right UDP checksum is left out."""
    packet = Ether(frame)
    udp = packet[UDP]
    was, udp.chksum = udp.chksum, None
    right = Ether(bytes(packet))[UDP].chksum
    if was != right:
        return frame
    packet = Ether(frame)
    packet[UDP].chksum = 0
    return bytes(packet)

"""Flows of many clients through one mode, with every frame that comes out compared to what it has to be."""

import struct
from collections import Counter
from dataclasses import dataclass, field

from modes import VIP_PORTS, Mode, between_versions
from plan import FIRST_CLIENT, MACS, ROUTER_MAC, SERVERS, Server
from segment import ACK, ETH_LEN, FIN, PSH, SYN, TCP, UDP, Segment, frame, mac_bytes

FLOWS = {TCP: 240, UDP: 120}
# Frames on the way at a time: fewer than a ring or a socket holds, so that none is lost by the test.
WINDOW = 64
MARK = b"flow"
# Odd and even, from what makes UDP the shortest frame there is to what just fits GUE over IPv6.
PAYLOAD_LENS = (18, 19, 64, 333, 1000, 1388)


@dataclass
class Flow:
    """One client endpoint's talk with a VIP, and what is known of it."""

    number: int
    mode: Mode
    protocol: int
    steps: int = 0
    server: Server | None = None
    # The last packet as the server's own stack saw it: what it replies to.
    seen: Segment | None = field(default=None, repr=False)

    @property
    def client(self):
        """A client's address; a few clients have several flows."""
        return FIRST_CLIENT[self.mode.version] + self.number % 200

    @property
    def sport(self):
        """A port that no other flow of any mode has."""
        return 10_000 + self.number * 7

    def payload(self, flags):
        """Bytes by which this packet is known again; a SYN is as short as it may be."""
        self.steps += 1
        length = (
            PAYLOAD_LENS[0] if flags & SYN else PAYLOAD_LENS[(self.number + self.steps) % len(PAYLOAD_LENS)]
        )
        return (MARK + struct.pack(">II", self.number, self.steps)).ljust(length, b"\xa5")

    def request(self, flags):
        """The client's next packet."""
        return Segment(
            protocol=self.protocol,
            src=self.client,
            sport=self.sport,
            dst=self.mode.vip,
            dport=VIP_PORTS[self.protocol],
            payload=self.payload(flags),
            ttl=63,
            tos=0xB8 if self.number % 3 else 0,
            id=self.number & 0xFFFF,
            df=self.number % 2 == 0,
            flags=flags,
            seq=self.number << 8 | self.steps,
            ack=0 if flags & SYN else 1,
        )

    def reply(self, flags):
        """The server's next packet, to whom it takes for its client."""
        seen = self.seen
        back = seen.changed(src=seen.dst, sport=seen.dport, dst=seen.src, dport=seen.sport)
        return back.changed(payload=self.payload(flags), ttl=64, tos=0, flags=flags, seq=1, ack=seen.seq)


@dataclass(frozen=True)
class Expected:
    """A frame on its way: of which flow, what was sent, and by whom."""

    flow: Flow
    sent: Segment
    by_client: bool


class Conversation:
    """All flows of one mode."""

    def __init__(self, wires, mode, first):
        self.wires, self.mode = wires, mode
        protocols = [protocol for protocol, count in FLOWS.items() for _ in range(count)]
        self.flows = [Flow(first + i, mode, protocol) for i, protocol in enumerate(protocols)]

    def run(self):
        """Opens, uses and ends every flow; each packet is checked before many more are sent."""
        # What an earlier conversation left that has failed.
        self.wires.quiet()
        self._requests(SYN)
        self._replies(SYN | ACK)
        self._requests(ACK | PSH)
        self._requests(ACK | PSH)
        self._replies(ACK | PSH)
        self._requests(FIN | ACK)
        self._replies(FIN | ACK)
        strays = self.wires.quiet()
        assert not strays, f"frames that nothing was sent for: {strays}"

    def shares(self, protocol):
        """How many flows each server has, in the order of the servers."""
        counts = Counter(flow.server.mac for flow in self.flows if flow.protocol == protocol)
        return [counts[server.mac] for server in SERVERS]

    def _requests(self, flags):
        self._exchange([Expected(flow, flow.request(flags), True) for flow in self.flows])

    def _replies(self, flags):
        if self.mode.through:
            self._exchange([Expected(flow, flow.reply(flags), False) for flow in self.flows])

    def _exchange(self, packets):
        for at in range(0, len(packets), WINDOW):
            window = {key(packet.sent.payload): packet for packet in packets[at : at + WINDOW]}
            for packet in window.values():
                self._send(packet)
            for side, arrived in self.wires.receive(len(window)):
                packet = window.pop(marked(arrived), None)
                assert packet, f"on the {side}' wire, twice or out of nothing: {arrived.hex()}"
                check_request(packet, side, arrived) if packet.by_client else check_reply(
                    packet, side, arrived
                )
            assert not window, f"{len(window)} packets are lost, such as {next(iter(window.values()))}"

    def _send(self, packet):
        flow, data = packet.flow, packet.sent.packet()
        side, mac = ("clients", ROUTER_MAC) if packet.by_client else ("servers", flow.server.mac)
        self.wires.send(side, frame(MACS[side], mac, data))


def key(payload):
    """Number of a flow and of its step."""
    return payload[len(MARK) :][:8]


def marked(arrived):
    """What `key` says of the payload in a frame."""
    return key(arrived[arrived.find(MARK) :])


def check_request(packet, side, arrived):
    """Asserts that the packet reached its flow's server as that mode's packets do."""
    flow = packet.flow
    server = next((server for server in SERVERS if arrived.startswith(mac_bytes(server.mac))), None)
    assert side == "servers" and server, f"to no server, on the {side}' wire: {arrived.hex()}"
    assert server == (flow.server or server), f"the flow has left its server: {packet}"
    flow.server = server
    hop_on = packet.sent.changed(ttl=packet.sent.ttl - 1)
    data, flow.seen = flow.mode.arrives(hop_on, server, arrived)
    check_bytes(packet, arrived, frame(server.mac, MACS["servers"], data))


def check_reply(packet, side, arrived):
    """Asserts that the packet reached the client from the address that the client knows."""
    flow = packet.flow
    assert side == "clients", f"a reply on the {side}' wire: {arrived.hex()}"
    vip = {"src": flow.mode.vip, "sport": VIP_PORTS[flow.protocol], "dst": flow.client, "dport": flow.sport}
    translated = packet.sent.changed(**vip, ttl=packet.sent.ttl - 1)
    if packet.sent.src.version != flow.mode.version:
        translated = between_versions(translated, arrived[ETH_LEN:])
    check_bytes(packet, arrived, frame(ROUTER_MAC, MACS["clients"], translated.packet()))


def check_bytes(packet, arrived, wanted):
    """Asserts that a frame is the one wanted."""
    assert arrived == wanted, f"of {packet}\ncame   {arrived.hex()}\nwanted {wanted.hex()}"

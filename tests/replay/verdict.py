"""What may become of a frame, with what the appliance may choose by itself left open."""

import contextlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance import join
from drops import Drop
from frames import ETHERTYPE_IPV6, Ether
from packet import Datagram, Link

LOCAL_PORTS = range(1024, 65536)
# Protocol and type, of either IP version.
ECHO_REQUESTS = ((1, 8), (58, 128))


@dataclass
class Choice:
    """What the appliance chose for one frame, as read from it."""

    ident: int = 0
    df: bool = False
    label: int = 0
    tos: int = 0
    local: str = ""
    sport: int = 0

    @classmethod
    def of(cls, frame: bytes) -> "Choice":
        """Reads a frame that was sent, whatever may be wrong with it; what it does not have shows no choice."""
        choice = cls()
        with contextlib.suppress(Drop, IndexError, ValueError):
            packet = Link(frame).payload
            behind = choice._of_ipv4(packet) if packet[0] >> 4 == 4 else choice._of_ipv6(packet)
            datagram = Datagram(Link(frame).ethertype, packet)
            # What an echo request has in place of a port is its identifier.
            behind += 4 if (datagram.proto, packet[behind]) in ECHO_REQUESTS else 0
            choice.sport = int.from_bytes(packet[behind : behind + 2], "big")
            choice.local = join(choice.local, choice.sport)
        return choice

    def _of_ipv4(self, packet: bytes) -> int:
        self.tos, self.ident = packet[1], int.from_bytes(packet[4:6], "big")
        self.df, self.local = bool(packet[6] & 0x40), str(ipaddress.IPv4Address(packet[12:16]))
        return (packet[0] & 15) * 4

    def _of_ipv6(self, packet: bytes) -> int:
        word = int.from_bytes(packet[:4], "big")
        self.tos, self.label, self.local = word >> 20 & 0xFF, word & 0xFFFFF, str(ipaddress.IPv6Address(packet[8:24]))
        return len(Datagram(ETHERTYPE_IPV6, packet).header)


ANY_ADDRESS = "any"
DEFAULT = Choice()
# Choices that differ in every byte, from the first as from each other.
OTHERS = (
    Choice(ident=0xFFFF, df=True, label=0xFFFFF, tos=0xC0, local=ANY_ADDRESS, sport=0xFFFF),
    Choice(ident=0x5AA5, df=True, label=0x5AA5A, tos=0xC0, local=ANY_ADDRESS, sport=0xD5AA),
)


@dataclass(frozen=True)
class Sent:
    """The frame leaves by a port, as `build` makes it of the appliance's own choices.

    `learn` keeps what must not change later.
    """

    build: Callable[[Choice], bytes]
    learn: Callable[[Choice], None] = field(default=lambda choice: None, compare=False)
    port: int = 0
    # What the appliance makes itself may overtake what it forwards.
    kind: str = "forwarded"
    # Whether it must not overtake others of its kind.
    ordered: bool = True

    @property
    def frame(self) -> bytes:
        """The frame, with the first choices that come to mind."""
        return self.build(DEFAULT)

    def as_sent(self, actual: bytes) -> bytes:
        """The expected frame, with `actual`'s choices where they are free."""
        return self.build(Choice.of(actual))

    def learn_of(self, actual: bytes) -> None:
        """Keeps the choices that `actual` shows."""
        self.learn(Choice.of(actual))


@dataclass(frozen=True)
class Dropped:
    """The frame is dropped and counted under `reason`."""

    reason: str


@dataclass(frozen=True)
class Punted:
    """The frame is handed to the control thread."""


@dataclass
class Held:
    """A fragment that waits for the first one of its datagram; then `verdict` says what became of it."""

    verdict: Sent | Dropped | None = None


Verdict = Sent | Dropped | Punted | Held


def settled(verdict: Verdict) -> Verdict:
    """What became of a fragment that waited; else the verdict itself."""
    return verdict.verdict or verdict if isinstance(verdict, Held) else verdict


def summary(frame: bytes) -> str:
    """One line about a frame."""
    return Ether(frame).summary()

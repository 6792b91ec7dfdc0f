"""Fragments as the appliance has to treat them: RFC 791, 1858, 3128, 5722, 6946, 7112 and 8200."""

from collections.abc import Callable
from dataclasses import replace

import drops
from drops import Drop
from frames import PROTO_TCP
from packet import Datagram
from verdict import Dropped, Held, Sent


class Gathered:
    """What came of one datagram so far."""

    def __init__(self):
        self.way: Callable[[Datagram], Sent] | None = None
        self.waiting: list[tuple[Datagram, Held]] = []
        self.ranges: list[tuple[int, int]] = []
        self.length: int | None = None
        self.dead: str | None = None


class Fragments:
    """All datagrams of which pieces came, by what names them."""

    def __init__(self):
        self.gathered: dict[tuple, Gathered] = {}

    def take(self, packet: Datagram, way_of: Callable[[Datagram], Callable[[Datagram], Sent]]) -> Sent | Held:
        """What becomes of a fragment; `way_of` a first one is what happens to each of its datagram."""
        check(packet)
        gathered = self.gathered.setdefault(name(packet), Gathered())
        self._place(gathered, packet)
        if packet.piece.offset == 0:
            way = way_of(packet)
            # Pieces that waited are sent together with the first one, in whatever order.
            return self._begin(gathered, packet, lambda piece: replace(way(piece), ordered=False))
        if gathered.way:
            return gathered.way(packet)
        held = Held()
        gathered.waiting.append((packet, held))
        return held

    def _begin(self, gathered: Gathered, packet: Datagram, way: Callable[[Datagram], Sent]) -> Sent:
        gathered.way = way
        for piece, held in gathered.waiting:
            try:
                held.verdict = way(piece)
            except Drop as drop:
                held.verdict = Dropped(drop.args[0])
        gathered.waiting.clear()
        return way(packet)

    def _place(self, gathered: Gathered, packet: Datagram) -> None:
        """Drops a piece that is where another one was; in IPv6 all the others with it (RFC 5722)."""
        if gathered.dead:
            raise Drop(gathered.dead)
        begin = packet.piece.offset
        end = begin + packet.piece.length
        beyond = gathered.length is not None and end > gathered.length
        if beyond or any(begin < other_end and end > other for other, other_end in gathered.ranges):
            if packet.version == 6:
                gathered.dead = drops.FRAGMENT_OVERLAP
                for _, held in gathered.waiting:
                    held.verdict = Dropped(drops.FRAGMENT_OVERLAP)
                gathered.waiting.clear()
            raise Drop(drops.FRAGMENT_OVERLAP)
        gathered.ranges.append((begin, end))
        if not packet.piece.more:
            gathered.length = end


def name(packet: Datagram) -> tuple:
    """What the pieces of one datagram have in common."""
    protocol = packet.proto if packet.version == 4 else None
    return packet.version, *packet.ends, protocol, packet.piece.ident


def check(packet: Datagram) -> None:
    """Drops what is no piece of any datagram."""
    piece = packet.piece
    # RFC 791, 3.2 and RFC 8200, 4.5: all pieces but the last are multiples of 8 bytes.
    if piece.more and (piece.length % 8 or not piece.length):
        raise Drop(drops.BAD_FRAGMENT)
    if piece.offset + piece.length > packet.largest:
        raise Drop(drops.BAD_FRAGMENT)
    # RFC 1858 and 3128: such a piece could only carry what a filter wants to see of the TCP header.
    if packet.proto == PROTO_TCP and piece.offset == 8:
        raise Drop(drops.FRAGMENT_TINY)

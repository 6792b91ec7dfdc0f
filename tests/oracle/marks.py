"""Marks between frames, by which one knows what came of which.

Both balancers do one thing after another, so what leaves before the mark that was sent behind a frame came of
that frame. A mark is a datagram to a service of its own, which both hand on as it is.
"""

import functools
import struct

from packets import UDP, Raw, framed, ip_header
from services import OWN, SERVERS, endpoint

VIP, PORT, SERVER = OWN[4] - 55, 9, SERVERS[2][4]
WORD = b"a mark between frames"
TOML = f"""
[[service]]
vip = "{endpoint(VIP, PORT)}"
protocol = "udp"
mode = "dr"
[[service.backend]]
address = "{endpoint(SERVER, PORT)}"
"""
IPVSADM = [f"ipvsadm -A -u {VIP}:{PORT} -s rr", f"ipvsadm -a -u {VIP}:{PORT} -r {SERVER}:{PORT} -g"]


@functools.cache
def mark(number):
    """The mark behind a frame."""
    return framed(
        ip_header(SERVERS[2][4], VIP) / UDP(sport=PORT, dport=PORT) / Raw(WORD + struct.pack(">I", number))
    )


def number_of(frame):
    """Which mark a frame is; `None` for any other."""
    at = frame.find(WORD)
    return None if at < 0 else struct.unpack_from(">I", frame, at + len(WORD))[0]


def between(frames, count):
    """What came before the first mark, between it and the second, and so on."""
    groups = [[]]
    for frame in frames:
        if number_of(frame) is None:
            groups[-1].append(frame)
        else:
            assert number_of(frame) == len(groups) - 1, "a mark is lost"
            groups.append([])
    assert len(groups) == count + 1 and not groups[-1], f"{len(groups) - 1} of {count} marks came back"
    return groups[:-1]

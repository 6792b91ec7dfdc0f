"""The wires between a test and the guest's NICs: a tap device for each, in a network namespace of their own.

A NIC with several queues needs a tap with as many, and taps need root; the namespace is gone with the last
socket in it, and with it the taps.
"""

import contextlib
import ctypes
import os
import select
import socket
import subprocess
import time
from ipaddress import IPv4Address

from plan import SIDES, STATIONS
from segment import ETH_LEN, mac_bytes

CLONE_NEWNET = 0x40000000
ETH_P_ALL, ARP_TYPE, IPV6_TYPE = 0x0003, b"\x08\x06", b"\x86\xdd"
ICMPV6, DISCOVERY = 58, range(133, 138)
PATIENCE_SECS, QUIET_SECS = 30, 0.2


@contextlib.contextmanager
def own_network():
    """Gives this process, and what it starts, an empty network namespace for as long as the block lasts."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as before:
        check(libc.unshare(CLONE_NEWNET))
        try:
            yield
        finally:
            check(libc.setns(before.fileno(), CLONE_NEWNET))


def check(answer):
    """Raises what a call of libc reports."""
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Wires:
    """Both taps, with the far ends in the hands of the test; answers ARP for the stations it plays."""

    def __init__(self, queues):
        self.queues = queues
        self.sockets = {}
        self.reset()

    def __enter__(self):
        for side in SIDES:
            several = ["multi_queue"] if self.queues > 1 else []
            run("ip", "tuntap", "add", "dev", side, "mode", "tap", *several)
            # The kernel's own talk is not part of the test.
            run("sysctl", "-qw", f"net.ipv6.conf.{side}.disable_ipv6=1")
            run("ip", "link", "set", side, "arp", "off", "up")
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            wire.bind((side, ETH_P_ALL))
            self.sockets[side] = wire
        return self

    def __exit__(self, *_):
        for side, wire in self.sockets.items():
            wire.close()
            run("ip", "link", "del", side)

    def reset(self):
        """Counts the frames put on each wire anew."""
        self.sent = dict.fromkeys(SIDES, 0)

    def send(self, side, frame):
        """Puts a frame on a wire."""
        self.sockets[side].send(frame)
        self.sent[side] += 1

    def receive(self, count):
        """The next `count` frames, but for ARP and neighbour discovery, as pairs of side and frame; fewer if none comes for long."""
        return list(self._frames(count, PATIENCE_SECS))

    def quiet(self):
        """Frames that come although none is waited for."""
        return list(self._frames(None, QUIET_SECS))

    def answer_arp_until(self, condition):
        """Lets the appliance get to know its neighbours."""
        end = time.monotonic() + PATIENCE_SECS
        while not condition():
            assert time.monotonic() < end, "the appliance does not get to know its neighbours"
            strays = self.quiet()
            assert not strays, strays

    def _frames(self, count, patience):
        sides = {wire: side for side, wire in self.sockets.items()}
        got = 0
        while got != count:
            ready, _, _ = select.select(list(sides), [], [], patience)
            if not ready:
                return
            for wire in ready:
                frame, address = wire.recvfrom(65536)
                if address[2] == socket.PACKET_OUTGOING:
                    continue
                if frame[12:14] == ARP_TYPE:
                    self._arp(sides[wire], frame)
                    continue
                # The appliance says whose its IPv6 addresses are; its neighbours' are in its configuration.
                if frame[12:14] == IPV6_TYPE and frame[20] == ICMPV6 and frame[54] in DISCOVERY:
                    continue
                got += 1
                yield sides[wire], frame

    def _arp(self, side, frame):
        """Answers a question for a station that the test plays (RFC 826)."""
        operation, asker, wanted = frame[20:22], frame[22:32], frame[38:42]
        mac = STATIONS[side].get(IPv4Address(wanted))
        if operation != b"\0\1" or mac is None:
            return
        mac = mac_bytes(mac)
        header = frame[ETH_LEN:20] + b"\0\2"
        self.send(side, asker[:6] + mac + ARP_TYPE + header + mac + wanted + asker)


def run(*argv):
    """Runs a command that must succeed."""
    subprocess.run(argv, check=True, capture_output=True)

#!/usr/bin/python3
"""Datagrams as fast as this machine makes them, until it is ended.

    flood.py VIP PORT SOURCE FLOWS BYTES    so many flows in turn, from ports of this address and the next ones

Each is a packet of so many bytes. Nobody is to answer, for instance since nobody has the addresses.
"""

import itertools
import socket
import struct
import sys

PORTS = 50_000


def datagram(number, vip, port, source, length):
    """The packet of one flow; its checksums are left to the kernel (IPv4) or out (UDP)."""
    source, source_port = source + number // PORTS, 1024 + number % PORTS
    udp = struct.pack("!HHHH", source_port, port, length - 20, 0)
    header = struct.pack("!BBHHHBBHI4s", 0x45, 0, length, 0, 0, 64, 17, 0, source, socket.inet_aton(vip))
    return header + udp + bytes(length - 28)


def main():
    vip, port, source, flows, length = sys.argv[1:]
    first = int.from_bytes(socket.inet_aton(source), "big")
    packets = [datagram(number, vip, int(port), first, int(length)) for number in range(int(flows))]
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for packet in itertools.cycle(packets):
        try:
            sender.sendto(packet, (vip, 0))
        except OSError:
            # The device's queue is full.
            pass


if __name__ == "__main__":
    main()

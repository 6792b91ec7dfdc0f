"""A server that wants to know its clients: `introduced.py PORT`, for TCP and UDP, over both IP versions.

A client of TCP has to be introduced by a header of the PROXY protocol, version 1 or 2. It is greeted by who it is
before it has said anything, and then hears all that it says again. A datagram is answered by who sent it, if it has
a header, and its payload.
"""

import ipaddress
import select
import socket
import struct
import sys
import threading

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_LEN = 16


def main(port):
    """Serves until the process is ended."""
    connections = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", port))
    while True:
        for ready in select.select([connections, datagrams], [], [])[0]:
            if ready is connections:
                threading.Thread(target=converse, args=(connections.accept()[0],), daemon=True).start()
            else:
                answer(datagrams)


def converse(connection):
    """Greets a client and says again what it says."""
    with connection:
        connection.sendall(f"220 {introduction(connection)}\n".encode())
        while said := connection.recv(65536):
            connection.sendall(said)


def introduction(connection):
    """Reads the header at the beginning of a connection, and not a byte more."""
    begin = read(connection, len(SIGNATURE))
    if begin == SIGNATURE:
        fixed = begin + read(connection, FIXED_LEN - len(begin))
        return binary(fixed, read(connection, length(fixed)), socket.SOCK_STREAM)
    while not begin.endswith(b"\r\n"):
        begin += read(connection, 1)
    word, family, src, dst, sport, dport = begin.decode("ascii").split()
    assert word == "PROXY" and family == f"TCP{ipaddress.ip_address(src).version}"
    return f"{src} {sport} {dst} {dport}"


def read(connection, count):
    """Just so many bytes."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        assert more, "the connection ended in its header"
        data += more
    return data


def length(fixed):
    """Bytes of addresses behind the fixed part of a version 2 header."""
    return struct.unpack("!H", fixed[14:])[0]


def binary(fixed, rest, kind):
    """Who is at both ends by a version 2 header, as `SRC SPORT DST DPORT`."""
    assert fixed[12] == 0x21, "version 2, command PROXY"
    assert fixed[13] & 0xF == {socket.SOCK_STREAM: 1, socket.SOCK_DGRAM: 2}[kind]
    size = {0x10: 4, 0x20: 16}[fixed[13] & 0xF0]
    assert len(rest) == 2 * size + 4
    src, dst = (ipaddress.ip_address(rest[at : at + size]) for at in (0, size))
    sport, dport = struct.unpack("!HH", rest[2 * size :])
    return f"{src} {sport} {dst} {dport}"


def answer(datagrams):
    """Answers the next datagram."""
    data, sender = datagrams.recvfrom(65536)
    who = "-"
    if data.startswith(SIGNATURE):
        end = FIXED_LEN + length(data[:FIXED_LEN])
        who = binary(data[:FIXED_LEN], data[FIXED_LEN:end], socket.SOCK_DGRAM)
        data = data[end:]
    datagrams.sendto(f"{who}\n".encode() + data, sender)


if __name__ == "__main__":
    main(int(sys.argv[1]))

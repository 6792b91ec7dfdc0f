"""Connections that a test opens itself, one by one, from any address of a namespace."""

import contextlib
import ctypes
import http.client
import os
import socket
import struct

from lab.addresses import split

CLONE_NEWNET = 0x4000_0000
LIBC = ctypes.CDLL(None, use_errno=True)
# A SYN is repeated after a second: what is not answered before is not answered.
TIMEOUT_SECS = 0.9


@contextlib.contextmanager
def inside(space):
    """Sockets that this thread makes in the block are in a namespace, and stay there."""
    with open("/proc/thread-self/ns/net", "rb") as here, open(f"/run/netns/{space.name}", "rb") as there:
        enter(there)
        try:
            yield
        finally:
            enter(here)


def enter(space):
    """Moves this thread to a network namespace that is open as a file."""
    if LIBC.setns(space.fileno(), CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def connect(space, vip, source=None):
    """A connection for requests; OSError if there is none."""
    host, port = split(vip)
    # Any address of its own is chosen by the kernel.
    source_address = (source, 0) if source else None
    connection = http.client.HTTPConnection(host, int(port), TIMEOUT_SECS, source_address)
    with inside(space):
        connection.connect()
    # A connection that was cut is not to be opened anew, and unseen.
    connection.auto_open = 0
    return connection


def ask(connection):
    """Name of the server that answers a request."""
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.getheader("X-Server")


def get(space, vip, source=None):
    """Name of the server that answers a request over a connection of its own."""
    with contextlib.closing(connect(space, vip, source)) as connection:
        return ask(connection)


def outcome(space, vip, source=None):
    """The same, or the name of the error that the client sees."""
    try:
        return get(space, vip, source)
    except OSError as error:
        return type(error).__name__


def cut(connection):
    """Ends a connection by a reset, which leaves nothing of it."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

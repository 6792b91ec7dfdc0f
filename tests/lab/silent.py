"""Connections on which both ends wait for each other, until something ends them.

    silent.py serve PORT ...             takes connections to these ports
    silent.py connect COUNT HOST PORT    opens so many; every second one says something first

Both print a line of JSON when a connection has begun, and one when it has ended: its `port`, its `number` among
all of it, and `end`: null, or why.
"""

import itertools
import json
import socket
import sys
import threading

PRINTING = threading.Lock()


def main():
    kind, *words = sys.argv[1:]
    if kind == "serve":
        threads = [threading.Thread(target=serve, args=(int(port),)) for port in words]
    else:
        count, host, port = words
        threads = [threading.Thread(target=connect, args=(host, int(port), n)) for n in range(int(count))]
    for thread in threads:
        thread.start()


def serve(port):
    """Takes connections to a port until the process is ended."""
    listening = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    for number in itertools.count():
        connection, _ = listening.accept()
        threading.Thread(target=wait, args=(connection, port, number), daemon=True).start()


def connect(host, port, number):
    """Opens a connection and waits."""
    connection = socket.create_connection((host, port), timeout=10)
    connection.settimeout(None)
    if number % 2:
        connection.sendall(b"hello")
    wait(connection, port, number)


def wait(connection, port, number):
    """Waits for the end of a connection, however it comes."""
    tell(port, number, None)
    try:
        while connection.recv(4096):
            pass
        end = "closed"
    except OSError as error:
        end = type(error).__name__
    tell(port, number, end)


def tell(port, number, end):
    """Prints one line, whole."""
    with PRINTING:
        print(json.dumps({"port": port, "number": number, "end": end}), flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""A client that keeps a record: one line of JSON for each request, until it is ended.

    client.py fresh HOST PORT     each request over a connection of its own
    client.py held HOST PORT N    N connections, opened once, take turns and stay open

A line holds `began` and `ended` (seconds of the system's monotonic clock), `connection` (its number),
`server` (who answered) and `error` (why no one did); one of the last two is null.
"""

import http.client
import json
import sys
import time

PAUSE_SECS = 0.01
TIMEOUT_SECS = 3


class Connection:
    """One numbered connection to one address."""

    def __init__(self, number, host, port):
        self.number = number
        self.http = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECS)
        # `http.client` would reopen a connection that was cut, and hide just what is looked for here.
        self.http.auto_open = 0
        self.opened = False

    def request(self):
        """Sends one request and records it."""
        began, server, error = time.monotonic(), None, None
        try:
            if not self.opened:
                self.opened = True
                self.http.connect()
            self.http.request("GET", "/")
            response = self.http.getresponse()
            response.read()
            if response.status != 200:
                error = f"status {response.status}"
            else:
                server = response.getheader("X-Server")
        except (OSError, http.client.HTTPException) as failure:
            error = repr(failure)
        record = {"began": began, "ended": time.monotonic(), "connection": self.number}
        print(json.dumps(record | {"server": server, "error": error}), flush=True)

    def close(self):
        """Closes it."""
        self.http.close()


def fresh(host, port):
    """A connection for each request."""
    number = 0
    while True:
        connection = Connection(number, host, port)
        connection.request()
        connection.close()
        number += 1
        yield


def held(host, port, count):
    """`count` connections in turn."""
    connections = [Connection(number, host, port) for number in range(count)]
    while True:
        for connection in connections:
            connection.request()
            yield


def main():
    kind, host, port, *count = sys.argv[1:]
    for _ in fresh(host, int(port)) if kind == "fresh" else held(host, int(port), int(count[0])):
        time.sleep(PAUSE_SECS)


if __name__ == "__main__":
    main()

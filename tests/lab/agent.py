"""Agents of servers, by the protocol of HAProxy's agent-check: each connection is told one line."""

import contextlib
import socket
import threading

from lab import dial

PORT = 9999


class Agent:
    """An agent in one namespace, whose `word` a test changes; `with` starts and ends it."""

    def __init__(self, space, word):
        self.word = word
        # How often it was.
        self.asked = 0
        with dial.inside(space):
            self.listener = socket.create_server(("0.0.0.0", PORT))
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        # That wakes whoever waits in `accept`.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    @contextlib.contextmanager
    def silent(self):
        """It says nothing during the block."""
        word, self.word = self.word, ""
        yield
        self.word = word

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall(f"{self.word}\n".encode() if self.word else b"")
                self.asked += 1

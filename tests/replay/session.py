"""The real trutinad between capture files that are pipes, so that a test can answer what it sees.

DPDK's net_pcap waits for a pipe until a whole burst is there. Every burst is therefore filled up by frames to
another Ethernet address, which are dropped, and a round of frames ends with pings, whose answers tell that all
before them is done.
"""

import contextlib
import fcntl
import itertools
import os
import re
import signal
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance import PORT_MACS, Appliance, received, transmitted, version
from drops import ICMP_RATE, NOT_OUR_MAC, Drop
from frames import ETHERTYPE_ARP, icmp, icmpv6
from icmp import ECHO, NEIGHBOUR_DISCOVERY, PROTO
from packet import Datagram, Link

ROOT = Path(__file__).resolve().parents[2]
BURST = 32
START_SECS, WRITE_SECS, STOP_SECS, ANNOUNCE_SECS = 20, 20, 20, 3
PATIENCE_SECS, ATTEMPTS = 1, 8
TURNS = 300
PLACES = ("received", "injected", "taken_over", "made", "sent", "punted", "handed_over", "dropped")
FILLER = bytes.fromhex("02005e0053fe") + bytes(54)
FILLER_REASON = NOT_OUR_MAC
PING_IDENT = 0xF00D
# How often a frame may be handed over: by who receives it, and by who puts pieces together.
HAND_OVERS = 2
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
RECORD = struct.Struct("<IIII")
PIPE_LEN = 1 << 20


def trutinad() -> Path:
    """The binary under test: `$TRUTINAD`, else the release build, else the debug build."""
    named = os.environ.get("TRUTINAD")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    paths = [Path(named)] if named else [target / kind / "trutinad" for kind in ("release", "debug")]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no trutinad at {' or '.join(map(str, paths))}; build it by `cargo build --release` or set TRUTINAD"
    )


@dataclass(frozen=True)
class Outcome:
    """What one run did: IP frames with the ports they left by, what neighbours were told, and the counters."""

    frames: list[tuple[int, bytes]]
    arps: list[bytes]
    discoveries: list[bytes]
    counters: dict[str, int]
    drops: Counter

    @property
    def sent(self) -> list[bytes]:
        """The IP frames."""
        return [frame for _, frame in self.frames]


@dataclass
class Session:
    """One run of trutinad; `with` starts and ends it."""

    appliance: Appliance
    directory: Path
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    arps: list[bytes] = field(default_factory=list)
    discoveries: list[bytes] = field(default_factory=list)
    asked: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    fillers: int = 0

    def __post_init__(self):
        self.queues = [(port, worker) for port in self.appliance.ports for worker in range(self.appliance.workers)]
        self.pipes: dict[tuple[int, int], int] = {}
        self.offsets = dict.fromkeys(self.queues, len(FILE_HEADER))
        self.serial = itertools.count(1)
        self.process = None
        self.log = self.directory / "trutinad.log"

    def __enter__(self) -> "Session":
        for queue in self.queues:
            os.mkfifo(received(self.directory, *queue))
        config = self.directory / "trutina.toml"
        config.write_text(self.appliance.toml(self.directory))
        # RUNTIME_DIRECTORY is where EAL keeps its files; the default outlives the run.
        env = {**os.environ, "TRUTINA_LOG": "info", "RUNTIME_DIRECTORY": str(self.directory)}
        with self.log.open("wb") as log:
            command = [trutinad(), "--config", config]
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            for queue in self.queues:
                self.pipes[queue] = self._opened(received(self.directory, *queue))
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *failed):
        self._kill()

    def _kill(self):
        self._close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _close(self):
        for pipe in self.pipes.values():
            os.close(pipe)
        self.pipes.clear()

    def _opened(self, path: Path) -> int:
        """The pipe's writing end, once trutinad reads it."""

        opened = []

        def ready() -> bool:
            assert self.process.poll() is None, f"trutinad ended with {self.process.returncode}:\n{self._said()}"
            # Fails while nobody reads.
            with contextlib.suppress(OSError):
                opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            return bool(opened)

        wait_until(ready, START_SECS)
        [pipe] = opened
        os.set_blocking(pipe, True)
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_LEN)
        os.write(pipe, FILE_HEADER)
        return pipe

    def _said(self) -> str:
        return self.log.read_text(errors="replace")

    def play(self, frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Feeds frames, each with its port, to the workers in turn; returns what was sent because of them."""
        by_queue = {queue: [] for queue in self.queues}
        for number, (port, frame) in enumerate(frames):
            by_queue[port, number % self.appliance.workers].append(frame)
        # All queues get as many bursts: a worker that waits for one queue can not look at the next.
        bursts = max(-(-len(fed) // BURST) for fed in by_queue.values())
        before = len(self.frames)
        self._feed({queue: filled(fed, bursts * BURST) for queue, fed in by_queue.items()})
        self._wait_for_all()
        for _ in range(HAND_OVERS if self.appliance.workers > 1 else 0):
            # What is handed over by all comes to one worker at worst, which takes a burst of it in a turn.
            self._feed({queue: filled([], bursts * len(self.queues) * BURST) for queue in self.queues})
            self._wait_for_all()
        return self.frames[before:]

    def _wait_for_all(self) -> None:
        """Waits until every worker has done all that it was given."""
        # A ping beyond the limit of answers is not answered, but the next one is.
        for _ in range(ATTEMPTS):
            if self._is_done():
                return
            self.keep_house()
        raise AssertionError(f"trutinad does not answer pings\n{self._said()}")

    def keep_house(self) -> None:
        """Lets as many turns pass as workers take from one look at the clock to the next."""
        self._feed({queue: filled([], TURNS * BURST) for queue in self.queues})

    def _is_done(self) -> bool:
        """Whether a ping behind all frames is answered, and so all is sent that will be."""
        pings = {queue: next(self.serial) for queue in self.queues}
        self.asked.update(pings.values())
        self._feed({queue: filled([self._ping(queue[0], number)], BURST) for queue, number in pings.items()})
        with contextlib.suppress(TimeoutError):
            return wait_until(lambda: self._read() and self.answered.issuperset(pings.values()), PATIENCE_SECS)
        return False

    def _feed(self, frames: dict[tuple[int, int], list[bytes]]) -> None:
        """Writes to all pipes at once, for a worker reads them in turn."""
        writers = [threading.Thread(target=self._write, args=item) for item in frames.items()]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(WRITE_SECS)
            assert not writer.is_alive(), f"trutinad does not read its devices\n{self._said()}"

    def _write(self, queue: tuple[int, int], fed: list[bytes]) -> None:
        self.fillers += sum(frame is FILLER for frame in fed)
        data = b"".join(RECORD.pack(0, 0, len(frame), len(frame)) + frame for frame in fed)
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.pipes[queue], data) :]

    def _ping(self, port: int, number: int) -> bytes:
        """A ping by a neighbour of a port's first interface."""
        interface = next(i for i in self.appliance.interfaces if i.port == port and i.addresses)
        src = next(ip for ip in self.appliance.neighbours if self.appliance.connected(ip) == interface)
        eth, where = {"dst": PORT_MACS[port]}, {"tags": interface.tags}
        ident = PING_IDENT.to_bytes(2, "big") + number.to_bytes(2, "big")
        if version(src) == 4:
            return icmp(src, interface.own(4), 8, id=PING_IDENT, seq=number, eth=eth, **where)
        return icmpv6(src, interface.own(6), 128, rest=ident, eth=eth, **where)

    def _read(self) -> bool:
        """Takes in what was written to the captures since the last time."""
        for port, worker in self.queues:
            # It is made a little after the pipes are opened.
            with contextlib.suppress(FileNotFoundError), open(transmitted(self.directory, port, worker), "rb") as file:
                file.seek(self.offsets[port, worker])
                self._split(port, worker, file.read())
        return True

    def _split(self, port: int, worker: int, data: bytes) -> None:
        at = 0
        while at + RECORD.size <= len(data):
            length = RECORD.unpack_from(data, at)[2]
            if at + RECORD.size + length > len(data):
                break
            at += RECORD.size + length
            self._take(port, data[at - length : at])
        self.offsets[port, worker] += at

    def _take(self, port: int, frame: bytes) -> None:
        link = Link(frame)
        if link.ethertype == ETHERTYPE_ARP:
            self.arps.append(frame)
            return
        number, discovery = icmp_of(link)
        if number is not None:
            self.answered.add(number)
        elif discovery:
            self.discoveries.append(frame)
        else:
            self.frames.append((port, frame))

    def stop(self) -> Outcome:
        """Ends trutinad once it has told its neighbours who it is, and says what it counted."""
        self._close()
        told = len(self.appliance.announced())
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: self._read() and len(self.arps) + len(self.discoveries) >= told, ANNOUNCE_SECS)
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECS)
        assert code == 0, f"trutinad ended with {code}:\n{self._said()}"
        self._read()
        return self._outcome(*read_counters(self._said(), self.appliance.workers))

    def _outcome(self, counters: dict[str, int], drops: Counter) -> Outcome:
        """What is left of the counters without fillers and pings."""
        unanswered = len(self.asked - self.answered)
        drops = drops - Counter({FILLER_REASON: self.fillers, ICMP_RATE: unanswered})
        counters["received"] -= self.fillers + len(self.asked)
        counters["sent"] -= len(self.answered)
        counters["dropped"] -= self.fillers + unanswered
        return Outcome(self.frames, self.arps, self.discoveries, counters, drops)


def filled(frames: list[bytes], length: int) -> list[bytes]:
    """The frames, and as many fillers as make it `length`."""
    return frames + [FILLER] * (length - len(frames))


def icmp_of(link: Link) -> tuple[int | None, bool]:
    """The number of an answered ping, and whether it is neighbour discovery instead."""
    with contextlib.suppress(Drop, IndexError):
        packet = Datagram(link.ethertype, link.payload)
        if packet.proto == PROTO[packet.version] and packet.first:
            kind, ident = packet.payload[0], int.from_bytes(packet.payload[4:6], "big")
            if kind == ECHO[packet.version][1] and ident == PING_IDENT:
                return int.from_bytes(packet.payload[6:8], "big"), False
            return None, packet.version == 6 and kind in NEIGHBOUR_DISCOVERY
    return None, False


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until `condition()` is true, or raises `TimeoutError`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)
    return True


def read_counters(log: str, workers: int = 1) -> tuple[dict[str, int], Counter]:
    """The sums of all lines `worker 0: received=9 ... dropped=1 fragment=1`: counters, and drops by name."""
    lines = re.findall(r"worker \d+: (received=.*)", log)
    assert len(lines) == workers, f"{workers} lines of counters wanted, {len(lines)} found in:\n{log}"
    numbers = Counter()
    for line in lines:
        numbers.update({name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)})
    return {name: numbers.pop(name, 0) for name in PLACES}, Counter(numbers)

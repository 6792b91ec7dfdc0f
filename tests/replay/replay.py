"""Runs the real trutinad over a capture and compares what it sends with what the oracle says."""

import difflib
import os
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scapy.utils import RawPcapReader, RawPcapWriter

from appliance import PORT_IP, PORT_MAC, Appliance
from frames import ARP, ICMP, IP, Ether
from icmp import ECHO_REPLY
from oracle import Dropped, Oracle, Punted, Sent

ROOT = Path(__file__).resolve().parents[2]
ETHERNET_LINK = 1
IDLE_MS = 300
TIME_LIMIT_SECS = 60
PROTO_ICMP = 1
# Frames that a worker takes at once; what it learns from one of them may come too late for the others.
BURST = 32
ARP_TYPE = b"\x08\x06"
PLACES = ("received", "injected", "taken_over", "sent", "punted", "handed_over", "dropped")


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


class Scenario:
    """Frames in the order of their arrival, each with what the oracle says becomes of it."""

    def __init__(self, appliance: Appliance):
        self.appliance = appliance
        self.oracle = Oracle(appliance)
        self.frames: list[bytes] = []
        self.verdicts: list[Sent | Dropped | Punted] = []

    def feed(self, *frames: bytes) -> "Scenario":
        """Appends frames; the oracle has seen them when this returns."""
        for frame in frames:
            self.frames.append(frame)
            self.verdicts.append(self.oracle.predict(frame))
        return self

    def backend(self, client: str, vip: str, protocol: str = "tcp") -> str:
        """Address of the server that has the client's flow."""
        return self.oracle.backend(client, vip, protocol)

    def expected(self) -> list[tuple[bytes, Sent]]:
        """Frames that must be sent, with the frames they come from."""
        pairs = zip(self.frames, self.verdicts, strict=True)
        return [(frame, verdict) for frame, verdict in pairs if isinstance(verdict, Sent)]

    def drops(self) -> Counter:
        """Frames that must be dropped, by reason."""
        return Counter(v.reason for v in self.verdicts if isinstance(v, Dropped))

    def punts(self) -> int:
        """Frames that must reach the control thread."""
        return sum(isinstance(v, Punted) for v in self.verdicts)


@dataclass(frozen=True)
class Outcome:
    """What one run did: IPv4 frames, ARP frames, the worker's counters and its named drops."""

    sent: list[bytes]
    arps: list[bytes]
    counters: dict[str, int]
    drops: Counter


def run(scenario: Scenario, directory: Path) -> Outcome:
    """Replays the scenario through trutinad, with all of its files in `directory`."""
    writer = RawPcapWriter(str(directory / "in.pcap"), linktype=ETHERNET_LINK)
    writer.write_header(None)
    for frame in scenario.frames:
        writer.write_packet(frame)
    writer.close()
    config = directory / "trutina.toml"
    config.write_text(scenario.appliance.toml(directory))
    # RUNTIME_DIRECTORY is where EAL keeps its files; the default outlives the run.
    env = {**os.environ, "TRUTINA_LOG": "info", "RUNTIME_DIRECTORY": str(directory)}
    command = [trutinad(), "--config", config, "--exit-when-idle", str(IDLE_MS)]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT_SECS
    )
    assert done.returncode == 0, f"trutinad ended with {done.returncode}:\n{done.stderr}"
    frames = [bytes(data) for data, _ in RawPcapReader(str(directory / "out.pcap"))]
    counters, drops = read_counters(done.stderr)
    return Outcome(
        sent=[frame for frame in frames if frame[12:14] != ARP_TYPE],
        arps=[frame for frame in frames if frame[12:14] == ARP_TYPE],
        counters=counters,
        drops=drops,
    )


def read_counters(log: str) -> tuple[dict[str, int], Counter]:
    """Counters and named drops of the line `worker 0: received=9 ... dropped=1 fragment=1`."""
    lines = re.findall(r"worker 0: (received=.*)", log)
    assert len(lines) == 1, f"one line of counters wanted, {len(lines)} found in:\n{log}"
    numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", lines[0])}
    return {name: numbers.pop(name) for name in PLACES}, Counter(numbers)


def check(scenario: Scenario, outcome: Outcome, exact_reasons: bool = True) -> None:
    """Asserts that frames, announcements and counters are what they have to be.

    Without `exact_reasons` only the number of drops counts: for frames with more than one fault.
    """
    check_frames(scenario, outcome.sent)
    check_announcements(scenario.appliance, outcome.arps)
    check_counters(scenario, outcome)
    if exact_reasons:
        assert outcome.drops == scenario.drops()


def check_frames(scenario: Scenario, sent: list[bytes]) -> None:
    """Asserts that exactly the expected frames were sent, byte by byte and in order.

    Segments, errors that are passed on and each kind of answer may overtake one another.
    """
    kinds = {what_is(verdict.frame) for _, verdict in scenario.expected()} | set(map(what_is, sent))
    for kind in sorted(kinds):
        expected = [pair for pair in scenario.expected() if what_is(pair[1].frame) == kind]
        check_sequence(expected, [frame for frame in sent if what_is(frame) == kind])


def what_is(frame: bytes) -> str:
    """What an IPv4 frame sent is: a segment or ICMP error of somebody else, or an answer of the appliance."""
    packet = Ether(frame)
    if ICMP not in packet:
        return "segment"
    if packet[ICMP].type == ECHO_REPLY:
        return "echo reply"
    made_here = packet[IP].src == PORT_IP and packet[IP].proto == PROTO_ICMP
    return f"error {packet[ICMP].type}" if made_here else "passed on"


def is_answer(frame: bytes) -> bool:
    """Whether the appliance made the frame."""
    return what_is(frame) not in ("segment", "passed on")


def check_sequence(expected: list[tuple[bytes, Sent]], sent: list[bytes]) -> None:
    """Asserts that the frames sent are those expected."""
    for number, ((source, verdict), actual) in enumerate(zip(expected, sent, strict=False)):
        wanted = verdict.as_sent(actual)
        assert actual == wanted, f"frame {number} is wrong\n{difference(source, wanted, actual)}"
    missing = [Ether(verdict.frame).summary() for _, verdict in expected[len(sent) :]]
    surplus = [Ether(frame).summary() for frame in sent[len(expected) :]]
    assert not missing, f"not sent: {missing}"
    assert not surplus, f"sent without a reason: {surplus}"


def difference(source: bytes, wanted: bytes, actual: bytes) -> str:
    """A field by field account of two frames."""

    def fields(frame: bytes) -> list[str]:
        return Ether(frame).show(dump=True).splitlines()

    lines = difflib.unified_diff(fields(wanted), fields(actual), "wanted", "sent", lineterm="", n=1)
    hexes = f"received {source.hex()}\nwanted   {wanted.hex()}\nsent     {actual.hex()}"
    return hexes + "\n" + "\n".join(lines)


def check_announcements(appliance: Appliance, arps: list[bytes]) -> None:
    """Asserts one ARP announcement (RFC 5227, 2.3) for each own address and VIP."""
    announced = []
    for frame in arps:
        ethernet = Ether(frame)
        arp = ethernet[ARP]
        if arp.psrc != arp.pdst:
            continue
        announced.append(arp.psrc)
        assert (ethernet.dst, ethernet.src) == ("ff:ff:ff:ff:ff:ff", PORT_MAC), ethernet.summary()
        assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, 1), arp.summary()
        assert (arp.hwsrc, arp.hwdst) == (PORT_MAC, "00:00:00:00:00:00"), arp.summary()
    # An announcement is repeated once after two seconds, if the replay takes so long.
    assert set(announced) == appliance.announced()
    assert all(announced.count(address) <= 2 for address in announced)


def check_counters(scenario: Scenario, outcome: Outcome) -> None:
    """Asserts that every frame is accounted for in exactly one place."""
    counters = outcome.counters
    entered = counters["received"] + counters["injected"] + counters["taken_over"]
    left = counters["sent"] + counters["punted"] + counters["handed_over"] + counters["dropped"]
    assert entered == left, counters
    assert counters == {
        "received": len(scenario.frames),
        "injected": len(outcome.arps),
        "taken_over": 0,
        "sent": len(outcome.sent) + len(outcome.arps),
        "punted": scenario.punts(),
        "handed_over": 0,
        "dropped": sum(scenario.drops().values()),
    }
    assert counters["dropped"] == outcome.drops.total()

"""Plays frames through the real trutinad and compares what it sends with what the oracle says."""

import difflib
import heapq
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET6, inet_ntop, inet_pton

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS
from scapy.utils import RawPcapWriter
from scapy.utils6 import in6_getnsma, in6_getnsmac

from appliance import PORT_IP, Appliance, version
from frames import ARP, ICMP, IP, PROTO_ICMP, Ether, IPv6
from icmp import ECHO_REPLY
from oracle import Oracle
from packet import Datagram, Link
from session import Outcome, Session
from verdict import DEFAULT, OTHERS, Dropped, Held, Punted, Sent, Verdict, settled, summary

ETHERNET_LINK = 1
# With how many expected frames, the most similar first, one that was sent is compared.
TRIALS = 16
LONGEST_SHOWN = 160


class Scenario:
    """Frames in the order of their arrival, each with what the oracle says becomes of it.

    They come in rounds: what is fed `later` is made when everything before it has been seen.
    """

    def __init__(self, appliance: Appliance):
        self.appliance = appliance
        self.oracle = Oracle(appliance)
        self.frames: list[bytes] = []
        self.ports: list[int] = []
        self.verdicts: list[Verdict] = []
        self.rounds: list[Callable[[], object]] = []
        # The run that it is played in.
        self.session: Session | None = None
        # What was sent so far because of a frame, by its number.
        self.sent: dict[int, bytes] = {}

    def feed(self, *frames: bytes, port: int = 0) -> "Scenario":
        """Appends frames; the oracle has seen them when this returns."""
        for frame in frames:
            self.frames.append(frame)
            self.ports.append(port)
            self.verdicts.append(self.oracle.predict(frame, port))
        return self

    def later(self, feed: Callable[["Scenario"], object]) -> "Scenario":
        """Has `feed` append frames to this scenario once those before are sent and the oracle knows how."""
        self.rounds.append(lambda: feed(self))
        return self

    def backend(self, client: str, vip: str, protocol: str = "tcp") -> str:
        """Address of the server that has the client's flow."""
        return self.oracle.backend(client, vip, protocol)

    def expected(self) -> list[tuple[bytes, Sent]]:
        """Frames that must be sent, with the frames they come from."""
        pairs = zip(self.frames, map(settled, self.verdicts), strict=True)
        return [(frame, verdict) for frame, verdict in pairs if isinstance(verdict, Sent)]

    def drops(self) -> Counter:
        """Frames that must be dropped, by reason."""
        return Counter(v.reason for v in map(settled, self.verdicts) if isinstance(v, Dropped))

    def held(self) -> int:
        """Fragments that still wait at the end."""
        return sum(isinstance(v, Held) for v in map(settled, self.verdicts))

    def punts(self) -> int:
        """Frames that must reach the control thread."""
        return sum(isinstance(v, Punted) for v in self.verdicts)

    def imagined(self) -> "Scenario":
        """Plays all rounds without trutinad: its choices are taken to be the first that come to mind."""
        for number in range(len(self.rounds) + 1):
            for place, verdict in enumerate(map(settled, self.verdicts)):
                if isinstance(verdict, Sent) and place not in self.sent:
                    self.sent[place] = verdict.frame
                    verdict.learn_of(verdict.frame)
            if number < len(self.rounds):
                self.rounds[number]()
        return self


class Expected:
    """A frame that has to be sent, and the number of the one it comes from."""

    def __init__(self, number: int, verdict: Sent):
        self.number, self.verdict = number, verdict
        one, *others = (verdict.build(choice) for choice in (DEFAULT, *OTHERS))
        self.length, self.bits = len(one), int.from_bytes(one, "big")
        fixed = bytes(0xFF * (a == b == c) for a, b, c in zip(one, *others, strict=True))
        self.fixed = int.from_bytes(fixed, "big")

    def difference(self, frame: bytes) -> int:
        """In how many bits a frame of this length differs, but for bytes that depend on choices."""
        return ((self.bits ^ int.from_bytes(frame, "big")) & self.fixed).bit_count()


class Matcher:
    """Finds for each frame sent the one that was expected."""

    def __init__(self, scenario: Scenario):
        self.scenario = scenario
        self.waiting: list[Expected] = []
        self.known: set[int] = set()
        self.surplus: list[tuple[int, bytes]] = []

    def take(self, frames: list[tuple[int, bytes]]) -> None:
        """Matches what one round sent."""
        for number, verdict in enumerate(map(settled, self.scenario.verdicts)):
            if isinstance(verdict, Sent) and number not in self.known:
                self.known.add(number)
                self.waiting.append(Expected(number, verdict))
        for port, frame in frames:
            self._match(port, frame)

    def _match(self, port: int, frame: bytes) -> None:
        alike = [one for one in self.waiting if one.length == len(frame) and one.verdict.port == port]
        # The first one of equals, for packets of a flow keep their order.
        for expected in heapq.nsmallest(TRIALS, alike, key=lambda one: one.difference(frame)):
            if expected.verdict.as_sent(frame) == frame:
                break
        else:
            self.surplus.append((port, frame))
            return
        self.waiting.remove(expected)
        self.scenario.sent[expected.number] = frame
        expected.verdict.learn_of(frame)

    def disorder(self) -> list[tuple[int, str]]:
        """Frames that came later than others of their flow that were received after them.

        Flows may overtake each other, and so may workers, ports, pieces what waits for them, packets with IP
        options others of their flow, and what the appliance makes itself what it forwards.
        """
        latest, told = {}, []
        ordered = [(n, frame) for n, frame in self.scenario.sent.items() if settled(self.scenario.verdicts[n]).ordered]
        for number, frame in ordered if self.scenario.appliance.workers == 1 else []:
            kind, port = settled(self.scenario.verdicts[number]).kind, self.scenario.ports[number]
            line = kind, port, flow_of(self.scenario.frames[number])
            if number < latest.get(line, -1):
                told.append((number, f"sent too late: {summary(frame)}"))
            latest[line] = max(number, latest.get(line, -1))
        return told

    def faults(self) -> dict[int | None, list[str]]:
        """What was not sent, sent in vain, or too late, by the number of the frame it should have come from."""
        told, surplus = {}, list(self.surplus)
        for expected in self.waiting:
            source, wanted = self.scenario.frames[expected.number], expected.verdict.frame
            nearest = max(surplus, key=lambda sent: likeness(wanted, sent[1]), default=None)
            if nearest and likeness(wanted, nearest[1]) > len(wanted) / 3:
                surplus.remove(nearest)
                text = difference(source, expected.verdict.as_sent(nearest[1]), nearest[1])
            else:
                text = f"not sent: {summary(wanted)}\nreceived {shown(source)}\nwanted   {shown(wanted)}"
            told.setdefault(expected.number, []).append(text)
        for _, frame in surplus:
            told.setdefault(None, []).append(f"sent without a reason: {summary(frame)}\nsent     {shown(frame)}")
        for number, text in self.disorder():
            told.setdefault(number, []).append(text)
        return told

    def problems(self) -> list[str]:
        """All faults, one after the other."""
        return [text for texts in self.faults().values() for text in texts]


def flow_of(frame: bytes) -> tuple:
    """What packets have in common that keep their order."""
    link = Link(frame)
    packet = Datagram(link.ethertype, link.payload)
    ports = b"" if packet.piece else packet.payload[:4]
    return packet.ends, packet.proto, len(packet.header), ports


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
    """Whether the appliance made an IPv4 frame."""
    return what_is(frame) not in ("segment", "passed on")


def likeness(one: bytes, other: bytes) -> float:
    """How many bytes of two frames are the same."""
    return sum(a == b for a, b in zip(one, other, strict=False)) - abs(len(one) - len(other)) / 2


def shown(frame: bytes) -> str:
    """A frame as hexadecimal digits; the captures have the rest of a long one."""
    return frame[:LONGEST_SHOWN].hex() + ("..." if len(frame) > LONGEST_SHOWN else "")


def difference(source: bytes, wanted: bytes, actual: bytes) -> str:
    """A field by field account of two frames."""

    def fields(frame: bytes) -> list[str]:
        return Ether(frame).show(dump=True).splitlines()

    lines = difflib.unified_diff(fields(wanted), fields(actual), "wanted", "sent", lineterm="", n=1)
    hexes = f"received {shown(source)}\nwanted   {shown(wanted)}\nsent     {shown(actual)}"
    return hexes + "\n" + "\n".join(lines)


def run(scenario: Scenario, directory: Path) -> tuple[Outcome, Matcher]:
    """Plays the scenario through trutinad, with all of its files in `directory`."""
    matcher = Matcher(scenario)
    return play(scenario, directory, matcher.take), matcher


def play(scenario: Scenario, directory: Path, take: Callable[[list[tuple[int, bytes]]], None]) -> Outcome:
    """Plays the scenario through trutinad; `take` sees what each round sends."""
    played = 0
    with Session(scenario.appliance, directory) as session:
        scenario.session = session
        for feed in [lambda: None, *scenario.rounds]:
            feed()
            frames = list(zip(scenario.ports, scenario.frames, strict=True))[played:]
            played = len(scenario.frames)
            take(session.play(frames))
        return session.stop()


def write_captures(directory: Path, scenario: Scenario, outcome: Outcome) -> None:
    """Keeps what came in, what had to come out, and what did."""
    captures = {
        "received": scenario.frames,
        "wanted": [verdict.frame for _, verdict in scenario.expected()],
        "sent": outcome.sent,
    }
    for name, frames in captures.items():
        write_capture(directory / f"{name}.pcap", frames)


def write_capture(path: Path, frames: list[bytes]) -> None:
    """Writes one capture, whose times are all 0: the same frames make the same file."""
    writer = RawPcapWriter(str(path), linktype=ETHERNET_LINK)
    writer.write_header(None)
    for frame in frames:
        writer.write_packet(frame, sec=0, usec=0)
    writer.close()


def check(scenario: Scenario, outcome: Outcome, matcher: Matcher, exact_reasons: bool = True) -> None:
    """Asserts that frames, announcements and counters are what they have to be.

    Without `exact_reasons` only the number of drops counts: for frames with more than one fault.
    """
    problems = matcher.problems()
    assert not problems, "\n\n".join(problems)
    check_announcements(scenario.appliance, outcome)
    check_counters(scenario, outcome)
    if exact_reasons:
        assert outcome.drops == scenario.drops()


def check_announcements(appliance: Appliance, outcome: Outcome) -> None:
    """Asserts that neighbours are told of each address: RFC 5227, 2.3, and RFC 4861, 7.2.6.

    Over IPv6 that comes a second after the address was asked for (RFC 4862, 5.4), for which no run waits.
    """
    announced = [address for frame in outcome.arps if (address := announced_by_arp(frame))]
    # An announcement is repeated once after two seconds, if the replay takes so long.
    assert set(announced) == {address for address in appliance.announced() if version(address) == 4}
    assert all(announced.count(address) <= 2 for address in announced)
    probed = {address for frame in outcome.discoveries if (address := probed_by(frame))}
    assert {ip for ip in probed if not ip_address(ip).is_link_local} == appliance.announced() - set(announced)
    advertised = {address for frame in outcome.discoveries if (address := announced_by_advertisement(frame))}
    assert advertised <= probed


def probed_by(frame: bytes) -> str | None:
    """The address that a neighbour solicitation asks for on behalf of nobody, to see whether it is taken."""
    ethernet = Ether(frame)
    if ICMPv6ND_NS not in ethernet or ethernet[IPv6].src != "::":
        return None
    group = in6_getnsma(inet_pton(AF_INET6, ethernet[ICMPv6ND_NS].tgt))
    assert (ethernet[IPv6].dst, ethernet[IPv6].hlim) == (inet_ntop(AF_INET6, group), 255), ethernet.summary()
    assert ethernet.dst == in6_getnsmac(group), ethernet.summary()
    # RFC 4861, 4.3: no link-layer address from the unspecified address.
    assert len(ethernet[ICMPv6ND_NS]) == 24, ethernet.summary()
    return ethernet[ICMPv6ND_NS].tgt


def announced_by_arp(frame: bytes) -> str | None:
    """The address that an ARP frame announces, if it does that."""
    ethernet = Ether(frame)
    arp = ethernet[ARP]
    if arp.psrc != arp.pdst:
        return None
    mac = ethernet.src
    assert ethernet.dst == "ff:ff:ff:ff:ff:ff", ethernet.summary()
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, 1), arp.summary()
    assert (arp.hwsrc, arp.hwdst) == (mac, "00:00:00:00:00:00"), arp.summary()
    return arp.psrc


def announced_by_advertisement(frame: bytes) -> str | None:
    """The address that an unsolicited neighbour advertisement announces, if it is one."""
    ethernet = Ether(frame)
    if ICMPv6ND_NA not in ethernet or ethernet[IPv6].dst != "ff02::1":
        return None
    advertisement = ethernet[ICMPv6ND_NA]
    assert (ethernet.dst, ethernet[IPv6].hlim) == ("33:33:00:00:00:01", 255), ethernet.summary()
    assert (advertisement.S, advertisement.lladdr) == (0, ethernet.src), ethernet.summary()
    return advertisement.tgt


def check_counters(scenario: Scenario, outcome: Outcome) -> None:
    """Asserts that every frame is accounted for in exactly one place."""
    counters = outcome.counters
    told = len(outcome.arps) + len(outcome.discoveries)
    assert counters["handed_over"] == counters["taken_over"]
    assert {name: counters[name] for name in ("received", "injected", "sent", "punted", "dropped")} == {
        "received": len(scenario.frames),
        "injected": told,
        "sent": len(outcome.sent) + told,
        "punted": scenario.punts(),
        "dropped": sum(scenario.drops().values()),
    }
    assert counters["dropped"] == outcome.drops.total()

#!/usr/bin/python3
"""Golden frames: some hundred cases of the grid and all malformed packets, kept as a table and captures.

    tests/replay/golden.py      writes tests/golden anew

The oracle makes them, `test_golden.py` sees that what is kept is what it makes, and the Rust test `golden` of the
control plane plays them through the packet path. The choices of schedulers are kept with them: `schedules.py`.
tests/golden/README.md says what is where.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import schedules
import test_drops
import test_refusals
from appliance import Appliance, split
from frames import framed, ip_packet, pieces
from grid import ONE_ARM, Case, Fault, Shape, cases
from replay import Expected, Scenario, write_capture
from verdict import Dropped, Held, Punted, Sent, Verdict, settled

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
COLUMNS = ("mode", "versions", "protocol", "direction", "shape", "capture", "received", "verdict", "sent", "free")
SHAPES = {
    "plain",
    "odd length",
    "padded by ones, odd",
    "DSCP 46, ECT(0)",
    "CE",
    "TTL 1",
    "DF",
    "40 bytes of options",
    "hop-by-hop options",
    "routing type 2, none left",
    "atomic fragment",
    "five extension headers",
    "wrong checksum",
    "no checksum",
    "first piece third",
}
# Of IPv4 and of IPv6: port unreachable, too big, time exceeded.
FAULTS = {(3, 3), (3, 4), (11, 0), (1, 4), (2, 0), (3, 0)}


@dataclass(frozen=True)
class Group:
    """Cases of one appliance, with the names of its captures; `played` are its rows without what became of them."""

    name: str
    scenario: Scenario
    played: list[tuple[tuple[str, ...], str, list[int]]]


def groups() -> Iterator[Group]:
    """All that is kept."""
    yield grid()
    yield refused("refused", test_refusals.APPLIANCE, list(refused_cases()))
    yield refused("refused4", test_drops.APPLIANCE, [(reason, name, [f]) for name, reason, f in test_drops.CASES])


def grid() -> Group:
    """The cases of the grid in which nothing of a frame that comes in depends on what the appliance chose."""
    scenario, chosen = Scenario(ONE_ARM.appliance()), [case for case in cases(ONE_ARM) if is_kept(case)]
    for case in chosen:
        case.open(scenario, ONE_ARM)
    imagine(scenario)
    for case in chosen:
        case.act(scenario, ONE_ARM)
    imagine(scenario)
    return Group("modes", scenario, [(row_of(case), kind_of(case), case.frames) for case in chosen])


def is_kept(case: Case) -> bool:
    """Whether a case is one of a few that say most, and the server sees no source of the appliance's choice."""
    if case.lane.mode == "full-nat" and case.direction == "reply":
        return False
    if isinstance(case.what, Fault):
        return case.protocol == "tcp" and (case.what.kind, case.what.code) in FAULTS and not case.what.short
    return case.what.name in SHAPES


def kind_of(case: Case) -> str:
    """The mode of a case, or the type of its tunnel."""
    return case.lane.tunnel.type if case.lane.tunnel else case.lane.mode


def row_of(case: Case) -> tuple[str, ...]:
    """What is told of a case."""
    mode, versions = str(case.lane).rsplit(" ", 1)
    return mode, versions, case.protocol, case.direction, str(case.what)


def refused_cases() -> Iterator[tuple[str, str, list[bytes]]]:
    """Reason, name and frames of malformed and stray packets, after what they need and before what is none the worse."""
    yield "-", "good packets", [*test_refusals.GOOD]
    for client, vip in (test_refusals.CLIENT, test_refusals.TUNNEL), (test_refusals.CLIENT6, test_refusals.TUNNEL6):
        yield "-", f"a flow to {vip}", [test_refusals.tcp(client, vip, "S")]
    for reason, frames in test_refusals.REFUSED.items():
        yield from ((reason, name, [frame]) for name, frame in frames)
    for ip_version, source, other, client in (
        (4, test_refusals.LONG_UDP, test_refusals.LONG, test_refusals.CLIENT),
        (6, test_refusals.LONG_UDP6, test_refusals.LONG6, test_refusals.CLIENT6),
    ):
        whole = pieces(ip_packet(source), (32, 64), 0x77)
        first, second, third = (framed(packet, split(client)[0]) for packet in whole)
        overlapping = [first, second, test_refusals.piece_of(second, 8), third]
        yield "fragment_overlap", f"a piece that overlaps, IPv{ip_version}", overlapping
        lonely = framed(pieces(ip_packet(other), (32, 64), 0x78)[1], split(client)[0])
        yield "-", f"a piece whose first one is missing, IPv{ip_version}", [lonely]
    yield "-", "good packets afterwards", [*test_refusals.GOOD]


def refused(name: str, appliance: Appliance, told: list[tuple[str, str, list[bytes]]]) -> Group:
    """Cases about frames that are dropped."""
    scenario, played = Scenario(appliance), []
    for reason, shape, frames in told:
        first = len(scenario.frames)
        scenario.feed(*frames)
        played.append((("-", "-", "-", reason, shape), name, [*range(first, len(scenario.frames))]))
    return Group(name, scenario, played)


def imagine(scenario: Scenario) -> None:
    """Takes the first choices that come to mind for the appliance's, which bind nobody later."""
    for number, verdict in enumerate(map(settled, scenario.verdicts)):
        if isinstance(verdict, Sent) and number not in scenario.sent:
            scenario.sent[number] = verdict.frame


def word_of(verdict: Verdict) -> str:
    """What became of a frame."""
    match settled(verdict):
        case Sent(kind=kind):
            return kind
        case Dropped(reason=reason):
            return f"dropped {reason}"
        case Punted():
            return "punted"
        case Held():
            return "held"


def free_bytes(number: int, verdict: Sent) -> list[str]:
    """Ranges of bytes that may be whatever the appliance chooses, from the first to the last."""
    wanted = Expected(number, verdict)
    fixed = wanted.fixed.to_bytes(wanted.length, "big") + b"\xff"
    edges = [at for at in range(len(fixed)) if (fixed[at] == 0) != (at > 0 and fixed[at - 1] == 0)]
    return [f"{begin}-{end - 1}" for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def write(directory: Path) -> None:
    """Writes table, captures and configurations into an empty directory."""
    lines, captures = ["\t".join(("case", *COLUMNS))], {}
    for group in groups():
        (directory / f"{group.name}.toml").write_text(configuration(group.scenario.appliance))
        for row, capture, numbers in group.played:
            received, sent = captures.setdefault(capture, ([], []))
            verdicts = [settled(group.scenario.verdicts[number]) for number in numbers]
            leaving = [(number, v) for number, v in zip(numbers, verdicts, strict=True) if isinstance(v, Sent)]
            free = [",".join(free_bytes(*each)) or "none" for each in leaving]
            lines.append(
                "\t".join(
                    (
                        str(len(lines)),
                        *row,
                        capture,
                        span(len(received), len(numbers)),
                        ", ".join(map(word_of, verdicts)),
                        span(len(sent), len(leaving)),
                        "; ".join(free) if set(free) - {"none"} else "-",
                    )
                )
            )
            received += [group.scenario.frames[number] for number in numbers]
            sent += [verdict.frame for _, verdict in leaving]
    (directory / "cases.tsv").write_text("\n".join(lines) + "\n")
    schedules.write(directory)
    for name, (received, sent) in captures.items():
        write_capture(directory / f"{name}-received.pcap", received)
        write_capture(directory / f"{name}-sent.pcap", sent)


def span(before: int, count: int) -> str:
    """Numbers of frames, the first of a capture being 1 as in Wireshark."""
    return f"{before + 1}-{before + count}" if count else "-"


def configuration(appliance: Appliance) -> str:
    """The appliance's file, the same on every machine."""
    text = appliance.toml(Path("/run/golden"))
    for key, value in (("file_prefix", '"golden"'), ("control", "0"), ("workers", "[1]")):
        text = re.sub(f"(?m)^{key} = .*$", f"{key} = {value}", text)
    return text


def main() -> None:
    """Writes everything anew, but for what says what it is."""
    for path in GOLDEN.glob("*.*"):
        if path.name != "README.md":
            path.unlink()
    write(GOLDEN)


if __name__ == "__main__":
    main()

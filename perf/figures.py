#!/usr/bin/python3
"""Draws the plot and writes the tables of README.md from a file of results: `perf/figures.py [NAME]`.

NAME is that of a file in `results`; the last one by name, if it is left out. The same results give the same bytes.
"""

import json
import math
import re
import sys
from pathlib import Path

PERF = Path(__file__).resolve().parent
README = PERF / "README.md"
PLOT = PERF / "flows.svg"

FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6"}
# Colours that people with any kind of sight can tell apart (Okabe and Ito, "Color Universal Design").
COLOURS = {"dr": "#0072b2", "tunnel": "#009e73", "nat": "#d55e00", "full-nat": "#cc79a7"}
# Schedulers that find a backend by a hash, however many there are.
HASHES = ("dh", "sh", "mh", "maglev", "bounded", "quic")
# Nanoseconds that a choice may cost.
CHOICE_GOAL = 15
COUNTS = {1: "1", 10_000: "10,000", 100_000: "100,000", 1_000_000: "1M", 4_000_000: "4M", 10_000_000: "10M"}


def read(name):
    """The line about the machine, and all results."""
    files = sorted((PERF / "results").glob(f"{name or '*'}.jsonl"))
    if not files:
        sys.exit("error: there are no such results; try `make bench`")
    first, *rest = files[-1].read_text().splitlines()
    return files[-1].name, json.loads(first), [json.loads(line) for line in rest]


class Results:
    """Results, to be found by what they are about."""

    def __init__(self, rows):
        self.rows = rows

    def find(self, bench, **about):
        """The first result of a run that has these keys."""
        fits = (row for row in self.rows if row["bench"] == bench and about.items() <= row.items())
        return next(fits, None)

    def ns(self, bench, which="ns_per_packet", **about):
        """Nanoseconds per packet, or None."""
        row = self.find(bench, **about)
        return row and row[which]

    def lowest(self, bench, **about):
        """The lowest median of the runs that have these keys, or None."""
        fits = (row["ns_per_packet"] for row in self.rows if row["bench"] == bench and about.items() <= row.items())
        return min(fits, default=None)


# --- tables


def table(head, lines):
    """Lines of a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def rounded(value):
    """A number for people, or a dash."""
    return "–" if value is None else f"{value:.0f}"


def packets(results):
    """What packets cost, by mode and number of flows."""
    cases = [
        *(("packet of a flow", "hit", mode, "hit") for mode in COLOURS),
        *(("first packet of a flow", "new", mode, "new") for mode in COLOURS),
        *(("first packet, its flow is over", "new", mode, "expired") for mode in COLOURS),
        ("no service: dropped", "none", "dr", "none"),
    ]
    counts = (1, 10_000, 1_000_000, 10_000_000)
    head = ["event", "mode", *(f"{name}: {COUNTS[flows]}" for name in FAMILIES.values() for flows in counts)]
    return table(head, [
        [what, mode, *(
            rounded(results.ns(bench, mode=mode, family=family, flows=flows, event=event))
            for family in FAMILIES for flows in counts
        )]
        for what, bench, mode, event in cases
    ])


def growth(results):
    """What packets cost when something else grows, as a multiple."""
    cases = [
        ("10M flows instead of 1M", "hit", {"flows": 1_000_000}, {"flows": 10_000_000}, ("hit",)),
        ("500 routes instead of 2", "routes", {"routes": 2}, {"routes": 500}, ("hit", "new")),
        ("10,000 services on one VIP instead of 1, 4 backends each, packets for one of them",
         ("services", "idle-services"), {"services": 1}, {"services": 10_000}, ("hit", "new")),
        ("the same, packets for all of them", "services", {"services": 1}, {"services": 10_000}, ("hit", "new")),
        ("1,000 backends instead of 4", "backends", {"backends": 4}, {"backends": 1000}, ("hit", "new")),
        ("4 workers instead of 1", "workers", {"workers": 1}, {"workers": 4}, ("hit", "new")),
        ("1.5 times the rated flows", "fill", {"fill": 1.0}, {"fill": 1.5}, ("hit", "new")),
        ("a full table", "fill", {"fill": 1.0}, {"fill": 2.0}, ("hit", "new")),
        ("Zipf's law, 1M flows", ("hit", "zipf"), {"draw": "uniform"}, {"draw": "zipf"}, ("hit",)),
        ("frames of 1,500 bytes, 10,000 flows", "frame", None, {"frame": 1500}, ("hit",)),
    ]
    lines = []
    for what, bench, one, many, events in cases:
        first, second = bench if isinstance(bench, tuple) else (bench, bench)
        for event in events:
            line = [what, "first packet" if event == "new" else "packet of a flow"]
            for family in FAMILIES:
                for mode in ("dr", "nat"):
                    flows = 10_000 if bench == "frame" else 1_000_000
                    about = {"flows": flows, "event": event, "mode": mode, "family": family}
                    shortest = one or {"frame": 64 if family == "ipv4" else 78}
                    before = results.ns(first, "min", **{**about, **shortest})
                    after = results.ns(second, "min", **{**about, **many})
                    line.append(f"{after / before:.2f}" if before and after else "–")
            lines.append(line)
    line = ["a million flows expire", "packet of a flow"]
    for family in FAMILIES:
        for mode in ("dr", "nat"):
            row = results.find("sweep", mode=mode, family=family)
            line.append(f"{row['ns_per_packet'] / row['undisturbed_ns_per_packet']:.2f}" if row else "–")
    lines.append(line)
    columns = [f"{name} {mode}" for name in FAMILIES.values() for mode in ("dr", "nat")]
    return table(["what grows", "packet", *columns], lines)


def choices(results):
    """What choosing a backend costs, by scheduler; bold is what misses its goal."""
    names = dict.fromkeys(row["scheduler"] for row in results.rows if row["bench"] == "schedulers")
    head = ["scheduler", *(f"{name}: {backends}" for name in FAMILIES.values() for backends in ("10", "1,000")),
            "first packet, IPv4: 10"]
    lines = []
    for name in names:
        line = [f"`{name}`"]
        for family in FAMILIES:
            for backends in (10, 1000):
                ns = results.lowest("schedulers", scheduler=name, family=family, backends=backends)
                missed = ns is not None and ns > CHOICE_GOAL and (backends == 10 or name in HASHES)
                line.append(choice(ns, missed))
        line.append(rounded(results.lowest("schedulers-new", scheduler=name, family="ipv4")))
        lines.append(line)
    return table(head, lines)


def weights(results):
    """What choosing one of ten backends costs if their weights differ; bold is what misses its goal."""
    rows = [row for row in results.rows if row["bench"] == "weights"]
    most = sorted({row["weights"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["scheduler"] for row in rows):
        equal = results.lowest("schedulers", scheduler=name, family="ipv4", backends=10)
        costs = [equal, *(results.lowest("weights", scheduler=name, family="ipv4", weights=weight) for weight in most)]
        lines.append([f"`{name}`", *(choice(ns, ns is not None and ns > CHOICE_GOAL) for ns in costs)])
    return table(["scheduler", "equal weights", *(f"1 to {weight:,}" for weight in most)], lines)


def choice(ns, missed):
    """Nanoseconds of a choice."""
    text = "–" if ns is None else f"{ns:.1f}" if ns < 100 else f"{ns:.0f}"
    return f"**{text}**" if missed else text


def memory(results):
    """Bytes of flow tables, and flows that found no place."""
    rows = [row for row in results.rows if row["bench"] == "memory"]
    return table(["flows", "family", "table", "resident", "bytes a flow", "refused"], [
        [COUNTS[row["flows"]], FAMILIES[row["family"]], f"{row['table_bytes'] / 1e6:.1f} MB",
         f"{row['resident_bytes'] / 1e6:.1f} MB", f"{row['bytes_per_flow']:.1f}",
         f"{row['refused']:.1e}" if row["refused"] else "none"]
        for row in rows
    ])


def described(file, machine):
    """Where the figures come from."""
    virtual = ", virtual" if machine["hypervisor"] else ""
    return (
        f"From `results/{file}`: {machine['machine']}{virtual}, {machine['cores']} cores, {machine['memory_gib']} GiB,\n"
        f"Linux {machine['kernel']}, {machine['compiler'].split(' (')[0]}, DPDK {machine['dpdk']}, "
        f"{machine['date'][:10]}, at {machine['commit']}."
    )


# --- the plot

WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP, RIGHT = 960, 400, 56, 344, 56, 96, 72
PANEL = (WIDTH - LEFT - GAP - RIGHT) / 2


def plot(results):
    """Nanoseconds per packet over the number of flows, a panel for each IP version."""
    lines = {
        (family, mode): [
            (flows, ns) for flows in COUNTS
            if (ns := results.ns("hit", family=family, mode=mode, flows=flows, event="hit")) is not None
        ]
        for family in FAMILIES for mode in COLOURS
    }
    most = max((ns for points in lines.values() for _, ns in points), default=50)
    step = next(step for step in (10, 20, 25, 50, 100, 200) if most / step <= 8)
    top = math.ceil(most * 1.02 / step) * step
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#333">',
        "<title>Nanoseconds per packet over the number of flows</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for number, (family, name) in enumerate(FAMILIES.items()):
        left = LEFT + number * (PANEL + GAP)
        out += axes(left, top, step, name)
        out += curves(left, top, {mode: lines[family, mode] for mode in COLOURS})
    return "\n".join([*out, "</svg>", ""])


def x_of(left, flows):
    """Flows on a scale of logarithms."""
    return left + 12 + (PANEL - 24) * math.log10(flows) / 7


def y_of(top, ns):
    """Nanoseconds, from 0 at the bottom."""
    return BOTTOM - (BOTTOM - TOP) * ns / top


def axes(left, top, step, name):
    """A panel's headline, grid and labels."""
    yield f'<text x="{left:.1f}" y="24" font-size="16" font-weight="bold">{name}</text>'
    yield f'<text x="{left:.1f}" y="42" fill="#777">ns per packet of a flow</text>'
    for ns in range(0, top + 1, step):
        y = y_of(top, ns)
        colour = "#999" if ns == 0 else "#e4e4e4"
        yield f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{left + PANEL:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
        yield f'<text x="{left - 8:.1f}" y="{y + 4.5:.1f}" text-anchor="end" fill="#777">{ns}</text>'
    for power, label in enumerate(("1", "10", "100", "1k", "10k", "100k", "1M", "10M")):
        x = x_of(left, 10**power)
        yield f'<line x1="{x:.1f}" y1="{BOTTOM}" x2="{x:.1f}" y2="{BOTTOM + 5}" stroke="#999"/>'
        yield f'<text x="{x:.1f}" y="{BOTTOM + 20}" text-anchor="middle" fill="#777">{label}</text>'
    yield f'<text x="{left + PANEL / 2:.1f}" y="{BOTTOM + 42}" text-anchor="middle" fill="#777">flows</text>'


def curves(left, top, lines):
    """The modes of a panel, each with its name at the right end; names keep apart."""
    ends = sorted((y_of(top, points[-1][1]), mode) for mode, points in lines.items() if points)
    places, lowest = {}, -math.inf
    for y, mode in ends:
        lowest = max(y, lowest + 16)
        places[mode] = lowest
    for mode, points in lines.items():
        if not points:
            continue
        at = [(x_of(left, flows), y_of(top, ns)) for flows, ns in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        colour = COLOURS[mode]
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" stroke="#fff"/>' for x, y in at)
        x, y = left + PANEL + 2, places[mode] + 4.5
        yield f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-weight="bold">{mode}</text>'


def main():
    """Writes the plot, and what is between the marks in README.md."""
    file, machine, rows = read(sys.argv[1] if len(sys.argv) > 1 else None)
    results = Results(rows)
    PLOT.write_text(plot(results))
    text = README.read_text()
    parts = {
        "machine": described(file, machine),
        "packets": packets(results),
        "growth": growth(results),
        "choices": choices(results),
        "weights": weights(results),
        "memory": memory(results),
    }
    for name, part in parts.items():
        mark, end = f"<!-- {name}, by figures.py -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(mark)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            sys.exit(f"error: README.md has no mark {mark}")
        text = pattern.sub(lambda _, part=part, mark=mark: f"{mark}\n{part}\n{end}", text, count=1)
    README.write_text(text)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Counts the instructions that a packet takes on its way, by valgrind, and keeps them in a file.

Times on a machine that others use too differ from run to run; these counts do not. So a change that makes a packet
dearer shows in the file's difference: `make instructions`, then `git diff perf/instructions.tsv`.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PERF = Path(__file__).resolve().parent
PROGRAM = PERF.parent / "target/release/perf"
COUNTS = PERF / "instructions.tsv"
# What is timed, and nothing else, is in this function (`pipeline/path.rs`).
COUNTED = "perf::pipeline::path::Path::forward*"
COLLECTED = re.compile(r"Collected : (\d+)")

# Packets of a quick run (`Plan::QUICK`): repeats and a tenth more to warm up, each one fill of the pool; or all first
# packets into three tables.
POOL, REPEATS, TABLES = 4096, 201, 3
FLOWS = {"hit": 1, "none": 1, "new": 10_000}
CASES = [
    *((mode, family, "hit") for mode in ("dr", "tunnel", "nat", "full-nat") for family in ("ipv4", "ipv6")),
    *((mode, family, "new") for mode in ("dr", "nat") for family in ("ipv4", "ipv6")),
    *(("dr", family, "none") for family in ("ipv4", "ipv6")),
]


def packets(event):
    """Packets that go through the counted function in a run."""
    if event == "new":
        return TABLES * FLOWS[event]
    opening = 2 * FLOWS[event] if event == "hit" else 0
    return (REPEATS + REPEATS // 10) * POOL + opening


def instructions(mode, family, event):
    """Instructions of a packet."""
    with tempfile.NamedTemporaryFile() as out:
        tool = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", "--collect-atstart=no")
        case = ("--mode", mode, "--family", family, "--event", event, "--flows", str(FLOWS[event]))
        argv = (*tool, f"--toggle-collect={COUNTED}", PROGRAM, "pipeline", "--quick", *case)
        ended = subprocess.run(argv, capture_output=True, text=True)
    found = COLLECTED.search(ended.stderr)
    if ended.returncode or not found or not int(found[1]):
        sys.exit(f"error: valgrind counted nothing for {mode} {family} {event}:\n{ended.stderr}")
    return int(found[1]) / packets(event)


def main():
    """Counts all cases and writes the file."""
    lines = ["mode\tfamily\tevent\tinstructions"]
    for case in CASES:
        lines.append("\t".join((*case, f"{instructions(*case):.0f}")))
        print(lines[-1], flush=True)
    COUNTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as missing:
        sys.exit(f"error: there is no {missing.filename}; try `make build` and apt-get install valgrind")

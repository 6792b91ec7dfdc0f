#!/usr/bin/python3
"""Takes all measurements and writes what came of them, one JSON object a line, into `perf/results`.

The first line says on which machine, with which compiler and DPDK, and when. Every other line is a result, with the
name of its run in `bench`; which keys it has is that run's matter. `figures.py` reads them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

PERF = Path(__file__).resolve().parent
PROGRAM = str(PERF.parent / "target/release/perf")
RESULTS = PERF / "results"

BOTH = ("dr", "nat")


def pipeline(event="hit", mode=("dr", "tunnel", "nat", "full-nat"), **shape):
    """A run of the packet path alone."""
    options = {"event": event, "mode": ",".join(mode), **shape}
    return (PROGRAM, "pipeline", "--json", *(f"--{name}={value}" for name, value in options.items()))


# What is run, by names that appear in the results. Each prints one JSON object a line.
RUNS = {
    "hit": pipeline(flows="1,10k,100k,1M,4M,10M"),
    "new": pipeline("new,expired", flows="10k,1M"),
    "none": pipeline("none", mode=("dr",), flows="1,10k,1M"),
    "exhausted": pipeline("exhausted", mode=("full-nat",), flows="10k,1M"),
    "zipf": pipeline(draw="zipf", flows="1M,10M"),
    "frame": pipeline(frame="64,512,1500", flows="10k"),
    "fill": pipeline("hit,new", mode=BOTH, fill="1,1.5,full", flows="1M"),
    "sweep": pipeline("sweep", mode=BOTH, flows="2M"),
    "routes": pipeline("hit,new", mode=BOTH, routes="2,500", flows="10k,1M"),
    "services": pipeline("hit,new", mode=BOTH, services="1,10000", vips=1, backends=4, flows="10k,1M"),
    "idle-services": pipeline("hit,new", mode=BOTH, services=10000, busy=1, vips=1, backends=4, flows="10k,1M"),
    "backends": pipeline("hit,new", mode=BOTH, services=1, backends="4,1000", flows="10k,1M"),
    "workers": pipeline("hit,new", workers="1,4", flows="10k,1M"),
    "schedulers": pipeline("pick", mode=("dr",), flows=1, services=1, backends="10,1000", scheduler="all"),
    "weights": pipeline("pick", mode=("dr",), flows=1, services=1, backends=10, weights="20,1000,65535",
                        scheduler="wlc,sed,nq,least-bandwidth,least-packets,bounded"),
    "schedulers-new": pipeline("new", mode=("dr",), flows="10k", services=1, backends=10, scheduler="all"),
    "memory": (PROGRAM, "memory", "--json"),
    "control": (PROGRAM, "control", "--json"),
    # These need root, huge pages and testpmd.
    "device": (PROGRAM, "device", "--json"),
    "latency": (PROGRAM, "latency", "--json"),
}


def machine():
    """What results depend on besides the code, and which code it was."""
    cpu = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    cpu = {key.strip(): value.strip() for key, value in cpu.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": f"{cpu.get('model name')}, family {cpu.get('cpu family')}, model {cpu.get('model')}",
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "hypervisor": "hypervisor" in cpu.get("flags", "").split(),
        "kernel": platform.release(),
        "compiler": said("rustc", "--version"),
        "dpdk": said("pkg-config", "--modversion", "libdpdk"),
        "commit": said("git", "-C", str(PERF), "describe", "--always", "--dirty"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def said(*argv):
    """The only line that a command prints; nothing if it can not."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def results(name, argv):
    """The results of a run, as they come."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout:
            yield {"bench": name, **json.loads(line)}
    if running.returncode:
        sys.exit(f"error: {name} failed: {' '.join(argv)}")


def main():
    """Does all runs, or those that are named, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default=datetime.now().strftime("%Y-%m-%d"), help="of the file; the date if left out")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--add", action="store_true", help="to the file that is there")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"of {', '.join(RUNS)}; all if left out")
    args = parser.parse_args()
    unknown = set(args.runs) - set(RUNS)
    if unknown:
        parser.error(f"there is no run {', '.join(sorted(unknown))}")
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{args.name}.jsonl").open("a" if args.add else "w") as file:
        if not file.tell():
            print(json.dumps(machine()), file=file)
        for name in args.runs or RUNS:
            quick = ("--quick",) if args.quick and name != "memory" else ()
            for result in results(name, RUNS[name] + quick):
                line = json.dumps(result)
                print(line, file=file, flush=True)
                print(line, flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Trutina against what a user would pick instead, on one machine in one run. Run it by `make compare`.

A client, a router, the balancer and three web servers, each in its network namespace, share the cores of the
machine; the balancer has one arm and translates addresses. Every round asks every contestant, in turns.
"""

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import contestants  # noqa: E402
import cpu_time  # noqa: E402
from lab import load, netns  # noqa: E402
from lab.appliance import binary  # noqa: E402
from lab.netns import LabError  # noqa: E402
from lab.whole import Lab  # noqa: E402

PREFIX = "trutina-compare"
CONNECTIONS = 64
WARM_UP_SECS = 1
# More than this share of a core taken by others, or more taken by the hypervisor, and a load is repeated, so many
# times at most. A hypervisor takes a core for a while, 100 ms here, in which all requests stand still: that is p99.
DISTURBED_PERCENT, STOLEN_MS, TRIES = 15, 20, 4
# Whether a connection ends with its request.
LOADS = {"connections": True, "requests": False}
REFERENCES = ("haproxy", "nginx-stream", "nft-numgen", "nft-jhash")


@dataclass(frozen=True)
class Measurement:
    """One load on one contestant. Times of CPUs are in microseconds for a request."""

    contestant: str
    load: str
    round: int
    per_second: float
    failed: int
    p50_us: float
    p99_us: float
    # All processes, the client's and servers' too; and the balancer's alone, if there is one.
    cpu_us: float
    process_cpu_us: float
    # Share of one core that went to what is not part of this.
    others_percent: float
    # Time that the hypervisor took from all cores together.
    stolen_ms: float

    @property
    def disturbance(self):
        """How much it was disturbed; up to 1 is accepted."""
        return max(self.others_percent / DISTURBED_PERCENT, self.stolen_ms / STOLEN_MS)


VALUES = ("per_second", "p50_us", "p99_us", "cpu_us", "process_cpu_us")


def arguments():
    """The command line."""
    names = [contestant.name for contestant in contestants.ALL]
    parser = argparse.ArgumentParser(description="Compares Trutina with other balancers on this machine.")
    parser.add_argument("--rounds", type=int, default=5, help="times that everybody is asked (5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each load (4)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--out", type=Path, help="file to write the JSON lines to")
    return parser.parse_args()


def main():
    """Runs all rounds, prints the tables, and returns the exit code."""
    args = arguments()
    chosen = [one for one in contestants.ALL if not args.only or one.name in args.only]
    try:
        with netns.signals_raise():
            contestants.require_programs()
            binary("trutinad"), binary("trutina")
            with open(args.out or os.devnull, "w") as out:
                summaries = summarize(run(chosen, args, out))
                keep(out, *summaries)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for kind in LOADS:
        print_table(kind, [one for one in summaries if one["load"] == kind])
    return 0


def keep(out, *lines):
    """Writes objects to the file, at once: who ends a long run early has what there is."""
    for line in lines:
        print(json.dumps(line), file=out, flush=True)


def run(chosen, args, out):
    """All measurements; every other round goes backwards, so that nobody is always the first."""
    measurements = []
    with Lab(PREFIX, logged=False) as lab:
        quieten(lab)
        for number in range(1, args.rounds + 1):
            for contestant in chosen if number % 2 else reversed(chosen):
                spread(lab, contestant.cores_of_others())
                with contestant.up(lab) as address:
                    for kind in LOADS:
                        load_once = partial(measure, lab, contestant.name, address, kind, number, args.seconds)
                        measurements.append(undisturbed(load_once))
                        tell(measurements[-1])
                        keep(out, asdict(measurements[-1]))
    return measurements


def quieten(lab):
    """Takes away what the lab has for other purposes, and gives proxies the ports they need.

    A bridge that shows its frames to the router's packet filter, as some kernels' do, would be no wire.
    """
    lab.topology.router.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", check=False)
    lab.topology.appliance.ip("link set mgmt0 down")
    lab.topology.appliance.sysctl(
        "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_tw_reuse=1", "net.core.somaxconn=4096"
    )
    for space in lab.topology.servers.values():
        space.ip("link set e0 xdpgeneric off")


def spread(lab, cores):
    """Lets the web servers, this process and what it starts run on `cores`."""
    pids = [pid for space in lab.topology.servers.values() for pid in netns.pids(space.name)]
    for pid in (0, *pids):
        os.sched_setaffinity(pid, cores)


def undisturbed(load_once):
    """A measurement during which others left the machine alone, or as far as they ever did."""
    tries = []
    while len(tries) < TRIES and (not tries or tries[-1].disturbance > 1):
        tries.append(load_once())
    return min(tries, key=lambda one: one.disturbance)


def measure(lab, contestant, address, kind, number, seconds):
    """One load, after a short one to warm up."""
    close = LOADS[kind]
    load.wrk(lab.client, address, WARM_UP_SECS, CONNECTIONS, close)
    before = Times.now(lab)
    result = load.wrk(lab.client, address, seconds, CONNECTIONS, close)
    spent = Times.now(lab) - before
    if not result.complete:
        raise LabError(f"{contestant} served nothing")
    return Measurement(
        contestant,
        kind,
        number,
        result.per_second,
        result.failed,
        result.p50_us,
        result.p99_us,
        spent.ours / result.complete,
        spent.balancer / result.complete,
        100 * (spent.machine - spent.ours) / spent.wall,
        spent.stolen / 1000,
    )


@dataclass(frozen=True)
class Times:
    """Times so far, in microseconds."""

    wall: float
    machine: float
    stolen: float
    balancer: float
    # All that belongs to the comparison; soft interrupts are counted where they happen.
    ours: float

    @classmethod
    def now(cls, lab):
        """Reads them."""
        wall = time.monotonic() * 1e6
        balancer = cpu_time.of_namespace(lab.topology.appliance)
        servers = sum(map(cpu_time.of_namespace, lab.topology.servers.values()))
        kernel = cpu_time.of_processes(cpu_time.soft_interrupt_threads())
        stolen = cpu_time.machine_stolen_us()
        machine = wall * os.cpu_count() - cpu_time.machine_idle_us()
        return cls(wall, machine, stolen, balancer, balancer + servers + kernel + cpu_time.of_children())

    def __sub__(self, before):
        return Times(*(now - then for now, then in zip(vars(self).values(), vars(before).values())))


def tell(one):
    """Shows a measurement as it comes."""
    print(
        f"round {one.round}  {one.contestant:23}  {one.per_second:8,.0f} {one.load:11} a second, "
        f"p50 {one.p50_us:6,.0f} us, p99 {one.p99_us:7,.0f} us, {one.cpu_us:5.1f} us of CPU, "
        f"{one.process_cpu_us:5.1f} of it the balancer's, {one.failed} failed; others took {one.others_percent:.0f} %, "
        f"the hypervisor {one.stolen_ms:.0f} ms",
        flush=True,
    )


def summarize(measurements):
    """One object for each contestant and load: medians, ranges, and ratios of the medians."""
    by = {}
    for one in measurements:
        by.setdefault((one.load, one.contestant), []).append(one)
    summaries = []
    for (kind, name), ones in by.items():
        summary = {"contestant": name, "load": kind, "rounds": len(ones)}
        summary["failed"] = sum(one.failed for one in ones)
        summary["stolen"] = sum(one.stolen_ms > STOLEN_MS for one in ones)
        for value in VALUES:
            values = [getattr(one, value) for one in ones]
            summary[value] = statistics.median(values)
            summary[f"{value}_range"] = [min(values), max(values)]
        summaries.append(summary)
    for summary in summaries:
        for reference in REFERENCES:
            ones = by.get((summary["load"], reference))
            if ones:
                other = statistics.median(one.per_second for one in ones)
                summary[f"ratio_to_{reference}"] = summary["per_second"] / other
    return summaries


def print_table(kind, summaries):
    """A table in Markdown."""
    print(f"\n| {kind} | a second (lowest to highest) | p50 ms | p99 ms | CPU us, all | balancer |", end="")
    present = [name for name in REFERENCES if f"ratio_to_{name}" in summaries[0]]
    print("".join(f" to {name} |" for name in present))
    print("|---|" + "---|" * (5 + len(present)))
    for one in summaries:
        low, high = one["per_second_range"]
        cells = [one["contestant"], f"{one['per_second']:,.0f} ({low:,.0f} to {high:,.0f})"]
        cells += [f"{one[value] / 1000:.2f}" for value in ("p50_us", "p99_us")]
        cells += [f"{one[value]:.1f}" for value in ("cpu_us", "process_cpu_us")]
        cells += [f"{one[f'ratio_to_{name}']:.2f}" for name in present]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    sys.exit(main())

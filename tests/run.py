#!/usr/bin/python3
"""Runs every test there is and ends with one line that counts them. Run it by `make test`.

A step that can not run here is named and counted as skipped, never passed over in silence.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Line coverage of dataplane's pure modules, in percent.
LEAST_COVERAGE = 95
COVERAGE = ("--ignore-filename-regex", "/(tests|testing|samples)", "--output-path")
# The modules that miri interprets: those that everything else stands on. All of them would take it hours.
INTERPRETED = [
    f"{module}::"
    for module in ("buf", "burst", "csum", "flow", "load", "lookup", "publish", "route", "stats", "wire")
]
# The packet path without DPDK.
PURE = ("-p", "dataplane", "--no-default-features")
# What `Avx512` of dataplane's `eight.rs` asks for.
EIGHT_AT_A_TIME = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
CARGO_COUNTS = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed; (\d+) ignored", re.MULTILINE)
PYTEST_COUNT = re.compile(r"(\d+) (passed|failed|error|errors|skipped|xfailed|xpassed)\b")


def main():
    """Runs all steps, also after one failed, and returns the exit code."""
    totals = Counter()
    failed_steps = [name for name, step in STEPS.items() if not announced(name, step, totals)]
    print("\n== summary")
    print(", ".join(f"{totals[what]} {what}" for what in ("passed", "failed", "skipped")))
    if failed_steps:
        print(f"FAILED: {', '.join(failed_steps)}")
        return 1
    return 0


def announced(name, step, totals):
    """Runs one step under a headline."""
    print(f"\n== {name}", flush=True)
    return step(totals)


def cargo(*words, env=None):
    """A step that runs cargo and counts what its test harnesses report."""

    def step(totals):
        code, output = stream("cargo", *words, env=env)
        for passed, failed, ignored in CARGO_COUNTS.findall(output):
            totals.update(passed=int(passed), failed=int(failed), skipped=int(ignored))
        return code == 0

    return step


def covered(totals):
    """The tests of the pure modules without DPDK, and how many of their lines these run."""
    why_not = coverage_missing()
    if why_not:
        print(f"SKIPPED: coverage: {why_not}", flush=True)
        totals.update(skipped=1)
        return cargo("test", *PURE)(totals)
    report = ROOT / "target" / "coverage.json"
    report.parent.mkdir(exist_ok=True)
    passed = cargo("llvm-cov", "test", *PURE, "--json", "--summary-only", *COVERAGE, report)(totals)
    percent = json.loads(report.read_text())["data"][0]["totals"]["lines"]["percent"] if passed else 0
    print(f"line coverage of the pure modules: {percent:.1f} %, at least {LEAST_COVERAGE} % are asked for")
    return passed and percent >= LEAST_COVERAGE


def coverage_missing():
    """Why coverage can not be measured, after trying to install what that needs; `None` if it can."""
    return missing(
        ("rustup", "component", "add", "llvm-tools"),
        ("cargo", "install", "--locked", "cargo-llvm-cov"),
        ("cargo", "llvm-cov", "--version"),
    )


def miri(totals):
    """The pure modules under miri, which sees undefined behaviour; needs the nightly toolchain."""
    why_not = miri_missing()
    if why_not:
        print(f"SKIPPED: miri: {why_not}", flush=True)
        totals.update(skipped=1)
        return True
    # Property tests keep failing cases in files and take hundreds of cases by default: miri hides the
    # file system unless told otherwise, and is some hundred times slower.
    env = {"MIRIFLAGS": "-Zmiri-disable-isolation", "PROPTEST_CASES": "4"}
    words = ("+nightly", "miri", "test", *PURE, "--")
    return cargo(*words, *INTERPRETED, env=env)(totals)


def miri_missing():
    """Why miri can not be used, after trying to install it; `None` if it can."""
    return missing(
        ("rustup", "component", "add", "--toolchain", "nightly", "miri", "rust-src"),
        ("cargo", "+nightly", "miri", "setup"),
    )


def address_sanitizer(totals):
    """The tests without DPDK with every access to memory checked; needs the nightly toolchain."""
    why_not = missing(("cargo", "+nightly", "--version"))
    if why_not:
        print(f"SKIPPED: address sanitizer: {why_not}", flush=True)
        totals.update(skipped=1)
        return True
    # Naming a target leaves macros alone: those run in the compiler, which is not sanitized.
    words = ("+nightly", "test", *PURE, "--tests", "--target", "host-tuple")
    return cargo(*words, env={"RUSTFLAGS": "-Zsanitizer=address"})(totals)


def in_release_mode(totals):
    """The tests of the packet path as users run it. Those of packets that are sighted eight at a time need AVX-512."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if not flags or not EIGHT_AT_A_TIME <= set(flags[1].split()):
        print("SKIPPED: eight packets at a time: this processor has no AVX-512", flush=True)
        totals.update(skipped=1)
    return cargo("test", "--profile", "release-test", *PURE)(totals)


def missing(*commands):
    """Why the last of these commands does not work after the others were tried; `None` if it does."""
    lines = []
    for command in commands:
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        lines += ended.stderr.strip().splitlines() if ended.returncode else []
    return None if ended.returncode == 0 else (lines or [f"`{' '.join(commands[-1])}` fails"])[-1]


def pytest(*places):
    """A step that runs the tests in some directories, on the release binaries."""

    def step(totals):
        # Debian's python, for Debian's scapy; no caches, for root would own them.
        words = (sys.executable, "-B", "-m", "pytest", "-ra", "-p", "no:cacheprovider", *places)
        code, output = stream(*words)
        last = next((line for line in reversed(output.splitlines()) if PYTEST_COUNT.search(line)), "")
        for count, what in PYTEST_COUNT.findall(last):
            totals.update({outcome(what): int(count)})
        return code == 0

    return step


def outcome(what):
    """Pytest's word as one of ours."""
    if what in ("passed", "xpassed"):
        return "passed"
    return "skipped" if what in ("skipped", "xfailed") else "failed"


def stream(*argv, env=None):
    """Runs a command, shows its output as it comes, and returns the exit code and that output."""
    kept = []
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **(env or {})}, **options) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            kept.append(line)
    return process.returncode, "".join(kept)


STEPS = {
    "cargo test": cargo("test", "--workspace"),
    "dataplane without DPDK": covered,
    "dataplane in release mode": in_release_mode,
    "address sanitizer": address_sanitizer,
    "miri": miri,
    "replay and end to end": pytest("tests/replay", "tests/e2e"),
    "on PCI NICs in a virtual machine": pytest("tests/nic", "-k", "virtio-2 or segment"),
    "against Linux IPVS in a virtual machine": pytest("tests/oracle"),
}

if __name__ == "__main__":
    sys.exit(main())

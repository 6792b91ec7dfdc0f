#!/usr/bin/python3
"""Builds trutinad for the way that its packets go: `make build-pgo`.

A first build counts how often each branch is taken while `perf device` sends packets through it; a second one is laid
out by that (profile-guided optimization). The packets are those of `perf device`: IPv4, of known flows, in all modes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TRIAL = TARGET / "pgo"
COUNTS, PROFILE = TRIAL / "counts", TRIAL / "trutinad.profdata"
# As the Makefile does.
SUDO = () if os.geteuid() == 0 else ("sudo",)


def profdata():
    """The program that reads counts. It comes with the compiler: another version may not know their form."""
    asked = subprocess.run(("rustc", "--print", "sysroot"), cwd=ROOT, capture_output=True, text=True, check=True)
    found = next(Path(asked.stdout.strip()).glob("lib/rustlib/*/bin/llvm-profdata"), None)
    return found or sys.exit("error: there is no llvm-profdata; try `rustup component add llvm-tools`")


def build(target, flag, *packages, **environ):
    """Builds for release with one more flag of the compiler."""
    flags = f"{os.environ.get('RUSTFLAGS', '')} {flag}".strip()
    environ = os.environ | {"RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(target)} | environ
    subprocess.run(("cargo", "build", "--release", *packages), cwd=ROOT, env=environ, check=True)


def main():
    """Builds, counts, and builds again."""
    merge = profdata()
    shutil.rmtree(COUNTS, ignore_errors=True)
    # By us, so that we can remove what root puts there.
    COUNTS.mkdir(parents=True)
    # Build scripts are compiled with the same flag, and what they count is of no use.
    build(TRIAL, f"-Cprofile-generate={COUNTS}", "--package=trutina", LLVM_PROFILE_FILE=os.devnull)
    # `perf` runs the trutinad beside it.
    trial = shutil.copy(TARGET / "release/perf", TRIAL / "release/perf")
    counting = ("env", f"LLVM_PROFILE_FILE={COUNTS}/%p.profraw")
    subprocess.run((*SUDO, *counting, trial, "device", "--quick", "--rounds=1"), check=True)
    counts = sorted(COUNTS.glob("*.profraw"))
    subprocess.run((merge, "merge", "--output", PROFILE, *counts), check=True)
    build(TARGET, f"-Cprofile-use={PROFILE}", "--package=trutina")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)

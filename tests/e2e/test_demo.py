"""The demo itself, on every device, and after an unclean end of the one before."""

import os
import re
import signal
import subprocess
import sys

import pytest

from lab import modes, netns, whole
from lab.appliance import ROOT
from lab.netns import Process, run, wait_until

PREFIX = "trutina-try"


def demo(*words):
    """Runs the demo to its end."""
    argv = [sys.executable, "-B", ROOT / "tests/demo.py", "--prefix", PREFIX, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def assert_done(ended):
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "DONE" in ended.stdout
    assert "FAILED" not in ended.stdout


def assert_nothing_left():
    assert netns.named(PREFIX) == []
    assert not whole.state_dir(PREFIX).exists()


def test_full_demo_on_af_packet():
    ended = demo()
    assert_done(ended)
    for mode in modes.NAMES:
        even = rf" {mode} .* 1500 connections, 0 failed: s1 500, s2 500, s3 500"
        assert re.search(even, ended.stdout), mode
    assert ended.stdout.count("900 connections, 0 failed: s1 400, s2 300, s3 200") == 2
    assert_nothing_left()


@pytest.mark.parametrize("device", ["af_xdp", "tap"])
def test_short_demo_on_other_devices(device):
    assert_done(demo("--short", "--device", device))
    assert_nothing_left()


def test_demo_after_one_that_stayed_up():
    kept = demo("--short", "--keep")
    assert_done(kept)
    assert "What to try" in kept.stdout
    assert len(netns.named(PREFIX)) == 6
    again = demo("--short")
    assert "first took away" in again.stdout
    assert_done(again)
    assert_nothing_left()


def start_demo(tmp_path):
    """Starts a demo and waits until it is in the middle of its loads."""
    argv = [sys.executable, "-B", ROOT / "tests/demo.py", "--prefix", PREFIX]
    process = Process(argv, tmp_path / "demo.log", {"PYTHONUNBUFFERED": "1"})
    wait_until(lambda: "New connections" in process.tail(100), "the demo sends its load", timeout=30)
    return process


def test_killed_demo_is_cleaned_up_after(tmp_path):
    process = start_demo(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5)
    assert len(netns.named(PREFIX)) == 6
    down = demo("--down")
    assert down.returncode == 0, down.stderr
    assert_nothing_left()


def test_interrupted_demo_takes_everything_away(tmp_path):
    process = start_demo(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 1
    assert_nothing_left()


def test_demo_without_programs_says_what_to_do(tmp_path):
    argv = [sys.executable, "-B", ROOT / "tests/demo.py", "--prefix", PREFIX]
    env = {**os.environ, "TRUTINAD": str(tmp_path / "absent")}
    ended = run(*argv, check=False, env=env)
    assert ended.returncode == 1
    assert "make build" in ended.stderr
    assert_nothing_left()

"""Workers that rest while nothing comes: they leave their cores to others, and answer all the same."""

import os
import time
from pathlib import Path

import pytest

from lab import checks, load, modes
from lab.balance import settled

SECONDS = 2


@pytest.mark.parametrize("idle", ["pause", "sleep"])
def test_all_is_answered_after_a_rest(fresh_lab, idle):
    lab = fresh_lab
    lab.appliance.start(lab.config.changed(idle=idle))
    try:
        assert [worker["idle"] for worker in lab.appliance.ask("status")["workers"]] == [idle]
        for mode in modes.ALL:
            service = lab.service(mode.name)
            answers = load.curl(lab.client, service.vip, 3)
            assert sorted(answers) == sorted(lab.servers), service.name
            assert checks.split(lab, service, 120).exact, service.name
        assert lab.appliance.cli("flow", "list").returncode == 0
        assert all(one.holds for one in settled(lab.appliance))
    finally:
        assert lab.appliance.stop() == 0


def test_a_worker_that_sleeps_leaves_most_of_its_core_to_others(fresh_lab):
    lab = fresh_lab
    lab.appliance.start(lab.config.changed(idle="sleep"))
    try:
        settled(lab.appliance)
        before, began = worker_secs(lab.appliance.process.pid), time.monotonic()
        time.sleep(SECONDS)
        used, passed = worker_secs(lab.appliance.process.pid) - before, time.monotonic() - began
        # A worker that polls uses all of it, if nobody else wants the core.
        assert used < passed / 2
    finally:
        lab.appliance.stop()


def worker_secs(pid):
    """Seconds of CPU time that the workers of a process have used."""
    tasks = Path(f"/proc/{pid}/task").glob("*")
    workers = [task for task in tasks if (task / "comm").read_text().startswith("worker-")]
    assert workers, f"process {pid} has no workers"
    # Behind the name: fields 3 and on; the times are fields 14 and 15 (proc(5)).
    fields = [(task / "stat").read_text().rpartition(")")[2].split() for task in workers]
    ticks = sum(int(each[11]) + int(each[12]) for each in fields)
    return ticks / os.sysconf("SC_CLK_TCK")

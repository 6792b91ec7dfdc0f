"""CPU time: of the whole machine, and of the processes of some namespaces."""

import os
from pathlib import Path

from lab import netns

TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
IDLE, IOWAIT, STEAL = 3, 4, 7
# Of the fields after the name.
USER_AND_SYSTEM = slice(11, 13)


def machine_idle_us():
    """Time that all cores together were idle since boot. (Idle time is measured; busy time is sampled by ticks.)"""
    fields = machine_fields()
    return (fields[IDLE] + fields[IOWAIT]) * TICK_US


def machine_stolen_us():
    """Time that the hypervisor took from all cores together since boot; 0 on a machine of its own."""
    return machine_fields()[STEAL] * TICK_US


def machine_fields():
    """Ticks of all cores together since boot, by kind (proc(5))."""
    return [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def of_processes(pids):
    """Time of these processes, all threads, in user and kernel; of those that are gone none."""
    total = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        # The name, in parentheses, may have spaces.
        total += sum(map(int, stat.rpartition(")")[2].split()[USER_AND_SYSTEM]))
    return total * TICK_US


def of_namespace(space):
    """Time of all processes in a namespace."""
    return of_processes(netns.pids(space.name))


def of_children():
    """Time of this process's children that have ended."""
    times = os.times()
    return (times.children_user + times.children_system) * 1e6


def soft_interrupt_threads():
    """Ids of the kernel's threads for soft interrupts that no process's time could be taken for."""
    names = {int(entry.name): entry / "comm" for entry in Path("/proc").glob("[0-9]*")}
    return [pid for pid, name in names.items() if comm(name).startswith("ksoftirqd")]


def comm(file):
    """A process's name; empty if it is gone."""
    try:
        return file.read_text()
    except OSError:
        return ""

"""Fixtures of the end to end tests: labs, and the proof that they leave nothing behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import netns, whole  # noqa: E402
from support import PREFIX  # noqa: E402


# A background job of a script ignores it, and so would whatever is started here, which some tests end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Without root there are no namespaces, and these tests say so instead of failing."""
    if os.geteuid() != 0:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="network namespaces need root"))


@pytest.fixture(scope="module")
def lab():
    """A lab with the appliance running on af_packet, shared by the tests of one file."""
    with whole.Lab(PREFIX) as built:
        built.appliance.start(built.config)
        yield built


@pytest.fixture(scope="module")
def idle_lab():
    """A lab whose appliance is not started."""
    with whole.Lab(PREFIX) as built:
        yield built


@pytest.fixture
def fresh_lab():
    """A lab of one test alone, whose appliance is not started.

    For exact counts of connections: after a restart the appliance may take a local port that a server still
    holds in TIME-WAIT. If the client's timestamps look older than those of the last connection there (RFC 7323,
    5.3), the server refuses the SYN, the client repeats it after a moment, and it counts twice.
    """
    with whole.Lab(PREFIX) as built:
        yield built


@pytest.fixture(scope="session", autouse=True)
def nothing_left():
    """After the last test the machine is as it was before the first one."""
    before = traces()
    yield
    new = {kind: found - before[kind] for kind, found in traces().items() if found - before[kind]}
    assert not new, f"left behind: {new}"


def traces():
    """What a lab could leave behind: names of everything of its kinds that there is now."""
    return {
        "namespaces": set(netns.named("trutina-")),
        "devices": set(os.listdir("/sys/class/net")),
        "processes": set(ours()),
        "files": {str(path) for place in PLACES for path in Path(place).glob("*trutina*")},
        "mounts": {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()} - {NETNS},
    }


# The first `ip netns add` of a machine makes this mount, and it stays.
NETNS = "/run/netns"


PLACES = ("/run", "/run/dpdk", "/dev/hugepages")


def ours():
    """Processes of a lab, as `name (id)`."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(f"/run/{prefix}" in word for word in words for prefix in ("trutina-e2e", "trutina-try")):
            yield f"{words[0]} ({entry.name})"

"""Servers die, weights change, files are reloaded, the appliance is stopped: all of it under load."""

import contextlib
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab import load
from lab.appliance import EXIT_INVALID
from lab.netns import run, wait_until
from support import Client, assert_kept, clients, errors, healths, servers_by_connection

# One service of each mode that is kept busy here, of either IP version and across them.
WATCHED = ("nat-4", "dr-6", "full-nat-64", "ipip-6in4")

HUGEPAGES_DIR = Path("/dev/hugepages")
HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
# One turn of the control thread, in which it acts on what a check said.
TICK_SECS = 0.2
# Asking by the CLI and the lab's own scheduling on a shared core are not the appliance's doing.
ASKING_SECS = 0.2


@pytest.fixture(autouse=True)
def restored(lab):
    """Every test begins with the appliance running on the lab's file and all servers up."""
    if not lab.appliance.process.running():
        lab.appliance.start(lab.config)
    lab.appliance.write(lab.config)
    lab.appliance.cli("reload")
    wait_until(lambda: all(healths(lab, name) == {"up"} for name in lab.servers), "all servers are up")


def watched(lab):
    """The services that get requests while something happens."""
    return [lab.service(name) for name in WATCHED]


@contextlib.contextmanager
def crashed(lab, name):
    """nginx of one server is killed, and starts again after the block."""
    lab.servers[name].kill()
    try:
        yield
    finally:
        lab.servers[name].restart()


@contextlib.contextmanager
def unplugged(lab, name):
    """The cable of one server is pulled, so that nothing answers, and plugged in again after the block."""
    lab.topology.router.ip(f"link set p-{name} down")
    try:
        yield
    finally:
        lab.topology.router.ip(f"link set p-{name} up")


@pytest.mark.parametrize("failure", [crashed, unplugged], ids=["crash", "cable"])
def test_dead_server_leaves_in_time_and_comes_back(lab, failure):
    check = lab.config.services[0].check
    bound = (check.interval_ms * check.fall + check.timeout_ms) / 1000 + TICK_SECS + ASKING_SECS
    with clients(lab, watched(lab), "fresh") as busy:
        with failure(lab, "s2"):
            began = time.monotonic()
            wait_until(lambda: healths(lab, "s2") == {"down"}, "s2 is taken out", timeout=10)
            out = time.monotonic()
            assert out - began <= bound
            for client in busy:
                client.wait_for(50)
            back = time.monotonic()
        wait_until(lambda: healths(lab, "s2") == {"up"}, "s2 comes back")
        returned = time.monotonic()
        for client in busy:
            client.wait_for(50)
    for client in busy:
        after = [request for request in client.requests() if request.began > out]
        assert not errors(after), f"{errors(after)}\n{lab.appliance.cli('stats').stdout}"
        assert "s2" not in {request.server for request in after if request.ended < back}
        assert "s2" in {request.server for request in after if request.began > returned}


def test_flows_of_other_servers_outlive_a_dead_one(lab):
    with clients(lab, watched(lab), "held", "9") as busy, crashed(lab, "s2"):
        wait_until(lambda: healths(lab, "s2") == {"down"}, "s2 is taken out")
        for client in busy:
            client.wait_for(50)
    for client in busy:
        answered = servers_by_connection(client.requests())
        lived = [names for names in answered.values() if "s2" not in names]
        assert len(lived) >= 5
        assert {frozenset(names) for names in lived} == {frozenset({"s1"}), frozenset({"s3"})}


def test_weight_0_takes_no_new_flows_and_keeps_the_old(lab):
    nat = lab.service("nat-4")
    with clients(lab, watched(lab), "held", "9") as held:
        lab.appliance.cli("backend", "set", nat.key, nat.backends[1].address, "--weight", "0")
        assert "s2" not in load.curl(lab.client, nat.vip, 9)
        for client in held:
            client.wait_for(30)
        assert any("s2" in names for names in servers_by_connection(held[0].requests()).values())
    assert_kept(held)


def test_removed_backend_keeps_its_flows(lab):
    nat = lab.service("nat-4")
    with clients(lab, watched(lab), "held", "9") as held, clients(lab, [nat], "fresh") as fresh:
        lab.appliance.cli("backend", "remove", nat.key, nat.backends[2].address)
        assert "s3" not in load.curl(lab.client, nat.vip, 6)
        for client in held:
            client.wait_for(30)
        lab.appliance.cli("backend", "add", nat.key, nat.backends[2].address, "--mode", "nat")
        # The other clients take their turns in between.
        wait_until(lambda: "s3" in load.curl(lab.client, nat.vip, 1), "s3 serves again")
        for client in held:
            client.wait_for(30)
    assert_kept(held)
    assert not errors(fresh[0].requests())


def test_removed_service_keeps_its_flows(lab):
    nat = lab.service("nat-4")
    others = [service for service in watched(lab) if service is not nat]
    with clients(lab, [nat], "held", "6") as held, clients(lab, others, "fresh") as fresh:
        lab.appliance.cli("service", "remove", nat.key)
        refused = lab.client.run("curl", "-fsS", "--max-time", "1", f"http://{nat.vip}/", check=False)
        assert refused.returncode != 0
        for client in (*held, *fresh):
            client.wait_for(30)
    assert_kept(held)
    for client in fresh:
        assert not errors(client.requests())


@pytest.mark.parametrize("by", ["signal", "command"])
def test_reload_under_load_loses_nothing(lab, by):
    nat, dr, *_ = watched(lab)
    rest = [service for service in lab.config.services if service not in (nat, dr)]
    without_s3 = replace(nat, backends=nat.backends[:2])
    changed = lab.config.changed(services=[without_s3, replace(dr, scheduler="wrr"), *rest])
    with clients(lab, watched(lab), "held", "9") as held, clients(lab, [nat, dr], "fresh") as fresh:
        for config, backends in ((changed, 2), (lab.config, 3)):
            lab.appliance.write(config)
            if by == "signal":
                lab.appliance.hang_up()
            else:
                lab.appliance.cli("reload")
            # The signal is answered by nothing; the command has done it when it ends.
            patience = 5 if by == "signal" else 0
            wait_until(lambda n=backends: len(lab.appliance.conns(nat.key)) == n, "it is in force", patience)
            for client in (*held, *fresh):
                client.wait_for(30)
    assert_kept(held)
    for client in fresh:
        assert not errors(client.requests())


def test_invalid_file_changes_nothing(lab):
    before = lab.appliance.ask("service", "list")
    text = lab.config.toml()
    line = text[: text.index('mode = "dr"')].count("\n") + 1
    lab.appliance.file.write_text(text.replace('mode = "dr"', 'mode = "direct"', 1))
    with clients(lab, watched(lab), "held", "3") as held:
        said = lab.appliance.cli("reload", check=False)
        assert said.returncode == EXIT_INVALID
        assert f"{lab.appliance.file.name}:{line}:" in said.stderr

        marks = lab.appliance.log.read_text().count(f":{line}:")
        lab.appliance.hang_up()
        wait_until(lambda: lab.appliance.log.read_text().count(f":{line}:") > marks, "the log says the same")
        for client in held:
            client.wait_for(20)
    assert_kept(held)
    assert configured(lab.appliance.ask("service", "list")) == configured(before)


def configured(services):
    """What of the services' status is configuration."""

    def backends(service):
        return [[backend[key] for key in ("address", "mode", "weight")] for backend in service["backends"]]

    return [(service["service"], service["scheduler"], backends(service)) for service in services]


@pytest.mark.parametrize("order", ["TERM", "INT", "stop"])
def test_stop_under_load(lab, order):
    with clients(lab, watched(lab), "fresh"):
        stop_in_time(lab, order)


def stop_in_time(lab, order):
    """Stops trutinad by a signal or by `trutina stop`; it has 2 seconds."""
    began = time.monotonic()
    if order == "stop":
        lab.appliance.cli("stop")
    else:
        lab.appliance.process.popen.send_signal(signal.Signals[f"SIG{order}"])
    assert lab.appliance.process.wait(10) == 0, lab.appliance.process.tail()
    assert time.monotonic() - began < 2
    assert not lab.appliance.socket.exists()


@contextlib.contextmanager
def reserved(pages):
    """So many huge pages more, while the block runs."""
    knob = HUGEPAGES / "nr_hugepages"
    before = int(knob.read_text())
    knob.write_text(str(before + pages))
    try:
        yield
    finally:
        knob.write_text(str(before))


@contextlib.contextmanager
def mounted_hugetlbfs():
    """The file system of huge pages is mounted while the block runs; by us if it was not."""
    if any(line.split()[2] == "hugetlbfs" for line in Path("/proc/mounts").read_text().splitlines()):
        yield
        return
    made = not HUGEPAGES_DIR.exists()
    HUGEPAGES_DIR.mkdir(exist_ok=True)
    run("mount", "-t", "hugetlbfs", "nodev", HUGEPAGES_DIR)
    try:
        yield
    finally:
        run("umount", HUGEPAGES_DIR)
        if made:
            HUGEPAGES_DIR.rmdir()


def free_hugepages():
    """Huge pages that nobody uses."""
    return int((HUGEPAGES / "free_hugepages").read_text())


@pytest.fixture
def hugepages(lab):
    """256 MB of huge pages, and the appliance stopped; yields how many pages are free."""
    # trutinad sees the mounts that were there when it started.
    lab.appliance.stop()
    with reserved(128), mounted_hugetlbfs():
        free = free_hugepages()
        if free < 128:
            pytest.skip(f"the kernel has only {free} huge pages to give")
        yield free
        lab.appliance.stop()


def test_stop_under_load_gives_hugepages_back(lab, hugepages):
    lab.appliance.start(lab.config.changed(hugepages=True))
    with clients(lab, watched(lab), "fresh"):
        assert free_hugepages() < hugepages
        stop_in_time(lab, "TERM")
    wait_until(lambda: free_hugepages() == hugepages, "all huge pages are free again")
    assert list(HUGEPAGES_DIR.glob("*map_*")) == []


def test_killed_appliance_starts_again(lab):
    lab.appliance.process.kill()
    assert lab.appliance.socket.exists()
    lab.appliance.start(lab.config)
    client = Client(lab, lab.service("nat-4").vip, "fresh")
    client.wait_for(20)
    client.process.stop()
    assert not errors(client.requests())

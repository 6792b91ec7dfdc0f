"""The kernel of the appliance uses DPDK's ports by tap devices: it has no other network here."""

import hashlib
import os
import re

import pytest

import arms
from lab import sshd
from lab.appliance import Check
from lab.arms import FAMILIES
from lab.arms_config import SERVICES, endpoint
from lab.netns import wait_until
from lab.modes import NAT_PORT

each_version = pytest.mark.parametrize("family", FAMILIES, ids=[f"v{family.version}" for family in FAMILIES])
HOSTS = ("tap-out", "tap-in")
CHECK = Check(interval_ms=500, timeout_ms=500, rise=1, fall=2, port=NAT_PORT)
# On two ports or on two VLANs of one, whose taps are untagged; with two workers anyone may meet such a frame.
SHAPES = {"two-ports": (None, 2), "vlans": (((10,), (20,)), 1)}


@pytest.fixture(scope="module", params=SHAPES)
def lab(request):
    """A lab whose appliance has taps, and health checks that go by them."""
    trunk, workers = SHAPES[request.param]
    with arms.started(trunk=trunk, workers=workers, hosts=HOSTS, check=CHECK) as built:
        built.workers = workers
        yield built


def healths(lab, name):
    """What the checks say of a server, in every service."""
    number = sorted(lab.servers).index(name)
    return {service["backends"][number]["health"] for service in lab.lb.ask("service", "list")}


def ping(space, address, *options):
    """What `ping` prints."""
    return space.run("ping", "-n", "-c", "5", "-i", "0.02", "-W", "3", *options, address, check=False).stdout


def test_taps_are_there_with_addresses_and_nothing_else_is(lab):
    shown = lab.appliance.run("ip", "-brief", "address", "show", "scope", "global").stdout
    for device, number in zip(HOSTS, (0, 1), strict=True):
        line = next(line for line in shown.splitlines() if line.startswith(device))
        assert {family.net(family.own[number]) for family in FAMILIES} <= set(line.split())
    assert {line.split()[0] for line in shown.splitlines() if re.search(r"[.:]\d", line)} == set(HOSTS)


@each_version
def test_the_appliance_pings_both_sides(lab, family):
    for address in (family.client, *map(family.server, lab.servers)):
        assert "5 received, 0% packet loss" in ping(lab.appliance, address, "-s", "1000")


@each_version
def test_the_appliance_is_pinged_from_both_sides(lab, family):
    for space, address in ((lab.client, family.own[0]), (lab.servers["s1"], family.own[1])):
        assert "5 received, 0% packet loss" in ping(space, address)


@each_version
def test_the_appliance_fetches_pages(lab, family):
    for address, name in ((family.server("s2"), "s2"), (family.client, "outside")):
        url = f"http://{endpoint(address, NAT_PORT)}/"
        page = lab.appliance.run("curl", "-gfsS", "--max-time", "5", url).stdout
        assert page == f"server {name}\n"


def test_people_log_in_to_the_appliance(lab):
    sent = os.urandom(300_000)
    (lab.state / "sent").write_bytes(sent)
    with sshd.serving(lab.appliance, lab.state) as ssh:
        for family in FAMILIES:
            own = family.own[0]
            said = lab.client.run(*ssh, own, "ip -brief link show tap-out; echo $SSH_CLIENT").stdout
            assert "tap-out" in said
            assert said.splitlines()[-1].startswith(f"{family.client} ")
            with open(lab.state / "sent", "rb") as file:
                digest = lab.client.run(*ssh, own, "sha256sum", stdin=file).stdout.split()[0]
            assert digest == hashlib.sha256(sent).hexdigest()


def test_health_checks_go_by_the_taps(lab):
    """Nobody is up by default: a server is stopped and comes back, as the checks see."""
    wait_until(lambda: all(healths(lab, name) == {"up"} for name in lab.servers), "all servers are up")
    victim = lab.nginx["s3"]
    victim.kill()
    wait_until(lambda: healths(lab, "s3") == {"down"}, "s3 is taken out")
    assert all(healths(lab, name) == {"up"} for name in ("s1", "s2"))
    victim.restart()
    wait_until(lambda: healths(lab, "s3") == {"up"}, "s3 is back")


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
def test_services_work_besides(lab, service):
    arms.assert_serves(lab, service, 60, lab.workers)


def test_every_frame_is_accounted_for(lab):
    # A connection of a check whose server has gone is over when its last answer comes.
    arms.assert_accounted(lab, arms.HARMLESS)

"""Clients on one port and servers on another, or on two VLANs of one port: every mode, both IP versions.

The tags are put on and taken off by programs of the lab, which drop what comes without the right ones.
"""

import hashlib
import os
import re

import pytest

import arms
from lab.arms import DIRECT
from lab.arms_config import SERVICES
from lab.capture import Capture
from lab.netns import wait_until

# Tags of clients' and servers' networks, the outer one first.
TRUNKS = {
    "two-ports": None,
    "vlans": ((10,), (20,)),
    # The inner one alone does not tell the networks apart.
    "qinq": ((100, 30), (200, 30)),
}
BIG = os.urandom(900 * 1024)


@pytest.fixture(scope="module", params=TRUNKS)
def lab(request):
    """The lab, wired in one of these ways."""
    with arms.started(trunk=TRUNKS[request.param]) as built:
        for name in arms.server_names():
            (built.state / name / "upload/down").write_bytes(BIG)
        (built.state / "up").write_bytes(BIG)
        yield built


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
def test_requests_are_answered_in_turns(lab, service):
    arms.assert_serves(lab, service, 300)


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
def test_full_segments_pass_both_ways(lab, service):
    url = f"http://{service.vip}/upload"
    words = ("curl", "-gfsS", "--max-time", "10", "-H", "Expect:")
    file = lab.state / f"downloaded-{service.name}"
    lab.client.run(*words, "-o", file, f"{url}/down")
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(BIG).digest()
    name = f"up-{service.name}"
    said = lab.client.run(*words, "-w", "%header{x-server}", "-T", lab.state / "up", f"{url}/{name}")
    uploaded = (lab.state / said.stdout / "upload" / name).read_bytes()
    assert hashlib.sha256(uploaded).digest() == hashlib.sha256(BIG).digest()


def tagged(seen, stack):
    """Frames that tcpdump printed with just these tags."""
    for line in seen.text().splitlines():
        if [int(tag) for tag in re.findall(r"vlan (\d+), p ", line)] == list(stack):
            yield line


def test_tags_are_on_the_wire(lab):
    """As tcpdump sees the frames at the far end of the appliance's port."""
    if not lab.trunk:
        pytest.skip("two ports have no tags")
    mac = lab.appliance.run("cat", "/sys/class/net/l0/address").stdout.strip()
    with Capture(lab.net, "p-l0", f"ether src {mac}", lab.state / "tags.log", "-e") as seen:
        arms.assert_serves(lab, SERVICES[0], 20)
        # Each answer has at least three packets of the service, and as many go to a server.
        wait_until(lambda: all(len(list(tagged(seen, stack))) >= 60 for stack in lab.trunk), f"frames of {lab.trunk}")
    right = {line for stack in lab.trunk for line in tagged(seen, stack)}
    # The kernel may send frames of other types by the same device.
    sent = [line for line in seen.text().splitlines() if f"{mac} > " in line and re.search("ethertype (IPv|ARP)", line)]
    assert [line for line in sent if line not in right] == []


def test_direct_replies_do_not_come_by(lab):
    for service in SERVICES:
        counters = lab.lb.service(service.key)["counters"]
        assert (counters["out_packets"] == 0) == (service.mode in DIRECT)


def test_every_frame_is_accounted_for(lab):
    arms.assert_accounted(lab)

"""What clients and servers see: who answers, in what order, by which way, and with right checksums."""

import re

import pytest

from lab import balance, checks, load, modes
from lab.addresses import FAMILIES, V4, split
from lab.capture import Capture
from lab.netns import wait_until
from lab.topology import PORT_DEVICE

each_version = pytest.mark.parametrize("family", FAMILIES, ids=["4", "6"])

# What tcpdump says of the packets of a tunnel.
OUTER = {"ipip": r": IP6? .*", "gue": r"\.6080: \[udp sum ok\]", "gre": r": GREv0, Flags \[checksum present\]"}


@pytest.mark.parametrize("mode", modes.NAMES)
def test_round_robin_is_exact_over_3000_connections(lab, mode):
    shared = checks.split(lab, lab.service(mode), 3000)
    assert shared.result.complete == 3000
    assert shared.exact, shared


@each_version
def test_weights_are_exact_over_900_connections(lab, family):
    shared = checks.split(lab, lab.service(f"weighted-{family.version}"), 900)
    assert shared.wanted == {"s1": 400, "s2": 300, "s3": 200}
    assert shared.exact, shared


@each_version
def test_weighted_round_robin_has_the_order_of_ipvs(lab, family):
    answers = load.curl(lab.client, lab.service(f"weighted-{family.version}").vip, 18)
    order = ["s1", "s1", "s2", "s1", "s2", "s3", "s1", "s2", "s3"]
    turns = [order[turn:] + order[:turn] for turn in range(len(order))]
    # Where in its cycle the scheduler stands depends on the connections before.
    assert answers in [turn * 2 for turn in turns]


@pytest.mark.parametrize("mode", modes.NAMES)
def test_kept_connections_have_no_failed_request(lab, mode):
    result = load.wrk(lab.client, lab.service(mode).vip, seconds=1)
    assert result.complete > 100
    assert result.failed == 0


@pytest.mark.parametrize("mode", modes.DIRECT)
def test_direct_replies_do_not_pass_the_appliance(lab, mode):
    service = lab.service(mode)
    vip, port = split(service.vip)
    requests = f"tcp and src host {modes.BY_NAME[mode].peer} and dst host {vip}"
    replies = f"tcp and src host {vip} and src port {port}"
    space, logs = lab.topology.appliance, lab.state
    with (
        Capture(space, PORT_DEVICE, replies, logs / "replies.log") as seen,
        Capture(lab.client, "c0", replies, logs / "received.log") as received,
        Capture(space, PORT_DEVICE, requests, logs / "requests.log") as asked,
    ):
        load.hey(lab.client, service.vip, 300)
    assert asked.matched() > 0 and received.matched() > 0
    assert seen.matched() == 0
    came, replied = checks.packets(lab, service)
    assert came > 0
    assert replied == 0


@pytest.mark.parametrize("mode", modes.TRANSLATED)
def test_client_never_sees_a_backends_address(lab, mode):
    inside = [family.server(name) for family in FAMILIES for name in lab.servers]
    inside += [family.pool for family in FAMILIES]
    hidden = " or ".join(f"host {address}" for address in inside)
    with (
        Capture(lab.client, "c0", hidden, lab.state / "hidden.log") as leaked,
        Capture(lab.client, "c0", f"host {modes.BY_NAME[mode].address}", lab.state / "vip.log") as witness,
    ):
        assert load.hey(lab.client, lab.service(mode).vip, 300).failed == 0
    assert witness.matched() > 300
    assert leaked.matched() == 0


@pytest.mark.parametrize("mode", modes.NAMES)
def test_checksums_are_right_at_the_server(lab, mode):
    service = lab.service(mode)
    of_client = f"host {modes.BY_NAME[mode].peer}"
    with Capture(lab.topology.servers["s1"], "e0", of_client, lab.state / "sums.log") as seen:

        def enough():
            right, wrong = seen.checksums()
            # 40 connections with at least a SYN, a request and a FIN each way.
            return wrong or right >= 240

        load.hey(lab.client, service.vip, 120)
        wait_until(enough, "tcpdump prints the packets")
    assert not seen.checksums()[1]


@pytest.mark.parametrize("mode", modes.TUNNELS)
def test_tunnel_header_is_right_on_the_wire(lab, mode):
    inside = modes.BY_NAME[mode].inside
    tunnelled = f"src host {inside.own} and dst host {inside.server('s1')}"
    with Capture(lab.topology.router, "p-s1", tunnelled, lab.state / "outer.log") as seen:
        load.hey(lab.client, lab.service(mode).vip, 120)
        wait_until(lambda: seen.checksums()[0] >= 120, "tcpdump prints the packets")
    assert not seen.checksums()[1]
    assert re.search(OUTER[modes.BY_NAME[mode].tunnel], seen.text())


def test_the_checksum_witness_sees_a_wrong_one(lab):
    server = lab.topology.servers["s1"]
    mac = server.run("cat", "/sys/class/net/e0/address").stdout.strip()
    send = (
        "from scapy.all import Ether, IP, TCP, sendp\n"
        f"ip = IP(src='{V4.client}', dst='{V4.server('s1')}') / TCP(sport=9, dport=9, chksum=0x1234)\n"
        f"sendp(Ether(src='02:00:5e:00:53:99', dst='{mac}') / ip, iface='p-s1', verbose=False)\n"
    )
    with Capture(server, "e0", "tcp port 9", lab.state / "bad.log") as seen:
        lab.topology.router.run("/usr/bin/python3", "-c", send)
        wait_until(lambda: seen.checksums()[1], "tcpdump prints the packet")
    assert len(seen.checksums()[1]) == 1


def test_every_frame_is_accounted_for(lab):
    load.hey(lab.client, lab.service("nat-4").vip, 300)
    (worker,) = balance.settled(lab.appliance)
    assert worker.counts["received"] > 300 and worker.counts["sent"] > 300

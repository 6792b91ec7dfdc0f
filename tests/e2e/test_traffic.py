"""What clients and servers see: who answers, in what order, by which way, and with right checksums."""

import hashlib

import pytest

from lab import balance, checks, load
from lab.capture import Capture
from lab.netns import wait_until
from lab.topology import CLIENT, PORT_DEVICE, SERVERS, VIP_NAT

MODES = ("nat", "dr", "tunnel")
DIRECT = ("dr", "tunnel")


@pytest.mark.parametrize("mode", MODES)
def test_round_robin_is_exact_over_3000_connections(lab, mode):
    split = checks.split(lab, lab.service(mode), 3000)
    assert split.result.complete == 3000
    assert split.exact, split


def test_weights_are_exact_over_900_connections(lab):
    split = checks.split(lab, lab.service("weighted"), 900)
    assert split.wanted == {"s1": 400, "s2": 300, "s3": 200}
    assert split.exact, split


def test_weighted_round_robin_has_the_order_of_ipvs(lab):
    answers = load.curl(lab.client, lab.service("weighted").vip, 18)
    order = ["s1", "s1", "s2", "s1", "s2", "s3", "s1", "s2", "s3"]
    turns = [order[turn:] + order[:turn] for turn in range(len(order))]
    # Where in its cycle the scheduler stands depends on the connections before.
    assert answers in [turn * 2 for turn in turns]


@pytest.mark.parametrize("mode", MODES)
def test_kept_connections_have_no_failed_request(lab, mode):
    result = load.wrk(lab.client, lab.service(mode).vip, seconds=1)
    assert result.complete > 100
    assert result.failed == 0


@pytest.mark.parametrize("mode", DIRECT)
def test_direct_replies_do_not_pass_the_appliance(lab, mode):
    service = lab.service(mode)
    vip, port = service.vip.split(":")
    requests = f"tcp and src host {CLIENT} and dst host {vip}"
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


def test_client_never_sees_a_backends_address_under_nat(lab):
    backends = " or ".join(f"host {address}" for address in SERVERS.values())
    with (
        Capture(lab.client, "c0", f"ip and ({backends})", lab.state / "backends.log") as leaked,
        Capture(lab.client, "c0", f"ip and host {VIP_NAT}", lab.state / "vip.log") as witness,
    ):
        assert load.hey(lab.client, lab.service("nat").vip, 300).failed == 0
    assert witness.matched() > 300
    assert leaked.matched() == 0


@pytest.mark.parametrize("mode", MODES)
def test_checksums_are_right_at_the_server(lab, mode):
    service = lab.service(mode)
    # Where the kernel takes the outer header off, tcpdump sees the packets with it.
    of_client = f"ip and (host {CLIENT} or proto 4)"
    with Capture(lab.topology.servers["s1"], "e0", of_client, lab.state / "sums.log") as seen:

        def enough():
            right, wrong = seen.checksums()
            # 40 connections with at least a SYN, a request and a FIN each way.
            return wrong or right >= 240

        load.hey(lab.client, service.vip, 120)
        wait_until(enough, "tcpdump prints the packets")
    assert not seen.checksums()[1]


def test_tunnel_header_is_right_on_the_wire(lab):
    with Capture(lab.topology.router, "p-s1", "ip proto 4", lab.state / "outer.log") as seen:
        load.hey(lab.client, lab.service("tunnel").vip, 120)
        wait_until(lambda: seen.checksums()[0] >= 120, "tcpdump prints the packets")
    assert not seen.checksums()[1]
    assert f"10.90.0.254 > {SERVERS['s1']}: IP" in seen.text()


def test_the_checksum_witness_sees_a_wrong_one(lab):
    server = lab.topology.servers["s1"]
    mac = server.run("cat", "/sys/class/net/e0/address").stdout.strip()
    send = (
        "from scapy.all import Ether, IP, TCP, sendp\n"
        f"ip = IP(src='{CLIENT}', dst='{SERVERS['s1']}') / TCP(sport=9, dport=9, chksum=0x1234)\n"
        f"sendp(Ether(src='02:00:5e:00:53:99', dst='{mac}') / ip, iface='p-s1', verbose=False)\n"
    )
    with Capture(server, "e0", "tcp port 9", lab.state / "bad.log") as seen:
        lab.topology.router.run("/usr/bin/python3", "-c", send)
        wait_until(lambda: seen.checksums()[1], "tcpdump prints the packet")
    assert len(seen.checksums()[1]) == 1


@pytest.mark.parametrize("mode", MODES)
def test_big_file_comes_whole(lab, mode):
    url = f"http://{lab.service(mode).vip}/big"
    for number in range(len(lab.servers)):
        file = lab.state / f"download-{mode}-{number}"
        lab.client.run("curl", "-fsS", "--max-time", "20", "-o", file, url)
        assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(lab.big).digest()


def test_every_frame_is_accounted_for(lab):
    load.hey(lab.client, lab.service("nat").vip, 300)
    (worker,) = balance.settled(lab.appliance)
    assert worker.counts["received"] > 300 and worker.counts["sent"] > 300

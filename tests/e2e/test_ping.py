"""ICMP as real hosts use it: ping, finding the way, and learning how long a packet may be."""

import hashlib
import re

import pytest

from lab import balance
from lab.capture import Capture
from lab.netns import wait_until
from lab.topology import CLIENT, OWN, SERVERS, VIP_DR, VIP_NAT, VIP_TUNNEL, VIP_WRR

UPLOAD_LEN = 300 * 1024
MTU, TUNNEL_MTU = 1500, 1480


def ping(space, address, *options):
    """What `ping` prints; its exit code is left to the caller."""
    return space.run("ping", "-n", "-W", "2", *options, address, check=False)


@pytest.mark.parametrize("address", [OWN, VIP_NAT, VIP_DR, VIP_TUNNEL, VIP_WRR])
@pytest.mark.parametrize("size", [0, 1, 56, MTU - 28])
def test_ping_is_answered(lab, address, size):
    # A machine that is busy otherwise may lose a frame before the appliance sees it, but not each time.
    for _ in range(3):
        done = ping(lab.client, address, "-c", "3", "-i", "0.01", "-s", str(size), "-M", "do")
        if "3 received, 0% packet loss" in done.stdout:
            break
    assert "3 received, 0% packet loss" in done.stdout
    # One router lies between; ping itself compares what comes back with what it sent.
    assert set(re.findall(r"ttl=(\d+)", done.stdout)) == {"63"}
    assert "wrong data" not in done.stdout


def test_ping_of_zeros_is_answered(lab):
    """Its reply is nothing but zeros, with a checksum that must not be."""
    probe = (
        "import socket\n"
        "raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\n"
        "raw.settimeout(2)\n"
        f"raw.sendto(bytes.fromhex('0800f7ff') + bytes(60), ('{OWN}', 0))\n"
        "print(raw.recvfrom(2000)[0][20:].hex())\n"
    )
    assert lab.client.run("/usr/bin/python3", "-c", probe).stdout.strip() == "0000ffff" + "00" * 60


def test_server_and_router_can_ping_too(lab):
    for space in (lab.topology.router, lab.topology.servers["s1"]):
        done = ping(space, OWN, "-c", "1")
        assert done.returncode == 0, done.stdout
        assert "ttl=64" in done.stdout


def test_an_address_of_nobody_is_silent(lab):
    assert ping(lab.client, "10.90.0.105", "-c", "1", "-W", "1").returncode != 0


@pytest.mark.parametrize("vip", [VIP_NAT, VIP_DR, VIP_TUNNEL])
def test_the_appliance_is_a_hop_on_the_way(lab, vip):
    """A SYN that may take two hops ends at the appliance, which says so; the client's kernel believes it."""
    # As traceroute does it by TCP: IP_TTL is 2, IP_RECVERR 11 and MSG_ERRQUEUE 0x2000 on Linux.
    probe = (
        "import select, socket\n"
        "tcp = socket.socket()\n"
        "tcp.setsockopt(socket.IPPROTO_IP, 2, 2)\n"
        "tcp.setsockopt(socket.IPPROTO_IP, 11, 1)\n"
        "tcp.setblocking(False)\n"
        f"tcp.connect_ex(('{vip}', 80))\n"
        "poll = select.poll()\n"
        "poll.register(tcp, select.POLLERR)\n"
        "poll.poll(3000)\n"
        "control = tcp.recvmsg(512, 512, 0x2000)[1][0][2]\n"
        "print(control[4], control[5], control[6], socket.inet_ntoa(control[20:24]))\n"
    )
    # Origin 2 is ICMP, 11 and 0 are time exceeded in transit.
    assert lab.client.run("/usr/bin/python3", "-c", probe).stdout.split() == ["2", "11", "0", OWN]


def learned_mtu(lab):
    """The path MTU that the client's kernel keeps for the tunnel's VIP."""
    route = lab.client.run("ip", "route", "get", VIP_TUNNEL).stdout
    found = re.search(r"mtu (\d+)", route)
    return int(found[1]) if found else None


def test_a_large_upload_through_the_tunnel_finds_its_mtu(lab):
    """Full segments are 20 bytes too long for the tunnel, which the client learns from the appliance."""
    lab.client.ip("route flush cache")
    assert learned_mtu(lab) is None
    file = lab.state / "upload"
    file.write_bytes(lab.big[:UPLOAD_LEN])
    expression = f"icmp and src host {OWN} and dst host {CLIENT}"
    with Capture(lab.client, "c0", expression, lab.state / "mtu.log") as told:
        url = f"http://{VIP_TUNNEL}/upload/big"
        words = ("-fsS", "--max-time", "20", "-H", "Expect:", "-w", "%{size_upload} %header{x-server}", "-T", file)
        size, name = lab.client.run("curl", *words, url).stdout.split()
        wait_until(lambda: "need to frag" in told.text(), "tcpdump prints the message")
    assert int(size) == UPLOAD_LEN
    assert f"(mtu {TUNNEL_MTU})" in told.text()
    assert "wrong icmp cksum" not in told.text()
    assert learned_mtu(lab) == TUNNEL_MTU
    came = lab.servers[name].uploaded("big")
    assert hashlib.sha256(came).digest() == hashlib.sha256(file.read_bytes()).digest()


def test_a_clients_ping_of_full_length_learns_nothing_wrong(lab):
    """The appliance itself takes packets of the port's MTU; only what it tunnels must be shorter."""
    lab.client.ip("route flush cache")
    done = ping(lab.client, VIP_TUNNEL, "-c", "1", "-s", str(MTU - 28), "-M", "do")
    assert done.returncode == 0, done.stdout
    assert learned_mtu(lab) is None


def test_an_error_about_a_nat_reply_reaches_the_server(lab):
    """The router forbids the reply (3/13) and quotes the VIP; the server must find its own address there."""
    server = lab.topology.servers["s1"]
    forbidden = f"from {VIP_NAT} to {CLIENT} prohibit"
    with Capture(server, "e0", "icmp[0] = 3", lab.state / "passed-on.log") as seen:
        lab.topology.router.ip(f"rule add {forbidden}")
        try:
            for _ in SERVERS:
                lab.client.run("curl", "-s", "--max-time", "1", f"http://{VIP_NAT}/", check=False)
            wait_until(lambda: f"{SERVERS['s1']}.8000 > {CLIENT}" in seen.text(), "tcpdump prints the message")
        finally:
            lab.topology.router.ip(f"rule del {forbidden}")
    assert "wrong icmp cksum" not in seen.text()
    assert "bad cksum" not in seen.text()


def test_answers_are_counted_and_every_frame_is_accounted_for(lab):
    def answered():
        (worker,) = lab.appliance.ask("stats")["workers"]
        return worker["answered"]

    before = answered()
    assert ping(lab.client, OWN, "-c", "5", "-i", "0.01").returncode == 0
    wait_until(lambda: answered() == before + 5, "five answers are counted")
    balance.settled(lab.appliance)

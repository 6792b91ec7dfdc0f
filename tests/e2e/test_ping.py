"""Pings as real hosts send them, and errors about replies."""

import re
from ipaddress import ip_address

import pytest

from lab import balance, modes
from lab.addresses import FAMILIES, SERVERS, V4
from lab.capture import Capture
from lab.netns import wait_until

MTU = 1500
# Header of IP and of the ping.
OVERHEAD = {4: 28, 6: 48}
# How a capture finds "unreachable" about a packet from an address, by its last four bytes, and a port.
UNREACHABLE = {
    4: "icmp[0] = 3 and icmp[20:4] = {} and icmp[28:2] = {}",
    6: "icmp6 and ip6[40] = 1 and ip6[68:4] = {} and ip6[88:2] = {}",
}

each_version = pytest.mark.parametrize("family", FAMILIES, ids=["4", "6"])
each_address = pytest.mark.parametrize(
    ("family", "address"),
    [(family, address) for family in FAMILIES for address in (family.own, *map(family.vip, modes.VIPS))],
    ids=lambda value: value if isinstance(value, str) else "",
)


def ping(space, address, *options):
    """What `ping` prints; its exit code is left to the caller."""
    return space.run("ping", "-n", "-W", "2", *options, address, check=False)


@each_address
@pytest.mark.parametrize("size", ["0", "1", "56", "full"])
def test_ping_is_answered(lab, family, address, size):
    length = str(MTU - OVERHEAD[family.version]) if size == "full" else size
    # A machine that is busy otherwise may lose a frame before the appliance sees it, but not each time.
    for _ in range(3):
        done = ping(lab.client, address, "-c", "3", "-i", "0.01", "-s", length, "-M", "do")
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
        f"raw.sendto(bytes.fromhex('0800f7ff') + bytes(60), ('{V4.own}', 0))\n"
        "print(raw.recvfrom(2000)[0][20:].hex())\n"
    )
    assert lab.client.run("/usr/bin/python3", "-c", probe).stdout.strip() == "0000ffff" + "00" * 60


@each_version
def test_server_and_router_can_ping_too(lab, family):
    for space in (lab.topology.router, lab.topology.servers["s1"]):
        done = ping(space, family.own, "-c", "1")
        assert done.returncode == 0, done.stdout
        assert "ttl=64" in done.stdout


@each_version
def test_an_address_of_nobody_is_silent(lab, family):
    assert ping(lab.client, family.nobody, "-c", "1", "-W", "1").returncode != 0


@each_version
def test_an_error_about_a_nat_reply_reaches_the_server(lab, family):
    """The router forbids the reply and quotes the VIP; the server must find its own address there."""
    mode = modes.BY_NAME[f"nat-{family.version}"]
    server = lab.topology.servers["s1"]
    address = int(ip_address(family.server("s1"))) & 0xFFFFFFFF
    quoting = UNREACHABLE[family.version].format(address, modes.NAT_PORT)
    forbidden = f"from {mode.address} to {family.client} prohibit"
    with Capture(server, "e0", quoting, lab.state / "passed-on.log") as seen:
        lab.topology.router.ip(f"-{family.version} rule add {forbidden}")
        try:
            for _ in SERVERS:
                url = f"http://{lab.service(mode.name).vip}/"
                lab.client.run("curl", "-s", "--max-time", "1", url, check=False)
            wait_until(lambda: "prohibited" in seen.text(), "tcpdump prints the message")
        finally:
            lab.topology.router.ip(f"-{family.version} rule del {forbidden}")
    assert "wrong icmp" not in seen.text()
    assert "bad cksum" not in seen.text()


def test_answers_are_counted_and_every_frame_is_accounted_for(lab):
    def answered():
        (worker,) = lab.appliance.ask("stats")["workers"]
        return worker["answered"]

    before = answered()
    for family in FAMILIES:
        assert ping(lab.client, family.own, "-c", "5", "-i", "0.01").returncode == 0
    wait_until(lambda: answered() == before + 10, "ten answers are counted")
    balance.settled(lab.appliance)

"""The appliance as the servers' gateway: what they ask of the world by themselves, as it is or by source NAT.

Their plain default route leads here, and so do their replies under NAT.
"""

import re

import pytest

import arms
from lab.arms import FAMILIES, SERVERS
from lab.arms_config import SERVICES, endpoint
from lab.capture import Capture
from lab.netns import wait_until
from lab.modes import NAT_PORT

each_version = pytest.mark.parametrize("family", FAMILIES, ids=[f"v{family.version}" for family in FAMILIES])

# An address that the next router outside has no way to, and says so.
NOWHERE = {4: "10.99.0.1", 6: "2001:db8:99::1"}
UDP_PORT = 5353
UDP_ECHO = """\
import socket
both = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
both.bind(("::", {port}))
print("ready", flush=True)
while True:
    data, sender = both.recvfrom(2000)
    both.sendto(sender[0].removeprefix("::ffff:").encode() + b" " + data, sender)
"""
UDP_ASK = """\
import socket
family = socket.AF_INET6 if ":" in "{address}" else socket.AF_INET
udp = socket.socket(family, socket.SOCK_DGRAM)
udp.settimeout(2)
udp.connect(("{address}", {port}))
for number in range(5):
    udp.send(b"question %d" % number)
    print(udp.recv(2000).decode())
"""


# With two workers, who receives a reply is not always who sent the request.
DEVICES = {"af_xdp": 1, "af_packet": 2}


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    """The DPDK device."""
    return request.param


@pytest.fixture(scope="module", params=[True, "snat"], ids=["routed", "snat"])
def lab(request, device):
    """A lab with a gateway, and a host in the world that answers."""
    with arms.started(device=device, workers=DEVICES[device], gateway=request.param) as built:
        built.snat = request.param == "snat"
        built.client.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        # All servers are one for whom it tells by source NAT.
        built.client.sysctl("net.ipv4.icmp_ratelimit=0")
        for version, nowhere in NOWHERE.items():
            built.client.ip(f"-{version} route add unreachable {nowhere}")
        script = UDP_ECHO.format(port=UDP_PORT)
        echo = built.client.popen("/usr/bin/python3", "-c", script, log=built.state / "udp.log")
        wait_until(lambda: "ready" in echo.log.read_text(), "the UDP server is ready")
        yield built


def seen_as(lab, family, name):
    """The address by which the world knows a server."""
    return family.masquerade if lab.snat else family.server(name)


def ping(space, address, *options):
    """What `ping` prints; its exit code is left to the caller."""
    return space.run("ping", "-n", "-W", "3", *options, address, check=False).stdout


@each_version
def test_servers_fetch_pages_of_the_world(lab, family):
    log = lab.state / "outside/access.log"
    for name, space in lab.servers.items():
        page = space.run("curl", "-gfsS", "--max-time", "5", f"http://{endpoint(family.client, NAT_PORT)}/")
        assert page.stdout == "server outside\n"
        wanted = f"{seen_as(lab, family, name)} {NAT_PORT} 200 /"
        wait_until(lambda: log.read_text().splitlines()[-1] == wanted, f"the log ends with `{wanted}`")  # noqa: B023


@each_version
def test_servers_ask_the_world_by_udp(lab, family):
    for name, space in lab.servers.items():
        script = UDP_ASK.format(address=family.client, port=UDP_PORT)
        answers = space.run("/usr/bin/python3", "-c", script).stdout.splitlines()
        source = seen_as(lab, family, name)
        assert answers == [f"{source} question {number}" for number in range(5)]


@each_version
def test_servers_ping_the_world(lab, family):
    """All of them at once and with the same identifier, which source NAT has to tell apart."""
    kind = "icmp[0] = 8" if family.version == 4 else "icmp6 and ip6[40] = 128"
    options = ("-n", "-c", "20", "-i", "0.02", "-W", "3", "-e", "4711", "-s", "1000")
    with Capture(lab.client, "c0", kind, lab.state / "pings.log") as seen:
        pings = [
            space.popen("ping", *options, family.client, log=lab.state / f"ping-{name}-{family.version}.log")
            for name, space in lab.servers.items()
        ]
        for process in pings:
            assert process.wait(20) == 0, process.tail()
            assert "20 received, 0% packet loss" in process.tail()
            assert "wrong data" not in process.tail()
        wait_until(lambda: len(requests(seen)) >= 60, "tcpdump prints the requests")
    sources = {source for source, _ in requests(seen)}
    assert sources == {seen_as(lab, family, name) for name in SERVERS}
    assert len(set(requests(seen))) == len(SERVERS)
    assert ("4711" in {identifier for _, identifier in requests(seen)}) != lab.snat
    assert "wrong icmp" not in seen.text()


def requests(seen):
    """Source and identifier of each echo request that tcpdump printed."""
    return re.findall(r"(\S+) > \S+: .*echo request, id (\d+)", seen.text())


@each_version
def test_errors_about_pings_reach_their_senders(lab, family):
    for space in lab.servers.values():
        said = ping(space, NOWHERE[family.version], "-c", "1")
        assert re.search(rf"From {family.client} icmp_seq=1 Destination .*(Unreachable|unreachable)", said), said


@each_version
def test_the_appliance_is_a_hop_of_a_ping(lab, family):
    said = ping(lab.servers["s1"], family.client, "-c", "1", "-t", "1")
    assert re.search(rf"From {family.own[1]} icmp_seq=1 Time (to live )?exceeded", said), said


@each_version
def test_the_world_pings_servers_that_keep_their_addresses(lab, family):
    if lab.snat:
        pytest.skip("source NAT hides them, and has no flow for what they answer")
    for name in SERVERS:
        said = ping(lab.client, family.server(name), "-c", "3", "-i", "0.02")
        assert "3 received, 0% packet loss" in said


@each_version
def test_large_pings_pass_in_pieces_where_nothing_is_translated(lab, device, family):
    if lab.snat:
        pytest.skip("source NAT takes no pieces of ICMP")
    if (device, family.version) == ("af_packet", 4):
        pytest.skip("the packet sockets of af_packet put IPv4 together, too long for their frames")
    said = ping(lab.servers["s2"], family.client, "-c", "3", "-i", "0.02", "-s", "4000")
    assert "3 received, 0% packet loss" in said


@pytest.mark.parametrize("service", SERVICES, ids=[service.name for service in SERVICES])
def test_services_work_besides(lab, device, service):
    arms.assert_serves(lab, service, 60, DEVICES[device])


def test_every_frame_is_accounted_for(lab):
    arms.assert_accounted(lab, arms.HARMLESS)
    assert lab.lb.ask("stats")["workers"][0]["routed"] > 0

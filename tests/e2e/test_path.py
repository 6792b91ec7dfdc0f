"""The way to a VIP: how long a packet may be, which hops there are, and where ICMP errors about it go."""

import contextlib
import os
import re
from dataclasses import replace

import pytest

from lab import modes
from lab.addresses import FAMILIES, V4, endpoint
from lab.appliance import Backend, Service
from lab.capture import Capture
from lab.netns import wait_until
from lab.servers import WWW
from support import reloaded

MTU, SMALL_MTU = 1500, 1400
IP_LEN = {4: 20, 6: 40}
UDP_LEN, GUE_LEN, GRE_LEN = 8, 4, 8
UPLOAD_LEN = 300 * 1024
MSS = 1300
# Where the probes of traceroute go, and nobody listens.
TRACE_PORTS = "33434-33534"

CLAMPED = [mode.name for mode in modes.ALL if mode.mode in ("tunnel", "full-nat")]

# Outer packets that routers may fragment: DF is the client's wish, and IPv6 knows none (RFC 4213, 3.2.1).
CUT_ON_THE_WAY = ["ipip-6in4"]


def each(names):
    """Runs a test with every one of these modes."""
    names = list(names)
    return pytest.mark.parametrize("mode", [modes.BY_NAME[name] for name in names], ids=names)


def overhead(mode):
    """Length of all that a tunnel puts before a packet."""
    shim = {"ipip": 0, "gue": UDP_LEN + GUE_LEN, "gre": GRE_LEN}[mode.tunnel]
    return IP_LEN[mode.inside.version] + shim


def learned_mtu(space, family, destination, source=None):
    """The path MTU that a kernel keeps for what it sends from one address to another; `None` if it has none."""
    words = ("from", source) if source else ()
    route = space.run("ip", f"-{family.version}", "route", "get", destination, *words).stdout
    found = re.search(r"mtu (\d+)", route)
    return int(found[1]) if found else None


@pytest.fixture(autouse=True)
def nothing_learned(lab):
    """Every test begins with kernels that know of no path MTU."""
    for space in (lab.client, *lab.topology.servers.values()):
        for family in FAMILIES:
            space.ip(f"-{family.version} route flush cache table all")


def upload(lab, vip):
    """Puts a file to a VIP and makes sure that it arrived whole."""
    file = lab.state / "upload"
    file.write_bytes(os.urandom(UPLOAD_LEN))
    words = ("-fsS", "--max-time", "20", "-H", "Expect:", "-w", "%header{x-server}", "-T", file)
    name = lab.client.run("curl", *words, f"http://{vip}/upload/big").stdout
    assert lab.servers[name].uploaded("big") == file.read_bytes()


@each(modes.TUNNELS)
def test_an_upload_finds_the_mtu_of_a_tunnel(lab, mode):
    """Full segments are too long for the tunnel, which the client learns from the appliance."""
    assert learned_mtu(lab.client, mode.outside, mode.address) is None
    wanted = MTU - overhead(mode)
    said = f"mtu {wanted}"
    expression = f"(icmp or icmp6) and src host {mode.outside.own} and dst host {mode.outside.client}"
    with Capture(lab.client, "c0", expression, lab.state / "mtu.log") as told:
        upload(lab, lab.service(mode.name).vip)
        wait_until(lambda: said in told.text(), "tcpdump prints the message")
    assert "wrong icmp" not in told.text()
    assert learned_mtu(lab.client, mode.outside, mode.address) == wanted


@each(modes.TUNNELS)
def test_a_ping_of_full_length_learns_nothing_wrong(lab, mode):
    """The appliance itself takes packets of the port's MTU; only what it tunnels must be shorter."""
    size = MTU - IP_LEN[mode.outside.version] - 8
    done = lab.client.run("ping", "-n", "-c", "1", "-W", "2", "-s", size, "-M", "do", mode.address)
    assert "1 received" in done.stdout
    assert learned_mtu(lab.client, mode.outside, mode.address) is None


@contextlib.contextmanager
def small_link(lab, family, address, way):
    """The router's link to an address has a small MTU while the block runs; `way` says where it is."""
    router = lab.topology.router
    route = f"{family.alone(address)} {way}"
    router.ip(f"-{family.version} route add {route} mtu lock {SMALL_MTU}")
    try:
        yield
    finally:
        router.ip(f"-{family.version} route del {route}")


@contextlib.contextmanager
def behind_a_small_link(lab, family, name):
    """A server has an address more, behind the router and a link of a small MTU; yields that address."""
    address = family.servers.replace("90", "91") + "11"
    space = lab.topology.servers[name]
    space.ip(f"addr add {family.alone(address)} dev lo")
    try:
        with small_link(lab, family, address, f"via {family.server(name)}"):
            yield address
    finally:
        space.ip(f"addr del {family.alone(address)} dev lo")


@contextlib.contextmanager
def far_server(lab, mode):
    """One server, behind a small link, is all that a service has; yields that service."""
    with behind_a_small_link(lab, mode.inside, "s1") as address:
        far = replace(lab.service(mode.name), backends=[Backend(endpoint(address, modes.VIP_PORT))], check=None)
        with reloaded(lab, [far]):
            yield far


@each(name for name in modes.TUNNELS if name not in CUT_ON_THE_WAY)
def test_an_upload_finds_a_small_mtu_behind_the_tunnel(lab, mode):
    """A router tells the appliance about the outer packet, and the appliance the client about its own."""
    with far_server(lab, mode) as far:
        upload(lab, far.vip)
    assert learned_mtu(lab.client, mode.outside, mode.address) == SMALL_MTU - overhead(mode)


@each(CUT_ON_THE_WAY)
def test_routers_may_cut_ipv6_in_ipv4(lab, mode):
    """The server's kernel puts the outer packets together, of which the lab's XDP program sees just the pieces."""

    def reassembled():
        counts = lab.topology.servers["s1"].run("nstat", "-asz", "IpReasmOKs").stdout
        return int(re.search(r"IpReasmOKs\s+(\d+)", counts)[1])

    before = reassembled()
    (lab.state / "upload").write_bytes(os.urandom(UPLOAD_LEN))
    with far_server(lab, mode) as far:
        words = ("-s", "--max-time", "1", "-H", "Expect:", "-T", lab.state / "upload")
        lab.client.run("curl", *words, f"http://{far.vip}/upload/big", check=False)
    assert reassembled() > before


@each(modes.NAMES)
def test_a_download_finds_a_small_mtu_before_the_client(lab, mode):
    """A router says to the VIP that a reply is too long, and the appliance passes it on to the server."""
    data = os.urandom(UPLOAD_LEN)
    (lab.state / WWW / "small").write_bytes(data)
    file = lab.state / "download"
    words = ("-fsS", "--max-time", "20", "-w", "%header{x-server}", "-o", file)
    with small_link(lab, mode.outside, mode.outside.client, "dev p-client"):
        name = lab.client.run("curl", *words, f"http://{lab.service(mode.name).vip}/small").stdout
    assert file.read_bytes() == data
    # A header of the other version is 20 bytes longer or shorter.
    family = mode.outside if mode.direct else mode.inside
    wanted = SMALL_MTU - IP_LEN[mode.outside.version] + IP_LEN[family.version]
    source = mode.address if mode.direct else family.server(name)
    assert learned_mtu(lab.topology.servers[name], family, mode.peer, source) == wanted


def trace(lab, mode, *options):
    """The hops that traceroute finds on the way to a VIP."""
    words = ("traceroute", f"-{mode.outside.version}", "-n", "-q", "1", "-w", "3", "-m", "6", *options)
    out = lab.client.run(*words, mode.address).stdout
    return re.findall(r"^ *\d+ +(\S+)", out, re.MULTILINE)


@each(modes.NAMES)
def test_a_trace_by_tcp_ends_at_the_vip(lab, mode):
    hops = [mode.outside.clients_router, mode.outside.own, mode.address]
    assert trace(lab, mode, "-T", "-p", "80") == hops


@pytest.fixture(scope="module")
def traced(lab):
    """Every mode forwards what traceroute sends by UDP, to ports where nobody listens."""

    def service(mode):
        vip, backends = endpoint(mode.address, TRACE_PORTS), map(Backend, mode.backends(0))
        return Service(f"trace-{mode.name}", vip, mode.mode, "rr", list(backends), None, "udp", mode.options)

    with reloaded(lab, [*lab.config.services, *map(service, modes.ALL)]):
        yield


@each(modes.NAMES)
def test_a_trace_by_udp_ends_at_the_vip(lab, traced, mode):
    """The last hop is a server's "port unreachable", which has to look as if it came from the VIP."""
    assert trace(lab, mode) == [mode.outside.clients_router, mode.outside.own, mode.address]


@pytest.fixture(scope="module")
def clamped(lab):
    """Tunnels and full NAT with a segment size of their own."""
    services = [lab.service(name) for name in CLAMPED]
    with reloaded(lab, [replace(service, options=service.options | {"mss": MSS}) for service in services]):
        yield


@each(CLAMPED)
def test_servers_see_the_segment_size_of_the_service(lab, clamped, mode):
    handshake = f"tcp and src host {mode.peer} and dst port {modes.VIP_PORT if mode.direct else modes.NAT_PORT}"
    with Capture(lab.topology.servers["s1"], "e0", handshake, lab.state / "mss.log") as seen:
        for _ in lab.servers:
            lab.client.run("curl", "-fsS", "--max-time", "5", f"http://{lab.service(mode.name).vip}/")
        wait_until(lambda: "Flags [S]" in seen.text(), "tcpdump prints the SYN")
    assert set(re.findall(r"mss (\d+)", seen.text())) == {str(MSS)}
    assert not seen.checksums()[1]

"""Replay: local addresses and ports of full NAT, and the servers' way out by source NAT."""

from collections import Counter

import pytest
from scapy.utils import checksum

import drops
from appliance import BOTH_FAMILIES, NEIGHBOURS, Appliance, Backend, Interface, Service, join, split
from frames import (
    ETH_LEN,
    IP,
    Ether,
    IPv6,
    Raw,
    framed,
    icmp,
    icmpv6,
    ip_packet,
    pattern,
    pieces,
    tagged,
    tcp,
    tcp_of_ip_len,
    udp,
)
from replay import Scenario, play
from verdict import LOCAL_PORTS, Choice

CLIENTS = {4: "198.51.100.7", 6: "2001:db8:51::7"}
VIPS = {4: "192.0.2.100", 6: "2001:db8:2::100"}
SERVERS = {4: "192.0.2.11", 6: "2001:db8:2::11"}
POOL = ("192.0.2.230", "192.0.2.231", "2001:db8:2::230", "2001:db8:2::231")
PAIRS = [(4, 4), (6, 6), (4, 6), (6, 4)]
EACH_PAIR = pytest.mark.parametrize("here, there", PAIRS, ids=[f"{a}to{b}" for a, b in PAIRS])
EACH_VERSION = pytest.mark.parametrize("ip", [4, 6], ids=["IPv4", "IPv6"])


def appliance(here: int, there: int, pool: tuple[str, ...] = POOL, **other) -> Appliance:
    """A TCP and a UDP service with one server each."""
    services = (
        Service(join(VIPS[here], 80), (Backend(join(SERVERS[there], 8000), "full-nat"),), snat_pool="out"),
        Service(join(VIPS[here], 53), (Backend(join(SERVERS[there], 53), "full-nat"),), "udp", snat_pool="out"),
    )
    return Appliance(services, **{"interfaces": BOTH_FAMILIES, "pools": {"out": pool}, **other})


@EACH_PAIR
@pytest.mark.parametrize("workers", [1, 2])
def test_every_client_has_a_local_port_of_its_own(replay, here, there, workers):
    """The oracle fails if two flows to a server share one, or a flow changes it."""
    scenario = Scenario(appliance(here, there, workers=workers))
    clients = [join(CLIENTS[here], 20000 + number) for number in range(300)]
    scenario.feed(*(tcp(client, join(VIPS[here], 80), "S", seq=n) for n, client in enumerate(clients)))

    def exchange(scenario: Scenario) -> None:
        for number, client in enumerate(clients):
            flow = scenario.oracle.flows["tcp", client, join(VIPS[here], 80)]
            scenario.feed(tcp(flow.server, flow.local, "SA", seq=number), tcp(client, flow.vip, "A", seq=number))
            scenario.feed(tcp(client, flow.vip, "PA", pattern(number), seq=number))
            scenario.feed(tcp(flow.server, flow.local, "PA", pattern(number), seq=number))

    replay(scenario.later(exchange))


@EACH_PAIR
def test_tcp_and_udp_of_one_client_do_not_meet(replay, here, there):
    scenario, client = Scenario(appliance(here, there)), join(CLIENTS[here], 20000)
    scenario.feed(tcp(client, join(VIPS[here], 80), "S"), udp(client, join(VIPS[here], 53), b"query"))

    def reply(scenario: Scenario) -> None:
        web = scenario.oracle.flows["tcp", client, join(VIPS[here], 80)]
        dns = scenario.oracle.flows["udp", client, join(VIPS[here], 53)]
        scenario.feed(tcp(web.server, web.local, "SA"), udp(dns.server, dns.local, b"answer"))
        # Of nobody: the other protocol's port, unless both happen to be the same, and another server.
        if web.local != dns.local:
            scenario.feed(tcp(web.server, dns.local, "SA"), udp(dns.server, web.local, b"answer"))
        scenario.feed(tcp(join(SERVERS[there], 8001), web.local, "SA"))

    replay(scenario.later(reply))
    assert scenario.drops()[drops.NO_SERVICE] + scenario.drops()[drops.NO_FLOW] >= 1


def test_addresses_of_a_pool_answer_pings(replay):
    scenario = Scenario(appliance(4, 6))
    scenario.feed(icmp(CLIENTS[4], POOL[0], 8, b"x"), icmpv6(CLIENTS[6], POOL[2], 128, b"x"))
    replay(scenario)


def queries(count: int) -> list[bytes]:
    """So many UDP packets over IPv4, each of another client; made without scapy, which would take minutes."""
    frame = bytearray(udp("198.51.100.0:0", join(VIPS[4], 53), b"query", chksum=0))
    source_at, port_at, checksum_at = ETH_LEN + 15, ETH_LEN + 20, ETH_LEN + 10
    frames = []
    for number in range(count):
        frame[source_at], frame[port_at : port_at + 2] = number >> 14, (20000 + (number & 0x3FFF)).to_bytes(2, "big")
        frame[checksum_at : checksum_at + 2] = bytes(2)
        frame[checksum_at : checksum_at + 2] = checksum(bytes(frame[ETH_LEN:port_at])).to_bytes(2, "big")
        frames.append(bytes(frame))
    return frames


def test_a_pool_that_is_used_up(tmp_path_factory):
    """One address has 64,512 ports; whoever comes later is dropped under a name of its own."""
    scenario = Scenario(appliance(4, 4, POOL[:1], flows=200_000))
    scenario.frames = queries(65_000)
    scenario.ports = [0] * len(scenario.frames)
    outcome = play(scenario, tmp_path_factory.mktemp("run"), lambda sent: None)
    used = Counter(Choice.of(frame).local for frame in outcome.sent)
    assert set(used.values()) == {1}
    assert {split(local)[0] for local in used} == {POOL[0]}
    assert {split(local)[1] for local in used} == set(LOCAL_PORTS)
    assert outcome.drops == {drops.LOCAL_PORTS_EXHAUSTED: len(scenario.frames) - len(used)}


# Servers behind a gateway: what they send of their own accord, and what comes back.

INSIDE = {4: "192.0.2.11", 6: "2001:db8:2::11"}
OUTSIDE = {4: "198.51.100.99", 6: "2001:db8:51::99"}
FRONT = Interface(("203.0.113.254/24", "2001:db8:113::fe/64"))
ROUTERS = {"203.0.113.1": "02:00:5e:00:53:f1", "2001:db8:113::1": "02:00:5e:00:53:f6"}


def gateway(kind: bool | str) -> Appliance:
    """Servers in a VLAN whose gateway we are, and a service on them."""
    back = Interface(BOTH_FAMILIES[0].addresses, (20,), gateway=kind)
    service = Service(join(VIPS[4], 80), (Backend(join(SERVERS[4], 8000)),))
    pools = {"way-out": ("203.0.113.230", "2001:db8:113::230")} if kind is not False else {}
    return Appliance(
        (service,),
        interfaces=(FRONT, back),
        neighbours={**NEIGHBOURS, **ROUTERS},
        gateways=tuple(ROUTERS),
        pools=pools,
    )


def out(frame: bytes) -> bytes:
    """The frame as a server sends it."""
    return tagged(frame, (20,))


@EACH_VERSION
def test_servers_go_out_by_their_gateway(replay, ip):
    """Whatever it is; and what comes back, or comes first, finds its way in."""
    inside, outside = INSIDE[ip], OUTSIDE[ip]
    echo, reply = (icmp, 8, 0), (icmp, 0, 0)
    if ip == 6:
        echo, reply = (icmpv6, 128, 0), (icmpv6, 129, 0)
    scenario = Scenario(gateway(True))
    scenario.feed(
        out(tcp(join(inside, 40000), join(outside, 443), "S")),
        tcp(join(outside, 443), join(inside, 40000), "SA"),
        out(udp(join(inside, 40000), join(outside, 53), b"query")),
        udp(join(outside, 53), join(inside, 40000), b"answer"),
        out(echo[0](inside, outside, echo[1], b"abc")),
        reply[0](outside, inside, reply[1], b"abc"),
        out(tcp(join(inside, 40000), join(outside, 443), "PA", pattern(1400), ip={"tos": 0xB9, "ttl": 2})),
        out(tcp(join(inside, 40000), join(outside, 443), "PA", b"x", chksum=0x1234)),
        out(tcp(join(inside, 40000), join(outside, 443), "A", ip={"ttl": 1})),
        out(tcp_of_ip_len(join(inside, 40000), join(outside, 443), 1501, ip={"flags": "DF"} if ip == 4 else {})),
        out(framed(sctp(inside, outside), inside)),
        tcp(join(outside, 40000), join(inside, 22), "S"),
    )
    whole = ip_packet(udp(join(inside, 40000), join(outside, 53), pattern(200)))
    scenario.feed(*(out(framed(piece, inside)) for piece in pieces(whole, (64, 128))))
    assert not scenario.drops()
    replay(scenario)


@EACH_VERSION
def test_without_a_gateway_nothing_is_routed(replay, ip):
    inside, outside = INSIDE[ip], OUTSIDE[ip]
    scenario = Scenario(gateway(False)).feed(
        out(tcp(join(inside, 40000), join(outside, 443), "S")),
        out(udp(join(inside, 40000), join(outside, 53), b"query")),
        tcp(join(outside, 443), join(inside, 40000), "SA"),
    )
    assert scenario.drops() == {drops.NO_SERVICE: 3}
    replay(scenario)


@EACH_VERSION
def test_servers_go_out_from_the_addresses_of_a_pool(replay, ip):
    inside, outside = INSIDE[ip], OUTSIDE[ip]
    scenario = Scenario(gateway("way-out"))
    for number in range(20):
        scenario.feed(out(tcp(join(inside, 40000 + number), join(outside, 443), "S", seq=number)))
        scenario.feed(out(udp(join(inside, 40000 + number), join(outside, 53), pattern(number + 2))))

    def come_back(scenario: Scenario) -> None:
        for flow in list(scenario.oracle.flows.values()):
            reply = tcp(flow.server, flow.local, "SA") if flow.protocol == "tcp" else udp(flow.server, flow.local, b"a")
            scenario.feed(reply)
            if flow.protocol == "tcp":
                scenario.feed(out(tcp(flow.client, flow.server, "PA", b"data")))

    replay(scenario.later(come_back))


@EACH_VERSION
def test_servers_ping_from_the_addresses_of_a_pool(replay, ip):
    """Each identifier of each server is another one outside, and leads back; their checksums stay as right."""
    inside, outside = (INSIDE[ip], INSIDE[ip].removesuffix("1") + "2"), OUTSIDE[ip]
    scenario = Scenario(gateway("way-out"))
    for number in (0, 1, 0xFFFF):
        for server in inside:
            scenario.feed(*(out(echo(server, outside, True, number, data)) for data in (b"", b"abc", pattern(1000))))
    scenario.feed(out(echo(inside[0], outside, True, 5, b"last hop", ttl=1)))
    scenario.feed(out(echo(inside[0], outside, True, 1, pattern(1480))))
    # Nobody asked for the first, and the second is for the pool's address itself.
    pool = next(address for address in gateway("way-out").pools["way-out"] if (":" in address) == (ip == 6))
    scenario.feed(echo(outside, pool, False, 1, b"abc"), echo(outside, pool, True, 1, b"abc"))

    def come_back(scenario: Scenario) -> None:
        for flow in list(scenario.oracle.pings.values()):
            local, number = split(flow.local)
            scenario.feed(*(echo(outside, local, False, number, data) for data in (b"", bytes(8), pattern(1000))))
            scenario.feed(echo(outside, local, False, number, b"wrong", chksum=0x1234))
            # A port is not an identifier.
            scenario.feed(udp(join(outside, 53), flow.local, b"answer"))

    replay(scenario.later(come_back))


def echo(src: str, dst: str, asks: bool, ident: int, data: bytes, ttl: int = 64, chksum: int | None = None) -> bytes:
    """An echo request, or the reply to one."""
    if ":" in dst:
        rest = ident.to_bytes(2, "big") + bytes(2)
        return icmpv6(src, dst, 128 if asks else 129, data, rest=rest, ip={"hlim": ttl}, chksum=chksum)
    fields = {} if chksum is None else {"chksum": chksum}
    return icmp(src, dst, 8 if asks else 0, data, ip={"ttl": ttl}, id=ident, **fields)


def test_balanced_replies_go_before_routing(replay):
    """A server's reply to a client of the service gets the VIP's address, though it is its gateway too."""
    client = "198.51.100.7:31337"
    scenario = Scenario(gateway(True)).feed(tcp(client, join(VIPS[4], 80), "S"))
    scenario.feed(out(tcp(join(SERVERS[4], 8000), client, "SA")))
    # Nor does a reply of no flow go out with the server's address.
    scenario.feed(out(tcp(join(SERVERS[4], 8000), "198.51.100.8:31337", "SA")))
    assert scenario.drops() == {drops.NO_FLOW: 1}
    assert Ether(replay(scenario).sent[-1])[IP].src == VIPS[4]


def sctp(src: str, dst: str) -> bytes:
    """A packet of a protocol that is not balanced."""
    packet = IP(src=src, dst=dst, proto=132) if ":" not in src else IPv6(src=src, dst=dst, nh=132)
    return bytes(packet / Raw(pattern(20)))

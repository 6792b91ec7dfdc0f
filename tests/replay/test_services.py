"""Replay: what a service may be: port ranges, any port, mapped ports, classes, single packets, limited segments."""

import pytest

import drops
from appliance import BOTH_FAMILIES, Appliance, Backend, Class, Interface, Service, Tunnel, join, split
from frames import IP, TCP, UDP, Ether, IPv6, pattern, tagged, tcp, udp
from replay import Scenario
from verdict import Dropped

CLIENTS = {4: "198.51.100.7", 6: "2001:db8:51::7"}
VIPS = {4: "192.0.2.100", 6: "2001:db8:2::100"}
SERVERS = {4: ("192.0.2.11", "192.0.2.12", "192.0.2.13"), 6: tuple(f"2001:db8:2::1{n}" for n in (1, 2, 3))}
POOL = {"out": ("192.0.2.230", "2001:db8:2::230")}
EACH_VERSION = pytest.mark.parametrize("ip", [4, 6], ids=["IPv4", "IPv6"])
EACH_MODE = pytest.mark.parametrize("mode", ["nat", "full-nat", "dr", "tunnel"])
PROTOCOLS = {"tcp": tcp, "udp": udp}
EACH_PROTOCOL = pytest.mark.parametrize("protocol", PROTOCOLS)


def appliance(*services: Service, **other) -> Appliance:
    """An appliance of both versions."""
    return Appliance(services, **{"interfaces": BOTH_FAMILIES, "pools": POOL, **other})


def vip(ip: int, ports: str | int) -> str:
    """The virtual address with ports as the file writes them."""
    return join(VIPS[ip], ports)


def backend(ip: int, port: int, mode: str, number: int = 0) -> Backend:
    """One of the servers."""
    return Backend(join(SERVERS[ip][number], port), mode)


def pool_of(mode: str) -> str | None:
    """The pool that a service of a mode needs."""
    return "out" if mode == "full-nat" else None


def opening(protocol: str, ip: int, client_port: int, port: int, **fields) -> bytes:
    """A client's first packet to a port of the VIP."""
    ends = join(CLIENTS[ip], client_port), join(VIPS[ip], port)
    return tcp(*ends, "S", **fields) if protocol == "tcp" else udp(*ends, b"query", **fields)


def answers(scenario: Scenario, protocol: str) -> None:
    """Has every server answer every flow there is."""
    for flow in [flow for flow in scenario.oracle.flows.values() if flow.mode in ("nat", "full-nat")]:
        ends = flow.server, flow.local or flow.client
        scenario.feed(tcp(*ends, "SA") if protocol == "tcp" else udp(*ends, b"answer"))


def went_to(outcome, protocol: str) -> list[str]:
    """Address and port that frames were sent to, in order."""
    layer = TCP if protocol == "tcp" else UDP
    packets = [Ether(frame) for frame in outcome.sent]
    return [join((p[IP] if IP in p else p[IPv6]).dst, p[layer].dport) for p in packets]


@EACH_VERSION
@EACH_PROTOCOL
@EACH_MODE
def test_a_range_keeps_the_port_that_was_asked_for(replay, ip, protocol, mode):
    service = Service(vip(ip, "8000-8099"), (backend(ip, 0, mode),), protocol, snat_pool=pool_of(mode))
    scenario = Scenario(appliance(service))
    scenario.feed(*(opening(protocol, ip, port - 1, port) for port in (8000, 8001, 8050, 8099)))
    scenario.feed(*(opening(protocol, ip, port - 1, port) for port in (7999, 8100, 80, 65535)))
    assert scenario.drops() == {drops.NO_SERVICE: 4}
    replay(scenario.later(lambda scenario: answers(scenario, protocol)))


@EACH_VERSION
@EACH_PROTOCOL
@pytest.mark.parametrize("mode", ["nat", "full-nat"])
def test_a_range_is_mapped_port_by_port(replay, ip, protocol, mode):
    service = Service(vip(ip, "8000-8099"), (backend(ip, 9000, mode),), protocol, snat_pool=pool_of(mode))
    scenario = Scenario(appliance(service))
    scenario.feed(*(opening(protocol, ip, 2000 + port, port) for port in (8000, 8001, 8099)))
    outcome = replay(scenario.later(lambda scenario: answers(scenario, protocol)))
    assert went_to(outcome, protocol)[:3] == [join(SERVERS[ip][0], port) for port in (9000, 9001, 9099)]


@EACH_VERSION
@EACH_PROTOCOL
@EACH_MODE
def test_any_port(replay, ip, protocol, mode):
    service = Service(vip(ip, 0), (backend(ip, 0, mode),), protocol, snat_pool=pool_of(mode))
    scenario = Scenario(appliance(service))
    scenario.feed(*(opening(protocol, ip, port, port) for port in (1, 22, 80, 8080, 65535)))
    replay(scenario.later(lambda scenario: answers(scenario, protocol)))


@EACH_VERSION
def test_one_client_may_use_all_ports_of_a_range_from_one_port(replay, ip):
    """Ports of one client and of one server that differ in the service's port only are different flows."""
    scenario = Scenario(appliance(Service(vip(ip, "8000-8099"), (backend(ip, 0, "nat"), backend(ip, 0, "nat", 1)))))
    scenario.feed(*(opening("tcp", ip, 2000, port) for port in range(8000, 8040)))
    replay(scenario.later(lambda scenario: answers(scenario, "tcp")))


@EACH_VERSION
def test_neighbouring_ranges_do_not_touch(replay, ip):
    services = [
        Service(vip(ip, "1000-1999"), (backend(ip, 0, "nat", 0),)),
        Service(vip(ip, "2000"), (backend(ip, 0, "nat", 1),)),
        Service(vip(ip, "2001-65535"), (backend(ip, 0, "nat", 2),)),
        Service(vip(ip, 0), (backend(ip, 0, "nat", 2),), "udp"),
    ]
    services[1] = Service(vip(ip, 2000), (backend(ip, 2000, "nat", 1),))
    scenario = Scenario(appliance(*services))
    asked = (1000, 1999, 2000, 2001, 65535)
    outcome = replay(scenario.feed(*(opening("tcp", ip, 5000 + n, port) for n, port in enumerate(asked))))
    servers = [split(endpoint)[0] for endpoint in went_to(outcome, "tcp")]
    assert servers == [SERVERS[ip][number] for number in (0, 0, 1, 2, 2)]


CLASSES = (
    Class("gold", sources=("198.51.100.0/28", "2001:db8:51::/124")),
    Class("voice", dscp=46),
    Class("guests", vlan=100),
    Class("gold-voice", sources=("198.51.100.16/28", "2001:db8:51::10/124"), dscp=46),
)
# IPv4 client, IPv6 client, ToS, tags, number of the server.
CLASSIFIED = [
    ("198.51.100.7", "2001:db8:51::7", 0, (), 0),
    ("198.51.100.15", "2001:db8:51::f", 0xFF, (), 0),
    ("198.51.100.7", "2001:db8:51::7", 0, (100,), 0),
    ("198.51.100.99", "2001:db8:51::99", 46 << 2, (), 1),
    ("198.51.100.99", "2001:db8:51::99", 46 << 2 | 3, (), 1),
    ("198.51.100.99", "2001:db8:51::99", 46 << 2, (100,), 1),
    ("198.51.100.99", "2001:db8:51::99", 0, (100,), 2),
    ("198.51.100.99", "2001:db8:51::99", 47 << 2, (), 3),
    ("198.51.100.99", "2001:db8:51::99", 0, (7, 8), 3),
    ("198.51.100.17", "2001:db8:51::11", 0, (), 3),
]


@EACH_VERSION
def test_a_class_decides_who_serves(replay, ip):
    """The first service in the file whose class matches takes the packet; the one without class comes last."""
    names = (None, "gold", "voice", "guests")
    servers = {"gold": 0, "voice": 1, "guests": 2, None: 3}
    ports = {name: 8000 + number for name, number in servers.items()}
    services = [
        Service(vip(ip, 80), (Backend(join(SERVERS[ip][0], ports[name]), "nat"),), packet_class=name) for name in names
    ]
    interfaces = (
        *BOTH_FAMILIES,
        Interface(("203.0.113.254/24", "2001:db8:113::fe/64"), (100,)),
        Interface(("10.0.0.254/24",), (7, 8)),
    )
    scenario = Scenario(appliance(*services, interfaces=interfaces, classes=CLASSES[:3]))
    for number, (src, src6, tos, tags, _) in enumerate(CLASSIFIED):
        client = join(src if ip == 4 else src6, 3000 + number)
        scenario.feed(tagged(tcp(client, vip(ip, 80), "S", ip={"tos": tos}), tags))
    outcome = replay(scenario.later(lambda scenario: answers(scenario, "tcp")))
    assert [split(end)[1] for end in went_to(outcome, "tcp")[: len(CLASSIFIED)]] == [8000 + c[-1] for c in CLASSIFIED]


@EACH_VERSION
def test_all_conditions_of_a_class_must_hold(replay, ip):
    service = Service(vip(ip, 80), (backend(ip, 80, "dr"),), packet_class="gold-voice")
    scenario = Scenario(appliance(service, classes=CLASSES))
    inside, outside = (("198.51.100.17", "198.51.100.7"), ("2001:db8:51::11", "2001:db8:51::7"))[ip == 6]
    for src, tos in ((inside, 0), (outside, 46 << 2), (outside, 0), (inside, 46 << 2)):
        scenario.feed(tcp(join(src, 3000), vip(ip, 80), "S", ip={"tos": tos}))
    assert scenario.drops() == {drops.NO_SERVICE: 3}
    replay(scenario)


@EACH_VERSION
def test_a_flow_stays_with_the_service_that_took_its_first_packet(replay, ip):
    """A client may change the ToS of its packets while it speaks."""
    gold = Service(vip(ip, 80), (backend(ip, 8000, "nat"),), packet_class="voice")
    rest = Service(vip(ip, 80), (backend(ip, 8001, "nat", 1),))
    scenario = Scenario(appliance(gold, rest, classes=CLASSES))
    for client, first, second in ((3000, 46 << 2, 0), (3001, 0, 46 << 2)):
        ends = join(CLIENTS[ip], client), vip(ip, 80)
        scenario.feed(tcp(*ends, "S", ip={"tos": first}), tcp(*ends, "PA", b"data", ip={"tos": first}))
    replay(scenario)


@EACH_VERSION
@pytest.mark.parametrize("mode", ["dr", "tunnel"])
def test_single_packets_are_scheduled_one_by_one(replay, ip, mode):
    backends = tuple(backend(ip, 53, mode, number) for number in range(3))
    scenario = Scenario(appliance(Service(vip(ip, 53), backends, "udp", one_packet=True)))
    scenario.feed(*(opening("udp", ip, 4000, 53) for _ in range(7)))
    outcome = replay(scenario)
    macs = [Ether(frame).dst for frame in outcome.sent]
    assert len(set(macs[:3])) == 3
    assert macs == (macs[:3] * 3)[:7]


# Announced by the client, limit of the service, what the server gets to see.
SEGMENT_SIZES = [(1460, 1400, 1400), (1400, 1400, 1400), (1399, 1400, 1399), (536, 1400, 536), (65535, 1400, 1400)]
OPTIONS = {
    "first": lambda size: [("MSS", size), ("SAckOK", b""), ("Timestamp", (5, 0)), ("WScale", 7)],
    "last": lambda size: [("SAckOK", b""), ("Timestamp", (5, 0)), ("WScale", 7), ("NOP", None), ("MSS", size)],
    "at an odd place": lambda size: [("NOP", None), ("MSS", size), ("NOP", None), ("NOP", None), ("NOP", None)],
    "behind unknown ones": lambda size: [(253, b"ab"), (30, b"abcdef"), ("MSS", size)],
    "behind the end": lambda size: [("EOL", None), ("MSS", size), ("NOP", None), ("NOP", None), ("NOP", None)],
    "absent": lambda size: [("SAckOK", b""), ("NOP", None), ("NOP", None)],
}


@EACH_VERSION
@EACH_MODE
@pytest.mark.parametrize("place", OPTIONS)
def test_the_segment_size_of_a_syn_is_limited(replay, ip, mode, place):
    """Of the reply too where it passes; nothing but SYNs is touched, whatever their payload."""
    port = {"nat": 8000, "full-nat": 8000}.get(mode, 80)
    service = Service(vip(ip, 80), (backend(ip, port, mode),), mss=1400, snat_pool=pool_of(mode))
    scenario = Scenario(appliance(service))
    for number, (announced, _, _) in enumerate(SEGMENT_SIZES):
        options = OPTIONS[place](announced)
        scenario.feed(opening("tcp", ip, 5000 + number, 80, options=options))
        scenario.feed(opening("tcp", ip, 6000 + number, 80, options=options, payload=b"odd"))
        ends = join(CLIENTS[ip], 5000 + number), vip(ip, 80)
        scenario.feed(tcp(*ends, "A", options=options), tcp(*ends, "PA", pattern(9), options=options))

    def reply(scenario: Scenario) -> None:
        for number, (announced, _, _) in enumerate(SEGMENT_SIZES):
            flow = scenario.oracle.flows["tcp", join(CLIENTS[ip], 5000 + number), vip(ip, 80)]
            for flags in ("SA", "A"):
                ends = flow.server, flow.local or flow.client
                scenario.feed(tcp(*ends, flags, options=OPTIONS[place](announced)))

    replay(scenario.later(reply) if mode in ("nat", "full-nat") else scenario)


def test_the_limited_size_is_in_the_frames(replay):
    """So that the oracle's own reading of options is held against scapy's."""
    service = Service(vip(4, 80), (backend(4, 80, "dr"),), mss=1400)
    scenario = Scenario(appliance(service))
    for number, (announced, _, _) in enumerate(SEGMENT_SIZES):
        scenario.feed(opening("tcp", 4, 5000 + number, 80, options=[("NOP", None), ("MSS", announced)]))
    sizes = [dict(Ether(frame)[TCP].options)["MSS"] for frame in replay(scenario).sent]
    assert sizes == [seen for _, _, seen in SEGMENT_SIZES]


@EACH_VERSION
def test_a_wrong_checksum_of_a_limited_syn_stays_wrong(replay, ip):
    scenario = Scenario(appliance(Service(vip(ip, 80), (backend(ip, 8000, "nat"),), mss=1400)))
    for number, value in enumerate((0, 1, 0x1234, 0xFFFF)):
        scenario.feed(opening("tcp", ip, 5000 + number, 80, options=[("MSS", 1460)], chksum=value))
    replay(scenario)


@EACH_VERSION
def test_one_service_mixes_all_modes(replay, ip):
    """Backends of every mode, and of the other IP version where a mode reaches it."""
    other = 10 - ip
    backends = (
        backend(ip, 80, "nat", 0),
        backend(ip, 80, "dr", 1),
        backend(ip, 80, "tunnel", 2),
        Backend(join(SERVERS[other][0], 80), "full-nat"),
        Backend(join(SERVERS[other][1], 80), "tunnel", tunnel=Tunnel("gue", 6080)),
        Backend(join(SERVERS[other][2], 80), "tunnel", tunnel=Tunnel("gre", checksum=True)),
        Backend(join("192.0.2.201" if ip == 4 else "2001:db8:2::c9", 80), "full-nat"),
    )
    scenario = Scenario(appliance(Service(vip(ip, 80), backends, snat_pool="out")))
    scenario.feed(*(opening("tcp", ip, 7000 + number, 80) for number in range(21)))

    def go_on(scenario: Scenario) -> None:
        answers(scenario, "tcp")
        scenario.feed(*(tcp(join(CLIENTS[ip], 7000 + n), vip(ip, 80), "PA", pattern(n)) for n in range(21)))

    replay(scenario.later(go_on))


def test_a_packet_of_nobody_is_not_forwarded_for_its_ports_alone():
    """The oracle itself: a range of one address says nothing about another."""
    scenario = Scenario(appliance(Service(vip(4, 0), (backend(4, 0, "nat"),))))
    scenario.feed(tcp("198.51.100.7:1", "192.0.2.77:80", "S"))
    assert scenario.verdicts == [Dropped(drops.NO_SERVICE)]

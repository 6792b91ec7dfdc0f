"""Replay: who gets which flow, and that it stays there."""

from appliance import NEAR_CLIENT, PORT_IP, Appliance, Backend, Service
from frames import ARP, IP, TCP, Ether, arp_request, tcp, udp
from drops import REPLY_AMBIGUOUS
from replay import Scenario, is_answer

VIP = "192.0.2.100:80"
SERVERS = {"192.0.2.11": "A", "192.0.2.12": "B", "192.0.2.13": "C"}


def backends(*weights: int) -> tuple[Backend, ...]:
    """The first servers, one for each weight."""
    return tuple(Backend(f"{ip}:80", weight=weight) for ip, weight in zip(SERVERS, weights, strict=False))


def clients(count: int) -> list[str]:
    """Endpoints that share neither address nor port with one another."""
    return [f"198.51.100.{i % 250 + 1}:{20000 + i * 7}" for i in range(count)]


def letters(sent: list[bytes]) -> str:
    """The servers that the frames went to, by letter."""
    return "".join(SERVERS[Ether(frame)[IP].dst] for frame in sent)


def test_rr_takes_servers_in_turn(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(1, 1, 1)),)))
    scenario.feed(*(tcp(client, VIP, "S") for client in clients(9)))
    assert letters(replay(scenario).sent) == "ABCABCABC"


def test_rr_takes_no_notice_of_weights_above_zero(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(7, 1, 3)),)))
    scenario.feed(*(tcp(client, VIP, "S") for client in clients(6)))
    assert letters(replay(scenario).sent) == "ABCABC"


def test_wrr_follows_the_ipvs_sequence(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(4, 3, 2), scheduler="wrr"),)))
    scenario.feed(*(tcp(client, VIP, "S") for client in clients(18)))
    assert letters(replay(scenario).sent) == "AABABCABC" * 2


def test_wrr_divides_weights_by_their_gcd(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(200, 600, 400), scheduler="wrr"),)))
    scenario.feed(*(tcp(client, VIP, "S") for client in clients(12)))
    assert letters(replay(scenario).sent) == "BBCABC" * 2


def test_wrr_schedules_udp_exchanges_too(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(1, 2), "udp", "wrr"),)))
    scenario.feed(*(udp(client, VIP, b"q") for client in clients(6)))
    assert letters(replay(scenario).sent) == "BABBAB"


def test_weight_zero_is_never_chosen(replay):
    for_rr = Service(VIP, backends(1, 0, 1))
    for_wrr = Service("192.0.2.101:80", backends(0, 3, 1), scheduler="wrr")
    scenario = Scenario(Appliance((for_rr, for_wrr)))
    many = clients(14)
    scenario.feed(*(tcp(client, for_rr.vip, "S") for client in many[:6]))
    scenario.feed(*(tcp(client, for_wrr.vip, "S") for client in many[6:]))
    assert letters(replay(scenario).sent) == "ACACAC" + "BBBCBBBC"


def test_services_take_turns_of_their_own(replay):
    vips = [VIP, "192.0.2.100:443", "192.0.2.101:80"]
    scenario = Scenario(Appliance(tuple(Service(vip, backends(1, 1, 1)) for vip in vips)))
    scenario.feed(*(tcp(client, vips[i % 3], "S") for i, client in enumerate(clients(9))))
    assert letters(replay(scenario).sent) == "AAABBBCCC"


def test_packets_follow_their_flow(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(2, 1, 1), scheduler="wrr"),)))
    many = clients(12)
    scenario.feed(*(tcp(client, VIP, "S") for client in many))
    for _ in range(3):
        scenario.feed(*(tcp(client, VIP, "PA", b"GET /") for client in reversed(many)))
        scenario.feed(*(tcp(scenario.backend(client, VIP), client, "A") for client in many))
    scenario.feed(*(tcp(client, VIP, "S") for client in many))
    replay(scenario)


def test_flows_differ_by_address_port_and_protocol(replay):
    services = Service(VIP, backends(1, 1, 1)), Service(VIP, backends(1, 1, 1), "udp")
    scenario = Scenario(Appliance(services))
    for client in ("198.51.100.7:1024", "198.51.100.7:1025", "198.51.100.8:1024"):
        scenario.feed(tcp(client, VIP, "S"), udp(client, VIP, b"q"))
    assert letters(replay(scenario).sent) == "AABBCC"


def test_a_syn_that_goes_nowhere_takes_no_turn(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(1, 1, 1)),)))
    first, second, third = clients(3)
    scenario.feed(
        tcp(first, VIP, "S", ip={"ttl": 1}), tcp(second, VIP, "S"), tcp(third, VIP, "A"), tcp(third, VIP, "S")
    )
    assert letters([frame for frame in replay(scenario).sent if not is_answer(frame)]) == "AB"


def test_replies_of_a_shared_server_get_their_own_vip(replay):
    vips = [VIP, "192.0.2.101:8080"]
    scenario = Scenario(Appliance(tuple(Service(vip, (Backend("192.0.2.11:8000"),)) for vip in vips)))
    pairs = [(client, vips[i % 2]) for i, client in enumerate(clients(8))]
    scenario.feed(*(tcp(client, vip, "S") for client, vip in pairs))
    scenario.feed(*(tcp("192.0.2.11:8000", client, "SA") for client, _ in reversed(pairs)))
    replies = [Ether(frame) for frame in replay(scenario).sent[len(pairs) :]]
    assert [f"{p[IP].src}:{p[TCP].sport}" for p in replies] == [vip for _, vip in reversed(pairs)]


def test_a_client_of_two_vips_is_never_answered_by_the_wrong_one(replay):
    """Two flows of one endpoint to one server would have the same replies, so they get different servers."""
    vips = [VIP, "192.0.2.101:80", "192.0.2.102:80"]
    scenario = Scenario(Appliance(tuple(Service(vip, backends(1, 1)) for vip in vips)))
    [client] = clients(1)
    scenario.feed(*(tcp(client, vip, "S") for vip in vips))
    scenario.feed(*(tcp(scenario.backend(client, vip), client, "SA") for vip in vips[:2]))
    assert scenario.drops() == {REPLY_AMBIGUOUS: 1}
    sent = [Ether(frame) for frame in replay(scenario).sent]
    assert [f"{packet[IP].src}:{packet[TCP].sport}" for packet in sent[2:]] == vips[:2]


def test_arp_is_answered_for_own_addresses_and_vips(replay):
    scenario = Scenario(Appliance((Service(VIP, backends(1)),)))
    asked = [PORT_IP, VIP.split(":")[0], PORT_IP]
    scenario.feed(*(arp_request(NEAR_CLIENT, ip) for ip in asked), arp_request(NEAR_CLIENT, "192.0.2.77"))
    scenario.feed(tcp("198.51.100.7:31337", VIP, "S"))
    arps = [Ether(frame) for frame in replay(scenario).arps]
    answers = [packet for packet in arps if packet[ARP].op == 2]
    mac = scenario.appliance.neighbours[NEAR_CLIENT]
    assert sorted(packet[ARP].psrc for packet in answers) == sorted(asked)
    assert {(p.dst, p.src, p[ARP].hwsrc, p[ARP].hwdst, p[ARP].pdst) for p in answers} == {
        (mac, "02:70:63:61:70:00", "02:70:63:61:70:00", mac, NEAR_CLIENT)
    }

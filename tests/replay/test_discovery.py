"""Replay: neighbour discovery (RFC 4861): who is answered and how, what is told unasked, and what is not believed."""

import time
from socket import AF_INET6, inet_ntop, inet_pton

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.utils6 import in6_getnsma, in6_getnsmac

import drops
from appliance import (
    BOTH_FAMILIES,
    GATEWAY6,
    NEAR_CLIENT6,
    NEIGHBOURS,
    PORT_IP6,
    PORT_MAC,
    Appliance,
    Backend,
    Interface,
    Service,
    join,
)
from frames import Ether, icmpv6, ip_packet, pieces, tagged, tcp
from replay import Scenario, announced_by_advertisement
from verdict import Dropped

VIP, POOLED, NOBODY = "2001:db8:2::100", "2001:db8:2::230", "2001:db8:2::77"
CLIENT = "[2001:db8:51::7]:31337"
APPLIANCE = Appliance(
    (
        Service(join(VIP, 80), (Backend("[2001:db8:2::11]:8000"),)),
        Service(join(VIP, 81), (Backend("[2001:db8:2::11]:81", "full-nat"),), snat_pool="out"),
    ),
    interfaces=(*BOTH_FAMILIES, Interface(("2001:db8:113::fe/64",), (100,))),
    pools={"out": (POOLED, "192.0.2.230")},
)


def question(target: str, src: str = NEAR_CLIENT6, *, dst: str = "", mac: str = "", hop_limit: int = 255) -> bytes:
    """A neighbour solicitation, to the target's group unless `dst` says otherwise."""
    group = in6_getnsma(inet_pton(AF_INET6, target))
    sender = NEIGHBOURS.get(src, "02:00:5e:00:53:99")
    ip = IPv6(src=src, dst=dst or inet_ntop(AF_INET6, group), hlim=hop_limit)
    option = ICMPv6NDOptSrcLLAddr(lladdr=sender) if src != "::" else b""
    ethernet = Ether(src=sender, dst=mac or (PORT_MAC if dst else in6_getnsmac(group)))
    return bytes(ethernet / ip / ICMPv6ND_NS(tgt=target) / option)


def answers(outcome) -> list[Ether]:
    """Advertisements that answer a question, without those that are for everybody."""
    told = [Ether(frame) for frame in outcome.discoveries]
    return [packet for packet in told if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].S]


@pytest.mark.parametrize("target", [PORT_IP6, VIP, POOLED])
@pytest.mark.parametrize("asked", ["the group", "the address"])
def test_own_addresses_are_told(replay, target, asked):
    """RFC 4861, 7.2.4; an address of a pool is ours as much as a VIP."""
    frame = question(target, dst=target if asked == "the address" else "")
    scenario = Scenario(APPLIANCE).feed(frame).later(lambda scenario: time.sleep(0.3))
    [answer] = answers(replay(scenario))
    advertisement = answer[ICMPv6ND_NA]
    assert (answer.src, answer.dst) == (PORT_MAC, NEIGHBOURS[NEAR_CLIENT6])
    assert (answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (target, NEAR_CLIENT6, 255)
    assert (advertisement.tgt, advertisement.S) == (target, 1)
    assert advertisement[ICMPv6NDOptDstLLAddr].lladdr == PORT_MAC


def test_a_question_in_a_vlan_is_answered_there(replay):
    scenario = Scenario(APPLIANCE).feed(tagged(question("2001:db8:113::fe", "2001:db8:113::1"), (100,)))
    [answer] = answers(replay(scenario.later(lambda scenario: time.sleep(0.3))))
    assert answer["Dot1Q"].vlan == 100
    assert answer[IPv6].src == "2001:db8:113::fe"


def test_addresses_of_others_are_not_told(replay):
    scenario = Scenario(APPLIANCE)
    scenario.feed(question(NOBODY), question("2001:db8:113::fe"), question("2001:db8:2::11"), question(GATEWAY6))
    assert answers(replay(scenario.later(lambda scenario: time.sleep(0.3)))) == []


def test_who_wants_an_address_of_ours_is_told_that_it_is_taken(replay):
    """RFC 4862, 5.4: asked by nobody, it is everybody who is told."""
    scenario = Scenario(APPLIANCE).feed(question(VIP, "::")).later(lambda scenario: time.sleep(0.3))
    told = [Ether(frame) for frame in replay(scenario).discoveries]
    [defence] = [packet for packet in told if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].tgt == VIP]
    assert (defence[IPv6].src, defence[IPv6].dst, defence.dst) == (VIP, "ff02::1", "33:33:00:00:00:01")
    assert (defence[ICMPv6ND_NA].S, defence[ICMPv6ND_NA].O) == (0, 1)
    assert defence[ICMPv6ND_NA][ICMPv6NDOptDstLLAddr].lladdr == PORT_MAC


def test_addresses_are_announced_once_nobody_else_claims_them(replay):
    """RFC 4862, 5.4 and RFC 4861, 7.2.6"""
    scenario = Scenario(APPLIANCE).feed(question(NOBODY)).later(lambda scenario: time.sleep(2.5))
    outcome = replay(scenario.later(lambda scenario: scenario.feed(question(NOBODY))))
    announced = {address for frame in outcome.discoveries if (address := announced_by_advertisement(frame))}
    ours = {ip for ip in APPLIANCE.announced() if ":" in ip}
    assert {ip for ip in announced if not ip.startswith("fe80:")} == ours
    for frame in outcome.discoveries:
        if announced_by_advertisement(frame):
            assert Ether(frame)[ICMPv6ND_NA].O == 1


def cut(frame: bytes) -> list[bytes]:
    """A question in pieces."""
    return [frame[:14] + piece for piece in pieces(ip_packet(frame), (16,), 5)]


# name, frames, reasons; none for what only the control thread can tell to be wrong.
NOT_BELIEVED = {
    "from another link": ([question(VIP, hop_limit=254)], {drops.BAD_ICMP: 1}),
    "hop limit 0": ([question(VIP, hop_limit=0)], {drops.BAD_ICMP: 1}),
    "in pieces": (cut(question(VIP, dst=VIP)), {drops.FRAGMENT: 2}),
    "cut off": ([question(VIP, dst=VIP)[: 14 + 40 + 20]], {drops.TRUNCATED: 1}),
    "a wrong checksum": ([icmpv6(NEAR_CLIENT6, VIP, 135, bytes(4) + inet_pton(AF_INET6, VIP), ip={"ttl": 255}, chksum=1)], {}),
    "another code": ([icmpv6(NEAR_CLIENT6, VIP, 135, inet_pton(AF_INET6, VIP), code=1, ip={"ttl": 255})], {}),
    "a multicast target": ([icmpv6(NEAR_CLIENT6, VIP, 135, inet_pton(AF_INET6, "ff02::1"), ip={"ttl": 255})], {}),
    "an option of length 0": (
        [icmpv6(NEAR_CLIENT6, VIP, 135, inet_pton(AF_INET6, VIP) + b"\1\0" + bytes(6), ip={"ttl": 255})],
        {},
    ),
    "too short": ([icmpv6(NEAR_CLIENT6, VIP, 135, inet_pton(AF_INET6, VIP)[:15], ip={"ttl": 255})], {}),
    "another station's": ([question(VIP, dst=VIP, mac="02:00:5e:00:53:fe")], {drops.NOT_OUR_MAC: 1}),
}


@pytest.mark.parametrize("name", NOT_BELIEVED)
def test_what_is_not_believed(replay, name):
    """RFC 4861, 7.1 and RFC 6980"""
    frames, reasons = NOT_BELIEVED[name]
    scenario = Scenario(APPLIANCE).feed(*frames)
    assert scenario.drops() == reasons
    assert answers(replay(scenario.later(lambda scenario: time.sleep(0.3)))) == []


def advertisement(target: str, mac: str, **fields) -> bytes:
    """Somebody says, unasked, that an address is theirs."""
    ip = IPv6(src=target, dst="ff02::1", hlim=255)
    said = ICMPv6ND_NA(**{"tgt": target, "R": 0, "S": 0, "O": 1, **fields}) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return bytes(Ether(src=mac, dst="33:33:00:00:00:01") / ip / said)


def test_known_neighbours_are_not_unlearned(replay):
    """Neighbours of the file stay as they are, whoever claims to be them, and no router makes itself one."""
    liar = "02:00:5e:00:53:66"
    router = Ether(src=liar, dst="33:33:00:00:00:01") / IPv6(src="fe80::66", dst="ff02::1", hlim=255) / ICMPv6ND_RA()
    scenario = Scenario(APPLIANCE).feed(advertisement("2001:db8:2::11", liar), advertisement(GATEWAY6, liar), bytes(router))
    scenario.later(lambda scenario: time.sleep(0.3))
    replay(scenario.later(lambda scenario: scenario.feed(tcp(CLIENT, join(VIP, 80), "S"))))
    assert not any(isinstance(verdict, Dropped) for verdict in scenario.verdicts)

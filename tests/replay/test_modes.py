"""Replay: what NAT, direct return and tunnel make of good frames."""

import pytest

from appliance import NEAR_CLIENT, Appliance, Backend, Service
from frames import (
    ETH_LEN,
    IP,
    TCP,
    UDP,
    Ether,
    padded,
    pattern,
    tcp,
    tcp_of_ip_len,
    udp,
    word_that_zeroes_udp,
)
from replay import Scenario

CLIENT = "198.51.100.7:31337"
NAT, DR, TUNNEL = "192.0.2.100:80", "192.0.2.101:80", "192.0.2.102:80"
NAT_UDP, DR_UDP, TUNNEL_UDP = "192.0.2.100:53", "192.0.2.101:53", "192.0.2.102:53"
MODES = {"nat": NAT, "dr": DR, "tunnel": TUNNEL}
UDP_MODES = {"nat": NAT_UDP, "dr": DR_UDP, "tunnel": TUNNEL_UDP}
EACH_MODE = pytest.mark.parametrize("mode", MODES)


def three_modes(mtu: int = 1500) -> Appliance:
    """A TCP and a UDP service for each mode, each with one server; NAT changes the port."""
    return Appliance(
        services=(
            Service(NAT, (Backend("192.0.2.11:8000", "nat"),)),
            Service(DR, (Backend("192.0.2.12:80", "dr"),)),
            Service(TUNNEL, (Backend("192.0.2.13:80", "tunnel"),)),
            Service(NAT_UDP, (Backend("192.0.2.11:5353", "nat"),), "udp"),
            Service(DR_UDP, (Backend("192.0.2.12:53", "dr"),), "udp"),
            Service(TUNNEL_UDP, (Backend("192.0.2.13:53", "tunnel"),), "udp"),
        ),
        mtu=mtu,
    )


def exchange(client: str, vip: str, server: str, end: str) -> list[bytes]:
    """A NATed TCP connection with odd and even payloads both ways, ended by FIN or RST."""
    to_server = [tcp(client, vip, "PA", pattern(length), seq=2) for length in (1, 2, 517, 1460)]
    to_client = [tcp(server, client, "PA", pattern(length), seq=8, ack=4) for length in (1, 2, 1023, 1460)]
    from_client, from_server = tcp(client, vip, "FA"), tcp(server, client, "FA")
    ends = {
        "FIN": [from_client, tcp(server, client, "A"), from_server, tcp(client, vip, "A")],
        "RST": [tcp(client, vip, "R")],
    }
    return [
        tcp(client, vip, "S", options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 0)), ("WScale", 7)]),
        tcp(server, client, "SA", options=[("MSS", 1460), ("WScale", 9)]),
        tcp(client, vip, "A"),
        *to_server,
        *to_client,
        tcp(client, vip, "PAU", b"urgent", urgptr=3, window=1),
        *ends[end],
    ]


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("client", [CLIENT, f"{NEAR_CLIENT}:40000"], ids=["far client", "near client"])
def test_nat_carries_a_tcp_connection_both_ways(replay, client, end):
    scenario = Scenario(three_modes())
    scenario.feed(*exchange(client, NAT, "192.0.2.11:8000", end))
    sent = [Ether(frame) for frame in replay(scenario).sent]
    requests = [packet for packet in sent if packet[IP].dst == "192.0.2.11"]
    replies = [packet for packet in sent if packet[IP].dst == client.split(":")[0]]
    assert len(requests) + len(replies) == len(scenario.frames)
    assert {(packet[IP].src, packet[TCP].dport) for packet in requests} == {(client.split(":")[0], 8000)}
    assert {(packet[IP].src, packet[TCP].sport) for packet in replies} == {("192.0.2.100", 80)}


def test_nat_carries_udp_both_ways(replay):
    scenario = Scenario(three_modes())
    for length in (0, 1, 2, 511, 1472):
        scenario.feed(
            udp(CLIENT, NAT_UDP, pattern(length)),
            udp("192.0.2.11:5353", CLIENT, pattern(length + 1 if length < 1472 else length)),
        )
    replay(scenario)


def test_nat_leaves_an_absent_udp_checksum_absent(replay):
    scenario = Scenario(three_modes()).feed(
        udp(CLIENT, NAT_UDP, b"query", chksum=0), udp("192.0.2.11:5353", CLIENT, b"answer", chksum=0)
    )
    assert [Ether(frame)[UDP].chksum for frame in replay(scenario).sent] == [0, 0]


def test_nat_sends_a_udp_checksum_of_zero_as_all_ones(replay):
    server = "192.0.2.11:5353"
    scenario = Scenario(three_modes()).feed(
        udp(CLIENT, NAT_UDP, word_that_zeroes_udp(CLIENT, server)),
        udp(server, CLIENT, word_that_zeroes_udp(NAT_UDP, CLIENT)),
    )
    assert [Ether(frame)[UDP].chksum for frame in replay(scenario).sent] == [0xFFFF, 0xFFFF]


def test_a_udp_checksum_of_all_ones_is_updated_like_any_other(replay):
    server = "192.0.2.11:5353"
    scenario = Scenario(three_modes()).feed(
        udp(CLIENT, NAT_UDP, word_that_zeroes_udp(CLIENT, NAT_UDP)),
        udp(server, CLIENT, word_that_zeroes_udp(server, CLIENT)),
    )
    assert [UDP(frame[ETH_LEN + 20 :]).chksum for frame in scenario.frames] == [0xFFFF, 0xFFFF]
    replay(scenario)


def test_a_wrong_l4_checksum_stays_wrong(replay):
    scenario = Scenario(three_modes()).feed(
        *(tcp(CLIENT, vip, "S") for vip in MODES.values()), udp(CLIENT, NAT_UDP, b"ab")
    )
    good_tcp = [
        *(tcp(CLIENT, vip, "PA", b"data") for vip in MODES.values()),
        tcp("192.0.2.11:8000", CLIENT, "PA", b"data"),
    ]
    good_udp = [udp(CLIENT, NAT_UDP, b"ab"), udp("192.0.2.11:5353", CLIENT, b"abc")]
    for error in (1, 0x0100, 0x8000, 0xFFFE):
        for frame in good_tcp:
            chksum = (TCP(frame[ETH_LEN + 20 :]).chksum + error) % 0xFFFF
            scenario.feed(frame[: ETH_LEN + 36] + chksum.to_bytes(2, "big") + frame[ETH_LEN + 38 :])
        for frame in good_udp:
            chksum = (UDP(frame[ETH_LEN + 20 :]).chksum + error) % 0xFFFF or 0xFFFF
            scenario.feed(frame[: ETH_LEN + 26] + chksum.to_bytes(2, "big") + frame[ETH_LEN + 28 :])
    replay(scenario)


def test_dr_changes_only_macs_and_ttl(replay):
    scenario = Scenario(three_modes()).feed(
        tcp(CLIENT, DR, "S"), tcp(CLIENT, DR, "PA", pattern(1460)), udp(CLIENT, DR_UDP, pattern(31))
    )
    for received, sent in zip(scenario.frames, replay(scenario).sent, strict=True):
        changed = {i for i in range(ETH_LEN, len(sent)) if received[i] != sent[i]}
        assert changed <= {ETH_LEN + 8, ETH_LEN + 10, ETH_LEN + 11}


@pytest.mark.parametrize("flags", ["DF", 0], ids=["DF", "no DF"])
def test_tunnel_wraps_the_packet(replay, flags):
    ip = {"flags": flags, "ttl": 9, "tos": 0xB9}
    scenario = Scenario(three_modes()).feed(
        tcp(CLIENT, TUNNEL, "S", ip=ip),
        tcp(CLIENT, TUNNEL, "PA", pattern(1440), ip=ip),
        tcp(CLIENT, TUNNEL, "PA", pattern(3), ip=ip),
        udp(CLIENT, TUNNEL_UDP, pattern(7), ip=ip),
    )
    outer_ids = [Ether(frame)[IP].id for frame in replay(scenario).sent]
    # RFC 6864: a packet that may be fragmented needs an identification of its own.
    assert len(set(outer_ids)) == (1 if flags else len(outer_ids))


def test_a_far_tunnel_backend_is_reached_by_the_gateway(replay):
    appliance = Appliance((Service(TUNNEL, (Backend("203.0.113.9:80", "tunnel"),)),))
    replay(Scenario(appliance).feed(tcp(CLIENT, TUNNEL, "S"), tcp(CLIENT, TUNNEL, "A")))


def test_one_service_may_mix_modes(replay):
    servers = {"192.0.2.11:80": "nat", "192.0.2.12:80": "dr", "192.0.2.13:80": "tunnel"}
    backends = tuple(Backend(address, mode) for address, mode in servers.items())
    scenario = Scenario(Appliance((Service(NAT, backends),)))
    scenario.feed(*(tcp(f"198.51.100.7:{port}", NAT, "S") for port in range(2000, 2006)))
    replay(scenario)


@EACH_MODE
def test_padding_is_cut_off(replay, mode):
    frames = [
        tcp(CLIENT, MODES[mode], "S"),
        tcp(CLIENT, MODES[mode], "PA", b"abc"),
        udp(CLIENT, UDP_MODES[mode], b""),
        udp(CLIENT, UDP_MODES[mode], b"odd"),
    ]
    if mode == "nat":
        frames += [tcp("192.0.2.11:8000", CLIENT, "A"), udp("192.0.2.11:5353", CLIENT, b"r")]
    scenario = Scenario(three_modes())
    for fill in (0, 0xA5):
        scenario.feed(*(padded(frame, fill) for frame in frames))
    replay(scenario)


@EACH_MODE
def test_ttl_falls_by_one(replay, mode):
    scenario = Scenario(three_modes())
    for ttl in (2, 3, 64, 128, 255, 1, 0):
        scenario.feed(tcp(CLIENT, MODES[mode], "S", ip={"ttl": ttl}))
        if mode == "nat":
            scenario.feed(tcp("192.0.2.11:8000", CLIENT, "SA", ip={"ttl": ttl}))
    replay(scenario)


@EACH_MODE
def test_dscp_ecn_and_identification_are_kept(replay, mode):
    scenario = Scenario(three_modes()).feed(tcp(CLIENT, MODES[mode], "SEC"))
    for tos in (0x01, 0x02, 0x03, 0xB8, 0xFF):
        ip = {"tos": tos, "id": 0xFFFF - tos}
        scenario.feed(tcp(CLIENT, MODES[mode], "A", ip=ip))
        if mode == "nat":
            scenario.feed(tcp("192.0.2.11:8000", CLIENT, "A", ip=ip))
    replay(scenario)


@EACH_MODE
def test_ip_options_are_carried(replay, mode):
    router_alert, nops = b"\x94\x04\0\0", b"\x01" * 36
    scenario = Scenario(three_modes())
    for options in (router_alert, nops[:4], router_alert + nops):
        ip = {"options": IP(bytes(IP(ihl=5 + len(options) // 4))[:20] + options).options}
        frames = [
            tcp(CLIENT, MODES[mode], "S", ip=ip),
            tcp(CLIENT, MODES[mode], "PA", b"odd", ip=ip),
            udp(CLIENT, UDP_MODES[mode], b"even", ip=ip),
        ]
        if mode == "nat":
            frames.append(tcp("192.0.2.11:8000", CLIENT, "PA", b"ab", ip=ip))
            frames.append(udp("192.0.2.11:5353", CLIENT, b"even", ip=ip))
        assert all(frame[ETH_LEN + 20 :].startswith(options) for frame in frames)
        scenario.feed(*frames)
    replay(scenario)


@EACH_MODE
def test_jumbo_frames_pass(replay, mode):
    """Frames that arrive as several segments: 9,000 bytes in all, and as long as the MTU lets them be."""
    largest = 8980 if mode == "tunnel" else 9000
    scenario = Scenario(three_modes(mtu=9000)).feed(tcp(CLIENT, MODES[mode], "S"))
    for ip_len in (2035, 4000, 8979, min(8986, largest), largest):
        scenario.feed(tcp_of_ip_len(CLIENT, MODES[mode], ip_len))
    scenario.feed(udp(CLIENT, UDP_MODES[mode], pattern(largest - 28)))
    if mode == "nat":
        scenario.feed(*(tcp_of_ip_len("192.0.2.11:8000", CLIENT, n) for n in (4001, 8986, 9000)))
    sent = replay(scenario).sent
    for received, frame in zip(scenario.frames, sent, strict=True):
        assert frame.endswith(received[ETH_LEN + 40 :])

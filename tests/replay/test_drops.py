"""Replay: frames that must not be forwarded, and the reason each is counted under."""

import random

import pytest

import drops
from appliance import Appliance, Backend, Service
from frames import ETH_LEN, icmp, tcp, udp
from replay import Scenario
from verdict import Dropped

CLIENT = "198.51.100.7:31337"
WEB, DNS, TUNNEL, EMPTY = "192.0.2.100:80", "192.0.2.100:53", "192.0.2.102:80", "192.0.2.103:80"
SERVER, DNS_SERVER = "192.0.2.11:8000", "192.0.2.11:53"
APPLIANCE = Appliance(
    services=(
        Service(WEB, (Backend(SERVER), Backend("192.0.2.12:8000"))),
        Service(DNS, (Backend(DNS_SERVER),), "udp"),
        Service(TUNNEL, (Backend("192.0.2.13:80", "tunnel"),)),
        Service(EMPTY, (Backend("192.0.2.13:80", weight=0),), no_backend="drop"),
    )
)


def syn(**changes) -> bytes:
    """A SYN to the web service with one fault."""
    return tcp(CLIENT, WEB, "S", **changes)


def query(**changes) -> bytes:
    """A query to the DNS service with one fault."""
    return udp(CLIENT, DNS, b"query", **changes)


# name, reason, frame. Every frame has one fault and would be forwarded without it.
CASES = [
    ("foreign destination MAC", drops.NOT_OUR_MAC, syn(eth={"dst": "02:00:5e:00:53:fe"})),
    ("IPv6", drops.BAD_IP_HEADER, syn(eth={"type": 0x86DD})),
    ("802.3 length instead of a type", drops.UNKNOWN_ETHERTYPE, syn(eth={"type": 0x0026})),
    ("nothing behind Ethernet", drops.TRUNCATED, syn()[:ETH_LEN]),
    ("half an IP header", drops.TRUNCATED, syn()[: ETH_LEN + 19]),
    ("IP version 6", drops.BAD_IP_HEADER, syn(ip={"version": 6})),
    ("IP version 0", drops.BAD_IP_HEADER, syn(ip={"version": 0})),
    ("IHL 4", drops.BAD_IP_HEADER, syn(ip={"ihl": 4})),
    ("IHL 0", drops.BAD_IP_HEADER, syn(ip={"ihl": 0})),
    ("total length beyond the frame", drops.FRAME_CUT_SHORT, syn(ip={"len": 41})),
    ("total length of a giant", drops.FRAME_CUT_SHORT, syn(ip={"len": 65535})),
    ("total length below the header", drops.BAD_IP_LENGTH, syn(ip={"len": 19})),
    ("total length 0", drops.BAD_IP_LENGTH, syn(ip={"len": 0})),
    ("last byte missing", drops.FRAME_CUT_SHORT, syn()[:-1]),
    ("wrong IP checksum", drops.BAD_IP_CHECKSUM, syn(ip={"chksum": 0x1234})),
    ("absent IP checksum", drops.BAD_IP_CHECKSUM, syn(ip={"chksum": 0})),
    ("first fragment of 20 bytes", drops.BAD_FRAGMENT, syn(ip={"flags": "MF"})),
    ("middle fragment of 20 bytes", drops.BAD_FRAGMENT, syn(ip={"flags": "MF", "frag": 185})),
    ("UDP fragment of 13 bytes", drops.BAD_FRAGMENT, query(ip={"flags": "MF"})),
    ("SCTP", drops.UNKNOWN_PROTOCOL, syn(ip={"proto": 132})),
    ("GRE", drops.UNKNOWN_PROTOCOL, syn(ip={"proto": 47})),
    ("ICMP in IPv6's number", drops.UNKNOWN_PROTOCOL, icmp("198.51.100.7", "192.0.2.100", 8, ip={"proto": 58})),
    ("TCP data offset 4", drops.BAD_TCP_HEADER, syn(dataofs=4)),
    ("TCP data offset 0", drops.BAD_TCP_HEADER, syn(dataofs=0)),
    ("UDP length 7", drops.BAD_UDP_LENGTH, query(len=7)),
    ("UDP length 0", drops.BAD_UDP_LENGTH, query(len=0)),
    ("UDP length beyond the packet", drops.BAD_UDP_LENGTH, query(len=14)),
    ("port without a service, TTL 1", drops.NO_SERVICE, tcp(CLIENT, "192.0.2.100:81", "S", ip={"ttl": 1})),
    ("port without a service", drops.NO_SERVICE, tcp(CLIENT, "192.0.2.100:81", "S")),
    ("UDP to a TCP service", drops.NO_SERVICE, udp(CLIENT, WEB, b"query")),
    ("every server has weight 0", drops.NO_BACKEND, tcp(CLIENT, EMPTY, "S")),
    ("ACK of no flow", drops.NO_FLOW_NOT_SYN, tcp(CLIENT, WEB, "A")),
    ("FIN of no flow", drops.NO_FLOW_NOT_SYN, tcp(CLIENT, WEB, "FA")),
    ("RST of no flow", drops.NO_FLOW_NOT_SYN, tcp(CLIENT, WEB, "R")),
    ("SYN-ACK of no flow", drops.NO_FLOW_NOT_SYN, tcp(CLIENT, WEB, "SA")),
    ("SYN with RST", drops.BAD_TCP_FLAGS, tcp(CLIENT, WEB, "SR")),
    ("SYN with FIN", drops.BAD_TCP_FLAGS, tcp(CLIENT, WEB, "SF")),
    ("no flags at all", drops.BAD_TCP_FLAGS, tcp(CLIENT, WEB, 0)),
    ("TCP reply of no flow", drops.NO_FLOW, tcp(SERVER, CLIENT, "SA")),
    ("UDP reply of no flow", drops.NO_FLOW, udp(DNS_SERVER, CLIENT, b"answer")),
    ("longer than the MTU in the tunnel", drops.TOO_BIG, tcp(CLIENT, TUNNEL, "S", b"x" * 1441)),
]


@pytest.mark.parametrize("reason, frame", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_dropped_and_without_a_trace(replay, reason, frame):
    """The frame is counted under its reason and the next good frame is served as if it had not been."""
    scenario = Scenario(APPLIANCE).feed(frame)
    assert scenario.verdicts == [Dropped(reason)]
    replay(scenario.feed(syn(), query()))


def test_replies_that_only_resemble_a_flow_are_dropped(replay):
    scenario = Scenario(APPLIANCE).feed(syn())
    lookalikes = [
        tcp(SERVER, "198.51.100.7:31338", "SA"),
        tcp(SERVER, "198.51.100.8:31337", "SA"),
        tcp("192.0.2.12:8000", CLIENT, "SA"),
        udp(DNS_SERVER, CLIENT, b"answer"),
    ]
    scenario.feed(*lookalikes, tcp(SERVER, CLIENT, "SA"))
    assert scenario.drops() == {drops.NO_FLOW: 4}
    replay(scenario)


@pytest.mark.parametrize(
    "frame",
    [
        syn(ip={"len": 39}),
        query(ip={"len": 27}),
        syn(dataofs=6),
        syn(dataofs=15),
        syn(ip={"ihl": 15}),
        syn(ip={"len": 39, "flags": "MF"}),
    ],
    ids=["TCP length", "UDP length", "data offset 6", "data offset 15", "IHL 15", "cut fragment"],
)
def test_headers_beyond_the_packet_are_dropped(replay, frame):
    replay(Scenario(APPLIANCE).feed(frame, syn()), exact_reasons=False)


def test_no_prefix_of_a_frame_is_forwarded(replay):
    scenario = Scenario(APPLIANCE)
    ping = icmp("198.51.100.7", "192.0.2.100", 8, b"ping")
    for frame in (syn(), query(), tcp(CLIENT, TUNNEL, "S", ip={"tos": 4}), ping):
        scenario.feed(*(frame[:length] for length in range(ETH_LEN, len(frame))))
    assert not scenario.expected()
    replay(scenario.feed(syn()), exact_reasons=False)


def test_only_a_syn_opens_a_flow(replay):
    """Every combination of the six flags of RFC 793, each from a client of its own."""
    scenario = Scenario(APPLIANCE)
    scenario.feed(*(tcp(f"198.51.100.9:{1024 + flags}", WEB, flags) for flags in range(64)))
    replay(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bytes_are_survived(replay, seed):
    """One to three bytes of good frames are overwritten; whatever still is a packet is forwarded.

    But for the TCP flags: they may end a flow, and when its endpoints may be used again is left open here.
    """
    rng = random.Random(seed)
    touched = [i for i in range(ETH_LEN, len(query())) if i != ETH_LEN + 20 + 13]
    scenario = Scenario(APPLIANCE).feed(syn(), query())
    good = [syn(), query(), tcp(CLIENT, WEB, "PA", b"data"), tcp(SERVER, CLIENT, "PA", b"data")]
    for _ in range(400):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randint(1, 3)):
            frame[rng.choice(touched)] = rng.randrange(256)
        scenario.feed(bytes(frame))
    assert len(scenario.expected()) > 20
    replay(scenario, exact_reasons=False)

"""A random but repeatable conversation of many clients with all kinds of services."""

import random

from appliance import NEAR_CLIENT, PORT_IP, Appliance, Backend, Service, split
from frames import ETH_LEN, icmp, ip_packet, padded, pattern, tcp, udp
from replay import Scenario
from session import BURST

WEIGHTED = (
    Backend("192.0.2.11:8000", weight=4),
    Backend("192.0.2.12:8000", weight=3),
    Backend("192.0.2.13:80", weight=2),
)
NAT = Backend("192.0.2.11:8000"), Backend("192.0.2.12:8443")
NAT_UDP = Backend("192.0.2.11:5353"), Backend("192.0.2.12:53")
DR = Backend("192.0.2.12:80", "dr"), Backend("192.0.2.13:80", "dr")
TUNNEL = Backend("192.0.2.13:80", "tunnel"), Backend("203.0.113.9:80", "tunnel")
DIRECT_UDP = Backend("192.0.2.13:53", "tunnel"), Backend("192.0.2.11:53", "dr")
APPLIANCE = Appliance(
    services=(
        Service("192.0.2.100:80", WEIGHTED, scheduler="wrr"),
        Service("192.0.2.100:443", NAT),
        Service("192.0.2.101:80", DR, scheduler="wrr"),
        Service("192.0.2.102:80", TUNNEL),
        Service("192.0.2.100:53", NAT_UDP, "udp"),
        Service("192.0.2.102:53", DIRECT_UDP, "udp"),
    )
)
FAULTS = (
    {"ip": {"ttl": 1}},
    {"ip": {"chksum": 0x0BAD}},
    {"ip": {"flags": "MF"}},
    {"ip": {"proto": 132}},
    {"ip": {"ihl": 4}},
    {"ip": {"len": 12}},
    {"eth": {"dst": "02:00:5e:00:53:fe"}},
    {"eth": {"type": 0x86DD}},
)


def mixed(rng: random.Random, count: int) -> Scenario:
    """A scenario of at least `count` frames."""
    scenario = Scenario(APPLIANCE)
    flows: list[tuple[str, Service]] = []
    opened: list[int] = []
    while len(scenario.frames) < count:
        if not flows or rng.random() < 0.2:
            # The port makes the client unique: behind a shared server two flows of one client are one.
            ip = rng.choice([NEAR_CLIENT, *(f"198.51.100.{i}" for i in range(1, 20))])
            flow = f"{ip}:{10000 + len(flows)}", rng.choice(APPLIANCE.services)
            flows.append(flow)
            opened.append(len(scenario.frames))
            scenario.feed(_request(rng, *flow, opening=True))
        elif rng.random() < 0.2:
            # An error about a packet that is in the same burst can not have come yet.
            known = [flow for flow, at in zip(flows, opened, strict=True) if at + BURST < len(scenario.frames)]
            scenario.feed(_icmp(rng, scenario, *rng.choice(known)) if known else ping(rng))
        else:
            _continue(rng, scenario, *rng.choice(flows))
    return scenario


def ping(rng: random.Random) -> bytes:
    """An echo request, most to who answers it."""
    dst = rng.choice([PORT_IP, "192.0.2.100", "192.0.2.101", "192.0.2.102", "192.0.2.77"])
    src = rng.choice([NEAR_CLIENT, "198.51.100.7"])
    fields = {"id": rng.randrange(65536), "seq": rng.randrange(65536)}
    return padded(icmp(src, dst, 8, pattern(rng.randrange(200)), ip={"ttl": rng.randrange(256)}, **fields))


def _icmp(rng: random.Random, scenario: Scenario, client: str, service: Service) -> bytes:
    """Something for or by ICMP: echo, an error about a packet either way, or a packet too long."""
    what = rng.choice(["echo", "too long", "by the client", "by the server"])
    if what == "echo":
        return ping(rng)
    if what == "too long":
        length, flags = rng.randrange(1470, 1502), rng.choice(["DF", 0])
        build, header = (tcp, 40) if service.protocol == "tcp" else (udp, 28)
        return build(client, service.vip, payload=pattern(length - header), ip={"flags": flags})
    backend = scenario.oracle.flows[service.protocol, client, service.vip].backend
    src, dst = (service.vip, client) if what == "by the client" else (client, backend.address)
    quote = ip_packet(_packet(rng, src, dst, service.protocol, "A"), rng.randrange(24, 600))
    sender = rng.choice([split(dst)[0], "198.51.100.254", "203.0.113.1"])
    kind, code = rng.choice([(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (5, 1)])
    return padded(icmp(sender, split(src)[0], kind, quote, code=code, ip={"ttl": rng.randrange(1, 256)}))


def _continue(rng: random.Random, scenario: Scenario, client: str, service: Service) -> None:
    backend = scenario.oracle.flows[service.protocol, client, service.vip].backend
    if rng.random() < 0.12:
        send = tcp if service.protocol == "tcp" else udp
        scenario.feed(send(client, service.vip, **rng.choice(FAULTS)))
    elif backend.mode == "nat" and rng.random() < 0.5:
        flags = rng.choice(["SA", "A", "PA", "FA"])
        scenario.feed(_packet(rng, backend.address, client, service.protocol, flags))
    else:
        scenario.feed(_request(rng, client, service, opening=False))


def _request(rng: random.Random, client: str, service: Service, opening: bool) -> bytes:
    flags = "S" if opening else rng.choice(["A", "A", "PA", "PAU", "FA", "R"])
    return _packet(rng, client, service.vip, service.protocol, flags)


def _packet(rng: random.Random, src: str, dst: str, protocol: str, flags: str) -> bytes:
    payload = pattern(rng.choice([0, 0, 1, 2, 3, 64, 255, 1000, rng.randrange(1400)]))
    ip = {
        "id": rng.randrange(65536),
        "tos": rng.randrange(256),
        "ttl": rng.randrange(2, 256),
        "flags": rng.choice(["DF", 0]),
    }
    fields = {"chksum": rng.choice([0, rng.randrange(1, 0xFFFF)])} if rng.random() < 0.1 else {}
    if protocol == "udp":
        frame = udp(src, dst, payload, ip=ip, **fields)
    else:
        fields |= {name: rng.randrange(1 << 32) for name in ("seq", "ack")}
        fields["window"] = rng.randrange(65536)
        if rng.random() < 0.3:
            fields["options"] = [("NOP", None), ("NOP", None), ("Timestamp", (rng.randrange(1 << 32), 1))]
        frame = tcp(src, dst, flags, payload, ip=ip, **fields)
    assert len(frame) <= ETH_LEN + 1480, "the tunnel would make it longer than the MTU"
    return padded(frame, rng.choice([0, 0xFF]))

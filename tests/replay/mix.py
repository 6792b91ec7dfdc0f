"""A random but repeatable conversation of many clients with all kinds of services."""

import random

from appliance import NEAR_CLIENT, Appliance, Backend, Service
from frames import ETH_LEN, padded, pattern, tcp, udp
from replay import Scenario

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
    while len(scenario.frames) < count:
        if not flows or rng.random() < 0.2:
            # The port makes the client unique: behind a shared server two flows of one client are one.
            ip = rng.choice([NEAR_CLIENT, *(f"198.51.100.{i}" for i in range(1, 20))])
            flow = f"{ip}:{10000 + len(flows)}", rng.choice(APPLIANCE.services)
            flows.append(flow)
            scenario.feed(_request(rng, *flow, opening=True))
        else:
            _continue(rng, scenario, *rng.choice(flows))
    return scenario


def _continue(rng: random.Random, scenario: Scenario, client: str, service: Service) -> None:
    backend = scenario.oracle.backends[service.protocol, client, service.vip]
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

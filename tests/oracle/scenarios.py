"""What all schedulers are tried with."""

from dataclasses import dataclass

from scenario import Phase, Scenario


def scenario(scheduler, *phases, **more):
    """A scenario of phases written `servers: steps`."""
    pairs = (phase.split(":", 1) for phase in phases)
    return Scenario(
        scheduler, tuple(Phase(servers.strip(), steps.strip()) for servers, steps in pairs), **more
    )


TURNS = "rr", "wrr"
LEAST = "lc", "wlc", "sed", "nq"
RANKED = "fo", "ovf"
LOCALITY = "lblc", "lblcr"
COUNTING = *LEAST, *RANKED, *LOCALITY
ALL = *TURNS, *COUNTING

WEIGHTS = "A1 B1 C1", "A1 B2 C3", "A3 B2 C1", "A5 B1 C1", "A0 B2 C1", "A2 B0 C4 D6", "A7 B5", "A200 B600 C400"
STEADY = [scenario(name, f"{weights}: 24") for name in ALL for weights in WEIGHTS]

# All connections are inactive.
DATAGRAMS = [
    scenario(name, f"{weights}: 16", protocol="udp")
    for name in ALL
    for weights in ("A1 B1 C1", "A1 B2 C3", "A3 B2 C1")
]
SIX = [scenario(name, "A1 B2 C3: 16", version=6) for name in ALL]

# Connections that end, half-open ones and short ones.
LIVELY = [
    scenario(name, f"{weights}: 8 end1 end2 end5 6 half3 4 brief3 6 end9 end10 reset4 reset11 8")
    for name in COUNTING
    for weights in ("A1 B1 C1", "A3 B2 C2", "A1 B2 C4")
]
# One active connection and inactive ones, up to where they weigh as much as it.
OVERHEAD = [
    *(
        scenario("lc", f"{a}1 {b}0: 1", f"{a}0 {b}1: brief{inactive}", f"{a}1 {b}1: 6")
        for a, b in ("AB", "BA")
        for inactive in (256, 257)
    ),
    *(scenario("wlc", "A2 B0: 1", f"A0 B1: brief{inactive}", "A2 B1: 6") for inactive in (128, 129)),
]
CHANGED = [
    scenario(
        name,
        "A3 B2 C2: 8 end1 end2 end5 6",
        "A3 B2 C4: 6",
        "A0 B2 C4: 5",
        "A0 B2: 4",
        "A4 B2: 6",
        "D3 A4 B2: 9",
        "D3 A4: 5",
        "B2 D3 A4: 9",
    )
    for name in ALL
    if name != "lblcr"
]
FURTHER_CHANGED = [
    scenario(
        "lblcr",
        "A3 B2 C2: 8 end1 end2 end5 6",
        "A3 B2 C4: 6",
        "A3 B2: 4",
        "D3 A3 B2: 9",
        "D3 A9 B2: 9",
        "D3 A9: 5",
    ),
    scenario(
        "wrr",
        "A4 B3 C2: 1",
        "A1 B3 C2: 12",
        "A1 B3 C6: 14",
        "A1 B3: 8",
        "A1 B0: 3",
        "A0 B0: 3",
        "A0 B2: 4",
        "A4 B2: 8",
    ),
    scenario("wrr", "A5 B1 C1: 2", "A5 B5 C1: 14", "A2 B5 C1: 10", "D4 A2 B5 C1: 14"),
    scenario("rr", "A1 B1 C1: 4", "A1 B0 C1: 4", "A1 B2 C1: 6", "B2 C1: 4", "A1 B2 C1: 6", "D3 A1 B2 C1: 6"),
    scenario(
        "wrr", "A1 B1 C1: 4", "A1 B0 C1: 4", "A1 B2 C1: 6", "B2 C1: 4", "A1 B2 C1: 6", "D3 A1 B2 C1: 12"
    ),
]

LIMITED = [
    scenario(name, f"{servers}: 14")
    for name in (*ALL, "sh", "dh", "mh")
    if name != "lblc"
    for servers in ("A9<2 B9<3 C9", "A9<1 B9<2")
]
# The flag of a server at its limit is set and taken away by changes of the limits.
RELIMITED = [
    scenario("fo", f"A2{before} B1: 4", f"A2{after} B1: 3")
    for before, after in (
        ("", "<4"),
        ("", "<5"),
        ("<8", "<4"),
        ("<8", "<5"),
        ("<8", "<3"),
        ("<4", ""),
        ("<4", "<5"),
        ("<4", "<6"),
        ("<4", "<4>3"),
        ("<4", "<20>2"),
    )
]

SH = [
    scenario("sh", f"{weights}: 48", version=version)
    for weights in ("A1 B1 C1", "A1 B2 C3", "A100 B100 C100", "A1000 B1 C1", "A0 B1 C1")
    for version in (4, 6)
]
SH_FLAGS = [
    scenario(
        "sh",
        "A1 B2 C1: 32",
        "A1 B0 C1: 32",
        "A1 C1: 16",
        "D2 A1 C1: 16",
        ipvs=ipvs,
        ours=ours,
        protocol=protocol,
    )
    for ipvs, ours in (
        ("", ""),
        ("-b sh-port", 'hash = { on = "source-port" }'),
        ("-b sh-fallback", "hash = { fallback = true }"),
        ("-b sh-port,sh-fallback", 'hash = { on = "source-port", fallback = true }'),
    )
    for protocol in ("tcp", "udp")
] + [scenario("sh", "A1<4 B1<6 C1: 32", ipvs="-b sh-fallback", ours="hash = { fallback = true }")]
DH = [
    scenario("dh", "A1 B2 C3: 6", "A1 B0 C3: 6", "A1 C3: 6", "D2 A1 C3: 6", version=version)
    for version in (4, 6)
]

MH = [
    scenario("mh", f"{weights}: 48", version=version)
    for weights in ("A1 B1 C1", "A1 B2 C3", "A1000 B1 C1")
    for version in (4, 6)
]
MH_FLAGS = [
    scenario("mh", "A1 B2 C1: 32", "A1 B0 C1: 32", "A1 C1: 16", "D2 A1 C1: 16", ipvs=ipvs, ours=ours)
    for ipvs, ours in (
        ("", ""),
        ("-b mh-port", 'hash = { on = "source-port" }'),
        ("-b mh-fallback", "hash = { fallback = true }"),
        ("-b mh-port,mh-fallback", 'hash = { on = "source-port", fallback = true }'),
    )
]

# Clients that come back.
CLIENTS = "client1 client1 client2 client2 client1 client3 client1 client4 client5 client5 client6 client2"
STAY = {"ipvs": "-p 300", "ours": "persistence = {}"}
PERSISTENT = [
    *(
        scenario(name, f"{weights}: {CLIENTS}", **STAY)
        for name in ("rr", "wrr", "lc", "wlc", "nq", "fo")
        for weights in ("A1 B1 C1", "A1 B2 C3")
    ),
    scenario("rr", f"A1 B1 C1: {CLIENTS}", protocol="udp", **STAY),
    scenario("rr", f"A1 B1 C1: {CLIENTS}", version=6, **STAY),
    scenario(
        "rr",
        "A1 B1 C1: client1 client2 client15 client16 client17 client31 client32 client47 client48",
        ipvs="-p 300 -M 255.255.255.240",
        ours="persistence = { prefix_v4 = 28 }",
    ),
    scenario(
        "rr",
        "A1 B1 C1: client1 client2 client255 client256 client257 client512",
        version=6,
        ipvs="-p 300 -M 120",
        ours="persistence = { prefix_v6 = 120 }",
    ),
    scenario(
        "rr",
        "A1 B1: client1 client2",
        "A0 B1: client1 client2 client1 client3",
        "A1 B1: client1 client2 client3 client4",
        **STAY,
    ),
    scenario("rr", "A1 B1: client1 client2", "B1: client1 client1", "A1 B1: client1 client3", **STAY),
    scenario("rr", "A1<2 B1: client1 client2 client1 client1 client1 client3 client4 client5", **STAY),
    scenario("fo", "A2<2 B1: client1 client2 client3 client1 client3", **STAY),
    scenario(
        "rr",
        "A1 B1 C1: client1:5001 client1:5002 client2:5001 client2:5003 client1:5003 client3:5009",
        any_port=True,
        **STAY,
    ),
]

# How long `lblcr` keeps more servers than it has to where connections end: two phases are shorter, and three longer.
EXPIRATION_SECS = 10
EXPIRING = f"expiration_secs = {EXPIRATION_SECS}"
# How long `lblc` keeps a server that nobody asks for: shorter than between two phases.
FORGOTTEN_SECS = 4

# Connections that end for good: between the phases, all time out that their clients have ended, and all of UDP.
ENDING = [
    scenario("fo", "A2<8 B1: 9 end1 end2", "A2<8 B1: 1 end3", "A2<8 B1: 3"),
    # Three quarters of these are no whole numbers.
    *(scenario("fo", f"A2<{upper} B1: {upper} end1 end2", f"A2<{upper} B1: 2") for upper in (5, 6, 7)),
    scenario("fo", "A2<6>3 B1: 7 end1 end2 end3", "A2<6>3 B1: 1 end4", "A2<6>3 B1: 3"),
    scenario("fo", "A2<3 B1: 6", "A2<3 B1: 4", protocol="udp"),
    scenario("lc", "A1 B1: 6 end1 end3", "A1 B1: 4", "A1 B1: 2"),
    scenario("wlc", "A1 B2: 8 end1 end2 end3 end4", "A1 B2: 4 end5", "A1 B2: 4"),
    scenario("ovf", "A2 B1: 4 end1 end2", "A2 B1: 4"),
    scenario("lblcr", "A2 B2 C2: 9 end1 end2 end3 end7", "A2 B2 C2: 5", "A2 B2 C2: 5", ours=EXPIRING),
    # The set has all three, of which the most loaded leaves it when it has not changed for long enough.
    scenario("lblcr", "A2 B2 C2: 9", "A2 B2 C2: 1", "A2 B2 C2: 5", ours=EXPIRING),
    scenario(
        "rr",
        "A1 B1 C1: client1 client2 client1",
        "A1 B1 C1: client1 client2 client3",
        ipvs="-p 4",
        ours="persistence = { timeout_secs = 4 }",
    ),
    # The judge has expire_quiescent_template here.
    scenario(
        "rr",
        "A1 B1: client1 client2",
        "A0 B1: client1 client2 client1 client3",
        "A1 B1: client1 client2",
        ipvs="-p 300",
        ours="persistence = { expire_when_drained = true }",
    ),
]

SAME = [
    *STEADY,
    *DATAGRAMS,
    *SIX,
    *LIVELY,
    *OVERHEAD,
    *CHANGED,
    *FURTHER_CHANGED,
    *LIMITED,
    *RELIMITED,
    *SH,
    *SH_FLAGS,
    *DH,
    *MH,
    *MH_FLAGS,
    *PERSISTENT,
]


@dataclass(frozen=True)
class Difference:
    """A deliberate one: what we choose, and what IPVS does, phase by phase."""

    scenario: Scenario
    ours: tuple[str, ...]
    theirs: tuple[str, ...]


# By the name that it has in docs/ipvs-differences.md.
DIFFERENT = {
    "backend-order": Difference(scenario("rr", "A1 B2 C3: 24", naive=True), ("ABC" * 8,), ("CBA" * 8,)),
    "sequence-start": Difference(
        scenario("wrr", "A3 B2 C1: 24", naive=True), ("AABABC" * 4,), ("CBA" + "ABACBA" * 3 + "ABA",)
    ),
    "reused-ports": Difference(scenario("rr", "A1 B1 C1: 1 end1 again1"), ("AAB",), ("AAA",)),
    "full-caches": Difference(scenario("lblc", "A9<2 B9<3 C9: 14"), ("AABBBCCCCCCCCC",), ("AAAAAAAAAABBBB",)),
    "drained-caches": Difference(
        scenario("lblcr", "A3 B2: 8", "A0 B2: 5", "A4 B2: 6"),
        ("AAAABBBA", "BBBBB", "BBBBBB"),
        ("AAAABBBA", "BBBBB", "AAAAAA"),
    ),
}
# Those that show when connections have ended.
DIFFERENT_ENDING = {
    "half-hours": Difference(
        scenario("lblc", "A2 B2: 1", "A2 B9: 2", ours=f"expiration_secs = {FORGOTTEN_SECS}"),
        ("A", "BB"),
        ("A", "AA"),
    ),
    "lingering-clients": Difference(
        scenario(
            "rr",
            "A1 B1 C1: client1 client2 client1",
            "A1 B1 C1: client1 client2",
            protocol="udp",
            ipvs="-p 4",
            ours="persistence = { timeout_secs = 4 }",
        ),
        ("ABA", "AB"),
        ("ABA", "CA"),
    ),
}

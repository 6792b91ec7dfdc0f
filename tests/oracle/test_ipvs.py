"""The same frames through Linux IPVS and through us: what leaves is equal but for deliberate differences."""

import random
import re
from dataclasses import replace
from pathlib import Path

import ours
import pytest
from differences import DIFFERENCES, entropy, settled
from outcome import topics
from packets import TCP, UDP, Ether
from scenarios import DIFFERENT, DIFFERENT_ENDING
from services import SERVICES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "ipvs-differences.md"
KNOWN = [service for service in SERVICES if not ours.refusal(service)]


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_the_service_can_be_compared(service):
    if ours.refusal(service):
        pytest.skip(f"{service.name}: {ours.refusal(service)}")


@pytest.mark.parametrize("topic", topics(KNOWN), ids=str)
def test_both_send_the_same(outcome, topic):
    for step in outcome[topic]:
        rest, seen = settled(step)
        assert rest.ours == rest.theirs, account(rest, seen)


def account(step, seen):
    """Both sides of a step, field by field where they differ."""
    lines = [f"besides {', '.join(seen)}:" if seen else "they differ:"]
    for side, frames in (("fed", step.fed), ("ours", step.ours), ("theirs", step.theirs)):
        lines += [f"{side:6} {Ether(frame).summary()}\n       {frame.hex()}" for frame in frames] or [
            f"{side:6} nothing"
        ]
    return "\n".join(lines)


def test_every_difference_is_seen(outcome):
    seen = {name for steps in outcome.values() for step in steps for name in settled(step)[1]}
    wanted = {each.name for each in DIFFERENCES if any(each.wanted(service) for service in KNOWN)}
    assert seen == wanted


def test_a_changed_bit_is_seen(outcome):
    """In one step of each topic, for to compare takes its time."""
    rng = random.Random(1)
    for steps in outcome.values():
        answered = [step for step in steps if settled(step)[0].ours]
        if not answered:
            continue
        step = rng.choice(answered)
        frame = bytearray(step.ours[0])
        at, bit = rng.choice(bound_bits(frame))
        frame[at] ^= bit
        rest, seen = settled(replace(step, ours=(bytes(frame), *step.ours[1:])))
        assert rest.ours != rest.theirs, f"byte {at} may be anything: {account(step, seen)}"


def bound_bits(frame):
    """All bits of a frame that may not have any value."""
    mask = entropy(frame).ljust(len(frame), b"\0")
    return [(at, 1 << n) for at, free in enumerate(mask) for n in range(8) if not free >> n & 1]


def test_entropy_is_that_of_the_flow(outcome):
    values = {}
    for steps in outcome.values():
        for step in steps:
            for frame in filter(entropy, step.ours):
                if (flow := ports(step)) is not None:
                    value = bytes(byte & free for byte, free in zip(frame, entropy(frame), strict=False))
                    assert values.setdefault(flow, value) == value, account(step, [])


def ports(step):
    """Both ends of the TCP or UDP packet fed; `None` if it is none."""
    layer = step.packet.payload
    if not isinstance(layer, TCP | UDP):
        return None
    return step.flow.protocol, step.packet.src, layer.sport, step.packet.dst, layer.dport


def test_the_document_has_all_differences_and_no_others():
    described = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    shown = [*(each.name for each in DIFFERENCES), *DIFFERENT, *DIFFERENT_ENDING]
    assert sorted(described) == sorted(shown)

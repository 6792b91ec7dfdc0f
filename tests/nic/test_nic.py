"""The release binary on PCI devices behind an IOMMU, with one worker and several: every frame is compared."""

import pytest
from guest import refusal
from modes import MODES
from plan import SERVERS
from segment import TCP, UDP
from traffic import FLOWS, Conversation

from lab import balance
from lab.netns import wait_until


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_each_frame_is_what_the_mode_makes_of_it(appliance, mode):
    if refusal(mode):
        pytest.skip(f"{mode.name}: {refusal(mode)}")
    before = appliance.guest.ask("stats")["workers"]
    conversation = Conversation(appliance.wires, mode, first=MODES.index(mode) * sum(FLOWS.values()))
    conversation.run()
    check_shares(conversation.shares(TCP), [server.weight for server in SERVERS], appliance.case.workers)
    check_shares(conversation.shares(UDP), [1] * len(SERVERS), appliance.case.workers)
    check_workers(appliance.case, mode, before, appliance.guest.ask("stats")["workers"])


def check_shares(shares, weights, workers):
    """Asserts that flows are spread by weight: exactly by one worker, and by each of several for itself."""
    turns = sum(shares) / sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        # The turn that a worker is in the middle of gives a server at most its weight too much or too little.
        slack = 0 if workers == 1 else workers * weight
        assert abs(share - turns * weight) <= slack, f"{shares} by weights {weights}"


def check_workers(case, mode, before, after):
    """Asserts that each worker received what its queue gets, and gave away the packets of others' flows."""
    received = [now["received"] - then["received"] for now, then in zip(after, before, strict=True)]
    assert all(received) if case.nic.hashes else not any(received[1:]), f"received by each worker: {received}"
    handed = sum(now["handed_over"] - then["handed_over"] for now, then in zip(after, before, strict=True))
    if case.workers == 1:
        assert handed == 0
    elif mode.through or not case.nic.hashes:
        assert handed > 0


def test_all_frames_are_accounted_for(appliance):
    guest, sent = appliance.guest, appliance.wires.sent

    def at_rest():
        stats = guest.ask("stats")
        return stats if sum(worker["received"] for worker in stats["workers"]) == sum(sent.values()) else None

    stats = wait_until(at_rest, "each frame put on a wire was received")
    broken = [str(each) for each in balance.of(stats) if not each.holds]
    assert not broken
    dropped = [drop for worker in stats["workers"] for drop in worker["drops"] if drop["packets"]]
    assert not dropped
    assert {port["name"]: port["rx_packets"] for port in stats["ports"]} == sent
    handed, taken = (
        sum(worker[side] for worker in stats["workers"]) for side in ("handed_over", "taken_over")
    )
    assert handed == taken

"""A machine of two NUMA nodes, with both NICs on the second: where memory is, and what is said of cores that are far."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from guest import PID, VIRTIO, Board, toml
from modes import MODES
from plan import SIDES
from traffic import Conversation

NODES, NICS_NODE = 2, 1
# More than all else that is on the other node by chance.
MEMORY_MIB, CAPACITY = 2048, 2_000_000
TABLE_PAGES = CAPACITY * 32 // 4096


def node(number):
    """QEMU's words for a node with two cores and its share of the memory."""
    size = f"{MEMORY_MIB // NODES}M"
    cores = f"{2 * number}-{2 * number + 1}"
    return (
        *("-object", f"memory-backend-ram,id=memory{number},size={size}"),
        *("-numa", f"node,nodeid={number},cpus={cores},memdev=memory{number}"),
    )


def port(number, side):
    """QEMU's words for a place of its own for a NIC below the second node's root."""
    return ("-device", f"pcie-root-port,id={side},bus=far,addr={number},chassis={number},slot={number}")


BOARD = Board(
    words=(
        *(word for number in range(NODES) for word in node(number)),
        *("-device", f"pxb-pcie,id=far,bus=pcie.0,bus_nr=128,numa_node={NICS_NODE}"),
        *(word for number, side in enumerate(SIDES) for word in port(number, side)),
    ),
    memory_mib=MEMORY_MIB,
    cpus=2 * NODES,
    workers=(2, 3),
    pci={"clients": "0000:81:00.0", "servers": "0000:82:00.0"},
    places={side: f"bus={side}" for side in SIDES},
)
MODE = next(mode for mode in MODES if mode.name == "nat")


@pytest.fixture(params=[BOARD.workers, (1,)], ids=["near", "far"])
def appliance(bench, request):
    """The appliance with one worker on the first of these cores, and what belongs to it."""
    wires, guest = bench.of(VIRTIO, BOARD)
    wires.reset()
    guest.start(toml(1, [MODE], replace(BOARD, workers=request.param), CAPACITY))
    yield wires, guest, request.param[0]
    code, said = guest.stop()
    assert code == 0, said


def test_memory_is_where_its_user_is(appliance):
    wires, guest, core = appliance
    near = core // 2 == NICS_NODE
    wires.answer_arp_until(guest.knows_neighbours)
    Conversation(wires, MODE, first=0).run()
    maps = guest.sh(f"cat /proc/$(cat {PID})/numa_maps").splitlines()
    packets = on_nodes(line for line in maps if " huge " in line)
    assert packets[NICS_NODE], f"huge pages by node: {packets}"
    others = on_nodes(line for line in maps if " huge " not in line)
    assert (others[NICS_NODE] >= TABLE_PAGES) == near, f"other pages by node: {others}"
    far = f"its NIC is on NUMA node {NICS_NODE} and core {core} on node 0"
    assert (far in guest.said()) != near, guest.said()


def on_nodes(lines):
    """How many pages of mappings are on which node."""
    found = Counter()
    for line in lines:
        for number, count in re.findall(r" N(\d+)=(\d+)", line):
            found[int(number)] += int(count)
    return found

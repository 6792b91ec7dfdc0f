"""Fixtures of the tests on PCI NICs: a guest for each kind of NIC, and the appliance in it for each case."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Before the imports: only then do their assertions show values.
pytest.register_assert_rewrite("wires", "guest", "traffic")

from guest import E1000E, FLAT, VIRTIO, Guest, Nic, refusal, toml  # noqa: E402
from modes import MODES  # noqa: E402
from wires import Wires, own_network  # noqa: E402

from vm import parts  # noqa: E402


@dataclass(frozen=True)
class Case:
    """How many workers the appliance has, and on which kind of NIC."""

    nic: Nic
    workers: int

    def __str__(self):
        return f"{self.nic.name}-{self.workers}"


CASES = [Case(VIRTIO, 1), Case(VIRTIO, 2), Case(VIRTIO, 4), Case(E1000E, 1), Case(E1000E, 2)]


class Bench:
    """One guest at a time, with the NICs wanted last, and the wires to it."""

    def __init__(self):
        self.built = self.wires = self.guest = None
        self.stack = contextlib.ExitStack()

    def of(self, nic, board=FLAT):
        """Wires and guest with these NICs."""
        if (nic, board) != self.built:
            self.stack.close()
            self.wires = self.stack.enter_context(Wires(nic.taps))
            self.guest = self.stack.enter_context(Guest(nic, board))
            self.built = nic, board
        return self.wires, self.guest

    def close(self):
        """Takes both away."""
        self.stack.close()


@pytest.fixture(scope="session")
def bench():
    """A bench in a network of its own, or the reason why there can be none."""
    if os.geteuid() != 0:
        pytest.skip("taps need root")
    if not Path("/dev/net/tun").exists():
        pytest.skip("taps need /dev/net/tun")
    try:
        parts.fetch()
    except parts.MissingError as error:
        pytest.skip(str(error))
    with own_network(), contextlib.closing(Bench()) as made:
        yield made


@dataclass(frozen=True)
class Running:
    """The appliance at work."""

    case: Case
    wires: Wires
    guest: Guest


@pytest.fixture(scope="module", params=CASES, ids=str)
def appliance(bench, request):
    """The appliance with all modes in its file, knowing its neighbours; afterwards it must stop cleanly."""
    wires, guest = bench.of(request.param.nic)
    wires.reset()
    guest.start(toml(request.param.workers, [mode for mode in MODES if not refusal(mode)]))
    wires.answer_arp_until(guest.knows_neighbours)
    yield Running(request.param, wires, guest)
    code, said = guest.stop()
    assert code == 0, said
    assert "not given back" not in said

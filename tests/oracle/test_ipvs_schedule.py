"""The order in which schedulers choose: the same as in Linux IPVS, flow by flow."""

import functools
from dataclasses import dataclass

import ours
import pytest
from packets import UDP, Raw, framed, ip_header
from services import CLIENTS, MACS, OWN, SERVERS, endpoint

VIP, FIRST_PORT = OWN[4] - 104, 1000
FLOWS = 24
LETTERS = {
    bytes.fromhex(MACS[server[4]].replace(":", "")): letter
    for server, letter in zip(SERVERS, "ABC", strict=True)
}


@dataclass(frozen=True)
class Sequence:
    """A scheduler and the weights of its servers."""

    scheduler: str
    weights: tuple[int, ...]

    def __str__(self):
        return f"{self.scheduler} {':'.join(map(str, self.weights))}"

    @property
    def port(self):
        """Of a service of its own."""
        return FIRST_PORT + SEQUENCES.index(self)

    @property
    def versions(self):
        """The versions of IP that it needs."""
        return {4}

    def toml(self):
        """What it is in our configuration file."""
        vip = endpoint(VIP, self.port)
        yield f'[[service]]\nvip = "{vip}"\nprotocol = "udp"\nmode = "dr"\nscheduler = "{self.scheduler}"\n'
        for server, weight in zip(SERVERS, self.weights, strict=False):
            yield f'[[service.backend]]\naddress = "{endpoint(server[4], self.port)}"\nweight = {weight}\n'

    def ipvsadm(self):
        """The commands that make it in the judge, which keeps its servers in the opposite order.

        The scheduler comes last: one that sees its servers come is in the middle of its sequence then.
        """
        service = f"-u {endpoint(VIP, self.port)}"
        servers = list(zip(SERVERS, self.weights, strict=False))
        yield f"ipvsadm -A {service} -s {'rr' if self.scheduler != 'rr' else 'wrr'}"
        for server, weight in reversed(servers):
            yield f"ipvsadm -a {service} -r {endpoint(server[4], self.port)} -g -w {weight}"
        yield f"ipvsadm -E {service} -s {self.scheduler}"

    def ipvsadm_in_order(self):
        """The commands by which one would think that it is made."""
        service = f"-u {endpoint(VIP, self.port)}"
        yield f"ipvsadm -A {service} -s {self.scheduler}"
        for server, weight in zip(SERVERS, self.weights, strict=False):
            yield f"ipvsadm -a {service} -r {endpoint(server[4], self.port)} -g -w {weight}"

    def steps(self):
        """The first packets of many flows."""
        for number in range(FLOWS):
            header = ip_header(CLIENTS[4] + 1 + number, VIP)
            yield (framed(header / UDP(sport=30_000 + number, dport=self.port) / Raw(b"query")),)


COMPARED = [
    Sequence("rr", (1, 1, 1)),
    Sequence("rr", (7, 1, 3)),
    Sequence("rr", (1, 0, 1)),
    Sequence("wrr", (1, 1, 1)),
    Sequence("wrr", (4, 3, 2)),
    Sequence("wrr", (5, 1, 1)),
    Sequence("wrr", (1, 2, 3)),
    Sequence("wrr", (200, 600, 400)),
    Sequence("wrr", (0, 3, 1)),
    Sequence("wrr", (7, 5)),
]
# Made in the judge as one would think that it has to be made.
NAIVE = [Sequence("rr", (1, 2, 3)), Sequence("wrr", (3, 2, 1))]
SEQUENCES = [*COMPARED, *NAIVE]


@pytest.fixture(scope="module")
def chosen(judge, tmp_path_factory):
    """Letters of the servers that both sides chose, by sequence."""
    naive = [line for each in NAIVE for line in each.ipvsadm_in_order()]
    judge.add(VIP, [line for each in COMPARED for line in each.ipvsadm()] + naive)
    steps = [step for sequence in SEQUENCES for step in sequence.steps()]
    text = functools.partial(ours.toml, SEQUENCES)
    sides = ours.outcome(steps, text, tmp_path_factory.mktemp("ours")), judge.outcome(steps)
    letters = ["".join(LETTERS[frame[:6]] for [frame] in side) for side in sides]
    parts = [[side[at : at + FLOWS] for at in range(0, len(steps), FLOWS)] for side in letters]
    return dict(zip(SEQUENCES, zip(*parts, strict=True), strict=True))


@pytest.mark.parametrize("sequence", COMPARED, ids=str)
def test_both_choose_the_same(chosen, sequence):
    our_choice, their_choice = chosen[sequence]
    assert our_choice == their_choice


def test_ipvs_begins_with_the_server_added_last(chosen):
    """The difference `backend-order`: we keep the order of the file."""
    assert chosen[NAIVE[0]] == ("ABC" * 8, "CBA" * 8)


def test_wrr_of_ipvs_begins_with_a_round_of_all_servers(chosen):
    """The difference `sequence-start`: ours begins at the highest weight."""
    assert chosen[NAIVE[1]] == ("AABABC" * 4, "CBA" + "ABACBA" * 3 + "ABA")

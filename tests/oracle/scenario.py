"""What schedulers are fed to see whom they choose: servers that change, and connections that come and end."""

import re
from dataclasses import dataclass
from functools import cached_property

from packets import TCP, UDP, Raw, framed, ip_header
from services import CLIENTS, MACS, OWN, SERVERS, endpoint

VIPS = {version: own - 104 for version, own in OWN.items()}
FIRST_PORT, FIRST_CLIENT_PORT = 1000, 20_000
LETTERS = "ABCDEF"
LETTER_OF_MAC = {
    bytes.fromhex(MACS[server[4]].replace(":", "")): letter
    for server, letter in zip(SERVERS, LETTERS, strict=True)
}
REFUSED, LOST = "!", "-"
SERVER = re.compile(r"(?P<letter>[A-F])(?P<weight>\d+)(?:<(?P<upper>\d+))?(?:>(?P<lower>\d+))?")
STEP = re.compile(r"(?P<kind>[a-z]*)(?P<number>\d+)(?::(?P<port>\d+))?")
# Which segments of a connection come: its first one opens it, or is for one that is open.
NEW = {"": "SA", "half": "S", "brief": "SAF", "client": "SA"}
OLD = {"end": "F", "reset": "R", "again": "S"}
HOSTS = 250


@dataclass(frozen=True)
class Server:
    """A server as the phases of a scenario write it.

    `A2` has weight 2; `A2<8>3` takes 8 connections at most, and then none before it has less than 3.
    """

    letter: str
    weight: int
    upper: int
    lower: int

    @classmethod
    def listed(cls, text):
        """The servers in a text."""
        return [
            cls(word["letter"], *(int(word[key] or 0) for key in ("weight", "upper", "lower")))
            for word in map(SERVER.fullmatch, text.split())
        ]

    def address(self, version):
        """Its address."""
        return SERVERS[LETTERS.index(self.letter)][version]


@dataclass(frozen=True)
class Phase:
    """Servers, in the order of our file, and what happens while they are these.

    `steps` are words: `5` is as many new connections, each from a client of its own; `half5` are SYNs alone,
    `brief5` connections that end at once, `client5` is one of the client number 5 and `client5:80` one to
    this port of the service; `end5` is the end of the scenario's fifth connection by its client, `reset5`
    its reset and `again5` another SYN.
    """

    servers: str
    steps: str


@dataclass(frozen=True)
class Scenario:
    """A service and its phases.

    `ipvs` and `ours` are what the two are told of its scheduler beyond the name.
    """

    scheduler: str
    phases: tuple[Phase, ...]
    ipvs: str = ""
    ours: str = ""
    protocol: str = "tcp"
    version: int = 4
    # Port 0, on a VIP that only one scenario of a protocol and version can have.
    any_port: bool = False
    # Made in the judge as one would think that it has to be made, and so with its servers the other way round.
    naive: bool = False

    def __str__(self):
        words = [self.scheduler, self.ipvs, *("/".join(each.servers.split()) for each in self.phases)]
        words += [self.protocol] * (self.protocol != "tcp") + ["v6"] * (self.version == 6)
        return " ".join(filter(None, [*words, *["naive"] * self.naive]))


class Made:
    """A scenario with the port of its own that it has in one run, and the connections it has opened.

    `more` is what our file says of it besides.
    """

    def __init__(self, scenario, number, more=""):
        self.scenario, self.more = scenario, more
        self.vip = VIPS[scenario.version] + scenario.any_port
        self.port = 0 if scenario.any_port else FIRST_PORT + number
        self.opened = []

    @cached_property
    def steps(self):
        """The steps of each phase, which are frames of one connection."""
        return [
            [step for word in phase.steps.split() for step in self._steps(word)]
            for phase in self.scenario.phases
        ]

    def _steps(self, word):
        kind, number, port = STEP.fullmatch(word).groups()
        number, port = int(number), int(port or self.port)
        if kind in OLD:
            yield self._segments(self.opened[number - 1], OLD[kind])
            return
        for _ in range(1 if kind == "client" else number):
            serial = len(self.opened)
            host = number if kind == "client" else 1 + serial % HOSTS
            self.opened.append((host, FIRST_CLIENT_PORT + serial, port))
            yield self._segments(self.opened[-1], NEW[kind])

    def _segments(self, connection, flags):
        host, source, port = connection
        header = ip_header(CLIENTS[self.scenario.version] + host, self.vip)
        if self.scenario.protocol == "udp":
            return (framed(header / UDP(sport=source, dport=port) / Raw(b"query")),)
        return tuple(framed(header / TCP(sport=source, dport=port, flags=each, seq=1)) for each in flags)

    def toml(self, phase):
        """What it is in our configuration file in one of its phases."""
        scenario = self.scenario
        yield f'[[service]]\nvip = "{endpoint(self.vip, self.port)}"\nprotocol = "{scenario.protocol}"\n'
        yield f'mode = "dr"\nscheduler = "{scenario.scheduler}"\n{scenario.ours}\n{self.more}'
        for server in Server.listed(scenario.phases[min(phase, len(scenario.phases) - 1)].servers):
            address = endpoint(server.address(scenario.version), self.port)
            yield f'[[service.backend]]\naddress = "{address}"\nweight = {server.weight}\n'
            yield "".join(
                f"{key} = {value}\n" for key in ("upper", "lower") if (value := getattr(server, key))
            )

    def servers(self, phase):
        """Letters of the servers of a phase, and the names that they have in counts."""
        for server in Server.listed(self.scenario.phases[phase].servers):
            service = self.scenario.protocol, endpoint(self.vip, self.port)
            yield server.letter, (*service, self._server(server))

    def rules(self, phase):
        """What ipvsadm is told, without its name, at the beginning of a phase."""
        servers = Server.listed(self.scenario.phases[phase].servers)
        if phase == 0:
            yield from self._created(servers)
            return
        before = {server.letter: server for server in Server.listed(self.scenario.phases[phase - 1].servers)}
        for letter in before.keys() - {server.letter for server in servers}:
            yield f"-d {self._key} -r {self._server(before[letter])}"
        # What is added comes to the head of IPVS's list.
        for server in reversed(servers):
            if server != before.get(server.letter):
                yield self._told("-e" if server.letter in before else "-a", server)

    def gone(self):
        """What ipvsadm is told at the end."""
        yield f"-D {self._key}"

    def _created(self, servers):
        """The judge keeps its servers in the opposite order.

        The scheduler comes last: one that sees its servers come is in the middle of its sequence then.
        """
        scenario = self.scenario
        other = "rr" if scenario.scheduler != "rr" else "wrr"
        persistent = " -p" if scenario.any_port else ""
        yield f"-A {self._key} -s {scenario.scheduler if scenario.naive else other}{persistent}"
        for server in servers if scenario.naive else reversed(servers):
            yield self._told("-a", server)
        if not scenario.naive:
            yield f"-E {self._key} -s {scenario.scheduler} {scenario.ipvs}"

    def _told(self, command, server):
        limits = "".join(
            f" {flag} {value}" for flag, value in (("-x", server.upper), ("-y", server.lower)) if value
        )
        return f"{command} {self._key} -r {self._server(server)} -g -w {server.weight}{limits}"

    @property
    def _key(self):
        return f"-{self.scenario.protocol[0]} {endpoint(self.vip, self.port)}"

    def _server(self, server):
        return endpoint(server.address(self.scenario.version), self.port)


def chosen(frames):
    """The letter of the server that a step's first frame went to, and so the others, if it went to any.

    What is refused goes on with segments of an unknown connection: `unknown-connections` is about those.
    """
    letters = [LETTER_OF_MAC.get(frame[:6], REFUSED) for frame in frames] or [LOST]
    assert letters[0] == REFUSED or len(set(letters)) == 1, letters
    return letters[0]

"""Our side: trutinad replays a capture with the services of `SERVICES`."""

import functools
import json
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import marks
from appliance import Appliance, Interface
from packets import framed, ip_header
from scapy.utils import RawPcapReader, RawPcapWriter
from services import MACS, OWN, PREFIX_LEN, ROUTER
from session import BURST, FILLER as SPARE, Session, trutinad

ETHERNET_LINK = 1
IDLE_MS = 300
# So often a worker keeps house until it has seen all lines of its table of 16384 flows.
SWEEP = 300
TIME_LIMIT_SECS = 120
ARP_TYPE, IPV6_TYPE = b"\x08\x06", b"\x86\xdd"
ICMPV6, DISCOVERY = 58, range(133, 138)

# Frames to somebody else fill up each burst: what a worker takes at once may leave in another order.
FILLER = framed(ip_header(OWN[4], OWN[4]), dst="02:00:5e:00:53:fe")


def outcome(steps, text, directory):
    """For each step, which is frames, the frames that came of it.

    `text` makes the configuration for a directory.
    """
    fed = []
    for number, step in enumerate(steps):
        for frame in (*step, marks.mark(number)):
            fed += [frame] + [FILLER] * (BURST - 1)
    return marks.between(replayed(fed, text(directory), Path(directory)), len(steps))


def replayed(frames, text, directory):
    """What trutinad sends of these frames, without what it says of itself to its neighbours."""
    writer = RawPcapWriter(str(directory / "in.pcap"), linktype=ETHERNET_LINK)
    writer.write_header(None)
    for frame in frames:
        writer.write_packet(frame)
    writer.close()
    config = directory / "trutina.toml"
    config.write_text(text)
    # RUNTIME_DIRECTORY is where EAL keeps its files; the default outlives the run.
    env = {**os.environ, "RUNTIME_DIRECTORY": str(directory)}
    command = [trutinad(), "--config", config, "--exit-when-idle", str(IDLE_MS)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIME_LIMIT_SECS)
    assert done.returncode == 0, f"trutinad ended with {done.returncode}:\n{done.stderr}"
    sent = (bytes(data) for data, _ in RawPcapReader(str(directory / "out.pcap")))
    return [frame for frame in sent if not is_talk(frame)]


def is_talk(frame):
    """Whether a frame is ARP or neighbour discovery."""
    discovery = frame[12:14] == IPV6_TYPE and frame[20] == ICMPV6 and frame[54] in DISCOVERY
    return frame[12:14] == ARP_TYPE or discovery


@functools.cache
def refusal(service):
    """Why this trutinad can not do a service; empty if it can."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml([service], "/tmp"))
        file.flush()
        done = subprocess.run([trutinad(), "--check", file.name], capture_output=True, text=True)
    # The first error, without the place in a file that nobody will find.
    return "" if done.returncode == 0 else re.sub(r"^error: \S+ |; help: .*", "", done.stderr.splitlines()[0])


def toml(services, directory):
    """The configuration that replays `in.pcap` of `directory` into its `out.pcap`."""
    versions = sorted({4} | {version for service in services for version in service.versions})
    cpus = sorted(os.sched_getaffinity(0))
    own = ", ".join(f'"{OWN[version]}/{PREFIX_LEN[version]}"' for version in versions)
    text = f"""
[dpdk]
hugepages = false
memory_mib = 128
file_prefix = "oracle-{os.getpid()}"
[cores]
control = {cpus[0]}
workers = [{cpus[-1]}]
[flow_table]
capacity = 4096
[control]
socket = "{directory}/trutina.sock"
[[port]]
name = "replay"
device = "net_pcap0,rx_pcap={directory}/in.pcap,tx_pcap={directory}/out.pcap"
addresses = [{own}]
"""
    for version in versions:
        text += f'[[route]]\nto = "{["0.0.0.0/0", "::/0"][version == 6]}"\nvia = "{ROUTER[version]}"\n'
    for address, mac in MACS.items():
        if address.version in versions:
            text += f'[[neighbour]]\naddress = "{address}"\nmac = "{mac}"\n'
    return text + marks.TOML + "".join(line for service in services for line in service.toml())


@dataclass(frozen=True)
class Changing(Appliance):
    """The appliance whose services change while it runs."""

    services_toml: str = ""

    @classmethod
    def with_services(cls, services_toml):
        """With these services."""
        own = tuple(f"{OWN[version]}/{PREFIX_LEN[version]}" for version in OWN)
        return cls(
            services=(),
            interfaces=(Interface(own),),
            neighbours={str(address): mac for address, mac in MACS.items()},
            gateways=tuple(map(str, ROUTER.values())),
            # All connections stay, and every refusal is answered.
            flows=16_384,
            sections=("[icmp]\nrate = 100000",),
            services_toml=services_toml,
        )

    def toml(self, directory):
        """The configuration that reads from pipes in `directory`."""
        return super().toml(directory) + marks.TOML + self.services_toml


class Running:
    """trutinad while its services change; `with` starts and ends it."""

    def __init__(self, services_toml, directory):
        self.directory = directory
        self.session = Session(Changing.with_services(services_toml), directory)

    def __enter__(self):
        self.session.__enter__()
        return self

    def __exit__(self, *failed):
        self.session.__exit__(*failed)

    def change(self, services_toml):
        """Gives it other services."""
        text = Changing.with_services(services_toml).toml(self.directory)
        (self.directory / "trutina.toml").write_text(text)
        self._asked("reload")

    def wait(self, seconds):
        """Lets time pass."""
        if seconds == 0:
            return
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.session.keep_house()
        # What has timed out goes when its line is swept.
        for _ in range(SWEEP):
            self.session.keep_house()

    def outcome(self, steps):
        """For each step, which is frames, the frames that came of it."""
        fed = []
        for number, step in enumerate(steps):
            for frame in (*step, marks.mark(number)):
                fed += [(0, frame)] + [(0, SPARE)] * (BURST - 1)
        return marks.between([frame for _, frame in self.session.play(fed)], len(steps))

    def burst(self, frames):
        """What a worker sends of frames that it receives at once."""
        return [frame for _, frame in self.session.play([(0, frame) for frame in frames])]

    def counts(self):
        """Active and inactive connections of each server, by protocol, VIP and server, both with their ports."""
        listed = json.loads(self._asked("--json", "service", "list"))
        return {
            (*each["service"].split(":", 1), backend["address"]): (backend["active"], backend["inactive"])
            for each in listed
            for backend in each["backends"]
        }

    def _asked(self, *words):
        command = [trutinad().with_name("trutina"), "--socket", self.directory / "trutina.sock", *words]
        # Not a pipe: nobody would read it meanwhile.
        with tempfile.TemporaryFile("w+") as said:
            asking = subprocess.Popen(command, stdout=said, stderr=said)
            # A worker that waits for frames does nothing else.
            while asking.poll() is None:
                self.session.keep_house()
            said.seek(0)
            assert asking.returncode == 0, said.read()
            return said.read()

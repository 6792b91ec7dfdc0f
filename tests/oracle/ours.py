"""Our side: trutinad replays a capture with the services of `SERVICES`."""

import functools
import os
import re
import subprocess
import tempfile
from types import SimpleNamespace

import marks
from packets import framed, ip_header
from replay import BURST, run, trutinad
from services import MACS, OWN, PREFIX_LEN, ROUTER

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
    done = run(SimpleNamespace(frames=fed, appliance=SimpleNamespace(toml=text)), directory)
    return marks.between(done.sent, len(steps))


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

"""The appliance in a guest whose NICs are PCI devices bound to vfio-pci, as on a real machine."""

import functools
import json
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from plan import MACS, OWN, PREFIX_LEN, ROUTER, ROUTER_MAC, SERVERS, SIDES, SNAT_POOL

from lab.appliance import binary
from vm import parts
from vm.image import Image
from vm.machine import Machine

HUGEPAGES_MIB = 256
DRIVERS = ("bus_pci", "bus_vdev", "mempool_ring", "net_virtio", "net_e1000")
# An IOMMU that remaps DMA but no interrupts is all that QEMU emulates without KVM's help.
IOMMU = "intel-iommu,intremap=off,caching-mode=on,device-iotlb=on"
START_SECS = 60
STOP_SECS = 30
CONFIG, LOG, PID, CODE = (f"/run/trutinad.{kind}" for kind in ("toml", "log", "pid", "code"))


@dataclass(frozen=True)
class Nic:
    """A kind of emulated NIC: QEMU's words for it, queues of its tap, whether it spreads flows over its own."""

    name: str
    device: str
    taps: int
    hashes: bool


VIRTIO = Nic(
    "virtio",
    "virtio-net-pci,disable-legacy=on,iommu_platform=on,ats=on,mq=on,rss=on,hash=on,vectors=10",
    taps=4,
    hashes=True,
)
# It has two queues, but DPDK's driver for it lets all frames come by the first.
E1000E = Nic("e1000e", "e1000e", taps=1, hashes=False)


@dataclass(frozen=True)
class Board:
    """What a guest is built on: QEMU's words for it, its memory and number of cores, those of workers, and by side
    the PCI address of its NIC and QEMU's words for that.
    """

    words: tuple[str, ...]
    memory_mib: int
    cpus: int
    workers: tuple[int, ...]
    pci: dict[str, str]
    places: dict[str, str]


FLAT = Board(
    words=(),
    memory_mib=768,
    cpus=3,
    workers=(1, 2),
    pci={"clients": "0000:00:04.0", "servers": "0000:00:05.0"},
    places={"clients": "addr=4", "servers": "addr=5"},
)


def image():
    """Our release binaries, the DPDK drivers for the emulated NICs, and the kernel's for vfio."""
    made = Image()
    made.program(parts.program("ip"))
    for name in ("trutinad", "trutina"):
        made.program(binary(name))
    [drivers] = Path("/usr/lib/x86_64-linux-gnu/dpdk").glob("pmds-*")
    for driver in DRIVERS:
        [library] = drivers.glob(f"librte_{driver}.so.*.*")
        made.library(library, library)
        made.libraries(library)
    for module in ("vfio_pci", "vfio_iommu_type1"):
        made.module(module)
    return made


def devices(nic, board):
    """QEMU's words for the two NICs and the IOMMU before them."""
    words = ["-device", IOMMU, *board.words]
    for side in SIDES:
        queues = f",queues={nic.taps}" if nic.taps > 1 else ""
        words += ["-netdev", f"tap,id={side},ifname={side},script=no,downscript=no,vhost=off{queues}"]
        words += ["-device", f"{nic.device},netdev={side},mac={MACS[side]},{board.places[side]},romfile="]
    return words


class Guest(Machine):
    """A machine with two NICs of one kind, both given to DPDK."""

    def __init__(self, nic, board=FLAT):
        self.board = board
        words = f"intel_iommu=on iommu=strict hugepages={HUGEPAGES_MIB // 2}"
        # As docs/real-nic.md has it: the workers' cores do nothing else.
        isolated = f"1-{board.cpus - 1}"
        words += f" isolcpus={isolated} nohz_full={isolated} rcu_nocbs={isolated}"
        super().__init__(image(), devices(nic, board), board.cpus, board.memory_mib, words)

    def __enter__(self):
        super().__enter__()
        self.sh("echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
        for address in self.board.pci.values():
            self.sh(f"echo vfio-pci >/sys/bus/pci/devices/{address}/driver_override")
            self.sh(f"echo {address} >/sys/bus/pci/drivers_probe")
        return self

    def launch(self, config):
        """Starts trutinad and does not wait for it."""
        self.write(CONFIG, config)
        # Isolated cores are none that a process may use by itself.
        command = f"taskset -c 0-{self.board.cpus - 1} trutinad --config {CONFIG} >{LOG} 2>&1"
        self.sh(f"rm -f {CODE}; ({command} & echo $! >{PID}; wait $!; echo $? >{CODE}) >/dev/null 2>&1 &")

    def start(self, config):
        """Starts trutinad and waits until it answers."""
        self.launch(config)
        end = time.monotonic() + START_SECS
        while self.run("trutina status")[0] != 0:
            assert not self.ended() and time.monotonic() < end, f"trutinad does not start:\n{self.said()}"

    def ended(self):
        """Whether trutinad has ended."""
        return self.run(f"[ -e {CODE} ]")[0] == 0

    def wait(self, seconds):
        """Waits for trutinad's end; its exit code."""
        end = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < end, f"trutinad does not end:\n{self.said()}"
        return int(self.sh(f"cat {CODE}"))

    def stop(self):
        """SIGTERM; the exit code and the log."""
        self.sh(f"kill -TERM $(cat {PID})")
        return self.wait(STOP_SECS), self.said()

    def ask(self, *words):
        """What `trutina --json WORDS` answers, parsed."""
        return json.loads(self.sh(f"trutina --json {' '.join(words)}"))

    def knows_neighbours(self):
        """Whether the appliance knows the Ethernet addresses of all it sends to."""
        return all(neighbour["mac"] for neighbour in self.ask("status")["neighbours"])

    def said(self):
        """What trutinad has written."""
        return self.sh(f"cat {LOG}")


@functools.cache
def refusal(mode):
    """Why this trutinad can not do a mode; empty if it can."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml(1, [mode]))
        file.flush()
        done = subprocess.run([binary("trutinad"), "--check", file.name], capture_output=True, text=True)
    # The first error, without the place in a file that nobody will find.
    return "" if done.returncode == 0 else re.sub(r"^error: \S+ |; help: .*", "", done.stderr.splitlines()[0])


def toml(workers, modes, board=FLAT, capacity=10_000):
    """A configuration file as one would write it for real NICs."""
    cores = [board.workers[number % len(board.workers)] for number in range(workers)]
    lines = ["[dpdk]", "memory_mib = 192", "[cores]", "control = 0", f"workers = {cores}", "shared = true"]
    lines += ["[flow_table]", f"capacity = {capacity}"]
    for side in SIDES:
        own = json.dumps([f"{OWN[side][version]}/{PREFIX_LEN[version]}" for version in PREFIX_LEN])
        lines += ["[[port]]", f'name = "{side}"', f'device = "{board.pci[side]}"', f"addresses = {own}"]
    for version, everywhere in ((4, "0.0.0.0/0"), (6, "::/0")):
        lines += ["[[route]]", f'to = "{everywhere}"', f'via = "{ROUTER[version]}"']
        lines += ["[[snat_pool]]", f'name = "out{version}"', f'addresses = ["{SNAT_POOL[version]}"]']
    known = [(ROUTER[6], ROUTER_MAC), *((server.addresses[6], server.mac) for server in SERVERS)]
    for address, mac in known:
        lines += ["[[neighbour]]", f'address = "{address}"', f'mac = "{mac}"']
    return "\n".join(lines) + "\n" + "".join(mode.toml() for mode in modes)

"""The judge: Linux with IPVS in a virtual machine, and a wire to it.

Frames go over a pair of Unix sockets, one datagram each: no device of this machine is touched, and no root is
needed.
"""

import select
import socket

import marks
from packets import ETH_LEN, ICMPV6
from services import MACS, OWN, PORT_MAC, PREFIX_LEN, ROUTER

from vm import parts
from vm.image import Image
from vm.machine import Machine

WINDOW = 16
PATIENCE_SECS = 30
SCHEDULERS = "rr wrr lc wlc sed nq fo ovf lblc lblcr dh sh mh".split()
MODULES = ("virtio_pci", "virtio_net", "ip_vs", *(f"ip_vs_{name}" for name in SCHEDULERS))
# A NIC that leaves nothing to be done later: no checksum half filled in, no segment to be cut.
NIC = "virtio-net-pci,mrg_rxbuf=off,romfile=,netdev=wire,mac=" + PORT_MAC
FEATURES = (
    "csum",
    "guest_csum",
    "gso",
    "guest_tso4",
    "guest_tso6",
    "guest_ufo",
    "host_tso4",
    "host_tso6",
    "host_ufo",
)
SYSCTL = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    # A packet may leave by the port it came in by, which is what one-armed balancing is.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/eth0/send_redirects": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/eth0/rp_filter": 0,
    # Every error is sent, for each is compared.
    "ipv4/icmp_ratelimit": 0,
    "ipv4/icmp_msgs_per_sec": 100_000,
    "ipv4/icmp_msgs_burst": 10_000,
    "ipv6/icmp/ratelimit": 0,
    "ipv6/auto_flowlabels": 0,
    # Nothing is sent that was not asked for.
    "ipv6/conf/eth0/accept_dad": 0,
    "ipv6/conf/eth0/router_solicitations": 0,
}


NODAD = {4: "", 6: "nodad"}


class Judge(Machine):
    """IPVS with the services of `SERVICES`."""

    def __init__(self):
        image = Image()
        for program in ("ipvsadm", "ip", "ethtool"):
            image.program(parts.program(program))
        for module in MODULES:
            image.module(module)
        super().__init__(image, [])
        ours, theirs = str(self.directory / "host"), str(self.directory / "guest")
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.wire.bind(ours)
        ends = f"local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"
        self.devices = [
            "-netdev",
            f"dgram,id=wire,{ends}",
            "-device",
            ",".join([NIC, *(f"{f}=off" for f in FEATURES)]),
        ]

    def __enter__(self):
        super().__enter__()
        self.wire.connect(str(self.directory / "guest"))
        for key, value in SYSCTL.items():
            self.sh(f"echo {value} >/proc/sys/net/{key}")
        # Held back to be merged, a segment would leave behind the mark that follows it.
        self.sh("ethtool -K eth0 gro off")
        self.sh("ip link set eth0 up")
        for version, own in OWN.items():
            self.sh(f"ip addr add {own}/{PREFIX_LEN[version]} dev eth0 {NODAD[version]}")
            self.sh(f"ip -{version} route add default via {ROUTER[version]}")
        for address, mac in MACS.items():
            self.sh(f"ip neigh add {address} lladdr {mac} nud permanent dev eth0")
        self.add(marks.VIP, marks.IPVSADM)
        return self

    def add(self, vip, commands):
        """Makes a service."""
        self.sh(f"ip addr replace {vip} dev lo {NODAD[vip.version]}")
        for command in commands:
            self.sh(command)

    def change(self, rules):
        """Does what ipvsadm is told, one rule after the other."""
        self.write("/run/rules", "".join(f"{rule}\n" for rule in rules))
        said = self.sh("ipvsadm -R </run/rules")
        assert not said, said

    def counts(self):
        """Active and inactive connections of each server, by protocol, VIP and server, both with their ports."""
        counts, service = {}, None
        for words in map(str.split, self.sh("ipvsadm -Ln").splitlines()):
            if words[0] in ("TCP", "UDP"):
                service = words[0].lower(), words[1]
            elif service and words[0] == "->":
                counts[(*service, words[1])] = int(words[4]), int(words[5])
        return counts

    def outcome(self, steps):
        """For each step, which is frames, the frames that came of it."""
        came = []
        for at in range(0, len(steps), WINDOW):
            numbers = range(at, min(at + WINDOW, len(steps)))
            for number in numbers:
                for frame in (*steps[number], marks.mark(number)):
                    self.wire.send(frame)
            came += self._receive_up_to(numbers[-1])
        return marks.between(came, len(steps))

    def _receive_up_to(self, last):
        """Frames up to a mark, without what Linux says to its neighbours by itself."""
        while True:
            if not select.select([self.wire], [], [], PATIENCE_SECS)[0]:
                raise AssertionError(f"mark {last} does not come back; the machine says:\n{self.log()}")
            frame = self.wire.recv(65536)
            if not is_own_talk(frame):
                yield frame
            if marks.number_of(frame) == last:
                return

    def close(self):
        """Ends the machine and its wire."""
        self.wire.close()
        super().close()


def is_own_talk(frame):
    """Whether a frame is ARP, or ICMPv6 about neighbours or groups, also behind hop-by-hop options."""
    ethertype, packet = frame[12:14], frame[ETH_LEN:]
    if ethertype != b"\x86\xdd":
        return ethertype != b"\x08\x00"
    after_header = packet[48] if packet[6] == 0 else packet[40]
    return packet[6] in (0, ICMPV6) and 130 <= after_header <= 143

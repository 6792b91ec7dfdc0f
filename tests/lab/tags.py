"""Bridges behind VLAN tags of one link, without the VLAN devices that not every kernel has."""

import json
import os
from pathlib import Path

from lab import netns
from lab.netns import run


def split_trunk(space, trunk, stacks, state):
    """Joins each bridge to the link `trunk` by a stack of one or two VLAN ids, the outer one first."""
    macros = {"TRUNK": index(space, trunk)}
    for number, (bridge, stack) in enumerate(stacks.items()):
        netns.plug(space, f"v{number}", space, f"w{number}")
        space.ip(f"link set w{number} master {bridge}")
        *outer, inner = stack
        macros[f"SIDE{number}"] = f"{{ {outer[0] if outer else 0}, {inner}, {index(space, f'v{number}')} }}"
    program = compile_tc(state / "tags.o", macros)
    for device, section in ((trunk, "pop"), ("v0", "push0"), ("v1", "push1")):
        space.run("tc", "qdisc", "add", "dev", device, "clsact")
        filter_ = ("filter", "add", "dev", device, "ingress", "bpf", "da", "obj", program, "sec", f"tc/{section}")
        space.run("tc", *filter_)


def index(space, device):
    """The kernel's number of a device."""
    return json.loads(space.ip(f"-j link show {device}").stdout)[0]["ifindex"]


def compile_tc(target, values):
    """Compiles `tags.c` with clang, with these macros."""
    headers = f"/usr/include/{os.uname().machine}-linux-gnu"
    macros = [f"-D{name}={value}" for name, value in values.items()]
    source = Path(__file__).with_name("tags.c")
    run("clang", "-O2", "-g", "-target", "bpf", f"-I{headers}", *macros, "-c", source, "-o", target)
    return target

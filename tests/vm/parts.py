"""What virtual machines are made of, as `fetch.sh` has put it down."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIR = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "vm"
UNPACKED = DIR / "root"
LIBRARIES = [UNPACKED / place / "x86_64-linux-gnu" for place in ("lib", "usr/lib")]


class MissingError(Exception):
    """There can be no virtual machine here; the text says why."""


def fetch():
    """Makes sure that everything is there, which takes some seconds the first time."""
    done = subprocess.run([Path(__file__).with_name("fetch.sh"), DIR], capture_output=True, text=True)
    if done.returncode != 0:
        # The last line is ours, the one before it the tool's whose failure it tells.
        said = done.stderr.strip().splitlines()[-2:] or [f"fetch.sh ends with {done.returncode}"]
        raise MissingError("; ".join(reversed(said)).removeprefix("error: "))


def program(name):
    """A program: the unpacked one, else the machine's own, which is why it was not downloaded."""
    for place in ("usr/bin", "bin", "usr/sbin", "sbin"):
        path = UNPACKED / place / name
        if path.is_file():
            return path
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise MissingError(f"there is no {name}")
    return Path(path)


def environment():
    """The environment in which unpacked programs find their libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, LIBRARIES))}


def libraries(path):
    """The shared libraries a program or library needs, by the paths it looks for them at.

    What is unpacked stands in the guest where it would be installed, hence pairs: path there, file here.
    """
    listed = subprocess.run(["ldd", path], capture_output=True, text=True, env=environment()).stdout
    if "not found" in listed:
        raise MissingError(f"{path} lacks libraries: {listed.strip()}")
    found = (Path(word) for word in re.findall(r"/[^ )]+(?= \(0x)", listed))
    return [(in_guest(file), file) for file in found]


def in_guest(path):
    """Where in the guest a file of this machine belongs."""
    return Path("/") / path.relative_to(UNPACKED) if path.is_relative_to(UNPACKED) else path


def kernel():
    """The kernel's image and the directory of its modules."""
    [image] = UNPACKED.glob("boot/vmlinuz-*")
    [modules] = UNPACKED.glob("lib/modules/*")
    return image, modules

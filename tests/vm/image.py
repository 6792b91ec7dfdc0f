"""A guest's initramfs: programs with their libraries, kernel modules in the order to load them, and `init`.

The kernel unpacks a cpio archive, whose `newc` form (cpio(5)) is a header of hexadecimal numbers, a name and
the data, for each file. It is not compressed: an emulated CPU would take longer to unpack it than to read it.
"""

import os
import re
import stat
from pathlib import Path

from vm import parts

INIT = Path(__file__).with_name("init")


class Image:
    """An initramfs in the making."""

    def __init__(self):
        self.entries = {}
        self.modules = []
        for directory in ("dev", "proc", "sys", "run", "tmp", "bin", "sbin"):
            self._directory(Path("/", directory))
        self.file("/init", INIT)
        self.file("/bin/busybox", parts.program("busybox"))

    def text(self, path, text):
        """A file with this content."""
        self._add(Path(path), stat.S_IFREG | 0o644, text.encode())

    def file(self, path, source):
        """A copy of a file, executable."""
        self._add(Path(path), stat.S_IFREG | 0o755, Path(source).read_bytes())

    def program(self, path):
        """A program, in /sbin, with the libraries it needs."""
        self.file(f"/sbin/{path.name}", path)
        self.libraries(path)

    def libraries(self, path):
        """The libraries that a program or library needs."""
        for there, here in parts.libraries(path):
            self.library(there, here)

    def library(self, there, here):
        """A library under its name and, if that is a link, under its real one.

        A driver of DPDK must not be there twice: it would be loaded twice.
        """
        real = parts.in_guest(here.resolve())
        self.file(real, here.resolve())
        if there != real:
            self._add(there, stat.S_IFLNK | 0o777, os.fsencode(real))

    def module(self, name):
        """A kernel module, after those it depends on; one that is built into the kernel is no file."""
        [found, *_] = [*parts.kernel()[1].rglob(f"{module_file(name)}.ko"), None]
        if found is None or f"/modules/{found.name}" in self.modules:
            return
        content = found.read_bytes()
        [depends] = re.findall(rb"\0depends=([^\0]*)\0", content)
        for needed in filter(None, depends.decode().split(",")):
            self.module(needed)
        self.modules.append(f"/modules/{found.name}")
        self._add(Path(self.modules[-1]), stat.S_IFREG | 0o644, content)

    def write(self, path):
        """Writes the archive."""
        self.text("/modules.list", "".join(f"{module}\n" for module in self.modules))
        with open(path, "wb") as archive:
            # The parent of every file must come first.
            for number, (name, (mode, data)) in enumerate(sorted(self.entries.items()), 1):
                archive.write(entry(number, str(name)[1:], mode, data))
            archive.write(entry(0, "TRAILER!!!", 0, b""))

    def _add(self, path, mode, data):
        self._directory(path.parent)
        self.entries[path] = mode, data

    def _directory(self, path):
        for directory in (path, *path.parents):
            if directory != Path("/"):
                self.entries.setdefault(directory, (stat.S_IFDIR | 0o755, b""))


def module_file(name):
    """A pattern for a module's file, in whose name `_` may be `-`."""
    return name.replace("_", "[_-]")


def entry(number, name, mode, data):
    """One file of the archive: a header of 13 numbers, the name and the data, both padded to 4 bytes."""
    encoded = os.fsencode(name) + b"\0"
    # Inode, mode, user, group, links, time, size, device it is on (2), device it is (2), name's length, sum.
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return padded(header) + padded(data)


def padded(data):
    """Bytes up to a multiple of 4."""
    return data + bytes(-len(data) % 4)

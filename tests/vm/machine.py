"""A virtual machine that runs commands for a test."""

import base64
import ctypes
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from vm import parts

BOOT_SECS = 120
COMMAND_SECS = 60
PR_SET_PDEATHSIG = 1
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on"


def end_with_parent():
    """Asks the kernel to end this process when its parent ends, however that ends (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class MachineError(Exception):
    """A machine did not boot, or a command in it failed."""


class Machine:
    """An emulated machine with no devices but those of `devices`; `with` boots it and takes it away."""

    def __init__(self, image, devices, cpus=1, memory_mib=256, kernel_words=""):
        self.directory = Path(tempfile.mkdtemp(prefix="trutina-vm-"))
        self.image, self.devices, self.cpus, self.memory_mib = image, devices, cpus, memory_mib
        self.kernel_words = f"{KERNEL_WORDS} {kernel_words}"
        self.process = self.serial = self.boot_secs = None

    def __enter__(self):
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _boot(self):
        began = time.monotonic()
        self.image.write(self.directory / "initrd")
        with open(self.directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                env=parts.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )
        self._connect(began + BOOT_SECS)
        self.boot_secs = time.monotonic() - began

    def _command(self):
        return [
            *(parts.program("qemu-system-x86_64"), "-machine", "q35", "-accel", "tcg,thread=multi"),
            *("-cpu", "max", "-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *("-kernel", parts.kernel()[0], "-initrd", self.directory / "initrd"),
            *("-append", self.kernel_words),
            *("-serial", f"file:{self.directory}/console.log"),
            *("-chardev", f"socket,id=shell,path={self.directory}/shell,server=on,wait=off"),
            *("-serial", "chardev:shell"),
            *self.devices,
        ]

    def _connect(self, deadline):
        connection = socket.socket(socket.AF_UNIX)
        while connection.connect_ex(str(self.directory / "shell")) != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"QEMU does not start:\n{self.log()}")
            time.sleep(0.02)
        self.serial = connection.makefile("rwb", buffering=0)
        connection.settimeout(deadline - time.monotonic())
        self._read_until("##READY")
        connection.settimeout(COMMAND_SECS)

    def _read_until(self, mark):
        """Lines up to the one that begins with `mark`, and what that one says behind it."""
        lines = []
        while True:
            try:
                line = self.serial.readline().decode(errors="replace")
            except TimeoutError:
                raise MachineError(f"the machine is silent:\n{self.log()}") from None
            if not line.endswith("\n"):
                raise MachineError(f"the machine has stopped:\n{self.log()}")
            line = line.rstrip("\r\n")
            if line.startswith(mark):
                return lines, line.removeprefix(mark).strip()
            lines.append(line)

    def log(self):
        """What QEMU and the guest's kernel have said."""
        texts = [self.directory / name for name in ("qemu.log", "console.log")]
        return "".join(text.read_text(errors="replace") for text in texts if text.exists())

    def run(self, command):
        """Runs one line of shell; returns its exit code and its output."""
        self.serial.write(command.encode() + b"\n")
        lines, code = self._read_until("##END")
        # The mark comes on a line of its own, also after output without a newline at its end.
        return int(code), "\n".join(lines).removesuffix("\n")

    def sh(self, command):
        """Runs one line of shell that must succeed; returns its output."""
        code, output = self.run(command)
        if code != 0:
            raise MachineError(f"`{command}` ends with {code}: {output}")
        return output

    def write(self, path, text):
        """Writes a file in the guest."""
        self.sh(f"echo {base64.b64encode(text.encode()).decode()} | base64 -d >{path}")

    def close(self):
        """Ends it; there is nothing in it to save."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.serial is not None:
            self.serial.close()
        shutil.rmtree(self.directory, ignore_errors=True)

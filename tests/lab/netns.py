"""Network namespaces and the processes in them.

Whatever is made here is taken away again in reverse order, also after an exception or a signal. A process is
ended by its id, never by its name, and always reaped.
"""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path


class LabError(Exception):
    """The lab could not be built, or something in it did not happen in time."""


def run(*argv, check=True, timeout=30, **options):
    """Runs a command to its end and returns it, with its output as text."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(words)}` did not end within {timeout} s") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(words)}` ended with {done.returncode}: {said}")
    return done


def wait_until(condition, what, timeout=10.0, every=0.02):
    """Waits until `condition()` is true and returns its value; `what` names it in the error."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise LabError(f"waited {timeout} s in vain: {what}")
        time.sleep(every)


@contextlib.contextmanager
def signals_raise():
    """Makes SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that everything is taken down."""

    def unwind(number, _frame):
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_wait():
    """Holds signals back while things are taken down: half a teardown is worse than a late Ctrl-C."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Process:
    """A process of ours in the background, with its output in a file."""

    def __init__(self, argv, log, env=None):
        self.argv = [str(word) for word in argv]
        self.log = Path(log)
        # A session of its own: Ctrl-C must reach the demo only, which then stops things in order.
        with open(self.log, "ab") as output:
            self.popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self):
        """Its process id; `ip netns exec` and `taskset` exec, so it is the command's own."""
        return self.popen.pid

    def running(self):
        """Whether it still runs."""
        return self.popen.poll() is None

    def wait(self, timeout):
        """Waits for its end and returns the exit code."""
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"`{' '.join(self.argv)}` did not end within {timeout} s") from None

    def kill(self):
        """Ends it without a chance to tidy up."""
        if self.running():
            self.popen.kill()
        return self.popen.wait()

    def stop(self, sig=signal.SIGTERM, timeout=5):
        """Asks it to end, insists after `timeout` seconds, and returns the exit code."""
        if self.running():
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def tail(self, lines=20):
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Namespace:
    """One network namespace; `with` makes it and takes it away with everything in it."""

    def __init__(self, name):
        self.name = name
        self.processes = []

    def __enter__(self):
        run("ip", "netns", "add", self.name)
        try:
            # Addresses of IPv6 are those that are given, and good at once: nobody is asked whether they are taken.
            self.sysctl("net.ipv6.conf.default.accept_ra=0", "net.ipv6.conf.default.accept_dad=0")
            self.sysctl("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            self.ip("link set lo up")
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(self, *_):
        self.delete()

    def ip(self, command):
        """Runs one `ip` command, given as a line, in the namespace."""
        return run("ip", "-n", self.name, *command.split())

    def sysctl(self, *settings):
        """Sets kernel parameters, each given as `key=value`."""
        self.run("sysctl", "-qw", *settings)

    def run(self, *argv, **options):
        """Runs a command in the namespace to its end."""
        return run("ip", "netns", "exec", self.name, *argv, **options)

    def popen(self, *argv, log, env=None, cores=None):
        """Starts a command in the namespace, on the CPU cores given or on those of this process."""
        pinned = ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
        process = Process([*pinned, "ip", "netns", "exec", self.name, *argv], log, env)
        self.processes.append(process)
        return process

    def delete(self):
        """Ends the processes in the namespace, newest first, and removes it."""
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()
        delete(self.name)


def named(prefix):
    """Names of the namespaces that start with `prefix`."""
    lines = run("ip", "netns", "list").stdout.splitlines()
    return [line.split()[0] for line in lines if line.startswith(prefix)]


def pids(name):
    """Ids of the processes in a namespace."""
    return [int(pid) for pid in run("ip", "netns", "pids", name, check=False).stdout.split()]


def delete(name):
    """Removes a namespace, also one that an earlier run left; first whatever still runs in it is ended."""
    for sig, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        for pid in pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        with contextlib.suppress(LabError):
            wait_until(lambda: not pids(name), f"processes of {name} end", patience)
    run("ip", "netns", "del", name)


def plug(here, device, there, peer, queues=1):
    """Joins two namespaces by a veth pair whose frames are as they would be on a wire."""
    # A queue for each core is the default of some kernels, and one af_xdp port reads just one of them.
    count = f"numrxqueues {queues} numtxqueues {queues}"
    here.ip(f"link add {device} {count} type veth peer name {peer} {count} netns {there.name}")
    for space, name in ((here, device), (there, peer)):
        wire(space, name)
        space.ip(f"link set {name} up")


def wire(space, device):
    """Switches offloads off, for DPDK's software ports hand on half-filled checksums and 64 KB frames."""
    for feature in ("tx", "rx", "tso", "gso", "gro", "sg"):
        # A feature the device does not have can not be on.
        space.run("ethtool", "-K", device, feature, "off", check=False)

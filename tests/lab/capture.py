"""tcpdump as a witness."""

import re
import signal

from lab.netns import wait_until


class Capture:
    """Packets on one device while the `with` block runs, as lines of `tcpdump -vv`."""

    def __init__(self, space, device, expression, log, *more):
        self.space = space
        options = ("-n", "-vv", "-l", "-B", "32768", "--immediate-mode", *more)
        self.argv = ("tcpdump", *options, "-i", device, expression)
        self.log = log
        self.process = None

    def __enter__(self):
        self.log.unlink(missing_ok=True)
        self.process = self.space.popen(*self.argv, log=self.log)
        wait_until(lambda: "listening on" in self.text(), f"tcpdump listens: {self.text()}")
        return self

    def __exit__(self, *_):
        self.process.stop(signal.SIGINT)

    def text(self):
        """What tcpdump printed so far."""
        return self.log.read_text(errors="replace")

    def matched(self):
        """Packets the kernel matched; known after the block."""
        return int(re.search(r"(\d+) packets received by filter", self.text())[1])

    def lost(self):
        """Packets the kernel did not hand to tcpdump; known after the block."""
        return int(re.search(r"(\d+) packets dropped by kernel", self.text())[1])

    def checksums(self):
        """How many checksums of TCP and UDP were right, and the lines with a wrong one, also of IP."""
        text = self.text()
        wrong = [line for line in text.splitlines() if re.search(r"\(incorrect|bad (udp )?cksum", line)]
        return len(re.findall(r"cksum 0x[0-9a-f]+ \(correct\)|udp sum ok", text)), wrong

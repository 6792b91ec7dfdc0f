"""Name servers that say who they are."""

from pathlib import Path

from lab.netns import LabError, wait_until

NAME = "who.test"


class NameServer:
    """One dnsmasq in one namespace, on one port; `with` starts it and ends it."""

    def __init__(self, name, space, port, state):
        self.name = name
        self.space = space
        self.port = port
        self.log = Path(state) / name / f"dns-{port}.log"
        self.process = None

    def __enter__(self):
        # It reads no file of the machine, serves one name, and asks nobody else.
        files = ("--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file", "--user=root")
        name = (f"--txt-record={NAME},{self.name}", "--local=/test/", f"--port={self.port}")
        self.process = self.space.popen("dnsmasq", "--keep-in-foreground", *files, *name, log=self.log)

        def answers():
            if not self.process.running():
                raise LabError(f"dnsmasq of {self.name} ended: {self.process.tail()}")
            return dig(self.space, "127.0.0.1", self.port) == [self.name]

        wait_until(answers, f"dnsmasq of {self.name} answers")
        return self

    def __exit__(self, *_):
        self.process.stop()


def dig(space, address, port, times=1, source=None):
    """Who answered each of so many queries, from ports of their own or all from one port."""
    words = ("dig", f"@{address}", "-p", port, "+short", "+tries=1", "+timeout=5", "+nocookie")
    bound = ("-b", source) if source else ()
    out = space.run(*words, *bound, *(NAME, "TXT") * times, check=False, timeout=60).stdout
    return [line.strip('"') for line in out.splitlines()]

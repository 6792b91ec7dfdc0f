#!/usr/bin/python3
"""The demo: real web servers, real clients, Trutina between them. Run it by `make demo`.

Prints what it does and what came of it, one line each; ends with 0 only if all of it was as it should be.
"""

import argparse
import contextlib
import sys
import textwrap

from lab import balance, checks, load, modes, netns
from lab.addresses import FAMILIES, V4
from lab.appliance import ROOT, binary, worker_core
from lab.netns import LabError
from lab.topology import DEVICES, PICTURE
from lab.whole import Lab, clean

MEANINGS = {
    "nat": "NAT: port 80 becomes 8000, replies come back through the appliance",
    "full-nat": "full NAT: the client's address changes too, and so may the IP version: 64 is from IPv6 to IPv4",
    "dr": "direct return: only the MAC address changes, replies go past the appliance",
    "tunnel": "tunnel by IPIP, GUE or GRE: wrapped as it is, 6in4 is IPv6 in IPv4; replies go past the appliance",
}


class Story:
    """Prints the steps and remembers what was not true."""

    def __init__(self):
        self.failed = 0

    def title(self, text):
        """A new chapter."""
        print(f"\n== {text}", flush=True)

    def tell(self, text):
        """A line of it."""
        print(f"   {text}", flush=True)

    def check(self, true, text):
        """A line that says whether something is as it should be."""
        self.failed += not true
        print(f"   {'ok    ' if true else 'FAILED'} {text}", flush=True)

    def quote(self, text):
        """What a program said."""
        print(textwrap.indent(text.rstrip(), "   | "), flush=True)


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description="Shows Trutina balancing real HTTP traffic on this machine.")
    parser.add_argument("--device", choices=DEVICES, default="af_packet", help="DPDK software device to use")
    parser.add_argument("--keep", action="store_true", help="leave everything up at the end")
    parser.add_argument("--down", action="store_true", help="only take away what an earlier demo left")
    parser.add_argument("--short", action="store_true", help="a tenth of the load")
    parser.add_argument("--prefix", default="trutina-demo", help="start of the names of the namespaces")
    return parser.parse_args()


def main():
    """Runs the demo and returns the exit code."""
    args = arguments()
    try:
        with netns.signals_raise():
            if args.down:
                print("taken away" if clean(args.prefix) else "there was nothing to take away")
                return 0
            return demo(args)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; everything is taken away", file=sys.stderr)
    return 1


def demo(args):
    """Builds the lab, plays the story and takes everything away again."""
    story = Story()
    # Looked for first: without them there is nothing to build a lab for.
    binary("trutinad"), binary("trutina")
    with Lab(args.prefix, args.device) as lab:
        try:
            set_up(story, lab)
            play(story, lab, short=args.short)
        except BaseException:
            with contextlib.suppress(Exception):
                print(f"trutinad's log:\n{lab.appliance.process.tail()}", file=sys.stderr)
            raise
        if args.keep:
            lab.leave()
            what_to_try(story, lab)
        else:
            code = lab.appliance.stop()
            story.check(code == 0, f"trutinad stops by SIGTERM with exit code {code}")
    if story.failed:
        print(f"\nFAILED: {story.failed} things above are not as they should be")
        return 1
    print("\nDONE: everything is as it should be" + ("" if args.keep else ", and nothing is left behind"))
    return 0


def set_up(story, lab):
    """Starts everything and says what it is."""
    story.title("A network in six namespaces")
    print(PICTURE)
    if lab.cleaned:
        story.tell("first took away what an earlier demo had left")
    story.tell(f"servers {', '.join(lab.servers)} run nginx, with a page that says who answers")
    story.tell("tunnel packets are unwrapped there by an XDP program, tests/lab/decap.c")
    lab.appliance.start(lab.config)
    status = lab.appliance.ask("status")
    device = lab.config.device.split(",")[0]
    story.tell(f"trutinad {status['version']} on {status['dpdk']} polls {device} on core {worker_core()}")


def play(story, lab, short):
    """Sends the loads and checks what comes back."""
    story.title("Who answers: curl, nine times for each VIP")
    for kind, meaning in MEANINGS.items():
        story.tell(meaning)
        for mode in (mode for mode in modes.ALL if mode.mode == kind):
            answers = load.curl(lab.client, lab.service(mode.name).vip, 9)
            even = all(answers.count(server) == 3 for server in lab.servers)
            story.check(even, f"{named(lab.service(mode.name))}  {' '.join(answers)}")

    requests = 300 if short else 1500
    story.title(f"New connections: hey, {requests} for each VIP, 20 at a time, round robin")
    for name in modes.NAMES:
        tell_split(story, lab, lab.service(name), requests)

    story.title("Connections that stay: wrk, 32 of them for a second for each VIP")
    for mode in modes.ALL:
        if short and mode.outside is not V4:
            continue
        service = lab.service(mode.name)
        result = load.wrk(lab.client, service.vip, seconds=1)
        text = f"{named(service)}  {result.complete} requests, {result.failed} failed"
        story.check(result.failed == 0, f"{text}, {result.per_second:,.0f} a second")

    requests = 180 if short else 900
    story.title(f"Weights 4:3:2: hey, {requests} connections for each VIP")
    for family in FAMILIES:
        tell_split(story, lab, lab.service(f"weighted-{family.version}"), requests)

    story.title("Which way the replies went, as the appliance counted packets")
    for mode in modes.ALL:
        service = lab.service(mode.name)
        came, replied = checks.packets(lab, service)
        right = replied == 0 if mode.direct else replied > 0
        story.check(came > 0 and right, f"{named(service)}  {came} from clients, {replied} to clients")

    story.title("What the appliance says")
    for words in (("status",), ("backend", "list", lab.service("full-nat-64").key), ("drops",)):
        story.tell(f"$ trutina {' '.join(words)}")
        story.quote(lab.appliance.cli(*words).stdout)

    story.title("Where every frame went")
    for one in balance.settled(lab.appliance):
        story.check(one.holds, str(one))


def tell_split(story, lab, service, requests):
    """One load on one service, and how it was spread."""
    split = checks.split(lab, service, requests)
    text = f"{named(service)}  {split}, {split.result.per_second:,.0f} a second"
    story.check(split.exact, text)


def named(service):
    """A service's name and VIP, in columns."""
    return f"{service.name:11}  {service.vip:22}"


def what_to_try(story, lab):
    """Says how to go on by hand."""
    spaces = {name: f"ip netns exec {lab.prefix}-{name}" for name in ("client", "s1", "appliance")}
    cli = binary("trutina")
    shown = cli.relative_to(ROOT) if cli.is_relative_to(ROOT) else cli
    nat = lab.service("nat-4")
    story.title("It stays up. What to try, as root:")
    for line in (
        f"{spaces['client']} curl http://{nat.vip}/",
        f"{spaces['s1']} tcpdump -n -i e0 tcp",
        f"export TRUTINA_SOCKET={lab.appliance.socket}",
        f"{shown} service list",
        f"{shown} backend set {nat.key} {nat.backends[0].address} --weight 0",
        f"{shown} flow list",
        f"tail {lab.appliance.log}",
        f"$EDITOR {lab.appliance.file} && {shown} reload",
        "make demo-down",
    ):
        story.tell(line)


if __name__ == "__main__":
    sys.exit(main())

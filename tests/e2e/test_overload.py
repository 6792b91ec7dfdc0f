"""More than the workers can take: af_packet then rolls over, which gives packets of a flow to other queues."""

import pytest

import arms
from lab import balance
from lab.arms import V4, VIPS
from lab.arms_config import SERVICES
from lab.netns import wait_until
from support import assert_kept, clients

WORKERS = 2
# A queue that is three quarters full gives a flow that takes most of it to the other one, and keeps the last quarter
# for all other flows. A burst is more than one queue takes in while its worker waits for the core that both share,
# and no more than two do: what is lost is the flood's.
RING, BURST, PAUSE_SECS = 1024, 1400, 0.01
# So many of them are sent by one call, which the kernel cuts up: a burst takes less than a worker's time on the core.
SEGMENTS = 50
FLOOD = """\
import socket, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("{client}", 4000))
udp.connect(("{vip}", 80))
udp.setsockopt(socket.IPPROTO_UDP, 103, 18)  # UDP_SEGMENT, in bytes
print("ready", flush=True)
while True:
    for _ in range({burst} // {segments}):
        try:
            udp.send(bytes(18 * {segments}))
        except OSError:
            pass
    time.sleep({pause})
"""


@pytest.fixture(scope="module")
def lab():
    """A lab whose port has a queue for each of two workers."""
    with arms.started(workers=WORKERS, ring=RING) as built:
        yield built


def test_kept_connections_stay_with_their_servers_in_a_flood(lab):
    kept = [service for service in SERVICES if service.family is V4]
    flood = FLOOD.format(client=V4.client, vip=V4.vip(VIPS["nat"]), burst=BURST, segments=SEGMENTS, pause=PAUSE_SECS)
    with clients(arms.for_clients(lab), kept, "held", "3") as busy:
        process = lab.client.popen("/usr/bin/python3", "-c", flood, log=lab.state / "flood.log")
        try:
            # Packets of one flow, and so of one queue, come to both workers: nobody else sends what no service has.
            wait_until(lambda: min(dropped(lab)) > 100, "the flood spills over", timeout=20, every=0.2)
            for client in busy:
                client.wait_for(30)
        finally:
            process.stop()
        for client in busy:
            client.wait_for(30)
    assert_kept(busy)
    balance.settled(lab.lb)


def dropped(lab):
    """What each worker dropped of the flood."""
    workers = lab.lb.ask("stats")["workers"]
    return [sum(d["packets"] for d in worker["drops"] if d["reason"] == "no_service") for worker in workers]

"""What a Prometheus server would scrape, against what the control socket says."""

import re

import pytest

from lab import balance, checks

USED = ("nat-4", "full-nat-64", "dr-6", "ipip-6in4")

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


@pytest.fixture(scope="module")
def used(lab):
    """The lab after some connections to each mode, and with its counters at rest."""
    for mode in USED:
        checks.split(lab, lab.service(mode), 30)
    balance.settled(lab.appliance)
    return lab


def scrape(lab):
    """Every sample, by name and labels."""
    text = lab.topology.appliance.run("curl", "-sSf", f"http://{lab.config.metrics}/metrics").stdout
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.match(line).groups()
            samples[name, frozenset(LABEL.findall(labels or ""))] = float(value)
    return samples


def value(samples, name, /, **labels):
    """One sample."""
    return samples[name, frozenset(labels.items())]


def test_services_and_backends_are_counted(used):
    samples = scrape(used)
    for service in used.appliance.ask("service", "list"):
        key, counters = service["service"], service["counters"]
        assert (counters["conns"] > 0) == (service["name"] in USED)
        for ours, theirs in (("conns", "connections"), ("in_packets", "in_packets"), ("out_bytes", "out_bytes")):
            name = f"trutina_service_{theirs}_total"
            assert value(samples, name, service=key, name=service["name"]) == counters[ours]
        for backend in service["backends"]:
            labels = {"service": key, "backend": backend["address"]}
            assert value(samples, "trutina_backend_connections_total", **labels) == backend["counters"]["conns"]
            assert value(samples, "trutina_backend_up", **labels) == 1
            assert value(samples, "trutina_backend_weight", **labels) == backend["weight"]


def test_workers_ports_and_drops_are_counted(used):
    samples = scrape(used)
    stats = used.appliance.ask("stats")
    worker = stats["workers"][0]
    assert worker["received"] > 0
    # The network is never quite at rest: ARP goes on.
    assert value(samples, "trutina_received_packets_total", worker="0") <= worker["received"]
    assert value(samples, "trutina_sent_packets_total", worker="0") > 0
    assert value(samples, "trutina_port_rx_packets_total", port="lan") > 0
    assert value(samples, "trutina_flows", worker="0") > 0
    for drop in worker["drops"]:
        assert value(samples, "trutina_dropped_packets_total", worker="0", reason=drop["reason"]) >= 0


def test_other_pages_are_refused(used):
    url = f"http://{used.config.metrics}"
    words = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}")
    assert used.topology.appliance.run(*words, f"{url}/nothing").stdout == "404"
    assert used.topology.appliance.run(*words, "-X", "POST", f"{url}/metrics").stdout == "405"

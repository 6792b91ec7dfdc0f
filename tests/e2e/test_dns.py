"""UDP: real name servers behind every mode, asked by dig."""

import contextlib

import pytest

from lab import modes, names
from lab.addresses import endpoint
from lab.appliance import Backend, Service
from support import reloaded

# What clients ask, and where servers listen besides.
DNS_PORT, OTHER_PORT = 53, 5300
CLIENT_PORT = 40053
# Without a flow there is nothing that would hold an address of full NAT.
KEEPS_NO_FLOW = [mode.name for mode in modes.ALL if mode.mode != "full-nat"]


def service(mode, **options):
    """Name servers behind one mode."""
    backends = [Backend(address) for address in mode.backends(DNS_PORT if mode.direct else OTHER_PORT)]
    vip = endpoint(mode.address, DNS_PORT)
    return Service(mode.name, vip, mode.mode, "rr", backends, None, "udp", mode.options | options)


@pytest.fixture(scope="module")
def name_servers(lab):
    """dnsmasq on every server, on both ports."""
    with contextlib.ExitStack() as stack:
        for name, space in lab.topology.servers.items():
            for port in (DNS_PORT, OTHER_PORT):
                stack.enter_context(names.NameServer(name, space, port, lab.state))
        yield


@pytest.fixture(scope="module")
def dns(lab, name_servers):
    """The name servers behind every mode."""
    with reloaded(lab, [service(mode) for mode in modes.ALL]):
        yield


@pytest.fixture(scope="module")
def flowless_dns(lab, name_servers):
    """The same in one-packet mode."""
    with reloaded(lab, [service(modes.BY_NAME[name], one_packet=True) for name in KEEPS_NO_FLOW]):
        yield


def ask(lab, mode, times, source=None):
    """Who answers on the VIP of a mode."""
    return names.dig(lab.client, modes.BY_NAME[mode].address, DNS_PORT, times, source)


@pytest.mark.parametrize("mode", modes.NAMES)
def test_queries_take_turns(lab, dns, mode):
    answers = ask(lab, mode, 9)
    first = answers[:3]
    assert sorted(first) == sorted(lab.servers)
    assert answers == first * 3


@pytest.mark.parametrize("mode", modes.NAMES)
def test_queries_from_one_port_stay_with_a_server(lab, dns, mode):
    source = f"{modes.BY_NAME[mode].outside.client}#{CLIENT_PORT}"
    answers = [answer for _ in range(5) for answer in ask(lab, mode, 1, source)]
    assert len(answers) == 5
    assert len(set(answers)) == 1


@pytest.mark.parametrize("mode", KEEPS_NO_FLOW)
def test_in_one_packet_mode_queries_from_one_port_take_turns_too(lab, flowless_dns, mode):
    # Another port than before: flows outlive their services.
    source = f"{modes.BY_NAME[mode].outside.client}#{CLIENT_PORT + 1}"
    answers = [answer for _ in range(6) for answer in ask(lab, mode, 1, source)]
    assert sorted(answers[:3]) == sorted(lab.servers)
    assert answers == answers[:3] * 2

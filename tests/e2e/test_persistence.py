"""Clients that come back to their servers, seen by real requests and by the CLI."""

import contextlib
import re
from dataclasses import replace
from ipaddress import ip_network

import pytest

from lab import dial
from lab.addresses import SERVERS, V4, V6, endpoint, server_of
from lab.appliance import Backend, Service, worker_core
from lab.modes import NAT_PORT, VIP_PORT, WRR_PORT
from lab.netns import wait_until
from support import reloaded

WORKERS = 2
CLIENTS = [f"{V4.clients}{number}" for number in range(2, 8)]
CLIENT = CLIENTS[0]
GROUP = "shop"
# What a closed connection leaves is gone a second later.
SHORT = {f"{state}_secs": 1 for state in ("fin_wait", "time_wait", "close", "close_wait", "last_ack")}


@pytest.fixture(scope="module")
def lab(idle_lab):
    """A lab with several clients and two workers, each of which gets some connections of every client."""
    for client in CLIENTS[1:]:
        idle_lab.client.ip(f"addr add {V4.net(client)} dev c0")
    device = f"{idle_lab.config.device},qpairs={WORKERS}"
    workers = [worker_core()] * WORKERS
    # Its table is looked through in a moment: who lives is seen to live before its short time is over.
    idle_lab.config = idle_lab.config.changed(device=device, workers=workers, shared=True, flows=4000)
    idle_lab.appliance.start(idle_lab.config)
    yield idle_lab
    assert idle_lab.appliance.stop() == 0


def service(number, port, family=V4, vip_port=80, **persistence):
    """A persistent service in turn over all servers, by NAT to this port of theirs."""
    backends = [Backend(endpoint(family.server(name), port)) for name in SERVERS]
    options = {"persistence": persistence, "timeouts": SHORT}
    vip = endpoint(family.vip(number), vip_port)
    return Service(f"persistent-{number}", vip, "nat", "rr", backends, check=None, options=options)


@contextlib.contextmanager
def served(lab, *services):
    """The services, of which no client was bound before; of those that stay, all are forgotten at the end."""
    with reloaded(lab, services):
        for each in services:
            flush(lab, each)
        yield


def flush(lab, service, *options):
    """Forgets clients; returns how many that were."""
    return lab.appliance.ask("persistence", "flush", service.key, *options)["templates"]


def bound(lab, service, *options):
    """Who is bound to which server, by what the CLI lists."""
    listed = lab.appliance.ask("persistence", "list", service.key, *options)
    return {template["client"]: server_of(template["backend"]) for template in listed["templates"]}


def act(lab, service, word, server, *options):
    """Changes the backend that is this server."""
    backend = next(it.address for it in service.backends if server_of(it.address) == server)
    lab.appliance.cli("backend", word, service.key, backend, *options)


def of(address):
    """A client as the list has it."""
    return f"{address}/32"


def get(lab, service, client=CLIENT, times=1):
    """The only server that answers so many requests of a client, each over a connection of its own."""
    answered = {dial.get(lab.client, service.vip, client) for _ in range(times)}
    assert len(answered) == 1, answered
    return answered.pop()


def test_client_has_one_server_for_all_ports_and_services_of_a_group(lab):
    web, other = service(101, NAT_PORT, group=GROUP), service(104, WRR_PORT, group=GROUP)
    whole = service(105, 0, vip_port=0, group=GROUP)
    ports = [replace(whole, vip=endpoint(V4.vip(105), port)) for port in (NAT_PORT, VIP_PORT)]
    with served(lab, web, other, whole):
        servers = {client: get(lab, web, client, times=3) for client in CLIENTS}
        assert set(servers.values()) == set(SERVERS), "the clients are spread"
        for client, server in servers.items():
            for each in (other, *ports, web):
                assert get(lab, each, client, times=3) == server, (client, each.vip)
        assert bound(lab, whole) == {of(client): server for client, server in servers.items()}
        listed = lab.appliance.ask("persistence", "list", other.key, "--client", CLIENT)
        [template] = listed["templates"]
        assert (template["group"], template["port"], template["service"]) == (GROUP, None, web.key)
        assert 290 < template["expires_secs"] <= 300 and listed["total"] == 1
        assert 0 < listed["usage"]["used"] <= listed["usage"]["capacity"] == 65536
        text = lab.appliance.cli("persistence", "list", "--client", CLIENT).stdout
        columns = (CLIENT, web.key, GROUP, "any", rf"10\.90\.0\.1\d:{NAT_PORT}", r"00:0(4:5\d|5:00)")
        assert re.search(f"^{' +'.join(columns)}$", text, re.MULTILINE)


def test_connections_of_one_client_at_both_workers_go_to_one_server(lab):
    web = service(101, NAT_PORT)
    with served(lab, web), contextlib.ExitStack() as stack:
        held = [dial.connect(lab.client, web.vip) for _ in range(40)]
        for connection in held:
            stack.callback(dial.cut, connection)
        assert len({dial.ask(connection) for connection in held}) == 1
        flows = lab.appliance.ask("flow", "list", "--limit", "100000")["flows"]
        alive = [flow for flow in flows if flow["service"] == web.key and flow["state"] == "ESTABLISHED"]
        assert len(alive) == 40 and {flow["worker"] for flow in alive} == set(range(WORKERS))
        assert bound(lab, web) == {of(CLIENT): dial.ask(held[0])}


@pytest.mark.parametrize("family", (V4, V6), ids=("4", "6"))
def test_clients_of_one_network_are_one(lab, family):
    web = service(101, NAT_PORT, family, prefix_v4=24, prefix_v6=64)
    clients = CLIENTS if family is V4 else [V6.client]
    with served(lab, web):
        [server] = {get(lab, web, client, times=2) for client in clients}
        network = str(ip_network(family.network(family.clients)))
        assert bound(lab, web) == bound(lab, web, "--client", family.clients_router) == {network: server}
        assert not bound(lab, web, "--client", family.own)


def test_client_that_is_forgotten_chooses_anew(lab):
    web = service(101, NAT_PORT)
    with served(lab, web):
        before = {client: get(lab, web, client) for client in CLIENTS}
        held = dial.connect(lab.client, web.vip, CLIENT)
        try:
            assert dial.ask(held) == before[CLIENT]
            assert flush(lab, web, "--client", CLIENT) == 1
            assert of(CLIENT) not in bound(lab, web)
            assert dial.ask(held) == before[CLIENT], "its flows stay where they are"
        finally:
            dial.cut(held)
        # The workers' turns are their own, so that it may be the same one again: but it is not for ever.
        after = set()
        for _ in range(30):
            after.add(get(lab, web, CLIENT))
            flush(lab, web, "--client", CLIENT)
        assert len(after) > 1
        assert all(get(lab, web, client) == before[client] for client in CLIENTS[1:])
        assert flush(lab, web) == len(CLIENTS) - 1 and not bound(lab, web)
        assert f"{len(CLIENTS) - 1} templates are forgotten" in lab.appliance.log.read_text()


def test_template_ends_when_its_time_is_over_and_not_while_a_connection_lives(lab):
    web = service(101, NAT_PORT, timeout_secs=2)
    with served(lab, web):
        get(lab, web, CLIENTS[1])
        held = dial.connect(lab.client, web.vip, CLIENT)
        try:
            server = dial.ask(held)
            assert len(bound(lab, web)) == 2
            wait_until(lambda: bound(lab, web) == {of(CLIENT): server}, "the idle client is forgotten", 15)
            assert get(lab, web, CLIENT) == server
        finally:
            dial.cut(held)


def test_drained_server_keeps_its_clients_unless_the_operator_forbids_it(lab):
    web, other = service(101, NAT_PORT, group=GROUP), service(104, WRR_PORT, group=GROUP)
    with served(lab, web, other):
        server = get(lab, web)
        for each in (web, other):
            act(lab, each, "drain", server)
            assert get(lab, each, times=3) == server, "by both services"
            assert all(get(lab, each, client) != server for client in CLIENTS[1:])
        act(lab, web, "drain", server, "--no-persistent")
        moved = get(lab, web, times=3)
        assert moved != server
        for each in (web, other):
            act(lab, each, "enable", server)
            assert get(lab, each, times=3) == moved, "it is bound to the one that it has now"


def test_drained_server_loses_its_clients_where_that_is_wanted(lab):
    web = service(101, NAT_PORT, expire_when_drained=True)
    with served(lab, web):
        server = get(lab, web)
        act(lab, web, "drain", server)
        moved = get(lab, web, times=3)
        act(lab, web, "enable", server)
        assert moved != server and get(lab, web, times=3) == moved


def test_client_of_the_sorry_server_comes_back_to_its_own(lab):
    web = service(101, NAT_PORT)
    *usual, spare = web.backends
    sorry = {"sorry": [{"address": spare.address}], "quorum": {"weight": 2}}
    web = replace(web, backends=usual, options=web.options | sorry)
    with served(lab, web):
        servers = {client: get(lab, web, client) for client in CLIENTS}
        assert set(servers.values()) == {"s1", "s2"}
        act(lab, web, "drain", "s2")
        assert {get(lab, web, client) for client in CLIENTS if servers[client] == "s1"} == {"s3"}
        act(lab, web, "enable", "s2")
        assert {client: get(lab, web, client) for client in CLIENTS} == servers


def test_metrics_have_how_full_the_table_is(lab):
    web = service(101, NAT_PORT)
    with served(lab, web):
        for client in CLIENTS:
            get(lab, web, client)

        def scraped():
            url = f"http://{lab.config.metrics}/metrics"
            page = lab.topology.appliance.run("curl", "-sSf", url).stdout
            return dict(re.findall(r"^(trutina_persistence_\w+) (\d+)$", page, re.MULTILINE))

        wait_until(lambda: int(scraped()["trutina_persistence_templates"]) >= len(CLIENTS), "they are counted")
        assert scraped()["trutina_persistence_templates_capacity"] == "65536"

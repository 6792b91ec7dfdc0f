"""A drain, a slow start and a sorry pool under load: the operator acts, and no client notices."""

import contextlib
from dataclasses import replace

import pytest

from lab.appliance import by_server
from lab.netns import wait_until
from support import assert_kept, clients, errors, reloaded

NAME = "nat-4"


@pytest.fixture
def service(lab):
    """The service that is acted on."""
    return lab.service(NAME)


def address(service, server):
    """Where a server is a backend of the service."""
    addresses = by_server({"backends": [vars(it) for it in service.backends]}, lambda it: it["address"])
    return addresses[server]


def told(lab, service, server):
    """What the appliance says of one backend."""
    return by_server(lab.appliance.service(service.key), lambda backend: backend)[server]


def act(lab, service, word, server, *options):
    """Changes one backend by the CLI; it returns when the change is in force."""
    lab.appliance.cli("backend", word, service.key, address(service, server), *options)


def next_servers(client, count):
    """Who answers the requests that begin from now on, in their order; none of them may fail."""
    before = len(client.requests())
    # The one that is under way began before.
    client.wait_for(count + 1)
    answered = client.requests()[before + 1 :]
    assert not errors(answered)
    return [request.server for request in answered]


@contextlib.contextmanager
def busy(lab, service):
    """Two clients at work on the service, one that keeps its connections and one that does not."""
    with clients(lab, [service], "held", "9") as [held], clients(lab, [service], "fresh") as [fresh]:
        yield held, fresh
    assert_kept([held])
    assert not errors(fresh.requests())


def test_drained_server_keeps_its_connections_and_gets_no_new_ones(lab, service):
    with reloaded(lab, [service]), busy(lab, service) as (held, fresh):
        assert set(next_servers(fresh, 30)) == {"s1", "s2", "s3"}
        act(lab, service, "drain", "s2", "--timeout", "1h", "--then", "remove")
        assert set(next_servers(fresh, 30)) == {"s1", "s3"}
        assert "s2" in next_servers(held, 30)
        state = told(lab, service, "s2")
        assert (state["configured"], state["admin"], state["operational"]) == ("enabled", "drain", "draining")
        drain = state["drain"]
        assert drain["then"] == "remove" and 3000 < drain["left_secs"] <= 3600 and drain["flows"] >= 3
        act(lab, service, "drain", "s2", "--timeout", "1s", "--then", "remove")
        backends = lab.appliance.service
        wait_until(lambda: len(backends(service.key)["backends"]) == 2, "the drained server is removed")
        assert "s2" in next_servers(held, 30), "what it has is left to it even then"
        assert set(next_servers(fresh, 30)) == {"s1", "s3"}


def test_server_that_returns_starts_slowly(lab):
    # Not the one of the drain, to which a server has come back not long ago.
    service = lab.service("nat-6")

    def slow(secs):
        return replace(service, scheduler="wrr", options={"slow_start": {"secs": secs}})

    with reloaded(lab, [slow(3600)]), busy(lab, service) as (_, fresh):
        assert {told(lab, service, server)["operational"] for server in ("s1", "s2", "s3")} == {"active"}
        act(lab, service, "drain", "s2")
        assert "s2" not in next_servers(fresh, 30)
        act(lab, service, "enable", "s2")
        whole = told(lab, service, "s1")
        state = told(lab, service, "s2")
        assert state["operational"] == "ramping" and state["effective_weight"] <= state["weight"] / 20
        assert whole["operational"] == "active" and whole["effective_weight"] == whole["weight"]
        assert next_servers(fresh, 100).count("s2") <= 10
        lab.appliance.write(lab.config.changed(services=[slow(1)]))
        lab.appliance.cli("reload")
        wait_until(lambda: told(lab, service, "s2")["operational"] == "active", "the slow start is over")
        assert next_servers(fresh, 99).count("s2") in range(30, 37)


def test_sorry_server_serves_while_there_is_no_quorum(lab, service):
    *usual, spare = service.backends
    options = {"quorum": {"weight": 2}, "sorry": [vars(spare)]}
    guarded = replace(service, backends=[replace(it, weight=1) for it in usual], options=options)
    with reloaded(lab, [guarded]), busy(lab, guarded) as (_, fresh):
        assert set(next_servers(fresh, 30)) == {"s1", "s2"}
        assert told(lab, guarded, "s3")["operational"] == "standby"
        act(lab, guarded, "drain", "s2")
        assert set(next_servers(fresh, 30)) == {"s3"}
        assert lab.appliance.service(guarded.key)["serving"] == "sorry"
        assert told(lab, guarded, "s1")["operational"] == "no-quorum"
        act(lab, guarded, "enable", "s2")
        assert set(next_servers(fresh, 30)) == {"s1", "s2"}
        assert lab.appliance.service(guarded.key)["serving"] == "backends"


def test_connections_of_a_disabled_server_are_reset_at_once(lab, service):
    with reloaded(lab, [service]), clients(lab, [service], "held", "9") as [held]:
        act(lab, service, "disable", "s2")
        held.wait_for(30)
        requests = held.requests()
        of_s2 = {request.connection for request in requests if request.server == "s2"}
        first = {request.connection: request for request in reversed(errors(requests))}
        assert of_s2 and set(first) == of_s2
        assert all("ConnectionResetError" in request.error for request in first.values())

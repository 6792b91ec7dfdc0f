"""Agents of servers: real requests are shared as they say, and what they say is seen by the operator."""

import contextlib

import pytest

from lab import agent, checks, load
from lab.addresses import SERVERS, V4, endpoint
from lab.agent import Agent
from lab.appliance import Backend, Service, by_server
from lab.modes import NAT_PORT
from lab.netns import wait_until
from support import clients, errors, reloaded

INTERVAL_MS = 50


@pytest.fixture(scope="module")
def agents(lab):
    """An agent on each server."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Agent(lab.servers[name].space, "100%")) for name in SERVERS}


@pytest.fixture
def service(lab, agents):
    """A service whose servers have agents that are content."""
    asked = {"port": agent.PORT, "interval_ms": INTERVAL_MS, "timeout_ms": INTERVAL_MS}
    backends = [Backend(endpoint(V4.server(name), NAT_PORT), 4) for name in SERVERS]
    vip = endpoint(V4.vip(101), 80)
    service = Service("asked", vip, "nat", "dynamic-ratio", backends, None, options={"agent": asked})
    for each in agents.values():
        each.word = "up ready 100%"
    with reloaded(lab, [service]):
        say(lab, service, agents)
        yield service


def told(lab, service, key):
    """What the appliance says of each backend."""
    return by_server(lab.appliance.service(service.key), lambda backend: backend[key])


def say(lab, service, agents, **words):
    """Lets agents say something, and waits until the appliance has heard all of them."""
    for name, word in words.items():
        agents[name].word = word
    asked = {name: each.asked for name, each in agents.items()}
    wait_until(
        lambda: all(each.asked >= asked[name] + 2 for name, each in agents.items()), "all agents are asked again"
    )


def weighs(lab, service, *weights):
    """Waits until new connections are dealt by these weights."""
    wanted = dict(zip(SERVERS, weights, strict=True))
    wait_until(lambda: told(lab, service, "effective_weight") == wanted, f"weights are {wanted}")


def shares(lab, service, requests):
    """How many of so many requests each server got; none may fail."""
    before = lab.appliance.conns(service.key)
    result = load.hey(lab.client, service.vip, requests)
    assert (result.complete, result.failed) == (requests, 0)
    return checks.since(before, lab.appliance.conns(service.key))


def assert_shares(lab, service, *wanted):
    """Requests are shared so, and at most one more or less for each server."""
    found = shares(lab, service, sum(wanted))
    for name, count in zip(SERVERS, wanted, strict=True):
        assert abs(found[name] - count) <= 1, found


def test_requests_are_shared_as_agents_say(lab, service, agents):
    weighs(lab, service, 4, 4, 4)
    assert_shares(lab, service, 40, 40, 40)
    say(lab, service, agents, s1="75%", s2="50%", s3="25%")
    weighs(lab, service, 3, 2, 1)
    assert_shares(lab, service, 60, 40, 20)
    say(lab, service, agents, s1="10%", s2="200%", s3="40%")
    weighs(lab, service, 0.4, 8, 1.6)
    assert_shares(lab, service, 4, 80, 16)
    assert "0.4/4 " in lab.appliance.cli("backend", "list", service.key).stdout
    assert "agent: 200%" in told(lab, service, "reason")["s2"]


@pytest.mark.parametrize(
    ("word", "operational", "end"),
    [("drain", "quiesced", "ready"), ("0%", "quiesced", "100%"), ("down", "down", "up")],
)
def test_server_whose_agent_wants_no_requests_gets_no_new_ones(lab, service, agents, word, operational, end):
    with clients(lab, [service], "held", "9") as [held], clients(lab, [service], "fresh") as [fresh]:
        say(lab, service, agents, s2=word)
        weighs(lab, service, 4, 0, 4)
        assert told(lab, service, "operational")["s2"] == operational
        before = len(fresh.requests())
        fresh.wait_for(31)
        # The one that was under way began before.
        assert {request.server for request in fresh.requests()[before + 1 :]} == {"s1", "s3"}
        kept = len(held.requests())
        held.wait_for(9)
        assert "s2" in {request.server for request in held.requests()[kept:]}, "what it has stays"
        # What a word does not mention stays as it was.
        say(lab, service, agents, s2="hello")
        assert told(lab, service, "operational")["s2"] == operational
        assert "ignored: hello" in told(lab, service, "reason")["s2"]
        say(lab, service, agents, s2=end)
        weighs(lab, service, 4, 4, 4)
    assert not errors(held.requests()) and not errors(fresh.requests())
    assert_shares(lab, service, 20, 20, 20)


def test_agent_that_is_gone_changes_nothing(lab, service, agents):
    say(lab, service, agents, s2="50%")
    weighs(lab, service, 4, 2, 4)
    with agents["s2"].silent():
        wait_until(lambda: "agent: no line" in told(lab, service, "reason")["s2"], "its silence is told")
        weighs(lab, service, 4, 2, 4)
        assert_shares(lab, service, 40, 20, 40)

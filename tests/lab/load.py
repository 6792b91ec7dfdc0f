"""Requests by the tools that people know, and what these say of them."""

import re
from dataclasses import dataclass

from lab.netns import LabError


@dataclass(frozen=True)
class Result:
    """What a load tool counted."""

    complete: int
    failed: int
    per_second: float
    # From sending a request to its answer, in microseconds, where the tool says it.
    p50_us: float | None = None
    p99_us: float | None = None


def curl(space, vip, times):
    """Who answered each of `times` requests over connections of their own, in order."""
    answers = []
    for _ in range(times):
        page = space.run("curl", "-fsS", "--max-time", "5", f"http://{vip}/").stdout
        answers.append(page.strip().removeprefix("server "))
    return answers


def hey(space, vip, connections, concurrency=20):
    """Sends so many requests, a multiple of `concurrency`, each over a connection of its own.

    Not by ApacheBench, which opens up to `concurrency - 1` connections more than it then uses and counts.
    """
    argv = ("hey", "-n", connections, "-c", concurrency, "-t", 10, "-disable-keepalive", f"http://{vip}/")
    out = space.run(*argv, timeout=120).stdout
    complete = number(r"\[200\]\s+(\d+) responses", out, 0)
    return Result(int(complete), connections - int(complete), number(r"Requests/sec:\s+([\d.]+)", out))


def wrk(space, vip, seconds, connections=32, close=False):
    """Sends requests by wrk over connections that stay open, or with `close` over one for each request."""
    header = ("-H", "Connection: close") if close else ()
    argv = ("wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", "--latency", *header, f"http://{vip}/")
    return wrk_result(space.run(*argv, timeout=seconds + 30).stdout)


def wrk_result(out):
    """What wrk says."""
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += number(r"Non-2xx or 3xx responses: (\d+)", out, 0)
    complete = number(r"(\d+) requests in", out)
    rate = number(r"Requests/sec:\s+([\d.]+)", out)
    return Result(int(complete), int(failed), rate, microseconds(50, out), microseconds(99, out))


def microseconds(percent, out):
    """A line of wrk's latency distribution, such as `99%    1.25ms`."""
    value, unit = matched(rf"\s{percent}%\s+([\d.]+)(us|ms|s|m)\s", out).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]


def number(pattern, text, absent=None):
    """The number that `pattern` finds; `absent` if it finds none and that is no error."""
    if absent is not None and not re.search(pattern, text):
        return absent
    return float(matched(pattern, text)[1])


def matched(pattern, text):
    """The first match of `pattern`."""
    found = re.search(pattern, text)
    if not found:
        raise LabError(f"the load tool's report has no `{pattern}`:\n{text}")
    return found

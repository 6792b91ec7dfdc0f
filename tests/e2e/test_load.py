"""What load tools say is read as they mean it; without namespaces, on reports of theirs."""

import pytest

from lab import load
from lab.netns import LabError

WRK = """\
Running 2s test @ http://10.90.0.101:80/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  811.42us  20.99ms   93.99%
    Req/Sec    50.06k     2.24k   54.12k    75.00%
  Latency Distribution
     50%  911.00us
     75%    1.20ms
     90%    1.51ms
     99%    3.25ms
  99723 requests in 2.00s, 17.21MB read
Requests/sec:  49812.34
Transfer/sec:      8.60MB
"""


def test_wrk_tells_rate_and_latency():
    assert load.wrk_result(WRK) == load.Result(99723, 0, 49812.34, 911, 3250)


def test_what_wrk_could_not_do_has_failed():
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\nRequests/sec"
    assert load.wrk_result(WRK.replace("Requests/sec", errors)).failed == 15


@pytest.mark.parametrize(("text", "us"), [("12.00us", 12), ("1.50ms", 1500), ("2.00s", 2e6), ("1.00m", 60e6)])
def test_latency_has_a_unit(text, us):
    assert load.wrk_result(WRK.replace("3.25ms", text)).p99_us == us


def test_another_report_is_an_error():
    with pytest.raises(LabError, match="no `"):
        load.wrk_result("unable to connect to 10.90.0.101:80 Connection refused")

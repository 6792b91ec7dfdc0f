"""Full NAT whose servers are told who their clients are: nginx by PROXY headers, and a server that speaks first."""

import hashlib
import ipaddress
import os
import re

import pytest

from lab import introduced, modes
from lab.addresses import endpoint
from lab.appliance import Backend, Check, Service
from lab.capture import Capture
from lab.netns import wait_until
from support import reloaded

HTTP_PORT, SPEAKING_PORT, PLAIN_PORT = 8100, 8101, modes.NAT_PORT
VIP_PORTS = {"proxy-v1": 81, "proxy-v2": 82, "toa": 83}
FIRST_PORTS = {"proxy-v1": 2501, "proxy-v2": 2502}
UDP_PORTS = {"proxy-v2": 53, "proxy-v2-each": 54}
LEN = 6 << 20

MODES = [mode for mode in modes.ALL if mode.mode == "full-nat"]
EACH_MODE = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])
EACH_VERSION = pytest.mark.parametrize("version", FIRST_PORTS)

NGINX = """\
user root;
daemon off;
worker_processes 1;
pid {dir}/introduced.pid;
error_log {dir}/introduced-error.log;
events {{ worker_connections 1024; }}
http {{
    log_format who "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr "
                   "$proxy_protocol_server_port $request_method $uri $status";
    access_log {dir}/introduced.log who;
    default_type text/plain;
    server {{
        listen {port} proxy_protocol;
        listen [::]:{port} proxy_protocol;
        root {dir}/introduced;
        location /upload/ {{
            dav_methods PUT;
            create_full_put_path on;
            client_max_body_size 16m;
            client_body_temp_path {dir}/introduced-body;
        }}
    }}
}}
"""

# A client of the server that speaks first: `HOST PORT LENGTH`. It waits for the greeting, then says as much as it is
# to, hears it all again, and prints the greeting with its own port.
SPEAK = """
import hashlib, os, socket, sys, threading
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((host, port), timeout=20) as connection:
    greeting = b""
    while not greeting.endswith(b"\\n"):
        greeting += connection.recv(1)
    said, heard = os.urandom(count), hashlib.sha256()
    def say():
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
    speaker = threading.Thread(target=say)
    speaker.start()
    while data := connection.recv(65536):
        heard.update(data)
    speaker.join()
    assert heard.digest() == hashlib.sha256(said).digest(), "not what was said"
    print(greeting.decode().strip(), connection.getsockname()[1])
"""

# A client of UDP: `HOST PORT`. It asks three times from one port, each time again when no answer comes, and prints that
# port and the answers.
ASK = """
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(1)
    asking.connect((host, port))
    print(asking.getsockname()[1])
    for question in (b"one", b"two", b"three"):
        for again in range(5):
            asking.send(question)
            try:
                print(asking.recv(65536).decode().replace("\\n", " "))
                break
            except TimeoutError:
                pass
"""


def services():
    """All ways in all modes, with one server."""
    for mode in MODES:
        address = mode.inside.server("s1")
        for way, port in VIP_PORTS.items():
            options = {"snat_pool": modes.POOL, "client_address": way}
            backend = Backend(endpoint(address, PLAIN_PORT if way == "toa" else HTTP_PORT))
            check = Check(interval_ms=200, timeout_ms=200)
            yield service(f"{mode.name}-{way}", mode, port, backend, options, check=check)
        for way, port in FIRST_PORTS.items():
            options = {"snat_pool": modes.POOL, "client_address": way}
            backend = Backend(endpoint(address, SPEAKING_PORT))
            yield service(f"{mode.name}-{way}-first", mode, port, backend, options)
        for way, port in UDP_PORTS.items():
            options = {"snat_pool": modes.POOL, "client_address": way}
            backend = Backend(endpoint(address, SPEAKING_PORT))
            yield service(f"{mode.name}-{way}-udp", mode, port, backend, options, "udp")


def service(name, mode, port, backend, options, protocol="tcp", check=None):
    """A service on a VIP of a mode."""
    return Service(name, endpoint(mode.address, port), "full-nat", "rr", [backend], check, protocol, options)


@pytest.fixture(scope="module")
def server(lab):
    """The servers on s1 behind all services; yields nginx's directory."""
    home = lab.servers["s1"].dir
    (home / "introduced" / "upload").mkdir(parents=True)
    (home / "introduced" / "index.html").write_text("what checks ask for\n")
    (home / "introduced" / "big").write_bytes(os.urandom(LEN))
    (lab.servers["s1"].www / "big").write_bytes((home / "introduced" / "big").read_bytes())
    (home / "introduced.conf").write_text(NGINX.format(dir=home, port=HTTP_PORT))
    space = lab.topology.servers["s1"]
    nginx = space.popen("nginx", "-c", home / "introduced.conf", log=home / "introduced-output.log")
    speaking = space.popen("/usr/bin/python3", introduced.__file__, SPEAKING_PORT, log=home / "speaking.log")

    def listen():
        listening = space.run("ss", "-Hltn").stdout
        return all(f":{port} " in listening for port in (HTTP_PORT, SPEAKING_PORT))

    try:
        wait_until(listen, "the servers listen")
        with reloaded(lab, list(services())):
            yield home
    finally:
        nginx.stop()
        speaking.stop()
    assert "Traceback" not in (home / "speaking.log").read_text()


@pytest.fixture
def lossy(lab):
    """A router that loses packets while a test runs."""
    router = lab.topology.router
    router.run("nft", "add table inet loss")
    router.run("nft", "add chain inet loss forward { type filter hook forward priority 0; }")
    router.run("nft", "add rule inet loss forward numgen random mod 20 == 0 counter drop")
    yield
    lost = re.search(r"counter packets (\d+)", router.run("nft", "list table inet loss").stdout)[1]
    router.run("nft", "delete table inet loss")
    assert int(lost) > 0


@pytest.fixture
def deaf(lab):
    """A server that does not hear the first datagram while a test runs."""
    server = lab.topology.servers["s1"]
    server.run("nft", "add table inet deaf")
    server.run("nft", "add chain inet deaf input { type filter hook input priority 0; }")
    first = "limit rate 1/day burst 1 packets counter drop"
    server.run("nft", f"add rule inet deaf input udp dport {SPEAKING_PORT} {first}")
    yield
    lost = re.search(r"counter packets (\d+)", server.run("nft", "list table inet deaf").stdout)[1]
    server.run("nft", "delete table inet deaf")
    assert int(lost) == 1


def curl(lab, *words):
    """What curl says; it prints its own port last."""
    return lab.client.run("curl", "-gfsS", "--max-time", "30", "-w", "%{local_port}", *words, timeout=40).stdout


def logged(home, port):
    """What nginx logged of the client with this port."""
    def lines():
        log = (home / "introduced.log").read_text().splitlines()
        return [line for line in log if line.split()[1] == port]

    return wait_until(lines, f"nginx logs a request from port {port}")


@EACH_MODE
@pytest.mark.parametrize("way", ["proxy-v1", "proxy-v2"])
def test_nginx_knows_its_clients_and_gets_and_gives_all_bytes(lab, server, mode, way):
    vip, port = mode.address, VIP_PORTS[way]
    url = f"http://{endpoint(vip, port)}"
    file = lab.state / "introduced-file"
    client = curl(lab, "-o", file, f"{url}/big")
    assert digest(file.read_bytes()) == digest((server / "introduced" / "big").read_bytes())
    assert logged(server, client) == [f"{mode.outside.client} {client} {vip} {port} GET /big 200"]

    name = f"{mode.name}-{way}"
    file.write_bytes(os.urandom(LEN))
    client = curl(lab, "-H", "Expect:", "-o", "/dev/null", "-T", file, f"{url}/upload/{name}")
    assert digest((server / "introduced" / "upload" / name).read_bytes()) == digest(file.read_bytes())
    assert logged(server, client) == [f"{mode.outside.client} {client} {vip} {port} PUT /upload/{name} 201"]


@EACH_MODE
@pytest.mark.parametrize("way", VIP_PORTS)
def test_checks_are_understood_and_are_no_clients(lab, server, mode, way):
    def checked():
        (backend,) = lab.appliance.service(f"tcp:{endpoint(mode.address, VIP_PORTS[way])}")["backends"]
        return backend["reason"] not in ("", "not checked yet") and backend

    backend = wait_until(checked, "the first check ends")
    assert (backend["health"], backend["reason"].startswith("HTTP 200 in ")) == ("up", True), backend
    if way != "toa":
        log = (server / "introduced.log").read_text().splitlines()
        assert "- - - - GET /index.html 200" in log


@EACH_MODE
@EACH_VERSION
def test_a_server_that_speaks_first_knows_its_clients(lab, server, mode, version):
    vip, port = mode.address, FIRST_PORTS[version]
    said = lab.client.run("/usr/bin/python3", "-c", SPEAK, vip, port, LEN, timeout=40).stdout.split()
    code, src, sport, dst, dport, own_port = said
    assert (code, src, sport, dst, dport) == ("220", mode.outside.client, own_port, vip, str(port))


@EACH_MODE
def test_lost_segments_change_nothing(lab, server, mode, lossy):
    """Of every 20 packets between client and appliance one is lost, either way."""
    for way, port in FIRST_PORTS.items():
        words = (mode.address, port, 400_000)
        said = lab.client.run("/usr/bin/python3", "-c", SPEAK, *words, timeout=60).stdout.split()
        assert said[1:3] == [mode.outside.client, said[-1]], way


def asked(lab, mode, way):
    """What a client of UDP heard, and how its server is told who it is."""
    vip, port = mode.address, UDP_PORTS[way]
    own, *answers = lab.client.run("/usr/bin/python3", "-c", ASK, vip, port).stdout.splitlines()
    return answers, f"{mode.outside.client} {own} {vip} {port}"


@EACH_MODE
def test_datagrams_say_whose_they_are_until_one_is_answered(lab, server, mode):
    answers, who = asked(lab, mode, "proxy-v2")
    assert answers == [f"{who} one", "- two", "- three"]


@EACH_MODE
def test_each_datagram_says_whose_it_is(lab, server, mode):
    answers, who = asked(lab, mode, "proxy-v2-each")
    assert answers == [f"{who} one", f"{who} two", f"{who} three"]


@EACH_MODE
def test_a_lost_datagram_is_not_missed(lab, server, mode, deaf):
    answers, who = asked(lab, mode, "proxy-v2")
    assert answers == [f"{who} one", "- two", "- three"]


@EACH_MODE
def test_the_option_of_toa_is_on_the_wire_and_bytes_come_whole(lab, server, mode):
    space, file = lab.topology.servers["s1"], lab.state / "introduced-file"
    with Capture(space, "e0", f"tcp dst port {PLAIN_PORT}", lab.state / "toa.log", "-X") as seen:
        client = curl(lab, "-o", file, f"http://{endpoint(mode.address, VIP_PORTS['toa'])}/big")
        assert digest(file.read_bytes()) == digest((server / "introduced" / "big").read_bytes())
        kind, size = "fe", "08" if mode.outside.version == 4 else "14"
        option = f"{kind}{size}{int(client):04x}{ipaddress.ip_address(mode.outside.client).packed.hex()}"
        # What ends the handshake has it, and what the client says first.
        wait_until(lambda: hexadecimal(seen).count(option) >= 2, "the option is seen, with the client's address")
    right, wrong = seen.checksums()
    assert right and not wrong


def hexadecimal(seen):
    """The digits of a capture's packets."""
    rows = re.findall(r"^\t0x[0-9a-f]+:  ((?:[0-9a-f]{2,4} ?)+)", seen.text(), re.MULTILINE)
    return re.sub(r"\s", "", "".join(rows))


def digest(data):
    """Digest of bytes, for messages that do not print megabytes."""
    return hashlib.sha256(data).hexdigest()

"""Web servers that say who they are."""

import os
import re
import signal
from pathlib import Path

from lab.netns import LabError, pids, run, wait_until
from lab.addresses import FAMILIES
from lab.modes import NAT_PORT, VIP_PORT, WRR_PORT

PORTS = (NAT_PORT, WRR_PORT, VIP_PORT)
# Files for clients, the same ones on all servers.
WWW = "www"
NO_CLIENTS = ("127.0.0.1", *(family.management for family in FAMILIES))

CONFIG = """\
user root;
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{ worker_connections 8192; }}
http {{
    log_format who "$remote_addr $server_port $status $request_uri";
    access_log {access_log};
    default_type text/plain;
    keepalive_requests 100000000;
    server {{
        {listen}
        root {www};
        add_header X-Server {name};
        location /upload/ {{
            root {dir};
            dav_methods PUT;
            client_max_body_size 16m;
            client_body_temp_path {dir}/body;
        }}
        location = / {{ return 200 "server {name}\\n"; }}
    }}
}}
"""


class Server:
    """One nginx in one namespace; `logged` or not, for writing of each request takes time."""

    def __init__(self, name, space, state, logged=True):
        self.name = name
        self.space = space
        self.dir = Path(state) / name
        self.www = Path(state) / WWW
        self.access_log = f"{self.dir}/access.log who" if logged else "off"
        self.process = None

    def start(self):
        """Starts it and waits until it answers."""
        self.www.mkdir(parents=True, exist_ok=True)
        (self.dir / "upload").mkdir(parents=True, exist_ok=True)
        addresses = [f"{host}{port}" for port in PORTS for host in ("", "[::]:")]
        listen = " ".join(f"listen {address} backlog=4096;" for address in addresses)
        config = self.dir / "nginx.conf"
        paths = {"dir": self.dir, "www": self.www, "access_log": self.access_log}
        config.write_text(CONFIG.format(**paths, name=self.name, listen=listen))
        self._launch()

    def restart(self):
        """Starts it again after `kill`."""
        self._launch()

    def _launch(self):
        argv = ("nginx", "-e", self.dir / "error.log", "-c", self.dir / "nginx.conf")
        self.process = self.space.popen(*argv, log=self.dir / "output.log")

        def answers():
            if not self.process.running():
                raise LabError(f"nginx of {self.name} ended: {self.process.tail()}")
            page = self.space.run("curl", "-fs", f"http://127.0.0.1:{NAT_PORT}/", check=False)
            return page.returncode == 0

        wait_until(answers, f"nginx of {self.name} answers")

    def uploaded(self, name):
        """What a client put to `/upload/NAME`."""
        return (self.dir / "upload" / name).read_bytes()

    def kill(self):
        """Ends it at once, worker included, as a crash would."""
        listed = run("ps", "-o", "pid=", "--ppid", self.process.pid, check=False).stdout
        children = [int(pid) for pid in listed.split()]
        self.process.kill()
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not set(children) & set(pids(self.space.name)), "nginx's workers end")

    def served(self):
        """Requests of clients it answered so far; those of health checks and our own are not counted."""
        others = "|".join(map(re.escape, NO_CLIENTS))
        log = self.dir / "access.log"
        return len(re.findall(rf"^(?!(?:{others}) )", log.read_text(), re.MULTILINE))

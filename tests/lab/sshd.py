"""An sshd of the lab's own, with keys, configuration and port of its own."""

import contextlib
from pathlib import Path

from lab.netns import run, wait_until

PORT = 2222
# sshd insists on this directory, which Debian's unit makes.
PRIVSEP = Path("/run/sshd")
CONFIG = """\
Port {port}
HostKey {dir}/host
AuthorizedKeysFile {dir}/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


@contextlib.contextmanager
def serving(space, state):
    """sshd in a namespace during the block; what to put before a host and a command to log in there."""
    directory = Path(state) / "sshd"
    directory.mkdir()
    for name in ("host", "client"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name)
    config = directory / "sshd_config"
    config.write_text(CONFIG.format(port=PORT, dir=directory))
    made = not PRIVSEP.exists()
    PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    process = space.popen("/usr/sbin/sshd", "-D", "-e", "-f", config, log=directory / "log")
    try:
        wait_until(lambda: process.tail().count("Server listening") == 2, f"sshd listens: {process.tail()}")
        options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={directory}/known", "BatchMode=yes"]
        options += ["ConnectTimeout=5", "LogLevel=ERROR"]
        words = [word for option in options for word in ("-o", option)]
        yield ("ssh", "-F", "none", "-p", str(PORT), "-i", directory / "client", *words, "-l", "root")
    finally:
        process.stop()
        if made:
            PRIVSEP.rmdir()

"""Large files, down and up, through every mode: not a byte is lost, changed or out of place."""

import hashlib
import os

import pytest

from lab import modes
from lab.servers import WWW

DOWNLOAD_LEN, UPLOAD_LEN = 100 << 20, 4 << 20


@pytest.fixture(scope="module")
def big(lab):
    """A file that all servers have, of bytes that do not repeat; yields its sha256."""
    data = os.urandom(DOWNLOAD_LEN)
    (lab.state / WWW / "big").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("mode", modes.NAMES)
def test_a_download_of_100_megabytes_comes_whole(lab, big, mode):
    fetch = 'set -o pipefail; curl -fsS --max-time 60 "$1" | sha256sum'
    url = f"http://{lab.service(mode).vip}/big"
    assert lab.client.run("bash", "-c", fetch, "bash", url, timeout=90).stdout.split()[0] == big


@pytest.mark.parametrize("mode", modes.NAMES)
def test_an_upload_arrives_whole(lab, mode):
    file = lab.state / "upload"
    file.write_bytes(os.urandom(UPLOAD_LEN))
    url = f"http://{lab.service(mode).vip}/upload/big"
    words = ("-fsS", "--max-time", "60", "-H", "Expect:", "-w", "%header{x-server}", "-T", file)
    name = lab.client.run("curl", *words, url, timeout=90).stdout
    assert sha256(lab.servers[name].uploaded("big")) == sha256(file.read_bytes())


def sha256(data):
    """Digest of bytes, for messages that do not print four megabytes."""
    return hashlib.sha256(data).hexdigest()

"""What trutinad says of NICs it can not use: it ends with a reason instead of half a port."""

import pytest
from guest import E1000E, FLAT, START_SECS, toml

EXIT_FAILED = 1


@pytest.fixture
def guest(bench):
    """A guest with the NIC that has the fewest queues."""
    return bench.of(E1000E)[1]


def test_a_nic_with_too_few_queues(guest):
    assert "4 workers need 4 receive queues; the device has 2" in refused(guest, toml(4, []))


def test_a_nic_that_is_not_there(guest):
    said = refused(guest, toml(1, []).replace(FLAT.pci["servers"], "0000:00:1d.0"))
    assert "device `0000:00:1d.0` did not open" in said
    assert "dpdk-devbind.py --status" in said


def test_a_nic_that_is_not_bound(guest):
    vfio, address = "/sys/bus/pci/drivers/vfio-pci", FLAT.pci["servers"]
    guest.sh(f"echo {address} >{vfio}/unbind")
    try:
        said = refused(guest, toml(1, []))
    finally:
        guest.sh(f"echo {address} >{vfio}/bind")
    assert f"device `{address}` did not open" in said
    assert "dpdk-devbind.py --bind=vfio-pci" in said


def refused(guest, config):
    """The error with which trutinad ends."""
    guest.launch(config)
    code = guest.wait(START_SECS)
    said = guest.said()
    assert code == EXIT_FAILED, said
    return said

"""What can be wrong at start: each is said at once, in words that name the mend."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from lab.appliance import EXIT_FAILED, EXIT_INVALID, EXIT_UNREACHABLE, EXIT_USAGE, binary, usable_cores
from lab.netns import LabError, run
from lab.topology import DEVICES

PROMPT_SECS = 20


def refused(lab, config):
    """Starts trutinad on a configuration it must refuse; returns its exit code and its message."""
    appliance = lab.appliance
    appliance.log.unlink(missing_ok=True)
    appliance.write(config)
    appliance.launch()
    code = appliance.process.wait(PROMPT_SECS)
    text = appliance.log.read_text()
    said = [line for line in text.splitlines() if line.startswith("error: ")]
    assert said, f"no `error:` line in:\n{text}"
    assert said[-1].count(";") >= 2, "what; because; try"
    return code, said[-1]


def test_missing_hugepages(idle_lab):
    if int(Path("/proc/sys/vm/nr_hugepages").read_text()) > 0:
        pytest.skip("this machine has huge pages")
    code, said = refused(idle_lab, idle_lab.config.changed(hugepages=True))
    assert code == EXIT_FAILED
    assert "hugepages" in said
    assert re.search(r"nr_hugepages|dpdk-hugepages|hugepages = false", said)


def test_interface_that_does_not_exist(idle_lab):
    code, said = refused(idle_lab, idle_lab.config.changed(device="net_af_packet0,iface=absent0"))
    assert code == EXIT_FAILED
    assert "absent0" in said


def test_pci_device_that_does_not_exist(idle_lab):
    code, said = refused(idle_lab, idle_lab.config.changed(device="0000:ff:1f.7"))
    assert code == EXIT_FAILED
    assert "0000:ff:1f.7" in said


def test_core_that_does_not_exist(idle_lab):
    absent = usable_cores()[-1] + 50
    code, said = refused(idle_lab, idle_lab.config.changed(workers=[absent]))
    assert code == EXIT_FAILED
    assert str(absent) in said


def test_more_workers_than_queues(idle_lab):
    last = usable_cores()[-1]
    code, said = refused(idle_lab, idle_lab.config.changed(workers=[last, last], shared=True))
    assert code == EXIT_FAILED
    assert "queue" in said and "qpairs" in said


def test_flow_tables_larger_than_memory(idle_lab):
    # The most that can be configured needs 32 GiB for each worker. A kernel may promise what it does not have.
    if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= 24 << 30:
        pytest.skip("this machine may have the memory")
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1":
        pytest.skip("this kernel promises any memory")
    code, said = refused(idle_lab, idle_lab.config.changed(flows=1 << 30))
    assert code == EXIT_FAILED
    assert "memory" in said and "[flow_table]" in said


def test_invalid_file_is_refused_with_its_line(idle_lab):
    text, file = idle_lab.config.toml(), idle_lab.appliance.file
    line = text[: text.index('scheduler = "rr"')].count("\n") + 1
    file.write_text(text.replace('scheduler = "rr"', 'scheduler = "rx"', 1))
    ended = run(binary("trutinad"), "--config", file, "--check", check=False, timeout=PROMPT_SECS)
    assert ended.returncode == EXIT_INVALID
    assert f"{file.name}:{line}:" in ended.stderr
    assert "scheduler" in ended.stderr


def test_missing_file_and_wrong_usage(tmp_path):
    ended = run(binary("trutinad"), "--config", tmp_path / "absent.toml", check=False, timeout=PROMPT_SECS)
    assert ended.returncode in (EXIT_FAILED, EXIT_INVALID)
    assert "absent.toml" in ended.stderr
    assert run(binary("trutinad"), "--no-such-option", check=False).returncode == EXIT_USAGE


def test_second_instance_on_one_socket(idle_lab):
    appliance = idle_lab.appliance
    appliance.start(idle_lab.config)
    first = appliance.process
    try:
        # No device of its own: the socket is what is in the way here.
        other = idle_lab.config.changed(device="net_null0", file_prefix="trutina-e2e-second")
        code, said = refused(idle_lab, other)
        assert code == EXIT_FAILED
        assert str(appliance.socket) in said
        assert appliance.ask("status")["pid"] == first.pid
    finally:
        assert first.stop(timeout=10) == 0
    assert not appliance.socket.exists()


@pytest.fixture
def world_readable():
    """A directory that everybody can read, for programs run by nobody; not in /run, where none may be run."""
    with tempfile.TemporaryDirectory(prefix="trutina-e2e-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("device", [*DEVICES.values(), "0000:ff:1f.7"], ids=[*DEVICES, "pci"])
def test_check_needs_neither_root_nor_devices(idle_lab, world_readable, device):
    program = shutil.copy(binary("trutinad"), world_readable)
    file = world_readable / "trutina.toml"
    file.write_text(idle_lab.config.changed(device=device).toml())
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
    for words in (("--config", file, "--check"), ("--check", file)):
        ended = run(*nobody, program, *words, check=False, timeout=PROMPT_SECS)
        assert ended.returncode == 0, ended.stderr
    file.write_text("[dpdk]\nhugepagez = true\n")
    assert run(*nobody, program, "--check", file, check=False).returncode == EXIT_INVALID


def test_cli_does_not_link_dpdk():
    libraries = run("ldd", binary("trutina")).stdout
    assert "librte" not in libraries
    assert "librte" in run("ldd", binary("trutinad")).stdout


def test_cli_exit_codes(tmp_path):
    def code(*words):
        return run(binary("trutina"), "--socket", tmp_path / "absent.sock", *words, check=False).returncode

    assert code("status") == EXIT_UNREACHABLE
    assert code("no-such-command") == EXIT_USAGE
    assert code("backend", "set", "nonsense") == EXIT_USAGE


def test_lab_says_when_trutinad_ends_early(idle_lab):
    with pytest.raises(LabError, match="trutinad ended with 1"):
        idle_lab.appliance.start(idle_lab.config.changed(device="net_af_packet0,iface=absent0"))

//! What is between sending and receiving: testpmd or trutinad, as the server of a shared memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::words::Idle;

use super::Program;
use super::generator::{BACKEND, OWN_MAC, PORT, VIP};
use crate::device::machine::{Machine, mbufs, memory_mib};
use crate::device::process::Process;

/// A program that sends back what comes.
pub struct Tested {
    process: Process,
    /// Directory of its worker's thread under `/proc`.
    pub worker: PathBuf,
}

impl Tested {
    /// Starts one on a device and waits until it can be connected to.
    ///
    /// # Errors
    /// A sentence and the end of its log.
    pub fn start(
        machine: &Machine,
        directory: &Path,
        program: Program,
        device: &str,
    ) -> Result<Self, String> {
        let (command, worker) = match program {
            Program::Testpmd => (testpmd(machine, device), "rte-worker-1"),
            Program::Trutinad(idle) => (trutinad(machine, directory, device, idle)?, "worker-0"),
        };
        let mut process = Process::start(&command, directory, worker)?;
        let socket = directory.join("memif.sock");
        process.wait_for(|| socket.exists().then_some(()))?;
        let worker = process.wait_for_worker()?;
        if program != Program::Trutinad(Idle::Sleep) {
            keep_core(&worker)?;
        }
        Ok(Self { process, worker })
    }

    /// Sees whether it still runs.
    ///
    /// # Errors
    /// A sentence and the end of its log, if not.
    pub fn check(&mut self) -> Result<(), String> {
        self.process.check()
    }
}

/// Lets the kernel prefer a thread, named by its directory under `/proc`, to all that are not of real time: it polls, as
/// on a core of its own, while the machine has other things to do. One that sleeps is there to share its core, and is
/// left as it is.
fn keep_core(thread: &Path) -> Result<(), String> {
    let id = thread.file_name().unwrap_or_default();
    let status = Command::new("chrt").args(["--fifo", "--pid", "1"]).arg(id).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("chrt ended with {status}; run this as root")),
        Err(why) => Err(format!("chrt does not start; {why}; install util-linux")),
    }
}

/// DPDK's name and arguments of one end of a shared memory.
pub fn memif(role: &str, socket: &Path) -> String {
    let socket = socket.display();
    format!("net_memif0,role={role},id=0,socket={socket},socket-abstract=no,rsize=11,mac={OWN_MAC}")
}

fn testpmd(machine: &Machine, device: &str) -> Command {
    let mut command = Command::new(&machine.testpmd);
    command.args(["--no-pci", "--in-memory", "--no-telemetry", "--file-prefix", "tested"]);
    command.args(["--lcores", &format!("0@{},1@{}", machine.control, machine.worker)]);
    command.args(["-m", &memory_mib(0).to_string(), &format!("--vdev={device}")]);
    command.args(["--", "--auto-start", "--no-flush-rx", "--nb-cores=1", "--forward-mode=macswap"]);
    command.args(["--port-topology=loop", &format!("--total-num-mbufs={}", mbufs(0))]);
    command
}

fn trutinad(machine: &Machine, directory: &Path, device: &str, idle: Idle) -> Result<Command, String> {
    let Machine { control, worker, .. } = machine;
    let memory_mib = memory_mib(0);
    let socket = directory.join("trutina.sock");
    let text = format!(
        "[dpdk]\nmemory_mib = {memory_mib}\nfile_prefix = \"tested\"\n\
         [cores]\ncontrol = {control}\nworkers = [{worker}]\nidle = \"{idle}\"\n\
         [[port]]\nname = \"lan\"\ndevice = \"{device}\"\naddresses = [\"192.0.2.254/24\"]\n\
         [[neighbour]]\naddress = \"{BACKEND}\"\nmac = \"02:00:5e:00:53:0b\"\n\
         [flow_table]\ncapacity = 100_000\n\
         [control]\nsocket = \"{}\"\n\
         [[service]]\nvip = \"{VIP}:{PORT}\"\nprotocol = \"udp\"\nmode = \"dr\"\n\
         [[service.backend]]\naddress = \"{BACKEND}:{PORT}\"\n",
        socket.display(),
    );
    let file = directory.join("trutina.toml");
    fs::write(&file, text).map_err(|why| format!("{}: {why}", file.display()))?;
    let mut command = Command::new(&machine.trutinad);
    command.arg("--config").arg(&file);
    Ok(command)
}

//! DPDK's `testpmd`, to be compared with and to send packets. Its telemetry socket has the counters.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use super::capture::Capture;
use super::machine::{Machine, mbufs, memory_mib};
use super::process::Process;
use super::{Counts, UnderTest};

/// Name of the thread of EAL's core 1, in DPDK 22.11.
const WORKER: &str = "rte-worker-1";
/// Longest message of the telemetry socket.
const MESSAGE_LEN: usize = 16 << 10;

/// Frames of one device.
pub struct Stats {
    /// Frames that it received.
    pub received: u64,
    /// Frames that it sent.
    pub sent: u64,
}

/// A running testpmd.
pub struct Testpmd {
    process: Process,
    telemetry: Socket,
}

impl Testpmd {
    /// Starts one on a core, on some devices, with room for the packets of a capture, and waits until it
    /// forwards.
    ///
    /// # Errors
    /// A sentence and the end of its log.
    pub fn start(
        machine: &Machine,
        core: usize,
        directory: &Path,
        name: &str,
        devices: &[String],
        forward: &[&str],
        capture: &Capture,
    ) -> Result<Self, String> {
        let directory = directory.join(name);
        std::fs::create_dir(&directory).map_err(|why| format!("{}: {why}", directory.display()))?;
        let mut command = Command::new(&machine.testpmd);
        command.args(["--no-pci", "--in-memory", "--file-prefix", name]);
        command.args(["--lcores", &format!("0@{},1@{core}", machine.control)]);
        // So that memory can be shared with another process without copying.
        command.arg("--single-file-segments");
        command.args(["-m", &memory_mib(capture.packets).to_string()]);
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--auto-start", "--no-flush-rx", "--nb-cores=1"]);
        command.arg(format!("--total-num-mbufs={}", mbufs(capture.packets)));
        command.args(forward);
        let mut process = Process::start(&command, &directory, WORKER)?;
        let path = directory.join("dpdk").join(name).join("dpdk_telemetry.v2");
        let telemetry = process.wait_for(|| connect(&path).ok())?;
        let mut started = Self { process, telemetry };
        started.wait_until_it_runs()?;
        Ok(started)
    }

    /// Frames of a device, by its number, since it started.
    ///
    /// # Errors
    /// A sentence, if it does not answer.
    pub fn stats(&mut self, device: u16) -> Result<Stats, String> {
        stats(&mut self.telemetry, device)
    }

    /// The socket is there before the devices are.
    fn wait_until_it_runs(&mut self) -> Result<(), String> {
        let Self { process, telemetry } = self;
        process.wait_for(|| stats(telemetry, 0).ok()).map(|_| ())
    }
}

impl UnderTest for Testpmd {
    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn counts(&mut self) -> Result<Counts, String> {
        Ok(Counts { received: self.stats(0)?.received, dropped: 0 })
    }

    fn stop(mut self: Box<Self>) -> Result<(), String> {
        self.process.press_enter()?;
        self.process.wait()
    }
}

fn connect(path: &PathBuf) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.connect(&SockAddr::unix(path)?)?;
    // It begins by saying who it is.
    let _ = (&socket).read(&mut [0; MESSAGE_LEN])?;
    Ok(socket)
}

fn stats(telemetry: &mut Socket, device: u16) -> Result<Stats, String> {
    const QUESTION: &str = "/ethdev/stats";
    let failed = |why: std::io::Error| format!("testpmd's telemetry does not answer; {why}");
    telemetry.write_all(format!("{QUESTION},{device}").as_bytes()).map_err(failed)?;
    let mut answer = [0; MESSAGE_LEN];
    let len = telemetry.read(&mut answer).map_err(failed)?;
    let answer: Value = serde_json::from_slice(&answer[..len]).unwrap_or_default();
    let frames = |key| answer[QUESTION][key].as_u64().ok_or("testpmd's telemetry has no counters");
    Ok(Stats { received: frames("ipackets")?, sent: frames("opackets")? })
}

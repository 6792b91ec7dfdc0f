//! The real `trutinad` on software devices, beside DPDK's own `testpmd` on the same ones.
//!
//! [`capture`] writes the frames, [`testpmd`] and [`appliance`] run the programs, each a [`process`] that is
//! ended with its guard; [`generator`] fills shared memory; [`machine`] knows cores and huge pages; [`rows`] prints.

mod appliance;
mod capture;
mod generator;
pub mod machine;
pub mod process;
mod rows;
mod testpmd;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use config::words::Mode;
use serde::Serialize;

use crate::pipeline::flows;
use appliance::Appliance;
use capture::Capture;
use generator::Generator;
use machine::{Interrupt, Machine, memory_mib};
use process::Process;
use rows::{Report, Row};
use testpmd::Testpmd;

/// What is measured, and how the results are printed.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer and shorter rounds, with 10k flows only unless told: a rough answer within a minute
    #[arg(long)]
    quick: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// What frames come from
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Device::Pcap, Device::Memif])]
    device: Vec<Device>,
    /// How packets reach their backends
    #[arg(long, value_delimiter = ',', default_values_t = MODES)]
    mode: Vec<Mode>,
    /// Flows, for which the table is rated; k and M may follow the number [default: 1,10k,1M]
    #[arg(long, value_parser = flows, value_delimiter = ',')]
    flows: Vec<u32>,
    /// Times that all programs take their turns [default: 7, or 3 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
}

const MODES: [Mode; 4] = [Mode::Dr, Mode::Tunnel, Mode::Nat, Mode::FullNat];

/// What frames come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A capture that the driver replays without end, and drops what is sent
    Pcap,
    /// Memory shared with another process, which replays the capture and takes back what is sent
    Memif,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// DPDK's testpmd, which swaps the Ethernet addresses of every frame: of requests, or also of replies.
    Testpmd {
        /// Whether replies come, too.
        replies: bool,
    },
    /// Ours, with all backends in one mode.
    Trutinad(Mode),
}

impl Program {
    /// Whether it is to be given replies of backends, too. In full NAT these go to ports that are chosen
    /// while it runs, so no capture can be prepared of them.
    fn sees_replies(self) -> bool {
        matches!(self, Self::Testpmd { replies: true } | Self::Trutinad(Mode::Nat))
    }

    /// What it is compared with, which is given the same frames.
    fn yardstick(self) -> Self {
        Self::Testpmd { replies: self.sees_replies() }
    }

    /// Modes and what they are compared with, that first.
    fn with_yardsticks(modes: impl Iterator<Item = Mode> + Clone) -> Vec<Self> {
        let ours = modes.map(Self::Trutinad);
        let yardsticks = [false, true].map(|replies| Self::Testpmd { replies });
        let wanted = |its: &Self| ours.clone().any(|program| program.yardstick() == *its);
        yardsticks.into_iter().filter(wanted).chain(ours.clone()).collect()
    }
}

/// Frames of a device under test since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Frames received.
    received: u64,
    /// Frames dropped by it, but for those that the device did not take.
    dropped: u64,
}

/// A program that forwards.
trait UnderTest {
    fn process(&mut self) -> &mut Process;

    fn counts(&mut self) -> Result<Counts, String>;

    /// Why frames were dropped, as far as it tells.
    fn reasons(&mut self) -> String {
        String::new()
    }

    /// Ends it in its own way.
    fn stop(self: Box<Self>) -> Result<(), String>;
}

/// The frames of one number of flows.
struct Frames {
    requests: Capture,
    /// Requests and replies of the same flows.
    both: Capture,
}

/// One device and number of flows.
struct Case<'a> {
    machine: &'a Machine,
    interrupt: &'a Interrupt,
    device: Device,
    flows: u32,
    frames: &'a Frames,
    window: Duration,
}

/// What one round found of a program.
#[derive(Clone, Copy)]
struct Measured {
    /// CPU time of the worker per packet, in nanoseconds.
    ns: f64,
    /// Share of the generator's frames for which there was no room: packets never were to be waited for.
    surplus: Option<f64>,
}

/// Measures all cases and prints them.
///
/// # Errors
/// A sentence that says what is missing and what to do about it, or what went wrong.
pub fn run(args: &Args) -> Result<(), String> {
    let interrupt = Interrupt::listen()?;
    let machine = Machine::look()?;
    let flows = match (args.flows.is_empty(), args.quick) {
        (false, _) => args.flows.clone(),
        (true, true) => vec![10_000],
        (true, false) => vec![1, 10_000, 1_000_000],
    };
    let programs = Program::with_yardsticks(MODES.into_iter().filter(|mode| args.mode.contains(mode)));
    let most = flows.iter().max().map_or(0, |&flows| capture::packets(flows));
    let both = programs.iter().any(|program| program.sees_replies());
    machine.check_hugepages(if both { 2 * most } else { most }, args.device.contains(&Device::Memif))?;
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 7 });
    let window = Duration::from_millis(if args.quick { 500 } else { 1000 });
    let report = Report::begin(args.json);
    let directory = tempfile::tempdir().map_err(|why| format!("no temporary directory; {why}"))?;
    for flows in flows {
        let frames = Frames {
            requests: Capture::write(&directory.path().join("requests.pcap"), flows, false)?,
            both: Capture::write(&directory.path().join("both.pcap"), flows, true)?,
        };
        for &device in &args.device {
            let case =
                Case { machine: &machine, interrupt: &interrupt, device, flows, frames: &frames, window };
            let (programs, left_out): (Vec<_>, Vec<_>) =
                programs.iter().partition(|program| case.is_possible(**program));
            for program in left_out {
                eprintln!(
                    "{program:?} with {flows} flows is left out: memif reaches 4 GiB of buffers, and it needs more"
                );
            }
            let results = case.rounds(&programs, rounds)?;
            for (program, its) in programs.iter().zip(&results) {
                let pairs = programs.iter().zip(&results);
                for (_, testpmd) in pairs.filter(|(other, _)| **other == program.yardstick()) {
                    report.line(&Row::new(device, *program, flows, its, testpmd));
                }
            }
        }
    }
    Ok(())
}

impl Case<'_> {
    /// Whether the device reaches the buffers of the capture: a descriptor of memif has an offset of 32 bits.
    fn is_possible(&self, program: Program) -> bool {
        let packets = capture::packets(self.flows) * if program.sees_replies() { 2 } else { 1 };
        self.device != Device::Memif || memory_mib(packets) <= 4096
    }

    /// Results by program and round; the programs alternate.
    fn rounds(&self, programs: &[Program], rounds: u32) -> Result<Vec<Vec<Measured>>, String> {
        let mut values = vec![Vec::new(); programs.len()];
        for _ in 0..rounds {
            for (program, values) in programs.iter().zip(&mut values) {
                values.push(self.measure(*program)?);
            }
        }
        Ok(values)
    }

    /// Runs one program for a while.
    fn measure(&self, program: Program) -> Result<Measured, String> {
        let capture = if program.sees_replies() { &self.frames.both } else { &self.frames.requests };
        let directory = tempfile::tempdir().map_err(|why| format!("no temporary directory; {why}"))?;
        let socket = directory.path().join("memif.sock");
        let device = match self.device {
            Device::Pcap => capture.device(),
            Device::Memif => memif("server", &socket),
        };
        let mut tested: Box<dyn UnderTest> = match program {
            Program::Testpmd { .. } => {
                let forward = ["--forward-mode=macswap", "--port-topology=loop"];
                let core = self.machine.worker;
                Box::new(Testpmd::start(
                    self.machine,
                    core,
                    directory.path(),
                    "tested",
                    &[device],
                    &forward,
                    capture,
                )?)
            }
            Program::Trutinad(mode) => Box::new(Appliance::start(
                self.machine,
                directory.path(),
                &device,
                mode,
                self.flows,
                capture,
            )?),
        };
        let mut generator = match self.device {
            Device::Pcap => None,
            Device::Memif => Some(Generator::start(self.machine, directory.path(), &socket, capture)?),
        };
        self.wait_for_flows(tested.as_mut(), capture)?;
        let measured = self.time(tested.as_mut(), generator.as_mut())?;
        // Two ends of a shared memory are killed: testpmd crashes when the other one goes first.
        if generator.is_none() {
            tested.stop()?;
        }
        Ok(measured)
    }

    /// Waits until all flows are known.
    fn wait_for_flows(&self, tested: &mut dyn UnderTest, capture: &Capture) -> Result<(), String> {
        const PATIENCE: u32 = 1000;
        let mut counts = Counts::default();
        for _ in 0..PATIENCE {
            self.interrupt.sleep(Duration::from_millis(20))?;
            tested.process().check()?;
            let before = std::mem::replace(&mut counts, tested.counts()?);
            // Twice: in the first turn replies may come before what they answer.
            if counts.received > 2 * capture.packets && counts.dropped == before.dropped {
                break;
            }
        }
        Ok(())
    }

    /// Counts for a while; with a generator anew, as long as something keeps it from filling the ring.
    fn time(
        &self,
        tested: &mut dyn UnderTest,
        generator: Option<&mut Generator>,
    ) -> Result<Measured, String> {
        const ATTEMPTS: u32 = 10;
        let Some(generator) = generator else {
            return Ok(Measured { ns: self.count(tested)?, surplus: None });
        };
        let mut pressures = Vec::new();
        for _ in 0..ATTEMPTS {
            let (before, begin) = (generator.work()?, Instant::now());
            let ns = self.count(tested)?;
            let time = begin.elapsed();
            let pressure = generator.work()?.since(before, time);
            if pressure.is_enough() {
                return Ok(Measured { ns, surplus: Some(pressure.surplus) });
            }
            pressures.push(pressure);
        }
        Err(format!(
            "the generator did not keep the ring full, so the device under test waited for it; \
             end what else runs on its core; {pressures:.2?}"
        ))
    }

    /// Counts for a while. Returns the CPU time of the worker per packet, in nanoseconds.
    fn count(&self, tested: &mut dyn UnderTest) -> Result<f64, String> {
        let cpu = tested.process().worker_time()?;
        let counts = tested.counts()?;
        self.interrupt.sleep(self.window)?;
        let spent = tested.process().worker_time()?.saturating_sub(cpu);
        let after = tested.counts()?;
        let (received, dropped) = (after.received - counts.received, after.dropped - counts.dropped);
        if received == 0 || dropped > 0 {
            return Err(format!(
                "{received} packets came and {dropped} of them were dropped: nothing to measure; {}\n{}",
                tested.reasons(),
                tested.process().said()
            ));
        }
        Ok(spent.as_nanos() as f64 / received as f64)
    }
}

/// DPDK's name and arguments of one end of a shared memory.
fn memif(role: &str, socket: &Path) -> String {
    let mac = capture::OWN_MAC;
    let socket = socket.display();
    format!("net_memif0,role={role},id=0,socket={socket},socket-abstract=no,rsize=11,mac={mac}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_is_beside_a_testpmd_that_replays_the_same_frames() {
        let with = |modes: &[Mode]| Program::with_yardsticks(modes.iter().copied());
        let [requests, both] = [false, true].map(|replies| Program::Testpmd { replies });
        let [dr, nat, full_nat] = [Mode::Dr, Mode::Nat, Mode::FullNat].map(Program::Trutinad);
        assert_eq!(with(&[Mode::Dr, Mode::Nat, Mode::FullNat]), [requests, both, dr, nat, full_nat]);
        assert_eq!(with(&[Mode::FullNat]), [requests, full_nat]);
        assert_eq!(with(&[Mode::Nat]), [both, nat]);
        assert_eq!([dr, nat, full_nat, both].map(Program::yardstick), [requests, both, requests, both]);
    }
}

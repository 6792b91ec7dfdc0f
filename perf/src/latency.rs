//! How long a frame is inside the appliance, beside DPDK's `testpmd` on the same memory shared with it.
//!
//! [`generator`] sends paced frames that carry their time, in a process of its own for each measurement, in slices
//! between which [`undisturbed`] sees whether the worker had its core; [`tested`] starts what sends them back; [`rows`] prints.

pub mod generator;
mod rows;
mod tested;
mod undisturbed;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use config::words::Idle;

use crate::device::machine::{Interrupt, Machine};
use crate::device::process::Process;
use generator::{Measured, Order};
use rows::{Report, Row};
use tested::{Tested, memif};

/// What is measured, and how the results are printed.
#[derive(clap::Args)]
pub struct Args {
    /// Shorter and fewer rounds: a rough answer within a minute
    #[arg(long)]
    quick: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Percent of the capacity at which a worker that polls is measured.
const LOADS: [u64; 3] = [10, 50, 80];
/// The same for workers that rest while nothing comes.
const IDLE_LOAD: u64 = 10;
/// Frames a second that leave time for the longest rest between them.
const RARE_PPS: u64 = 1000;

/// Rounds in which the capacity is looked for.
const CAPACITY_ROUNDS: usize = 5;

/// A program that sends frames back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// DPDK's testpmd, which swaps the Ethernet addresses: what sending through shared memory takes.
    Testpmd,
    /// Ours, in DR.
    Trutinad(Idle),
}

/// One line of the table: a program, and frames a second.
#[derive(Clone, Copy)]
struct Case {
    program: Program,
    /// Percent of the capacity; none if the rate has nothing to do with it.
    load: Option<u64>,
    rate_pps: u64,
}

/// Finds the capacity, measures all cases and prints them.
///
/// # Errors
/// A sentence that says what is missing and what to do about it, or what went wrong.
pub fn run(args: &Args) -> Result<(), String> {
    let interrupt = Interrupt::listen()?;
    let machine = Machine::look()?;
    machine.check_hugepages(0, true)?;
    let (rounds, time) =
        if args.quick { (1, Duration::from_millis(500)) } else { (5, Duration::from_secs(1)) };
    let capacity = capacity(&machine, &interrupt, time)?;
    let report = Report::begin(args.json, capacity);
    for batch in cases(capacity as u64) {
        let mut results = vec![Vec::new(); batch.len()];
        // They alternate, so that what disturbs the machine meets all of them.
        for _ in 0..rounds {
            for (case, results) in batch.iter().zip(&mut results) {
                results.push(measure(&machine, &interrupt, case.program, Some(case.rate_pps), time)?);
            }
        }
        let rows: Vec<Row> =
            batch.iter().zip(&results).map(|(case, results)| Row::new(case, results)).collect();
        // Each batch begins with testpmd.
        rows.iter().for_each(|row| report.line(row, &rows[0]));
    }
    Ok(())
}

/// Frames a second that come back at most, in the middle one of some rounds: where the hypervisor puts the two cores makes
/// half of it or one and a half, so loads are none of the best round.
fn capacity(machine: &Machine, interrupt: &Interrupt, time: Duration) -> Result<f64, String> {
    let mut rates = [0.0; CAPACITY_ROUNDS];
    for rate in &mut rates {
        *rate = measure(machine, interrupt, Program::Trutinad(Idle::Poll), None, time)?.rate_pps;
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[CAPACITY_ROUNDS / 2])
}

/// All cases, in batches of the same rate.
fn cases(capacity: u64) -> Vec<Vec<Case>> {
    let all = [Idle::Poll, Idle::Pause, Idle::Sleep].map(Program::Trutinad);
    let batch = |load: Option<u64>, ours: &[Program]| {
        let rate_pps = load.map_or(RARE_PPS, |load| capacity * load / 100);
        let programs = std::iter::once(Program::Testpmd).chain(ours.iter().copied());
        programs.map(|program| Case { program, load, rate_pps }).collect()
    };
    let mut cases = vec![batch(None, &all)];
    cases.extend(LOADS.map(|load| batch(Some(load), if load == IDLE_LOAD { &all } else { &all[..1] })));
    cases
}

/// Runs a program, and the generator against it; without a rate as fast as it can.
fn measure(
    machine: &Machine,
    interrupt: &Interrupt,
    program: Program,
    rate_pps: Option<u64>,
    time: Duration,
) -> Result<Measured, String> {
    let directory = tempfile::tempdir().map_err(|why| format!("no temporary directory; {why}"))?;
    let socket = directory.path().join("memif.sock");
    let mut tested = Tested::start(machine, directory.path(), program, &memif("server", &socket))?;
    let order = Order {
        device: memif("client", &socket),
        core: machine.control,
        rate_pps,
        millis: time.as_millis() as u64,
        worker: tested.worker.clone(),
        result: directory.path().join("result.json"),
    };
    // Whatever sent them back is killed with its guard: memif's driver crashes when the other end goes first.
    generate(interrupt, directory.path(), &order, &mut tested)
}

/// Runs the generator to its end.
fn generate(
    interrupt: &Interrupt,
    directory: &Path,
    order: &Order,
    tested: &mut Tested,
) -> Result<Measured, String> {
    let own = std::env::current_exe().map_err(|why| format!("this program does not find itself; {why}"))?;
    let directory = directory.join("generator");
    std::fs::create_dir(&directory).map_err(|why| format!("{}: {why}", directory.display()))?;
    let mut command = Command::new(own);
    command.arg("latency-generator").args(order.arguments());
    let mut process = Process::start(&command, &directory, "perf")?;
    while !order.result.exists() {
        interrupt.sleep(Duration::from_millis(20))?;
        // The generator may have ended well since the file was looked for.
        let alive = tested.check().and_then(|()| process.check());
        alive.or_else(|why| if order.result.exists() { Ok(()) } else { Err(why) })?;
    }
    process.wait()?;
    let text = std::fs::read(&order.result).map_err(|why| format!("{}: {why}", order.result.display()))?;
    serde_json::from_slice(&text).map_err(|why| format!("the generator's result is not understood; {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_begins_with_the_floor_and_all_ways_to_be_idle_have_the_light_load() {
        let cases = cases(1_000_000);
        assert!(cases.iter().all(|batch| batch[0].program == Program::Testpmd));
        let loads: Vec<_> = cases.iter().map(|batch| (batch[0].rate_pps, batch.len())).collect();
        assert_eq!(loads, [(RARE_PPS, 4), (100_000, 4), (500_000, 2), (800_000, 2)]);
    }
}

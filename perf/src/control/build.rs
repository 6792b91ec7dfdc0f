//! Times what a change is made of: reading the file, the state, the snapshot, freeing it.

use std::hint::black_box;
use std::time::Instant;

use config::words::MacAddr;
use controlplane::engine::Plan;
use controlplane::state::Limits;
use serde::Serialize;

use super::memory;
use super::report::{Report, Row};
use super::site::Site;

/// Snapshots that are held at once to see how large one is.
const HELD: usize = 4;

/// A piece of the work that a change causes.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Reading and judging the file.
    File,
    /// Putting all services and backends into slots.
    State,
    /// Compiling the whole state into a snapshot, lookup tables and all.
    Snapshot,
    /// Freeing a snapshot.
    Free,
}

/// Times each part, and sees how large a snapshot is.
///
/// # Errors
/// The site cannot be planned.
pub fn measure(site: &Site, repeats: usize, report: &Report) -> Result<(), String> {
    let plan = || {
        let limits = Limits::for_config(&site.config);
        Plan::new(site.config.clone(), &[MacAddr::default()], limits).map_err(|error| error.to_string())
    };
    let mut times =
        [(Part::File, vec![]), (Part::State, vec![]), (Part::Snapshot, vec![]), (Part::Free, vec![])];
    for _ in 0..repeats {
        let (file, read) = timed(|| config::load(site.file()));
        drop(black_box(read.map_err(|error| error.to_string())?));
        let (state, made) = timed(plan);
        let made = made?;
        let (snapshot, compiled) = timed(|| made.snapshot());
        let (free, ()) = timed(|| drop(black_box(compiled)));
        times.iter_mut().zip([file, state, snapshot, free]).for_each(|((_, all), time)| all.push(time));
    }
    for (part, times) in times {
        report.line(&Row::build(site, part, &times)?);
    }
    let plan = plan()?;
    let before = memory::own()?.now;
    let held: Vec<_> = (0..HELD).map(|_| plan.snapshot()).collect();
    let each = (memory::own()?.now - before) / HELD as f64;
    drop(black_box(held));
    report.line(&Row::snapshot_size(site, each));
    Ok(())
}

/// Milliseconds that something takes, and its result.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64() * 1e3, result)
}

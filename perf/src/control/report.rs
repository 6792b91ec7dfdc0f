//! Results as lines for people, or as JSON for programs.

use std::fmt;
use std::time::Duration;

use config::words::Scheduler;
use serde::Serialize;

use super::build::Part;
use super::changes::Change;
use super::gaps::Turn;
use super::memory::Resident;
use super::site::Site;
use super::tally::{Sum, Tally};
use crate::summary::Summary;

/// What is said instead of a result.
const NOTHING: &str = "nothing was measured; try again on an idle machine";

/// Which appliance was measured.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The real daemon.
    Trutinad,
    /// The same control thread and worker in this process.
    InProcess,
}

/// One result; its keys are stable.
#[derive(Debug, Serialize)]
pub struct Row {
    /// None where it is about one table of any service.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<u32>,
    backends: u32,
    #[serde(flatten)]
    result: Measured,
}

#[derive(Debug, Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Measured {
    /// Milliseconds from a request to its answer: all workers use the result.
    InForce { by: By, change: Change, ms: f64, min: f64, max: f64, changes: usize },
    /// Microseconds of the turns in which an idle worker took a new snapshot; of its other turns, how many were longer
    /// than 10 µs, while changes were made and while none was.
    Gap {
        change: Change,
        #[serde(flatten)]
        turns: Turns,
        stalls: Stalls,
        quiet_stalls: Stalls,
    },
    /// Microseconds of a busy worker's burst in such turns.
    Burst {
        change: Change,
        #[serde(flatten)]
        bursts: Turns,
    },
    /// Milliseconds that a part of the work takes.
    Build { part: Part, ms: f64, min: f64, max: f64 },
    /// Milliseconds that the table of a hash scheduler takes, with equal weights or others.
    Table { scheduler: Scheduler, slots: u32, weighted: bool, ms: f64, min: f64, max: f64 },
    /// MiB of one snapshot.
    Snapshot { mib: f64 },
    /// MiB of the daemon.
    Memory { when: &'static str, rss_mib: f64, most_mib: f64 },
}

/// Turns that took a snapshot; `own` is for how long the worker had its core, in those in which nobody else had it
/// for a while, and `usual` the same of turns that took none.
#[derive(Debug, Serialize)]
struct Turns {
    us: f64,
    min: f64,
    max: f64,
    /// None if somebody else had it in all of them.
    own_us: Option<f64>,
    own_max: Option<f64>,
    usual_us: f64,
    page_faults: u64,
}

/// Gaps over 10 µs; `own` of those in which the worker had its core for longer than that.
#[derive(Debug, Serialize)]
struct Stalls {
    per_s: f64,
    own_per_s: f64,
    longest_us: f64,
    own_longest_us: f64,
}

impl Row {
    fn of(site: &Site, result: Measured) -> Self {
        Self { services: Some(site.services), backends: site.backends, result }
    }

    /// How long changes took.
    ///
    /// # Errors
    /// There was none.
    pub fn in_force(site: &Site, by: By, change: Change, times: &[f64]) -> Result<Self, String> {
        let Summary { median, min, max } = summary(times.to_vec())?;
        let (ms, min, max) = (rounded(median), rounded(min), rounded(max));
        Ok(Self::of(site, Measured::InForce { by, change, ms, min, max, changes: times.len() }))
    }

    /// How long an idle worker did not poll.
    ///
    /// # Errors
    /// Here and below: it was not seen to take a snapshot, or to take none.
    pub fn gap(site: &Site, change: Change, tally: &Tally) -> Result<Self, String> {
        let turns = Turns::of(tally, |turn| turn.gap, |turn| turn.own)?;
        let (stalls, quiet_stalls) = (Stalls::of(&tally.change), Stalls::of(&tally.quiet));
        Ok(Self::of(site, Measured::Gap { change, turns, stalls, quiet_stalls }))
    }

    /// How long a busy worker's bursts took.
    ///
    /// # Errors
    /// As above.
    pub fn burst(site: &Site, change: Change, tally: &Tally) -> Result<Self, String> {
        let bursts = Turns::of(tally, |turn| turn.burst, |turn| turn.burst)?;
        Ok(Self::of(site, Measured::Burst { change, bursts }))
    }

    /// How long a part of the work took.
    ///
    /// # Errors
    /// It was never done.
    pub fn build(site: &Site, part: Part, times: &[f64]) -> Result<Self, String> {
        let Summary { median, min, max } = summary(times.to_vec())?;
        let (ms, min, max) = (rounded(median), rounded(min), rounded(max));
        Ok(Self::of(site, Measured::Build { part, ms, min, max }))
    }

    /// How long a table took.
    ///
    /// # Errors
    /// It was never made.
    pub fn table(
        backends: u32,
        scheduler: Scheduler,
        slots: u32,
        weighted: bool,
        times: &[f64],
    ) -> Result<Self, String> {
        let Summary { median, min, max } = summary(times.to_vec())?;
        let (ms, min, max) = (rounded(median), rounded(min), rounded(max));
        let result = Measured::Table { scheduler, slots, weighted, ms, min, max };
        Ok(Self { services: None, backends, result })
    }

    /// How large a snapshot is.
    pub fn snapshot_size(site: &Site, mib: f64) -> Self {
        Self::of(site, Measured::Snapshot { mib: rounded(mib) })
    }

    /// How large the daemon is.
    pub fn memory(site: &Site, when: &'static str, resident: Resident) -> Self {
        let (rss_mib, most_mib) = (rounded(resident.now), rounded(resident.most));
        Self::of(site, Measured::Memory { when, rss_mib, most_mib })
    }

    fn text(&self) -> String {
        let what = match &self.result {
            Measured::InForce { by, change, ms, min, max, .. } => {
                format!("in force ({by:?}, {change:?}): {ms} ms ({min} to {max})")
            }
            Measured::Gap { change, turns, stalls, quiet_stalls } => format!(
                "turn that adopts ({change:?}): {turns}; others over 10 us: {stalls}; without changes: {quiet_stalls}"
            ),
            Measured::Burst { change, bursts } => format!("burst in such a turn ({change:?}): {bursts}"),
            Measured::Build { part, ms, min, max } => format!("{part:?}: {ms} ms ({min} to {max})"),
            Measured::Table { scheduler, slots, weighted, ms, min, max } => {
                let weights = if *weighted { "weights 1 to 10" } else { "equal weights" };
                format!("{scheduler}, {slots} slots, {weights}: {ms} ms ({min} to {max})")
            }
            Measured::Snapshot { mib } => format!("a snapshot: {mib} MiB"),
            Measured::Memory { when, rss_mib, most_mib } => {
                format!("trutinad, {when}: {rss_mib} MiB resident, {most_mib} at most")
            }
        };
        let services = self.services.map_or_else(String::new, |services| format!("{services:>6} services"));
        format!("{services:>15} {:>7} backends  {what}", self.backends)
    }
}

impl Turns {
    fn of(
        tally: &Tally,
        all: impl Fn(&Turn) -> Duration,
        own: impl Fn(&Turn) -> Duration,
    ) -> Result<Self, String> {
        let own = |turn: &Turn| micros(own(turn));
        let seen = |summary: Option<Summary>| summary.ok_or_else(|| NOTHING.to_owned());
        let Summary { median: us, min, max } = seen(tally.adopting(|turn| micros(all(turn))))?;
        let undisturbed = tally.undisturbed(own);
        let own_us = undisturbed.map(|summary| rounded(summary.median));
        let own_max = undisturbed.map(|summary| summary.max);
        let [us, usual_us] = [us, seen(tally.usual(own))?.median].map(rounded);
        Ok(Self { us, min, max, own_us, own_max, usual_us, page_faults: tally.faults() })
    }
}

impl fmt::Display for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { us, min, max, own_us, own_max, usual_us, page_faults } = self;
        write!(f, "{us} us ({min} to {max}), own ")?;
        match own_us.zip(*own_max) {
            Some((own_us, own_max)) => write!(f, "{own_us} (to {own_max}")?,
            None => write!(f, "unknown (never undisturbed")?,
        }
        write!(f, ", usually {usual_us}), {page_faults} page faults")
    }
}

impl Stalls {
    fn of(sum: &Sum) -> Self {
        let (per_s, own_per_s) = sum.rates();
        Self {
            per_s: rounded(per_s),
            own_per_s: rounded(own_per_s),
            longest_us: micros(sum.longest),
            own_longest_us: micros(sum.longest_own),
        }
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_s, own_per_s, longest_us, own_longest_us } = self;
        write!(f, "{per_s} a second, {own_per_s} of them own, to {longest_us}, own {own_longest_us}")
    }
}

/// Where results go.
pub struct Report {
    json: bool,
}

impl Report {
    /// Prints JSON, or text.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one result.
    pub fn line(&self, row: &Row) {
        match self.json {
            // Numbers and fixed words have no way to fail.
            true => println!("{}", serde_json::to_string(row).unwrap_or_default()),
            false => println!("{}", row.text()),
        }
    }
}

fn summary(values: Vec<f64>) -> Result<Summary, String> {
    Summary::of(values).ok_or_else(|| NOTHING.to_owned())
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_nanos() as f64 / 1e3)
}

/// To thousandths.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

//! Results as lines for people, or as JSON for programs.

use serde::Serialize;

use super::build::Part;
use super::changes::Change;
use super::memory::Resident;
use super::site::Site;
use super::tally::Tally;
use crate::summary::Summary;

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
    services: u32,
    backends: u32,
    #[serde(flatten)]
    result: Measured,
}

#[derive(Debug, Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Measured {
    /// Milliseconds from a request to its answer: all workers use the result.
    InForce { by: By, change: Change, ms: f64, min: f64, max: f64, changes: usize },
    /// Microseconds of the turns in which a worker took a new snapshot; of its other turns, how many in a second
    /// were longer than 10 µs, while changes were made and while none was.
    Gap {
        change: Change,
        us: f64,
        min: f64,
        max: f64,
        turns: usize,
        stalls_per_s: f64,
        quiet_stalls_per_s: f64,
        disturbed: u64,
    },
    /// Milliseconds that a part of the work takes.
    Build { part: Part, ms: f64, min: f64, max: f64 },
    /// MiB of one snapshot.
    Snapshot { mib: f64 },
    /// MiB of the daemon.
    Memory { when: &'static str, rss_mib: f64, most_mib: f64 },
}

impl Row {
    fn of(site: &Site, result: Measured) -> Self {
        Self { services: site.services, backends: site.backends, result }
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

    /// How long a worker did not poll.
    ///
    /// # Errors
    /// It lost its core whenever it took a snapshot, so that nothing is known.
    pub fn gap(site: &Site, change: Change, tally: Tally) -> Result<Self, String> {
        let Tally { adopting, change: sum, quiet } = tally;
        let turns = adopting.len();
        let Summary { median, min, max } = summary(adopting)?;
        let (us, min, max) = (rounded(median), rounded(min), rounded(max));
        let (stalls_per_s, quiet_stalls_per_s) = (rounded(sum.rate()), rounded(quiet.rate()));
        let disturbed = sum.disturbed + quiet.disturbed;
        Ok(Self::of(
            site,
            Measured::Gap { change, us, min, max, turns, stalls_per_s, quiet_stalls_per_s, disturbed },
        ))
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
            Measured::Gap { change, us, min, max, stalls_per_s, quiet_stalls_per_s, .. } => format!(
                "turn that adopts ({change:?}): {us} us ({min} to {max}); other gaps over 10 us: {stalls_per_s} a second, {quiet_stalls_per_s} without changes"
            ),
            Measured::Build { part, ms, min, max } => format!("{part:?}: {ms} ms ({min} to {max})"),
            Measured::Snapshot { mib } => format!("a snapshot: {mib} MiB"),
            Measured::Memory { when, rss_mib, most_mib } => {
                format!("trutinad, {when}: {rss_mib} MiB resident, {most_mib} at most")
            }
        };
        format!("{:>6} services {:>7} backends  {what}", self.services, self.backends)
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
    Summary::of(values)
        .ok_or_else(|| "nothing was measured undisturbed; try again on an idle machine".to_owned())
}

/// To thousandths.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

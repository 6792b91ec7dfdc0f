//! Results as a table for people, or as JSON for programs.

use config::words::Idle;
use serde::Serialize;

use super::generator::Measured;
use super::{Case, Program};
use crate::summary::Summary;

/// One result; its keys are stable. Times are nanoseconds, each the median of the rounds.
#[derive(Serialize)]
pub struct Row {
    program: &'static str,
    /// What its worker does while nothing comes; testpmd polls.
    idle: Idle,
    /// Percent of the capacity; none if the rate has nothing to do with it.
    load: Option<u64>,
    /// Frames a second.
    rate_pps: u64,
    p50_ns: f64,
    p99_ns: f64,
    p999_ns: f64,
    max_ns: f64,
    /// Frames of all rounds that did not come back.
    lost: u64,
    /// Share of the slices that were left out, since others had a core.
    disturbed: f64,
}

impl Row {
    /// The middle of at least one measurement.
    pub fn new(case: &Case, results: &[Measured]) -> Self {
        let median = |of: fn(&Measured) -> u64| {
            Summary::of(results.iter().map(|result| of(result) as f64).collect())
                .map_or(0.0, |all| all.median)
        };
        let (program, idle) = match case.program {
            Program::Testpmd => ("testpmd", Idle::Poll),
            Program::Trutinad(idle) => ("trutinad", idle),
        };
        Self {
            program,
            idle,
            load: case.load,
            rate_pps: case.rate_pps,
            p50_ns: median(|result| result.p50_ns),
            p99_ns: median(|result| result.p99_ns),
            p999_ns: median(|result| result.p999_ns),
            max_ns: median(|result| result.max_ns),
            disturbed: results.iter().map(|result| result.disturbed).sum::<f64>() / results.len() as f64,
            lost: results.iter().map(|result| result.sent - result.received).sum(),
        }
    }
}

/// Where results go.
pub struct Report {
    json: bool,
}

impl Report {
    /// Prints what stands above the results: `capacity_pps` is the rate of which loads are percents.
    pub fn begin(json: bool, capacity_pps: f64) -> Self {
        if !json {
            println!(
                "capacity, limited by generator or appliance: {:.2} Mpps; times in µs",
                capacity_pps / 1e6
            );
            println!(
                "program   idle   load %       pps      p50      p99    p99.9       max   added p50   lost   left out"
            );
        }
        Self { json }
    }

    /// Prints one result, and what it adds to the `floor`.
    pub fn line(&self, row: &Row, floor: &Row) {
        let added = row.p50_ns - floor.p50_ns;
        if self.json {
            let mut line = serde_json::to_value(row).unwrap_or_default();
            line["added_p50_ns"] = added.into();
            println!("{line}");
            return;
        }
        let Row { program, idle, rate_pps, lost, disturbed, .. } = row;
        let load = row.load.map_or_else(|| "-".to_owned(), |load| load.to_string());
        let [p50, p99, p999, max, added] =
            [row.p50_ns, row.p99_ns, row.p999_ns, row.max_ns, added].map(|ns| ns / 1e3);
        println!(
            "{program:8}  {idle:5}  {load:>6} {rate_pps:>9} {p50:>8.2} {p99:>8.2} {p999:>8.2} {max:>9.1} {added:>11.2} {lost:>6} {disturbed:>10.2}"
        );
    }
}

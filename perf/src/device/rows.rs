//! Results as a table for people, or as JSON for programs.

use serde::Serialize;

use super::generator::PLENTY;
use super::{Device, Measured, Program};
use crate::pipeline::family::Family;
use crate::pipeline::traffic::wire_len;
use crate::summary::Summary;

/// One result; its keys are stable.
#[derive(Serialize)]
pub struct Row {
    device: Device,
    program: &'static str,
    /// `macswap` for testpmd.
    mode: String,
    flows: u32,
    /// Bytes of each frame on the wire.
    frame: usize,
    /// 2 if replies come, too.
    directions: u8,
    rounds: usize,
    /// CPU time of the worker; median of the rounds.
    ns_per_packet: f64,
    min: f64,
    max: f64,
    /// Million packets in a CPU second of the worker, at the median.
    mpps: f64,
    /// Of testpmd's rate in the same round, with the same frames; median of the rounds.
    share: f64,
    share_min: f64,
    share_max: f64,
    /// Whether testpmd may have waited for frames: it would be faster, and the shares smaller.
    share_at_most: bool,
    /// Share of the frames offered that found no room; the least of the rounds. None if a driver makes frames.
    surplus: Option<f64>,
}

/// Where results go.
pub struct Report {
    json: bool,
}

impl Report {
    /// Prints what stands above the results.
    pub fn begin(json: bool) -> Self {
        if !json {
            println!(
                "device  program   mode        flows  ways  ns/packet     min     max   Mpps  share   min   max  surplus"
            );
        }
        Self { json }
    }

    /// Prints one result.
    pub fn line(&self, row: &Row) {
        println!("{}", if self.json { row.json() } else { row.text() });
    }
}

impl Row {
    /// The result of one program's rounds, one at least, beside testpmd's.
    pub fn new(
        device: Device,
        program: Program,
        flows: u32,
        rounds: &[Measured],
        testpmd: &[Measured],
    ) -> Self {
        let shares = testpmd.iter().zip(rounds).map(|(theirs, ours)| theirs.ns / ours.ns).collect();
        let nothing = Summary { median: 0.0, min: 0.0, max: 0.0 };
        let ns = Summary::of(rounds.iter().map(|round| round.ns).collect()).unwrap_or(nothing);
        let least = |rounds: &[Measured]| rounds.iter().filter_map(|round| round.surplus).reduce(f64::min);
        let share = Summary::of(shares).unwrap_or(nothing);
        let (name, mode) = match program {
            Program::Testpmd { .. } => ("testpmd", "macswap".to_owned()),
            Program::Trutinad(mode) => ("trutinad", mode.to_string()),
        };
        Self {
            device,
            program: name,
            mode,
            flows,
            frame: wire_len(Family::Ipv4, 64),
            directions: if program.sees_replies() { 2 } else { 1 },
            rounds: rounds.len(),
            ns_per_packet: rounded(ns.median),
            min: rounded(ns.min),
            max: rounded(ns.max),
            mpps: rounded(1000.0 / ns.median),
            share: rounded(share.median),
            share_min: rounded(share.min),
            share_max: rounded(share.max),
            share_at_most: program != program.yardstick()
                && least(testpmd).is_some_and(|surplus| surplus < PLENTY),
            surplus: least(rounds).map(rounded),
        }
    }

    fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    fn text(&self) -> String {
        let device = format!("{:?}", self.device).to_lowercase();
        let Self { program, mode, flows, directions, ns_per_packet, min, max, mpps, .. } = self;
        let Self { share, share_min, share_max, .. } = self;
        let share = format!("{}{share:.2}", if self.share_at_most { "<" } else { "" });
        let surplus = self.surplus.map_or_else(|| "-".to_owned(), |surplus| format!("{surplus:.2}"));
        format!(
            "{device:<6}  {program:<8}  {mode:<8}  {flows:>7}  {directions:>4}  {ns_per_packet:>9.1}  {min:>6.1}  \
             {max:>6.1}  {mpps:>5.1}  {share:>5}  {share_min:>4.2}  {share_max:>4.2}  {surplus:>7}"
        )
    }
}

/// To two places; the rest is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::words::Mode;

    #[test]
    fn a_result_has_its_stable_keys_and_its_share_is_taken_in_each_round() {
        let rounds = |ns: [f64; 3]| ns.map(|ns| Measured { ns, surplus: Some(ns / 400.0) });
        let (ours, testpmd) = (rounds([40.0, 50.0, 100.0]), rounds([20.0, 20.0, 80.0]));
        let row = Row::new(Device::Memif, Program::Trutinad(Mode::Nat), 10_000, &ours, &testpmd);
        let json: serde_json::Value = serde_json::from_str(&row.json()).unwrap();
        let expected = serde_json::json!({
            "device": "memif", "program": "trutinad", "mode": "nat", "flows": 10_000, "frame": 64, "directions": 2,
            "rounds": 3, "ns_per_packet": 50.0, "min": 40.0, "max": 100.0, "mpps": 20.0,
            "share": 0.5, "share_min": 0.4, "share_max": 0.8,
            "share_at_most": true, "surplus": 0.1
        });
        assert_eq!(json, expected);
        assert!(row.text().contains(" <0.50 "), "{}", row.text());
        assert!(row.text().starts_with("memif   trutinad  nat         10000     2       50.0"));
    }
}

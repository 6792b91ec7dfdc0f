//! Results as a table for people, or as JSON for programs.

use config::words::Mode;
use serde::Serialize;

use super::family::Family;
use super::path::Event;
use super::traffic::wire_len;
use super::world::Shape;
use crate::summary::Summary;

/// One result; its keys are stable.
#[derive(Serialize)]
struct Row {
    mode: Mode,
    family: Family,
    flows: u32,
    /// Bytes of each frame on the wire.
    frame: usize,
    event: Event,
    services: u16,
    /// Of all services together.
    backends: u32,
    /// Median of the repeats.
    ns_per_packet: f64,
    min: f64,
    max: f64,
    /// At the median, by the clock of the core when the case was over.
    cycles_per_packet: f64,
    /// Million packets per second at the median.
    mpps: f64,
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
                "mode      family  event       flows  frame  services  backends  ns/packet     min     max  cycles   Mpps"
            );
        }
        Self { json }
    }

    /// Prints one result.
    pub fn line(&self, shape: &Shape, event: Event, ns: Summary, cycles_per_ns: f64) {
        let row = Row {
            mode: shape.mode,
            family: shape.family,
            flows: shape.flows,
            frame: wire_len(shape.family),
            event,
            services: shape.services,
            backends: shape.backends(),
            ns_per_packet: rounded(ns.median),
            min: rounded(ns.min),
            max: rounded(ns.max),
            cycles_per_packet: rounded(ns.median * cycles_per_ns),
            mpps: rounded(1000.0 / ns.median),
        };
        println!("{}", if self.json { row.json() } else { row.text() });
    }
}

impl Row {
    fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    fn text(&self) -> String {
        let event = format!("{:?}", self.event).to_lowercase();
        let Self { mode, family, flows, frame, services, backends, .. } = self;
        let Self { ns_per_packet, min, max, cycles_per_packet, mpps, .. } = self;
        format!(
            "{mode:<8}  {family:<6}  {event:<7}  {flows:>8}  {frame:>5}  {services:>8}  {backends:>8}  \
             {ns_per_packet:>9.1}  {min:>6.1}  {max:>6.1}  {cycles_per_packet:>6.0}  {mpps:>5.1}"
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

    #[test]
    fn a_result_has_its_stable_keys() {
        let row = Row {
            mode: Mode::Nat,
            family: Family::Ipv4,
            flows: 10_000,
            frame: 64,
            event: Event::Hit,
            services: 8,
            backends: 64,
            ns_per_packet: rounded(20.123),
            min: 19.0,
            max: 30.0,
            cycles_per_packet: 60.0,
            mpps: rounded(1000.0 / 20.123),
        };
        let json: serde_json::Value = serde_json::from_str(&row.json()).unwrap();
        let expected = serde_json::json!({
            "mode": "nat", "family": "ipv4", "flows": 10_000, "frame": 64, "event": "hit", "services": 8,
            "backends": 64, "ns_per_packet": 20.12, "min": 19.0, "max": 30.0, "cycles_per_packet": 60.0, "mpps": 49.69
        });
        assert_eq!(json, expected);
        assert!(row.text().starts_with("nat       ipv4    hit         10000     64"));
    }
}

//! Results as a table for people, or as JSON for programs.

use config::words::{Mode, Scheduler};
use serde::Serialize;

use super::counted;
use super::draw::Draw;
use super::event::{Event, Measured};
use super::family::Family;
use super::traffic::wire_len;
use super::world::{Fill, Shape};

/// One result; its keys are stable.
#[derive(Serialize)]
struct Row {
    mode: Mode,
    family: Family,
    /// That the table is rated for.
    flows: u32,
    /// Bytes of each frame on the wire.
    frame: usize,
    event: Event,
    services: u16,
    /// Services that packets were for.
    busy: u16,
    /// Of all services together.
    backends: u32,
    /// The largest one.
    weights: u32,
    scheduler: Scheduler,
    vips: u16,
    routes: u16,
    /// Of which one is measured.
    workers: u16,
    draw: Draw,
    /// Flows in the table as a multiple of `flows`.
    fill: Fill,
    /// Median of the repeats.
    ns_per_packet: f64,
    min: f64,
    max: f64,
    /// At the median, by the clock of the core when the case was over.
    cycles_per_packet: f64,
    /// Million packets per second at the median.
    mpps: f64,
    /// Packets that were timed.
    packets: u64,
    /// Share of packets for whose flows there was no place.
    refused: f64,
    /// As counted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions_per_packet: Option<u32>,
    /// Median of the same packets while nothing happens to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    undisturbed_ns_per_packet: Option<f64>,
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
                "mode      family  event       flows  frame  services  backends  \
                 scheduler        routes  draw     fill  ns/packet     min     max  cycles   Mpps  instructions"
            );
        }
        Self { json }
    }

    /// Prints one result.
    pub fn line(&self, shape: &Shape, event: Event, measured: &Measured, cycles_per_ns: f64) {
        let row = Row::new(shape, event, measured, cycles_per_ns);
        println!("{}", if self.json { row.json() } else { row.text() });
    }
}

impl Row {
    fn new(shape: &Shape, event: Event, measured: &Measured, cycles_per_ns: f64) -> Self {
        let ns = measured.ns;
        Self {
            mode: shape.mode,
            family: shape.family,
            flows: shape.flows,
            frame: wire_len(shape.family, shape.frame),
            event,
            services: shape.services,
            busy: shape.busy,
            backends: shape.backends(),
            weights: shape.weights,
            scheduler: shape.scheduler,
            vips: shape.vips,
            routes: shape.routes,
            workers: shape.workers,
            draw: shape.draw,
            fill: shape.fill,
            ns_per_packet: rounded(ns.median),
            min: rounded(ns.min),
            max: rounded(ns.max),
            cycles_per_packet: rounded(ns.median * cycles_per_ns),
            mpps: rounded(1000.0 / ns.median),
            packets: measured.packets,
            refused: measured.refused,
            instructions_per_packet: counted::instructions(shape, event),
            undisturbed_ns_per_packet: measured.undisturbed.map(|ns| rounded(ns.median)),
        }
    }

    fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    fn text(&self) -> String {
        let Self { mode, family, event, flows, frame, services, backends, .. } = self;
        let Self { scheduler, routes, fill, ns_per_packet, min, max, .. } = self;
        let Self { cycles_per_packet, mpps, refused, .. } = self;
        let draw = format!("{:?}", self.draw).to_lowercase();
        let instructions = self.instructions_per_packet.map(|count| count.to_string()).unwrap_or_default();
        let mut line = format!(
            "{mode:<8}  {family:<6}  {event:<7}  {flows:>8}  {frame:>5}  {services:>8}  {backends:>8}  \
             {scheduler:<15}  {routes:>6}  {draw:<7}  {:>4}  {ns_per_packet:>9.1}  {min:>6.1}  {max:>6.1}  \
             {cycles_per_packet:>6.0}  {mpps:>5.1}  {instructions:>12}",
            fill.0
        );
        if let Some(undisturbed) = self.undisturbed_ns_per_packet {
            line += &format!("  {undisturbed:.1} while they live");
        }
        if self.weights > 1 {
            line += &format!("  weights up to {}", self.weights);
        }
        if self.busy < self.services {
            line += &format!("  all for {} of the services", self.busy);
        }
        if self.workers > 1 {
            line += &format!("  one of {} workers", self.workers);
        }
        if *refused > 0.0 {
            line += &format!("  {:.3} % of the flows refused", refused * 100.0);
        }
        line
    }
}

/// To two places; the rest is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Summary;

    const SHAPE: Shape = Shape {
        mode: Mode::Nat,
        family: Family::Ipv4,
        flows: 10_000,
        services: 3,
        busy: 3,
        each: 7,
        weights: 1,
        scheduler: Scheduler::Wlc,
        vips: 1,
        routes: 2,
        frame: 64,
        fill: Fill::RATED,
        draw: Draw::Uniform,
        workers: 1,
    };

    #[test]
    fn a_result_has_its_stable_keys() {
        let ns = Summary { median: 20.123, min: 19.0, max: 30.0 };
        let measured = Measured { ns, undisturbed: None, packets: 4096, refused: 0.0 };
        let row = Row::new(&SHAPE, Event::Hit, &measured, 3.0);
        let json: serde_json::Value = serde_json::from_str(&row.json()).unwrap();
        let expected = serde_json::json!({
            "mode": "nat", "family": "ipv4", "flows": 10_000, "frame": 64, "event": "hit", "services": 3,
            "busy": 3, "backends": 21, "weights": 1, "scheduler": "wlc", "vips": 1, "routes": 2, "workers": 1,
            "draw": "uniform", "fill": 1.0,
            "ns_per_packet": 20.12, "min": 19.0, "max": 30.0, "cycles_per_packet": 60.37, "mpps": 49.69,
            "packets": 4096, "refused": 0.0
        });
        assert_eq!(json, expected);
        assert!(row.text().starts_with("nat       ipv4    hit         10000     64"));
    }

    #[test]
    fn what_is_known_only_of_some_cases_is_told_of_them() {
        let ns = Summary { median: 20.0, min: 19.0, max: 30.0 };
        let measured = Measured { ns, undisturbed: Some(ns), packets: 4096, refused: 0.25 };
        let shape = Shape { services: 8, busy: 8, each: 8, scheduler: Scheduler::Wrr, vips: 250, ..SHAPE };
        let row = Row::new(&shape, Event::Hit, &measured, 3.0);
        assert!(row.instructions_per_packet.is_some_and(|count| count > 50));
        assert_eq!(Row::new(&SHAPE, Event::Hit, &measured, 3.0).instructions_per_packet, None);
        assert!(row.text().ends_with("  20.0 while they live  25.000 % of the flows refused"));
        assert!(row.json().contains(r#""undisturbed_ns_per_packet":20.0"#));
    }
}

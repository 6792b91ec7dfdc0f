//! The packet path alone, without devices.
//!
//! [`path`] times the packet path that workers run ([`dataplane::forward::Forwarder`]) in a small
//! [`world`], on frames in a [`pool`] that [`traffic`] writes. An [`event`] brings about what packets meet, which
//! are [`draw`]n from all flows or from those that are [`known`]; [`pick`] times the choice of a backend by itself.
//! [`report`] prints, with the instructions that were [`counted`].

mod counted;
mod draw;
mod event;
pub mod family;
mod known;
mod path;
mod pick;
mod pool;
mod report;
pub mod traffic;
mod world;

use config::words::{Mode, Scheduler, WordError};

use crate::cycles;
use draw::Draw;
use event::{Event, Plan, measure};
use family::Family;
use pool::{FRAMES, Pool};
use report::Report;
use world::{Fill, Shape, World};

/// What is measured, and how the results are printed. All that have several values are combined.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer repeats: a rough answer in less than a minute
    #[arg(long)]
    quick: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How packets reach their backends
    #[arg(long, value_delimiter = ',', default_values_t = MODES)]
    mode: Vec<Mode>,
    /// IP version of all packets
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Family::Ipv4, Family::Ipv6])]
    family: Vec<Family>,
    /// What packets meet: their flow, a service only, a flow that is over, or nothing; exhausted: a service whose
    /// full NAT has no port left; sweep: their flow, while others end; pick: no packet, but the choice of a backend
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = EVENTS)]
    event: Vec<Event>,
    /// Flows, for which the table is rated; k and M may follow the number
    #[arg(long, value_parser = flows, value_delimiter = ',', default_value = "1,10k,1M")]
    flows: Vec<u32>,
    /// How packets are spread over flows
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Draw::Uniform])]
    draw: Vec<Draw>,
    /// How full the table is: a multiple of the flows that it is rated for, from 0.1 to 1.8, or full of a flood
    #[arg(long, value_parser = fill, value_delimiter = ',', default_value = "1")]
    fill: Vec<Fill>,
    /// Bytes of a frame on the wire; 64 is as short as its headers let it be
    #[arg(long, value_delimiter = ',', default_value = "64", value_parser = clap::value_parser!(u16).range(64..=1518))]
    frame: Vec<u16>,
    /// Services
    #[arg(long, value_delimiter = ',', default_value = "8", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    services: Vec<u16>,
    /// Services that packets are for, the first ones; all, if that is more
    #[arg(long, value_delimiter = ',', default_value = "10000", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    busy: Vec<u16>,
    /// VIPs that services share by their ports
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..=250))]
    vips: u16,
    /// Backends of each service
    #[arg(long, value_delimiter = ',', default_value = "8", value_parser = clap::value_parser!(u16).range(1..=1000))]
    backends: Vec<u16>,
    /// The largest weight of a backend; the others have any from 1 on
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    weights: Vec<u32>,
    /// How services choose a backend; all: in every way that there is
    #[arg(long, value_parser = schedulers, value_delimiter = ',', default_value = "wrr")]
    scheduler: Vec<Vec<Scheduler>>,
    /// Routes, between which the clients are divided
    #[arg(long, value_delimiter = ',', default_value = "2", value_parser = clap::value_parser!(u16).range(2..=500))]
    routes: Vec<u16>,
    /// Workers, of which the first is measured: all packets are of its flows
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Vec<u16>,
}

const MODES: [Mode; 4] = [Mode::Dr, Mode::Tunnel, Mode::Nat, Mode::FullNat];
const EVENTS: [Event; 5] = [Event::Hit, Event::New, Event::Expired, Event::None, Event::Exhausted];

/// Reads a number of flows such as `10k`.
pub fn flows(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1_000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let count = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    count
        .filter(|count| (1..=traffic::MAX_FLOWS).contains(count))
        .ok_or_else(|| format!("a number from 1 to {}M is wanted", traffic::MAX_FLOWS / 1_000_000))
}

/// Reads a scheduler, or all of them.
fn schedulers(text: &str) -> Result<Vec<Scheduler>, WordError> {
    let words = if text == "all" { Scheduler::WORDS } else { &[text] };
    words.iter().map(|word| word.parse()).collect()
}

/// Reads how full a table is.
fn fill(text: &str) -> Result<Fill, String> {
    let times = text.parse().ok().filter(|times| (0.1..=1.8).contains(times));
    let fill = if text == "full" { Some(Fill::FULL) } else { times.map(Fill) };
    fill.ok_or_else(|| "a number from 0.1 to 1.8, or full, is wanted".to_owned())
}

/// Measures all cases that were asked for.
///
/// # Errors
/// A sentence that says which packets did not go where their case sends them.
pub fn run(args: &Args) -> Result<(), String> {
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    let shapes = args.shapes();
    shapes.iter().try_for_each(Shape::check)?;
    let report = Report::begin(args.json);
    let pool = Pool::new(FRAMES);
    for shape in shapes {
        for event in args.event.iter().filter(|event| event.makes_sense(&shape)) {
            let measured = measure(&World::new(shape), *event, &plan, &pool)?;
            report.line(&shape, *event, &measured, cycles::per_ns());
        }
    }
    Ok(())
}

impl Args {
    /// All combinations, the last options first.
    fn shapes(&self) -> Vec<Shape> {
        let first = Shape {
            mode: Mode::Dr,
            family: Family::Ipv4,
            flows: 1,
            services: 1,
            busy: 1,
            each: 1,
            weights: 1,
            scheduler: Scheduler::Wrr,
            vips: self.vips,
            routes: 2,
            frame: 64,
            fill: Fill::RATED,
            draw: Draw::Uniform,
            workers: 1,
        };
        let shapes = vec![first];
        let shapes = varied(shapes, &self.mode, |shape, mode| Shape { mode, ..shape });
        let shapes = varied(shapes, &self.family, |shape, family| Shape { family, ..shape });
        let shapes = varied(shapes, &self.flows, |shape, flows| Shape { flows, ..shape });
        let shapes = varied(shapes, &self.draw, |shape, draw| Shape { draw, ..shape });
        let shapes = varied(shapes, &self.fill, |shape, fill| Shape { fill, ..shape });
        let shapes = varied(shapes, &self.frame, |shape, frame| Shape { frame, ..shape });
        let shapes = varied(shapes, &self.services, |shape, services| Shape { services, ..shape });
        let mut shapes =
            varied(shapes, &self.busy, |shape, busy| Shape { busy: busy.min(shape.services), ..shape });
        shapes.dedup();
        let shapes = varied(shapes, &self.backends, |shape, each| Shape { each, ..shape });
        let shapes = varied(shapes, &self.weights, |shape, weights| Shape { weights, ..shape });
        let schedulers = self.scheduler.concat();
        let shapes = varied(shapes, &schedulers, |shape, scheduler| Shape { scheduler, ..shape });
        let shapes = varied(shapes, &self.routes, |shape, routes| Shape { routes, ..shape });
        varied(shapes, &self.workers, |shape, workers| Shape { workers, ..shape })
    }
}

/// Each of the shapes with each of the values.
fn varied<V: Copy>(shapes: Vec<Shape>, values: &[V], with: impl Fn(Shape, V) -> Shape) -> Vec<Shape> {
    shapes
        .into_iter()
        .flat_map(|shape| values.iter().map(|value| with(shape, *value)).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_flows_have_units_and_bounds() {
        assert_eq!([flows("1"), flows("10k"), flows("1M")], [Ok(1), Ok(10_000), Ok(1_000_000)]);
        for text in ["", "0", "k", "-1", "1G", "17M", "5000000k"] {
            assert!(flows(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_scheduler_is_named_or_all_are_meant() {
        assert_eq!(schedulers("wlc"), Ok(vec![Scheduler::Wlc]));
        assert_eq!(schedulers("all").unwrap().len(), Scheduler::WORDS.len());
        assert!(schedulers("").is_err());
    }

    #[test]
    fn tables_are_full_to_an_extent_or_quite() {
        assert_eq!([fill("1"), fill("1.5"), fill("full")], [Ok(Fill::RATED), Ok(Fill(1.5)), Ok(Fill::FULL)]);
        for text in ["", "0", "2", "NaN", "-1", "inf", "Full"] {
            assert!(fill(text).is_err(), "{text}");
        }
    }
}

//! The packet path alone, without devices.
//!
//! [`path`] times the packet path that workers run ([`dataplane::forward::Forwarder`]) in a small
//! [`world`], on frames in a [`pool`] that [`traffic`] writes; [`report`] prints.

pub mod family;
mod path;
mod pool;
mod report;
pub mod traffic;
mod world;

use config::words::Mode;

use crate::cycles;
use family::Family;
use path::{Event, Plan};
use pool::{FRAMES, Pool};
use report::Report;
use world::{Shape, World};

/// What is measured, and how the results are printed.
#[derive(clap::Args)]
pub struct Args {
    /// Fewer repeats: a rough answer within seconds
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
    /// What packets meet: their flow, a service only, a flow that is over, or nothing
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = EVENTS)]
    event: Vec<Event>,
    /// Flows, for which the table is rated; k and M may follow the number
    #[arg(long, value_parser = flows, value_delimiter = ',', default_value = "1,10k,1M")]
    flows: Vec<u32>,
    /// Services
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    services: u16,
    /// Backends of each service
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    backends: u16,
}

const MODES: [Mode; 4] = [Mode::Dr, Mode::Tunnel, Mode::Nat, Mode::FullNat];
const EVENTS: [Event; 4] = [Event::Hit, Event::New, Event::Expired, Event::None];

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

/// Measures all cases that were asked for.
///
/// # Errors
/// A sentence that says which packets did not go where their case sends them.
pub fn run(args: &Args) -> Result<(), String> {
    let plan = if args.quick { Plan::QUICK } else { Plan::FULL };
    let report = Report::begin(args.json);
    let pool = Pool::new(FRAMES);
    let kinds = args.mode.iter().flat_map(|mode| args.family.iter().map(|family| (*mode, *family)));
    for (mode, family) in kinds {
        for (event, flows) in
            args.event.iter().flat_map(|event| args.flows.iter().map(|flows| (*event, *flows)))
        {
            let shape = Shape { mode, family, flows, services: args.services, each: args.backends };
            if event.makes_sense(flows) {
                let ns = path::measure(&World::new(shape), event, &plan, &pool)?;
                report.line(&shape, event, ns, cycles::per_ns());
            }
        }
    }
    Ok(())
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
}

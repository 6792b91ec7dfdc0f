//! What packets meet on their way, and how that is brought about so that it can be timed.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use clap::ValueEnum;
use config::words::Mode;
use dataplane::clock::Seconds;
use dataplane::wire::tcp::SYN;
use serde::Serialize;

use super::draw::Flows;
use super::known::Known;
use super::path::{Fate, Path, Tally, Tell, from_client};
use super::pick;
use super::pool::{FRAMES, Pool};
use super::traffic::Segment;
use super::world::{Fill, Shape, World};
use crate::rng::Rng;
use crate::summary::Summary;

/// Longer than any flow lives without packets.
const LONG: Seconds = 3600;
/// As long as flows live without packets, or a little less; twice that is more.
const LIFE: Seconds = 800;

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Its flow
    Hit,
    /// Its service, which makes a flow
    New,
    /// A flow that is over, and its service, which makes another
    Expired,
    /// No service
    None,
    /// Its flow, while as many others expire and are swept out
    Sweep,
    /// Its service, whose backends know clients by addresses that have no port left; full NAT only
    Exhausted,
    /// No packet: its service's choice of a backend alone
    Pick,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hit => "hit",
            Self::New => "new",
            Self::Expired => "expired",
            Self::None => "none",
            Self::Sweep => "sweep",
            Self::Exhausted => "exhausted",
            Self::Pick => "pick",
        })
    }
}

impl Event {
    /// Whether there is something to be timed: a flow begins and ends only once in each table.
    pub fn makes_sense(self, shape: &Shape) -> bool {
        let many = shape.flows as usize >= FRAMES;
        match self {
            Self::Hit | Self::None | Self::Pick => true,
            Self::Exhausted => shape.mode == Mode::FullNat,
            Self::New => many,
            Self::Expired | Self::Sweep => many && shape.fill <= Fill::RATED,
        }
    }
}

/// How thorough to be. A repeat is one fill of the pool, or what is left for the last one: short enough for
/// most repeats to run undisturbed on a machine that others use too.
pub struct Plan {
    /// Repeats, of which the median counts.
    repeats: usize,
    /// The same for flows that begin: at least so many, by as many tables as that takes.
    openings: usize,
}

impl Plan {
    /// For figures that are written down.
    pub const FULL: Self = Self { repeats: 2001, openings: 401 };
    /// For a first look.
    pub const QUICK: Self = Self { repeats: 201, openings: 41 };
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Nanoseconds per packet.
    pub ns: Summary,
    /// The same of the same packets while nothing happens to others.
    pub undisturbed: Option<Summary>,
    /// Packets that were timed.
    pub packets: u64,
    /// Share of them for whose flows there was no place.
    pub refused: f64,
}

impl Measured {
    fn new(Tally { ns, packets, refused }: Tally) -> Result<Self, String> {
        let ns = Summary::of(ns).ok_or("nothing was measured")?;
        Ok(Self { ns, undisturbed: None, packets, refused: refused as f64 / packets as f64 })
    }
}

/// Times packets that meet an event.
///
/// # Errors
/// A sentence that says which packets did not go where the case sends them.
pub fn measure(world: &World, event: Event, plan: &Plan, pool: &Pool) -> Result<Measured, String> {
    match event {
        Event::Hit => Measured::new(hits(world, plan, pool)?),
        Event::New => Measured::new(stored(world, openings(world, plan, pool)?)?),
        Event::Expired => Measured::new(stored(world, reopenings(world, plan, pool)?)?),
        Event::None => Measured::new(strangers(world, plan, pool)?),
        Event::Exhausted => Measured::new(newcomers(world, plan, pool)?),
        Event::Pick => Measured::new(pick::choices(world, plan.repeats)?),
        Event::Sweep => {
            let (while_swept, undisturbed) = sweeping(world, plan, pool)?;
            let undisturbed = Some(Measured::new(undisturbed)?.ns);
            Ok(Measured { undisturbed, ..Measured::new(while_swept)? })
        }
    }
}

/// What was timed of flows that begin, of which a table has place for all that it is rated for, but for one of ten
/// thousand and one more by chance.
fn stored(world: &World, tally: Tally) -> Result<Tally, String> {
    let Tally { packets, refused, .. } = tally;
    if world.shape.fill <= Fill::RATED && refused * 10_000 > packets + 10_000 {
        return Err(format!("{refused} of {packets} flows found no place in a table of their size"));
    }
    Ok(tally)
}

/// Packets of flows that are in the table, in random order. Where the balancer sees replies, half are such.
fn hits(world: &World, plan: &Plan, pool: &Pool) -> Result<Tally, String> {
    let shape = &world.shape;
    let mut path = Path::new(world, pool);
    path.establish(shape.live())?;
    if shape.fill == Fill::FULL {
        path.open(flood(shape), Tell::Nothing)?;
    }
    let mut known = Known::new(&path, shape.live());
    path.repeat(plan.repeats, || known.next(), Fate::Sent)?;
    Ok(path.tally)
}

/// Flows that fill all places of a table that has as many as it is rated for: more than it has places.
fn flood(shape: &Shape) -> Range<u32> {
    shape.flows..3 * shape.flows
}

/// Packets from all clients to a port without service.
fn strangers(world: &World, plan: &Plan, pool: &Pool) -> Result<Tally, String> {
    let Shape { draw, frame, .. } = world.shape;
    let mut flows = Flows::new(draw, world.shape.live(), Rng::new(2));
    let random = || {
        let flow = flows.next();
        let dst = SocketAddr::new(world.vip_of(flow).ip(), 9);
        Segment { src: world.client_of(flow), dst, flags: SYN, frame }
    };
    let mut path = Path::new(world, pool);
    path.repeat(plan.repeats, random, Fate::Dropped)?;
    Ok(path.tally)
}

/// First packets, over and over, of as many flows as there are in the table, none of which gets a local port.
fn newcomers(world: &World, plan: &Plan, pool: &Pool) -> Result<Tally, String> {
    let Shape { draw, .. } = world.shape;
    let live = world.shape.live();
    let mut path = Path::new(world, pool);
    path.establish(live)?;
    path.exhaust();
    let mut flows = Flows::new(draw, live, Rng::new(2));
    path.repeat(plan.repeats, || from_client(world, live + flows.next(), SYN), Fate::Dropped)?;
    Ok(path.tally)
}

/// The first packets of flows: of the last ones before a table is as full as it shall be, a tenth of what it is
/// rated for.
fn openings(world: &World, plan: &Plan, pool: &Pool) -> Result<Tally, String> {
    let shape = &world.shape;
    let tenth = shape.flows / 10;
    let mut tally = Tally::default();
    while tally.ns.len() < plan.openings {
        let mut path = Path::new(world, pool);
        let first = if shape.fill == Fill::FULL {
            path.establish(shape.flows)?;
            path.open(flood(shape), Tell::Nothing)?;
            flood(shape).end
        } else {
            path.establish(shape.live() - tenth)?;
            shape.live() - tenth
        };
        path.open(first..first + tenth, Tell::Time)?;
        tally.add(path.tally);
    }
    Ok(tally)
}

/// The first packets of flows, where all were before, and are over but still in the table.
fn reopenings(world: &World, plan: &Plan, pool: &Pool) -> Result<Tally, String> {
    let live = world.shape.live();
    let mut path = Path::new(world, pool);
    path.establish(live)?;
    while path.tally.ns.len() < plan.openings {
        path.now += LONG;
        path.open(0..live, Tell::Time)?;
    }
    Ok(path.tally)
}

/// Packets of flows that are in the table with as many others, which have expired, and the same while these live,
/// so that tables are as full. Both are timed with all housekeeping, in turns.
fn sweeping(world: &World, plan: &Plan, pool: &Pool) -> Result<(Tally, Tally), String> {
    let live = world.shape.live() / 2;
    let half_idle = || {
        let mut path = Path::new(world, pool);
        path.establish(2 * live)?;
        path.now += LIFE;
        path.acknowledge(live)?;
        Ok::<_, String>(path)
    };
    let (mut swept, mut calm) = (half_idle()?, half_idle()?);
    swept.now += LIFE;
    // The others live on, and their packets are not the first ones of a second, which calm ones are not, either.
    swept.acknowledge(live)?;
    let (mut of_swept, mut of_calm) = (Known::new(&swept, live), Known::new(&calm, live));
    // No longer than there are flows to be swept out.
    for _ in 0..plan.repeats.min(swept.sweeps()) {
        swept.turns(|| of_swept.next())?;
        calm.turns(|| of_calm.next())?;
    }
    Ok((swept.tally, calm.tally))
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::words::Scheduler;

    use crate::pipeline::draw::Draw;
    use crate::pipeline::family::Family;

    /// As few packets as there can be.
    const PLAN: Plan = Plan { repeats: 2, openings: 1 };

    const SHAPE: Shape = Shape {
        mode: Mode::Dr,
        family: Family::Ipv4,
        flows: FRAMES as u32,
        services: 3,
        busy: 3,
        each: 4,
        weights: 1,
        scheduler: Scheduler::Wrr,
        vips: 2,
        routes: 9,
        frame: 512,
        fill: Fill::RATED,
        draw: Draw::Zipf,
        workers: 1,
    };

    fn measured(event: Event, mode: Mode, fill: Fill) -> [Measured; 2] {
        measured_in(Shape { mode, fill, ..SHAPE }, event)
    }

    fn measured_in(shape: Shape, event: Event) -> [Measured; 2] {
        let pool = Pool::new(FRAMES);
        [Family::Ipv4, Family::Ipv6].map(|family| {
            let world = World::new(Shape { family, ..shape });
            measure(&world, event, &PLAN, &pool).unwrap()
        })
    }

    #[test]
    fn every_scheduler_is_measured() {
        for scheduler in Scheduler::WORDS.iter().map(|word| word.parse().unwrap()) {
            let shape = Shape { scheduler, ..SHAPE };
            let picks = measured_in(shape, Event::Pick).map(|measured| measured.packets);
            assert_eq!(picks, [2 * 512; 2], "{scheduler}");
            let refused = measured_in(shape, Event::New).map(|measured| measured.refused);
            assert_eq!(refused, [0.0; 2], "{scheduler}");
        }
    }

    #[test]
    fn every_event_happens_in_every_mode() {
        for mode in [Mode::Dr, Mode::Tunnel, Mode::Nat, Mode::FullNat] {
            for event in [Event::Hit, Event::None, Event::New, Event::Expired, Event::Sweep] {
                let refused = measured(event, mode, Fill::RATED).map(|measured| measured.refused);
                assert_eq!(refused, [0.0; 2], "{mode} {event}");
            }
        }
    }

    #[test]
    fn newcomers_are_dropped_when_full_nat_has_no_port_left() {
        let both = measured(Event::Exhausted, Mode::FullNat, Fill::RATED);
        assert!(both.iter().all(|measured| measured.packets == 2 * FRAMES as u64 && measured.refused == 0.0));
    }

    #[test]
    fn flows_pass_through_a_table_that_is_full() {
        for (mode, fill) in [(Mode::Nat, Fill(1.5)), (Mode::Dr, Fill::FULL), (Mode::FullNat, Fill::FULL)] {
            measured(Event::Hit, mode, fill);
            let refused = measured(Event::New, mode, fill).map(|measured| measured.refused);
            assert!(refused.iter().all(|share| *share < 0.2), "{mode} {refused:?}");
        }
    }

    #[test]
    fn a_flow_begins_and_ends_only_once_in_a_table() {
        let hit = measured(Event::Hit, Mode::Dr, Fill::RATED)[0];
        assert_eq!((hit.packets, hit.undisturbed), (2 * FRAMES as u64, None));
        let new = measured(Event::New, Mode::Dr, Fill::RATED)[0];
        assert_eq!(new.packets, FRAMES as u64 / 10);
        let sweep = measured(Event::Sweep, Mode::Dr, Fill::RATED)[0];
        assert_eq!(sweep.packets, 2 * 2 * FRAMES as u64);
        assert!(sweep.undisturbed.is_some());
    }
}

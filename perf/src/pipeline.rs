//! The packet path alone: `Forwarder::forward` on bursts of 32, timed without the making of frames.
//!
//! The pool is filled with the next random packets, then its frames go through in batches, and only the
//! calls for a batch are timed. So frames come from the second or third cache level, as from a NIC that
//! writes into the cache, and every packet's flow is drawn from all flows.

use std::array;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use config::words::Mode;
use crossbeam::queue::ArrayQueue;
use dataplane::burst::{BURST, Burst};
use dataplane::flow::table::HashSecret;
use dataplane::forward::{Context, Forwarder, Outbox, Setup};
use dataplane::stats::WorkerStats;
use dataplane::wire::tcp::{ACK, SYN};
use serde::Serialize;

use crate::pool::{MAX_FRAMES, Pool, PoolFrame};
use crate::rng::Rng;
use crate::summary::Summary;
use crate::traffic::{Endpoint, Segment, client_of, flow_of};
use crate::world::{PORT, World};

/// Bursts that are timed together: the clock is read twice for 512 packets, which is not felt.
const BATCH: usize = 16;

/// The coarse time of all packets. In a worker it changes once a second.
const NOW: u32 = 100;

/// The same in every run, so that runs can be compared.
const SECRET: HashSecret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Its flow
    Hit,
    /// Its service, which makes a flow
    New,
    /// No service
    None,
}

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What each packet meets.
    pub event: Event,
    /// How many flows there are; the table is rated for them.
    pub flows: u32,
}

impl Case {
    /// Whether there are enough flows to be timed: new ones are new only once in each table.
    pub fn makes_sense(&self) -> bool {
        self.event != Event::New || self.flows as usize >= MAX_FRAMES
    }
}

/// How thorough to be. A repeat is one fill of the pool, or what is left for the last one: short enough for
/// most repeats to run undisturbed on a machine that others use too.
pub struct Plan {
    /// Repeats, of which the median counts.
    repeats: usize,
    /// Tables filled with new flows; each gives as many repeats as its flows need.
    tables: usize,
}

impl Plan {
    /// For figures that are written down.
    pub const FULL: Self = Self { repeats: 2001, tables: 15 };
    /// For a first look.
    pub const QUICK: Self = Self { repeats: 201, tables: 3 };
}

/// Nanoseconds per packet.
///
/// # Errors
/// A sentence that says which packets did not go where the case sends them.
pub fn measure(world: &World, case: Case, plan: &Plan) -> Result<Summary, String> {
    let mut pool = Pool::new(MAX_FRAMES);
    let values = match case.event {
        Event::Hit => hits(world, case.flows, plan, &mut pool)?,
        Event::New => openings(world, case.flows, plan, &mut pool)?,
        Event::None => strangers(world, case.flows, plan, &mut pool)?,
    };
    Summary::of(values).ok_or_else(|| "nothing was measured".to_owned())
}

/// Packets of flows that are in the table, in random order. Under NAT half of them are replies.
fn hits(world: &World, flows: u32, plan: &Plan, pool: &mut Pool) -> Result<Vec<f64>, String> {
    let mut path = Path::new(world, flows);
    path.establish(pool, flows)?;
    let backends = path.backends(flows);
    let mut rng = Rng::new(1);
    let random = || {
        let flow = rng.below(flows);
        let (client, vip) = (client_of(flow), world.vip_of(flow));
        match backends[flow as usize] {
            Some(backend) if world.mode == Mode::Nat && rng.below(2) == 0 => {
                Segment { src: backend, dst: client, flags: ACK }
            }
            _ => Segment { src: client, dst: vip, flags: ACK },
        }
    };
    path.repeat(plan, pool, random, Fate::Sent)
}

/// Packets from all clients to a port without service.
fn strangers(world: &World, flows: u32, plan: &Plan, pool: &mut Pool) -> Result<Vec<f64>, String> {
    let mut rng = Rng::new(2);
    let random = || {
        let flow = rng.below(flows);
        let (vip, _) = world.vip_of(flow);
        Segment { src: client_of(flow), dst: (vip, 9), flags: SYN }
    };
    Path::new(world, flows).repeat(plan, pool, random, Fate::Dropped)
}

/// The first packets of all flows, into empty tables until they have as many as they are rated for.
fn openings(world: &World, flows: u32, plan: &Plan, pool: &mut Pool) -> Result<Vec<f64>, String> {
    // A prime above the number of flows: multiples of it visit each flow once, in no order.
    const STEP: u64 = 2_654_435_761;
    let mut values = Vec::new();
    for _ in 0..plan.tables {
        let mut path = Path::new(world, flows);
        let mut turn = 0;
        let mut left = flows as usize;
        while left > 0 {
            let count = left.min(pool.len());
            let scattered = || {
                turn += 1;
                // Less than the number of flows, which has 32 bits.
                let flow = (turn * STEP % u64::from(flows)) as u32;
                Segment { src: client_of(flow), dst: world.vip_of(flow), flags: SYN }
            };
            values.push(path.time(pool, count, scattered, Fate::Sent)?);
            left -= count;
        }
    }
    Ok(values)
}

/// Where all packets of a case end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Dropped,
}

/// One worker's packet path in its world.
struct Path<'w> {
    world: &'w World,
    forwarder: Forwarder,
    stats: Arc<WorkerStats>,
}

impl<'w> Path<'w> {
    fn new(world: &'w World, flows: u32) -> Self {
        let stats = Arc::new(WorkerStats::new(world.backends as usize));
        let setup = Setup {
            number: 0,
            workers: 1,
            flow_capacity: flows as usize,
            services: usize::from(world.services),
            secret: SECRET,
        };
        Self { world, forwarder: Forwarder::new(&setup, Arc::clone(&stats)), stats }
    }

    /// Opens all flows. Each is acknowledged before the table fills up, for a half-open one may be evicted.
    fn establish(&mut self, pool: &mut Pool, flows: u32) -> Result<(), String> {
        let world = self.world;
        for first in (0..flows).step_by(pool.len()) {
            let count = pool.len().min((flows - first) as usize);
            for flags in [SYN, ACK] {
                let mut number = first;
                let segment = || {
                    let flow = number;
                    number += 1;
                    Segment { src: client_of(flow), dst: world.vip_of(flow), flags }
                };
                self.time(pool, count, segment, Fate::Sent)?;
            }
        }
        Ok(())
    }

    /// Where each flow's backend listens, by flow.
    fn backends(&self, flows: u32) -> Vec<Option<Endpoint>> {
        let mut backends = vec![None; flows as usize];
        let table = self.forwarder.flows();
        for (key, value) in (0..table.lines()).flat_map(|line| table.visit(line)) {
            let flow = flow_of((key.client(), key.client_port()));
            backends[flow as usize] = self.world.backend_at(value.backend());
        }
        backends
    }

    /// Nanoseconds per packet, for each repeat. Some before them warm up.
    fn repeat(
        &mut self,
        plan: &Plan,
        pool: &mut Pool,
        mut next: impl FnMut() -> Segment,
        fate: Fate,
    ) -> Result<Vec<f64>, String> {
        for _ in 0..plan.repeats / 10 {
            self.time(pool, pool.len(), &mut next, fate)?;
        }
        (0..plan.repeats).map(|_| self.time(pool, pool.len(), &mut next, fate)).collect()
    }

    /// Forwards `count` packets, of which the pool can hold as many. Returns the nanoseconds that each took.
    fn time(
        &mut self,
        pool: &mut Pool,
        count: usize,
        mut next: impl FnMut() -> Segment,
        fate: Fate,
    ) -> Result<f64, String> {
        let dropped = self.stats.drops.total();
        pool.fill(count, || next().frame());
        let (elapsed, sent) = self.round(pool.frames());
        debug_assert_eq!(pool.in_use(), 0);
        let dropped = self.stats.drops.total() - dropped;
        let expected = if fate == Fate::Sent { (count, 0) } else { (0, count as u64) };
        if (sent, dropped) != expected {
            return Err(format!("{sent} of {count} packets sent and {dropped} dropped: nothing to measure"));
        }
        Ok(elapsed.as_nanos() as f64 / count as f64)
    }

    /// Forwards frames in batches. Returns the time that took and the number of frames sent.
    fn round<'p>(&mut self, mut frames: impl Iterator<Item = PoolFrame<'p>>) -> (Duration, usize) {
        let context = Context { snapshot: &self.world.snapshot, now: NOW };
        let mut bursts: [Burst<PoolFrame>; BATCH] = array::from_fn(|_| Burst::default());
        let mut outs: [Outbox<PoolFrame>; BATCH] = array::from_fn(|_| outbox());
        let (mut elapsed, mut sent) = (Duration::ZERO, 0);
        loop {
            load(&mut bursts, &mut frames);
            if bursts[0].is_empty() {
                return (elapsed, sent);
            }
            let start = Instant::now();
            for (burst, out) in bursts.iter_mut().zip(&mut outs) {
                self.forwarder.forward(context, PORT, burst, out);
            }
            elapsed += start.elapsed();
            for transmit in outs.iter_mut().flat_map(|out| &mut out.transmit) {
                sent += transmit.len();
                transmit.clear();
            }
        }
    }
}

/// Distributes the next frames over bursts, as a NIC would hand them out.
fn load<'p>(bursts: &mut [Burst<PoolFrame<'p>>], frames: &mut impl Iterator<Item = PoolFrame<'p>>) {
    for burst in bursts {
        for frame in frames.by_ref().take(BURST) {
            if burst.push(frame).is_err() {
                // The burst was empty and takes as many.
                break;
            }
        }
    }
}

/// Room for what a burst becomes. No other worker is there, and nothing is punted.
fn outbox<F>() -> Outbox<F> {
    Outbox { transmit: vec![Burst::default()], punt: Arc::new(ArrayQueue::new(1)), owners: Vec::new() }
}

//! The packet path alone: `Forwarder::forward` on bursts of 32, timed without the making of frames.
//!
//! The pool is filled with the next random packets, then its frames go through in batches, and only the
//! calls for a batch are timed. So frames come from the second or third cache level, as from a NIC that
//! writes into the cache, and every packet's flow is drawn from all flows.

use std::array;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use crossbeam::queue::ArrayQueue;
use dataplane::burst::{BURST, Burst};
use dataplane::clock::Seconds;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{Context, Forwarder, Outbox, PieceSetup, Setup};
use dataplane::local::{LocalAddress, LocalSlot};
use dataplane::stats::WorkerStats;
use dataplane::toeplitz::Owners;
use dataplane::wire::tcp::{ACK, SYN};
use serde::Serialize;

use super::pool::{FRAMES, Pool, PoolFrame};
use super::traffic::{Segment, client_of, flow_of};
use super::world::{PORT, Shape, World};
use crate::rng::Rng;
use crate::summary::Summary;

/// Bursts that are timed together: the clock is read twice for 512 packets, which is not felt.
const BATCH: usize = 16;

/// The coarse time to begin with. In a worker it changes once a second.
const BEGIN: Seconds = 100;
/// Longer than any flow lives without packets.
const LONG: Seconds = 3600;

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
    /// A flow that is over, and its service, which makes another
    Expired,
    /// No service
    None,
}

impl Event {
    /// Whether there are enough flows to be timed: a flow begins only once in each table.
    pub fn makes_sense(self, flows: u32) -> bool {
        !matches!(self, Self::New | Self::Expired) || flows as usize >= FRAMES
    }
}

/// How thorough to be. A repeat is one fill of the pool, or what is left for the last one: short enough for
/// most repeats to run undisturbed on a machine that others use too.
pub struct Plan {
    /// Repeats, of which the median counts.
    repeats: usize,
    /// Times that all flows begin; each gives as many repeats as the flows need.
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
pub fn measure(world: &World, event: Event, plan: &Plan, pool: &Pool) -> Result<Summary, String> {
    let values = match event {
        Event::Hit => hits(world, plan, pool)?,
        Event::New => openings(world, plan, pool)?,
        Event::Expired => reopenings(world, plan, pool)?,
        Event::None => strangers(world, plan, pool)?,
    };
    Summary::of(values).ok_or_else(|| "nothing was measured".to_owned())
}

/// Packets of flows that are in the table, in random order. Where the balancer sees replies, half are such.
fn hits(world: &World, plan: &Plan, pool: &Pool) -> Result<Vec<f64>, String> {
    let Shape { family, flows, .. } = world.shape;
    let mut path = Path::new(world, pool);
    path.establish()?;
    let replies = path.replies();
    let mut rng = Rng::new(1);
    let random = || {
        let flow = rng.below(flows);
        match replies.get(flow as usize).copied().flatten() {
            Some((src, dst)) if rng.below(2) == 0 => Segment { src, dst, flags: ACK },
            _ => Segment { src: client_of(family, flow), dst: world.vip_of(flow), flags: ACK },
        }
    };
    path.repeat(plan, random, Fate::Sent)
}

/// Packets from all clients to a port without service.
fn strangers(world: &World, plan: &Plan, pool: &Pool) -> Result<Vec<f64>, String> {
    let Shape { family, flows, .. } = world.shape;
    let mut rng = Rng::new(2);
    let random = || {
        let flow = rng.below(flows);
        let dst = SocketAddr::new(world.vip_of(flow).ip(), 9);
        Segment { src: client_of(family, flow), dst, flags: SYN }
    };
    Path::new(world, pool).repeat(plan, random, Fate::Dropped)
}

/// The first packets of all flows, into empty tables until they have as many as they are rated for.
fn openings(world: &World, plan: &Plan, pool: &Pool) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for _ in 0..plan.tables {
        values.extend(Path::new(world, pool).open_all()?);
    }
    Ok(values)
}

/// The same, where all flows were before, and are over but still in the table.
fn reopenings(world: &World, plan: &Plan, pool: &Pool) -> Result<Vec<f64>, String> {
    let mut path = Path::new(world, pool);
    path.establish()?;
    let mut values = Vec::new();
    for _ in 0..plan.tables {
        path.now += LONG;
        values.extend(path.open_all()?);
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
struct Path<'a> {
    world: &'a World,
    pool: &'a Pool,
    forwarder: Forwarder<PoolFrame>,
    stats: Arc<WorkerStats>,
    now: Seconds,
}

impl<'a> Path<'a> {
    fn new(world: &'a World, pool: &'a Pool) -> Self {
        let shape = &world.shape;
        let stats = Arc::new(WorkerStats::new(shape.backends() as usize));
        let flows = shape.flows as usize;
        let (narrow, wide) = if shape.is_wide() { (0, flows) } else { (flows, 0) };
        let setup = Setup {
            number: 0,
            workers: 1,
            flow_capacity: narrow,
            wide_capacity: wide,
            pieces: PieceSetup { capacity: 1, timeout: 5, remember: 30, secret: RandomState::new() },
            services: usize::from(shape.services),
            secret: SECRET,
        };
        let mut forwarder = Forwarder::new(&setup, Arc::clone(&stats));
        let owners = Owners::new(setup.workers);
        for (slot, address) in world.snapshot.parts.locals.iter().enumerate() {
            let ports = LocalAddress::new(*address, &owners, setup.number);
            forwarder.install(LocalSlot(slot as u8), Box::new(ports));
        }
        Self { world, pool, forwarder, stats, now: BEGIN }
    }

    /// Opens all flows. Each is acknowledged before the table fills up, for a half-open one may be evicted.
    fn establish(&mut self) -> Result<(), String> {
        let world = self.world;
        let Shape { family, flows, .. } = world.shape;
        for first in (0..flows).step_by(self.pool.len()) {
            let count = self.pool.len().min((flows - first) as usize);
            for flags in [SYN, ACK] {
                let mut number = first;
                let segment = || {
                    let flow = number;
                    number += 1;
                    Segment { src: client_of(family, flow), dst: world.vip_of(flow), flags }
                };
                self.time(count, segment, Fate::Sent)?;
            }
        }
        Ok(())
    }

    /// Sends the first packets of all flows. Returns the nanoseconds per packet, for each repeat.
    fn open_all(&mut self) -> Result<Vec<f64>, String> {
        // A prime above the number of flows: multiples of it visit each flow once, in no order.
        const STEP: u64 = 2_654_435_761;
        let world = self.world;
        let Shape { family, flows, .. } = world.shape;
        let mut values = Vec::new();
        let mut turn = 0;
        let mut left = flows as usize;
        while left > 0 {
            let count = left.min(self.pool.len());
            let scattered = || {
                turn += 1;
                // Less than the number of flows, which has 32 bits.
                let flow = (turn * STEP % u64::from(flows)) as u32;
                Segment { src: client_of(family, flow), dst: world.vip_of(flow), flags: SYN }
            };
            values.push(self.time(count, scattered, Fate::Sent)?);
            left -= count;
        }
        Ok(values)
    }

    /// Source and destination of each flow's replies, by flow; none where the balancer sees no replies.
    fn replies(&self) -> Vec<Option<(SocketAddr, SocketAddr)>> {
        let World { shape, snapshot } = self.world;
        if !shape.sees_replies() {
            return Vec::new();
        }
        let mut replies = vec![None; shape.flows as usize];
        let table = self.forwarder.flows();
        for line in 0..table.lines() {
            table.visit(line, |owner, value| {
                let client = SocketAddr::new(owner.client, owner.client_port);
                // In full NAT the backend answers a local address, which knows the client.
                let local = owner.local_port.zip(snapshot.local_address(value.local()));
                let to = local.map_or(client, |(port, address)| SocketAddr::new(address, port));
                let backend = snapshot.backend(value.backend()).map(|backend| backend.address);
                replies[flow_of(client) as usize] = backend.map(|from| (from, to));
            });
        }
        replies
    }

    /// Nanoseconds per packet, for each repeat. Some before them warm up.
    fn repeat(
        &mut self,
        plan: &Plan,
        mut next: impl FnMut() -> Segment,
        fate: Fate,
    ) -> Result<Vec<f64>, String> {
        for _ in 0..plan.repeats / 10 {
            self.time(self.pool.len(), &mut next, fate)?;
        }
        (0..plan.repeats).map(|_| self.time(self.pool.len(), &mut next, fate)).collect()
    }

    /// Forwards `count` packets, of which the pool can hold as many. Returns the nanoseconds that each took.
    fn time(&mut self, count: usize, mut next: impl FnMut() -> Segment, fate: Fate) -> Result<f64, String> {
        let dropped = self.stats.drops.total();
        let pool = self.pool;
        let frames: Vec<_> = (0..count).map_while(|_| pool.frame(|bytes| next().write(bytes))).collect();
        let (elapsed, sent) = self.round(frames.into_iter());
        debug_assert_eq!(pool.in_use(), 0);
        let dropped = self.stats.drops.total() - dropped;
        let expected = if fate == Fate::Sent { (count, 0) } else { (0, count as u64) };
        if (sent, dropped) != expected {
            return Err(format!("{sent} of {count} packets sent and {dropped} dropped: nothing to measure"));
        }
        Ok(elapsed.as_nanos() as f64 / count as f64)
    }

    /// Forwards frames in batches. Returns the time that took and the number of frames sent.
    fn round(&mut self, mut frames: impl Iterator<Item = PoolFrame>) -> (Duration, usize) {
        let context = Context { snapshot: &self.world.snapshot, now: self.now };
        let mut bursts: [Burst<PoolFrame>; BATCH] = array::from_fn(|_| Burst::default());
        let mut outs: [Outbox<PoolFrame>; BATCH] = array::from_fn(|_| outbox());
        let (mut elapsed, mut sent) = (Duration::ZERO, 0);
        loop {
            load(&mut bursts, &mut frames);
            if bursts[0].is_empty() {
                return (elapsed, sent);
            }
            let start = Instant::now();
            self.forward(context, &mut bursts, &mut outs);
            elapsed += start.elapsed();
            for transmit in outs.iter_mut().flat_map(|out| &mut out.transmit) {
                sent += transmit.len();
                transmit.clear();
            }
        }
    }

    /// What is timed: a function of its own, so that a profiler can count its instructions alone.
    #[inline(never)]
    fn forward(&mut self, context: Context, bursts: &mut [Burst<PoolFrame>], outs: &mut [Outbox<PoolFrame>]) {
        for (burst, out) in bursts.iter_mut().zip(outs) {
            self.forwarder.forward(context, PORT, burst, out);
        }
    }
}

/// Distributes the next frames over bursts, as a NIC would hand them out.
fn load(bursts: &mut [Burst<PoolFrame>], frames: &mut impl Iterator<Item = PoolFrame>) {
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

//! The packet path alone: `Forwarder::forward` on bursts of 32, timed without the making of frames.
//!
//! The pool is filled with the next packets, then its frames go through in batches, and only the calls for a
//! batch are timed. So frames come from the second or third cache level, as from a NIC that writes into the
//! cache.

use std::array;
use std::hash::RandomState;
use std::iter;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use dataplane::burst::{BURST, Burst};
use dataplane::clock::Seconds;
use dataplane::drops::DropReason;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{Context, Flows, Forwarder, Outbox, PieceSetup, Setup};
use dataplane::local::{LocalAddresses, LocalSlot};
use dataplane::stats::WorkerStats;
use dataplane::team::Team;
use dataplane::wire::tcp::{ACK, SYN};
use dataplane::worker::{HOUSEKEEPING_TURNS, SWEEP_LINES};

use super::draw::scattered;
use super::pool::{Pool, PoolFrame};
use super::traffic::Segment;
use super::world::{PORT, Shape, World};

/// Bursts that are timed together: the clock is read twice for 512 packets, which is not felt.
const BATCH: usize = 16;

/// The coarse time to begin with. In a worker it changes once a second.
pub const BEGIN: Seconds = 100;

/// The same in every run, so that runs can be compared.
const SECRET: HashSecret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);

/// Where all packets of a case end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are sent.
    Sent,
    /// They are dropped.
    Dropped,
    /// They are sent, or dropped because there is no place for their flows.
    SentOrRefused,
}

/// What packets are sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// The time that they take.
    Time,
    /// What they leave behind.
    Nothing,
}

/// What was timed.
#[derive(Default)]
pub struct Tally {
    /// Nanoseconds per packet, by repeats.
    pub ns: Vec<f64>,
    /// Packets.
    pub packets: u64,
    /// Those of them for whose flows there was no place.
    pub refused: u64,
}

impl Tally {
    /// Takes over what was timed elsewhere.
    pub fn add(&mut self, other: Self) {
        self.ns.extend(other.ns);
        self.packets += other.packets;
        self.refused += other.refused;
    }
}

/// One worker's packet path in its world.
pub struct Path<'a> {
    /// Its world.
    pub world: &'a World,
    /// The coarse time.
    pub now: Seconds,
    /// What was timed so far.
    pub tally: Tally,
    pool: &'a Pool,
    forwarder: Forwarder<PoolFrame>,
    stats: Arc<WorkerStats>,
}

impl<'a> Path<'a> {
    /// A path with empty tables.
    pub fn new(world: &'a World, pool: &'a Pool) -> Self {
        let shape = &world.shape;
        let stats = Arc::new(WorkerStats::new(shape.backends() as usize));
        let setup = setup(shape);
        let mut forwarder = Forwarder::new(&setup, Arc::clone(&stats));
        // The others have nothing to do.
        for number in 1..setup.team.workers() {
            setup.team.join(number, &Arc::new(WorkerStats::new(shape.backends() as usize)));
        }
        let locals = LocalAddresses::new(&world.snapshot.parts.locals, &world.owners, setup.number);
        forwarder.install(LocalSlot(0), locals);
        Self { world, now: BEGIN, tally: Tally::default(), pool, forwarder, stats }
    }

    /// Takes all ports of local addresses for flows that are not in the table.
    pub fn exhaust(&mut self) {
        let World { snapshot, owners, .. } = self.world;
        let locals = LocalAddresses::new(&snapshot.parts.locals, owners, 0);
        self.forwarder.install(LocalSlot(0), locals.spent());
    }

    /// Its flows.
    pub fn flows(&self) -> &Flows {
        self.forwarder.flows()
    }

    /// Opens the first `count` flows. Each is acknowledged before the table fills up, for a half-open one may be
    /// evicted.
    ///
    /// # Errors
    /// Here and below, a sentence that says which packets did not go where they should.
    pub fn establish(&mut self, count: u32) -> Result<(), String> {
        for some in pieces(0..count, self.pool.len()) {
            for flags in [SYN, ACK] {
                let segments = some.clone().map(|flow| from_client(self.world, flow, flags));
                self.pass(segments, Tell::Nothing, Fate::SentOrRefused)?;
            }
        }
        Ok(())
    }

    /// Sends a packet of each of the first `count` flows.
    pub fn acknowledge(&mut self, count: u32) -> Result<(), String> {
        for some in pieces(0..count, self.pool.len()) {
            let segments = some.map(|flow| from_client(self.world, flow, ACK));
            self.pass(segments, Tell::Nothing, Fate::Sent)?;
        }
        Ok(())
    }

    /// Sends the first packets of flows, in no order. Each fill of the pool is a repeat.
    pub fn open(&mut self, flows: Range<u32>, tell: Tell) -> Result<(), String> {
        let count = flows.end - flows.start;
        for turns in pieces(0..count, self.pool.len()) {
            let scattered = turns.map(|turn| flows.start + scattered(u64::from(turn), count));
            let segments = scattered.map(|flow| from_client(self.world, flow, SYN));
            let passed = self.pass(segments, tell, Fate::SentOrRefused)?;
            if tell == Tell::Time {
                self.tally.ns.push(passed.ns_per_packet());
            }
        }
        Ok(())
    }

    /// Sends packets, of which each fill of the pool is a repeat. Some before them warm up.
    pub fn repeat(
        &mut self,
        repeats: usize,
        mut next: impl FnMut() -> Segment,
        fate: Fate,
    ) -> Result<(), String> {
        for _ in 0..repeats / 10 {
            self.pass(iter::repeat_with(&mut next), Tell::Nothing, fate)?;
        }
        for _ in 0..repeats {
            let passed = self.pass(iter::repeat_with(&mut next), Tell::Time, fate)?;
            self.tally.ns.push(passed.ns_per_packet());
        }
        Ok(())
    }

    /// Sends packets as long as a worker that is never idle does between two turns of its housekeeping, and has
    /// such a turn; that is a repeat.
    pub fn turns(&mut self, mut next: impl FnMut() -> Segment) -> Result<(), String> {
        let mut all = Passed::default();
        while all.packets < HOUSEKEEPING_TURNS as usize * BURST {
            let passed = self.pass(iter::repeat_with(&mut next), Tell::Time, Fate::Sent)?;
            all.packets += passed.packets;
            all.elapsed += passed.elapsed;
        }
        let mut out = outbox();
        let start = Instant::now();
        self.sweep(&mut out);
        all.elapsed += start.elapsed();
        self.tally.ns.push(all.ns_per_packet());
        Ok(())
    }

    /// Does a turn of housekeeping.
    fn sweep(&mut self, out: &mut Outbox<PoolFrame>) {
        let context = Context { snapshot: &self.world.snapshot, now: self.now };
        self.forwarder.housekeeping(context, SWEEP_LINES, out);
    }

    /// Turns of housekeeping that sweep all of a table.
    pub fn sweeps(&self) -> usize {
        self.flows().lines().div_ceil(SWEEP_LINES)
    }

    /// Forwards packets, as many as the pool can hold.
    fn pass(
        &mut self,
        segments: impl Iterator<Item = Segment>,
        tell: Tell,
        fate: Fate,
    ) -> Result<Passed, String> {
        let (dropped, refused) = (self.stats.drops.total(), self.refused());
        let pool = self.pool;
        let frames: Vec<_> =
            segments.take(pool.len()).map_while(|segment| pool.frame(|bytes| segment.write(bytes))).collect();
        let packets = frames.len();
        let (elapsed, sent) = self.round(frames.into_iter(), tell);
        debug_assert_eq!(pool.in_use(), 0);
        let (dropped, refused) = (self.stats.drops.total() - dropped, self.refused() - refused);
        let as_it_should = match fate {
            Fate::Sent => dropped == 0,
            Fate::Dropped => sent == 0,
            Fate::SentOrRefused => dropped == refused,
        };
        if !as_it_should || sent as u64 + dropped != packets as u64 {
            return Err(format!(
                "{sent} of {packets} packets sent and {dropped} dropped: nothing to measure"
            ));
        }
        if tell == Tell::Time {
            self.tally.packets += packets as u64;
            self.tally.refused += refused;
        }
        Ok(Passed { elapsed, packets })
    }

    /// Packets that were dropped because there was no place for their flows, or is none.
    fn refused(&self) -> u64 {
        [DropReason::FlowTableFull, DropReason::NoFlowNotSyn]
            .map(|why| self.stats.drops.get(why))
            .iter()
            .sum()
    }

    /// Forwards frames in batches. Returns the time that took and the number of frames sent.
    fn round(&mut self, mut frames: impl Iterator<Item = PoolFrame>, tell: Tell) -> (Duration, usize) {
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
            match tell {
                Tell::Time => self.forward_counted(context, &mut bursts, &mut outs),
                Tell::Nothing => self.forward(context, &mut bursts, &mut outs),
            }
            elapsed += start.elapsed();
            for transmit in outs.iter_mut().flat_map(|out| &mut out.transmit) {
                sent += transmit.len();
                transmit.clear();
            }
        }
    }

    /// What is measured: a function of its own, so that a profiler can count its instructions alone.
    #[inline(never)]
    fn forward_counted(
        &mut self,
        context: Context,
        bursts: &mut [Burst<PoolFrame>],
        outs: &mut [Outbox<PoolFrame>],
    ) {
        self.forward(context, bursts, outs);
    }

    #[inline(never)]
    fn forward(&mut self, context: Context, bursts: &mut [Burst<PoolFrame>], outs: &mut [Outbox<PoolFrame>]) {
        for (burst, out) in bursts.iter_mut().zip(outs) {
            self.forwarder.forward(context, PORT, burst, out);
        }
    }
}

/// The first worker of a world.
pub fn setup(shape: &Shape) -> Setup {
    let flows = shape.flows as usize;
    let (narrow, wide) = if shape.is_wide() { (0, flows) } else { (flows, 0) };
    Setup {
        number: 0,
        team: Team::new(usize::from(shape.workers), shape.backends() as usize, 0),
        flow_capacity: narrow,
        wide_capacity: wide,
        pieces: PieceSetup { capacity: 1, timeout: 5, remember: 30, secret: RandomState::new() },
        services: usize::from(shape.services),
        secret: SECRET,
    }
}

/// What became of some packets, which all went where they should.
#[derive(Clone, Copy, Default)]
struct Passed {
    elapsed: Duration,
    packets: usize,
}

impl Passed {
    fn ns_per_packet(self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.packets as f64
    }
}

/// A range in pieces of at most so many.
fn pieces(range: Range<u32>, most: usize) -> impl Iterator<Item = Range<u32>> {
    let Range { start, end } = range;
    // A pool has a few thousand buffers.
    (start..end).step_by(most).map(move |first| first..end.min(first + most as u32))
}

/// A packet of a flow from its client.
pub fn from_client(world: &World, flow: u32, flags: u8) -> Segment {
    Segment { src: world.client_of(flow), dst: world.vip_of(flow), flags, frame: world.shape.frame }
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
    Outbox {
        transmit: vec![Burst::default()],
        punt: Arc::new(ArrayQueue::new(1)),
        owners: Vec::new(),
        seed: None,
    }
}

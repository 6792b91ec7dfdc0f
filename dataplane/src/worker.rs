//! One polling worker: receive, forward, send, for ever.
//!
//! Owns its queues, flow table and scheduler positions. Meets the control thread only through bounded
//! lock-free queues, the published snapshot and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{hint, thread};

use config::words;
use crossbeam::queue::ArrayQueue;

use crate::burst::{BURST, Burst};
use crate::clock::{Clock, Seconds};
use crate::drops::DropReason;
use crate::flow::{FlowOwner, FlowValue};
use crate::forward::{Context, Forwarder, HandedOver, Outbox, Punt, Setup};
use crate::idle::{Idle, Rest};
use crate::local::{self, LocalAddresses, LocalSlot};
use crate::port::{PortId, Queue};
use crate::publish::Reader;
use crate::snapshot::Snapshot;
use crate::stats::WorkerStats;
use crate::team::Team;

/// Turns between housekeeping turns.
pub const HOUSEKEEPING_TURNS: u32 = 256;
/// Lines of the flow table swept in a housekeeping turn.
pub const SWEEP_LINES: usize = 16;
/// Lines of the flow table listed in a housekeeping turn.
const LIST_LINES: usize = 64;
/// Attempts to give a frame to a device whose transmit queue is full.
const SEND_TRIES: usize = 16;

/// Bytes of the flow tables for each flow that they are rated for.
const NARROW_FLOW_BYTES: usize = 32;
const WIDE_FLOW_BYTES: usize = 64;
/// More of a narrow one, once there are local addresses.
const PORT_BYTES: usize = 4;

/// Capacity of the queue from a worker to the control thread.
const PUNT_QUEUE: usize = 512;
/// Capacity of the queue from the control thread to a worker.
const INJECT_QUEUE: usize = 512;
/// Capacity of the queue of frames that other workers hand over.
const HAND_OVER_QUEUE: usize = 1024;
/// Capacity of the queue of listed flows; more than one housekeeping turn lists.
const LISTING_QUEUE: usize = 4096;

/// Frames that may wait in one worker's queues and bursts, for the size of the packet memory.
pub const FRAMES_IN_QUEUES: usize = PUNT_QUEUE + INJECT_QUEUE + HAND_OVER_QUEUE + 4 * BURST;

/// A finished frame from the control thread, to be sent by a port.
#[derive(Debug)]
pub struct Injection<F> {
    /// The frame.
    pub frame: F,
    /// Where it leaves.
    pub port: PortId,
}

/// One line of a list of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// A flow, and the worker's time when it was read.
    Flow(FlowOwner, FlowValue, Seconds),
    /// The list is complete.
    End,
}

/// What the control thread holds of a worker.
pub struct Handle<F> {
    /// Frames for the control thread.
    pub punt: Arc<ArrayQueue<Punt<F>>>,
    /// Frames to be sent.
    pub inject: Arc<ArrayQueue<Injection<F>>>,
    /// Set to ask for a list of all flows; the worker clears it when it begins.
    pub list: Arc<AtomicBool>,
    /// The list that was asked for.
    pub listing: Arc<ArrayQueue<Listed>>,
    /// This worker's ports of new local addresses; they are in use when the next snapshot is.
    pub locals: Arc<ArrayQueue<(LocalSlot, LocalAddresses)>>,
    /// What the worker counts.
    pub stats: Arc<WorkerStats>,
    /// The team that it is in.
    pub team: Arc<Team>,
}

/// What all workers share besides the snapshot.
#[derive(Clone)]
pub struct Shared {
    /// Set to stop all workers.
    pub stop: Arc<AtomicBool>,
    /// The coarse time.
    pub clock: Clock,
    /// What they do while nothing comes.
    pub idle: words::Idle,
}

/// A worker, before and while it runs. `Q` is its share of a port.
pub struct Worker<Q: Queue> {
    /// By port number.
    queues: Vec<Q>,
    forwarder: Forwarder<Q::Frame>,
    out: Outbox<Q::Frame>,
    inject: Arc<ArrayQueue<Injection<Q::Frame>>>,
    /// Frames that other workers received but whose flows are here.
    taken_over: Arc<ArrayQueue<HandedOver<Q::Frame>>>,
    locals: Arc<ArrayQueue<(LocalSlot, LocalAddresses)>>,
    list: Arc<AtomicBool>,
    listing: Arc<ArrayQueue<Listed>>,
    /// The next line to be listed, while a list is being made.
    list_line: Option<usize>,
    snapshot: Reader<Snapshot>,
    shared: Shared,
    stats: Arc<WorkerStats>,
    now: Seconds,
    burst: Burst<Q::Frame>,
    idle: Idle,
}

/// What a worker is made of. It is made by the thread that will run it, so that its memory is on that thread's
/// NUMA node: the kernel takes a page from the node of the core that first touches it.
pub struct Blueprint<Q: Queue> {
    queues: Vec<Q>,
    setup: Setup,
    /// The queue of each worker for frames that others hand over.
    owners: Vec<Arc<ArrayQueue<HandedOver<Q::Frame>>>>,
    snapshot: Reader<Snapshot>,
    shared: Shared,
}

/// A worker's flow tables are larger than what the kernel gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no memory for a worker's flow tables; the kernel refuses {mib} MiB; make the capacities of [flow_table] smaller"
)]
pub struct NoMemory {
    /// What they need.
    pub mib: usize,
}

/// Plans as many workers as there are sets of queues. `queues` is by worker and port.
///
/// `setup` is completed with each worker's number.
pub fn team<Q: Queue>(
    queues: Vec<Vec<Q>>,
    setup: &Setup,
    snapshots: Vec<Reader<Snapshot>>,
    shared: &Shared,
) -> Vec<Blueprint<Q>> {
    let owners: Vec<_> = queues.iter().map(|_| Arc::new(ArrayQueue::new(HAND_OVER_QUEUE))).collect();
    let members = queues.into_iter().zip(snapshots).enumerate();
    members
        .map(|(number, (queues, snapshot))| Blueprint {
            queues,
            setup: Setup { number, ..setup.clone() },
            owners: owners.clone(),
            snapshot,
            shared: shared.clone(),
        })
        .collect()
}

impl<Q: Queue> Blueprint<Q> {
    /// Makes the worker, and what the control thread holds of it.
    ///
    /// # Errors
    /// [`NoMemory`]; a kernel that promises more than it has may still end the process later.
    pub fn build(self) -> Result<(Worker<Q>, Handle<Q::Frame>), NoMemory> {
        let Self { queues, setup, owners, snapshot, shared } = self;
        may_allocate(&setup)?;
        let handle = Handle {
            punt: Arc::new(ArrayQueue::new(PUNT_QUEUE)),
            inject: Arc::new(ArrayQueue::new(INJECT_QUEUE)),
            list: Arc::default(),
            listing: Arc::new(ArrayQueue::new(LISTING_QUEUE)),
            locals: Arc::new(ArrayQueue::new(local::SLOTS)),
            stats: Arc::new(WorkerStats::new(setup.team.backends())),
            team: Arc::clone(&setup.team),
        };
        let worker = Worker {
            forwarder: Forwarder::new(&setup, Arc::clone(&handle.stats)),
            taken_over: Arc::clone(&owners[setup.number]),
            out: Outbox {
                transmit: queues.iter().map(|_| Burst::default()).collect(),
                punt: Arc::clone(&handle.punt),
                owners,
                seed: queues.first().and_then(Queue::seed),
            },
            queues,
            inject: Arc::clone(&handle.inject),
            locals: Arc::clone(&handle.locals),
            list: Arc::clone(&handle.list),
            listing: Arc::clone(&handle.listing),
            list_line: None,
            snapshot,
            now: shared.clock.now(),
            idle: Idle::new(shared.idle),
            shared,
            stats: Arc::clone(&handle.stats),
            burst: Burst::default(),
        };
        Ok((worker, handle))
    }
}

/// Whether the kernel would give what flow tables need. It is asked for as much in one piece, for an allocation
/// that fails where they are made ends the process without a word on what to do.
fn may_allocate(setup: &Setup) -> Result<(), NoMemory> {
    let narrow = setup.flow_capacity.saturating_mul(NARROW_FLOW_BYTES + PORT_BYTES);
    let bytes = narrow.saturating_add(setup.wide_capacity.saturating_mul(WIDE_FLOW_BYTES));
    Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| NoMemory { mib: bytes >> 20 })
}

impl<Q: Queue> Worker<Q> {
    /// Polls until it is told to stop; then every frame it still holds is freed.
    pub fn run(mut self) {
        self.install_locals();
        let mut turns = 0u32;
        while !self.shared.stop.load(Ordering::Relaxed) {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(HOUSEKEEPING_TURNS) {
                self.housekeeping();
            }
            if self.turn() {
                self.idle.busy();
            } else {
                self.rest();
            }
        }
    }

    /// Looks once at everything frames may come from; returns whether there were any.
    #[inline]
    pub fn turn(&mut self) -> bool {
        let mut found = false;
        if self.snapshot.refresh() {
            self.forwarder.adopt();
            self.install_locals();
        }
        for number in 0..self.queues.len() {
            self.queues[number].receive(&mut self.burst);
            if !self.burst.is_empty() {
                found = true;
                self.stats.received.add(self.burst.len() as u64);
                self.forward(PortId(number as u8));
            }
        }
        if !self.taken_over.is_empty() {
            found = true;
            self.take_over();
        }
        if self.forwarder.has_ready() {
            found = true;
            self.forward_ready();
        }
        if !self.inject.is_empty() {
            found = true;
            self.send_injected();
        }
        found
    }

    /// Gives the core away for as long as the turns that found nothing allow.
    #[inline]
    fn rest(&mut self) {
        match self.idle.rest() {
            Rest::None => {}
            // A reader waits for the list, which takes many housekeeping turns.
            _ if self.list_line.is_some() => {}
            Rest::Pause(times) => (0..times).for_each(|_| hint::spin_loop()),
            Rest::Sleep(time) => self.sleep(time),
        }
    }

    #[cold]
    fn sleep(&mut self, time: Duration) {
        // Turns are few now, and the clock must not wait for 256 of them.
        self.housekeeping();
        thread::sleep(time);
    }

    /// Generation of the snapshot it uses.
    pub fn generation(&self) -> u64 {
        self.snapshot.generation()
    }

    /// Takes over the ports of local addresses that are new in the snapshot.
    #[cold]
    fn install_locals(&mut self) {
        while let Some((slot, addresses)) = self.locals.pop() {
            self.forwarder.install(slot, addresses);
        }
    }

    #[inline]
    fn forward(&mut self, port: PortId) {
        let context = Context { snapshot: self.snapshot.current(), now: self.now };
        self.forwarder.forward(context, port, &mut self.burst, &mut self.out);
        self.flush();
    }

    /// Forwards the frames that others handed over, up to a burst; frames of one port travel together, and
    /// pieces of packets alone.
    #[cold]
    fn take_over(&mut self) {
        let mut from = None;
        for _ in 0..BURST {
            let Some(handed) = self.taken_over.pop() else { break };
            self.stats.taken_over.add(1);
            if handed.transport.is_some() {
                let context = Context { snapshot: self.snapshot.current(), now: self.now };
                self.forwarder.forward_handed(context, handed, &mut self.out);
                self.flush();
                continue;
            }
            if let Some(last) = from.replace(handed.port)
                && last != handed.port
            {
                self.forward(last);
            }
            // A burst holds as many as this loop takes.
            let _ = self.burst.push(handed.frame);
        }
        if let Some(port) = from {
            self.forward(port);
        }
    }

    #[cold]
    fn forward_ready(&mut self) {
        let context = Context { snapshot: self.snapshot.current(), now: self.now };
        self.forwarder.forward_ready(context, &mut self.out);
        self.flush();
    }

    #[cold]
    fn send_injected(&mut self) {
        for _ in 0..BURST {
            let Some(Injection { frame, port }) = self.inject.pop() else { break };
            self.stats.injected.add(1);
            let refused = match self.out.transmit.get_mut(usize::from(port.0)) {
                Some(burst) => burst.push(frame).err().map(|_| DropReason::TxFull),
                None => Some(DropReason::BadPort),
            };
            if let Some(why) = refused {
                self.stats.drops.count(why);
            }
        }
        self.flush();
    }

    /// Gives all transmit bursts to their devices. What a device does not take after some tries is dropped:
    /// waiting longer would lose frames at the receive side instead, where nobody counts them.
    #[inline]
    fn flush(&mut self) {
        for (queue, burst) in self.queues.iter_mut().zip(&mut self.out.transmit) {
            for _ in 0..SEND_TRIES {
                if burst.is_empty() {
                    break;
                }
                self.stats.sent.add(queue.send(burst) as u64);
            }
            for slot in 0..burst.len() {
                if burst.take(slot).is_some() {
                    self.stats.drops.count(DropReason::TxFull);
                }
            }
            burst.clear();
        }
    }

    /// Work that no packet waits for: the time, dead flows and those that are over, the list of flows.
    #[cold]
    pub fn housekeeping(&mut self) {
        self.now = self.shared.clock.now();
        let context = Context { snapshot: self.snapshot.current(), now: self.now };
        self.forwarder.housekeeping(context, SWEEP_LINES, &mut self.out);
        self.flush();
        if self.list.swap(false, Ordering::AcqRel) {
            self.list_line = Some(0);
        }
        if let Some(line) = self.list_line {
            self.list_line = self.list_flows(line);
        }
    }

    /// Lists the flows of some lines from `line` on; returns where to go on, if the list is not complete.
    fn list_flows(&self, line: usize) -> Option<usize> {
        let flows = self.forwarder.flows();
        for line in line..flows.lines().min(line + LIST_LINES) {
            // A line has four flows; the reader takes its time, packets do not wait for it.
            if self.listing.capacity() - self.listing.len() < 4 {
                return Some(line);
            }
            flows.visit(line, |owner, value| {
                let _ = self.listing.push(Listed::Flow(owner, value, self.now));
            });
        }
        if line + LIST_LINES < flows.lines() {
            return Some(line + LIST_LINES);
        }
        match self.listing.push(Listed::End) {
            Ok(()) => None,
            Err(_) => Some(flows.lines()),
        }
    }
}

#[cfg(test)]
mod tests;

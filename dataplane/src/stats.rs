//! Counters of one worker, read by the control thread while they grow.
//!
//! Each counter has one writer, so adding is a plain load, add and store: no locked instruction, and no
//! copying out either. Counters only grow, gauges go both ways; readers subtract.

use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::drops::DropReason;
use crate::load::Loads;
use crate::local::{self, LocalSlot};
use crate::prefetch::{Table, gathered, prefetch};
use crate::snapshot::BackendSlot;

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number. Only its one writer may.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes from the number, which is a gauge. Only its one writer may.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.0.store(self.get().wrapping_sub(count), Ordering::Relaxed);
    }

    /// Sets the number, which is a gauge. Only its one writer may.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by drop reason.
#[derive(Debug)]
pub struct DropCounters([Counter; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; DropReason::COUNT])
    }
}

impl DropCounters {
    /// Counts one frame.
    #[inline]
    pub fn count(&self, why: DropReason) {
        self.add(why, 1);
    }

    /// Counts as many.
    #[inline]
    pub fn add(&self, why: DropReason, frames: u64) {
        self.0[why as usize].add(frames);
    }

    /// Frames dropped for a reason.
    pub fn get(&self, why: DropReason) -> u64 {
        self.0[why as usize].get()
    }

    /// Frames dropped for all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// Packets that one worker sent to and from one backend; half a cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
pub struct BackendCounters {
    /// Packets from clients.
    pub in_packets: Counter,
    /// Bytes of IP packets from clients.
    pub in_bytes: Counter,
    /// Packets to clients.
    pub out_packets: Counter,
    /// Bytes of IP packets to clients.
    pub out_bytes: Counter,
}

const _: () = assert!(size_of::<BackendCounters>() == 32);

impl BackendCounters {
    /// Packets, both ways.
    #[inline]
    pub fn packets(&self) -> u64 {
        self.in_packets.get().wrapping_add(self.out_packets.get())
    }

    /// Bytes of IP packets, both ways.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.in_bytes.get().wrapping_add(self.out_bytes.get())
    }

    /// Counts a packet of this length from a client.
    #[inline(always)]
    pub fn count_in(&self, len: u16) {
        self.in_packets.add(1);
        self.in_bytes.add(u64::from(len));
    }

    /// The same to a client.
    #[inline(always)]
    pub fn count_out(&self, len: u16) {
        self.out_packets.add(1);
        self.out_bytes.add(u64::from(len));
    }

    /// The same either way, without a jump by which one.
    #[inline(always)]
    pub fn count(&self, is_reply: bool, len: u16) {
        select_unpredictable(is_reply, &self.out_packets, &self.in_packets).add(1);
        select_unpredictable(is_reply, &self.out_bytes, &self.in_bytes).add(u64::from(len));
    }
}

/// Everything one worker counts.
///
/// Law: received + injected + taken_over + made = sent + punted + handed_over + dropped + held, between turns.
#[derive(Debug)]
pub struct WorkerStats {
    /// Frames taken from receive queues.
    pub received: CachePadded<Counter>,
    /// Frames taken from the control thread to be sent.
    pub injected: Counter,
    /// Frames taken over from other workers.
    pub taken_over: Counter,
    /// Frames made here that answer none: resets for the other ends of connections, and what asks silent ends.
    pub made: Counter,
    /// Frames given to transmit queues.
    pub sent: Counter,
    /// Frames given to the control thread.
    pub punted: Counter,
    /// Frames given to the workers that own their flows.
    pub handed_over: Counter,
    /// Packets made into an answer to their senders: echo replies and ICMP errors. They are sent or punted.
    pub answered: Counter,
    /// Packets made into an answer instead of being dropped for these reasons.
    pub answered_for: DropCounters,
    /// Packets sent on as a router does, in and out of inside networks. They are sent or punted.
    pub routed: Counter,
    /// New flows that found no free local port.
    pub local_ports_exhausted: Counter,
    /// Segments that had no room for the TCP option with their client's address, and went without it.
    pub addresses_untold: Counter,
    /// Gauge: pieces of packets that wait for their first ones.
    pub held: Counter,
    /// Gauge: flows in the tables.
    pub flows: Counter,
    /// Flows that ended by their idle timeout.
    pub expired: Counter,
    /// Flows that had to go for others.
    pub evicted: Counter,
    /// Frames dropped.
    pub drops: DropCounters,
    /// Gauges: local ports in use, by local slot.
    locals: Box<[Counter]>,
    backends: Table<BackendCounters>,
    /// Flows scheduled, by backend slot.
    conns: Table<Counter>,
    /// Gauges: flows, by backend slot.
    pub loads: Loads,
    /// Where slots beyond the tables are counted. Only flows of NAT gateways have such a one (`Limits` of the control thread).
    beyond: (BackendCounters, Counter),
}

impl WorkerStats {
    /// Counters for backends in slots 0 to `backends` - 1.
    pub fn new(backends: usize) -> Self {
        Self {
            received: CachePadded::default(),
            injected: Counter::default(),
            taken_over: Counter::default(),
            made: Counter::default(),
            sent: Counter::default(),
            punted: Counter::default(),
            handed_over: Counter::default(),
            answered: Counter::default(),
            answered_for: DropCounters::default(),
            routed: Counter::default(),
            local_ports_exhausted: Counter::default(),
            addresses_untold: Counter::default(),
            held: Counter::default(),
            flows: Counter::default(),
            expired: Counter::default(),
            evicted: Counter::default(),
            drops: DropCounters::default(),
            locals: (0..local::SLOTS).map(|_| Counter::default()).collect(),
            backends: gathered((0..backends).map(|_| BackendCounters::default())),
            conns: gathered((0..backends).map(|_| Counter::default())),
            loads: Loads::new(backends),
            beyond: Default::default(),
        }
    }

    /// Ports in use of the local address in a slot.
    pub fn local_ports(&self, slot: LocalSlot) -> &Counter {
        // There are as many as slots.
        &self.locals[usize::from(slot.0)]
    }

    /// Asks for the counters of the backend in a slot to come into the cache.
    #[inline]
    pub fn prefetch_backend(&self, slot: BackendSlot) {
        prefetch(self.backends.as_ptr().wrapping_add(slot.0 as usize));
    }

    /// The same of what is counted of a new flow.
    #[inline]
    pub fn prefetch_new(&self, slot: BackendSlot) {
        prefetch(self.conns.as_ptr().wrapping_add(slot.0 as usize));
        self.loads.prefetch(slot);
    }

    /// The counters of all backends, by slot.
    #[inline]
    pub fn backends(&self) -> &[BackendCounters] {
        &self.backends
    }

    /// The counters of the backend in a slot.
    #[inline]
    pub fn backend(&self, slot: BackendSlot) -> &BackendCounters {
        self.backends.get(slot.0 as usize).unwrap_or(&self.beyond.0)
    }

    /// Flows scheduled to the backend in a slot.
    #[inline]
    pub fn conns(&self, slot: BackendSlot) -> &Counter {
        self.conns.get(slot.0 as usize).unwrap_or(&self.beyond.1)
    }
}

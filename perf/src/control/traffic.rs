//! What a watched worker has in front of it: nothing, or as many packets as it can take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::gaps::own_time;
use super::tally::STALL;
use crate::pipeline::family::Family;
use crate::pipeline::traffic::{Segment, client_of};
use crate::rng::Rng;
use config::model::{Config, Service};
use dataplane::buf::HeapFrame;
use dataplane::burst::{BURST, Burst};
use dataplane::port::Queue;
use dataplane::wire::tcp::{ACK, SYN};

/// Flows, which go to all services in turns.
const FLOWS: u32 = 1 << 16;

/// What comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// No frame.
    Idle,
    /// A full burst each turn: when all flows have begun, packets of flows at random.
    Full,
}

impl Load {
    /// Turns are long that are longer than this.
    pub fn long(self) -> Duration {
        match self {
            Self::Idle => STALL,
            // Any may be: a frame is made anew here, which takes as long as to forward it.
            Self::Full => Duration::MAX,
        }
    }
}

/// A device that makes its frames itself, and where those that are sent are gone.
pub struct Source {
    load: Load,
    services: Vec<SocketAddr>,
    /// Packets of flows that have begun.
    begun: u32,
    rng: Rng,
    received: Duration,
    /// Nanoseconds that the thread had its core between the last burst's arrival and its departure.
    burst_ns: Arc<AtomicU64>,
}

impl Source {
    /// A device of a site whose services have one port each.
    pub fn new(load: Load, config: &Config, burst_ns: &Arc<AtomicU64>) -> Self {
        let vip = |service: &Service| SocketAddr::new(service.key.address, service.key.ports.first);
        Self {
            load,
            services: config.services.iter().map(vip).collect(),
            begun: 0,
            rng: Rng::new(1),
            received: Duration::ZERO,
            burst_ns: Arc::clone(burst_ns),
        }
    }

    /// A segment of the next flow that begins, or of any.
    fn next(&mut self) -> Segment {
        let (flow, flags) = match self.begun {
            // Acknowledged at once, because half-open flows end soon.
            begun if begun < 2 * FLOWS => (begun / 2, if begun % 2 == 0 { SYN } else { ACK }),
            _ => (self.rng.below(FLOWS), ACK),
        };
        self.begun = (self.begun + 1).min(2 * FLOWS);
        let dst = self.services[flow as usize % self.services.len()];
        Segment { src: client_of(Family::Ipv4, flow), dst, flags, frame: 64 }
    }
}

impl Queue for Source {
    type Frame = HeapFrame;

    fn receive(&mut self, burst: &mut Burst<HeapFrame>) {
        if self.load == Load::Idle {
            return;
        }
        for _ in 0..BURST {
            let mut bytes = [0; 60];
            let len = self.next().write(&mut bytes);
            // The burst is empty and takes as many.
            let _ = burst.push(HeapFrame::new(&bytes[..len]));
        }
        self.received = own_time().unwrap_or_default();
    }

    fn send(&mut self, burst: &mut Burst<HeapFrame>) -> usize {
        let own = own_time().unwrap_or_default().saturating_sub(self.received);
        // Within 500 years.
        self.burst_ns.store(own.as_nanos() as u64, Ordering::Relaxed);
        let count = burst.len();
        (0..count).for_each(|place| drop(burst.take(place)));
        burst.clear();
        count
    }

    fn seed(&self) -> Option<HeapFrame> {
        Some(HeapFrame::new(&[0]))
    }
}

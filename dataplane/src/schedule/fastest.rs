//! The backend that answers a SYN the soonest.
//!
//! Each worker notes when it passed a SYN on, and how long its SYN-ACK took ([`Handshakes`]); the averages are all
//! workers' ([`Times`]). Only modes in which both are seen can tell.

use std::time::Instant;

use crate::flow::table::FlowHash;
use crate::load::Load;
use crate::measure::Times;
use crate::snapshot::{BackendSlot, Candidate, ServiceSlot};

/// Of so many flows, one goes to the next backend by round robin, so that one that was slow once is asked again.
pub(super) const EXPLORE: u64 = 32;

/// The candidate with the least time, whatever the weights. One that was never asked comes first; one that was asked
/// for the first time and has not answered, last. Of equal ones that with the fewest flows is chosen, and of those the
/// first.
pub(super) fn soonest(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    times: &Times,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    // Times change little from one choice to the next, so that jumps are foreseen; and flows are seldom asked for.
    let (mut best, mut least): (Option<&Candidate>, u64) = (None, u64::MAX);
    for candidate in candidates.iter().filter(|candidate| available(candidate)) {
        let time = times.get(candidate.backend);
        if time <= least {
            let is_idler = |best| load(candidate).flows() < load(best).flows();
            if time < least || best.is_none_or(is_idler) {
                (best, least) = (Some(candidate), time);
            }
        }
    }
    best.map(|candidate| candidate.backend)
}

/// A connection that opens, by the hash of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened(u64);

impl Opened {
    /// The connection of a client to a port of a service.
    pub fn new(client: FlowHash, service: ServiceSlot, port: u16) -> Self {
        // 0 stands for none.
        Self(client.with_scope(u64::from(service.0) << 16 | u64::from(port)) | 1)
    }
}

/// The handshakes that one worker waits for. A new one takes the place of another: that sample is lost, not more.
pub struct Handshakes {
    pending: Box<[Pending]>,
    start: Instant,
}

/// A handshake, and when its first SYN was passed on, in nanoseconds from the start.
#[derive(Clone, Copy, Default)]
struct Pending {
    connection: u64,
    since: u64,
}

impl Handshakes {
    /// Handshakes at most; a power of two. With answers within a millisecond, that many are pending at a million
    /// connections a second.
    const MOST: usize = 1024;

    /// None is waited for.
    pub(crate) fn new() -> Self {
        Self { pending: vec![Pending::default(); Self::MOST].into(), start: Instant::now() }
    }

    /// The fine time, for the packets of handshakes alone.
    pub fn now(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// The first SYN of a connection is passed on.
    pub fn begin(&mut self, connection: Opened, now: u64) {
        *self.place(connection) = Pending { connection: connection.0, since: now };
    }

    /// How long a connection has waited, if it does.
    pub fn waited(&mut self, connection: Opened, now: u64) -> Option<u64> {
        let pending = *self.place(connection);
        (pending.connection == connection.0).then(|| now.saturating_sub(pending.since))
    }

    /// The same, when it does not any more.
    pub fn end(&mut self, connection: Opened, now: u64) -> Option<u64> {
        let waited = self.waited(connection, now)?;
        *self.place(connection) = Pending::default();
        Some(waited)
    }

    fn place(&mut self, connection: Opened) -> &mut Pending {
        // The lowest bit is always set.
        let place = (connection.0 >> 1) as usize % Self::MOST;
        &mut self.pending[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The choice among backends A, B, ... of these times and flows.
    fn choice(backends: &[(u64, u32)], available: impl Fn(&Candidate) -> bool) -> char {
        let times = Times::new(backends.len());
        let candidates: Vec<_> =
            (0..backends.len() as u32).map(|slot| Candidate::new(BackendSlot(slot), 1)).collect();
        for (candidate, (time, _)) in candidates.iter().zip(backends) {
            match *time {
                Times::UNASKED => {}
                Times::UNANSWERED => times.ask(candidate.backend),
                nanos => times.note(candidate.backend, nanos),
            }
        }
        let load = |candidate: &Candidate| Load::new(0, backends[candidate.backend.0 as usize].1);
        soonest(&candidates, available, &times, load).map_or('-', |slot| char::from(b'A' + slot.0 as u8))
    }

    #[test]
    fn the_least_time_is_chosen() {
        let all = |_: &Candidate| true;
        assert_eq!(choice(&[(900, 0), (800, 99), (1000, 0)], all), 'B');
        assert_eq!(choice(&[(900, 0), (Times::UNASKED, 9), (800, 0)], all), 'B');
        assert_eq!(choice(&[(Times::UNANSWERED, 0), (Times::UNANSWERED, 0), (800, 99)], all), 'C');
        assert_eq!(choice(&[(Times::UNANSWERED, 2), (Times::UNANSWERED, 1)], all), 'B');
        assert_eq!(choice(&[(900, 1), (900, 1)], all), 'A', "of equal ones the first");
        assert_eq!(choice(&[(900, 0), (800, 0)], |it| it.backend.0 == 0), 'A');
        assert_eq!(choice(&[(900, 0)], |_| false), '-');
        assert_eq!(choice(&[], all), '-');
    }

    fn connection(port: u16) -> Opened {
        Opened::new(FlowHash::ZERO, ServiceSlot(1), port)
    }

    #[test]
    fn a_handshake_is_timed_from_its_first_syn_once() {
        let mut handshakes = Handshakes::new();
        handshakes.begin(connection(80), 1000);
        assert_eq!(handshakes.waited(connection(80), 1700), Some(700));
        assert_eq!(handshakes.end(connection(81), 2000), None);
        assert_eq!(handshakes.end(connection(80), 2500), Some(1500));
        assert_eq!(handshakes.end(connection(80), 2600), None);
        handshakes.begin(connection(80), 3000);
        assert_eq!(handshakes.end(connection(80), 2999), Some(0));
    }

    #[test]
    fn a_flood_costs_samples_only() {
        let mut handshakes = Handshakes::new();
        for port in 0..u16::MAX {
            handshakes.begin(connection(port), u64::from(port));
        }
        let left = (0..u16::MAX).filter(|port| handshakes.end(connection(*port), 0).is_some()).count();
        assert!(left > Handshakes::MOST / 2 && left <= Handshakes::MOST, "{left}");
    }
}

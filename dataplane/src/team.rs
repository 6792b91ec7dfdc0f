//! What the workers know of each other: how much each backend has to do for all of them.
//!
//! A worker joins when it is made. Everyone reads everything; who writes what is said of each part.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::flow::table::HashSecret;
use crate::limit::Limits;
use crate::load::Load;
use crate::measure::{Marks, Times, Traffic};
use crate::persist::Templates;
use crate::prefetch::{Table, gathered};
use crate::snapshot::{BackendSlot, Candidate, Service};
use crate::stats::WorkerStats;

/// All workers of one appliance.
#[derive(Debug)]
pub struct Team {
    /// By number; written by the worker itself, once.
    members: Box<[OnceLock<Arc<WorkerStats>>]>,
    /// By backend slot: whether it reached its upper limit and has not come below the lower one since. Written by
    /// whoever notices.
    overloaded: Table<AtomicBool>,
    /// By backend slot: flows that were let begin and are not yet among those that the workers count; written by all.
    claims: Table<AtomicU32>,
    /// By backend slot: the bucket of its new flows; written by all.
    paces: Table<AtomicU64>,
    /// Which backends clients had; written by all.
    pub templates: Templates,
    /// What backends had counted some seconds ago; written by the control thread.
    pub marks: Marks,
    /// How fast backends answer; written by all.
    pub times: Times,
}

/// A backend for a new flow. It is to be given to [`Team::release`].
#[must_use]
#[derive(Debug)]
pub struct Chosen {
    /// Which one.
    pub backend: BackendSlot,
    /// Whether the flow is among the claims.
    is_claimed: bool,
}

impl Chosen {
    /// A backend that takes the flow, however many it has.
    pub fn freely(backend: BackendSlot) -> Self {
        Self { backend, is_claimed: false }
    }
}

impl Team {
    /// So many workers that are still to be made, backends in slots 0 to `backends` - 1, and room for so many
    /// templates.
    pub fn new(workers: usize, backends: usize, templates: usize) -> Arc<Self> {
        Arc::new(Self {
            members: (0..workers).map(|_| OnceLock::new()).collect(),
            overloaded: gathered((0..backends).map(|_| AtomicBool::new(false))),
            claims: gathered((0..backends).map(|_| AtomicU32::new(0))),
            paces: gathered((0..backends).map(|_| AtomicU64::new(0))),
            templates: Templates::new(templates, HashSecret::random()),
            marks: Marks::new(backends),
            times: Times::new(backends),
        })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.members.len()
    }

    /// Number of backend slots.
    pub fn backends(&self) -> usize {
        self.overloaded.len()
    }

    /// A worker is made, and counts here.
    pub fn join(&self, number: usize, stats: &Arc<WorkerStats>) {
        if let Some(member) = self.members.get(number) {
            // A number has one worker.
            let _ = member.set(Arc::clone(stats));
        }
    }

    /// What the workers that are made count.
    #[inline]
    pub fn members(&self) -> impl Iterator<Item = &WorkerStats> {
        self.members.iter().filter_map(|member| member.get().map(Arc::as_ref))
    }

    /// What the only worker counts, if there is only one.
    #[inline]
    pub fn alone(&self) -> Option<&WorkerStats> {
        if let [only] = &*self.members { only.get().map(Arc::as_ref) } else { None }
    }

    /// Flows of a backend, on all workers.
    #[inline]
    pub fn load(&self, slot: BackendSlot) -> Load {
        self.members().map(|stats| stats.loads.get(slot)).fold(Load::default(), Load::plus)
    }

    /// How many flows began or ended on all workers, of all backends.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.members().map(|stats| stats.loads.changes()).fold(0, u64::wrapping_add)
    }

    /// Whether a backend of a service may have another flow.
    pub fn has_room(&self, service: &Service, candidate: &Candidate) -> bool {
        let pace = || self.paces.get(candidate.backend.0 as usize);
        let may = |limits: &Arc<Limits>| pace().is_none_or(|pace| limits.backend_may(limits.now(), pace));
        // First this, then those that began: so no flow is in neither.
        let claims = self.claims.get(candidate.backend.0 as usize);
        let claimed = claims.map_or(0, |claims| claims.load(Ordering::Acquire));
        self.has_place(candidate, claimed) && service.limits.as_ref().is_none_or(may)
    }

    /// Whether a backend may have another flow, besides those that it has and so many that begin on it.
    fn has_place(&self, candidate: &Candidate, claimed: u32) -> bool {
        let Candidate { backend, upper, .. } = *candidate;
        let leaves_one = || self.load(backend).flows() + u64::from(claimed) < u64::from(upper);
        !self.is_overloaded(candidate) && (claimed == 0 || upper == 0 || leaves_one())
    }

    /// Lets a flow begin on a backend that a service chose, unless workers that chose at the same moment took the last
    /// places there. It counts from now on; what is returned is to be given back when the worker counts it, or when it
    /// does not begin.
    ///
    /// One may be refused that comes between a flow's being counted and its being given back; never do more begin than
    /// may, and a single worker's choice is never refused.
    #[inline]
    pub fn claim(&self, service: &Service, backend: BackendSlot) -> Option<Chosen> {
        // Without flows there is nothing to count.
        if !service.is_limited || service.one_packet {
            return Some(Chosen::freely(backend));
        }
        let candidate = service.candidates.iter().find(|it| it.backend == backend && it.upper > 0);
        let (Some(candidate), Some(claims)) = (candidate, self.claims.get(backend.0 as usize)) else {
            return Some(Chosen::freely(backend));
        };
        // As in `has_room`.
        let before = claims.fetch_add(1, Ordering::AcqRel);
        let chosen = Chosen { backend, is_claimed: true };
        if self.has_place(candidate, before) {
            return Some(chosen);
        }
        self.release(chosen);
        None
    }

    /// A flow is counted by its worker, or did not begin.
    pub fn release(&self, chosen: Chosen) {
        if let Some(claims) = self.claims.get(chosen.backend.0 as usize).filter(|_| chosen.is_claimed) {
            // Behind the worker's own count.
            claims.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// A flow began on a backend of a service with limits.
    pub fn began(&self, service: &Service, backend: BackendSlot) {
        let candidate = service.candidates.iter().find(|candidate| candidate.backend == backend);
        // Looking keeps what is seen: that it has all the flows it may have.
        candidate.inspect(|candidate| _ = self.is_overloaded(candidate));
        if let (Some(limits), Some(pace)) = (&service.limits, self.paces.get(backend.0 as usize)) {
            limits.began(limits.now(), pace);
        }
    }

    /// What all workers counted for a backend.
    #[inline]
    pub fn traffic(&self, slot: BackendSlot) -> Traffic {
        self.members().map(|stats| Traffic::of(stats, slot)).fold(Traffic::default(), Traffic::plus)
    }

    /// The same since its mark.
    #[inline]
    pub fn recent_traffic(&self, slot: BackendSlot) -> Traffic {
        self.traffic(slot).since(self.marks.get(slot))
    }

    /// Whether a backend with limits has all the flows that it may have: from when it reaches `upper` until it is
    /// below `lower`, as IPVS's `IP_VS_DEST_F_OVERLOAD`.
    ///
    /// IPVS looks whenever a flow begins or ends. Here it is looked at before a flow may begin and after it began:
    /// what flows that end change is of no matter before the next one.
    #[inline]
    pub fn is_overloaded(&self, candidate: &Candidate) -> bool {
        let Candidate { backend, upper, lower, .. } = *candidate;
        if upper == 0 {
            return false;
        }
        let Some(overloaded) = self.overloaded.get(backend.0 as usize) else { return false };
        let flows = self.load(backend).flows();
        let is = overloaded.load(Ordering::Relaxed);
        let now = if is { flows >= u64::from(lower) } else { flows >= u64::from(upper) };
        if now != is {
            overloaded.store(now, Ordering::Relaxed);
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use config::words::Scheduler;

    use super::*;
    use crate::testing;

    const UPPER: u32 = 4;

    /// A service whose backend in this slot takes so many flows, and some again below half of them.
    fn service(slot: BackendSlot) -> Service {
        let candidate = Candidate { upper: UPPER, lower: UPPER / 2, ..Candidate::new(slot, 1) };
        Service::new("tcp:192.0.2.100:80".parse().unwrap(), Scheduler::Rr, 1, vec![candidate])
    }

    fn team(backends: usize) -> (Arc<Team>, [Arc<WorkerStats>; 2]) {
        let team = Team::new(2, backends, 0);
        let stats = [(); 2].map(|()| Arc::new(WorkerStats::new(backends)));
        stats.iter().enumerate().for_each(|(number, stats)| team.join(number, stats));
        (team, stats)
    }

    #[test]
    fn a_place_is_taken_from_when_it_is_claimed() {
        let (team, [one, other]) = team(1);
        let slot = BackendSlot(0);
        let service = service(slot);
        let has_room = || team.has_room(&service, &service.candidates[0]);
        (1..UPPER).for_each(|_| one.loads.begin(slot, true));
        let last = team.claim(&service, slot).unwrap();
        assert!(!has_room() && team.claim(&service, slot).is_none());
        team.release(last);
        assert!(has_room(), "that flow did not begin, and the limit was not reached");
        let last = team.claim(&service, slot).unwrap();
        other.loads.begin(slot, true);
        team.began(&service, slot);
        team.release(last);
        one.loads.end(slot, true);
        one.loads.end(slot, true);
        assert!(!has_room() && team.claim(&service, slot).is_none(), "it was, until below the lower one");
        one.loads.end(slot, true);
        assert!(has_room());
    }

    #[test]
    fn workers_that_choose_at_once_reach_the_limit_and_do_not_pass_it() {
        let turns: u32 = if cfg!(miri) { 5 } else { 2000 };
        let (team, stats) = team(turns as usize);
        let work = |turn: u32, worker: usize| {
            let slot = BackendSlot(turn);
            let service = service(slot);
            while !team.is_overloaded(&service.candidates[0]) {
                let Some(chosen) = team.claim(&service, slot) else { continue };
                // It takes a while to store a flow.
                (0..1000).for_each(|_| std::hint::spin_loop());
                stats[worker].loads.begin(slot, true);
                team.began(&service, slot);
                team.release(chosen);
            }
        };
        testing::at_once(turns, |turn| work(turn, 0), |turn| work(turn, 1));
        let flows = |turn: u32| team.load(BackendSlot(turn)).flows();
        let exact = (0..turns).filter(|turn| flows(*turn) == u64::from(UPPER)).count();
        assert_eq!(exact, turns as usize);
        assert!(team.claims.iter().all(|claims| claims.load(Ordering::Relaxed) == 0));
    }
}

//! What the workers know of each other: how much each backend has to do for all of them.
//!
//! A worker joins when it is made. Everyone reads everything; who writes what is said of each part.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::flow::table::HashSecret;
use crate::limit::Limits;
use crate::load::Load;
use crate::measure::{Marks, Times, Traffic};
use crate::persist::Templates;
use crate::prefetch::gathered;
use crate::snapshot::{BackendSlot, Candidate, Service};
use crate::stats::WorkerStats;

/// All workers of one appliance.
#[derive(Debug)]
pub struct Team {
    /// By number; written by the worker itself, once.
    members: Box<[OnceLock<Arc<WorkerStats>>]>,
    /// By backend slot: whether it reached its upper limit and has not come below the lower one since. Written by
    /// whoever notices.
    overloaded: Box<[AtomicBool]>,
    /// By backend slot: the bucket of its new flows; written by all.
    paces: Box<[AtomicU64]>,
    /// Which backends clients had; written by all.
    pub templates: Templates,
    /// What backends had counted some seconds ago; written by the control thread.
    pub marks: Marks,
    /// How fast backends answer; written by all.
    pub times: Times,
}

impl Team {
    /// So many workers that are still to be made, backends in slots 0 to `backends` - 1, and room for so many
    /// templates.
    pub fn new(workers: usize, backends: usize, templates: usize) -> Arc<Self> {
        Arc::new(Self {
            members: (0..workers).map(|_| OnceLock::new()).collect(),
            overloaded: gathered((0..backends).map(|_| AtomicBool::new(false))).into(),
            paces: gathered((0..backends).map(|_| AtomicU64::new(0))).into(),
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
        !self.is_overloaded(candidate) && service.limits.as_ref().is_none_or(may)
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

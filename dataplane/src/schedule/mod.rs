//! Choosing the backend of a new flow, one family of schedulers a file.
//!
//! A choice neither allocates nor locks. Each worker keeps its own position in every service; what counts is read
//! of all workers. What a scheduler needs besides is made with the service ([`Plan`]), when its backends change.

mod bounded;
#[cfg(test)]
mod document;
pub(crate) mod fastest;
pub mod hash;
mod ipvs_hash;
#[cfg(test)]
mod laws;
mod least;
mod locality;
mod maglev;
mod measured;
mod plan;
pub mod quic;
mod random;
mod ranked;
mod round_robin;
pub mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use config::words::Scheduler;

use crate::clock::Seconds;
use crate::forward::Setup;
use crate::load::Load;
use crate::prefetch::prefetch;
use crate::snapshot::{BackendSlot, Candidate, Service, ServiceSlot};
use crate::team::Team;
use hash::Opening;
pub use plan::{Ingredients, Plan};
use random::Random;

/// How one worker chooses.
pub struct Schedulers {
    own: Own,
    team: Arc<Team>,
}

/// What is the worker's own.
struct Own {
    /// Positions in all services, by slot.
    positions: Box<[round_robin::Position]>,
    random: Random,
}

impl Schedulers {
    /// The schedulers of a worker that is set up so.
    pub fn new(setup: &Setup) -> Self {
        let positions = vec![round_robin::Position::default(); setup.services].into();
        let random = Random::new(setup.secret.0[0] ^ setup.number as u64);
        Self { own: Own { positions, random }, team: Arc::clone(&setup.team) }
    }

    /// Asks for the position in a service to come into the cache.
    #[inline]
    pub fn prefetch(&self, slot: ServiceSlot) {
        prefetch(self.own.positions.as_ptr().wrapping_add(usize::from(slot.0)));
    }

    /// Asks for what [`Self::next`] reads to come into the cache.
    #[inline]
    pub fn prefetch_next(&self, slot: ServiceSlot, service: &Service) {
        if let Some(position) = self.own.positions.get(usize::from(slot.0)) {
            prefetch(service.candidates.as_ptr().wrapping_add(position.index()));
        }
    }

    /// The backend that [`Self::pick`] may give; it chooses nothing.
    #[inline]
    pub fn next(&self, slot: ServiceSlot, service: &Service) -> Option<BackendSlot> {
        let position = self.own.positions.get(usize::from(slot.0))?;
        let candidate = service.candidates.get(position.index()).or(service.candidates.first())?;
        Some(candidate.backend)
    }

    /// The backend of the service's next flow, which `opening` begins; `None` if no backend takes new flows.
    #[inline]
    pub fn pick(
        &mut self,
        now: Seconds,
        slot: ServiceSlot,
        service: &Service,
        opening: impl Fn() -> Opening,
    ) -> Option<BackendSlot> {
        // The most common ones are so cheap that a call would show.
        match service.scheduler {
            Scheduler::Rr if !service.is_limited => {
                position(&mut self.own.positions, slot, service)?.next(service, |_| true)
            }
            Scheduler::Wrr if !service.is_limited => {
                position(&mut self.own.positions, slot, service)?.next_weighted(service, |_| true)
            }
            it if Plan::is_made_of_members(it) => self.look_up(service, &opening()),
            _ => self.choose(now, slot, service),
        }
    }

    /// Chooses among the candidates that are available. What is fixed for all of them is asked once.
    #[inline(never)]
    fn choose(&mut self, now: Seconds, slot: ServiceSlot, service: &Service) -> Option<BackendSlot> {
        let Self { own, team } = self;
        let team: &Team = team;
        let load = |candidate: &Candidate| team.load(candidate.backend);
        if service.is_limited {
            return own.choose(team, now, slot, service, |candidate| team.has_room(service, candidate), load);
        }
        match team.alone() {
            Some(stats) => {
                own.choose(team, now, slot, service, |_| true, |candidate| stats.loads.get(candidate.backend))
            }
            None => own.choose(team, now, slot, service, |_| true, load),
        }
    }

    /// Whether a backend of a service may have another flow.
    fn is_within_limits(&self, service: &Service, slot: BackendSlot) -> bool {
        let candidate = || service.candidates.iter().find(|candidate| candidate.backend == slot);
        !service.is_limited || candidate().is_some_and(|candidate| self.team.has_room(service, candidate))
    }

    /// The sorry backend with the least overhead for its weight.
    pub fn pick_sorry(&self, service: &Service) -> Option<BackendSlot> {
        least::weighted_connections(&service.sorry, |_| true, |it| self.team.load(it.backend))
    }

    /// The backend that a table has for a flow.
    #[inline(never)]
    fn look_up(&self, service: &Service, opening: &Opening) -> Option<BackendSlot> {
        let within_limits = |slot| self.is_within_limits(service, slot);
        match &*service.plan {
            Plan::Dh(table) => table.pick(opening, within_limits),
            Plan::Sh(table) => table.pick(opening, within_limits),
            Plan::Mh(table) => table.pick(opening, within_limits),
            Plan::Maglev(it) | Plan::Quic(_, it) => {
                it.table.pick(it.on.hash(&it.secret, opening), within_limits)
            }
            Plan::Bounded(it) => {
                let load = |slot| self.team.load(slot).flows();
                let total = service.candidates.iter().map(|candidate| load(candidate.backend)).sum();
                it.table.pick(it.on.hash(&it.secret, opening), load, total, within_limits)
            }
            Plan::None | Plan::Turns(_) | Plan::Locality(_) => None,
        }
    }
}

impl Own {
    /// Chooses among the candidates that are available.
    fn choose(
        &mut self,
        team: &Team,
        now: Seconds,
        slot: ServiceSlot,
        service: &Service,
        available: impl Fn(&Candidate) -> bool + Copy,
        load: impl Fn(&Candidate) -> Load + Copy,
    ) -> Option<BackendSlot> {
        let (candidates, plan) = (&*service.candidates, &*service.plan);
        let Self { positions, random } = self;
        match service.scheduler {
            Scheduler::Rr => position(positions, slot, service)?.next(service, available),
            Scheduler::Wrr => position(positions, slot, service)?.next_weighted(service, available),
            Scheduler::Swrr | Scheduler::DynamicRatio | Scheduler::Observed | Scheduler::Predictive => {
                position(positions, slot, service)?.next_planned(service, available)
            }
            Scheduler::Lc => least::connections(candidates, available, load),
            // Equal weights need no multiplication.
            Scheduler::Wlc if service.is_even() => least::connections(candidates, available, load),
            Scheduler::Wlc => least::weighted_connections(candidates, available, load),
            Scheduler::Sed => least::expected_delay(candidates, available, load),
            Scheduler::Nq => least::never_queue(candidates, available, load),
            Scheduler::Fo => ranked::failover(candidates, available),
            Scheduler::Ovf => ranked::overflow(candidates, available, load),
            Scheduler::Random => random.weighted(candidates, available),
            Scheduler::Twos => random.twos(candidates, available, load),
            Scheduler::P2c => random.two_choices(candidates, available, load),
            Scheduler::Lblc => plan.locality()?.one(now, candidates, available, load),
            Scheduler::Lblcr => plan.locality()?.set(now, candidates, available, load),
            Scheduler::LeastBandwidth => {
                let bytes = |it: &Candidate| team.recent_traffic(it.backend).bytes;
                measured::least_traffic(candidates, available, bytes, load)
            }
            Scheduler::LeastPackets => {
                let packets = |it: &Candidate| team.recent_traffic(it.backend).packets;
                measured::least_traffic(candidates, available, packets, load)
            }
            Scheduler::Fastest => {
                let picked = if random.below(fastest::EXPLORE) == 0 {
                    position(positions, slot, service)?.next(service, available)
                } else {
                    fastest::soonest(candidates, available, &team.times, load)
                };
                picked.inspect(|backend| team.times.ask(*backend))
            }
            Scheduler::Dh
            | Scheduler::Sh
            | Scheduler::Mh
            | Scheduler::Maglev
            | Scheduler::Bounded
            | Scheduler::Quic => None,
        }
    }
}

/// The position in a service.
#[inline]
fn position<'a>(
    positions: &'a mut [round_robin::Position],
    slot: ServiceSlot,
    service: &Service,
) -> Option<&'a mut round_robin::Position> {
    Some(positions.get_mut(usize::from(slot.0))?.of(service))
}

//! Choosing the backend of a new flow, one family of schedulers a file.
//!
//! A choice neither allocates nor locks. Each worker keeps its own position in every service; what counts is read
//! of all workers. What a scheduler needs besides is made with the service ([`Plan`]), when its backends change.

mod bounded;
mod cost;
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
mod quotient;
mod random;
mod ranked;
mod round_robin;
mod sight;
pub mod table;
#[cfg(test)]
mod tests;
mod total;

use std::sync::Arc;

use config::words::Scheduler;

use crate::clock::Seconds;
use crate::forward::Setup;
use crate::prefetch::prefetch;
use crate::snapshot::{BackendSlot, Candidate, Service, ServiceSlot};
use crate::team::Team;
use bounded::Bounded;
use hash::Opening;
pub use plan::{Ingredients, Plan};
use random::Random;
use sight::{Alone, Sight};
use total::Counted;

/// How one worker chooses.
pub struct Schedulers {
    own: Own,
    team: Arc<Team>,
}

/// What is the worker's own.
struct Own {
    /// Positions in all services, by slot.
    positions: Box<[round_robin::Position]>,
    /// How many flows services had when they were counted last, by slot.
    totals: Box<[Counted]>,
    random: Random,
}

impl Schedulers {
    /// The schedulers of a worker that is set up so.
    pub fn new(setup: &Setup) -> Self {
        let positions = vec![round_robin::Position::default(); setup.services].into();
        let totals = vec![Counted::default(); setup.services].into();
        let random = Random::new(setup.secret.0[0] ^ setup.number as u64);
        Self { own: Own { positions, totals, random }, team: Arc::clone(&setup.team) }
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
    // Always, for a call would show.
    #[inline(always)]
    pub fn pick(
        &mut self,
        now: Seconds,
        slot: ServiceSlot,
        service: &Service,
        opening: impl Fn() -> Opening,
    ) -> Option<BackendSlot> {
        // The most common ones come first, and without a call, too.
        match service.scheduler {
            Scheduler::Rr if !service.is_limited => {
                position(&mut self.own.positions, slot, service)?.next(service, |_| true)
            }
            Scheduler::Wrr if !service.is_limited => {
                position(&mut self.own.positions, slot, service)?.next_weighted(service, |_| true)
            }
            it if Plan::is_made_of_members(it) => self.look_up(slot, service, &opening()),
            Scheduler::Lc | Scheduler::Wlc | Scheduler::Sed | Scheduler::Nq => self.least(service),
            Scheduler::LeastBandwidth | Scheduler::LeastPackets => self.least_traffic(service),
            _ => self.choose(now, slot, service),
        }
    }

    /// Chooses among the candidates that are available. What is fixed for all of them is asked once.
    #[inline]
    fn choose(&mut self, now: Seconds, slot: ServiceSlot, service: &Service) -> Option<BackendSlot> {
        let Self { own, team } = self;
        if service.is_limited {
            own.choose::<&Team, true>(team, now, slot, service)
        } else if let Some(alone) = Alone::of(team) {
            own.choose::<Alone, false>(alone, now, slot, service)
        } else {
            own.choose::<&Team, false>(team, now, slot, service)
        }
    }

    /// The sorry backend with the least overhead for its weight.
    pub fn pick_sorry(&self, service: &Service) -> Option<BackendSlot> {
        least::weighted_connections(&service.sorry, |_| true, |it| self.team.load(it.backend))
    }

    /// The backend with the least to do.
    #[inline(never)]
    fn least(&self, service: &Service) -> Option<BackendSlot> {
        let team = &*self.team;
        if service.is_limited {
            let has_room = |it: &Candidate| team.has_room(service, it);
            least::of_available(service, has_room, |it| team.load(it.backend))
        } else if let Some(alone) = Alone::of(team) {
            least::of_all(service, alone.loads())
        } else {
            self.least_of_team(service)
        }
    }

    /// The same, as all workers see it.
    #[inline(never)]
    fn least_of_team(&self, service: &Service) -> Option<BackendSlot> {
        least::of_all(service, |slot| self.team.load(slot))
    }

    /// The backend with the least traffic.
    #[inline(never)]
    fn least_traffic(&self, service: &Service) -> Option<BackendSlot> {
        let alone = Alone::of(&self.team).filter(|_| !service.is_limited);
        let sure = alone.and_then(|alone| match service.scheduler {
            Scheduler::LeastBandwidth => measured::least_of_some(service, alone.recent_bytes()),
            _ => measured::least_of_some(service, alone.recent_packets()),
        });
        if sure.is_some() { sure } else { self.least_traffic_of_team(service) }
    }

    /// The same, as all workers see it, of a service with limits or without.
    #[inline(never)]
    fn least_traffic_of_team(&self, service: &Service) -> Option<BackendSlot> {
        let team = &*self.team;
        let available = |it: &Candidate| !service.is_limited || team.has_room(service, it);
        let traffic = |it: &Candidate| match service.scheduler {
            Scheduler::LeastBandwidth => team.recent_traffic(it.backend).bytes,
            _ => team.recent_traffic(it.backend).packets,
        };
        measured::least_traffic(&service.candidates, available, traffic, |it| team.load(it.backend))
    }

    /// The backend that a table has for a flow.
    #[inline(never)]
    fn look_up(&mut self, slot: ServiceSlot, service: &Service, opening: &Opening) -> Option<BackendSlot> {
        let Self { own, team } = self;
        let within_limits = |slot| is_within_limits(team, service, slot);
        match &*service.plan {
            Plan::Dh(table) => table.pick(opening, within_limits),
            Plan::Sh(table) => table.pick(opening, within_limits),
            Plan::Mh(table) => table.pick(opening, within_limits),
            Plan::Maglev(it) | Plan::Quic(_, it) => {
                it.table.pick(it.on.hash(&it.keys, opening), within_limits)
            }
            Plan::Bounded(it) => {
                let counted = own.totals.get_mut(usize::from(slot.0))?;
                let hash = it.on.hash(&it.keys, opening);
                match Alone::of(team) {
                    Some(sight) if !service.is_limited => bounded(&it.table, hash, service, counted, sight),
                    _ => bounded_anew(&it.table, hash, service, counted, team.as_ref(), within_limits),
                }
            }
            Plan::None | Plan::Turns(_) | Plan::Divisors(_) | Plan::Lots(_) | Plan::Locality(_) => None,
        }
    }
}

impl Own {
    /// Chooses among the candidates that are available.
    #[inline(never)]
    fn choose<'a, S: Sight<'a>, const LIMITED: bool>(
        &mut self,
        sight: S,
        now: Seconds,
        slot: ServiceSlot,
        service: &Service,
    ) -> Option<BackendSlot> {
        let team = sight.team();
        let available = |it: &Candidate| !LIMITED || team.has_room(service, it);
        let loads = sight.loads();
        let load = move |it: &Candidate| loads(it.backend);
        let (candidates, plan) = (&*service.candidates, &*service.plan);
        let Self { positions, random, .. } = self;
        match service.scheduler {
            Scheduler::Rr => position(positions, slot, service)?.next(service, available),
            Scheduler::Wrr => position(positions, slot, service)?.next_weighted(service, available),
            Scheduler::Swrr | Scheduler::DynamicRatio | Scheduler::Observed | Scheduler::Predictive => {
                position(positions, slot, service)?.next_planned(service, available)
            }
            Scheduler::Fo => ranked::failover(candidates, available),
            Scheduler::Ovf => ranked::overflow(candidates, available, load),
            // Lots are for all candidates.
            Scheduler::Random => match plan.lots().filter(|_| !LIMITED) {
                Some(lots) => random.draw(lots, candidates).map(|it| it.backend),
                None => random.weighted(candidates, available),
            },
            Scheduler::Twos => match plan.lots().filter(|_| !LIMITED) {
                Some(lots) => random.draw_twos(lots, candidates, load),
                None => random.twos(candidates, available, load),
            },
            Scheduler::P2c => random.two_choices(candidates, available, load),
            Scheduler::Lblc => plan.locality()?.one(now, candidates, available, load),
            Scheduler::Lblcr => plan.locality()?.set(now, candidates, available, load),
            Scheduler::Fastest => {
                let picked = if random.below(fastest::EXPLORE) == 0 {
                    position(positions, slot, service)?.next(service, available)
                } else {
                    fastest::soonest(candidates, available, &team.times, load)
                };
                picked.inspect(|backend| team.times.ask(*backend))
            }
            Scheduler::Lc
            | Scheduler::Wlc
            | Scheduler::Sed
            | Scheduler::Nq
            | Scheduler::LeastBandwidth
            | Scheduler::LeastPackets
            | Scheduler::Dh
            | Scheduler::Sh
            | Scheduler::Mh
            | Scheduler::Maglev
            | Scheduler::Bounded
            | Scheduler::Quic => None,
        }
    }
}

/// The backend that a table with bounded loads has for a hash, of a service without limits.
#[inline(always)]
fn bounded<'a>(
    table: &Bounded,
    hash: u64,
    service: &Service,
    counted: &mut Counted,
    sight: impl Sight<'a>,
) -> Option<BackendSlot> {
    let loads = sight.loads();
    let range = counted.range(service, sight.changes());
    let sure = range.and_then(|range| table.pick_surely(hash, |slot| loads(slot).flows(), range));
    if sure.is_some() { sure } else { bounded_anew(table, hash, service, counted, sight, |_| true) }
}

/// The same, if all backends may have to be looked at for their flows.
#[inline(never)]
fn bounded_anew<'a>(
    table: &Bounded,
    hash: u64,
    service: &Service,
    counted: &mut Counted,
    sight: impl Sight<'a>,
    available: impl Fn(BackendSlot) -> bool,
) -> Option<BackendSlot> {
    let loads = sight.loads();
    let load = |slot| loads(slot).flows();
    let count = || service.candidates.iter().map(|it| load(it.backend)).sum();
    table.pick(hash, load, &mut counted.total(service, sight.changes(), count), available)
}

/// Whether a backend of a service may have another flow.
fn is_within_limits(team: &Team, service: &Service, slot: BackendSlot) -> bool {
    let candidate = || service.candidates.iter().find(|candidate| candidate.backend == slot);
    !service.is_limited || candidate().is_some_and(|candidate| team.has_room(service, candidate))
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

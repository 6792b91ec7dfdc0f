//! The backend with the least to do: least connection, shortest expected delay, never queue.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c and ip_vs_nq.c. Of equal ones the first in
//! the list is chosen.

use std::hint::select_unpredictable;

use config::words::Scheduler;

use super::cost::{self, Cost, Delay, Overhead, Queue};
use super::quotient;
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate, Service};

/// The choice among all candidates of a service that chooses by what they have to do.
#[inline(always)]
pub(super) fn of_all(service: &Service, load: impl Fn(BackendSlot) -> Load + Copy) -> Option<BackendSlot> {
    match service.scheduler {
        Scheduler::Lc => cheapest_of_all(&service.candidates, load, Overhead),
        Scheduler::Wlc => weighed(service, load, Overhead),
        Scheduler::Sed => weighed(service, load, Delay),
        Scheduler::Nq => weighed(service, load, Queue),
        _ => None,
    }
}

/// The same among those that are available.
#[inline(never)]
pub(super) fn of_available(
    service: &Service,
    available: impl Fn(&Candidate) -> bool + Copy,
    load: impl Fn(&Candidate) -> Load + Copy,
) -> Option<BackendSlot> {
    let candidates = &service.candidates;
    match service.scheduler {
        Scheduler::Lc => cheapest(candidates, available, |it| Overhead.of(load(it))),
        Scheduler::Wlc => crosswise(candidates, available, |it| Overhead.of(load(it))),
        Scheduler::Sed => crosswise(candidates, available, |it| Delay.of(load(it))),
        Scheduler::Nq => crosswise(candidates, available, |it| Queue.of(load(it))),
        _ => None,
    }
}

/// The candidate with the least overhead for its weight.
#[inline]
pub(super) fn weighted_connections(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    crosswise(candidates, available, |it| Overhead.of(load(it)))
}

/// The candidate of a service whose cost for its weight is the least.
#[inline(always)]
fn weighed<C: Cost>(
    service: &Service,
    load: impl Fn(BackendSlot) -> Load + Copy,
    cost: C,
) -> Option<BackendSlot> {
    let candidates = &service.candidates;
    if service.is_even() {
        return cheapest_of_all(candidates, load, cost);
    }
    let sure = service.plan.divisors().and_then(|divisors| divisors.least(candidates, load, cost));
    sure.or_else(|| crosswise(candidates, |_| true, |it| cost.of(load(it.backend))))
}

/// The candidate whose cost is the least.
#[inline(always)]
fn cheapest_of_all<C: Cost>(
    candidates: &[Candidate],
    load: impl Fn(BackendSlot) -> Load + Copy,
    cost: C,
) -> Option<BackendSlot> {
    let sure = quotient::least(candidates, load, cost);
    sure.or_else(|| cheapest(candidates, |_| true, |it| cost.of(load(it.backend))))
}

/// The first available candidate whose cost is the least, however many there are.
#[inline(never)]
fn cheapest(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> u64,
) -> Option<BackendSlot> {
    candidates.iter().filter(|it| available(it)).min_by_key(|it| cost(it)).map(|it| it.backend)
}

/// The first candidate whose cost for its weight is the least, whatever the weights and the costs. Which is less cannot be
/// foreseen, so nothing jumps.
#[inline(never)]
fn crosswise(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> u64,
) -> Option<BackendSlot> {
    // More than anyone's cost for its weight.
    const NONE: Bid = Bid { backend: BackendSlot::NONE, cost: cost::MOST, weight: 1 };
    let bid = |candidate: &Candidate| {
        let weight = u64::from(candidate.weight).min(MOST_WEIGHT);
        if available(candidate) {
            Bid { backend: candidate.backend, cost: cost(candidate), weight }
        } else {
            NONE
        }
    };
    let (pairs, rest) = candidates.as_chunks::<2>();
    let best = pairs.iter().fold(NONE, |best, [one, other]| best.or(bid(one).or(bid(other))));
    let best = rest.iter().fold(best, |best, last| best.or(bid(last)));
    (best.backend != BackendSlot::NONE).then_some(best.backend)
}

/// A candidate, its cost and its weight.
#[derive(Clone, Copy)]
struct Bid {
    backend: BackendSlot,
    cost: u64,
    weight: u64,
}

impl Bid {
    /// The one with less cost for its weight; of equal ones the first.
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        let is_less = other.cost * self.weight < self.cost * other.weight;
        Self {
            backend: select_unpredictable(is_less, other.backend, self.backend),
            cost: select_unpredictable(is_less, other.cost, self.cost),
            weight: select_unpredictable(is_less, other.weight, self.weight),
        }
    }
}

/// A product with a cost fits 64 bits. Weights are at most: 65,535 in a slow start, which multiplies all by 100, are.
const MOST_WEIGHT: u64 = (1 << 23) - 1;

#[inline]
pub(super) fn times(cost: u64, weight: u32) -> u128 {
    u128::from(cost) * u128::from(weight)
}

#[cfg(test)]
mod tests {
    use super::super::Plan;
    use super::super::quotient::Divisors;
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    /// A service of backends with these weights, in slots 0, 1, ...
    fn service(scheduler: Scheduler, weights: &[u32]) -> Service {
        let weights: Vec<_> = (0..).zip(weights.iter().copied()).collect();
        let service = testing::service("tcp:192.0.2.100:80", &weights);
        let plan = Plan::Divisors(Divisors::new(&service.candidates)).into();
        Service { scheduler, plan, ..service }
    }

    /// The letter of the choice among backends A, B, ... with these weights, active and inactive connections.
    fn choice(scheduler: Scheduler, backends: &[(u32, u32, u32)]) -> char {
        let service = service(scheduler, &backends.iter().map(|it| it.0).collect::<Vec<_>>());
        let load = |slot: BackendSlot| {
            let (_, active, inactive) = backends[slot.0 as usize];
            Load::new(active, inactive)
        };
        let chosen = of_all(&service, load);
        assert_eq!(chosen, of_available(&service, |_| true, |it| load(it.backend)), "{backends:?}");
        chosen.map_or('-', |slot| char::from(b'A' + slot.0 as u8))
    }

    #[test]
    fn lc_weighs_an_active_connection_as_257_inactive_ones() {
        assert_eq!(choice(Scheduler::Lc, &[(1, 1, 0), (1, 0, 256)]), 'B');
        assert_eq!(choice(Scheduler::Lc, &[(1, 1, 0), (1, 0, 257)]), 'A', "of equal ones the first");
        assert_eq!(choice(Scheduler::Lc, &[(1, 1, 0), (1, 0, 258)]), 'A');
        assert_eq!(choice(Scheduler::Lc, &[(1, 2, 0), (100, 1, 1)]), 'B');
        assert_eq!(choice(Scheduler::Lc, &[]), '-');
    }

    #[test]
    fn wlc_divides_by_weight() {
        assert_eq!(choice(Scheduler::Wlc, &[(1, 1, 0), (3, 2, 0)]), 'B');
        assert_eq!(choice(Scheduler::Wlc, &[(1, 1, 0), (2, 2, 0)]), 'A', "of equal ones the first");
        assert_eq!(choice(Scheduler::Wlc, &[(1, 0, 0), (9, 0, 0)]), 'A');
        let most = u32::MAX;
        assert_eq!(
            choice(Scheduler::Wlc, &[(6_553_500, most, most), (6_553_499, most, most)]),
            'A',
            "nothing overflows"
        );
        assert_eq!(choice(Scheduler::Wlc, &[(6_553_500, most, most), (1, most, most)]), 'A');
    }

    #[test]
    fn sed_counts_the_connection_that_comes_and_no_inactive_ones() {
        assert_eq!(choice(Scheduler::Sed, &[(1, 0, 0), (3, 1, 900)]), 'B');
        assert_eq!(choice(Scheduler::Sed, &[(1, 0, 0), (3, 2, 0)]), 'A', "1 / 1 and 3 / 3");
    }

    #[test]
    fn nq_prefers_who_has_nothing_to_do() {
        assert_eq!(choice(Scheduler::Nq, &[(9, 1, 0), (1, 0, 50), (5, 0, 0)]), 'B');
        assert_eq!(choice(Scheduler::Nq, &[(9, 1, 0), (1, 1, 0)]), 'A');
    }

    #[test]
    fn thousands_of_backends_are_all_looked_at() {
        for scheduler in [Scheduler::Lc, Scheduler::Wlc, Scheduler::Sed] {
            for heavy in [1, 2] {
                let mut weights = vec![1; 3001];
                weights[7] = heavy;
                let service = service(scheduler, &weights);
                let chosen = of_all(&service, |slot| Load::new(u32::from(slot.0 != 3000) * 5, 0));
                assert_eq!(chosen, Some(BackendSlot(3000)), "{scheduler} {heavy}");
            }
        }
    }

    /// A scheduler, its costs, and whether these are for weights.
    type Rule = (Scheduler, fn(Load) -> u64, bool);

    /// Weights that are alike, that have small common multiples, and that have none.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        let of = |most: u32| prop::collection::vec(1..=most, 1..20);
        prop_oneof![of(1), of(9), of(200), of(1200), of(65_535), of(6_553_500)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 4096 }))]
        #[test]
        fn whatever_is_known_of_weights_the_choice_is_the_same(
            weights in weights(),
            loads in prop::collection::vec((any::<u32>(), any::<u32>(), 0u32..32), 20),
            away in prop::collection::vec(prop::bool::weighted(0.2), 20),
        ) {
            // Of all sizes, small ones too, so that some are equal for their weights.
            let load = |slot: BackendSlot| {
                let (active, inactive, shift) = loads[slot.0 as usize];
                Load::new(active >> shift, inactive >> shift)
            };
            let cases: [Rule; 4] = [
                (Scheduler::Lc, |load| load.active() * 257 + load.inactive(), false),
                (Scheduler::Wlc, |load| load.active() * 257 + load.inactive(), true),
                (Scheduler::Sed, |load| load.active() + 1, true),
                (Scheduler::Nq, |load| load.active() + u64::from(load.active() > 0), true),
            ];
            for (scheduler, cost, weighed) in cases {
                let weight = |slot: BackendSlot| if weighed { weights[slot.0 as usize] } else { 1 };
                let costs = |one, other| times(cost(load(one)), weight(other));
                let least = |slots: &mut dyn Iterator<Item = BackendSlot>| {
                    slots.min_by(|one, other| costs(*one, *other).cmp(&costs(*other, *one)))
                };
                let mut slots = (0..weights.len() as u32).map(BackendSlot);
                let service = service(scheduler, &weights);
                prop_assert_eq!(of_all(&service, load), least(&mut slots.clone()), "{}", scheduler);
                let there = |slot: &BackendSlot| !away[slot.0 as usize];
                let chosen = of_available(&service, |it| there(&it.backend), |it| load(it.backend));
                prop_assert_eq!(chosen, least(&mut slots.by_ref().filter(there)), "{}", scheduler);
            }
        }
    }
}

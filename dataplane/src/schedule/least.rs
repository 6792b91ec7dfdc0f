//! The backend with the least to do: least connection, shortest expected delay, never queue.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c and ip_vs_nq.c. Of equal ones the first in
//! the list is chosen.

use std::hint::select_unpredictable;

use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate, Service, gcd};

/// What IPVS takes for the work of a backend: an active connection counts as much as 257 inactive ones. That is what
/// the kernel does; its comment says 256.
#[inline]
pub(super) fn overhead(load: Load) -> u64 {
    load.flows() + (load.active() << 8)
}

/// `lc`: least overhead, whatever the weights.
pub(super) fn connections(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    cheapest(candidates, available, move |candidate| overhead(load(candidate)))
}

/// `wlc`: least overhead for its weight.
#[inline(always)]
pub(super) fn weighted_connections(
    weighed: Weighed,
    available: impl Fn(&Candidate) -> bool + Copy,
    load: impl Fn(&Candidate) -> Load + Copy,
) -> Option<BackendSlot> {
    weighed.least(available, move |candidate| overhead(load(candidate)))
}

/// `sed`: least active connections for its weight, with the one that comes.
#[inline(always)]
pub(super) fn expected_delay(
    weighed: Weighed,
    available: impl Fn(&Candidate) -> bool + Copy,
    load: impl Fn(&Candidate) -> Load + Copy,
) -> Option<BackendSlot> {
    weighed.least(available, move |candidate| load(candidate).active() + 1)
}

/// `nq`: the first one without active connections; if there is none, as [`expected_delay`].
#[inline(always)]
pub(super) fn never_queue(
    weighed: Weighed,
    available: impl Fn(&Candidate) -> bool + Copy,
    load: impl Fn(&Candidate) -> Load + Copy,
) -> Option<BackendSlot> {
    // Nothing is less than nothing, for any weight.
    weighed.least(available, move |candidate| {
        let active = load(candidate).active();
        active + u64::from(active > 0)
    })
}

/// Candidates whose costs are weighed.
#[derive(Clone, Copy)]
pub(super) struct Weighed<'a> {
    candidates: &'a [Candidate],
    is_even: bool,
    factors: Option<&'a Factors>,
}

impl<'a> Weighed<'a> {
    /// Those of a service.
    #[inline]
    pub(super) fn of(service: &'a Service) -> Self {
        let factors = service.plan.factors();
        Self { candidates: &service.candidates, is_even: service.is_even(), factors }
    }

    /// Any, of which nothing is known.
    #[inline]
    pub(super) fn any(candidates: &'a [Candidate]) -> Self {
        Self { candidates, is_even: false, factors: None }
    }

    /// The first candidate whose cost for its weight is the least.
    #[inline(always)]
    fn least(
        self,
        available: impl Fn(&Candidate) -> bool + Copy,
        cost: impl Fn(&Candidate) -> u64 + Copy,
    ) -> Option<BackendSlot> {
        match self.factors {
            _ if self.is_even => cheapest(self.candidates, available, cost),
            Some(factors) => {
                let sure = factors.least(self.candidates, available, cost);
                sure.or_else(|| crosswise(self.candidates, available, cost))
            }
            None => crosswise(self.candidates, available, cost),
        }
    }
}

/// Weights as factors, so that a cost for its weight is one number, which waits for no other candidate's: what a common
/// multiple of all weights is of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// Bits that no cost may have, for all products to fit 64.
    too_large: u64,
    /// By candidate.
    factors: Box<[u64]>,
}

impl Factors {
    /// Bits of a factor at most, so that costs of 20 bits fit at least: 4,000 active flows of one backend.
    const MOST_BITS: u32 = 44;

    /// The factors of candidates' weights; none if these have no common multiple that is small enough. Weights up to 20 have
    /// one of 28 bits.
    pub(super) fn new(candidates: &[Candidate]) -> Option<Self> {
        let weights = || candidates.iter().map(|it| it.weight.max(1));
        let least = weights().min()?;
        let multiple = weights().try_fold(1u64, |multiple, weight| {
            // The rest is less than the weight, which has 32 bits.
            let common = gcd(weight, (multiple % u64::from(weight)) as u32);
            multiple.checked_mul(u64::from(weight / common))
        })?;
        let bits = u64::BITS - (multiple / u64::from(least)).leading_zeros();
        let factors = weights().map(|weight| multiple / u64::from(weight)).collect();
        (bits <= Self::MOST_BITS).then(|| Self { too_large: !(u64::MAX >> bits), factors })
    }

    /// The first candidate whose cost for its weight is the least; none, too, if a cost is too large to tell.
    #[inline(always)]
    fn least(
        &self,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool,
        cost: impl Fn(&Candidate) -> u64,
    ) -> Option<BackendSlot> {
        let bid = |candidate: &Candidate, factor: &u64| {
            let cost = cost(candidate);
            (
                cost,
                if available(candidate) { (candidate.backend, cost.wrapping_mul(*factor)) } else { NOBODY },
            )
        };
        let (mut best, mut bits) = (NOBODY, 0);
        let (pairs, rest) = candidates.as_chunks::<2>();
        let (their_factors, its_factor) = self.factors.as_chunks::<2>();
        for ([one, other], [its, others]) in pairs.iter().zip(their_factors) {
            let ((cost, one), (other_cost, other)) = (bid(one, its), bid(other, others));
            bits |= cost | other_cost;
            best = lower(best, lower(one, other));
        }
        if let ([last], [its]) = (rest, its_factor) {
            let (cost, last) = bid(last, its);
            bits |= cost;
            best = lower(best, last);
        }
        let (best, _) = best;
        (bits & self.too_large == 0 && best != BackendSlot::NONE).then_some(best)
    }
}

/// The bid of one who is not available; all costs are less.
const NOBODY: (BackendSlot, u64) = (BackendSlot::NONE, u64::MAX);

/// The first candidate whose cost is the least.
#[inline]
fn cheapest(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> u64,
) -> Option<BackendSlot> {
    let bid = |candidate: &Candidate| {
        if available(candidate) { (candidate.backend, cost(candidate)) } else { NOBODY }
    };
    // Neighbours first, so that only half of the comparisons wait for the one before.
    let (pairs, rest) = candidates.as_chunks::<2>();
    let best = pairs.iter().fold(NOBODY, |best, [one, other]| lower(best, lower(bid(one), bid(other))));
    let (best, _) = rest.iter().fold(best, |best, last| lower(best, bid(last)));
    (best != BackendSlot::NONE).then_some(best)
}

/// The candidate whose cost is the least; of equal ones that with the fewest flows, and of those the first.
#[inline]
pub(super) fn cheapest_then_idlest(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> u64,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    // What is measured changes little from one choice to the next, so that jumps are foreseen; and flows are seldom
    // asked for.
    let (mut best, mut least): (Option<&Candidate>, u64) = (None, u64::MAX);
    for candidate in candidates.iter().filter(|candidate| available(candidate)) {
        let cost = cost(candidate);
        if cost <= least {
            let is_idler = |best| load(candidate).flows() < load(best).flows();
            if cost < least || best.is_none_or(is_idler) {
                (best, least) = (Some(candidate), cost);
            }
        }
    }
    best.map(|candidate| candidate.backend)
}

/// The one with less cost; of equal ones the first. Which has less cannot be foreseen, so nothing jumps.
#[inline]
fn lower(one: (BackendSlot, u64), other: (BackendSlot, u64)) -> (BackendSlot, u64) {
    let is_less = other.1 < one.1;
    (select_unpredictable(is_less, other.0, one.0), select_unpredictable(is_less, other.1, one.1))
}

/// The first candidate whose cost for its weight is the least, whatever the weights and the costs.
#[inline(never)]
fn crosswise(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> u64,
) -> Option<BackendSlot> {
    // More than anyone's cost for its weight.
    const NONE: Bid = Bid { backend: BackendSlot::NONE, cost: MOST, weight: 1 };
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

/// More than any cost, so that its product with a weight fits 64 bits.
const MOST: u64 = 1 << 41;
/// Weights are at most: 65,535 in a slow start, which multiplies all by 100, are.
const MOST_WEIGHT: u64 = (1 << 23) - 1;

#[inline]
pub(super) fn times(cost: u64, weight: u32) -> u128 {
    u128::from(cost) * u128::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Choose = fn(&[Candidate], &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot>;

    /// The letter of the choice among backends A, B, ... with these weights, active and inactive connections.
    fn choice(choose: Choose, backends: &[(u32, u32, u32)]) -> char {
        let candidates: Vec<_> = backends
            .iter()
            .enumerate()
            .map(|(slot, &(weight, ..))| Candidate::new(BackendSlot(slot as u32), weight))
            .collect();
        let load = |candidate: &Candidate| {
            let (_, active, inactive) = backends[candidate.backend.0 as usize];
            Load::new(active, inactive)
        };
        choose(&candidates, &load).map_or('-', |slot| char::from(b'A' + slot.0 as u8))
    }

    fn lc(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        connections(candidates, |_| true, load)
    }

    fn wlc(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        weighted_connections(Weighed::any(candidates), |_| true, load)
    }

    fn sed(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        expected_delay(Weighed::any(candidates), |_| true, load)
    }

    fn nq(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        never_queue(Weighed::any(candidates), |_| true, load)
    }

    #[test]
    fn lc_weighs_an_active_connection_as_257_inactive_ones() {
        assert_eq!(choice(lc, &[(1, 1, 0), (1, 0, 256)]), 'B');
        assert_eq!(choice(lc, &[(1, 1, 0), (1, 0, 257)]), 'A', "of equal ones the first");
        assert_eq!(choice(lc, &[(1, 1, 0), (1, 0, 258)]), 'A');
        assert_eq!(choice(lc, &[(1, 2, 0), (100, 1, 1)]), 'B');
        assert_eq!(choice(lc, &[]), '-');
    }

    #[test]
    fn wlc_divides_by_weight() {
        assert_eq!(choice(wlc, &[(1, 1, 0), (3, 2, 0)]), 'B');
        assert_eq!(choice(wlc, &[(1, 1, 0), (2, 2, 0)]), 'A', "of equal ones the first");
        assert_eq!(choice(wlc, &[(1, 0, 0), (9, 0, 0)]), 'A');
        let most = u32::MAX;
        assert_eq!(
            choice(wlc, &[(6_553_500, most, most), (6_553_499, most, most)]),
            'A',
            "nothing overflows"
        );
        assert_eq!(choice(wlc, &[(most, most, most), (1, most, most)]), 'A');
    }

    #[test]
    fn sed_counts_the_connection_that_comes_and_no_inactive_ones() {
        assert_eq!(choice(sed, &[(1, 0, 0), (3, 1, 900)]), 'B');
        assert_eq!(choice(sed, &[(1, 0, 0), (3, 2, 0)]), 'A', "1 / 1 and 3 / 3");
    }

    #[test]
    fn nq_prefers_who_has_nothing_to_do() {
        assert_eq!(choice(nq, &[(9, 1, 0), (1, 0, 50), (5, 0, 0)]), 'B');
        assert_eq!(choice(nq, &[(9, 1, 0), (1, 1, 0)]), 'A');
    }

    #[test]
    fn whoever_is_not_available_is_not_chosen() {
        let candidates = [Candidate::new(BackendSlot(0), 1), Candidate::new(BackendSlot(1), 1)];
        let second = |candidate: &Candidate| candidate.backend.0 == 1;
        let load = |candidate: &Candidate| Load::new(candidate.backend.0 * 9, 0);
        for choice in [
            connections(&candidates, second, load),
            weighted_connections(Weighed::any(&candidates), second, load),
            expected_delay(Weighed::any(&candidates), second, load),
            never_queue(Weighed::any(&candidates), second, load),
        ] {
            assert_eq!(choice, Some(BackendSlot(1)));
        }
        assert_eq!(never_queue(Weighed::any(&candidates), |_| false, load), None);
    }

    /// Weights whose factors are exact for all costs, and those for which there are none.
    fn weights() -> impl Strategy<Value = Vec<u32>> {
        let of = |most: u32| prop::collection::vec(1..=most, 1..20);
        prop_oneof![
            of(1),
            of(9),
            of(200),
            of(1200),
            of(60_000),
            of(20).prop_map(|it| it.iter().map(|w| w * 700).collect())
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 4096 }))]
        #[test]
        fn whatever_is_known_of_weights_the_choice_is_the_same(
            weights in weights(),
            loads in prop::collection::vec((any::<u32>(), any::<u32>(), 0u32..32), 20),
            away in prop::collection::vec(prop::bool::weighted(0.2), 20),
        ) {
            let candidates: Vec<_> =
                weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect();
            // Of all sizes, small ones too, so that some are equal for their weights.
            let load = |it: &Candidate| {
                let (active, inactive, shift) = loads[it.backend.0 as usize];
                Load::new(active >> shift, inactive >> shift)
            };
            let available = |it: &Candidate| !away[it.backend.0 as usize];
            let by_definition = |cost: &dyn Fn(Load) -> u64| {
                let there = candidates.iter().filter(|it| available(it));
                there.map(|it| it.backend).min_by(|one, other| {
                    let (one, other) = (&candidates[one.0 as usize], &candidates[other.0 as usize]);
                    times(cost(load(one)), other.weight).cmp(&times(cost(load(other)), one.weight))
                })
            };
            let is_even = weights.iter().all(|it| *it == weights[0]);
            let factors = Factors::new(&candidates);
            let weighed = Weighed { candidates: &candidates, is_even, factors: factors.as_ref() };
            prop_assert_eq!(weighted_connections(weighed, available, load), by_definition(&overhead));
            let expected = by_definition(&|load| load.active() + 1);
            prop_assert_eq!(expected_delay(weighed, available, load), expected);
            let idle = candidates.iter().find(|it| available(it) && load(it).active() == 0);
            let expected = idle.map(|it| it.backend).or(expected);
            prop_assert_eq!(never_queue(weighed, available, load), expected);
        }
    }

    #[test]
    fn usual_weights_have_factors() {
        let has = |weights: &[u32]| {
            let candidate = |&weight: &u32| Candidate::new(BackendSlot(0), weight);
            Factors::new(&weights.iter().map(candidate).collect::<Vec<_>>()).is_some()
        };
        // The largest ones in a slow start, too, which multiplies all by 100.
        assert!(has(&(1..=20).collect::<Vec<_>>()) && has(&[100, 250, 1000]) && has(&[6_553_400, 6_553_500]));
        assert!(!has(&[65_535, 65_534, 65_533, 65_531]) && !has(&[]));
    }
}

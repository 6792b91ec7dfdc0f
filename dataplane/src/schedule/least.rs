//! The backend with the least to do: least connection, shortest expected delay, never queue.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c and ip_vs_nq.c. Of equal ones the first in
//! the list is chosen.

use std::hint::select_unpredictable;

use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// What IPVS takes for the work of a backend: an active connection counts as much as 257 inactive ones. That is what
/// the kernel does; its comment says 256.
#[inline]
pub(super) fn overhead(load: Load) -> u64 {
    (load.active() << 8) + load.flows()
}

/// `lc`: least overhead, whatever the weights.
pub(super) fn connections(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    least(candidates, available, |candidate| (overhead(load(candidate)), 1))
}

/// `wlc`: least overhead for its weight.
pub(super) fn weighted_connections(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    least(candidates, available, |candidate| (overhead(load(candidate)), candidate.weight))
}

/// `sed`: least active connections for its weight, with the one that comes.
pub(super) fn expected_delay(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    least(candidates, available, |candidate| (load(candidate).active() + 1, candidate.weight))
}

/// `nq`: the first one without active connections; if there is none, as [`expected_delay`].
pub(super) fn never_queue(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool + Copy,
    load: impl Fn(&Candidate) -> Load + Copy,
) -> Option<BackendSlot> {
    let idle = candidates.iter().find(|it| available(it) && load(it).active() == 0);
    idle.map(|it| it.backend).or_else(|| expected_delay(candidates, available, load))
}

/// The first candidate whose cost for its weight is the least.
#[inline]
pub(super) fn least(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    cost: impl Fn(&Candidate) -> (u64, u32),
) -> Option<BackendSlot> {
    // More than anyone's cost for its weight.
    let (mut best, mut least, mut its_weight) = (BackendSlot::NONE, MOST, 1);
    for candidate in candidates.iter().filter(|candidate| available(candidate)) {
        let (cost, weight) = cost(candidate);
        let (cost, weight) = (cost.min(MOST - 1), u64::from(weight).min(MOST_WEIGHT));
        // cost / weight < least / its_weight. Which of two has less cannot be foreseen, so nothing jumps.
        let is_less = cost * its_weight < least * weight;
        best = select_unpredictable(is_less, candidate.backend, best);
        least = select_unpredictable(is_less, cost, least);
        its_weight = select_unpredictable(is_less, weight, its_weight);
    }
    (best != BackendSlot::NONE).then_some(best)
}

/// Costs are below, so that their products with weights fit 64 bits: two billion active flows of one backend are.
const MOST: u64 = 1 << 39;
/// Weights are at most: 65,535 in a slow start, which multiplies all by 100, are.
const MOST_WEIGHT: u64 = (1 << 25) - 1;

#[inline]
pub(super) fn times(cost: u64, weight: u32) -> u128 {
    u128::from(cost) * u128::from(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        weighted_connections(candidates, |_| true, load)
    }

    fn sed(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        expected_delay(candidates, |_| true, load)
    }

    fn nq(candidates: &[Candidate], load: &dyn Fn(&Candidate) -> Load) -> Option<BackendSlot> {
        never_queue(candidates, |_| true, load)
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
            weighted_connections(&candidates, second, load),
            expected_delay(&candidates, second, load),
            never_queue(&candidates, second, load),
        ] {
            assert_eq!(choice, Some(BackendSlot(1)));
        }
        assert_eq!(never_queue(&candidates, |_| false, load), None);
    }
}

//! The backend with the least traffic of late: least bandwidth, least packets.
//!
//! What is weighed are counters less what they were two to three seconds ago, so that a new flow counts from its
//! first packet on.

use super::least::{cheapest_then_idlest, times};
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// The candidate with the least traffic for its weight; of equal ones that with the fewest flows for its weight, and
/// of those the first.
#[inline]
pub(super) fn least_traffic(
    (candidates, is_even): (&[Candidate], bool),
    available: impl Fn(&Candidate) -> bool,
    traffic: impl Fn(&Candidate) -> u64,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    if is_even {
        return cheapest_then_idlest(candidates, available, traffic, load);
    }
    let mut best: Option<(&Candidate, u64)> = None;
    for candidate in candidates.iter().filter(|candidate| available(candidate)) {
        let its = traffic(candidate);
        let is_less = |(best, least): (&Candidate, u64)| {
            let by_weight = times(its, best.weight).cmp(&times(least, candidate.weight));
            let flows = |one, other: &Candidate| times(load(one).flows(), other.weight);
            by_weight.then_with(|| flows(candidate, best).cmp(&flows(best, candidate))).is_lt()
        };
        if best.is_none_or(is_less) {
            best = Some((candidate, its));
        }
    }
    best.map(|(candidate, _)| candidate.backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The choice among backends A, B, ... with these weights, traffic and flows.
    fn choice(backends: &[(u32, u64, u32)]) -> char {
        let candidates: Vec<_> =
            backends.iter().zip(0..).map(|(it, slot)| Candidate::new(BackendSlot(slot), it.0)).collect();
        let of = |candidate: &Candidate| backends[candidate.backend.0 as usize];
        let pick = least_traffic((&candidates, false), |_| true, |it| of(it).1, |it| Load::new(0, of(it).2));
        pick.map_or('-', |slot| char::from(b'A' + slot.0 as u8))
    }

    #[test]
    fn traffic_counts_by_weight_then_flows_then_the_list() {
        assert_eq!(choice(&[(1, 1000, 0), (1, 999, 9)]), 'B');
        assert_eq!(choice(&[(1, 1000, 0), (3, 2999, 9)]), 'B');
        assert_eq!(choice(&[(1, 1000, 0), (3, 3001, 0)]), 'A');
        assert_eq!(choice(&[(1, 1000, 2), (3, 3000, 5)]), 'B', "5 / 3 flows are fewer than 2");
        assert_eq!(choice(&[(1, 1000, 2), (3, 3000, 6)]), 'A', "of equal ones the first");
        assert_eq!(choice(&[(1, u64::MAX, 1), (u32::MAX, u64::MAX, 1)]), 'B', "nothing overflows");
        assert_eq!(choice(&[]), '-');
    }

    #[test]
    fn whoever_is_not_available_is_not_chosen() {
        let candidates = [Candidate::new(BackendSlot(0), 1), Candidate::new(BackendSlot(1), 1)];
        let second = |candidate: &Candidate| candidate.backend.0 == 1;
        let traffic = |candidate: &Candidate| u64::from(candidate.backend.0);
        assert_eq!(
            least_traffic((&candidates, false), second, traffic, |_| Load::default()),
            Some(BackendSlot(1))
        );
        assert_eq!(least_traffic((&candidates, false), |_| false, traffic, |_| Load::default()), None);
    }

    /// Flows of sizes between 1 and 1000, each of which is sent at once: shares are of bytes, not of flows.
    #[test]
    fn bytes_are_shared_by_weight() {
        let candidates = [1, 2, 5].map(|weight| Candidate::new(BackendSlot(weight / 2), weight));
        let mut sent = [0u64; 3];
        for flow in 0..5000u64 {
            let traffic = |it: &Candidate| sent[it.backend.0 as usize];
            let pick = least_traffic((&candidates, false), |_| true, traffic, |_| Load::default()).unwrap();
            sent[pick.0 as usize] += flow.wrapping_mul(7919) % 1000 + 1;
        }
        let total: u64 = sent.iter().sum();
        for (sent, weight) in sent.into_iter().zip([1, 2, 5]) {
            let share = sent as f64 / total as f64;
            assert!((share / (f64::from(weight) / 8.0) - 1.0).abs() < 0.02, "{share} of weight {weight}");
        }
    }
}

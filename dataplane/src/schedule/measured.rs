//! The backend with the least traffic of late: least bandwidth, least packets.
//!
//! What is weighed are counters less what they were two to three seconds ago, so that a new flow counts from its
//! first packet on.

use super::least::times;
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate, Service};

/// The candidate with the least traffic for its weight, the first of equal ones, if it has any and can be told from all
/// others in a few steps.
#[inline(always)]
pub(super) fn least_of_some(service: &Service, traffic: impl Fn(BackendSlot) -> i64) -> Option<BackendSlot> {
    let divisors = service.plan.divisors()?;
    divisors.least_of_some(&service.candidates, |slot| traffic(slot).cast_unsigned())
}

/// The candidate with the least traffic for its weight; of those that have none that with the fewest flows for its weight;
/// of equal ones the first.
#[inline]
pub(super) fn least_traffic(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    traffic: impl Fn(&Candidate) -> u64,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    let there = candidates.iter().filter(|it| available(it)).map(|it| (it, traffic(it)));
    let least = there.reduce(|best, it| if is_less(it, best, &load) { it } else { best });
    least.map(|(candidate, _)| candidate.backend)
}

/// Whether one candidate has less traffic for its weight than another, or neither has any and it has fewer flows.
fn is_less(
    (one, its): (&Candidate, u64),
    (other, others): (&Candidate, u64),
    load: impl Fn(&Candidate) -> Load,
) -> bool {
    match (its, others) {
        (0, 0) => times(load(one).flows(), other.weight) < times(load(other).flows(), one.weight),
        _ => times(its, other.weight) < times(others, one.weight),
    }
}

#[cfg(test)]
mod tests {
    use super::super::quotient::Divisors;
    use super::*;

    /// The choice among backends A, B, ... with these weights, traffic and flows.
    fn choice(backends: &[(u32, u64, u32)]) -> char {
        let candidates: Vec<_> =
            backends.iter().zip(0..).map(|(it, slot)| Candidate::new(BackendSlot(slot), it.0)).collect();
        let of = |candidate: &Candidate| backends[candidate.backend.0 as usize];
        let pick = least_traffic(&candidates, |_| true, |it| of(it).1, |it| Load::new(0, of(it).2));
        let traffic = |slot: BackendSlot| backends[slot.0 as usize].1;
        let sure = Divisors::new(&candidates).least_of_some(&candidates, |slot| traffic(slot).min(1 << 51));
        assert!(sure.is_none() || sure == pick, "{backends:?}");
        pick.map_or('-', |slot| char::from(b'A' + slot.0 as u8))
    }

    #[test]
    fn traffic_counts_by_weight_then_the_list() {
        assert_eq!(choice(&[(1, 1000, 0), (1, 999, 9)]), 'B');
        assert_eq!(choice(&[(1, 1000, 0), (3, 2999, 9)]), 'B');
        assert_eq!(choice(&[(1, 1000, 0), (3, 3001, 0)]), 'A');
        assert_eq!(choice(&[(1, 1000, 2), (3, 3000, 0)]), 'A', "of equal ones the first");
        assert_eq!(choice(&[(1, u64::MAX, 1), (u32::MAX, u64::MAX, 1)]), 'B', "nothing overflows");
        assert_eq!(choice(&[]), '-');
    }

    #[test]
    fn of_those_without_traffic_flows_decide() {
        assert_eq!(choice(&[(1, 5, 0), (1, 0, 2), (3, 0, 5)]), 'C', "5 / 3 flows are fewer than 2");
        assert_eq!(choice(&[(1, 0, 2), (3, 0, 6)]), 'A', "of equal ones the first");
    }

    #[test]
    fn whoever_is_not_available_is_not_chosen() {
        let candidates = [Candidate::new(BackendSlot(0), 1), Candidate::new(BackendSlot(1), 1)];
        let second = |candidate: &Candidate| candidate.backend.0 == 1;
        let traffic = |candidate: &Candidate| u64::from(candidate.backend.0);
        assert_eq!(least_traffic(&candidates, second, traffic, |_| Load::default()), Some(BackendSlot(1)));
        assert_eq!(least_traffic(&candidates, |_| false, traffic, |_| Load::default()), None);
    }

    /// Flows of sizes between 1 and 1000, each of which is sent at once: shares are of bytes, not of flows.
    #[test]
    fn bytes_are_shared_by_weight() {
        let candidates = [1, 2, 5].map(|weight| Candidate::new(BackendSlot(weight / 2), weight));
        let mut sent = [0u64; 3];
        for flow in 0..5000u64 {
            let traffic = |it: &Candidate| sent[it.backend.0 as usize];
            let pick = least_traffic(&candidates, |_| true, traffic, |_| Load::default()).unwrap();
            sent[pick.0 as usize] += flow.wrapping_mul(7919) % 1000 + 1;
        }
        let total: u64 = sent.iter().sum();
        for (sent, weight) in sent.into_iter().zip([1, 2, 5]) {
            let share = sent as f64 / total as f64;
            assert!((share / (f64::from(weight) / 8.0) - 1.0).abs() < 0.02, "{share} of weight {weight}");
        }
    }
}

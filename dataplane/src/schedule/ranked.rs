//! The backend with the largest weight: one that serves while others stand by.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_fo.c and ip_vs_ovf.c. Of equal ones the first in the list is chosen.

use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// `fo`: the largest weight.
pub(super) fn failover(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
) -> Option<BackendSlot> {
    let mut best: Option<&Candidate> = None;
    for candidate in candidates.iter().filter(|candidate| available(candidate)) {
        if best.is_none_or(|best| candidate.weight > best.weight) {
            best = Some(candidate);
        }
    }
    best.map(|best| best.backend)
}

/// `ovf`: the largest weight among those that have no more active connections than it.
pub(super) fn overflow(
    candidates: &[Candidate],
    available: impl Fn(&Candidate) -> bool,
    load: impl Fn(&Candidate) -> Load,
) -> Option<BackendSlot> {
    failover(candidates, |it| load(it).active() <= u64::from(it.weight) && available(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    #[test]
    fn fo_keeps_to_one_while_it_is_there() {
        let candidates = candidates(&[2, 7, 7]);
        assert_eq!(failover(&candidates, |_| true), Some(BackendSlot(1)), "of equal ones the first");
        assert_eq!(failover(&candidates, |it| it.backend.0 != 1), Some(BackendSlot(2)));
        assert_eq!(failover(&candidates, |it| it.backend.0 == 0), Some(BackendSlot(0)));
        assert_eq!(failover(&candidates, |_| false), None);
    }

    #[test]
    fn ovf_goes_on_to_the_next_when_one_has_more_than_its_weight() {
        let candidates = candidates(&[1, 3, 2]);
        let busy = |active: [u32; 3]| move |it: &Candidate| Load::new(active[it.backend.0 as usize], 99);
        assert_eq!(overflow(&candidates, |_| true, busy([0, 3, 0])), Some(BackendSlot(1)));
        assert_eq!(overflow(&candidates, |_| true, busy([0, 4, 2])), Some(BackendSlot(2)));
        assert_eq!(overflow(&candidates, |_| true, busy([1, 4, 3])), Some(BackendSlot(0)));
        assert_eq!(overflow(&candidates, |_| true, busy([2, 4, 3])), None);
    }
}

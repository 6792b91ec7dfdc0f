//! Round robin and weighted round robin, in IPVS's sequences.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_rr.c and ip_vs_wrr.c. There a new backend joins at the head
//! of the list; here the list is in the order of the configuration.

use crate::snapshot::{BackendSlot, Candidate, Service};

/// Where one worker stands in one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    /// The service it is a position in.
    incarnation: u64,
    /// Version of the candidates that `next` counts in; 0 before the first.
    version: u64,
    /// The last pick, to be found again when the candidates change.
    last: BackendSlot,
    /// Index of the candidate to be tried next.
    next: u32,
    /// Least weight a candidate needs to be picked in this lap, IPVS's `cw`; 0 before the first.
    threshold: u32,
}

impl Position {
    /// The position in this service: a new one if the slot had another service before.
    #[inline]
    pub(super) fn of(&mut self, service: &Service) -> &mut Self {
        if self.incarnation != service.incarnation {
            *self = Self { incarnation: service.incarnation, ..Self::default() };
        }
        self
    }

    /// Index of the candidate to be tried next, if the service has so many.
    #[inline]
    pub(super) fn index(&self) -> usize {
        self.next as usize
    }

    /// The next available candidate after the last pick.
    #[inline]
    pub(super) fn next(
        &mut self,
        service: &Service,
        available: impl Fn(&Candidate) -> bool,
    ) -> Option<BackendSlot> {
        if self.version != service.version {
            self.follow(service);
        }
        for _ in 0..service.candidates.len() {
            let index = if (self.next as usize) < service.candidates.len() { self.next as usize } else { 0 };
            let candidate = service.candidates.get(index)?;
            self.next = index as u32 + 1;
            if available(candidate) {
                self.last = candidate.backend;
                return Some(candidate.backend);
            }
        }
        None
    }

    /// The next candidate whose weight reaches the threshold, which falls from the largest weight by the
    /// greatest common divisor each lap: weights 4, 3, 2 give A A B A B C A B C.
    #[inline]
    pub(super) fn next_weighted(
        &mut self,
        service: &Service,
        available: impl Fn(&Candidate) -> bool,
    ) -> Option<BackendSlot> {
        if self.version != service.version {
            self.restart(service);
        }
        // The rest of this lap and one more find an available one, if one of the largest weight is. If not, laps in
        // which nobody is reached are left out.
        for lap in 0..3 {
            while let Some(candidate) = service.candidates.get(self.next as usize) {
                self.next += 1;
                if candidate.weight >= self.threshold && available(candidate) {
                    return Some(candidate.backend);
                }
            }
            self.next = 0;
            let lower = self.threshold.saturating_sub(service.weight_gcd);
            self.threshold = if lower == 0 { top(service) } else { lower };
            if lap == 1 {
                let there = service.candidates.iter().filter(|candidate| available(candidate));
                let most = there.map(|candidate| candidate.weight).max()?;
                self.threshold = self.threshold.min(most - service.weight_gcd.saturating_sub(1));
            }
        }
        None
    }

    /// The next available candidate of the plan's turns.
    #[inline]
    pub(super) fn next_planned(
        &mut self,
        service: &Service,
        available: impl Fn(&Candidate) -> bool,
    ) -> Option<BackendSlot> {
        let turns = service.plan.turns();
        for _ in 0..turns.len() {
            // A changed plan goes on where the one before was.
            let index = if (self.next as usize) < turns.len() { self.next as usize } else { 0 };
            self.next = index as u32 + 1;
            let candidate = service.candidates.get(*turns.get(index)? as usize)?;
            if available(candidate) {
                return Some(candidate.backend);
            }
        }
        None
    }

    /// Goes on behind the last pick in a changed list. If that is gone, behind its predecessor, as IPVS's
    /// `ip_vs_rr_del_dest` does: there the list closed the gap, so the index is already right.
    #[cold]
    fn follow(&mut self, service: &Service) {
        if self.version != 0 {
            let found = service.candidates.iter().position(|candidate| candidate.backend == self.last);
            self.next = found.map_or(self.next.saturating_sub(1), |index| index as u32 + 1);
        }
        self.version = service.version;
    }

    /// Begins a lap at the head of a changed list, at the threshold it had if that still makes sense, as
    /// IPVS's `ip_vs_wrr_dest_changed` does.
    #[cold]
    fn restart(&mut self, service: &Service) {
        self.version = service.version;
        self.next = 0;
        let step = service.weight_gcd;
        if self.threshold == 0 || self.threshold > top(service) {
            self.threshold = top(service);
        } else if step > 1 {
            self.threshold = self.threshold / step * step + 1;
        }
    }
}

/// The threshold of a round's first lap, IPVS's `mw`. Only the largest weight reaches it: all weights are
/// multiples of the step.
fn top(service: &Service) -> u32 {
    service.max_weight - service.weight_gcd.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use config::words::Scheduler;
    use proptest::prelude::*;

    fn service(scheduler: Scheduler, version: u64, weights: &[(u32, u32)]) -> Service {
        Service { scheduler, version, ..testing::service("tcp:192.0.2.100:80", weights) }
    }

    /// The next `count` picks, as letters.
    fn picks(position: &mut Position, service: &Service, count: usize) -> String {
        let letter = |slot: BackendSlot| char::from(b'A' + slot.0 as u8);
        (0..count)
            .map(|_| match service.scheduler {
                Scheduler::Rr => position.next(service, |_| true),
                _ => position.next_weighted(service, |_| true),
            })
            .map(|pick| pick.map_or('-', letter))
            .collect()
    }

    #[test]
    fn rr_takes_turns_whatever_the_weights() {
        let service = service(Scheduler::Rr, 1, &[(0, 9), (1, 1), (2, 3)]);
        assert_eq!(picks(&mut Position::default(), &service, 8), "ABCABCAB");
    }

    #[test]
    fn rr_goes_on_behind_its_last_pick_when_the_list_changes() {
        let mut position = Position::default();
        assert_eq!(picks(&mut position, &service(Scheduler::Rr, 1, &[(0, 1), (1, 1), (2, 1)]), 2), "AB");
        assert_eq!(
            picks(&mut position, &service(Scheduler::Rr, 2, &[(3, 1), (0, 1), (1, 1), (2, 1)]), 3),
            "CDA"
        );
        assert_eq!(picks(&mut position, &service(Scheduler::Rr, 3, &[(3, 1), (1, 1), (2, 1)]), 4), "BCDB");
        assert_eq!(picks(&mut position, &service(Scheduler::Rr, 4, &[]), 2), "--");
        assert_eq!(picks(&mut position, &service(Scheduler::Rr, 5, &[(2, 1)]), 2), "CC");
    }

    #[test]
    fn wrr_sequences_are_those_of_ipvs() {
        let sequence = |weights: &[(u32, u32)], count| {
            picks(&mut Position::default(), &service(Scheduler::Wrr, 1, weights), count)
        };
        assert_eq!(sequence(&[(0, 4), (1, 3), (2, 2)], 18), "AABABCABCAABABCABC");
        assert_eq!(sequence(&[(0, 5), (1, 1), (2, 1)], 14), "AAAAABCAAAAABC");
        assert_eq!(sequence(&[(0, 3), (1, 2), (2, 1)], 6), "AABABC");
        assert_eq!(sequence(&[(0, 10), (1, 20)], 6), "BABBAB");
        assert_eq!(sequence(&[(0, 7)], 3), "AAA");
        assert_eq!(sequence(&[], 2), "--");
    }

    #[test]
    fn wrr_begins_at_the_threshold_it_had_when_the_list_grows() {
        // As in IPVS when backends are added one by one, here newest first: the lab's 2 1 0 | 2 2 1.
        let mut position = Position::default();
        position.restart(&service(Scheduler::Wrr, 1, &[(0, 1)]));
        position.restart(&service(Scheduler::Wrr, 2, &[(1, 2), (0, 1)]));
        let all = service(Scheduler::Wrr, 3, &[(2, 3), (1, 2), (0, 1)]);
        assert_eq!(picks(&mut position, &all, 12), "CBACCBCBACCB");
    }

    #[test]
    fn a_service_in_a_used_slot_begins_anew() {
        let mut position = Position::default();
        let weights = [(0, 3), (1, 2), (2, 1)];
        assert_eq!(picks(&mut position, &service(Scheduler::Wrr, 1, &weights), 4), "AABA");
        let other = Service { incarnation: 7, ..service(Scheduler::Wrr, 2, &weights) };
        assert_eq!(picks(position.of(&other), &other, 6), "AABABC");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn a_round_of_wrr_gives_each_its_weight(weights in prop::collection::vec(1u32..60, 1..8)) {
            let list: Vec<(u32, u32)> = weights.iter().enumerate().map(|(slot, &weight)| (slot as u32, weight)).collect();
            let service = service(Scheduler::Wrr, 1, &list);
            let gcd = service.weight_gcd;
            let round = weights.iter().map(|&weight| weight / gcd).sum::<u32>() as usize;
            let mut position = Position::default();
            for _ in 0..2 {
                let picks = picks(&mut position, &service, round);
                for &(slot, weight) in &list {
                    let letter = char::from(b'A' + slot as u8);
                    prop_assert_eq!(picks.matches(letter).count() as u32, weight / gcd);
                }
            }
        }
    }
}

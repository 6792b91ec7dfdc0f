//! How many flows the backends of a service have together, known as exactly as a choice has to know it.
//!
//! Counting them takes a look at each. A worker keeps its last count, and all workers count how often flows begin or
//! end: the total is off by no more than that, and is counted anew only where a choice depends on the difference.

use crate::snapshot::Service;

/// What a worker counted last in a service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// The service that was counted in, and the version of its candidates; 0 before the first.
    incarnation: u64,
    version: u64,
    flows: u64,
    /// How many flows had begun or ended anywhere before.
    changes: u64,
}

impl Counted {
    /// The least and the most flows that a service has, when so many have begun or ended anywhere; none if they have not
    /// been counted.
    #[inline(always)]
    pub(super) fn range(&self, service: &Service, changes: u64) -> Option<(u64, u64)> {
        let off = changes.wrapping_sub(self.changes);
        // Both count what happened, which is far from the end of 64 bits.
        self.is_of(service).then(|| (self.flows.saturating_sub(off), self.flows.wrapping_add(off)))
    }

    #[inline(always)]
    fn is_of(&self, service: &Service) -> bool {
        (self.incarnation, self.version) == (service.incarnation, service.version)
    }

    /// The total of a service whose flows `count` counts, when so many flows have begun or ended anywhere.
    #[inline]
    pub(super) fn total<C: FnMut() -> u64>(
        &mut self,
        service: &Service,
        changes: u64,
        count: C,
    ) -> Total<'_, C> {
        let is_known = self.is_of(service);
        let mut total = Total { counted: self, changes, count };
        if !is_known {
            total.count_anew();
            (total.counted.incarnation, total.counted.version) = (service.incarnation, service.version);
        }
        total
    }
}

/// A number of flows.
pub(super) struct Total<'a, C> {
    counted: &'a mut Counted,
    changes: u64,
    count: C,
}

impl<C: FnMut() -> u64> Total<'_, C> {
    /// Whether something holds for the total. If it does for a number, it must for all larger ones.
    #[inline]
    pub(super) fn is(&mut self, holds: impl Fn(u64) -> bool) -> bool {
        let (near, off) = (self.counted.flows, self.changes.wrapping_sub(self.counted.changes));
        let (least, most) = (near.saturating_sub(off), near.saturating_add(off));
        holds(least) || (least < most && holds(most) && holds(self.count_anew()))
    }

    #[cold]
    fn count_anew(&mut self) -> u64 {
        // Whoever begins or ends flows meanwhile is counted twice in what the total is off by, which does no harm.
        (self.counted.flows, self.counted.changes) = ((self.count)(), self.changes);
        self.counted.flows
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Asks of a total that is known.
    pub(in crate::schedule) fn with_total<T>(
        flows: u64,
        ask: impl FnOnce(&mut Total<'_, fn() -> u64>) -> T,
    ) -> T {
        let mut counted = Counted { flows, ..Counted::default() };
        ask(&mut Total { counted: &mut counted, changes: 0, count: || unreachable!("it is known") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;
    use std::cell::Cell;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 512 }))]
        #[test]
        fn what_is_said_of_a_total_is_as_if_it_was_counted(
            steps in prop::collection::vec((any::<bool>(), 0u64..6, 0u64..40), 1..60),
            version_at in 0usize..60,
        ) {
            let (mut flows, mut changes, mut counted) = (20u64, 7u64, Counted::default());
            let counts = Cell::new(0);
            let mut service = testing::service("tcp:192.0.2.100:80", &[(0, 1)]);
            for (step, (begin, many, least)) in steps.iter().enumerate() {
                flows = if *begin { flows + many } else { flows.saturating_sub(*many) };
                changes += many;
                if step == version_at {
                    // Another list of candidates, whose flows are others.
                    (service.version, flows) = (service.version + 1, flows + 1000);
                }
                let mut total = counted.total(&service, changes, || { counts.set(counts.get() + 1); flows });
                prop_assert_eq!(total.is(|total| total >= *least), flows >= *least);
                prop_assert_eq!(total.is(|total| total >= 1000), flows >= 1000);
            }
            prop_assert!(counts.get() >= 1);
        }
    }

    #[test]
    fn far_from_the_bound_nothing_is_counted() {
        let (mut counted, mut counts) = (Counted::default(), 0);
        let service = testing::service("tcp:192.0.2.100:80", &[(0, 1)]);
        for changes in 0..100 {
            let mut count = || {
                counts += 1;
                1000
            };
            assert!(counted.total(&service, changes, &mut count).is(|total| total > 900));
            assert!(!counted.total(&service, changes, &mut count).is(|total| total > 1100));
        }
        assert_eq!(counts, 1);
    }
}

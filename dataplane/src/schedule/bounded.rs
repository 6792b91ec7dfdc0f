//! Consistent hashing with bounded loads: Maglev, but no backend gets more than its share times a factor.
//!
//! A flow whose backend is full goes to the first one with room that has one of the next slots of the table, as on the
//! ring of the paper, and comes back to the same one as long as that is so. Next slots are of backends as if drawn by
//! lot, and mostly in one line of memory.
//!
//! Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016.

use std::hint::select_unpredictable;

use super::hash::{Secret, place};
use super::maglev::slots;
use super::table::Member;
use super::total::Total;
use crate::snapshot::BackendSlot;

/// 1 with 64 binary places.
const ONE: f64 = (1u128 << 64) as f64;

/// The table of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    /// Indices of holders; behind the last slot, the first ones again, so that those which are tried are in a row.
    slots: Box<[u32]>,
    /// Number of slots.
    size: usize,
    holders: Box<[Holder]>,
    /// Binary places of [`Holder::reciprocal`] are 64 less so many.
    shift: u32,
}

/// A backend and how much it may have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holder {
    backend: BackendSlot,
    weight: u32,
    /// 1 by its bound, which is the factor times its share of all weights; rounded up.
    reciprocal: u64,
}

impl Bounded {
    /// Slots that are tried before the list of backends is. With a factor of 1.25, at most four of five backends
    /// are full, so that fewer than one flow of a million needs more.
    const TRIES: usize = 64;
    /// The largest shift: loads, which are less than 2^33, keep all of their bits. A share of less than 2^-30 counts as
    /// that much, which is one flow of a billion.
    const MOST_SHIFT: u32 = 30;

    /// A table with `size` slots, as [`super::maglev::Maglev::new`] has it. A backend may have `load_factor` times
    /// its share of the flows, which is more than 1.
    pub fn new(members: &[Member], size: u32, secret: &Secret, load_factor: f64) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        // Without a weight, it has no slot.
        let flows_for_one = |weight: u32| total as f64 / (load_factor * f64::from(weight.max(1)));
        let weights = members.iter().map(|member| member.weight).filter(|weight| *weight > 0);
        let most = weights.min().map_or(1.0, flows_for_one);
        // Room for that many and for the part of one by which reciprocals are rounded up.
        let shift = (u64::BITS - (most as u64).leading_zeros()).min(Self::MOST_SHIFT);
        // More than what the floating point numbers are off by.
        let unit = ONE / (1u64 << shift) as f64 * (1.0 + f64::EPSILON * 4.0);
        let holder = |member: &Member| Holder {
            backend: member.backend,
            weight: member.weight,
            reciprocal: (flows_for_one(member.weight) * unit) as u64,
        };
        let slots = slots(members, size, secret);
        let size = slots.len();
        let in_a_row = slots.into_iter().cycle().take(size + Self::TRIES - 1);
        Self { slots: in_a_row.collect(), size, holders: members.iter().map(holder).collect(), shift }
    }

    /// The backend of a new flow with this hash, if it is one of those that are tried, whatever total there is in a range, and
    /// as if all were available. `loads` says how many flows a backend has.
    #[inline(always)]
    pub(super) fn pick_surely(
        &self,
        hash: u64,
        loads: impl Fn(BackendSlot) -> u64,
        (least, most): (u64, u64),
    ) -> Option<BackendSlot> {
        let none = BackendSlot::NONE;
        for [first, second] in self.tried(hash)?.as_chunks().0 {
            let (first, second) = (self.holder(*first)?, self.holder(*second)?);
            let needed = self.needed(first, loads(first.backend));
            let needed_by_second = self.needed(second, loads(second.backend));
            // Which of them has room cannot be foreseen, so nothing jumps.
            let later = select_unpredictable(needed_by_second <= least, second.backend, none);
            let later = select_unpredictable(needed <= most, none, later);
            let chosen = select_unpredictable(needed <= least, first.backend, later);
            if chosen != none {
                return Some(chosen);
            }
            if needed.min(needed_by_second) <= most {
                return None;
            }
        }
        None
    }

    /// The backend of a new flow with this hash: the first one with room of those that are tried. `loads` says how many
    /// flows a backend has, and `total` how many all of them have.
    #[inline]
    pub(super) fn pick<C: FnMut() -> u64>(
        &self,
        hash: u64,
        loads: impl Fn(BackendSlot) -> u64,
        total: &mut Total<C>,
        available: impl Fn(BackendSlot) -> bool,
    ) -> Option<BackendSlot> {
        let mut takes = |holder: &&Holder| {
            let needed = self.needed(holder, loads(holder.backend));
            total.is(|total| needed <= total) && available(holder.backend)
        };
        match self.tried(hash)?.iter().filter_map(|index| self.holder(*index)).find(|holder| takes(holder)) {
            Some(holder) => Some(holder.backend),
            None => self.pick_least(hash, loads, available),
        }
    }

    /// Those that are tried for a hash.
    #[inline(always)]
    fn tried(&self, hash: u64) -> Option<&[u32]> {
        let first = place(hash, self.size);
        self.slots.get(first..first + Self::TRIES)
    }

    #[inline(always)]
    fn holder(&self, index: u32) -> Option<&Holder> {
        self.holders.get(index as usize)
    }

    /// How many flows all backends must have for a holder with so many to have room for one more: it may have no more than
    /// its bound times all, with that one, rounded up.
    #[inline(always)]
    fn needed(&self, holder: &Holder, load: u64) -> u64 {
        ((u128::from(load << self.shift) * u128::from(holder.reciprocal)) >> 64) as u64
    }

    /// Who has the least load by its weight; of equal ones the first from a place that belongs to the hash. If
    /// anyone has room, that one does, but for the rounding of bounds.
    #[cold]
    fn pick_least(
        &self,
        hash: u64,
        loads: impl Fn(BackendSlot) -> u64,
        available: impl Fn(BackendSlot) -> bool,
    ) -> Option<BackendSlot> {
        let (early, late) = self.holders.split_at(place(hash, self.holders.len()));
        let taking = late.iter().chain(early).filter(|it| it.weight > 0 && available(it.backend));
        let by_weight = |&(a, load_a): &(&Holder, u64), &(b, load_b): &(&Holder, u64)| {
            let (left, right) =
                (u128::from(load_a) * u128::from(b.weight), u128::from(load_b) * u128::from(a.weight));
            left.cmp(&right)
        };
        taking.map(|it| (it, loads(it.backend))).min_by(by_weight).map(|(holder, _)| holder.backend)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::schedule::maglev::Maglev;
    use crate::schedule::table::testing::members;
    use crate::schedule::total::Counted;
    use crate::schedule::total::testing::with_total;
    use crate::testing;
    use proptest::prelude::*;

    const SECRET: Secret = Secret([3, 4]);
    const SIZE: u32 = if cfg!(miri) { 251 } else { 4093 };

    impl Bounded {
        /// The choice if the total is known.
        fn choose(
            &self,
            hash: u64,
            loads: impl Fn(BackendSlot) -> u64 + Copy,
            total: u64,
            available: impl Fn(BackendSlot) -> bool + Copy,
        ) -> Option<BackendSlot> {
            let pick = with_total(total, |total| self.pick(hash, loads, total, available));
            let sure = self.pick_surely(hash, loads, (total, total));
            assert!(sure.is_none_or(|sure| pick == Some(sure) || !available(sure)));
            pick
        }
    }

    #[test]
    fn whoever_has_room_is_who_maglev_would_choose() {
        let members = members(&[1, 2, 3]);
        let (bounded, maglev) =
            (Bounded::new(&members, SIZE, &SECRET, 1.25), Maglev::new(&members, SIZE, &SECRET));
        for hash in (0..1000u64).map(|it| it.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let pick = bounded.choose(hash, |_| 0, 1000, |_| true);
            assert_eq!(pick, maglev.pick(hash, |_| true));
        }
    }

    /// A single client, whose flows all have one hash, is spread as far as the bounds make it.
    #[test]
    fn one_hash_fills_one_backend_after_the_other() {
        for (factor, expected) in [(1.5, [0, 250, 375, 375]), (1.25, [62, 312, 313, 313])] {
            let table = Bounded::new(&members(&[1; 4]), SIZE, &SECRET, factor);
            let loads = RefCell::new([0u64; 4]);
            for total in 0..1000 {
                let load = |it: BackendSlot| loads.borrow()[it.0 as usize];
                let pick = table.choose(7, load, total, |_| true).unwrap();
                loads.borrow_mut()[pick.0 as usize] += 1;
            }
            let mut loads = loads.into_inner();
            loads.sort_unstable();
            assert_eq!(loads, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
        #[test]
        fn no_load_is_above_its_bound(
            weights in prop::collection::vec(0u32..9, 1..30),
            hashes in prop::collection::vec(any::<u64>(), if cfg!(miri) { 20 } else { 500 }),
            percent in 101u32..300,
        ) {
            let members = members(&weights);
            let factor = f64::from(percent) / 100.0;
            let table = Bounded::new(&members, 251, &SECRET, factor);
            let sum: u32 = weights.iter().sum();
            let loads = RefCell::new(vec![0u64; weights.len()]);
            for (total, hash) in hashes.into_iter().enumerate() {
                let load = |it: BackendSlot| loads.borrow()[it.0 as usize];
                let pick = table.choose(hash, load, total as u64, |_| true);
                prop_assert_eq!(pick.is_some(), sum > 0);
                let Some(pick) = pick else { break };
                let (load, weight) = (&mut loads.borrow_mut()[pick.0 as usize], weights[pick.0 as usize]);
                *load += 1;
                let share = f64::from(weight) / f64::from(sum);
                prop_assert!(weight > 0 && *load as f64 <= (factor * (total as f64 + 1.0) * share + 1e-5).ceil());
            }
        }

        #[test]
        fn a_total_that_is_not_known_exactly_makes_no_difference(
            loads in prop::collection::vec(0u64..40, 8),
            hash: u64,
            (before, changes) in (0u64..200, 0u64..100),
            grows: bool,
        ) {
            let table = Bounded::new(&members(&[1; 8]), 251, &SECRET, 1.25);
            let now = if grows { before + changes } else { before.saturating_sub(changes) };
            let load = |it: BackendSlot| loads[it.0 as usize];
            let service = testing::service("tcp:192.0.2.100:80", &[(0, 1)]);
            let mut counted = Counted::default();
            counted.total(&service, 0, || before);
            let range = counted.range(&service, changes).unwrap();
            let sure = table.pick_surely(hash, load, range);
            let pick = table.pick(hash, load, &mut counted.total(&service, changes, || now), |_| true);
            prop_assert_eq!(pick, table.choose(hash, load, now, |_| true));
            prop_assert!(sure.is_none() || sure == pick);
        }

        #[test]
        fn a_pick_finds_who_takes_flows_if_anyone_does(
            weights in prop::collection::vec(0u32..3, 1..30),
            away in prop::collection::vec(prop::bool::weighted(0.8), 30),
            (hash, load) in any::<(u64, u64)>(),
        ) {
            let table = Bounded::new(&members(&weights), 251, &SECRET, 1.25);
            let taking = |backend: BackendSlot| !away[backend.0 as usize];
            let anyone = weights.iter().zip(&away).any(|(&weight, &away)| weight > 0 && !away);
            let pick = table.choose(hash, |_| load, u64::MAX, taking);
            prop_assert_eq!(pick.is_some(), anyone);
            prop_assert!(pick.is_none_or(|it| taking(it) && weights[it.0 as usize] > 0));
        }
    }
}

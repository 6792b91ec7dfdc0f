//! Consistent hashing with bounded loads: Maglev, but no backend gets more than its share times a factor.
//!
//! A flow whose backend is full goes to the first one with room in an order that belongs to its hash, and comes
//! back to the same one as long as that is so.
//!
//! Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016.

use std::hint::select_unpredictable;

use super::hash::{Secret, place};
use super::maglev::{probe, slots};
use super::table::Member;
use super::total::Total;
use crate::snapshot::BackendSlot;

/// What a bound counts as 1.
const UNIT: f64 = (1u64 << 32) as f64;

/// The table of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded {
    /// Indices of holders.
    slots: Box<[u32]>,
    holders: Box<[Holder]>,
}

/// A backend and how much it may have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holder {
    backend: BackendSlot,
    weight: u32,
    /// The factor times its share of all weights, in units of 2^-32, rounded up.
    bound: u64,
}

impl Holder {
    /// Whether one more flow is within its bound, if it has `load` of `total` flows without that.
    #[inline(always)]
    fn has_room(&self, load: u64, total: u64) -> bool {
        // Less than a bound that is rounded up is less than the bound. A weight of 0 has a bound of 0.
        u128::from(load) << 32 < u128::from(total.saturating_add(1)) * u128::from(self.bound)
    }
}

impl Bounded {
    /// Slots that are tried before the list of backends is. With a factor of 1.25, at most four of five backends
    /// are full, so that fewer than one flow of a million needs more.
    const TRIES: usize = 65;

    /// A table with `size` slots, as [`super::maglev::Maglev::new`] has it. A backend may have `load_factor` times
    /// its share of the flows, which is more than 1.
    pub fn new(members: &[Member], size: u32, secret: &Secret, load_factor: f64) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        let holder = |member: &Member| Holder {
            backend: member.backend,
            weight: member.weight,
            bound: (load_factor * f64::from(member.weight) / total as f64 * UNIT).ceil() as u64,
        };
        Self { slots: slots(members, size, secret).into(), holders: members.iter().map(holder).collect() }
    }

    /// The backend of a new flow with this hash. `loads` says how many flows a backend has, and `total` how many all
    /// of them have.
    #[inline]
    pub(super) fn pick<C: FnMut() -> u64>(
        &self,
        hash: u64,
        loads: impl Fn(BackendSlot) -> u64,
        total: &mut Total<C>,
        available: impl Fn(BackendSlot) -> bool,
    ) -> Option<BackendSlot> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slots = probe(hash, self.slots.len());
        let (first, second) = (self.holder(slots.next()?)?, self.holder(slots.next()?)?);
        let (load, load_of_second) = (loads(first.backend), loads(second.backend));
        // Which of them has room cannot be foreseen, so nothing jumps. It is none if that depends on the total.
        let (least, most) = total.range();
        let none = BackendSlot::NONE;
        let later = select_unpredictable(second.has_room(load_of_second, least), second.backend, none);
        let later = select_unpredictable(first.has_room(load, most), none, later);
        let chosen = select_unpredictable(first.has_room(load, least), first.backend, later);
        if chosen != none && available(chosen) {
            return Some(chosen);
        }
        self.pick_other(hash, loads, total, available)
    }

    #[inline]
    fn holder(&self, slot: usize) -> Option<&Holder> {
        self.holders.get(*self.slots.get(slot)? as usize)
    }

    /// The first backend with room in an order that belongs to the hash.
    #[inline(never)]
    fn pick_other<C: FnMut() -> u64>(
        &self,
        hash: u64,
        loads: impl Fn(BackendSlot) -> u64,
        total: &mut Total<C>,
        available: impl Fn(BackendSlot) -> bool,
    ) -> Option<BackendSlot> {
        let mut tried = probe(hash, self.slots.len()).take(Self::TRIES).filter_map(|slot| self.holder(slot));
        let mut takes = |holder: &&Holder| {
            let load = loads(holder.backend);
            total.is(|total| holder.has_room(load, total)) && available(holder.backend)
        };
        match tried.find(|holder| takes(holder)) {
            Some(holder) => Some(holder.backend),
            None => self.pick_least(hash, loads, available),
        }
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

    #[test]
    fn whoever_has_room_is_who_maglev_would_choose() {
        let members = members(&[1, 2, 3]);
        let (bounded, maglev) =
            (Bounded::new(&members, SIZE, &SECRET, 1.25), Maglev::new(&members, SIZE, &SECRET));
        for hash in (0..1000u64).map(|it| it.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let pick = with_total(1000, |total| bounded.pick(hash, |_| 0, total, |_| true));
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
                let pick = with_total(total, |total| table.pick(7, load, total, |_| true)).unwrap();
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
                let pick = with_total(total as u64, |total| table.pick(hash, load, total, |_| true));
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
            let pick = table.pick(hash, load, &mut counted.total(&service, changes, || now), |_| true);
            prop_assert_eq!(pick, with_total(now, |total| table.pick(hash, load, total, |_| true)));
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
            let pick = with_total(u64::MAX, |total| table.pick(hash, |_| load, total, taking));
            prop_assert_eq!(pick.is_some(), anyone);
            prop_assert!(pick.is_none_or(|it| taking(it) && weights[it.0 as usize] > 0));
        }
    }
}

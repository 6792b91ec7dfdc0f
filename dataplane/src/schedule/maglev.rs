//! Weighted Maglev under the secret of the cluster.
//!
//! Backends take the slots of a table in turn, each the next free one in an order of its own. Their turns come at
//! multiples of 1 / weight, so that each has its share of the slots to within one; and its turns stay where they
//! are when others come or go, so that few slots change hands. Nothing depends on the order of the list: all
//! balancers that know the same backends and the same secret have the same table.
//!
//! A backend that has less than its full weight (slow start, or quiesced) only lends slots of its full table to
//! others, and gets the same ones back.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4. The
//! turns are those of Sainte-Laguë's apportionment.

use super::hash::{Secret, place};
use super::table::{Member, Table};
use crate::snapshot::BackendSlot;

/// The table of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Maglev(Table);

impl Maglev {
    /// Slots that are tried before the list of backends is.
    const TRIES: usize = 64;

    /// A table with `size` slots, a prime of at most 22 bits. A backend should have a hundred slots and must have
    /// three on average, or its share is rough.
    pub fn new(members: &[Member], size: u32, secret: &Secret) -> Self {
        Self(Table::new(members, slots(members, size, secret).into_iter().map(|member| member as usize)))
    }

    /// The backend of the flows with this hash. If it takes none, the flow goes to another one, as the shares are.
    #[inline]
    pub fn pick(&self, hash: u64, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let backend = self.0.get(place(hash, self.0.len()))?.taking(&available);
        if backend.is_none() { self.pick_other(hash, available) } else { backend }
    }

    /// The first backend in an order that belongs to the hash: slots some steps apart, then everyone.
    #[cold]
    fn pick_other(&self, hash: u64, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let slots = probe(hash, self.0.len()).take(Self::TRIES);
        let holders = self.0.holders();
        let (early, late) = holders.split_at(place(hash, holders.len()));
        slots
            .filter_map(|slot| self.0.get(slot))
            .chain(late.iter().copied())
            .chain(early.iter().copied())
            .find_map(|holder| holder.taking(&available))
    }
}

/// The slots of a table of prime size in an order that belongs to a hash; all, then again. The size is at least 2.
#[inline]
pub(super) fn probe(hash: u64, size: usize) -> impl Iterator<Item = usize> {
    // Half as wide a division as that of a `usize`, which takes longer.
    let step = (hash as u32 % (size as u32 - 1) + 1) as usize;
    // Less than twice the size: a division would take longer than all the rest.
    let wrapped = move |slot: usize| if slot < size { slot } else { slot - size };
    std::iter::successors(Some(place(hash, size)), move |slot| Some(wrapped(slot + step)))
}

const FREE: u32 = u32::MAX;

/// The index of each slot's member; no slots if all weights are 0.
pub(super) fn slots(members: &[Member], size: u32, secret: &Secret) -> Vec<u32> {
    if members.iter().all(|member| member.weight == 0) {
        return Vec::new();
    }
    // In an order that all balancers agree upon: of turns at the same time, the first one counts.
    let mut order: Vec<u32> = (0..members.len() as u32).collect();
    order.sort_by_key(|&index| members[index as usize].address);
    let weights =
        |weight: fn(&Member) -> u32| order.iter().map(move |&index| weight(&members[index as usize]));

    let full: Vec<u32> = weights(|member| member.full_weight.max(member.weight)).collect();
    let mut walks: Vec<Walk> =
        order.iter().map(|&at| Walk::new(&members[at as usize], size, secret)).collect();
    let mut slots = vec![FREE; size as usize];
    let turns = turns(&full, size);
    let taken: Vec<u32> = turns.iter().map(|&who| walks[who as usize].take(who, &mut slots)).collect();
    let now: Vec<u32> = weights(|member| member.weight).collect();
    if now != full {
        lend(&mut slots, &now, Lent { turns, taken, walks });
    }
    slots.into_iter().map(|who| order[who as usize]).collect()
}

/// A table of full weights.
struct Lent {
    /// Who had each turn.
    turns: Vec<u32>,
    /// The slot that was taken in it.
    taken: Vec<u32>,
    walks: Vec<Walk>,
}

/// Frees the slots that are beyond the share of their holder's weight now, those that it took last, and gives
/// them to those who have too few.
fn lend(slots: &mut [u32], weights: &[u32], full: Lent) {
    let size = slots.len() as u32;
    let now = turns(weights, size);
    let mut owed = vec![0u32; weights.len()];
    for &who in &now {
        owed[who as usize] += 1;
    }
    for (&who, &slot) in full.turns.iter().zip(&full.taken) {
        match owed[who as usize].checked_sub(1) {
            Some(rest) => owed[who as usize] = rest,
            None => slots[slot as usize] = FREE,
        }
    }
    let mut walks = full.walks;
    walks.iter_mut().for_each(|walk| walk.next = walk.first);
    // Whoever is still owed slots takes them in its last turns.
    let mut late: Vec<u32> = Vec::new();
    for &who in now.iter().rev() {
        if let Some(rest) = owed[who as usize].checked_sub(1) {
            owed[who as usize] = rest;
            late.push(who);
        }
    }
    for &who in late.iter().rev() {
        walks[who as usize].take(who, slots);
    }
}

/// Who has each of so many turns: those with the earliest times, where a weight's are (1/2 + n) / weight. No
/// weight but 0 gets none: its first turn comes before half of all are over.
fn turns(weights: &[u32], size: u32) -> Vec<u32> {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    let enough = u64::from(size) + weights.len() as u64;
    let half = (u64::from(size) << 40) / total;
    let mut times: Vec<(u64, u32)> = Vec::with_capacity(size as usize + 2 * weights.len());
    for (who, &weight) in weights.iter().enumerate().filter(|&(_, &weight)| weight > 0) {
        let weight = u64::from(weight);
        let count = ((2 * weight * enough + total) / (2 * total)).max(1);
        times.extend((0..count).map(|turn| {
            let time = ((2 * turn + 1) << 40) / weight;
            (if turn == 0 { time.min(half) } else { time }, who as u32)
        }));
    }
    times.sort_unstable();
    times.into_iter().take(size as usize).map(|(_, who)| who).collect()
}

/// The slots in the order in which a backend wants them.
struct Walk {
    first: u32,
    next: u32,
    skip: u32,
}

impl Walk {
    fn new(member: &Member, size: u32, secret: &Secret) -> Self {
        let hash = secret.address_and_port(member.mapped_address(), member.address.port());
        let first = place(hash, size as usize) as u32;
        Self { first, next: first, skip: hash as u32 % (size - 1) + 1 }
    }

    /// Takes the next free slot; there is one.
    fn take(&mut self, who: u32, slots: &mut [u32]) -> u32 {
        let size = slots.len() as u32;
        loop {
            let slot = self.next;
            self.next = if slot >= size - self.skip { slot - (size - self.skip) } else { slot + self.skip };
            if slots[slot as usize] == FREE {
                slots[slot as usize] = who;
                return slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::table::testing::members;
    use proptest::prelude::*;

    const SECRET: Secret = Secret([0x0123_4567_89ab_cdef, 0x0fed_cba9_8765_4321]);
    const SIZE: u32 = if cfg!(miri) { 251 } else { 65537 };

    /// The last 16 bits of the address of each slot's backend.
    fn owners(members: &[Member], size: u32) -> Vec<u16> {
        let address = |member: u32| members[member as usize].mapped_address() as u16;
        slots(members, size, &SECRET).into_iter().map(address).collect()
    }

    /// The part of all slots that change hands, but for those that one backend loses or gets.
    fn disruption(before: &[Member], after: &[Member], backend: &Member) -> f64 {
        let of = |owner| owner == backend.mapped_address() as u16;
        let pairs = owners(before, SIZE).into_iter().zip(owners(after, SIZE));
        pairs.filter(|&(a, b)| a != b && !of(a) && !of(b)).count() as f64 / f64::from(SIZE)
    }

    fn shares(members: &[Member], size: u32) -> Vec<usize> {
        Maglev::new(members, size, &SECRET).0.shares()
    }

    fn with_weight(mut member: Member, weight: u32) -> Member {
        (member.weight, member.full_weight) = (weight, weight);
        member
    }

    #[test]
    fn shares_are_those_of_the_weights_to_within_a_slot() {
        for weights in [&[1, 1][..], &[1, 2, 3, 4], &[65535 * 256, 65535, 65535 * 128], &[7; 100], &[1; 13]] {
            let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
            for (share, &weight) in shares(&members(weights), SIZE).into_iter().zip(weights) {
                let due = f64::from(weight) * f64::from(SIZE) / total as f64;
                assert!((share as f64 - due).abs() <= 1.0, "{share} slots for {due} of {weights:?}");
            }
        }
    }

    #[test]
    fn the_least_weight_has_a_slot() {
        assert_eq!(shares(&members(&[u32::MAX, 1, 1]), 251), [249, 1, 1]);
        assert!(shares(&members(&[1; 83]), 251).into_iter().all(|share| share >= 3));
    }

    #[test]
    fn a_service_without_a_weight_has_no_slots() {
        for weights in [&[][..], &[0], &[0, 0]] {
            let table = Maglev::new(&members(weights), SIZE, &SECRET);
            assert_eq!(table.pick(7, |_| true), None);
        }
    }

    #[test]
    fn who_leaves_or_changes_its_weight_moves_hardly_a_slot_of_others() {
        for count in if cfg!(miri) { &[3][..] } else { &[2, 3, 10, 50, 300, 1000] } {
            let all = members(&vec![100; *count]);
            let who = all[count / 2];
            let others: Vec<Member> = all.iter().copied().filter(|member| *member != who).collect();
            let gone = disruption(&all, &others, &who);
            let lighter: Vec<Member> =
                all.iter().map(|&it| if it == who { with_weight(it, 40) } else { it }).collect();
            let less = disruption(&all, &lighter, &who);
            assert!(
                gone < 0.02 && less < 0.02,
                "{count} backends: {gone} if one leaves, {less} if one has less"
            );
        }
    }

    #[test]
    fn who_starts_slowly_moves_no_slot_of_others_and_only_gains() {
        let full = members(&[100, 200, 300, 100, 50]);
        let table = owners(&full, SIZE);
        let mut had = vec![false; SIZE as usize];
        let whose = full[2].mapped_address() as u16;
        for weight in [0, 1, 30, 150, 299, 300] {
            let mut now = full.clone();
            now[2].weight = weight;
            for (slot, (&owner, &full)) in owners(&now, SIZE).iter().zip(&table).enumerate() {
                assert!(owner == full || full == whose, "slot {slot} is not lent by who starts slowly");
                assert!(!had[slot] || owner == whose, "slot {slot} was lost at weight {weight}");
                had[slot] = owner == whose;
            }
            let due = weight as usize * SIZE as usize / (450 + weight as usize);
            assert!(had.iter().filter(|&&has| has).count().abs_diff(due) <= 1);
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_and_the_secret_does() {
        let all = members(&[5, 1, 9, 9, 3]);
        let reversed: Vec<Member> = all.iter().rev().copied().collect();
        assert_eq!(owners(&all, SIZE), owners(&reversed, SIZE));
        let other = slots(&all, SIZE, &Secret([1, 2]));
        let same = other.iter().zip(slots(&all, SIZE, &SECRET)).filter(|&(a, b)| *a == b).count();
        assert!(same < SIZE as usize / 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn a_pick_finds_who_takes_flows_if_anyone_does(
            weights in prop::collection::vec((0u32..5, 0u32..5), 1..40),
            away in prop::collection::vec(prop::bool::weighted(0.8), 40),
            hashes in prop::collection::vec(any::<u64>(), 20),
        ) {
            let mut members = members(&vec![0; weights.len()]);
            for (member, (weight, full)) in members.iter_mut().zip(weights) {
                (member.weight, member.full_weight) = (weight, full);
            }
            let table = Maglev::new(&members, 251, &SECRET);
            let taking = |backend: BackendSlot| !away[backend.0 as usize];
            let anyone = members.iter().any(|member| member.weight > 0 && taking(member.backend));
            for hash in hashes {
                let pick = table.pick(hash, taking);
                prop_assert_eq!(pick.is_some(), anyone);
                prop_assert!(pick.is_none_or(|it| taking(it) && members[it.0 as usize].weight > 0));
            }
        }

        #[test]
        fn a_table_is_full_and_gives_slots_to_weights_only(
            weights in prop::collection::vec((0u32..=u32::MAX, 0u32..=u32::MAX), 1..60),
        ) {
            let mut members = members(&vec![0; weights.len()]);
            for (member, (weight, full)) in members.iter_mut().zip(weights) {
                (member.weight, member.full_weight) = (weight, full);
            }
            let shares = shares(&members, 251);
            prop_assert!(shares.iter().zip(&members).all(|(&share, member)| (share > 0) == (member.weight > 0)));
        }
    }
}

//! Locality-based least connection: a destination keeps its backend, or its set of them, as long as these bear it.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lblc.c and ip_vs_lblcr.c, which keep a table of destination addresses. A
//! service here has one address, so its table has one entry. It is shared by all workers; where two of them change it
//! at the same time, either may win, and both chose one of the least loaded.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::least::{overhead, times, weighted_connections};
use crate::clock::Seconds;
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// How long an entry is kept that is not asked for, and how long a set may be larger than it has to be: the kernel's
/// `lblc_expiration` and `lblcr_expiration`.
const EXPIRATION: Seconds = 24 * 60 * 60;

/// The entry of a service.
#[derive(Debug)]
pub struct Locality {
    /// By candidate: whether it is in the set. `lblc` keeps one in it.
    members: Box<[AtomicBool]>,
    /// When it was last asked for.
    used: AtomicU32,
    /// When the set last changed.
    changed: AtomicU32,
}

impl Locality {
    /// The entry of these candidates: those stay in it that were in the one before.
    pub(super) fn new(candidates: &[Candidate], before: Option<(&Self, &[Candidate])>) -> Self {
        let kept: Vec<BackendSlot> = before.iter().flat_map(|(entry, its)| entry.backends(its)).collect();
        let members = candidates.iter().map(|it| AtomicBool::new(kept.contains(&it.backend))).collect();
        let time = |of: fn(&Self) -> &AtomicU32| {
            AtomicU32::new(before.map_or(0, |(entry, _)| of(entry).load(Ordering::Relaxed)))
        };
        Self { members, used: time(|it| &it.used), changed: time(|it| &it.changed) }
    }

    fn backends<'a>(&'a self, candidates: &'a [Candidate]) -> impl Iterator<Item = BackendSlot> + 'a {
        self.set_of(candidates).map(|(_, it)| it.backend)
    }

    /// The candidates in the set, with their places.
    fn set_of<'a>(&'a self, candidates: &'a [Candidate]) -> impl Iterator<Item = (usize, &'a Candidate)> {
        let members = self.members.iter().zip(candidates).enumerate();
        members.filter(|(_, (is_in, _))| is_in.load(Ordering::Relaxed)).map(|(place, (_, it))| (place, it))
    }

    /// `lblc`: the backend that the entry has, if it is not overloaded; else the least loaded, which it has from then.
    pub(super) fn one(
        &self,
        now: Seconds,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool + Copy,
        load: impl Fn(&Candidate) -> Load + Copy,
    ) -> Option<BackendSlot> {
        self.touch(now);
        if let Some((_, kept)) = self.set_of(candidates).next()
            && available(kept)
            && !is_crowded(kept, candidates, load)
        {
            return Some(kept.backend);
        }
        let chosen = weighted_connections(candidates, available, load)?;
        for (is_in, candidate) in self.members.iter().zip(candidates) {
            is_in.store(candidate.backend == chosen, Ordering::Relaxed);
        }
        Some(chosen)
    }

    /// `lblcr`: the least loaded of the set; if that is overloaded, the least loaded of all joins it. A set that did not
    /// change for a day loses its most loaded member.
    pub(super) fn set(
        &self,
        now: Seconds,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool + Copy,
        load: impl Fn(&Candidate) -> Load + Copy,
    ) -> Option<BackendSlot> {
        self.touch(now);
        let in_set =
            |it: &Candidate| self.set_of(candidates).any(|(_, member)| member == it) && available(it);
        let chosen = weighted_connections(candidates, in_set, load);
        self.shrink(now, candidates, load);
        let kept = candidates.iter().find(|it| Some(it.backend) == chosen);
        if let Some(kept) = kept.filter(|it| !is_crowded(it, candidates, load)) {
            return Some(kept.backend);
        }
        let chosen = weighted_connections(candidates, available, load)?;
        let place = candidates.iter().position(|it| it.backend == chosen)?;
        if !self.members.get(place)?.swap(true, Ordering::Relaxed) {
            self.changed.store(now, Ordering::Relaxed);
        }
        Some(chosen)
    }

    /// Empties the entry if nobody asked for it for a day.
    fn touch(&self, now: Seconds) {
        if now.wrapping_sub(self.used.swap(now, Ordering::Relaxed)) > EXPIRATION {
            self.members.iter().for_each(|is_in| is_in.store(false, Ordering::Relaxed));
        }
    }

    fn shrink(&self, now: Seconds, candidates: &[Candidate], load: impl Fn(&Candidate) -> Load) {
        let unchanged = now.wrapping_sub(self.changed.load(Ordering::Relaxed));
        if unchanged <= EXPIRATION || self.set_of(candidates).nth(1).is_none() {
            return;
        }
        let most = self.set_of(candidates).reduce(|most, it| {
            let (cost, its) = (overhead(load(most.1)), overhead(load(it.1)));
            if times(cost, it.1.weight) < times(its, most.1.weight) { it } else { most }
        });
        if let Some(is_in) = most.and_then(|(place, _)| self.members.get(place)) {
            is_in.store(false, Ordering::Relaxed);
            self.changed.store(now, Ordering::Relaxed);
        }
    }
}

/// Whether a backend has more active connections than its weight while another has less than half of its own.
fn is_crowded(it: &Candidate, candidates: &[Candidate], load: impl Fn(&Candidate) -> Load) -> bool {
    load(it).active() > u64::from(it.weight)
        && candidates.iter().any(|other| load(other).active() * 2 < u64::from(other.weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    fn busy<const N: usize>(active: [u32; N]) -> impl Fn(&Candidate) -> Load + Copy {
        move |it| Load::new(active[it.backend.0 as usize], 0)
    }

    #[test]
    fn lblc_stays_until_one_is_crowded_and_another_is_not() {
        let candidates = candidates(&[4, 4, 4]);
        let entry = Locality::new(&candidates, None);
        let one = |now, active| entry.one(now, &candidates, |_| true, busy(active)).unwrap().0;
        assert_eq!(one(1, [1, 0, 0]), 1, "the least loaded");
        assert_eq!(one(2, [0, 4, 0]), 1, "as much as its weight");
        assert_eq!(one(3, [2, 5, 2]), 1, "nobody else has less than half");
        assert_eq!(one(4, [2, 5, 1]), 2);
        assert_eq!(one(5, [0, 0, 4]), 2);
        assert_eq!(entry.one(6, &candidates, |it| it.backend.0 != 2, busy([1, 0, 0])), Some(BackendSlot(1)));
        assert_eq!(one(6 + EXPIRATION, [0, 1, 1]), 1, "a day is not over");
        assert_eq!(one(7 + 2 * EXPIRATION, [0, 1, 1]), 0, "forgotten");
    }

    #[test]
    fn lblcr_adds_to_its_set_and_takes_away_after_a_day() {
        let candidates = candidates(&[4, 4, 4]);
        let entry = Locality::new(&candidates, None);
        let set = |now, active| entry.set(now, &candidates, |_| true, busy(active)).unwrap().0;
        let members = || entry.backends(&candidates).map(|slot| slot.0).collect::<Vec<_>>();
        assert_eq!((set(1, [0, 0, 0]), members()), (0, vec![0]));
        assert_eq!((set(2, [5, 3, 1]), members()), (2, vec![0, 2]), "crowded: another one joins");
        assert_eq!((set(3, [3, 0, 4]), members()), (0, vec![0, 2]), "the least loaded of the set");
        assert_eq!((set(2 + EXPIRATION, [3, 0, 4]), members()), (0, vec![0, 2]));
        assert_eq!((set(3 + EXPIRATION, [3, 0, 4]), members()), (0, vec![0]), "the most loaded leaves");
        assert_eq!((set(4 + EXPIRATION, [3, 0, 4]), members()), (0, vec![0]));
        assert_eq!((set(4 + 2 * EXPIRATION, [3, 0, 4]), members()), (0, vec![0]), "the last one stays");
        assert_eq!(entry.set(5, &candidates, |_| false, busy([0, 0, 0])), None);
    }

    #[test]
    fn a_changed_list_keeps_who_is_still_there() {
        let before = candidates(&[1, 1, 1]);
        let entry = Locality::new(&before, None);
        assert_eq!(entry.one(1, &before, |_| true, busy([1, 1, 0])), Some(BackendSlot(2)));
        let after = [Candidate::new(BackendSlot(2), 1), Candidate::new(BackendSlot(0), 1)];
        let entry = Locality::new(&after, Some((&entry, &before)));
        assert_eq!(entry.backends(&after).collect::<Vec<_>>(), [BackendSlot(2)]);
        assert_eq!(entry.used.load(Ordering::Relaxed), 1);
    }
}

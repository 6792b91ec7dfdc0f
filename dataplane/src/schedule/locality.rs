//! Locality-based least connection: a destination keeps its backend, or its set of them, as long as these bear it.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lblc.c and ip_vs_lblcr.c, which keep a table of destination addresses. A
//! service here has one address, so its table has one entry. It is shared by all workers; where two of them change it
//! at the same time, either may win, and both chose one of the least loaded.

use std::sync::atomic::{AtomicU32, Ordering};

use super::cost::{Cost, Overhead};
use super::least::{times, weighted_connections};
use crate::clock::Seconds;
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// The entry of a service.
#[derive(Debug)]
pub struct Locality {
    /// How long it is kept when nobody asks for it, and how long its set may be larger than it has to be: the kernel's
    /// `lblc_expiration` and `lblcr_expiration`. The kernel looks for the former every half hour only.
    expiration: Seconds,
    /// By candidate: when it joined the set, as a number that is greater for those that joined later; 0 if it is not in
    /// it. `lblc` keeps one in it.
    joined: Box<[AtomicU32]>,
    /// The place of the only one in the set, as it mostly is; [`NOBODY`] if there are more, or none. What another worker
    /// changes at the same time may be missed here until the next change.
    only: AtomicU32,
    /// When it was last asked for.
    used: AtomicU32,
    /// When the set last changed.
    changed: AtomicU32,
}

/// No place.
const NOBODY: u32 = u32::MAX;

/// One of the set.
#[derive(Clone, Copy)]
struct Member<'a> {
    candidate: &'a Candidate,
    joined: &'a AtomicU32,
    order: u32,
    overhead: u64,
}

impl Member<'_> {
    /// Whether it has less overhead for its weight than the other one.
    fn is_below(&self, other: &Self) -> bool {
        times(self.overhead, other.candidate.weight) < times(other.overhead, self.candidate.weight)
    }
}

impl Locality {
    /// The entry of these candidates: those stay in it that were in the one before.
    pub(super) fn new(
        candidates: &[Candidate],
        expiration: Seconds,
        before: Option<(&Self, &[Candidate])>,
    ) -> Self {
        let order = |it: &Candidate| {
            let (entry, its) = before?;
            let place = its.iter().position(|other| other.backend == it.backend)?;
            Some(entry.joined.get(place)?.load(Ordering::Relaxed))
        };
        let time = |of: fn(&Self) -> &AtomicU32| {
            AtomicU32::new(before.map_or(0, |(entry, _)| of(entry).load(Ordering::Relaxed)))
        };
        let entry = Self {
            expiration,
            joined: candidates.iter().map(|it| AtomicU32::new(order(it).unwrap_or(0))).collect(),
            only: AtomicU32::new(NOBODY),
            used: time(|it| &it.used),
            changed: time(|it| &it.changed),
        };
        entry.look_for_only();
        entry
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
        let kept = self.only(candidates).filter(|it| available(it));
        if let Some(kept) = kept.filter(|it| !is_crowded(it, candidates, load)) {
            return Some(kept.backend);
        }
        let chosen = weighted_connections(candidates, available, load)?;
        for (joined, candidate) in self.joined.iter().zip(candidates) {
            joined.store(u32::from(candidate.backend == chosen), Ordering::Relaxed);
        }
        self.look_for_only();
        Some(chosen)
    }

    /// `lblcr`: the least loaded of the set; if that is overloaded, the least loaded of all joins it. A set that did not
    /// change for so long loses its most loaded member. Of equal ones it is who joined last.
    pub(super) fn set(
        &self,
        now: Seconds,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool + Copy,
        load: impl Fn(&Candidate) -> Load + Copy,
    ) -> Option<BackendSlot> {
        self.touch(now);
        let least = match self.only(candidates) {
            Some(only) => Some(only).filter(|it| available(it)),
            None => self.least(candidates, available, load),
        };
        self.shrink(now, candidates, load);
        if let Some(least) = least.filter(|it| !is_crowded(it, candidates, load)) {
            return Some(least.backend);
        }
        let chosen = weighted_connections(candidates, available, load)?;
        let last = self.joined.iter().map(|joined| joined.load(Ordering::Relaxed)).max().unwrap_or(0);
        let place = candidates.iter().position(|it| it.backend == chosen)?;
        let joined = self.joined.get(place)?;
        if joined.load(Ordering::Relaxed) == 0 {
            joined.store(last.saturating_add(1), Ordering::Relaxed);
            self.changed.store(now, Ordering::Relaxed);
        }
        self.look_for_only();
        Some(chosen)
    }

    /// The only candidate in the set.
    #[inline]
    fn only<'a>(&self, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        candidates.get(self.only.load(Ordering::Relaxed) as usize)
    }

    /// Notes who is the only one in the set, after that has changed.
    fn look_for_only(&self) {
        let there =
            |(place, joined): (u32, &AtomicU32)| (joined.load(Ordering::Relaxed) > 0).then_some(place);
        let mut places = (0..).zip(&self.joined).filter_map(there);
        let only = places.next().filter(|_| places.next().is_none());
        self.only.store(only.unwrap_or(NOBODY), Ordering::Relaxed);
    }

    /// The least loaded of the set that takes flows.
    fn least<'a>(
        &'a self,
        candidates: &'a [Candidate],
        available: impl Fn(&Candidate) -> bool,
        load: impl Fn(&Candidate) -> Load + 'a,
    ) -> Option<&'a Candidate> {
        let there = self.set_of(candidates, load).filter(|it| available(it.candidate));
        let least = there.reduce(|least, it| {
            let wins = it.is_below(&least) || (!least.is_below(&it) && it.order > least.order);
            if wins { it } else { least }
        });
        least.map(|it| it.candidate)
    }

    /// The candidates in the set.
    fn set_of<'a>(
        &'a self,
        candidates: &'a [Candidate],
        load: impl Fn(&Candidate) -> Load + 'a,
    ) -> impl Iterator<Item = Member<'a>> {
        self.joined.iter().zip(candidates).filter_map(move |(joined, candidate)| {
            let order = joined.load(Ordering::Relaxed);
            (order > 0).then(|| Member { candidate, joined, order, overhead: Overhead.of(load(candidate)) })
        })
    }

    /// Empties the entry if nobody asked for it for too long.
    fn touch(&self, now: Seconds) {
        // Once a second, for an exchange takes longer than all the rest; of the workers, one sees that its time is over.
        // Their clocks differ by some turns.
        if self.used.load(Ordering::Relaxed) >= now {
            return;
        }
        if now.saturating_sub(self.used.fetch_max(now, Ordering::Relaxed)) > self.expiration {
            self.joined.iter().for_each(|joined| joined.store(0, Ordering::Relaxed));
            self.only.store(NOBODY, Ordering::Relaxed);
        }
    }

    fn shrink(&self, now: Seconds, candidates: &[Candidate], load: impl Fn(&Candidate) -> Load + Copy) {
        let unchanged = now.saturating_sub(self.changed.load(Ordering::Relaxed));
        if unchanged <= self.expiration || self.set_of(candidates, load).nth(1).is_none() {
            return;
        }
        let most = self.set_of(candidates, load).reduce(|most, it| {
            let wins = most.is_below(&it) || (!it.is_below(&most) && it.order > most.order);
            if wins { it } else { most }
        });
        if let Some(most) = most {
            most.joined.store(0, Ordering::Relaxed);
            self.changed.store(now, Ordering::Relaxed);
            self.look_for_only();
        }
    }
}

/// Whether a backend has more active connections than its weight while another has less than half of its own.
#[inline]
fn is_crowded(it: &Candidate, candidates: &[Candidate], load: impl Fn(&Candidate) -> Load) -> bool {
    let is_free = |other: &Candidate| load(other).active() * 2 < u64::from(other.weight);
    // Some at a time without a jump, for where the first one is cannot be foreseen.
    let (some, rest) = candidates.as_chunks::<4>();
    let anyone = || some.iter().any(|[a, b, c, d]| is_free(a) | is_free(b) | is_free(c) | is_free(d));
    load(it).active() > u64::from(it.weight) && (anyone() || rest.iter().any(is_free))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRATION: Seconds = 3600;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    fn members(entry: &Locality, candidates: &[Candidate]) -> Vec<u32> {
        entry.set_of(candidates, |_| Load::default()).map(|it| it.candidate.backend.0).collect()
    }

    fn busy<const N: usize>(active: [u32; N]) -> impl Fn(&Candidate) -> Load + Copy {
        move |it| Load::new(active[it.backend.0 as usize], 0)
    }

    #[test]
    fn lblc_stays_until_one_is_crowded_and_another_is_not() {
        let candidates = candidates(&[4, 4, 4]);
        let entry = Locality::new(&candidates, EXPIRATION, None);
        let one = |now, active| entry.one(now, &candidates, |_| true, busy(active)).unwrap().0;
        assert_eq!(one(1, [1, 0, 0]), 1, "the least loaded");
        assert_eq!(one(2, [0, 4, 0]), 1, "as much as its weight");
        assert_eq!(one(3, [2, 5, 2]), 1, "nobody else has less than half");
        assert_eq!(one(4, [2, 5, 1]), 2);
        assert_eq!(one(5, [0, 0, 4]), 2);
        assert_eq!(entry.one(6, &candidates, |it| it.backend.0 != 2, busy([1, 0, 0])), Some(BackendSlot(1)));
        assert_eq!(one(6 + EXPIRATION, [0, 1, 1]), 1, "it is not over");
        assert_eq!(one(5 + EXPIRATION, [0, 1, 1]), 1, "nor to a worker whose clock is behind");
        assert_eq!(one(7 + 2 * EXPIRATION, [0, 1, 1]), 0, "forgotten");
    }

    #[test]
    fn lblcr_adds_to_its_set_and_takes_away_after_a_while() {
        let candidates = candidates(&[4, 4, 4]);
        let entry = Locality::new(&candidates, EXPIRATION, None);
        let set = |now, active| entry.set(now, &candidates, |_| true, busy(active)).unwrap().0;
        let members = || members(&entry, &candidates);
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
        let entry = Locality::new(&before, EXPIRATION, None);
        assert_eq!(entry.one(1, &before, |_| true, busy([1, 1, 0])), Some(BackendSlot(2)));
        let after = [Candidate::new(BackendSlot(2), 1), Candidate::new(BackendSlot(0), 1)];
        let entry = Locality::new(&after, EXPIRATION, Some((&entry, &before)));
        assert_eq!(members(&entry, &after), [2]);
        assert_eq!(entry.used.load(Ordering::Relaxed), 1);
    }
}

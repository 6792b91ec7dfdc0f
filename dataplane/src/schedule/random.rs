//! The backend by lot: weighted, the better of two (`twos` of IPVS), and the better of two different ones.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_twos.c; M. Mitzenmacher, The Power of Two Choices in Randomized Load
//! Balancing, 2001.

use std::hint::select_unpredictable;

use super::cost::{Cost, Overhead};
use super::least::times;
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// A worker's lots: SplitMix64, whose next number is good enough from any seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    #[inline]
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number less than `bound`, or 0.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // Scaled and not divided: the error is below 2^-24 for bounds of 40 bits.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// `random`, among those that take new flows now: each by its weight.
    pub(super) fn weighted(
        &mut self,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool,
    ) -> Option<BackendSlot> {
        let mut lot = self.below(total(candidates, &available));
        let drawn = candidates.iter().filter(|it| available(it)).find(|it| {
            let weight = u64::from(it.weight);
            let found = lot < weight;
            lot = lot.wrapping_sub(weight);
            found
        });
        drawn.map(|it| it.backend)
    }

    /// `random`: one of all candidates.
    #[inline]
    pub(super) fn draw<'a>(&mut self, lots: &Lots, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        candidates.get(lots.place(self.bits())?)
    }

    /// `twos`: the better of two of all candidates, as [`Self::twos`] has it.
    pub(super) fn draw_twos(
        &mut self,
        lots: &Lots,
        candidates: &[Candidate],
        load: impl Fn(&Candidate) -> Load,
    ) -> Option<BackendSlot> {
        better(self.draw(lots, candidates)?, self.draw(lots, candidates)?, load)
    }

    /// `twos`, among those that take new flows now: of two that are drawn by their weights, and may be the same, the one with less overhead for its weight.
    ///
    /// The lots are those of the kernel, from 0 to the sum of all weights, both included, so the first backend is drawn
    /// a little too often.
    pub(super) fn twos(
        &mut self,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool,
        load: impl Fn(&Candidate) -> Load,
    ) -> Option<BackendSlot> {
        let bound = total(candidates, &available) + 1;
        let (mut first, mut second) = (Some(self.below(bound)), Some(self.below(bound)));
        let (mut one, mut other) = (None, None);
        for candidate in candidates.iter().filter(|it| available(it)) {
            let weight = u64::from(candidate.weight);
            let fall = |lot: &mut Option<u64>, drawn: &mut Option<_>| match lot {
                Some(left) if *left <= weight => {
                    *drawn = Some(candidate);
                    *lot = None;
                }
                Some(left) => *left -= weight,
                None => {}
            };
            fall(&mut first, &mut one);
            fall(&mut second, &mut other);
            if first.is_none() && second.is_none() {
                break;
            }
        }
        better(one?, other?, load)
    }

    /// `p2c`: of two different ones that are drawn alike, the one with less overhead for its weight.
    pub(super) fn two_choices(
        &mut self,
        candidates: &[Candidate],
        available: impl Fn(&Candidate) -> bool,
        load: impl Fn(&Candidate) -> Load,
    ) -> Option<BackendSlot> {
        let count = candidates.iter().filter(|it| available(it)).count() as u64;
        let one = self.below(count);
        // One of the others: those behind the first move up by one.
        let other = self.below(count.saturating_sub(1));
        let other = if other >= one && count > 1 { other + 1 } else { other };
        let nth = |number: u64| candidates.iter().filter(|it| available(it)).nth(number as usize);
        better(nth(one)?, nth(other)?, load)
    }
}

/// A draw of one of all candidates by their weights in two looks, however many there are.
///
/// Source: A. J. Walker, "An Efficient Method for Generating Discrete Random Variables with General Distributions",
/// 1977, made as M. D. Vose, "A Linear Algorithm for Generating Random Numbers with a Given Distribution", 1991, says.
#[derive(Clone, Debug, PartialEq)]
pub struct Lots(Box<[Lot]>);

/// What falls on one candidate's place, as each place has an equal part of all draws.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lot {
    /// Of 2^64 draws, those that are the candidate's own.
    own: u64,
    /// The place whose candidate has the others.
    other: u32,
}

impl Lots {
    /// The lots of `random`.
    pub(super) fn weighted(candidates: &[Candidate]) -> Self {
        Self::new(candidates.iter().map(|it| u64::from(it.weight)).collect())
    }

    /// The lots of `twos`, the first of which has one more than its weight.
    pub(super) fn twos(candidates: &[Candidate]) -> Self {
        let extra = [1].into_iter().chain(std::iter::repeat(0));
        Self::new(candidates.iter().zip(extra).map(|(it, extra)| u64::from(it.weight) + extra).collect())
    }

    /// Lots by weights, one of which is more than 0.
    fn new(weights: Vec<u64>) -> Self {
        let (count, total) = (weights.len() as u128, weights.iter().map(|it| u128::from(*it)).sum::<u128>());
        // A place holds `total`; a weight fills it as often as there are places.
        let mut left: Vec<u128> = weights.iter().map(|it| u128::from(*it) * count).collect();
        let mut lots: Box<[Lot]> =
            (0..weights.len() as u32).map(|other| Lot { own: u64::MAX, other }).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|place| left[*place] < total);
        while let (Some(place), Some(&other)) = (small.pop(), large.last()) {
            lots[place] = Lot { own: ((left[place] << 64) / total) as u64, other: other as u32 };
            left[other] -= total - left[place];
            if left[other] < total {
                small.extend(large.pop());
            }
        }
        Self(lots)
    }

    /// The place that 64 random bits draw: their upper part chooses a place, and the rest who has it.
    #[inline]
    fn place(&self, bits: u64) -> Option<usize> {
        let wide = u128::from(bits) * self.0.len() as u128;
        let place = (wide >> 64) as usize;
        let lot = self.0.get(place)?;
        Some(select_unpredictable(wide as u64 >= lot.own, lot.other as usize, place))
    }
}

fn total(candidates: &[Candidate], available: impl Fn(&Candidate) -> bool) -> u64 {
    candidates.iter().filter(|it| available(it)).map(|it| u64::from(it.weight)).sum()
}

/// The one with less overhead for its weight; of equal ones the first.
#[inline]
fn better(one: &Candidate, other: &Candidate, load: impl Fn(&Candidate) -> Load) -> Option<BackendSlot> {
    let cost = |it| Overhead.of(load(it));
    let is_worse = times(cost(one), other.weight) > times(cost(other), one.weight);
    Some(if is_worse { other } else { one }.backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRAWS: u32 = if cfg!(miri) { 200 } else { 100_000 };

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    /// How often each of `backends` is drawn.
    fn shares(backends: usize, mut draw: impl FnMut() -> Option<BackendSlot>) -> Vec<f64> {
        let mut counts = vec![0; backends];
        (0..DRAWS).for_each(|_| counts[draw().unwrap().0 as usize] += 1);
        counts.into_iter().map(f64::from).collect()
    }

    /// Pearson's chi-square of counts against shares.
    fn chi_square(counts: &[f64], shares: &[f64]) -> f64 {
        let draws: f64 = counts.iter().sum();
        counts
            .iter()
            .zip(shares)
            .map(|(count, share)| (count - draws * share).powi(2) / (draws * share))
            .sum()
    }

    #[test]
    fn random_draws_by_weight() {
        let candidates = candidates(&[1, 2, 0, 3, 4]);
        let mut random = Random::new(7);
        let counts = shares(5, || random.weighted(&candidates, |_| true));
        assert_eq!(counts[2], 0.0);
        let drawn: Vec<_> = [0, 1, 3, 4].map(|slot| counts[slot]).into();
        // 16.3 is exceeded once in a thousand times with three degrees of freedom.
        assert!(chi_square(&drawn, &[0.1, 0.2, 0.3, 0.4]) < 16.3, "{counts:?}");
        let counts = shares(5, || random.weighted(&candidates, |it| it.backend.0 > 3));
        assert_eq!(counts[4], f64::from(DRAWS));
        assert_eq!(random.weighted(&candidates, |_| false), None);
    }

    #[test]
    fn twos_draws_as_the_kernel_does() {
        // With equal loads the first draw counts: 2 of 4 lots fall on the first of three equal weights.
        let candidates = candidates(&[1, 1, 1]);
        let mut random = Random::new(8);
        let counts = shares(3, || random.twos(&candidates, |_| true, |_| Load::default()));
        assert!(chi_square(&counts, &[0.5, 0.25, 0.25]) < 13.8, "{counts:?}");
        // The loaded one is chosen if it is drawn twice.
        let load = |it: &Candidate| Load::new(u32::from(it.backend.0 == 0), 0);
        let counts = shares(3, || random.twos(&candidates, |_| true, load));
        assert!(chi_square(&counts, &[0.25, 0.375, 0.375]) < 13.8, "{counts:?}");
        assert_eq!(random.twos(&candidates, |_| false, load), None);
    }

    #[test]
    fn p2c_never_takes_the_busiest_of_three() {
        let candidates = candidates(&[1, 1, 1]);
        let mut random = Random::new(9);
        let load = |it: &Candidate| Load::new(it.backend.0, 0);
        let counts = shares(3, || random.two_choices(&candidates, |_| true, load));
        assert_eq!(counts[2], 0.0);
        assert!(chi_square(&counts[..2], &[2.0 / 3.0, 1.0 / 3.0]) < 10.8, "{counts:?}");
        let counts = shares(3, || random.two_choices(&candidates, |_| true, |_| Load::default()));
        assert!(chi_square(&counts, &[1.0 / 3.0; 3]) < 13.8, "{counts:?}");
        assert_eq!(random.two_choices(&candidates, |it| it.backend.0 == 2, load), Some(BackendSlot(2)));
        assert_eq!(random.two_choices(&candidates, |_| false, load), None);
    }

    #[test]
    fn two_choices_heed_weights() {
        let candidates = candidates(&[1, 3]);
        let mut random = Random::new(10);
        let load = |it: &Candidate| Load::new([1, 2][it.backend.0 as usize], 0);
        assert_eq!(random.two_choices(&candidates, |_| true, load), Some(BackendSlot(1)));
    }

    /// How many of 2^64 draws fall on each candidate.
    fn drawn(lots: &Lots) -> Vec<u128> {
        let mut drawn = vec![0; lots.0.len()];
        for (place, lot) in lots.0.iter().enumerate() {
            // Of each place's part, those below `own` are its own.
            drawn[place] += u128::from(lot.own);
            drawn[lot.other as usize] += (1 << 64) - u128::from(lot.own);
        }
        drawn
    }

    proptest! {
        #[test]
        fn lots_are_as_many_as_weights(weights in prop::collection::vec(1u32..7_000_000, 1..60), first in 0u64..2) {
            let candidates = candidates(&weights);
            let lots = if first == 0 { Lots::weighted(&candidates) } else { Lots::twos(&candidates) };
            let weight = |place: usize| u128::from(weights[place]) + if place == 0 { u128::from(first) } else { 0 };
            let (total, count) = ((0..weights.len()).map(weight).sum::<u128>(), weights.len() as u128);
            for (place, drawn) in drawn(&lots).into_iter().enumerate() {
                let exact = ((weight(place) * count) << 64) / total;
                prop_assert!(drawn.abs_diff(exact) <= 2 * count, "{place}: {drawn} and not {exact}");
            }
        }
    }

    #[test]
    fn lots_are_drawn_as_they_are() {
        let candidates = candidates(&[1, 2, 3, 4]);
        let lots = Lots::weighted(&candidates);
        let mut random = Random::new(11);
        let counts = shares(4, || random.draw(&lots, &candidates).map(|it| it.backend));
        assert!(chi_square(&counts, &[0.1, 0.2, 0.3, 0.4]) < 16.3, "{counts:?}");
        assert_eq!(random.draw(&Lots::weighted(&[]), &[]), None);
        // As `twos_draws_as_the_kernel_does` has it.
        let equal = &candidates[..1].repeat(3);
        let equal: Vec<_> =
            (0..).zip(equal).map(|(slot, it)| Candidate { backend: BackendSlot(slot), ..*it }).collect();
        let lots = Lots::twos(&equal);
        let counts = shares(3, || random.draw_twos(&lots, &equal, |_| Load::default()));
        assert!(chi_square(&counts, &[0.5, 0.25, 0.25]) < 13.8, "{counts:?}");
    }
}

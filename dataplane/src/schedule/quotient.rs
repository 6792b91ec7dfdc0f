//! The least of many costs, two at a time, by instructions for two numbers (SSE2, which every x86-64 has). Which is less
//! cannot be foreseen, so nothing jumps.
//!
//! A cost for its weight is a quotient of doubles. Those are rounded, but in one way only: equal quotients of integers
//! stay equal ones, and none gets on the other side of another. So it is exact wherever different ones are too far
//! apart to become one ([`Divisors`]).

use wide::{f64x2, u64x2};

use super::cost::{self, Cost};
use crate::load::Load;
use crate::snapshot::{BackendSlot, Candidate};

/// The double that has an integer below 2^52 where its fraction is: the integer plus 2^52.
const TWO_TO_52: u64 = ((1u64 << 52) as f64).to_bits();

/// The first candidate whose cost is the least; none if they are too many.
#[inline(always)]
pub(super) fn least<C: Cost>(
    candidates: &[Candidate],
    load: impl Fn(BackendSlot) -> Load,
    cost: C,
) -> Option<BackendSlot> {
    // The place is below the cost in the number that is compared.
    const PLACE_BITS: u32 = 11;
    const { assert!(cost::MOST << PLACE_BITS <= 1 << 52) };
    let bid = |pair, places| f64x2::from_bits((cost.of_two(loads(pair, &load)) << PLACE_BITS) + places);
    let (pairs, rest) = candidates.as_chunks::<2>();
    let mut least = f64x2::splat(f64::INFINITY);
    let mut places = u64x2::new([TWO_TO_52, TWO_TO_52 | 1]);
    for [one, other] in pairs {
        least = least.fast_min(bid([one.backend, other.backend], places));
        places += u64x2::splat(2);
    }
    if let [last] = rest {
        least = least.fast_min(bid([last.backend; 2], places));
    }
    let [even, odd] = least.to_array();
    let place = lower(even, odd).to_bits() & ((1 << PLACE_BITS) - 1);
    candidates.get(place as usize).filter(|_| candidates.len() <= 1 << PLACE_BITS).map(|it| it.backend)
}

/// The bits of the loads of two.
#[inline(always)]
fn loads(pair: [BackendSlot; 2], load: impl Fn(BackendSlot) -> Load) -> u64x2 {
    u64x2::new(pair.map(|it| load(it).bits()))
}

/// Weights by which costs are divided.
#[derive(Clone, Debug, PartialEq)]
pub struct Divisors {
    /// The candidates; a last one that has no other is there twice.
    pairs: Box<[Pair]>,
    /// The bits of a quotient that give way to the place of its candidate.
    mask: u64,
    /// Bids are told from all others if they are less.
    sure: u64,
}

/// Two candidates and their weights.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    weights: f64x2,
    /// Their places, and [`Divisors::BASE`].
    places: u64x2,
    backends: [BackendSlot; 2],
}

impl Divisors {
    /// What is added to the bits of all quotients, so that zero is a normal number, too, for others take long on some
    /// processors: it is 2^-767 then, and others are multiplied by 2^256.
    const BASE: u64 = 1 << 60;

    /// The weights of candidates.
    pub(super) fn new(candidates: &[Candidate]) -> Self {
        let pairs = candidates.chunks(2).zip((Self::BASE..).step_by(2)).map(|(chunk, place)| {
            let pair = [&chunk[0], chunk.last().unwrap_or(&chunk[0])];
            let weights = f64x2::new(pair.map(|it| f64::from(it.weight)));
            let places = u64x2::new([place, place + 1]);
            Pair { weights, places, backends: pair.map(|it| it.backend) }
        });
        let mask = candidates.len().next_power_of_two().max(2) as u64 - 1;
        // Let a / b be the least quotient of a cost and a weight and c / d another one, at most twice as much, for else it
        // is told. They differ by 1 / bd or more, which is the part 1 / bc of c / d, and bc is at most 2ad. The grid of
        // what is left of 52 bits of fraction has steps of the part 2^-t at most, and rounding adds less than half of one:
        // two quotients are on different steps if 1 / 2ad > 2^(1 - t), as with a / b < 2^(t - 2) / (heaviest weight)^2.
        let heaviest = f64::from(candidates.iter().map(|it| it.weight).max().unwrap_or(1));
        let steps = f64::from_bits(TWO_TO_52) / (mask + 1) as f64;
        let sure = (steps / 4.0 / heaviest / heaviest).to_bits() + Self::BASE;
        Self { pairs: pairs.collect(), mask, sure }
    }

    /// The first candidate whose cost for its weight is the least; none if that cannot be told.
    #[inline(always)]
    pub(super) fn least<C: Cost>(
        &self,
        candidates: &[Candidate],
        load: impl Fn(BackendSlot) -> Load,
        cost: C,
    ) -> Option<BackendSlot> {
        let least = self.least_bid(|pair| cost.of_two(loads(pair, &load)));
        self.bidder(candidates, least).filter(|_| least < self.sure)
    }

    /// The same, for any costs below 2^52; none, too, if the least one is nothing, or less than that as a number with a
    /// sign.
    #[inline(always)]
    pub(super) fn least_of_some(
        &self,
        candidates: &[Candidate],
        cost: impl Fn(BackendSlot) -> u64,
    ) -> Option<BackendSlot> {
        let least = self.least_bid(|pair| u64x2::new(pair.map(&cost)));
        // Numbers with a sign look like no number, which is no number in quotients, too, and with what is added is less
        // than nothing or more than all.
        self.bidder(candidates, least).filter(|_| (Self::BASE | self.mask) < least && least < self.sure)
    }

    /// The least of all bids.
    #[inline(always)]
    fn least_bid(&self, costs: impl Fn([BackendSlot; 2]) -> u64x2) -> u64 {
        let mut least = f64x2::splat(f64::INFINITY);
        for pair in &self.pairs {
            least = least.fast_min(self.bid(pair, costs(pair.backends)));
        }
        let [even, odd] = least.to_array();
        lower(even, odd).to_bits()
    }

    /// Whose bid it is.
    #[inline(always)]
    fn bidder(&self, candidates: &[Candidate], bid: u64) -> Option<BackendSlot> {
        candidates.get((bid & self.mask) as usize).map(|it| it.backend)
    }

    /// What costs are of the weights of a pair, and its places.
    #[inline(always)]
    fn bid(&self, pair: &Pair, costs: u64x2) -> f64x2 {
        let base = u64x2::splat(TWO_TO_52);
        let quotients = (f64x2::from_bits(costs | base) - f64x2::from_bits(base)) / pair.weights;
        f64x2::from_bits((quotients.to_bits() & u64x2::splat(!self.mask)) + pair.places)
    }
}

/// The lower one; neither is NaN.
#[inline(always)]
fn lower(one: f64, other: f64) -> f64 {
    if one < other { one } else { other }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::super::cost::{Delay, Overhead};
    use super::super::least::times;
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    /// Costs for weights, compared without rounding.
    fn compare((cost, weight): (u64, u32), (other, its): (u64, u32)) -> Ordering {
        times(cost, its).cmp(&times(other, weight))
    }

    #[test]
    fn usual_loads_are_told_in_a_few_steps() {
        // The most active flows of each backend, by weights; those of a slow start are multiplied by 100.
        let cases: [(&[u32], u32); 4] = [
            (&[1, 20, 7], u32::MAX),
            (&[1, 2, 1000, 1000], 200_000),
            (&[65_535, 30_000], 4_000_000),
            (&[6_553_500, 100], 50_000),
        ];
        for (weights, active) in cases {
            let candidates = candidates(weights);
            let divisors = Divisors::new(&candidates);
            let load = |slot: BackendSlot| Load::new(active - slot.0, 9);
            assert!(divisors.least(&candidates, load, Overhead).is_some(), "{weights:?}");
            assert!(divisors.least_of_some(&candidates, |_| u64::from(active)).is_some(), "{weights:?}");
        }
    }

    #[test]
    fn what_is_nothing_or_less_is_not_told() {
        for weights in [&[1, 2, 3][..], &[7], &[4, 4]] {
            let candidates = candidates(weights);
            let divisors = Divisors::new(&candidates);
            for cost in [0, u64::MAX, (-5_000_000_i64).cast_unsigned()] {
                for slot in (0..weights.len() as u32).map(BackendSlot) {
                    let costs = |it| if it == slot { cost } else { 1000 };
                    assert_eq!(divisors.least_of_some(&candidates, costs), None, "{weights:?} {cost}");
                }
            }
        }
        assert_eq!(Divisors::new(&[]).least(&[], |_| Load::default(), Delay), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 8192 }))]
        #[test]
        fn what_is_told_is_exact(
            weights in prop::collection::vec((1..=6_553_500u32, 0..23u32), 1..20),
            costs in prop::collection::vec((0..1u64 << 52, 0..52u32), 20),
            same in prop::collection::vec(prop::option::of(1..500u64), 20),
        ) {
            let weights: Vec<_> = weights.iter().map(|(weight, shift)| (weight >> shift).max(1)).collect();
            // Some are just as much for their weights, and some a little more.
            let costs: Vec<_> = costs.iter().zip(&weights).zip(&same).map(|((&(cost, shift), weight), same)| match same {
                Some(times) => (u64::from(*weight) * times / 5).min((1 << 52) - 1),
                None => cost >> shift,
            }).collect();
            let candidates = candidates(&weights);
            let of = |slot: BackendSlot| (costs[slot.0 as usize], weights[slot.0 as usize]);
            let slots = (0..weights.len() as u32).map(BackendSlot);
            let least = slots.min_by(|one, other| compare(of(*one), of(*other)));
            let divisors = Divisors::new(&candidates);
            let told = divisors.least_of_some(&candidates, |slot| costs[slot.0 as usize]);
            if told.is_some() {
                prop_assert_eq!(told, least);
            }
        }

        #[test]
        fn neighbours_are_told_apart_or_not_at_all(
            (weight, quotient) in (0..23u32, 0..30u32).prop_flat_map(|(bits, quotient_bits)| (1..=1u32 << bits, 1..=1u64 << quotient_bits)),
            others in 0..40usize,
        ) {
            // Fractions a / b and c / d with ad - bc = 1: no two are nearer to each other.
            let cost = quotient * u64::from(weight) + 1;
            let costs = [cost, cost + quotient];
            let mut weights = vec![weight, weight + 1];
            weights.extend(vec![1; others]);
            let candidates = candidates(&weights);
            let cost = |slot: BackendSlot| costs.get(slot.0 as usize).copied().unwrap_or(1 << 50);
            let told = Divisors::new(&candidates).least_of_some(&candidates, cost);
            prop_assert!(told.is_none() || told == Some(BackendSlot(1)));
            let is_usual = weight <= 1000 && quotient < 100_000 && others < 10;
            prop_assert!(told.is_some() || !is_usual);
        }
    }
}

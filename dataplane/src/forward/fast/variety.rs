//! To how many backends packets go, told from samples. A large configuration of which few backends have traffic is as fast
//! as a small one, if nothing is asked for early that the caches have.

use crate::snapshot::BackendSlot;

const WORDS: usize = 32;
/// Samples after which it is judged anew.
const SAMPLES: u32 = 64 * WORDS as u32;
/// Openings of which one is a sample: about as many as packets of a burst, and no even number, for clients may open in turns.
const OPENINGS: u32 = 31;
/// Bits that so many samples set if they are of some 2,700 backends: of 2,048 they set 960, of 8,192 1,200. They are as many,
/// too, where seven tenths of the packets go to very many backends and the rest to few.
const MANY: u32 = SAMPLES / 2;

/// Linear counting (Whang, Vander-Zanden and Taylor, "A Linear-Time Probabilistic Counting Algorithm for Database
/// Applications", 1990).
pub(in super::super) struct Variety {
    /// A bit for each hash of a backend that was sampled.
    seen: [u64; WORDS],
    noted: u32,
    /// Openings since one was a sample.
    openings: u32,
    is_great: bool,
}

impl Variety {
    /// Great, until it is known.
    pub fn new() -> Self {
        Self { seen: [0; WORDS], noted: 0, openings: 0, is_great: true }
    }

    /// Whether packets went to more backends lately than the caches have room for.
    #[inline]
    pub fn is_great(&self) -> bool {
        self.is_great
    }

    /// Notes an opening, of which some are samples.
    #[inline]
    pub fn note_opening(&mut self, backend: BackendSlot) {
        self.openings += 1;
        if self.openings == OPENINGS {
            self.openings = 0;
            self.note(backend);
        }
    }

    /// Takes a packet's backend for a sample.
    #[inline(never)]
    pub fn note(&mut self, backend: BackendSlot) {
        // Slots in a row would be spread evenly by one factor, so that the bits would tell no more than that they are many.
        let hash = u64::from(backend.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ hash >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bit = hash >> (u64::BITS - SAMPLES.ilog2());
        self.seen[bit as usize / 64] |= 1 << (bit % 64);
        self.noted += 1;
        if self.noted == SAMPLES {
            self.judge();
        }
    }

    #[cold]
    fn judge(&mut self) {
        let set: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        *self = Self { is_great: set > MANY, openings: self.openings, ..Self::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    #[test]
    fn it_follows_the_number_of_backends() {
        let mut variety = Variety::new();
        assert!(variety.is_great());
        // In no order, as clients come.
        let random = BuildHasherDefault::<DefaultHasher>::default();
        for (backends, is_great) in [(1, false), (8_192, true), (2_048, false), (40_000, true), (4, false)] {
            for number in 0..SAMPLES {
                variety.note(BackendSlot(random.hash_one(number) as u32 % backends));
            }
            assert_eq!(variety.is_great(), is_great, "{backends}");
        }
    }

    #[test]
    fn openings_are_sampled_whatever_their_turns() {
        let mut variety = Variety::new();
        let openings = |variety: &mut Variety, backends: u32| {
            (0..SAMPLES * OPENINGS).for_each(|number| variety.note_opening(BackendSlot(number % backends)));
            variety.is_great()
        };
        assert!(!openings(&mut variety, 1));
        assert!(openings(&mut variety, 1 << 16));
    }
}

//! An immutable hash table from small keys to small values, made once for a snapshot and only read.

use crate::prefetch;

/// What can be looked up: a 64-bit number, such as an IPv4 endpoint, or a 192-bit one, such as an IPv6 endpoint.
///
/// The default key, all zeros, marks an empty place and is never stored.
pub trait Key: Copy + Eq + Default {
    /// A hash whose high bits are the best mixed ones.
    fn hash(self) -> u64;
}

/// Fibonacci hashing: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Lets the high half of a word, usually an address, reach the low bits too: a product's bits depend only on
/// the lower ones of its factors.
#[inline]
fn mix(word: u64) -> u64 {
    word ^ word >> 32
}

impl Key for u64 {
    #[inline]
    fn hash(self) -> u64 {
        mix(self).wrapping_mul(GOLDEN)
    }
}

impl Key for [u64; 3] {
    /// The words are multiplied by different odd numbers, so that equal changes of two of them do not cancel.
    #[inline]
    fn hash(self) -> u64 {
        let [first, second, third] = self.map(mix);
        first
            .wrapping_mul(GOLDEN)
            .wrapping_add(second.wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
            .wrapping_add(third.wrapping_mul(0x1656_67b1_9e37_79f9))
    }
}

/// Open addressing with linear probing. Of a small table at most an eighth is full, of a tiny one a 64th, so that nearly
/// every probe ends at the first place, also those for keys that are not there: a mispredicted second one costs more than
/// the memory. Of a large one it is a half, for there the memory costs more.
#[derive(Clone, Debug)]
pub struct Lookup<K, V> {
    places: Box<[(K, V)]>,
}

impl<K: Key, V: Copy + Default> Lookup<K, V> {
    /// A table of these pairs. No key is all zeros; of equal keys the last one counts.
    pub fn new(pairs: impl ExactSizeIterator<Item = (K, V)>) -> Self {
        const SMALL: usize = 4096;
        const TINY: usize = 16;
        let room = match pairs.len() {
            len if len <= TINY => 64,
            len if len <= SMALL => 8,
            _ => 2,
        };
        let size = (pairs.len() * room).next_power_of_two().max(2);
        let mut table = Self { places: prefetch::table(Default::default(), size).into() };
        for (key, value) in pairs {
            debug_assert!(key != K::default());
            let mut place = table.start(key);
            while table.places[place].0 != K::default() && table.places[place].0 != key {
                place = (place + 1) & (size - 1);
            }
            table.places[place] = (key, value);
        }
        table
    }

    #[inline]
    fn start(&self, key: K) -> usize {
        // The highest bits of the hash, scaled, for a shift by a variable takes a register that is needed elsewhere.
        (((key.hash() >> 32) * self.places.len() as u64) >> 32) as usize
    }

    /// Asks for the value of a key to come into the cache.
    #[inline]
    pub fn prefetch(&self, key: K) {
        prefetch::prefetch(self.places.as_ptr().wrapping_add(self.start(key)));
    }

    /// What is in the place where a key is looked for first: that key, another one, or all zeros, which says that it is
    /// nowhere.
    #[inline(always)]
    pub fn first(&self, key: K) -> (K, V) {
        self.places[self.start(key)]
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: K) -> Option<V> {
        let mut place = self.start(key);
        loop {
            // All that come here are within the table.
            let (found, value) = *self.places.get(place)?;
            if found == key {
                return Some(value);
            }
            if found == K::default() {
                return None;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn an_empty_table_knows_nothing() {
        assert_eq!(Lookup::<u64, u32>::new([].into_iter()).get(1), None);
        assert_eq!(Lookup::<[u64; 3], u32>::new([].into_iter()).get([0, 0, 1]), None);
    }

    /// IPv6 endpoints as they come: one network, consecutive hosts or ports.
    #[test]
    fn neighbouring_endpoints_do_not_crowd() {
        let network = 0x2001_0db8_0005_0000;
        let hosts = |host: u64| [network, host, 80 << 16 | 1];
        let ports = |port: u64| [network, 1, port << 16 | 1];
        let networks = |number: u64| [network + (number << 8), 1, 80 << 16 | 1];
        let count = if cfg!(miri) { 20 } else { 1000 };
        for endpoint in [&hosts as &dyn Fn(u64) -> [u64; 3], &ports, &networks] {
            let keys: Vec<_> = (0..count).map(endpoint).collect();
            let table = Lookup::new(keys.iter().map(|key| (*key, ())));
            let starts: HashSet<usize> = keys.into_iter().map(|key| table.start(key)).collect();
            // Truly random ones would have about 940 of 1,000.
            assert!(starts.len() as u64 * 5 > count * 4, "{} places", starts.len());
        }
    }

    fn wide(number: u64) -> [u64; 3] {
        // Small numbers differ in one of the words, or in all.
        [number % 5, number / 5 % 5, number / 25 + 1]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn answers_as_a_map(pairs in prop::collection::vec((1u64..200, any::<u32>()), 0..if cfg!(miri) { 30 } else { 150 })) {
            let model: HashMap<u64, u32> = pairs.iter().copied().collect();
            let narrow = Lookup::new(pairs.iter().copied());
            let table = Lookup::new(pairs.iter().map(|&(key, value)| (wide(key), value)));
            for key in 1..220 {
                prop_assert_eq!(narrow.get(key), model.get(&key).copied());
                prop_assert_eq!(table.get(wide(key)), model.get(&key).copied());
            }
        }
    }
}

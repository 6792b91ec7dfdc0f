//! An immutable hash table from small keys to small values, made once for a snapshot and only read.

mod eight;
mod filter;

use crate::prefetch::{self, Table};
pub(crate) use eight::{Firsts, Pair};
pub use filter::Filter;

/// What can be looked up: a 64-bit number, such as an IPv4 endpoint, or a 192-bit one, such as an IPv6 endpoint.
///
/// The default key, all zeros, marks an empty place and is never stored. No key has the bit of [`Key::passed`].
pub trait Key: Copy + Eq + Default {
    /// A hash whose high bits are the best mixed ones, by one of [`FACTORS`].
    fn hash(self, factor: u64) -> u64;

    /// The same with a bit that says in a table that others were looked for here first, or on their way, and are elsewhere.
    #[must_use]
    fn passed(self) -> Self;

    /// Whether that bit is set.
    fn is_passed(self) -> bool;
}

/// Odd numbers: 2^64 divided by the golden ratio (Fibonacci hashing), and what SplitMix64 makes from it. A table takes
/// the one by which it is least crowded: whichever it was, there would be addresses or ports in a row that it crowds.
const FACTORS: [u64; 8] = [
    0x9e37_79b9_7f4a_7c15,
    0x6e78_9e6a_a1b9_65f5,
    0x06c4_5d18_8009_454f,
    0xf88b_b8a8_724c_81ed,
    0x1b39_896a_51a8_749b,
    0x53cb_9f0c_747e_a2eb,
    0x2c82_9abe_1f45_32e1,
    0xc584_133a_c916_ab3d,
];

/// By these the second and the third word of a key are multiplied, so that equal changes of two of them do not cancel.
const WORD_FACTORS: [u64; 2] = [0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9];

/// Lets the high half of a word, usually an address, reach the low bits too: a product's bits depend only on
/// the lower ones of its factors.
#[inline]
fn mix(word: u64) -> u64 {
    word ^ word >> 32
}

impl Key for u64 {
    #[inline]
    fn hash(self, factor: u64) -> u64 {
        mix(self).wrapping_mul(factor)
    }

    #[inline]
    fn passed(self) -> Self {
        self | 1 << 15
    }

    #[inline]
    fn is_passed(self) -> bool {
        self >> 15 & 1 != 0
    }
}

/// A key of 192 bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Words(pub [u64; 3]);

/// Word by word: arrays would be compared as memory, 16 bytes at a time, and the processor waits when
/// such a load meets two words that were just stored.
impl PartialEq for Words {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let ([a, b, c], [x, y, z]) = (self.0, other.0);
        (a ^ x) | (b ^ y) | (c ^ z) == 0
    }
}

impl Eq for Words {}

impl Key for Words {
    #[inline]
    fn hash(self, factor: u64) -> u64 {
        let [first, second, third] = self.0.map(mix);
        first
            .wrapping_add(second.wrapping_mul(WORD_FACTORS[0]))
            .wrapping_add(third.wrapping_mul(WORD_FACTORS[1]))
            .wrapping_mul(factor)
    }

    #[inline]
    fn passed(self) -> Self {
        let [first, second, third] = self.0;
        Self([first, second, third | 1 << 63])
    }

    #[inline]
    fn is_passed(self) -> bool {
        self.0[2] >> 63 != 0
    }
}

/// Open addressing with linear probing. Of a small table at most half is full if that leaves nearly every key in the place
/// where it is looked for first, as with neighbouring hosts it does, else a quarter or an eighth: a mispredicted second
/// look costs more than the memory. Of a tiny one it is a 64th, and of a large one a half, for there the memory costs more.
/// That a key is not there one look tells, too, unless others passed that place.
#[derive(Clone, Debug)]
pub struct Lookup<K, V> {
    places: Table<(K, V)>,
    factor: u64,
}

impl<K: Key, V: Copy + Default> Lookup<K, V> {
    /// A table of these pairs. No key is all zeros; of equal keys the last one counts.
    pub fn new(pairs: impl Iterator<Item = (K, V)>) -> Self {
        const SMALL: usize = 4096;
        const TINY: usize = 16;
        let pairs: Vec<_> = pairs.collect();
        let (most, less): (_, &[usize]) = match pairs.len() {
            len if len <= TINY => (64, &[]),
            len if len <= SMALL => (8, &[2, 4]),
            _ => (2, &[]),
        };
        let mut layouts = less.iter().map(|room| Layout::new(&pairs, *room));
        let layout = layouts.find(|layout| layout.is_roomy(&pairs));
        let layout = layout.unwrap_or_else(|| Layout::new(&pairs, most));
        let places = prefetch::table(Default::default(), layout.size);
        let mut table = Self { places, factor: layout.factor };
        for (key, value) in pairs {
            table.put(key, value);
        }
        table
    }

    fn put(&mut self, key: K, value: V) {
        debug_assert!(key != K::default() && !key.is_passed());
        let mut place = self.start(key);
        loop {
            let (found, _) = self.places[place];
            if found == K::default() || found == key || found == key.passed() {
                self.places[place] = (if found.is_passed() { found } else { key }, value);
                return;
            }
            self.places[place].0 = found.passed();
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    #[inline]
    fn start(&self, key: K) -> usize {
        start(key, self.factor, self.places.len())
    }

    /// Asks for the value of a key to come into the cache.
    #[inline]
    pub fn prefetch(&self, key: K) {
        prefetch::prefetch(self.places.as_ptr().wrapping_add(self.start(key)));
    }

    /// What is in the place where a key is looked for first: that key, or another one or all zeros, which say that it is
    /// nowhere; unless the place [is passed](Key::is_passed), which says nothing.
    #[inline(always)]
    pub fn first(&self, key: K) -> (K, V) {
        self.places[self.start(key)]
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: K) -> Option<V> {
        let (found, value) = self.first(key);
        if found == key {
            return Some(value);
        }
        if found.is_passed() { self.seek(key) } else { None }
    }

    /// The same, where the first place was passed.
    #[cold]
    fn seek(&self, key: K) -> Option<V> {
        let mut place = self.start(key);
        loop {
            let (found, value) = self.places[place];
            if found == key || found == key.passed() {
                return Some(value);
            }
            if !found.is_passed() {
                return None;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }
}

#[inline(always)]
fn start<K: Key>(key: K, factor: u64, size: usize) -> usize {
    // The highest bits of the hash, scaled, for a shift by a variable takes a register that is needed elsewhere.
    (((key.hash(factor) >> 32) * size as u64) >> 32) as usize
}

/// How keys are spread over a table.
struct Layout {
    /// Places.
    size: usize,
    /// By which they are least crowded, or hardly.
    factor: u64,
    /// Keys that are not in the place where they are looked for first; equal ones count as such.
    crowded: usize,
}

impl Layout {
    /// With room for so many times the pairs.
    fn new<K: Key, V>(pairs: &[(K, V)], room: usize) -> Self {
        let size = (pairs.len() * room).next_power_of_two().max(2);
        let mut best = Self { size, factor: FACTORS[0], crowded: usize::MAX };
        for factor in FACTORS {
            let mut taken = vec![0u64; size.div_ceil(64)];
            let mut crowded = 0;
            for (key, _) in pairs {
                let mut place = start(*key, factor, size);
                let is_taken = |place: usize| taken[place / 64] >> (place % 64) & 1 != 0;
                crowded += usize::from(is_taken(place));
                if crowded >= best.crowded {
                    break;
                }
                while is_taken(place) {
                    place = (place + 1) & (size - 1);
                }
                taken[place / 64] |= 1 << (place % 64);
            }
            if crowded < best.crowded {
                best = Self { size, factor, crowded };
            }
            if best.is_roomy(pairs) {
                break;
            }
        }
        best
    }

    /// Whether nearly every key is where it is looked for first.
    fn is_roomy<K, V>(&self, pairs: &[(K, V)]) -> bool {
        self.crowded <= pairs.len() / 128
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    #[test]
    fn an_empty_table_knows_nothing() {
        assert_eq!(Lookup::<u64, u32>::new([].into_iter()).get(1), None);
        assert_eq!(Lookup::<Words, u32>::new([].into_iter()).get(Words([0, 0, 1])), None);
    }

    /// Endpoints as they come: one network, consecutive hosts or ports.
    #[test]
    fn neighbouring_endpoints_do_not_crowd() {
        let network = 0x2001_0db8_0005_0000;
        let wide_hosts = |host: u64| Words([network, host, 80 << 16 | 1]);
        let wide_ports = |port: u64| Words([network, 1, port << 16 | 1]);
        let networks = |number: u64| Words([network + (number << 8), 1, 80 << 16 | 1]);
        // As they stand in a packet.
        let narrow = |host: u32, port: u16| {
            u64::from(host.swap_bytes()) << 32 | u64::from(port.swap_bytes()) << 16 | 1
        };
        let hosts = |host: u64| narrow(0x0a80_0001 + host as u32, 8000);
        let ports = |port: u64| narrow(0xc000_0264, 1 + port as u16);
        let both = |number: u64| narrow(0xc000_0200 + number as u32 / 40, 80 + number as u16 % 40);
        for count in if cfg!(miri) { [20, 30] } else { [1000, 10_000] } {
            for endpoint in [&wide_hosts as &dyn Fn(u64) -> Words, &wide_ports, &networks] {
                assert_roomy(count, endpoint);
            }
            for endpoint in [&hosts as &dyn Fn(u64) -> u64, &ports, &both] {
                assert_roomy(count, endpoint);
            }
        }
    }

    /// Truly random keys would not be in the place where they are looked for first, 6 of 100 in a small table, and 14 in a
    /// large one.
    fn assert_roomy<K: Key>(count: u64, endpoint: impl Fn(u64) -> K) {
        let keys: Vec<_> = (0..count).map(endpoint).collect();
        let table = Lookup::new(keys.iter().map(|key| (*key, ())));
        let late = keys.iter().filter(|key| table.first(**key).0 != **key).count() as u64;
        assert!(late * 10 < count, "{late} of {count}");
    }

    #[test]
    fn keys_that_crowd_have_more_room() {
        let count = if cfg!(miri) { 100 } else { 1000 };
        let places = |key: &dyn Fn(u64) -> u64| {
            Lookup::new((0..count).map(|number| (key(number), ()))).places.len() as u64
        };
        assert!(places(&|host| (0x0a00_0001 + host) << 32 | 1) <= 5 * count);
        let random = BuildHasherDefault::<DefaultHasher>::default();
        assert!(places(&|number| (random.hash_one(number) | 1) & !(1 << 15)) >= 8 * count);
    }

    /// By the first factor each would have the place of the one before, whose own place the one before that has.
    #[test]
    fn keys_that_push_each_other_on_crowd() {
        let count = if cfg!(miri) { 100 } else { 1000 };
        let double =
            |inverse: u64, _| inverse.wrapping_mul(2u64.wrapping_sub(FACTORS[0].wrapping_mul(inverse)));
        let inverse = (0..6).fold(1, double);
        let shift = u64::BITS - (count * 2u64).next_power_of_two().ilog2();
        let key = |number: u64| {
            let hashes = (0..).map(|low| number.saturating_sub(1) << shift | number << 8 | low);
            hashes
                .map(|hash| mix(hash.wrapping_mul(inverse)))
                .find(|key| *key != 0 && !key.is_passed())
                .unwrap()
        };
        let table = Lookup::new((0..count).map(|number| (key(number), ())));
        let is_first = |key: u64| table.first(key).0 | 1 << 15 == key.passed();
        assert!((0..count).map(key).filter(|key| !is_first(*key)).count() as u64 * 10 < count);
    }

    /// A table that is half full has what nearly full ones have.
    #[test]
    fn what_is_not_in_the_first_place_is_found() {
        let count = if cfg!(miri) { 100 } else { 16_000 };
        let key = |number: u64| (number.wrapping_mul(FACTORS[5]) | 1) & !(1 << 15);
        let table = Lookup::new((0..count).map(|number| (key(number), number)));
        assert!(cfg!(miri) || table.places.iter().filter(|(key, _)| key.is_passed()).count() > 1000);
        for number in 0..count {
            assert_eq!(table.get(key(number)), Some(number));
        }
        let known: HashSet<_> = (0..count).map(key).collect();
        for other in (count..2 * count).map(key).filter(|key| !known.contains(key)) {
            assert_eq!(table.get(other), None);
        }
    }

    fn wide(number: u64) -> Words {
        // Small numbers differ in one of the words, or in all.
        Words([number % 5, number / 5 % 5, number / 25 + 1])
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

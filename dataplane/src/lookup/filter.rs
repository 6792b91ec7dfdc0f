//! Whether a key may be one of a set, told from a few bytes where a table of them would take more than the caches have.

use std::marker::PhantomData;

use super::{FACTORS, Key};
use crate::prefetch::{self, Table};

/// A Bloom filter (B. H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970) with two bits for each
/// key, in one word. It takes one of some thousand other keys for one of the set, more if that is very large.
#[derive(Clone, Debug)]
pub struct Filter<K> {
    pub(super) words: Table<u64>,
    key: PhantomData<K>,
}

const KEYS_PER_WORD: f64 = 0.5;
/// 512 bytes.
const LEAST_WORDS: usize = 1 << 6;
/// 128 KiB, which the second-level cache has beside other things.
const MOST_WORDS: usize = 1 << 14;

impl<K: Key> Filter<K> {
    /// A filter that knows these keys.
    pub fn new(keys: impl Iterator<Item = K>) -> Self {
        let keys: Vec<K> = keys.collect();
        let words = (keys.len() as f64 / KEYS_PER_WORD) as usize;
        let words = words.next_power_of_two().clamp(LEAST_WORDS, MOST_WORDS);
        let mut filter = Self { words: prefetch::table(0, words), key: PhantomData };
        for key in keys {
            let (word, bits) = filter.place(key);
            filter.words[word] |= bits;
        }
        filter
    }

    #[inline(always)]
    fn place(&self, key: K) -> (usize, u64) {
        let hash = key.hash(FACTORS[0]);
        // Its highest bits for the word, the next six for one bit, and the lowest that are well mixed for the other.
        let scaled = (hash >> 32) * self.words.len() as u64;
        ((scaled >> 32) as usize, 1 << (scaled >> 26 & 63) | 1 << (hash >> 26 & 63))
    }

    /// Whether a key may be one of the set; if not, it is none.
    #[inline(always)]
    pub fn may_have(&self, key: K) -> bool {
        let (word, bits) = self.place(key);
        self.words[word] & bits == bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::Words;

    /// Addresses as they come: of one network, in a row.
    fn narrow(network: u32, host: u32) -> u64 {
        u64::from((network + host).swap_bytes()) << 32 | 3
    }

    fn wide(network: u32, host: u32) -> Words {
        Words([0x2001_0db8_0000_0000 | u64::from(network), host.into(), 3])
    }

    fn assert_tells<K: Key>(key: impl Fn(u32, u32) -> K) {
        let others = if cfg!(miri) { 1000 } else { 100_000 };
        for count in [0, 1, 8, 100, 3000] {
            let filter = Filter::new((0..count).map(|host| key(0xc000_0200, host)));
            assert!((0..count).all(|host| filter.may_have(key(0xc000_0200, host))));
            let taken = (0..others).filter(|host| filter.may_have(key(0x0a00_0000, *host))).count();
            assert!(taken <= others as usize / 500, "{taken} of {others} beside {count}");
        }
    }

    #[test]
    fn it_has_all_its_keys_and_few_others() {
        assert_tells(narrow);
        assert_tells(wide);
    }
}

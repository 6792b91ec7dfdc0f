//! Whether a key may be one of a set, told from a few bytes where a table of them would take more than the caches have.

use std::marker::PhantomData;

use super::{FACTORS, Key};
use crate::prefetch::{self, Table};

/// A Bloom filter (B. H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", 1970) with one hash, by
/// which one of 256 other keys is taken for one of the set, or one of 128 where these are in rows, unless it is very large.
#[derive(Clone, Debug)]
pub struct Filter<K> {
    words: Table<u64>,
    key: PhantomData<K>,
}

const BITS_PER_KEY: usize = 256;
/// 512 bytes.
const LEAST_BITS: usize = 1 << 12;
/// 128 KiB, which the second-level cache has beside other things.
const MOST_BITS: usize = 1 << 20;

impl<K: Key> Filter<K> {
    /// A filter that knows these keys.
    pub fn new(keys: impl Iterator<Item = K>) -> Self {
        let keys: Vec<K> = keys.collect();
        let bits = (keys.len() * BITS_PER_KEY).next_power_of_two().clamp(LEAST_BITS, MOST_BITS);
        let mut filter = Self { words: prefetch::table(0, bits / 64), key: PhantomData };
        for key in keys {
            let (word, bit) = filter.place(key);
            filter.words[word] |= 1 << bit;
        }
        filter
    }

    #[inline(always)]
    fn place(&self, key: K) -> (usize, u64) {
        // The highest bits of the hash for the word, the next six for the bit.
        let scaled = (key.hash(FACTORS[0]) >> 32) * self.words.len() as u64;
        ((scaled >> 32) as usize, scaled >> 26 & 63)
    }

    /// Whether a key may be one of the set; if not, it is none.
    #[inline(always)]
    pub fn may_have(&self, key: K) -> bool {
        let (word, bit) = self.place(key);
        self.words[word] >> bit & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses as they come: of one network, in a row.
    fn key(network: u64, host: u64) -> u64 {
        u64::from((network as u32 | host as u32).swap_bytes()) << 32 | 3
    }

    #[test]
    fn it_has_all_its_keys_and_few_others() {
        let others = if cfg!(miri) { 1000 } else { 100_000 };
        for count in [0, 1, 8, 100, 3000] {
            let filter = Filter::new((0..count).map(|host| key(0xc000_0200, host)));
            assert!((0..count).all(|host| filter.may_have(key(0xc000_0200, host))));
            let taken = (0..others).filter(|host| filter.may_have(key(0x0a00_0000, *host))).count() as u64;
            assert!(taken <= others / 128, "{taken} of {others} beside {count}");
        }
    }
}

//! An immutable hash table from 64-bit keys to small values, made once for a snapshot and only read.

/// Open addressing with linear probing; key 0 marks an empty place. At most an eighth is full, so that nearly
/// every probe ends at the first place: a mispredicted second one costs more than the memory.
#[derive(Clone, Debug)]
pub struct Lookup<V> {
    places: Box<[(u64, V)]>,
    shift: u32,
}

impl<V: Copy + Default> Lookup<V> {
    /// A table of these pairs. Keys are not 0; of equal keys the last one counts.
    pub fn new(pairs: impl ExactSizeIterator<Item = (u64, V)>) -> Self {
        let size = (pairs.len() * 8).next_power_of_two().max(2);
        let mut table = Self { places: vec![(0, V::default()); size].into(), shift: 64 - size.ilog2() };
        for (key, value) in pairs {
            debug_assert!(key != 0);
            let mut place = table.start(key);
            while table.places[place].0 != 0 && table.places[place].0 != key {
                place = (place + 1) & (size - 1);
            }
            table.places[place] = (key, value);
        }
        table
    }

    #[inline]
    fn start(&self, key: u64) -> usize {
        // Fibonacci hashing; the xor lets the high half, an address, reach the low bits too.
        ((key ^ key >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: u64) -> Option<V> {
        let mut place = self.start(key);
        loop {
            let (found, value) = self.places[place];
            if found == key {
                return Some(value);
            }
            if found == 0 {
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
    use std::collections::HashMap;

    #[test]
    fn an_empty_table_knows_nothing() {
        let table = Lookup::<u32>::new([].into_iter());
        assert_eq!(table.get(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn answers_as_a_map(pairs in prop::collection::vec((1u64..200, any::<u32>()), 0..150)) {
            let table = Lookup::new(pairs.iter().copied());
            let model: HashMap<u64, u32> = pairs.into_iter().collect();
            for key in 1..220 {
                prop_assert_eq!(table.get(key), model.get(&key).copied());
            }
        }
    }
}

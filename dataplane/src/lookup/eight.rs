//! The same of eight keys at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_andnot_si512, _mm512_mask_blend_epi64,
    _mm512_mul_epu32, _mm512_mullo_epi64, _mm512_or_si512, _mm512_slli_epi64, _mm512_sllv_epi64,
    _mm512_srli_epi64, _mm512_testn_epi64_mask, _mm512_xor_si512,
};
use std::mem::offset_of;
use std::ptr;

use super::{FACTORS, Filter, Key, Lookup};
use crate::eight::{Bits, all, columns, of, words};

/// A key and eight bytes that belong to it, as they stand in a table.
type Row = [u8; 16];

/// Values that are two numbers of 32 bits, one after the other.
///
/// # Safety
/// So they must lie in memory.
pub unsafe trait Pair {}

impl<V: Pair> Lookup<u64, V> {
    /// What is in the places where eight keys are looked for first, each in its table: keys and values, of which the first
    /// number is the lower half.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn first_of_eight(tables: [&Self; 2], first: Bits, keys: __m512i) -> (__m512i, __m512i) {
        const {
            assert!(size_of::<V>() == 8 && size_of::<(u64, V)>() == size_of::<Row>());
            assert!(offset_of!((u64, V), 0) == 0 && offset_of!((u64, V), 1) == 8);
        }
        let [one, other] = tables;
        let either = |one, other| _mm512_mask_blend_epi64(first, all(other), all(one));
        let factor = either(one.factor, other.factor);
        let size = either(one.places.len() as u64, other.places.len() as u64);
        let [one, other] = tables.map(|table| table.places.as_ptr().expose_provenance() as u64);
        let start = _mm512_slli_epi64::<4>(scaled(hash(keys, factor), size));
        let places = _mm512_add_epi64(either(one, other), start);
        // SAFETY: a start is less than the size of its table, since it is that times a number below 2^32, divided by 2^32, so
        // that there is a place, of 16 bytes that are all written (`Pair`), in a table that is borrowed meanwhile.
        let rows = words(places).map(|at| unsafe { &*ptr::with_exposed_provenance::<Row>(at as usize) });
        columns::<0, _>(&rows)
    }
}

/// Which of eight places of a table [are not passed](super::Key::is_passed), by the keys that are there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub(crate) fn are_unpassed(keys: __m512i) -> Bits {
    _mm512_testn_epi64_mask(keys, all(0u64.passed()))
}

/// As [`Key::hash`](super::Key::hash) of a word.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn hash(keys: __m512i, factor: __m512i) -> __m512i {
    _mm512_mullo_epi64(_mm512_xor_si512(keys, _mm512_srli_epi64::<32>(keys)), factor)
}

/// The upper halves of hashes as parts of sizes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn scaled(hashes: __m512i, size: __m512i) -> __m512i {
    _mm512_srli_epi64::<32>(_mm512_mul_epu32(_mm512_srli_epi64::<32>(hashes), size))
}

impl Filter<u64> {
    /// Which of eight keys may be of the set; all others are none.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn may_have_of_eight(&self, keys: __m512i) -> Bits {
        let hash = hash(keys, all(FACTORS[0]));
        let place = _mm512_mul_epu32(_mm512_srli_epi64::<32>(hash), all(self.words.len() as u64));
        let bit =
            |number| _mm512_sllv_epi64(all(1), _mm512_and_si512(_mm512_srli_epi64::<26>(number), all(63)));
        let bits = _mm512_or_si512(bit(place), bit(hash));
        let found = of(words(_mm512_srli_epi64::<32>(place)).map(|word| self.words[word as usize]));
        _mm512_testn_epi64_mask(_mm512_andnot_si512(found, bits), all(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eight::Avx512;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    #[repr(C)]
    struct Two(u32, u32);

    // SAFETY: two numbers, in the order of C.
    unsafe impl Pair for Two {}

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn together(tables: [&Lookup<u64, Two>; 2], first: Bits, keys: [u64; 8]) -> [(u64, Two); 8] {
        let (found, values) = Lookup::first_of_eight(tables, first, of(keys));
        let (found, values) = (words(found), words(values));
        std::array::from_fn(|row| (found[row], Two(values[row] as u32, (values[row] >> 32) as u32)))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn may_have(filter: &Filter<u64>, keys: [u64; 8]) -> Bits {
        filter.may_have_of_eight(of(keys))
    }

    fn key(number: u64) -> u64 {
        (number.wrapping_mul(FACTORS[5]) | 1) & !(1 << 15)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Miri knows few of the instructions.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_looks_find_what_each_does(
            sizes in any::<[u8; 2]>(),
            first in any::<Bits>(),
            numbers in any::<[u8; 8]>(),
        ) {
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let pair = |number: u64| (key(number), Two(number as u32, !number as u32));
            let tables = sizes.map(|size| Lookup::new((0..u64::from(size)).map(pair)));
            let filter = Filter::new((0..u64::from(sizes[0])).map(key));
            let keys = numbers.map(|number| key(number.into()));
            // SAFETY: `Avx512` is a proof that the processor can.
            let found = unsafe { together(tables.each_ref(), first, keys) };
            // SAFETY: as above.
            let may = unsafe { may_have(&filter, keys) };
            for row in 0..8 {
                let table = if first >> row & 1 != 0 { &tables[0] } else { &tables[1] };
                prop_assert_eq!(found[row], table.first(keys[row]));
                prop_assert_eq!(may >> row & 1 != 0, filter.may_have(keys[row]));
            }
        }
    }
}

//! The same of eight keys at a time.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_andnot_si512, _mm512_cmpeq_epi64_mask,
    _mm512_mask_blend_epi64, _mm512_mul_epu32, _mm512_mullo_epi64, _mm512_or_si512, _mm512_sllv_epi64,
    _mm512_srli_epi64, _mm512_test_epi64_mask, _mm512_testn_epi64_mask, _mm512_xor_si512,
};
use std::mem::offset_of;
use std::ptr;

use super::{FACTORS, Filter, Key, Lookup, WORD_FACTORS, Words};
use crate::eight::{Bits, all, columns, of, words};

/// Values that are two numbers of 32 bits, one after the other.
///
/// # Safety
/// So they must lie in memory.
pub unsafe trait Pair {}

/// What is in the places where eight keys are looked for first.
pub struct Firsts {
    /// Keys that are there.
    pub found: Bits,
    /// Places that [are passed](super::Key::is_passed).
    pub passed: Bits,
    /// The values there, of which the first number is the lower half.
    pub values: __m512i,
}

impl<K: Key, V: Pair> Lookup<K, V> {
    /// The places where eight keys are looked for first, each in its table, as bytes. Of a factor `hash` tells the hashes of
    /// all.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn firsts<const SIZE: usize>(
        tables: [&Self; 2],
        first: Bits,
        hash: impl Fn(__m512i) -> __m512i,
    ) -> [&[u8; SIZE]; 8] {
        const {
            assert!(size_of::<V>() == 8 && size_of::<K>() == SIZE - 8 && size_of::<(K, V)>() == SIZE);
            assert!(offset_of!((K, V), 0) == 0 && offset_of!((K, V), 1) == SIZE - 8);
        }
        let [one, other] = tables;
        let either = |one, other| _mm512_mask_blend_epi64(first, all(other), all(one));
        let factor = either(one.factor, other.factor);
        let size = either(one.places.len() as u64, other.places.len() as u64);
        let [one, other] = tables.map(|table| table.places.as_ptr().expose_provenance() as u64);
        let start = _mm512_mullo_epi64(scaled(hash(factor), size), all(SIZE as u64));
        let places = _mm512_add_epi64(either(one, other), start);
        // SAFETY: a start is less than the size of its table, since it is that times a number below 2^32, divided by 2^32, so
        // that there is a place, in a table that is borrowed meanwhile. All its bytes are written: values are a `Pair`, and the
        // keys of both callers are numbers of 64 bits.
        words(places).map(|at| unsafe { &*ptr::with_exposed_provenance(at as usize) })
    }
}

impl<V: Pair> Lookup<u64, V> {
    /// What is in the places where eight keys are looked for first: those of `first` in the first table, all others in the
    /// second one.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn first_of_eight(tables: [&Self; 2], first: Bits, keys: __m512i) -> Firsts {
        let places = Self::firsts::<16>(tables, first, |factor| hash(keys, factor));
        let (there, values) = columns::<0, _>(&places);
        let found = _mm512_cmpeq_epi64_mask(there, keys);
        Firsts { found, passed: _mm512_test_epi64_mask(there, all(0u64.passed())), values }
    }
}

impl<V: Pair> Lookup<Words, V> {
    /// The same of wide keys, word by word.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn first_of_eight(tables: [&Self; 2], first: Bits, keys: [__m512i; 3]) -> Firsts {
        let places = Self::firsts::<32>(tables, first, |factor| hash_words(keys, factor));
        let ((one, two), (three, values)) = (columns::<0, _>(&places), columns::<16, _>(&places));
        let found = _mm512_cmpeq_epi64_mask(one, keys[0])
            & _mm512_cmpeq_epi64_mask(two, keys[1])
            & _mm512_cmpeq_epi64_mask(three, keys[2]);
        let Words([.., passed]) = Words::default().passed();
        Firsts { found, passed: _mm512_test_epi64_mask(three, all(passed)), values }
    }
}

/// As [`Key::hash`](super::Key::hash) of a word.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn hash(keys: __m512i, factor: __m512i) -> __m512i {
    _mm512_mullo_epi64(_mm512_xor_si512(keys, _mm512_srli_epi64::<32>(keys)), factor)
}

/// The same of keys of three words.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn hash_words(keys: [__m512i; 3], factor: __m512i) -> __m512i {
    let [second, third] = WORD_FACTORS.map(|factor| all(factor));
    let words = _mm512_add_epi64(hash(keys[1], second), hash(keys[2], third));
    let first = _mm512_xor_si512(keys[0], _mm512_srli_epi64::<32>(keys[0]));
    _mm512_mullo_epi64(_mm512_add_epi64(first, words), factor)
}

/// The upper halves of hashes as parts of sizes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn scaled(hashes: __m512i, size: __m512i) -> __m512i {
    _mm512_srli_epi64::<32>(_mm512_mul_epu32(_mm512_srli_epi64::<32>(hashes), size))
}

impl<K: Key> Filter<K> {
    /// Which of eight keys with these hashes may be of the set; all others are none.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn may_have_hashes(&self, hash: __m512i) -> Bits {
        let place = _mm512_mul_epu32(_mm512_srli_epi64::<32>(hash), all(self.words.len() as u64));
        let bit =
            |number| _mm512_sllv_epi64(all(1), _mm512_and_si512(_mm512_srli_epi64::<26>(number), all(63)));
        let bits = _mm512_or_si512(bit(place), bit(hash));
        let found = of(words(_mm512_srli_epi64::<32>(place)).map(|word| self.words[word as usize]));
        _mm512_testn_epi64_mask(_mm512_andnot_si512(found, bits), all(u64::MAX))
    }
}

impl Filter<u64> {
    /// Which of eight keys may be of the set; all others are none.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn may_have_of_eight(&self, keys: __m512i) -> Bits {
        self.may_have_hashes(hash(keys, all(FACTORS[0])))
    }
}

impl Filter<Words> {
    /// The same of wide keys, word by word.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn may_have_of_eight(&self, keys: [__m512i; 3]) -> Bits {
        self.may_have_hashes(hash_words(keys, all(FACTORS[0])))
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

    /// What is found of eight keys, and which of them a filter may have.
    type Seen = ([(bool, bool, Two); 8], Bits);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn seen(firsts: &Firsts, may: Bits) -> Seen {
        let values = words(firsts.values);
        let seen = std::array::from_fn(|row| {
            let is = |bits: Bits| bits >> row & 1 != 0;
            let value = Two(values[row] as u32, (values[row] >> 32) as u32);
            (is(firsts.found), is(firsts.passed), value)
        });
        (seen, may)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn narrow(tables: [&Lookup<u64, Two>; 2], filter: &Filter<u64>, first: Bits, keys: [u64; 8]) -> Seen {
        let keys = of(keys);
        seen(&Lookup::<u64, _>::first_of_eight(tables, first, keys), filter.may_have_of_eight(keys))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn wide(tables: [&Lookup<Words, Two>; 2], filter: &Filter<Words>, first: Bits, keys: [Words; 8]) -> Seen {
        let keys = [0, 1, 2].map(|word| of(keys.map(|key| key.0[word])));
        seen(&Lookup::<Words, _>::first_of_eight(tables, first, keys), filter.may_have_of_eight(keys))
    }

    fn narrow_key(number: u64) -> u64 {
        (number.wrapping_mul(FACTORS[5]) | 1) & !(1 << 15)
    }

    fn wide_key(number: u64) -> Words {
        let [first, second, third] = [0, 1, 2].map(|at| number.wrapping_mul(FACTORS[at]));
        Words([first, second, (third | 1) & !(1 << 63)])
    }

    /// Eight looks at two tables find what each does.
    fn assert_agree<K: Key>(
        key: impl Fn(u64) -> K,
        sizes: [u8; 2],
        first: Bits,
        numbers: [u8; 8],
        together: impl Fn([&Lookup<K, Two>; 2], &Filter<K>, Bits, [K; 8]) -> Seen,
    ) {
        let pair = |number: u64| (key(number), Two(number as u32, !number as u32));
        let tables = sizes.map(|size| Lookup::new((0..u64::from(size)).map(pair)));
        let filter = Filter::new((0..u64::from(sizes[0])).map(&key));
        let keys = numbers.map(|number| key(number.into()));
        let (seen, may) = together(tables.each_ref(), &filter, first, keys);
        for row in 0..8 {
            let table = if first >> row & 1 != 0 { &tables[0] } else { &tables[1] };
            let (found, value) = table.first(keys[row]);
            assert_eq!(seen[row], (found == keys[row], found.is_passed(), value));
            assert_eq!(may >> row & 1 != 0, filter.may_have(keys[row]));
        }
    }

    /// They differ in one word alone.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn eight_looks_tell_wide_keys_apart_that_share_a_place() {
        let Some(Avx512 { .. }) = Avx512::detect() else { return };
        let table = Lookup::new((0..20).map(|number| (wide_key(number), Two(1, 2))));
        let key = wide_key(7);
        let others = [0, 1, 2].map(|word| {
            let with = |value: u64| {
                let mut other = key;
                other.0[word] = value;
                other
            };
            (1..).map(with).find(|other| *other != key && table.start(*other) == table.start(key)).unwrap()
        });
        let [first, second, third] = others;
        let keys = [key, first, second, third, key, first, second, third];
        // SAFETY: `Avx512` is a proof that the processor can.
        let (seen, _) = unsafe { wide([&table; 2], &Filter::new([].into_iter()), !0, keys) };
        assert_eq!(seen.map(|(found, ..)| found), [true, false, false, false, true, false, false, false]);
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
            assert_agree(narrow_key, sizes, first, numbers, |tables, filter, first, keys| {
                // SAFETY: `Avx512` is a proof that the processor can.
                unsafe { narrow(tables, filter, first, keys) }
            });
            assert_agree(wide_key, sizes, first, numbers, |tables, filter, first, keys| {
                // SAFETY: as above.
                unsafe { wide(tables, filter, first, keys) }
            });
        }
    }
}

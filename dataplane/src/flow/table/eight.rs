//! Hashes and homes of eight narrow flows at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_mask_shuffle_epi32, _mm512_mul_epu32,
    _mm512_mullo_epi64, _mm512_or_si512, _mm512_rol_epi64, _mm512_srli_epi64, _mm512_xor_si512,
};

use super::super::FlowKey;
use super::hash::GOLDEN;
use super::{FlowHash, HashSecret, Home, NarrowTable};
use crate::eight::{all, lowest_32, words};

impl HashSecret {
    /// Hashes of eight clients, whose addresses and ports stand as in [keys](crate::flow::FlowKey).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn hash_of_eight(&self, clients: __m512i) -> __m512i {
        let first = _mm512_xor_si512(clients, all(self.0[0]));
        let second = _mm512_xor_si512(_mm512_rol_epi64::<32>(clients), all(self.0[1]));
        fold(first, second)
    }
}

/// Both halves of eight products of 128 bits, folded together; by four products of halves each.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn fold(a: __m512i, b: __m512i) -> __m512i {
    let upper = |number| _mm512_srli_epi64::<32>(number);
    let lower = |number| _mm512_and_si512(number, all(u32::MAX.into()));
    let plus = |one, other| _mm512_add_epi64(one, other);
    let low = _mm512_mul_epu32(a, b);
    let (cross, other) = (_mm512_mul_epu32(a, upper(b)), _mm512_mul_epu32(upper(a), b));
    let middle = plus(plus(upper(low), lower(cross)), lower(other));
    let high =
        plus(plus(_mm512_mul_epu32(upper(a), upper(b)), upper(cross)), plus(upper(other), upper(middle)));
    // The lower half of the middle is the upper one of the low product.
    let low = _mm512_mask_shuffle_epi32::<0b10_10_00_00>(low, 0b1010_1010_1010_1010, middle);
    _mm512_xor_si512(high, low)
}

impl FlowKey {
    /// The keys of eight clients' flows to services.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn of_eight(clients: __m512i, services: __m512i) -> [Self; 8] {
        words(_mm512_or_si512(clients, services)).map(Self)
    }
}

impl FlowHash {
    /// Eight that were hashed together.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn of_eight(hashes: __m512i) -> [Self; 8] {
        words(hashes).map(Self)
    }
}

impl NarrowTable {
    /// The home lines of eight clients' flows to services.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn homes_of_eight(&self, hashes: __m512i, services: __m512i) -> [Home; 8] {
        // As `FlowHash::with_service`.
        let hashes = _mm512_xor_si512(hashes, _mm512_mullo_epi64(services, all(GOLDEN << 16)));
        let line = _mm512_mul_epu32(_mm512_srli_epi64::<32>(hashes), all(self.lines.len() as u64));
        lowest_32(_mm512_srli_epi64::<32>(line)).map(Home)
    }
}

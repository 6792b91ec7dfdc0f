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

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::eight::{Avx512, of};
    use crate::snapshot::ServiceSlot;
    use proptest::prelude::*;

    type Placed = ([FlowKey; 8], [FlowHash; 8], [Home; 8]);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn together(table: &NarrowTable, clients: [u64; 8], services: [u64; 8]) -> Placed {
        let (clients, services) = (of(clients), of(services));
        let hashes = table.secret.hash_of_eight(clients);
        let homes = table.homes_of_eight(hashes, services);
        (FlowKey::of_eight(clients, services), FlowHash::of_eight(hashes), homes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Miri knows few of the instructions.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_flows_are_where_each_is(
            secret in any::<[u64; 2]>(),
            capacity in 1usize..5000,
            flows in any::<[(u32, u16, u16); 8]>(),
        ) {
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let table = NarrowTable::new(capacity, HashSecret(secret));
            let keys = flows.map(|(client, port, service)| FlowKey::new(client, port, ServiceSlot(service)));
            let (clients, services) = (keys.map(|key| key.0 & !0xffff), keys.map(|key| key.0 & 0xffff));
            // SAFETY: `Avx512` is a proof that the processor can.
            let (together, hashes, homes) = unsafe { together(&table, clients, services) };
            prop_assert_eq!(together, keys);
            for (row, (client, port, _)) in flows.into_iter().enumerate() {
                prop_assert_eq!(hashes[row], table.secret.hash(client, port));
                prop_assert_eq!(homes[row], table.home_of(table.hash_of(&keys[row])));
            }
        }
    }
}

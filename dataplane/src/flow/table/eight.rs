//! Keys, hashes and homes of eight flows at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_mask_shuffle_epi32, _mm512_mul_epu32,
    _mm512_mullo_epi64, _mm512_or_si512, _mm512_rol_epi64, _mm512_slli_epi64, _mm512_srli_epi64,
    _mm512_xor_si512,
};

use super::super::{FlowKey, Key, WideKey};
use super::hash::GOLDEN;
use super::{FlowHash, FlowTable, HashSecret, Home};
use crate::eight::{WideEnds, all, lowest_32, rows_of_three, words};

impl HashSecret {
    /// Hashes of eight clients, whose addresses and ports stand as in [keys](crate::flow::FlowKey).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn hash_of_eight(&self, clients: __m512i) -> __m512i {
        let first = _mm512_xor_si512(clients, all(self.0[0]));
        let second = _mm512_xor_si512(_mm512_rol_epi64::<32>(clients), all(self.0[1]));
        fold(first, second)
    }

    /// The same of IPv6 clients.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn hash_of_eight_v6(&self, clients: &WideEnds) -> __m512i {
        let [upper, lower] = clients.address;
        let address = fold(_mm512_xor_si512(upper, all(self.0[0])), _mm512_xor_si512(lower, all(self.0[1])));
        let end = _mm512_xor_si512(address, clients.port);
        let first = _mm512_xor_si512(end, all(self.0[0]));
        let second = _mm512_xor_si512(_mm512_rol_epi64::<32>(end), all(self.0[1] ^ GOLDEN));
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

impl WideKey {
    /// The keys of flows of eight IPv6 clients to ports of services: slots above ports.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn of_eight(clients: &WideEnds, targets: __m512i) -> [Self; 8] {
        let [upper, lower] = clients.address;
        let port = _mm512_slli_epi64::<48>(clients.port);
        let ports = _mm512_or_si512(port, _mm512_slli_epi64::<16>(targets));
        rows_of_three([upper, lower, ports])
            .map(|[upper, lower, ports]| Self { client: [upper, lower], ports })
    }
}

impl<K: Key, const WAYS: usize> FlowTable<K, WAYS> {
    /// The home lines of flows of eight clients to ports of services: slots above ports, which are 0 for narrow flows.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn homes_of_eight(&self, hashes: __m512i, targets: __m512i) -> __m512i {
        // As `FlowHash::with_service`.
        let hashes = _mm512_xor_si512(hashes, _mm512_mullo_epi64(targets, all(GOLDEN)));
        let line = _mm512_mul_epu32(_mm512_srli_epi64::<32>(hashes), all(self.lines.len() as u64));
        _mm512_srli_epi64::<32>(line)
    }
}

impl Home {
    /// Eight numbers of lines.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn of_eight(lines: __m512i) -> [Self; 8] {
        lowest_32(lines).map(Self)
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::eight::{Avx512, of};
    use crate::flow::table::{NarrowTable, WideTable};
    use crate::snapshot::ServiceSlot;
    use proptest::prelude::*;

    type Placed<K> = ([K; 8], [FlowHash; 8], [Home; 8]);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn narrow(table: &NarrowTable, clients: [u64; 8], services: [u64; 8]) -> Placed<FlowKey> {
        let (clients, services) = (of(clients), of(services));
        let hashes = table.secret.hash_of_eight(clients);
        let homes = table.homes_of_eight(hashes, _mm512_slli_epi64::<16>(services));
        (FlowKey::of_eight(clients, services), FlowHash::of_eight(hashes), Home::of_eight(homes))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn wide(table: &WideTable, clients: [(u128, u16); 8], targets: [u64; 8]) -> Placed<WideKey> {
        let clients = WideEnds {
            address: [64, 0].map(|shift| of(clients.map(|(client, _)| (client >> shift) as u64))),
            port: of(clients.map(|(_, port)| port.into())),
        };
        let targets = of(targets);
        let hashes = table.secret.hash_of_eight_v6(&clients);
        let homes = table.homes_of_eight(hashes, targets);
        (WideKey::of_eight(&clients, targets), FlowHash::of_eight(hashes), Home::of_eight(homes))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Miri knows few of the instructions.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_flows_are_where_each_is(
            secret in any::<[u64; 2]>(),
            capacity in 1usize..5000,
            flows in any::<[(u32, u16, u16, u16); 8]>(),
            networks in any::<[u128; 8]>(),
        ) {
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let secret = HashSecret(secret);
            let keys = flows.map(|(client, port, service, _)| FlowKey::new(client, port, ServiceSlot(service)));
            let (clients, services) = (keys.map(|key| key.0 & !0xffff), keys.map(|key| key.0 & 0xffff));
            let hashes = flows.map(|(client, port, ..)| secret.hash(client, port));

            let table = NarrowTable::new(capacity, secret);
            let homes = keys.map(|key| table.home_of(table.hash_of(&key)));
            // SAFETY: `Avx512` is a proof that the processor can.
            prop_assert_eq!(unsafe { narrow(&table, clients, services) }, (keys, hashes, homes));

            let table = WideTable::new(capacity, secret);
            let targets = flows.map(|(_, _, service, port)| u64::from(service) << 16 | u64::from(port));
            let client = |row: usize| networks[row] << 32 | u128::from(flows[row].0) | 1;
            let clients: [_; 8] = std::array::from_fn(|row| (client(row), flows[row].1));
            let keys = std::array::from_fn(|row| {
                let (_, port, service, service_port) = flows[row];
                WideKey::new(client(row), port, ServiceSlot(service), service_port)
            });
            let hashes = clients.map(|(client, port)| secret.hash_v6(client, port));
            let homes = std::array::from_fn(|row| {
                let (_, _, service, port) = flows[row];
                table.home_of(hashes[row].with_service(ServiceSlot(service), port))
            });
            // SAFETY: as above.
            prop_assert_eq!(unsafe { wide(&table, clients, targets) }, (keys, hashes, homes));
        }
    }
}

//! Whose flow each of eight packets is.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_mask_blend_epi64, _mm512_or_si512,
    _mm512_srli_epi64, _mm512_test_epi64_mask,
};

use config::words::Protocol;

use super::{ANY, Tables, number};
use crate::eight::{Bits, all};
use crate::lookup::Lookup;
use crate::parse::plain::eight::Eight;
use crate::snapshot::entry::Entry;

/// The narrow flows of eight packets.
pub struct NarrowFlows {
    /// Packets whose flows these are. What is said of others has no meaning.
    pub known: Bits,
    /// Those of them that are for the client.
    pub replies: Bits,
    /// The clients, as in [`Eight::src`].
    pub clients: __m512i,
    /// Numbers of services.
    pub services: __m512i,
}

impl Tables {
    /// The clients and services of whose flows packets are, as far as one look tells. Without `REPLIES` it knows requests
    /// alone, with them it is for [`Rows::BothWays`](super::Rows::BothWays).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(in super::super) fn narrow_flows<const REPLIES: bool>(&self, packets: &Eight) -> NarrowFlows {
        let (services, replies) = (&self.v4.services, &self.v4.replies);
        let (tcp, udp) = (number(Protocol::Tcp), number(Protocol::Udp));
        let requests: Bits = if REPLIES {
            // The address alone, and what stands for any protocol.
            let addresses = _mm512_and_si512(packets.dst, all(0xffff_ffff << 32));
            self.v4.listening.may_have_of_eight(_mm512_or_si512(addresses, all(ANY.into())))
        } else {
            !0
        };
        let either = |request, reply| _mm512_mask_blend_epi64(requests, reply, request);
        let (key, clients) = if REPLIES {
            (either(packets.dst, packets.src), either(packets.src, packets.dst))
        } else {
            (packets.dst, packets.src)
        };
        let key = packets.numbered(key, tcp, udp);
        let tables = [services, if REPLIES { replies } else { services }];
        let (found, entries) = Lookup::first_of_eight(tables, requests, key);
        let sole = _mm512_test_epi64_mask(entries, all(Entry::SOLE_OF_TWO));
        let known = packets.plain & _mm512_cmpeq_epi64_mask(found, key) & sole;
        let services = _mm512_and_si512(_mm512_srli_epi64::<32>(entries), all(u16::MAX.into()));
        NarrowFlows { known, replies: known & !requests, clients, services }
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::eight::{Avx512, words};
    use crate::parse::plain::eight::glance_eight;
    use crate::parse::plain::{Front, Plain, Station, glance_v4};
    use crate::samples::{Sample, datagram, syn};
    use crate::snapshot::{Listener, Parts, Rows, Snapshot};
    use crate::testing::{self, mac};
    use config::words::Mode;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// A client's address and port, the service, and whether the packet is for the client.
    type Known = ((u32, u16), u16, bool);

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn together<const REPLIES: bool>(snapshot: &Snapshot, fronts: &[&Front; 8]) -> [Option<Known>; 8] {
        let packets = glance_eight(Station::new(mac(254)), fronts, [1514; 8]);
        let flows = snapshot.narrow_flows::<REPLIES>(&packets);
        let (clients, services) = (words(flows.clients), words(flows.services));
        std::array::from_fn(|row| {
            let client =
                (((clients[row] >> 32) as u32).swap_bytes(), ((clients[row] >> 16) as u16).swap_bytes());
            let is = |bits: Bits| bits >> row & 1 != 0;
            is(flows.known).then_some((client, services[row] as u16, is(flows.replies)))
        })
    }

    const SERVICES: u16 = 60;

    /// Services on one VIP, some with backends that reply for two of them, and some of full NAT.
    fn world() -> Snapshot {
        let mode = |slot: u16| if slot % 10 == 3 { Mode::FullNat } else { Mode::Nat };
        let service = |slot: u16| {
            let key = format!("tcp:192.0.2.100:{}", 8000 + slot);
            Some(testing::service(&key, &[(slot.into(), 1)]).into())
        };
        let backend = |slot: u16| {
            let address = format!("198.51.100.{}:9000", slot % 50);
            Some(testing::backend(slot, &address, mode(slot)))
        };
        Snapshot::new(Parts {
            services: (0..SERVICES).map(service).collect(),
            backends: (0..SERVICES).map(backend).collect(),
            ..testing::parts()
        })
    }

    fn packets() -> impl Strategy<Value = Sample> {
        (0u16..80, any::<u16>(), any::<[bool; 3]>()).prop_map(|(number, port, [is_reply, near, udp])| {
            let client = format!("203.0.113.7:{port}");
            let vip = if near { 100 } else { 101 };
            let packet = if udp { datagram } else { syn };
            if is_reply {
                packet(&format!("198.51.100.{number}:{}", if near { 9000 } else { port }), &client)
            } else {
                packet(&client, &format!("192.0.2.{vip}:{}", 8000 + number))
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        // Miri knows few of the instructions.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_packets_are_of_the_flows_of_each(samples in prop::collection::vec(packets(), 8)) {
            static WORLD: LazyLock<Snapshot> = LazyLock::new(world);
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let snapshot = &*WORLD;
            prop_assert_eq!(snapshot.rows::<u32>(), Rows::BothWays);
            let frames: Vec<_> = samples.iter().map(|sample| {
                let mut bytes = sample.bytes();
                bytes.resize(60, 0);
                bytes
            }).collect();
            let fronts: [&Front; 8] = std::array::from_fn(|row| frames[row].first_chunk().unwrap());
            // SAFETY: `Avx512` is a proof that the processor can.
            let both_ways = unsafe { together::<true>(snapshot, &fronts) };
            // SAFETY: as above.
            let requests = unsafe { together::<false>(snapshot, &fronts) };
            for (row, front) in fronts.into_iter().enumerate() {
                let plain: Plain<u32> = glance_v4(front, 60).unwrap();
                let flow = snapshot.narrow_flow(&plain);
                prop_assert_eq!(both_ways[row], flow.map(|(client, service, reply)| (client, service.0, reply)));
                let service = snapshot.listener(&plain).and_then(Listener::sole);
                let request = service.map(|service| ((plain.src, plain.src_port), service.0, false));
                prop_assert_eq!(requests[row], request);
            }
        }
    }
}

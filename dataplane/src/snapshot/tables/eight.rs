//! Whose flow each of eight packets is.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_mask_blend_epi64, _mm512_or_si512,
    _mm512_srli_epi64, _mm512_test_epi64_mask,
};

use config::words::Protocol;

use super::{ANY, Tables, number};
use crate::eight::{Bits, NONE, all, lowest_8, ordered};
use crate::local::LocalSlot;
use crate::lookup::{Lookup, are_unpassed};
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

/// What is known of eight packets of full NAT.
pub struct FullNatFlows {
    /// Packets of which it is known. What is said of others has no meaning.
    pub known: Bits,
    /// Those of them that are for clients.
    pub replies: Bits,
    /// Requests' services and ports of these, or else what may be local ports: slots above ports.
    pub targets: __m512i,
    /// The local addresses that replies are for.
    pub locals: [LocalSlot; 8],
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

    /// Of which services with flows of full NAT packets are, or for which local addresses. It is for
    /// [`Rows::FullNat`](super::Rows::FullNat).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(in super::super) fn full_nat_flows(&self, packets: &Eight) -> FullNatFlows {
        let to = packets.numbered(packets.dst, number(Protocol::Tcp), number(Protocol::Udp));
        let addresses = _mm512_and_si512(packets.dst, all(0xffff_ffff << 32));
        let addresses = _mm512_or_si512(addresses, all(ANY.into()));
        let (there, entries) = Lookup::first_of_eight([&self.v4.services; 2], !0, to);
        let (here, locals) = Lookup::first_of_eight([&self.v4.snat; 2], !0, addresses);
        let requests = _mm512_cmpeq_epi64_mask(there, to);
        let full_nat = _mm512_test_epi64_mask(entries, all(Entry::FULL_NAT_OF_TWO));
        let local = !requests & are_unpassed(there) & _mm512_cmpeq_epi64_mask(here, addresses);
        // A service's slot is below its port there.
        let services = ordered(entries, [6, 7, 4, 5, NONE, NONE, NONE, NONE]);
        let ports = ordered(packets.dst, [3, 2, NONE, NONE, NONE, NONE, NONE, NONE]);
        FullNatFlows {
            known: packets.plain & (requests & full_nat | local),
            replies: packets.plain & local,
            targets: _mm512_mask_blend_epi64(requests, ports, services),
            locals: lowest_8(locals).map(LocalSlot),
        }
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
    use crate::snapshot::tables::FullNatFlow;
    use crate::snapshot::{Listener, Parts, Rows, ServiceSlot, Snapshot};
    use crate::testing::{self, mac};
    use config::words::Mode;
    use proptest::prelude::*;
    use std::net::IpAddr;
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

    /// The service and its port, or the local address and port.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn full_nat_together(snapshot: &Snapshot, fronts: &[&Front; 8]) -> [Option<(FullNatFlow, u16)>; 8] {
        let packets = glance_eight(Station::new(mac(254)), fronts, [1514; 8]);
        let flows = snapshot.full_nat_flows(&packets);
        let targets = words(flows.targets);
        std::array::from_fn(|row| {
            let is = |bits: Bits| bits >> row & 1 != 0;
            let (service, local) = (ServiceSlot((targets[row] >> 16) as u16), flows.locals[row]);
            let flow = FullNatFlow { service, local, is_reply: is(flows.replies) };
            is(flows.known).then_some((flow, targets[row] as u16))
        })
    }

    /// The same, as far as it has a meaning.
    fn of_meaning((flow, port): (FullNatFlow, u16)) -> (FullNatFlow, u16) {
        let flow = match flow.is_reply {
            true => FullNatFlow { service: ServiceSlot::default(), ..flow },
            false => FullNatFlow { local: LocalSlot::default(), ..flow },
        };
        (flow, port)
    }

    const SERVICES: u16 = 60;

    /// Services on one VIP, some with backends that reply for two of them, and some of full NAT.
    fn world(locals: Vec<IpAddr>) -> Snapshot {
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
            locals,
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

    /// As long as the shortest frames.
    fn frame(sample: &Sample) -> Vec<u8> {
        let mut bytes = sample.bytes();
        bytes.resize(60, 0);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        // Miri knows few of the instructions.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_packets_are_of_the_flows_of_each(samples in prop::collection::vec(packets(), 8)) {
            static WORLD: LazyLock<Snapshot> = LazyLock::new(|| world(Vec::new()));
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let snapshot = &*WORLD;
            prop_assert_eq!(snapshot.rows::<u32>(), Rows::BothWays);
            let frames: Vec<_> = samples.iter().map(frame).collect();
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

        /// Replies are to any address of a network of which a hundred are local.
        #[test]
        #[cfg_attr(miri, ignore)]
        fn eight_packets_of_full_nat_are_of_the_flows_of_each(
            requests in prop::collection::vec(packets(), 8),
            replies in any::<[Option<(u8, u16)>; 8]>(),
        ) {
            static WORLD: LazyLock<Snapshot> = LazyLock::new(|| {
                world((0..100).map(|host| IpAddr::from([192, 0, 2, 101 + host])).collect())
            });
            let Some(Avx512 { .. }) = Avx512::detect() else { return Ok(()) };
            let snapshot = &*WORLD;
            prop_assert_eq!(snapshot.rows::<u32>(), Rows::FullNat);
            let of_either = |(request, reply): (&Sample, Option<(u8, u16)>)| match reply {
                Some((host, port)) => frame(&syn("198.51.100.3:9000", &format!("192.0.2.{host}:{port}"))),
                None => frame(request),
            };
            let frames: Vec<_> = requests.iter().zip(replies).map(of_either).collect();
            let fronts: [&Front; 8] = std::array::from_fn(|row| frames[row].first_chunk().unwrap());
            // SAFETY: `Avx512` is a proof that the processor can.
            let together = unsafe { full_nat_together(snapshot, &fronts) };
            for (row, front) in fronts.into_iter().enumerate() {
                let plain: Plain<u32> = glance_v4(front, 60).unwrap();
                let flow = snapshot.full_nat_flow(&plain).map(|flow| of_meaning((flow, plain.dst_port)));
                prop_assert_eq!(together[row].map(of_meaning), flow);
            }
        }
    }
}

//! Whose flow each of eight packets is.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_mask_blend_epi64, _mm512_or_si512, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_test_epi64_mask,
};

use config::words::Protocol;

use super::{ANY, Tables, number};
use crate::eight::{Bits, NONE, WideEnds, all, lowest_8, ordered};
use crate::local::LocalSlot;
use crate::lookup::{Firsts, Lookup, Words};
use crate::parse::plain::eight::{Eight, EightV4, EightV6};
use crate::snapshot::entry::Entry;

/// The narrow flows of eight packets.
pub struct NarrowFlows {
    /// Packets whose flows these are. What is said of others has no meaning.
    pub known: Bits,
    /// Those of them that are for the client.
    pub replies: Bits,
    /// The clients, as in [`EightV4::src`].
    pub clients: __m512i,
    /// Numbers of services.
    pub services: __m512i,
}

/// The wide flows of eight packets of IPv6.
pub struct WideFlows {
    /// Packets whose flows these are. What is said of others has no meaning.
    pub known: Bits,
    /// Those of them that are for the client.
    pub replies: Bits,
    /// The clients.
    pub clients: WideEnds,
    /// Services and ports of these: slots above ports.
    pub targets: __m512i,
}

/// What is known of eight packets where there is full NAT.
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
    pub(in super::super) fn narrow_flows<const REPLIES: bool>(&self, packets: &EightV4) -> NarrowFlows {
        let (services, replies) = (&self.v4.services, &self.v4.replies);
        let requests: Bits = match REPLIES {
            true => self.v4.listening.may_have_of_eight(address_keys(packets)),
            false => !0,
        };
        let either = |request, reply| _mm512_mask_blend_epi64(requests, reply, request);
        let (ends, clients) = match REPLIES {
            true => (either(packets.dst, packets.src), either(packets.src, packets.dst)),
            false => (packets.dst, packets.src),
        };
        let keys = _mm512_or_si512(ends, protocols(packets));
        let tables = [services, if REPLIES { replies } else { services }];
        let firsts = Lookup::<u64, _>::first_of_eight(tables, requests, keys);
        let known = packets.plain & firsts.found & has(&firsts, Entry::SOLE_OF_TWO);
        let services = _mm512_and_si512(_mm512_srli_epi64::<32>(firsts.values), all(u16::MAX.into()));
        NarrowFlows { known, replies: known & !requests, clients, services }
    }

    /// The same of wide flows of IPv6.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(in super::super) fn wide_flows<const REPLIES: bool>(&self, packets: &EightV6) -> WideFlows {
        let (services, replies) = (&self.v6.services, &self.v6.replies);
        let requests: Bits = match REPLIES {
            true => self.v6.listening.may_have_of_eight(address_keys_v6(packets)),
            false => !0,
        };
        let (ends, clients) = match REPLIES {
            true => (packets.dst.or(requests, &packets.src), packets.src.or(requests, &packets.dst)),
            false => (packets.dst, packets.src),
        };
        let tables = [services, if REPLIES { replies } else { services }];
        let firsts = Lookup::<Words, _>::first_of_eight(tables, requests, end_keys_v6(packets, &ends));
        let known = packets.plain & firsts.found & has(&firsts, Entry::SOLE_OF_TWO);
        WideFlows { known, replies: known & !requests, clients, targets: targets(&firsts) }
    }

    /// For which services packets are, or for which local addresses. It is for
    /// [`Rows::FullNat`](super::Rows::FullNat).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(in super::super) fn full_nat_flows(&self, packets: &EightV4) -> FullNatFlows {
        let keys = _mm512_or_si512(packets.dst, protocols(packets));
        let there = Lookup::<u64, _>::first_of_eight([&self.v4.services; 2], !0, keys);
        let here = (there.found != !0)
            .then(|| Lookup::<u64, _>::first_of_eight([&self.v4.snat; 2], !0, address_keys(packets)));
        let ports = ordered(packets.dst, [3, 2, NONE, NONE, NONE, NONE, NONE, NONE]);
        FullNatFlows::of(packets.plain, &there, here.as_ref(), ports)
    }

    /// The same of packets of IPv6.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(in super::super) fn full_nat_flows_v6(&self, packets: &EightV6) -> FullNatFlows {
        let keys = end_keys_v6(packets, &packets.dst);
        let there = Lookup::<Words, _>::first_of_eight([&self.v6.services; 2], !0, keys);
        let here = (there.found != !0)
            .then(|| Lookup::<Words, _>::first_of_eight([&self.v6.snat; 2], !0, address_keys_v6(packets)));
        FullNatFlows::of(packets.plain, &there, here.as_ref(), packets.dst.port)
    }
}

impl FullNatFlows {
    /// By what is in the places of services, and of local addresses if not all are requests, and by destination ports.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn of(plain: Bits, there: &Firsts, here: Option<&Firsts>, ports: __m512i) -> Self {
        let targets = targets(there);
        let requests = plain & there.found & has(there, Entry::SOLE_OF_TWO);
        let Some(here) = here else {
            return Self { known: requests, replies: 0, targets, locals: [LocalSlot::default(); 8] };
        };
        let replies = plain & !there.found & !there.passed & here.found;
        Self {
            known: requests | replies,
            replies,
            targets: _mm512_mask_blend_epi64(there.found, ports, targets),
            locals: lowest_8(here.values).map(LocalSlot),
        }
    }
}

/// The numbers of packets' protocols.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn protocols<E>(packets: &Eight<E>) -> __m512i {
    packets.number(number(Protocol::Tcp), number(Protocol::Udp))
}

/// Keys of destination addresses.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn address_keys(packets: &EightV4) -> __m512i {
    let addresses = _mm512_and_si512(packets.dst, all(0xffff_ffff << 32));
    _mm512_or_si512(addresses, all(ANY.into()))
}

/// The same of IPv6.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn address_keys_v6(packets: &EightV6) -> [__m512i; 3] {
    let [upper, lower] = packets.dst.address;
    [upper, lower, all(ANY.into())]
}

/// Keys of ends of packets.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn end_keys_v6(packets: &EightV6, ends: &WideEnds) -> [__m512i; 3] {
    let [upper, lower] = ends.address;
    [upper, lower, _mm512_or_si512(_mm512_slli_epi64::<16>(ends.port), protocols(packets))]
}

/// Which entries have one of these flags.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn has(entries: &Firsts, flags: u64) -> Bits {
    _mm512_test_epi64_mask(entries.values, all(flags))
}

/// Services of entries above their ports, which stand the other way round there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn targets(entries: &Firsts) -> __m512i {
    ordered(entries.values, [6, 7, 4, 5, NONE, NONE, NONE, NONE])
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests;

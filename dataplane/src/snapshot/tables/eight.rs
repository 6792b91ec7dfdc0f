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

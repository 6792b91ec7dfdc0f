//! The same of eight frames at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_cmple_epu64_mask,
    _mm512_cmplt_epu64_mask, _mm512_mask_add_epi64, _mm512_mask_blend_epi64, _mm512_mask_cmpge_epu64_mask,
    _mm512_mask_cmple_epu64_mask, _mm512_mask_testn_epi64_mask, _mm512_maskz_mov_epi64, _mm512_mullo_epi64,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_ternarylogic_epi64,
    _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
};

use super::{FRAGMENT_MASK, Front, L3, Station};
use crate::eight::{Bits, NONE, WideEnds, all, columns, of_32, ordered};
use crate::wire::{eth, ipv4, ipv6, tcp, udp};

/// Eight frames, and which of them have plain packets of an IP version. What is said of others has no meaning.
pub struct Eight<E> {
    /// Those with plain packets that are right: those of [`glance_v4`](super::glance_v4) or [`glance_v6`](super::glance_v6).
    pub plain: Bits,
    /// Those of them that have TCP; others have UDP.
    pub tcp: Bits,
    /// Source addresses and ports.
    pub src: E,
    /// Destination addresses and ports.
    pub dst: E,
    /// Lengths of packets, IP header included.
    pub len: __m512i,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: __m512i,
}

/// That of IPv4: addresses and ports as they stand in a packet for a little-endian machine, above 16 bits that are 0.
pub type EightV4 = Eight<__m512i>;
/// That of IPv6.
pub type EightV6 = Eight<WideEnds>;

/// Where the IPv4 header's source address begins, and what is read last.
const SECOND: usize = L3 + 8;
const LAST: usize = size_of::<Front>() - 16;
const L4: usize = L3 + ipv4::HEADER_LEN;
/// The same of IPv6.
const LAST_V6: usize = size_of::<FrontV6>() - 16;
const L4_V6: usize = L3 + ipv6::HEADER_LEN;

/// A frame up to the end of the TCP header, if it has IPv6 without extensions.
pub type FrontV6 = [u8; L4_V6 + tcp::HEADER_LEN];
/// Such a front to begin with.
pub const NO_FRONT_V6: FrontV6 = [0; size_of::<FrontV6>()];

// What stands where in the columns below.
const _: () = assert!(eth::TYPE == 8 + 4 && ipv4::DST == 16 && ipv4::SRC == 12 && SECOND == 22);
const _: () = assert!(LAST == L4 + udp::LEN && LAST + 8 == L4 + tcp::DATA_OFFSET);
const _: () = assert!(LAST_V6 == L4_V6 + udp::LEN && LAST_V6 + 8 == L4_V6 + tcp::DATA_OFFSET);
const _: () = assert!(tcp::FLAGS == tcp::DATA_OFFSET + 1);
const _: () = assert!(ipv6::PAYLOAD_LEN == 4 && ipv6::NEXT == 6 && ipv6::HOP_LIMIT == 7);
const _: () = assert!(ipv6::SRC == 8 && ipv6::DST == 24 && ipv6::HEADER_LEN == 40);

/// Reads eight frames, of so many bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn glance_eight_v4(station: Station, fronts: &[&Front; 8], frame_lens: [u32; 8]) -> EightV4 {
    let (start, kind) = columns::<0, _>(fronts);
    let (first, second) = columns::<L3, _>(fronts);
    let (third, _) = columns::<{ L3 + ipv4::DST }, _>(fronts);
    let (datagram, segment) = columns::<LAST, _>(fronts);

    let is_ours = _mm512_cmpeq_epi64_mask(_mm512_slli_epi64::<16>(start), all(station.0));
    // The Ethertype, and version 4 with five words of header, as in `Station::kind`.
    let kind = _mm512_and_si512(_mm512_srli_epi64::<32>(kind), all(0x00ff_ffff));
    let is_bare = _mm512_cmpeq_epi64_mask(kind, all(0x45 << 16 | eth::TYPE_IPV4.swap_bytes() as u64));
    let is_whole = _mm512_testn_epi64_mask(first, all(FRAGMENT_MASK));
    let is_right = are_right(first, second, _mm512_and_si512(third, all(u32::MAX.into())));
    let lives_on = _mm512_test_epi64_mask(second, all(0xfe));
    let len = ordered(first, [3, 2, NONE, NONE, NONE, NONE, NONE, NONE]);
    let end = _mm512_add_epi64(len, all(L3 as u64));
    let is_here = _mm512_cmple_epu64_mask(end, of_32(frame_lens));

    let protocol = _mm512_and_si512(second, all(0xff00));
    let has = |number: u8| _mm512_cmpeq_epi64_mask(protocol, all(u64::from(number) << 8));
    let (tcp, tcp_flags) = segments::<L4>(has(ipv4::PROTOCOL_TCP), segment, end);
    let udp = datagrams::<L4>(has(ipv4::PROTOCOL_UDP), datagram, end);
    // `b & c | a`.
    let src = _mm512_ternarylogic_epi64::<0b1111_1000>(
        ordered(third, [NONE, NONE, 4, 5, NONE, NONE, NONE, NONE]),
        second,
        all(0xffff_ffff << 32),
    );
    let dst = ordered(third, [NONE, NONE, 6, 7, 0, 1, 2, 3]);
    let plain = is_ours & is_bare & is_whole & is_right & lives_on & is_here & (tcp | udp);
    Eight { plain, tcp, src, dst, len, tcp_flags }
}

/// The same of IPv6.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn glance_eight_v6(station: Station, fronts: &[&FrontV6; 8], frame_lens: [u32; 8]) -> EightV6 {
    let (start, kind) = columns::<0, _>(fronts);
    let (first, src_upper) = columns::<L3, _>(fronts);
    let (src_lower, dst_upper) = columns::<{ L3 + ipv6::SRC + 8 }, _>(fronts);
    let (dst_lower, ports) = columns::<{ L3 + ipv6::DST + 8 }, _>(fronts);
    let (datagram, segment) = columns::<LAST_V6, _>(fronts);

    let is_ours = _mm512_cmpeq_epi64_mask(_mm512_slli_epi64::<16>(start), all(station.0));
    // The Ethertype and the version.
    let kind = _mm512_and_si512(_mm512_srli_epi64::<32>(kind), all(0x00f0_ffff));
    let is_v6 = _mm512_cmpeq_epi64_mask(kind, all(0x60 << 16 | eth::TYPE_IPV6.swap_bytes() as u64));
    let lives_on = _mm512_test_epi64_mask(first, all(0xfe << 56));
    let payload_len = ordered(first, [5, 4, NONE, NONE, NONE, NONE, NONE, NONE]);
    let len = _mm512_add_epi64(payload_len, all(ipv6::HEADER_LEN as u64));
    let end = _mm512_add_epi64(len, all(L3 as u64));
    let is_here = _mm512_cmple_epu64_mask(end, of_32(frame_lens));
    let is_countable = _mm512_cmple_epu64_mask(len, all(u16::MAX.into()));

    let next = _mm512_and_si512(first, all(0xff << 48));
    let has = |number: u8| _mm512_cmpeq_epi64_mask(next, all(u64::from(number) << 48));
    let (tcp, tcp_flags) = segments::<L4_V6>(has(ipv4::PROTOCOL_TCP), segment, end);
    let udp = datagrams::<L4_V6>(has(ipv4::PROTOCOL_UDP), datagram, end);
    let turned = |word| ordered(word, [7, 6, 5, 4, 3, 2, 1, 0]);
    let src = WideEnds {
        address: [turned(src_upper), turned(src_lower)],
        port: ordered(ports, [1, 0, NONE, NONE, NONE, NONE, NONE, NONE]),
    };
    let dst = WideEnds {
        address: [turned(dst_upper), turned(dst_lower)],
        port: ordered(ports, [3, 2, NONE, NONE, NONE, NONE, NONE, NONE]),
    };
    let plain = is_ours & is_v6 & lives_on & is_here & is_countable & (tcp | udp);
    Eight { plain, tcp, src, dst, len, tcp_flags }
}

/// Which IP headers are right; see [`csum::is_right`](crate::csum::is_right).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn are_right(first: __m512i, second: __m512i, last: __m512i) -> Bits {
    /// Its product with 0xffff is 1, so that multiples of that are what they were multiplied by, the least numbers.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    let sum = _mm512_add_epi64(_mm512_add_epi64(first, last), second);
    let carry = _mm512_cmplt_epu64_mask(sum, second);
    let sum = _mm512_mask_add_epi64(sum, carry, sum, all(1));
    _mm512_cmple_epu64_mask(_mm512_mullo_epi64(sum, all(INVERSE)), all(u64::MAX / 0xffff))
}

/// Those of some segments from byte `L4` on that are right, and their flags: offset of data and flags are the lowest bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn segments<const L4: usize>(tcp: Bits, segment: __m512i, end: __m512i) -> (Bits, __m512i) {
    // The offset's upper four bits count words of four bytes.
    let header_len = _mm512_srli_epi64::<2>(_mm512_and_si512(segment, all(0xf0)));
    let flags = _mm512_and_si512(_mm512_srli_epi64::<8>(segment), all(0xff));
    let absurd = _mm512_srlv_epi64(all(tcp::ABSURD), _mm512_and_si512(flags, all(tcp::FLAGS_MASK.into())));
    let right = _mm512_mask_cmpge_epu64_mask(tcp, header_len, all(tcp::HEADER_LEN as u64));
    let right = _mm512_mask_cmple_epu64_mask(right, _mm512_add_epi64(header_len, all(L4 as u64)), end);
    let right = _mm512_mask_testn_epi64_mask(right, absurd, all(1));
    (right, _mm512_maskz_mov_epi64(tcp, flags))
}

/// Those of some datagrams from byte `L4` on that are right: their length is in the lowest bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn datagrams<const L4: usize>(udp: Bits, datagram: __m512i, end: __m512i) -> Bits {
    let len = ordered(datagram, [1, 0, NONE, NONE, NONE, NONE, NONE, NONE]);
    let right = _mm512_mask_cmpge_epu64_mask(udp, len, all(udp::HEADER_LEN as u64));
    _mm512_mask_cmple_epu64_mask(right, _mm512_add_epi64(len, all(L4 as u64)), end)
}

impl<E> Eight<E> {
    /// One number for packets of TCP, and another one for those of UDP.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn number(&self, tcp: u8, udp: u8) -> __m512i {
        _mm512_mask_blend_epi64(self.tcp, all(udp.into()), all(tcp.into()))
    }
}

impl EightV4 {
    /// Which packets have a source address that may be a client's.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn have_clients(&self) -> Bits {
        _mm512_test_epi64_mask(self.src, all(0xffff_ffff << 32))
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests;

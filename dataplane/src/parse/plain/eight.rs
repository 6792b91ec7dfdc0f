//! The same of eight frames at a time.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_cmple_epu64_mask,
    _mm512_cmplt_epu64_mask, _mm512_mask_add_epi64, _mm512_mask_blend_epi64, _mm512_mask_cmpge_epu64_mask,
    _mm512_mask_cmple_epu64_mask, _mm512_mask_testn_epi64_mask, _mm512_maskz_mov_epi64, _mm512_mullo_epi64,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_ternarylogic_epi64,
    _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
};

use super::{FRAGMENT_MASK, Front, L3, Station};
use crate::eight::{Bits, NONE, all, columns, of_32, ordered};
use crate::wire::{eth, ipv4, tcp, udp};

/// Eight frames, and which of them have plain IPv4 packets. What is said of others has no meaning.
pub struct Eight {
    /// Those with plain packets that are right: those of [`glance_v4`](super::glance_v4).
    pub plain: Bits,
    /// Those of them that have TCP; others have UDP.
    pub tcp: Bits,
    /// Source addresses and ports as they stand in a packet for a little-endian machine, above 16 bits that are 0.
    pub src: __m512i,
    /// The same of destinations.
    pub dst: __m512i,
    /// Lengths of packets, IP header included.
    pub len: __m512i,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: __m512i,
}

/// Where the IP header's source address begins, and what is read last.
const SECOND: usize = L3 + 8;
const LAST: usize = size_of::<Front>() - 16;
const L4: usize = L3 + ipv4::HEADER_LEN;

// What stands where in the columns below.
const _: () = assert!(eth::TYPE == 8 + 4 && ipv4::DST == 16 && ipv4::SRC == 12 && SECOND == 22);
const _: () = assert!(LAST == L4 + udp::LEN && LAST + 8 == L4 + tcp::DATA_OFFSET);
const _: () = assert!(tcp::FLAGS == tcp::DATA_OFFSET + 1);

/// Reads eight frames, of so many bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
pub fn glance_eight(station: Station, fronts: &[&Front; 8], frame_lens: [u32; 8]) -> Eight {
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
    let (tcp, tcp_flags) = segments(has(ipv4::PROTOCOL_TCP), segment, end);
    let udp = datagrams(has(ipv4::PROTOCOL_UDP), datagram, end);
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

/// Those of some segments that are right, and their flags: offset of data and flags are the lowest bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn segments(tcp: Bits, segment: __m512i, end: __m512i) -> (Bits, __m512i) {
    // The offset's upper four bits count words of four bytes.
    let header_len = _mm512_srli_epi64::<2>(_mm512_and_si512(segment, all(0xf0)));
    let flags = _mm512_and_si512(_mm512_srli_epi64::<8>(segment), all(0xff));
    let absurd = _mm512_srlv_epi64(all(tcp::ABSURD), _mm512_and_si512(flags, all(tcp::FLAGS_MASK.into())));
    let right = _mm512_mask_cmpge_epu64_mask(tcp, header_len, all(tcp::HEADER_LEN as u64));
    let right = _mm512_mask_cmple_epu64_mask(right, _mm512_add_epi64(header_len, all(L4 as u64)), end);
    let right = _mm512_mask_testn_epi64_mask(right, absurd, all(1));
    (right, _mm512_maskz_mov_epi64(tcp, flags))
}

/// Those of some datagrams that are right: their length is in the lowest bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn datagrams(udp: Bits, datagram: __m512i, end: __m512i) -> Bits {
    let len = ordered(datagram, [1, 0, NONE, NONE, NONE, NONE, NONE, NONE]);
    let right = _mm512_mask_cmpge_epu64_mask(udp, len, all(udp::HEADER_LEN as u64));
    _mm512_mask_cmple_epu64_mask(right, _mm512_add_epi64(len, all(L4 as u64)), end)
}

impl Eight {
    /// Ends of packets, with a number for TCP and one for UDP in their lowest bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn numbered(&self, ends: __m512i, tcp: u8, udp: u8) -> __m512i {
        let number = _mm512_mask_blend_epi64(self.tcp, all(udp.into()), all(tcp.into()));
        _mm512_add_epi64(ends, number)
    }
}

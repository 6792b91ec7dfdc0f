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
    /// Which packets have a source address that may be a client's.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn have_clients(&self) -> Bits {
        _mm512_test_epi64_mask(self.src, all(0xffff_ffff << 32))
    }

    /// Ends of packets, with a number for TCP and one for UDP in their lowest bits.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub fn numbered(&self, ends: __m512i, tcp: u8, udp: u8) -> __m512i {
        let number = _mm512_mask_blend_epi64(self.tcp, all(udp.into()), all(tcp.into()));
        _mm512_add_epi64(ends, number)
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::csum;
    use crate::eight::{Avx512, lowest_8, lowest_16, words};
    use crate::parse::plain::{Kind, Plain, glance_v4};
    use crate::samples::{CLIENT4, VIP4, cases, datagram, syn};
    use crate::testing::mac;
    use config::words::Protocol;
    use proptest::prelude::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn together(fronts: &[&Front; 8], lens: [u32; 8]) -> [Option<Plain<u32>>; 8] {
        let eight = glance_eight(Station::new(mac(254)), fronts, lens);
        let (src, dst) = (words(eight.src), words(eight.dst));
        let (len, tcp_flags) = (lowest_16(eight.len), lowest_8(eight.tcp_flags));
        let end = |word: u64| {
            assert_eq!(word as u16, 0);
            (((word >> 32) as u32).swap_bytes(), ((word >> 16) as u16).swap_bytes())
        };
        std::array::from_fn(|row| {
            let ((src, src_port), (dst, dst_port)) = (end(src[row]), end(dst[row]));
            let protocol = if eight.tcp >> row & 1 != 0 { Protocol::Tcp } else { Protocol::Udp };
            let (len, tcp_flags) = (len[row], tcp_flags[row]);
            let plain = Plain { src, dst, src_port, dst_port, len, protocol, tcp_flags };
            (eight.plain >> row & 1 != 0).then_some(plain)
        })
    }

    /// Eight frames are what each of them is.
    fn assert_agree(frames: &[(Front, u32)]) {
        let Some(Avx512 { .. }) = Avx512::detect() else { return };
        let station = Station::new(mac(254));
        for frames in frames.chunks(8) {
            let at = |row: usize| &frames[row % frames.len()];
            let (fronts, lens) =
                (std::array::from_fn(|row| &at(row).0), std::array::from_fn(|row| at(row).1));
            // SAFETY: `Avx512` is a proof that the processor can.
            let seen = unsafe { together(&fronts, lens) };
            for (row, seen) in seen.into_iter().enumerate() {
                let (front, len) = at(row);
                let alone = station.kind(front).filter(|kind| *kind == Kind::V4);
                let alone = alone.and_then(|_| glance_v4(front, *len as usize));
                assert_eq!(seen, alone, "{front:02x?} of {len} bytes");
            }
        }
    }

    fn front_of(bytes: &[u8]) -> Front {
        let mut front = [0; size_of::<Front>()];
        front.iter_mut().zip(bytes).for_each(|(there, here)| *there = *here);
        front
    }

    fn mend(front: &mut Front) {
        front[24..26].fill(0);
        let sum = !csum::sum(&front[L3..L4]);
        front[24..26].copy_from_slice(&sum.to_be_bytes());
    }

    /// Each bit turned, with the checksum as it was and mended, in frames of all lengths around theirs.
    #[test]
    fn eight_glances_see_what_each_does() {
        for sample in [syn(CLIENT4, VIP4), datagram(CLIENT4, VIP4)] {
            let bytes = sample.bytes();
            let whole = bytes.len() as u32;
            let mut frames = Vec::new();
            for (bit, mended) in (0..size_of::<Front>() * 8).flat_map(|bit| [(bit, false), (bit, true)]) {
                let mut front = front_of(&bytes);
                front[bit / 8] ^= 1 << (bit % 8);
                if mended {
                    mend(&mut front);
                }
                frames.extend([whole - 1, whole, whole + 1, 1514].map(|len| (front, len)));
            }
            assert_agree(&frames);
        }
    }

    /// Sums of headers carry out of 64 bits where a source ends with such bytes.
    #[test]
    fn eight_glances_see_sums_that_carry() {
        let with = |end: [u8; 3], flags: u8, wrong: u8| {
            let mut front = front_of(&syn(CLIENT4, VIP4).bytes());
            front[27..30].copy_from_slice(&end);
            front[20] = flags;
            mend(&mut front);
            front[25] ^= wrong;
            (front, 1514)
        };
        let ends =
            [[255, 255, 255], [0, 255, 255], [255, 192, 255], [255, 191, 255], [255, 255, 254], [0, 0, 0]];
        let of_end = |end| [0, 1].map(|wrong| [0, 0x40].map(|flags| with(end, flags, wrong)));
        let frames: Vec<_> = ends.into_iter().flat_map(of_end).flatten().collect();
        let is_plain = |(front, len): &(Front, u32)| glance_v4(front, *len as usize).is_some();
        assert_eq!(frames.iter().filter(|frame| is_plain(frame)).count(), frames.len() / 2);
        assert_agree(&frames);
    }

    proptest! {
        #![proptest_config(cases())]

        /// Any numbers where they matter.
        #[test]
        fn eight_glances_see_what_each_does_with_any_header(
            headers in prop::collection::vec((any::<[u8; 40]>(), any::<[bool; 8]>(), 0u32..120), 8),
        ) {
            let frame = |(header, kept, len): ([u8; 40], [bool; 8], u32)| {
                let mut front = front_of(&syn(CLIENT4, VIP4).bytes());
                let fields = [14..16, 16..18, 20..22, 22..23, 23..24, 26..34, 34..46, 46..54];
                for (field, kept) in fields.into_iter().zip(kept) {
                    if !kept {
                        front[field.clone()].copy_from_slice(&header[field.start - L3..field.end - L3]);
                    }
                }
                // Lengths that may be right, and UDP, half of the times.
                if header[39] & 1 != 0 {
                    front[16..18].copy_from_slice(&(u16::from(header[38]) % 100).to_be_bytes());
                }
                if header[39] & 2 != 0 {
                    front[23] = ipv4::PROTOCOL_UDP;
                    front[38..40].copy_from_slice(&(u16::from(header[37]) % 100).to_be_bytes());
                }
                if header[39] & 4 != 0 {
                    mend(&mut front);
                }
                (front, len)
            };
            assert_agree(&headers.into_iter().map(frame).collect::<Vec<_>>());
        }
    }
}

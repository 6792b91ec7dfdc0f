//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A rewrite never recomputes a transport checksum: it adds the difference it makes. So a checksum that
//! was right stays right, and one that was wrong stays wrong and is caught by the receiver.

use crate::packet::Addresses;

/// The one's complement sum of `bytes`, taken as big-endian 16-bit words; an odd last byte counts as the
/// high half of a word. Not complemented.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(2);
    let mut total: u64 = words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    if let [last] = words.remainder() {
        total += u64::from(u16::from_be_bytes([*last, 0]));
    }
    fold(total)
}

/// The same sum of an IPv4 header without options, which nearly all packets have: five additions.
#[inline(always)]
pub fn sum_header(header: &[u8; 20]) -> u16 {
    let (words, _) = header.as_chunks::<4>();
    fold(words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum())
}

/// The same of one whose words were read as these numbers, all in the same byte order; then so is the sum
/// (RFC 1071, 2 (B)).
#[inline(always)]
pub fn sum_of(first: u64, second: u64, last: u32) -> u16 {
    let (sum, carry) = first.overflowing_add(second);
    let (sum, again) = sum.overflowing_add(u64::from(last) + u64::from(carry));
    // Where the second addition carried, little is left of the sum, and one more fits.
    fold(sum + u64::from(again))
}

/// Whether such a header is right, whose words were read as these numbers, all in the same byte order (RFC 1071, 2 (B)).
/// The highest bit of the first is not set, and not all are 0.
#[inline(always)]
pub fn is_right(first: u64, second: u64, last: u32) -> bool {
    debug_assert!(first >> 63 == 0 && first != 0);
    let (sum, carry) = second.overflowing_add(first + u64::from(last));
    // Where that carried, little is left of the sum, and one more fits. A number and the sum of its 16-bit words leave
    // the same rest, so that it is a multiple where the words add up to 0xffff.
    (sum + u64::from(carry)).is_multiple_of(0xffff)
}

/// The sum of the pseudo header that TCP, UDP and ICMPv6 checksums cover (RFC 9293, 3.1; RFC 8200, 8.1): the
/// two addresses, the protocol number `next`, and `len`, the bytes of the transport header and its data.
pub fn sum_pseudo_header(addresses: Addresses, next: u8, len: u16) -> u16 {
    let addresses = match addresses {
        Addresses::V4 { src, dst } => u64::from(src) + u64::from(dst),
        Addresses::V6 { src, dst } => longs(src) + longs(dst),
    };
    fold(addresses + u64::from(next) + u64::from(len))
}

/// The checksum of a transport header and its data, `bytes`, whose checksum field is 0.
pub fn transport(addresses: Addresses, next: u8, bytes: &[u8]) -> u16 {
    // No IP packet is longer.
    let pseudo_header = sum_pseudo_header(addresses, next, bytes.len() as u16);
    !fold(u64::from(pseudo_header) + u64::from(sum(bytes)))
}

/// The sum of the four 32-bit parts of a field.
#[inline(always)]
fn longs(wide: u128) -> u64 {
    let (high, low) = ((wide >> 64) as u64, wide as u64);
    (high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff)
}

/// What a set of changed fields adds to a checksum: the sum of all `~m + m'` of RFC 1624, equation 3.
///
/// A `Delta` is made once for a rewrite and applied to every checksum that covers the changed fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Notes that a 16-bit field changes from `old` to `new`.
    #[must_use]
    #[inline(always)]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Notes that a 32-bit field at an even offset, such as an IPv4 address, changes from `old` to `new`.
    #[must_use]
    #[inline(always)]
    pub fn long(self, old: u32, new: u32) -> Self {
        // The halves need not be taken apart: 2^16 is congruent to 1 modulo 2^16 - 1.
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Notes that a 128-bit field at an even offset, such as an IPv6 address, changes from `old` to `new`.
    #[must_use]
    #[inline(always)]
    pub fn wide(self, old: u128, new: u128) -> Self {
        Self(self.0 + longs(!old) + longs(new))
    }

    /// Notes what [`Self::folded`] says of other changes.
    #[must_use]
    #[inline(always)]
    pub fn and(self, folded: u16) -> Self {
        Self(self.0 + u64::from(folded))
    }

    /// The same as one word, by which [`follow`] changes checksums.
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum that follows `hc`: HC' = ~(~HC + ~m + m'), RFC 1624, equation 3.
    #[inline(always)]
    pub fn apply(self, hc: u16) -> u16 {
        !fold(self.0 + u64::from(!hc))
    }
}

/// The checksum that follows `hc` where a [`Delta`] was folded to this word, that of no field alone.
#[inline(always)]
pub fn follow(hc: u16, delta: u16) -> u16 {
    let (sum, carry) = delta.overflowing_add(!hc);
    // Where that carried, little is left of the sum, and one more fits.
    !(sum + u16::from(carry))
}

/// Adds the parts of a sum until 16 bits are left. Added to itself turned by half, a number has the sum of its
/// halves in its upper half, carry included.
#[inline(always)]
fn fold(total: u64) -> u16 {
    let half = (total.wrapping_add(total.rotate_left(32)) >> 32) as u32;
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_section_3_example() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn rfc_1624_section_4_example() {
        assert_eq!(Delta::default().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn sums_of_extremes_fold() {
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xff]), 0xff00);
        let longest = if cfg!(miri) { 4095 } else { 65535 };
        assert_eq!(sum(&vec![0xff; longest]), 0xff00);
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    proptest! {
        #![proptest_config(crate::samples::cases())]

        #[test]
        fn the_sum_of_a_header_is_the_sum(header: [u8; 20]) {
            prop_assert_eq!(sum_header(&header), sum(&header));
            let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            let last = u32::from_le_bytes(header[16..].try_into().unwrap());
            prop_assert_eq!(sum_of(long(0), long(8), last).swap_bytes(), sum(&header));
        }

        #[test]
        fn a_header_is_right_with_one_sum_alone(mut header: [u8; 20], wrong: u16, high: bool) {
            let is_right = |header: &[u8; 20]| {
                let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
                is_right(long(0), long(8), u32::from_le_bytes(header[16..].try_into().unwrap()))
            };
            (header[0], header[7]) = (0x45, header[7] & 0x7f);
            if high {
                header[8..16].fill(0xff);
            }
            header[10..12].fill(0);
            let checksum = !sum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            prop_assert!(is_right(&header));
            header[10..12].copy_from_slice(&wrong.to_be_bytes());
            prop_assert_eq!(is_right(&header), sum(&header) == 0xffff);
        }

        #[test]
        fn incremental_equals_full(mut bytes in prop::collection::vec(any::<u8>(), 8..80), new: u32, port: u16) {
            // One nonzero word that stays, as in every real header: +0 and -0 are then told apart.
            bytes[6] |= 1;
            let before = !sum(&bytes);
            let old = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let old_port = u16::from_be_bytes([bytes[4], bytes[5]]);
            let delta = Delta::default().long(old, new).word(old_port, port);
            bytes[..4].copy_from_slice(&new.to_be_bytes());
            bytes[4..6].copy_from_slice(&port.to_be_bytes());
            prop_assert_eq!(delta.apply(before), !sum(&bytes));
        }

        #[test]
        fn incremental_equals_full_for_ipv6_addresses(
            old: (u128, u128), new: (u128, u128), data in prop::collection::vec(any::<u8>(), 1..80),
        ) {
            let addresses = |(src, dst)| Addresses::V6 { src, dst };
            // The length is not 0, so that neither sum is.
            let before = transport(addresses(old), 6, &data);
            let delta = Delta::default().wide(old.0, new.0).wide(old.1, new.1);
            prop_assert_eq!(delta.apply(before), transport(addresses(new), 6, &data));
        }

        #[test]
        fn a_pseudo_header_counts_as_its_bytes(src: u128, dst: u128, next: u8, len: u16) {
            let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            bytes.extend([0, 0, len.to_be_bytes()[0], len.to_be_bytes()[1], 0, 0, 0, next]);
            prop_assert_eq!(sum_pseudo_header(Addresses::V6 { src, dst }, next, len), sum(&bytes));
            let (src, dst) = (src as u32, dst as u32);
            let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            bytes.extend([0, next, len.to_be_bytes()[0], len.to_be_bytes()[1]]);
            prop_assert_eq!(sum_pseudo_header(Addresses::V4 { src, dst }, next, len), sum(&bytes));
        }

        #[test]
        fn a_wrong_checksum_stays_wrong_by_as_much(hc: u16, error in 1u16..0xffff, old: u32, new: u32) {
            let delta = Delta::default().long(old, new);
            let off = fold(u64::from(!hc) + u64::from(error));
            let shifted = fold(u64::from(!delta.apply(hc)) + u64::from(error));
            prop_assert_eq!(fold(u64::from(!delta.apply(!off))) % 0xffff, shifted % 0xffff);
        }
    }
}

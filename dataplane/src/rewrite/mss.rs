//! The longest segment that the two ends of a connection agree on (RFC 9293, 3.7.1; RFC 6691).

use super::tcp_header;
use crate::csum::Delta;
use crate::packet::Headers;
use crate::wire::{read_u16, tcp, write_u16};

/// Lowers the longest segment that a SYN offers to `max`, for ways that take less than their ends know of.
///
/// A SYN without the option stays as it is: its receiver then sends segments of 536 bytes over IPv4 and 1220
/// over IPv6 at most (RFC 9293, MUST-15), which any way of ours takes. Options that end behind the first segment
/// of the buffer, or make no sense, stay as they are.
#[inline]
pub fn clamp(head: &mut [u8], headers: &Headers, max: u16) {
    if headers.tcp_flags & tcp::SYN != 0 {
        change_offer(head, headers, |offer| offer.min(max));
    }
}

/// Lowers the longest segment that a SYN offers by `count`, the bytes that are put into a segment on its way to who
/// offers. No offer becomes lower than what every sender sends.
pub fn make_room(head: &mut [u8], headers: &Headers, count: u8) {
    if headers.tcp_flags & tcp::SYN != 0 {
        change_offer(head, headers, |offer| offer.saturating_sub(count.into()).max(offer.min(LEAST)));
    }
}

/// No sender sends less because a lower offer says so: the least that Linux takes for one.
const LEAST: u16 = 48;

fn change_offer(head: &mut [u8], headers: &Headers, change: impl FnOnce(u16) -> u16) -> Option<()> {
    let header = tcp_header(head, headers)?;
    let at = tcp::option(header, tcp::OPTION_MSS).filter(|option| option.len() == 4)?.start + 2;
    let old = read_u16(header, at)?;
    let new = change(old);
    if old == new {
        return None;
    }
    write_u16(header, at, new);
    // At an odd offset the value's bytes belong to two words, each to the other half of it.
    let (old, new) = if at % 2 == 0 { (old, new) } else { (old.swap_bytes(), new.swap_bytes()) };
    let checksum = read_u16(header, tcp::CHECKSUM)?;
    write_u16(header, tcp::CHECKSUM, Delta::default().word(old, new).apply(checksum));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, is_valid, syn};
    use proptest::prelude::*;

    const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];
    const MSS_1400: [u8; 4] = [2, 4, 0x05, 0x78];
    /// Window scale, selective acknowledgments, timestamps.
    const OTHERS: [u8; 16] = [3, 3, 7, 1, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];

    fn clamped(sample: &Sample) -> Vec<u8> {
        let mut frame = sample.bytes();
        clamp(&mut frame, &sample.headers(), 1400);
        frame
    }

    fn with(sample: &Sample, flags: u8, options: &[u8]) -> Sample {
        Sample { body: Body::Tcp { flags, options: options.to_vec() }, ..sample.clone() }
    }

    #[test]
    fn offers_are_lowered_wherever_they_stand() {
        for plain in [syn(CLIENT4, VIP4), syn(CLIENT6, VIP6)] {
            for (before, after) in [
                (&[][..], &[][..]),
                (&OTHERS, &[]),
                (&[1], &[1, 1, 1]),
                (&[1, 1], &[1, 0]),
                (&[1, 1, 1, 3, 3, 7], &[0, 9]),
            ] {
                for flags in [tcp::SYN, tcp::SYN | tcp::ACK] {
                    let offer = |mss: [u8; 4]| with(&plain, flags, &[before, &mss, after].concat());
                    assert_eq!(clamped(&offer(MSS_1460)), offer(MSS_1400).bytes(), "{before:?}");
                    assert_eq!(clamped(&offer([2, 4, 2, 24])), offer([2, 4, 2, 24]).bytes(), "less");
                }
            }
        }
    }

    #[test]
    fn all_else_stays() {
        let plain = syn(CLIENT4, VIP4);
        let stays = |sample: &Sample| assert_eq!(clamped(sample), sample.bytes());
        stays(&plain);
        stays(&with(&plain, tcp::ACK, &MSS_1460));
        stays(&Sample { body: Body::Udp { checksum: true }, payload: vec![2, 4, 255, 255], ..plain.clone() });
        stays(&with(&plain, tcp::SYN, &[0, 2, 4, 0x05, 0xb4, 0, 0, 0]));
        stays(&with(&plain, tcp::SYN, &[8, 0, 2, 4, 0x05, 0xb4, 0, 0]));
        stays(&with(&plain, tcp::SYN, &[8, 1, 2, 4, 0x05, 0xb4, 0, 0]));
        stays(&with(&plain, tcp::SYN, &[2, 3, 0xff, 0]));
        stays(&with(&plain, tcp::SYN, &[1, 1, 2, 4]));
        stays(&Sample { payload: vec![7; 64], ..with(&plain, tcp::SYN, &MSS_1460) }.piece(24, 24));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_options_leave_the_checksum_right(
            sample in any_packets(), mut options in prop::collection::vec(0u8..6, 0..40), max: u16,
        ) {
            options.resize(options.len().next_multiple_of(4), 0);
            let sample = with(&sample, tcp::SYN, &options);
            let mut frame = sample.bytes();
            clamp(&mut frame, &sample.headers(), max);
            prop_assert!(is_valid(&frame[usize::from(sample.packet().l3)..]));
        }

        #[test]
        fn any_bytes_do_no_harm(
            mut bytes in prop::collection::vec(any::<u8>(), 0..90), sample in any_packets(), l4: u16, max: u16,
        ) {
            let mut headers = with(&sample, tcp::SYN, &[]).headers();
            clamp(&mut bytes, &headers, max);
            headers.ip.l4 = l4;
            clamp(&mut bytes, &headers, max);
        }
    }
}

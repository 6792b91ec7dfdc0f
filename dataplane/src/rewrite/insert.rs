//! Bytes that are put into a packet behind its transport header, or into that.

use config::words::Protocol;

use super::nat::mend_transport;
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::{ipv4, ipv6, read_u16, udp, write_u16};

/// Puts `bytes` before what is at `at`, an offset that is even from the transport header on and not within its
/// fixed part. Lengths and checksums are repaired, also for `changes`, which the caller makes afterwards. Returns the
/// headers of the longer packet, whose offsets are the same: the frame begins earlier.
///
/// The headers move into the headroom, the payload stays where it is and is not read: what it adds to the checksum
/// is what the rest does not. So a checksum that was wrong stays wrong.
///
/// # Errors
/// [`DropReason::Scattered`] if what is before `at` is not all in the first segment, [`DropReason::TooBig`] if no
/// packet is so long, [`DropReason::NoHeadroom`] if the buffer has no room. The frame is unchanged then.
pub fn insert<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    at: usize,
    bytes: &[u8],
    changes: Delta,
) -> Result<Headers, DropReason> {
    let (l4, count) = (usize::from(headers.ip.l4), bytes.len());
    let before = frame.head().get(l4..at).ok_or(DropReason::Scattered)?;
    let added = u16::try_from(count).map_err(|_| DropReason::TooBig)?;
    let longer = headers.ip.len.checked_add(added).ok_or(DropReason::TooBig)?;
    let carried = carried_len(&headers.ip);
    // The length is in the pseudo header.
    let mut changes = changes.word(carried, carried.wrapping_add(added)).word(0, csum::sum(bytes));
    if count % 2 == 1 {
        // Each byte of the payload goes to the other half of its word. With what is before it the payload makes the
        // sum -0, as the checksum among that says.
        let pseudo_header = csum::sum_pseudo_header(headers.ip.addresses, headers.ip.next, carried);
        let payload = Delta::default().word(0, pseudo_header).word(0, csum::sum(before)).apply(u16::MAX);
        changes = changes.word(payload, payload.swap_bytes());
    }
    if !frame.grow_front(count) {
        return Err(DropReason::NoHeadroom);
    }
    let head = frame.head_mut();
    if let Some(moved) = head.get_mut(..at + count) {
        moved.copy_within(count.., 0);
        moved.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
    lengthen(head, &headers.ip, longer);
    if headers.protocol == Protocol::Udp {
        let old = read_u16(head, l4 + udp::LEN).unwrap_or_default();
        let new = old.wrapping_add(added);
        write_u16(head, l4 + udp::LEN, new);
        changes = changes.word(old, new);
    }
    mend_transport(head, l4, headers.protocol, changes);
    Ok(Headers { ip: Packet { len: longer, ..headers.ip }, ..*headers })
}

/// Bytes behind the IP header and extension headers.
fn carried_len(packet: &Packet) -> u16 {
    packet.len.saturating_sub(packet.l4.saturating_sub(packet.l3))
}

/// Writes the length of a packet into its IP header.
fn lengthen(head: &mut [u8], packet: &Packet, len: u16) {
    let l3 = usize::from(packet.l3);
    match packet.addresses {
        Addresses::V4 { .. } => {
            let old = read_u16(head, l3 + ipv4::TOTAL_LEN).unwrap_or_default();
            let checksum = read_u16(head, l3 + ipv4::CHECKSUM).unwrap_or_default();
            write_u16(head, l3 + ipv4::TOTAL_LEN, len);
            write_u16(head, l3 + ipv4::CHECKSUM, Delta::default().word(old, len).apply(checksum));
        }
        Addresses::V6 { .. } => {
            write_u16(head, l3 + ipv6::PAYLOAD_LEN, len.wrapping_sub(ipv6::HEADER_LEN as u16));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapFrame;
    use crate::samples::{CLIENT4, Sample, VIP4, any_packets, cases, syn};
    use proptest::prelude::*;

    fn payload_at(sample: &Sample) -> usize {
        sample.bytes().len() - sample.payload.len()
    }

    #[test]
    fn a_frame_without_room_stays_as_it_was() {
        let sample = syn(CLIENT4, VIP4);
        let (headers, at) = (sample.headers(), payload_at(&sample));
        let mut full = sample.frame();
        while full.grow_front(1) {}
        let refused = |frame: &HeapFrame, headers: &Headers, at| {
            let mut changed = frame.clone();
            let why = insert(&mut changed, headers, at, &[0; 28], Delta::default()).unwrap_err();
            assert_eq!(changed, *frame);
            why
        };
        assert_eq!(refused(&full, &headers, at), DropReason::NoHeadroom);
        let short = HeapFrame::segmented(&sample.bytes(), at - 1);
        assert_eq!(refused(&short, &headers, at), DropReason::Scattered);
        let long = Headers { ip: Packet { len: u16::MAX - 27, ..headers.ip }, ..headers };
        assert_eq!(refused(&sample.frame(), &long, at), DropReason::TooBig);
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn the_packet_is_as_if_made_whole(
            sample in any_packets(), bytes in prop::collection::vec(any::<u8>(), 0..105), first in 0usize..200,
        ) {
            let at = payload_at(&sample);
            let head = (at + first).min(sample.bytes().len());
            let mut frame = HeapFrame::segmented(&sample.bytes(), head);
            let changed = insert(&mut frame, &sample.headers(), at, &bytes, Delta::default()).unwrap();
            let whole = Sample { payload: [bytes, sample.payload.clone()].concat(), ..sample };
            prop_assert_eq!(frame.bytes(), whole.bytes());
            prop_assert_eq!(frame.head().len(), head + whole.payload.len() - sample.payload.len());
            prop_assert_eq!(changed, whole.headers());
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(
            sample in any_packets(), bytes in prop::collection::vec(any::<u8>(), 0..105), error in 1u16..0xffff,
        ) {
            let mut frame = sample.bytes();
            let at = payload_at(&sample);
            let offset = usize::from(sample.headers().ip.l4) + match sample.headers().protocol {
                Protocol::Tcp => crate::wire::tcp::CHECKSUM,
                Protocol::Udp => udp::CHECKSUM,
            };
            let right = read_u16(&frame, offset).unwrap();
            let wrong = !(csum::sum(&[(!right).to_be_bytes(), error.to_be_bytes()].concat()));
            prop_assume!(right != 0 && wrong != 0 && wrong % 0xffff != right % 0xffff);
            write_u16(&mut frame, offset, wrong);
            let mut frame = HeapFrame::new(&frame);
            insert(&mut frame, &sample.headers(), at, &bytes, Delta::default()).unwrap();
            prop_assert!(!crate::samples::is_valid(&frame.bytes()[usize::from(sample.packet().l3)..]));
        }

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..90), sample in any_packets(), (l3, l4, at) in any::<(u16, u16, u16)>(),
        ) {
            let mut headers = sample.headers();
            let _ = insert(&mut HeapFrame::new(&bytes), &headers, at.into(), &[7; 53], Delta::default());
            (headers.ip.l3, headers.ip.l4) = (l3, l4);
            let _ = insert(&mut HeapFrame::new(&bytes), &headers, at.into(), &[7; 53], Delta::default());
            let at = usize::from(at % 90);
            headers.ip.l4 = l4 % 90;
            let _ = insert(&mut HeapFrame::new(&bytes), &headers, at, &[7; 53], Delta::default());
        }
    }
}

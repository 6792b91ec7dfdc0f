//! Changing frames so that they reach their backend or, under NAT, their client again.
//!
//! Every mode takes a hop off the TTL or hop limit and puts the Ethernet header of the next hop before the
//! packet, so that the frame begins with it. A function that changes a field changes every checksum that
//! covers it. Offsets of a descriptor hold until the Ethernet header is put: it may be longer or shorter than
//! the one before it.

pub mod answer;
pub mod bare;
pub mod dr;
pub mod echo;
pub mod insert;
pub mod mss;
pub mod nat;
pub mod plain;
pub mod proxy;
pub mod quote;
pub mod sequence;
pub mod toa;
pub mod translate;
pub mod tunnel;

use config::words::Protocol;

use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::eth::{self, LinkHeader};
use crate::wire::{ipv4, ipv6, tcp, write};

/// TTL and hop limit of packets that begin here (RFC 1700, page 64).
const TTL: u8 = 64;

/// Makes the frame begin with this Ethernet header and then the packet that begins at `l3`.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room for a longer header; the frame is unchanged then.
#[inline]
pub fn put_link<F: Frame>(frame: &mut F, l3: u16, link: &LinkHeader) -> Result<(), DropReason> {
    make_room(frame, usize::from(l3), link.bytes().len())?;
    write_link(frame.head_mut(), link);
    Ok(())
}

/// Moves the frame's front so that `room` bytes are before what begins at `l3`.
#[inline(always)]
fn make_room<F: Frame>(frame: &mut F, l3: usize, room: usize) -> Result<(), DropReason> {
    if room == l3 { Ok(()) } else { move_front(frame, l3, room) }
}

#[inline]
fn move_front<F: Frame>(frame: &mut F, l3: usize, room: usize) -> Result<(), DropReason> {
    if room > l3 {
        return if frame.grow_front(room - l3) { Ok(()) } else { Err(DropReason::NoHeadroom) };
    }
    if frame.trim_front(l3 - room) { Ok(()) } else { Err(DropReason::Truncated) }
}

/// Writes an Ethernet header over a frame's first bytes.
#[inline(always)]
fn write_link(head: &mut [u8], link: &LinkHeader) {
    let bytes = link.bytes();
    // Copies of known lengths are a few moves instead of a call.
    let Some((fixed, tags)) = bytes.split_first_chunk::<{ eth::HEADER_LEN }>() else { return };
    write(head, 0, fixed);
    if let Some((tag, second)) = tags.split_first_chunk::<{ eth::TAG_LEN }>() {
        write(head, eth::HEADER_LEN, tag);
        if let Some(tag) = second.first_chunk::<{ eth::TAG_LEN }>() {
            write(head, eth::HEADER_LEN + eth::TAG_LEN, tag);
        }
    }
}

/// The TCP header of a packet, with its options; `None` if it has none, or not all of it in the first segment.
#[inline]
fn tcp_header<'a>(head: &'a mut [u8], headers: &Headers) -> Option<&'a mut [u8]> {
    if headers.protocol != Protocol::Tcp || !headers.has_transport() {
        return None;
    }
    let end = usize::from(headers.ip.l3) + usize::from(headers.ip.len);
    let end = end.min(head.len());
    let segment = head.get_mut(usize::from(headers.ip.l4)..end)?;
    let header_len = usize::from(segment.get(tcp::DATA_OFFSET)? >> 4) * 4;
    segment.get_mut(..header_len)
}

/// Takes one off the TTL or hop limit, which the caller found to be above 1. In IPv4 the header checksum is
/// repaired for that and for `addresses`, other changes of the header.
#[inline(always)]
pub fn age(head: &mut [u8], packet: &Packet, addresses: Delta) {
    let Some(header) = head.get_mut(usize::from(packet.l3)..) else { return };
    match packet.addresses {
        Addresses::V4 { .. } => {
            if let Some(header) = header.first_chunk_mut() {
                age_ipv4(header, addresses);
            }
        }
        Addresses::V6 { .. } => {
            if let Some(header) = header.first_chunk_mut() {
                age_ipv6(header);
            }
        }
    }
}

#[inline(always)]
fn age_ipv4(header: &mut [u8; ipv4::HEADER_LEN], addresses: Delta) {
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (old, checksum) = (word(ipv4::TTL), word(ipv4::CHECKSUM));
    let new = old.wrapping_sub(0x0100);
    header[ipv4::TTL..][..2].copy_from_slice(&new.to_be_bytes());
    header[ipv4::CHECKSUM..][..2].copy_from_slice(&addresses.word(old, new).apply(checksum).to_be_bytes());
}

#[inline(always)]
fn age_ipv6(header: &mut [u8; ipv6::HEADER_LEN]) {
    header[ipv6::HOP_LIMIT] = header[ipv6::HOP_LIMIT].wrapping_sub(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapFrame;
    use crate::samples::{CLIENT4, Sample, VIP4, any_packets, is_valid, link, links, syn};
    use crate::wire::eth::Tags;
    use proptest::prelude::*;

    const TAGS: [Tags; 3] =
        [Tags { outer: 0, inner: 0 }, Tags { outer: 0, inner: 7 }, Tags { outer: 8, inner: 7 }];

    #[test]
    fn a_frame_changes_its_ethernet_header_for_one_of_any_length() {
        for (old, new) in TAGS.iter().flat_map(|old| TAGS.map(|new| (*old, new))) {
            let before = Sample { tags: old, ..syn(CLIENT4, VIP4) };
            let (mut frame, packet) = (before.frame(), before.packet());
            put_link(&mut frame, packet.l3, &link(11, 254, new, packet.addresses)).unwrap();
            assert_eq!(frame.bytes(), Sample { tags: new, ..before }.sent(11, 254));
        }
    }

    #[test]
    fn without_headroom_nothing_happens() {
        let sample = syn(CLIENT4, VIP4);
        let mut frame = sample.frame();
        while frame.grow_front(1) {}
        let before = frame.clone();
        let tagged = link(11, 254, TAGS[1], sample.packet().addresses);
        assert_eq!(put_link(&mut frame, 14, &tagged), Err(DropReason::NoHeadroom));
        assert_eq!(frame, before);
    }

    proptest! {
        #![proptest_config(crate::samples::cases())]
        #[test]
        fn a_packet_ages_by_one_hop(sample in any_packets(), link in links(false)) {
            let (mut frame, packet) = (sample.frame(), sample.packet());
            age(frame.head_mut(), &packet, Delta::default());
            put_link(&mut frame, packet.l3, &link).unwrap();
            let older = Sample { ttl: sample.ttl - 1, ..sample }.ip();
            prop_assert!(is_valid(&older));
            prop_assert_eq!(&frame.bytes()[link.bytes().len()..], older);
        }

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..80), sample in any_packets(), l3: u16, link in links(true),
        ) {
            let mut frame = HeapFrame::new(&bytes);
            age(frame.head_mut(), &crate::packet::Packet { l3, ..sample.packet() }, Delta::default());
            let _ = put_link(&mut frame, l3, &link);
        }
    }
}

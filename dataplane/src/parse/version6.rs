//! IPv6 headers and their extensions (RFC 8200).

use std::ops::RangeInclusive;

use super::{Refusal, transport};
use crate::drops::DropReason;
use crate::packet::{Addresses, Fragment, Headers, Packet};
use crate::wire::eth::Tags;
use crate::wire::{ipv4, ipv6, read_u16, read_u32};

/// Extension headers in a packet at most. No honest sender uses more than four; each one costs a step.
const MAX_EXTENSIONS: usize = 8;

/// ICMPv6 types of neighbour discovery, from router solicitation to redirect (RFC 4861, 4).
const DISCOVERY: RangeInclusive<u8> = 133..=137;

/// Parses an IPv6 packet whose header begins at `l3`.
#[inline]
pub(super) fn parse(head: &[u8], frame_len: usize, l3: usize, tags: Tags) -> Result<Headers, Refusal> {
    let fixed = head
        .get(l3..)
        .and_then(|ip| ip.first_chunk::<{ ipv6::HEADER_LEN }>())
        .ok_or(DropReason::Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::BadIpHeader.into());
    }
    let payload_len = u16::from_be_bytes([fixed[ipv6::PAYLOAD_LEN], fixed[ipv6::PAYLOAD_LEN + 1]]);
    // 0 is a jumbogram (RFC 2675) or nothing at all; a packet with its header must fit 16 bits here.
    let len = payload_len.checked_add(ipv6::HEADER_LEN as u16).filter(|_| payload_len != 0);
    let len = len.ok_or(DropReason::BadIpLength)?;
    let end = l3 + usize::from(len);
    if end > frame_len {
        return Err(DropReason::Truncated.into());
    }
    let address = |at: usize| fixed[at..].first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    let (src, dst) = (address(ipv6::SRC), address(ipv6::DST));
    let mut packet = Packet {
        addresses: Addresses::V6 { src, dst },
        l3: l3 as u16,
        l4: (l3 + ipv6::HEADER_LEN) as u16,
        len,
        ttl: fixed[ipv6::HOP_LIMIT],
        tos: fixed[0] << 4 | fixed[1] >> 4,
        next: fixed[ipv6::NEXT],
        dont_fragment: true,
        fragment: None,
    };
    // Nearly all packets have no extension headers.
    if !matches!(packet.next, ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP) {
        walk(head, end, &mut packet)?;
        if is_discovery(head, &packet) {
            // Only a station on the link can send it with this hop limit (RFC 4861, 11.2).
            return Err(if packet.ttl == 255 { Refusal::Nd(tags) } else { DropReason::BadIcmp.into() });
        }
    }
    if no_station(src) || no_station(dst) || src == dst {
        return Err(DropReason::MartianAddress.into());
    }
    if packet.fragment.is_some() {
        return Err(Refusal::Piece(packet, tags));
    }
    let l4 = usize::from(packet.l4);
    transport(head.get(l4..).unwrap_or(&[]), end.saturating_sub(l4), packet, tags)
}

/// Walks over the extension headers: sets `next` and `l4` to what follows them, and `fragment` if the packet
/// is a piece. Behind the fragment header of a later piece there are no headers any more.
#[cold]
fn walk(head: &[u8], end: usize, packet: &mut Packet) -> Result<(), DropReason> {
    let mut at = usize::from(packet.l4);
    for extension in 0..=MAX_EXTENSIONS {
        let len = match packet.next {
            ipv6::NEXT_HOP_BY_HOP if extension > 0 => return Err(DropReason::BadExtensionHeader),
            ipv6::NEXT_HOP_BY_HOP | ipv6::NEXT_DESTINATION => extension_len(head, at)?,
            ipv6::NEXT_ROUTING => {
                let [kind, left] = read_u16(head, at + 2).ok_or(DropReason::Truncated)?.to_be_bytes();
                // Type 0 is an attack (RFC 5095); of all others we are no waypoint.
                if kind == 0 || left != 0 {
                    return Err(DropReason::RoutingHeader);
                }
                extension_len(head, at)?
            }
            ipv6::NEXT_FRAGMENT => {
                let word = read_u16(head, at + 2).ok_or(DropReason::Truncated)?;
                let id = read_u32(head, at + 4).ok_or(DropReason::Truncated)?;
                let (offset, more) = (word & ipv6::FRAGMENT_OFFSET_MASK, word & ipv6::MORE_FRAGMENTS != 0);
                // A packet in one piece is a whole packet (RFC 6946).
                if offset != 0 || more {
                    packet.fragment = Some(Fragment { id, offset, more, header: at as u16 });
                }
                ipv6::FRAGMENT_LEN
            }
            ipv6::NEXT_NONE => return Err(DropReason::NoNextHeader),
            _ => return Ok(()),
        };
        if extension == MAX_EXTENSIONS {
            return Err(DropReason::BadExtensionHeader);
        }
        if at + len > end {
            // The first piece of a packet has all of its headers (RFC 7112, 5).
            let piece = packet.fragment.is_some();
            return Err(if piece { DropReason::FragmentTiny } else { DropReason::BadExtensionHeader });
        }
        packet.next = head.get(at).copied().ok_or(DropReason::Truncated)?;
        at += len;
        // At most `end`, which is in the frame's first 65,535 bytes and some.
        packet.l4 = u16::try_from(at).map_err(|_| DropReason::BadExtensionHeader)?;
        if packet.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(());
        }
    }
    Err(DropReason::BadExtensionHeader)
}

/// Length of an extension header whose second byte counts units of eight behind the first.
fn extension_len(head: &[u8], at: usize) -> Result<usize, DropReason> {
    head.get(at + 1).map(|units| (usize::from(*units) + 1) * 8).ok_or(DropReason::Truncated)
}

/// Whether a packet is neighbour discovery (RFC 4861, 4), which comes in no pieces (RFC 6980, 5).
fn is_discovery(head: &[u8], packet: &Packet) -> bool {
    let kind = head.get(usize::from(packet.l4)).filter(|_| packet.fragment.is_none());
    packet.next == ipv6::NEXT_ICMP && kind.is_some_and(|kind| DISCOVERY.contains(kind))
}

/// Whether no single station may send from or be sent to this address across a router: unspecified, loopback,
/// multicast, link-local (RFC 4291, 2.5.6 and 2.7), or an IPv4 address in disguise (RFC 4942, 2.2).
pub(super) fn no_station(address: u128) -> bool {
    let (high, low) = ((address >> 64) as u64, address as u64);
    let link_local = high >> 54 == 0xfe80 >> 6;
    let multicast = high >> 56 == 0xff;
    // Of the addresses that begin with 64 zeros no other is looked at further.
    link_local || multicast || high == 0 && (low <= 1 || low >> 32 == 0xffff)
}

//! ICMP errors from one IP version to the other, with the packets that they quote (RFC 7915, 4.2 to 4.5 and 5.2
//! to 5.5).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Common;
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Packet};
use crate::rewrite::answer::{LONGEST_QUOTE_V4, LONGEST_QUOTE_V6};
use crate::rewrite::quote::{Quoted, check_sum, replace_ports};
use crate::rewrite::{make_room, write_link};
use crate::wire::eth::LinkHeader;
use crate::wire::{icmp4, icmp6, ipv4, ipv6, read_u16, read_u32, write, write_u16, write_u32};

/// Lengths of packets that networks take, for routers that tell none (RFC 1191, 7.1). Shorter ones are of no
/// use: every IPv6 link takes 1280.
const PLATEAUS: [u16; 7] = [65535, 32000, 17914, 8166, 4352, 2002, 1492];
/// By how much an IPv6 header is longer than an IPv4 header.
const LONGER: u32 = (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u32;

/// Makes an ICMP error an ICMPv6 one between these ends, one hop older, about a packet between `quoted_ends`.
///
/// # Errors
/// [`DropReason::UnknownIcmp`] if ICMPv6 has no such error; [`DropReason::BadIcmp`] if its checksum is wrong,
/// [`DropReason::Scattered`] if not all of it is in the first segment, [`DropReason::WrongFamily`] if it is not
/// of IPv4, [`DropReason::NoHeadroom`] if the buffer has no room for the longer headers.
pub fn error_to_v6<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    quoted: &Quoted,
    (src, dst): (Ipv6Addr, Ipv6Addr),
    quoted_ends: (SocketAddrV6, SocketAddrV6),
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let (SocketAddr::V4(old_src), SocketAddr::V4(old_dst)) = (quoted.src, quoted.dst) else {
        return Err(DropReason::WrongFamily);
    };
    check_sum(frame.head(), packet)?;
    let inner = Common::quoted_v4(frame.head(), quoted).ok_or(DropReason::BadIcmp)?;
    let quoted_len = inner.carried.saturating_add(ipv4::HEADER_LEN as u16);
    let (kind, rest) = as_icmp6(frame.head(), packet, quoted_len).ok_or(DropReason::UnknownIcmp)?;
    let (new_src, new_dst) = quoted_ends;
    let (inner_header, inner_len) = inner.v6(*new_src.ip(), *new_dst.ip());
    let changes = Delta::default()
        .long(old_src.ip().to_bits(), 0)
        .long(old_dst.ip().to_bits(), 0)
        .wide(0, new_src.ip().to_bits())
        .wide(0, new_dst.ip().to_bits());
    let ports = (Some(new_src.port()), Some(new_dst.port()));
    let message_len = icmp6::HEADER_LEN + quote_len(quoted, inner_len).min(LONGEST_QUOTE_V6);
    let (header, header_len) = Common::carrier(packet, ipv6::NEXT_ICMP, message_len as u16).v6(src, dst);
    let inner_header = inner_header.get(..inner_len).unwrap_or(&inner_header);
    let header = header.get(..header_len).unwrap_or(&header);
    mend_quote(frame, quoted, ports, changes);
    let message = put(frame, quoted, header, (kind, rest), inner_header, message_len, link)?;
    let addresses = Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() };
    let checksum = csum::transport(addresses, ipv6::NEXT_ICMP, message);
    write_u16(message, icmp6::CHECKSUM, checksum);
    Ok(())
}

/// Makes an ICMPv6 error an ICMP one between these ends, one hop older, about a packet between `quoted_ends`.
/// `id` identifies it, should it be fragmented.
///
/// # Errors
/// As [`error_to_v6`], the other way.
pub fn error_to_v4<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    quoted: &Quoted,
    (src, dst): (Ipv4Addr, Ipv4Addr),
    quoted_ends: (SocketAddrV4, SocketAddrV4),
    id: u16,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let (SocketAddr::V6(old_src), SocketAddr::V6(old_dst)) = (quoted.src, quoted.dst) else {
        return Err(DropReason::WrongFamily);
    };
    check_sum(frame.head(), packet)?;
    let inner = Common::quoted_v6(frame.head(), quoted).ok_or(DropReason::BadIcmp)?;
    let (kind, rest) = as_icmp4(frame.head(), packet, quoted).ok_or(DropReason::UnknownIcmp)?;
    let (new_src, new_dst) = quoted_ends;
    // The identification that the packet had as IPv4 is not known any more.
    let inner_header = inner.v4(*new_src.ip(), *new_dst.ip(), 0);
    let changes = Delta::default()
        .wide(old_src.ip().to_bits(), 0)
        .wide(old_dst.ip().to_bits(), 0)
        .long(0, new_src.ip().to_bits())
        .long(0, new_dst.ip().to_bits());
    let ports = (Some(new_src.port()), Some(new_dst.port()));
    let message_len = icmp4::HEADER_LEN + quote_len(quoted, inner_header.len()).min(LONGEST_QUOTE_V4);
    let header = Common::carrier(packet, ipv4::PROTOCOL_ICMP, message_len as u16).v4(src, dst, id);
    mend_quote(frame, quoted, ports, changes);
    let message = put(frame, quoted, &header, (kind, rest), &inner_header, message_len, link)?;
    let checksum = !csum::sum(message);
    write_u16(message, icmp4::CHECKSUM, checksum);
    Ok(())
}

/// Bytes that are quoted, with another IP header.
fn quote_len(quoted: &Quoted, header_len: usize) -> usize {
    header_len + quoted.end.saturating_sub(quoted.l4)
}

fn mend_quote<F: Frame>(frame: &mut F, quoted: &Quoted, ports: (Option<u16>, Option<u16>), changes: Delta) {
    if let Some(message) = frame.head_mut().get_mut(..quoted.end) {
        // The checksum of the whole is made anew.
        replace_ports(message, quoted, ports, changes, Delta::default());
    }
}

/// Replaces all headers before the quoted transport header. The message of `message_len` bytes is returned; its
/// checksum is 0.
fn put<'a, F: Frame>(
    frame: &'a mut F,
    quoted: &Quoted,
    header: &[u8],
    (kind, rest): ([u8; 2], u32),
    inner_header: &[u8],
    message_len: usize,
    link: &LinkHeader,
) -> Result<&'a mut [u8], DropReason> {
    let at = link.bytes().len() + header.len();
    make_room(frame, quoted.l4, at + icmp4::HEADER_LEN + inner_header.len())?;
    frame.truncate(at + message_len);
    let head = frame.head_mut();
    write_link(head, link);
    if let Some(place) = head.get_mut(link.bytes().len()..at) {
        place.copy_from_slice(header);
    }
    let message = head.get_mut(at..).unwrap_or(&mut []);
    write(message, icmp4::TYPE, &kind);
    write_u16(message, icmp4::CHECKSUM, 0);
    write_u32(message, icmp4::REST, rest);
    if let Some(place) = message.get_mut(icmp4::HEADER_LEN..icmp4::HEADER_LEN + inner_header.len()) {
        place.copy_from_slice(inner_header);
    }
    Ok(message)
}

impl Common {
    /// Of an ICMP packet that came in and is made anew with a message of this length, one hop older.
    fn carrier(packet: &Packet, next: u8, message_len: u16) -> Self {
        Self { next, carried: message_len, piece: None, ..Self::aged(packet) }
    }

    /// Of a quoted IPv4 packet. It is as old as it was: nobody forwards it.
    fn quoted_v4(head: &[u8], quoted: &Quoted) -> Option<Self> {
        let header = head.get(quoted.l3..quoted.l4)?;
        let total_len = usize::from(read_u16(header, ipv4::TOTAL_LEN)?);
        Some(Self {
            tos: *header.get(ipv4::TOS)?,
            ttl: *header.get(ipv4::TTL)?,
            next: quoted.protocol,
            // What the packet had, not what is left of it in the quote.
            carried: total_len.saturating_sub(header.len()) as u16,
            piece: quoted.piece_of.map(|id| (id, 0, true)),
        })
    }

    /// The same of a quoted IPv6 packet.
    fn quoted_v6(head: &[u8], quoted: &Quoted) -> Option<Self> {
        let header = head.get(quoted.l3..quoted.l4)?;
        let len = usize::from(read_u16(header, ipv6::PAYLOAD_LEN)?) + ipv6::HEADER_LEN;
        Some(Self {
            tos: (read_u16(header, 0)? >> 4) as u8,
            ttl: *header.get(ipv6::HOP_LIMIT)?,
            next: quoted.protocol,
            // At most the 65,535 bytes that the payload length counts.
            carried: len.saturating_sub(header.len()) as u16,
            piece: quoted.piece_of.map(|id| (id, 0, true)),
        })
    }
}

/// Type and code of an ICMP message, and the word behind its checksum.
fn read_kind(head: &[u8], packet: &Packet) -> Option<(u8, u8, u32)> {
    let message = head.get(usize::from(packet.l4)..)?;
    let [kind, code] = read_u16(message, icmp4::TYPE)?.to_be_bytes();
    Some((kind, code, read_u32(message, icmp4::REST)?))
}

/// What an ICMP error is in ICMPv6 (RFC 7915, 4.2); `quoted_len` is the length of the packet it quotes.
fn as_icmp6(head: &[u8], packet: &Packet, quoted_len: u16) -> Option<([u8; 2], u32)> {
    let (kind, code, rest) = read_kind(head, packet)?;
    Some(match (kind, code) {
        // IPv6 knows no unknown protocol, but a wrong number in the header.
        (icmp4::UNREACHABLE, icmp4::PROTOCOL_UNREACHABLE) => {
            ([icmp6::PARAMETER_PROBLEM, icmp6::UNKNOWN_NEXT], ipv6::NEXT as u32)
        }
        (icmp4::UNREACHABLE, icmp4::PORT_UNREACHABLE) => ([icmp6::UNREACHABLE, icmp6::PORT_UNREACHABLE], 0),
        (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED) => {
            ([icmp6::PACKET_TOO_BIG, 0], mtu_as_v6(rest as u16, quoted_len))
        }
        // Network or host prohibited, for some or all.
        (icmp4::UNREACHABLE, 9 | 10 | 13 | 15) => ([icmp6::UNREACHABLE, icmp6::PROHIBITED], 0),
        (icmp4::UNREACHABLE, 0 | 1 | 5..=8 | 11 | 12) => ([icmp6::UNREACHABLE, icmp6::NO_ROUTE], 0),
        (icmp4::TIME_EXCEEDED, _) => ([icmp6::TIME_EXCEEDED, code], 0),
        // The place of the problem is in the word's first byte; 1 is an option that is missing.
        (icmp4::PARAMETER_PROBLEM, 0 | 2) => {
            ([icmp6::PARAMETER_PROBLEM, icmp6::WRONG_FIELD], field_of_v6(rest >> 24)?)
        }
        _ => return None,
    })
}

/// What an ICMPv6 error is in ICMP (RFC 7915, 5.2).
fn as_icmp4(head: &[u8], packet: &Packet, quoted: &Quoted) -> Option<([u8; 2], u32)> {
    let (kind, code, rest) = read_kind(head, packet)?;
    Some(match (kind, code) {
        (icmp6::UNREACHABLE, icmp6::PROHIBITED) => ([icmp4::UNREACHABLE, icmp4::HOST_PROHIBITED], 0),
        (icmp6::UNREACHABLE, icmp6::PORT_UNREACHABLE) => ([icmp4::UNREACHABLE, icmp4::PORT_UNREACHABLE], 0),
        // No route, beyond the scope of the source, or no neighbour.
        (icmp6::UNREACHABLE, 0 | 2 | 3) => ([icmp4::UNREACHABLE, icmp4::HOST_UNREACHABLE], 0),
        (icmp6::PACKET_TOO_BIG, _) => {
            let fragment_header = quoted.piece_of.map_or(0, |_| ipv6::FRAGMENT_LEN as u32);
            let mtu = rest.saturating_sub(LONGER + fragment_header);
            // The low half of the word.
            ([icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED], mtu.min(0xffff))
        }
        (icmp6::TIME_EXCEEDED, _) => ([icmp4::TIME_EXCEEDED, code], 0),
        (icmp6::PARAMETER_PROBLEM, icmp6::WRONG_FIELD) => {
            ([icmp4::PARAMETER_PROBLEM, 0], field_of_v4(rest)? << 24)
        }
        (icmp6::PARAMETER_PROBLEM, icmp6::UNKNOWN_NEXT) => {
            ([icmp4::UNREACHABLE, icmp4::PROTOCOL_UNREACHABLE], 0)
        }
        _ => return None,
    })
}

/// The MTU of an IPv4 way for IPv6 packets, which are longer by the difference of the headers. A router that tells
/// none is taken to have the next smaller one that is common (RFC 1191, 5).
fn mtu_as_v6(mtu: u16, quoted_len: u16) -> u32 {
    let mtu = match mtu {
        0 => PLATEAUS.into_iter().find(|plateau| *plateau < quoted_len).unwrap_or_default(),
        known => known,
    };
    (u32::from(mtu) + LONGER).max(ipv6::MIN_MTU.into())
}

/// Offset in the IPv6 header of what is at an offset of the IPv4 header (RFC 7915, figure 3).
fn field_of_v6(offset: u32) -> Option<u32> {
    Some(match offset {
        0 | 1 => offset,
        2 | 3 => ipv6::PAYLOAD_LEN as u32,
        8 => ipv6::HOP_LIMIT as u32,
        9 => ipv6::NEXT as u32,
        12..=15 => ipv6::SRC as u32,
        16..=19 => ipv6::DST as u32,
        _ => return None,
    })
}

/// Offset in the IPv4 header of what is at an offset of the IPv6 header (RFC 7915, figure 6).
fn field_of_v4(offset: u32) -> Option<u32> {
    Some(match offset {
        0 | 1 => offset,
        4 | 5 => ipv4::TOTAL_LEN as u32,
        6 => ipv4::PROTOCOL as u32,
        7 => ipv4::TTL as u32,
        8..=23 => ipv4::SRC as u32,
        24..=39 => ipv4::DST as u32,
        _ => return None,
    })
}

//! From one IP version to the other (RFC 7915), as full NAT needs it where clients and backends differ: the IP
//! header is replaced, the transport header stays but for its ports and checksum.

mod errors;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use config::words::Protocol;

pub use errors::{error_to_v4, error_to_v6};

use super::nat::replace_ports;
use super::{make_room, write_link};
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::eth::LinkHeader;
use crate::wire::{ipv4, ipv6, read_u16, udp, write_u16};

/// Longest IPv4 packet whose sender need not learn the MTU of its way (RFC 7915, 5.1): with headers of the other
/// version it takes no more than every IPv6 link does.
const FRAGMENTABLE_LEN: u16 = 1260;
/// Longest header of IPv6 that is made here, in bytes: with a fragment header.
const LONG_HEADER_LEN: usize = ipv6::HEADER_LEN + ipv6::FRAGMENT_LEN;

/// Length that a packet has as IPv4, in bytes.
#[inline]
pub fn len_as_v4(packet: &Packet) -> u16 {
    carried_len(packet).saturating_add(ipv4::HEADER_LEN as u16)
}

/// Length that a packet has as IPv6, in bytes.
#[inline]
pub fn len_as_v6(packet: &Packet) -> u16 {
    let header_len = if packet.fragment.is_some() { LONG_HEADER_LEN } else { ipv6::HEADER_LEN };
    carried_len(packet).saturating_add(header_len as u16)
}

/// Bytes behind a packet's IP header and extension headers.
#[inline]
fn carried_len(packet: &Packet) -> u16 {
    packet.len.saturating_sub(packet.l4.saturating_sub(packet.l3))
}

/// Makes an IPv6 packet an IPv4 one with these ends, one hop older. `id` identifies it where it may be
/// fragmented on its way and is no piece already. Options of IPv6 are left out.
///
/// # Errors
/// [`DropReason::WrongFamily`] if it is an IPv4 packet, [`DropReason::UnknownProtocol`] if it is a piece with more
/// than TCP or UDP behind its fragment header, [`DropReason::NoHeadroom`] if the buffer has no room.
#[inline]
pub fn to_v4<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    src: SocketAddrV4,
    dst: SocketAddrV4,
    id: u16,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let Addresses::V6 { src: old_src, dst: old_dst } = headers.ip.addresses else {
        return Err(DropReason::WrongFamily);
    };
    check_piece(headers)?;
    let header = Common::aged(&headers.ip).v4(*src.ip(), *dst.ip(), id);
    let l4 = replace_header(frame, headers.ip.l4, &header, link)?;
    let changes = Delta::default()
        .wide(old_src, 0)
        .wide(old_dst, 0)
        .long(0, src.ip().to_bits())
        .long(0, dst.ip().to_bits());
    replace_ports(frame.head_mut(), &moved(headers, l4), changes, (Some(src.port()), Some(dst.port())));
    Ok(())
}

/// Makes an IPv4 packet an IPv6 one with these ends, one hop older. Options of IPv4 are left out. A UDP checksum
/// that the sender did not compute is computed: IPv6 asks for one.
///
/// # Errors
/// [`DropReason::WrongFamily`] if it is an IPv6 packet, [`DropReason::Scattered`] if a UDP checksum is to be
/// computed over more than the first segment or over several pieces, [`DropReason::NoHeadroom`] if the buffer has
/// no room for the longer header.
#[inline]
pub fn to_v6<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    src: SocketAddrV6,
    dst: SocketAddrV6,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let Addresses::V4 { src: old_src, dst: old_dst } = headers.ip.addresses else {
        return Err(DropReason::WrongFamily);
    };
    let uncomputed = uncomputed_len(frame.head(), headers)?;
    let (header, len) = Common::aged(&headers.ip).v6(*src.ip(), *dst.ip());
    let l4 = replace_header(frame, headers.ip.l4, header.get(..len).unwrap_or(&header), link)?;
    let (new_src, new_dst) = (src.ip().to_bits(), dst.ip().to_bits());
    let changes = Delta::default().long(old_src, 0).long(old_dst, 0).wide(0, new_src).wide(0, new_dst);
    let head = frame.head_mut();
    replace_ports(head, &moved(headers, l4), changes, (Some(src.port()), Some(dst.port())));
    if let Some(len) = uncomputed {
        let datagram = head.get_mut(l4..l4 + len).unwrap_or(&mut []);
        let addresses = Addresses::V6 { src: new_src, dst: new_dst };
        let checksum = csum::transport(addresses, ipv4::PROTOCOL_UDP, datagram);
        write_u16(datagram, udp::CHECKSUM, udp::computed(checksum));
    }
    Ok(())
}

/// The same headers with the transport header at another place.
#[inline]
fn moved(headers: &Headers, l4: usize) -> Headers {
    // A header of this length ends in the first 70 bytes.
    Headers { ip: Packet { l4: l4 as u16, ..headers.ip }, ..*headers }
}

/// Pieces are translated one by one: whatever headers the first one had behind its fragment header would be
/// counted by the places of all others.
#[inline]
fn check_piece(headers: &Headers) -> Result<(), DropReason> {
    let Some(fragment) = headers.ip.fragment else { return Ok(()) };
    let protocol = match headers.protocol {
        Protocol::Tcp => ipv4::PROTOCOL_TCP,
        Protocol::Udp => ipv4::PROTOCOL_UDP,
    };
    let next_to_it = usize::from(fragment.header) + ipv6::FRAGMENT_LEN == usize::from(headers.ip.l4);
    if next_to_it && headers.ip.next == protocol { Ok(()) } else { Err(DropReason::UnknownProtocol) }
}

/// Length of a UDP datagram that came without a checksum.
#[inline]
fn uncomputed_len(head: &[u8], headers: &Headers) -> Result<Option<usize>, DropReason> {
    if headers.protocol != Protocol::Udp || !headers.has_transport() {
        return Ok(None);
    }
    let datagram = head.get(usize::from(headers.ip.l4)..).ok_or(DropReason::Truncated)?;
    let checksum = read_u16(datagram, udp::CHECKSUM).ok_or(DropReason::Truncated)?;
    if checksum != 0 {
        return Ok(None);
    }
    let len = read_u16(datagram, udp::LEN).map(usize::from).ok_or(DropReason::Truncated)?;
    if headers.ip.fragment.is_some() || len > datagram.len() {
        return Err(DropReason::Scattered);
    }
    Ok(Some(len))
}

/// Puts Ethernet and IP headers before what begins at `l4`; its new place is returned.
#[inline]
fn replace_header<F: Frame>(
    frame: &mut F,
    l4: u16,
    header: &[u8],
    link: &LinkHeader,
) -> Result<usize, DropReason> {
    let l3 = link.bytes().len();
    make_room(frame, usize::from(l4), l3 + header.len())?;
    let head = frame.head_mut();
    write_link(head, link);
    if let Some(place) = head.get_mut(l3..l3 + header.len()) {
        place.copy_from_slice(header);
    }
    Ok(l3 + header.len())
}

/// What both IP versions say of a packet.
#[derive(Clone, Copy, Debug)]
struct Common {
    tos: u8,
    ttl: u8,
    next: u8,
    /// Bytes behind the IP header and extension headers.
    carried: u16,
    /// Identification of a piece, its offset in bytes, and whether more follow.
    piece: Option<(u32, u16, bool)>,
}

impl Common {
    /// Of a packet that came in, one hop older.
    #[inline]
    fn aged(packet: &Packet) -> Self {
        Self {
            tos: packet.tos,
            ttl: packet.ttl.wrapping_sub(1),
            next: packet.next,
            carried: carried_len(packet),
            piece: packet.fragment.map(|fragment| (fragment.id, fragment.offset, fragment.more)),
        }
    }

    /// The IPv4 header that says so (RFC 7915, 5.1 and 5.1.1).
    #[inline]
    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> [u8; ipv4::HEADER_LEN] {
        let total_len = self.carried.saturating_add(ipv4::HEADER_LEN as u16);
        let dont_fragment = if total_len > FRAGMENTABLE_LEN { ipv4::DONT_FRAGMENT } else { 0 };
        let (id, place) = match self.piece {
            Some((id, offset, more)) => {
                let more = if more { ipv4::MORE_FRAGMENTS } else { 0 };
                // The low half of the identification, as all pieces get it.
                (id as u16, more | (offset / 8))
            }
            None => (id, 0),
        };
        let header = ipv4::NewHeader {
            tos: self.tos,
            total_len,
            id,
            fragment: dont_fragment | place,
            ttl: self.ttl,
            protocol: self.next,
            src: src.to_bits(),
            dst: dst.to_bits(),
        };
        header.bytes()
    }

    /// The IPv6 header that says so (RFC 7915, 4.1), with a fragment header for a piece. The length is returned,
    /// too.
    #[inline]
    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> ([u8; LONG_HEADER_LEN], usize) {
        let mut header = ipv6::NewHeader {
            traffic_class: self.tos,
            flow_label: 0,
            payload_len: self.carried,
            next: self.next,
            hop_limit: self.ttl,
            src: src.to_bits(),
            dst: dst.to_bits(),
        };
        let mut bytes = [0; LONG_HEADER_LEN];
        let mut len = ipv6::HEADER_LEN;
        if let Some((id, offset, more)) = self.piece {
            header.next = ipv6::NEXT_FRAGMENT;
            header.payload_len = self.carried.saturating_add(ipv6::FRAGMENT_LEN as u16);
            bytes[len..].copy_from_slice(&ipv6::fragment_header(self.next, offset, more, id));
            len = LONG_HEADER_LEN;
        }
        bytes[..ipv6::HEADER_LEN].copy_from_slice(&header.bytes());
        (bytes, len)
    }
}

#[cfg(test)]
mod tests;

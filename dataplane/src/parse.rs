//! Bytes of a frame → its headers, or why it goes no further.
//!
//! Read once, front to back; every length is checked before its first use. Later stages trust the
//! offsets found here and read no header again.

pub mod plain;
mod version6;

use config::words::{MacAddr, Protocol};

use crate::csum;
use crate::drops::DropReason;
use crate::packet::{Addresses, Fragment, Headers, Packet};
use crate::wire::eth::Tags;
use crate::wire::{eth, icmp4, ipv4, read_u16, read_u32, tcp, udp};

/// What else a frame may be than a packet with ports for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is dropped and counted.
    Drop(DropReason),
    /// It is an ARP packet, which the control thread answers.
    Arp(Tags),
    /// It is a neighbour discovery packet, which the control thread answers.
    Nd(Tags),
    /// It is an ICMP or ICMPv6 packet with a whole header.
    Icmp(Packet, Tags),
    /// It is a piece of a packet.
    Piece(Packet, Tags),
    /// It is an IP packet with another protocol in it.
    Other(Packet, Tags),
}

impl From<DropReason> for Refusal {
    fn from(why: DropReason) -> Self {
        Self::Drop(why)
    }
}

/// Parses a frame that came in by the port with address `own`. Says under which VLAN tags it came.
///
/// `head` is the frame's first segment, `frame_len` the bytes of all segments.
///
/// # Errors
/// [`Refusal`] says what else the frame is.
#[inline]
pub fn parse(head: &[u8], frame_len: usize, own: MacAddr) -> Result<(Headers, Tags), Refusal> {
    let link = head.first_chunk::<{ eth::HEADER_LEN }>().ok_or(DropReason::Truncated)?;
    let ethertype = u16::from_be_bytes([link[eth::TYPE], link[eth::TYPE + 1]]);
    if link[eth::DST..][..6] == own.0 {
        let (l3, tags) = (eth::HEADER_LEN, Tags::default());
        match ethertype {
            eth::TYPE_IPV4 => return Ok((parse_ipv4(head, frame_len, l3, tags)?, tags)),
            eth::TYPE_IPV6 => return Ok((version6::parse(head, frame_len, l3, tags)?, tags)),
            _ => {}
        }
    }
    parse_other(head, frame_len, own, ethertype)
}

/// Whom a frame is meant for, by its destination MAC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Station {
    /// Us alone.
    Own,
    /// Everybody: requests of ARP come so.
    All,
    /// An IPv6 multicast group (RFC 2464, 7): neighbour discovery comes so.
    Group,
}

/// The same for frames other than untagged IP for us.
fn parse_other(
    head: &[u8],
    frame_len: usize,
    own: MacAddr,
    ethertype: u16,
) -> Result<(Headers, Tags), Refusal> {
    let dst = MacAddr(*head.first_chunk().ok_or(DropReason::Truncated)?);
    let station = match dst {
        _ if dst == own => Station::Own,
        MacAddr::BROADCAST => Station::All,
        MacAddr([0x33, 0x33, ..]) => Station::Group,
        _ => return Err(DropReason::NotOurMac.into()),
    };
    let (ethertype, l3, tags) = strip_tags(head, ethertype)?;
    // Everything else that is not for this station alone is not ours to forward, link-layer broadcasts of
    // IP included (RFC 1812, 5.3.4).
    match (ethertype, station) {
        (eth::TYPE_ARP, Station::Own | Station::All) => Err(Refusal::Arp(tags)),
        (eth::TYPE_IPV4, Station::Own) => Ok((parse_ipv4(head, frame_len, l3, tags)?, tags)),
        (eth::TYPE_IPV6, Station::Own) => Ok((version6::parse(head, frame_len, l3, tags)?, tags)),
        (eth::TYPE_IPV6, Station::Group) => match version6::parse(head, frame_len, l3, tags) {
            Err(Refusal::Nd(tags)) => Err(Refusal::Nd(tags)),
            Err(Refusal::Drop(DropReason::BadIcmp)) => Err(DropReason::BadIcmp.into()),
            _ => Err(DropReason::NotOurMac.into()),
        },
        (_, Station::Own) => Err(DropReason::UnknownEthertype.into()),
        _ => Err(DropReason::NotOurMac.into()),
    }
}

/// The Ethertype behind up to two VLAN tags (IEEE 802.1Q, 802.1ad), its packet's offset, and the tags.
fn strip_tags(head: &[u8], ethertype: u16) -> Result<(u16, usize, Tags), DropReason> {
    let mut tags = Tags::default();
    let (mut ethertype, mut l3) = (ethertype, eth::HEADER_LEN);
    while ethertype == eth::TYPE_VLAN || ethertype == eth::TYPE_SERVICE_VLAN {
        if tags.outer != 0 {
            return Err(DropReason::BadVlan);
        }
        let word = read_u16(head, l3).ok_or(DropReason::Truncated)?;
        ethertype = read_u16(head, l3 + 2).ok_or(DropReason::Truncated)?;
        l3 += eth::TAG_LEN;
        // A tag of VLAN 0 carries a priority only (IEEE 802.1Q, 9.6).
        tags = Tags { outer: tags.inner, inner: word & eth::VLAN_MASK };
    }
    Ok((ethertype, l3, tags))
}

/// Parses an IPv4 packet whose header begins at `l3`.
#[inline(always)]
fn parse_ipv4(head: &[u8], frame_len: usize, l3: usize, tags: Tags) -> Result<Headers, Refusal> {
    let ip = head.get(l3..).unwrap_or(&[]);
    let fixed = ip.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(DropReason::Truncated)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if fixed[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN {
        return Err(DropReason::BadIpHeader.into());
    }
    let header = ip.get(..header_len).ok_or(DropReason::Truncated)?;
    let ip_len = u16::from_be_bytes([fixed[ipv4::TOTAL_LEN], fixed[ipv4::TOTAL_LEN + 1]]);
    let payload_len = usize::from(ip_len).checked_sub(header_len).ok_or(DropReason::BadIpLength)?;
    if l3 + usize::from(ip_len) > frame_len {
        return Err(DropReason::Truncated.into());
    }
    let sum = if header_len == ipv4::HEADER_LEN { csum::sum_header(fixed) } else { csum::sum(header) };
    if sum != 0xffff {
        return Err(DropReason::BadIpChecksum.into());
    }
    let src = u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]);
    let dst = u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
    if no_station(src) || no_station(dst) || src == dst {
        return Err(DropReason::MartianAddress.into());
    }
    if header_len > ipv4::HEADER_LEN {
        check_options(&header[ipv4::HEADER_LEN..])?;
    }
    let fragment = u16::from_be_bytes([fixed[ipv4::FRAGMENT], fixed[ipv4::FRAGMENT + 1]]);
    let mut packet = Packet {
        addresses: Addresses::V4 { src, dst },
        l3: l3 as u16,
        l4: (l3 + header_len) as u16,
        len: ip_len,
        ttl: fixed[ipv4::TTL],
        tos: fixed[ipv4::TOS],
        next: fixed[ipv4::PROTOCOL],
        dont_fragment: fragment & ipv4::DONT_FRAGMENT != 0,
        fragment: None,
    };
    if fragment & ipv4::FRAGMENT_MASK != 0 {
        packet.fragment = Some(Fragment {
            id: u16::from_be_bytes([fixed[ipv4::ID], fixed[ipv4::ID + 1]]).into(),
            offset: (fragment & ipv4::OFFSET_MASK) << 3,
            more: fragment & ipv4::MORE_FRAGMENTS != 0,
            header: 0,
        });
        return Err(Refusal::Piece(packet, tags));
    }
    transport(&ip[header_len..], payload_len, packet, tags)
}

/// Looks through IPv4 options for what no packet should ask of a router: to be sent along a route of its
/// own (RFC 7126, 4.3 and 4.4).
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        match *kind {
            ipv4::OPTION_END => return Ok(()),
            ipv4::OPTION_NOP => options = rest,
            ipv4::OPTION_LOOSE_ROUTE | ipv4::OPTION_STRICT_ROUTE => return Err(DropReason::SourceRoute),
            _ => {
                let len = rest.first().map_or(0, |len| usize::from(*len));
                options = options.get(len..).filter(|_| len >= 2).ok_or(DropReason::BadIpHeader)?;
            }
        }
    }
    Ok(())
}

/// Whether no single station may have this address: this network, loopback, multicast and beyond
/// (RFC 1812, 5.3.7).
#[inline]
fn no_station(address: u32) -> bool {
    let first = address >> 24;
    first == 0 || first == 127 || first >= 224
}

/// Parses what an IP packet carries. `carried` begins at its `l4`, and `len` of its bytes belong to it.
#[inline(always)]
fn transport(carried: &[u8], len: usize, packet: Packet, tags: Tags) -> Result<Headers, Refusal> {
    let (protocol, tcp_flags) = match packet.next {
        ipv4::PROTOCOL_TCP => (Protocol::Tcp, check_tcp(carried, len)?),
        ipv4::PROTOCOL_UDP => (Protocol::Udp, check_udp(carried, len)?),
        _ => return Err(no_transport(carried, len, packet, tags)),
    };
    let ports = read_u32(carried, 0).ok_or(DropReason::Truncated)?;
    Ok(Headers { ip: packet, src_port: (ports >> 16) as u16, dst_port: ports as u16, protocol, tcp_flags })
}

/// The transport header of a packet's first piece, which must be whole: what a filter looks at must not be
/// able to hide in the second (RFC 1858, 3; RFC 3128; RFC 7112, 5).
///
/// # Errors
/// [`DropReason::FragmentTiny`] if it is not; the reasons of a whole packet's otherwise.
pub fn first_piece(head: &[u8], packet: Packet) -> Result<Headers, DropReason> {
    let end = (usize::from(packet.l3) + usize::from(packet.len)).min(head.len());
    let carried = head.get(usize::from(packet.l4)..end).unwrap_or(&[]);
    let least = if packet.next == ipv4::PROTOCOL_TCP { tcp::HEADER_LEN } else { udp::HEADER_LEN };
    if carried.len() < least {
        return Err(DropReason::FragmentTiny);
    }
    let ports = read_u32(carried, 0).ok_or(DropReason::FragmentTiny)?;
    let (protocol, tcp_flags) = match packet.next {
        ipv4::PROTOCOL_TCP => match check_tcp(carried, carried.len()) {
            Err(DropReason::BadTcpHeader) => return Err(DropReason::FragmentTiny),
            flags => (Protocol::Tcp, flags?),
        },
        // The length is that of the whole datagram.
        ipv4::PROTOCOL_UDP => (Protocol::Udp, 0),
        _ => return Err(DropReason::Fragment),
    };
    Ok(Headers { ip: packet, src_port: (ports >> 16) as u16, dst_port: ports as u16, protocol, tcp_flags })
}

/// The flags of a TCP header that begins `transport` and a segment of `len` bytes.
#[inline(always)]
fn check_tcp(transport: &[u8], len: usize) -> Result<u8, DropReason> {
    if len < tcp::HEADER_LEN {
        return Err(DropReason::BadTcpHeader);
    }
    let header = transport.first_chunk::<{ tcp::HEADER_LEN }>().ok_or(DropReason::Truncated)?;
    let header_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    if header_len < tcp::HEADER_LEN || header_len > len {
        return Err(DropReason::BadTcpHeader);
    }
    let flags = header[tcp::FLAGS];
    if tcp::absurd(flags) { Err(DropReason::BadTcpFlags) } else { Ok(flags) }
}

/// Checks a UDP header that begins `transport` and a datagram of `len` bytes; it has no flags.
#[inline(always)]
fn check_udp(transport: &[u8], len: usize) -> Result<u8, DropReason> {
    if len < udp::HEADER_LEN {
        return Err(DropReason::BadUdpLength);
    }
    let header = transport.first_chunk::<{ udp::HEADER_LEN }>().ok_or(DropReason::Truncated)?;
    let datagram_len = read_u16(header, udp::LEN).map_or(0, usize::from);
    if datagram_len < udp::HEADER_LEN || datagram_len > len {
        return Err(DropReason::BadUdpLength);
    }
    Ok(0)
}

/// What a packet is that has neither TCP nor UDP in it.
#[cold]
fn no_transport(carried: &[u8], len: usize, packet: Packet, tags: Tags) -> Refusal {
    if !packet.is_icmp() {
        return Refusal::Other(packet, tags);
    }
    if len < icmp4::HEADER_LEN {
        return DropReason::BadIcmp.into();
    }
    if carried.len() < icmp4::HEADER_LEN {
        return DropReason::Truncated.into();
    }
    Refusal::Icmp(packet, tags)
}

#[cfg(test)]
mod tests;

//! Bytes of a frame → its headers, or why it goes no further.
//!
//! Read once, front to back; every length is checked before its first use. Later stages trust the
//! offsets found here and read no header again.

use config::words::{MacAddr, Protocol};

use crate::csum;
use crate::drops::DropReason;
use crate::wire::{eth, icmp4, ipv4, read_u16, read_u32, tcp, udp};

/// What the later stages know of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address, host order.
    pub src: u32,
    /// Destination address, host order.
    pub dst: u32,
    /// Offset of the IPv4 header from the frame's first byte.
    pub l3: u16,
    /// Offset of the payload from the frame's first byte.
    pub l4: u16,
    /// Length of the packet in bytes, header included. The frame may be longer by its padding.
    pub len: u16,
    /// Time to live, as received.
    pub ttl: u8,
    /// Whether it must not be fragmented.
    pub dont_fragment: bool,
}

/// What the later stages know of an IPv4 packet with TCP or UDP in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The packet.
    pub ip: Ipv4,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
}

/// Why a frame is not for the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is dropped and counted.
    Drop(DropReason),
    /// It is an ARP packet, which the control thread answers.
    Arp,
    /// It is an ICMP packet with a whole header.
    Icmp(Ipv4),
}

impl From<DropReason> for Refusal {
    fn from(why: DropReason) -> Self {
        Self::Drop(why)
    }
}

/// Parses a frame that came in by the port with address `own`.
///
/// `head` is the frame's first segment, `frame_len` the bytes of all segments.
///
/// # Errors
/// [`Refusal`] says what else the frame is.
#[inline]
pub fn parse(head: &[u8], frame_len: usize, own: MacAddr) -> Result<Headers, Refusal> {
    let link = head.first_chunk::<{ eth::HEADER_LEN }>().ok_or(DropReason::Truncated)?;
    let ethertype = u16::from_be_bytes([link[eth::TYPE], link[eth::TYPE + 1]]);
    if link[eth::DST..][..6] != own.0 {
        // Requests are broadcast; everything else that is not for this station is not ours to forward,
        // link-layer broadcasts of IPv4 included (RFC 1812, 5.3.4).
        let arp_to_all = ethertype == eth::TYPE_ARP && link[eth::DST..][..6] == MacAddr::BROADCAST.0;
        return Err(if arp_to_all { Refusal::Arp } else { DropReason::NotOurMac.into() });
    }
    match ethertype {
        eth::TYPE_IPV4 => parse_ipv4(head, frame_len, eth::HEADER_LEN),
        eth::TYPE_ARP => Err(Refusal::Arp),
        _ => Err(DropReason::UnknownEthertype.into()),
    }
}

/// Parses an IPv4 packet whose header begins at `l3`.
#[inline]
fn parse_ipv4(head: &[u8], frame_len: usize, l3: usize) -> Result<Headers, Refusal> {
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
    let fragment = u16::from_be_bytes([fixed[ipv4::FRAGMENT], fixed[ipv4::FRAGMENT + 1]]);
    if fragment & ipv4::FRAGMENT_MASK != 0 {
        return Err(DropReason::Fragment.into());
    }
    let packet = Ipv4 {
        src,
        dst,
        l3: l3 as u16,
        l4: (l3 + header_len) as u16,
        len: ip_len,
        ttl: fixed[ipv4::TTL],
        dont_fragment: fragment & ipv4::DONT_FRAGMENT != 0,
    };
    let transport = &ip[header_len..];
    let (protocol, tcp_flags) = match fixed[ipv4::PROTOCOL] {
        ipv4::PROTOCOL_TCP => (Protocol::Tcp, check_tcp(transport, payload_len)?),
        ipv4::PROTOCOL_UDP => (Protocol::Udp, check_udp(transport, payload_len)?),
        ipv4::PROTOCOL_ICMP => return Err(check_icmp(transport, payload_len, packet)),
        _ => return Err(DropReason::UnknownProtocol.into()),
    };
    let ports = read_u32(transport, 0).ok_or(DropReason::Truncated)?;
    Ok(Headers { ip: packet, src_port: (ports >> 16) as u16, dst_port: ports as u16, protocol, tcp_flags })
}

/// Whether no single station may have this address: this network, loopback, multicast and beyond
/// (RFC 1812, 5.3.7).
#[inline]
fn no_station(address: u32) -> bool {
    let first = address >> 24;
    first == 0 || first == 127 || first >= 224
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

/// An ICMP packet, if its header is whole.
fn check_icmp(transport: &[u8], len: usize, packet: Ipv4) -> Refusal {
    if len < icmp4::HEADER_LEN {
        return DropReason::BadIcmp.into();
    }
    if transport.len() < icmp4::HEADER_LEN { DropReason::Truncated.into() } else { Refusal::Icmp(packet) }
}

//! ICMP packets that are answered, made, or translated (RFC 792, RFC 1812 section 4.3, RFC 5508).

use super::nat::Endpoint;
use super::write_link;
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::parse::Ipv4;
use crate::wire::{eth, icmp4, ipv4, read_u16, read_u32, tcp, udp, write_u16, write_u32};

/// TTL of packets that begin here (RFC 1700, page 64).
const TTL: u8 = 64;
/// Type of service of ICMP errors: precedence 6, internetwork control (RFC 1812, 4.3.2.5).
const ERROR_TOS: u8 = 0xc0;
/// Longest ICMP error, in bytes, IPv4 header included (RFC 1812, 4.3.2.3).
const ERROR_LEN: usize = 576;
/// Bytes put before the packet that an error quotes.
const ERROR_OVERHEAD: usize = ipv4::HEADER_LEN + icmp4::HEADER_LEN;

/// Makes an echo request its own reply.
pub fn echo_reply(head: &mut [u8], packet: &Ipv4, link: &[u8; eth::HEADER_LEN]) {
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    write_u32(head, l3 + ipv4::SRC, packet.dst);
    write_u32(head, l3 + ipv4::DST, packet.src);
    // Addresses that change places leave the sum as it is.
    let ttl = u16::from_be_bytes([TTL, ipv4::PROTOCOL_ICMP]);
    change_word(head, l3 + ipv4::TTL, ttl, l3 + ipv4::CHECKSUM);
    change_word(head, l4 + icmp4::TYPE, u16::from_be_bytes([icmp4::ECHO_REPLY, 0]), l4 + icmp4::CHECKSUM);
    // Only a message of nothing but zeros has the sum +0, whose checksum is not 0: the equation cannot tell it
    // from -0 (RFC 1624, 3).
    if head.get(l4..).is_some_and(|message| message.iter().all(|byte| *byte == 0)) {
        write_u16(head, l4 + icmp4::CHECKSUM, 0xffff);
    }
    write_link(head, l3, link);
}

/// Replaces a 16-bit field and repairs the checksum that covers it.
fn change_word(bytes: &mut [u8], offset: usize, new: u16, checksum: usize) {
    let delta = Delta::default().word(read_u16(bytes, offset).unwrap_or_default(), new);
    write_u16(bytes, offset, new);
    let old = read_u16(bytes, checksum).unwrap_or_default();
    write_u16(bytes, checksum, delta.apply(old));
}

/// An ICMP error to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// MTU of the next hop, in bytes, where the code asks for it (RFC 1191, 4); else 0.
    pub mtu: u16,
    /// Who says so, host order.
    pub src: u32,
}

/// Makes a packet that goes no further into the ICMP error that tells its sender why. As much of the packet
/// is quoted as fits into 576 bytes and lies in the first segment.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room before the packet; it is unchanged then.
pub fn error<F: Frame>(
    frame: &mut F,
    packet: &Ipv4,
    error: &Error,
    link: &[u8; eth::HEADER_LEN],
) -> Result<(), DropReason> {
    let l3 = usize::from(packet.l3);
    let in_head = frame.head().len().saturating_sub(l3);
    let quoted = usize::from(packet.len).min(in_head).min(ERROR_LEN - ERROR_OVERHEAD);
    if !frame.grow_front(ERROR_OVERHEAD) {
        return Err(DropReason::NoHeadroom);
    }
    frame.truncate(l3 + ERROR_OVERHEAD + quoted);
    let head = frame.head_mut();
    let header = ipv4::NewHeader {
        tos: ERROR_TOS,
        // At most `ERROR_LEN`.
        total_len: (ERROR_OVERHEAD + quoted) as u16,
        id: 0,
        dont_fragment: true,
        ttl: TTL,
        protocol: ipv4::PROTOCOL_ICMP,
        src: error.src,
        dst: packet.src,
    };
    if let Some(place) = head.get_mut(l3..l3 + ipv4::HEADER_LEN) {
        place.copy_from_slice(&header.bytes());
    }
    let l4 = l3 + ipv4::HEADER_LEN;
    write_u16(head, l4 + icmp4::TYPE, u16::from_be_bytes([error.kind, error.code]));
    write_u16(head, l4 + icmp4::CHECKSUM, 0);
    write_u32(head, l4 + icmp4::REST, u32::from(error.mtu));
    let checksum = !csum::sum(head.get(l4..).unwrap_or(&[]));
    write_u16(head, l4 + icmp4::CHECKSUM, checksum);
    write_link(head, l3, link);
    Ok(())
}

/// The packet that an ICMP error quotes, as far as it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source, with its port.
    pub src: Endpoint,
    /// Destination, with its port.
    pub dst: Endpoint,
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of its IPv4 header from the frame's first byte.
    pub l3: usize,
    /// Offset of its transport header from the frame's first byte.
    pub l4: usize,
    /// Offset of the end of the ICMP packet from the frame's first byte.
    pub end: usize,
}

impl Quoted {
    /// Reads what an ICMP error quotes: an IPv4 header and at least the eight bytes behind it (RFC 792).
    pub fn read(head: &[u8], packet: &Ipv4) -> Option<Self> {
        let end = head.len().min(usize::from(packet.l3) + usize::from(packet.len));
        let l3 = usize::from(packet.l4) + icmp4::HEADER_LEN;
        let quote = head.get(l3..end)?;
        let fixed = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let fragment = u16::from_be_bytes([fixed[ipv4::FRAGMENT], fixed[ipv4::FRAGMENT + 1]]);
        // Only the first piece of a packet has ports; the flag for more of them does not matter.
        if fixed[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || fragment & 0x1fff != 0 {
            return None;
        }
        let ports = quote.get(header_len..)?.first_chunk::<8>()?;
        let address = |offset: usize| read_u32(fixed, offset);
        Some(Self {
            src: Endpoint { address: address(ipv4::SRC)?, port: u16::from_be_bytes([ports[0], ports[1]]) },
            dst: Endpoint { address: address(ipv4::DST)?, port: u16::from_be_bytes([ports[2], ports[3]]) },
            protocol: fixed[ipv4::PROTOCOL],
            l3,
            l4: l3 + header_len,
            end,
        })
    }
}

/// Which end of the quoted packet is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
}

/// Replaces one end of the packet that an ICMP error quotes, and repairs every checksum that covers it: that
/// of the quoted header, that of the quoted transport header as far as it is there, and the error's own.
pub fn translate_quote(head: &mut [u8], packet: &Ipv4, quoted: &Quoted, end: End, new: Endpoint) {
    let (old, address_at, port_at) = match end {
        End::Source => (quoted.src, ipv4::SRC, tcp::SRC_PORT),
        End::Destination => (quoted.dst, ipv4::DST, tcp::DST_PORT),
    };
    write_u32(head, quoted.l3 + address_at, new.address);
    write_u16(head, quoted.l4 + port_at, new.port);
    let address = Delta::default().long(old.address, new.address);
    let transport = address.word(old.port, new.port);
    let mut whole = transport;
    let mut repair = |checksum_at: usize, change: Delta, none: Option<u16>| {
        // A quote of eight bytes has no TCP checksum.
        let Some(old) = head.get(..quoted.end).and_then(|quote| read_u16(quote, checksum_at)) else { return };
        if Some(old) == none {
            return;
        }
        let new = match change.apply(old) {
            0 if none.is_some() => 0xffff,
            other => other,
        };
        write_u16(head, checksum_at, new);
        whole = whole.word(old, new);
    };
    repair(quoted.l3 + ipv4::CHECKSUM, address, None);
    match quoted.protocol {
        // A UDP checksum of 0 is none, and a computed 0 is sent as its other form (RFC 768).
        ipv4::PROTOCOL_UDP => repair(quoted.l4 + udp::CHECKSUM, transport, Some(0)),
        _ => repair(quoted.l4 + tcp::CHECKSUM, transport, None),
    }
    let checksum_at = usize::from(packet.l4) + icmp4::CHECKSUM;
    let old = read_u16(head, checksum_at).unwrap_or_default();
    write_u16(head, checksum_at, whole.apply(old));
}

/// Sets one address of the packet that carries the error, and takes a hop off its TTL.
pub fn readdress(
    head: &mut [u8],
    packet: &Ipv4,
    src: Option<u32>,
    dst: Option<u32>,
    link: &[u8; eth::HEADER_LEN],
) {
    let l3 = usize::from(packet.l3);
    let mut addresses = Delta::default();
    for (offset, old, new) in [(ipv4::SRC, packet.src, src), (ipv4::DST, packet.dst, dst)] {
        if let Some(new) = new {
            write_u32(head, l3 + offset, new);
            addresses = addresses.long(old, new);
        }
    }
    super::finish_ipv4(head, packet, addresses);
    write_link(head, l3, link);
}

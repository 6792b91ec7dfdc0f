//! ICMP errors that others send about packets of our flows: what they quote, and how they are made right for
//! the end of the flow that they go to (RFC 5508, 4.2; RFC 2003, 4; RFC 2473, 8).

use std::net::{IpAddr, SocketAddr};

use super::answer::{Cause, tell};
use super::nat::{readdress_ipv4, readdress_ipv6};
use super::put_link;
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Endpoint, Packet};
use crate::wire::eth::LinkHeader;
use crate::wire::{
    eth, gre, gue, icmp4, icmp6, ipv4, ipv6, read_u16, read_u32, read_u128, tcp, udp, write, write_u16,
};

/// Extension headers of a quoted packet that are read at most.
const MAX_EXTENSIONS: usize = 8;

/// A packet that an ICMP error quotes, as far as it is needed. Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source; its port is that of TCP or UDP, the identifier of an echo request, or 0.
    pub src: Endpoint,
    /// Destination; its port is that of TCP or UDP, or 0.
    pub dst: Endpoint,
    /// Protocol number of what is at `l4`.
    pub protocol: u8,
    /// Identification, where it is the first piece of a fragmented packet.
    pub piece_of: Option<u32>,
    /// Offset of its IP header.
    pub l3: usize,
    /// Offset of its transport header.
    pub l4: usize,
    /// Offset of the end of the ICMP message.
    pub end: usize,
}

impl Quoted {
    /// Reads what an ICMP error quotes: the header of an IP packet of its own version and, of TCP or UDP, at
    /// least the eight bytes behind it (RFC 792). Later pieces of a packet do not say what flow they are of.
    pub fn read(head: &[u8], packet: &Packet) -> Option<Self> {
        let end = head.len().min(usize::from(packet.l3) + usize::from(packet.len));
        // ICMPv6 headers are as long.
        let quoted = Self::read_at(head, usize::from(packet.l4) + icmp4::HEADER_LEN, end)?;
        (quoted.src.is_ipv4() == packet.addresses.src().is_ipv4()).then_some(quoted)
    }

    /// Whether it carries ICMP, of its IP version.
    pub fn is_icmp(&self) -> bool {
        self.protocol == if self.src.is_ipv4() { ipv4::PROTOCOL_ICMP } else { ipv6::NEXT_ICMP }
    }

    /// The packet in this one, if this one is of a tunnel such as ours: IP in IP, GRE, or GUE.
    pub fn inner(&self, head: &[u8]) -> Option<Self> {
        let carried = head.get(self.l4..self.end)?;
        let shim_len = match self.protocol {
            ipv4::PROTOCOL_IPIP | ipv4::PROTOCOL_IPV6 => 0,
            ipv4::PROTOCOL_GRE => gre_header_len(carried)?,
            ipv4::PROTOCOL_UDP => gue_header_len(carried)?,
            _ => return None,
        };
        Self::read_at(head, self.l4 + shim_len, self.end)
    }

    fn read_at(head: &[u8], l3: usize, end: usize) -> Option<Self> {
        let quote = head.get(l3..end)?;
        let (src, dst): (IpAddr, IpAddr);
        let transport = match quote.first()? >> 4 {
            4 => {
                let address = |at| read_u32(quote, at).map(u32::to_be_bytes);
                (src, dst) = (address(ipv4::SRC)?.into(), address(ipv4::DST)?.into());
                transport_v4(quote)?
            }
            6 => {
                let address = |at| read_u128(quote, at).map(u128::to_be_bytes);
                (src, dst) = (address(ipv6::SRC)?.into(), address(ipv6::DST)?.into());
                transport_v6(quote)?
            }
            _ => return None,
        };
        let (src_port, dst_port) = match transport.protocol {
            ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP => {
                let ports = quote.get(transport.at..)?.first_chunk::<8>()?;
                (read_u16(ports, tcp::SRC_PORT)?, read_u16(ports, tcp::DST_PORT)?)
            }
            _ => (echo_identifier(src, &transport, quote).unwrap_or(0), 0),
        };
        Some(Self {
            src: SocketAddr::new(src, src_port),
            dst: SocketAddr::new(dst, dst_port),
            protocol: transport.protocol,
            piece_of: transport.piece_of,
            l3,
            l4: l3 + transport.at,
            end,
        })
    }
}

/// What an IP packet carries; offsets count from its first byte.
struct Transport {
    protocol: u8,
    at: usize,
    piece_of: Option<u32>,
}

/// What an IPv4 packet carries, unless it is a later piece.
fn transport_v4(quote: &[u8]) -> Option<Transport> {
    let fixed = quote.first_chunk::<{ ipv4::HEADER_LEN }>()?;
    let at = usize::from(fixed[0] & 0x0f) * 4;
    let place = read_u16(fixed, ipv4::FRAGMENT)?;
    if at < ipv4::HEADER_LEN || place & ipv4::OFFSET_MASK != 0 {
        return None;
    }
    let id = read_u16(fixed, ipv4::ID)?.into();
    let piece_of = (place & ipv4::MORE_FRAGMENTS != 0).then_some(id);
    Some(Transport { protocol: fixed[ipv4::PROTOCOL], at, piece_of })
}

/// The same of an IPv6 packet, behind its extension headers.
fn transport_v6(quote: &[u8]) -> Option<Transport> {
    let mut found = Transport { protocol: *quote.get(ipv6::NEXT)?, at: ipv6::HEADER_LEN, piece_of: None };
    for _ in 0..=MAX_EXTENSIONS {
        let at = found.at;
        let len = || quote.get(at + ipv6::EXTENSION_LEN).copied().map(usize::from);
        let header_len = match found.protocol {
            ipv6::NEXT_HOP_BY_HOP | ipv6::NEXT_ROUTING | ipv6::NEXT_DESTINATION | ipv6::NEXT_MOBILITY => {
                8 + 8 * len()?
            }
            ipv6::NEXT_AUTHENTICATION => 8 + 4 * len()?,
            ipv6::NEXT_FRAGMENT => {
                let place = read_u16(quote, at + ipv6::FRAGMENT_OFFSET)?;
                if place & ipv6::FRAGMENT_OFFSET_MASK != 0 {
                    return None;
                }
                let id = read_u32(quote, at + ipv6::FRAGMENT_ID)?;
                // A packet in one piece is a whole packet (RFC 6946).
                found.piece_of = (place & ipv6::MORE_FRAGMENTS != 0).then_some(id);
                ipv6::FRAGMENT_LEN
            }
            _ => return Some(found),
        };
        found.protocol = *quote.get(at)?;
        found.at += header_len;
    }
    None
}

/// The identifier of a quoted echo request.
fn echo_identifier(src: IpAddr, transport: &Transport, quote: &[u8]) -> Option<u16> {
    let (protocol, request) = match src {
        IpAddr::V4(_) => (ipv4::PROTOCOL_ICMP, icmp4::ECHO_REQUEST),
        IpAddr::V6(_) => (ipv6::NEXT_ICMP, icmp6::ECHO_REQUEST),
    };
    let message = quote.get(transport.at..)?;
    let is_one = transport.protocol == protocol && message.first() == Some(&request);
    is_one.then(|| read_u16(message, icmp4::REST))?
}

/// Length of a GRE header such as ours.
fn gre_header_len(bytes: &[u8]) -> Option<usize> {
    let flags = read_u16(bytes, 0)?;
    let carries_ip = matches!(read_u16(bytes, gre::PROTOCOL)?, eth::TYPE_IPV4 | eth::TYPE_IPV6);
    let known = carries_ip && flags & gre::UNKNOWN_MASK == 0;
    known.then_some(if flags & gre::CHECKSUM_PRESENT == 0 { gre::HEADER_LEN } else { gre::LONG_HEADER_LEN })
}

/// Length of UDP and GUE headers such as ours.
fn gue_header_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(udp::HEADER_LEN..)?.first_chunk::<{ gue::HEADER_LEN }>()?;
    let known = matches!(header, [0, ipv4::PROTOCOL_IPIP | ipv4::PROTOCOL_IPV6, 0, 0]);
    known.then_some(udp::HEADER_LEN + gue::HEADER_LEN)
}

/// Replaces the ends that are given in the packet that an ICMP error quotes, and repairs every checksum that
/// covers them: that of the quoted header, that of the quoted transport header as far as it is there, and the
/// error's own.
///
/// # Errors
/// [`DropReason::WrongFamily`] if an end is of another IP version than the quoted packet.
pub fn translate(
    head: &mut [u8],
    packet: &Packet,
    quoted: &Quoted,
    src: Option<Endpoint>,
    dst: Option<Endpoint>,
) -> Result<(), DropReason> {
    // Nothing behind the message is touched.
    let Some(message) = head.get_mut(..quoted.end) else { return Ok(()) };
    let mut changes = Delta::default();
    for (old, new, at_v4, at_v6) in
        [(quoted.src, src, ipv4::SRC, ipv6::SRC), (quoted.dst, dst, ipv4::DST, ipv6::DST)]
    {
        match (old.ip(), new.map(|end| end.ip())) {
            (_, None) => {}
            (IpAddr::V4(old), Some(IpAddr::V4(new))) => {
                write(message, quoted.l3 + at_v4, &new.octets());
                changes = changes.long(old.to_bits(), new.to_bits());
            }
            (IpAddr::V6(old), Some(IpAddr::V6(new))) => {
                write(message, quoted.l3 + at_v6, &new.octets());
                changes = changes.wide(old.to_bits(), new.to_bits());
            }
            _ => return Err(DropReason::WrongFamily),
        }
    }
    let mut whole = changes;
    if quoted.src.is_ipv4() {
        whole = mend(message, quoted.l3 + ipv4::CHECKSUM, changes, whole);
    }
    let ports = (src.map(|end| end.port()), dst.map(|end| end.port()));
    whole = replace_ports(message, quoted, ports, changes, whole);
    mend(message, usize::from(packet.l4) + icmp4::CHECKSUM, whole, Delta::default());
    Ok(())
}

/// Replaces the ports that are given of the quoted packet, or the identifier of an echo request, and repairs the transport
/// checksum for them and for `changes` of the addresses. What this adds to checksums is added to `whole`.
pub(super) fn replace_ports(
    message: &mut [u8],
    quoted: &Quoted,
    (src, dst): (Option<u16>, Option<u16>),
    mut changes: Delta,
    mut whole: Delta,
) -> Delta {
    if quoted.is_icmp() {
        return replace_identifier(message, quoted, src, changes, whole);
    }
    if !matches!(quoted.protocol, ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP) {
        return whole;
    }
    for (old, new, at) in [(quoted.src, src, tcp::SRC_PORT), (quoted.dst, dst, tcp::DST_PORT)] {
        let Some(new) = new else { continue };
        write_u16(message, quoted.l4 + at, new);
        changes = changes.word(old.port(), new);
        whole = whole.word(old.port(), new);
    }
    mend_transport(message, quoted, changes, whole)
}

/// The same of the identifier of an echo request, whose checksum covers the addresses in IPv6 only.
fn replace_identifier(
    message: &mut [u8],
    quoted: &Quoted,
    identifier: Option<u16>,
    addresses: Delta,
    whole: Delta,
) -> Delta {
    let changes = if quoted.src.is_ipv4() { Delta::default() } else { addresses };
    let (old, new) = (quoted.src.port(), identifier.unwrap_or(quoted.src.port()));
    write_u16(message, quoted.l4 + icmp4::REST, new);
    mend(message, quoted.l4 + icmp4::CHECKSUM, changes.word(old, new), whole.word(old, new))
}

/// Repairs a checksum for `changes`, and adds its own change to `whole`. Where the quote ends before it, there
/// is nothing to be done.
fn mend(message: &mut [u8], at: usize, changes: Delta, whole: Delta) -> Delta {
    let Some(old) = read_u16(message, at) else { return whole };
    let new = changes.apply(old);
    write_u16(message, at, new);
    whole.word(old, new)
}

fn mend_transport(message: &mut [u8], quoted: &Quoted, changes: Delta, whole: Delta) -> Delta {
    if quoted.protocol == ipv4::PROTOCOL_TCP {
        return mend(message, quoted.l4 + tcp::CHECKSUM, changes, whole);
    }
    let at = quoted.l4 + udp::CHECKSUM;
    match read_u16(message, at) {
        // 0 is none.
        None | Some(0) => whole,
        Some(old) => {
            let new = udp::computed(changes.apply(old));
            write_u16(message, at, new);
            whole.word(old, new)
        }
    }
}

/// Sets the addresses that are given in the packet that carries an ICMP error, and takes a hop off its TTL or
/// hop limit.
///
/// # Errors
/// [`DropReason::WrongFamily`] if an address is of another IP version than the packet;
/// [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
pub fn readdress<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let head = frame.head_mut();
    match packet.addresses {
        Addresses::V4 { src: old_src, dst: old_dst } => {
            let only = |new| if let IpAddr::V4(new) = new { Ok(new) } else { Err(DropReason::WrongFamily) };
            let new = (src.map(only).transpose()?, dst.map(only).transpose()?);
            readdress_ipv4(head, packet.l3, (old_src, old_dst), new);
        }
        Addresses::V6 { src: old_src, dst: old_dst } => {
            let only = |new| if let IpAddr::V6(new) = new { Ok(new) } else { Err(DropReason::WrongFamily) };
            let new = (src.map(only).transpose()?, dst.map(only).transpose()?);
            let changes = readdress_ipv6(head, packet.l3, (old_src, old_dst), new);
            // ICMPv6 covers the addresses by its pseudo header, ICMP does not.
            mend(head, usize::from(packet.l4) + icmp6::CHECKSUM, changes, Delta::default());
        }
    }
    put_link(frame, packet.l3, link)
}

/// Looks at the checksum of an ICMP message that another will be made of: a wrong one must not become right.
///
/// # Errors
/// [`DropReason::BadIcmp`] if it is wrong, [`DropReason::Scattered`] if not all of the message is in the first
/// segment.
pub(super) fn check_sum(head: &[u8], packet: &Packet) -> Result<(), DropReason> {
    let end = usize::from(packet.l3) + usize::from(packet.len);
    let message = head.get(usize::from(packet.l4)..end).ok_or(DropReason::Scattered)?;
    let wrong = match packet.addresses {
        Addresses::V4 { .. } => !csum::sum(message),
        Addresses::V6 { .. } => csum::transport(packet.addresses, ipv6::NEXT_ICMP, message),
    };
    if wrong == 0 { Ok(()) } else { Err(DropReason::BadIcmp) }
}

/// Makes an ICMP error about a packet of a tunnel, `outer`, into one from `src` about the packet in it, `inner`,
/// for the sender of that. The longest packet that passes is told without the outer headers.
///
/// Time exceeded stays so, since the tunnel carries the TTL of the packet in it. Every way of not being reached
/// becomes an unreachable host: ports and protocols of the tunnel are not those that the sender knows.
///
/// # Errors
/// [`DropReason::BadIcmp`] if the sender of the inner packet is not to be told, or the checksum is wrong;
/// [`DropReason::Scattered`] if not all of the error is in the first segment; [`DropReason::WrongFamily`] if
/// `src` is not of the inner packet's IP version; [`DropReason::NoHeadroom`] if the buffer has no room for the
/// headers of the error.
pub fn unwrap_tunnel_error<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    outer: &Quoted,
    inner: &Quoted,
    src: IpAddr,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    check_sum(frame.head(), packet)?;
    let cause = match cause_of(frame.head(), packet).ok_or(DropReason::BadIcmp)? {
        Cause::TooBig { mtu } => Cause::TooBig { mtu: inner_mtu(mtu, outer, inner) },
        other => other,
    };
    let quoted = inner.end.saturating_sub(inner.l3);
    tell(frame, inner.l3, quoted, cause, (src, inner.src.ip()), link)
}

/// The longest packet that may be put into a tunnel whose way takes `mtu` bytes; 0 is not known (RFC 1191, 4).
fn inner_mtu(mtu: u16, outer: &Quoted, inner: &Quoted) -> u16 {
    // At most the 20 or 40 bytes of an IP header, its options or extensions, and 12 behind it.
    let overhead = u16::try_from(inner.l3.saturating_sub(outer.l3)).unwrap_or(u16::MAX);
    match (mtu, inner.src) {
        (mtu, SocketAddr::V6(_)) => mtu.saturating_sub(overhead).max(ipv6::MIN_MTU),
        (0, SocketAddr::V4(_)) => 0,
        (mtu, SocketAddr::V4(_)) => mtu.saturating_sub(overhead).max(ipv4::MIN_MTU),
    }
}

/// What an ICMP error says, if it says that a packet did not get through.
fn cause_of(head: &[u8], packet: &Packet) -> Option<Cause> {
    let message = head.get(usize::from(packet.l4)..)?;
    let kind = (*message.get(icmp4::TYPE)?, *message.get(icmp4::TYPE + 1)?);
    let rest = read_u32(message, icmp4::REST)?;
    match (packet.addresses, kind) {
        (Addresses::V4 { .. }, (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED)) => {
            // The low half of the word.
            Some(Cause::TooBig { mtu: rest as u16 })
        }
        (Addresses::V6 { .. }, (icmp6::PACKET_TOO_BIG, _)) => {
            Some(Cause::TooBig { mtu: u16::try_from(rest).unwrap_or(u16::MAX) })
        }
        // Code 1 is a piece that did not come in time: the others of the packet may have been lost anywhere.
        (Addresses::V4 { .. }, (icmp4::TIME_EXCEEDED, 0))
        | (Addresses::V6 { .. }, (icmp6::TIME_EXCEEDED, 0)) => Some(Cause::TimeExceeded),
        (Addresses::V4 { .. }, (icmp4::UNREACHABLE, _)) | (Addresses::V6 { .. }, (icmp6::UNREACHABLE, _)) => {
            Some(Cause::HostUnreachable)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! Packets made here of packets that go no further: echo replies, ICMP errors, TCP resets. Each goes back to
//! where its packet came from.

use std::net::IpAddr;

use config::words::Protocol;

use super::bare::Bare;
use super::{TTL, make_room, put_link, write_link};
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::eth::LinkHeader;
use crate::wire::{
    icmp4, icmp6, ipv4, ipv6, read_u16, read_u32, tcp, write, write_u16, write_u32, write_u128,
};

/// Type of service of ICMP errors: precedence 6, internetwork control (RFC 1812, 4.3.2.5).
const ERROR_TOS: u8 = 0xc0;
/// Bytes that an ICMP error quotes at most; it has 576 with its headers (RFC 1812, 4.3.2.3).
pub(super) const LONGEST_QUOTE_V4: usize = 576 - ipv4::HEADER_LEN - icmp4::HEADER_LEN;
/// Bytes that an ICMPv6 error quotes at most; it has 1280 with its headers (RFC 4443, 2.4 c).
pub(super) const LONGEST_QUOTE_V6: usize = ipv6::MIN_MTU as usize - ipv6::HEADER_LEN - icmp6::HEADER_LEN;

// ICMP and ICMPv6 headers have the same shape, and are written by the same code.
const _: () = assert!(icmp4::HEADER_LEN == icmp6::HEADER_LEN && icmp4::CHECKSUM == icmp6::CHECKSUM);

/// Makes an echo request its own reply.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
pub fn echo_reply<F: Frame>(frame: &mut F, packet: &Packet, link: &LinkHeader) -> Result<(), DropReason> {
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let head = frame.head_mut();
    // Addresses that change places leave every sum as it is.
    match packet.addresses {
        Addresses::V4 { src, dst } => {
            write_u32(head, l3 + ipv4::SRC, dst);
            write_u32(head, l3 + ipv4::DST, src);
            let ttl = u16::from_be_bytes([TTL, ipv4::PROTOCOL_ICMP]);
            change_word(head, l3 + ipv4::TTL, ttl, l3 + ipv4::CHECKSUM);
            let kind = u16::from_be_bytes([icmp4::ECHO_REPLY, 0]);
            change_word(head, l4 + icmp4::TYPE, kind, l4 + icmp4::CHECKSUM);
            mend_zeros(head, l4);
        }
        Addresses::V6 { src, dst } => {
            write_u128(head, l3 + ipv6::SRC, dst);
            write_u128(head, l3 + ipv6::DST, src);
            write(head, l3 + ipv6::HOP_LIMIT, &[TTL]);
            let kind = u16::from_be_bytes([icmp6::ECHO_REPLY, 0]);
            change_word(head, l4 + icmp6::TYPE, kind, l4 + icmp6::CHECKSUM);
        }
    }
    put_link(frame, packet.l3, link)
}

/// Repairs the checksum of an ICMP message of nothing but zeros: only that has the sum +0, whose checksum is not
/// 0, and the incremental equation cannot tell it from -0 (RFC 1624, 3).
pub(super) fn mend_zeros(head: &mut [u8], l4: usize) {
    if head.get(l4..).is_some_and(|message| message.iter().all(|byte| *byte == 0)) {
        write_u16(head, l4 + icmp4::CHECKSUM, 0xffff);
    }
}

/// Replaces a 16-bit field and repairs the checksum that covers it.
pub(super) fn change_word(bytes: &mut [u8], offset: usize, new: u16, checksum: usize) {
    let delta = Delta::default().word(read_u16(bytes, offset).unwrap_or_default(), new);
    write_u16(bytes, offset, new);
    let old = read_u16(bytes, checksum).unwrap_or_default();
    write_u16(bytes, checksum, delta.apply(old));
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its TTL or hop limit ran out.
    TimeExceeded,
    /// It is too long for its way.
    TooBig {
        /// The longest packet that would pass, in bytes; 0 if that is not known.
        mtu: u16,
    },
    /// Nobody listens there.
    PortUnreachable,
    /// There is no way to its destination.
    HostUnreachable,
}

impl Cause {
    /// Type, code and the word behind the checksum, in ICMP (RFC 792, RFC 1191).
    fn icmp4(self) -> ([u8; 2], u32) {
        match self {
            Self::TimeExceeded => ([icmp4::TIME_EXCEEDED, 0], 0),
            Self::TooBig { mtu } => ([icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED], mtu.into()),
            Self::PortUnreachable => ([icmp4::UNREACHABLE, icmp4::PORT_UNREACHABLE], 0),
            Self::HostUnreachable => ([icmp4::UNREACHABLE, icmp4::HOST_UNREACHABLE], 0),
        }
    }

    /// The same in ICMPv6 (RFC 4443, 3).
    fn icmp6(self) -> ([u8; 2], u32) {
        match self {
            Self::TimeExceeded => ([icmp6::TIME_EXCEEDED, 0], 0),
            Self::TooBig { mtu } => ([icmp6::PACKET_TOO_BIG, 0], mtu.into()),
            Self::PortUnreachable => ([icmp6::UNREACHABLE, icmp6::PORT_UNREACHABLE], 0),
            Self::HostUnreachable => ([icmp6::UNREACHABLE, icmp6::ADDRESS_UNREACHABLE], 0),
        }
    }
}

/// Whether a packet's sender may be told by an ICMP error that it goes no further: the packet is no later
/// piece, no ICMP error itself, and between two single stations (RFC 1812, 4.3.2.7; RFC 4443, 2.4 e).
pub fn may_be_told(head: &[u8], packet: &Packet) -> bool {
    let kind = head.get(usize::from(packet.l4)).copied();
    let (src, dst) = (packet.addresses.src(), packet.addresses.dst());
    let is_error = match packet.next {
        ipv4::PROTOCOL_ICMP => !matches!(kind, Some(icmp4::ECHO_REPLY | icmp4::ECHO_REQUEST)),
        ipv6::NEXT_ICMP => kind.is_none_or(|kind| kind < icmp6::ECHO_REQUEST || kind == icmp6::REDIRECT),
        _ => false,
    };
    packet.fragment.is_none_or(|fragment| fragment.offset == 0)
        && !is_error
        && is_station(src)
        && is_station(dst)
}

fn is_station(address: IpAddr) -> bool {
    let to_all = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !to_all
}

/// Makes a packet that goes no further into the ICMP error from `src` that tells its sender why. As much of
/// the packet is quoted as the longest error takes and lies in the first segment.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room before the packet, [`DropReason::WrongFamily`] if `src`
/// is of the other IP version; the frame is unchanged then.
pub fn error<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    cause: Cause,
    src: IpAddr,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let l3 = usize::from(packet.l3);
    let in_head = frame.head().len().saturating_sub(l3);
    let quoted = usize::from(packet.len).min(in_head);
    tell(frame, l3, quoted, cause, (src, packet.addresses.src()), link)
}

/// Makes a frame into the ICMP error from `src` to `dst` that quotes `quoted` bytes at `l3`, or as many of them
/// as the longest error takes.
pub(super) fn tell<F: Frame>(
    frame: &mut F,
    l3: usize,
    quoted: usize,
    cause: Cause,
    ends: (IpAddr, IpAddr),
    link: &LinkHeader,
) -> Result<(), DropReason> {
    match ends {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let message_len = icmp4::HEADER_LEN + quoted.min(LONGEST_QUOTE_V4);
            let header = ipv4::NewHeader {
                tos: ERROR_TOS,
                // At most 576.
                total_len: (ipv4::HEADER_LEN + message_len) as u16,
                id: 0,
                fragment: ipv4::DONT_FRAGMENT,
                ttl: TTL,
                protocol: ipv4::PROTOCOL_ICMP,
                src: src.to_bits(),
                dst: dst.to_bits(),
            };
            let message = put_error(frame, l3, message_len, &header.bytes(), cause.icmp4(), link)?;
            let checksum = !csum::sum(message);
            write_u16(message, icmp4::CHECKSUM, checksum);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let message_len = icmp6::HEADER_LEN + quoted.min(LONGEST_QUOTE_V6);
            let (src, dst) = (src.to_bits(), dst.to_bits());
            let header = ipv6::NewHeader {
                traffic_class: ERROR_TOS,
                flow_label: 0,
                // At most 1240.
                payload_len: message_len as u16,
                next: ipv6::NEXT_ICMP,
                hop_limit: TTL,
                src,
                dst,
            };
            let message = put_error(frame, l3, message_len, &header.bytes(), cause.icmp6(), link)?;
            let checksum = csum::transport(Addresses::V6 { src, dst }, ipv6::NEXT_ICMP, message);
            write_u16(message, icmp6::CHECKSUM, checksum);
        }
        _ => return Err(DropReason::WrongFamily),
    }
    Ok(())
}

/// Puts Ethernet, IP and ICMP headers before what is quoted from `l3` on. The message of `message_len` bytes is
/// returned; its checksum is 0.
fn put_error<'a, F: Frame, const N: usize>(
    frame: &'a mut F,
    l3: usize,
    message_len: usize,
    header: &[u8; N],
    (kind, rest): ([u8; 2], u32),
    link: &LinkHeader,
) -> Result<&'a mut [u8], DropReason> {
    let at = link.bytes().len();
    make_room(frame, l3, at + N + icmp4::HEADER_LEN)?;
    frame.truncate(at + N + message_len);
    let head = frame.head_mut();
    write_link(head, link);
    write(head, at, header);
    let message = head.get_mut(at + N..).unwrap_or(&mut []);
    write(message, icmp4::TYPE, &kind);
    write_u16(message, icmp4::CHECKSUM, 0);
    write_u32(message, icmp4::REST, rest);
    Ok(message)
}

/// Makes a TCP segment into the reset that answers it (RFC 9293, 3.10.7.1).
///
/// # Errors
/// [`DropReason::NoFlow`] if it is a reset itself, which is never answered, or but a piece of a segment, whose
/// length is not known; [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
pub fn reset<F: Frame>(frame: &mut F, headers: &Headers, link: &LinkHeader) -> Result<(), DropReason> {
    let answerable = headers.protocol == Protocol::Tcp && headers.tcp_flags & tcp::RST == 0;
    if !answerable || headers.ip.fragment.is_some() {
        return Err(DropReason::NoFlow);
    }
    let segment = reset_segment(frame.head(), headers).ok_or(DropReason::Truncated)?;
    segment.replace(frame, usize::from(headers.ip.l3), link)
}

/// The segment that resets what the segment in `head` asks for; `None` if that has no whole header.
fn reset_segment(head: &[u8], headers: &Headers) -> Option<Bare> {
    let Headers { ip, src_port, dst_port, tcp_flags, .. } = headers;
    let asked = head.get(usize::from(ip.l4)..)?.first_chunk::<{ tcp::HEADER_LEN }>()?;
    let (sequence, acknowledgment, flags) = if tcp_flags & tcp::ACK != 0 {
        (read_u32(asked, tcp::ACKNOWLEDGMENT)?, 0, tcp::RST)
    } else {
        (0, read_u32(asked, tcp::SEQUENCE)?.wrapping_add(sequence_len(asked, headers)?), tcp::RST | tcp::ACK)
    };
    Some(Bare {
        addresses: ip.addresses.swapped(),
        src_port: *dst_port,
        dst_port: *src_port,
        sequence,
        acknowledgment,
        flags,
    })
}

/// The segment in `head`, which goes no further, as the resets that tell the end it was for that its sender is gone:
/// one for an end that does not have what it carries, and one for an end that does, since it came before. What carries
/// nothing may be a probe of an idle connection, which begins one before what its receiver awaits (RFC 9293, 3.8.4).
/// None if it says nothing to that end yet, or all by itself.
pub fn resets_for_other(head: &[u8], headers: &Headers) -> [Option<Bare>; 2] {
    let Headers { ip, src_port, dst_port, tcp_flags, .. } = *headers;
    // An opening's other end is not opened.
    let tells = tcp_flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK;
    if !tells || headers.protocol != Protocol::Tcp || ip.fragment.is_some() {
        return [None; 2];
    }
    let segment = head.get(usize::from(ip.l4)..).and_then(|segment| segment.first_chunk());
    let numbers = |segment: &[u8; tcp::HEADER_LEN]| {
        let number = |at| read_u32(segment, at);
        Some((number(tcp::SEQUENCE)?, number(tcp::ACKNOWLEDGMENT)?, sequence_len(segment, headers)?))
    };
    let Some((first, acknowledgment, len)) = segment.and_then(numbers) else { return [None; 2] };
    let flags = tcp::RST | tcp::ACK;
    let reset =
        |sequence| Bare { addresses: ip.addresses, src_port, dst_port, sequence, acknowledgment, flags };
    [Some(reset(first)), Some(reset(first.wrapping_add(len.max(1))))]
}

/// Places in the sequence that a segment with this header takes; SYN and FIN have some, too. `None` if its lengths
/// make no sense.
fn sequence_len(header: &[u8; tcp::HEADER_LEN], headers: &Headers) -> Option<u32> {
    let Headers { ip, tcp_flags, .. } = headers;
    let header_len = u16::from(header[tcp::DATA_OFFSET] >> 4) * 4;
    let data_len = ip.len.checked_sub(ip.l4.checked_sub(ip.l3)?)?.checked_sub(header_len)?;
    Some(u32::from(data_len) + (tcp_flags & (tcp::SYN | tcp::FIN)).count_ones())
}

#[cfg(test)]
mod tests;

//! The shape that nearly every packet has, read at a glance: untagged, for us, IPv4 without options, TCP or UDP
//! in one piece, more than one hop to live. All fields stand at fixed places then, so one length is checked and
//! one condition decides.
//!
//! [`parse`](super::parse) is the slow twin: what is plain here has the same headers there.

use config::words::{MacAddr, Protocol};

use crate::csum;
use crate::wire::{eth, ipv4, tcp, udp};

/// Offset of the IP header.
pub const L3: usize = eth::HEADER_LEN;
/// Offset of the transport header.
pub const L4: usize = L3 + ipv4::HEADER_LEN;
/// Bytes that the first segment of a plain packet's frame has at least; those of TCP have more.
pub const HEAD: usize = L4 + udp::HEADER_LEN;

/// The headers of a plain packet; numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of the packet, IP header included.
    pub len: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
}

/// The first eight bytes of an IP header, the first one lowest, and those bits of them that tell: version 4, five
/// words of header, and neither a fragment's offset nor more fragments.
const WHOLE_WITHOUT_OPTIONS: u64 = 0x45;
const WHOLE_MASK: u64 = 0xff3f_0000_0000_00ff;

/// Reads a frame that came in by the port with address `own`; arguments are those of [`parse`](super::parse).
/// `None` if it is not plain, or not right. Its addresses may be any, also such as no packet should have: no
/// flow has them.
#[inline(always)]
pub fn glance(head: &[u8], frame_len: usize, own: MacAddr) -> Option<Plain> {
    let (whole, head) = (head, head.first_chunk::<HEAD>()?);
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let wide = |at: usize| u64::from(long(at)) | u64::from(long(at + 4)) << 32;
    // Read in the order of little-endian machines; sums of checksums are the same in either.
    let (first, second, dst) = (wide(L3), wide(L3 + 8), long(L3 + ipv4::DST));
    let ttl = second as u8;
    if head[..6] != own.0
        || word(eth::TYPE) != eth::TYPE_IPV4
        || first & WHOLE_MASK != WHOLE_WITHOUT_OPTIONS
        || ttl <= 1
        || csum::sum_of(first, second, dst) != 0xffff
    {
        return None;
    }
    let len = (first >> 16) as u16;
    let len = len.swap_bytes();
    let carried = usize::from(len).checked_sub(ipv4::HEADER_LEN)?;
    let (protocol, tcp_flags, whole) = match (second >> 8) as u8 {
        ipv4::PROTOCOL_TCP => {
            let header = whole[L4..].first_chunk::<{ tcp::HEADER_LEN }>()?;
            let header_len = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
            let flags = header[tcp::FLAGS];
            let whole = header_len >= tcp::HEADER_LEN && header_len <= carried;
            (Protocol::Tcp, flags, whole && !tcp::absurd(flags))
        }
        ipv4::PROTOCOL_UDP => {
            let datagram = usize::from(word(L4 + udp::LEN));
            (Protocol::Udp, 0, datagram >= udp::HEADER_LEN && datagram <= carried)
        }
        _ => return None,
    };
    let (src, dst) = (((second >> 32) as u32).swap_bytes(), dst.swap_bytes());
    let (src_port, dst_port) = (word(L4 + tcp::SRC_PORT), word(L4 + tcp::DST_PORT));
    let whole = whole && L3 + usize::from(len) <= frame_len;
    whole.then_some(Plain { src, dst, src_port, dst_port, len, protocol, tcp_flags })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::DropReason;
    use crate::packet::Addresses;
    use crate::parse::parse;
    use crate::testing::{CLIENT, VIP, mac, packet};
    use crate::wire::eth::Tags;

    /// What `parse` makes of a frame that it takes, if that is plain.
    fn slowly(head: &[u8], len: usize) -> Option<Plain> {
        let (headers, tags) = parse(head, len, mac(254)).ok()?;
        let Addresses::V4 { src, dst } = headers.ip.addresses else { return None };
        let plain = tags == Tags::default() && usize::from(headers.ip.l4) == L4 && headers.ip.ttl > 1;
        plain.then_some(Plain {
            src,
            dst,
            src_port: headers.src_port,
            dst_port: headers.dst_port,
            len: headers.ip.len,
            protocol: headers.protocol,
            tcp_flags: headers.tcp_flags,
        })
    }

    /// Each bit of the headers turned, with the header checksum as it was and mended.
    #[test]
    fn a_glance_sees_what_parsing_does() {
        let request = packet((CLIENT, 40000), (VIP, 80));
        for packet in [request.clone(), request.udp()] {
            let mut whole = packet.bytes();
            whole.resize(60, 0);
            assert!(glance(&whole, whole.len(), mac(254)).is_some());
            for (bit, mended) in (0..54 * 8).flat_map(|bit| [(bit, false), (bit, true)]) {
                let mut frame = whole.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                if mended {
                    frame[24..26].fill(0);
                    let sum = !csum::sum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                if parse(&frame, frame.len(), mac(254)) == Err(DropReason::MartianAddress.into()) {
                    continue;
                }
                let seen = glance(&frame, frame.len(), mac(254));
                assert_eq!(seen, slowly(&frame, frame.len()), "{packet:?}, bit {bit}");
            }
            for len in 0..whole.len() {
                assert_eq!(glance(&whole[..len], len, mac(254)), slowly(&whole[..len], len), "{len} bytes");
                assert_eq!(glance(&whole[..len], whole.len(), mac(254)), slowly(&whole[..len], whole.len()));
            }
        }
    }
}

//! The shape that nearly every packet has, read at a glance: untagged, for us, an IP header without options or
//! extensions, TCP or UDP in one piece, more than one hop to live. All fields stand at fixed places then, so one
//! length is checked and few conditions decide.
//!
//! [`parse`](super::parse) is the slow twin: what is plain here has the same headers there.

pub(crate) mod eight;

use config::words::{MacAddr, Protocol};

use super::{no_station, version6};
use crate::csum;
use crate::packet::{Addresses, Headers, Packet, Version};
use crate::wire::{eth, ipv4, ipv6, tcp, udp};

/// Offset of the IP header.
pub const L3: usize = eth::HEADER_LEN;

/// The headers of a plain packet; numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
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

/// What decides of a plain packet; all else is read again where it is needed, for then its headers are at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Length of the packet, IP header included.
    pub len: u16,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
}

impl Brief {
    /// That of a packet.
    #[inline(always)]
    pub fn of<A>(plain: &Plain<A>) -> Self {
        Self { len: plain.len, tcp_flags: plain.tcp_flags }
    }

    /// TCP or UDP. No plain TCP packet is without flags.
    #[inline(always)]
    pub fn protocol(self) -> Protocol {
        if self.tcp_flags == 0 { Protocol::Udp } else { Protocol::Tcp }
    }

    /// All of the packet, whose frame begins with `head`; `None` if that is too short.
    #[inline(always)]
    pub fn plain<A: Whole>(&self, head: &[u8]) -> Option<Plain<A>> {
        let (Self { len, tcp_flags }, protocol) = (*self, self.protocol());
        let (ip, transport) = head.get(L3..)?.split_at_checked(A::HEADER_LEN)?;
        let ports = u32::from_be_bytes(*transport.first_chunk()?);
        let ((src, dst), src_port, dst_port) = (A::addresses(ip)?, (ports >> 16) as u16, ports as u16);
        Some(Plain { src, dst, src_port, dst_port, len, protocol, tcp_flags })
    }
}

/// What is read of a packet's IP header only where it is needed.
pub trait Whole: Version {
    /// Source and destination of a packet that `ip` begins with.
    fn addresses(ip: &[u8]) -> Option<(Self, Self)>;

    /// The IP packet of a frame that begins with `head` and is plain.
    fn packet(plain: &Plain<Self>, head: &[u8]) -> Option<Packet>;

    /// Whether no packet comes or goes between these addresses.
    fn is_martian(plain: &Plain<Self>) -> bool;
}

impl Whole for u32 {
    #[inline(always)]
    fn addresses(ip: &[u8]) -> Option<(u32, u32)> {
        let header: &[u8; ipv4::HEADER_LEN] = ip.first_chunk()?;
        Some((long(header, ipv4::SRC).swap_bytes(), long(header, ipv4::DST).swap_bytes()))
    }

    #[inline]
    fn packet(plain: &Plain<u32>, head: &[u8]) -> Option<Packet> {
        let header: &[u8; ipv4::HEADER_LEN] = head.get(L3..)?.first_chunk()?;
        Some(Packet {
            addresses: Addresses::V4 { src: plain.src, dst: plain.dst },
            l3: L3 as u16,
            l4: (L3 + ipv4::HEADER_LEN) as u16,
            len: plain.len,
            ttl: header[ipv4::TTL],
            tos: header[ipv4::TOS],
            next: header[ipv4::PROTOCOL],
            dont_fragment: header[ipv4::FRAGMENT] & (ipv4::DONT_FRAGMENT >> 8) as u8 != 0,
            fragment: None,
        })
    }

    #[inline]
    fn is_martian(plain: &Plain<u32>) -> bool {
        no_station(plain.src) || no_station(plain.dst) || plain.src == plain.dst
    }
}

impl Whole for u128 {
    #[inline(always)]
    fn addresses(ip: &[u8]) -> Option<(u128, u128)> {
        let header: &[u8; ipv6::HEADER_LEN] = ip.first_chunk()?;
        Some((address(header, ipv6::SRC), address(header, ipv6::DST)))
    }

    #[inline]
    fn packet(plain: &Plain<u128>, head: &[u8]) -> Option<Packet> {
        let header: &[u8; ipv6::HEADER_LEN] = head.get(L3..)?.first_chunk()?;
        Some(Packet {
            addresses: Addresses::V6 { src: plain.src, dst: plain.dst },
            l3: L3 as u16,
            l4: (L3 + ipv6::HEADER_LEN) as u16,
            len: plain.len,
            ttl: header[ipv6::HOP_LIMIT],
            tos: header[0] << 4 | header[1] >> 4,
            next: header[ipv6::NEXT],
            dont_fragment: true,
            fragment: None,
        })
    }

    #[inline]
    fn is_martian(plain: &Plain<u128>) -> bool {
        version6::no_station(plain.src) || version6::no_station(plain.dst) || plain.src == plain.dst
    }
}

impl<A: Whole> Plain<A> {
    /// All headers of a packet whose frame begins with `head`, as [`parse`](super::parse) reads them.
    #[inline]
    pub fn headers(&self, head: &[u8]) -> Option<Headers> {
        let Plain { src_port, dst_port, protocol, tcp_flags, .. } = *self;
        Some(Headers { ip: A::packet(self, head)?, src_port, dst_port, protocol, tcp_flags })
    }
}

/// A fragment's offset and whether more follow, in the first eight bytes of an IPv4 header, the first one lowest.
const FRAGMENT_MASK: u64 = 0xff3f_0000_0000_0000;

/// A frame up to the end of the TCP header, if it has IPv4 without options.
pub type Front = [u8; L3 + ipv4::HEADER_LEN + tcp::HEADER_LEN];
/// A front to begin with.
pub const NO_FRONT: Front = [0; L3 + ipv4::HEADER_LEN + tcp::HEADER_LEN];

/// The front of a frame that begins with `head`. That of a shorter one, if it has UDP over IPv4, is put together in
/// `padded`, with zeros at its end; all others have none, and are not plain.
#[inline(always)]
pub fn front<'a>(head: &'a [u8], padded: &'a mut Front) -> Option<&'a Front> {
    match head.first_chunk() {
        Some(front) => Some(front),
        None => pad(head, padded),
    }
}

#[cold]
fn pad<'a>(head: &[u8], padded: &'a mut Front) -> Option<&'a Front> {
    const L4: usize = L3 + ipv4::HEADER_LEN;
    let has_udp = head.len() >= L4 + udp::HEADER_LEN
        && head[L3 + ipv4::PROTOCOL] == ipv4::PROTOCOL_UDP
        && head[eth::TYPE..L3] == eth::TYPE_IPV4.to_be_bytes();
    if !has_udp {
        return None;
    }
    *padded = NO_FRONT;
    padded.get_mut(..head.len())?.copy_from_slice(head);
    Some(padded)
}

/// What a frame has that may be plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 without options.
    V4,
    /// IPv6.
    V6,
}

/// The Ethernet address of a port, as frames for it begin.
#[derive(Clone, Copy)]
pub struct Station(u64);

impl Station {
    /// That of the port with this address.
    pub fn new(own: MacAddr) -> Self {
        let [first, second, third, fourth, fifth, sixth] = own.0;
        let (start, end) = ([first, second, third, fourth], [fifth, sixth]);
        // Compared with what follows an address shifted out.
        Self((u64::from(u16::from_le_bytes(end)) << 32 | u64::from(u32::from_le_bytes(start))) << 16)
    }

    /// What an untagged frame for it has.
    #[inline(always)]
    pub fn kind(self, front: &Front) -> Option<Kind> {
        const TYPE_IPV4: u32 = eth::TYPE_IPV4.swap_bytes() as u32;
        const TYPE_IPV6: u32 = eth::TYPE_IPV6.swap_bytes() as u32;
        // Version 4, and five words of header.
        const WITHOUT_OPTIONS: u32 = 0x45 << 16;
        // The Ethertype and the header's first byte, read in the order of little-endian machines.
        let kind = long(front, eth::TYPE) & 0x00ff_ffff;
        if wide(front, 0) << 16 != self.0 {
            None
        } else if kind == WITHOUT_OPTIONS | TYPE_IPV4 {
            Some(Kind::V4)
        } else {
            (kind & 0xffff == TYPE_IPV6).then_some(Kind::V6)
        }
    }
}

/// Reads a packet of [`Kind::V4`], from a frame of `frame_len` bytes. `None` if it is not plain, or not right. Its addresses
/// may be any, also such as no packet should have: no flow has them.
#[inline(always)]
pub fn glance_v4(front: &Front, frame_len: usize) -> Option<Plain<u32>> {
    // Read in the order of little-endian machines; sums of checksums are the same in either.
    let (first, second) = (wide(front, L3), wide(front, L3 + 8));
    let dst = long(front, L3 + ipv4::DST);
    if first & FRAGMENT_MASK != 0 || !csum::is_right(first, second, dst) {
        return None;
    }
    let len = ((first >> 16) as u16).swap_bytes();
    let (src, dst) = (((second >> 32) as u32).swap_bytes(), dst.swap_bytes());
    // Its time to live is the lowest byte.
    plain(front, L3, frame_len, (second >> 8) as u8, len, (src, dst)).filter(|_| second as u8 > 1)
}

/// Bytes from the beginning of an IPv6 packet to the end of its TCP header.
const HEADERS_V6: usize = ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// The same of an IPv6 packet that `ip` begins with, which the first segment ends.
#[inline(always)]
pub fn glance_v6(ip: &[u8], frame_len: usize) -> Option<Plain<u128>> {
    let longer;
    // What is read stays in registers only if there is one place where it is.
    let headers = match ip.first_chunk() {
        Some(headers) => headers,
        None => {
            longer = padded(ip)?;
            &longer
        }
    };
    let first = wide(headers, 0);
    let (payload_len, next, hop_limit) =
        (((first >> 32) as u16).swap_bytes(), (first >> 48) as u8, (first >> 56) as u8);
    if first & 0xf0 != 0x60 || hop_limit <= 1 {
        return None;
    }
    let len = payload_len.checked_add(ipv6::HEADER_LEN as u16)?;
    plain(headers, 0, frame_len, next, len, (address(headers, ipv6::SRC), address(headers, ipv6::DST)))
}

/// The headers of a UDP packet that ends before a TCP header would, which are read as all others then.
#[cold]
fn padded(ip: &[u8]) -> Option<[u8; HEADERS_V6]> {
    let mut headers = [0; HEADERS_V6];
    headers.get_mut(..ip.len())?.copy_from_slice(ip);
    let has_udp = ip.len() >= ipv6::HEADER_LEN + udp::HEADER_LEN && ip[ipv6::NEXT] == ipv4::PROTOCOL_UDP;
    has_udp.then_some(headers)
}

/// Reads the transport header of a packet of `len` bytes that begins at `l3` of these.
#[inline(always)]
fn plain<A: Version, const N: usize>(
    headers: &[u8; N],
    l3: usize,
    frame_len: usize,
    protocol: u8,
    len: u16,
    (src, dst): (A, A),
) -> Option<Plain<A>> {
    let (l4, end) = (l3 + A::HEADER_LEN, l3 + usize::from(len));
    let (protocol, tcp_flags) = if protocol == ipv4::PROTOCOL_TCP {
        let header_len = usize::from(headers[l4 + tcp::DATA_OFFSET] >> 4) * 4;
        let flags = headers[l4 + tcp::FLAGS];
        if header_len < tcp::HEADER_LEN || l4 + header_len > end || tcp::absurd(flags) {
            return None;
        }
        (Protocol::Tcp, flags)
    } else {
        aside();
        let datagram = usize::from(u16::from_be_bytes([headers[l4 + udp::LEN], headers[l4 + udp::LEN + 1]]));
        if protocol != ipv4::PROTOCOL_UDP || datagram < udp::HEADER_LEN || l4 + datagram > end {
            return None;
        }
        (Protocol::Udp, 0)
    };
    let whole = L3 + usize::from(len) <= frame_len;
    let src_port = u16::from_be_bytes([headers[l4], headers[l4 + 1]]);
    let dst_port = u16::from_be_bytes([headers[l4 + 2], headers[l4 + 3]]);
    whole.then_some(Plain { src, dst, src_port, dst_port, len, protocol, tcp_flags })
}

/// Where this is said, the code is set apart, so that packets that do not come by need no jump.
#[cold]
#[inline(always)]
fn aside() {}

#[inline(always)]
fn long<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[inline(always)]
fn address<const N: usize>(header: &[u8; N], at: usize) -> u128 {
    u128::from(wide(header, at).swap_bytes()) << 64 | u128::from(wide(header, at + 8).swap_bytes())
}

#[inline(always)]
fn wide<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    header[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::DropReason;
    use crate::packet::{Addresses, Headers};
    use crate::parse::parse;
    use crate::samples::{CLIENT4, CLIENT6, VIP4, VIP6, datagram, syn};
    use crate::testing::mac;
    use crate::wire::eth::Tags;

    /// A plain packet of either IP version.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Seen {
        V4(Plain<u32>),
        V6(Plain<u128>),
    }

    fn glance(head: &[u8], frame_len: usize, own: MacAddr) -> Option<Seen> {
        let mut padded = NO_FRONT;
        let front = front(head, &mut padded)?;
        match Station::new(own).kind(front)? {
            Kind::V4 => glance_v4(front, frame_len).map(Seen::V4),
            Kind::V6 => glance_v6(&head[L3..], frame_len).map(Seen::V6),
        }
    }

    /// What `parse` makes of a frame that it takes, if that is plain.
    fn slowly(head: &[u8], len: usize) -> Option<Seen> {
        let (headers, tags) = parse(head, len, mac(254)).ok()?;
        let bare = |header: usize| {
            tags == Tags::default() && usize::from(headers.ip.l4) == L3 + header && headers.ip.ttl > 1
        };
        match headers.ip.addresses {
            Addresses::V4 { src, dst } => {
                bare(ipv4::HEADER_LEN).then(|| Seen::V4(plain_of(&headers, src, dst)))
            }
            Addresses::V6 { src, dst } => {
                bare(ipv6::HEADER_LEN).then(|| Seen::V6(plain_of(&headers, src, dst)))
            }
        }
    }

    fn brief<A>(plain: &Plain<A>) -> Brief {
        Brief { len: plain.len, tcp_flags: plain.tcp_flags }
    }

    fn plain_of<A>(headers: &Headers, src: A, dst: A) -> Plain<A> {
        let Headers { src_port, dst_port, protocol, tcp_flags, .. } = *headers;
        Plain { src, dst, src_port, dst_port, len: headers.ip.len, protocol, tcp_flags }
    }

    /// Each bit of the headers turned, with the checksum of an IPv4 header as it was and mended.
    #[test]
    fn a_glance_sees_what_parsing_does() {
        for sample in
            [syn(CLIENT4, VIP4), datagram(CLIENT4, VIP4), syn(CLIENT6, VIP6), datagram(CLIENT6, VIP6)]
        {
            let mut whole = sample.bytes();
            let is_v4 = whole[14] >> 4 == 4;
            whole.resize(if is_v4 { 60 } else { 80 }, 0);
            assert!(glance(&whole, whole.len(), mac(254)).is_some());
            let headers = if is_v4 { 54 } else { 74 };
            for (bit, mended) in (0..headers * 8).flat_map(|bit| [(bit, false), (bit, true)]) {
                let mut frame = whole.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                if mended && is_v4 {
                    frame[24..26].fill(0);
                    let sum = !csum::sum(&frame[14..34]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                if parse(&frame, frame.len(), mac(254)) == Err(DropReason::MartianAddress.into()) {
                    let martian = glance(&frame, frame.len(), mac(254)).is_none_or(|seen| match seen {
                        Seen::V4(plain) => u32::is_martian(&plain),
                        Seen::V6(plain) => u128::is_martian(&plain),
                    });
                    assert!(martian, "{sample:?}, bit {bit}");
                    continue;
                }
                let seen = glance(&frame, frame.len(), mac(254));
                assert_eq!(seen, slowly(&frame, frame.len()), "{sample:?}, bit {bit}");
                let headers = seen.map(|seen| match seen {
                    Seen::V4(plain) => plain.headers(&frame).unwrap(),
                    Seen::V6(plain) => plain.headers(&frame).unwrap(),
                });
                let slowly = headers.and_then(|_| Some(parse(&frame, frame.len(), mac(254)).ok()?.0));
                assert_eq!(headers, slowly);
                let again = match seen {
                    Some(Seen::V4(plain)) => brief(&plain).plain(&frame).map(Seen::V4),
                    Some(Seen::V6(plain)) => brief(&plain).plain(&frame).map(Seen::V6),
                    None => None,
                };
                assert_eq!(again, seen);
            }
            for len in 0..whole.len() {
                assert_eq!(glance(&whole[..len], len, mac(254)), slowly(&whole[..len], len), "{len} bytes");
                assert_eq!(glance(&whole[..len], whole.len(), mac(254)), slowly(&whole[..len], whole.len()));
            }
        }
    }
}

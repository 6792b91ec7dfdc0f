//! The rewrites of plain packets ([`plain`](mod@crate::parse::plain)) that leave untagged: every field stands at
//! a fixed place.
//!
//! The functions of [`dr`](super::dr), [`nat`](super::nat) and [`tunnel`](super::tunnel) are their slow twins. Here
//! `None` says that the frame is shorter than a plain packet's, and nothing was done.

mod swap;

use super::age_ipv6;
use super::tunnel::flow_label;
use config::words::Protocol;

use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::packet::Version;
use crate::parse::plain::L3;
use crate::wire::{eth, ipv4, ipv6, tcp, udp};
pub use swap::{Endpoint, Swap};

/// An Ethernet header without tags.
type Link = [u8; eth::HEADER_LEN];

/// Bytes of both ports, with which TCP and UDP headers begin.
const PORTS: usize = 4;

/// What differs between the IP versions.
pub trait Rewrite: Version {
    /// Takes a hop off a packet that `ip` begins with.
    fn hop(ip: &mut [u8]) -> Option<()>;

    /// The same, gives it the addresses that are given, and returns what these add to checksums that cover them, all
    /// read as little-endian numbers.
    fn readdress(ip: &mut [u8], src: Option<Self>, dst: Option<Self>) -> Option<Delta>;

    /// The same, where it gets one address: as its source, or else its destination.
    fn exchange(ip: &mut [u8], is_src: bool, new: Self) -> Option<Delta>;

    /// Wraps a packet of `len` bytes whose hop is taken off in an outer header of the same version, which is written to
    /// the end of `before`. `id` identifies it if it may be fragmented.
    fn wrap(
        before: &mut [u8],
        inner: &[u8],
        len: u16,
        outer: &Outer<Self>,
        id: impl FnOnce() -> u16,
    ) -> Option<()>;
}

/// The outer header of a bare tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Outer<A> {
    /// Our end.
    pub src: A,
    /// The backend's end.
    pub dst: A,
    /// Bits of the flow's hash, for the flow label.
    pub entropy: u16,
}

impl Rewrite for u32 {
    #[inline(always)]
    fn hop(ip: &mut [u8]) -> Option<()> {
        hop_ipv4(ip.first_chunk_mut()?);
        Some(())
    }

    #[inline(always)]
    fn readdress(ip: &mut [u8], src: Option<u32>, dst: Option<u32>) -> Option<Delta> {
        let header: &mut [u8; ipv4::HEADER_LEN] = ip.first_chunk_mut()?;
        let mut changes = Delta::default();
        for (at, new) in [(ipv4::SRC, src), (ipv4::DST, dst)] {
            if let (Some(new), Some(address)) = (new, header[at..].first_chunk_mut()) {
                changes = changes.long(u32::from_le_bytes(*address), new.swap_bytes());
                *address = new.to_be_bytes();
            }
        }
        age(header, changes);
        Some(changes)
    }

    #[inline(always)]
    fn exchange(ip: &mut [u8], is_src: bool, new: u32) -> Option<Delta> {
        let header: &mut [u8; ipv4::HEADER_LEN] = ip.first_chunk_mut()?;
        let at = if is_src { ipv4::SRC } else { ipv4::DST };
        let address: &mut [u8; 4] = header[at..].first_chunk_mut()?;
        let changes = Delta::default().long(u32::from_le_bytes(*address), new.swap_bytes());
        *address = new.to_be_bytes();
        age(header, changes);
        Some(changes)
    }

    #[inline(always)]
    fn wrap(
        before: &mut [u8],
        inner: &[u8],
        len: u16,
        outer: &Outer<u32>,
        id: impl FnOnce() -> u16,
    ) -> Option<()> {
        let inner: &[u8; ipv4::HEADER_LEN] = inner.first_chunk()?;
        // All in the order of little-endian machines, and put together in registers: bytes that were stored one by one are
        // not loaded at once. The version, the header's length and the type of service are those of the packet inside.
        let start = u64::from_le_bytes(*inner.first_chunk()?);
        let fragment = u64::from(ipv4::DONT_FRAGMENT.swap_bytes()) << 48;
        let fragment = match start & fragment {
            0 => u64::from(id().swap_bytes()) << 32,
            _ => fragment,
        };
        // The packet fits the way to its backend with this header.
        let total_len = u64::from((len + ipv4::HEADER_LEN as u16).swap_bytes());
        let first = start & 0xffff | total_len << 16 | fragment;
        let (src, dst) = (outer.src.swap_bytes(), outer.dst.swap_bytes());
        let ttl = u64::from(inner[ipv4::TTL]);
        let second = ttl | u64::from(ipv4::PROTOCOL_IPIP) << 8 | u64::from(src) << 32;
        let second = second | u64::from(!csum::sum_of(first, second, dst)) << 16;
        let header: &mut [u8; ipv4::HEADER_LEN] = before.last_chunk_mut()?;
        header[..8].copy_from_slice(&first.to_le_bytes());
        header[8..16].copy_from_slice(&second.to_le_bytes());
        header[16..].copy_from_slice(&dst.to_le_bytes());
        Some(())
    }
}

impl Rewrite for u128 {
    #[inline(always)]
    fn hop(ip: &mut [u8]) -> Option<()> {
        age_ipv6(ip.first_chunk_mut()?);
        Some(())
    }

    #[inline(always)]
    fn readdress(ip: &mut [u8], src: Option<u128>, dst: Option<u128>) -> Option<Delta> {
        let header: &mut [u8; ipv6::HEADER_LEN] = ip.first_chunk_mut()?;
        let mut changes = Delta::default();
        for (at, new) in [(ipv6::SRC, src), (ipv6::DST, dst)] {
            if let (Some(new), Some(address)) = (new, header[at..].first_chunk_mut()) {
                changes = changes.wide(u128::from_le_bytes(*address), new.swap_bytes());
                *address = new.to_be_bytes();
            }
        }
        age_ipv6(header);
        Some(changes)
    }

    #[inline(always)]
    fn exchange(ip: &mut [u8], is_src: bool, new: u128) -> Option<Delta> {
        let header: &mut [u8; ipv6::HEADER_LEN] = ip.first_chunk_mut()?;
        let at = if is_src { ipv6::SRC } else { ipv6::DST };
        let address: &mut [u8; 16] = header[at..].first_chunk_mut()?;
        let changes = Delta::default().wide(u128::from_le_bytes(*address), new.swap_bytes());
        *address = new.to_be_bytes();
        age_ipv6(header);
        Some(changes)
    }

    #[inline(always)]
    fn wrap(
        before: &mut [u8],
        inner: &[u8],
        len: u16,
        outer: &Outer<u128>,
        _: impl FnOnce() -> u16,
    ) -> Option<()> {
        let inner: &[u8; ipv6::HEADER_LEN] = inner.first_chunk()?;
        let header = ipv6::NewHeader {
            traffic_class: inner[0] << 4 | inner[1] >> 4,
            flow_label: flow_label(outer.entropy),
            payload_len: len,
            next: ipv6::NEXT_IPV6,
            hop_limit: inner[ipv6::HOP_LIMIT],
            src: outer.src,
            dst: outer.dst,
        };
        *before.last_chunk_mut()? = header.bytes();
        Some(())
    }
}

/// Takes a hop off an IPv4 header in which this has changed, all read as little-endian numbers.
#[inline(always)]
fn age(header: &mut [u8; ipv4::HEADER_LEN], changes: Delta) {
    header[ipv4::TTL] = header[ipv4::TTL].wrapping_sub(1);
    let checksum = aged(changes).apply(read(header, ipv4::CHECKSUM));
    write(header, ipv4::CHECKSUM, checksum);
}

/// The same changes, and a hop less.
#[inline(always)]
fn aged(changes: Delta) -> Delta {
    // Whatever the time to live is, one less adds as much as this.
    changes.word(1, 0)
}

/// Takes a hop off an IPv4 header, which the checksum feels as one more in its first byte, the sum being one of
/// one's complement: 0xffff is 0. It is read in the order of little-endian machines (RFC 1071, 2 (B)).
#[inline(always)]
fn hop_ipv4(header: &mut [u8; ipv4::HEADER_LEN]) {
    header[ipv4::TTL] = header[ipv4::TTL].wrapping_sub(1);
    let checksum = u16::from_le_bytes([header[ipv4::CHECKSUM], header[ipv4::CHECKSUM + 1]]);
    let next = checksum.wrapping_add(1 + u16::from(checksum >= 0xfffe));
    write(header, ipv4::CHECKSUM, next);
}

/// Sends a packet on to a backend on the link.
#[inline(always)]
pub fn dr<A: Rewrite>(head: &mut [u8], link: &Link) -> Option<()> {
    let (front, ip) = head.split_first_chunk_mut::<L3>()?;
    A::hop(ip)?;
    *front = *link;
    Some(())
}

/// Gives a packet the ends that are given.
///
/// Numbers that checksums cover are read as little-endian ones, so that none is turned around: the sums are turned then,
/// and so are their differences (RFC 1071, 2 (B)).
#[inline(always)]
pub fn nat<A: Rewrite>(
    head: &mut [u8],
    protocol: Protocol,
    src: Option<(A, u16)>,
    dst: Option<(A, u16)>,
    link: &Link,
) -> Option<()> {
    let (front, ip) = head.split_first_chunk_mut::<L3>()?;
    let (ip, transport) = ip.split_at_mut_checked(A::HEADER_LEN)?;
    let (ports, rest) = transport.split_first_chunk_mut::<PORTS>()?;
    let sum = match protocol {
        Protocol::Tcp => rest[..].get_mut(tcp::CHECKSUM - PORTS..)?,
        Protocol::Udp => rest[..].get_mut(udp::CHECKSUM - PORTS..)?,
    };
    let sum: &mut [u8; 2] = sum.first_chunk_mut()?;
    let mut changes = A::readdress(ip, src.map(|end| end.0), dst.map(|end| end.0))?;
    *front = *link;
    for (at, end) in [(tcp::SRC_PORT, src), (tcp::DST_PORT, dst)] {
        if let (Some((_, new)), Some(port)) = (end, ports[at..].first_chunk_mut()) {
            changes = changes.word(u16::from_le_bytes(*port), new.swap_bytes());
            *port = new.to_be_bytes();
        }
    }
    *sum = checksum(protocol, u16::from_le_bytes(*sum), changes).to_le_bytes();
    Some(())
}

/// Gives a packet one end, as its source or else its destination, without a jump that depends on which.
///
/// Numbers are read as in [`nat`], which does the same.
#[inline(always)]
pub fn exchange<A: Rewrite>(
    head: &mut [u8],
    protocol: Protocol,
    is_src: bool,
    (address, port): (A, u16),
    link: &Link,
) -> Option<()> {
    // One length is checked, and then all fields stand at fixed places; only small UDP packets are shorter.
    let Some(front) = head.get_mut(..L3 + A::HEADER_LEN + tcp::HEADER_LEN) else {
        return exchange_short(head, protocol, is_src, (address, port), link);
    };
    let (front, ip) = front.split_first_chunk_mut::<L3>()?;
    let (ip, transport) = ip.split_at_mut_checked(A::HEADER_LEN)?;
    let transport: &mut [u8; tcp::HEADER_LEN] = transport.first_chunk_mut()?;
    *front = *link;
    let changes = A::exchange(ip, is_src, address)?;
    let at = if is_src { tcp::SRC_PORT } else { tcp::DST_PORT };
    let changes = changes.word(read(transport, at), port.swap_bytes());
    transport[at..at + 2].copy_from_slice(&port.to_be_bytes());
    let at = if protocol == Protocol::Tcp { tcp::CHECKSUM } else { udp::CHECKSUM };
    let checksum = checksum(protocol, read(transport, at), changes);
    write(transport, at, checksum);
    Some(())
}

#[cold]
fn exchange_short<A: Rewrite>(
    head: &mut [u8],
    protocol: Protocol,
    is_src: bool,
    end: (A, u16),
    link: &Link,
) -> Option<()> {
    nat(head, protocol, is_src.then_some(end), (!is_src).then_some(end), link)
}

/// Writes a little-endian number as two bytes.
#[inline(always)]
fn write<const N: usize>(bytes: &mut [u8; N], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
}

/// Reads two bytes as a little-endian number.
#[inline(always)]
fn read<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The transport checksum that follows `old`.
#[inline(always)]
fn checksum(protocol: Protocol, old: u16, changes: Delta) -> u16 {
    match protocol {
        Protocol::Tcp => changes.apply(old),
        Protocol::Udp => datagrams(old, changes.apply(old)),
    }
}

/// That of a datagram, by the sum that follows.
#[inline(always)]
fn datagrams(old: u16, new: u16) -> u16 {
    // 0 means that the sender computed none.
    if old == 0 { 0 } else { udp::computed(new) }
}

/// Wraps a packet of `len` bytes in an outer header of its IP version. `id` identifies it if it may be fragmented. `None` also if
/// the buffer has no room for that.
#[inline(always)]
pub fn ipip<F: Frame, A: Rewrite>(
    frame: &mut F,
    len: u16,
    outer: &Outer<A>,
    id: impl FnOnce() -> u16,
    link: &Link,
) -> Option<()> {
    frame.head().get(L3 + A::HEADER_LEN..)?;
    frame.grow_front(A::HEADER_LEN).then_some(())?;
    let (before, inner) = frame.head_mut().split_at_mut_checked(L3 + A::HEADER_LEN)?;
    A::hop(inner)?;
    *before.first_chunk_mut()? = *link;
    A::wrap(before, inner, len, outer, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::age_ipv4;
    use proptest::prelude::*;

    #[test]
    fn an_outer_header_is_what_its_slow_twin_makes() {
        for number in 0..=u16::MAX {
            let [tos, low] = number.to_be_bytes();
            let (ttl, may_fragment) = (low ^ tos, low & 1 != 0);
            let fragment = if may_fragment { 0 } else { ipv4::DONT_FRAGMENT };
            let outer =
                Outer { src: (u32::MAX / 3).wrapping_mul(low.into()), dst: !u32::from(number), entropy: 0 };
            let len = number % 60_000 + 20;
            let base = ipv4::NewHeader {
                tos,
                total_len: len,
                id: 7,
                fragment,
                ttl,
                protocol: ipv4::PROTOCOL_TCP,
                src: 1,
                dst: 2,
            };
            let twin = ipv4::NewHeader {
                total_len: len + 20,
                id: if may_fragment { number } else { 0 },
                protocol: ipv4::PROTOCOL_IPIP,
                src: outer.src,
                dst: outer.dst,
                ..base
            };
            let mut before = [0; 24];
            u32::wrap(&mut before, &base.bytes(), len, &outer, || number).unwrap();
            assert_eq!(before[4..], twin.bytes(), "{number:04x}");
        }
    }

    #[test]
    fn a_hop_changes_every_checksum_as_its_slow_twin_does() {
        for checksum in 0..=u16::MAX {
            let mut header = [0; ipv4::HEADER_LEN];
            (header[ipv4::TTL], header[ipv4::PROTOCOL]) = (64, ipv4::PROTOCOL_TCP);
            header[ipv4::CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
            let mut twin = header;
            hop_ipv4(&mut header);
            age_ipv4(&mut twin, Delta::default());
            assert_eq!(header, twin, "{checksum:04x}");
        }
    }

    /// What `exchange` and its slow twin make of a frame that begins with these bytes.
    fn exchanged<A: Rewrite>(head: &[u8], protocol: Protocol, is_src: bool, end: (A, u16)) -> [Vec<u8>; 2] {
        let (mut one, mut other) = (head.to_vec(), head.to_vec());
        let (src, dst) = (is_src.then_some(end), (!is_src).then_some(end));
        let done = exchange(&mut one, protocol, is_src, end, &[7; eth::HEADER_LEN]);
        assert_eq!(nat(&mut other, protocol, src, dst, &[7; eth::HEADER_LEN]), done);
        [one, other]
    }

    proptest! {
        #![proptest_config(crate::samples::cases())]

        /// Whatever the bytes are, and however few.
        #[test]
        fn one_end_is_exchanged_as_nat_does(
            head in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..80),
            udp: bool,
            is_src: bool,
            address: u128,
            port: u16,
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let [one, other] = exchanged(&head, protocol, is_src, (address as u32, port));
            prop_assert_eq!(one, other);
            let [one, other] = exchanged(&head, protocol, is_src, (address, port));
            prop_assert_eq!(one, other);
        }
    }
}

//! The rewrites of plain packets ([`plain`](mod@crate::parse::plain)) that leave untagged: every field stands at
//! a fixed place.
//!
//! The functions of [`dr`](super::dr), [`nat`](super::nat) and [`tunnel`](super::tunnel) are their slow twins. Here
//! `None` says that the frame is shorter than a plain packet's, and nothing was done.

use super::age_ipv4;
use super::nat::mend_transport;
use crate::buf::Frame;
use crate::csum::Delta;
use crate::parse::plain::{HEAD, L3, L4, Plain};
use crate::wire::{eth, ipv4, tcp};

/// An Ethernet header without tags.
type Link = [u8; eth::HEADER_LEN];

/// Sends a packet on to a backend on the link.
#[inline(always)]
pub fn dr(head: &mut [u8], link: &Link) -> Option<()> {
    age(head.first_chunk_mut()?, Delta::default(), link);
    Some(())
}

/// Directs a client's packet to a backend.
#[inline(always)]
pub fn to_backend(head: &mut [u8], plain: &Plain, (address, port): (u32, u16), link: &Link) -> Option<()> {
    let fixed = head.first_chunk_mut()?;
    let changes = Delta::default().long(plain.dst, address);
    age(fixed, changes, link);
    fixed[L3 + ipv4::DST..][..4].copy_from_slice(&address.to_be_bytes());
    fixed[L4 + tcp::DST_PORT..][..2].copy_from_slice(&port.to_be_bytes());
    mend_transport(head, L4, plain.protocol, changes.word(plain.dst_port, port));
    Some(())
}

/// Makes a backend's reply come from a VIP.
#[inline(always)]
pub fn to_client(head: &mut [u8], plain: &Plain, (address, port): (u32, u16), link: &Link) -> Option<()> {
    let fixed = head.first_chunk_mut()?;
    let changes = Delta::default().long(plain.src, address);
    age(fixed, changes, link);
    fixed[L3 + ipv4::SRC..][..4].copy_from_slice(&address.to_be_bytes());
    fixed[L4 + tcp::SRC_PORT..][..2].copy_from_slice(&port.to_be_bytes());
    mend_transport(head, L4, plain.protocol, changes.word(plain.src_port, port));
    Some(())
}

/// Wraps a packet in an outer IPv4 header from `src` to `dst`. `id` identifies it if it may be fragmented.
/// `None` also if the buffer has no room for that.
#[inline(always)]
pub fn ipip<F: Frame>(
    frame: &mut F,
    plain: &Plain,
    (src, dst): (u32, u32),
    id: impl FnOnce() -> u16,
    link: &Link,
) -> Option<()> {
    const OUTER: usize = L3 + ipv4::HEADER_LEN;
    frame.head().first_chunk::<HEAD>()?;
    frame.grow_front(ipv4::HEADER_LEN).then_some(())?;
    let (before, inner) = frame.head_mut().split_first_chunk_mut::<OUTER>()?;
    let inner = inner.first_chunk_mut()?;
    age_ipv4(inner, Delta::default());
    let dont_fragment = inner[ipv4::FRAGMENT] & (ipv4::DONT_FRAGMENT >> 8) as u8 != 0;
    let header = ipv4::NewHeader {
        tos: inner[ipv4::TOS],
        // The packet fits the way to its backend with this header.
        total_len: plain.len + ipv4::HEADER_LEN as u16,
        id: if dont_fragment { 0 } else { id() },
        fragment: if dont_fragment { ipv4::DONT_FRAGMENT } else { 0 },
        ttl: inner[ipv4::TTL],
        protocol: ipv4::PROTOCOL_IPIP,
        src,
        dst,
    };
    before[..L3].copy_from_slice(link);
    before[L3..].copy_from_slice(&header.bytes());
    Some(())
}

/// Takes a hop off, notes other changes of the IP header, and puts the next hop's Ethernet header.
#[inline(always)]
fn age(head: &mut [u8; HEAD], changes: Delta, link: &Link) {
    head[..L3].copy_from_slice(link);
    if let Some(header) = head[L3..].first_chunk_mut() {
        age_ipv4(header, changes);
    }
}

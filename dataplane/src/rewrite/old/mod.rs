//! The rewrites of the IPv4 descriptor in `parse`.

mod dr;
pub mod icmp;
mod nat;
mod tunnel;

pub use dr::dr;
pub use nat::{Endpoint, to_backend, to_client};
pub use tunnel::tunnel;

use crate::csum::Delta;
use crate::parse::Ipv4;
use crate::wire::{eth, ipv4};

/// Writes the Ethernet header that ends where the IPv4 header at `l3` begins.
#[inline(always)]
fn write_link(head: &mut [u8], l3: usize, link: &[u8; eth::HEADER_LEN]) {
    if let Some(place) = head.get_mut(l3 - eth::HEADER_LEN..l3) {
        place.copy_from_slice(link);
    }
}

/// Takes one off the TTL, which the caller found to be above 1, and repairs the header checksum for that
/// and for `addresses`, other changes of the header.
#[inline(always)]
fn finish_ipv4(head: &mut [u8], packet: &Ipv4, addresses: Delta) {
    let header = head.get_mut(usize::from(packet.l3)..);
    let Some(header) = header.and_then(|rest| rest.first_chunk_mut::<{ ipv4::HEADER_LEN }>()) else { return };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (old, checksum) = (word(ipv4::TTL), word(ipv4::CHECKSUM));
    let new = old.wrapping_sub(0x0100);
    header[ipv4::TTL..][..2].copy_from_slice(&new.to_be_bytes());
    header[ipv4::CHECKSUM..][..2].copy_from_slice(&addresses.word(old, new).apply(checksum).to_be_bytes());
}

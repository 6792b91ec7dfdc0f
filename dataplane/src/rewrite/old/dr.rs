//! Direct routing: the packet goes to the backend's MAC with its addresses untouched, and the backend, which
//! has the VIP too, replies to the client directly.

use super::{finish_ipv4, write_link};
use crate::csum::Delta;
use crate::parse::Ipv4;
use crate::wire::eth;

/// Sends a packet on to a backend on the link.
#[inline]
pub fn dr(head: &mut [u8], packet: &Ipv4, link: &[u8; eth::HEADER_LEN]) {
    finish_ipv4(head, packet, Delta::default());
    write_link(head, usize::from(packet.l3), link);
}

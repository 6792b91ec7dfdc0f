//! Direct routing: the packet goes to the backend's MAC with its addresses untouched, and the backend, which
//! has the VIP too, replies to the client directly.

use super::{finish_ipv4, write_link};
use crate::csum::Delta;
use crate::parse::Headers;
use crate::wire::eth;

/// Sends a packet on to a backend on the link.
#[inline]
pub fn dr(head: &mut [u8], headers: &Headers, link: &[u8; eth::HEADER_LEN]) {
    finish_ipv4(head, headers, Delta::default());
    write_link(head, usize::from(headers.l3), link);
}

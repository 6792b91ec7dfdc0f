//! IP within IP (RFC 2003): the packet travels whole to a backend that may be many hops away, which takes
//! the outer header off and replies to the client directly.

use super::{finish_ipv4, write_link};
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::parse::Headers;
use crate::wire::{eth, ipv4, read_u16};

/// Wraps a packet in an outer header from `src` to `dst` (host order).
///
/// Type of service, TTL and "don't fragment" are copied outwards, as IPVS does (RFC 2003, 3.1; RFC 6040,
/// 4.1, normal mode for ECN). `id` identifies the outer packet where it may be fragmented; one that may
/// not needs none (RFC 6864, 4.1).
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room before the packet; [`DropReason::TooBig`] if it is
/// too long for an outer header.
#[inline]
pub fn tunnel<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    (src, dst): (u32, u32),
    id: u16,
    link: &[u8; eth::HEADER_LEN],
) -> Result<(), DropReason> {
    let total_len = headers.ip_len.checked_add(ipv4::HEADER_LEN as u16).ok_or(DropReason::TooBig)?;
    finish_ipv4(frame.head_mut(), headers, Delta::default());
    let l3 = usize::from(headers.l3);
    let head = frame.head();
    let flags = read_u16(head, l3 + ipv4::FRAGMENT).unwrap_or_default();
    let dont_fragment = flags & ipv4::DONT_FRAGMENT != 0;
    let outer = ipv4::Outer {
        tos: head.get(l3 + ipv4::TOS).copied().unwrap_or_default(),
        total_len,
        id: if dont_fragment { 0 } else { id },
        dont_fragment,
        ttl: headers.ttl.wrapping_sub(1),
        src,
        dst,
    };
    if !frame.grow_front(ipv4::HEADER_LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let head = frame.head_mut();
    if let Some(place) = head.get_mut(l3..l3 + ipv4::HEADER_LEN) {
        place.copy_from_slice(&outer.bytes());
    }
    write_link(head, l3, link);
    Ok(())
}

//! IP within IP (RFC 2003): the packet travels whole to a backend that may be many hops away, which takes
//! the outer header off and replies to the client directly.

use super::{finish_ipv4, write_link};
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::parse::Ipv4;
use crate::wire::{eth, ipv4};

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
    packet: &Ipv4,
    (src, dst): (u32, u32),
    id: u16,
    link: &[u8; eth::HEADER_LEN],
) -> Result<(), DropReason> {
    let total_len = packet.len.checked_add(ipv4::HEADER_LEN as u16).ok_or(DropReason::TooBig)?;
    finish_ipv4(frame.head_mut(), packet, Delta::default());
    let l3 = usize::from(packet.l3);
    let tos = frame.head().get(l3 + ipv4::TOS).copied().unwrap_or_default();
    let outer = ipv4::NewHeader {
        tos,
        total_len,
        id: if packet.dont_fragment { 0 } else { id },
        dont_fragment: packet.dont_fragment,
        ttl: packet.ttl.wrapping_sub(1),
        protocol: ipv4::PROTOCOL_IPIP,
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

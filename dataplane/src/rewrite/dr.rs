//! Direct routing: the packet goes to the backend's MAC with its addresses untouched, and the backend, which
//! has the VIP too, replies to the client directly.

use super::{age, put_link};
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::packet::Packet;
use crate::wire::eth::LinkHeader;

/// Sends a packet on to a backend on the link.
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
#[inline]
pub fn to_backend<F: Frame>(frame: &mut F, packet: &Packet, link: &LinkHeader) -> Result<(), DropReason> {
    age(frame.head_mut(), packet, Delta::default());
    put_link(frame, packet.l3, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{CLIENT4, CLIENT6, Sample, VIP4, VIP6, datagram, icmp, link};
    use crate::wire::eth::Tags;

    #[test]
    fn macs_and_ttl_change_only() {
        for (src, dst) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
            for sample in [datagram(src, dst), icmp(src, dst, [3, 1], [0; 4], b"quoted")] {
                let sample = Sample { options: vec![1, 1, 1, 0], tos: 0xb9, ..sample };
                let (mut frame, packet) = (sample.frame(), sample.packet());
                to_backend(&mut frame, &packet, &link(11, 254, Tags::default(), packet.addresses)).unwrap();
                assert_eq!(frame.bytes(), Sample { ttl: 63, ..sample }.sent(11, 254));
            }
        }
    }
}

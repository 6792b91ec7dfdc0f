//! ARP for IPv4 over Ethernet (RFC 826), and its announcements (RFC 5227).

use std::net::Ipv4Addr;

use config::words::MacAddr;

use super::eth::{self, LinkHeader};
use super::{read_u16, read_u32};

/// Length of the packet, in bytes.
const PACKET_LEN: usize = 28;
/// Length of an untagged frame with an ARP packet, in bytes, without padding.
pub const FRAME_LEN: usize = eth::HEADER_LEN + PACKET_LEN;

const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet of IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Question or answer.
    pub operation: Operation,
    /// Ethernet address of the sender.
    pub sender_mac: MacAddr,
    /// IPv4 address of the sender; 0.0.0.0 in a probe (RFC 5227, 2.1.1).
    pub sender: Ipv4Addr,
    /// Ethernet address of the target; of no meaning in a request.
    pub target_mac: MacAddr,
    /// IPv4 address that is asked for or answered.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Reads a frame, untagged Ethernet header included; `None` if it holds no such packet or a broken one.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if read_u16(frame, eth::TYPE)? != eth::TYPE_ARP {
            return None;
        }
        Self::parse_at(frame, eth::HEADER_LEN as u16)
    }

    /// Reads the ARP packet that begins at `l3`; `None` if it is broken.
    pub fn parse_at(frame: &[u8], l3: u16) -> Option<Self> {
        let packet = frame.get(usize::from(l3)..)?.first_chunk::<PACKET_LEN>()?;
        if !packet.starts_with(&ETHERNET_IPV4) {
            return None;
        }
        let operation = match read_u16(packet, 6)? {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let sender_mac = MacAddr(*packet.get(8..)?.first_chunk()?);
        if !sender_mac.is_unicast() || sender_mac == MacAddr::default() {
            return None;
        }
        Some(Self {
            operation,
            sender_mac,
            sender: Ipv4Addr::from_bits(read_u32(packet, 14)?),
            target_mac: MacAddr(*packet.get(18..)?.first_chunk()?),
            target: Ipv4Addr::from_bits(read_u32(packet, 24)?),
        })
    }

    /// The frame that carries this packet to `dst`, untagged.
    pub fn frame(&self, dst: MacAddr) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        frame[..14].copy_from_slice(&eth::header(dst, self.sender_mac, eth::TYPE_ARP));
        frame[14..].copy_from_slice(&self.packet());
        frame
    }

    /// The frame that carries this packet behind an Ethernet header.
    pub fn frame_by(&self, link: &LinkHeader) -> Vec<u8> {
        [link.with_type(eth::TYPE_ARP).bytes(), &self.packet()].concat()
    }

    fn packet(&self) -> [u8; PACKET_LEN] {
        let mut packet = [0; PACKET_LEN];
        packet[..6].copy_from_slice(&ETHERNET_IPV4);
        packet[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        packet[8..14].copy_from_slice(&self.sender_mac.0);
        packet[14..18].copy_from_slice(&self.sender.octets());
        packet[18..24].copy_from_slice(&self.target_mac.0);
        packet[24..].copy_from_slice(&self.target.octets());
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::eth::Tags;

    const REQUEST: Arp = Arp {
        operation: Operation::Request,
        sender_mac: MacAddr([2, 0, 0x5e, 0, 0x53, 1]),
        sender: Ipv4Addr::new(192, 0, 2, 1),
        target_mac: MacAddr([0; 6]),
        target: Ipv4Addr::new(192, 0, 2, 9),
    };

    #[test]
    fn a_frame_reads_back_as_written() {
        let frame = REQUEST.frame(MacAddr::BROADCAST);
        assert_eq!(Arp::parse(&frame), Some(REQUEST));
        let mut padded = frame.to_vec();
        padded.resize(60, 0);
        assert_eq!(Arp::parse(&padded), Some(REQUEST));
    }

    #[test]
    fn a_frame_may_be_tagged() {
        for tags in [Tags { outer: 0, inner: 0 }, Tags { outer: 0, inner: 7 }, Tags { outer: 8, inner: 7 }] {
            let link = LinkHeader::new(MacAddr::BROADCAST, REQUEST.sender_mac, tags, eth::TYPE_IPV4);
            let frame = REQUEST.frame_by(&link);
            assert!(frame.starts_with(link.with_type(eth::TYPE_ARP).bytes()));
            let l3 = link.bytes().len() as u16;
            assert_eq!(Arp::parse_at(&frame, l3), Some(REQUEST));
            for len in 0..frame.len() {
                assert_eq!(Arp::parse_at(&frame[..len], l3), None, "{len} bytes");
            }
            assert_eq!(Arp::parse_at(&frame, u16::MAX), None);
        }
    }

    #[test]
    fn broken_packets_are_not_arp() {
        let frame = REQUEST.frame(MacAddr::BROADCAST);
        for len in 0..FRAME_LEN {
            assert_eq!(Arp::parse(&frame[..len]), None, "{len} bytes");
        }
        for (offset, byte) in [(12, 0x86), (15, 2), (18, 8), (21, 3), (22, 0x01)] {
            let mut broken = frame;
            broken[offset] = byte;
            assert_eq!(Arp::parse(&broken), None, "byte {offset}");
        }
    }
}

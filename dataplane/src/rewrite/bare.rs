//! TCP segments of nothing but their headers: those that end connections, and those that ask for numbers.

use config::words::Protocol;

use super::{TTL, make_room, write_link};
use crate::buf::Frame;
use crate::csum;
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::wire::eth::{self, LinkHeader};
use crate::wire::{ipv4, ipv6, tcp, write, write_u16, write_u32};

/// Bytes of the longest of these frames, without VLAN tags.
const LONGEST: usize = eth::HEADER_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// What there is to say in such a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bare {
    /// Who sends it, and to whom.
    pub addresses: Addresses,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgment number.
    pub acknowledgment: u32,
    /// Flags.
    pub flags: u8,
}

impl Bare {
    /// Puts it, behind an Ethernet header, in place of the packet at `l3`, which is at least as long.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
    pub fn replace<F: Frame>(&self, frame: &mut F, l3: usize, link: &LinkHeader) -> Result<(), DropReason> {
        let at = link.bytes().len();
        make_room(frame, l3, at)?;
        write_link(frame.head_mut(), link);
        let len = self.write(frame.head_mut(), at);
        frame.truncate(at + len);
        Ok(())
    }

    /// A frame of it from where another one's memory is, with what the parser would say of it; `None` if no memory is
    /// free. Its Ethernet header is empty.
    pub fn frame<F: Frame>(&self, like: &F) -> Option<(F, Headers)> {
        let mut bytes = [0; LONGEST];
        let len = self.write(&mut bytes, eth::HEADER_LEN);
        let frame = like.another(bytes.get(..eth::HEADER_LEN + len)?)?;
        let ip = Packet {
            addresses: self.addresses,
            l3: eth::HEADER_LEN as u16,
            l4: (eth::HEADER_LEN + len - tcp::HEADER_LEN) as u16,
            // At most 60.
            len: len as u16,
            ttl: TTL,
            tos: 0,
            next: ipv4::PROTOCOL_TCP,
            dont_fragment: true,
            fragment: None,
        };
        let Self { src_port, dst_port, flags, .. } = *self;
        Some((frame, Headers { ip, src_port, dst_port, protocol: Protocol::Tcp, tcp_flags: flags }))
    }

    /// Writes the packet at `l3`; returns its length.
    fn write(&self, head: &mut [u8], l3: usize) -> usize {
        let header_len = match self.addresses {
            Addresses::V4 { src, dst } => {
                let header = ipv4::NewHeader {
                    tos: 0,
                    total_len: (ipv4::HEADER_LEN + tcp::HEADER_LEN) as u16,
                    id: 0,
                    fragment: ipv4::DONT_FRAGMENT,
                    ttl: TTL,
                    protocol: ipv4::PROTOCOL_TCP,
                    src,
                    dst,
                };
                write(head, l3, &header.bytes());
                ipv4::HEADER_LEN
            }
            Addresses::V6 { src, dst } => {
                let header = ipv6::NewHeader {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: tcp::HEADER_LEN as u16,
                    next: ipv4::PROTOCOL_TCP,
                    hop_limit: TTL,
                    src,
                    dst,
                };
                write(head, l3, &header.bytes());
                ipv6::HEADER_LEN
            }
        };
        write(head, l3 + header_len, &self.segment());
        header_len + tcp::HEADER_LEN
    }

    fn segment(&self) -> [u8; tcp::HEADER_LEN] {
        let mut segment = [0; tcp::HEADER_LEN];
        write_u16(&mut segment, tcp::SRC_PORT, self.src_port);
        write_u16(&mut segment, tcp::DST_PORT, self.dst_port);
        write_u32(&mut segment, tcp::SEQUENCE, self.sequence);
        write_u32(&mut segment, tcp::ACKNOWLEDGMENT, self.acknowledgment);
        write(&mut segment, tcp::DATA_OFFSET, &[(tcp::HEADER_LEN as u8) << 2, self.flags]);
        let checksum = csum::transport(self.addresses, ipv4::PROTOCOL_TCP, &segment);
        write_u16(&mut segment, tcp::CHECKSUM, checksum);
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;
    use crate::samples::{Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, link, syn};
    use crate::wire::eth::Tags;

    /// As another encoder makes it.
    fn sample(client: &str, vip: &str) -> Sample {
        let body = Body::Tcp { flags: tcp::ACK, options: Vec::new() };
        Sample { body, payload: Vec::new(), ttl: 64, tos: 0, id: 0, flow_label: 0, ..syn(client, vip) }
    }

    #[test]
    fn a_made_frame_is_what_its_headers_say() {
        for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
            let wanted = sample(client, vip);
            let (addresses, src_port, dst_port) =
                (wanted.packet().addresses, wanted.src.port(), wanted.dst.port());
            let bare =
                Bare { addresses, src_port, dst_port, sequence: 1, acknowledgment: 2, flags: tcp::ACK };
            let (mut frame, headers) = bare.frame(&wanted.frame()).unwrap();
            let header = link(254, 1, Tags::default(), addresses);
            write_link(frame.head_mut(), &header);
            let own = crate::testing::mac(254);
            assert_eq!(parse(frame.head(), frame.len(), own), Ok((headers, Tags::default())));
            // Samples have a window of 8192; that of a bare segment is of no matter, and 0.
            let segment = wanted.ip();
            let at = segment.len() - tcp::HEADER_LEN;
            assert_eq!(frame.bytes()[14..][..at], segment[..at]);
            assert_eq!(frame.bytes()[14 + at..][..14], segment[at..][..14]);
            assert!(crate::samples::is_valid(&frame.bytes()[14..]));
        }
    }
}

//! The packets: which client sends what, and how that looks on the wire.

use dataplane::csum;
use dataplane::wire::{eth, ipv4, tcp, write_u16, write_u32};

use crate::world::{GATEWAY_MAC, OWN_MAC};

/// Bytes of a frame in memory. On the wire the frame check sequence makes it [`WIRE_LEN`].
pub const FRAME_LEN: usize = 60;
/// Bytes of a frame on the wire: the least that Ethernet allows.
pub const WIRE_LEN: usize = FRAME_LEN + 4;

/// Flows at most; their clients fit 10.0.0.0/8.
pub const MAX_FLOWS: u32 = 16_000_000;

/// An address and port, in host order.
pub type Endpoint = (u32, u16);

const FIRST_CLIENT: u32 = 0x0a00_0001;
const FIRST_PORT: u16 = 40_000;
/// Flows of one client.
const PORTS: u32 = 4;

/// The client's side of a flow.
pub fn client_of(flow: u32) -> Endpoint {
    (FIRST_CLIENT + flow / PORTS, FIRST_PORT + (flow % PORTS) as u16)
}

/// The flow of a client's address and port.
pub fn flow_of((address, port): Endpoint) -> u32 {
    (address - FIRST_CLIENT) * PORTS + u32::from(port - FIRST_PORT)
}

/// A TCP segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// TCP flags.
    pub flags: u8,
}

impl Segment {
    /// The segment in a frame from the gateway to the balancer, padded, with both checksums right.
    pub fn frame(&self) -> [u8; FRAME_LEN] {
        const L4: usize = eth::HEADER_LEN + ipv4::HEADER_LEN;
        const END: usize = L4 + tcp::HEADER_LEN;
        const TCP_LEN: u16 = tcp::HEADER_LEN as u16;
        let mut bytes = [0; FRAME_LEN];
        bytes[..eth::HEADER_LEN].copy_from_slice(&eth::header(OWN_MAC, GATEWAY_MAC, eth::TYPE_IPV4));
        let ip = &mut bytes[eth::HEADER_LEN..L4];
        ip[0] = 0x45;
        write_u16(ip, ipv4::TOTAL_LEN, ipv4::HEADER_LEN as u16 + TCP_LEN);
        write_u16(ip, ipv4::FRAGMENT, ipv4::DONT_FRAGMENT);
        ip[ipv4::TTL] = 64;
        ip[ipv4::PROTOCOL] = ipv4::PROTOCOL_TCP;
        write_u32(ip, ipv4::SRC, self.src.0);
        write_u32(ip, ipv4::DST, self.dst.0);
        write_u16(ip, ipv4::CHECKSUM, !csum::sum(ip));
        let mut pseudo = [0; 12];
        pseudo[..8].copy_from_slice(&ip[ipv4::SRC..]);
        pseudo[9] = ipv4::PROTOCOL_TCP;
        write_u16(&mut pseudo, 10, TCP_LEN);
        let segment = &mut bytes[L4..END];
        write_u16(segment, tcp::SRC_PORT, self.src.1);
        write_u16(segment, tcp::DST_PORT, self.dst.1);
        segment[tcp::DATA_OFFSET] = 0x50;
        segment[tcp::FLAGS] = self.flags;
        // What the incremental update adds to: the sum of the pseudo header and of the segment.
        let checksum = csum::Delta::default().word(!csum::sum(&pseudo), 0).apply(!csum::sum(segment));
        write_u16(segment, tcp::CHECKSUM, checksum);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::parse::parse;

    #[test]
    fn clients_and_flows_correspond() {
        for flow in [0, 1, 3, 4, 999_999, MAX_FLOWS - 1] {
            assert_eq!(flow_of(client_of(flow)), flow);
        }
        assert!(client_of(MAX_FLOWS - 1).0 < 0x0b00_0000);
    }

    #[test]
    fn frames_parse_as_what_they_are() {
        let segment = Segment { src: client_of(5), dst: (0xc000_0201, 80), flags: tcp::ACK };
        let frame = segment.frame();
        let headers = parse(&frame, frame.len(), OWN_MAC).unwrap();
        assert_eq!(
            ((headers.ip.src, headers.src_port), (headers.ip.dst, headers.dst_port)),
            (segment.src, segment.dst)
        );
        assert_eq!((headers.ip.len, headers.ip.ttl, headers.tcp_flags), (40, 64, tcp::ACK));
    }

    #[test]
    fn the_tcp_checksum_is_right() {
        let frame = Segment { src: client_of(5), dst: (0xc000_0201, 80), flags: tcp::SYN }.frame();
        let mut covered = frame[26..34].to_vec();
        covered.extend([0, ipv4::PROTOCOL_TCP, 0, 20]);
        covered.extend(&frame[34..54]);
        assert_eq!(csum::sum(&covered), 0xffff);
    }
}

//! The packets: which client sends what, and how that looks on the wire.

use std::net::{IpAddr, SocketAddr};

use dataplane::csum;
use dataplane::packet::Addresses;
use dataplane::wire::{eth, ipv4, ipv6, tcp, write, write_u16};

use super::family::{Family, Net};
use super::world::{GATEWAY_MAC, OWN_MAC};

/// Bytes of a frame in memory at least: Ethernet pads shorter ones.
const SHORTEST: usize = 60;
/// Bytes that the frame check sequence adds on the wire.
const CHECK_LEN: usize = 4;

/// Flows at most; their clients fit 10.0.0.0/8.
pub const MAX_FLOWS: u32 = 16_000_000;

const FIRST_PORT: u16 = 40_000;
/// Flows of one client.
const PORTS: u32 = 4;

/// The client's side of a flow.
pub fn client_of(family: Family, flow: u32) -> SocketAddr {
    SocketAddr::new(family.address(Net::Clients, 1 + flow / PORTS), FIRST_PORT + (flow % PORTS) as u16)
}

/// The flow of a client's address and port.
pub fn flow_of(client: SocketAddr) -> u32 {
    let number = match client.ip() {
        IpAddr::V4(address) => address.to_bits() & 0x00ff_ffff,
        // All clients are in one network, and differ in these bits.
        IpAddr::V6(address) => address.to_bits() as u32,
    };
    (number - 1) * PORTS + u32::from(client.port() - FIRST_PORT) % PORTS
}

/// The same flow by the client's next port that stands for it.
pub fn with_next_port(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip(), client.port() + PORTS as u16)
}

/// Number of the last client of the first so many flows.
pub fn clients(flows: u32) -> u32 {
    flows.div_ceil(PORTS)
}

/// Bytes on the wire of a frame that shall have `frame`, but has room for its headers at least.
pub fn wire_len(family: Family, frame: u16) -> usize {
    frame_len(family, frame) + CHECK_LEN
}

/// The same in memory.
fn frame_len(family: Family, frame: u16) -> usize {
    usize::from(frame).saturating_sub(CHECK_LEN).max(headers_len(family)).max(SHORTEST)
}

fn headers_len(family: Family) -> usize {
    eth::HEADER_LEN + family.header_len() + tcp::HEADER_LEN
}

/// A TCP segment. Both ends are of one IP version.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// TCP flags.
    pub flags: u8,
    /// Bytes on the wire that its frame shall have.
    pub frame: u16,
}

impl Segment {
    /// Puts the segment, in a frame from the gateway to the balancer, before other bytes; its checksums are
    /// right. Without data it is padded; the data of longer ones are zeros. Returns the length of the frame.
    pub fn write(&self, bytes: &mut [u8]) -> usize {
        let (family, addresses) = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (Family::Ipv4, Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() })
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                (Family::Ipv6, Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() })
            }
            _ => return 0,
        };
        let len = frame_len(family, self.frame);
        let data = if len > SHORTEST { len - headers_len(family) } else { 0 };
        // A frame's length has 16 bits.
        let segment_len = (tcp::HEADER_LEN + data) as u16;
        let ethertype = match addresses {
            Addresses::V4 { src, dst } => {
                let header = ipv4::NewHeader {
                    tos: 0,
                    total_len: ipv4::HEADER_LEN as u16 + segment_len,
                    id: 0,
                    fragment: ipv4::DONT_FRAGMENT,
                    ttl: 64,
                    protocol: ipv4::PROTOCOL_TCP,
                    src,
                    dst,
                };
                write(bytes, eth::HEADER_LEN, &header.bytes());
                eth::TYPE_IPV4
            }
            Addresses::V6 { src, dst } => {
                let header = ipv6::NewHeader {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: segment_len,
                    next: ipv4::PROTOCOL_TCP,
                    hop_limit: 64,
                    src,
                    dst,
                };
                write(bytes, eth::HEADER_LEN, &header.bytes());
                eth::TYPE_IPV6
            }
        };
        write(bytes, 0, &eth::header(OWN_MAC, GATEWAY_MAC, ethertype));
        let l4 = eth::HEADER_LEN + family.header_len();
        bytes[l4..len].fill(0);
        let segment = &mut bytes[l4..l4 + usize::from(segment_len)];
        write_u16(segment, tcp::SRC_PORT, self.src.port());
        write_u16(segment, tcp::DST_PORT, self.dst.port());
        segment[tcp::DATA_OFFSET] = 0x50;
        segment[tcp::FLAGS] = self.flags;
        let checksum = csum::transport(addresses, ipv4::PROTOCOL_TCP, segment);
        write_u16(segment, tcp::CHECKSUM, checksum);
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::parse::parse;
    use dataplane::wire::eth::Tags;

    const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    #[test]
    fn clients_and_flows_correspond() {
        for (family, flow) in FAMILIES
            .iter()
            .flat_map(|family| [0, 1, 3, 4, 999_999, MAX_FLOWS - 1].map(|flow| (*family, flow)))
        {
            assert_eq!(flow_of(client_of(family, flow)), flow);
        }
        let last = client_of(Family::Ipv4, MAX_FLOWS - 1).ip();
        assert!(last < IpAddr::from([11, 0, 0, 0]));
    }

    #[test]
    fn frames_parse_as_what_they_are() {
        for (family, frame, len, ip_len) in [
            (Family::Ipv4, 64, 60, 40),
            (Family::Ipv4, 512, 508, 494),
            (Family::Ipv4, 1518, 1514, 1500),
            (Family::Ipv6, 64, 74, 60),
            (Family::Ipv6, 1500, 1496, 1482),
        ] {
            let dst = SocketAddr::new(family.address(Net::Vips, 1), 80);
            let segment = Segment { src: client_of(family, 5), dst, flags: tcp::ACK, frame };
            let mut bytes = [0xff; 1600];
            assert_eq!((segment.write(&mut bytes), wire_len(family, frame)), (len, len + 4));
            let (headers, tags) = parse(&bytes[..len], len, OWN_MAC).unwrap();
            assert_eq!(tags, Tags::default());
            let src = SocketAddr::new(headers.ip.addresses.src(), headers.src_port);
            assert_eq!((src, headers.ip.addresses.dst()), (segment.src, segment.dst.ip()));
            assert_eq!((headers.dst_port, headers.ip.ttl, headers.tcp_flags), (80, 64, tcp::ACK));
            assert_eq!(headers.ip.len, ip_len);
        }
    }

    #[test]
    fn the_tcp_checksum_is_right() {
        let dst = "192.0.2.1:80".parse().unwrap();
        for (frame, tcp_len) in [(64, 20), (512, 474)] {
            let mut bytes = [0xff; 600];
            Segment { src: client_of(Family::Ipv4, 5), dst, flags: tcp::SYN, frame }.write(&mut bytes);
            let mut covered = bytes[26..34].to_vec();
            covered.extend([0, ipv4::PROTOCOL_TCP]);
            covered.extend((tcp_len as u16).to_be_bytes());
            covered.extend(&bytes[34..34 + tcp_len]);
            assert_eq!(csum::sum(&covered), 0xffff);
        }
    }
}

//! Packets of both IP versions for tests: built whole, with their descriptor, and judged by full checksums.
//! Addresses are for documentation (RFC 5737, RFC 3849).

use std::net::{IpAddr, SocketAddr};

use config::words::Protocol;
use proptest::prelude::*;

use crate::buf::HeapFrame;
use crate::csum;
use crate::packet::{Addresses, Fragment, Headers, Packet};
use crate::testing::mac;
use crate::wire::eth::{self, LinkHeader, Tags};
use crate::wire::{ipv4, ipv6, tcp, udp};

pub const CLIENT4: &str = "203.0.113.7:40000";
pub const VIP4: &str = "192.0.2.100:80";
pub const BACKEND4: &str = "198.51.100.11:8000";
pub const CLIENT6: &str = "[2001:db8:c::7]:40000";
pub const VIP6: &str = "[2001:db8::100]:80";
pub const BACKEND6: &str = "[2001:db8:b::11]:8000";

/// The bytes that hexadecimal digits stand for.
pub fn hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// An IPv6 address in host order.
pub fn address(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().to_bits()
}

/// An address and port.
pub fn endpoint(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Source and destination of one version.
pub fn addresses(src: IpAddr, dst: IpAddr) -> Addresses {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() },
        _ => panic!("{src} and {dst}"),
    }
}

/// An Ethernet header from the station with MAC [`mac`]`(from)` to that with `mac(to)`.
pub fn link(to: u8, from: u8, tags: Tags, addresses: Addresses) -> LinkHeader {
    let ethertype = match addresses {
        Addresses::V4 { .. } => eth::TYPE_IPV4,
        Addresses::V6 { .. } => eth::TYPE_IPV6,
    };
    LinkHeader::new(mac(to), mac(from), tags, ethertype)
}

/// What an IP packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp {
        flags: u8,
        /// Whole words.
        options: Vec<u8>,
    },
    Udp {
        /// Whether the sender computed one.
        checksum: bool,
    },
    /// ICMP or ICMPv6: type and code, and the word that depends on them. Such a packet has no ports.
    Icmp([u8; 2], [u8; 4]),
}

/// A packet under construction; all its checksums are right.
#[derive(Clone, Debug)]
pub struct Sample {
    pub tags: Tags,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    pub tos: u8,
    pub id: u16,
    pub dont_fragment: bool,
    /// IPv4 options, whole words; in IPv6 one options header of so many bytes, made whole.
    pub options: Vec<u8>,
    pub body: Body,
    pub payload: Vec<u8>,
    /// For a piece of the packet: where it begins behind the IP header, and how many bytes it has at most.
    pub piece: Option<(u16, usize)>,
}

/// A TCP segment that opens a connection.
pub fn syn(src: &str, dst: &str) -> Sample {
    Sample {
        tags: Tags::default(),
        src: endpoint(src),
        dst: endpoint(dst),
        ttl: 64,
        tos: 0,
        id: 0x1234,
        dont_fragment: true,
        options: Vec::new(),
        body: Body::Tcp { flags: tcp::SYN, options: Vec::new() },
        payload: b"GET /".to_vec(),
        piece: None,
    }
}

/// A UDP datagram with a checksum.
pub fn datagram(src: &str, dst: &str) -> Sample {
    Sample { body: Body::Udp { checksum: true }, ..syn(src, dst) }
}

/// An ICMP message of the addresses' IP version.
pub fn icmp(src: &str, dst: &str, kind: [u8; 2], rest: [u8; 4], data: &[u8]) -> Sample {
    Sample { body: Body::Icmp(kind, rest), payload: data.to_vec(), ..syn(src, dst) }
}

impl Sample {
    fn addresses(&self) -> Addresses {
        addresses(self.src.ip(), self.dst.ip())
    }

    fn next(&self) -> u8 {
        match (&self.body, self.src) {
            (Body::Tcp { .. }, _) => ipv4::PROTOCOL_TCP,
            (Body::Udp { .. }, _) => ipv4::PROTOCOL_UDP,
            (Body::Icmp(..), SocketAddr::V4(_)) => ipv4::PROTOCOL_ICMP,
            (Body::Icmp(..), SocketAddr::V6(_)) => ipv6::NEXT_ICMP,
        }
    }

    /// The transport header and what follows it.
    fn transport(&self) -> Vec<u8> {
        let (src_port, dst_port) = (self.src.port().to_be_bytes(), self.dst.port().to_be_bytes());
        let ports = [src_port[0], src_port[1], dst_port[0], dst_port[1]];
        let (header, checksum_at) = match &self.body {
            Body::Tcp { flags, options } => {
                let offset = ((20 + options.len()) << 2) as u8;
                let fixed = [0, 0, 0, 1, 0, 0, 0, 2, offset, *flags, 0x20, 0, 0, 0, 0, 0];
                ([&ports[..], &fixed, options].concat(), tcp::CHECKSUM)
            }
            Body::Udp { .. } => {
                let len = ((udp::HEADER_LEN + self.payload.len()) as u16).to_be_bytes();
                ([&ports[..], &len, &[0, 0]].concat(), udp::CHECKSUM)
            }
            Body::Icmp(kind, rest) => ([&kind[..], &[0, 0], rest].concat(), 2),
        };
        let mut bytes = [header, self.payload.clone()].concat();
        let checksum = match (&self.body, self.src) {
            (Body::Udp { checksum: false }, _) => 0,
            (Body::Icmp(..), SocketAddr::V4(_)) => !csum::sum(&bytes),
            _ => csum::transport(self.addresses(), self.next(), &bytes),
        };
        let checksum = match (&self.body, checksum) {
            (Body::Udp { checksum: true }, 0) => 0xffff,
            _ => checksum,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The piece of this packet that begins at `offset`, with at most `len` bytes; both multiples of 8.
    pub fn piece(&self, offset: u16, len: usize) -> Self {
        Self { piece: Some((offset, len)), dont_fragment: false, ..self.clone() }
    }

    /// What the packet, or piece, carries behind its IP header, and for a piece whether more follow.
    fn carried(&self) -> (Vec<u8>, bool) {
        let mut bytes = self.transport();
        let Some((offset, len)) = self.piece else { return (bytes, false) };
        bytes.drain(..usize::from(offset));
        let more = bytes.len() > len;
        bytes.truncate(len);
        (bytes, more)
    }

    /// The IP header with options or extension headers, before `carried` bytes.
    fn ip_header(&self, carried: usize, more: bool) -> Vec<u8> {
        match self.addresses() {
            Addresses::V4 { src, dst } => {
                let header_len = ipv4::HEADER_LEN + self.options.len();
                let mut ip = vec![0x40 | (header_len / 4) as u8, self.tos];
                ip.extend(((header_len + carried) as u16).to_be_bytes());
                ip.extend(self.id.to_be_bytes());
                let offset = self.piece.map_or(0, |(offset, _)| offset);
                let flags = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13 | (offset >> 3);
                ip.extend(flags.to_be_bytes());
                ip.extend([self.ttl, self.next(), 0, 0]);
                ip.extend(src.to_be_bytes());
                ip.extend(dst.to_be_bytes());
                ip.extend(&self.options);
                let checksum = !csum::sum(&ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                ip
            }
            Addresses::V6 { src, dst } => {
                let mut chain = Vec::new();
                let mut next = self.next();
                if let Some((offset, _)) = self.piece {
                    let [high, low] = (offset | u16::from(more)).to_be_bytes();
                    chain = [&[next, 0, high, low], &u32::from(self.id).to_be_bytes()[..]].concat();
                    next = ipv6::NEXT_FRAGMENT;
                }
                if !self.options.is_empty() {
                    let words = (2 + self.options.len()).div_ceil(8);
                    let mut options = vec![0; 8 * words];
                    options[..2].copy_from_slice(&[next, words as u8 - 1]);
                    chain = [options, chain].concat();
                    next = ipv6::NEXT_DESTINATION;
                }
                let mut ip = (6 << 28 | u32::from(self.tos) << 20 | 0x12345).to_be_bytes().to_vec();
                ip.extend(((chain.len() + carried) as u16).to_be_bytes());
                ip.extend([next, self.ttl]);
                ip.extend(src.to_be_bytes());
                ip.extend(dst.to_be_bytes());
                ip.extend(chain);
                ip
            }
        }
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let (carried, more) = self.carried();
        [self.ip_header(carried.len(), more), carried].concat()
    }

    /// The frame, from MAC [`mac`]`(1)` to `mac(254)`.
    pub fn bytes(&self) -> Vec<u8> {
        self.sent(254, 1)
    }

    /// The frame between other stations.
    pub fn sent(&self, to: u8, from: u8) -> Vec<u8> {
        [link(to, from, self.tags, self.addresses()).bytes(), &self.ip()].concat()
    }

    /// The frame, in one segment.
    pub fn frame(&self) -> HeapFrame {
        HeapFrame::new(&self.bytes())
    }

    /// What the parser would say of the frame's packet.
    pub fn packet(&self) -> Packet {
        let l3 = link(0, 0, self.tags, self.addresses()).bytes().len();
        let ip = self.ip();
        let l4 = l3 + self.ip_header(0, false).len();
        let is_v6 = self.src.is_ipv6();
        Packet {
            addresses: self.addresses(),
            l3: l3 as u16,
            l4: l4 as u16,
            len: ip.len() as u16,
            ttl: self.ttl,
            tos: self.tos,
            next: self.next(),
            dont_fragment: is_v6 || self.dont_fragment,
            fragment: self.piece.map(|(offset, _)| Fragment {
                id: self.id.into(),
                offset,
                more: self.carried().1,
                header: if is_v6 { l4 as u16 - 8 } else { 0 },
            }),
        }
    }

    /// What the parser would say of the frame; later pieces get their ports as from their first one.
    pub fn headers(&self) -> Headers {
        let (protocol, tcp_flags) = match &self.body {
            Body::Tcp { flags, .. } => (Protocol::Tcp, *flags),
            Body::Udp { .. } => (Protocol::Udp, 0),
            Body::Icmp(..) => panic!("ICMP has no ports"),
        };
        Headers {
            ip: self.packet(),
            src_port: self.src.port(),
            dst_port: self.dst.port(),
            protocol,
            tcp_flags,
        }
    }
}

/// Whether an IP packet is whole and has right checksums, its own and that of the TCP, UDP or ICMP in it. The
/// packet is no piece.
pub fn is_valid(ip: &[u8]) -> bool {
    match ip[0] >> 4 {
        4 => {
            let header_len = usize::from(ip[0] & 0xf) * 4;
            let (header, carried) = ip.split_at(header_len);
            let word = |at: usize| u32::from_be_bytes(ip[at..at + 4].try_into().unwrap());
            usize::from(u16::from_be_bytes([ip[2], ip[3]])) == ip.len()
                && csum::sum(header) == 0xffff
                && carries_valid(Addresses::V4 { src: word(12), dst: word(16) }, ip[9], carried)
        }
        6 => {
            let (mut next, mut carried) = (ip[6], &ip[40..]);
            while next == ipv6::NEXT_DESTINATION || next == ipv6::NEXT_FRAGMENT {
                let len = if next == ipv6::NEXT_FRAGMENT { 8 } else { 8 + 8 * usize::from(carried[1]) };
                (next, carried) = (carried[0], &carried[len..]);
            }
            let address = |at: usize| u128::from_be_bytes(ip[at..at + 16].try_into().unwrap());
            usize::from(u16::from_be_bytes([ip[4], ip[5]])) + 40 == ip.len()
                && carries_valid(Addresses::V6 { src: address(8), dst: address(24) }, next, carried)
        }
        _ => false,
    }
}

fn carries_valid(addresses: Addresses, next: u8, bytes: &[u8]) -> bool {
    match next {
        ipv4::PROTOCOL_UDP if bytes[6..8] == [0, 0] => true,
        ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP | ipv6::NEXT_ICMP => {
            csum::transport(addresses, next, bytes) == 0
        }
        ipv4::PROTOCOL_ICMP => csum::sum(bytes) == 0xffff,
        _ => true,
    }
}

/// How often a property is tried: seldom where each instruction is interpreted.
pub fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 })
}

fn body() -> impl Strategy<Value = Body> {
    let options = (0usize..=10).prop_map(|words| vec![1; 4 * words]);
    prop_oneof![
        (1u8..=0x3f, options).prop_map(|(flags, options)| Body::Tcp { flags, options }),
        any::<bool>().prop_map(|checksum| Body::Udp { checksum }),
    ]
}

fn tags() -> impl Strategy<Value = Tags> {
    prop_oneof![
        Just(Tags::default()),
        Just(Tags { outer: 0, inner: 100 }),
        Just(Tags { outer: 2000, inner: 100 }),
    ]
}

/// Packets with TCP or UDP, of the version that is chosen, as various as they come.
pub fn packets(v6: bool) -> impl Strategy<Value = Sample> {
    let (src, dst) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
    let ends =
        (any::<(u16, u16)>(), any::<(u128, u128)>()).prop_map(move |((src_port, dst_port), (a, b))| {
            let place = |text: &str, bits: u128, port| match endpoint(text).ip() {
                IpAddr::V4(ip) => SocketAddr::new((u32::from(ip) ^ bits as u32).to_be_bytes().into(), port),
                IpAddr::V6(ip) => SocketAddr::new((u128::from(ip) ^ bits).to_be_bytes().into(), port),
            };
            (place(src, a, src_port), place(dst, b, dst_port))
        });
    let header = (2u8..=255, any::<u8>(), any::<u16>(), any::<bool>(), (0usize..=10));
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    (tags(), ends, header, body(), payload).prop_map(|(tags, (src, dst), header, body, payload)| {
        let (ttl, tos, id, dont_fragment, words) = header;
        let options = vec![1; 4 * words];
        Sample { tags, src, dst, ttl, tos, id, dont_fragment, options, body, payload, piece: None }
    })
}

/// The same of either version.
pub fn any_packets() -> impl Strategy<Value = Sample> {
    any::<bool>().prop_flat_map(packets)
}

/// Ethernet headers of any length for packets of one version.
pub fn links(v6: bool) -> impl Strategy<Value = LinkHeader> {
    let ethertype = if v6 { eth::TYPE_IPV6 } else { eth::TYPE_IPV4 };
    tags().prop_map(move |tags| LinkHeader::new(mac(11), mac(254), tags, ethertype))
}

/// The packets are scapy's.
#[test]
fn samples_are_as_another_encoder_makes_them() {
    for (sample, packet) in [
        (
            Sample { tos: 0xb9, ..syn(CLIENT4, VIP4) },
            "45b9002d1234400040062972cb007107c0000264\
             9c4000500000000100000002500220002a780000474554202f",
        ),
        (
            Sample { tos: 0xb9, ..syn(CLIENT6, VIP6) },
            "6b9123450019064020010db8000c0000000000000000000720010db8000000000000000000000100\
             9c400050000000010000000250022000cc5f0000474554202f",
        ),
        (
            icmp(CLIENT4, VIP4, [8, 0], [0, 7, 0, 1], b"abcdefg"),
            "450000231234400040012a3acb007107c0000264080066ca0007000161626364656667",
        ),
        (
            icmp(VIP6, CLIENT6, [129, 0], [0, 7, 0, 1], b"abcdefg"),
            "60012345000f3a4020010db800000000000000000000010020010db8000c00000000000000000007\
             810090fb0007000161626364656667",
        ),
    ] {
        assert_eq!(sample.ip(), hex(packet));
        assert!(is_valid(&hex(packet)));
    }
}

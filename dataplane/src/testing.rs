//! What the crate's tests share: a small configured world, and frames with documentation addresses
//! (RFC 5737) and documentation MACs (RFC 7042).

use std::sync::Arc;

use config::words::{MacAddr, Mode, Scheduler};
use ipnet::Ipv4Net;

use crate::csum;
use crate::flow::state::Timeouts;
use crate::lookup::Lookup;
use crate::route::{Address, InterfaceId, NextHop, Route, RouteTable};
use crate::snapshot::{
    Backend, BackendSlot, Candidate, Parts, PortInfo, Service, ServiceSlot, Snapshot, neighbour_key,
};
use crate::wire::{eth, ipv4, tcp, udp};

/// The port's own address: 198.51.100.254, with MAC [`mac`]`(254)`. The gateway is 198.51.100.1.
pub const OWN: [u8; 4] = [198, 51, 100, 254];
pub const CLIENT: [u8; 4] = [203, 0, 113, 7];
pub const VIP: [u8; 4] = [192, 0, 2, 100];

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, last])
}

/// One port on 198.51.100.0/24 with a default route; stations .1, .11, .12 and .13 are known.
pub fn parts() -> Parts {
    let station = |last: u8| {
        let address = u32::from_be_bytes([198, 51, 100, last]);
        (neighbour_key(NextHop { interface: InterfaceId(0), address: address.ip() }), mac(last))
    };
    let link: Ipv4Net = "198.51.100.254/24".parse().unwrap();
    let gateway = Some(u32::from_be_bytes([198, 51, 100, 1]));
    Parts {
        ports: vec![PortInfo { mac: mac(254), mtu: 1500, address: Some(u32::from_be_bytes(OWN)) }],
        own: vec![u32::from_be_bytes(OWN)],
        routes: Arc::new(RouteTable::new([
            (link, Route { interface: InterfaceId(0), gateway: None }),
            ("0.0.0.0/0".parse().unwrap(), Route { interface: InterfaceId(0), gateway }),
        ])),
        neighbours: Arc::new(Lookup::new([station(1), station(11), station(12), station(13)].into_iter())),
        services: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::new(config::model::Timeouts { tcp_secs: 900, tcp_fin_secs: 120, udp_secs: 300 }),
    }
}

pub fn service(key: &str, weights: &[(u32, u16)]) -> Service {
    let candidates =
        weights.iter().map(|&(slot, weight)| Candidate { backend: BackendSlot(slot), weight }).collect();
    Service::new(key.parse().unwrap(), Scheduler::Rr, 1, candidates)
}

pub fn backend(service: u16, address: &str, mode: Mode) -> Backend {
    Backend {
        service: ServiceSlot(service),
        address: address.parse().unwrap(),
        mode,
        tunnel_src: u32::from_be_bytes(OWN),
        up: true,
    }
}

/// A world with one service on port 80 of the VIP, TCP and UDP, whose three backends are reached in `mode`.
pub fn world(mode: Mode) -> Parts {
    let port = if mode == Mode::Nat { 8000 } else { 80 };
    let address = |last: u32| format!("198.51.100.{}:{port}", 11 + last % 3);
    Parts {
        services: vec![
            Some(service("tcp:192.0.2.100:80", &[(0, 1), (1, 1), (2, 1)]).into()),
            Some(service("udp:192.0.2.100:80", &[(3, 1), (4, 1), (5, 1)]).into()),
        ],
        backends: (0..6).map(|slot| Some(backend(slot / 3, &address(slot.into()), mode))).collect(),
        ..parts()
    }
}

pub fn snapshot(mode: Mode) -> Snapshot {
    Snapshot::new(world(mode))
}

/// A frame under construction: Ethernet and IPv4 with TCP or UDP, all checksums right.
#[derive(Clone, Debug)]
pub struct Packet {
    pub dst_mac: MacAddr,
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub ports: (u16, u16),
    pub ttl: u8,
    pub tos: u8,
    pub dont_fragment: bool,
    pub options: Vec<u8>,
    /// TCP flags; `None` makes it UDP.
    pub tcp_flags: Option<u8>,
    pub payload: Vec<u8>,
}

pub fn packet(src: ([u8; 4], u16), dst: ([u8; 4], u16)) -> Packet {
    Packet {
        dst_mac: mac(254),
        src: src.0,
        dst: dst.0,
        ports: (src.1, dst.1),
        ttl: 64,
        tos: 0,
        dont_fragment: true,
        options: Vec::new(),
        tcp_flags: Some(tcp::SYN),
        payload: b"GET /".to_vec(),
    }
}

impl Packet {
    pub fn flags(mut self, flags: u8) -> Self {
        self.tcp_flags = Some(flags);
        self
    }

    pub fn udp(mut self) -> Self {
        self.tcp_flags = None;
        self
    }

    /// The transport header and payload with their checksum.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        let (protocol, checksum_at) = match self.tcp_flags {
            Some(flags) => {
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
                (ipv4::PROTOCOL_TCP, tcp::CHECKSUM)
            }
            None => {
                bytes.extend(((udp::HEADER_LEN + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                (ipv4::PROTOCOL_UDP, udp::CHECKSUM)
            }
        };
        bytes.extend(&self.payload);
        let mut covered = [self.src, self.dst].concat();
        covered.extend([0, protocol]);
        covered.extend((bytes.len() as u16).to_be_bytes());
        covered.extend(&bytes);
        let checksum = match !csum::sum(&covered) {
            0 if self.tcp_flags.is_none() => 0xffff,
            sum => sum,
        };
        bytes[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let header_len = ipv4::HEADER_LEN + self.options.len();
        let mut ip = vec![0x40 | (header_len / 4) as u8, self.tos];
        ip.extend(((header_len + transport.len()) as u16).to_be_bytes());
        ip.extend([0x12, 0x34, if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl]);
        ip.push(if self.tcp_flags.is_some() { ipv4::PROTOCOL_TCP } else { ipv4::PROTOCOL_UDP });
        ip.extend([0, 0]);
        ip.extend(self.src);
        ip.extend(self.dst);
        ip.extend(&self.options);
        let checksum = !csum::sum(&ip);
        ip[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
        let link = eth::header(self.dst_mac, mac(1), eth::TYPE_IPV4);
        [&link[..], &ip, &transport].concat()
    }
}

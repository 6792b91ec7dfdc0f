//! What the crate's tests share: a small configured world, and frames with documentation addresses
//! (RFC 5737) and documentation MACs (RFC 7042).

use std::hash::RandomState;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use config::words::{ClientAddress, Fate, MacAddr, Mode, NoBackend, Ports, Preset, Scheduler};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::csum;
use crate::flow::state::Timeouts;
use crate::flow::table::HashSecret;
use crate::forward::{PieceSetup, Setup};
use crate::port::PortId;
use crate::rewrite::tunnel::Encapsulation;
use crate::route::{InterfaceId, NextHop, Route, RouteTable};
use crate::snapshot::{
    Backend, BackendSlot, Candidate, Interface, NeighbourTable, Parts, Routes, Service, ServiceSlot,
    Snapshot, Tunnel,
};
use crate::team::Team;
use crate::wire::eth::Tags;
use crate::wire::{eth, ipv4, tcp, udp};

/// The port's own address: 198.51.100.254, with MAC [`mac`]`(254)`. The gateway is 198.51.100.1.
pub const OWN: [u8; 4] = [198, 51, 100, 254];
pub const CLIENT: [u8; 4] = [203, 0, 113, 7];
pub const VIP: [u8; 4] = [192, 0, 2, 100];
/// The port's own IPv6 address.
pub const OWN6: &str = "2001:db8:b::254";

pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, last])
}

/// One port on 198.51.100.0/24 and 2001:db8:b::/64 with default routes; stations .1, .11, .12 and .13 of both
/// are known.
pub fn parts() -> Parts {
    let station = |address: IpAddr, last: u8| (NextHop { interface: InterfaceId(0), address }, mac(last));
    let stations = [1, 11, 12, 13].into_iter().flat_map(|last| {
        let v6 = format!("2001:db8:b::{last}").parse::<Ipv6Addr>().unwrap();
        [station([198, 51, 100, last].into(), last), station(v6.into(), last)]
    });
    let own6: Ipv6Addr = OWN6.parse().unwrap();
    let on_link = InterfaceId(0);
    Parts {
        interfaces: vec![Interface {
            port: PortId(0),
            tags: Tags::default(),
            mac: mac(254),
            mtu: 1500,
            v4: Some(u32::from_be_bytes(OWN)),
            v6: Some(own6.to_bits()),
            host: false,
            gateway: None,
        }],
        own: vec![(OWN.into(), on_link), (own6.into(), on_link)],
        routes: Arc::new(Routes { v4: routes_v4(), v6: routes_v6() }),
        neighbours: Arc::new(NeighbourTable::new(stations)),
        classes: Vec::new(),
        locals: Vec::new(),
        pools: Vec::new(),
        services: Vec::new(),
        backends: Vec::new(),
        timeouts: vec![timeouts()],
        no_service: NoBackend::Drop,
        icmp_rate: 1000,
    }
}

fn routes_v4() -> RouteTable<u32> {
    let link: Ipv4Net = "198.51.100.254/24".parse().unwrap();
    let gateway = Some(u32::from_be_bytes([198, 51, 100, 1]));
    RouteTable::new([
        (link, Route { interface: InterfaceId(0), gateway: None }),
        ("0.0.0.0/0".parse().unwrap(), Route { interface: InterfaceId(0), gateway }),
    ])
}

fn routes_v6() -> RouteTable<u128> {
    let link: Ipv6Net = "2001:db8:b::/64".parse().unwrap();
    let gateway = Some("2001:db8:b::1".parse::<Ipv6Addr>().unwrap().to_bits());
    RouteTable::new([
        (link, Route { interface: InterfaceId(0), gateway: None }),
        ("::/0".parse().unwrap(), Route { interface: InterfaceId(0), gateway }),
    ])
}

/// How tests set a worker up, but for what they set themselves.
pub fn setup() -> Setup {
    Setup {
        number: 0,
        team: Team::new(1, 16, 64),
        flow_capacity: 100,
        wide_capacity: 100,
        pieces: PieceSetup { capacity: 16, timeout: 5, remember: 30, secret: RandomState::new() },
        services: 16,
        secret: HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]),
    }
}

/// IPVS's timeouts.
pub fn timeouts() -> Timeouts {
    Timeouts::new(&config::model::Timeouts::preset(Preset::Ipvs))
}

pub fn service(key: &str, weights: &[(u32, u32)]) -> Service {
    let candidates =
        weights.iter().map(|&(slot, weight)| Candidate::new(BackendSlot(slot), weight)).collect();
    Service::new(key.parse().unwrap(), Scheduler::Rr, 1, candidates)
}

/// A backend of a service on port 80.
pub fn backend(service: u16, address: &str, mode: Mode) -> Backend {
    let address: SocketAddr = address.parse().unwrap();
    let src = if address.is_ipv4() { OWN.into() } else { OWN6.parse().unwrap() };
    let tunnel = Tunnel { src, spread: None, encapsulation: Encapsulation::Ipip };
    Backend {
        service: ServiceSlot(service),
        address,
        mode,
        client_address: ClientAddress::None,
        tunnel: (mode == Mode::Tunnel).then_some(tunnel),
        up: true,
        fate: Fate::Keep,
        persists: true,
        timeouts: 0,
        port_shift: Backend::port_shift(Ports::one(80), address.port()),
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

/// Two workers do their work at the same moment, so many times. Returns what each turn's came to.
pub fn at_once<T: Send>(
    turns: u32,
    one: impl Fn(u32) -> T + Sync,
    other: impl Fn(u32) -> T + Sync,
) -> Vec<(T, T)> {
    let arrived = AtomicU32::new(0);
    // Both poll, for a thread that is woken comes too late; but a core may have both.
    let meet = |turn| {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut polled = 0;
        while arrived.load(Ordering::Acquire) < 2 * (turn + 1) {
            polled += 1;
            if polled % 1000 == 0 {
                std::thread::yield_now();
            }
        }
    };
    let run = |work: &(dyn Fn(u32) -> T + Sync)| -> Vec<T> {
        (0..turns).inspect(|turn| meet(*turn)).map(work).collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&other));
        run(&one).into_iter().zip(other.join().unwrap()).collect()
    })
}

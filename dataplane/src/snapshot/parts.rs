//! What a snapshot is made from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::words::{ClientAddress, Fate, MacAddr, Mode, NoBackend, Ports};
use ipnet::IpNet;

use super::Service;
use crate::flow::state::Timeouts;
use crate::local::LocalSlot;
use crate::lookup::{Lookup, Words};
use crate::packet::Headers;
use crate::port::PortId;
use crate::rewrite::tunnel::{Encapsulation, Outer, spread_source};
use crate::route::{InterfaceId, NextHop, RouteTable};
use crate::wire::eth::{self, LinkHeader, Tags};

/// Number of a service for as long as it or one of its flows exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceSlot(pub u16);

/// Number of a backend of one service for as long as it or one of its flows exists. At most 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot(pub u32);

impl BackendSlot {
    /// No backend: of the flows that NAT gateways keep.
    pub const NONE: Self = Self(0x00ff_ffff);
}

/// Number of an SNAT pool in one snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolSlot(pub u16);

/// A port, or one VLAN of it, as packets see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The device port that its frames come and go by.
    pub port: PortId,
    /// Its VLAN.
    pub tags: Tags,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet it sends, in bytes.
    pub mtu: u16,
    /// Its own IPv4 address, host order, from which it tells senders what went wrong.
    pub v4: Option<u32>,
    /// Its own IPv6 address, for the same.
    pub v6: Option<u128>,
    /// Whether the kernel has a tap device for it, and gets what is for its own addresses.
    pub host: bool,
    /// Whether stations on it may use the appliance as their router.
    pub gateway: Option<Gateway>,
}

/// How an inside interface's stations reach others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Their packets leave with an address of this pool, if there is one.
    pub pool: Option<PoolSlot>,
}

/// A named kind of packets: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Prefixes one of which covers the source; none means any source.
    pub sources: Vec<IpNet>,
    /// The (inner) VLAN it came by; 0 is untagged.
    pub vlan: Option<u16>,
    /// Its differentiated services code point.
    pub dscp: Option<u8>,
}

impl Class {
    /// Whether a packet is of this class.
    pub fn has(&self, headers: &Headers, tags: Tags) -> bool {
        let from = |net: &IpNet| net.contains(&headers.ip.addresses.src());
        (self.sources.is_empty() || self.sources.iter().any(from))
            && self.vlan.is_none_or(|vlan| vlan == tags.inner)
            && self.dscp.is_none_or(|dscp| dscp == headers.ip.tos >> 2)
    }
}

/// Local addresses of full NAT, by IP version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// IPv4 ones.
    pub v4: Vec<LocalSlot>,
    /// IPv6 ones.
    pub v6: Vec<LocalSlot>,
}

/// A backend that is configured, or was and has flows left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service it belongs to.
    pub service: ServiceSlot,
    /// Its address and port; port 0 is that of the client's packet.
    pub address: SocketAddr,
    /// How packets reach it.
    pub mode: Mode,
    /// How it learns its clients' addresses, with [`Mode::FullNat`].
    pub client_address: ClientAddress,
    /// The outer header, with [`Mode::Tunnel`].
    pub tunnel: Option<Tunnel>,
    /// Whether its checks let it live. One that is down keeps its flows, but no opening of one.
    pub up: bool,
    /// What becomes of its flows.
    pub fate: Fate,
    /// Whether clients come back to it that had it, even if it takes no others.
    pub persists: bool,
    /// Which of the snapshot's timeouts its flows have.
    pub timeouts: u16,
    /// What is added to a port of the service to get the backend's (modulo 2^16).
    pub port_shift: u16,
}

impl Backend {
    /// What a backend's port adds to a service's: ports of a range go to the backend's one by one, and port 0
    /// leaves them as they are.
    pub fn port_shift(service: Ports, backend: u16) -> u16 {
        match backend {
            0 => 0,
            base => base.wrapping_sub(service.first),
        }
    }

    /// The outer header of a packet through its tunnel. What is free in it follows the flow, so that the
    /// backend's receive side spreads flows over its queues.
    #[inline]
    pub fn outer(&self, through: &Tunnel, entropy: u16) -> Outer {
        let src = match through.spread {
            None => through.src,
            Some(prefix) => spread_source(prefix, entropy),
        };
        Outer { src, dst: self.address.ip(), encapsulation: through.encapsulation, entropy }
    }

    /// The longest packet that reaches it by an interface with this MTU.
    #[inline]
    pub fn room(&self, mtu: u16) -> u16 {
        match (self.mode, &self.tunnel) {
            (Mode::Tunnel, Some(through)) => mtu.saturating_sub(self.outer(through, 0).overhead()),
            _ => mtu,
        }
    }
}

/// How a tunnel to a backend is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Source address of the outer header, of the backend's IP version.
    pub src: IpAddr,
    /// Prefix to take it from by the flow instead.
    pub spread: Option<IpNet>,
    /// What is between the headers.
    pub encapsulation: Encapsulation,
}

/// How to send a packet on its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The next station.
    pub next_hop: NextHop,
    /// The device port it is reached by.
    pub port: PortId,
    /// Ethernet header; its destination is of no meaning unless `resolved`.
    pub link: LinkHeader,
    /// Whether the next station's Ethernet address is known.
    pub resolved: bool,
    /// Largest IP packet the interface sends, in bytes.
    pub mtu: u16,
}

impl Egress {
    /// Whether the next station is known, and its Ethernet header has no tags.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.resolved && self.link.bytes().len() == eth::HEADER_LEN
    }
}

/// All routes, by IP version.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// IPv4.
    pub v4: RouteTable<u32>,
    /// IPv6.
    pub v6: RouteTable<u128>,
}

/// Ethernet addresses of the stations on the links.
#[derive(Clone, Debug)]
pub struct NeighbourTable {
    v4: Lookup<u64, MacAddr>,
    v6: Lookup<Words, MacAddr>,
}

impl NeighbourTable {
    /// A table of these stations.
    pub fn new(stations: impl IntoIterator<Item = (NextHop, MacAddr)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (station, mac) in stations {
            match station.address {
                IpAddr::V4(address) => v4.push((station_v4(station.interface, address.to_bits()), mac)),
                IpAddr::V6(address) => v6.push((station_v6(station.interface, address.to_bits()), mac)),
            }
        }
        Self { v4: Lookup::new(v4.into_iter()), v6: Lookup::new(v6.into_iter()) }
    }

    /// The Ethernet address of a station, if it is known.
    #[inline]
    pub fn get(&self, station: NextHop) -> Option<MacAddr> {
        match station.address {
            IpAddr::V4(address) => self.v4.get(station_v4(station.interface, address.to_bits())),
            IpAddr::V6(address) => self.v6.get(station_v6(station.interface, address.to_bits())),
        }
    }
}

/// Not 0, by its high bit.
fn station_v4(interface: InterfaceId, address: u32) -> u64 {
    u64::from(address) << 32 | u64::from(interface.0) << 16 | 1
}

fn station_v6(interface: InterfaceId, address: u128) -> Words {
    Words([(address >> 64) as u64, address as u64, u64::from(interface.0) << 16 | 1])
}

/// What a snapshot is made from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// All interfaces, by number.
    pub interfaces: Vec<Interface>,
    /// All own addresses, and whose they are.
    pub own: Vec<(IpAddr, InterfaceId)>,
    /// All routes.
    pub routes: Arc<Routes>,
    /// All known stations.
    pub neighbours: Arc<NeighbourTable>,
    /// Packet classes by number.
    pub classes: Vec<Class>,
    /// Local addresses of full NAT, by slot.
    pub locals: Vec<IpAddr>,
    /// SNAT pools by slot.
    pub pools: Vec<Pool>,
    /// Services by slot.
    pub services: Vec<Option<Arc<Service>>>,
    /// Backends by slot.
    pub backends: Vec<Option<Backend>>,
    /// Idle timeouts of flows; the first are those of flows without a service.
    pub timeouts: Vec<Timeouts>,
    /// What becomes of a packet for one of our addresses that no service listens for.
    pub no_service: NoBackend,
    /// ICMP packets that a worker makes in a second at most.
    pub icmp_rate: u32,
}

//! What workers need to forward, frozen: services, backends, routes, neighbours.
//!
//! Made by the control thread, read by all workers, changed by nobody; a change is a new snapshot. What
//! changes with packets (flows, scheduler positions, counters, local ports) belongs to the workers.

mod service;
mod sharing;
mod tables;
mod way;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::words::{MacAddr, Mode, NoBackend, Ports, Protocol};
use ipnet::IpNet;

use crate::flow::state::Timeouts;
use crate::local::LocalSlot;
use crate::lookup::Lookup;
use crate::packet::{Addresses, Headers, Version};
use crate::parse::plain::Plain;
use crate::port::PortId;
use crate::prefetch::{gathered, prefetch};
use crate::rewrite::tunnel::{Encapsulation, Outer, spread_source};
use crate::route::{InterfaceId, NextHop, RouteTable};
use crate::wire::eth::{self, LinkHeader, Tags};
pub use service::{Candidate, Service};
use tables::Tables;
pub use tables::{Address, Direction, Found, Listener, Local, Repliers};
pub use way::{Carriage, Kept, Way};

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
    /// The outer header, with [`Mode::Tunnel`].
    pub tunnel: Option<Tunnel>,
    /// Whether its checks let it live. One that is down keeps its flows, but no opening of one.
    pub up: bool,
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
    v6: Lookup<[u64; 3], MacAddr>,
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
    1 << 63 | u64::from(interface.0) << 32 | u64::from(address)
}

fn station_v6(interface: InterfaceId, address: u128) -> [u64; 3] {
    [(address >> 64) as u64, address as u64, 1 << 63 | u64::from(interface.0)]
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

/// An address as what routes are looked up for.
pub trait Routed: Version {
    /// How to reach the gateway to it.
    fn gateway(self, snapshot: &Snapshot) -> Option<&Egress>;
}

impl Routed for u32 {
    #[inline]
    fn gateway(self, snapshot: &Snapshot) -> Option<&Egress> {
        snapshot.gateways_v4.get(snapshot.parts.routes.v4.range(self)?)?.as_ref()
    }
}

impl Routed for u128 {
    #[inline]
    fn gateway(self, snapshot: &Snapshot) -> Option<&Egress> {
        snapshot.gateways_v6.get(snapshot.parts.routes.v6.range(self)?)?.as_ref()
    }
}

/// Forwarding state that is in force from one generation to the next.
#[derive(Debug)]
pub struct Snapshot {
    /// The parts, as they were given.
    pub parts: Parts,
    /// Like all that is made from the parts, shared with the snapshots before it where nothing of that changed.
    tables: Arc<Tables>,
    /// Interface numbers by device port, and whether it is untagged.
    interfaces: Vec<Vec<(Tags, InterfaceId)>>,
    /// How each backend is reached, by slot.
    egress: Arc<Vec<Option<Egress>>>,
    /// The same for the fast path.
    ways: Arc<Vec<Option<Way>>>,
    /// How the gateways of routes are reached, by range of their table; none where stations are on the link.
    gateways_v4: Vec<Option<Egress>>,
    gateways_v6: Vec<Option<Egress>>,
    /// The shortest of all timeouts, in seconds: no flow that is idle for less is dead.
    pub shortest_timeout: u32,
}

impl Snapshot {
    /// Makes the tables that packets are looked up in.
    pub fn new(parts: Parts) -> Self {
        let mut snapshot = Self {
            tables: Arc::new(Tables::new(&parts)),
            interfaces: by_port(&parts.interfaces),
            egress: Arc::default(),
            ways: Arc::default(),
            gateways_v4: Vec::new(),
            gateways_v6: Vec::new(),
            shortest_timeout: shortest(&parts),
            parts,
        };
        let backends = snapshot.parts.backends.iter();
        snapshot.egress =
            Arc::new(gathered(backends.map(|backend| snapshot.egress_to(backend.as_ref()?.address.ip()))));
        let reached = snapshot.parts.backends.iter().zip(&*snapshot.egress);
        let way = |(backend, egress): (&Option<Backend>, &Option<Egress>)| {
            Way::new(backend.as_ref()?, egress.as_ref()?)
        };
        snapshot.ways = Arc::new(gathered(reached.map(way)));
        let Routes { v4, v6 } = &*snapshot.parts.routes;
        let reach = |gateway: Option<NextHop>| snapshot.egress_by(gateway?);
        let gateways = (v4.gateways().map(reach).collect(), v6.gateways().map(reach).collect());
        (snapshot.gateways_v4, snapshot.gateways_v6) = gateways;
        snapshot
    }

    /// The interface that a port's frames with these VLAN tags belong to.
    #[inline]
    pub fn interface_of(&self, port: PortId, tags: Tags) -> Option<InterfaceId> {
        let interfaces = self.interfaces.get(usize::from(port.0))?;
        interfaces.iter().find(|(its, _)| *its == tags).map(|(_, interface)| *interface)
    }

    /// An interface by its number.
    #[inline]
    pub fn interface(&self, number: InterfaceId) -> Option<&Interface> {
        self.parts.interfaces.get(usize::from(number.0))
    }

    /// The Ethernet address of a device port.
    pub fn mac(&self, port: PortId) -> Option<MacAddr> {
        self.parts.interfaces.iter().find(|interface| interface.port == port).map(|interface| interface.mac)
    }

    /// The service that a packet is for.
    #[inline]
    pub fn service_for(&self, headers: &Headers, tags: Tags) -> Option<Found> {
        self.tables.service_for(&self.parts, headers, tags, |_| true)
    }

    /// The same among the services that still take new flows.
    #[cold]
    pub fn open_service_for(&self, headers: &Headers, tags: Tags) -> Option<Found> {
        let is_open = |slot| self.service(slot).is_some_and(|service| !service.retired);
        self.tables.service_for(&self.parts, headers, tags, is_open)
    }

    /// The services for which a NAT backend with this address and port replies, with their ports; none if
    /// there is no such backend.
    #[inline]
    pub fn replies_of(&self, protocol: Protocol, address: IpAddr, port: u16) -> Repliers<'_> {
        self.tables.replies_of(protocol, address, port)
    }

    /// The same for the source of a packet.
    #[inline]
    pub fn replies_by(&self, headers: &Headers) -> Repliers<'_> {
        match headers.ip.addresses {
            Addresses::V4 { src, .. } => self.tables.replies_v4(headers.protocol, src, headers.src_port),
            Addresses::V6 { src, .. } => self.tables.replies_v6(headers.protocol, src, headers.src_port),
        }
    }

    /// Which address of ours an address is: an own one, a VIP, or a local one of full NAT.
    #[inline]
    pub fn local(&self, address: IpAddr) -> Option<Local> {
        self.tables.local(address)
    }

    /// Whether an address is one of ours.
    #[inline]
    pub fn is_local<A: Address>(&self, address: A) -> bool {
        self.tables.is_local(address)
    }

    /// Whether a NAT backend with this address and port replies for one service alone, and one port of it.
    #[inline]
    pub fn replies_for_one<A: Address>(&self, protocol: Protocol, backend: (A, u16)) -> bool {
        self.tables.replies_for_one(protocol, backend)
    }

    /// Whether it has too many services or backends for the caches, so that it pays to ask for them early.
    #[inline]
    pub fn is_large(&self) -> bool {
        const MANY: usize = 2048;
        self.ways.len() > MANY
    }

    /// Asks for what [`Self::listener`] and [`Self::direction`] read to come into the cache.
    #[inline]
    pub fn prefetch_direction<A: Address>(&self, plain: &Plain<A>) {
        self.tables.prefetch_direction(plain);
    }

    /// Asks for what [`Self::replies_for_one`] reads to come into the cache.
    #[inline]
    pub fn prefetch_replies<A: Address>(&self, protocol: Protocol, backend: (A, u16)) {
        self.tables.prefetch_replies(protocol, backend);
    }

    /// Asks for what [`Self::service`] reads to come into the cache.
    #[inline]
    pub fn prefetch_service(&self, slot: ServiceSlot) {
        prefetch(self.parts.services.as_ptr().wrapping_add(usize::from(slot.0)));
    }

    /// Asks for what [`Self::way`] reads to come into the cache.
    #[inline]
    pub fn prefetch_way(&self, slot: BackendSlot) {
        prefetch(self.ways.as_ptr().wrapping_add(slot.0 as usize));
    }

    /// Whether there are local addresses, so that replies of full NAT may come.
    #[inline]
    pub fn has_locals(&self) -> bool {
        !self.parts.locals.is_empty()
    }

    /// The local addresses of a pool that backends of the same IP version as `toward` see.
    #[inline]
    pub fn pool(&self, slot: PoolSlot, toward: IpAddr) -> Option<&[LocalSlot]> {
        let pool = self.parts.pools.get(usize::from(slot.0))?;
        Some(if toward.is_ipv4() { &pool.v4 } else { &pool.v6 })
    }

    /// The same for backends of IP version `A`.
    #[inline]
    pub fn pool_of<A: Version>(&self, slot: PoolSlot) -> Option<&[LocalSlot]> {
        let pool = self.parts.pools.get(usize::from(slot.0))?;
        Some(if A::IS_V4 { &pool.v4 } else { &pool.v6 })
    }

    /// The address in a local slot.
    #[inline]
    pub fn local_address(&self, slot: LocalSlot) -> Option<IpAddr> {
        self.parts.locals.get(usize::from(slot.0)).copied()
    }

    /// The address from which an interface speaks to stations of the same IP version as `toward`.
    pub fn own_address(&self, interface: InterfaceId, toward: IpAddr) -> Option<IpAddr> {
        let interface = self.interface(interface)?;
        match toward {
            IpAddr::V4(_) => interface.v4.map(|own| IpAddr::from(own.to_be_bytes())),
            IpAddr::V6(_) => interface.v6.map(|own| IpAddr::from(own.to_be_bytes())),
        }
    }

    /// The service in a slot.
    #[inline]
    pub fn service(&self, slot: ServiceSlot) -> Option<&Service> {
        self.parts.services.get(usize::from(slot.0))?.as_deref()
    }

    /// The backend in a slot.
    #[inline]
    pub fn backend(&self, slot: BackendSlot) -> Option<&Backend> {
        self.parts.backends.get(slot.0 as usize)?.as_ref()
    }

    /// How to reach the backend in a slot; `None` without a route.
    #[inline]
    pub fn backend_egress(&self, slot: BackendSlot) -> Option<&Egress> {
        self.egress.get(slot.0 as usize)?.as_ref()
    }

    /// How to reach a backend by the fast path; `None` if that cannot do it.
    #[inline]
    pub fn way(&self, slot: BackendSlot) -> Option<&Way> {
        self.ways.get(slot.0 as usize)?.as_ref()
    }

    /// Who listens on the address and port that a plain packet is for.
    #[inline(always)]
    pub fn listener<A: Address>(&self, plain: &Plain<A>) -> Option<Listener> {
        self.tables.listener(plain)
    }

    /// Which way a plain packet goes that this one listens to, if that is certain at one look.
    #[inline]
    pub fn direction<A: Address>(
        &self,
        plain: &Plain<A>,
        listener: Option<Listener>,
    ) -> Option<Direction<A>> {
        self.tables.direction(plain, listener)
    }

    /// The address of a service of this IP version.
    #[inline]
    pub fn vip<A: Address>(&self, service: ServiceSlot) -> Option<A> {
        self.tables.vip(service)
    }

    /// How to reach the gateway to an address; `None` if it is on the link, or there is no route.
    #[inline]
    pub fn gateway_to<A: Routed>(&self, destination: A) -> Option<&Egress> {
        destination.gateway(self)
    }

    /// How to reach an address; `None` without a route.
    #[inline]
    pub fn egress_to(&self, destination: IpAddr) -> Option<Egress> {
        let routes = &self.parts.routes;
        let (range, gateways) = match destination {
            IpAddr::V4(address) => (routes.v4.range(address.to_bits())?, &self.gateways_v4),
            IpAddr::V6(address) => (routes.v6.range(address.to_bits())?, &self.gateways_v6),
        };
        if let Some(Some(egress)) = gateways.get(range) {
            return Some(*egress);
        }
        self.egress_by(match destination {
            IpAddr::V4(address) => routes.v4.next_hop(address.to_bits())?,
            IpAddr::V6(address) => routes.v6.next_hop(address.to_bits())?,
        })
    }

    fn egress_by(&self, next_hop: NextHop) -> Option<Egress> {
        let interface = self.interface(next_hop.interface)?;
        let known = self.parts.neighbours.get(next_hop);
        let ethertype = if next_hop.address.is_ipv4() { eth::TYPE_IPV4 } else { eth::TYPE_IPV6 };
        Some(Egress {
            next_hop,
            port: interface.port,
            link: LinkHeader::new(known.unwrap_or_default(), interface.mac, interface.tags, ethertype),
            resolved: known.is_some(),
            mtu: interface.mtu,
        })
    }

    /// Idle timeouts by their number.
    #[inline]
    pub fn timeouts(&self, number: u16) -> Option<&Timeouts> {
        self.parts.timeouts.get(usize::from(number))
    }

    /// Idle timeouts of a backend's flows, or of flows without one.
    #[inline]
    pub fn timeouts_of(&self, slot: BackendSlot) -> Option<&Timeouts> {
        self.timeouts(self.backend(slot).map_or(0, |backend| backend.timeouts))
    }
}

fn shortest(parts: &Parts) -> u32 {
    parts.timeouts.iter().map(Timeouts::shortest).min().unwrap_or(0)
}

fn by_port(interfaces: &[Interface]) -> Vec<Vec<(Tags, InterfaceId)>> {
    let ports = interfaces.iter().map(|interface| usize::from(interface.port.0) + 1).max().unwrap_or(0);
    let mut by_port = vec![Vec::new(); ports];
    for (number, interface) in interfaces.iter().enumerate() {
        by_port[usize::from(interface.port.0)].push((interface.tags, InterfaceId(number as u16)));
    }
    by_port
}

#[cfg(test)]
mod tests;

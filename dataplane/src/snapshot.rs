//! What workers need to forward, frozen: services, backends, routes, neighbours.
//!
//! Made by the control thread, read by all workers, changed by nobody; a change is a new snapshot. What
//! changes with packets (flows, scheduler positions, counters, local ports) belongs to the workers.

mod entry;
mod exit;
mod parts;
mod repliers;
mod service;
mod sharing;
mod tables;
mod way;

use std::iter;
use std::net::IpAddr;
use std::sync::Arc;

use config::words::{MacAddr, NoBackend, Protocol, Scheduler};

use crate::clock::Seconds;
use crate::flow::FlowOwner;
use crate::flow::state::Timeouts;
use crate::local::LocalSlot;
use crate::packet::{Addresses, Headers, Version};
use crate::parse::plain::Plain;
use crate::parse::plain::eight::{EightV4, EightV6};
use crate::port::PortId;
use crate::prefetch::{Table, gathered, prefetch};
use crate::route::{self, InterfaceId, NextHop};
use crate::wire::eth::{self, LinkHeader, Tags};
pub use exit::Exit;
use exit::Exits;
pub use parts::{
    Backend, BackendSlot, Class, Egress, Gateway, Interface, NeighbourTable, Parts, Pool, PoolSlot, Routes,
    ServiceSlot, Tunnel,
};
pub use repliers::Repliers;
pub(crate) use service::gcd;
pub use service::{Candidate, Ease, Persistence, Service};
pub(crate) use tables::FullNatFlows;
pub use tables::{Address, Direction, Found, FullNatFlow, Listener, Local, Rows, WideFlow};
use tables::{NarrowFlows, Tables, WideFlows};
pub use way::{Carriage, Kept, Way};

/// An address as what packets are sent to.
pub trait Routed: Version + route::Address + 'static {
    /// The exits of its version.
    fn exits(snapshot: &Snapshot) -> &Exits<Self>;
}

impl Routed for u32 {
    #[inline]
    fn exits(snapshot: &Snapshot) -> &Exits<u32> {
        &snapshot.exits_v4
    }
}

impl Routed for u128 {
    #[inline]
    fn exits(snapshot: &Snapshot) -> &Exits<u128> {
        &snapshot.exits_v6
    }
}

/// What any of the services asks for, so that packets need not look where none does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Templates, of so many seconds at least.
    pub persistence: Option<Seconds>,
    /// Limits.
    pub limits: bool,
    /// QUIC's connection IDs.
    pub quic: bool,
    /// The time of handshakes.
    pub fastest: bool,
    /// Headroom for outer headers.
    pub tunnels: bool,
}

impl Uses {
    fn of(parts: &Parts) -> Self {
        let services = || parts.services.iter().flatten();
        let any = |uses: fn(&Service) -> bool| services().any(|service| uses(service));
        Self {
            persistence: services().filter_map(|service| Some(service.persistence.as_ref()?.secs)).min(),
            limits: any(|service| service.limits.is_some()),
            quic: any(|service| service.scheduler == Scheduler::Quic),
            fastest: any(|service| service.scheduler == Scheduler::Fastest),
            tunnels: parts.backends.iter().flatten().any(|backend| backend.tunnel.is_some()),
        }
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
    egress: Arc<Table<Option<Egress>>>,
    /// The same for the fast path.
    ways: Arc<Table<Option<Way>>>,
    /// By service slot: a byte each, so that those of all are in the cache.
    eases: Vec<Ease>,
    /// How the gateways of routes are reached, by range of their table; none where stations are on the link.
    gateways_v4: Vec<Option<Egress>>,
    gateways_v6: Vec<Option<Egress>>,
    /// The same for the fast path.
    exits_v4: Exits<u32>,
    exits_v6: Exits<u128>,
    /// Whether there are inside networks, whose packets pass.
    is_gateway: bool,
    /// What is asked for by any service.
    pub uses: Uses,
    /// How many backends were given up so far so that their flows are reset.
    pub given_up: u64,
    /// The shortest of all timeouts, in seconds: no flow that is idle for less is dead.
    pub shortest_timeout: u32,
}

impl Snapshot {
    /// Makes the tables that packets are looked up in.
    pub fn new(parts: Parts) -> Self {
        let mut snapshot = Self {
            tables: Arc::new(Tables::new(&parts)),
            interfaces: by_port(&parts.interfaces),
            egress: Arc::new(gathered(iter::empty())),
            ways: Arc::new(gathered(iter::empty())),
            eases: eases(&parts),
            gateways_v4: Vec::new(),
            gateways_v6: Vec::new(),
            exits_v4: Exits::default(),
            exits_v6: Exits::default(),
            is_gateway: parts.interfaces.iter().any(|interface| interface.gateway.is_some()),
            uses: Uses::of(&parts),
            given_up: parts.given_up_since(&[]),
            shortest_timeout: shortest(&parts),
            parts,
        };
        let backends = snapshot.parts.backends.iter();
        snapshot.egress =
            Arc::new(gathered(backends.map(|backend| snapshot.egress_to(backend.as_ref()?.address.ip()))));
        snapshot.ways = ways(&snapshot.parts, &snapshot.egress, &snapshot.tables);
        let Routes { v4, v6 } = &*snapshot.parts.routes;
        let reach = |gateway: Option<NextHop>| snapshot.egress_by(gateway?);
        let gateways = (v4.gateways().map(reach).collect(), v6.gateways().map(reach).collect());
        (snapshot.gateways_v4, snapshot.gateways_v6) = gateways;
        snapshot.exits_v4 = Exits::new(v4, &snapshot.gateways_v4);
        snapshot.exits_v6 = Exits::new(v6, &snapshot.gateways_v6);
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
    #[inline(always)]
    pub fn is_local<A: Address>(&self, address: A) -> bool {
        self.tables.is_local(address)
    }

    /// Whether it has too many services or backends for the caches, so that it pays to ask for them early if most have packets.
    #[inline]
    pub fn is_large(&self) -> bool {
        const MANY: usize = 2048;
        self.ways.len() > MANY
    }

    /// Asks for what tells which way a plain packet goes to come into the cache.
    #[inline]
    pub fn prefetch_direction<A: Address>(&self, protocol: Protocol, src: (A, u16), dst: (A, u16)) {
        self.tables.prefetch_direction(protocol, src, dst);
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
        if toward.is_ipv4() { self.pool_of::<u32>(slot) } else { self.pool_of::<u128>(slot) }
    }

    /// The same for backends of IP version `A`.
    #[inline]
    pub fn pool_of<A: Version>(&self, slot: PoolSlot) -> Option<&[LocalSlot]> {
        let pool = self.parts.pools.get(usize::from(slot.0))?;
        Some(if A::IS_V4 { &pool.v4 } else { &pool.v6 })
    }

    /// The port of its service that a flow's client talks to: of a narrow flow the only one that there is.
    pub fn port_of(&self, owner: &FlowOwner) -> Option<u16> {
        owner.service_port.or_else(|| Some(self.service(owner.service)?.key.ports.first))
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

    /// What the service in a slot asks of a client's new flow.
    #[inline]
    pub fn ease(&self, slot: ServiceSlot) -> Ease {
        self.eases.get(usize::from(slot.0)).copied().unwrap_or(Ease::Hard)
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

    /// How to reach all backends by the fast path, by slot.
    #[inline]
    pub fn ways(&self) -> &[Option<Way>] {
        &self.ways
    }

    /// Who listens on the address and port that a plain packet is for.
    #[inline(always)]
    pub fn listener<A: Address>(&self, plain: &Plain<A>) -> Option<Listener> {
        self.tables.listener(plain)
    }

    /// What packets of an IP version have an easy way, besides those for services with one port.
    #[inline]
    pub fn rows<A: Address>(&self) -> Rows {
        self.tables.rows::<A>()
    }

    /// The client and service of whose narrow flow a plain packet is, and whether it is a reply, if that is certain at one
    /// look.
    #[inline(always)]
    pub fn narrow_flow(&self, plain: &Plain<u32>) -> Option<((u32, u16), ServiceSlot, bool)> {
        self.tables.narrow_flow(plain)
    }

    /// The same of eight packets; without `REPLIES` only of requests.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn narrow_flows<const REPLIES: bool>(&self, packets: &EightV4) -> NarrowFlows {
        self.tables.narrow_flows::<REPLIES>(packets)
    }

    /// The wide flow of a plain packet, if that is certain at one look; without `REPLIES` only if it is a request.
    #[inline(always)]
    pub fn wide_flow<A: Address, const REPLIES: bool>(&self, plain: &Plain<A>) -> Option<WideFlow<A>> {
        self.tables.wide_flow::<A, REPLIES>(plain)
    }

    /// The same of eight packets of IPv6; without `REPLIES` only of requests.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn wide_flows<const REPLIES: bool>(&self, packets: &EightV6) -> WideFlows {
        self.tables.wide_flows::<REPLIES>(packets)
    }

    /// For which service a plain packet is, or for which local address, if that is certain at one look.
    #[inline(always)]
    pub fn full_nat_flow<A: Address>(&self, plain: &Plain<A>) -> Option<FullNatFlow> {
        self.tables.full_nat_flow(plain)
    }

    /// The same of eight packets.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn full_nat_flows(&self, packets: &EightV4) -> FullNatFlows {
        self.tables.full_nat_flows(packets)
    }

    /// The same of packets of IPv6.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(crate) fn full_nat_flows_v6(&self, packets: &EightV6) -> FullNatFlows {
        self.tables.full_nat_flows_v6(packets)
    }

    /// Which way a plain packet goes that this one listens to, if that is certain at one look.
    #[inline(always)]
    pub fn direction<A: Address>(&self, plain: &Plain<A>, listener: Option<Listener>) -> Option<Direction> {
        self.tables.direction(plain, listener)
    }

    /// Whether a plain packet that this worker knows no way for is for nobody, and its sender is told nothing.
    #[inline]
    pub fn is_for_nobody<A: Address>(&self, plain: &Plain<A>) -> bool {
        let silent = self.parts.no_service == NoBackend::Drop;
        self.tables.is_for_nobody(plain, silent, self.is_gateway)
    }

    /// The way to the gateway to an address, if that is easy and the usual one.
    #[inline(always)]
    pub fn usual_exit<A: Routed>(&self, destination: A) -> Option<&Exit> {
        A::exits(self).usual(destination)
    }

    /// The usual exit, whatever the address; one without room if there is none.
    #[inline(always)]
    pub fn exit_of_most<A: Routed>(&self) -> &Exit {
        A::exits(self).of_most()
    }

    /// The same for any gateway; `None` also if the address is on the link, or there is no route.
    #[inline]
    pub fn exit_to<A: Routed>(&self, destination: A) -> Option<&Exit> {
        Some(self.exit::<A>(self.exit_number(destination))).filter(|exit| exit.room > 0)
    }

    /// Number of the exit to the gateway to an address, for [`Self::exit`].
    #[inline]
    pub fn exit_number<A: Routed>(&self, destination: A) -> u32 {
        A::exits(self).find(destination)
    }

    /// The exit with a number; one without room if there is no easy way to its gateway.
    #[inline(always)]
    pub fn exit<A: Routed>(&self, number: u32) -> &Exit {
        A::exits(self).get(number)
    }

    /// How to reach an address; `None` without a route.
    #[inline]
    pub fn egress_to(&self, destination: IpAddr) -> Option<Egress> {
        let routes = &self.parts.routes;
        let (range, gateways) = match destination {
            IpAddr::V4(address) => (routes.v4.range(address.to_bits()), &self.gateways_v4),
            IpAddr::V6(address) => (routes.v6.range(address.to_bits()), &self.gateways_v6),
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

/// How each backend is reached by the fast path.
fn ways(parts: &Parts, egress: &[Option<Egress>], tables: &Tables) -> Arc<Table<Option<Way>>> {
    let way = |(backend, egress): (&Option<Backend>, &Option<Egress>)| {
        let backend = backend.as_ref()?;
        let service = parts.services.get(usize::from(backend.service.0))?.as_ref()?;
        Way::new(backend, &service.key, egress.as_ref()?, tables)
    };
    Arc::new(gathered(parts.backends.iter().zip(egress).map(way)))
}

fn eases(parts: &Parts) -> Vec<Ease> {
    let ease =
        |service: &Option<Arc<Service>>| service.as_ref().map_or(Ease::Hard, |it| it.ease(&parts.backends));
    parts.services.iter().map(ease).collect()
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

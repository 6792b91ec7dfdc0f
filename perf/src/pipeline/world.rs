//! The configuration that is measured: one port with a gateway, some services with backends on the link.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use config::model::Hash;
use config::words::{
    ClientAddress, Fate, MacAddr, Mode, NoBackend, Ports, Preset, Protocol, Scheduler, ServiceKey,
};
use dataplane::flow::state::Timeouts;
use dataplane::local::{LocalSlot, SLOTS};
use dataplane::port::PortId;
use dataplane::rewrite::tunnel::Encapsulation;
use dataplane::route::{Address, InterfaceId, NextHop, Route, RouteTable};
use dataplane::schedule::Ingredients;
use dataplane::schedule::hash::Secret;
use dataplane::schedule::table::Member;
use dataplane::snapshot::{
    Backend, BackendSlot, Candidate, Interface, NeighbourTable, Parts, Pool, PoolSlot, Routes, Service,
    ServiceSlot, Snapshot, Tunnel,
};
use dataplane::toeplitz::Owners;
use dataplane::wire::eth::Tags;
use serde::Serialize;

use super::draw::Draw;
use super::family::{Family, Net};
use super::traffic::{MAX_FLOWS, client_of, clients, with_next_port};

/// The only port.
pub const PORT: PortId = PortId(0);
/// Its Ethernet address.
pub const OWN_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]);
/// Ethernet address of the router to the clients.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfd]);

const INTERFACE: InterfaceId = InterfaceId(0);
/// Numbers of our and the gateways' addresses on the link; backends begin at 1.
const OWN: u32 = 0x1_fffe;
const GATEWAY: u32 = 0x1_fffd;
const OTHER_GATEWAY: u32 = GATEWAY - 1;
/// Stations on the link, without us and the gateways.
pub const MAX_BACKENDS: u32 = OTHER_GATEWAY - 1;
/// Room for what a tunnel adds to the longest frames.
const MTU: u16 = 1600;
/// Flows for which there is a local address in full NAT. It has 64,512 ports, but the addresses are not used
/// evenly.
const FLOWS_PER_LOCAL: u32 = 60_000;

/// What a world is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// How packets reach all backends.
    pub mode: Mode,
    /// IP version of all packets.
    pub family: Family,
    /// Flows that it has room for.
    pub flows: u32,
    /// Number of TCP services, which have the first slots.
    pub services: u16,
    /// Number of services that packets are for, the first of them.
    pub busy: u16,
    /// Number of backends of each of them.
    pub each: u16,
    /// The largest weight of a backend; the others have any from 1 on.
    pub weights: u32,
    /// How all of them choose.
    pub scheduler: Scheduler,
    /// VIPs that the services share by their ports.
    pub vips: u16,
    /// Number of routes: the link, the gateway for all others, and for parts of the clients another one and that in turns.
    pub routes: u16,
    /// Bytes of a frame on the wire, or more where its headers need more.
    pub frame: u16,
    /// How full the flow table is.
    pub fill: Fill,
    /// How packets are spread over flows.
    pub draw: Draw,
    /// Number of workers, of which the first is measured.
    pub workers: u16,
}

/// How full a flow table is, as a multiple of the flows that it is rated for.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Fill(pub f64);

impl Fill {
    /// As many flows as it is rated for.
    pub const RATED: Self = Self(1.0);
    /// As many as it has places; those beyond the rated number never got beyond their first packet.
    pub const FULL: Self = Self(2.0);

    /// That many times `count`.
    pub fn of(self, count: u32) -> u32 {
        // At most twice a number of flows, which is far from the end of 32 bits.
        (f64::from(count) * self.0) as u32
    }
}

impl Shape {
    /// Number of backends of all services together, which have the first slots.
    pub fn backends(&self) -> u32 {
        u32::from(self.services) * u32::from(self.each)
    }

    /// Whether flows are in the wide table.
    pub fn is_wide(&self) -> bool {
        self.family == Family::Ipv6
    }

    /// Whether replies pass through the balancer.
    pub fn sees_replies(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::FullNat)
    }

    /// Flows that are in use.
    pub fn live(&self) -> u32 {
        if self.fill == Fill::FULL { self.flows } else { self.fill.of(self.flows) }
    }

    /// Whether there can be such a world.
    ///
    /// # Errors
    /// A sentence that says what is too much.
    pub fn check(&self) -> Result<(), String> {
        if self.backends() > MAX_BACKENDS {
            return Err(format!("{} backends are more than {MAX_BACKENDS}", self.backends()));
        }
        if self.locals() as usize > SLOTS {
            let most = SLOTS as u32 * (FLOWS_PER_LOCAL / u32::from(self.workers));
            return Err(format!("full NAT has ports for {most} flows"));
        }
        Ok(())
    }

    /// Number of addresses that stand for clients.
    fn locals(&self) -> u32 {
        let flows = if self.mode == Mode::FullNat { self.fill.of(self.flows) } else { 0 };
        // Of each address a worker has its share of the ports.
        flows.div_ceil(FLOWS_PER_LOCAL / u32::from(self.workers))
    }

    fn vip(&self, service: u16) -> SocketAddr {
        let address = self.family.address(Net::Vips, 1 + u32::from(service % self.vips));
        SocketAddr::new(address, 80 + service / self.vips)
    }

    fn service(&self, slot: u16) -> Service {
        let vip = self.vip(slot);
        let key = ServiceKey {
            protocol: Protocol::Tcp,
            address: vip.ip(),
            ports: Ports::one(vip.port()),
            class: None,
        };
        let candidate = |backend| Candidate::new(backend, self.weight(backend));
        let candidates = self.backends_of(slot).map(candidate).collect();
        let pool = (self.mode == Mode::FullNat).then_some(PoolSlot(0));
        let service = Service { pool, ..Service::new(key, self.scheduler, 1, candidates) };
        service.planned(&self.ingredients(slot), None)
    }

    fn backends_of(&self, service: u16) -> impl Iterator<Item = BackendSlot> {
        let each = u32::from(self.each);
        let first = u32::from(service) * each;
        (first..first + each).map(BackendSlot)
    }

    /// The weight of a backend: they go through all weights, a large step at a time. Under `ovf` a backend that has more
    /// active flows takes no others, so there it is more than they can have.
    fn weight(&self, backend: BackendSlot) -> u32 {
        const STEP: u32 = 7919;
        if self.scheduler == Scheduler::Ovf { MAX_FLOWS } else { 1 + backend.0 * STEP % self.weights }
    }

    /// What the plan of a service's scheduler is made of. TCP has no connection IDs.
    fn ingredients(&self, service: u16) -> Ingredients {
        let member = |backend: BackendSlot| Member {
            backend,
            address: self.address(backend.0, service),
            weight: self.weight(backend),
            full_weight: self.weight(backend),
        };
        Ingredients {
            hash: Hash::of(self.scheduler),
            // The same in every run, so that runs can be compared.
            secret: Secret::from_text("perf"),
            members: self.backends_of(service).map(member).collect(),
            expiration: config::model::Service::EXPIRATION_SECS,
            layout: None,
            servers: Vec::new(),
        }
    }

    /// Where a backend is reached. Where replies are not seen, it has its service's port.
    fn address(&self, slot: u32, service: u16) -> SocketAddr {
        let port = if self.sees_replies() { 8000 } else { self.vip(service).port() };
        SocketAddr::new(self.family.address(Net::Link, 1 + slot), port)
    }

    /// The same, of its own service: told without the snapshot, for frames are written between rounds, and what that read
    /// would take the place of what is measured.
    pub fn address_of(&self, backend: BackendSlot) -> SocketAddr {
        self.address(backend.0, self.service_of_backend(backend.0))
    }

    fn service_of_backend(&self, slot: u32) -> u16 {
        // A backend's service has a slot of 16 bits.
        (slot / u32::from(self.each)) as u16
    }

    fn backend(&self, slot: u32) -> Backend {
        let service = self.service_of_backend(slot);
        let address = self.address(slot, service);
        let src = self.family.address(Net::Link, OWN);
        let tunnel = Tunnel { src, spread: None, encapsulation: Encapsulation::Ipip };
        Backend {
            service: ServiceSlot(service),
            address,
            mode: self.mode,
            client_address: ClientAddress::None,
            tunnel: (self.mode == Mode::Tunnel).then_some(tunnel),
            up: true,
            fate: Fate::Keep,
            persists: true,
            timeouts: 0,
            port_shift: Backend::port_shift(Ports::one(self.vip(service).port()), address.port()),
        }
    }

    fn routes(&self) -> Routes {
        match [GATEWAY, OTHER_GATEWAY].map(|number| self.family.address(Net::Link, number)) {
            [IpAddr::V4(gateway), IpAddr::V4(other)] => {
                Routes { v4: self.route_table([gateway, other].map(|it| it.to_bits())), ..Routes::default() }
            }
            [IpAddr::V6(gateway), IpAddr::V6(other)] => {
                Routes { v6: self.route_table([gateway, other].map(|it| it.to_bits())), ..Routes::default() }
            }
            _ => unreachable!("a link has one family"),
        }
    }

    fn route_table<A: Address<Net: FromStr<Err: Debug>>>(&self, gateways: [A; 2]) -> RouteTable<A> {
        let (link, all, bits) = match self.family {
            Family::Ipv4 => ("198.18.0.0/15", "0.0.0.0/0", u32::BITS),
            Family::Ipv6 => ("2001:2:0:2::/64", "::/0", u128::BITS),
        };
        let route =
            |net: &str, gateway| (net.parse().expect("a prefix"), Route { interface: INTERFACE, gateway });
        let more = u32::from(self.routes.saturating_sub(2));
        // The parts' sizes are powers of two; together they have at least half of the clients.
        let size = (clients(self.live()) / more.max(1)).max(1).ilog2();
        let parts = (0..more).map(|number| {
            let part = self.family.address(Net::Clients, number << size);
            // Neighbours differ, or they would be one route.
            route(&format!("{part}/{}", bits - size), Some(gateways[1 - number as usize % 2]))
        });
        RouteTable::new([route(link, None), route(all, Some(gateways[0]))].into_iter().chain(parts))
    }

    fn stations(&self) -> impl Iterator<Item = (NextHop, MacAddr)> {
        let next_hop =
            |number| NextHop { interface: INTERFACE, address: self.family.address(Net::Link, number) };
        let backends = (0..self.backends()).map(move |slot| (next_hop(1 + slot), backend_mac(slot)));
        backends.chain([GATEWAY, OTHER_GATEWAY].map(|number| (next_hop(number), GATEWAY_MAC)))
    }
}

/// A frozen configuration and how it was made.
pub struct World {
    /// What it is like.
    pub shape: Shape,
    /// What the packet path reads.
    pub snapshot: Snapshot,
    /// Which worker has which flows.
    pub owners: Owners,
}

impl World {
    /// Makes a world.
    pub fn new(shape: Shape) -> Self {
        let locals: Vec<_> =
            (0..shape.locals()).map(|number| shape.family.address(Net::Locals, number)).collect();
        let slots: Vec<LocalSlot> = (0..locals.len()).map(|slot| LocalSlot(slot as u8)).collect();
        let pool = match shape.family {
            Family::Ipv4 => Pool { v4: slots, v6: Vec::new() },
            Family::Ipv6 => Pool { v4: Vec::new(), v6: slots },
        };
        let interface = Interface {
            port: PORT,
            tags: Tags::default(),
            mac: OWN_MAC,
            mtu: MTU,
            v4: None,
            v6: None,
            host: false,
            gateway: None,
        };
        let ipvs = config::model::Timeouts::preset(Preset::Ipvs);
        let snapshot = Snapshot::new(Parts {
            interfaces: vec![interface],
            own: Vec::new(),
            routes: Arc::new(shape.routes()),
            neighbours: Arc::new(NeighbourTable::new(shape.stations())),
            classes: Vec::new(),
            locals,
            pools: vec![pool],
            services: (0..shape.services).map(|slot| Some(Arc::new(shape.service(slot)))).collect(),
            backends: (0..shape.backends()).map(|slot| Some(shape.backend(slot))).collect(),
            timeouts: vec![Timeouts::new(&ipvs)],
            no_service: NoBackend::Drop,
            icmp_rate: 0,
        });
        Self { shape, snapshot, owners: Owners::new(usize::from(shape.workers)) }
    }

    /// The client's side of a flow: it belongs to the first worker.
    pub fn client_of(&self, flow: u32) -> SocketAddr {
        let mut client = client_of(self.shape.family, flow);
        while self.shape.workers > 1 && self.owners.of(client.ip(), client.port()) != 0 {
            client = with_next_port(client);
        }
        client
    }

    /// The service of a flow.
    pub fn service_of(&self, flow: u32) -> ServiceSlot {
        // Less than the number of services, which has 16 bits.
        ServiceSlot((flow % u32::from(self.shape.busy)) as u16)
    }

    /// Where clients reach the service of a flow.
    pub fn vip_of(&self, flow: u32) -> SocketAddr {
        self.shape.vip(self.service_of(flow).0)
    }
}

fn backend_mac(slot: u32) -> MacAddr {
    let [a, b, c, d] = slot.to_be_bytes();
    MacAddr([0x06, 0x00, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::super::traffic::flow_of;
    use super::*;

    const SHAPE: Shape = Shape {
        mode: Mode::FullNat,
        family: Family::Ipv4,
        flows: 1_000_000,
        services: 1000,
        busy: 1000,
        each: 64,
        weights: 1,
        scheduler: Scheduler::Wrr,
        vips: 250,
        routes: 500,
        frame: 64,
        fill: Fill::RATED,
        draw: Draw::Uniform,
        workers: 1,
    };

    #[test]
    fn a_large_world_is_complete() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let shape = Shape { family, ..SHAPE };
            let World { snapshot, .. } = World::new(shape);
            for slot in [0, 63, 63_999] {
                assert!(snapshot.backend_egress(BackendSlot(slot)).unwrap().resolved);
                let address = snapshot.backend(BackendSlot(slot)).unwrap().address;
                let repliers = snapshot.replies_of(Protocol::Tcp, address.ip(), address.port());
                let (found, port) = repliers.iter().next().unwrap();
                let service = (slot / 64) as u16;
                assert_eq!((found.service, port), (ServiceSlot(service), shape.vip(service).port()));
            }
            let client = family.address(Net::Clients, 1);
            assert_eq!(snapshot.egress_to(client).unwrap().link.bytes()[..6], GATEWAY_MAC.0);
            assert_eq!(snapshot.pool(PoolSlot(0), client).unwrap().len(), 17);
        }
    }

    #[test]
    fn backends_have_the_weights_that_are_asked_for() {
        let weights = |weights| [0, 1, 2].map(|slot| Shape { weights, ..SHAPE }.weight(BackendSlot(slot)));
        assert_eq!((weights(1), weights(20)), ([1, 1, 1], [1, 20, 19]));
    }

    #[test]
    fn services_share_addresses_by_their_ports() {
        let world = World::new(Shape { mode: Mode::Dr, flows: 1, each: 1, ..SHAPE });
        assert_eq!(world.vip_of(249), "192.0.2.250:80".parse().unwrap());
        assert_eq!(world.vip_of(1250), "192.0.2.1:81".parse().unwrap());
        let world = World::new(Shape {
            mode: Mode::Dr,
            flows: 1,
            services: 10_000,
            busy: 10_000,
            vips: 1,
            each: 1,
            ..SHAPE
        });
        assert_eq!(world.vip_of(9_999), "192.0.2.1:10079".parse().unwrap());
    }

    #[test]
    fn packets_are_for_the_first_services_that_are_busy() {
        let services = |busy| {
            let world = World::new(Shape { mode: Mode::Dr, services: 4, busy, flows: 8, each: 1, ..SHAPE });
            [0, 1, 2, 3, 4].map(|flow| world.service_of(flow).0)
        };
        assert_eq!([1, 3, 4].map(services), [[0; 5], [0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]);
    }

    #[test]
    fn flows_are_of_the_first_worker_and_each_of_another_client() {
        for (family, workers) in [(Family::Ipv4, 1), (Family::Ipv4, 4), (Family::Ipv6, 64)] {
            let world = World::new(Shape { mode: Mode::Dr, flows: 1, each: 1, family, workers, ..SHAPE });
            for flow in 0..5000 {
                let client = world.client_of(flow);
                assert_eq!((flow_of(client), world.owners.of(client.ip(), client.port())), (flow, 0));
            }
        }
    }

    #[test]
    fn routes_divide_the_clients() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let ranges = |routes| {
                let World { snapshot, .. } = World::new(Shape { family, routes, ..SHAPE });
                let Routes { v4, v6 } = &*snapshot.parts.routes;
                let range = |number| match family.address(Net::Clients, number) {
                    IpAddr::V4(address) => v4.range(address.to_bits()),
                    IpAddr::V6(address) => v6.range(address.to_bits()),
                };
                let last = clients(SHAPE.flows);
                let gateway = snapshot.egress_to(family.address(Net::Clients, last)).unwrap();
                assert_eq!(gateway.link.bytes()[..6], GATEWAY_MAC.0);
                range(last) - range(1) + 1
            };
            // 250,000 clients are divided into 498 parts of 256 and the rest, which has the last one's gateway.
            assert_eq!([2, 3, 500].map(ranges), [1, 2, 498]);
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert_eq!(SHAPE.check(), Ok(()));
        assert!(Shape { services: 10_000, each: 1000, ..SHAPE }.check().is_err());
        let many = Shape { flows: 10_000_000, ..SHAPE };
        assert_eq!(many.check(), Ok(()));
        assert!(Shape { fill: Fill::FULL, ..many }.check().is_err());
        assert_eq!(Shape { fill: Fill::FULL, mode: Mode::Nat, ..many }.check(), Ok(()));
    }
}

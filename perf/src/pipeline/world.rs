//! The configuration that is measured: one port with a gateway, some services with backends on the link.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::words::{MacAddr, Mode, NoBackend, Ports, Preset, Protocol, Scheduler, ServiceKey};
use dataplane::flow::state::Timeouts;
use dataplane::local::LocalSlot;
use dataplane::port::PortId;
use dataplane::rewrite::tunnel::Encapsulation;
use dataplane::route::{InterfaceId, NextHop, Route, RouteTable};
use dataplane::snapshot::{
    Backend, BackendSlot, Candidate, Interface, NeighbourTable, Parts, Pool, PoolSlot, Routes, Service,
    ServiceSlot, Snapshot, Tunnel,
};
use dataplane::wire::eth::Tags;

use super::family::{Family, Net};

/// The only port.
pub const PORT: PortId = PortId(0);
/// Its Ethernet address.
pub const OWN_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]);
/// Ethernet address of the router to the clients.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfd]);

const INTERFACE: InterfaceId = InterfaceId(0);
/// Numbers of our and the gateway's address on the link; backends begin at 1.
const OWN: u32 = 0x1_fffe;
const GATEWAY: u32 = 0x1_fffd;
/// Services that share a port number, each on its own VIP.
const VIPS: u16 = 250;
/// Flows for which there is a local address in full NAT. It has 64,512 ports, but the addresses are not used
/// evenly.
const FLOWS_PER_LOCAL: u32 = 60_000;

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How packets reach all backends.
    pub mode: Mode,
    /// IP version of all packets.
    pub family: Family,
    /// Flows that it has room for.
    pub flows: u32,
    /// Number of TCP services, which have the first slots.
    pub services: u16,
    /// Number of backends of each of them, of equal weight under weighted round robin.
    pub each: u16,
}

impl Shape {
    /// Number of backends of all services together, which have the first slots.
    pub fn backends(&self) -> u32 {
        u32::from(self.services) * u32::from(self.each)
    }

    /// Whether flows are in the wide table.
    pub fn is_wide(&self) -> bool {
        self.family == Family::Ipv6 || self.mode == Mode::FullNat
    }

    /// Whether replies pass through the balancer.
    pub fn sees_replies(&self) -> bool {
        matches!(self.mode, Mode::Nat | Mode::FullNat)
    }

    /// Addresses that stand for clients.
    fn locals(&self) -> Vec<IpAddr> {
        let count = if self.mode == Mode::FullNat { self.flows.div_ceil(FLOWS_PER_LOCAL) } else { 0 };
        (0..count).map(|number| self.family.address(Net::Locals, number)).collect()
    }

    fn vip(&self, service: u16) -> SocketAddr {
        SocketAddr::new(self.family.address(Net::Vips, 1 + u32::from(service % VIPS)), 80 + service / VIPS)
    }

    fn service(&self, slot: u16) -> Service {
        let first = u32::from(slot) * u32::from(self.each);
        let candidate = |number| Candidate { backend: BackendSlot(first + u32::from(number)), weight: 1 };
        let vip = self.vip(slot);
        let key = ServiceKey {
            protocol: Protocol::Tcp,
            address: vip.ip(),
            ports: Ports::one(vip.port()),
            class: None,
        };
        let candidates = (0..self.each).map(candidate).collect();
        let pool = (self.mode == Mode::FullNat).then_some(PoolSlot(0));
        Service { pool, ..Service::new(key, Scheduler::Wrr, 1, candidates) }
    }

    fn backend(&self, slot: u32) -> Backend {
        // A backend's service has a slot of 16 bits.
        let service = (slot / u32::from(self.each)) as u16;
        let vip_port = self.vip(service).port();
        let port = if self.sees_replies() { 8000 } else { vip_port };
        let src = self.family.address(Net::Link, OWN);
        let tunnel = Tunnel { src, spread: None, encapsulation: Encapsulation::Ipip };
        Backend {
            service: ServiceSlot(service),
            address: SocketAddr::new(self.family.address(Net::Link, 1 + slot), port),
            mode: self.mode,
            tunnel: (self.mode == Mode::Tunnel).then_some(tunnel),
            up: true,
            timeouts: 0,
            port_shift: Backend::port_shift(Ports::one(vip_port), port),
        }
    }

    fn stations(&self) -> impl Iterator<Item = (NextHop, MacAddr)> {
        let next_hop =
            |number| NextHop { interface: INTERFACE, address: self.family.address(Net::Link, number) };
        let backends = (0..self.backends()).map(move |slot| (next_hop(1 + slot), backend_mac(slot)));
        backends.chain([(next_hop(GATEWAY), GATEWAY_MAC)])
    }
}

/// A frozen configuration and how it was made.
pub struct World {
    /// What it is like.
    pub shape: Shape,
    /// What the packet path reads.
    pub snapshot: Snapshot,
}

impl World {
    /// Makes a world.
    pub fn new(shape: Shape) -> Self {
        let locals = shape.locals();
        let slots: Vec<LocalSlot> = (0..locals.len()).map(|slot| LocalSlot(slot as u8)).collect();
        let pool = match shape.family {
            Family::Ipv4 => Pool { v4: slots, v6: Vec::new() },
            Family::Ipv6 => Pool { v4: Vec::new(), v6: slots },
        };
        let interface = Interface {
            port: PORT,
            tags: Tags::default(),
            mac: OWN_MAC,
            mtu: 1500,
            v4: None,
            v6: None,
            host: false,
            gateway: None,
        };
        let ipvs = config::model::Timeouts::preset(Preset::Ipvs);
        let snapshot = Snapshot::new(Parts {
            interfaces: vec![interface],
            own: Vec::new(),
            routes: Arc::new(Routes { v4: routes_v4(), v6: routes_v6() }),
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
        Self { shape, snapshot }
    }

    /// Where clients reach the service of a flow.
    pub fn vip_of(&self, flow: u32) -> SocketAddr {
        // Less than the number of services, which has 16 bits.
        self.shape.vip((flow % u32::from(self.shape.services)) as u16)
    }
}

fn routes_v4() -> RouteTable<u32> {
    let gateway = match Family::Ipv4.address(Net::Link, GATEWAY) {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    };
    RouteTable::new([
        ("198.18.0.0/15".parse().expect("a prefix"), Route { interface: INTERFACE, gateway: None }),
        ("0.0.0.0/0".parse().expect("a prefix"), Route { interface: INTERFACE, gateway }),
    ])
}

fn routes_v6() -> RouteTable<u128> {
    let gateway = match Family::Ipv6.address(Net::Link, GATEWAY) {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address.to_bits()),
    };
    RouteTable::new([
        ("2001:2:0:2::/64".parse().expect("a prefix"), Route { interface: INTERFACE, gateway: None }),
        ("::/0".parse().expect("a prefix"), Route { interface: INTERFACE, gateway }),
    ])
}

fn backend_mac(slot: u32) -> MacAddr {
    let [a, b, c, d] = slot.to_be_bytes();
    MacAddr([0x06, 0x00, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_world_is_complete() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let shape = Shape { mode: Mode::FullNat, family, flows: 1_000_000, services: 1000, each: 64 };
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
    fn services_share_addresses_by_their_ports() {
        let shape = Shape { mode: Mode::Dr, family: Family::Ipv4, flows: 1, services: 1000, each: 1 };
        let world = World::new(shape);
        assert_eq!(world.vip_of(249), "192.0.2.250:80".parse().unwrap());
        assert_eq!(world.vip_of(1250), "192.0.2.1:81".parse().unwrap());
    }
}

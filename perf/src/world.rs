//! The configuration that is measured: one port with a gateway, some services with backends on the link.
//!
//! Addresses are those for benchmarks (RFC 2544, appendix C.2.2) and documentation (RFC 5737, RFC 7042).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use config::model;
use config::words::{MacAddr, Mode, Protocol, Scheduler, ServiceKey};
use dataplane::flow::state::Timeouts;
use dataplane::lookup::Lookup;
use dataplane::route::{NextHop, PortId, Route, RouteTable};
use dataplane::snapshot::{
    Backend, BackendSlot, Candidate, Parts, PortInfo, Service, ServiceSlot, Snapshot, neighbour_key,
};

use crate::traffic::Endpoint;

/// The only port.
pub const PORT: PortId = PortId(0);
/// Its Ethernet address.
pub const OWN_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]);
/// Ethernet address of the router to the clients.
pub const GATEWAY_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfd]);

const OWN: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 253);
const FIRST_BACKEND: u32 = 0xc612_0001; // 198.18.0.1
const FIRST_VIP: u32 = 0xc000_0201; // 192.0.2.1
/// Services that share a port number, each on its own VIP.
const VIPS: u16 = 250;

/// A frozen configuration and how it was made.
pub struct World {
    /// What the packet path reads.
    pub snapshot: Snapshot,
    /// How packets reach all backends.
    pub mode: Mode,
    /// Number of services, which have the first slots.
    pub services: u16,
    /// Number of backends of all services together, which have the first slots.
    pub backends: u32,
}

impl World {
    /// `services` TCP services, each with `each` backends of equal weight under weighted round robin.
    pub fn new(mode: Mode, services: u16, each: u16) -> Self {
        let backends = u32::from(services) * u32::from(each);
        let next_hop = |address: u32| neighbour_key(NextHop { port: PORT, address });
        let station = |slot: u32| (next_hop(FIRST_BACKEND + slot), backend_mac(slot));
        let mut stations: Vec<_> = (0..backends).map(station).collect();
        stations.push((next_hop(GATEWAY.to_bits()), GATEWAY_MAC));
        let snapshot = Snapshot::new(Parts {
            own: Vec::new(),
            ports: vec![PortInfo { mac: OWN_MAC, mtu: 1500, address: None }],
            routes: Arc::new(routes()),
            neighbours: Arc::new(Lookup::new(stations.into_iter())),
            services: (0..services).map(|slot| Some(Arc::new(service(slot, each)))).collect(),
            backends: (0..backends).map(|slot| Some(backend(mode, slot, each))).collect(),
            timeouts: Timeouts::new(model::Timeouts { tcp_secs: 900, tcp_fin_secs: 120, udp_secs: 300 }),
        });
        Self { snapshot, mode, services, backends }
    }

    /// Where clients reach the service of a flow.
    pub fn vip_of(&self, flow: u32) -> Endpoint {
        // Less than the number of services, which has 16 bits.
        let vip = vip((flow % u32::from(self.services)) as u16);
        (vip.ip().to_bits(), vip.port())
    }

    /// Where a backend listens.
    pub fn backend_at(&self, slot: BackendSlot) -> Option<Endpoint> {
        let address = self.snapshot.backend(slot)?.address;
        Some((address.ip().to_bits(), address.port()))
    }
}

fn routes() -> RouteTable {
    let net = |text: &str| text.parse().expect("a prefix");
    RouteTable::new([
        (net("198.18.0.0/15"), Route { port: PORT, gateway: None }),
        (net("0.0.0.0/0"), Route { port: PORT, gateway: Some(GATEWAY) }),
    ])
}

fn vip(service: u16) -> SocketAddrV4 {
    let address = FIRST_VIP + u32::from(service % VIPS);
    SocketAddrV4::new(Ipv4Addr::from_bits(address), 80 + service / VIPS)
}

fn service(slot: u16, each: u16) -> Service {
    let first = u32::from(slot) * u32::from(each);
    let candidate = |number| Candidate { backend: BackendSlot(first + u32::from(number)), weight: 1 };
    let key = ServiceKey { protocol: Protocol::Tcp, vip: vip(slot) };
    Service::new(key, Scheduler::Wrr, 1, (0..each).map(candidate).collect())
}

fn backend(mode: Mode, slot: u32, each: u16) -> Backend {
    // A backend's service has a slot of 16 bits.
    let service = (slot / u32::from(each)) as u16;
    let port = if mode == Mode::Nat { 8000 } else { vip(service).port() };
    Backend {
        service: ServiceSlot(service),
        address: SocketAddrV4::new(Ipv4Addr::from_bits(FIRST_BACKEND + slot), port),
        mode,
        tunnel_src: OWN.to_bits(),
        up: true,
    }
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
        let world = World::new(Mode::Nat, 1000, 64);
        for slot in [0, 63, 63_999] {
            assert!(world.snapshot.backend_egress(BackendSlot(slot)).unwrap().resolved);
            let (address, port) = world.backend_at(BackendSlot(slot)).unwrap();
            let service = ServiceSlot((slot / 64) as u16);
            assert_eq!(world.snapshot.replies_of(Protocol::Tcp, address, port), [service]);
        }
        for flow in [0, 999, 1001] {
            let (address, port) = world.vip_of(flow);
            let service = world.snapshot.service_at(Protocol::Tcp, address, port);
            assert_eq!(service, Some(ServiceSlot((flow % 1000) as u16)));
        }
        assert_eq!(world.snapshot.egress_to(0x0a00_0001).unwrap().link[..6], GATEWAY_MAC.0);
    }
}

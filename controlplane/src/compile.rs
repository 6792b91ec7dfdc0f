//! State → snapshot: what workers need of it, in the form they need it. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use config::model::{self, Config};
use config::network::Network;
use config::words::{Encapsulation, MacAddr, Mode, NoBackend};
use dataplane::flow::state::Timeouts;
use dataplane::local::LocalSlot;
use dataplane::port::PortId;
use dataplane::rewrite::tunnel;
use dataplane::route::{InterfaceId, NextHop, Route, RouteTable};
use dataplane::snapshot::{
    self, BackendSlot, Class, Gateway, Interface, NeighbourTable, Parts, Pool, Routes, Snapshot, Tunnel,
};
use dataplane::wire::eth::Tags;
use ipnet::IpNet;

use crate::api::Health;
use crate::state::{Backend, Ground, Service, State};

/// What of a snapshot follows neither from services nor from what they stand on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Ethernet addresses of the ports, by number.
    pub macs: Vec<MacAddr>,
    /// As configured.
    pub interfaces: Vec<model::Interface>,
    /// Connected and static routes.
    pub routes: Arc<Routes>,
    /// Idle timeouts of services that have none of their own.
    pub timeouts: model::Timeouts,
    /// What our addresses say to a port that no service has.
    pub no_service: NoBackend,
    /// ICMP messages a second and worker.
    pub icmp_rate: u32,
}

impl Frame {
    /// The frame of a configuration on ports with these Ethernet addresses.
    pub fn new(config: &Config, macs: &[MacAddr]) -> Self {
        Self {
            macs: macs.to_vec(),
            interfaces: config.interfaces.clone(),
            routes: Arc::new(routes(config)),
            timeouts: config.timeouts,
            no_service: config.icmp.no_service,
            icmp_rate: config.icmp.rate,
        }
    }

    /// Ethernet address of an interface: that of its port.
    pub fn mac(&self, interface: usize) -> MacAddr {
        let port = self.interfaces.get(interface).map_or(usize::MAX, |interface| interface.port);
        self.macs.get(port).copied().unwrap_or_default()
    }

    /// The device port of an interface and its VLAN tags.
    pub fn link(&self, interface: usize) -> (PortId, Tags) {
        let found = self.interfaces.get(interface);
        found.map_or_else(Default::default, |interface| (port_id(interface.port), tags(interface.tags)))
    }
}

/// All connected and static routes.
fn routes(config: &Config) -> Routes {
    let network = Network::new(&config.interfaces, &config.routes);
    let connected = config.interfaces.iter().enumerate().flat_map(|(number, interface)| {
        interface.addresses.iter().map(move |address| (*address, interface_id(number), None))
    });
    let fixed = config
        .routes
        .iter()
        .filter_map(|route| Some((route.to, interface_id(network.connected(route.via)?), Some(route.via))));
    let all: Vec<_> = connected.chain(fixed).collect();
    let v4 = all.iter().filter_map(|(to, interface, via)| match to {
        IpNet::V4(to) => Some((*to, Route { interface: *interface, gateway: via.and_then(v4_bits) })),
        IpNet::V6(_) => None,
    });
    let v6 = all.iter().filter_map(|(to, interface, via)| match to {
        IpNet::V6(to) => Some((*to, Route { interface: *interface, gateway: via.and_then(v6_bits) })),
        IpNet::V4(_) => None,
    });
    Routes { v4: RouteTable::new(v4), v6: RouteTable::new(v6) }
}

/// The snapshot of a state.
pub fn compile(state: &State, frame: &Frame, neighbours: &Arc<NeighbourTable>) -> Snapshot {
    Snapshot::new(parts(state, frame, neighbours))
}

/// The same, sharing with the snapshot before it what is equal in both.
pub fn recompile(
    before: &Snapshot,
    state: &State,
    frame: &Frame,
    neighbours: &Arc<NeighbourTable>,
) -> Snapshot {
    Snapshot::after(before, parts(state, frame, neighbours))
}

fn parts(state: &State, frame: &Frame, neighbours: &Arc<NeighbourTable>) -> Parts {
    let ground = &state.ground;
    let mut timeouts = Numbered::new(frame.timeouts);
    let by_service: Vec<u16> = state
        .service_slots()
        .iter()
        .map(|service| service.as_ref().and_then(|service| service.config.timeouts))
        .map(|own| own.map_or(0, |own| timeouts.number(own)))
        .collect();
    let services = state.service_slots().iter().map(|service| Some(Arc::clone(&service.as_ref()?.compiled)));
    let backends = state.backend_slots().iter().zip(0..).map(|(backend, slot)| {
        let backend = backend.as_ref()?;
        let service = state.service(backend.service)?;
        let timeouts = by_service[usize::from(backend.service.0)];
        Some(compile_backend(ground, service, (BackendSlot(slot), backend), timeouts))
    });
    Parts {
        interfaces: frame
            .interfaces
            .iter()
            .map(|interface| compile_interface(ground, frame, interface))
            .collect(),
        own: own(frame),
        routes: Arc::clone(&frame.routes),
        neighbours: Arc::clone(neighbours),
        classes: ground.classes.iter().map(compile_class).collect(),
        locals: ground.locals.addresses().to_vec(),
        pools: ground.pools.iter().map(|pool| compile_pool(ground, pool)).collect(),
        services: services.collect(),
        backends: backends.collect(),
        timeouts: timeouts.all.iter().map(Timeouts::new).collect(),
        no_service: frame.no_service,
        icmp_rate: frame.icmp_rate,
    }
}

/// Different timeouts, numbered.
struct Numbered {
    all: Vec<model::Timeouts>,
    numbers: HashMap<[u32; 12], u16>,
}

impl Numbered {
    fn new(first: model::Timeouts) -> Self {
        let mut numbered = Self { all: Vec::new(), numbers: HashMap::new() };
        numbered.number(first);
        numbered
    }

    fn number(&mut self, mut timeouts: model::Timeouts) -> u16 {
        let values = timeouts.each().map(|(_, value)| *value);
        *self.numbers.entry(values).or_insert_with(|| {
            self.all.push(timeouts);
            // No more than there are services, and one.
            (self.all.len() - 1) as u16
        })
    }
}

fn compile_interface(ground: &Ground, frame: &Frame, interface: &model::Interface) -> Interface {
    let own = || interface.addresses.iter().map(IpNet::addr);
    let gateway = interface
        .gateway
        .as_ref()
        .map(|gateway| Gateway { pool: gateway.snat_pool.as_deref().and_then(|pool| ground.pool(pool)) });
    Interface {
        port: port_id(interface.port),
        tags: tags(interface.tags),
        mac: frame.macs.get(interface.port).copied().unwrap_or_default(),
        mtu: interface.mtu,
        v4: own().find_map(v4_bits),
        v6: own().find_map(v6_bits),
        host: interface.host.is_some(),
        gateway,
    }
}

/// Own addresses of all interfaces, with the link-local ones of those that speak IPv6.
fn own(frame: &Frame) -> Vec<(IpAddr, InterfaceId)> {
    let interfaces = frame.interfaces.iter().enumerate();
    let own = interfaces.flat_map(|(number, interface)| {
        let link_local = speaks_v6(interface).then(|| IpAddr::from(link_local(frame.mac(number))));
        let addresses = interface.addresses.iter().map(IpNet::addr).chain(link_local);
        addresses.map(move |address| (address, interface_id(number)))
    });
    own.collect()
}

/// Whether an interface has an IPv6 address of its own.
pub fn speaks_v6(interface: &model::Interface) -> bool {
    interface.addresses.iter().any(|address| address.addr().is_ipv6())
}

fn v4_bits(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    }
}

fn v6_bits(address: IpAddr) -> Option<u128> {
    match address {
        IpAddr::V6(address) => Some(address.to_bits()),
        IpAddr::V4(_) => None,
    }
}

fn compile_class(class: &model::Class) -> Class {
    Class { sources: class.sources.clone(), vlan: class.vlan, dscp: class.dscp }
}

fn compile_pool(ground: &Ground, pool: &model::SnatPool) -> Pool {
    let slots = ground.locals.pool(&pool.name).iter().zip(&pool.addresses);
    let (v4, v6): (Vec<_>, Vec<_>) = slots.partition(|(_, address)| address.is_ipv4());
    let slot = |(slot, _): (&u8, &IpAddr)| LocalSlot(*slot);
    Pool { v4: v4.into_iter().map(slot).collect(), v6: v6.into_iter().map(slot).collect() }
}

fn compile_backend(
    ground: &Ground,
    service: &Service,
    (slot, backend): (BackendSlot, &Backend),
    timeouts: u16,
) -> snapshot::Backend {
    let model::Backend { address, mode, tunnel, .. } = backend.config;
    snapshot::Backend {
        service: backend.service,
        address,
        mode,
        client_address: backend.client_address,
        tunnel: (mode == Mode::Tunnel)
            .then(|| compile_tunnel(&ground.network, address.ip(), tunnel))
            .flatten(),
        up: backend.health != Health::Down || backend.share.standing.takes_flows(),
        fate: backend.fate,
        persists: service.binds(slot, backend),
        timeouts,
        port_shift: snapshot::Backend::port_shift(service.config.key.ports, address.port()),
    }
}

/// How to wrap packets for a backend; `None` where no way leads to it.
fn compile_tunnel(network: &Network, to: IpAddr, tunnel: model::Tunnel) -> Option<Tunnel> {
    let src = network.own_address(network.egress(to)?.interface, to)?;
    let encapsulation = match tunnel.encapsulation {
        Encapsulation::Ipip => tunnel::Encapsulation::Ipip,
        Encapsulation::Gue => tunnel::Encapsulation::Gue { port: tunnel.port, checksum: tunnel.checksum },
        Encapsulation::Gre => tunnel::Encapsulation::Gre { checksum: tunnel.checksum },
    };
    Some(Tunnel { src, spread: tunnel.spread, encapsulation })
}

/// The next hops that forwarding needs at all times: those of all backends, and all gateways.
pub fn wanted_stations(state: &State, config: &Config) -> Vec<NextHop> {
    let backends = state.backend_slots().iter().flatten().map(|backend| backend.config.address.ip());
    let gateways = config.routes.iter().map(|route| route.via);
    backends.chain(gateways).filter_map(|address| next_hop(&state.ground.network, address)).collect()
}

/// The next station on the way to an address.
pub fn next_hop(network: &Network, address: IpAddr) -> Option<NextHop> {
    let egress = network.egress(address)?;
    Some(NextHop { interface: interface_id(egress.interface), address: egress.next_hop })
}

/// The link-local address that an interface has by its Ethernet address (RFC 4291, appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Ports are at most [`config::limits::PORTS`].
pub fn port_id(number: usize) -> PortId {
    PortId(number as u8)
}

/// Interfaces are at most [`config::limits::PORTS`] times one more than [`config::limits::VLANS`].
pub fn interface_id(number: usize) -> InterfaceId {
    InterfaceId(number as u16)
}

fn tags(tags: model::Tags) -> Tags {
    Tags { outer: tags.outer, inner: tags.inner }
}

#[cfg(test)]
mod tests;

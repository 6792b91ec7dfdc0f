//! State → snapshot: what workers need of it, in the form they need it. Pure.

use std::sync::Arc;

use config::model::Config;
use config::network::Network;
use config::words::MacAddr;
use dataplane::flow::state::Timeouts;
use dataplane::route::{NextHop, PortId, Route, RouteTable};
use dataplane::snapshot::{self, NeighbourTable, Parts, PortInfo, Snapshot};

use crate::api::Health;
use crate::state::{Backend, State};

/// What of a snapshot does not follow from services: ports, routes, timeouts.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Ports by number.
    pub ports: Vec<PortInfo>,
    /// Own addresses, host order.
    pub own: Vec<u32>,
    /// Connected and static routes.
    pub routes: Arc<RouteTable>,
    /// Idle timeouts.
    pub timeouts: Timeouts,
}

impl Frame {
    /// The frame of a configuration on ports with these Ethernet addresses.
    pub fn new(config: &Config, macs: &[MacAddr]) -> Self {
        let ports = config.ports.iter().zip(macs);
        let network = Network::new(&config.ports, &config.routes);
        let connected = config.ports.iter().enumerate().flat_map(|(number, port)| {
            let route = Route { port: port_id(number), gateway: None };
            port.addresses.iter().map(move |address| (*address, route))
        });
        let fixed = config.routes.iter().filter_map(|route| {
            let port = port_id(network.connected(route.via)?);
            Some((route.to, Route { port, gateway: Some(route.via) }))
        });
        let address = |port: &config::model::Port| port.addresses.first().map(|own| own.addr().to_bits());
        let own = config.ports.iter().flat_map(|port| port.addresses.iter().map(|own| own.addr().to_bits()));
        Self {
            ports: ports
                .map(|(port, mac)| PortInfo { mac: *mac, mtu: port.mtu, address: address(port) })
                .collect(),
            own: own.collect(),
            routes: Arc::new(RouteTable::new(connected.chain(fixed))),
            timeouts: Timeouts::new(config.flow_table.timeouts),
        }
    }
}

/// The snapshot of a state.
pub fn compile(state: &State, frame: &Frame, neighbours: &Arc<NeighbourTable>) -> Snapshot {
    let services = state.service_slots().iter().map(|service| Some(Arc::clone(&service.as_ref()?.compiled)));
    let backends =
        state.backend_slots().iter().map(|backend| Some(compile_backend(state, backend.as_ref()?)));
    Snapshot::new(Parts {
        ports: frame.ports.clone(),
        own: frame.own.clone(),
        routes: Arc::clone(&frame.routes),
        neighbours: Arc::clone(neighbours),
        services: services.collect(),
        backends: backends.collect(),
        timeouts: frame.timeouts,
    })
}

fn compile_backend(state: &State, backend: &Backend) -> snapshot::Backend {
    let egress = state.network.egress(*backend.config.address.ip());
    let tunnel_src = egress.and_then(|egress| state.network.own_address(egress.port, egress.next_hop));
    snapshot::Backend {
        service: backend.service,
        address: backend.config.address,
        mode: backend.config.mode,
        tunnel_src: tunnel_src.map_or(0, |address| address.to_bits()),
        up: backend.health != Health::Down,
    }
}

/// The next hops that forwarding needs at all times: those of all backends, and all gateways.
pub fn wanted_stations(state: &State, config: &Config) -> Vec<NextHop> {
    let backends = state.backend_slots().iter().flatten().map(|backend| *backend.config.address.ip());
    let gateways = config.routes.iter().map(|route| route.via);
    let hops = backends.chain(gateways).filter_map(|address| {
        let egress = state.network.egress(address)?;
        Some(NextHop { port: port_id(egress.port), address: egress.next_hop.to_bits() })
    });
    hops.collect()
}

/// Ports are at most [`config::limits::PORTS`].
pub fn port_id(number: usize) -> PortId {
    PortId(number as u8)
}

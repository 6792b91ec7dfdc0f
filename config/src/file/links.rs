//! What the appliance is connected to: ports, routes and neighbours.

use super::ports::{self, Place};
use super::{all, each, report_repeated};
use crate::model::{Interface, Neighbour, Port, Route};
use crate::network::Network;
use crate::reader::Step::{Index, Key};
use crate::reader::Table;
use crate::rules::{self, Surroundings};
use crate::values::{address, destination, mac};

/// What was read, each part `None` if a problem of it was reported.
pub(super) struct Links {
    pub ports: Option<Vec<Port>>,
    pub interfaces: Option<Vec<Interface>>,
    pub routes: Option<Vec<Route>>,
    pub neighbours: Option<Vec<Neighbour>>,
    /// `None` if parts of it are unknown: rules that need it would only repeat what was told.
    pub network: Option<Network>,
}

pub(super) fn links(root: &Table, workers: Option<usize>) -> Links {
    let (ports, interfaces) = ports::ports(root, workers).unzip();
    let routes = root.tables("route", usize::MAX, route).and_then(all);
    let neighbours = root.tables("neighbour", usize::MAX, neighbour).and_then(all);
    let network = match (&interfaces, &routes) {
        (Some(interfaces), Some(routes)) if !interfaces.is_empty() => Some(Network::new(interfaces, routes)),
        _ => None,
    };
    if let Some(routes) = &routes {
        check_routes(root, network.as_ref(), routes);
    }
    if let Some(neighbours) = &neighbours {
        check_neighbours(root, network.as_ref(), neighbours);
    }
    Links { ports, interfaces, routes, neighbours, network }
}

fn route(table: &Table) -> Option<Route> {
    let to = table.required("to", "\"0.0.0.0/0\"", destination);
    let via = table.required("via", "\"192.0.2.1\"", address);
    Some(Route { to: to?, via: via? })
}

fn neighbour(table: &Table) -> Option<Neighbour> {
    let address = table.required("address", "\"192.0.2.11\"", address);
    let mac = table.required("mac", "\"02:00:5e:00:53:0b\"", mac);
    Some(Neighbour { address: address?, mac: mac? })
}

fn check_routes(root: &Table, network: Option<&Network>, routes: &[Route]) {
    for (index, route) in routes.iter().enumerate() {
        let reach = network.and_then(|network| rules::route_reach_fault(network, route));
        for (key, fault) in rules::route_faults(route).into_iter().chain(reach) {
            root.report(&[Key("route"), Index(index), Key(key)], fault);
        }
    }
    let prefixes: Vec<_> = routes.iter().map(|route| Some(route.to.trunc())).collect();
    report_repeated(root, &prefixes, each("route", "to"));
}

fn check_neighbours(root: &Table, network: Option<&Network>, neighbours: &[Neighbour]) {
    for (index, neighbour) in neighbours.iter().enumerate() {
        let fault = network.and_then(|network| rules::neighbour_reach_fault(network, neighbour));
        if let Some((key, fault)) = fault {
            root.report(&[Key("neighbour"), Index(index), Key(key)], fault);
        }
    }
    let addresses: Vec<_> = neighbours.iter().map(|neighbour| Some(neighbour.address)).collect();
    report_repeated(root, &addresses, each("neighbour", "address"));
}

/// Gateways may speak from the addresses of a pool.
pub(super) fn check_gateways(root: &Table, interfaces: &[Interface], surroundings: &Surroundings) {
    for (place, interface) in Place::all(interfaces).iter().zip(interfaces) {
        let pool = interface.gateway.as_ref().and_then(|gateway| gateway.snat_pool.as_deref());
        let fault = pool.and_then(|pool| rules::gateway_pool_fault(surroundings, interface, pool));
        if let Some((key, fault)) = fault {
            let mut at = place.at("gateway");
            at.push(Key(key));
            root.report(&at, fault);
        }
    }
}

//! Ports, routes and neighbours: what the appliance is connected to.

use ipnet::IpNet;

use super::report_repeated;
use crate::limits;
use crate::model::{Device, Interface, Neighbour, Port, Route, Tags};
use crate::network::Network;
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::Table;
use crate::rules;
use crate::values::{address, destination, device, mac, name, number, own_address};

/// What was read, each part `None` if a problem of it was reported.
pub(super) struct Links {
    pub ports: Option<Vec<Port>>,
    pub interfaces: Option<Vec<Interface>>,
    pub routes: Option<Vec<Route>>,
    pub neighbours: Option<Vec<Neighbour>>,
    /// `None` if parts of it are unknown: rules that need it would only repeat what was told.
    pub network: Option<Network>,
}

pub(super) fn links(root: &Table) -> Links {
    let ports = root.tables("port", limits::PORTS, port).and_then(all);
    let split = |ports: Vec<(Port, Interface)>| -> (Vec<Port>, Vec<Interface>) { ports.into_iter().unzip() };
    let (ports, interfaces) = ports.map(split).unzip();
    let routes = root.tables("route", usize::MAX, route).and_then(all);
    let neighbours = root.tables("neighbour", usize::MAX, neighbour).and_then(all);
    let interfaces: Option<Vec<Interface>> = interfaces.map(|mut interfaces: Vec<Interface>| {
        interfaces.iter_mut().enumerate().for_each(|(number, interface)| interface.port = number);
        interfaces
    });
    if let (Some(ports), Some(interfaces)) = (&ports, &interfaces) {
        compare_ports(root, ports, interfaces);
    }
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

fn all<T>(items: Vec<Option<T>>) -> Option<Vec<T>> {
    items.into_iter().collect()
}

/// `None` only if the addresses can not be read. A name or device that can not be read was reported and is
/// empty here, so that the port's addresses still count for everything behind it.
fn port(table: &Table) -> Option<(Port, Interface)> {
    let name = table.required("name", "\"lan\"", name).unwrap_or_default();
    let device = table.required("device", "\"0000:03:00.0\"", device);
    let addresses = table.required_array("addresses", "[\"192.0.2.254/24\"]", limits::ADDRESSES, own_address);
    let mtu = table.optional("mtu", number(limits::MTU)).unwrap_or(1500);
    let mac = table.optional("mac", mac);
    let devices = vec![device.unwrap_or_else(|| Device::Vdev(String::new()))];
    let interface = Interface {
        name: name.clone(),
        port: 0,
        tags: Tags::default(),
        addresses: addresses?,
        mtu,
        host: None,
        gateway: None,
    };
    Some((Port { name, devices, mtu, mac }, interface))
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

/// What no two ports may share.
fn compare_ports(root: &Table, ports: &[Port], interfaces: &[Interface]) {
    if ports.is_empty() {
        let wrong = Wrong::new("there is no port, so no packet could come or go");
        root.report(&[Key("port")], wrong.help("add a [[port]] with name, device and addresses"));
    }
    let names = ports.iter().map(|port| Some(port.name.as_str()).filter(|name| !name.is_empty()));
    report_repeated(root, "port", "name", &names.collect::<Vec<_>>());
    let devices = ports.iter().map(|port| match &port.devices[0] {
        Device::Pci(text) | Device::Vdev(text) => text.split(',').next().filter(|name| !name.is_empty()),
    });
    report_repeated(root, "port", "device", &devices.collect::<Vec<_>>());
    compare_addresses(root, interfaces);
}

/// An address belongs to one port, and so does every address of a connected prefix.
fn compare_addresses(root: &Table, ports: &[Interface]) {
    let number = |(number, port): (usize, &Interface)| {
        let numbered = |(index, address)| (number, index, address);
        port.addresses.clone().into_iter().enumerate().map(numbered).collect::<Vec<_>>()
    };
    let addresses: Vec<(usize, usize, IpNet)> = ports.iter().enumerate().flat_map(number).collect();
    for (at, (port, index, address)) in addresses.iter().enumerate() {
        let conflict = addresses[..at].iter().find_map(|(other, place, earlier)| {
            let line = || root.line(&[Key("port"), Index(*other), Key("addresses"), Index(*place)]);
            if address.addr() == earlier.addr() {
                let wrong = Wrong::new(format!("{} is already on line {}", address.addr(), line()));
                return Some(wrong.help("an address can be used once: remove one of them"));
            }
            let overlaps = address.contains(&earlier.network()) || earlier.contains(&address.network());
            (overlaps && other != port).then(|| {
                let (prefix, earlier, line) = (address.trunc(), earlier.trunc(), line());
                let message = format!("{prefix} overlaps {earlier} of another port, on line {line}");
                Wrong::new(message).help("give each port prefixes of its own, or make these longer")
            })
        });
        if let Some(wrong) = conflict {
            root.report(&[Key("port"), Index(*port), Key("addresses"), Index(*index)], wrong);
        }
    }
}

fn check_routes(root: &Table, network: Option<&Network>, routes: &[Route]) {
    for (index, route) in routes.iter().enumerate() {
        let reach = network.and_then(|network| rules::route_reach_fault(network, route));
        for (key, fault) in rules::route_fault(route).into_iter().chain(reach) {
            root.report(&[Key("route"), Index(index), Key(key)], fault);
        }
    }
    let prefixes: Vec<_> = routes.iter().map(|route| Some(route.to.trunc())).collect();
    report_repeated(root, "route", "to", &prefixes);
}

fn check_neighbours(root: &Table, network: Option<&Network>, neighbours: &[Neighbour]) {
    for (index, neighbour) in neighbours.iter().enumerate() {
        let fault = network.and_then(|network| rules::neighbour_reach_fault(network, neighbour));
        if let Some((key, fault)) = fault {
            root.report(&[Key("neighbour"), Index(index), Key(key)], fault);
        }
    }
    let addresses: Vec<_> = neighbours.iter().map(|neighbour| Some(neighbour.address)).collect();
    report_repeated(root, "neighbour", "address", &addresses);
}

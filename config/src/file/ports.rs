//! Ports and their interfaces.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::{all, report_repeated};
use crate::limits;
use crate::model::{Device, Gateway, Interface, Port, Tags};
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::{Step, Table};
use crate::rules;
use crate::values::{device, mac, name, number, own_address, tap_name};

/// Reads all ports, and all their interfaces in the order of their numbers. `workers` is how many there are,
/// if that could be read.
pub(super) fn ports(root: &Table, workers: Option<usize>) -> Option<(Vec<Port>, Vec<Interface>)> {
    let read = root.tables("port", limits::PORTS, port).and_then(all)?;
    let (mut ports, mut interfaces) = (Vec::new(), Vec::new());
    for (number, (port, on_it)) in read.into_iter().enumerate() {
        ports.push(port);
        interfaces.extend(on_it.into_iter().map(|interface| Interface { port: number, ..interface }));
    }
    if ports.is_empty() {
        let wrong = Wrong::new("there is no port, so no packet could come or go");
        root.report(&[Key("port")], wrong.help("add a [[port]] with name, device and addresses"));
    }
    compare_devices(root, &ports, workers);
    compare_interfaces(root, &interfaces);
    compare_addresses(root, &interfaces);
    Some((ports, interfaces))
}

/// A port and its interfaces, the untagged one first. `None` only if addresses can not be read. A name or
/// device that can not be read was reported and is empty here, so that the addresses still count for
/// everything behind them.
fn port(table: &Table) -> Option<(Port, Vec<Interface>)> {
    let name = table.required("name", "\"lan\"", name).unwrap_or_default();
    let devices = devices(table);
    let addresses = addresses(table, table.has("vlan"));
    let mtu = table.optional("mtu", number(limits::MTU)).unwrap_or(1500);
    let mac = table.optional("mac", mac);
    let untagged = interface(table, name.clone(), Tags::default(), mtu);
    let vlans = table.tables("vlan", limits::VLANS, |table| vlan(table, &name, mtu)).and_then(all);
    let untagged = Interface { addresses: addresses?, ..untagged };
    let interfaces = std::iter::once(untagged).chain(vlans?).collect();
    Some((Port { name, devices, mtu, mac }, interfaces))
}

/// The one device of a port, or the several that make it up; none if they can not be read.
fn devices(table: &Table) -> Vec<Device> {
    let one = if table.has("devices") {
        table.optional("device", device)
    } else {
        table.required("device", "\"0000:03:00.0\"", device)
    };
    let several = table.array("devices", limits::DEVICES, device).unwrap_or_default();
    if table.has("devices") && table.has("device") {
        let wrong = Wrong::new("the port has `device` already");
        table.report(&[Key("devices")], wrong.help("keep one of them"));
    } else if table.has("devices") && several.is_empty() && table.is_sound() {
        let wrong = Wrong::new("there is no device, so no packet could come or go");
        table.report(&[Key("devices")], wrong.help("name one for each worker"));
    }
    one.map_or(several, |one| vec![one])
}

fn addresses(table: &Table, may_be_left_out: bool) -> Option<Vec<IpNet>> {
    if may_be_left_out {
        table.array("addresses", limits::ADDRESSES, own_address)
    } else {
        table.required_array("addresses", "[\"192.0.2.254/24\"]", limits::ADDRESSES, own_address)
    }
}

fn vlan(table: &Table, port: &str, port_mtu: u16) -> Option<Interface> {
    let id = table.required("id", "100", number(limits::VLAN));
    let outer = table.optional("outer", number(limits::VLAN)).unwrap_or(0);
    let name = table.optional("name", name);
    let addresses = addresses(table, false);
    let mtu = table.optional("mtu", number(limits::MTU)).unwrap_or(port_mtu);
    if mtu > port_mtu {
        let wrong = Wrong::new(format!("mtu is {mtu}, more than the port's, {port_mtu}"));
        table.report(&[Key("mtu")], wrong.help(format!("use at most {port_mtu}, or raise the port's mtu")));
    }
    // A number that can not be read was reported; 0 is no VLAN's and compares to none.
    let tags = Tags { outer, inner: id.unwrap_or(0) };
    let name = name.unwrap_or_else(|| match tags {
        Tags { inner: 0, .. } => String::new(),
        Tags { outer: 0, inner } => format!("{port}.{inner}"),
        Tags { outer, inner } => format!("{port}.{outer}.{inner}"),
    });
    Some(Interface { addresses: addresses?, ..interface(table, name, tags, mtu) })
}

/// What ports and VLANs have in common, but for their addresses; the port's number is known later.
fn interface(table: &Table, name: String, tags: Tags, mtu: u16) -> Interface {
    let host = table.optional("host", tap_name);
    let gateway =
        table.switch("gateway", |table| Gateway { snat_pool: table.optional("snat_pool", self::name) });
    Interface { name, port: 0, tags, addresses: Vec::new(), mtu, host, gateway }
}

/// What no two devices share, and how many there may be.
fn compare_devices(root: &Table, ports: &[Port], workers: Option<usize>) {
    let devices = ports.iter().enumerate();
    let devices: Vec<(usize, usize, &Device)> = devices
        .flat_map(|(port, it)| {
            it.devices.iter().enumerate().map(move |(index, device)| (port, index, device))
        })
        .collect();
    let at = |number: usize| {
        let (port, index, _) = devices[number];
        let port = [Key("port"), Index(port)];
        let several = [port[0], port[1], Key("devices"), Index(index)];
        if root.has_at(&several) { several.to_vec() } else { vec![port[0], port[1], Key("device")] }
    };
    let names: Vec<_> = devices.iter().map(|(.., device)| Some(device_name(device))).collect();
    report_repeated(root, &names, at);
    if devices.len() > limits::DEVICES {
        let wrong = Wrong::new(format!(
            "there are {} devices, but DPDK has room for {}",
            devices.len(),
            limits::DEVICES
        ));
        root.report(&at(limits::DEVICES), wrong.help("remove this one and those after it"));
    }
    for (number, port) in ports.iter().enumerate() {
        let count = port.devices.len();
        if let Some(workers) = workers.filter(|workers| count > 1 && count != *workers) {
            let wrong =
                Wrong::new(format!("there are {count} devices, but the number of workers is {workers}"));
            let help = "name one for each worker, or a single one that has a queue for each";
            root.report(&[Key("port"), Index(number), Key("devices")], wrong.help(help));
        }
    }
}

fn device_name(device: &Device) -> &str {
    let (Device::Pci(text) | Device::Vdev(text)) = device;
    text.split(',').next().unwrap_or_default()
}

/// Where the keys of an interface stand: those of an untagged one in its port.
pub(super) struct Place {
    port: usize,
    vlan: Option<usize>,
}

impl Place {
    /// Those of all interfaces, in their order.
    pub(super) fn all(interfaces: &[Interface]) -> Vec<Self> {
        let first = |port| interfaces.partition_point(|interface| interface.port < port);
        let numbered = interfaces.iter().enumerate();
        let place = |(number, interface): (usize, &Interface)| Self {
            port: interface.port,
            vlan: (number - first(interface.port)).checked_sub(1),
        };
        numbered.map(place).collect()
    }

    pub(super) fn at(&self, key: &'static str) -> Vec<Step> {
        let vlan = self.vlan.map(|vlan| [Key("vlan"), Index(vlan)]);
        let port = [Key("port"), Index(self.port)];
        port.into_iter().chain(vlan.into_iter().flatten()).chain([Key(key)]).collect()
    }
}

/// What no two interfaces share, and what each of them needs.
fn compare_interfaces(root: &Table, interfaces: &[Interface]) {
    let places = Place::all(interfaces);
    let again = compare_tags(root, interfaces, &places);
    // The same VLAN again has the same name, unless another is given.
    let names = interfaces.iter().enumerate().map(|(number, interface)| {
        let told = interface.name.is_empty() || again.contains(&number);
        (!told).then_some(interface.name.as_str())
    });
    let names: Vec<_> = names.collect();
    report_repeated(root, &names, |number| places[number].at("name"));
    let hosts: Vec<_> = interfaces.iter().map(|it| it.host.as_deref()).collect();
    report_repeated(root, &hosts, |number| places[number].at("host"));
    for (place, interface) in places.iter().zip(interfaces) {
        let least = limits::IPV6_MTU;
        if interface.mtu < least && interface.addresses.iter().any(|own| own.addr().is_ipv6()) {
            let wrong = Wrong::new(format!("mtu is {}, too small for IPv6", interface.mtu));
            let help = format!("use at least {least}, or remove the IPv6 addresses");
            root.report(&place.at("mtu"), wrong.help(help));
        }
        if interface.gateway.is_some() && interface.addresses.is_empty() {
            let wrong =
                Wrong::new("there is no address that the hosts of the link could have as their gateway");
            root.report(&place.at("gateway"), wrong.help("add one to addresses, or remove this key"));
        }
    }
}

/// Reports VLANs that their port has already, and returns their numbers.
fn compare_tags(root: &Table, interfaces: &[Interface], places: &[Place]) -> HashSet<usize> {
    let vlans: Vec<_> = (0..interfaces.len()).filter(|number| interfaces[*number].tags.inner != 0).collect();
    let tags = vlans.iter().map(|number| (interfaces[*number].port, interfaces[*number].tags));
    let report = |(again, first): (usize, usize)| {
        let line = root.line(&places[vlans[first]].at("id"));
        let wrong = Wrong::new(format!("this VLAN of the port is already on line {line}"));
        root.report(&places[vlans[again]].at("id"), wrong.help("remove one of them, or change it"));
        vlans[again]
    };
    rules::repeated(tags).into_iter().map(report).collect()
}

/// One of all own addresses, and where it stands.
struct Own<'a> {
    interface: usize,
    address: IpNet,
    place: &'a Place,
    index: usize,
}

impl Own<'_> {
    fn at(&self) -> Vec<Step> {
        let mut at = self.place.at("addresses");
        at.push(Index(self.index));
        at
    }
}

/// An address belongs to one interface, and so does every address of a connected prefix.
fn compare_addresses(root: &Table, interfaces: &[Interface]) {
    let places = Place::all(interfaces);
    let numbered = interfaces.iter().zip(&places).enumerate();
    let all: Vec<Own> = numbered
        .flat_map(|(number, (interface, place))| {
            let addresses = interface.addresses.iter().enumerate();
            addresses.map(move |(index, address)| Own { interface: number, address: *address, place, index })
        })
        .collect();
    let same: HashMap<usize, usize> =
        rules::repeated(all.iter().map(|own| own.address.addr())).into_iter().collect();
    let overlaps = overlapping(&all);
    for (number, own) in all.iter().enumerate() {
        let line = |earlier: usize| root.line(&all[earlier].at());
        let wrong = if let Some(first) = same.get(&number) {
            let wrong = Wrong::new(format!("{} is already on line {}", own.address.addr(), line(*first)));
            wrong.help("an address can be used once: remove one of them")
        } else if let Some(earlier) = overlaps.get(&number) {
            let (prefix, other) = (own.address.trunc(), all[*earlier].address.trunc());
            let message =
                format!("{prefix} overlaps {other} of another interface, on line {}", line(*earlier));
            Wrong::new(message).help("give each interface prefixes of its own, or make these longer")
        } else {
            continue;
        };
        root.report(&own.at(), wrong);
    }
}

/// Prefixes that overlap an earlier one of another interface, each with that one, by index. Of two prefixes
/// that overlap one lies within the other, so it is enough to look up all the shorter forms of each.
fn overlapping(all: &[Own]) -> HashMap<usize, usize> {
    let mut first_of: HashMap<IpNet, usize> = HashMap::new();
    for (number, own) in all.iter().enumerate() {
        first_of.entry(own.address.trunc()).or_insert(number);
    }
    let mut found = HashMap::new();
    for (number, own) in all.iter().enumerate() {
        let shorter =
            (0..=own.address.prefix_len()).filter_map(|len| IpNet::new(own.address.addr(), len).ok());
        let wider = shorter.filter_map(|prefix| first_of.get(&prefix.trunc()).copied());
        for other in wider.filter(|other| all[*other].interface != own.interface) {
            let earlier: &mut usize = found.entry(number.max(other)).or_insert(usize::MAX);
            *earlier = (*earlier).min(number.min(other));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn overlaps_are_those_of_all_pairs(
            addresses in prop::collection::vec((any::<bool>(), 0..16_u8, 26..=32_u8, 0..3_usize), 0..8),
        ) {
            let place = Place { port: 0, vlan: None };
            let own = |(index, (six, host, len, interface)): (usize, &(bool, u8, u8, usize))| {
                let v4 = format!("192.0.2.{host}/{len}");
                let v6 = format!("2001:db8::{host:x}/{}", len + 96);
                let address = if *six { v6 } else { v4 }.parse().unwrap();
                Own { interface: *interface, address, place: &place, index }
            };
            let all: Vec<_> = addresses.iter().enumerate().map(own).collect();
            let overlaps = |a: &Own, b: &Own| {
                let nested = a.address.contains(&b.address) || b.address.contains(&a.address);
                a.interface != b.interface && nested
            };
            let found = overlapping(&all);
            for (later, earlier) in &found {
                prop_assert!(later > earlier && overlaps(&all[*later], &all[*earlier]));
            }
            let any = all.iter().any(|a| all.iter().any(|b| overlaps(a, b)));
            prop_assert_eq!(!found.is_empty(), any);
        }
    }
}

//! Pools of addresses, and classes of packets: what services refer to by name.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{all, each, report_repeated};
use crate::limits;
use crate::model::{Class, SnatPool};
use crate::network::Network;
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::Table;
use crate::rules;
use crate::values::{class_name, name, number, pool_addresses, source};

/// Reads all pools; without a network, the rules that need one are left out.
pub(super) fn snat_pools(root: &Table, network: Option<&Network>) -> Option<Vec<SnatPool>> {
    let pools = root.tables("snat_pool", limits::POOL_ADDRESSES, snat_pool).and_then(all)?;
    let names = pools.iter().map(|(name, _)| Some(name.as_str()).filter(|name| !name.is_empty()));
    report_repeated(root, &names.collect::<Vec<_>>(), each("snat_pool", "name"));
    compare_addresses(root, network, &pools);
    let pool = |(name, entries): (String, Vec<Vec<IpAddr>>)| SnatPool { name, addresses: entries.concat() };
    Some(pools.into_iter().map(pool).collect())
}

/// A pool's name, empty if it can not be read, and the addresses of each of its entries.
fn snat_pool(table: &Table) -> Option<(String, Vec<Vec<IpAddr>>)> {
    let name = table.required("name", "\"out\"", name).unwrap_or_default();
    let example = "[\"198.51.100.200\", \"198.51.100.208/29\"]";
    let entries = table.required_array("addresses", example, limits::POOL_ADDRESSES, pool_addresses)?;
    if entries.is_empty() {
        let wrong = Wrong::new("the pool has no address to speak from");
        table.report(&[Key("addresses")], wrong.help(format!("write them as {example}")));
    }
    Some((name, entries))
}

/// Addresses of pools are nobody else's. Of each entry, the first fault is told.
fn compare_addresses(root: &Table, network: Option<&Network>, pools: &[(String, Vec<Vec<IpAddr>>)]) {
    let mut line_of = HashMap::new();
    for (pool, (_, entries)) in pools.iter().enumerate() {
        for (index, addresses) in entries.iter().enumerate() {
            let at = [Key("snat_pool"), Index(pool), Key("addresses"), Index(index)];
            let fault = addresses.iter().find_map(|own| rules::pool_address_fault(network, *own));
            let again = addresses.iter().find_map(|own| Some((own, *line_of.get(own)?)));
            if let Some(fault) = fault {
                root.report(&at, fault);
            } else if let Some((own, line)) = again {
                let wrong = Wrong::new(format!("{own} is already on line {line}"));
                root.report(&at, wrong.help("an address can be used once: remove one of them"));
            }
            let line = root.line(&at);
            for own in addresses {
                line_of.entry(*own).or_insert(line);
            }
            let (count, most) = (line_of.len(), limits::POOL_ADDRESSES);
            if count > most {
                let message =
                    format!("with this the pools have {count} addresses, but at most {most} are possible");
                return root.report(&at, Wrong::new(message).help("remove some"));
            }
        }
    }
}

/// Reads all classes.
pub(super) fn classes(root: &Table) -> Option<Vec<Class>> {
    let classes = root.tables("class", limits::CLASSES, class)?;
    let names: Vec<_> = classes.iter().map(|class| class.as_ref().map(|class| class.name)).collect();
    report_repeated(root, &names, each("class", "name"));
    all(classes)
}

fn class(table: &Table) -> Option<Class> {
    let name = table.required("name", "\"gold\"", class_name);
    let sources = table.array("source", limits::SOURCES, source);
    let vlan = table.optional("vlan", number(limits::VLAN));
    let dscp = table.optional("dscp", number(limits::DSCP));
    let anything = sources.as_ref().is_some_and(Vec::is_empty) && vlan.is_none() && dscp.is_none();
    if anything && table.is_sound() {
        let wrong = Wrong::new("this class has no condition, so every packet would be of it");
        table.report(&[], wrong.help("add source, vlan or dscp"));
    }
    Some(Class { name: name?, sources: sources?, vlan, dscp })
}

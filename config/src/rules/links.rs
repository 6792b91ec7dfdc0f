//! What holds for routes, neighbours, tap devices and pools.

use std::net::IpAddr;

use super::addresses::{connected_edge_fault, host_fault, link_host_fault, prefix_fault};
use super::services::pool_name_fault;
use super::{Fault, Found, Surroundings};
use crate::limits;
use crate::model::{Interface, Neighbour, Route};
use crate::network::Network;
use crate::problem::quote;

/// A route by itself.
pub(crate) fn route_faults(route: &Route) -> Vec<Found> {
    let Route { to, via } = *route;
    let other_family = to.addr().is_ipv4() != via.is_ipv4();
    let family = other_family.then_some(Fault::RouteFamily { to, via });
    let faults = [("to", prefix_fault(to)), ("via", family)];
    faults.into_iter().filter_map(|(key, fault)| Some((key, fault?))).collect()
}

/// A route in its network.
pub(crate) fn route_reach_fault(network: &Network, route: &Route) -> Option<Found> {
    link_host_fault(network, route.via).map(|fault| ("via", fault))
}

/// A fixed neighbour in its network.
pub(crate) fn neighbour_reach_fault(network: &Network, neighbour: &Neighbour) -> Option<Found> {
    link_host_fault(network, neighbour.address).map(|fault| ("address", fault))
}

/// Name of a tap device. The kernel takes more than these characters, but scripts and rules do not.
pub(crate) fn tap_name_fault(name: &str) -> Option<Fault> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let is_name = (1..=limits::TAP_NAME_LEN).contains(&name.len()) && name.bytes().all(fits);
    (!is_name || name == "." || name == "..").then(|| Fault::TapName(quote(name)))
}

/// The pool that the hosts of an interface go out from.
pub(crate) fn gateway_pool_fault(
    surroundings: &Surroundings,
    interface: &Interface,
    name: &str,
) -> Option<Found> {
    pool_name_fault(surroundings, name).or_else(|| {
        let pool = surroundings.pools.as_ref()?.named(name)?;
        let hosts = &interface.addresses;
        let serves = |own: &IpAddr| hosts.iter().any(|host| host.addr().is_ipv4() == own.is_ipv4());
        let useless = !hosts.is_empty() && !pool.addresses.iter().any(serves);
        useless.then(|| ("snat_pool", Fault::GatewayPoolFamily(name.to_owned())))
    })
}

/// An address of a pool: the appliance takes it for itself, and it is nobody's yet.
pub(crate) fn pool_address_fault(network: Option<&Network>, address: IpAddr) -> Option<Fault> {
    host_fault(address).or_else(|| {
        let network = network?;
        if network.is_own(address) {
            return Some(Fault::OwnAddress(address));
        }
        connected_edge_fault(network, address)
    })
}

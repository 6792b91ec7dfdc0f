//! What a configuration must keep to, beyond being readable: rules over the model, without a file.
//!
//! The reader of the file asks them and adds where the value stands; the control thread asks them for what
//! arrives by the socket. A rule that needs the network takes one; all others hold anywhere.

mod fault;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

pub use self::fault::Fault;
use crate::limits;
use crate::model::{Backend, Check, CheckKind, Class, Neighbour, Route, Service, SnatPool};
use crate::network::Network;
use crate::words::{Mode, Protocol, ServiceKey};

/// A broken rule, and the key of the value that breaks it.
pub(crate) type Found = (&'static str, Fault);

/// What a service and its backends are judged by, besides themselves.
pub struct Surroundings<'a> {
    network: &'a Network,
    pools: &'a [SnatPool],
    classes: &'a [Class],
}

impl<'a> Surroundings<'a> {
    /// Of a whole configuration.
    pub fn new(network: &'a Network, pools: &'a [SnatPool], classes: &'a [Class]) -> Self {
        Self { network, pools, classes }
    }
}

/// Whether a service, its check and its backends keep to all rules, also beside the `others` that are
/// configured; one of them with the same key does not count. The first fault is told.
///
/// # Errors
/// The rule that is broken.
pub fn check_service(
    surroundings: &Surroundings,
    others: impl IntoIterator<Item = ServiceKey>,
    service: &Service,
) -> Result<(), Fault> {
    let network = surroundings.network;
    let own = name_fault(&service.name).map(|fault| ("name", fault)).into_iter();
    let own = own.chain(vip_faults(&service.key)).chain(vip_reach_fault(network, &service.key));
    let checks = service.check.iter().flat_map(|check| check_faults(service.key.protocol, check));
    first(own.chain(checks))?;
    for backend in &service.backends {
        check_backend(surroundings, &service.key, service.snat_pool.as_deref(), backend)?;
    }
    match repeated(service.backends.iter().map(|backend| backend.address)).first() {
        Some((again, _)) => Err(Fault::DuplicateBackend(service.backends[*again].address)),
        None => Ok(()),
    }
}

/// Whether a backend keeps to all rules as one of the service `key`, which speaks from `snat_pool` if it has
/// one. The first fault is told.
///
/// # Errors
/// The rule that is broken.
pub fn check_backend(
    surroundings: &Surroundings,
    key: &ServiceKey,
    snat_pool: Option<&str>,
    backend: &Backend,
) -> Result<(), Fault> {
    let faults = backend_faults(backend).into_iter().chain(backend_service_faults(key, backend));
    first(faults.chain(backend_reach_fault(surroundings.network, backend)))
}

fn first(mut faults: impl Iterator<Item = Found>) -> Result<(), Fault> {
    faults.next().map_or(Ok(()), |(_, fault)| Err(fault))
}

/// Items that came before, by index: each with the index of its first appearance.
pub(crate) fn repeated<T: Eq + Hash>(items: impl IntoIterator<Item = T>) -> Vec<(usize, usize)> {
    let mut seen = HashMap::new();
    let again = |(index, item)| {
        let first = *seen.entry(item).or_insert(index);
        (first != index).then_some((index, first))
    };
    items.into_iter().enumerate().filter_map(again).collect()
}

/// The name of a port or service: it becomes a label of metrics and a word of log lines.
pub(crate) fn name_fault(name: &str) -> Option<Fault> {
    let fits = !name.is_empty() && name.chars().count() <= limits::NAME_LEN && name.trim() == name;
    (!fits || name.contains(char::is_control)).then_some(Fault::Name)
}

/// An address that no host can have, wherever it is (RFC 1122, 3.2.1.3).
fn host_fault(address: IpAddr) -> Option<Fault> {
    let kind = match address {
        IpAddr::V4(address) => ipv4_kind(address),
        IpAddr::V6(address) => ipv6_kind(address),
    };
    kind.map(|kind| Fault::NotAHost { address, kind: kind.to_owned() })
}

fn ipv4_kind(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address {
        _ if address.octets()[0] == 0 => "an address of \"this network\", 0.0.0.0/8",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_broadcast() => "the broadcast address",
        _ if address.octets()[0] >= 240 => "a reserved address, 240.0.0.0/4",
        _ => return None,
    })
}

fn ipv6_kind(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        _ if address.is_unicast_link_local() => "a link-local address",
        _ if address.to_ipv4_mapped().is_some() => "an IPv4 address mapped into IPv6",
        _ => return None,
    })
}

/// The lowest and highest address of a prefix are no host's, unless it is a /31 (RFC 3021) or /32.
fn edge_fault(prefix: IpNet, address: IpAddr) -> Option<Fault> {
    let kind = match address {
        _ if prefix.max_prefix_len() - prefix.prefix_len() <= 1 => return None,
        _ if address == prefix.network() => "network",
        _ if address == prefix.broadcast() && address.is_ipv4() => "broadcast",
        _ => return None,
    };
    Some(Fault::NotAHost { address, kind: format!("the {kind} address of {}", prefix.trunc()) })
}

fn connected_edge_fault(network: &Network, address: IpAddr) -> Option<Fault> {
    network.connected_prefix(address).and_then(|prefix| edge_fault(prefix, address))
}

/// An address of a port, with its connected prefix.
pub(crate) fn own_address_fault(address: IpNet) -> Option<Fault> {
    host_fault(address.addr()).or_else(|| edge_fault(address, address.addr()))
}

/// A gateway or neighbour: another host on the link of some port.
fn link_host_fault(network: &Network, address: IpAddr) -> Option<Fault> {
    if network.is_own(address) {
        return Some(Fault::OwnAddress(address));
    }
    if network.connected(address).is_none() {
        return Some(Fault::NotConnected(address));
    }
    host_fault(address).or_else(|| connected_edge_fault(network, address))
}

/// A route by itself.
pub(crate) fn route_fault(route: &Route) -> Option<Found> {
    (route.to != route.to.trunc()).then_some(("to", Fault::HostBits(route.to)))
}

/// A route in its network.
pub(crate) fn route_reach_fault(network: &Network, route: &Route) -> Option<Found> {
    link_host_fault(network, route.via).map(|fault| ("via", fault))
}

/// A fixed neighbour in its network.
pub(crate) fn neighbour_reach_fault(network: &Network, neighbour: &Neighbour) -> Option<Found> {
    link_host_fault(network, neighbour.address).map(|fault| ("address", fault))
}

/// Protocol, address and port of a service by themselves.
pub(crate) fn vip_faults(key: &ServiceKey) -> Vec<Found> {
    host_fault(key.address).into_iter().map(|fault| ("vip", fault)).collect()
}

/// The VIP in its network. It may be an own address, and need not be on any link: routers can send it here.
pub(crate) fn vip_reach_fault(network: &Network, key: &ServiceKey) -> Option<Found> {
    connected_edge_fault(network, key.address).map(|fault| ("vip", fault))
}

/// A backend by itself.
pub(crate) fn backend_faults(backend: &Backend) -> Vec<Found> {
    address_and_port_faults(backend.address).into_iter().map(|fault| ("address", fault)).collect()
}

fn address_and_port_faults(address: SocketAddr) -> Vec<Fault> {
    let port = (address.port() == 0).then_some(Fault::PortZero);
    host_fault(address.ip()).into_iter().chain(port).collect()
}

/// A backend as part of its service.
pub(crate) fn backend_service_faults(key: &ServiceKey, backend: &Backend) -> Vec<Found> {
    let Backend { address, mode, .. } = *backend;
    let port = key.ports.single().unwrap_or(0);
    let is_vip = address.ip() == key.address;
    let keeps_port = matches!(mode, Mode::Dr | Mode::Tunnel);
    // Port 0 on either side is told by itself.
    let is_other_port = keeps_port && address.port() != port && address.port() != 0 && port != 0;
    let faults = [
        is_vip.then_some(Fault::BackendIsVip(address)),
        is_other_port.then_some(Fault::OtherPort { backend: address, mode, port }),
    ];
    faults.into_iter().flatten().map(|fault| ("address", fault)).collect()
}

/// A backend in its network: in mode `dr` the next hop is the backend itself, in others anyone.
///
/// Whatever has a way also has an own address for the outer header of a tunnel: ways begin at the connected
/// prefix of an own address.
pub(crate) fn backend_reach_fault(network: &Network, backend: &Backend) -> Option<Found> {
    let Backend { address, mode, .. } = *backend;
    let way = network.egress(address.ip());
    let fault = if network.is_own(address.ip()) {
        Some(Fault::OwnAddress(address.ip()))
    } else if mode == Mode::Dr && way.is_none_or(|way| way.next_hop != address.ip()) {
        Some(Fault::OffLink(address))
    } else if way.is_none() {
        Some(Fault::NoRoute(address))
    } else {
        connected_edge_fault(network, address.ip())
    };
    fault.map(|fault| ("address", fault))
}

/// A check of a service with this protocol.
pub(crate) fn check_faults(protocol: Protocol, check: &Check) -> Vec<Found> {
    let ranges = [
        ("interval_ms", check.interval_ms, limits::CHECK_MS),
        ("timeout_ms", check.timeout_ms, limits::CHECK_MS),
        ("rise", check.rise, limits::CHECKS_IN_A_ROW),
        ("fall", check.fall, limits::CHECKS_IN_A_ROW),
    ];
    let ranges = ranges.into_iter().map(|(key, value, range)| (key, Fault::check_range(key, value, range)));
    let late = check.timeout_ms > check.interval_ms;
    let timeout = late.then_some(Fault::TimeoutOverInterval {
        timeout_ms: check.timeout_ms,
        interval_ms: check.interval_ms,
    });
    let port = match check.port {
        None if protocol == Protocol::Udp => Some(Fault::UdpCheckPort),
        Some(0) => Some(Fault::PortZero),
        _ => None,
    };
    let faults = ranges.chain([("timeout_ms", timeout), ("port", port)]).chain(kind_faults(&check.kind));
    faults.filter_map(|(key, fault)| Some((key, fault?))).collect()
}

fn kind_faults(kind: &CheckKind) -> Vec<(&'static str, Option<Fault>)> {
    let CheckKind::Http { path, host, status } = kind else { return Vec::new() };
    let status = status.and_then(|status| {
        let range = u32::from(*limits::HTTP_STATUS.start())..=u32::from(*limits::HTTP_STATUS.end());
        Fault::check_range("status", status.into(), range)
    });
    let host = host.as_deref().and_then(check_host_fault);
    vec![("path", check_path_fault(path)), ("host", host), ("status", status)]
}

/// Request target of an HTTP check; anything else would end the request line early (RFC 9112, section 3).
pub(crate) fn check_path_fault(path: &str) -> Option<Fault> {
    (!path.starts_with('/') || !is_visible(path)).then_some(Fault::CheckPath)
}

/// Host header of an HTTP check; anything else would end the header early (RFC 9112, section 5).
pub(crate) fn check_host_fault(host: &str) -> Option<Fault> {
    (host.is_empty() || !is_visible(host)).then_some(Fault::CheckHost)
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests;

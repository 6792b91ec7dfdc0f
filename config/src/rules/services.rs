//! What holds for services and their backends.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::addresses::{connected_edge_fault, host_fault};
use super::balance::{fastest_fault, server_id_fault};
use super::tunnels::tunnel_fault;
use super::{Fault, Found, Surroundings, Terms};
use crate::limits;
use crate::model::{Backend, Timeouts};
use crate::words::{ClassName, ClientAddress, Mode, NoFlow, Protocol, ServiceKey};

/// A virtual address. It may be an own one, and need not be on any link: routers can send it here.
pub(crate) fn vip_fault(surroundings: &Surroundings, key: &ServiceKey) -> Option<Found> {
    let address = key.address;
    let edge = || connected_edge_fault(surroundings.network?, address);
    let fault = host_fault(address).or_else(edge).or_else(|| surroundings.pool_fault(address.into()));
    fault.map(|fault| ("vip", fault))
}

/// The class that a service is bound to.
pub(crate) fn class_fault(surroundings: &Surroundings, class: ClassName) -> Option<Found> {
    let classes = surroundings.classes?;
    let missing = classes.iter().all(|other| other.name != class);
    let names = || classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>();
    missing.then(|| ("class", Fault::unknown("class", class.as_str(), &names())))
}

/// The pool that is named under `snat_pool`.
pub(crate) fn pool_name_fault(surroundings: &Surroundings, name: &str) -> Option<Found> {
    let pools = surroundings.pools.as_ref()?;
    let missing = pools.named(name).is_none();
    missing.then(|| ("snat_pool", Fault::unknown("snat pool", name, &pools.names())))
}

/// Options that only services of one protocol have.
pub(crate) fn option_faults(
    protocol: Protocol,
    no_flow: NoFlow,
    mss: Option<u16>,
    one_packet: bool,
) -> Vec<Found> {
    let only = |key, protocol| (key, Fault::OtherProtocol { key, protocol });
    let range = mss.and_then(|mss| Fault::range("mss", mss, limits::MSS));
    let faults = [
        (no_flow != NoFlow::Drop && protocol != Protocol::Tcp).then(|| only("no_flow", Protocol::Tcp)),
        range.map(|fault| ("mss", fault)),
        (mss.is_some() && protocol != Protocol::Tcp).then(|| only("mss", Protocol::Tcp)),
        (one_packet && protocol != Protocol::Udp).then(|| only("one_packet", Protocol::Udp)),
    ];
    faults.into_iter().flatten().collect()
}

/// How a service's backends learn their clients' addresses.
pub(crate) fn client_address_fault(
    protocol: Protocol,
    one_packet: bool,
    client_address: ClientAddress,
) -> Option<Found> {
    let fault = match client_address {
        ClientAddress::None => return None,
        ClientAddress::ProxyV1 | ClientAddress::Toa if protocol != Protocol::Tcp => {
            Fault::ClientAddressTcp(client_address)
        }
        ClientAddress::ProxyV2Each if protocol != Protocol::Udp => Fault::ClientAddressUdp,
        _ if one_packet => Fault::ClientAddressOnePacket,
        _ => return None,
    };
    Some(("client_address", fault))
}

/// Timeouts of a service.
pub(crate) fn timeout_faults(mut timeouts: Timeouts) -> Vec<Found> {
    let fault = |(key, secs): (&'static str, &mut u32)| Fault::range(key, *secs, limits::IDLE_SECS);
    timeouts.each().into_iter().filter_map(|each| Some(("timeouts", fault(each)?))).collect()
}

/// Services of which each shares some ports with an earlier one, and neither has all of the other's: by
/// index, each with the index of the earlier one. Those of different addresses, protocols or classes share
/// none, and of two that lie within each other, the narrower is asked first.
pub(crate) fn overlapping(keys: &[Option<ServiceKey>]) -> Vec<(usize, usize)> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for (index, key) in keys.iter().enumerate() {
        if let Some(key) = key {
            let group = groups.entry((key.protocol, key.address, key.class)).or_default();
            group.push((key.ports.first, u16::MAX - key.ports.last, index));
        }
    }
    let mut found = Vec::new();
    for mut group in groups.into_values() {
        // Wider ones come before those that lie within them. The stack has the ones that are still open, each
        // within the one below it.
        group.sort_unstable();
        let mut open: Vec<(u16, usize)> = Vec::new();
        for (first, rest, index) in group {
            let last = u16::MAX - rest;
            while open.pop_if(|(end, _)| *end < first).is_some() {}
            if let Some((end, other)) = open.last().copied()
                && end < last
            {
                found.push((index.max(other), index.min(other)));
            }
            open.push((last, index));
        }
    }
    found
}

/// Whether two services share some ports, and neither has all of the other's.
pub(super) fn overlap_fault(key: ServiceKey, other: ServiceKey) -> Option<Fault> {
    let group = |key: ServiceKey| (key.protocol, key.address, key.class);
    let nested = key.ports.covers(other.ports) || other.ports.covers(key.ports);
    let crosses = group(key) == group(other) && key.ports.overlaps(other.ports) && !nested;
    crosses.then_some(Fault::PortsOverlap { key, other })
}

/// A backend in its service, if that is known, and in its surroundings. What comes of an address that is
/// wrong by itself is not told.
pub(crate) fn backend_faults(
    surroundings: &Surroundings,
    terms: Option<&Terms>,
    backend: &Backend,
) -> Vec<Found> {
    let address = backend_address_fault(surroundings, backend.address);
    let fits = address.is_none();
    let in_service = terms.filter(|_| fits).into_iter().flat_map(|terms| {
        let kin = kin_fault(surroundings, terms, backend);
        [port_fault(terms.key, backend), kin, fastest_fault(terms, backend)].into_iter().flatten()
    });
    let way = way_fault(surroundings, backend).filter(|_| fits).map(|fault| ("address", fault));
    let of_address = address.into_iter().chain(in_service.map(|fault| ("address", fault))).chain(way);
    let vip = terms.map(|terms| terms.key.address);
    let tunnel = tunnel_fault(surroundings, vip, backend);
    let id = terms.and_then(|terms| server_id_fault(terms.quic, backend));
    tunnel.into_iter().chain(threshold_fault(backend)).chain(of_address).chain(id).collect()
}

/// The limits of a backend, as `ipvsadm` checks them.
fn threshold_fault(backend: &Backend) -> Option<Found> {
    let Backend { upper, lower, .. } = *backend;
    (lower > upper).then_some(("lower", Fault::LowerThreshold { upper, lower }))
}

/// The address of a backend, whatever its mode.
pub(crate) fn backend_address_fault(surroundings: &Surroundings, address: SocketAddr) -> Option<Found> {
    let ip = address.ip();
    let zone = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0).then_some(Fault::Zone(address));
    let of_network = || {
        let network = surroundings.network?;
        network.is_own(ip).then_some(Fault::OwnAddress(ip)).or_else(|| connected_edge_fault(network, ip))
    };
    let of_pool = || surroundings.pool_fault(ip.into());
    host_fault(ip).or(zone).or_else(of_pool).or_else(of_network).map(|fault| ("address", fault))
}

/// The port of a backend against those of its service.
fn port_fault(key: &ServiceKey, backend: &Backend) -> Option<Fault> {
    let Backend { address, mode, .. } = *backend;
    let keeps_port = matches!(mode, Mode::Dr | Mode::Tunnel);
    match (key.ports.single(), address.port()) {
        (Some(_), 0) => Some(Fault::PortZero),
        (None, 0) => None,
        (Some(port), found) => {
            (keeps_port && found != port).then_some(Fault::OtherPort { backend: address, mode, port })
        }
        (None, _) if keeps_port => Some(Fault::OtherPort { backend: address, mode, port: 0 }),
        (None, first) => {
            let count = key.ports.count();
            (count - 1 > u16::MAX - first).then_some(Fault::TooFewPorts { backend: address, count })
        }
    }
}

/// A backend against its VIP, with what a translation between them takes.
fn kin_fault(surroundings: &Surroundings, terms: &Terms, backend: &Backend) -> Option<Fault> {
    let Backend { address, mode, .. } = *backend;
    let vip = terms.key.address;
    match mode {
        _ if address.ip() == vip => Some(Fault::BackendIsVip(address)),
        Mode::Nat | Mode::Dr | Mode::Tunnel if terms.client_address != ClientAddress::None => {
            Some(Fault::ClientAddressMode { backend: address, mode })
        }
        Mode::Nat | Mode::Dr => {
            let same_family = address.is_ipv4() == vip.is_ipv4();
            (!same_family).then_some(Fault::OtherFamily { backend: address, vip, mode })
        }
        Mode::FullNat if terms.one_packet => Some(Fault::OnePacketFullNat(address)),
        Mode::FullNat => full_nat_fault(surroundings, terms, backend),
        Mode::Tunnel => {
            let spread = backend.tunnel.spread?;
            let same_family = spread.addr().is_ipv4() == address.is_ipv4();
            (!same_family).then_some(Fault::SpreadFamily { backend: address, spread })
        }
    }
}

fn full_nat_fault(surroundings: &Surroundings, terms: &Terms, backend: &Backend) -> Option<Fault> {
    let Some(name) = terms.snat_pool else { return Some(Fault::NoPool(backend.address)) };
    // A pool that is not there is told of the service.
    let pool = surroundings.pools.as_ref()?.named(name)?;
    let same_family = pool.addresses.iter().any(|own| own.is_ipv4() == backend.address.is_ipv4());
    (!same_family).then(|| Fault::PoolFamily { backend: backend.address, pool: name.to_owned() })
}

/// The way to a backend: in mode `dr` the next hop is the backend itself, in others anyone.
///
/// Whatever has a way also has an own address for the outer header of a tunnel: ways begin at the connected
/// prefix of an own address of the same family.
fn way_fault(surroundings: &Surroundings, backend: &Backend) -> Option<Fault> {
    let Backend { address, mode, .. } = *backend;
    let way = surroundings.network?.egress(address.ip());
    if mode == Mode::Dr && way.is_none_or(|way| way.next_hop != address.ip()) {
        return Some(Fault::OffLink(address));
    }
    way.is_none().then_some(Fault::NoRoute(address))
}

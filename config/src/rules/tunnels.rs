//! What holds for tunnels, and for the addresses that their outer headers come from.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::addresses::{host_fault, prefix_fault};
use super::{Fault, Found, Surroundings};
use crate::limits;
use crate::model::{Backend, Tunnel};
use crate::words::{Encapsulation, Mode};

/// How packets are wrapped for a backend; `vip` is its service's, if that is known.
pub(super) fn tunnel_fault(
    surroundings: &Surroundings,
    vip: Option<IpAddr>,
    backend: &Backend,
) -> Option<Found> {
    let tunnel = &backend.tunnel;
    let fault = if backend.mode == Mode::Tunnel {
        header_fault(tunnel).or_else(|| spread_fault(surroundings, vip, tunnel.spread?))
    } else {
        (*tunnel != Tunnel::default()).then_some(Fault::TunnelMode)
    };
    fault.map(|fault| ("tunnel", fault))
}

/// What stands between outer and inner header.
fn header_fault(tunnel: &Tunnel) -> Option<Fault> {
    match tunnel.encapsulation {
        Encapsulation::Ipip if tunnel.checksum => Some(Fault::TunnelChecksum),
        Encapsulation::Gue => (tunnel.port == 0).then_some(Fault::PortZero),
        other => (tunnel.port != Tunnel::GUE_PORT).then_some(Fault::TunnelPort(other)),
    }
}

/// The source addresses of a tunnel: a host could have each of them, but nobody that is known here does.
pub(crate) fn spread_fault(surroundings: &Surroundings, vip: Option<IpAddr>, spread: IpNet) -> Option<Fault> {
    let lengths = match spread {
        IpNet::V4(_) => limits::SPREAD_LEN_V4,
        IpNet::V6(_) => limits::SPREAD_LEN_V6,
    };
    let length = || Fault::range("prefix length", spread.prefix_len(), lengths);
    // Of the addresses that no host has, a prefix of such a length begins or ends with one if it has any.
    let edges = || [spread.network(), spread.broadcast()].into_iter().find_map(host_fault);
    let own = || surroundings.network?.own_within(spread).map(Fault::OwnAddress);
    let pool = || surroundings.pool_fault(spread);
    let why = || edges().or_else(own).or_else(pool).map(|fault| fault.to_string());
    let vip = || vip.filter(|vip| spread.contains(vip)).map(|vip| format!("{vip} is the VIP"));
    let taken = || why().or_else(vip).map(|why| Fault::NotSources { spread, why });
    prefix_fault(spread).or_else(length).or_else(taken)
}

/// Source addresses of tunnels among which are those of backends of the same service.
pub(crate) fn spreads_over_backends<'a>(
    backends: impl Iterator<Item = &'a Backend> + Clone,
) -> Vec<(IpNet, Fault)> {
    let spreads: BTreeSet<IpNet> = backends.clone().filter_map(|backend| backend.tunnel.spread).collect();
    if spreads.is_empty() {
        return Vec::new();
    }
    let addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.address.ip()).collect();
    let fault = |spread: IpNet| {
        let covered = addresses.range(spread.network()..=spread.broadcast()).next()?;
        Some((spread, Fault::NotSources { spread, why: format!("{covered} is a backend of the service") }))
    };
    spreads.into_iter().filter_map(fault).collect()
}

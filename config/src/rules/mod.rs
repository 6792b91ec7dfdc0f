//! What makes a configuration valid, and how each fault is told and mended.
//!
//! The reader of the file asks the rules and adds where the value stands; the control thread asks them, by
//! [`check_service`] and [`check_backend`], for what arrives by the socket: the same rules either way.

mod addresses;
mod balance;
mod checks;
mod fault;
mod links;
mod policy;
mod services;
mod tunnels;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;

pub(crate) use self::addresses::{own_address_fault, prefix_fault};
pub(crate) use self::balance::{
    expiration_use_fault, fastest_use_fault, hash_faults, quic_faults, quic_use_fault,
};
pub(crate) use self::checks::{
    agent_faults, agent_use_fault, check_faults, check_host_fault, check_path_fault,
};
pub use self::fault::Fault;
pub(crate) use self::links::{
    gateway_pool_fault, neighbour_reach_fault, pool_address_fault, route_faults, route_reach_fault,
    tap_name_fault,
};
pub(crate) use self::policy::hysteresis_fault;
use self::policy::policy_faults;
pub(crate) use self::services::{
    backend_address_fault, backend_faults, class_fault, client_address_fault, option_faults, overlapping,
    pool_name_fault, vip_fault,
};
use self::services::{overlap_fault, timeout_faults};
pub(crate) use self::tunnels::{spread_fault, spreads_over_backends};
use crate::limits;
use crate::model::{Backend, Class, Quic, Service, SnatPool};
use crate::network::Network;
use crate::words::{ClientAddress, Scheduler, ServiceKey};

/// A broken rule, and the key of the value that breaks it.
pub(crate) type Found = (&'static str, Fault);

/// What services and backends are judged by, besides themselves.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// Each part `None` if it could not be read: rules that need it would only repeat what was told.
    network: Option<&'a Network>,
    pools: Option<Pools<'a>>,
    classes: Option<&'a [Class]>,
}

#[derive(Clone, Debug)]
struct Pools<'a> {
    pools: &'a [SnatPool],
    by_address: BTreeMap<IpAddr, &'a str>,
}

impl<'a> Surroundings<'a> {
    /// Those of a whole configuration.
    pub fn new(network: &'a Network, pools: &'a [SnatPool], classes: &'a [Class]) -> Self {
        Self::known(Some(network), Some(pools), Some(classes))
    }

    pub(crate) fn known(
        network: Option<&'a Network>,
        pools: Option<&'a [SnatPool]>,
        classes: Option<&'a [Class]>,
    ) -> Self {
        Self { network, pools: pools.map(Pools::new), classes }
    }

    /// A pool has an address of this prefix.
    fn pool_fault(&self, prefix: IpNet) -> Option<Fault> {
        let within = prefix.network()..=prefix.broadcast();
        let (address, pool) = self.pools.as_ref()?.by_address.range(within).next()?;
        Some(Fault::PoolAddress { address: *address, pool: (*pool).to_owned() })
    }
}

impl<'a> Pools<'a> {
    fn new(pools: &'a [SnatPool]) -> Self {
        let addresses = |pool: &'a SnatPool| pool.addresses.iter().map(|own| (*own, pool.name.as_str()));
        Self { pools, by_address: pools.iter().flat_map(addresses).collect() }
    }

    fn named(&self, name: &str) -> Option<&'a SnatPool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    fn names(&self) -> Vec<&'a str> {
        self.pools.iter().map(|pool| pool.name.as_str()).collect()
    }
}

/// What of a service its backends are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Its protocol, address, ports and class.
    pub key: &'a ServiceKey,
    /// The pool that full NAT speaks from.
    pub snat_pool: Option<&'a str>,
    /// Whether it keeps no flows.
    pub one_packet: bool,
    /// How its backends learn their clients' addresses.
    pub client_address: ClientAddress,
    /// How its backends are chosen.
    pub scheduler: Scheduler,
    /// How they make connection IDs.
    pub quic: Option<&'a Quic>,
}

impl<'a> From<&'a Service> for Terms<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            key: &service.key,
            snat_pool: service.snat_pool.as_deref(),
            one_packet: service.one_packet,
            client_address: service.client_address,
            scheduler: service.scheduler,
            quic: service.quic.as_ref(),
        }
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
    let Service { key, .. } = service;
    let name = name_fault(&service.name).map(|fault| ("name", fault));
    let named = name.into_iter().chain(vip_fault(surroundings, key));
    let class = key.class.and_then(|class| class_fault(surroundings, class));
    let pool = service.snat_pool.as_deref().and_then(|name| pool_name_fault(surroundings, name));
    let options = option_faults(key.protocol, service.no_flow, service.mss, service.one_packet);
    let untold = client_address_fault(key.protocol, service.one_packet, service.client_address);
    let timeouts = service.timeouts.map(timeout_faults).unwrap_or_default();
    let hash = service.hash.iter().flat_map(|hash| balance::hash_faults(service.scheduler, hash));
    let persistence = service.persistence.iter().flat_map(balance::persistence_faults);
    let checks = service.check.iter().flat_map(|check| check_faults(key.protocol, key.ports, check));
    let policy = policy_faults(&service.policy);
    let options = options.into_iter().chain(untold).chain(timeouts).chain(hash);
    let options = options.chain(fastest_use_fault(key.protocol, service.scheduler));
    let options = options.chain(agent_use_fault(service.scheduler, service.agent.is_some()));
    let options = options.chain(service.agent.iter().flat_map(agent_faults));
    let options = options.chain(balance::quic_of_service(service)).chain(persistence);
    let options = options.chain(balance::expiration_faults(service));
    let options = options.chain(service.limits.iter().flat_map(balance::limit_faults)).chain(policy);
    first(named.chain(class).chain(pool).chain(options).chain(checks))?;
    others.into_iter().find_map(|other| overlap_fault(*key, other)).map_or(Ok(()), Err)?;
    let backends: Vec<Backend> = service.backends.iter().chain(&service.policy.sorry).copied().collect();
    for backend in &backends {
        first(backend_faults(surroundings, Some(&service.into()), backend).into_iter())?;
    }
    if let Some((again, _)) = repeated(backends.iter().map(|backend| backend.address)).first() {
        return Err(Fault::DuplicateBackend(backends[*again].address));
    }
    check_spreads(&backends)
}

/// Whether a backend keeps to all rules, in a service on these terms and beside its `others`. The first fault
/// is told.
///
/// # Errors
/// The rule that is broken.
pub fn check_backend<'a>(
    surroundings: &Surroundings,
    terms: Terms,
    others: impl IntoIterator<Item = &'a Backend>,
    backend: &'a Backend,
) -> Result<(), Fault> {
    first(backend_faults(surroundings, Some(&terms), backend).into_iter())?;
    check_spreads(&others.into_iter().chain([backend]).copied().collect::<Vec<_>>())
}

fn check_spreads(backends: &[Backend]) -> Result<(), Fault> {
    spreads_over_backends(backends.iter()).into_iter().next().map_or(Ok(()), |(_, fault)| Err(fault))
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

/// The name of a port, service or pool: it becomes a label of metrics and a word of log lines.
pub(crate) fn name_fault(name: &str) -> Option<Fault> {
    let fits = !name.is_empty() && name.chars().count() <= limits::NAME_LEN && name.trim() == name;
    (!fits || name.contains(char::is_control)).then_some(Fault::Name)
}

#[cfg(test)]
mod tests;

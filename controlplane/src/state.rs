//! What is configured, and how it stands: services, backends, health.
//!
//! Pure: no clock, socket or worker. Every change is checked whole before any of it is made. Flows name
//! services and backends by slot, so a removed one keeps its slot, retired, until its last flow has ended.

mod admin;
mod agent;
mod ground;
mod put;
mod retire;
mod reweigh;
mod slots;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::model;
use config::rules::{self, Fault};
use config::words::{ClientAddress, Fate, ServiceKey};
use dataplane::forward::RESERVED_SERVICES;
use dataplane::schedule::Ingredients;
use dataplane::schedule::hash::Secret;
use dataplane::snapshot::{self, BackendSlot, ServiceSlot};

use crate::api::{ApiError, Counters, Health, code};
use crate::health::Target;
use crate::policy::{Serving, Share, Standing};
pub use admin::{Drain, Drained, Passed, Wish};
pub use agent::Told;
pub use ground::Ground;
use put::Arrival;
pub use retire::plus;
use reweigh::Measured;
use slots::Slots;

/// Service slots at most. The last of 16 bits are those of flows without a service.
const MAX_SERVICES: usize = (1 << 16) - RESERVED_SERVICES;
/// Backend slots at most; the last of 24 bits is no backend.
const MAX_BACKENDS: usize = (1 << 24) - 1;

/// How many slots workers have counters for; fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services, retired ones included.
    pub services: usize,
    /// Backends of all services, retired ones included.
    pub backends: usize,
}

impl Limits {
    /// Twice what a configuration has, but room enough for changes at run time.
    pub fn for_config(config: &model::Config) -> Self {
        let of = |service: &model::Service| service.backends.len() + service.policy.sorry.len();
        let backends: usize = config.services.iter().map(of).sum();
        let room = |configured: usize, least: usize, most: usize| (configured * 2).clamp(least, most);
        Self {
            services: room(config.services.len(), 1024, MAX_SERVICES),
            backends: room(backends, 4096, MAX_BACKENDS),
        }
    }
}

/// A service, configured or retired.
#[derive(Debug)]
pub struct Service {
    /// As configured, but for its backends and sorry backends, which are in their slots.
    pub config: model::Service,
    /// Whether it was removed and only its flows remain.
    pub retired: bool,
    /// Its configured backends, in the order of the scheduler.
    pub backends: Vec<BackendSlot>,
    /// Its sorry backends.
    pub sorry: Vec<BackendSlot>,
    /// Its backends that were removed and have flows left.
    pub retired_backends: Vec<BackendSlot>,
    /// Work of its backends whose slots were freed.
    pub past: Counters,
    /// Tells it from others that had its slot before.
    incarnation: u64,
    /// Its place among others, by which classes are chosen.
    rank: u64,
    /// What its scheduler's plan was made of.
    planned: Option<Ingredients>,
    /// Who serves it.
    pub serving: Serving,
    /// Whether its live backends are enough.
    pub quorum: bool,
    /// What the weights of its backends' shares are multiplied by.
    pub scale: u32,
    /// As workers see it.
    pub compiled: Arc<snapshot::Service>,
}

impl Service {
    /// Its configured backends, then its sorry backends.
    pub fn members(&self) -> impl Iterator<Item = &BackendSlot> {
        self.backends.iter().chain(&self.sorry)
    }

    /// Whether a client that had one of its backends may come back to it. Nobody is bound to a sorry backend.
    pub fn binds(&self, slot: BackendSlot, backend: &Backend) -> bool {
        backend.persists() && !self.sorry.contains(&slot)
    }
}

/// A backend, configured or retired.
#[derive(Debug)]
pub struct Backend {
    /// The service it belongs to.
    pub service: ServiceSlot,
    /// As configured.
    pub config: model::Backend,
    /// How it learns its clients' addresses: as its service says, or said when its flows began.
    pub client_address: ClientAddress,
    /// Its last weight that was not 0: its share of a table of IPVS (`last_weight` there).
    last_weight: u16,
    /// Whether it was removed and only its flows remain.
    pub retired: bool,
    /// What its checks say.
    pub health: Health,
    /// What the last check saw.
    pub reason: String,
    /// Since when `health` is so, from the appliance's start.
    pub since: Duration,
    /// What the operator wants of it now.
    pub wish: Wish,
    /// Since when it grows into its weight; none: it always had it, or is down.
    ramps_since: Option<Duration>,
    /// Whether it takes new flows, and how many.
    pub share: Share,
    /// What becomes of its flows.
    pub fate: Fate,
    /// What was measured of it.
    measured: Measured,
    /// What its agent said.
    pub told: Told,
    /// What its slot had counted for others before.
    base: Counters,
}

impl Backend {
    /// Whether new flows would be given to it if it was up.
    fn is_wanted(&self) -> bool {
        self.wish == Wish::Enabled && self.config.weight > 0
    }

    /// Whether clients that are bound to it by persistence may begin flows: one that drains is there for them, unless
    /// the operator says otherwise.
    fn persists(&self) -> bool {
        let lives = !self.retired && self.health != Health::Down && !self.told.down;
        match self.share.standing {
            Standing::Active | Standing::Ramping | Standing::FailOpen => !self.retired,
            Standing::Standby | Standing::Quiesced => lives,
            Standing::Draining => lives && self.wish.drain().is_some_and(|it| it.persistent && !it.over),
            Standing::NoQuorum | Standing::Down | Standing::Disabled => false,
        }
    }

    /// Notes that it may take flows again, if it was `away` and does so now.
    fn begin_ramp(&mut self, away: bool, now: Duration) {
        if away && self.is_wanted() && self.health != Health::Down {
            self.ramps_since = Some(now);
        }
    }
}

/// All services and backends.
#[derive(Debug)]
pub struct State {
    /// What services stand on.
    pub ground: Ground,
    limits: Limits,
    services: Slots<Service>,
    backends: Slots<Backend>,
    /// What each backend slot had counted when it was last freed.
    slot_bases: HashMap<BackendSlot, Counters>,
    slot_of: HashMap<ServiceKey, ServiceSlot>,
    /// Services for which time alone changes something.
    timed: BTreeSet<ServiceSlot>,
    /// Order in which configured services are listed.
    order: Vec<ServiceSlot>,
    versions: u64,
    /// What hashes are keyed with as long as the cluster has no secret.
    own_secret: Secret,
    /// Services that were put, so that later ones come behind earlier ones.
    ranks: u64,
}

impl State {
    /// Nothing is configured yet.
    pub fn new(ground: Ground, limits: Limits) -> Self {
        Self {
            ground,
            limits,
            services: Slots::new(limits.services),
            backends: Slots::new(limits.backends),
            slot_bases: HashMap::new(),
            slot_of: HashMap::new(),
            timed: BTreeSet::new(),
            order: Vec::new(),
            versions: 0,
            own_secret: Secret::random(),
            ranks: 0,
        }
    }

    /// The configured services, in the order in which they were added.
    pub fn services(&self) -> impl Iterator<Item = &Service> + '_ {
        self.order.iter().filter_map(|slot| self.service(*slot))
    }

    /// All services by slot, retired ones included.
    pub fn service_slots(&self) -> &[Option<Service>] {
        self.services.all()
    }

    /// All backends by slot, retired ones included.
    pub fn backend_slots(&self) -> &[Option<Backend>] {
        self.backends.all()
    }

    /// The service in a slot.
    pub fn service(&self, slot: ServiceSlot) -> Option<&Service> {
        self.services.get(usize::from(slot.0))
    }

    /// The backend in a slot.
    pub fn backend(&self, slot: BackendSlot) -> Option<&Backend> {
        self.backends.get(slot.0 as usize)
    }

    /// What is to be checked, and how.
    pub fn checks(&self) -> impl Iterator<Item = (Target, model::Check)> + '_ {
        self.services().flat_map(|service| self.checks_in(service))
    }

    /// The same of one service; nothing if it is not configured.
    pub fn checks_of(&self, key: ServiceKey) -> impl Iterator<Item = (Target, model::Check)> + '_ {
        let service = self.configured(key).and_then(|slot| self.service(slot));
        service.into_iter().flat_map(|service| self.checks_in(service))
    }

    fn checks_in<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Target, model::Check)> + 'a {
        self.backends_in(service).filter_map(|backend| {
            let target = Target { service: service.config.key, backend: backend.config.address };
            let check = service.config.check.clone()?;
            Some((target, check.within(service.config.client_address)))
        })
    }

    /// The configured backends of a service, and its sorry backends; none if it is not configured.
    pub fn backends_of(&self, key: ServiceKey) -> impl Iterator<Item = &Backend> + '_ {
        let service = self.configured(key).and_then(|slot| self.service(slot));
        let members = service.into_iter().flat_map(Service::members);
        members.filter_map(|slot| self.backend(*slot))
    }

    fn backends_in<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = &'a Backend> + 'a {
        service.backends.iter().filter_map(|slot| self.backend(*slot))
    }

    /// Adds a service with its backends.
    ///
    /// # Errors
    /// It exists, breaks a rule, or there is no slot left.
    pub fn add_service(&mut self, wanted: model::Service, now: Duration) -> Result<(), ApiError> {
        let others = self.services().map(|service| service.config.key);
        rules::check_service(&self.ground.surroundings(), others, &wanted).map_err(|fault| refuse(&fault))?;
        if self.configured(wanted.key).is_some() {
            let message = format!("service {} exists; it is configured already; remove it first", wanted.key);
            return Err(ApiError { code: code::EXISTS, message });
        }
        self.check_room(1, wanted.backends.len() + wanted.policy.sorry.len())?;
        self.put_service(wanted, now);
        Ok(())
    }

    /// Removes a service. Its flows keep their backends until they end.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_service(&mut self, key: ServiceKey, now: Duration) -> Result<(), ApiError> {
        let slot = self.configured(key).ok_or_else(|| no_service(key))?;
        self.order.retain(|other| *other != slot);
        let Some(service) = self.services_mut(slot) else { return Ok(()) };
        service.retired = true;
        let backends = std::mem::take(&mut service.backends);
        for backend in backends.into_iter().chain(std::mem::take(&mut service.sorry)) {
            self.retire(slot, backend);
        }
        self.recompile(slot, now);
        Ok(())
    }

    /// Adds a backend at the end of a service's list of backends, or of sorry backends.
    ///
    /// # Errors
    /// There is no such service, the backend exists or breaks a rule, or there is no slot left.
    pub fn add_backend(
        &mut self,
        key: ServiceKey,
        wanted: model::Backend,
        sorry: bool,
        now: Duration,
    ) -> Result<(), ApiError> {
        let slot = self.configured(key).ok_or_else(|| no_service(key))?;
        let service = self.service(slot).ok_or_else(|| no_service(key))?;
        let others = service.members().filter_map(|slot| Some(&self.backend(*slot)?.config));
        let terms = (&service.config).into();
        rules::check_backend(&self.ground.surroundings(), terms, others, &wanted)
            .map_err(|fault| refuse(&fault))?;
        if self.find_backend(slot, wanted.address).is_some() {
            let address = wanted.address;
            let message =
                format!("backend {address} exists; service {key} has it already; change it with `set`");
            return Err(ApiError { code: code::EXISTS, message });
        }
        self.check_room(0, 1)?;
        let backend = self.put_backend(slot, wanted, Arrival { sorry, ramps: true }, now);
        if let Some(service) = self.services_mut(slot) {
            if sorry { service.sorry.push(backend) } else { service.backends.push(backend) }
        }
        self.recompile(slot, now);
        Ok(())
    }

    /// Removes a backend from a service. Its flows stay with it until they end.
    ///
    /// # Errors
    /// There is no such service or backend.
    pub fn remove_backend(
        &mut self,
        key: ServiceKey,
        address: SocketAddr,
        now: Duration,
    ) -> Result<(), ApiError> {
        let slot = self.configured(key).ok_or_else(|| no_service(key))?;
        let backend = self.find_backend(slot, address).ok_or_else(|| no_backend(key, address))?;
        if let Some(service) = self.services_mut(slot) {
            service.backends.retain(|other| *other != backend);
            service.sorry.retain(|other| *other != backend);
        }
        self.retire(slot, backend);
        self.recompile(slot, now);
        Ok(())
    }

    /// Makes the configured services exactly these, which the caller has checked; what stays keeps its slots,
    /// flows, counters and health.
    ///
    /// # Errors
    /// There are not enough slots; then nothing has changed.
    pub fn replace(
        &mut self,
        ground: Ground,
        wanted: &[model::Service],
        now: Duration,
    ) -> Result<(), ApiError> {
        let new_services = wanted.iter().filter(|service| !self.slot_of.contains_key(&service.key)).count();
        let is_new = |service: &model::Service, backend: &model::Backend| {
            let slot = self.slot_of.get(&service.key);
            slot.and_then(|slot| self.find_slot(*slot, backend)).is_none()
        };
        let new_backends = |service: &model::Service| {
            let all = service.backends.iter().chain(&service.policy.sorry);
            all.filter(|backend| is_new(service, backend)).count()
        };
        let new_backends: usize = wanted.iter().map(new_backends).sum();
        self.check_room(new_services, new_backends)?;
        self.ground = ground;
        let keep: HashSet<ServiceKey> = wanted.iter().map(|service| service.key).collect();
        let gone: Vec<ServiceKey> =
            self.services().map(|service| service.config.key).filter(|key| !keep.contains(key)).collect();
        for key in gone {
            self.remove_service(key, now)?;
        }
        self.order.clear();
        for service in wanted {
            self.put_service(service.clone(), now);
        }
        // Those that were retired before name pools and classes by number, too.
        for number in 0..self.services.all().len() {
            // Services are at most 2^16.
            self.recompile(ServiceSlot(number as u16), now);
        }
        Ok(())
    }

    /// Notes what a check saw; returns whether that changes who takes new flows.
    pub fn observe(&mut self, target: Target, verdict: Option<bool>, reason: String, now: Duration) -> bool {
        let Some(slot) = self.configured(target.service) else { return false };
        let found = self.find_backend(slot, target.backend);
        let Some(backend) = found.and_then(|backend| self.backends_mut(backend)) else { return false };
        backend.reason = reason;
        let health = match verdict {
            Some(true) => Health::Up,
            Some(false) => Health::Down,
            None => return false,
        };
        if backend.health == health {
            return false;
        }
        (backend.health, backend.since, backend.ramps_since) = (health, now, None);
        backend.begin_ramp(true, now);
        self.recompile(slot, now);
        true
    }

    fn configured(&self, key: ServiceKey) -> Option<ServiceSlot> {
        let slot = *self.slot_of.get(&key)?;
        self.service(slot).filter(|service| !service.retired).map(|_| slot)
    }

    fn find_backend(&self, slot: ServiceSlot, address: SocketAddr) -> Option<BackendSlot> {
        let mut members = self.service(slot)?.members().copied();
        members.find(|slot| self.backend(*slot).is_some_and(|it| it.config.address == address))
    }

    /// The slot of a backend that is reached in the same way, configured or retired: flows in it go on.
    fn find_slot(&self, slot: ServiceSlot, wanted: &model::Backend) -> Option<BackendSlot> {
        let service = self.service(slot)?;
        let way = |backend: &model::Backend| (backend.address, backend.mode, backend.tunnel);
        let told = service.config.client_address;
        let same = |slot: &&BackendSlot| {
            self.backend(**slot).is_some_and(|it| way(&it.config) == way(wanted) && it.client_address == told)
        };
        service.members().chain(&service.retired_backends).find(same).copied()
    }

    fn services_mut(&mut self, slot: ServiceSlot) -> Option<&mut Service> {
        self.services.get_mut(usize::from(slot.0))
    }

    fn backends_mut(&mut self, slot: BackendSlot) -> Option<&mut Backend> {
        self.backends.get_mut(slot.0 as usize)
    }

    /// Whether so many new services and backends find slots.
    fn check_room(&self, services: usize, backends: usize) -> Result<(), ApiError> {
        let used = (self.services.len(), self.backends.len());
        let (most_services, most_backends) = (self.limits.services, self.limits.backends);
        let message = if used.0 + services > most_services {
            format!(
                "no room for the service; {most_services} services are configured or still have flows; put more into the configuration file and restart"
            )
        } else if used.1 + backends > most_backends {
            format!(
                "no room for the backends; {most_backends} backends are configured or still have flows; put more into the configuration file and restart"
            )
        } else {
            return Ok(());
        };
        Err(ApiError { code: code::LIMIT, message })
    }
}

fn refuse(fault: &Fault) -> ApiError {
    ApiError { code: code::INVALID_CONFIG, message: format!("refused; {fault}; {}", fault.help()) }
}

/// What a call is told that names a service which is not configured.
pub fn no_service(key: ServiceKey) -> ApiError {
    let message = format!("no service {key}; it is not configured; see `trutina service list`");
    ApiError { code: code::NOT_FOUND, message }
}

fn no_backend(key: ServiceKey, address: SocketAddr) -> ApiError {
    let message = format!("no backend {address}; service {key} has none there; see `trutina backend list`");
    ApiError { code: code::NOT_FOUND, message }
}

#[cfg(test)]
mod tests;

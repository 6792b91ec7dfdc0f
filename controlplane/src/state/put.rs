//! Putting services and backends into slots, and making them as workers see them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use config::model::{self, Hash};
use config::words::Scheduler;
use dataplane::limit::Limits;
use dataplane::schedule::quic::Layout;
use dataplane::schedule::table::Member;
use dataplane::schedule::{Ingredients, Plan};
use dataplane::snapshot::{self, BackendSlot, Candidate, ServiceSlot};

use super::{Backend, Service, State};
use crate::api::{Counters, Health};

impl Backend {
    /// Remembers its weight for when that becomes 0.
    pub(super) fn keep_weight(&mut self) {
        if self.config.weight > 0 {
            self.last_weight = self.config.weight;
        }
    }
}

impl State {
    /// Adds or changes a service; its backends become exactly those wanted.
    pub(super) fn put_service(&mut self, mut wanted: model::Service, now: Duration) {
        let backends = std::mem::take(&mut wanted.backends);
        let slot = match self.slot_of.get(&wanted.key) {
            Some(slot) => *slot,
            None => {
                self.versions += 1;
                let (key, scheduler) = (wanted.key, wanted.scheduler);
                let number = self.services.insert(Service {
                    incarnation: self.versions,
                    rank: 0,
                    config: wanted.clone(),
                    retired: true,
                    backends: Vec::new(),
                    retired_backends: Vec::new(),
                    past: Counters::default(),
                    planned: None,
                    compiled: Arc::new(snapshot::Service::new(key, scheduler, 0, Vec::new())),
                });
                // `Limits` keeps services below 2^16.
                ServiceSlot(number as u16)
            }
        };
        self.slot_of.insert(wanted.key, slot);
        self.order.push(slot);
        self.ranks += 1;
        let rank = self.ranks;
        let Some(service) = self.services_mut(slot) else { return };
        (service.config, service.rank, service.retired) = (wanted, rank, false);
        let before = service.backends.clone();
        let now_there: Vec<BackendSlot> =
            backends.into_iter().map(|backend| self.put_backend(slot, backend, now)).collect();
        let still: HashSet<_> = now_there.iter().copied().collect();
        for backend in before.into_iter().filter(|backend| !still.contains(backend)) {
            self.retire(slot, backend);
        }
        if let Some(service) = self.services_mut(slot) {
            service.backends = now_there;
        }
        self.recompile(slot);
    }

    pub(super) fn put_backend(
        &mut self,
        service: ServiceSlot,
        wanted: model::Backend,
        now: Duration,
    ) -> BackendSlot {
        let config = self.service(service).map(|service| &service.config);
        let checked = config.is_some_and(|config| config.check.is_some());
        let client_address = config.map(|config| config.client_address).unwrap_or_default();
        let slot = match self.find_slot(service, &wanted) {
            Some(slot) => {
                self.revive(service, slot, wanted, now);
                slot
            }
            None => {
                // A backend whose mode changed, or how it learns its clients' addresses, is the same server, with the same check that goes on.
                let known = self.find_backend(service, wanted.address).and_then(|slot| self.backend(slot));
                let (health, since, reason) = match known {
                    Some(known) => (known.health, known.since, known.reason.clone()),
                    None => (Health::Unchecked, now, String::new()),
                };
                let number = self.backends.insert(Backend {
                    service,
                    last_weight: wanted.weight,
                    config: wanted,
                    client_address,
                    retired: false,
                    health,
                    reason,
                    since,
                    base: Counters::default(),
                });
                // `Limits` keeps backends below 2^24.
                let slot = BackendSlot(number as u32);
                let base = self.slot_bases.get(&slot).copied().unwrap_or_default();
                self.backends_mut(slot).into_iter().for_each(|backend| backend.base = base);
                slot
            }
        };
        self.set_checked(slot, checked, now);
        slot
    }

    /// Puts a configuration in force in a slot that has flows of the same backend; if that was retired, its
    /// health begins anew.
    fn revive(&mut self, service: ServiceSlot, slot: BackendSlot, wanted: model::Backend, now: Duration) {
        let Some(backend) = self.backends_mut(slot) else { return };
        backend.config = wanted;
        backend.keep_weight();
        if std::mem::take(&mut backend.retired) {
            (backend.health, backend.since) = (Health::Unchecked, now);
            if let Some(service) = self.services_mut(service) {
                service.retired_backends.retain(|other| *other != slot);
            }
        }
    }

    /// A backend that gets its first check counts as up until the check says otherwise.
    fn set_checked(&mut self, slot: BackendSlot, checked: bool, now: Duration) {
        let Some(backend) = self.backends_mut(slot) else { return };
        let health = match (checked, backend.health) {
            (false, Health::Unchecked) | (true, Health::Up | Health::Down) => return,
            (false, _) => Health::Unchecked,
            (true, Health::Unchecked) => Health::Up,
        };
        backend.reason = if checked { "not checked yet" } else { "no check configured" }.to_owned();
        (backend.health, backend.since) = (health, now);
    }

    pub(super) fn retire(&mut self, service: ServiceSlot, slot: BackendSlot) {
        if let Some(backend) = self.backends_mut(slot) {
            backend.retired = true;
        }
        if let Some(service) = self.services_mut(service) {
            service.retired_backends.push(slot);
        }
    }

    /// Makes a service anew as workers see it, with a new version if its candidates changed.
    pub(super) fn recompile(&mut self, slot: ServiceSlot) {
        let Some(service) = self.service(slot) else { return };
        let takes_flows = |slot: &BackendSlot| {
            let backend = self.backend(*slot)?;
            let up = backend.health != Health::Down && backend.config.weight > 0;
            up.then(|| candidate(*slot, &backend.config))
        };
        let candidates = service.backends.iter().filter_map(takes_flows).collect();
        let version = self.versions + 1;
        let mut compiled = self.compile(service, version, candidates);
        let old = &service.compiled;
        let ingredients = self.ingredients(service);
        let unchanged = (old.scheduler, &old.candidates) == (compiled.scheduler, &compiled.candidates)
            && Some(&ingredients) == service.planned.as_ref()
            && old.version != 0;
        if unchanged {
            (compiled.version, compiled.plan) = (old.version, Arc::clone(&old.plan));
        } else {
            compiled = compiled.planned(&ingredients, Some(old));
            self.versions = version;
        }
        if let Some(service) = self.services_mut(slot) {
            (service.compiled, service.planned) = (Arc::new(compiled), Some(ingredients));
        }
    }

    /// What the plan of a service's scheduler is made of.
    fn ingredients(&self, service: &Service) -> Ingredients {
        let model::Service { scheduler, hash, quic, .. } = service.config;
        let is_table = Plan::is_made_of_members(scheduler);
        let backends = || self.slots_of(service).filter(|_| is_table);
        let down_keeps_slots = !matches!(scheduler, Scheduler::Dh | Scheduler::Sh | Scheduler::Mh);
        let member = |(slot, backend): (BackendSlot, &Backend)| {
            let down = backend.health == Health::Down;
            // Where it keeps its slots, they come back to it; IPVS's tables are made anew without it.
            (!down || down_keeps_slots).then(|| Member {
                backend: slot,
                address: backend.config.address,
                weight: if down { 0 } else { backend.config.weight.into() },
                full_weight: backend.last_weight.into(),
            })
        };
        let quic = quic.unwrap_or_default();
        Ingredients {
            hash: hash.unwrap_or(Hash::of(scheduler)),
            secret: self.ground.secret.unwrap_or(self.own_secret),
            members: backends().filter_map(member).collect(),
            layout: (scheduler == Scheduler::Quic).then(|| layout(&quic)),
            servers: backends()
                .filter_map(|(slot, backend)| Some((backend.config.server_id?, slot)))
                .collect(),
        }
    }

    fn slots_of<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (BackendSlot, &'a Backend)> {
        service.backends.iter().filter_map(|slot| Some((*slot, self.backend(*slot)?)))
    }

    fn compile(&self, service: &Service, version: u64, candidates: Vec<Candidate>) -> snapshot::Service {
        let config = &service.config;
        snapshot::Service {
            class: config.key.class.map(|class| self.ground.class(class)),
            no_backend: config.no_backend,
            no_flow: config.no_flow,
            mss: config.mss,
            one_packet: config.one_packet,
            persistence: config.persistence.as_ref().map(|it| persistence(it, service.incarnation)),
            pool: config.snat_pool.as_deref().and_then(|pool| self.ground.pool(pool)),
            echo: config.echo,
            retired: service.retired,
            incarnation: service.incarnation,
            rank: service.rank,
            ..snapshot::Service::new(config.key, config.scheduler, version, candidates)
                .limited(limits_after(&service.compiled, config.limits.as_ref()))
        }
    }
}

/// A backend as schedulers see it. Without a lower limit it takes new flows again below three quarters of the upper
/// one, as in IPVS.
fn candidate(backend: BackendSlot, config: &model::Backend) -> Candidate {
    let model::Backend { weight, upper, lower, .. } = *config;
    let three_quarters = upper - upper / 4;
    Candidate {
        backend,
        weight: weight.into(),
        upper,
        lower: if lower == 0 { three_quarters } else { lower },
    }
}

/// How clients come back, as workers see it. Services that are in no group have a scope of their own.
fn persistence(config: &model::Persistence, incarnation: u64) -> snapshot::Persistence {
    // The upper half tells groups from services.
    const GROUP: u64 = 1 << 63;
    let scope = config.group.as_ref().map_or(incarnation, |group| GROUP | hash_of(group));
    snapshot::Persistence {
        scope,
        is_group: config.group.is_some(),
        secs: config.timeout_secs,
        mask_v4: u32::MAX.checked_shl(32 - u32::from(config.prefix_v4)).unwrap_or(0),
        mask_v6: u128::MAX.checked_shl(128 - u32::from(config.prefix_v6)).unwrap_or(0),
        across_ports: config.across_ports,
        respect_limits: config.respect_limits,
        expire_when_drained: config.expire_when_drained,
    }
}

fn hash_of(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn layout(quic: &model::Quic) -> Layout {
    let model::Quic { rotation, server_id_len, nonce_len, key } = *quic;
    Layout {
        rotation,
        server_id_len,
        nonce_len,
        // The rules let no shorter one pass.
        key: key.and_then(|key| key.as_slice().try_into().ok()),
    }
}

/// Limits as workers see them: those that they have go on as long as they stay the same.
fn limits_after(before: &snapshot::Service, config: Option<&model::Limits>) -> Option<Arc<Limits>> {
    let same = before.limits.as_ref().filter(|limits| Some(limits.config()) == config);
    same.cloned().or_else(|| Some(Arc::new(Limits::new(config?))))
}

//! Putting services and backends into slots, and making them as workers see them.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use config::model::{self, Hash};
use config::words::{Fate, Scheduler, Then};
use dataplane::limit::Limits;
use dataplane::schedule::quic::Layout;
use dataplane::schedule::{Ingredients, Plan, table};
use dataplane::snapshot::{self, BackendSlot, Candidate, ServiceSlot};

use super::{Backend, Measured, Service, State, Told, Wish};
use crate::api::{Counters, Health};
use crate::policy::{self, Decision, Member, Serving, Share, Standing};

/// How a backend comes into a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Whether it is a sorry backend, which has no checks.
    pub sorry: bool,
    /// Whether it ramps if it is new: the others were there before it.
    pub ramps: bool,
}

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
        let sorry = std::mem::take(&mut wanted.policy.sorry);
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
                    sorry: Vec::new(),
                    retired_backends: Vec::new(),
                    past: Counters::default(),
                    planned: None,
                    serving: Serving::Nobody,
                    quorum: true,
                    scale: 1,
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
        let ramps = !service.retired;
        (service.config, service.rank, service.retired) = (wanted, rank, false);
        let before: Vec<BackendSlot> = service.members().copied().collect();
        let mut put = |backends: Vec<model::Backend>, sorry| -> Vec<BackendSlot> {
            let arrival = Arrival { sorry, ramps };
            backends.into_iter().map(|backend| self.put_backend(slot, backend, arrival, now)).collect()
        };
        let (backends, sorry) = (put(backends, false), put(sorry, true));
        let still: HashSet<_> = backends.iter().chain(&sorry).copied().collect();
        for backend in before.into_iter().filter(|backend| !still.contains(backend)) {
            self.retire(slot, backend);
        }
        if let Some(service) = self.services_mut(slot) {
            (service.backends, service.sorry) = (backends, sorry);
        }
        self.recompile(slot, now);
    }

    pub(super) fn put_backend(
        &mut self,
        service: ServiceSlot,
        wanted: model::Backend,
        arrival: Arrival,
        now: Duration,
    ) -> BackendSlot {
        let has_check = |service: &Service| service.config.check.is_some() && !arrival.sorry;
        let checked = self.service(service).is_some_and(has_check);
        let config = self.service(service).map(|service| &service.config);
        let asked = config.is_some_and(|config| config.agent.is_some()) && !arrival.sorry;
        let client_address = config.map(|config| config.client_address).unwrap_or_default();
        let slot = match self.find_slot(service, &wanted) {
            Some(slot) => {
                self.revive(service, slot, wanted, arrival, now);
                slot
            }
            None => {
                // A backend whose mode changed, or how it learns its clients' addresses, is the same server, with the same check that goes on.
                let known = self.find_backend(service, wanted.address).and_then(|slot| self.backend(slot));
                let (health, since, reason) = match known {
                    Some(known) => (known.health, known.since, known.reason.clone()),
                    None => (Health::Unchecked, now, String::new()),
                };
                let (wish, ramps_since) = match known {
                    Some(known) => (known.wish_after(&wanted), known.ramps_since),
                    None => (wanted.admin.into(), arrival.ramps.then_some(now)),
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
                    wish,
                    ramps_since,
                    share: Share::default(),
                    fate: Fate::Keep,
                    measured: Measured::default(),
                    told: Told::default(),
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
        if !asked {
            self.backends_mut(slot).into_iter().for_each(|backend| backend.told = Told::default());
        }
        slot
    }

    /// Puts a configuration in force in a slot that has flows of the same backend; if that was retired, its
    /// health begins anew.
    fn revive(
        &mut self,
        service: ServiceSlot,
        slot: BackendSlot,
        wanted: model::Backend,
        arrival: Arrival,
        now: Duration,
    ) {
        let Some(backend) = self.backends_mut(slot) else { return };
        let served = backend.is_wanted();
        (backend.wish, backend.config) = (backend.wish_after(&wanted), wanted);
        backend.keep_weight();
        backend.begin_ramp(!served, now);
        if std::mem::take(&mut backend.retired) {
            (backend.health, backend.since) = (Health::Unchecked, now);
            (backend.wish, backend.ramps_since) = (wanted.admin.into(), arrival.ramps.then_some(now));
            backend.told = Told::default();
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

    /// Decides anew who takes a service's new flows, and makes it as workers see it, with a new version if that
    /// differs. Returns whether it does.
    pub(super) fn recompile(&mut self, slot: ServiceSlot, now: Duration) -> bool {
        let Some(service) = self.service(slot) else {
            self.timed.remove(&slot);
            return false;
        };
        let members = |slots: &[BackendSlot]| -> Vec<Member> {
            slots.iter().filter_map(|slot| Some(self.backend(*slot)?.member())).collect()
        };
        let (backends, sorry) = (members(&service.backends), members(&service.sorry));
        let decision = policy::decide(&service.config.policy, &backends, &sorry, service.quorum, now);
        let shares = decision.backends.iter().chain(&decision.sorry);
        let takes_flows = |(slot, share): (&BackendSlot, &Share)| {
            let backend = self.backend(*slot)?;
            let weight = share.weight * service.ratio_of(backend);
            (weight > 0).then(|| candidate(*slot, &backend.config, weight))
        };
        let candidates = service.members().zip(shares).filter_map(takes_flows).collect();
        let version = self.versions + 1;
        let mut compiled = self.compile(service, version, candidates);
        let old = &service.compiled;
        let ingredients = self.ingredients(service, &decision);
        let unchanged = (old.scheduler, &old.candidates) == (compiled.scheduler, &compiled.candidates)
            && Some(&ingredients) == service.planned.as_ref()
            && old.version != 0;
        if unchanged {
            (compiled.version, compiled.plan) = (old.version, Arc::clone(&old.plan));
        } else {
            compiled = compiled.planned(&ingredients, Some(old));
            self.versions = version;
        }
        self.enforce(slot, &decision);
        if let Some(service) = self.services_mut(slot) {
            (service.compiled, service.planned) = (Arc::new(compiled), Some(ingredients));
        }
        !unchanged
    }

    /// Notes in a service and its backends what was decided.
    fn enforce(&mut self, slot: ServiceSlot, decision: &Decision) {
        let Some(service) = self.services_mut(slot) else { return };
        (service.serving, service.quorum) = (decision.serving, decision.quorum);
        service.scale = decision.scale();
        let (on_down, on_disabled) =
            (service.config.policy.fate_down(service.config.key.protocol), service.config.policy.on_disabled);
        let members: Vec<BackendSlot> = service.members().copied().collect();
        let mut timed = decision.ramping;
        for (slot, share) in members.into_iter().zip(decision.backends.iter().chain(&decision.sorry)) {
            let Some(backend) = self.backends_mut(slot) else { continue };
            backend.share = *share;
            backend.fate = backend.fate(on_down, on_disabled);
            timed |= backend.wish.drain().is_some_and(|drain| drain.deadline.is_some());
        }
        if timed {
            self.timed.insert(slot);
        } else {
            self.timed.remove(&slot);
        }
    }

    /// What the plan of a service's scheduler is made of.
    fn ingredients(&self, service: &Service, decision: &Decision) -> Ingredients {
        let model::Service { scheduler, hash, quic, expiration_secs, .. } = service.config;
        let is_table = Plan::is_made_of_members(scheduler);
        let backends = || self.slots_of(service).filter(|_| is_table);
        let shares = decision.backends.iter().chain(&decision.sorry);
        let member = |((slot, backend), share): ((BackendSlot, &Backend), &Share)| {
            let keeps = decision.serving != Serving::Sorry && keeps_slots(scheduler, backend, share.standing);
            (keeps || share.weight > 0).then(|| table::Member {
                backend: slot,
                address: backend.config.address,
                weight: share.weight,
                full_weight: u32::from(backend.last_weight) * decision.scale(),
            })
        };
        let quic = quic.unwrap_or_default();
        Ingredients {
            hash: hash.unwrap_or(Hash::of(scheduler)),
            secret: self.ground.secret.unwrap_or(self.own_secret),
            members: backends().zip(shares).filter_map(member).collect(),
            expiration: expiration_secs.unwrap_or(model::Service::EXPIRATION_SECS),
            layout: (scheduler == Scheduler::Quic).then(|| layout(&quic)),
            servers: backends()
                .filter_map(|(slot, backend)| Some((backend.config.server_id?, slot)))
                .collect(),
        }
    }

    /// The sorry backends that take flows, whether or not they have to.
    fn spare(&self, service: &Service) -> Vec<Candidate> {
        let wanted = service.sorry.iter().filter_map(|slot| Some((*slot, self.backend(*slot)?)));
        let wanted = wanted.filter(|(_, backend)| backend.is_wanted());
        wanted.map(|(slot, it)| candidate(slot, &it.config, it.config.weight.into())).collect()
    }

    /// The backends whose flows count for the service, if it may have only so many.
    fn counted(&self, service: &Service) -> Vec<BackendSlot> {
        let limited = service.config.limits.is_some_and(|limits| limits.connections.is_some());
        if limited { service.backends.clone() } else { Vec::new() }
    }

    /// The backends among which other services of its group may have chosen for its clients.
    fn grouped(service: &Service) -> Vec<BackendSlot> {
        let is_grouped = service.config.persistence.as_ref().is_some_and(|it| it.group.is_some());
        if is_grouped { service.backends.clone() } else { Vec::new() }
    }

    pub(super) fn slots_of<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = (BackendSlot, &'a Backend)> {
        service.members().filter_map(|slot| Some((*slot, self.backend(*slot)?)))
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
            sorry: self.spare(service),
            counted: self.counted(service),
            grouped: Self::grouped(service),
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
fn candidate(backend: BackendSlot, config: &model::Backend, weight: u32) -> Candidate {
    let model::Backend { upper, lower, .. } = *config;
    let three_quarters = upper - upper / 4;
    Candidate { backend, weight, upper, lower: if lower == 0 { three_quarters } else { lower } }
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
        prefix_v4: config.prefix_v4,
        prefix_v6: config.prefix_v6,
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

/// Whether a backend that takes no new flows keeps its slots of a table. Where it does, they come back to it; IPVS's
/// tables are made anew without it, but for one with weight 0.
fn keeps_slots(scheduler: Scheduler, backend: &Backend, standing: Standing) -> bool {
    let as_ipvs = matches!(scheduler, Scheduler::Dh | Scheduler::Sh | Scheduler::Mh);
    match standing {
        Standing::Quiesced => !as_ipvs || backend.health != Health::Down,
        Standing::Down | Standing::Draining | Standing::Disabled => !as_ipvs,
        _ => false,
    }
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

impl Backend {
    /// As the policies see it.
    fn member(&self) -> Member {
        Member {
            weight: if self.told.is_quiet() { 0 } else { self.config.weight },
            priority: self.config.priority,
            admin: self.wish.admin(),
            down: self.health == Health::Down || self.told.down,
            ramps_since: self.ramps_since,
        }
    }

    /// What becomes of its flows, by what its service says of backends that are down or disabled.
    fn fate(&self, on_down: Fate, on_disabled: Fate) -> Fate {
        match self.wish {
            Wish::Disabled { flows } => flows.unwrap_or(on_disabled),
            Wish::Drain(drain) if drain.over && drain.then == Then::Reset => Fate::Reset,
            // New flows are given to it, and those before them are worth no less.
            _ if self.share.standing == Standing::FailOpen => Fate::Keep,
            _ if self.health == Health::Down => on_down,
            _ => Fate::Keep,
        }
    }

    /// What the operator wants of it after a change of its configuration: what was said at run time stays, unless
    /// the configuration says something new.
    fn wish_after(&self, wanted: &model::Backend) -> Wish {
        if wanted.admin == self.config.admin { self.wish } else { wanted.admin.into() }
    }
}

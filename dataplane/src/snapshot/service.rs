//! Services as workers see them.

use std::sync::Arc;

use config::words::{Mode, NoBackend, NoFlow, Protocol, Scheduler, ServiceKey};

use super::{Backend, BackendSlot, PoolSlot};
use crate::limit::Limits;
use crate::schedule::{Ingredients, Plan};

/// A service that is configured, or was and has flows left.
///
/// What the choice of a backend reads comes first, in one cache line: of many services that is all that is in the cache.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Service {
    /// Backends that take new flows, none with weight 0, in the order of configuration.
    pub candidates: Vec<Candidate>,
    /// What its scheduler needs besides.
    pub plan: Arc<Plan>,
    /// Tells services apart that have the same slot one after the other.
    pub incarnation: u64,
    /// Changes whenever `candidates` does, so that schedulers notice.
    pub version: u64,
    /// Largest weight of the candidates.
    pub max_weight: u32,
    /// Greatest common divisor of their weights.
    pub weight_gcd: u32,
    /// Whose addresses its backends see in full NAT.
    pub pool: Option<PoolSlot>,
    /// How a new flow's backend is chosen.
    pub scheduler: Scheduler,
    /// Whether any of the candidates has a limit.
    pub is_limited: bool,
    /// Protocol, address, ports and class.
    pub key: ServiceKey,
    /// Number of its class in the snapshot, if it has one.
    pub class: Option<u16>,
    /// What a client is told when no backend takes its flow.
    pub no_backend: NoBackend,
    /// What becomes of a TCP segment of no flow that does not open one.
    pub no_flow: NoFlow,
    /// The largest TCP segment that either end may announce, in bytes.
    pub mss: Option<u16>,
    /// Whether every packet is scheduled by itself and no flow is kept (UDP).
    pub one_packet: bool,
    /// Whether its clients come back to the backend that they had.
    pub persistence: Option<Persistence>,
    /// Whether its address answers pings.
    pub echo: bool,
    /// Whether it was removed and only its flows remain.
    pub retired: bool,
    /// Its place in the configuration: of two classes that a packet is of, the first one counts.
    pub rank: u64,
    /// Backends for new flows that are too much.
    pub sorry: Vec<Candidate>,
    /// Backends whose flows count for the service, if it may have only so many.
    pub counted: Vec<BackendSlot>,
    /// Its backends, whether or not they take new flows, if it shares templates with other services.
    pub grouped: Vec<BackendSlot>,
    /// What it takes at most.
    pub limits: Option<Arc<Limits>>,
}

const _: () = assert!(std::mem::offset_of!(Service, key) <= 64);

/// What a service asks of a client's new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ease {
    /// What only the stages know.
    Hard,
    /// A backend, and what that needs.
    Easy,
    /// A backend and a local port, whichever backend it is: all are behind full NAT, by the service's pool and IP version.
    LocalPort,
}

/// How a service's clients come back to the backend that they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// What has templates of its own: a service, or a group of them.
    pub scope: u64,
    /// Whether it is a group: its services then know each other's backends by their addresses.
    pub is_group: bool,
    /// Seconds for which a template lives.
    pub secs: u32,
    /// Bits of an IPv4 client's address that count.
    pub prefix_v4: u8,
    /// The same of an IPv6 client.
    pub prefix_v6: u8,
    /// Whether all ports of the service share a client's template.
    pub across_ports: bool,
    /// Whether a client chooses anew when its backend has all the flows that it may have.
    pub respect_limits: bool,
    /// Whether a client chooses anew when its backend takes no new flows.
    pub expire_when_drained: bool,
}

/// A backend that takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub backend: BackendSlot,
    /// Its share of new flows; not 0.
    pub weight: u32,
    /// With so many flows it is overloaded and takes no new ones; 0 is no limit.
    pub upper: u32,
    /// With fewer flows it is not overloaded any more.
    pub lower: u32,
}

impl Candidate {
    /// A candidate without limits.
    pub const fn new(backend: BackendSlot, weight: u32) -> Self {
        Self { backend, weight, upper: 0, lower: 0 }
    }
}

impl Service {
    /// A service with these candidates, and of everything else what a file that says nothing means.
    pub fn new(key: ServiceKey, scheduler: Scheduler, version: u64, candidates: Vec<Candidate>) -> Self {
        let weights = || candidates.iter().map(|candidate| candidate.weight);
        let (max_weight, weight_gcd) = (weights().max().unwrap_or(0), weights().fold(0, gcd));
        Self {
            key,
            class: None,
            scheduler,
            no_backend: NoBackend::Icmp,
            no_flow: NoFlow::Drop,
            mss: None,
            one_packet: false,
            persistence: None,
            pool: None,
            echo: true,
            retired: false,
            incarnation: 0,
            rank: 0,
            version,
            is_limited: candidates.iter().any(|candidate| candidate.upper > 0),
            plan: Arc::default(),
            sorry: Vec::new(),
            counted: Vec::new(),
            grouped: Vec::new(),
            limits: None,
            candidates,
            max_weight,
            weight_gcd,
        }
    }

    /// The same with what its scheduler needs; `before` is the service that it replaces.
    #[must_use]
    pub fn planned(self, ingredients: &Ingredients, before: Option<&Self>) -> Self {
        let before = before.map(|before| (&*before.plan, &*before.candidates));
        let plan = Plan::new(self.scheduler, &self.candidates, ingredients, before);
        Self { plan: Arc::new(plan), ..self }
    }

    /// Whether packets find it as they find another one, whatever it then does with them.
    pub(super) fn is_found_as(&self, other: &Self) -> bool {
        let found = |it: &Self| (it.key, it.class, it.pool, it.echo, it.retired, it.rank, it.is_policed());
        found(self) == found(other)
    }

    /// Whether each of its packets is looked at for its limits.
    pub(super) fn is_policed(&self) -> bool {
        self.limits.as_ref().is_some_and(|limits| limits.polices())
    }

    /// The same with limits.
    #[must_use]
    pub fn limited(self, limits: Option<Arc<Limits>>) -> Self {
        let of_backends = |limits: &Arc<Limits>| limits.config().new_per_sec_per_backend.is_some();
        let is_limited = self.is_limited || limits.as_ref().is_some_and(of_backends);
        Self { is_limited, limits, ..self }
    }

    /// What it asks of a client's new flow.
    pub(super) fn ease(&self, backends: &[Option<Backend>]) -> Ease {
        let needs_port = |candidate: &Candidate| {
            let backend = backends.get(candidate.backend.0 as usize).and_then(Option::as_ref);
            backend.is_some_and(|backend| {
                backend.mode == Mode::FullNat && backend.address.is_ipv4() == self.key.address.is_ipv4()
            })
        };
        match self.is_easy() {
            false => Ease::Hard,
            // Where nobody can be asked, that is what clients are told.
            true if self.candidates.is_empty() || self.pool.is_none() => Ease::Easy,
            true if self.candidates.iter().all(needs_port) => Ease::LocalPort,
            true => Ease::Easy,
        }
    }

    fn is_easy(&self) -> bool {
        !self.retired
            && !self.one_packet
            && !self.is_limited
            && self.persistence.is_none()
            && self.limits.is_none()
            && !matches!(self.scheduler, Scheduler::Quic | Scheduler::Fastest)
            && (self.mss.is_none() || self.key.protocol == Protocol::Udp)
    }

    /// Whether all of its candidates have the same weight.
    #[inline]
    pub fn is_even(&self) -> bool {
        self.max_weight == self.weight_gcd
    }
}

/// Greatest common divisor; of 0 and a number, that number.
pub(crate) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

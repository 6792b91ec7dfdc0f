//! What the API answers about the state and the counters, gathered from where they are.

pub mod bindings;

use std::net::SocketAddr;
use std::time::Duration;

use config::model::Config;
use config::words::{Mode, Protocol};
use dataplane::clock::Seconds;
use dataplane::drops::DropReason;
use dataplane::flow::state::Timeouts;
use dataplane::flow::{FlowOwner, FlowValue};
use dataplane::load::Load;
use dataplane::local::LocalSlot;
use dataplane::snapshot::{self, BackendSlot};
use dataplane::stats::{DropCounters, WorkerStats};

use crate::api::{self, BackendStatus, Counters, DrainStatus, InterfaceStatus, LocalStats, ServiceStatus};
use crate::compile::Frame;
use crate::pools::Locals;
use crate::state::{Backend, Service, State, plus};

/// Ports of a local address that full NAT may use, of both protocols.
const LOCAL_PORTS: u64 = 2 * (65_536 - 1024);

/// What all workers counted for a backend slot.
pub fn counted(workers: &[&WorkerStats], slot: BackendSlot) -> Counters {
    let of = |worker: &&WorkerStats| {
        let counters = worker.backend(slot);
        Counters {
            conns: worker.conns(slot).get(),
            in_packets: counters.in_packets.get(),
            out_packets: counters.out_packets.get(),
            in_bytes: counters.in_bytes.get(),
            out_bytes: counters.out_bytes.get(),
        }
    };
    workers.iter().map(of).fold(Counters::default(), plus)
}

/// Flows of a backend slot on all workers: active, and all others.
pub fn flows(workers: &[&WorkerStats], slot: BackendSlot) -> (u64, u64) {
    let load = workers.iter().map(|worker| worker.loads.get(slot)).fold(Load::default(), Load::plus);
    (load.active(), load.inactive())
}

/// Every configured service with its backends.
pub fn services(state: &State, workers: &[&WorkerStats], now: Duration) -> Vec<ServiceStatus> {
    state.services().map(|service| service_status(state, workers, service, now)).collect()
}

fn service_status(
    state: &State,
    workers: &[&WorkerStats],
    service: &Service,
    now: Duration,
) -> ServiceStatus {
    let so_far = |slot: &BackendSlot| state.since_base(*slot, counted(workers, *slot));
    let all = service.members().chain(&service.retired_backends);
    let backends = service.members().filter_map(|slot| Some((*slot, state.backend(*slot)?)));
    let config = &service.config;
    let weights = service.effective_weights();
    let status = |(slot, backend)| {
        let weight = weights.get(&slot).copied().unwrap_or(0.0);
        backend_status(state, workers, service, (slot, backend, weight), now)
    };
    ServiceStatus {
        name: config.name.clone(),
        service: config.key,
        scheduler: config.scheduler,
        hash: config.hash,
        persistence: config.persistence.clone(),
        limits: config.limits,
        no_backend: config.no_backend,
        no_flow: config.no_flow,
        one_packet: config.one_packet,
        snat_pool: config.snat_pool.clone(),
        client_address: config.client_address,
        counters: all.map(so_far).fold(service.past, plus),
        serving: service.serving,
        quorum: service.quorum,
        backends: backends.map(status).collect(),
    }
}

fn backend_status(
    state: &State,
    workers: &[&WorkerStats],
    service: &Service,
    (slot, backend, effective_weight): (BackendSlot, &Backend, f64),
    now: Duration,
) -> BackendStatus {
    let (active, inactive) = flows(workers, slot);
    let config = &backend.config;
    BackendStatus {
        address: config.address,
        mode: config.mode,
        tunnel: (config.mode == Mode::Tunnel).then_some(config.tunnel),
        sorry: service.sorry.contains(&slot),
        weight: config.weight,
        upper: config.upper,
        lower: config.lower,
        effective_weight,
        priority: config.priority,
        configured: config.admin,
        admin: backend.wish.admin(),
        operational: backend.share.standing,
        drain: backend.wish.drain().map(|drain| DrainStatus {
            left_secs: drain
                .deadline
                .map(|deadline| deadline.saturating_sub(now).as_secs_f64().ceil() as u64),
            then: drain.then,
            persistent: drain.persistent,
            flows: active + inactive,
        }),
        health: backend.health,
        reason: reason(backend),
        since_secs: now.saturating_sub(backend.since).as_secs(),
        active,
        inactive,
        counters: state.since_base(slot, counted(workers, slot)),
    }
}

/// Every interface, by number.
pub fn interfaces(config: &Config) -> Vec<InterfaceStatus> {
    let vlan = |number| (number != 0).then_some(number);
    let status = |interface: &config::model::Interface| InterfaceStatus {
        name: interface.name.clone(),
        port: config.ports.get(interface.port).map(|port| port.name.clone()).unwrap_or_default(),
        vlan: vlan(interface.tags.inner),
        outer_vlan: vlan(interface.tags.outer),
        addresses: interface.addresses.clone(),
        mtu: interface.mtu,
        host: interface.host.clone(),
        gateway: interface.gateway.is_some(),
    };
    config.interfaces.iter().map(status).collect()
}

/// Every local address, and how many of its ports are used.
pub fn locals(locals: &Locals, workers: &[&WorkerStats]) -> Vec<LocalStats> {
    let all = locals.addresses().iter().enumerate();
    let stats = all.filter_map(|(slot, address)| {
        // Slots have 8 bits.
        let slot = u8::try_from(slot).ok()?;
        Some(LocalStats {
            address: *address,
            pool: locals.pool_of(slot).map(str::to_owned),
            ports_used: workers.iter().map(|worker| worker.local_ports(LocalSlot(slot)).get()).sum(),
            capacity: LOCAL_PORTS,
        })
    });
    stats.collect()
}

/// Why a backend's health is so, and what its agent says.
fn reason(backend: &Backend) -> String {
    match (&*backend.reason, &*backend.told.said) {
        (reason, "") => reason.to_owned(),
        (reason, said) => format!("{reason}; agent: {said}"),
    }
}

/// Drops by reason, every reason included; `counters` are added up.
pub fn drops(counters: &[&DropCounters]) -> Vec<api::Drop> {
    let drop = |why: &DropReason| api::Drop {
        reason: why.name().to_owned(),
        meaning: why.meaning().to_owned(),
        packets: counters.iter().map(|counters| counters.get(*why)).sum(),
    };
    DropReason::ALL.iter().map(drop).collect()
}

/// One worker's counters.
pub fn worker(stats: &WorkerStats) -> api::WorkerStats {
    api::WorkerStats {
        received: stats.received.get(),
        injected: stats.injected.get(),
        taken_over: stats.taken_over.get(),
        made: stats.made.get(),
        sent: stats.sent.get(),
        punted: stats.punted.get(),
        handed_over: stats.handed_over.get(),
        dropped: stats.drops.total(),
        drops: drops(&[&stats.drops]),
        answered: stats.answered.get(),
        answered_for: drops(&[&stats.answered_for]),
        routed: stats.routed.get(),
        held: stats.held.get(),
        snat_exhausted: stats.local_ports_exhausted.get(),
        addresses_untold: stats.addresses_untold.get(),
    }
}

/// One line that says all that a worker counted: the balance, then drops by reason.
pub fn worker_line(stats: &WorkerStats) -> String {
    let worker = worker(stats);
    let mut line = format!(
        "received={} injected={} taken_over={} made={} sent={} punted={} handed_over={} dropped={}",
        worker.received,
        worker.injected,
        worker.taken_over,
        worker.made,
        worker.sent,
        worker.punted,
        worker.handed_over,
        worker.dropped
    );
    if worker.held > 0 {
        line += &format!(" held={}", worker.held);
    }
    for drop in worker.drops.iter().filter(|drop| drop.packets > 0) {
        line += &format!(" {}={}", drop.reason, drop.packets);
    }
    line
}

/// A flow as the API shows it; `None` if its backend is gone.
pub fn flow(
    state: &State,
    frame: &Frame,
    worker: usize,
    (owner, value, now): (FlowOwner, FlowValue, Seconds),
) -> Option<api::Flow> {
    let to_backend = value.backend() != BackendSlot::NONE;
    let service = if to_backend { Some(&state.service(owner.service)?.config) } else { None };
    let backend = if to_backend { Some(state.backend(value.backend())?.config) } else { None };
    let timeouts = service.and_then(|service| service.timeouts).unwrap_or(frame.timeouts);
    let port = owner.service_port.or(service.and_then(|service| service.key.ports.single()));
    let vip = service.zip(port).map(|(service, port)| SocketAddr::new(service.key.address, port));
    let local = owner.local_port.and_then(|port| {
        let address = state.ground.locals.addresses().get(usize::from(value.local().0))?;
        Some(SocketAddr::new(*address, port))
    });
    let of_state = if value.state().is_udp() { Protocol::Udp } else { Protocol::Tcp };
    Some(api::Flow {
        worker,
        protocol: service.map_or(of_state, |service| service.key.protocol),
        service: service.map(|service| service.key),
        client: SocketAddr::new(owner.client, owner.client_port),
        vip,
        local,
        backend: backend.map(|backend| reached(service, backend.address, port)),
        state: value.state().name().to_owned(),
        // Expired flows are in the table until they are found.
        expires_secs: Timeouts::new(&timeouts).of(value.state()).checked_sub(value.idle(now))?,
    })
}

/// Address and port at which a backend serves a port of its service.
fn reached(service: Option<&config::model::Service>, backend: SocketAddr, port: Option<u16>) -> SocketAddr {
    let Some((service, port)) = service.zip(port) else { return backend };
    let shift = snapshot::Backend::port_shift(service.key.ports, backend.port());
    SocketAddr::new(backend.ip(), port.wrapping_add(shift))
}

//! What the API answers about the state and the counters, gathered from where they are.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dataplane::clock::Seconds;
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, FlowValue};
use dataplane::snapshot::BackendSlot;
use dataplane::stats::{BackendCounters, DropCounters, WorkerStats};

use crate::api::{self, BackendStatus, Counters, ServiceStatus};
use crate::compile::Frame;
use crate::state::{Backend, Service, State, plus};

/// What all workers counted for a backend slot.
pub fn counted(workers: &[&WorkerStats], slot: BackendSlot) -> Counters {
    let of = |worker: &&WorkerStats| {
        let counters = worker.backend(slot);
        Counters {
            conns: counters.conns.get(),
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
    let sum = |of: fn(&BackendCounters) -> u64| -> u64 {
        workers.iter().map(|worker| of(worker.backend(slot))).sum()
    };
    let (flows, active) = (sum(|counters| counters.flows.get()), sum(|counters| counters.active.get()));
    // The two are read one after the other, while flows begin and end.
    (active, flows.saturating_sub(active))
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
    let all = service.backends.iter().chain(&service.retired_backends);
    let backends = service.backends.iter().filter_map(|slot| Some((*slot, state.backend(*slot)?)));
    ServiceStatus {
        name: service.name.clone(),
        service: service.key,
        scheduler: service.scheduler,
        counters: all.map(so_far).fold(service.past, plus),
        backends: backends
            .map(|(slot, backend)| backend_status(state, workers, slot, backend, now))
            .collect(),
    }
}

fn backend_status(
    state: &State,
    workers: &[&WorkerStats],
    slot: BackendSlot,
    backend: &Backend,
    now: Duration,
) -> BackendStatus {
    let (active, inactive) = flows(workers, slot);
    BackendStatus {
        address: backend.config.address,
        mode: backend.config.mode,
        weight: backend.config.weight,
        health: backend.health,
        reason: backend.reason.clone(),
        since_secs: now.saturating_sub(backend.since).as_secs(),
        active,
        inactive,
        counters: state.since_base(slot, counted(workers, slot)),
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
        sent: stats.sent.get(),
        punted: stats.punted.get(),
        handed_over: stats.handed_over.get(),
        dropped: stats.drops.total(),
        drops: drops(&[&stats.drops]),
        answered: stats.answered.get(),
    }
}

/// One line that says all that a worker counted: the balance, then drops by reason.
pub fn worker_line(stats: &WorkerStats) -> String {
    let worker = worker(stats);
    let mut line = format!(
        "received={} injected={} taken_over={} sent={} punted={} handed_over={} dropped={}",
        worker.received,
        worker.injected,
        worker.taken_over,
        worker.sent,
        worker.punted,
        worker.handed_over,
        worker.dropped
    );
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
    (key, value, now): (FlowKey, FlowValue, Seconds),
) -> Option<api::Flow> {
    let timeout = frame.timeouts.of(value.state());
    Some(api::Flow {
        worker,
        service: state.service(key.service())?.key,
        client: SocketAddrV4::new(Ipv4Addr::from_bits(key.client()), key.client_port()),
        backend: state.backend(value.backend())?.config.address,
        state: value.state().name().to_owned(),
        // Expired flows are in the table until they are found.
        expires_secs: timeout.checked_sub(value.idle(now))?,
    })
}

//! What calls that change nothing are answered, and what a scrape of the metrics gets.

use dataplane::stats::{DropCounters, WorkerStats};
use dataplane::worker::Handle;

use super::{Devices, Engine};
use crate::{api, report};

impl<D: Devices> Engine<D> {
    pub(super) fn worker_stats(&self) -> Vec<&WorkerStats> {
        self.workers.iter().map(|worker| &*worker.stats).collect()
    }

    pub(super) fn services(&self) -> Vec<api::ServiceStatus> {
        report::services(&self.state, &self.worker_stats(), self.now())
    }

    pub(super) fn stats(&self) -> api::Stats {
        api::Stats {
            workers: self.worker_stats().into_iter().map(report::worker).collect(),
            control: self.control_stats(),
            ports: self.devices.stats(),
            locals: report::locals(&self.state.ground.locals, &self.worker_stats()),
            templates: self.template_usage(),
            services: self.services(),
        }
    }

    pub(super) fn all_drops(&self) -> Vec<api::Drop> {
        let mut counters: Vec<&DropCounters> =
            self.workers.iter().map(|worker| &worker.stats.drops).collect();
        counters.push(&self.drops);
        report::drops(&counters)
    }

    pub(super) fn status(&self) -> api::Status {
        let services = self.services();
        let backends = || services.iter().flat_map(|service| &service.backends);
        let takes_flows = |backend: &&api::BackendStatus| backend.operational.takes_flows();
        let worker = |(number, worker): (usize, &Handle<D::Frame>)| api::WorkerStatus {
            core: self.config.cores.workers.get(number).copied().unwrap_or_default(),
            idle: self.config.cores.idle,
            flows: worker.stats.flows.get(),
            flow_capacity: self.config.flow_table.capacity.into(),
            wide_capacity: self.config.flow_table.wide_capacity.into(),
            generation: self.publisher.adopted_by(number),
        };
        api::Status {
            version: self.identity.version.clone(),
            dpdk: self.identity.dpdk.clone(),
            pid: std::process::id(),
            uptime_secs: self.now().as_secs(),
            config_file: self.identity.config_file.display().to_string(),
            generation: self.publisher.in_force(),
            ports: self.devices.status(),
            interfaces: report::interfaces(&self.config),
            workers: self.workers.iter().enumerate().map(worker).collect(),
            services: services.len(),
            backends_up: backends().filter(takes_flows).count(),
            backends: backends().count(),
            neighbours: self.neighbour_status(),
        }
    }
}

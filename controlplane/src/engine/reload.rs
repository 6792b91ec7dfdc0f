//! Putting a configuration in force: at start, after a change, and when the file is read again.

use config::LoadError;
use config::model::Config;
use config::words::{MacAddr, ServiceKey};
use dataplane::local::{LocalAddresses, LocalSlot};
use dataplane::route::NextHop;
use dataplane::toeplitz::Owners;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{Devices, Engine};
use crate::api::{ApiError, code};
use crate::compile::{self, interface_id};
use crate::state::{Ground, State};

type Reply = oneshot::Sender<Result<Value, ApiError>>;
type Loaded = (Result<Config, LoadError>, Option<Reply>);

/// Files that were read again, on their way to the control thread.
pub(super) struct Reloads {
    done: mpsc::UnboundedSender<Loaded>,
    loaded: mpsc::UnboundedReceiver<Loaded>,
}

impl Default for Reloads {
    fn default() -> Self {
        let (done, loaded) = mpsc::unbounded_channel();
        Self { done, loaded }
    }
}

impl Reloads {
    /// The next file that was read.
    pub(super) async fn next(&mut self) -> Option<Loaded> {
        self.loaded.recv().await
    }
}

/// The neighbours that a configuration fixes.
pub(super) fn fixed_stations(state: &State, config: &Config) -> Vec<(NextHop, MacAddr)> {
    let station = |neighbour: &config::model::Neighbour| {
        let interface = interface_id(state.ground.network.connected(neighbour.address)?);
        Some((NextHop { interface, address: neighbour.address }, neighbour.mac))
    };
    config.neighbours.iter().filter_map(station).collect()
}

impl<D: Devices> Engine<D> {
    /// Makes everything follow a changed state: checks, neighbours, announcements, and the next snapshot.
    pub(super) fn adopt_configuration(&mut self) {
        self.changed = true;
        self.give_local_ports();
        self.claim_addresses();
        self.checker.set(self.state.checks());
        self.agents.set(self.state.agents());
        let now = self.now();
        self.configure_neighbours(now);
        self.announce_new();
    }

    /// Makes everything follow a service that was added, removed, or got or lost a backend. What that costs does
    /// not grow with the other services' backends.
    pub(super) fn adopt_service(&mut self, service: ServiceKey) {
        self.checker.set_service(service, self.state.checks_of(service));
        self.agents.set_service(service, self.state.agents_of(service));
        let now = self.now();
        let network = &self.state.ground.network;
        let addresses = self.state.backends_of(service).map(|backend| backend.config.address.ip());
        let stations = addresses.filter_map(|address| compile::next_hop(network, address));
        // Those of a backend that is gone are wanted until its last flow has ended.
        self.neighbours.want(stations, now);
    }

    /// The same, with its address.
    pub(super) fn adopt_vip(&mut self, service: ServiceKey) {
        self.adopt_service(service);
        self.claim_addresses();
        self.announce_new();
    }

    /// Gives the workers their ports of new local addresses, before the snapshot that has these.
    fn give_local_ports(&mut self) {
        let owners = Owners::new(self.workers.len());
        let addresses = self.state.ground.locals.addresses();
        let new = addresses.get(self.locals..).unwrap_or_default();
        if new.is_empty() {
            return;
        }
        for (number, worker) in self.workers.iter().enumerate() {
            let mut ports = LocalAddresses::new(new, &owners, number);
            // What the worker would allocate else.
            if self.locals == 0 {
                ports = ports.with_room(self.config.flow_table.capacity as usize);
            }
            // Slots have 8 bits, and the queue has a place for each of them.
            let _ = worker.locals.push((LocalSlot(self.locals as u8), ports));
        }
        self.locals = addresses.len();
    }

    /// Has the file read again, on another thread: it may be long, or on a slow disk.
    pub(super) fn begin_reload(&mut self, reply: Option<Reply>) {
        let (file, done) = (self.identity.config_file.clone(), self.reloads.done.clone());
        tokio::task::spawn_blocking(move || {
            // Fails only when the appliance has stopped meanwhile.
            let _ = done.send((config::load(&file), reply));
        });
    }

    /// Puts a file that was read in force, all or nothing. A signal waits for no reply, so the log has it.
    pub(super) fn finish_reload(&mut self, loaded: Result<Config, LoadError>, reply: Option<Reply>) {
        self.hear_of_all();
        match (self.adopt(loaded), reply) {
            (Ok(()), Some(reply)) => self.unpublished.push(reply),
            (Ok(()), None) => {}
            (Err(error), reply) => {
                tracing::error!("reload refused, the old configuration stays in force: {error}");
                reply.into_iter().for_each(|reply| drop(reply.send(Err(error.clone()))));
            }
        }
    }

    fn adopt(&mut self, loaded: Result<Config, LoadError>) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError { code: code::INVALID_CONFIG, message };
        let wanted = loaded.map_err(|error| invalid(error.to_string()))?;
        if let Some(what) = needs_restart(&self.config, &wanted) {
            let message = format!(
                "{what} changed; it cannot change while trutinad runs; restart trutinad, or put it back"
            );
            return Err(invalid(message));
        }
        let ground = Ground::new(&wanted, &self.state.ground.locals)?;
        self.state.replace(ground, &wanted.services, self.now())?;
        self.frame = compile::Frame::new(&wanted, &self.frame.macs);
        self.host.set_routes(&wanted);
        self.config = wanted;
        self.adopt_configuration();
        tracing::info!("configuration reloaded: {} services", self.config.services.len());
        Ok(())
    }
}

/// The first part of the configuration that differs and is fixed at start.
fn needs_restart(running: &Config, wanted: &Config) -> Option<&'static str> {
    let parts = [
        ("[dpdk]", running.dpdk != wanted.dpdk),
        ("[cores]", running.cores != wanted.cores),
        ("[[port]]", running.ports != wanted.ports || running.interfaces != wanted.interfaces),
        ("[flow_table]", running.flow_table != wanted.flow_table),
        ("[fragments]", running.fragments != wanted.fragments),
        ("[control]", running.control != wanted.control),
        ("[metrics]", running.metrics != wanted.metrics),
    ];
    parts.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
}

//! Putting a configuration in force: at start, after a change, and when the file is read again.

use config::model::Config;
use config::network::Network;
use config::words::MacAddr;
use dataplane::route::NextHop;

use super::{Devices, Engine};
use crate::api::{ApiError, code};
use crate::compile::{self, port_id};
use crate::state::State;

/// The neighbours that a configuration fixes.
pub(super) fn fixed_stations(state: &State, config: &Config) -> Vec<(NextHop, MacAddr)> {
    let station = |neighbour: &config::model::Neighbour| {
        let port = port_id(state.network.connected(neighbour.address)?);
        Some((NextHop { port, address: neighbour.address.to_bits() }, neighbour.mac))
    };
    config.neighbours.iter().filter_map(station).collect()
}

impl<D: Devices> Engine<D> {
    /// Makes everything follow a changed state: checks, neighbours, announcements, and the next snapshot.
    pub(super) fn adopt_configuration(&mut self) {
        self.changed = true;
        self.checker.set(self.state.checks());
        let now = self.now();
        self.configure_neighbours(now);
        self.announce_new();
    }

    /// Reads the file again, all or nothing.
    pub(super) fn reload(&mut self) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError { code: code::INVALID_CONFIG, message };
        let wanted = config::load(&self.identity.config_file).map_err(|error| invalid(error.to_string()))?;
        if let Some(what) = needs_restart(&self.config, &wanted) {
            let message = format!(
                "{what} changed; it cannot change while trutinad runs; restart trutinad, or put it back"
            );
            return Err(invalid(message));
        }
        let network = Network::new(&wanted.ports, &wanted.routes);
        self.state.replace(network, &wanted.services, self.now())?;
        self.frame = compile::Frame::new(&wanted, &self.macs);
        self.config = wanted;
        self.adopt_configuration();
        tracing::info!("configuration reloaded: {} services", self.config.services.len());
        Ok(())
    }

    /// Reloads for a signal, which waits for no answer.
    pub(super) fn reload_on_hangup(&mut self) {
        if let Err(error) = self.reload() {
            tracing::error!("reload refused, the old configuration stays in force: {error}");
        }
    }
}

/// The first part of the configuration that differs and is fixed at start.
fn needs_restart(running: &Config, wanted: &Config) -> Option<&'static str> {
    let parts = [
        ("[dpdk]", running.dpdk != wanted.dpdk),
        ("[cores]", running.cores != wanted.cores),
        ("[[port]]", running.ports != wanted.ports),
        ("[flow_table] capacity", running.flow_table.capacity != wanted.flow_table.capacity),
        ("[control]", running.control != wanted.control),
        ("[metrics]", running.metrics != wanted.metrics),
    ];
    parts.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
}

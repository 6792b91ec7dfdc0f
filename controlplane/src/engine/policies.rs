//! What the control thread does by itself for the policies of services.

use std::net::SocketAddr;

use config::words::ServiceKey;

use super::{Devices, Engine};
use crate::api::AdminChange;
use crate::state::Drained;

impl<D: Devices> Engine<D> {
    /// Ends drains whose time is over, and lets backends grow into their weights.
    pub(super) fn pass_time(&mut self) {
        let passed = self.state.pass_time(self.now());
        self.changed |= passed.changed;
        for Drained { service, address, then } in passed.drained {
            tracing::info!("service {service}: backend {address}: the time of its drain is over: {then}");
            self.adopt_service(service);
        }
    }
}

/// A change of a backend as the log has it.
pub(super) fn change(
    service: ServiceKey,
    address: SocketAddr,
    weight: Option<u16>,
    admin: Option<AdminChange>,
) -> String {
    let mut what = format!("service {service}: backend {address}");
    if let Some(weight) = weight {
        what += &format!(" weight {weight}");
    }
    match admin {
        None => {}
        Some(AdminChange::Enabled) => what += " enabled",
        Some(AdminChange::Drain { timeout_secs: None, .. }) => what += " drains",
        Some(AdminChange::Drain { timeout_secs: Some(secs), then, .. }) => {
            what += &format!(" drains for {secs} s, then {then}");
        }
        Some(AdminChange::Disabled { flows: None }) => what += " disabled",
        Some(AdminChange::Disabled { flows: Some(fate) }) => what += &format!(" disabled, flows {fate}"),
    }
    what
}

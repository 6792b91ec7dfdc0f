//! Calls: each is answered at once, or when what it changed is in force.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Devices, Engine, policies};
use crate::api::{ApiError, Done, Request, code};
use crate::server::Call;
use crate::state::State;

/// Time after which a worker that did not take a snapshot counts as stuck.
const IN_FORCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A change that is published but not yet used by every worker.
pub(super) struct Pending {
    pub(super) generation: u64,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Value, ApiError>>,
}

impl<D: Devices> Engine<D> {
    /// Answers the calls whose changes are in force on every worker, and those that waited too long for it.
    pub(super) fn answer_pending(&mut self) {
        let in_force = self.publisher.in_force();
        while let Some(first) = self.pending.front() {
            let answer = if first.generation <= in_force {
                to_value(&Done { generation: first.generation })
            } else if first.since.elapsed() > IN_FORCE_TIMEOUT {
                let message = "the change is published but not in force; a worker does not answer; see `trutina status`";
                Err(ApiError { code: code::UNAVAILABLE, message: message.to_owned() })
            } else {
                return;
            };
            if let Some(first) = self.pending.pop_front() {
                let _ = first.reply.send(answer);
            }
        }
    }

    /// Does what a call asks. Returns whether that is to stop.
    pub(super) fn take(&mut self, call: Call) -> bool {
        let (uid, pid) = (call.peer.uid, call.peer.pid.unwrap_or_default());
        // What the checks found before this call concerns what was there before it.
        self.hear_of_all();
        let now = self.now();
        let changed = match call.request {
            Request::Status => return answer(call.reply, &self.status()),
            Request::ServiceList => return answer(call.reply, &self.services()),
            Request::Stats => return answer(call.reply, &self.stats()),
            Request::Drops => return answer(call.reply, &self.all_drops()),
            Request::FlowList { limit } => {
                self.list_flows(limit, call.reply);
                return false;
            }
            Request::PersistenceList(wanted) => {
                self.list_templates(wanted, call.reply);
                return false;
            }
            Request::PersistenceFlush { service, client } => {
                self.forget_templates((uid, pid), service, client, call.reply);
                return false;
            }
            Request::Stop => {
                let _ = answer(call.reply, &Done { generation: self.publisher.generation() });
                return true;
            }
            Request::Reload => {
                self.begin_reload(Some(call.reply));
                return false;
            }
            Request::ServiceAdd(service) => {
                let key = service.key;
                self.logged(uid, pid, format!("service {key} added"), |state| {
                    state.add_service(*service, now)
                })
                .map(|()| self.adopt_vip(key))
            }
            Request::ServiceRemove { service } => self
                .logged(uid, pid, format!("service {service} removed"), |state| {
                    state.remove_service(service, now)
                })
                .map(|()| self.adopt_vip(service)),
            Request::BackendAdd { service, backend, sorry } => {
                let what = format!("service {service}: backend {} added", backend.address);
                self.logged(uid, pid, what, |state| state.add_backend(service, backend, sorry, now))
                    .map(|()| self.adopt_service(service))
            }
            Request::BackendRemove { service, address } => {
                let what = format!("service {service}: backend {address} removed");
                self.logged(uid, pid, what, |state| state.remove_backend(service, address, now))
                    .map(|()| self.adopt_service(service))
            }
            Request::BackendSet { service, address, weight, admin } => {
                let what = policies::change(service, address, weight, admin);
                self.logged(uid, pid, what, |state| state.set_backend(service, address, (weight, admin), now))
            }
        };
        match changed {
            Ok(()) => self.unpublished.push(call.reply),
            Err(error) => {
                let _ = call.reply.send(Err(error));
            }
        }
        false
    }

    /// Makes a change that somebody asked for, and says so in the log.
    fn logged(
        &mut self,
        uid: u32,
        pid: i32,
        what: String,
        change: impl FnOnce(&mut State) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        change(&mut self.state)?;
        tracing::info!(uid, pid, "{what}");
        self.changed = true;
        Ok(())
    }
}

/// Answers a call that changes nothing. Returns false: it does not stop the appliance.
pub(super) fn answer<T: Serialize>(reply: oneshot::Sender<Result<Value, ApiError>>, result: &T) -> bool {
    // Whoever asked may be gone.
    let _ = reply.send(to_value(result));
    false
}

pub(super) fn to_value<T: Serialize>(result: &T) -> Result<Value, ApiError> {
    serde_json::to_value(result).map_err(|error| ApiError {
        code: code::UNAVAILABLE,
        message: format!("the answer cannot be written; {error}; report this as a defect"),
    })
}

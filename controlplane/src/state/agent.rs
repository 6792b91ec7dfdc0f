//! What agents say of backends.

use std::time::Duration;

use config::model::Agent;
use config::words::ServiceKey;

use super::{Service, State};
use crate::health::Target;
use crate::health::agent::Report;

/// What a backend's agent said last of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Share of the configured weight.
    pub(super) percent: u16,
    /// Whether it wants no new flows.
    aside: bool,
    /// Whether it cannot serve.
    pub(super) down: bool,
    /// Its last answer in words; empty if it was never asked.
    pub(crate) said: String,
}

impl Default for Told {
    fn default() -> Self {
        Self { percent: 100, aside: false, down: false, said: String::new() }
    }
}

impl Told {
    /// Whether the backend is not to be given new flows: none of its weight is left, or it said so.
    pub(super) fn is_quiet(&self) -> bool {
        self.percent == 0 || self.aside
    }

    /// Takes an answer. No answer changes nothing but the words: an agent that is gone says nothing of its backend,
    /// which has checks for that.
    fn take(&mut self, said: Result<Report, String>) {
        let report = match said {
            Ok(report) => report,
            Err(why) => {
                self.said = why;
                return;
            }
        };
        self.percent = report.percent.unwrap_or(self.percent);
        self.aside = report.aside.unwrap_or(self.aside);
        self.down = report.down.unwrap_or(self.down);
        self.said = format!("{}%", self.percent);
        self.said += if self.aside { ", drain" } else { "" };
        self.said += if self.down { ", down" } else { "" };
        if !report.unknown.is_empty() {
            self.said += &format!("; ignored: {}", report.unknown.join(" "));
        }
    }
}

impl State {
    /// Notes what an agent said; returns whether that changes who takes new flows. A share that only differs is in
    /// force when time next passes, for weights of a service are dealt anew all together.
    pub fn hear_agent(&mut self, target: Target, said: Result<Report, String>, now: Duration) -> bool {
        let Some(slot) = self.configured(target.service) else { return false };
        let found = self.find_backend(slot, target.backend);
        let Some(backend) = found.and_then(|backend| self.backends_mut(backend)) else { return false };
        let before = backend.told.clone();
        backend.told.take(said);
        let told = &backend.told;
        if (told.is_quiet(), told.down) != (before.is_quiet(), before.down) {
            return self.recompile(slot, now);
        }
        if told.percent != before.percent {
            self.timed.insert(slot);
        }
        false
    }

    /// What the agent of a backend said last, in words.
    pub fn told(&self, target: Target) -> Option<&str> {
        let slot = self.find_backend(self.configured(target.service)?, target.backend)?;
        Some(&self.backend(slot)?.told.said)
    }

    /// Who is to be asked.
    pub fn agents(&self) -> impl Iterator<Item = (Target, Agent)> + '_ {
        self.services().flat_map(|service| self.agents_in(service))
    }

    /// The same of one service; nothing if it is not configured.
    pub fn agents_of(&self, key: ServiceKey) -> impl Iterator<Item = (Target, Agent)> + '_ {
        let service = self.configured(key).and_then(|slot| self.service(slot));
        service.into_iter().flat_map(|service| self.agents_in(service))
    }

    fn agents_in<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Target, Agent)> + 'a {
        let backends = service.backends.iter().filter_map(|slot| self.backend(*slot));
        backends.filter_map(|backend| {
            let target = Target { service: service.config.key, backend: backend.config.address };
            Some((target, service.config.agent?))
        })
    }
}

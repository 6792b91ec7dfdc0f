//! What the operator wants of backends at run time, and what the passing of time makes of it.

use std::net::SocketAddr;
use std::time::Duration;

use config::limits;
use config::words::{Admin, Fate, ServiceKey, Then};
use dataplane::snapshot::{BackendSlot, ServiceSlot};

use super::{State, no_backend, no_service};
use crate::api::{AdminChange, ApiError, code};

/// What the operator wants of a backend now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is in use.
    Enabled,
    /// It takes no new flows.
    Drain(Drain),
    /// It is not in use.
    Disabled {
        /// What becomes of the flows it has; none: as its service has it.
        flows: Option<Fate>,
    },
}

/// A drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When its time is over, from the appliance's start; none: never, or it was.
    pub deadline: Option<Duration>,
    /// What happens then.
    pub then: Then,
    /// Whether that has happened.
    pub over: bool,
    /// Whether clients that are bound to the backend may still begin flows.
    pub persistent: bool,
}

impl Wish {
    /// The state without what goes with it.
    pub fn admin(self) -> Admin {
        match self {
            Self::Enabled => Admin::Enabled,
            Self::Drain(_) => Admin::Drain,
            Self::Disabled { .. } => Admin::Disabled,
        }
    }

    /// The drain, if it is one.
    pub fn drain(self) -> Option<Drain> {
        match self {
            Self::Drain(drain) => Some(drain),
            Self::Enabled | Self::Disabled { .. } => None,
        }
    }

    fn new(change: AdminChange, now: Duration) -> Self {
        match change {
            AdminChange::Enabled => Self::Enabled,
            AdminChange::Drain { timeout_secs, then, persistent } => {
                let deadline = timeout_secs.map(|secs| now + Duration::from_secs(secs.into()));
                Self::Drain(Drain { deadline, then, over: false, persistent })
            }
            AdminChange::Disabled { flows } => Self::Disabled { flows },
        }
    }
}

impl From<Admin> for Wish {
    /// As the configuration has it.
    fn from(admin: Admin) -> Self {
        match admin {
            Admin::Enabled => Self::Enabled,
            Admin::Drain => {
                Self::Drain(Drain { deadline: None, then: Then::Keep, over: false, persistent: true })
            }
            Admin::Disabled => Self::Disabled { flows: None },
        }
    }
}

/// A drain whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The backend's service.
    pub service: ServiceKey,
    /// The backend.
    pub address: SocketAddr,
    /// What has happened to it.
    pub then: Then,
}

/// What the passing of time has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Drains whose time is over.
    pub drained: Vec<Drained>,
    /// Whether workers have to know of anything.
    pub changed: bool,
}

impl State {
    /// Changes a backend's weight, its administrative state, or both.
    ///
    /// # Errors
    /// There is no such service or backend, or the change makes no sense.
    pub fn set_backend(
        &mut self,
        key: ServiceKey,
        address: SocketAddr,
        (weight, admin): (Option<u16>, Option<AdminChange>),
        now: Duration,
    ) -> Result<(), ApiError> {
        let slot = self.configured(key).ok_or_else(|| no_service(key))?;
        let backend = self.find_backend(slot, address).ok_or_else(|| no_backend(key, address))?;
        let admin = admin.map(checked).transpose()?;
        if weight.is_none() && admin.is_none() {
            let message =
                "nothing to change; neither a weight nor an administrative state is given; give one";
            return Err(ApiError { code: code::INVALID_CONFIG, message: message.to_owned() });
        }
        if let Some(backend) = self.backends_mut(backend) {
            let served = backend.is_wanted();
            backend.config.weight = weight.unwrap_or(backend.config.weight);
            backend.keep_weight();
            backend.wish = admin.map_or(backend.wish, |change| Wish::new(change, now));
            backend.begin_ramp(!served, now);
        }
        self.recompile(slot, now);
        Ok(())
    }

    /// Does what only time brings: drains end, and backends grow into their weights.
    pub fn pass_time(&mut self, now: Duration) -> Passed {
        let mut passed = Passed::default();
        // Few services wait for time, and none of the others is looked at.
        for slot in self.timed.iter().copied().collect::<Vec<_>>() {
            let over = self.drains_over(slot, now);
            for (backend, drained) in &over {
                self.end_drain(*backend, *drained, now);
            }
            // A service that was removed waits for nothing any more.
            let changed = self.recompile(slot, now);
            passed.changed |= changed || !over.is_empty();
            passed.drained.extend(over.into_iter().map(|(_, drained)| drained));
        }
        passed
    }

    fn drains_over(&self, slot: ServiceSlot, now: Duration) -> Vec<(BackendSlot, Drained)> {
        let Some(service) = self.service(slot) else { return Vec::new() };
        let over = |slot: &BackendSlot| {
            let backend = self.backend(*slot)?;
            let drain = backend.wish.drain()?;
            drain.deadline.filter(|deadline| *deadline <= now)?;
            let (service, address) = (service.config.key, backend.config.address);
            Some((*slot, Drained { service, address, then: drain.then }))
        };
        service.members().filter_map(over).collect()
    }

    fn end_drain(&mut self, slot: BackendSlot, drained: Drained, now: Duration) {
        if let Some(backend) = self.backends_mut(slot)
            && let Wish::Drain(drain) = &mut backend.wish
        {
            (drain.deadline, drain.over) = (None, true);
        }
        if drained.then == Then::Remove {
            // It was there a moment ago.
            let _ = self.remove_backend(drained.service, drained.address, now);
        }
    }
}

/// A change that makes sense by itself.
fn checked(change: AdminChange) -> Result<AdminChange, ApiError> {
    let wrong = match change {
        AdminChange::Drain { timeout_secs: Some(secs), .. } if !limits::IDLE_SECS.contains(&secs) => {
            format!("a drain of {secs} s; the time is out of range; use 1 s to 30 days")
        }
        AdminChange::Drain { timeout_secs: None, then: Then::Remove | Then::Reset, .. } => {
            "a drain without a timeout; it never ends, so nothing can follow; give timeout_secs".to_owned()
        }
        _ => return Ok(change),
    };
    Err(ApiError { code: code::INVALID_CONFIG, message: wrong })
}

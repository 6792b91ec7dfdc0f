//! Weights that follow what is measured.

use std::collections::HashMap;
use std::time::Duration;

use config::words::Scheduler;
use dataplane::load::Load;
use dataplane::snapshot::{BackendSlot, ServiceSlot};

use super::{Backend, Service, State};
use crate::observe::{self, Look};

/// What was measured of a backend when it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// Its connections.
    connections: Option<u64>,
    /// By what its weight is multiplied; none until it was looked at.
    ratio: Option<u32>,
}

impl Service {
    /// By what this service's weight of a backend is multiplied.
    pub(super) fn ratio_of(&self, backend: &Backend) -> u32 {
        // Until it is looked at, a backend counts as most do.
        const USUAL: u32 = 2;
        match self.config.scheduler {
            Scheduler::Observed | Scheduler::Predictive => backend.measured.ratio.unwrap_or(USUAL),
            Scheduler::DynamicRatio => backend.told.percent.into(),
            _ => 1,
        }
    }

    /// What the weights of the backends that take new flows come to beside each other, as workers have them.
    pub fn effective_weights(&self) -> HashMap<BackendSlot, f64> {
        let whole = match self.config.scheduler {
            Scheduler::DynamicRatio => 100,
            _ => 1,
        };
        let unit = f64::from(self.scale * whole);
        let candidates = self.compiled.candidates.iter();
        candidates.map(|candidate| (candidate.backend, f64::from(candidate.weight) / unit)).collect()
    }
}

impl State {
    /// Looks at the connections of backends whose weights follow them. Returns whether any weight changed.
    pub fn reweigh(&mut self, load: impl Fn(BackendSlot) -> Load, now: Duration) -> bool {
        let mut changed = false;
        for number in 0..self.services.all().len() {
            // Services are at most 2^16.
            let slot = ServiceSlot(number as u16);
            let has_ratios = |service: &&Service| observe::has_ratios(service.config.scheduler);
            let Some(service) = self.service(slot).filter(has_ratios) else { continue };
            let scheduler = service.config.scheduler;
            let looks = service.compiled.candidates.iter().filter_map(|candidate| {
                let Backend { config, measured, .. } = self.backend(candidate.backend)?;
                let open = observe::connections(load(candidate.backend));
                let (weight, before) = (config.weight, measured.connections);
                Some((candidate.backend, Look { weight, now: open, before }))
            });
            let (backends, looks): (Vec<_>, Vec<_>) = looks.unzip();
            let mut reweighed = false;
            let ratios = observe::ratios(scheduler, &looks);
            for ((backend, look), ratio) in backends.into_iter().zip(looks).zip(ratios) {
                let Some(backend) = self.backends_mut(backend) else { continue };
                reweighed |= backend.measured.ratio != Some(ratio);
                backend.measured = Measured { connections: Some(look.now), ratio: Some(ratio) };
            }
            if reweighed {
                self.recompile(slot, now);
            }
            changed |= reweighed;
        }
        changed
    }

    /// The backends whose traffic or answers are measured.
    pub fn measured(&self) -> impl Iterator<Item = BackendSlot> + '_ {
        let is_measured = |service: &&Service| {
            use Scheduler::{Fastest, LeastBandwidth, LeastPackets};
            matches!(service.config.scheduler, LeastBandwidth | LeastPackets | Fastest)
        };
        self.services().filter(is_measured).flat_map(|service| service.members().copied())
    }
}

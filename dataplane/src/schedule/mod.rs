//! Choosing the backend of a new flow.
//!
//! Each worker keeps its own position in every service, so no choice touches shared memory; each worker's
//! sequence is IPVS's.

mod round_robin;

use config::words::Scheduler;

use crate::prefetch::prefetch;
use crate::snapshot::{BackendSlot, Service, ServiceSlot};

/// Positions of one worker in all services.
pub struct Schedulers {
    /// By service slot.
    positions: Box<[round_robin::Position]>,
}

impl Schedulers {
    /// Positions for services in slots 0 to `services` - 1.
    pub fn new(services: usize) -> Self {
        Self { positions: vec![round_robin::Position::default(); services].into() }
    }

    /// Asks for the position in a service to come into the cache.
    #[inline]
    pub fn prefetch(&self, slot: ServiceSlot) {
        prefetch(self.positions.as_ptr().wrapping_add(usize::from(slot.0)));
    }

    /// Asks for what [`Self::next`] reads to come into the cache.
    #[inline]
    pub fn prefetch_next(&self, slot: ServiceSlot, service: &Service) {
        if let Some(position) = self.positions.get(usize::from(slot.0)) {
            prefetch(service.candidates.as_ptr().wrapping_add(position.index()));
        }
    }

    /// The backend that [`Self::pick`] is likely to give; it chooses nothing.
    #[inline]
    pub fn next(&self, slot: ServiceSlot, service: &Service) -> Option<BackendSlot> {
        let position = self.positions.get(usize::from(slot.0))?;
        let candidate = service.candidates.get(position.index()).or(service.candidates.first())?;
        Some(candidate.backend)
    }

    /// The backend of the service's next flow; `None` if no backend takes new flows.
    #[inline]
    pub fn pick(&mut self, slot: ServiceSlot, service: &Service) -> Option<BackendSlot> {
        let position = self.positions.get_mut(usize::from(slot.0))?.of(service);
        match service.scheduler {
            Scheduler::Rr => position.next(service),
            Scheduler::Wrr => position.next_weighted(service),
        }
    }
}

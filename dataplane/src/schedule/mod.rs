//! Choosing the backend of a new flow.
//!
//! Each worker keeps its own position in every service, so no choice touches shared memory; each worker's
//! sequence is IPVS's.

mod round_robin;

use config::words::Scheduler;

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

//! What was removed and still has flows, until it has none.

use dataplane::snapshot::{BackendSlot, ServiceSlot};

use super::State;
use crate::api::Counters;

impl State {
    /// Frees the slots of what is retired and has no flow left. `counted` says what all workers counted for
    /// a slot, and how many flows it has. Returns whether any was freed.
    pub fn free_retired(&mut self, counted: impl Fn(BackendSlot) -> (Counters, u64)) -> bool {
        let mut freed = false;
        for number in 0..self.services.all().len() {
            // Services are at most 2^16.
            let slot = ServiceSlot(number as u16);
            let Some(service) = self.services_mut(slot) else { continue };
            let retired = std::mem::take(&mut service.retired_backends);
            let before = retired.len();
            let left: Vec<_> =
                retired.into_iter().filter(|backend| !self.free_backend(*backend, &counted)).collect();
            freed |= left.len() < before;
            let Some(service) = self.services_mut(slot) else { continue };
            service.retired_backends = left;
            if service.retired && service.retired_backends.is_empty() {
                let key = service.config.key;
                self.slot_of.remove(&key);
                self.services.remove(number);
                freed = true;
            }
        }
        freed
    }

    /// Frees a retired backend's slot if it has no flow left; what it did becomes its service's past.
    fn free_backend(&mut self, slot: BackendSlot, counted: impl Fn(BackendSlot) -> (Counters, u64)) -> bool {
        let (total, flows) = counted(slot);
        if flows > 0 {
            return false;
        }
        if let Some(backend) = self.backends.remove(slot.0 as usize)
            && let Some(service) = self.services_mut(backend.service)
        {
            service.past = plus(service.past, minus(total, backend.base));
        }
        self.slot_bases.insert(slot, total);
        true
    }

    /// Whether anything is retired.
    pub fn has_retired(&self) -> bool {
        self.services
            .all()
            .iter()
            .flatten()
            .any(|service| service.retired || !service.retired_backends.is_empty())
    }

    /// What a backend counted since it has its slot, of what its slot counted in all.
    pub fn since_base(&self, slot: BackendSlot, total: Counters) -> Counters {
        self.backend(slot).map_or(total, |backend| minus(total, backend.base))
    }
}

/// Field by field; of use for counters that only grow.
fn minus(a: Counters, b: Counters) -> Counters {
    combine(a, b, u64::wrapping_sub)
}

/// Field by field.
pub fn plus(a: Counters, b: Counters) -> Counters {
    combine(a, b, u64::wrapping_add)
}

fn combine(a: Counters, b: Counters, with: fn(u64, u64) -> u64) -> Counters {
    Counters {
        conns: with(a.conns, b.conns),
        in_packets: with(a.in_packets, b.in_packets),
        out_packets: with(a.out_packets, b.out_packets),
        in_bytes: with(a.in_bytes, b.in_bytes),
        out_bytes: with(a.out_bytes, b.out_bytes),
    }
}

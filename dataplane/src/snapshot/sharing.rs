//! What a snapshot shares with the one before it: a change of weights or health, the most frequent one, makes no
//! table anew, whatever the size of the configuration.

use std::sync::Arc;

use config::words::Fate;

use super::{Backend, Parts, Service, Snapshot, Uses, Way, eases, shortest, ways};
use crate::prefetch::Table;

impl Snapshot {
    /// As [`Snapshot::new`], but all tables are shared with another snapshot if only weights, health and options of
    /// services differ from it.
    pub fn after(before: &Self, parts: Parts) -> Self {
        let given_up = before.given_up + parts.given_up_since(&before.parts.backends);
        if !before.parts.are_found_as(&parts) {
            return Self { given_up, ..Self::new(parts) };
        }
        Self {
            tables: Arc::clone(&before.tables),
            interfaces: before.interfaces.clone(),
            egress: Arc::clone(&before.egress),
            ways: ways_after(before, &parts),
            eases: eases(&parts),
            gateways_v4: before.gateways_v4.clone(),
            gateways_v6: before.gateways_v6.clone(),
            exits_v4: before.exits_v4.clone(),
            exits_v6: before.exits_v6.clone(),
            is_gateway: before.is_gateway,
            uses: Uses::of(&parts),
            given_up,
            shortest_timeout: shortest(&parts),
            parts,
        }
    }
}

/// The ways of parts whose backends are those of another snapshot but for their health and the fate of their flows.
fn ways_after(before: &Snapshot, parts: &Parts) -> Arc<Table<Option<Way>>> {
    let fate = |backend: &Option<Backend>| backend.map(|backend| backend.fate);
    let mut pairs = before.parts.backends.iter().zip(&parts.backends);
    if pairs.all(|(one, other)| fate(one) == fate(other)) {
        return Arc::clone(&before.ways);
    }
    ways(parts, &before.egress, &before.tables)
}

impl Parts {
    /// How many backends' flows are reset that were not so before.
    pub(super) fn given_up_since(&self, before: &[Option<Backend>]) -> u64 {
        let is_over = |backend: &&Option<Backend>| backend.is_some_and(|backend| backend.fate == Fate::Reset);
        let was_over = |slot| before.get(slot).filter(is_over).is_some();
        let over = self.backends.iter().enumerate().filter(|(_, backend)| is_over(backend));
        over.filter(|(slot, _)| !was_over(*slot)).count() as u64
    }

    /// Whether packets find the same services, backends and next hops with these parts as with others.
    fn are_found_as(&self, other: &Self) -> bool {
        let same_service = |pair: (&Option<Arc<Service>>, &Option<Arc<Service>>)| match pair {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one.is_found_as(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let same_backend = |(one, other): (&Option<Backend>, &Option<Backend>)| match (one, other) {
            (Some(one), Some(other)) => {
                *one == Backend { up: one.up, fate: one.fate, persists: one.persists, ..*other }
            }
            (one, other) => one.is_none() && other.is_none(),
        };
        Arc::ptr_eq(&self.routes, &other.routes)
            && Arc::ptr_eq(&self.neighbours, &other.neighbours)
            && (&self.interfaces, &self.own, &self.locals) == (&other.interfaces, &other.own, &other.locals)
            && self.services.len() == other.services.len()
            && self.backends.len() == other.backends.len()
            && self.services.iter().zip(&other.services).all(same_service)
            && self.backends.iter().zip(&other.backends).all(same_backend)
    }
}

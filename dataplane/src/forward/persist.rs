//! Persistence: a client comes back to the backend that it had.

use super::flows::{wide_address, worth};
use super::{Context, Forwarder};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::flow::table::Worth;
use crate::flow::{FlowOwner, network};
use crate::packet::Headers;
use crate::persist::Persistent;
use crate::snapshot::{BackendSlot, Found, Persistence, Service, Snapshot};

impl<F: Frame> Forwarder<F> {
    /// The backend of a new flow: the one that its client had, or one that the scheduler picks, which the client then
    /// has.
    pub(super) fn choose(
        &mut self,
        context: Context,
        found: Found,
        service: &Service,
        headers: &Headers,
    ) -> Option<BackendSlot> {
        let Some(persistence) = &service.persistence else {
            return self.schedulers.pick(context.now, found.service, service, || headers.into());
        };
        let key = persistence.key(wide_address(headers.ip.addresses.src()), headers.dst_port);
        let known = self.team.templates.find(context.now, &key);
        let serves = |it: &Self, slot| it.still_serves(context.snapshot, found, service, persistence, slot);
        let there = known.and_then(|slot| serves(self, slot));
        let backend = match there {
            Some(backend) => backend,
            None => self.schedulers.pick(context.now, found.service, service, || headers.into())?,
        };
        // Who is sent to a sorry backend comes back to the one that it had, if that serves again in time.
        if context.snapshot.backend(backend).is_none_or(|backend| !backend.persists) {
            return Some(backend);
        }
        let unfit = known.filter(|_| there.is_none());
        let kept = self.team.templates.keep(context.now, &key, backend, persistence.secs, unfit);
        // Another worker may have chosen for the same client just before.
        if kept == backend || known == Some(kept) {
            return Some(backend);
        }
        serves(self, kept).or(Some(backend))
    }

    /// The backend of a service that a template means, if it takes flows of clients that it had.
    fn still_serves(
        &self,
        snapshot: &Snapshot,
        found: Found,
        service: &Service,
        persistence: &Persistence,
        slot: BackendSlot,
    ) -> Option<BackendSlot> {
        // Another service has a removed backend's slot later, or a service of its group chose.
        let is_own = snapshot.backend(slot)?.service == found.service;
        let slot = match is_own {
            true => slot,
            false if persistence.is_group => same_server(snapshot, service, slot)?,
            false => return None,
        };
        let candidate = service.candidates.iter().find(|candidate| candidate.backend == slot);
        let drained = candidate.is_none_or(|candidate| candidate.weight == 0);
        let full = || candidate.is_some_and(|candidate| !self.team.has_room(service, candidate));
        let serves = snapshot.backend(slot)?.persists
            && !(persistence.expire_when_drained && drained)
            && !(persistence.respect_limits && full());
        serves.then_some(slot)
    }

    /// Lets the templates live whose flows do, of a few lines of both tables.
    pub(super) fn touch_templates(&self, context: Context, lines: usize) {
        self.flows.visit_next(lines, |owner, flow| {
            if worth(context, flow) != Worth::Dead
                && let Some((key, secs)) = template_of(context.snapshot, owner)
            {
                self.team.templates.touch(context.now, &key, secs);
            }
        });
    }
}

/// Whose template a flow belongs to, if its service has any, and the seconds for which that lives.
fn template_of(snapshot: &Snapshot, owner: FlowOwner) -> Option<(Persistent, Seconds)> {
    let service = snapshot.service(owner.service)?;
    let persistence = service.persistence.as_ref()?;
    // A service of one port has it in its key.
    let port = owner.service_port.unwrap_or(service.key.ports.first);
    Some((persistence.key(wide_address(owner.client), port), persistence.secs))
}

/// The backend of a service that is the same server as a backend of another service of its group.
fn same_server(snapshot: &Snapshot, service: &Service, slot: BackendSlot) -> Option<BackendSlot> {
    let server = snapshot.backend(slot)?.address.ip();
    let is_it = |slot: &BackendSlot| snapshot.backend(*slot).is_some_and(|it| it.address.ip() == server);
    service.grouped.iter().copied().find(is_it)
}

impl Persistence {
    /// Who a client is to the templates; an IPv4 address is mapped.
    fn key(&self, client: u128, port: u16) -> Persistent {
        let client = network(client, self.prefix_v4, self.prefix_v6);
        Persistent { scope: self.scope, client, port: if self.across_ports { 0 } else { port } }
    }
}

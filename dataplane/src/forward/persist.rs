//! Persistence: a client comes back to the backend that it had.

use super::flows::{wide_address, worth};
use super::{Context, Forwarder};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::flow::table::Worth;
use crate::flow::{FlowOwner, network};
use crate::packet::Headers;
use crate::persist::{self, Persistent};
use crate::snapshot::{BackendSlot, Found, Persistence, Service, Snapshot};
use crate::team::Chosen;

/// Steps of a housekeeping turn when a round is late: with 1024 flows, less than 100 µs.
const STEPS_WHEN_LATE: usize = 16;

/// How far a round through the flow tables is, which lets the templates live whose flows do.
#[derive(Debug, Default)]
pub(super) struct Round {
    began: Seconds,
    /// Lines of the longer table that it has been through.
    lines: usize,
}

impl Round {
    /// Whether it takes too long for templates that live for so many seconds after they were touched. Each flow is seen
    /// in each round, and of two rounds that follow one another first in one and last in the other at worst.
    fn is_late(&self, of: usize, now: Seconds, secs: Seconds) -> bool {
        let most = (secs - 1) / 2;
        let due = u64::from(now.saturating_sub(self.began)) + 1;
        (self.lines as u64) * u64::from(most) < (of as u64) * due
    }

    fn advance(&mut self, lines: usize, of: usize, now: Seconds) {
        self.lines += lines;
        if self.lines >= of {
            *self = Self { began: now, lines: 0 };
        }
    }
}

impl<F: Frame> Forwarder<F> {
    /// The backend of a new flow: the one that its client had, or one that the scheduler picks, which the client then
    /// has.
    pub(super) fn choose(
        &mut self,
        context: Context,
        found: Found,
        service: &Service,
        headers: &Headers,
    ) -> Option<Chosen> {
        let Some(persistence) = &service.persistence else {
            return self.pick(context, found, service, headers);
        };
        let key = persistence.key(wide_address(headers.ip.addresses.src()), headers.dst_port);
        let known = self.team.templates.find(context.now, &key);
        let serves = |it: &Self, slot| it.still_serves(context.snapshot, found, service, persistence, slot);
        let there = known.and_then(|slot| serves(self, slot));
        let unfit = known.filter(|_| there.is_none());
        let chosen = match there {
            Some(chosen) => chosen,
            None => self.pick(context, found, service, headers)?,
        };
        let backend = chosen.backend;
        // Who is sent to a sorry backend comes back to the one that it had, if that serves again in time.
        if context.snapshot.backend(backend).is_none_or(|backend| !backend.persists) {
            return Some(chosen);
        }
        let kept = self.team.templates.keep(context.now, &key, backend, persistence.secs, unfit);
        // Another worker may have chosen for the same client just before.
        if kept == backend || known == Some(kept) {
            return Some(chosen);
        }
        let Some(other) = serves(self, kept) else { return Some(chosen) };
        self.team.release(chosen);
        Some(other)
    }

    /// The backend of a service that a template means, if it takes flows of clients that it had.
    fn still_serves(
        &self,
        snapshot: &Snapshot,
        found: Found,
        service: &Service,
        persistence: &Persistence,
        slot: BackendSlot,
    ) -> Option<Chosen> {
        // Another service has a removed backend's slot later, or a service of its group chose.
        let is_own = snapshot.backend(slot)?.service == found.service;
        let slot = match is_own {
            true => slot,
            false if persistence.is_group => same_server(snapshot, service, slot)?,
            false => return None,
        };
        let candidate = service.candidates.iter().find(|candidate| candidate.backend == slot);
        let drained = candidate.is_none_or(|candidate| candidate.weight == 0);
        if !snapshot.backend(slot)?.persists || (persistence.expire_when_drained && drained) {
            return None;
        }
        if !persistence.respect_limits {
            return Some(Chosen::freely(slot));
        }
        let has_room = candidate.is_none_or(|candidate| self.team.has_room(service, candidate));
        has_room.then(|| self.team.claim(service, slot)).flatten()
    }

    /// How many times a few lines are to be looked at in this housekeeping turn.
    pub(super) fn steps(&self, context: Context) -> usize {
        let secs = context.snapshot.uses.persistence.map(persist::child_secs);
        if secs.is_some_and(|secs| self.round.is_late(self.flows.longest(), context.now, secs)) {
            STEPS_WHEN_LATE
        } else {
            1
        }
    }

    /// Lets the templates live whose flows do, of the lines of both tables that are swept next.
    pub(super) fn touch_templates(&mut self, context: Context, lines: usize) {
        if context.snapshot.uses.persistence.is_none() {
            return;
        }
        self.round.advance(lines, self.flows.longest(), context.now);
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
    let port = snapshot.port_of(&owner)?;
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

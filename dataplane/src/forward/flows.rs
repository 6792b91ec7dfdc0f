//! The flows of one worker, narrow and wide, with what belongs to them: counters and local ports.

mod behind;
mod keyed;

use std::arch::x86_64::{__m512i, _mm512_slli_epi64};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, Setup};
use crate::drops::DropReason;
use crate::eight::WideEnds;
use crate::flow::state::{self, State, View};
use crate::flow::table::{FlowHash, HashSecret, Inserted, NarrowTable, Place, Record, WideTable, Worth};
use crate::flow::{FlowKey, FlowOwner, FlowValue, Key, WideKey, mapped};
use crate::local::{LocalPorts, LocalSlot};
use crate::packet::{Addresses, Headers};
use crate::snapshot::Found;
use crate::stats::WorkerStats;
use crate::toeplitz::Owners;
pub(super) use keyed::{Hashed, Tabled};

/// Flows of a line at most, of either table.
pub(super) const WAYS: usize = 4;

/// Where a flow is stored; good until its table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Narrow(Place),
    Wide(Place),
}

/// Both tables.
pub struct Flows {
    narrow: NarrowTable,
    wide: WideTable,
    secret: HashSecret,
    locals: LocalPorts,
    /// Whether flows gave local ports back since somebody asked.
    gave_back: bool,
    stats: Arc<WorkerStats>,
}

impl Flows {
    pub(super) fn new(setup: &Setup, stats: Arc<WorkerStats>) -> Self {
        Self {
            narrow: NarrowTable::new(setup.flow_capacity, setup.secret),
            wide: WideTable::new(setup.wide_capacity, setup.secret),
            secret: setup.secret,
            locals: LocalPorts::new(Owners::new(setup.team.workers()), setup.number),
            gave_back: false,
            stats,
        }
    }

    /// Hash of a client's flows.
    #[inline]
    pub(super) fn hash(&self, client: IpAddr, port: u16) -> FlowHash {
        match client {
            IpAddr::V4(address) => self.secret.hash(address.to_bits(), port),
            IpAddr::V6(address) => self.secret.hash_v6(address.to_bits(), port),
        }
    }

    /// The same of a client of a known IP version.
    #[inline]
    pub(super) fn hash_of<A: Hashed>(&self, client: A, port: u16) -> FlowHash {
        client.hash(&self.secret, port)
    }

    /// The hashes of eight clients, and the home lines of their narrow flows to services.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(super) fn homes_of_eight(&self, clients: __m512i, services: __m512i) -> Homes {
        let hashes = self.secret.hash_of_eight(clients);
        Homes { hashes, homes: self.narrow.homes_of_eight(hashes, _mm512_slli_epi64::<16>(services)) }
    }

    /// The same of IPv6 clients and their flows to ports of services: slots above ports.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(super) fn wide_homes_of_eight(&self, clients: &WideEnds, targets: __m512i) -> Homes {
        let hashes = self.secret.hash_of_eight_v6(clients);
        Homes { hashes, homes: self.wide.homes_of_eight(hashes, targets) }
    }

    /// The same of a packet's source.
    #[inline]
    pub(super) fn hash_src(&self, headers: &Headers) -> FlowHash {
        match headers.ip.addresses {
            Addresses::V4 { src, .. } => self.secret.hash(src, headers.src_port),
            Addresses::V6 { src, .. } => self.secret.hash_v6(src, headers.src_port),
        }
    }

    /// The same of a packet's destination.
    #[inline]
    pub(super) fn hash_dst(&self, headers: &Headers) -> FlowHash {
        match headers.ip.addresses {
            Addresses::V4 { dst, .. } => self.secret.hash(dst, headers.dst_port),
            Addresses::V6 { dst, .. } => self.secret.hash_v6(dst, headers.dst_port),
        }
    }

    /// Asks for the line of a client's flow to a port of a service to come into the cache.
    #[inline]
    pub(super) fn prefetch(&self, hash: FlowHash, found: Found, service_port: u16) {
        if found.narrow {
            self.narrow.prefetch(hash.with_service(found.service, 0));
        } else {
            self.wide.prefetch(hash.with_service(found.service, service_port));
        }
    }

    /// The flow of a client to a port of a service.
    #[inline]
    pub(super) fn find(
        &self,
        hash: FlowHash,
        client: Addresses,
        from_src: bool,
        ports: (u16, u16),
        found: Found,
    ) -> Option<Stored> {
        let client = match client {
            Addresses::V4 { src, dst } => {
                let client = if from_src { src } else { dst };
                // No flow has another, and an empty place may look like one.
                if client == 0 {
                    return None;
                }
                if found.narrow {
                    let key = FlowKey::new(client, ports.0, found.service);
                    return self.narrow.find(key.line(hash), &key).map(Stored::Narrow);
                }
                mapped(client)
            }
            Addresses::V6 { src, dst } => {
                Some(if from_src { src } else { dst }).filter(|client| *client != 0)?
            }
        };
        if self.wide.is_empty() {
            return None;
        }
        let key = WideKey::new(client, ports.0, found.service, ports.1);
        self.wide.find(key.line(hash), &key).map(Stored::Wide)
    }

    #[inline]
    pub(super) fn value(&self, stored: Stored) -> FlowValue {
        match stored {
            Stored::Narrow(place) => self.narrow.value(place),
            Stored::Wide(place) => self.wide.value(place),
        }
    }

    /// Who a stored flow belongs to.
    pub(super) fn owner(&self, stored: Stored) -> FlowOwner {
        match stored {
            Stored::Narrow(place) => owner_of(self.narrow.record(place)),
            Stored::Wide(place) => self.wide.key(place).owner(),
        }
    }

    /// Notes a packet in its flow.
    #[inline(always)]
    pub(super) fn advance(
        &mut self,
        context: Context,
        stored: Stored,
        flow: FlowValue,
        view: View,
        headers: &Headers,
    ) {
        // Of a later piece nothing is known but that the flow lives.
        let next = if headers.has_transport() {
            state::next(flow.state(), view, headers.tcp_flags)
        } else {
            flow.state()
        };
        self.enter(context, stored, flow, next);
    }

    /// Notes the state that a flow is in now.
    #[inline(always)]
    pub(super) fn enter(&mut self, context: Context, stored: Stored, flow: FlowValue, next: State) {
        if next.is_active() != flow.state().is_active() {
            self.stats.loads.turn(flow.backend(), next.is_active());
        }
        let value = flow.seen(next, context.now);
        match stored {
            Stored::Narrow(place) => self.narrow.set(place, value),
            Stored::Wide(place) => self.wide.set(place, value),
        }
    }

    /// Ends a flow before its time, or after it.
    pub(super) fn end(&mut self, context: Context, stored: Stored) {
        let dead = worth(context, self.value(stored)) == Worth::Dead;
        self.stats.expired.add(u64::from(dead));
        match stored {
            Stored::Narrow(place) => {
                let ended = self.narrow.remove(place);
                self.forget(ended.flow, ended.port);
            }
            Stored::Wide(place) => {
                let ended = self.wide.remove(place);
                self.forget(ended.flow, ended.key.local_port());
            }
        }
    }

    /// Stores a new narrow flow, whose hash is `line`. With `locals`, its backend knows the client by one of these
    /// addresses and a port that is chosen here.
    ///
    /// # Errors
    /// [`DropReason::FlowTableFull`] if there is no place for it, [`DropReason::LocalPortsExhausted`] if no
    /// port is free.
    pub(super) fn store_narrow(
        &mut self,
        context: Context,
        line: FlowHash,
        key: FlowKey,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<Place, DropReason> {
        let (flow, port) = self.with_local(key, flow, locals)?;
        self.place_narrow(context, line, key, flow, port)
    }

    /// The same of one that has its local port, if it is to have one; that is given back if there is no place.
    #[inline(never)]
    fn place_narrow(
        &mut self,
        context: Context,
        line: FlowHash,
        key: FlowKey,
        flow: FlowValue,
        port: u16,
    ) -> Result<Place, DropReason> {
        let place = match self.narrow.insert(line, key, flow, |flow| worth(context, flow)) {
            Inserted::Placed(place) => place,
            Inserted::Replaced(place, dead) => {
                self.stats.expired.add(1);
                self.forget(dead.flow, dead.port);
                place
            }
            Inserted::Evicted(place, evicted) => {
                self.stats.evicted.add(1);
                self.forget(evicted.flow, evicted.port);
                place
            }
            Inserted::Full => {
                if flow.has_local() {
                    self.give_local_back(flow, port);
                }
                return Err(DropReason::FlowTableFull);
            }
        };
        if flow.has_local() {
            self.narrow.set_port(place, port);
        }
        self.count_new(flow);
        Ok(place)
    }

    /// The same as [`Self::store_narrow`] of a wide flow.
    ///
    /// # Errors
    /// As there.
    pub(super) fn store_wide(
        &mut self,
        context: Context,
        line: FlowHash,
        key: WideKey,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<Place, DropReason> {
        let (flow, port) = self.with_local((&key, line), flow, locals)?;
        self.place_wide(context, line, key.with_local_port(port), flow)
    }

    /// The same of one that has its local port, if it is to have one; that is given back if there is no place.
    #[inline(never)]
    fn place_wide(
        &mut self,
        context: Context,
        line: FlowHash,
        key: WideKey,
        flow: FlowValue,
    ) -> Result<Place, DropReason> {
        let place = match self.wide.insert(line, key, flow, |flow| worth(context, flow)) {
            Inserted::Placed(place) => place,
            Inserted::Replaced(place, dead) => {
                self.stats.expired.add(1);
                self.forget(dead.flow, dead.key.local_port());
                place
            }
            Inserted::Evicted(place, evicted) => {
                self.stats.evicted.add(1);
                self.forget(evicted.flow, evicted.key.local_port());
                place
            }
            Inserted::Full => {
                if flow.has_local() {
                    self.give_local_back(flow, key.local_port());
                }
                return Err(DropReason::FlowTableFull);
            }
        };
        self.count_new(flow);
        Ok(place)
    }

    #[inline(always)]
    fn count_new(&self, flow: FlowValue) {
        self.stats.conns(flow.backend()).add(1);
        self.stats.loads.begin(flow.backend(), flow.state().is_active());
    }

    /// Takes a flow that left its table out of its backend's load, and gives its local port back, if it has one.
    #[inline(always)]
    fn forget(&mut self, flow: FlowValue, port: u16) {
        if flow.has_local() {
            self.give_local_back(flow, port);
        }
        self.stats.loads.end(flow.backend(), flow.state().is_active());
    }

    /// Takes dead flows out of a few lines of both tables; a bounded piece of work for a housekeeping turn.
    pub(super) fn sweep(&mut self, context: Context, lines: usize) {
        const MOST: usize = 64;
        let lines = lines.min(MOST / WAYS);
        let mut ended = [None; 2 * MOST];
        let mut free = ended.iter_mut();
        let dead = |flow| worth(context, flow);
        self.narrow.sweep(lines, dead, |its| {
            free.next().into_iter().for_each(|place| *place = Some((its.flow, its.port)));
        });
        self.wide.sweep(lines, dead, |its| {
            free.next().into_iter().for_each(|place| *place = Some((its.flow, its.key.local_port())));
        });
        self.stats.expired.add(ended.iter().flatten().count() as u64);
        ended.into_iter().flatten().for_each(|(flow, port)| self.forget(flow, port));
        self.stats.flows.set((self.narrow.len() + self.wide.len()) as u64);
    }

    /// The flows of the lines that [`Self::sweep`] looks at next.
    pub(super) fn visit_next(&self, lines: usize, mut flow: impl FnMut(FlowOwner, FlowValue)) {
        self.narrow.visit_next(lines).for_each(|its| flow(owner_of(its), its.flow));
        self.wide.visit_next(lines).for_each(|its| flow(its.key.owner(), its.flow));
    }

    /// Lines of the larger table.
    pub(super) fn longest(&self) -> usize {
        self.narrow.lines().max(self.wide.lines())
    }

    /// Lines of both tables, for [`Flows::visit`].
    pub fn lines(&self) -> usize {
        self.narrow.lines() + self.wide.lines()
    }

    /// The flows of one line, narrow ones first; at most four.
    pub fn visit(&self, line: usize, mut flow: impl FnMut(FlowOwner, FlowValue)) {
        match line.checked_sub(self.narrow.lines()) {
            None => self.narrow.visit(line).for_each(|its| flow(owner_of(its), its.flow)),
            Some(line) if line < self.wide.lines() => {
                self.wide.visit(line).for_each(|its| flow(its.key.owner(), its.flow));
            }
            Some(_) => {}
        }
    }

    /// Number of flows.
    pub fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hashes of eight clients, and home lines of their flows.
#[derive(Clone, Copy)]
pub(super) struct Homes {
    pub hashes: __m512i,
    pub homes: __m512i,
}

/// An address as wide keys hold it.
pub(super) fn wide_address(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => mapped(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Who a narrow flow belongs to.
fn owner_of(its: Record<FlowKey>) -> FlowOwner {
    FlowOwner { local_port: its.flow.has_local().then_some(its.port), ..its.key.owner() }
}

/// What a flow is worth now.
#[inline]
pub(super) fn worth(context: Context, flow: FlowValue) -> Worth {
    let idle = flow.idle(context.now);
    if idle > context.snapshot.shortest_timeout && is_dead(context, flow, idle) {
        Worth::Dead
    } else if flow.state().is_embryonic() {
        Worth::Embryonic { idle }
    } else {
        Worth::Live
    }
}

fn is_dead(context: Context, flow: FlowValue, idle: u32) -> bool {
    // Backends without timeouts do not exist; a flow of one would be over.
    context.snapshot.timeouts_of(flow.backend()).is_none_or(|timeouts| idle > timeouts.of(flow.state()))
}

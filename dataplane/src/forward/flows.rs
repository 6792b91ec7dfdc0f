//! The flows of one worker, narrow and wide, with what belongs to them: counters and local ports.

mod keyed;

use std::arch::x86_64::{__m512i, _mm512_slli_epi64};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, Setup};
use crate::drops::DropReason;
use crate::eight::WideEnds;
use crate::flow::state::{self, State, View};
use crate::flow::table::{FlowHash, HashSecret, Home, Inserted, NarrowTable, Place, WideTable, Worth};
use crate::flow::{FlowKey, FlowOwner, FlowValue, Key, WideKey, mapped};
use crate::local::{LocalAddresses, LocalPorts, LocalSlot};
use crate::packet::{Addresses, Headers};
use crate::rewrite::sequence::Introduction;
use crate::snapshot::Found;
use crate::stats::WorkerStats;
use crate::toeplitz::Owners;
use config::words::Protocol;
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
    stats: Arc<WorkerStats>,
}

impl Flows {
    pub(super) fn new(setup: &Setup, stats: Arc<WorkerStats>) -> Self {
        Self {
            narrow: NarrowTable::new(setup.flow_capacity, setup.secret),
            wide: WideTable::new(setup.wide_capacity, setup.secret),
            secret: setup.secret,
            locals: LocalPorts::new(Owners::new(setup.team.workers())),
            stats,
        }
    }

    /// Takes over the ports of local addresses, which have this slot and those that follow.
    pub(super) fn install(&mut self, slot: LocalSlot, addresses: LocalAddresses) {
        self.locals.install(slot, addresses);
    }

    /// Asks for what is known of a local port to come into the cache.
    #[inline]
    pub(super) fn prefetch_local(&self, slot: LocalSlot, protocol: Protocol, port: u16) {
        self.locals.prefetch(slot, protocol, port);
    }

    /// Whether some local address has no port of a protocol left.
    #[inline]
    pub(super) fn is_any_spent(&self) -> bool {
        self.locals.is_any_spent()
    }

    /// Whether none of these local addresses has a free port.
    #[inline]
    pub(super) fn are_spent(&self, locals: &[LocalSlot], protocol: Protocol) -> bool {
        self.locals.are_spent(locals, protocol)
    }

    /// Counts a flow for which there is no local port. Returns what becomes of its packet.
    pub(super) fn without_port(&self) -> DropReason {
        self.stats.local_ports_exhausted.add(1);
        DropReason::LocalPortsExhausted
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

    /// The same of their wide flows to ports of services: slots above ports.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(super) fn wide_homes_of_eight(&self, clients: __m512i, targets: __m512i) -> Homes {
        let hashes = self.secret.hash_of_eight(clients);
        Homes { hashes, homes: self.wide.homes_of_eight(hashes, targets) }
    }

    /// The same of IPv6 clients.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub(super) fn wide_homes_of_eight_v6(&self, clients: &WideEnds, targets: __m512i) -> Homes {
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
        }
        // Flows of full NAT are wide, whoever the client is.
        if !self.wide.is_empty() {
            self.wide.prefetch(hash.with_service(found.service, service_port));
        }
    }

    /// Asks for the home line of a wide flow to come into the cache, or for one that is there, without a jump. Returns which
    /// the home line is.
    #[inline(always)]
    pub(super) fn prefetch_wide_if(&self, is_asked: bool, line: FlowHash) -> Home {
        self.wide.prefetch_if(is_asked, line)
    }

    /// Whether there is a narrow flow, whose client has this hash.
    #[inline]
    pub(super) fn has_narrow(&self, key: FlowKey, client: FlowHash) -> bool {
        self.narrow.find(key.line(client), &key).is_some()
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
        let address = match client {
            Addresses::V4 { src, dst } => {
                let address = if from_src { src } else { dst };
                if found.narrow && address != 0 {
                    let key = FlowKey::new(address, ports.0, found.service);
                    if let Some(place) = self.narrow.find(hash.with_service(found.service, 0), &key) {
                        return Some(Stored::Narrow(place));
                    }
                }
                mapped(address)
            }
            Addresses::V6 { src, dst } => {
                if from_src {
                    src
                } else {
                    dst
                }
            }
        };
        // Flows of full NAT are wide, whoever the client is.
        if self.wide.is_empty() || address == 0 {
            return None;
        }
        let key = WideKey::new(address, ports.0, found.service, ports.1);
        self.wide.find(hash.with_service(found.service, ports.1), &key).map(Stored::Wide)
    }

    /// Asks for the line of the flow that has a local port to come into the cache; what is known of the port
    /// should be there already.
    #[inline]
    pub(super) fn prefetch_behind(&self, slot: LocalSlot, headers: &Headers) {
        if let Some(key) = self.key_of(slot, headers.protocol, headers.dst_port) {
            self.wide.prefetch(key.hash(&self.secret));
        }
    }

    /// The key of the flow that has a local port.
    #[inline]
    pub(super) fn key_of(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<WideKey> {
        self.locals.find(slot, protocol, port)
    }

    /// The flow whose backend knows its client by a local address and port.
    #[inline]
    pub(super) fn find_local(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<Stored> {
        let key = self.key_of(slot, protocol, port)?;
        let place = self.wide.find(key.hash(&self.secret), &key)?;
        let is_it = self.wide.key(place).local_port() == port && self.wide.value(place).local() == slot;
        is_it.then_some(Stored::Wide(place))
    }

    #[inline]
    pub(super) fn value(&self, stored: Stored) -> FlowValue {
        match stored {
            Stored::Narrow(place) => self.narrow.value(place),
            Stored::Wide(place) => self.wide.value(place),
        }
    }

    /// The local address and port of a flow of full NAT.
    #[inline]
    pub(super) fn local(&self, stored: Stored) -> Option<(LocalSlot, u16)> {
        let Stored::Wide(place) = stored else { return None };
        let port = self.wide.key(place).local_port();
        (port != 0).then(|| (self.wide.value(place).local(), port))
    }

    /// How far the client of the flow that has a local port is introduced to its backend.
    #[inline]
    pub(super) fn introduction(
        &mut self,
        (slot, port): (LocalSlot, u16),
        protocol: Protocol,
    ) -> Option<&mut Introduction> {
        self.locals.introduction(slot, protocol, port)
    }

    /// Who a stored flow belongs to.
    pub(super) fn owner(&self, stored: Stored) -> FlowOwner {
        match stored {
            Stored::Narrow(place) => self.narrow.key(place).owner(),
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
                let (_, flow) = self.narrow.remove(place);
                self.forget(flow);
            }
            Stored::Wide(place) => {
                let (key, flow) = self.wide.remove(place);
                self.forget_wide(&key, flow);
            }
        }
    }

    /// Stores a new narrow flow, whose hash is `line`.
    ///
    /// # Errors
    /// [`DropReason::FlowTableFull`] if there is no place for it.
    pub(super) fn store_narrow(
        &mut self,
        context: Context,
        line: FlowHash,
        key: FlowKey,
        flow: FlowValue,
    ) -> Result<Place, DropReason> {
        let place = match self.narrow.insert(line, key, flow, |flow| worth(context, flow)) {
            Inserted::Placed(place) => place,
            Inserted::Replaced(place, (_, dead)) => {
                self.stats.expired.add(1);
                self.forget(dead);
                place
            }
            Inserted::Evicted(place, (_, evicted)) => {
                self.stats.evicted.add(1);
                self.forget(evicted);
                place
            }
            Inserted::Full => return Err(DropReason::FlowTableFull),
        };
        self.count_new(flow);
        Ok(place)
    }

    /// Stores a new wide flow, whose hash is `line`. With `locals`, its backend knows the client by one of these
    /// addresses and a port that is chosen here.
    ///
    /// # Errors
    /// [`DropReason::FlowTableFull`] if there is no place for it, [`DropReason::LocalPortsExhausted`] if no
    /// port is free.
    pub(super) fn store_wide(
        &mut self,
        context: Context,
        line: FlowHash,
        key: WideKey,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<Place, DropReason> {
        let (mut key, mut flow) = (key, flow);
        if !locals.is_empty() {
            (key, flow) = self.with_local(key, flow, locals)?;
        }
        self.place_wide(context, line, key, flow)
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
            Inserted::Replaced(place, (key, dead)) => {
                self.stats.expired.add(1);
                self.forget_wide(&key, dead);
                place
            }
            Inserted::Evicted(place, (key, evicted)) => {
                self.stats.evicted.add(1);
                self.forget_wide(&key, evicted);
                place
            }
            Inserted::Full => {
                self.give_local_back(&key, flow);
                return Err(DropReason::FlowTableFull);
            }
        };
        self.count_new(flow);
        Ok(place)
    }

    /// A flow with a free port of one of these addresses. A client's flows begin at one address, so that they share it
    /// as long as it has ports.
    #[inline(always)]
    fn with_local(
        &mut self,
        key: WideKey,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(WideKey, FlowValue), DropReason> {
        let Some((slot, port)) = self.take_local(protocol_of(flow), &key, locals) else {
            return Err(self.without_port());
        };
        self.stats.local_ports(slot).add(1);
        Ok((key.with_local_port(port), flow.with_local(slot)))
    }

    #[inline(never)]
    fn take_local(
        &mut self,
        protocol: Protocol,
        key: &WideKey,
        locals: &[LocalSlot],
    ) -> Option<(LocalSlot, u16)> {
        if self.locals.are_spent(locals, protocol) {
            return None;
        }
        // A division of 64 bits takes twice as long.
        let start = (key.client() as u32 % locals.len() as u32) as usize;
        match self.locals.take(locals[start], protocol, key) {
            Some(port) => Some((locals[start], port)),
            None => self.take_other(protocol, key, locals, start),
        }
    }

    /// The same where the first address has no port.
    #[cold]
    fn take_other(
        &mut self,
        protocol: Protocol,
        key: &WideKey,
        locals: &[LocalSlot],
        start: usize,
    ) -> Option<(LocalSlot, u16)> {
        let (rest, first) = locals.split_at(start);
        first.iter().chain(rest).find_map(|slot| Some((*slot, self.locals.take(*slot, protocol, key)?)))
    }

    fn give_local_back(&mut self, key: &WideKey, flow: FlowValue) {
        if key.local_port() != 0 {
            self.locals.give_back(flow.local(), protocol_of(flow), key.local_port());
            self.stats.local_ports(flow.local()).sub(1);
        }
    }

    #[inline(always)]
    fn count_new(&self, flow: FlowValue) {
        self.stats.conns(flow.backend()).add(1);
        self.stats.loads.begin(flow.backend(), flow.state().is_active());
    }

    /// Takes a flow that left its table out of its backend's load.
    fn forget(&self, flow: FlowValue) {
        self.stats.loads.end(flow.backend(), flow.state().is_active());
    }

    fn forget_wide(&mut self, key: &WideKey, flow: FlowValue) {
        self.give_local_back(key, flow);
        self.forget(flow);
    }

    /// Takes dead flows out of a few lines of both tables; a bounded piece of work for a housekeeping turn.
    pub(super) fn sweep(&mut self, context: Context, lines: usize) {
        const MOST: usize = 64;
        let lines = lines.min(MOST / WAYS);
        let (mut narrow, mut wide) = ([None; MOST], [None; MOST]);
        let mut free = narrow.iter_mut();
        let dead = |flow| worth(context, flow);
        self.narrow.sweep(lines, dead, |(_, flow)| {
            free.next().into_iter().for_each(|place| *place = Some(flow));
        });
        let mut free = wide.iter_mut();
        self.wide.sweep(lines, dead, |removed| {
            free.next().into_iter().for_each(|place| *place = Some(removed));
        });
        let count = narrow.iter().flatten().count() + wide.iter().flatten().count();
        narrow.into_iter().flatten().for_each(|flow| self.forget(flow));
        wide.into_iter().flatten().for_each(|(key, flow)| self.forget_wide(&key, flow));
        self.stats.expired.add(count as u64);
        self.stats.flows.set((self.narrow.len() + self.wide.len()) as u64);
    }

    /// The flows of the lines that [`Self::sweep`] looks at next.
    pub(super) fn visit_next(&self, lines: usize, mut flow: impl FnMut(FlowOwner, FlowValue)) {
        self.narrow.visit_next(lines).for_each(|(key, value)| flow(key.owner(), value));
        self.wide.visit_next(lines).for_each(|(key, value)| flow(key.owner(), value));
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
            None => self.narrow.visit(line).for_each(|(key, value)| flow(key.owner(), value)),
            Some(line) if line < self.wide.lines() => {
                self.wide.visit(line).for_each(|(key, value)| flow(key.owner(), value));
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

fn protocol_of(flow: FlowValue) -> Protocol {
    if flow.state().is_udp() { Protocol::Udp } else { Protocol::Tcp }
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

//! Local addresses and ports, by which backends know the clients of flows of full NAT, and the flows behind them.

use config::words::Protocol;

use super::{Flows, Stored, protocol_of};
use crate::drops::DropReason;
use crate::flow::{FlowValue, Key as _};
use crate::local::{Behind, Holder, LocalAddresses, LocalSlot};
use crate::packet::Headers;
use crate::rewrite::sequence::Introduction;

impl Flows {
    /// Takes over the ports of local addresses, which have this slot and those that follow.
    pub(in crate::forward) fn install(&mut self, slot: LocalSlot, mut addresses: LocalAddresses) {
        if !addresses.is_empty() {
            self.narrow.make_room_for_ports(addresses.take_room());
        }
        self.locals.install(slot, addresses);
    }

    /// Asks for what is known of a local port to come into the cache.
    #[inline]
    pub(in crate::forward) fn prefetch_local(&self, slot: LocalSlot, protocol: Protocol, port: u16) {
        self.locals.prefetch(slot, protocol, port);
    }

    /// Number of free local ports.
    #[cfg(test)]
    pub(in crate::forward) fn free_ports(&self, slot: LocalSlot, protocol: Protocol) -> usize {
        self.locals.free(slot, protocol)
    }

    /// Whether some local address has no port of a protocol left.
    #[inline]
    pub(in crate::forward) fn is_any_spent(&self) -> bool {
        self.locals.is_any_spent()
    }

    /// Whether none of these local addresses has a free port.
    #[inline]
    pub(in crate::forward) fn are_spent(&self, locals: &[LocalSlot], protocol: Protocol) -> bool {
        self.locals.are_spent(locals, protocol)
    }

    /// Whether flows gave local ports back since this was asked.
    #[inline]
    pub(in crate::forward) fn gave_back(&mut self) -> bool {
        std::mem::take(&mut self.gave_back)
    }

    /// Whether what is known of local ports takes so many pages that the processor hardly ever knows where it is.
    #[inline]
    pub(in crate::forward) fn are_ports_far(&self) -> bool {
        self.locals.are_far()
    }

    /// Asks for what taking a port of these addresses for a client's flow will need.
    #[inline]
    pub(in crate::forward) fn foresee_local(
        &mut self,
        client: u32,
        protocol: Protocol,
        locals: &[LocalSlot],
    ) {
        if let Some(slot) = locals.get(start_of(client, locals)) {
            self.locals.foresee(*slot, protocol);
        }
    }

    /// Counts a flow for which there is no local port. Returns what becomes of its packet.
    pub(in crate::forward) fn without_port(&self) -> DropReason {
        self.stats.local_ports_exhausted.add(1);
        DropReason::LocalPortsExhausted
    }

    /// Asks for the line of the flow that has a local port to come into the cache; what is known of the port
    /// should be there already.
    #[inline]
    pub(in crate::forward) fn prefetch_behind(&self, slot: LocalSlot, headers: &Headers) {
        if let Some(key) = self.locals.find_narrow(slot, headers.protocol, headers.dst_port) {
            self.narrow.prefetch(key.hash(&self.secret));
        }
        match self.locals.find_wide(slot, headers.protocol, headers.dst_port) {
            Some(Behind::Key(key)) => drop(self.wide.prefetch(key.hash(&self.secret))),
            Some(Behind::Hash(hash)) => drop(self.wide.prefetch(hash)),
            None => {}
        }
    }

    /// The flow whose backend knows its client by a local address and port.
    #[inline]
    pub(in crate::forward) fn find_local(
        &self,
        slot: LocalSlot,
        protocol: Protocol,
        port: u16,
    ) -> Option<Stored> {
        self.find_narrow_local(slot, protocol, port).or_else(|| self.find_wide_local(slot, protocol, port))
    }

    #[inline]
    fn find_narrow_local(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<Stored> {
        let key = self.locals.find_narrow(slot, protocol, port)?;
        let stored = Stored::Narrow(self.narrow.find(key.hash(&self.secret), &key)?);
        (self.local(stored) == Some((slot, port))).then_some(stored)
    }

    #[inline]
    fn find_wide_local(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<Stored> {
        let place = match self.locals.find_wide(slot, protocol, port)? {
            Behind::Key(key) => self.wide.find(key.hash(&self.secret), &key)?,
            Behind::Hash(hash) => {
                let is_its = |flow| protocol_of(flow) == protocol && flow.local() == slot;
                self.wide.find_by_port(hash, port, is_its)?
            }
        };
        Some(Stored::Wide(place)).filter(|stored| self.local(*stored) == Some((slot, port)))
    }

    /// The local address and port of a flow of full NAT.
    #[inline]
    pub(in crate::forward) fn local(&self, stored: Stored) -> Option<(LocalSlot, u16)> {
        let flow = self.value(stored);
        flow.has_local().then(|| match stored {
            Stored::Narrow(place) => (flow.local(), self.narrow.port(place)),
            Stored::Wide(place) => (flow.local(), self.wide.key(place).local_port()),
        })
    }

    /// How far the client of the flow that has a local port is introduced to its backend.
    #[inline]
    pub(in crate::forward) fn introduction(
        &mut self,
        (slot, port): (LocalSlot, u16),
        protocol: Protocol,
    ) -> Option<&mut Introduction> {
        self.locals.introduction(slot, protocol, port)
    }

    /// A flow with a free port of one of these addresses, and that port; without addresses as it is. A client's flows begin
    /// at one address, so that they share it as long as it has ports.
    #[inline(always)]
    pub(super) fn with_local(
        &mut self,
        holder: impl Holder,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(FlowValue, u16), DropReason> {
        if locals.is_empty() {
            return Ok((flow, 0));
        }
        let Some((slot, port)) = self.take_local(protocol_of(flow), holder, locals) else {
            return Err(self.without_port());
        };
        self.stats.local_ports(slot).add(1);
        Ok((flow.with_local(slot), port))
    }

    #[inline(always)]
    fn take_local(
        &mut self,
        protocol: Protocol,
        holder: impl Holder,
        locals: &[LocalSlot],
    ) -> Option<(LocalSlot, u16)> {
        if self.locals.are_spent(locals, protocol) {
            return None;
        }
        let start = start_of(holder.client(), locals);
        match self.locals.take(locals[start], protocol, holder) {
            Some(port) => Some((locals[start], port)),
            None => self.take_other(protocol, holder, locals, start),
        }
    }

    /// The same where the first address has no port.
    #[cold]
    fn take_other(
        &mut self,
        protocol: Protocol,
        holder: impl Holder,
        locals: &[LocalSlot],
        start: usize,
    ) -> Option<(LocalSlot, u16)> {
        let (rest, first) = locals.split_at(start);
        first.iter().chain(rest).find_map(|slot| Some((*slot, self.locals.take(*slot, protocol, holder)?)))
    }

    /// Gives back the local port of a flow that has one.
    #[inline(never)]
    pub(super) fn give_local_back(&mut self, flow: FlowValue, port: u16) {
        self.gave_back = true;
        self.locals.give_back(flow.local(), protocol_of(flow), port);
        self.stats.local_ports(flow.local()).sub(1);
    }
}

/// Where among local addresses the ports of a client's flows are looked for first, by the last bits of its own.
#[inline]
fn start_of(client: u32, locals: &[LocalSlot]) -> usize {
    // A division of 64 bits takes twice as long.
    (client % (locals.len() as u32).max(1)) as usize
}

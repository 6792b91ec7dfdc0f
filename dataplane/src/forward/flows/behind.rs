//! Local addresses and ports, by which backends know the clients of flows of full NAT, and the flows behind them.

use config::words::Protocol;

use super::{Flows, Stored};
use crate::drops::DropReason;
use crate::flow::table::FlowHash;
use crate::flow::{FlowValue, Key as _};
use crate::local::{At, Holder, LocalAddresses, LocalSlot};
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

    /// Asks for what is known of a local port to come into the cache. Returns where that is; `None` if it is another worker's.
    #[inline]
    pub(in crate::forward) fn prefetch_local(
        &self,
        slot: LocalSlot,
        protocol: Protocol,
        port: u16,
    ) -> Option<At> {
        let at = self.locals.locate(slot, protocol, port)?;
        self.locals.prefetch(at);
        Some(at)
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
    pub(in crate::forward) fn foresee_taking(
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
        let Some(at) = self.locals.locate(slot, headers.protocol, headers.dst_port) else { return };
        if let Some(key) = self.locals.narrow_key(at) {
            self.narrow.prefetch(key.hash(&self.secret));
        }
        if let Some(hash) = self.hash_behind(at) {
            self.wide.prefetch(hash);
        }
    }

    /// The hash of the wide flow that a local port belongs to, if it belongs to a wide one; else it may be another's.
    #[inline]
    fn hash_behind(&self, at: At) -> Option<FlowHash> {
        let key = self.locals.wide_key(at);
        key.map(|key| key.hash(&self.secret)).or_else(|| self.locals.wide_hash(at))
    }

    /// The flow whose backend knows its client by a local address and port. No two have the same, for a slot stays its
    /// address's.
    #[inline]
    pub(in crate::forward) fn find_local(
        &self,
        slot: LocalSlot,
        protocol: Protocol,
        port: u16,
    ) -> Option<Stored> {
        let at = self.locals.locate(slot, protocol, port)?;
        let narrow =
            self.locals.narrow_key(at).and_then(|key| self.narrow.find(key.hash(&self.secret), &key));
        let narrow = narrow.map(Stored::Narrow).filter(|stored| self.local(*stored) == Some((slot, port)));
        narrow.or_else(|| {
            let is_its = |flow: FlowValue| flow.has_local_of(slot, protocol);
            self.wide.find_by_port(self.hash_behind(at)?, port, is_its).map(Stored::Wide)
        })
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
        self.locals.introduction(self.locals.locate(slot, protocol, port)?)
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
        let Some((slot, port)) = self.take_local(flow.protocol(), holder, locals) else {
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
        self.locals.give_back(flow.local(), flow.protocol(), port);
        self.stats.local_ports(flow.local()).sub(1);
    }
}

/// Where among local addresses the ports of a client's flows are looked for first, by the last bits of its own.
#[inline]
fn start_of(client: u32, locals: &[LocalSlot]) -> usize {
    // A division of 64 bits takes twice as long.
    (client % (locals.len() as u32).max(1)) as usize
}

//! Addresses and keys of one kind, for code that knows which kind its packets are of.

use super::Flows;
use crate::drops::DropReason;
use crate::flow::table::{FlowHash, HashSecret, Home, Place};
use crate::flow::{FlowKey, FlowValue, Key, WideKey};
use crate::forward::Context;
use crate::local::LocalSlot;
use crate::packet::Version;
use crate::snapshot::ServiceSlot;

/// A client's address as what is hashed.
pub trait Hashed: Version {
    fn hash(self, secret: &HashSecret, port: u16) -> FlowHash;
}

impl Hashed for u32 {
    #[inline]
    fn hash(self, secret: &HashSecret, port: u16) -> FlowHash {
        secret.hash(self, port)
    }
}

impl Hashed for u128 {
    #[inline]
    fn hash(self, secret: &HashSecret, port: u16) -> FlowHash {
        secret.hash_v6(self, port)
    }
}

/// A key whose flows are in the table of its kind.
pub trait Tabled: Key {
    /// Whether it is the key of a wide flow.
    const IS_WIDE: bool;

    /// Hash of the flow, whose client has this one.
    fn line(self, client: FlowHash) -> FlowHash;

    /// Asks for a flow's line to come into the cache, and returns which that is.
    fn prefetch(flows: &Flows, line: FlowHash) -> Home;

    /// A flow, and where it is. Its client has the hash `client`, and `home` is known of it already.
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)>;

    /// Changes a flow.
    fn set(flows: &mut Flows, place: Place, flow: FlowValue);

    /// Stores a new flow. Returns the local address and port by which its backend knows the client: one of `locals`,
    /// unless these are none, and the flow is narrow.
    ///
    /// # Errors
    /// [`DropReason::FlowTableFull`] if there is no place for it, [`DropReason::LocalPortsExhausted`] if no port is
    /// free.
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        line: FlowHash,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason>;

    /// The service.
    fn service(self) -> ServiceSlot;

    /// The port by which a flow's backend knows the client; 0 but in full NAT.
    fn local_port(flows: &Flows, place: Place) -> u16;
}

impl Tabled for FlowKey {
    const IS_WIDE: bool = false;

    #[inline(always)]
    fn line(self, client: FlowHash) -> FlowHash {
        client.with_service(Tabled::service(self), 0)
    }

    #[inline(always)]
    fn prefetch(flows: &Flows, line: FlowHash) -> Home {
        flows.narrow.prefetch(line)
    }

    #[inline(always)]
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)> {
        flows.narrow.get(home, &self, || self.line(*client))
    }

    #[inline(always)]
    fn set(flows: &mut Flows, place: Place, flow: FlowValue) {
        flows.narrow.set(place, flow);
    }

    #[inline]
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        line: FlowHash,
        flow: FlowValue,
        _: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason> {
        flows.store_narrow(context, line, self, flow).map(|_| (LocalSlot(0), 0))
    }

    #[inline]
    fn service(self) -> ServiceSlot {
        Self::service(self)
    }

    #[inline(always)]
    fn local_port(_: &Flows, _: Place) -> u16 {
        0
    }
}

impl Tabled for WideKey {
    const IS_WIDE: bool = true;

    #[inline(always)]
    fn line(self, client: FlowHash) -> FlowHash {
        client.with_service(Tabled::service(self), self.service_port())
    }

    #[inline(always)]
    fn prefetch(flows: &Flows, line: FlowHash) -> Home {
        flows.wide.prefetch(line)
    }

    #[inline(always)]
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)> {
        flows.wide.get(home, &self, || self.line(*client))
    }

    #[inline(always)]
    fn set(flows: &mut Flows, place: Place, flow: FlowValue) {
        flows.wide.set(place, flow);
    }

    #[inline]
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        line: FlowHash,
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason> {
        let place = flows.store_wide(context, line, self, flow, locals)?;
        Ok((flows.wide.value(place).local(), <Self as Tabled>::local_port(flows, place)))
    }

    #[inline]
    fn service(self) -> ServiceSlot {
        Self::service(&self)
    }

    #[inline(always)]
    fn local_port(flows: &Flows, place: Place) -> u16 {
        flows.wide.key(place).local_port()
    }
}

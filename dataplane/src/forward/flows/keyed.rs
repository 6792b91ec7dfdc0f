//! Addresses and keys of one kind, for code that knows which kind its packets are of.

use super::{Flows, Stored};
use crate::drops::DropReason;
use crate::flow::table::{FlowHash, HashSecret, Home, Place};
use crate::flow::{FlowKey, FlowValue, Key, WideKey};
use crate::forward::Context;
use crate::forward::bind::is_outward;
use crate::local::{At, LocalSlot};
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
    /// The key of a client's flow to a port of a service, which has no other if the key is narrow.
    fn of<A: Version>(client: (A, u16), service: ServiceSlot, service_port: u16) -> Self;

    /// The key of the client's flow that has a local port; `None` if it is of another kind, or a gateway's.
    fn behind(flows: &Flows, at: At) -> Option<Self>;

    /// Hash of the flow, whose client has this one.
    fn line(self, client: FlowHash) -> FlowHash;

    /// The home line of a flow.
    fn home(flows: &Flows, line: FlowHash) -> Home;

    /// Asks for a home line to come into the cache.
    fn prefetch_home(flows: &Flows, home: Home);

    /// Asks for a flow's home line to come into the cache, and returns which that is.
    #[inline(always)]
    fn prefetch(flows: &Flows, line: FlowHash) -> Home {
        let home = Self::home(flows, line);
        Self::prefetch_home(flows, home);
        home
    }

    /// Asks for local ports of a home line to come into the cache that are not in it.
    fn prefetch_ports(flows: &Flows, home: Home);

    /// Whether the table has so many pages that the processor hardly ever knows where a line is.
    fn is_vast(flows: &Flows) -> bool;

    /// A flow, and where it is. Its client has the hash `client`, and `home` is known of it already.
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)>;

    /// The same of a flow that is in one line.
    fn get_in(self, flows: &Flows, line: Home) -> Option<(Place, FlowValue)>;

    /// Asks for the line where a flow may be that is not in its home line, and returns which that is; `None` if there is no
    /// other, or it was the one that was looked at.
    fn elsewhere(self, flows: &Flows, line: Home, client: &FlowHash) -> Option<Home>;

    /// Whether the table is too large for the caches that are near.
    fn is_far(flows: &Flows) -> bool;

    /// Whether to find that there is no flow, or to store it, takes more than its home line.
    fn needs_alternate(self, flows: &Flows, home: Home) -> bool;

    /// Asks for a flow's alternate line to come into the cache.
    fn prefetch_alternate(self, flows: &Flows, client: &FlowHash);

    /// Whether [`Self::prefetch_moves`] may pay.
    fn is_crowded(flows: &Flows) -> bool;

    /// Asks for what storing a flow takes besides both its lines.
    fn prefetch_moves(self, flows: &Flows, client: &FlowHash);

    /// How a flow is stored.
    fn stored(place: Place) -> Stored;

    /// Changes a flow.
    fn set(flows: &mut Flows, place: Place, flow: FlowValue);

    /// Stores a new flow, of which the home line and its client's hash are known.
    ///
    /// # Errors
    /// [`DropReason::FlowTableFull`] if there is no place for it.
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        of: (Home, &FlowHash),
        flow: FlowValue,
    ) -> Result<(), DropReason>;

    /// The same of one whose backend knows the client by one of these addresses, of which there are some, and a port. Returns
    /// both.
    ///
    /// # Errors
    /// The same, and [`DropReason::LocalPortsExhausted`] if no port is free.
    fn store_with_local(
        self,
        flows: &mut Flows,
        context: Context,
        of: (Home, &FlowHash),
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason>;

    /// The service.
    fn service(self) -> ServiceSlot;

    /// The client's address, of the IP version that it is of, and its port.
    fn client_end<A: Version>(self) -> (A, u16);

    /// The port of the service that the client talks to, if it is the key of a wide flow.
    fn service_port(self) -> u16;

    /// The port by which a flow's backend knows the client; of meaning in full NAT alone.
    fn local_port(flows: &Flows, place: Place) -> u16;
}

impl Tabled for FlowKey {
    #[inline(always)]
    fn of<A: Version>((client, port): (A, u16), service: ServiceSlot, _: u16) -> Self {
        // The lower half of a mapped address is that.
        Self::new(client.wide() as u32, port, service)
    }

    #[inline(always)]
    fn behind(flows: &Flows, at: At) -> Option<Self> {
        let key = flows.locals.narrow_key(at)?;
        let is_its = || flows.narrow.find(key.hash(&flows.secret), &key).is_some();
        (!at.is_mixed() || is_its()).then_some(key)
    }

    #[inline(always)]
    fn prefetch_ports(flows: &Flows, home: Home) {
        flows.narrow.prefetch_ports(home);
    }

    #[inline(always)]
    fn line(self, client: FlowHash) -> FlowHash {
        client.with_service(Tabled::service(self), 0)
    }

    #[inline(always)]
    fn home(flows: &Flows, line: FlowHash) -> Home {
        flows.narrow.home_of(line)
    }

    #[inline(always)]
    fn prefetch_home(flows: &Flows, home: Home) {
        flows.narrow.prefetch_home(home);
    }

    #[inline(always)]
    fn is_vast(flows: &Flows) -> bool {
        flows.narrow.is_vast()
    }

    #[inline(always)]
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)> {
        flows.narrow.get(home, &self, || self.line(*client))
    }

    #[inline(always)]
    fn get_in(self, flows: &Flows, line: Home) -> Option<(Place, FlowValue)> {
        flows.narrow.get_in(line, &self)
    }

    #[inline]
    fn elsewhere(self, flows: &Flows, line: Home, client: &FlowHash) -> Option<Home> {
        flows.narrow.elsewhere(line, &self, self.line(*client))
    }

    #[inline(always)]
    fn is_far(flows: &Flows) -> bool {
        flows.narrow.is_far()
    }

    #[inline(always)]
    fn needs_alternate(self, flows: &Flows, home: Home) -> bool {
        flows.narrow.needs_alternate(home)
    }

    #[inline(always)]
    fn prefetch_alternate(self, flows: &Flows, client: &FlowHash) {
        flows.narrow.prefetch_alternate(self.line(*client));
    }

    #[inline(always)]
    fn is_crowded(flows: &Flows) -> bool {
        flows.narrow.is_crowded()
    }

    #[inline(always)]
    fn prefetch_moves(self, flows: &Flows, client: &FlowHash) {
        flows.narrow.prefetch_moves(self.line(*client));
    }

    #[inline(always)]
    fn stored(place: Place) -> Stored {
        Stored::Narrow(place)
    }

    #[inline(always)]
    fn set(flows: &mut Flows, place: Place, flow: FlowValue) {
        flows.narrow.set(place, flow);
    }

    #[inline(always)]
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        (home, client): (Home, &FlowHash),
        flow: FlowValue,
    ) -> Result<(), DropReason> {
        // Most home lines have room.
        match flows.narrow.settle(home, self, flow) {
            Some(_) => flows.count_new(flow),
            None => {
                flows.place_narrow(context, self.line(*client), self, flow, 0)?;
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn store_with_local(
        self,
        flows: &mut Flows,
        context: Context,
        (home, client): (Home, &FlowHash),
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason> {
        let (flow, port) = flows.with_local(self, flow, locals)?;
        match flows.narrow.settle(home, self, flow) {
            Some(place) => {
                flows.narrow.set_port(place, port);
                flows.count_new(flow);
            }
            None => {
                flows.place_narrow(context, self.line(*client), self, flow, port)?;
            }
        }
        Ok((flow.local(), port))
    }

    #[inline]
    fn service(self) -> ServiceSlot {
        Self::service(self)
    }

    #[inline(always)]
    fn client_end<A: Version>(self) -> (A, u16) {
        (A::within(self.client().wide()), self.client_port())
    }

    #[inline(always)]
    fn service_port(self) -> u16 {
        0
    }

    #[inline(always)]
    fn local_port(flows: &Flows, place: Place) -> u16 {
        flows.narrow.port(place)
    }
}

impl Tabled for WideKey {
    #[inline(always)]
    fn of<A: Version>((client, port): (A, u16), service: ServiceSlot, service_port: u16) -> Self {
        Self::new(client.wide(), port, service, service_port)
    }

    #[inline(always)]
    fn behind(flows: &Flows, at: At) -> Option<Self> {
        let key = flows.locals.wide_key(at)?;
        (!is_outward(Self::service(&key)) && u128::of_wide(key.client()).is_some()).then_some(key)
    }

    #[inline(always)]
    fn prefetch_ports(_: &Flows, _: Home) {}

    #[inline(always)]
    fn line(self, client: FlowHash) -> FlowHash {
        client.with_service(Tabled::service(self), self.service_port())
    }

    #[inline(always)]
    fn home(flows: &Flows, line: FlowHash) -> Home {
        flows.wide.home_of(line)
    }

    #[inline(always)]
    fn prefetch_home(flows: &Flows, home: Home) {
        flows.wide.prefetch_home(home);
    }

    #[inline(always)]
    fn is_vast(flows: &Flows) -> bool {
        flows.wide.is_vast()
    }

    #[inline(always)]
    fn get(self, flows: &Flows, home: Home, client: &FlowHash) -> Option<(Place, FlowValue)> {
        flows.wide.get(home, &self, || self.line(*client))
    }

    #[inline(always)]
    fn get_in(self, flows: &Flows, line: Home) -> Option<(Place, FlowValue)> {
        flows.wide.get_in(line, &self)
    }

    #[inline]
    fn elsewhere(self, flows: &Flows, line: Home, client: &FlowHash) -> Option<Home> {
        flows.wide.elsewhere(line, &self, self.line(*client))
    }

    #[inline(always)]
    fn is_far(flows: &Flows) -> bool {
        flows.wide.is_far()
    }

    #[inline(always)]
    fn needs_alternate(self, flows: &Flows, home: Home) -> bool {
        flows.wide.needs_alternate(home)
    }

    #[inline(always)]
    fn prefetch_alternate(self, flows: &Flows, client: &FlowHash) {
        flows.wide.prefetch_alternate(self.line(*client));
    }

    #[inline(always)]
    fn is_crowded(flows: &Flows) -> bool {
        flows.wide.is_crowded()
    }

    #[inline(always)]
    fn prefetch_moves(self, flows: &Flows, client: &FlowHash) {
        flows.wide.prefetch_moves(self.line(*client));
    }

    #[inline(always)]
    fn stored(place: Place) -> Stored {
        Stored::Wide(place)
    }

    #[inline(always)]
    fn set(flows: &mut Flows, place: Place, flow: FlowValue) {
        flows.wide.set(place, flow);
    }

    #[inline(always)]
    fn store(
        self,
        flows: &mut Flows,
        context: Context,
        (home, client): (Home, &FlowHash),
        flow: FlowValue,
    ) -> Result<(), DropReason> {
        match flows.wide.settle(home, self, flow) {
            Some(_) => flows.count_new(flow),
            None => {
                flows.place_wide(context, self.line(*client), self, flow)?;
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn store_with_local(
        self,
        flows: &mut Flows,
        context: Context,
        of: (Home, &FlowHash),
        flow: FlowValue,
        locals: &[LocalSlot],
    ) -> Result<(LocalSlot, u16), DropReason> {
        let (flow, port) = flows.with_local((&self, self.line(*of.1)), flow, locals)?;
        self.with_local_port(port).store(flows, context, of, flow)?;
        Ok((flow.local(), port))
    }

    #[inline]
    fn service(self) -> ServiceSlot {
        Self::service(&self)
    }

    #[inline(always)]
    fn client_end<A: Version>(self) -> (A, u16) {
        (A::within(self.client()), self.client_port())
    }

    #[inline(always)]
    fn service_port(self) -> u16 {
        Self::service_port(&self)
    }

    #[inline(always)]
    fn local_port(flows: &Flows, place: Place) -> u16 {
        flows.wide.key(place).local_port()
    }
}

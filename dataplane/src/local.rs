//! Local ports of full-nat: which of a pool address's ports are free, and whose flows the others belong to.
//!
//! Each worker has those ports whose replies come to it ([`Owners`]), so none is ever shared. A reply is to a
//! local address and port; one read tells whose flow it is.
//!
//! The memory of an address, 4.2 MiB divided by the number of workers, is made by the control thread, moved
//! to the worker, and moved back to be freed: a worker allocates nothing when the pools change.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use config::words::Protocol;

use crate::flow::{Key, WideKey};
use crate::prefetch::{Table, prefetch, table};
use crate::rewrite::sequence::Introduction;
use crate::toeplitz::{self, Owners};

/// Number of a pool address; it stays the address's as long as the appliance runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalSlot(pub u8);

/// Pool addresses there may be.
pub const SLOTS: usize = 1 << u8::BITS;

/// The first port that is given to flows; those below are for services (RFC 6056, 3.2).
const FIRST_PORT: u16 = 1024;

/// How many ports are taken between the moment at which the place of one is asked for and its own turn: as long as a line of
/// memory takes to come.
const AHEAD: usize = 4;

/// The key of the flow whose port it is, with that; it is 0 if the port is free. Two of them are a cache line.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Place {
    key: WideKey,
    introduction: Introduction,
}

const _: () = assert!(size_of::<Place>() == 32);

impl Place {
    fn new(key: WideKey) -> Self {
        Self { key, introduction: Introduction::default() }
    }

    /// Whether a port is taken whose place this is. One of another worker may have the same place; 0 is nobody's.
    #[inline]
    fn has(&self, port: u16) -> bool {
        self.key.local_port() == port && port != 0
    }
}

/// The ports of one protocol at one address.
#[derive(Clone)]
struct Ports {
    /// The free ones, in the order in which they were given back: a port rests for as long as it can, because
    /// packets of its last flow may still be on their way.
    free: VecDeque<u16>,
    /// By [`Owners::place`].
    places: Table<Place>,
}

impl Ports {
    /// Whether none is free.
    #[inline]
    fn is_spent(&self) -> bool {
        self.free.is_empty()
    }
}

/// One worker's ports of a pool address.
#[derive(Clone)]
pub struct LocalAddress {
    words: u16,
    tcp: Ports,
    udp: Ports,
}

impl LocalAddress {
    /// The ports of an address that belong to a worker, all free, in an order that nobody outside can guess
    /// (RFC 6056).
    pub fn new(address: IpAddr, owners: &Owners, worker: usize) -> Self {
        let words = toeplitz::words(address);
        let ports = || {
            let owned = (FIRST_PORT..=u16::MAX).filter(|port| owners.of_words(words ^ port) == worker);
            let mut owned: Vec<u16> = owned.collect();
            let secret = RandomState::new();
            owned.sort_by_cached_key(|port| secret.hash_one(port));
            Ports { free: owned.into(), places: table(Place::new(WideKey::EMPTY), owners.places(worker)) }
        };
        Self { words, tcp: ports(), udp: ports() }
    }

    /// Protocols of which it has no port left.
    fn spent(&self) -> usize {
        usize::from(self.tcp.is_spent()) + usize::from(self.udp.is_spent())
    }

    fn ports(&self, protocol: Protocol) -> &Ports {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }

    fn ports_mut(&mut self, protocol: Protocol) -> &mut Ports {
        match protocol {
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
        }
    }
}

/// One worker's ports of all pool addresses.
pub struct LocalPorts {
    owners: Owners,
    addresses: Box<[Option<Box<LocalAddress>>; SLOTS]>,
    /// How many times an address has no port of a protocol left.
    spent: usize,
}

impl LocalPorts {
    /// No address yet.
    pub fn new(owners: Owners) -> Self {
        Self { owners, addresses: Box::new([const { None }; SLOTS]), spent: 0 }
    }

    /// Puts an address in a slot, or takes it out; returns what was there.
    pub fn install(
        &mut self,
        slot: LocalSlot,
        address: Option<Box<LocalAddress>>,
    ) -> Option<Box<LocalAddress>> {
        let spent =
            |address: &Option<Box<LocalAddress>>| address.as_ref().map_or(0, |address| address.spent());
        self.spent += spent(&address);
        let before = std::mem::replace(&mut self.addresses[usize::from(slot.0)], address);
        self.spent -= spent(&before);
        before
    }

    /// Number of free ports.
    pub fn free(&self, slot: LocalSlot, protocol: Protocol) -> usize {
        self.address(slot).map_or(0, |address| address.ports(protocol).free.len())
    }

    /// Whether some address has no port of a protocol left.
    #[inline]
    pub fn is_any_spent(&self) -> bool {
        self.spent > 0
    }

    /// Whether none of these addresses, of which there are some, has a free port. While all others have some, too, it costs
    /// next to nothing.
    #[inline]
    pub fn are_spent(&self, slots: &[LocalSlot], protocol: Protocol) -> bool {
        let is_spent =
            |slot: &LocalSlot| self.address(*slot).is_some_and(|address| address.ports(protocol).is_spent());
        self.is_any_spent() && !slots.is_empty() && slots.iter().all(is_spent)
    }

    /// Takes the port that has been free for the longest time, for the flow with this key; `None` if none is free.
    #[inline]
    pub fn take(&mut self, slot: LocalSlot, protocol: Protocol, key: &WideKey) -> Option<u16> {
        let address = self.addresses[usize::from(slot.0)].as_deref_mut()?;
        let words = address.words;
        let ports = address.ports_mut(protocol);
        let port = ports.free.pop_front()?;
        self.spent += usize::from(ports.is_spent());
        // Those that follow are known already, and their places are rarely in the cache.
        if let Some(later) = ports.free.get(AHEAD) {
            prefetch(ports.places.as_ptr().wrapping_add(self.owners.place(words ^ later)));
        }
        *ports.places.get_mut(self.owners.place(words ^ port))? = Place::new(key.with_local_port(port));
        Some(port)
    }

    /// Gives a port back; does nothing if it is not taken.
    #[inline]
    pub fn give_back(&mut self, slot: LocalSlot, protocol: Protocol, port: u16) {
        let Some(address) = self.addresses[usize::from(slot.0)].as_deref_mut() else { return };
        let words = address.words;
        let ports = address.ports_mut(protocol);
        if let Some(place) = ports.places.get_mut(self.owners.place(words ^ port))
            && place.has(port)
        {
            *place = Place::new(WideKey::EMPTY);
            self.spent -= usize::from(ports.is_spent());
            // It came from here, so there is room for it.
            ports.free.push_back(port);
        }
    }

    /// The key of the flow that a port belongs to, with that port.
    #[inline]
    pub fn find(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<WideKey> {
        let address = self.address(slot)?;
        let place = address.ports(protocol).places.get(self.owners.place(address.words ^ port))?;
        place.has(port).then_some(place.key)
    }

    /// How far its flow's client is introduced to its backend.
    pub fn introduction(
        &mut self,
        slot: LocalSlot,
        protocol: Protocol,
        port: u16,
    ) -> Option<&mut Introduction> {
        let address = self.addresses[usize::from(slot.0)].as_deref_mut()?;
        let place = self.owners.place(address.words ^ port);
        let place = address.ports_mut(protocol).places.get_mut(place)?;
        place.has(port).then_some(&mut place.introduction)
    }

    /// Asks for the line that [`Self::find`] reads to come into the cache.
    #[inline]
    pub fn prefetch(&self, slot: LocalSlot, protocol: Protocol, port: u16) {
        if let Some(address) = self.address(slot) {
            let place = self.owners.place(address.words ^ port);
            prefetch(address.ports(protocol).places.as_ptr().wrapping_add(place));
        }
    }

    #[inline]
    fn address(&self, slot: LocalSlot) -> Option<&LocalAddress> {
        self.addresses[usize::from(slot.0)].as_deref()
    }
}

// Not under miri: each address has 64,512 ports, which take it minutes.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::snapshot::ServiceSlot;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SLOT: LocalSlot = LocalSlot(7);

    fn flow(number: u32) -> WideKey {
        WideKey::new(1 << 64 | u128::from(number), number as u16, ServiceSlot(3), 80)
    }

    fn address(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    fn ports(workers: usize, worker: usize) -> LocalPorts {
        let owners = Owners::new(workers);
        let local = LocalAddress::new(address(200), &owners, worker);
        let mut ports = LocalPorts::new(owners);
        assert!(ports.install(SLOT, Some(Box::new(local))).is_none());
        ports
    }

    #[test]
    fn workers_share_all_ports_and_none_twice() {
        let mut owner = HashMap::new();
        let owners = Owners::new(3);
        for worker in 0..3 {
            let mut local = ports(3, worker);
            for number in 0..local.free(SLOT, Protocol::Udp) {
                let port = local.take(SLOT, Protocol::Udp, &flow(number as u32)).unwrap();
                assert_eq!(owners.of_words(toeplitz::words(address(200)) ^ port), worker);
                assert_eq!(owner.insert(port, worker), None);
            }
            assert_eq!(local.take(SLOT, Protocol::Udp, &flow(0)), None, "exhausted");
            let are_spent = |local: &LocalPorts, protocol| local.are_spent(&[SLOT], protocol);
            assert!(are_spent(&local, Protocol::Udp) && !are_spent(&local, Protocol::Tcp));
            assert!(!local.are_spent(&[], Protocol::Udp), "of no address it is not known");
            assert!(!local.are_spent(&[SLOT, LocalSlot(8)], Protocol::Udp), "nor of one that is not here");
            local.give_back(SLOT, Protocol::Udp, *owner.iter().find(|(_, its)| **its == worker).unwrap().0);
            assert!(!are_spent(&local, Protocol::Udp) && !local.is_any_spent());
            assert!(local.take(SLOT, Protocol::Udp, &flow(0)).is_some());
            assert!(local.take(SLOT, Protocol::Tcp, &flow(0)).is_some(), "protocols have ports of their own");
            assert!(local.is_any_spent() && local.install(SLOT, None).is_some() && !local.is_any_spent());
        }
        assert_eq!(owner.len(), 65_536 - 1024);
        assert!(owner.keys().all(|port| *port >= 1024));
    }

    #[test]
    fn a_port_rests_for_as_long_as_it_can() {
        let mut local = ports(64, 5);
        let all = local.free(SLOT, Protocol::Tcp);
        let take = |local: &mut LocalPorts| local.take(SLOT, Protocol::Tcp, &flow(1)).unwrap();
        let (first, second) = (take(&mut local), take(&mut local));
        local.give_back(SLOT, Protocol::Tcp, second);
        local.give_back(SLOT, Protocol::Tcp, first);
        let order: Vec<_> = (0..all).map(|_| take(&mut local)).collect();
        assert_eq!(order[all - 2..], [second, first]);
        assert!(!order.is_sorted(), "nor is it easy to guess");
    }

    #[test]
    fn only_taken_ports_of_installed_addresses_are_known() {
        let mut local = ports(2, 0);
        let port = local.take(SLOT, Protocol::Tcp, &flow(9)).unwrap();
        local.prefetch(SLOT, Protocol::Tcp, port);
        assert_eq!(local.find(SLOT, Protocol::Tcp, port), Some(flow(9).with_local_port(port)));
        assert_eq!(local.find(SLOT, Protocol::Udp, port), None);
        assert_eq!(local.find(LocalSlot(8), Protocol::Tcp, port), None);
        assert_eq!(local.take(LocalSlot(8), Protocol::Tcp, &flow(1)), None);
        let known = (0..=u16::MAX).filter(|port| local.find(SLOT, Protocol::Tcp, *port).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [port]);
        let free = local.free(SLOT, Protocol::Tcp);
        for other in (0..=u16::MAX).filter(|other| *other != port) {
            local.give_back(SLOT, Protocol::Tcp, other);
        }
        assert_eq!(local.free(SLOT, Protocol::Tcp), free, "what is not taken cannot be given back");
        assert!(local.install(SLOT, None).is_some());
        assert_eq!((local.find(SLOT, Protocol::Tcp, port), local.free(SLOT, Protocol::Tcp)), (None, 0));
        local.give_back(SLOT, Protocol::Tcp, port);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn ports_are_taken_once_and_lead_back(
            steps in prop::collection::vec((0..3, 0u8..2, any::<bool>(), any::<prop::sample::Index>()), 0..400),
        ) {
            let owners = Owners::new(100);
            let mut local = LocalPorts::new(owners.clone());
            for slot in 0..2 {
                let address = LocalAddress::new(address(200 + slot), &owners, 99);
                local.install(LocalSlot(slot), Some(Box::new(address)));
            }
            let mut taken: Vec<((LocalSlot, Protocol, u16), WideKey)> = Vec::new();
            for (number, (take, slot, tcp, which)) in steps.into_iter().enumerate() {
                let (slot, protocol) = (LocalSlot(slot), if tcp { Protocol::Tcp } else { Protocol::Udp });
                if take != 0 {
                    let free = local.free(slot, protocol);
                    match local.take(slot, protocol, &flow(number as u32)) {
                        Some(port) => {
                            let key = (slot, protocol, port);
                            prop_assert!(taken.iter().all(|(other, _)| *other != key));
                            taken.push((key, flow(number as u32)));
                        }
                        None => prop_assert_eq!(free, 0),
                    }
                } else if !taken.is_empty() {
                    let ((slot, protocol, port), _) = taken.swap_remove(which.index(taken.len()));
                    local.give_back(slot, protocol, port);
                    prop_assert_eq!(local.find(slot, protocol, port), None);
                }
                for ((slot, protocol, port), flow) in &taken {
                    prop_assert_eq!(local.find(*slot, *protocol, *port), Some(flow.with_local_port(*port)));
                }
            }
        }
    }
}

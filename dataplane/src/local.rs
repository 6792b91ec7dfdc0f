//! Local ports of full-nat: which of a pool address's ports are free, and whose flows the others belong to.
//!
//! Each worker has those ports whose replies come to it ([`Owners`]), so none is ever shared. A reply is to a
//! local address and port; one read tells whose flow it is.
//!
//! The memory of addresses, 4.2 MiB for each divided by the number of workers, is made by the control thread and moved
//! to the worker, which allocates and frees nothing when the pools change; with the first of them the room that narrow flows
//! need for their ports.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use config::words::Protocol;

use crate::flow::table::{NARROW_WAYS, NarrowTable};
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

/// The key of the flow whose port it is, or what stands for that, with the port; it is 0 if that is free. Two of them are a
/// cache line.
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

/// Protocols that have ports.
const PROTOCOLS: usize = 2;

/// The number of a protocol among these.
#[inline]
fn number(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
    }
}

/// The free ports of an address by protocol, in the order in which they were given back: a port rests for as long as it can,
/// because packets of its last flow may still be on their way.
type Free = [VecDeque<u16>; PROTOCOLS];

/// How many protocols have no port left.
fn spent(free: &Free) -> usize {
    free.iter().filter(|ports| ports.is_empty()).count()
}

/// Places that a worker has for the ports of a protocol at one address, the same number for each worker: so where a port
/// of another worker would be, there is one of the same address.
fn places_of(owners: &Owners) -> usize {
    owners.places(0)
}

/// One worker's ports of some addresses.
#[derive(Clone)]
pub struct LocalAddresses {
    /// Of each address; see [`toeplitz::words`].
    words: Vec<u16>,
    /// Of each address.
    free: Vec<Free>,
    /// Of each address by protocol, by [`Owners::place`]. All are one table: it is on huge pages where the addresses are as many
    /// as the workers that share their ports, for which a table of each would be too small.
    places: Table<Place>,
    /// For the ports of narrow flows, which a worker needs with its first addresses.
    room: Option<Room>,
}

/// Room for the local ports of narrow flows; see [`FlowTable::room_for_ports`](crate::flow::table::FlowTable).
type Room = Table<[u16; NARROW_WAYS]>;

impl LocalAddresses {
    /// The ports of addresses that belong to a worker, all free, in an order that nobody outside can guess
    /// (RFC 6056).
    pub fn new(addresses: &[IpAddr], owners: &Owners, worker: usize) -> Self {
        let words: Vec<u16> = addresses.iter().copied().map(toeplitz::words).collect();
        let ports = |words: u16| {
            let owned = (FIRST_PORT..=u16::MAX).filter(|port| owners.of_words(words ^ port) == worker);
            let mut owned: Vec<u16> = owned.collect();
            let secret = RandomState::new();
            owned.sort_by_cached_key(|port| secret.hash_one(port));
            owned.into()
        };
        let free: Vec<_> = words.iter().map(|words| [*words; PROTOCOLS].map(ports)).collect();
        let places = table(Place::new(WideKey::EMPTY), free.len() * PROTOCOLS * places_of(owners));
        Self { words, free, places, room: None }
    }

    /// The same with room for the ports of narrow flows, which the first ones that a worker gets have: for tables that are rated
    /// for `capacity` flows.
    #[must_use]
    pub fn with_room(self, capacity: usize) -> Self {
        Self { room: Some(NarrowTable::room_for_ports(capacity)), ..self }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(crate) fn take_room(&mut self) -> Option<Room> {
        self.room.take()
    }

    /// The same without a port that is free, as if flows had them all.
    #[must_use]
    pub fn spent(mut self) -> Self {
        self.free.iter_mut().flatten().for_each(VecDeque::clear);
        self
    }
}

/// Where the places of an address are.
#[derive(Clone, Copy)]
struct Address {
    words: u16,
    /// The number of its group.
    group: u16,
    /// By protocol, where they begin among those of the group.
    start: [u32; PROTOCOLS],
}

impl Address {
    /// That of a slot without an address: there is no such group.
    const NONE: Self = Self { words: 0, group: u16::MAX, start: [0; PROTOCOLS] };
}

/// One worker's ports of all pool addresses.
pub struct LocalPorts {
    owners: Owners,
    /// By slot, as the next.
    addresses: [Address; SLOTS],
    free: Box<[Free; SLOTS]>,
    /// Addresses that came together, and the places of their ports.
    groups: Vec<LocalAddresses>,
    /// How many times an address has no port of a protocol left.
    spent: usize,
}

impl LocalPorts {
    /// No address yet.
    pub fn new(owners: Owners) -> Self {
        Self {
            owners,
            addresses: [Address::NONE; SLOTS],
            free: Box::new([const { [const { VecDeque::new() }; PROTOCOLS] }; SLOTS]),
            // Each has an address at least, so that there is room for all.
            groups: Vec::with_capacity(SLOTS),
            spent: 0,
        }
    }

    /// Takes over the ports of addresses that have this slot and those that follow, instead of the ports that were there.
    pub fn install(&mut self, slot: LocalSlot, mut group: LocalAddresses) {
        // Far fewer groups than 2^16, and places than 2^32: there are no more addresses than slots.
        let (number, each) = (self.groups.len() as u16, places_of(&self.owners) as u32);
        let slots = self.addresses.iter_mut().zip(self.free.iter_mut()).skip(slot.0.into());
        let starts = (0..).step_by(PROTOCOLS).map(|before: u32| [before * each, (before + 1) * each]);
        let news = group.words.iter().zip(&mut group.free).zip(starts);
        for ((address, free), ((words, new), start)) in slots.zip(news) {
            self.spent += spent(new);
            self.spent -= if address.group == Address::NONE.group { 0 } else { spent(free) };
            *address = Address { words: *words, group: number, start };
            std::mem::swap(free, new);
        }
        self.groups.push(group);
    }

    /// Number of free ports.
    pub fn free(&self, slot: LocalSlot, protocol: Protocol) -> usize {
        self.free[usize::from(slot.0)][number(protocol)].len()
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
        let is_spent = |slot: &LocalSlot| self.free(*slot, protocol) == 0;
        self.is_any_spent() && !slots.is_empty() && slots.iter().all(is_spent)
    }

    /// Takes the port that has been free for the longest time, for the flow with this key; `None` if none is free.
    #[inline]
    pub fn take(&mut self, slot: LocalSlot, protocol: Protocol, key: &WideKey) -> Option<u16> {
        let free = &mut self.free[usize::from(slot.0)][number(protocol)];
        let (port, later) = (free.pop_front()?, free.get(AHEAD).copied());
        self.spent += usize::from(free.is_empty());
        // Those that follow are known already, and their places are rarely in the cache.
        if let Some(later) = later {
            self.prefetch(slot, protocol, later);
        }
        *self.place_mut(slot, protocol, port)? = Place::new(key.with_local_port(port));
        Some(port)
    }

    /// Gives a port back; does nothing if it is not taken.
    #[inline]
    pub fn give_back(&mut self, slot: LocalSlot, protocol: Protocol, port: u16) {
        let Some(place) = self.place_mut(slot, protocol, port).filter(|place| place.has(port)) else {
            return;
        };
        *place = Place::new(WideKey::EMPTY);
        let free = &mut self.free[usize::from(slot.0)][number(protocol)];
        self.spent -= usize::from(free.is_empty());
        // It came from here, so there is room for it.
        free.push_back(port);
    }

    /// The key of the flow that a port belongs to, with that port.
    #[inline]
    pub fn find(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<WideKey> {
        let (group, at) = self.at(slot, protocol, port);
        let place = self.groups.get(group)?.places.get(at)?;
        place.has(port).then_some(place.key)
    }

    /// How far its flow's client is introduced to its backend.
    pub fn introduction(
        &mut self,
        slot: LocalSlot,
        protocol: Protocol,
        port: u16,
    ) -> Option<&mut Introduction> {
        let place = self.place_mut(slot, protocol, port)?;
        place.has(port).then_some(&mut place.introduction)
    }

    /// Asks for the line that [`Self::find`] reads to come into the cache.
    #[inline]
    pub fn prefetch(&self, slot: LocalSlot, protocol: Protocol, port: u16) {
        let (group, at) = self.at(slot, protocol, port);
        if let Some(group) = self.groups.get(group) {
            prefetch(group.places.as_ptr().wrapping_add(at));
        }
    }

    /// The group of a port's address, and where among its places the port's is.
    #[inline]
    fn at(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> (usize, usize) {
        let Address { words, group, start } = self.addresses[usize::from(slot.0)];
        (usize::from(group), start[number(protocol)] as usize + self.owners.place(words ^ port))
    }

    #[inline]
    fn place_mut(&mut self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<&mut Place> {
        let (group, at) = self.at(slot, protocol, port);
        self.groups.get_mut(group)?.places.get_mut(at)
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
        let addresses = LocalAddresses::new(&[address(200)], &owners, worker);
        let mut ports = LocalPorts::new(owners);
        ports.install(SLOT, addresses);
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
            assert!(local.are_spent(&[SLOT, LocalSlot(8)], Protocol::Udp), "one that is not here has none");
            local.give_back(SLOT, Protocol::Udp, *owner.iter().find(|(_, its)| **its == worker).unwrap().0);
            assert!(!are_spent(&local, Protocol::Udp) && !local.is_any_spent());
            assert!(local.take(SLOT, Protocol::Udp, &flow(0)).is_some());
            assert!(local.take(SLOT, Protocol::Tcp, &flow(0)).is_some(), "protocols have ports of their own");
        }
        assert_eq!(owner.len(), 65_536 - 1024);
        assert!(owner.keys().all(|port| *port >= 1024));
    }

    #[test]
    fn a_group_may_come_without_ports_and_another_one_instead_of_it() {
        let owners = Owners::new(2);
        let group = LocalAddresses::new(&[address(200), address(201)], &owners, 1);
        let mut local = LocalPorts::new(owners);
        local.install(SLOT, group.clone().spent());
        let slots = [SLOT, LocalSlot(SLOT.0 + 1)];
        assert!(local.is_any_spent() && local.are_spent(&slots, Protocol::Udp));
        assert_eq!(local.take(SLOT, Protocol::Udp, &flow(1)), None);
        local.install(SLOT, group);
        assert!(!local.is_any_spent() && local.take(slots[1], Protocol::Udp, &flow(1)).is_some());
    }

    /// Of three workers the last one owns fewer ports. If it had fewer places, a port of another worker at one of these addresses
    /// would be where the same port of the next address is: their words differ by the right bits.
    #[test]
    fn ports_of_other_workers_are_not_found() {
        let owners = Owners::new(3);
        let mut local = LocalPorts::new(owners.clone());
        let all = ["198.51.100.200", "198.51.236.96", "198.51.86.168"].map(|text| text.parse().unwrap());
        assert!(
            [(0, 1, 0x88a8), (1, 2, 0xbac8)].into_iter().all(|(one, other, bits)| {
                toeplitz::words(all[one]) ^ toeplitz::words(all[other]) == bits
            })
        );
        local.install(SLOT, LocalAddresses::new(&all, &owners, 2));
        let slots = [0, 1, 2].map(|number| LocalSlot(SLOT.0 + number));
        let both = [Protocol::Tcp, Protocol::Udp];
        for (slot, protocol) in slots.into_iter().flat_map(|slot| both.map(|protocol| (slot, protocol))) {
            while local.take(slot, protocol, &flow(1)).is_some() {}
        }
        for (slot, address) in slots.into_iter().zip(all) {
            let is_owned = |port: &u16| owners.of(address, *port) == 2;
            for protocol in both {
                let found = (1024..=u16::MAX).filter(|port| local.find(slot, protocol, *port).is_some());
                assert!(found.eq((1024..=u16::MAX).filter(is_owned)));
            }
        }
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
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn ports_are_taken_once_and_lead_back(
            steps in prop::collection::vec((0..3, 0u8..3, any::<bool>(), any::<prop::sample::Index>()), 0..400),
        ) {
            let owners = Owners::new(100);
            let mut local = LocalPorts::new(owners.clone());
            let addresses = [200, 201, 202].map(address);
            for (slot, group) in [(0, &addresses[..2]), (2, &addresses[2..])] {
                local.install(LocalSlot(slot), LocalAddresses::new(group, &owners, 99));
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

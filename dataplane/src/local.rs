//! Local ports of full-nat: which of a pool address's ports are free, and whose flows the others belong to.
//!
//! Each worker has those ports whose replies come to it ([`Owners`]), so none is ever shared. A reply is to a
//! local address and port; one read tells whose flow it is, or where.
//!
//! The memory of addresses, 2.5 MiB for each of IPv4 and 4.5 of IPv6, divided by the number of workers, is made by the control
//! thread and moved to the worker, which allocates and frees nothing when the pools change; with the first of them the room that
//! narrow flows need for their ports.

mod places;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use config::words::Protocol;

use crate::burst::BURST;
use crate::flow::table::{FlowHash, NARROW_WAYS, NarrowTable};
use crate::flow::{FlowKey, WideKey};
use crate::prefetch::Table;
use crate::rewrite::sequence::Introduction;
use crate::toeplitz::{self, Owners};
use places::Places;
pub use places::{At, Holder};

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

/// A worker's port, and which of its address's places is the port's ([`Owners::place`]).
#[derive(Clone, Copy)]
struct Port {
    number: u16,
    place: u16,
}

/// A worker's ports of a protocol at one address.
#[derive(Clone)]
#[repr(align(64))]
struct Stock {
    /// Those that are free, in the order in which they were given back: a port rests for as long as it can, because packets of
    /// its last flow may still be on their way.
    free: VecDeque<Port>,
    /// How many of them from the front have their places asked for.
    asked: u16,
    /// Where their places begin among those of the group and IP version.
    start: u32,
    /// The address's; see [`toeplitz::words`].
    words: u16,
    /// The number of its group.
    group: u16,
    is_v4: bool,
    /// Kinds of flows that have had some of them.
    kinds: u8,
}

const _: () = assert!(size_of::<Stock>() == 64);

impl Stock {
    /// Of no address: there is no such group.
    const fn none() -> Self {
        let free = VecDeque::new();
        Self { free, asked: 0, start: 0, words: 0, group: u16::MAX, is_v4: true, kinds: 0 }
    }

    /// All ports of an address that are a worker's, in an order that nobody outside can guess (RFC 6056).
    fn new(address: IpAddr, start: usize, owners: &Owners, worker: usize) -> Self {
        let words = toeplitz::words(address);
        let port = |number| Some(Port { number, place: owners.place(words ^ number, worker)? as u16 });
        let mut owned: Vec<_> = (FIRST_PORT..=u16::MAX).filter_map(port).collect();
        let secret = RandomState::new();
        owned.sort_by_cached_key(|port| secret.hash_one(port.number));
        Self { free: owned.into(), start: start as u32, words, is_v4: address.is_ipv4(), ..Self::none() }
    }

    /// Whether there is an address that has no port left.
    fn is_spent(&self) -> bool {
        self.group != Self::none().group && self.free.is_empty()
    }

    /// Where a port is that has this place among these.
    #[inline]
    fn at(&self, place: usize) -> At {
        let (group, is_v4, kinds) = (self.group, self.is_v4, self.kinds);
        At { index: self.start + place as u32, group, is_v4, kinds }
    }
}

/// One worker's ports of some addresses.
#[derive(Clone)]
pub struct LocalAddresses {
    /// Of each address by protocol.
    stocks: Vec<[Stock; PROTOCOLS]>,
    /// Of the same, by [`Owners::place`]. All are in one table: it is on huge pages where there are some addresses, also if
    /// workers share their ports.
    places: Places,
    /// For the ports of narrow flows, which a worker needs with its first addresses.
    room: Option<Room>,
}

/// Room for the local ports of narrow flows; see [`FlowTable::room_for_ports`](crate::flow::table::FlowTable).
type Room = Table<[u16; NARROW_WAYS]>;

impl LocalAddresses {
    /// The ports of addresses that belong to a worker, all free.
    pub fn new(addresses: &[IpAddr], owners: &Owners, worker: usize) -> Self {
        let each = owners.places(worker);
        // Of IPv4 and IPv6. There are fewer than 2^32, for there are no more addresses than slots.
        let mut places = [0; 2];
        let stocks = addresses.iter().map(|address| {
            [(); PROTOCOLS].map(|()| {
                let end = &mut places[usize::from(address.is_ipv6())];
                *end += each;
                Stock::new(*address, *end - each, owners, worker)
            })
        });
        Self { stocks: stocks.collect(), places: Places::new(places), room: None }
    }

    /// The same with room for the ports of narrow flows, which the first ones that a worker gets have: for tables that are rated
    /// for `capacity` flows.
    #[must_use]
    pub fn with_room(self, capacity: usize) -> Self {
        Self { room: Some(NarrowTable::room_for_ports(capacity)), ..self }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stocks.is_empty()
    }

    pub(crate) fn take_room(&mut self) -> Option<Room> {
        self.room.take()
    }

    /// The same without a port that is free, as if flows had them all.
    #[must_use]
    pub fn spent(mut self) -> Self {
        self.stocks.iter_mut().flatten().for_each(|stock| stock.free.clear());
        self
    }
}

/// One worker's ports of all pool addresses.
pub struct LocalPorts {
    owners: Owners,
    /// The worker's number among these.
    worker: usize,
    /// By slot.
    stocks: Box<[[Stock; PROTOCOLS]; SLOTS]>,
    /// Addresses that came together, and the places of their ports.
    groups: Vec<LocalAddresses>,
    /// How many times an address has no port of a protocol left.
    spent: usize,
    /// Bytes of all places.
    bytes: usize,
}

impl LocalPorts {
    /// No address yet.
    pub fn new(owners: Owners, worker: usize) -> Self {
        Self {
            owners,
            worker,
            stocks: Box::new([const { [const { Stock::none() }; PROTOCOLS] }; SLOTS]),
            // Each has an address at least, so that there is room for all.
            groups: Vec::with_capacity(SLOTS),
            spent: 0,
            bytes: 0,
        }
    }

    /// Takes over the ports of addresses that have this slot and those that follow, instead of the ports that were there.
    pub fn install(&mut self, slot: LocalSlot, mut group: LocalAddresses) {
        // Far fewer groups than 2^16.
        let number = self.groups.len() as u16;
        for (old, new) in self.stocks.iter_mut().skip(slot.0.into()).zip(&mut group.stocks) {
            new.iter_mut().for_each(|stock| stock.group = number);
            let spent = |stocks: &[Stock]| stocks.iter().filter(|stock| stock.is_spent()).count();
            self.spent += spent(new);
            self.spent -= spent(old);
            std::mem::swap(old, new);
        }
        self.bytes += group.places.bytes();
        self.groups.push(group);
    }

    #[inline]
    fn stock(&self, slot: LocalSlot, protocol: Protocol) -> &Stock {
        &self.stocks[usize::from(slot.0)][number(protocol)]
    }

    /// Number of free ports.
    pub fn free(&self, slot: LocalSlot, protocol: Protocol) -> usize {
        self.stock(slot, protocol).free.len()
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

    /// Takes the port that has been free for the longest time, for this flow; `None` if none is free.
    #[inline(always)]
    pub fn take(&mut self, slot: LocalSlot, protocol: Protocol, holder: impl Holder) -> Option<u16> {
        let stock = &mut self.stocks[usize::from(slot.0)][number(protocol)];
        let port = stock.free.pop_front()?;
        self.spent += usize::from(stock.free.is_empty());
        stock.kinds |= holder.kind();
        let places = &mut self.groups.get_mut(usize::from(stock.group))?.places;
        // Those that follow are known already, and their places are rarely in the cache.
        if stock.asked > 0 {
            stock.asked -= 1;
        } else if let Some(later) = stock.free.get(AHEAD) {
            places.prefetch(stock.at(later.place.into()));
        }
        places.set(stock.at(port.place.into()), holder);
        Some(port.number)
    }

    /// Whether places have more pages than a processor knows where they are: 2,048, which have 4 KiB on some hosts whatever
    /// size they have here. Tests have fewer.
    #[inline]
    pub fn are_far(&self) -> bool {
        const NEAR: usize = if cfg!(test) { 1 << 16 } else { 1 << 23 };
        self.bytes > NEAR
    }

    /// Asks for the place of a port that will be taken, one more with each call.
    #[inline]
    pub fn foresee(&mut self, slot: LocalSlot, protocol: Protocol) {
        let stock = &mut self.stocks[usize::from(slot.0)][number(protocol)];
        if let Some(port) = stock.free.get(usize::from(stock.asked))
            && let Some(group) = self.groups.get(usize::from(stock.group))
            && usize::from(stock.asked) < BURST
        {
            group.places.prefetch(stock.at(port.place.into()));
            stock.asked += 1;
        }
    }

    /// Gives a port back; does nothing if it is not taken.
    #[inline]
    pub fn give_back(&mut self, slot: LocalSlot, protocol: Protocol, port: u16) {
        let stock = &mut self.stocks[usize::from(slot.0)][number(protocol)];
        let Some(place) = self.owners.place(stock.words ^ port, self.worker) else { return };
        let group = self.groups.get_mut(usize::from(stock.group));
        if group.is_some_and(|group| group.places.clear(stock.at(place))) {
            self.spent -= usize::from(stock.free.is_empty());
            // It came from here, so there is room for it.
            stock.free.push_back(Port { number: port, place: place as u16 });
        }
    }

    /// Where the place of a port is; `None` if it is another worker's.
    #[inline]
    pub fn locate(&self, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<At> {
        let stock = self.stock(slot, protocol);
        Some(stock.at(self.owners.place(stock.words ^ port, self.worker)?))
    }

    #[inline]
    fn places(&self, at: At) -> Option<&Places> {
        self.groups.get(usize::from(at.group)).map(|group| &group.places)
    }

    /// Asks for what is known of a port to come into the cache.
    #[inline]
    pub fn prefetch(&self, at: At) {
        if let Some(places) = self.places(at) {
            places.prefetch(at);
        }
    }

    /// The key of the narrow flow that a port belongs to, if it belongs to a narrow one; else it may be nobody's.
    #[inline]
    pub fn narrow_key(&self, at: At) -> Option<FlowKey> {
        self.places(at)?.narrow_key(at)
    }

    /// The key of the wide flow that a port of an IPv6 address belongs to, if it belongs to a wide one; else it is nobody's.
    #[inline]
    pub fn wide_key(&self, at: At) -> Option<WideKey> {
        self.places(at)?.wide_key(at)
    }

    /// The hash of the wide flow that a port of an IPv4 address belongs to, if it belongs to a wide one; else it may be
    /// another's.
    #[inline]
    pub fn wide_hash(&self, at: At) -> Option<FlowHash> {
        self.places(at)?.wide_hash(at)
    }

    /// How far the client of the flow that has a port is introduced to its backend.
    pub fn introduction(&mut self, at: At) -> Option<&mut Introduction> {
        self.groups.get_mut(usize::from(at.group))?.places.introduction(at)
    }
}

// Not under miri: each address has 64,512 ports, which take it minutes.
#[cfg(all(test, not(miri)))]
mod tests;

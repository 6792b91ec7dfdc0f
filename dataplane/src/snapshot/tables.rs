//! Hash tables of a snapshot: whose address, which service, whose reply.

mod eight;
mod first_look;

use std::collections::{BTreeMap, HashSet};
use std::hint::select_unpredictable;
use std::net::{IpAddr, SocketAddr};

use config::words::{Mode, Protocol};

use super::entry::Entry;
use super::repliers::{Crowd, Replier, Repliers, replies};
use super::{Parts, Service, ServiceSlot};
use crate::local::LocalSlot;
use crate::lookup::{Filter, Key, Lookup, Words};
use crate::packet::{Addresses, Headers, Version};
use crate::parse::plain::Plain;
use crate::route::InterfaceId;
use crate::wire::eth::Tags;
pub use eight::{FullNatFlows, NarrowFlows, WideFlows};
pub use first_look::{FullNatFlow, Rows, WideFlow};

/// Which address of ours an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// An interface's own.
    Own(InterfaceId),
    /// A VIP, and whether it answers pings.
    Vip {
        /// It does.
        echo: bool,
    },
    /// A local address of full NAT.
    Snat(LocalSlot),
}

impl Default for Local {
    fn default() -> Self {
        Self::Own(InterfaceId(0))
    }
}

/// A service, and whether its flows are narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The service.
    pub service: ServiceSlot,
    /// Whether its flows are in the narrow table.
    pub narrow: bool,
}

/// Which way a plain packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To a service with one port.
    Request {
        /// The service.
        service: ServiceSlot,
    },
    /// From a NAT backend of such a service.
    Reply {
        /// The service.
        service: ServiceSlot,
        /// Its port.
        service_port: u16,
    },
    /// To a local address of full NAT.
    LocalReply(LocalSlot),
}

/// Who listens on an address and port: a service alone, or the first of several in the list of choices.
#[derive(Clone, Copy, Debug)]
pub struct Listener(Entry);

impl Listener {
    /// The service that is alone here.
    #[inline(always)]
    pub fn sole(self) -> Option<ServiceSlot> {
        self.0.is_sole().then_some(self.0.service())
    }
}

/// One of several services on an address and port, or one that has more ports than one.
#[derive(Clone, Copy, Debug)]
struct Choice {
    first: u16,
    last: u16,
    class: Option<u16>,
    service: ServiceSlot,
    /// Whether the next one belongs to the same listener.
    more: bool,
}

/// An address as part of a table's key.
pub trait Address: Version {
    /// What it is part of.
    type Key: Key;

    /// The key of an address, a number that is not 0, and a port.
    fn key(self, number: u8, port: u16) -> Self::Key;

    /// The tables of its IP version.
    fn tables(tables: &Tables) -> &Family<Self>;
}

impl Address for u32 {
    type Key = u64;

    #[inline]
    fn tables(tables: &Tables) -> &Family<Self> {
        &tables.v4
    }

    #[inline]
    fn key(self, number: u8, port: u16) -> u64 {
        // As they stand in a packet, for a little-endian machine: so nothing is turned around to look it up.
        u64::from(self.swap_bytes()) << 32 | u64::from(port.swap_bytes()) << 16 | u64::from(number)
    }
}

impl Address for u128 {
    type Key = Words;

    #[inline]
    fn tables(tables: &Tables) -> &Family<Self> {
        &tables.v6
    }

    #[inline]
    fn key(self, number: u8, port: u16) -> Words {
        Words([(self >> 64) as u64, self as u64, u64::from(port) << 16 | u64::from(number)])
    }
}

/// In place of a protocol in the keys of [`Local`] addresses.
const ANY: u8 = 3;

#[inline]
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    }
}

/// The tables of one IP version.
#[derive(Debug)]
pub struct Family<A: Address> {
    local: Lookup<A::Key, Local>,
    /// By protocol, address and port: a [`Listener`]; port 0 has the services of several ports.
    services: Lookup<A::Key, Entry>,
    /// By a NAT backend's protocol, address and port, or port 0: a [`Crowd`].
    replies: Lookup<A::Key, Entry>,
    /// Addresses that are [`Local::Snat`]: their slots are the numbers.
    snat: Lookup<A::Key, Entry>,
    /// The addresses of services.
    listening: Filter<A::Key>,
    /// What packets have an easy way besides requests.
    rows: Rows,
}

impl<A: Address> Family<A> {
    fn new(
        parts: &Parts,
        locals: &[Keyed<Local>],
        listeners: &[Keyed<Entry>],
        replies: &[Keyed<Entry>],
    ) -> Self {
        let is_answered = replies.iter().any(|((_, address, _), _)| A::of(*address).is_some());
        let is_range = |((_, address, port), _): &Keyed<Entry>| *port == 0 && A::of(*address).is_some();
        let has_locals = parts.locals.iter().any(|address| A::of(*address).is_some());
        // Without any, local addresses are a gateway's alone, whose packets are for the stages.
        let has_full_nat = parts.backends.iter().flatten().any(|backend| backend.mode == Mode::FullNat);
        let rows = if listeners.iter().any(is_range) {
            Rows::Mixed
        } else if has_locals && (is_answered || has_full_nat) {
            Rows::FullNat
        } else if is_answered {
            Rows::BothWays
        } else {
            Rows::Requests
        };
        let vips: HashSet<IpAddr> = listeners.iter().map(|((_, address, _), _)| *address).collect();
        let local = lookup::<A, _>(locals);
        let snat = |(key, _): &Keyed<Local>| match local.get(A::of(key.1)?.key(key.0, key.2))? {
            Local::Snat(slot) => Some((*key, Entry::other(slot.0.into(), 0))),
            _ => None,
        };
        Self {
            snat: lookup::<A, _>(&locals.iter().filter_map(snat).collect::<Vec<_>>()),
            local,
            listening: Filter::new(vips.iter().filter_map(|vip| Some(A::of(*vip)?.key(ANY, 0)))),
            services: lookup::<A, _>(listeners),
            replies: lookup::<A, _>(replies),
            rows,
        }
    }

    #[inline]
    fn repliers<'a>(&self, all: &'a [Replier], protocol: Protocol, address: A, port: u16) -> &'a [Replier] {
        self.replies.get(address.key(number(protocol), port)).map_or(&[], |entry| Crowd(entry).members(all))
    }

    /// Whether an address is probably one that services listen on; else it is none.
    #[inline(always)]
    fn listens(&self, address: A) -> bool {
        self.listening.may_have(address.key(ANY, 0))
    }

    /// Where it stands whose a packet is: the services, if it is for one of their addresses, else who replies.
    #[inline(always)]
    fn ends(&self, is_request: bool) -> &Lookup<A::Key, Entry> {
        select_unpredictable(is_request, &self.services, &self.replies)
    }
}

/// All tables.
#[derive(Debug)]
pub struct Tables {
    v4: Family<u32>,
    v6: Family<u128>,
    choices: Vec<Choice>,
    repliers: Vec<Replier>,
    /// Whether a service has several ports.
    ranges: bool,
    /// Whether a NAT backend has several ports.
    reply_ranges: bool,
    /// Whether there are local addresses of full NAT.
    snat: bool,
}

impl Tables {
    pub(super) fn new(parts: &Parts) -> Self {
        let locals = locals(parts);
        let (listeners, choices) = listeners(parts);
        let (replies, repliers) = replies(parts);
        let v4 = Family::new(parts, &locals, &listeners, &replies);
        let v6 = Family::new(parts, &locals, &listeners, &replies);
        let ranges = listeners.iter().any(|((_, _, port), _)| *port == 0);
        let reply_ranges = replies.iter().any(|((_, _, port), _)| *port == 0);
        let snat = !parts.locals.is_empty();
        Self { v4, v6, choices, repliers, ranges, reply_ranges, snat }
    }

    pub(super) fn local(&self, address: IpAddr) -> Option<Local> {
        match address {
            IpAddr::V4(address) => self.v4.local.get(address.to_bits().key(ANY, 0)),
            IpAddr::V6(address) => self.v6.local.get(address.to_bits().key(ANY, 0)),
        }
    }

    #[inline(always)]
    pub(super) fn is_local<A: Address>(&self, address: A) -> bool {
        A::tables(self).local.get(address.key(ANY, 0)).is_some()
    }

    /// Whether a NAT backend with this address and port replies for one service alone, and one port of it.
    pub(super) fn replies_for_one(&self, protocol: Protocol, backend: SocketAddr) -> bool {
        let repliers = self.replies_of(protocol, backend.ip(), backend.port());
        repliers.iter().count() == 1 && !self.reply_ranges
    }

    #[inline]
    pub(super) fn prefetch_direction<A: Address>(&self, protocol: Protocol, src: (A, u16), dst: (A, u16)) {
        let (tables, number) = (A::tables(self), number(protocol));
        // As they will be looked into: the filter is for the one case.
        let is_request = tables.rows != Rows::BothWays || tables.listens(dst.0);
        let address = select_unpredictable(is_request, dst.0, src.0);
        let port = select_unpredictable(is_request, dst.1, src.1);
        tables.ends(is_request).prefetch(address.key(number, port));
        if tables.rows == Rows::Mixed {
            tables.replies.prefetch(src.0.key(number, src.1));
        }
    }

    #[inline]
    pub(super) fn service_for(
        &self,
        parts: &Parts,
        headers: &Headers,
        tags: Tags,
        takes: impl Fn(ServiceSlot) -> bool,
    ) -> Option<Found> {
        let listener = match headers.ip.addresses {
            Addresses::V4 { dst, .. } => {
                self.v4.services.get(dst.key(number(headers.protocol), headers.dst_port))
            }
            Addresses::V6 { dst, .. } => {
                self.v6.services.get(dst.key(number(headers.protocol), headers.dst_port))
            }
        };
        match listener {
            Some(entry) if entry.is_sole() && takes(entry.service()) => {
                Some(Found { service: entry.service(), narrow: headers.ip.is_v4() })
            }
            None if !self.ranges => None,
            _ => self.choose(parts, listener, headers, tags, takes),
        }
    }

    /// Who listens on the address and port that a plain packet is for.
    #[inline(always)]
    pub(super) fn listener<A: Address>(&self, plain: &Plain<A>) -> Option<Listener> {
        A::tables(self).services.get(plain.dst.key(number(plain.protocol), plain.dst_port)).map(Listener)
    }

    /// Which way a plain packet goes, if one look at each table is enough to tell: to a service that is alone on
    /// its address and port, to a local address, or from a NAT backend that serves no other service.
    #[inline(always)]
    pub(super) fn direction<A: Address>(
        &self,
        plain: &Plain<A>,
        listener: Option<Listener>,
    ) -> Option<Direction> {
        let (tables, protocol) = (A::tables(self), number(plain.protocol));
        match listener {
            Some(Listener(entry)) if !entry.is_sole() => return None,
            Some(Listener(entry)) => return Some(Direction::Request { service: entry.service() }),
            None if self.ranges && tables.services.get(plain.dst.key(protocol, 0)).is_some() => return None,
            None => {}
        }
        if self.snat
            && let Some(local) = tables.local.get(plain.dst.key(ANY, 0))
        {
            return if let Local::Snat(slot) = local { Some(Direction::LocalReply(slot)) } else { None };
        }
        let repliers = tables.repliers(&self.repliers, plain.protocol, plain.src, plain.src_port);
        let [replier] = repliers else { return None };
        let (service, service_port) = (replier.service, replier.first);
        (service_port == replier.last).then_some(Direction::Reply { service, service_port })
    }

    /// Whether a plain packet to which nobody listens is for a VIP, if that is `silent`, or for an address that is not
    /// ours, if nothing passes through us, and is no reply of a backend.
    #[inline]
    pub(super) fn is_for_nobody<A: Address>(&self, plain: &Plain<A>, silent: bool, passes: bool) -> bool {
        let tables = A::tables(self);
        let untold = match tables.local.get(plain.dst.key(ANY, 0)) {
            Some(Local::Vip { .. }) => silent,
            Some(_) => false,
            None => !passes,
        };
        if tables.rows == Rows::Requests {
            return untold;
        }
        let repliers = tables.repliers(&self.repliers, plain.protocol, plain.src, plain.src_port);
        untold && repliers.is_empty() && !self.ranges && !self.reply_ranges
    }

    /// The service among several, or one with several ports.
    #[cold]
    fn choose(
        &self,
        parts: &Parts,
        exact: Option<Entry>,
        headers: &Headers,
        tags: Tags,
        takes: impl Fn(ServiceSlot) -> bool,
    ) -> Option<Found> {
        let protocol = number(headers.protocol);
        let ranges = match headers.ip.addresses {
            Addresses::V4 { dst, .. } => self.v4.services.get(dst.key(protocol, 0)),
            Addresses::V6 { dst, .. } => self.v6.services.get(dst.key(protocol, 0)),
        };
        let fits = |choice: &Choice| {
            let class = choice.class.map(|class| parts.classes.get(usize::from(class)));
            (choice.first..=choice.last).contains(&headers.dst_port)
                && class.is_none_or(|class| class.is_some_and(|class| class.has(headers, tags)))
                && takes(choice.service)
        };
        exact.into_iter().chain(ranges).filter(|entry| !entry.is_sole()).find_map(|entry| {
            let choices = self.choices.get(entry.number() as usize..)?;
            let last = choices.iter().position(|choice| !choice.more)?;
            let choice = choices[..=last].iter().find(|choice| fits(choice))?;
            let narrow = headers.ip.is_v4() && choice.first == choice.last;
            Some(Found { service: choice.service, narrow })
        })
    }

    pub(super) fn replies_of(&self, protocol: Protocol, address: IpAddr, port: u16) -> Repliers<'_> {
        match address {
            IpAddr::V4(address) => self.replies_v4(protocol, address.to_bits(), port),
            IpAddr::V6(address) => self.replies_v6(protocol, address.to_bits(), port),
        }
    }

    #[inline]
    pub(super) fn replies_v4(&self, protocol: Protocol, address: u32, port: u16) -> Repliers<'_> {
        self.repliers(&self.v4, protocol, address, port, true)
    }

    #[inline]
    pub(super) fn replies_v6(&self, protocol: Protocol, address: u128, port: u16) -> Repliers<'_> {
        self.repliers(&self.v6, protocol, address, port, false)
    }

    #[inline]
    fn repliers<A: Address>(
        &self,
        tables: &Family<A>,
        protocol: Protocol,
        address: A,
        port: u16,
        is_v4: bool,
    ) -> Repliers<'_> {
        let of = |port| tables.repliers(&self.repliers, protocol, address, port);
        let ranges = if self.reply_ranges { of(0) } else { &[] };
        Repliers::new(of(port), ranges, port, is_v4)
    }
}

/// What tables are made from: number, address and port of each key.
pub(super) type Keyed<V> = ((u8, IpAddr, u16), V);

fn lookup<A: Address, V: Copy + Default>(pairs: &[Keyed<V>]) -> Lookup<A::Key, V> {
    let of_family = pairs
        .iter()
        .filter_map(|((number, address, port), value)| Some((A::of(*address)?.key(*number, *port), *value)));
    Lookup::new(of_family)
}

/// Each address once, though thousands of services may have it. A VIP answers pings only if all services on it do. Own
/// addresses come last: of equal keys the last counts.
fn locals(parts: &Parts) -> Vec<Keyed<Local>> {
    let configured = || parts.services.iter().flatten().filter(|service| !service.retired);
    let mut locals: BTreeMap<_, _> =
        configured().map(|service| ((ANY, service.key.address, 0), Local::Vip { echo: true })).collect();
    let silent = configured().filter(|service| !service.echo);
    locals.extend(silent.map(|service| ((ANY, service.key.address, 0), Local::Vip { echo: false })));
    let snat = parts.locals.iter().enumerate();
    locals.extend(snat.map(|(slot, address)| ((ANY, *address, 0), Local::Snat(LocalSlot(slot as u8)))));
    locals.extend(parts.own.iter().map(|(own, interface)| ((ANY, *own, 0), Local::Own(*interface))));
    locals.into_iter().collect()
}

/// A service alone on its address and port is found by one look, which the fast path needs; those whose packets are
/// limited are for the stages. All others are choices, the narrowest range
/// first, those with a class before the one without.
fn listeners(parts: &Parts) -> (Vec<Keyed<Entry>>, Vec<Choice>) {
    let mut services: Vec<(ServiceSlot, &Service)> = parts
        .services
        .iter()
        .enumerate()
        .filter_map(|(slot, service)| Some((ServiceSlot(slot as u16), service.as_deref()?)))
        .collect();
    let key = |service: &Service| {
        let ports = service.key.ports;
        let port = if ports.first == ports.last { ports.first } else { 0 };
        (number(service.key.protocol), service.key.address, port)
    };
    let width = |service: &Service| service.key.ports.last - service.key.ports.first;
    services.sort_by_key(|(_, service)| {
        (key(service), width(service), service.class.is_none(), service.retired, service.rank)
    });
    let (mut listeners, mut choices) = (Vec::new(), Vec::<Choice>::new());
    for group in services.chunk_by(|(_, a), (_, b)| key(a) == key(b)) {
        let Some((slot, first)) = group.first() else { continue };
        let key = key(first);
        if group.len() == 1 && key.2 != 0 && first.class.is_none() && !first.is_policed() {
            listeners.push((key, Entry::sole(0, *slot, key.2)));
            continue;
        }
        listeners.push((key, Entry::other(choices.len() as u32, 0)));
        choices.extend(group.iter().map(|(slot, service)| Choice {
            first: service.key.ports.first,
            last: service.key.ports.last,
            class: service.class,
            service: *slot,
            more: true,
        }));
        choices.last_mut().into_iter().for_each(|choice| choice.more = false);
    }
    (listeners, choices)
}

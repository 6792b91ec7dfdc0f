//! What the fast path knows of the packets of a burst before it looks for their flows.

use config::words::Protocol;

use std::marker::PhantomData;

use crate::burst::BURST;
use crate::flow::table::{FlowHash, Home};
use crate::flow::{FlowKey, Key, WideKey};
use crate::forward::Live;
use crate::forward::flows::{Flows, Tabled};
use crate::local::{At, LocalSlot};
use crate::packet::Version;
use crate::parse::plain::Brief;
use crate::wire::tcp;

/// Which way a plain packet goes.
#[derive(Clone, Copy)]
pub(super) enum Heading {
    /// To a service.
    Request,
    /// From a NAT backend to a client.
    Reply,
    /// From a backend of full NAT to this local address, which with a port stands for a client.
    LocalReply(LocalSlot),
}

/// A plain packet, and what its flow must be if it is here.
#[derive(Clone, Copy)]
pub(super) struct Sighted<A, K> {
    /// Its IP version.
    version: PhantomData<A>,
    pub brief: Brief,
    pub heading: Heading,
    pub key: K,
    /// Of its client.
    pub hash: FlowHash,
    pub home: Home,
}

impl<A: Version, K: Key> Sighted<A, K> {
    /// Whether it is an opening or the answer to one.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.brief.tcp_flags & tcp::SYN != 0
    }

    /// Whether it may begin a flow, if there is none.
    #[inline]
    pub fn may_begin(&self) -> bool {
        self.opens() || self.brief.protocol() == Protocol::Udp
    }
}

/// What is known of the packets of a lane, by their places in the burst. Each part has an array of its own, for a place is
/// then all that it takes to find it.
pub(super) struct Lane<A, K> {
    /// The IP version of all of them.
    version: PhantomData<A>,
    pub len: [u16; BURST],
    pub tcp_flags: [u8; BURST],
    pub home: [Home; BURST],
    pub key: [K; BURST],
    pub hash: [FlowHash; BURST],
    /// Those that are no requests.
    pub replies: Live,
    /// Those of them that are to local addresses.
    pub local_replies: Live,
    /// The local address that such a one is to. It is of no meaning for all others.
    pub local: [LocalSlot; BURST],
    /// The same of the local port.
    pub local_port: [u16; BURST],
    /// Where it is known what is behind that, if this worker knows.
    pub place: [Option<At>; BURST],
    /// Of replies, if it takes a search: number of the exit to their clients. It is out of date for all others.
    pub exit: [u32; BURST],
    /// Those whose homes are not asked for yet.
    unasked: Live,
    /// Those whose home is their alternate line for now.
    pub elsewhere: Live,
}

impl<A: Version, K: Key> Lane<A, K> {
    pub fn new() -> Self {
        Self {
            version: PhantomData,
            len: [0; BURST],
            tcp_flags: [0; BURST],
            home: [Home::default(); BURST],
            key: [K::EMPTY; BURST],
            hash: [FlowHash::ZERO; BURST],
            replies: Live::default(),
            local_replies: Live::default(),
            local: [LocalSlot::default(); BURST],
            local_port: [0; BURST],
            place: [None; BURST],
            exit: [0; BURST],
            unasked: Live::default(),
            elsewhere: Live::default(),
        }
    }

    /// What is known of the packet in a place.
    #[inline(always)]
    pub fn at(&self, slot: usize) -> Sighted<A, K> {
        let heading = if !self.replies.has(slot) {
            Heading::Request
        } else if self.local_replies.has(slot) {
            Heading::LocalReply(self.local[slot])
        } else {
            Heading::Reply
        };
        Sighted { heading, ..self.request(slot) }
    }

    /// The same of a request.
    #[inline(always)]
    pub fn request(&self, slot: usize) -> Sighted<A, K> {
        let brief = Brief { len: self.len[slot], tcp_flags: self.tcp_flags[slot] };
        let (key, hash, home) = (self.key[slot], self.hash[slot], self.home[slot]);
        Sighted { version: self.version, brief, heading: Heading::Request, key, hash, home }
    }

    /// Notes what is known of the packet in a place, but for its heading.
    #[inline(always)]
    pub fn note(&mut self, slot: usize, brief: Brief, key: K, hash: FlowHash, home: Home) {
        (self.len[slot], self.tcp_flags[slot]) = (brief.len, brief.tcp_flags);
        (self.key[slot], self.hash[slot], self.home[slot]) = (key, hash, home);
    }

    /// Notes that the packet in a place is to a local address and port.
    #[inline(always)]
    pub fn head_to(&mut self, slot: usize, (local, port): (LocalSlot, u16)) {
        (self.local[slot], self.local_port[slot]) = (local, port);
        self.local_replies.keep(slot);
        self.replies.keep(slot);
    }

    /// Notes whether the packet in a place is a reply, without a jump.
    #[inline(always)]
    pub fn head_back(&mut self, slot: usize, is_reply: bool) {
        self.replies.keep_if(slot, is_reply);
    }

    /// No packet is a reply.
    #[inline]
    fn clear(&mut self) {
        (self.replies, self.local_replies) = (Live::default(), Live::default());
    }
}

/// Homes in a vast table that are asked for together. The processor does not know where such lines are, and ends nothing that
/// comes behind before it has found out; but it finds out for several at once, if they follow each other.
const TOGETHER: usize = 8;

impl<A, K: Tabled> Lane<A, K> {
    /// Asks for the home of the packet in a place; in a vast table not before others wait for that, too.
    #[inline(always)]
    pub fn ask(&mut self, slot: usize, flows: &Flows) {
        if !K::is_vast(flows) {
            return K::prefetch_home(flows, self.home[slot]);
        }
        self.unasked.keep(slot);
        if self.unasked.len() == TOGETHER {
            self.ask_rest(flows);
        }
    }

    /// Asks for those homes that were not yet.
    #[inline(always)]
    pub fn ask_rest(&mut self, flows: &Flows) {
        for slot in std::mem::take(&mut self.unasked) {
            K::prefetch_home(flows, self.home[slot]);
        }
    }

    /// Takes another line for the home of a packet's flow, if it lives there and not in its home line, and asks for it: it
    /// may be far. Returns whether it does.
    #[cold]
    #[inline(never)]
    pub fn look_elsewhere(&mut self, slot: usize, flows: &Flows) -> bool {
        let Some(line) = self.key[slot].elsewhere(flows, self.home[slot], &self.hash[slot]) else {
            return false;
        };
        self.home[slot] = line;
        self.elsewhere.keep(slot);
        true
    }

    /// Takes home lines for home again.
    #[inline]
    pub fn look_home(&mut self, flows: &Flows) {
        for slot in std::mem::take(&mut self.elsewhere) {
            self.home[slot] = K::prefetch(flows, self.key[slot].line(self.hash[slot]));
        }
    }
}

pub(super) type Narrow = Lane<u32, FlowKey>;
pub(super) type Wide = Lane<u128, WideKey>;

/// The plain packets of a burst, by their places in it, in lanes: of each lane all is of one kind, so that its code
/// asks nothing.
pub(in crate::forward) struct Sights {
    /// IPv4 packets of narrow flows.
    pub(super) narrow: Narrow,
    /// IPv6 packets.
    pub(super) wide: Wide,
}

impl Sights {
    pub fn new() -> Box<Self> {
        Box::new(Self { narrow: Lane::new(), wide: Lane::new() })
    }

    /// Whether no lane waits to ask for homes.
    #[cfg(test)]
    pub fn are_asked(&self) -> bool {
        self.narrow.unasked.is_empty() && self.wide.unasked.is_empty()
    }

    /// No packet is a reply.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.narrow.clear();
        self.wide.clear();
    }
}

/// Which packets are in which lane.
#[derive(Default)]
pub(super) struct Lanes {
    pub narrow: Live,
    pub wide: Live,
    /// Of either version, for addresses and ports where nobody listens.
    pub nobodys: Live,
}

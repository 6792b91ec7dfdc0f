//! What is kept of each local port: what leads to the flow that has it, and how far its client is introduced.

use crate::flow::table::FlowHash;
use crate::flow::{FlowKey, Key, WideKey, mapped};
use crate::packet::Version as _;
use crate::prefetch::{Table, prefetch, table};
use crate::rewrite::sequence::Introduction;

/// A flow that a port is taken for.
pub trait Holder: Copy {
    /// Its kind.
    fn kind(self) -> u8;

    /// The last bits of its client's address.
    fn client(self) -> u32;

    /// What leads to it in eight bytes, which are not 0.
    fn clue(self) -> u64;

    /// Its key, or what stands for that of a narrow one.
    fn key(self) -> WideKey;
}

impl Holder for FlowKey {
    #[inline(always)]
    fn kind(self) -> u8 {
        NARROW
    }

    #[inline(always)]
    fn client(self) -> u32 {
        FlowKey::client(self)
    }

    #[inline(always)]
    fn clue(self) -> u64 {
        self.to_bits()
    }

    /// The port of a service is never 0.
    #[inline(always)]
    fn key(self) -> WideKey {
        WideKey::new(mapped(Holder::client(self)), self.client_port(), self.service(), 0)
    }
}

/// A wide flow, by its key and hash.
impl Holder for (&WideKey, FlowHash) {
    #[inline(always)]
    fn kind(self) -> u8 {
        WIDE
    }

    #[inline(always)]
    fn client(self) -> u32 {
        self.0.client() as u32
    }

    /// A hash of 1 leads to the same lines as one of 0.
    #[inline(always)]
    fn clue(self) -> u64 {
        self.1.to_bits().max(1)
    }

    #[inline(always)]
    fn key(self) -> WideKey {
        *self.0
    }
}

/// Where the place of a worker's port is.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The place among those of its group and IP version.
    pub(super) index: u32,
    /// The number of the group.
    pub(super) group: u16,
    /// Whether it is a port of an IPv4 address.
    pub(super) is_v4: bool,
    /// Kinds of flows that have had ports of the address and protocol.
    pub(super) kinds: u8,
}

/// The kinds of flows.
pub(super) const NARROW: u8 = 1;
pub(super) const WIDE: u8 = 2;

impl At {
    #[inline(always)]
    fn index(self) -> usize {
        self.index as usize
    }

    /// Whether the key of a narrow flow that is told of the port may be nobody's, for flows of both kinds have had ports there.
    #[inline]
    pub fn is_mixed(self) -> bool {
        self.kinds == NARROW | WIDE
    }
}

/// Of an IPv6 address: two of them are a cache line.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Keyed {
    key: WideKey,
    introduction: Introduction,
}

const _: () = assert!(size_of::<Keyed>() == 32);

impl Keyed {
    fn new(key: WideKey) -> Self {
        Self { key, introduction: Introduction::default() }
    }
}

/// The places of ports.
///
/// Nearly all flows with ports of IPv4 addresses are narrow; so eight of their places are a cache line. Of a wide one there
/// is its hash, and whoever looks for it finds it by its port. That takes a wait more than the key, which IPv6 has therefore:
/// a million flows took 3 ns more for a packet, and 5 less for a first one.
#[derive(Clone)]
pub struct Places {
    /// Of IPv4 addresses. What is the key of a narrow flow and what the hash of a wide one nobody knows, for the flow that it
    /// leads to has the port or not.
    clues: Table<u64>,
    /// The same ports'.
    introductions: Table<Introduction>,
    /// Whether any of these was ever asked for; else nothing was noted in them.
    introduces: bool,
    /// Of IPv6 addresses.
    keyed: Table<Keyed>,
}

impl Places {
    /// Places for so many ports of IPv4 and IPv6 addresses, all free.
    pub fn new([v4, v6]: [usize; 2]) -> Self {
        Self {
            clues: table(0, v4),
            introductions: table(Introduction::default(), v4),
            introduces: false,
            keyed: table(Keyed::new(WideKey::EMPTY), v6),
        }
    }

    /// Bytes of all that is read to find flows.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.clues) + size_of_val(&*self.keyed)
    }

    /// Notes who has a port. Its client is not introduced yet.
    #[inline(always)]
    pub fn set(&mut self, at: At, holder: impl Holder) {
        if !at.is_v4 {
            if let Some(keyed) = self.keyed.get_mut(at.index()) {
                *keyed = Keyed::new(holder.key());
            }
            return;
        }
        if let Some(clue) = self.clues.get_mut(at.index()) {
            *clue = holder.clue();
        }
        if self.introduces
            && let Some(introduction) = self.introductions.get_mut(at.index())
        {
            *introduction = Introduction::default();
        }
    }

    /// Notes that nobody has a port. Returns whether somebody had.
    #[inline]
    pub fn clear(&mut self, at: At) -> bool {
        if at.is_v4 {
            self.clues.get_mut(at.index()).is_some_and(|clue| std::mem::take(clue) != 0)
        } else {
            let keyed = self.keyed.get_mut(at.index());
            keyed.is_some_and(|keyed| !std::mem::replace(&mut keyed.key, WideKey::EMPTY).is(&WideKey::EMPTY))
        }
    }

    /// The key of the narrow flow that has a port, if a narrow one has it; else it may be nobody's.
    #[inline]
    pub fn narrow_key(&self, at: At) -> Option<FlowKey> {
        if at.kinds & NARROW == 0 {
            return None;
        }
        if at.is_v4 {
            return self.clue(at).map(FlowKey::from_bits);
        }
        let key = self.key(at).filter(|key| key.service_port() == 0)?;
        Some(FlowKey::new(u32::of_wide(key.client())?, key.client_port(), key.service()))
    }

    /// The key of the wide flow that has a port of an IPv6 address, if a wide one has it; else it is nobody's.
    #[inline]
    pub fn wide_key(&self, at: At) -> Option<WideKey> {
        if at.is_v4 { None } else { self.key(at) }
    }

    /// The hash of the wide flow that has a port of an IPv4 address, if a wide one has it; else it may be another's.
    #[inline]
    pub fn wide_hash(&self, at: At) -> Option<FlowHash> {
        if at.is_v4 && at.kinds & WIDE != 0 { self.clue(at).map(FlowHash::from_bits) } else { None }
    }

    #[inline]
    fn clue(&self, at: At) -> Option<u64> {
        self.clues.get(at.index()).copied().filter(|clue| *clue != 0)
    }

    #[inline]
    fn key(&self, at: At) -> Option<WideKey> {
        Some(self.keyed.get(at.index())?.key).filter(|key| !key.is(&WideKey::EMPTY))
    }

    /// How far the client of the flow that has a port is introduced to its backend.
    pub fn introduction(&mut self, at: At) -> Option<&mut Introduction> {
        if at.is_v4 {
            self.clue(at)?;
            self.introduces = true;
            self.introductions.get_mut(at.index())
        } else {
            self.key(at)?;
            self.keyed.get_mut(at.index()).map(|keyed| &mut keyed.introduction)
        }
    }

    /// Asks for the line to come into the cache that is read to find a port's flow.
    #[inline]
    pub fn prefetch(&self, at: At) {
        if at.is_v4 {
            prefetch(self.clues.as_ptr().wrapping_add(at.index()));
        } else {
            prefetch(self.keyed.as_ptr().wrapping_add(at.index()));
        }
    }
}

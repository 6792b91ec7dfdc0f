//! What the stages know of the packets of a burst.

use std::net::IpAddr;

use config::words::Protocol;

use super::flows::Stored;
use crate::burst::BURST;
use crate::flow::table::FlowHash;
use crate::local::LocalSlot;
use crate::packet::{Addresses, Headers, Packet};
use crate::snapshot::{BackendSlot, Found, Gateway, ServiceSlot};
use crate::wire::eth::Tags;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// From a client to a service.
    Request(Found),
    /// From a NAT backend to a client; the flow tells the service.
    Reply,
    /// From a full NAT backend to a local address.
    LocalReply(LocalSlot),
    /// From a station on an inside interface to the world.
    Outward(Gateway),
    /// From the world to a station on an inside interface.
    Inward,
}

/// What becomes of a packet whose flow is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the backend, by its mode.
    Backend,
    /// To the backend, from this local address and port.
    BackendFrom(LocalSlot, u16),
    /// To the client that it is addressed to, from this port of the service.
    Client { from: u16 },
    /// To this client, from this port of the service.
    ClientAt { client: IpAddr, port: u16, from: u16 },
    /// On its way, as a router does.
    Onward,
    /// The same, from this local address and port.
    OnwardFrom(LocalSlot, u16),
    /// To this station inside, which a local address stood for.
    Inside { station: IpAddr, port: u16 },
    /// Nowhere: this flow is over.
    Over(Stored),
}

/// A packet on its way through the stages.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub headers: Headers,
    pub tags: Tags,
    pub role: Role,
    pub hash: FlowHash,
    /// Whether it is made here: then it is no packet of the client's, or of the backend's.
    pub made: bool,
    /// The backend of a new flow, if the fast path had one chosen and went no further.
    pub chosen: Option<BackendSlot>,
    /// Set by the third stage.
    pub service: ServiceSlot,
    /// Set by the third stage.
    pub backend: BackendSlot,
    /// Set by the third stage.
    pub target: Target,
}

impl Work {
    pub const NONE: Self = Self {
        headers: Headers {
            ip: Packet {
                addresses: Addresses::V4 { src: 0, dst: 0 },
                l3: 0,
                l4: 0,
                len: 0,
                ttl: 0,
                tos: 0,
                next: 0,
                dont_fragment: false,
                fragment: None,
            },
            src_port: 0,
            dst_port: 0,
            protocol: Protocol::Tcp,
            tcp_flags: 0,
        },
        tags: Tags { outer: 0, inner: 0 },
        role: Role::Reply,
        hash: FlowHash::ZERO,
        made: false,
        chosen: None,
        service: ServiceSlot(0),
        backend: BackendSlot(0),
        target: Target::Backend,
    };
}

/// The packets of a burst, by their places in it. Each stage writes its part of a packet's work in place:
/// copying the whole of it from stage to stage was a quarter of a packet's cost.
pub(super) type Batch = [Work; BURST];

/// Places in the burst whose packets are still on their way.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Live(u32);

const _: () = assert!(BURST == u32::BITS as usize);

impl Live {
    /// The first places, so many; there are no more than those of a burst.
    #[inline]
    pub fn first(count: usize) -> Self {
        Self(((1u64 << (count & 0x3f)) - 1) as u32)
    }

    /// From one place up to another.
    #[inline]
    pub fn between(from: usize, end: usize) -> Self {
        Self::first(end).without(Self::first(from))
    }

    /// Some of the eight places of a group; groups are counted from the first places.
    #[inline]
    pub fn of_eight(group: usize, bits: u8) -> Self {
        Self(u32::from(bits) << (group * 8))
    }

    #[inline]
    pub fn has(self, slot: usize) -> bool {
        self.0 >> slot & 1 != 0
    }

    #[inline]
    pub fn keep(&mut self, slot: usize) {
        self.0 |= 1 << slot;
    }

    #[inline]
    pub fn keep_if(&mut self, slot: usize, is_kept: bool) {
        self.0 |= u32::from(is_kept) << slot;
    }

    #[inline]
    pub fn leave(&mut self, slot: usize) {
        self.0 &= !(1 << slot);
    }

    #[inline]
    pub fn join(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Both together.
    #[inline]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those before the first that is also among others.
    #[inline]
    pub fn before(self, others: Self) -> Self {
        let first = self.0 & others.0;
        Self(self.0 & (first & first.wrapping_neg()).wrapping_sub(1))
    }

    #[inline]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Those that are also among others.
    #[inline]
    pub fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl Iterator for Live {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros();
        // Takes the lowest bit away.
        self.0 &= self.0 - 1;
        Some(slot as usize)
    }
}

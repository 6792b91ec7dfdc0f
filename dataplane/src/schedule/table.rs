//! Tables from which hash schedulers pick: which backend has which slot.
//!
//! The control thread makes them whole; workers only read them. A slot is the backend itself and not an index of a
//! list, so that a pick reads one line of memory.

use std::net::{IpAddr, SocketAddr};

use crate::flow::mapped;
use crate::snapshot::BackendSlot;

/// A backend as tables are made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub backend: BackendSlot,
    /// Its address and port: all that balancers of a cluster know it by.
    pub address: SocketAddr,
    /// Its share of new flows now; 0 if it is to get none.
    pub weight: u32,
    /// The weight that it has when nothing holds it back: before it was quiesced (IPVS's `last_weight`), and
    /// after its slow start.
    pub full_weight: u32,
}

impl Member {
    /// Its address as hashes take it.
    pub(super) fn mapped_address(&self) -> u128 {
        match self.address.ip() {
            IpAddr::V4(address) => mapped(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }
}

/// A backend that has a slot; and whether it is quiesced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder(u32);

impl Holder {
    /// Slots of backends have 24 bits.
    const QUIESCED: u32 = 1 << 31;

    fn new(member: &Member) -> Self {
        Self(member.backend.0 | if member.weight == 0 { Self::QUIESCED } else { 0 })
    }

    /// The backend, if it takes new flows.
    #[inline]
    pub(super) fn taking(self, available: &impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let backend = BackendSlot(self.0);
        (self.0 & Self::QUIESCED == 0 && available(backend)).then_some(backend)
    }
}

/// Which backend has which slot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    slots: Box<[Holder]>,
    holders: Box<[Holder]>,
}

impl Table {
    /// A table from the index of each slot's member.
    pub(super) fn new(members: &[Member], slots: impl IntoIterator<Item = usize>) -> Self {
        let holders: Box<[Holder]> = members.iter().map(Holder::new).collect();
        Self { slots: slots.into_iter().map(|member| holders[member]).collect(), holders }
    }

    /// Number of slots; 0 if there is no member that may have one.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Who has a slot.
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<Holder> {
        self.slots.get(slot).copied()
    }

    /// Everyone, in the order of the list, whether or not they have slots.
    #[inline]
    pub(super) fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// How many slots each backend of the list has.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<usize> {
        self.holders.iter().map(|holder| self.slots.iter().filter(|slot| *slot == holder).count()).collect()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Members 10.x.y.z:80 with these weights, which are their full ones; backend slots from 0.
    pub(in crate::schedule) fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(index, &weight): (usize, &u32)| Member {
            backend: BackendSlot(index as u32),
            address: SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0001 + index as u32), 80)),
            weight,
            full_weight: weight,
        };
        weights.iter().enumerate().map(member).collect()
    }
}

//! Addresses of SNAT pools, numbered for as long as the appliance runs.
//!
//! Pure. Flows and the tables of used ports name a local address by its slot, so an address keeps its slot;
//! one that is taken out of its pool gets no new flows, but is answered for until the next start.

use std::collections::HashMap;
use std::net::IpAddr;

use config::model::SnatPool;

use crate::api::{ApiError, code};

/// Local addresses at most: a slot has 8 bits.
const MAX: usize = 256;

/// All addresses that were ever in a pool, and the pools of now.
#[derive(Clone, Debug, Default)]
pub struct Locals {
    /// By slot.
    addresses: Vec<IpAddr>,
    /// Slots by the name of the pool that has them.
    pools: HashMap<String, Vec<u8>>,
}

impl Locals {
    /// Every address by slot, those that no pool has any more included.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Slots of a pool, in the order of the configuration; none if there is no such pool.
    pub fn pool(&self, name: &str) -> &[u8] {
        self.pools.get(name).map_or(&[], Vec::as_slice)
    }

    /// Name of the pool that has a slot.
    pub fn pool_of(&self, slot: u8) -> Option<&str> {
        self.pools.iter().find(|(_, slots)| slots.contains(&slot)).map(|(name, _)| name.as_str())
    }

    /// The same with other pools.
    ///
    /// # Errors
    /// Together with the addresses of earlier pools there are too many.
    pub fn with_pools(&self, pools: &[SnatPool]) -> Result<Self, ApiError> {
        let mut next = Self { addresses: self.addresses.clone(), pools: HashMap::new() };
        let mut slot_of: HashMap<IpAddr, usize> =
            next.addresses.iter().enumerate().map(|(slot, address)| (*address, slot)).collect();
        for pool in pools {
            let mut slots = Vec::new();
            for address in &pool.addresses {
                let slot = *slot_of.entry(*address).or_insert_with(|| {
                    next.addresses.push(*address);
                    next.addresses.len() - 1
                });
                slots.push(u8::try_from(slot).map_err(|_| self.no_room())?);
            }
            next.pools.insert(pool.name.clone(), slots);
        }
        Ok(next)
    }

    fn no_room(&self) -> ApiError {
        let message = format!(
            "no room for the new addresses of [[snat_pool]]; {} of {MAX} were given out since the start, and \
             those taken out may still have flows; restart trutinad, or add fewer",
            self.addresses.len()
        );
        ApiError { code: code::LIMIT, message }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn pool(name: &str, last: impl IntoIterator<Item = u16>) -> SnatPool {
        let address = |last: u16| Ipv4Addr::from_bits(0xc633_6400 + u32::from(last)).into();
        SnatPool { name: name.to_owned(), addresses: last.into_iter().map(address).collect() }
    }

    #[test]
    fn an_address_keeps_its_slot_and_new_ones_get_new_slots() {
        let first = Locals::default().with_pools(&[pool("a", [1, 2]), pool("b", [3])]).unwrap();
        assert_eq!((first.pool("a"), first.pool("b")), (&[0, 1][..], &[2][..]));
        let next = first.with_pools(&[pool("b", [4, 2, 3])]).unwrap();
        assert_eq!((next.pool("a"), next.pool("b")), (&[][..], &[3, 1, 2][..]));
        assert_eq!((next.pool_of(0), next.pool_of(1)), (None, Some("b")));
        assert_eq!(next.addresses().len(), 4, "the one that no pool has is answered for still");
    }

    #[test]
    fn more_than_there_are_slots_are_refused_with_the_way_out() {
        let full = Locals::default().with_pools(&[pool("a", 0..256)]).unwrap();
        assert_eq!(full.pool("a").last(), Some(&255));
        assert!(full.with_pools(&[pool("a", 0..100)]).is_ok());
        let error = full.with_pools(&[pool("a", [256])]).unwrap_err();
        assert!(error.code == code::LIMIT && error.message.contains("; restart trutinad"), "{error}");
    }
}

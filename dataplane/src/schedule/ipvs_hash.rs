//! Destination hashing, source hashing and Maglev hashing: dh, sh and mh, slot by slot as in IPVS.
//!
//! A backend with weight 0 keeps its slots. What falls on it is refused, unless the service falls back, and then
//! another slot is tried. The hashes have no secret, so a client can aim at a backend; `maglev` is better in both.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_dh.c, ip_vs_sh.c and ip_vs_mh.c. There a new backend joins at the
//! head of the list; here the list is in the order of the configuration.

use config::limits::MH_SIZES;

use super::hash::{Opening, hsiphash, v4};
use super::table::{Member, Table};
use crate::snapshot::{BackendSlot, gcd};

/// Slots of dh and sh.
const SLOTS: u32 = 256;

/// The keys of mh's hashes: of slots and of a backend's first slot, and of its step to the next one.
const MH_KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// What sh and mh may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Hash the client's port, too: sh-port, mh-port.
    pub port: bool,
    /// Try other slots if a slot's backend takes no flows: sh-fallback, mh-fallback.
    pub fallback: bool,
}

impl Flags {
    /// What is hashed of a client.
    #[inline]
    fn input(self, opening: &Opening) -> u32 {
        fold(opening.source).wrapping_add(if self.port { u32::from(opening.source_port) } else { 0 })
    }
}

/// Destination hashing: by the address that the client wants, and all backends have as many slots.
#[derive(Clone, Debug, PartialEq)]
pub struct Dh(Table);

impl Dh {
    /// The table of a service.
    pub fn new(members: &[Member]) -> Self {
        Self(Table::new(members, in_turns(members, |_| 1)))
    }

    /// The backend of a new flow; `None` if its slot's backend takes none.
    #[inline]
    pub fn pick(&self, opening: &Opening, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        self.0.get(hash_8(fold(opening.destination)) as usize)?.taking(&available)
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.0
    }
}

/// Source hashing: by the client's address, and a backend has as many slots in a row as its weight says.
#[derive(Clone, Debug, PartialEq)]
pub struct Sh {
    table: Table,
    flags: Flags,
}

impl Sh {
    /// The table of a service.
    pub fn new(members: &[Member], flags: Flags) -> Self {
        Self { table: Table::new(members, in_turns(members, |member| member.weight)), flags }
    }

    /// The backend of a new flow; `None` if its slot's backend takes none.
    #[inline]
    pub fn pick(&self, opening: &Opening, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let hash = hash_8(self.flags.input(opening));
        pick(&self.table, |offset| offset.wrapping_add(hash) % SLOTS, self.flags.fallback, available)
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// Maglev hashing as IPVS has it: by the client's address, and each backend takes slots of its own preference.
#[derive(Clone, Debug, PartialEq)]
pub struct Mh {
    table: Table,
    flags: Flags,
}

impl Mh {
    /// The table of a service with `size` slots, which is one of [`config::limits::MH_SIZES`]; IPVS's is 4093 unless the kernel is
    /// built otherwise.
    pub fn new(members: &[Member], size: u32, flags: Flags) -> Self {
        Self { table: Table::new(members, preferred(members, size)), flags }
    }

    /// The backend of a new flow; `None` if its slot's backend takes none.
    #[inline]
    pub fn pick(&self, opening: &Opening, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let (input, size) = (self.flags.input(opening), (self.table.len() as u32).max(1));
        let slot = |offset: u32| hsiphash(MH_KEYS[0], input.wrapping_add(offset)) % size;
        pick(&self.table, slot, self.flags.fallback, available)
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}

/// An IPv4 address, or an IPv6 one folded to as many bits.
#[inline]
fn fold(address: u128) -> u32 {
    v4(address)
        .unwrap_or((address >> 96) as u32 ^ (address >> 64) as u32 ^ (address >> 32) as u32 ^ address as u32)
}

/// Linux's `hash_32` to 8 bits.
#[inline]
fn hash_8(input: u32) -> u32 {
    input.wrapping_mul(0x61c8_8647) >> 24
}

/// The backend of the slot at offset 0, or if that takes no flows and the service falls back, of a slot at another
/// offset.
#[inline]
fn pick(
    table: &Table,
    slot: impl Fn(u32) -> u32,
    fallback: bool,
    available: impl Fn(BackendSlot) -> bool,
) -> Option<BackendSlot> {
    let first = slot(0);
    let backend = table.get(first as usize)?.taking(&available);
    if backend.is_none() && fallback { fall_back(table, first, slot, available) } else { backend }
}

/// Tries the slots at all offsets, from the number of the slot that failed around.
#[cold]
fn fall_back(
    table: &Table,
    first: u32,
    slot: impl Fn(u32) -> u32,
    available: impl Fn(BackendSlot) -> bool,
) -> Option<BackendSlot> {
    // IPVS hashes once a slot to find out that all backends are gone.
    if !table.holders().iter().any(|holder| holder.taking(&available).is_some()) {
        return None;
    }
    let size = table.len() as u32;
    (0..size).find_map(|offset| table.get(slot((first + offset) % size) as usize)?.taking(&available))
}

/// The members of dh's and sh's slots: each takes so many in turn, and one even if that is 0.
fn in_turns(members: &[Member], turns: fn(&Member) -> u32) -> Vec<usize> {
    let turn = |(index, member)| std::iter::repeat_n(index, turns(member).clamp(1, SLOTS) as usize);
    let slots = if members.is_empty() { 0 } else { SLOTS as usize };
    members.iter().enumerate().cycle().flat_map(turn).take(slots).collect()
}

/// The members of mh's slots: in turn, each takes the next free ones in its own order, as many as its share of the
/// weight says.
fn preferred(members: &[Member], size: u32) -> Vec<usize> {
    let turns = turns(members, size);
    let mut slots = vec![None; size as usize];
    let mut left = if turns.iter().any(|&turns| turns > 0) { size } else { return Vec::new() };
    let mut orders: Vec<Order> = members.iter().map(|member| Order::new(member, size)).collect();
    while left > 0 {
        for (index, order) in orders.iter_mut().enumerate() {
            for _ in 0..turns[index].min(left) {
                let free = order.find(|&slot| slots[slot as usize].is_none()).unwrap_or_default();
                slots[free as usize] = Some(index);
                left -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}

/// The slots in the order in which a backend wants them, over and over.
struct Order {
    next: u32,
    skip: u32,
    size: u32,
}

impl Order {
    fn new(member: &Member, size: u32) -> Self {
        let input = fold(member.mapped_address()).wrapping_add(u32::from(member.address.port()));
        let hash = |key| hsiphash(key, input);
        Self { next: hash(MH_KEYS[0]) % size, skip: hash(MH_KEYS[1]) % (size - 1) + 1, size }
    }
}

impl Iterator for Order {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let slot = self.next;
        self.next = (slot + self.skip) % self.size;
        Some(slot)
    }
}

/// How many slots each takes in turn: its weight by the divisor that all have in common, shifted so that the largest
/// has few bits; at least one, and none if it never had a weight.
fn turns(members: &[Member], size: u32) -> Vec<u32> {
    let weights = || members.iter().map(|member| member.full_weight);
    let divisor = weights().fold(0, gcd).max(1);
    let largest = weights().max().unwrap_or(0) / divisor;
    // Half of the index of the kernel's option, which is 8 for the smallest table.
    let bits = MH_SIZES.iter().take_while(|&&smaller| smaller < size).count() as u32 / 2 + 4;
    let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(bits);
    weights().map(|weight| ((weight / divisor) >> shift).max(u32::from(weight > 0))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::flow::mapped;
    use crate::schedule::table::testing::members;
    use config::words::Protocol;
    use proptest::prelude::*;

    const GOLDEN: &str = include_str!("golden/ipvs_hash.tsv");

    fn address(text: &str) -> u128 {
        match text.parse().unwrap() {
            IpAddr::V4(address) => mapped(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn opening(source: u128, source_port: u16, destination: u128) -> Opening {
        Opening { source, source_port, destination, destination_port: 80, protocol: Protocol::Tcp }
    }

    /// A member as the golden file has it: address:port=weight/full weight.
    fn member(index: usize, text: &str) -> Member {
        let (address, weights) = text.split_once('=').unwrap();
        let (weight, full_weight) = weights.split_once('/').unwrap();
        Member {
            backend: BackendSlot(index as u32),
            address: address.parse::<SocketAddr>().unwrap(),
            weight: weight.parse().unwrap(),
            full_weight: full_weight.parse().unwrap(),
        }
    }

    /// A scheduler of the golden file.
    enum Kind {
        Dh(Dh),
        Sh(Sh),
        Mh(Mh),
    }

    impl Kind {
        fn new(kind: &str, flags: &str, size: &str, members: &[Member]) -> Self {
            let flags = Flags { port: flags.contains("port"), fallback: flags.contains("fallback") };
            match kind {
                "dh" => Self::Dh(Dh::new(members)),
                "sh" => Self::Sh(Sh::new(members, flags)),
                _ => Self::Mh(Mh::new(members, size.parse().unwrap(), flags)),
            }
        }

        fn table(&self) -> &Table {
            match self {
                Self::Dh(it) => it.table(),
                Self::Sh(it) => it.table(),
                Self::Mh(it) => it.table(),
            }
        }

        fn pick(&self, opening: &Opening, available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
            match self {
                Self::Dh(it) => it.pick(opening, available),
                Self::Sh(it) => it.pick(opening, available),
                Self::Mh(it) => it.pick(opening, available),
            }
        }
    }

    fn fields(line: &str) -> (&str, Vec<&str>) {
        let mut fields = line.split('\t');
        (fields.next().unwrap(), fields.collect())
    }

    /// `golden/generate.py` works out the same tables and picks in its own way.
    #[test]
    #[cfg_attr(miri, ignore = "minutes, and nothing unsafe in it")]
    fn tables_and_picks_are_those_of_an_independent_script() {
        let mut openings = Vec::new();
        let mut kind = None;
        let mut cases = 0;
        for line in GOLDEN.lines() {
            let (word, rest) = fields(line);
            match word {
                "opening" => {
                    openings.push(opening(address(rest[0]), rest[1].parse().unwrap(), address(rest[2])))
                }
                "case" => {
                    let members: Vec<Member> =
                        rest[3..].iter().enumerate().map(|(at, text)| member(at, text)).collect();
                    kind = Some(Kind::new(rest[0], rest[1], rest[2], &members));
                    cases += 1;
                }
                "shares" => {
                    let Some(kind) = &kind else { continue };
                    let shares: Vec<String> = kind.table().shares().iter().map(usize::to_string).collect();
                    assert_eq!(shares, rest, "case {cases}");
                }
                _ => {
                    let Some(kind) = &kind else { continue };
                    let letter = |pick: Option<BackendSlot>| pick.map_or("-".into(), |it| it.0.to_string());
                    let picks: Vec<String> =
                        openings.iter().map(|it| letter(kind.pick(it, |_| true))).collect();
                    assert_eq!(picks, rest, "case {cases}");
                }
            }
        }
        assert!(cases > 100);
    }

    #[test]
    fn shares_of_source_hashing_are_by_turns_and_not_by_weight() {
        let shares = |weights: &[u32]| Sh::new(&members(weights), Flags::default()).table.shares();
        assert_eq!(shares(&[100, 100, 100]), [100, 100, 56]);
        assert_eq!(shares(&[1000, 1, 1]), [256, 0, 0]);
        assert_eq!(shares(&[0, 1]), [128, 128]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn no_pick_takes_who_takes_no_flows(
            weights in prop::collection::vec(0u32..9, 0..12),
            away in prop::collection::vec(any::<bool>(), 12),
            sources in prop::collection::vec(any::<u32>(), 20),
            flags in (any::<bool>(), any::<bool>()).prop_map(|(port, fallback)| Flags { port, fallback }),
        ) {
            let members = members(&weights);
            let taking = |backend: BackendSlot| !away[backend.0 as usize];
            for kind in [Kind::Dh(Dh::new(&members)), Kind::Sh(Sh::new(&members, flags)), Kind::Mh(Mh::new(&members, 251, flags))] {
                for &source in &sources {
                    let opening = opening(mapped(source), source as u16, mapped(!source));
                    let anyone = weights.iter().zip(&away).any(|(&weight, &away)| weight > 0 && !away);
                    match kind.pick(&opening, taking) {
                        Some(backend) => prop_assert!(taking(backend) && weights[backend.0 as usize] > 0),
                        // sh's fallback goes around the whole table; mh's hashes may miss a slot.
                        None => prop_assert!(!anyone || !flags.fallback || !matches!(kind, Kind::Sh(_))),
                    }
                }
            }
        }
    }
}

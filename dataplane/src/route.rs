//! Longest-prefix match, for both IP versions.
//!
//! Prefixes are nested or apart, so they cut the address space into ranges with one answer each. A lookup finds the
//! range by an [`index`]. Neighbours that have one answer are one range, so that few are left of many routes by one
//! gateway.

pub(crate) mod index;

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use index::Index;

/// Number of an interface, counted from 0: a port's own one, or one of its VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceId(pub u16);

/// An IP address as the number it is looked up by, host order: `u32` is IPv4, `u128` is IPv6.
pub trait Address: Copy + Ord + Default {
    /// A prefix of such addresses.
    type Net;

    /// First and last address of a prefix.
    fn range(net: Self::Net) -> (Self, Self);

    /// The next higher address, if there is one.
    fn next(self) -> Option<Self>;

    /// Bits of its distance from `first`, which is not higher.
    fn width_from(self, first: Self) -> u32;

    /// The largest power of two that it is a multiple of, as a number of bits.
    fn alignment(self) -> u32;

    /// Of blocks of 2 to the `shift` addresses, the first address of that before its own; 0 if it is in the first one.
    fn block_before(self, shift: u32) -> Self;

    /// How many addresses it is behind `first`, counted on from the highest one to 0.
    fn since(self, first: Self) -> Self;

    /// How many addresses are between it and `end`, counted so, too: all others if they are the same.
    fn more_before(self, end: Self) -> Self;

    /// Number of the part that it is in, of 2 to the `shift` addresses each, from `first` on; at most `last`, and 0
    /// below `first`.
    fn part(self, first: Self, shift: u32, last: usize) -> usize;

    /// The address, of either version.
    fn ip(self) -> IpAddr;
}

impl Address for u32 {
    type Net = Ipv4Net;

    fn range(net: Ipv4Net) -> (Self, Self) {
        (net.network().to_bits(), net.broadcast().to_bits())
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - (self - first).leading_zeros()
    }

    fn alignment(self) -> u32 {
        self.trailing_zeros()
    }

    fn block_before(self, shift: u32) -> Self {
        (self >> shift).saturating_sub(1) << shift
    }

    #[inline]
    fn since(self, first: Self) -> Self {
        self.wrapping_sub(first)
    }

    fn more_before(self, end: Self) -> Self {
        end.wrapping_sub(self).wrapping_sub(1)
    }

    #[inline]
    fn part(self, first: Self, shift: u32, last: usize) -> usize {
        // The number is not truncated: there are fewer parts than addresses.
        (self.saturating_sub(first) >> shift).min(last as Self) as usize
    }

    #[inline]
    fn ip(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Address for u128 {
    type Net = Ipv6Net;

    fn range(net: Ipv6Net) -> (Self, Self) {
        (net.network().to_bits(), net.broadcast().to_bits())
    }

    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn width_from(self, first: Self) -> u32 {
        Self::BITS - (self - first).leading_zeros()
    }

    fn alignment(self) -> u32 {
        self.trailing_zeros()
    }

    fn block_before(self, shift: u32) -> Self {
        (self >> shift).saturating_sub(1) << shift
    }

    #[inline]
    fn since(self, first: Self) -> Self {
        self.wrapping_sub(first)
    }

    fn more_before(self, end: Self) -> Self {
        end.wrapping_sub(self).wrapping_sub(1)
    }

    #[inline]
    fn part(self, first: Self, shift: u32, last: usize) -> usize {
        // The number is not truncated: there are fewer parts than addresses.
        (self.saturating_sub(first) >> shift).min(last as Self) as usize
    }

    #[inline]
    fn ip(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<A> {
    /// The interface they leave by.
    pub interface: InterfaceId,
    /// The router they are given to; without one the destination itself is on the link.
    pub gateway: Option<A>,
}

/// The next station on the way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface it is on.
    pub interface: InterfaceId,
    /// Its address.
    pub address: IpAddr,
}

/// All routes of one IP version in a snapshot.
#[derive(Clone, Debug, Default)]
pub struct RouteTable<A> {
    /// First addresses of the ranges, ascending; a range ends before the next one's first address.
    starts: Vec<A>,
    /// The routes of the ranges.
    routes: Vec<Option<Route<A>>>,
    index: Index<A>,
}

impl<A: Address> RouteTable<A> {
    /// A table of these routes. Of equal prefixes the first one counts.
    pub fn new(routes: impl IntoIterator<Item = (A::Net, Route<A>)>) -> Self {
        let mut prefixes: Vec<_> = routes.into_iter().map(|(net, route)| (A::range(net), route)).collect();
        // A prefix comes before those within it.
        prefixes.sort_by_key(|((first, last), _)| (*first, Reverse(*last)));
        prefixes.dedup_by_key(|(range, _)| *range);
        let mut table = Self::default();
        table.begin(A::default(), None);
        // The prefixes that are open at the current address, from the widest to the narrowest: their last
        // addresses and routes.
        let mut open: Vec<(A, Route<A>)> = Vec::new();
        for ((first, last), route) in prefixes {
            while let Some((ended, _)) = open.pop_if(|(open_last, _)| *open_last < first) {
                table.end(ended, open.last().map(|(_, route)| *route));
            }
            table.begin(first, Some(route));
            open.push((last, route));
        }
        while let Some((ended, _)) = open.pop() {
            table.end(ended, open.last().map(|(_, route)| *route));
        }
        table.index = Index::new(table.starts.iter().copied().zip(0..));
        table
    }

    fn begin(&mut self, start: A, route: Option<Route<A>>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.routes.pop();
        }
        if self.routes.last() != Some(&route) {
            self.starts.push(start);
            self.routes.push(route);
        }
    }

    fn end(&mut self, last: A, outer: Option<Route<A>>) {
        if let Some(start) = last.next() {
            self.begin(start, outer);
        }
    }

    /// First addresses of the ranges, ascending; the first one is 0.
    pub fn starts(&self) -> &[A] {
        &self.starts
    }

    /// Number of the range that an address is in, counted from 0.
    #[inline]
    pub fn range(&self, destination: A) -> usize {
        self.index.find(destination) as usize
    }

    /// The gateways of the ranges; none where there is no route, or its stations are on the link.
    pub fn gateways(&self) -> impl Iterator<Item = Option<NextHop>> + '_ {
        self.routes.iter().map(|route| {
            let Route { interface, gateway } = (*route)?;
            Some(NextHop { interface, address: gateway?.ip() })
        })
    }

    /// The next hop towards an address, if a route covers it.
    #[inline]
    pub fn next_hop(&self, destination: A) -> Option<NextHop> {
        let route = (*self.routes.get(self.range(destination))?)?;
        Some(NextHop { interface: route.interface, address: route.gateway.unwrap_or(destination).ip() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_link<A>(interface: u16) -> Route<A> {
        Route { interface: InterfaceId(interface), gateway: None }
    }

    #[test]
    fn the_longest_prefix_wins_and_outer_routes_go_on_behind_it() {
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let table = RouteTable::<u32>::new([
            ("192.0.2.0/24".parse().unwrap(), on_link(0)),
            (
                "0.0.0.0/0".parse().unwrap(),
                Route { interface: InterfaceId(0), gateway: Some(gateway.to_bits()) },
            ),
            ("198.51.100.0/24".parse().unwrap(), on_link(1)),
            ("198.51.100.128/25".parse().unwrap(), on_link(2)),
            ("198.51.100.200/32".parse().unwrap(), on_link(3)),
        ]);
        let hop = |address: &str| table.next_hop(address.parse::<Ipv4Addr>().unwrap().to_bits()).unwrap();
        let interface = |address: &str| hop(address).interface.0;
        assert_eq!(interface("192.0.2.7"), 0);
        assert_eq!(["198.51.100.127", "198.51.100.128", "198.51.100.200"].map(interface), [1, 2, 3]);
        assert_eq!(["198.51.100.201", "198.51.101.0", "255.255.255.255"].map(interface), [2, 0, 0]);
        assert_eq!(hop("1.1.1.1").address, gateway);
        assert_eq!(hop("192.0.2.7").address, Ipv4Addr::new(192, 0, 2, 7));
    }

    #[test]
    fn the_longest_prefix_wins_in_ipv6_too() {
        let gateway: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let table = RouteTable::<u128>::new([
            ("::/0".parse().unwrap(), Route { interface: InterfaceId(0), gateway: Some(gateway.to_bits()) }),
            ("2001:db8:0:1::/64".parse().unwrap(), on_link(1)),
            ("2001:db8:0:1::ff00/120".parse().unwrap(), on_link(300)),
        ]);
        let hop = |address: &str| table.next_hop(address.parse::<Ipv6Addr>().unwrap().to_bits()).unwrap();
        let interface = |address: &str| hop(address).interface.0;
        let inside = ["2001:db8:0:1::", "2001:db8:0:1::ff00", "2001:db8:0:1::1:0"];
        assert_eq!(inside.map(interface), [1, 300, 1]);
        let outside = ["2001:db8::ffff", "2001:db8:0:2::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
        assert_eq!(outside.map(interface), [0; 3]);
        assert_eq!(hop("2001:db8::ffff").address, gateway);
        assert_eq!(hop("2001:db8:0:1::7").address, "2001:db8:0:1::7".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn without_routes_nothing_is_reachable() {
        assert_eq!(RouteTable::<u32>::new([]).next_hop(0xc000_0201), None);
        assert_eq!(RouteTable::<u128>::new([]).next_hop(0), None);
        assert_eq!(RouteTable::default().next_hop(1u32), None);
    }

    /// So few that neighbours often have the same.
    const ANSWERS: u16 = 7;

    /// Compares the table with a search through all its prefixes, at these addresses and at all edges.
    fn agrees<A: Address + std::fmt::Debug>(
        nets: Vec<A::Net>,
        probes: Vec<A>,
        below: impl Fn(A) -> A,
    ) -> Result<(), TestCaseError>
    where
        A::Net: Copy,
    {
        let numbered: Vec<(A::Net, u16)> = nets.into_iter().zip(0..).collect();
        let table = RouteTable::new(numbered.iter().map(|&(net, number)| (net, on_link(number % ANSWERS))));
        let ranges: Vec<((A, A), u16)> =
            numbered.iter().map(|&(net, number)| (A::range(net), number)).collect();
        let edges = ranges
            .iter()
            .flat_map(|&((first, last), _)| [first, below(first), last, last.next().unwrap_or_default()]);
        for probe in probes.into_iter().chain(edges) {
            // The longest prefix begins last and, of those with one beginning, ends first; of equal ones the
            // first one given counts.
            let expected = ranges
                .iter()
                .filter(|((first, last), _)| *first <= probe && probe <= *last)
                .max_by_key(|((first, last), number)| (*first, Reverse(*last), Reverse(*number)));
            let found = table.next_hop(probe).map(|hop| hop.interface.0);
            prop_assert_eq!(found, expected.map(|(_, number)| *number % ANSWERS), "{:?}", probe);
        }
        Ok(())
    }

    #[test]
    fn prefixes_of_all_lengths_are_told_apart() {
        let v4 = [0, 0x0a80_0001, u32::MAX].map(Ipv4Addr::from_bits);
        let nets =
            v4.into_iter().flat_map(|address| (0..=32).map(move |len| Ipv4Net::new(address, len).unwrap()));
        agrees(nets.collect(), Vec::new(), |address: u32| address.wrapping_sub(1)).unwrap();
        let v6 = [0, 0x2001_0db8u128 << 96 | 1, u128::MAX].map(Ipv6Addr::from_bits);
        let nets =
            v6.into_iter().flat_map(|address| (0..=128).map(move |len| Ipv6Net::new(address, len).unwrap()));
        agrees(nets.collect(), Vec::new(), |address: u128| address.wrapping_sub(1)).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn agrees_with_a_search_through_all_prefixes(
            prefixes in prop::collection::vec((prop_oneof![any::<u32>(), 0x0a00_0000..0x0a01_0000u32], 0u8..=32), 0..40),
            probes in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let nets = prefixes.iter().map(|&(address, len)| Ipv4Net::new(address.into(), len).unwrap());
            agrees(nets.collect(), probes, |address| address.wrapping_sub(1))?;
        }

        #[test]
        fn agrees_with_a_search_through_all_ipv6_prefixes(
            prefixes in prop::collection::vec((prop_oneof![any::<u128>(), 1u128 << 96..(1 << 96) + 999], 0u8..=128), 0..20),
            probes in prop::collection::vec(any::<u128>(), 0..50),
        ) {
            let nets = prefixes.iter().map(|&(address, len)| Ipv6Net::new(address.into(), len).unwrap());
            agrees(nets.collect(), probes, |address| address.wrapping_sub(1))?;
        }
    }
}

//! Longest-prefix match by binary search.
//!
//! Prefixes are nested or apart, so they cut the address space into ranges with one answer each. A lookup
//! finds the range: about nine steps for 500 routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Number of a port, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub u8);

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The port they leave by.
    pub port: PortId,
    /// The router they are given to; without one the destination itself is on the link.
    pub gateway: Option<Ipv4Addr>,
}

/// The next station on the way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The port it is on.
    pub port: PortId,
    /// Its address, host order.
    pub address: u32,
}

/// All routes of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// First addresses of the ranges, ascending; a range ends before the next one's first address.
    starts: Vec<u32>,
    /// The routes of the ranges.
    routes: Vec<Option<Route>>,
}

impl RouteTable {
    /// A table of these routes. Of equal prefixes the first one counts.
    pub fn new(routes: impl IntoIterator<Item = (Ipv4Net, Route)>) -> Self {
        let mut prefixes: Vec<_> = routes.into_iter().map(|(net, route)| (net.trunc(), route)).collect();
        prefixes.sort_by_key(|(net, _)| (net.network(), net.prefix_len()));
        prefixes.dedup_by_key(|(net, _)| *net);
        let mut table = Self::default();
        table.begin(0, None);
        // The prefixes that are open at the current address, from the widest to the narrowest.
        let mut open: Vec<(Ipv4Net, Route)> = Vec::new();
        for (net, route) in prefixes {
            while let Some((inner, _)) = open.pop_if(|(outer, _)| !outer.contains(&net)) {
                table.end(inner, open.last().map(|(_, route)| *route));
            }
            table.begin(net.network().to_bits(), Some(route));
            open.push((net, route));
        }
        while let Some((inner, _)) = open.pop() {
            table.end(inner, open.last().map(|(_, route)| *route));
        }
        table
    }

    fn begin(&mut self, start: u32, route: Option<Route>) {
        if self.starts.last() == Some(&start) {
            self.starts.pop();
            self.routes.pop();
        }
        self.starts.push(start);
        self.routes.push(route);
    }

    fn end(&mut self, net: Ipv4Net, outer: Option<Route>) {
        if let Some(start) = net.broadcast().to_bits().checked_add(1) {
            self.begin(start, outer);
        }
    }

    /// The next hop towards an address (host order), if a route covers it.
    #[inline]
    pub fn next_hop(&self, destination: u32) -> Option<NextHop> {
        let after = self.starts.partition_point(|&start| start <= destination);
        let route = (*self.routes.get(after.checked_sub(1)?)?)?;
        let address = route.gateway.map_or(destination, Ipv4Addr::to_bits);
        Some(NextHop { port: route.port, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_link(port: u8) -> Route {
        Route { port: PortId(port), gateway: None }
    }

    #[test]
    fn the_longest_prefix_wins_and_outer_routes_go_on_behind_it() {
        let gateway = Ipv4Addr::new(192, 0, 2, 1);
        let table = RouteTable::new([
            ("192.0.2.0/24".parse().unwrap(), on_link(0)),
            ("0.0.0.0/0".parse().unwrap(), Route { port: PortId(0), gateway: Some(gateway) }),
            ("198.51.100.0/24".parse().unwrap(), on_link(1)),
            ("198.51.100.128/25".parse().unwrap(), on_link(2)),
            ("198.51.100.200/32".parse().unwrap(), on_link(3)),
        ]);
        let port =
            |address: &str| table.next_hop(address.parse::<Ipv4Addr>().unwrap().to_bits()).unwrap().port.0;
        assert_eq!(port("192.0.2.7"), 0);
        assert_eq!([port("198.51.100.127"), port("198.51.100.128"), port("198.51.100.200")], [1, 2, 3]);
        assert_eq!([port("198.51.100.201"), port("198.51.101.0"), port("255.255.255.255")], [2, 0, 0]);
        let default = table.next_hop(0x0101_0101).unwrap();
        assert_eq!(default.address, gateway.to_bits());
        assert_eq!(table.next_hop(0xc000_0207).unwrap().address, 0xc000_0207);
    }

    #[test]
    fn without_routes_nothing_is_reachable() {
        assert_eq!(RouteTable::new([]).next_hop(0xc000_0201), None);
        assert_eq!(RouteTable::default().next_hop(1), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn agrees_with_a_search_through_all_prefixes(
            prefixes in prop::collection::vec((any::<u32>(), 0u8..=32, any::<u8>()), 0..20),
            probes in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let routes: Vec<(Ipv4Net, Route)> = prefixes
                .iter()
                .map(|&(address, len, port)| (Ipv4Net::new(address.into(), len).unwrap().trunc(), on_link(port)))
                .collect();
            let table = RouteTable::new(routes.clone());
            let edges = routes.iter().flat_map(|(net, _)| {
                let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                [first, first.wrapping_sub(1), last, last.wrapping_add(1)]
            });
            for probe in probes.into_iter().chain(edges) {
                let longest = routes
                    .iter()
                    .filter(|(net, _)| net.contains(&Ipv4Addr::from_bits(probe)))
                    .map(|(net, _)| net.prefix_len())
                    .max();
                let expected = routes.iter().find(|(net, _)| {
                    Some(net.prefix_len()) == longest && net.contains(&Ipv4Addr::from_bits(probe))
                });
                prop_assert_eq!(table.next_hop(probe).map(|hop| hop.port), expected.map(|(_, route)| route.port));
            }
        }
    }
}

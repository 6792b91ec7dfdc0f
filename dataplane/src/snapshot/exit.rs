//! How the fast path sends packets to the gateways of routes.

use std::collections::HashMap;
use std::sync::Arc;

use super::Egress;
use crate::port::PortId;
use crate::route::index::Index;
use crate::route::{Address, RouteTable};
use crate::wire::eth;

/// The way to a next station that is known and behind an untagged interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit {
    /// Ethernet header.
    pub link: [u8; eth::HEADER_LEN],
    /// The device port it leaves by.
    pub port: PortId,
    /// The longest packet that gets through.
    pub room: u16,
}

impl Exit {
    /// No way: nothing has room in it.
    const NONE: Self = Self { link: [0; eth::HEADER_LEN], port: PortId(0), room: 0 };

    /// The way to a next station, if it is such.
    pub fn new(egress: &Egress) -> Option<Self> {
        let link = *egress.link.bytes().first_chunk().filter(|_| egress.is_plain())?;
        Some(Self { link, port: egress.port, room: egress.mtu })
    }
}

/// The exits to the gateways of all routes of one IP version.
#[derive(Clone, Debug, Default)]
pub struct Exits<A> {
    /// All that there are, each once. The first is [`Exit::NONE`]: where stations are on the link, and where there is no
    /// easy way.
    all: Vec<Exit>,
    /// Their numbers, by address. Snapshots share it that have the same routes and gateways.
    index: Arc<Index<A>>,
    /// That of the widest range.
    usual: Option<Exit>,
    /// Where that range begins.
    first: A,
    /// How many addresses it has behind the first one, those from 0 on included if it goes on there: the link is
    /// often all that is between its ends.
    more: A,
}

impl<A: Address> Exits<A> {
    /// The exits of a table whose ranges have these gateways.
    pub fn new(routes: &RouteTable<A>, gateways: &[Option<Egress>]) -> Self {
        let starts = routes.starts();
        let of_ranges: Vec<_> = gateways.iter().map(|gateway| Exit::new(gateway.as_ref()?)).collect();
        let more = |range: usize| {
            let goes_on = range + 1 == starts.len() && gateways.first() == gateways.get(range);
            let end = starts.get(if goes_on { 1 } else { range + 1 }).copied().unwrap_or_default();
            starts[range].more_before(end)
        };
        let easy = (0..starts.len()).filter(|range| of_ranges[*range].is_some());
        let widest = easy.max_by_key(|range| more(*range));
        let (first, more) = widest.map_or_else(Default::default, |range| (starts[range], more(range)));
        let usual = widest.and_then(|range| of_ranges[range]);
        let (mut all, mut numbers) = (vec![Exit::NONE], HashMap::from([(None, 0)]));
        let of_ranges = of_ranges.iter().map(|exit| {
            *numbers.entry(*exit).or_insert_with(|| {
                all.extend(*exit);
                all.len() as u32 - 1
            })
        });
        let index = Index::new(starts.iter().copied().zip(of_ranges));
        Self { all, index: Arc::new(index), usual, first, more }
    }

    /// The exit that most addresses have, if this is such a one.
    #[inline(always)]
    pub fn usual(&self, destination: A) -> Option<&Exit> {
        self.usual.as_ref().filter(|_| destination.since(self.first) <= self.more)
    }

    /// The exit that most addresses have, whatever the address; one without room if there is none.
    #[inline(always)]
    pub fn of_most(&self) -> &Exit {
        self.usual.as_ref().unwrap_or(&Exit::NONE)
    }

    /// Number of the exit to the gateway to an address.
    #[inline]
    pub fn find(&self, destination: A) -> u32 {
        self.index.find(destination)
    }

    /// The exit with a number; one without room if there is none.
    #[inline(always)]
    pub fn get(&self, number: u32) -> &Exit {
        self.all.get(number as usize).unwrap_or(&Exit::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{InterfaceId, NextHop, Route};
    use crate::wire::eth::{LinkHeader, Tags};
    use config::words::MacAddr;
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    /// A table of routes by gateways, of which 0 means that stations are on the link, and the third one is not known.
    fn made(routes: &[(Ipv4Net, u32)]) -> (RouteTable<u32>, Vec<Option<Egress>>, Exits<u32>) {
        let route =
            |gateway: u32| Route { interface: InterfaceId(0), gateway: (gateway > 0).then_some(gateway) };
        let table = RouteTable::new(routes.iter().map(|(net, gateway)| (*net, route(*gateway))));
        let egress = |next_hop: NextHop| {
            let last =
                if let std::net::IpAddr::V4(address) = next_hop.address { address.octets()[3] } else { 0 };
            let link = LinkHeader::new(MacAddr([last; 6]), MacAddr([9; 6]), Tags::default(), eth::TYPE_IPV4);
            Egress { next_hop, port: PortId(last), link, resolved: last != 3, mtu: 1500 }
        };
        let gateways: Vec<_> = table.gateways().map(|gateway| gateway.map(egress)).collect();
        let exits = Exits::new(&table, &gateways);
        (table, gateways, exits)
    }

    fn port(exit: Option<&Exit>) -> Option<u8> {
        exit.map(|exit| exit.port.0)
    }

    #[test]
    fn the_gateway_of_all_but_the_link_is_usual() {
        let net = |net: &str| net.parse().unwrap();
        let (.., exits) = made(&[(net("0.0.0.0/0"), 1), (net("198.51.100.0/24"), 0)]);
        let usual = |address: [u8; 4]| port(exits.usual(u32::from_be_bytes(address)));
        let [below, above] = [[198, 51, 99, 255], [198, 51, 101, 0]];
        assert_eq!([[0; 4], below, above, [255; 4]].map(usual), [Some(1); 4]);
        assert_eq!([[198, 51, 100, 0], [198, 51, 100, 255]].map(usual), [None; 2]);
        assert_eq!(port(made(&[(net("0.0.0.0/0"), 1)]).2.usual(0)), Some(1));
        assert_eq!(port(made(&[(net("0.0.0.0/0"), 3)]).2.usual(0)), None);
        assert_eq!(port(made(&[]).2.usual(0)), None);
    }

    proptest! {
        #![proptest_config(crate::samples::cases())]

        #[test]
        fn exits_are_what_routes_say(
            routes in prop::collection::vec(
                prop_oneof![(any::<u32>(), 0u8..6, 0u32..4), (0x0a00_0000..0x0a00_0100u32, 24u8..=32, 0u32..4)], 0..20,
            ),
            probes in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let net = |(address, bits, gateway): &(u32, u8, u32)| {
                (Ipv4Net::new((*address).into(), *bits).unwrap().trunc(), *gateway)
            };
            let (table, gateways, exits) = made(&routes.iter().map(net).collect::<Vec<_>>());
            let edges = table.starts().iter().flat_map(|start| [*start, start.wrapping_sub(1)]);
            for address in probes.into_iter().chain(edges) {
                let routed = gateways[table.range(address)].as_ref().and_then(Exit::new);
                let (usual, found) = (exits.usual(address), exits.get(exits.find(address)));
                prop_assert_eq!(*found, routed.unwrap_or(Exit::NONE), "{:08x}", address);
                prop_assert!(usual.is_none_or(|usual| usual == found), "{address:08x}");
            }
        }
    }
}

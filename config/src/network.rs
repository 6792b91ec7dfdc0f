//! Where addresses are: connected prefixes, static routes and own addresses, as the configuration gives them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::{Port, Route};

/// Answers by which port, and through whom, an address is reached.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// By prefix length, then by network address.
    hops: BTreeMap<u8, HashMap<Ipv4Addr, Hop>>,
    /// Own addresses by port, in the order of the configuration.
    own: Vec<Vec<Ipv4Net>>,
    all_own: HashSet<Ipv4Addr>,
}

/// Where a prefix leads: to a port's own link, or to a gateway there.
#[derive(Clone, Copy, Debug)]
struct Hop {
    port: usize,
    via: Option<Ipv4Addr>,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Number of the port it leaves by.
    pub port: usize,
    /// Whose MAC address it is sent to: the address itself, or a gateway.
    pub next_hop: Ipv4Addr,
}

impl Network {
    /// The network of `ports`, numbered as they come, with static `routes`.
    ///
    /// A route whose gateway is on no connected prefix leads nowhere and is left out; the rules refuse it.
    /// Where a connected prefix and a route are the same, the link is used.
    pub fn new(ports: &[Port], routes: &[Route]) -> Self {
        let own: Vec<_> = ports.iter().map(|port| port.addresses.clone()).collect();
        let all_own = own.iter().flatten().map(Ipv4Net::addr).collect();
        let mut network = Self { hops: BTreeMap::new(), own, all_own };
        for (port, connected) in ports.iter().enumerate() {
            for address in &connected.addresses {
                network.add(*address, Hop { port, via: None });
            }
        }
        for route in routes {
            if let Some(port) = network.connected(route.via) {
                network.add(route.to, Hop { port, via: Some(route.via) });
            }
        }
        network
    }

    fn add(&mut self, prefix: Ipv4Net, hop: Hop) {
        let hops = self.hops.entry(prefix.prefix_len()).or_default();
        hops.entry(prefix.network()).or_insert(hop);
    }

    /// Hops whose prefix covers the address, the longest prefix first.
    fn covering(&self, address: Ipv4Addr) -> impl Iterator<Item = (u8, Hop)> {
        self.hops.iter().rev().filter_map(move |(len, hops)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*len)).unwrap_or(0);
            hops.get(&Ipv4Addr::from(u32::from(address) & mask)).map(|hop| (*len, *hop))
        })
    }

    /// Port whose connected prefix covers the address.
    pub fn connected(&self, address: Ipv4Addr) -> Option<usize> {
        self.covering(address).find(|(_, hop)| hop.via.is_none()).map(|(_, hop)| hop.port)
    }

    /// The connected prefix that covers the address.
    pub fn connected_prefix(&self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let (len, _) = self.covering(address).find(|(_, hop)| hop.via.is_none())?;
        Ipv4Net::new(address, len).ok().map(|prefix| prefix.trunc())
    }

    /// The way to an address by the longest prefix; `None` if there is none.
    pub fn egress(&self, address: Ipv4Addr) -> Option<Egress> {
        let (_, hop) = self.covering(address).next()?;
        Some(Egress { port: hop.port, next_hop: hop.via.unwrap_or(address) })
    }

    /// Own address of a port with which to speak to `toward`: the one whose prefix covers it, else the first.
    pub fn own_address(&self, port: usize, toward: Ipv4Addr) -> Option<Ipv4Addr> {
        let own = self.own.get(port)?;
        own.iter().find(|address| address.contains(&toward)).or(own.first()).map(Ipv4Net::addr)
    }

    /// Whether the address is one of the appliance's own; VIPs are not.
    pub fn is_own(&self, address: Ipv4Addr) -> bool {
        self.all_own.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Device;

    fn port(name: &str, addresses: &[&str]) -> Port {
        Port {
            name: name.to_owned(),
            device: Device::Vdev(format!("net_null_{name}")),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            mtu: 1500,
            mac: None,
        }
    }

    fn route(to: &str, via: &str) -> Route {
        Route { to: to.parse().unwrap(), via: via.parse().unwrap() }
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn example() -> Network {
        let ports = [port("lan", &["192.0.2.254/24", "203.0.113.1/31"]), port("wan", &["198.51.100.2/25"])];
        let routes = [
            route("0.0.0.0/0", "198.51.100.1"),
            route("10.0.0.0/8", "192.0.2.1"),
            route("10.9.0.0/16", "203.0.113.0"),
            route("172.16.0.0/12", "10.0.0.1"),
            route("192.0.2.77/32", "198.51.100.1"),
        ];
        Network::new(&ports, &routes)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let network = example();
        let cases = [
            ("192.0.2.7", 0, "192.0.2.7"),
            ("192.0.2.77", 1, "198.51.100.1"),
            ("198.51.100.127", 1, "198.51.100.127"),
            ("198.51.100.128", 1, "198.51.100.1"),
            ("10.1.2.3", 0, "192.0.2.1"),
            ("10.9.2.3", 0, "203.0.113.0"),
            ("172.16.0.1", 1, "198.51.100.1"),
            ("255.255.255.255", 1, "198.51.100.1"),
        ];
        for (address, port, next_hop) in cases {
            let way = Egress { port, next_hop: ip(next_hop) };
            assert_eq!(network.egress(ip(address)), Some(way), "{address}");
        }
        assert_eq!(Network::new(&[], &[]).egress(ip("192.0.2.1")), None);
    }

    #[test]
    fn connected_is_what_a_port_shares_a_prefix_with() {
        let network = example();
        assert_eq!(network.connected(ip("192.0.2.77")), Some(0));
        assert_eq!(network.connected(ip("198.51.100.1")), Some(1));
        assert_eq!(network.connected(ip("198.51.100.200")), None);
        assert_eq!(network.connected_prefix(ip("203.0.113.0")), "203.0.113.0/31".parse().ok());
    }

    #[test]
    fn own_addresses_speak_to_their_own_prefix() {
        let network = example();
        assert_eq!(network.own_address(0, ip("203.0.113.0")), Some(ip("203.0.113.1")));
        assert_eq!(network.own_address(0, ip("10.0.0.1")), Some(ip("192.0.2.254")));
        assert_eq!(network.own_address(2, ip("10.0.0.1")), None);
        assert!(network.is_own(ip("203.0.113.1")) && !network.is_own(ip("203.0.113.0")));
    }

    proptest! {
        #[test]
        fn lookup_equals_a_scan_of_all_prefixes(
            routes in prop::collection::vec((any::<u32>(), 0..=32_u8, 1..255_u8), 0..40),
            address in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let ports = [port("lan", &["192.0.2.254/24"])];
            let route = |(to, len, via): &(u32, u8, u8)| Route {
                to: Ipv4Net::new((*to).into(), *len).unwrap().trunc(),
                via: Ipv4Addr::new(192, 0, 2, *via),
            };
            let routes: Vec<_> = routes.iter().map(route).collect();
            let near = if routes.is_empty() { address } else { near.get(&routes).to.broadcast().into() };
            for address in [address, near].map(Ipv4Addr::from) {
                let longest = routes.iter().filter(|route| route.to.contains(&address)).map(|r| r.to.prefix_len()).max();
                let first = routes.iter().find(|r| r.to.contains(&address) && Some(r.to.prefix_len()) == longest);
                let on_link = ports[0].addresses[0].contains(&address) && longest <= Some(24);
                let next_hop = if on_link { Some(address) } else { first.map(|route| route.via) };
                let network = Network::new(&ports, &routes);
                prop_assert_eq!(network.egress(address).map(|way| way.next_hop), next_hop);
            }
        }
    }
}

//! Where addresses are: connected prefixes, static routes and own addresses, as the configuration gives them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Interface, Route};

/// Answers by which interface, and through whom, an address is reached. Interfaces have the numbers of
/// [`crate::model::Config::interfaces`]; no answer mixes the IP versions.
#[derive(Clone, Debug, Default)]
pub struct Network {
    hops: HashMap<IpNet, Hop>,
    /// Prefix lengths that occur in `hops`: of IPv4, and of IPv6.
    lengths: [BTreeSet<u8>; 2],
    /// Own addresses by interface, in the order of the configuration.
    own: Vec<Vec<IpNet>>,
    interface_of: BTreeMap<IpAddr, usize>,
}

/// Where a prefix leads: to an interface's own link, or to a gateway there.
#[derive(Clone, Copy, Debug)]
struct Hop {
    interface: usize,
    via: Option<IpAddr>,
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Number of the interface it leaves by.
    pub interface: usize,
    /// Whose MAC address it is sent to: the address itself, or a gateway.
    pub next_hop: IpAddr,
}

impl Network {
    /// The network of `interfaces`, numbered as they come, with static `routes`.
    ///
    /// A route whose gateway is on no connected prefix, or of the other family, leads nowhere and is left
    /// out; the rules refuse it. Where a connected prefix and a route are the same, the link is used.
    pub fn new(interfaces: &[Interface], routes: &[Route]) -> Self {
        let mut network = Self::default();
        for (number, interface) in interfaces.iter().enumerate() {
            network.own.push(interface.addresses.clone());
            for address in &interface.addresses {
                network.interface_of.entry(address.addr()).or_insert(number);
                network.add(*address, Hop { interface: number, via: None });
            }
        }
        for route in routes {
            let same_family = route.to.addr().is_ipv4() == route.via.is_ipv4();
            if let Some(interface) = network.connected(route.via).filter(|_| same_family) {
                network.add(route.to, Hop { interface, via: Some(route.via) });
            }
        }
        network
    }

    fn add(&mut self, prefix: IpNet, hop: Hop) {
        self.lengths[usize::from(prefix.addr().is_ipv6())].insert(prefix.prefix_len());
        self.hops.entry(prefix.trunc()).or_insert(hop);
    }

    /// Hops whose prefix covers the address, the longest prefix first.
    fn covering(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, Hop)> {
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().rev().filter_map(move |len| {
            let prefix = IpNet::new(address, *len).ok()?.trunc();
            self.hops.get(&prefix).map(|hop| (prefix, *hop))
        })
    }

    /// Interface whose connected prefix covers the address.
    pub fn connected(&self, address: IpAddr) -> Option<usize> {
        self.covering(address).find(|(_, hop)| hop.via.is_none()).map(|(_, hop)| hop.interface)
    }

    /// The connected prefix that covers the address.
    pub fn connected_prefix(&self, address: IpAddr) -> Option<IpNet> {
        self.covering(address).find(|(_, hop)| hop.via.is_none()).map(|(prefix, _)| prefix)
    }

    /// The way to an address by the longest prefix; `None` if there is none.
    pub fn egress(&self, address: IpAddr) -> Option<Egress> {
        let (_, hop) = self.covering(address).next()?;
        Some(Egress { interface: hop.interface, next_hop: hop.via.unwrap_or(address) })
    }

    /// Own address of an interface with which to speak to `toward`: the one whose prefix covers it, else the
    /// first of the same family.
    ///
    /// There is one wherever [`Network::egress`] leads: every way begins at a connected prefix of its family.
    pub fn own_address(&self, interface: usize, toward: IpAddr) -> Option<IpAddr> {
        let same_family = |own: &&IpNet| own.addr().is_ipv4() == toward.is_ipv4();
        let own = || self.own_addresses(interface).iter().filter(same_family);
        own().find(|address| address.contains(&toward)).or(own().next()).map(IpNet::addr)
    }

    /// Own addresses of an interface with their prefixes, in the order of the configuration.
    pub fn own_addresses(&self, interface: usize) -> &[IpNet] {
        self.own.get(interface).map_or(&[], Vec::as_slice)
    }

    /// Number of the interface that has this own address.
    pub fn interface_of(&self, own: IpAddr) -> Option<usize> {
        self.interface_of.get(&own).copied()
    }

    /// Whether the address is one of the appliance's own; VIPs and addresses of pools are not.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.interface_of.contains_key(&address)
    }

    /// The first of the own addresses that a prefix covers.
    pub fn own_within(&self, prefix: IpNet) -> Option<IpAddr> {
        self.interface_of.range(prefix.network()..=prefix.broadcast()).next().map(|(own, _)| *own)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Tags;

    fn interface(name: &str, addresses: &[&str]) -> Interface {
        Interface {
            name: name.to_owned(),
            port: 0,
            tags: Tags::default(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            mtu: 1500,
            host: None,
            gateway: None,
        }
    }

    fn route(to: &str, via: &str) -> Route {
        Route { to: to.parse().unwrap(), via: via.parse().unwrap() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn example() -> Network {
        let interfaces = [
            interface("lan", &["192.0.2.254/24", "203.0.113.1/31", "2001:db8:1::fe/64"]),
            interface("wan", &["2001:db8:2::fe/64", "198.51.100.2/25"]),
            interface("six", &["2001:db8:6::fe/64"]),
        ];
        let routes = [
            route("0.0.0.0/0", "198.51.100.1"),
            route("10.0.0.0/8", "192.0.2.1"),
            route("10.9.0.0/16", "203.0.113.0"),
            route("172.16.0.0/12", "10.0.0.1"),
            route("192.0.2.77/32", "198.51.100.1"),
            route("2001:db8::/32", "2001:db8:1::1"),
            route("2001:db8:2::77/128", "2001:db8:6::1"),
            route("2001:db8:64::/96", "192.0.2.1"),
        ];
        Network::new(&interfaces, &routes)
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
            ("2001:db8:1::7", 0, "2001:db8:1::7"),
            ("2001:db8:2::7", 1, "2001:db8:2::7"),
            ("2001:db8:2::77", 2, "2001:db8:6::1"),
            ("2001:db8:64::7", 0, "2001:db8:1::1"),
            ("2001:db8:9::7", 0, "2001:db8:1::1"),
        ];
        for (address, interface, next_hop) in cases {
            let way = Egress { interface, next_hop: ip(next_hop) };
            assert_eq!(network.egress(ip(address)), Some(way), "{address}");
        }
        assert_eq!(network.egress(ip("3fff::1")), None, "the default route is IPv4's alone");
        assert_eq!(Network::new(&[], &[]).egress(ip("192.0.2.1")), None);
    }

    #[test]
    fn connected_is_what_an_interface_shares_a_prefix_with() {
        let network = example();
        assert_eq!(network.connected(ip("192.0.2.77")), Some(0));
        assert_eq!(network.connected(ip("198.51.100.1")), Some(1));
        assert_eq!(network.connected(ip("198.51.100.200")), None);
        assert_eq!(network.connected(ip("2001:db8:6:0:ffff::")), Some(2));
        assert_eq!(network.connected(ip("2001:db8:6:1::")), None);
        assert_eq!(network.connected_prefix(ip("203.0.113.0")), "203.0.113.0/31".parse().ok());
        assert_eq!(network.connected_prefix(ip("2001:db8:2::77")), "2001:db8:2::/64".parse().ok());
    }

    #[test]
    fn own_addresses_speak_to_their_own_prefix_and_family() {
        let network = example();
        assert_eq!(network.own_address(0, ip("203.0.113.0")), Some(ip("203.0.113.1")));
        assert_eq!(network.own_address(0, ip("10.0.0.1")), Some(ip("192.0.2.254")));
        assert_eq!(network.own_address(1, ip("10.0.0.1")), Some(ip("198.51.100.2")));
        assert_eq!(network.own_address(1, ip("3fff::1")), Some(ip("2001:db8:2::fe")));
        assert_eq!(network.own_address(2, ip("10.0.0.1")), None);
        assert_eq!(network.own_address(3, ip("3fff::1")), None);
    }

    #[test]
    fn own_addresses_know_their_interface() {
        let network = example();
        assert_eq!(network.interface_of(ip("198.51.100.2")), Some(1));
        assert_eq!(network.own_addresses(2), ["2001:db8:6::fe/64".parse().unwrap()]);
        assert_eq!(network.own_addresses(3), []);
        assert!(network.is_own(ip("203.0.113.1")) && !network.is_own(ip("203.0.113.0")));
        assert!(network.is_own(ip("2001:db8:1::fe")) && !network.is_own(ip("2001:db8:1::1")));
    }

    #[test]
    fn own_addresses_are_found_within_prefixes() {
        for (prefix, own) in [
            ("192.0.0.0/8", Some("192.0.2.254")),
            ("192.0.2.254/32", Some("192.0.2.254")),
            ("192.0.2.0/25", None),
            ("198.51.100.0/30", Some("198.51.100.2")),
            ("172.16.0.0/16", None),
            ("2001:db8::/32", Some("2001:db8:1::fe")),
            ("2001:db8:2::f0/124", Some("2001:db8:2::fe")),
            ("2001:db8:3::/48", None),
            ("::/0", Some("2001:db8:1::fe")),
        ] {
            assert_eq!(example().own_within(prefix.parse().unwrap()), own.map(ip), "{prefix}");
        }
    }

    /// Addresses that the prefixes below have something to do with, as often as not.
    fn address() -> impl Strategy<Value = IpAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
        let near = prop_oneof![Just(0_u128), Just(u128::MAX), any::<u128>()];
        let v6 = near.prop_map(|bits| IpAddr::from((0x2001_0db8_u128 << 96 | bits >> 32).to_be_bytes()));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn lookup_equals_a_scan_of_all_prefixes(
            routes in prop::collection::vec((address(), 0..=128_u8, 1..254_u8), 0..40),
            far in address(),
            near in any::<prop::sample::Index>(),
        ) {
            let interfaces = [interface("lan", &["192.0.2.254/24", "2001:db8::fe/64"])];
            let route = |(to, len, via): &(IpAddr, u8, u8)| {
                let most = if to.is_ipv4() { 32 } else { 128 };
                let via = if to.is_ipv4() { format!("192.0.2.{via}") } else { format!("2001:db8::{via:x}") };
                Route { to: IpNet::new(*to, *len % (most + 1)).unwrap().trunc(), via: ip(&via) }
            };
            let routes: Vec<_> = routes.iter().map(route).collect();
            let near = if routes.is_empty() { far } else { near.get(&routes).to.broadcast() };
            let network = Network::new(&interfaces, &routes);
            for address in [far, near] {
                let covering = || routes.iter().filter(|route| route.to.contains(&address));
                let longest = covering().map(|route| route.to.prefix_len()).max();
                let first = covering().find(|route| Some(route.to.prefix_len()) == longest);
                let link = interfaces[0].addresses.iter().find(|own| own.contains(&address));
                let on_link = link.is_some_and(|link| longest <= Some(link.prefix_len()));
                let next_hop = if on_link { Some(address) } else { first.map(|route| route.via) };
                let way = network.egress(address);
                prop_assert_eq!(way.map(|way| way.next_hop), next_hop);
                if let Some(way) = way {
                    prop_assert!(network.own_address(way.interface, way.next_hop).is_some());
                }
            }
        }
    }
}

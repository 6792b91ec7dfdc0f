//! Which addresses are those of one host, anywhere and in a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Fault;
use crate::network::Network;

/// An address that no single host has, wherever it is (RFC 1122, 3.2.1.3; RFC 4291, 2.4).
pub(crate) fn host_fault(address: IpAddr) -> Option<Fault> {
    let kind = match address {
        IpAddr::V4(address) => ipv4_kind(address),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => return Some(Fault::Mapped(address)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => return Some(Fault::LinkLocal(address)),
        IpAddr::V6(address) => ipv6_kind(address),
    };
    kind.map(|kind| Fault::NotAHost { address, kind: kind.to_owned() })
}

fn ipv4_kind(address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if address.octets()[0] == 0 => Some("an address of \"this network\", 0.0.0.0/8"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if address.is_broadcast() => Some("the broadcast address"),
        _ if address.octets()[0] >= 240 => Some("a reserved address, 240.0.0.0/4"),
        _ => None,
    }
}

fn ipv6_kind(address: Ipv6Addr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("the loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    }
}

/// The lowest address of a prefix is no single host's, and the highest one of IPv4 neither, unless the prefix
/// has only one or two (RFC 3021, RFC 6164). In IPv6 the lowest is any router's (RFC 4291, 2.6.1).
fn edge_fault(prefix: IpNet, address: IpAddr) -> Option<Fault> {
    let kind = match address {
        _ if prefix.max_prefix_len() - prefix.prefix_len() <= 1 => return None,
        IpAddr::V4(_) if address == prefix.network() => "network",
        IpAddr::V4(_) if address == prefix.broadcast() => "broadcast",
        IpAddr::V6(_) if address == prefix.network() => "subnet-router anycast",
        _ => return None,
    };
    Some(Fault::NotAHost { address, kind: format!("the {kind} address of {}", prefix.trunc()) })
}

/// An address at the edge of a connected prefix.
pub(crate) fn connected_edge_fault(network: &Network, address: IpAddr) -> Option<Fault> {
    network.connected_prefix(address).and_then(|prefix| edge_fault(prefix, address))
}

/// An address of an interface, with its connected prefix.
pub(crate) fn own_address_fault(address: IpNet) -> Option<Fault> {
    host_fault(address.addr()).or_else(|| edge_fault(address, address.addr()))
}

/// A gateway or neighbour: another host on the link of some interface.
pub(crate) fn link_host_fault(network: &Network, address: IpAddr) -> Option<Fault> {
    if network.is_own(address) {
        return Some(Fault::OwnAddress(address));
    }
    let nowhere = || network.connected(address).is_none().then_some(Fault::NotConnected(address));
    host_fault(address).or_else(nowhere).or_else(|| connected_edge_fault(network, address))
}

/// A prefix as such: of a route, a pool or a class.
pub(crate) fn prefix_fault(prefix: IpNet) -> Option<Fault> {
    let mapped =
        matches!(prefix, IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some());
    if mapped {
        return Some(Fault::Mapped(prefix.addr()));
    }
    (prefix != prefix.trunc()).then_some(Fault::HostBits(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_prefixes_have_no_edges() {
        for (address, fits) in [
            ("203.0.113.0/31", true),
            ("203.0.113.1/31", true),
            ("203.0.113.0/32", true),
            ("203.0.113.0/30", false),
            ("203.0.113.1/30", true),
            ("203.0.113.3/30", false),
            ("2001:db8::/127", true),
            ("2001:db8::/128", true),
            ("2001:db8::/126", false),
            ("2001:db8::3/126", true),
            ("2001:db8::ffff:ffff:ffff:ffff/64", true),
        ] {
            assert_eq!(own_address_fault(address.parse().unwrap()).is_none(), fits, "{address}");
        }
    }

    #[test]
    fn only_addresses_of_one_host_are_one() {
        for (address, told) in [
            ("192.0.2.1", None),
            ("169.254.0.1", None),
            ("2001:db8::1", None),
            ("fd00::1", None),
            ("0.1.2.3", Some("0.1.2.3 is an address of \"this network\", 0.0.0.0/8")),
            ("240.0.0.1", Some("240.0.0.1 is a reserved address, 240.0.0.0/4")),
            ("::", Some(":: is the unspecified address")),
            ("::1", Some("::1 is the loopback address")),
            ("ff02::1", Some("ff02::1 is a multicast address")),
            ("fe80::1", Some("fe80::1 is a link-local address")),
            ("febf::1", Some("febf::1 is a link-local address")),
            ("::ffff:192.0.2.1", Some("::ffff:192.0.2.1 is an IPv4 address mapped into IPv6")),
        ] {
            let fault = host_fault(address.parse().unwrap()).map(|fault| fault.to_string());
            assert_eq!(fault.as_deref(), told);
        }
    }
}

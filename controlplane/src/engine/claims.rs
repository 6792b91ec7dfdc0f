//! Which addresses are ours, and what is to be said of them on the links.
//!
//! Pure. Ours are own addresses, VIPs, addresses of SNAT pools, and on each interface the link-local address
//! of its MAC address. An address is announced when it is new or a link came up: in IPv4 at once and again
//! after two seconds (RFC 5227); in IPv6 first with a question whether somebody else has it (RFC 4862), then
//! as in IPv4. Whatever the answer is, we keep serving it: a balancer that gives its VIP up because a station
//! claims it would be switched off by that station.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use config::network::Network;

use crate::neighbour::Time;

/// Time between asking for an address of ours and announcing it (RFC 4862, 5.1: RetransTimer).
const PROBE_TIME: Duration = Duration::from_secs(1);
/// Time between the two announcements of an address (RFC 5227, 1.1: ANNOUNCE_INTERVAL).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Time between log lines about the same address conflict.
const CONFLICT_INTERVAL: Duration = Duration::from_secs(10);
/// Address conflicts that are remembered at most.
const MAX_CONFLICTS: usize = 1024;

/// What to send of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Whether somebody else has it.
    Probe,
    /// That it is ours.
    Announcement,
}

/// What to make of a station that has an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Only flows of a removed service were left there: it is the station's from now on.
    GivenUp,
    /// It is ours, and the operator is to be told.
    Told,
    /// The operator was told a moment ago.
    Known,
}

/// The addresses we answer for, and what is to be said of them.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By interface.
    link_local: Vec<Ipv6Addr>,
    /// VIPs of configured services, and all addresses of pools that were ever in force.
    shared: HashSet<IpAddr>,
    /// VIPs of which only flows of removed services are left. Given up when another station claims one.
    retired: HashSet<IpAddr>,
    given_up: HashSet<IpAddr>,
    /// What was announced, or will be.
    announced: HashSet<IpAddr>,
    /// To be announced, and when: for the first time, asked for before that in IPv6; then twice.
    first: VecDeque<IpAddr>,
    second: VecDeque<(Time, IpAddr)>,
    last: VecDeque<(Time, IpAddr)>,
    /// When a conflict over an address was last logged.
    conflicts: HashMap<IpAddr, Time>,
}

impl Claims {
    /// Claims nothing but these link-local addresses, one for each interface.
    pub(super) fn new(link_local: Vec<Ipv6Addr>) -> Self {
        Self { link_local, ..Self::default() }
    }

    /// The link-local address of an interface.
    pub(super) fn link_local(&self, interface: usize) -> Ipv6Addr {
        self.link_local.get(interface).copied().unwrap_or(Ipv6Addr::UNSPECIFIED)
    }

    /// Sets the VIPs of configured and of removed services, and the addresses of pools.
    pub(super) fn set(
        &mut self,
        vips: impl IntoIterator<Item = IpAddr>,
        retired: impl IntoIterator<Item = IpAddr>,
        pools: impl IntoIterator<Item = IpAddr>,
    ) {
        self.shared = vips.into_iter().chain(pools).collect();
        self.retired = retired.into_iter().filter(|vip| !self.shared.contains(vip)).collect();
        self.given_up.retain(|vip| self.retired.contains(vip));
        self.retired.retain(|vip| !self.given_up.contains(vip));
    }

    /// Whether we answer for an address on an interface: its link-local address, an own address there, or
    /// another one that does not belong to another interface's prefix.
    pub(super) fn is_ours(&self, network: &Network, interface: usize, address: IpAddr) -> bool {
        if let IpAddr::V6(v6) = address
            && v6.is_unicast_link_local()
        {
            return self.link_local.get(interface) == Some(&v6);
        }
        let here = network.connected(address).is_none_or(|connected| connected == interface);
        here && (network.is_own(address) || self.shared.contains(&address) || self.retired.contains(&address))
    }

    /// Notes that another station has an address of ours.
    pub(super) fn conflict(&mut self, address: IpAddr, now: Time) -> Conflict {
        if self.retired.remove(&address) {
            self.given_up.insert(address);
            return Conflict::GivenUp;
        }
        let known = |then: &Time| now - *then < CONFLICT_INTERVAL;
        if self.conflicts.get(&address).is_some_and(known) {
            return Conflict::Known;
        }
        if self.conflicts.len() >= MAX_CONFLICTS {
            self.conflicts.retain(|_, then| known(then));
        }
        self.conflicts.insert(address, now);
        Conflict::Told
    }

    /// Has those of these addresses announced that are new. All others are not ours any more.
    pub(super) fn announce(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut before = std::mem::take(&mut self.announced);
        for address in addresses {
            if self.announced.insert(address) && !before.remove(&address) {
                self.first.push_back(address);
            }
        }
    }

    /// Has everything announced again that is announced from now on, as when a link came up.
    pub(super) fn forget_announced(&mut self) {
        self.announced.clear();
    }

    /// The next notice that is due.
    pub(super) fn next_notice(&mut self, now: Time) -> Option<(Notice, IpAddr)> {
        if let Some(address) = self.first.pop_front() {
            if address.is_ipv6() {
                self.second.push_back((now + PROBE_TIME, address));
                return Some((Notice::Probe, address));
            }
            self.last.push_back((now + ANNOUNCE_INTERVAL, address));
            return Some((Notice::Announcement, address));
        }
        if let Some(address) = pop_due(&mut self.second, now) {
            self.last.push_back((now + ANNOUNCE_INTERVAL, address));
            return Some((Notice::Announcement, address));
        }
        Some((Notice::Announcement, pop_due(&mut self.last, now)?))
    }
}

fn pop_due(queue: &mut VecDeque<(Time, IpAddr)>, now: Time) -> Option<IpAddr> {
    let (due, address) = *queue.front()?;
    if due > now {
        return None;
    }
    queue.pop_front();
    Some(address)
}

#[cfg(test)]
mod tests {
    use config::model::{Interface, Tags};

    use super::*;

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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn secs(count: u64) -> Time {
        Duration::from_secs(count)
    }

    fn claims() -> (Claims, Network) {
        let interfaces = [
            interface("lan", &["192.0.2.254/24", "2001:db8:1::fe/64"]),
            interface("wan", &["198.51.100.254/24"]),
        ];
        let link_local = ["fe80::1", "fe80::2"].map(|text| text.parse().unwrap());
        (Claims::new(link_local.to_vec()), Network::new(&interfaces, &[]))
    }

    #[test]
    fn ours_is_what_no_other_interface_has() {
        let (mut claims, network) = claims();
        let vips = ["192.0.2.100", "203.0.113.1", "2001:db8:1::100"].map(ip);
        claims.set(vips, [ip("198.51.100.9")], [ip("198.51.100.200")]);
        for (address, ours) in [
            ("192.0.2.254", [true, false]),
            ("2001:db8:1::fe", [true, false]),
            ("198.51.100.254", [false, true]),
            ("192.0.2.100", [true, false]),
            ("203.0.113.1", [true, true]),
            ("2001:db8:1::100", [true, false]),
            ("198.51.100.9", [false, true]),
            ("198.51.100.200", [false, true]),
            ("192.0.2.7", [false, false]),
            ("fe80::1", [true, false]),
            ("fe80::2", [false, true]),
            ("fe80::3", [false, false]),
        ] {
            assert_eq!([0, 1].map(|at| claims.is_ours(&network, at, ip(address))), ours, "{address}");
        }
    }

    #[test]
    fn a_removed_vip_is_given_up_and_any_other_conflict_is_told_now_and_then() {
        let (mut claims, network) = claims();
        let (vip, removed) = (ip("192.0.2.100"), ip("192.0.2.101"));
        claims.set([vip], [vip, removed], []);
        let told = |claims: &mut Claims, at| claims.conflict(vip, secs(at));
        assert_eq!(
            [0, 9, 10].map(|at| told(&mut claims, at)),
            [Conflict::Told, Conflict::Known, Conflict::Told]
        );
        assert_eq!(claims.conflict(removed, secs(0)), Conflict::GivenUp);
        claims.set([vip], [removed], []);
        assert!(!claims.is_ours(&network, 0, removed), "as long as it is not configured again");
        claims.set([vip, removed], [], []);
        assert!(claims.is_ours(&network, 0, removed) && claims.is_ours(&network, 0, vip));
    }

    /// What is to be said up to a time.
    fn notices(claims: &mut Claims, at: u64) -> Vec<(Notice, String)> {
        std::iter::from_fn(|| claims.next_notice(secs(at)))
            .map(|(notice, address)| (notice, address.to_string()))
            .collect()
    }

    #[test]
    fn announcements_come_twice_and_after_a_probe_in_ipv6() {
        let (mut claims, _) = claims();
        let both = ["192.0.2.100", "2001:db8:1::100"].map(ip);
        let say = |notice, at: usize| (notice, both[at].to_string());
        claims.announce(both);
        assert_eq!(notices(&mut claims, 0), [say(Notice::Announcement, 0), say(Notice::Probe, 1)]);
        assert_eq!(notices(&mut claims, 1), [say(Notice::Announcement, 1)]);
        assert_eq!(notices(&mut claims, 2), [say(Notice::Announcement, 0)]);
        assert_eq!(notices(&mut claims, 3), [say(Notice::Announcement, 1)]);
        claims.announce(both);
        assert!(notices(&mut claims, 100).is_empty(), "nothing is new");
        claims.forget_announced();
        claims.announce([both[0]]);
        assert_eq!(notices(&mut claims, 100), [say(Notice::Announcement, 0)]);
    }
}

//! Ports are taken once, lead to their flows, and come back.

use super::*;
use crate::snapshot::ServiceSlot;
use proptest::prelude::*;
use std::collections::HashMap;

const SLOT: LocalSlot = LocalSlot(7);

fn key(number: u32) -> FlowKey {
    FlowKey::new(!number, number as u16, ServiceSlot(3))
}

fn wide(number: u32) -> WideKey {
    WideKey::new(1 << 64 | u128::from(number), number as u16, ServiceSlot(3), 80)
}

fn narrow_of(local: &LocalPorts, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<FlowKey> {
    local.narrow_key(local.locate(slot, protocol, port)?)
}

fn wide_of(local: &LocalPorts, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<WideKey> {
    local.wide_key(local.locate(slot, protocol, port)?)
}

fn hash_of(local: &LocalPorts, slot: LocalSlot, protocol: Protocol, port: u16) -> Option<FlowHash> {
    local.wide_hash(local.locate(slot, protocol, port)?)
}

fn introduction_of(local: &mut LocalPorts, port: u16) -> Option<&mut Introduction> {
    local.introduction(local.locate(SLOT, Protocol::Tcp, port)?)
}

fn address(last: u8) -> IpAddr {
    [198, 51, 100, last].into()
}

fn ports(workers: usize, worker: usize) -> LocalPorts {
    let owners = Owners::new(workers);
    let addresses = LocalAddresses::new(&[address(200)], &owners, worker);
    let mut ports = LocalPorts::new(owners, worker);
    ports.install(SLOT, addresses);
    ports
}

#[test]
fn workers_share_all_ports_and_none_twice() {
    let mut owner = HashMap::new();
    let owners = Owners::new(3);
    for worker in 0..3 {
        let mut local = ports(3, worker);
        for number in 0..local.free(SLOT, Protocol::Udp) {
            let port = local.take(SLOT, Protocol::Udp, key(number as u32)).unwrap();
            assert_eq!(owners.of_words(toeplitz::words(address(200)) ^ port), worker);
            assert_eq!(owner.insert(port, worker), None);
        }
        assert_eq!(local.take(SLOT, Protocol::Udp, key(0)), None, "exhausted");
        let are_spent = |local: &LocalPorts, protocol| local.are_spent(&[SLOT], protocol);
        assert!(are_spent(&local, Protocol::Udp) && !are_spent(&local, Protocol::Tcp));
        assert!(!local.are_spent(&[], Protocol::Udp), "of no address it is not known");
        assert!(local.are_spent(&[SLOT, LocalSlot(8)], Protocol::Udp), "one that is not here has none");
        local.give_back(SLOT, Protocol::Udp, *owner.iter().find(|(_, its)| **its == worker).unwrap().0);
        assert!(!are_spent(&local, Protocol::Udp) && !local.is_any_spent());
        assert!(local.take(SLOT, Protocol::Udp, key(0)).is_some());
        assert!(local.take(SLOT, Protocol::Tcp, key(0)).is_some(), "protocols have ports of their own");
    }
    assert_eq!(owner.len(), 65_536 - 1024);
    assert!(owner.keys().all(|port| *port >= 1024));
}

#[test]
fn a_group_may_come_without_ports_and_another_one_instead_of_it() {
    let owners = Owners::new(2);
    let group = LocalAddresses::new(&[address(200), address(201)], &owners, 1);
    let mut local = LocalPorts::new(owners, 1);
    local.install(SLOT, group.clone().spent());
    let slots = [SLOT, LocalSlot(SLOT.0 + 1)];
    assert!(local.is_any_spent() && local.are_spent(&slots, Protocol::Udp));
    assert_eq!(local.take(SLOT, Protocol::Udp, key(1)), None);
    local.install(SLOT, group);
    assert!(!local.is_any_spent() && local.take(slots[1], Protocol::Udp, key(1)).is_some());
}

/// Of three workers the last one owns fewer ports, and has fewer places: a port of another worker at one of these addresses
/// would be where the same port of the next address is, for their words differ by the right bits.
#[test]
fn ports_of_other_workers_are_not_found() {
    let owners = Owners::new(3);
    let mut local = LocalPorts::new(owners.clone(), 2);
    let all = ["198.51.100.200", "198.51.236.96", "198.51.86.168"].map(|text| text.parse().unwrap());
    assert!(
        [(0, 1, 0x88a8), (1, 2, 0xbac8)]
            .into_iter()
            .all(|(one, other, bits)| { toeplitz::words(all[one]) ^ toeplitz::words(all[other]) == bits })
    );
    local.install(SLOT, LocalAddresses::new(&all, &owners, 2));
    let slots = [0, 1, 2].map(|number| LocalSlot(SLOT.0 + number));
    let both = [Protocol::Tcp, Protocol::Udp];
    for (slot, protocol) in slots.into_iter().flat_map(|slot| both.map(|protocol| (slot, protocol))) {
        while local.take(slot, protocol, key(1)).is_some() {}
    }
    for (slot, address) in slots.into_iter().zip(all) {
        let is_owned = |port: &u16| owners.of(address, *port) == 2;
        for protocol in both {
            let found = (1024..=u16::MAX).filter(|port| narrow_of(&local, slot, protocol, *port).is_some());
            assert!(found.eq((1024..=u16::MAX).filter(is_owned)));
        }
    }
}

#[test]
fn a_port_rests_for_as_long_as_it_can() {
    let mut local = ports(64, 5);
    let all = local.free(SLOT, Protocol::Tcp);
    let take = |local: &mut LocalPorts| local.take(SLOT, Protocol::Tcp, key(1)).unwrap();
    let (first, second) = (take(&mut local), take(&mut local));
    local.give_back(SLOT, Protocol::Tcp, second);
    local.give_back(SLOT, Protocol::Tcp, first);
    let order: Vec<_> = (0..all).map(|_| take(&mut local)).collect();
    assert_eq!(order[all - 2..], [second, first]);
    assert!(!order.is_sorted(), "nor is it easy to guess");
}

#[test]
fn as_many_places_are_asked_for_early_as_a_burst_takes() {
    let mut local = ports(64, 5);
    let asked = |local: &LocalPorts| usize::from(local.stock(SLOT, Protocol::Tcp).asked);
    (0..2 * BURST).for_each(|_| local.foresee(SLOT, Protocol::Tcp));
    local.foresee(LocalSlot(8), Protocol::Tcp);
    assert_eq!((asked(&local), local.stock(SLOT, Protocol::Udp).asked), (BURST, 0));
    for left in (0..BURST).rev().chain([0; 4]) {
        local.take(SLOT, Protocol::Tcp, key(1)).unwrap();
        assert_eq!(asked(&local), left);
    }
    while local.take(SLOT, Protocol::Tcp, key(1)).is_some() {}
    local.foresee(SLOT, Protocol::Tcp);
    assert_eq!(asked(&local), 0, "there is none");
}

#[test]
fn only_taken_ports_of_installed_addresses_are_known() {
    let mut local = ports(2, 0);
    let port = local.take(SLOT, Protocol::Tcp, key(9)).unwrap();
    local.prefetch(local.locate(SLOT, Protocol::Tcp, port).unwrap());
    assert_eq!(narrow_of(&local, SLOT, Protocol::Tcp, port), Some(key(9)));
    assert_eq!(narrow_of(&local, SLOT, Protocol::Udp, port), None);
    assert_eq!(narrow_of(&local, LocalSlot(8), Protocol::Tcp, port), None);
    assert_eq!(local.take(LocalSlot(8), Protocol::Tcp, key(1)), None);
    let known = (0..=u16::MAX).filter(|port| narrow_of(&local, SLOT, Protocol::Tcp, *port).is_some());
    assert_eq!(known.collect::<Vec<_>>(), [port]);
    let free = local.free(SLOT, Protocol::Tcp);
    for other in (0..=u16::MAX).filter(|other| *other != port) {
        local.give_back(SLOT, Protocol::Tcp, other);
    }
    assert_eq!(local.free(SLOT, Protocol::Tcp), free, "what is not taken cannot be given back");
}

#[test]
fn a_port_leads_to_a_flow_of_either_kind() {
    let owners = Owners::new(1);
    let addresses = ["2001:db8::1".parse().unwrap(), address(200), "2001:db8::2".parse().unwrap()];
    let mut local = LocalPorts::new(owners.clone(), 0);
    local.install(SLOT, LocalAddresses::new(&addresses, &owners, 0));
    for (slot, is_v4) in (SLOT.0..).map(LocalSlot).zip([false, true, false]) {
        let (hash, protocol) = (FlowHash::from_bits(0), Protocol::Udp);
        let port = local.take(slot, protocol, (&wide(7), hash)).unwrap();
        assert_eq!(narrow_of(&local, slot, protocol, port), None, "no narrow one has had a port here");
        assert_eq!(wide_of(&local, slot, protocol, port), (!is_v4).then_some(wide(7)));
        assert_eq!(hash_of(&local, slot, protocol, port).is_some(), is_v4, "also of 0");
        let narrow = local.take(slot, protocol, key(8)).unwrap();
        assert_eq!(narrow_of(&local, slot, protocol, narrow), Some(key(8)));
        assert_eq!(narrow_of(&local, slot, protocol, port).is_some(), is_v4, "and that is nobody's");
        assert_eq!(
            hash_of(&local, slot, protocol, port).is_some(),
            is_v4,
            "the other kind is found as before"
        );
        local.take(slot, protocol, (&wide(9), hash)).unwrap();
        assert_eq!(narrow_of(&local, slot, protocol, narrow), Some(key(8)));
        local.give_back(slot, protocol, port);
        assert_eq!(
            (wide_of(&local, slot, protocol, port), hash_of(&local, slot, protocol, port)),
            (None, None)
        );
        assert_eq!(narrow_of(&local, slot, protocol, narrow), Some(key(8)));
    }
}

#[test]
fn a_port_of_an_address_that_was_replaced_is_not_given_back() {
    let owners = Owners::new(1);
    let group = LocalAddresses::new(&[address(200)], &owners, 0);
    let mut local = LocalPorts::new(owners, 0);
    local.install(SLOT, group.clone());
    let port = local.take(SLOT, Protocol::Tcp, key(1)).unwrap();
    local.install(SLOT, group);
    let free = local.free(SLOT, Protocol::Tcp);
    local.give_back(SLOT, Protocol::Tcp, port);
    assert_eq!((local.free(SLOT, Protocol::Tcp), narrow_of(&local, SLOT, Protocol::Tcp, port)), (free, None));
}

#[test]
fn whoever_takes_a_port_is_not_introduced_yet() {
    for address in [address(200), "2001:db8::1".parse().unwrap()] {
        let owners = Owners::new(64);
        let mut local = LocalPorts::new(owners.clone(), 5);
        local.install(SLOT, LocalAddresses::new(&[address], &owners, 5));
        let all = local.free(SLOT, Protocol::Tcp);
        for taken in 0..2 * all {
            let port = local.take(SLOT, Protocol::Tcp, key(1)).unwrap();
            let introduction = introduction_of(&mut local, port).unwrap();
            assert!(!introduction.is_over(), "{taken}");
            introduction.end();
            local.give_back(SLOT, Protocol::Tcp, port);
            assert_eq!(introduction_of(&mut local, port), None);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn ports_are_taken_once_and_lead_back(
        steps in prop::collection::vec((0..3, 0u8..3, any::<bool>(), any::<prop::sample::Index>()), 0..400),
    ) {
        let owners = Owners::new(100);
        let mut local = LocalPorts::new(owners.clone(), 99);
        let addresses = [address(200), "2001:db8::1".parse().unwrap(), address(202)];
        for (slot, group) in [(0, &addresses[..2]), (2, &addresses[2..])] {
            local.install(LocalSlot(slot), LocalAddresses::new(group, &owners, 99));
        }
        let mut taken: Vec<((LocalSlot, Protocol, u16), FlowKey)> = Vec::new();
        for (number, (take, slot, tcp, which)) in steps.into_iter().enumerate() {
            let (slot, protocol) = (LocalSlot(slot), if tcp { Protocol::Tcp } else { Protocol::Udp });
            if take != 0 {
                let free = local.free(slot, protocol);
                match local.take(slot, protocol, key(number as u32)) {
                    Some(port) => {
                        let key = (slot, protocol, port);
                        prop_assert!(taken.iter().all(|(other, _)| *other != key));
                        taken.push((key, self::key(number as u32)));
                    }
                    None => prop_assert_eq!(free, 0),
                }
            } else if !taken.is_empty() {
                let ((slot, protocol, port), _) = taken.swap_remove(which.index(taken.len()));
                local.give_back(slot, protocol, port);
                prop_assert_eq!(narrow_of(&local, slot, protocol, port), None);
            }
            for ((slot, protocol, port), key) in &taken {
                prop_assert_eq!(narrow_of(&local, *slot, *protocol, *port), Some(*key));
            }
        }
    }
}

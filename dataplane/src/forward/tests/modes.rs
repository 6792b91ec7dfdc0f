//! Every mode with every IP version, tagged and in pieces.

use super::*;
use crate::rewrite::tunnel::Encapsulation;
use crate::samples::{Sample, datagram, syn};
use crate::snapshot::Tunnel;
use crate::wire::eth::Tags;

const CLIENTS: [&str; 2] = ["203.0.113.7:40000", "[2001:db8:c::7]:40000"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];
const BACKENDS: [&str; 2] = ["198.51.100.11:8000", "[2001:db8:b::11]:8000"];

/// A world with one service of each protocol on a VIP, and one backend.
pub(super) fn world(vip: &str, backend: &str, mode: Mode) -> crate::snapshot::Parts {
    let services = ["tcp", "udp"].map(|protocol| {
        let slot = u32::from(protocol == "udp");
        Some(testing::service(&format!("{protocol}:{vip}"), &[(slot, 1)]).into())
    });
    let backends = [0, 1].map(|service| Some(testing::backend(service, backend, mode)));
    crate::snapshot::Parts { services: services.into(), backends: backends.into(), ..testing::parts() }
}

fn path(vip: &str, backend: &str, mode: Mode) -> Path {
    Path::new(Snapshot::new(world(vip, backend, mode)))
}

fn port_80(backend: &str) -> String {
    backend.replace(":8000", ":80")
}

#[test]
fn nat_rewrites_both_ways_in_both_versions() {
    for version in [0, 1] {
        let mut path = path(VIPS[version], BACKENDS[version], Mode::Nat);
        for to_vip in [syn(CLIENTS[version], VIPS[version]), datagram(CLIENTS[version], VIPS[version])] {
            let at_backend = Sample { dst: BACKENDS[version].parse().unwrap(), ttl: 63, ..to_vip.clone() };
            assert_eq!(path.pass(to_vip.frame()), End::Sent(at_backend.sent(11, 254)));
            let reply = Sample { src: at_backend.dst, dst: to_vip.src, ..to_vip.clone() };
            let at_client = Sample { src: to_vip.dst, ttl: 63, ..reply.clone() };
            assert_eq!(path.pass(reply.frame()), End::Sent(at_client.sent(1, 254)));
        }
    }
}

#[test]
fn dr_changes_macs_and_hop_limit_only() {
    for version in [0, 1] {
        let mut path = path(VIPS[version], &port_80(BACKENDS[version]), Mode::Dr);
        let to_vip = syn(CLIENTS[version], VIPS[version]);
        let at_backend = Sample { ttl: 63, ..to_vip.clone() };
        assert_eq!(path.pass(to_vip.frame()), End::Sent(at_backend.sent(11, 254)));
    }
}

#[test]
fn tunnels_carry_either_version_in_either() {
    for (outer, inner) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut path = path(VIPS[inner], &port_80(BACKENDS[outer]), Mode::Tunnel);
        let to_vip = syn(CLIENTS[inner], VIPS[inner]);
        let End::Sent(frame) = path.pass(to_vip.frame()) else { panic!("{outer} {inner}") };
        let carried = Sample { ttl: 63, ..to_vip }.ip();
        let (header_len, next_at) = if outer == 0 { (20, 9) } else { (40, 6) };
        assert_eq!(frame[14 + header_len..], carried);
        assert_eq!(frame[14 + next_at], if inner == 0 { 4 } else { 41 });
        assert_eq!(frame[..6], mac(11).0);
    }
}

#[test]
fn a_tunnel_of_gue_keeps_its_source_port_for_a_flow() {
    let mut parts = world(VIPS[0], &port_80(BACKENDS[0]), Mode::Tunnel);
    let encapsulation = Encapsulation::Gue { port: 6080, checksum: false };
    parts.backends[0].as_mut().unwrap().tunnel = Some(Tunnel { src: OWN.into(), encapsulation });
    let mut path = Path::new(Snapshot::new(parts));
    let mut port_of = |client: &str| match path.pass(syn(client, VIPS[0]).frame()) {
        End::Sent(frame) => u16::from_be_bytes([frame[34], frame[35]]),
        other => panic!("{other:?}"),
    };
    let first = port_of("203.0.113.7:40000");
    assert_eq!(port_of("203.0.113.7:40000"), first);
    let others: Vec<_> = (1..20).map(|last| port_of(&format!("203.0.113.7:{}", 40000 + last))).collect();
    assert!(others.iter().any(|port| *port != first));
}

#[test]
fn frames_leave_with_the_tags_of_their_interface() {
    let tags = [Tags { outer: 0, inner: 7 }, Tags { outer: 8, inner: 7 }];
    for tags in tags {
        let mut parts = world(VIPS[1], BACKENDS[1], Mode::Nat);
        parts.interfaces[0].tags = tags;
        let mut path = Path::new(Snapshot::new(parts));
        let to_vip = Sample { tags, ..syn(CLIENTS[1], VIPS[1]) };
        let at_backend = Sample { dst: BACKENDS[1].parse().unwrap(), ttl: 63, ..to_vip.clone() };
        assert_eq!(path.pass(to_vip.frame()), End::Sent(at_backend.sent(11, 254)));
    }
}

#[test]
fn pieces_follow_their_first_one_in_any_order() {
    for version in [0, 1] {
        let mut path = path(VIPS[version], BACKENDS[version], Mode::Nat);
        let whole = Sample {
            payload: (0..100).collect(),
            dont_fragment: false,
            ..datagram(CLIENTS[version], VIPS[version])
        };
        let at_backend = Sample { dst: BACKENDS[version].parse().unwrap(), ttl: 63, ..whole.clone() };
        let (first, second, third) = ((0, 48), (48, 48), (96, 48));
        assert_eq!(path.offer(whole.piece(third.0, third.1).frame()), []);
        assert_eq!(path.stats.held.get(), 1);
        let (piece, sent) = (whole.piece(first.0, first.1), at_backend.piece(first.0, first.1));
        assert_eq!(path.offer(piece.frame()), [End::Sent(sent.sent(11, 254))]);
        let sent = at_backend.piece(third.0, third.1);
        assert_eq!(path.offer_ready(), [End::Sent(sent.sent(11, 254))]);
        let (piece, sent) = (whole.piece(second.0, second.1), at_backend.piece(second.0, second.1));
        assert_eq!(path.offer(piece.frame()), [End::Sent(sent.sent(11, 254))]);
        assert_eq!(path.stats.held.get(), 0);
    }
}

#[test]
fn a_piece_that_waits_in_vain_is_counted() {
    let mut path = path(VIPS[0], BACKENDS[0], Mode::Nat);
    let whole = Sample { payload: vec![0; 100], dont_fragment: false, ..datagram(CLIENTS[0], VIPS[0]) };
    assert_eq!(path.offer(whole.piece(48, 48).frame()), []);
    path.now += 6;
    path.housekeeping();
    assert_eq!((path.stats.held.get(), path.stats.drops.get(DropReason::FragmentTimeout)), (0, 1));
}

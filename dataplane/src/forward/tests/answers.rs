//! What senders are told when a packet goes no further.

use config::words::{NoBackend, NoFlow};

use super::*;
use crate::samples::{Body, Sample, datagram, is_valid, syn};
use crate::snapshot::Parts;

const CLIENTS: [&str; 2] = ["203.0.113.7:40000", "[2001:db8:c::7]:40000"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];
const BACKENDS: [&str; 2] = ["198.51.100.11:80", "[2001:db8:b::11]:80"];

/// A world whose service has no backends and answers so.
fn world(version: usize, choice: NoBackend) -> Parts {
    let mut parts = modes::world(VIPS[version], BACKENDS[version], Mode::Nat);
    for service in parts.services.iter_mut().flatten() {
        let service = Arc::make_mut(service);
        service.candidates.clear();
        service.no_backend = choice;
    }
    parts.no_service = choice;
    parts
}

/// What an answer says: protocol or next header, and the two bytes that tell what it is.
fn said(version: usize, frame: &[u8]) -> (u8, u8, u8) {
    let (next, l4) = if version == 0 { (frame[14 + 9], 34) } else { (frame[14 + 6], 54) };
    assert!(is_valid(&frame[14..]));
    (next, frame[l4], frame[l4 + 1])
}

#[test]
fn without_a_backend_or_service_the_operator_chooses_the_answer() {
    let unreachable = [(1, 3, 3), (58, 1, 4)];
    for version in [0, 1] {
        let other = VIPS[version].replace(":80", ":81").replace("81]", "80]");
        for (vip, why) in [(VIPS[version], DropReason::NoBackend), (&other, DropReason::NoService)] {
            let (tcp, udp) = (syn(CLIENTS[version], vip), datagram(CLIENTS[version], vip));
            let mut path = Path::new(Snapshot::new(world(version, NoBackend::Drop)));
            assert_eq!(path.pass(tcp.frame()), End::Dropped(why));
            let mut path = Path::new(Snapshot::new(world(version, NoBackend::Icmp)));
            for packet in [&tcp, &udp] {
                let End::Sent(frame) = path.pass(packet.frame()) else { panic!("{vip}") };
                assert_eq!(said(version, &frame), unreachable[version]);
            }
            let mut path = Path::new(Snapshot::new(world(version, NoBackend::Rst)));
            let End::Sent(reset) = path.pass(tcp.frame()) else { panic!("{vip}") };
            assert_eq!((said(version, &reset).0, reset[reset.len() - 7]), (6, RST | ACK));
            let End::Sent(frame) = path.pass(udp.frame()) else { panic!("{vip}") };
            assert_eq!(said(version, &frame), unreachable[version]);
            assert_eq!(path.stats.answered_for.get(why), 2);
        }
    }
}

#[test]
fn what_belongs_to_no_connection_meets_the_operators_choice() {
    for version in [0, 1] {
        let path = |choice| {
            let mut parts = modes::world(VIPS[version], BACKENDS[version], Mode::Dr);
            for service in parts.services.iter_mut().flatten() {
                Arc::make_mut(service).no_flow = choice;
            }
            Path::new(Snapshot::new(parts))
        };
        let segment = |flags| Sample {
            body: Body::Tcp { flags, options: Vec::new() },
            ..syn(CLIENTS[version], VIPS[version])
        };
        let refused = End::Dropped(DropReason::NoFlowNotSyn);
        assert_eq!(path(NoFlow::Drop).pass(segment(ACK).frame()), refused);
        let mut answers = path(NoFlow::Rst);
        let End::Sent(reset) = answers.pass(segment(ACK).frame()) else { panic!() };
        assert_eq!((said(version, &reset).0, reset[reset.len() - 7]), (6, RST));
        assert!(answers.forwarder.flows().is_empty());
        let mut takes = path(NoFlow::Schedule);
        for flags in [ACK, FIN | ACK] {
            let End::Sent(frame) = takes.pass(segment(flags).frame()) else { panic!() };
            assert_eq!(frame[5], 11);
        }
        assert_eq!(takes.forwarder.flows().len(), 1);
        // Nobody answers a reset, and none opens a flow.
        for choice in [NoFlow::Rst, NoFlow::Schedule] {
            assert_eq!(path(choice).pass(segment(RST).frame()), refused);
        }
    }
}

#[test]
fn the_last_hop_is_told_and_no_more_often_than_allowed() {
    for version in [0, 1] {
        let mut parts = modes::world(VIPS[version], BACKENDS[version], Mode::Dr);
        parts.icmp_rate = 2;
        let mut path = Path::new(Snapshot::new(parts));
        let tired = Sample { ttl: 1, ..syn(CLIENTS[version], VIPS[version]) };
        for _ in 0..2 {
            let End::Sent(frame) = path.pass(tired.frame()) else { panic!() };
            assert_eq!(said(version, &frame), [(1, 11, 0), (58, 3, 0)][version]);
        }
        assert_eq!(path.pass(tired.frame()), End::Dropped(DropReason::TtlExceeded));
        path.now += 1;
        assert!(matches!(path.pass(tired.frame()), End::Sent(_)));
    }
}

#[test]
fn a_packet_too_long_for_its_tunnel_is_answered_with_the_length_that_fits() {
    for (inner, outer) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut path = Path::new(Snapshot::new(modes::world(VIPS[inner], BACKENDS[outer], Mode::Tunnel)));
        let overhead = [20, 40][outer];
        let headers = [40, 60][inner];
        let long = |more| Sample {
            payload: vec![0; 1500 - overhead - headers + more],
            body: Body::Tcp { flags: SYN, options: Vec::new() },
            ..syn(CLIENTS[inner], VIPS[inner])
        };
        let End::Sent(frame) = path.pass(long(1).frame()) else { panic!() };
        assert_eq!(said(inner, &frame), [(1, 3, 4), (58, 2, 0)][inner]);
        let at = [34, 54][inner];
        let mtu = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
        assert_eq!(mtu as usize, 1500 - overhead);
        let End::Sent(frame) = path.pass(long(0).frame()) else { panic!() };
        assert_eq!(frame.len(), 1514);
    }
}

#[test]
fn nobody_is_told_of_less_than_every_ipv6_link_takes() {
    let mut parts = modes::world(VIPS[1], BACKENDS[1], Mode::Tunnel);
    parts.interfaces[0].mtu = 1300;
    let mut path = Path::new(Snapshot::new(parts));
    let of_len = |len: usize| Sample { payload: vec![0; len - 60], ..syn(CLIENTS[1], VIPS[1]) };
    let End::Sent(frame) = path.pass(of_len(1281).frame()) else { panic!() };
    assert_eq!((said(1, &frame), &frame[58..62]), ((58, 2, 0), &1280u32.to_be_bytes()[..]));
    assert_eq!(path.pass(of_len(1280).frame()), End::Dropped(DropReason::TooBig));
    assert!(matches!(path.pass(of_len(1260).frame()), End::Sent(_)));
}

#[test]
fn a_client_with_an_address_of_ours_is_none() {
    for (version, own) in [(0, "198.51.100.254:9"), (1, "[2001:db8:b::254]:9")] {
        let mut path = Path::new(Snapshot::new(modes::world(VIPS[version], BACKENDS[version], Mode::Nat)));
        let end = path.pass(syn(own, VIPS[version]).frame());
        assert_eq!(end, End::Dropped(DropReason::MartianAddress));
    }
}

//! Full NAT: both ends of a packet change, and the reply comes back to a local address.

use std::net::SocketAddr;

use super::*;
use crate::local::{LocalAddress, LocalSlot};
use crate::measure::Times;
use crate::samples::{Body, Sample, datagram, syn};
use crate::snapshot::{Gateway, Parts, Pool, PoolSlot};

const LOCAL: &str = "198.51.100.200";
const VIP: &str = "192.0.2.100:80";
const BACKEND: &str = "198.51.100.11:8000";
const CLIENT: &str = "203.0.113.7:40000";

/// A world with one service of each protocol and one local address.
fn parts() -> Parts {
    let mut parts = modes::world(VIP, BACKEND, Mode::FullNat);
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).pool = Some(PoolSlot(0));
    }
    parts.locals = vec![LOCAL.parse().unwrap()];
    parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: Vec::new() }];
    parts
}

fn path_of(parts: Parts, number: usize, workers: usize) -> Path {
    let mut path = Path::of(Snapshot::new(parts), number, workers, 100);
    let local = LocalAddress::new(LOCAL.parse().unwrap(), &Owners::new(workers), number);
    path.forwarder.install(LocalSlot(0), Box::new(local));
    path
}

/// The local endpoint from which a request reaches the backend; everything else of it is checked.
fn sent_from(path: &mut Path, request: &Sample) -> SocketAddr {
    let End::Sent(frame) = path.pass(request.frame()) else { panic!("not sent") };
    let port = u16::from_be_bytes([frame[34], frame[35]]);
    let src = SocketAddr::new(LOCAL.parse().unwrap(), port);
    let at_backend = Sample { src, dst: BACKEND.parse().unwrap(), ttl: 63, ..request.clone() };
    assert_eq!(frame, at_backend.sent(11, 254));
    src
}

fn reply_to(local: SocketAddr, request: &Sample) -> Sample {
    Sample { src: BACKEND.parse().unwrap(), dst: local, ..request.clone() }
}

#[test]
fn both_ends_change_there_and_back() {
    let mut path = path_of(parts(), 0, 1);
    for request in [syn(CLIENT, VIP), datagram(CLIENT, VIP)] {
        let local = sent_from(&mut path, &request);
        assert!(local.port() >= 1024);
        assert_eq!(sent_from(&mut path, &request), local, "a flow keeps its port");
        let at_client = Sample { src: request.dst, dst: request.src, ttl: 63, ..request.clone() };
        assert_eq!(path.pass(reply_to(local, &request).frame()), End::Sent(at_client.sent(1, 254)));
        let stranger = Sample { src: "198.51.100.12:8000".parse().unwrap(), ..reply_to(local, &request) };
        assert_ne!(path.pass(stranger.frame()), End::Sent(at_client.sent(1, 254)));
    }
}

#[test]
fn ports_are_given_back_when_their_flows_end_and_are_exhausted_when_none_is_left() {
    let mut path = path_of(parts(), 0, 1);
    let local = sent_from(&mut path, &syn(CLIENT, VIP));
    assert_eq!(path.stats.local_ports(LocalSlot(0)).get(), 1);
    path.now += 1000;
    (0..20).for_each(|_| path.housekeeping());
    assert_eq!(path.stats.local_ports(LocalSlot(0)).get(), 0);
    assert_eq!(path.pass(reply_to(local, &syn(CLIENT, VIP)).frame()), End::Dropped(DropReason::NoFlow));
    let mut without = parts();
    without.pools[0].v4.clear();
    path.snapshot = Snapshot::new(without);
    assert_eq!(path.pass(syn(CLIENT, VIP).frame()), End::Dropped(DropReason::LocalPortsExhausted));
}

#[test]
fn replies_come_home_to_the_worker_whose_port_it_is() {
    let workers = 4;
    let mut team: Vec<Path> = (0..workers).map(|number| path_of(parts(), number, workers)).collect();
    for port in 40000..40032 {
        let request = syn(&format!("203.0.113.7:{port}"), VIP);
        let owner = Owners::new(workers).of(request.src.ip(), port);
        let local = sent_from(&mut team[owner], &request);
        for (number, path) in team.iter_mut().enumerate() {
            let end = path.pass(reply_to(local, &request).frame());
            match number == owner {
                true => assert!(matches!(end, End::Sent(_)), "{end:?}"),
                false => assert_eq!(end, End::HandedOver(owner)),
            }
        }
    }
}

#[test]
fn a_gateway_hides_its_inside_behind_the_pool() {
    let mut parts = parts();
    parts.interfaces[0].gateway = Some(Gateway { pool: Some(PoolSlot(0)) });
    let mut path = path_of(parts, 0, 1);
    let (inside, world) = ("198.51.100.12:5000", "203.0.113.9:443");
    for request in [syn(inside, world), datagram(inside, world)] {
        let End::Sent(frame) = path.pass(request.frame()) else { panic!() };
        let local = SocketAddr::new(LOCAL.parse().unwrap(), u16::from_be_bytes([frame[34], frame[35]]));
        assert_eq!(frame, Sample { src: local, ttl: 63, ..request.clone() }.sent(1, 254));
        let reply = Sample { src: request.dst, dst: local, ..request.clone() };
        let at_station = Sample { dst: request.src, ttl: 63, ..reply.clone() };
        assert_eq!(path.pass(reply.frame()), End::Sent(at_station.sent(12, 254)));
    }
}

#[test]
fn handshakes_are_timed_behind_a_local_address() {
    let mut parts = parts();
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).scheduler = config::words::Scheduler::Fastest;
    }
    let mut path = path_of(parts, 0, 1);
    let request = syn(CLIENT, VIP);
    let local = sent_from(&mut path, &request);
    let time = |path: &Path| path.forwarder.team.times.get(BackendSlot(0));
    assert_eq!(time(&path), Times::UNANSWERED);
    let body = Body::Tcp { flags: SYN | ACK, options: Vec::new() };
    let answer = Sample { body, ..reply_to(local, &request) };
    assert!(matches!(path.pass(answer.frame()), End::Sent(_)));
    assert!(![Times::UNASKED, Times::UNANSWERED].contains(&time(&path)));
}

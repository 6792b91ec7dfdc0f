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

/// One of many workers, which has few ports of either address, with a table that is large enough to be asked for early.
#[test]
fn both_paths_agree_when_ports_run_out_and_come_back() {
    let (number, workers) = (5, 100);
    let mut parts = parts();
    parts.locals.push("198.51.100.201".parse().unwrap());
    parts.pools[0].v4.push(LocalSlot(1));
    let owners = Owners::new(workers);
    let locals: Vec<_> =
        parts.locals.iter().map(|address| LocalAddress::new(*address, &owners, number)).collect();
    let mut both = [0, 1].map(|_| {
        let team = Team::new(workers, 16, 64);
        let setup = Setup { number, team, wide_capacity: 20_000, ..testing::setup() };
        let mut path = Path::set_up(Snapshot::new(parts.clone()), setup);
        for (slot, local) in (0..).zip(&locals) {
            path.forwarder.install(LocalSlot(slot), Box::new(local.clone()));
        }
        path
    });
    let ports = (1..=u16::MAX).flat_map(|port| [7, 8, 9].map(|host| ([203, 0, 113, host], port).into()));
    let mut clients = ports.filter(|client: &SocketAddr| owners.of(client.ip(), client.port()) == number);
    let mut next = |count: usize| clients.by_ref().take(count).collect::<Vec<_>>();

    let first = next(1);
    let mut sent = opened(&mut both, &first);
    while sent > 0 {
        sent = opened(&mut both, &next(16));
    }
    // A flow that is over has its port again, and all of them when they are swept out.
    both.iter_mut().for_each(|path| path.now += 1000);
    assert_eq!(opened(&mut both, &[next(3), first, next(3)].concat()), 1);
    both.iter_mut().for_each(|path| (0..2000).for_each(|_| path.housekeeping()));
    assert_eq!(opened(&mut both, &next(16)), 16);
}

/// How many of these clients' openings were sent, by the fast path and by the stages.
fn opened([fast, slow]: &mut [Path; 2], clients: &[SocketAddr]) -> usize {
    let [mut one, mut other] = [Burst::default(), Burst::default()];
    for client in clients {
        let opening = syn(&client.to_string(), VIP);
        one.push(opening.frame()).unwrap();
        other.push(opening.frame()).unwrap();
    }
    let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
    let sent = one.iter().filter(|end| matches!(end, End::Sent(_))).count();
    assert_eq!(fast::settled(one), fast::settled(other));
    assert_eq!(fast::counts(fast), fast::counts(slow));
    for path in [fast, slow] {
        let dropped = path.stats.drops.get(DropReason::LocalPortsExhausted);
        assert_eq!(path.stats.local_ports_exhausted.get(), dropped);
    }
    sent
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

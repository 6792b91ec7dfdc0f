//! Full NAT: both ends of a packet change, and the reply comes back to a local address.

use std::net::{IpAddr, SocketAddr};

use config::words::Protocol;

use super::fast::{ENDS, locals_of, settled};
use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::measure::Times;
use crate::samples::{Body, Sample, datagram, endpoint, syn};
use crate::snapshot::{Backend, BackendSlot, Gateway, Parts, Pool, PoolSlot, Service};

const LOCAL: &str = "198.51.100.200";
const VIP: &str = "192.0.2.100:80";
const BACKEND: &str = "198.51.100.11:8000";
const CLIENT: &str = "203.0.113.7:40000";

/// A world with one service of each protocol and one local address.
fn parts() -> Parts {
    parts_of(VIP, BACKEND, LOCAL)
}

fn parts_of(vip: &str, backend: &str, local: &str) -> Parts {
    let mut parts = modes::world(vip, backend, Mode::FullNat);
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).pool = Some(PoolSlot(0));
    }
    parts.locals = vec![local.parse().unwrap()];
    parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(0)] }];
    parts
}

fn path_of(parts: Parts, number: usize, workers: usize) -> Path {
    let mut path = Path::of(Snapshot::new(parts), number, workers, 100);
    let local = LocalAddresses::new(&[LOCAL.parse().unwrap()], &Owners::new(workers), number);
    path.forwarder.install(LocalSlot(0), local);
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
        assert!(!matches!(path.pass(stranger.frame()), End::Sent(_)));
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

/// The same world twice, of which one takes the fast path.
struct Both {
    paths: [Path; 2],
    local: IpAddr,
}

impl Both {
    fn new(parts: Parts) -> Self {
        let local = parts.locals[0];
        let address = LocalAddresses::new(&[local], &Owners::new(1), 0);
        let paths = [0, 1].map(|_| {
            let mut path = Path::new(Snapshot::new(parts.clone()));
            path.forwarder.install(LocalSlot(0), address.clone());
            path
        });
        Self { paths, local }
    }

    /// Sends packets, of which the same must become in either; the local endpoints of requests that were sent.
    fn agree(&mut self, samples: &[Sample]) -> Vec<SocketAddr> {
        let [mut one, mut other] = [Burst::default(), Burst::default()];
        for sample in samples {
            one.push(sample.frame()).unwrap();
            other.push(sample.frame()).unwrap();
        }
        let [fast, slow] = &mut self.paths;
        let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
        let sent = locals_of(&one, self.local);
        assert_eq!(settled(one), settled(other));
        sent
    }
}

fn with(flags: u8, options: &[u8], of: &Sample) -> Sample {
    Sample { body: Body::Tcp { flags, options: options.to_vec() }, ..of.clone() }
}

/// What the fast path leaves to the stages in a run of packets that it takes: segment sizes that are lowered, and packets
/// that are too long for the way on.
#[test]
fn both_paths_agree_on_what_is_no_plain_hit() {
    let mut parts = parts();
    parts.services.iter_mut().flatten().for_each(|service| Arc::make_mut(service).mss = Some(500));
    let mut both = Both::new(parts);
    let mut agree = |samples: &[Sample]| both.agree(samples);
    let (known, opening) = (syn(CLIENT, VIP), syn("203.0.113.7:40001", VIP));
    let local = agree(std::slice::from_ref(&known))[0];
    let (request, reply) = (with(ACK, &[], &known), with(ACK, &[], &reply_to(local, &known)));
    agree(&[with(SYN | ACK, &[], &reply), request.clone(), reply.clone()]);
    let other = agree(&[request.clone(), request.clone(), opening.clone()])[2];
    let answer = with(SYN | ACK, &[2, 4, 5, 0xb4], &reply_to(other, &opening));
    agree(&[request.clone(), reply.clone(), answer, reply.clone()]);
    let long = |sample: &Sample| Sample { payload: vec![7; 1461], ..sample.clone() };
    agree(&[request.clone(), reply.clone(), long(&request), reply.clone()]);
    agree(&[request.clone(), reply.clone(), long(&reply), request]);
}

/// Others know the port, too, and who answers late means another flow of the same client.
#[test]
fn a_reply_is_from_the_flows_backend_to_its_local_port() {
    for [client, vip, backend, local] in ENDS {
        let mut both = Both::new(parts_of(vip, backend, local));
        let known = syn(client, vip);
        let local = both.agree(std::slice::from_ref(&known))[0];
        let backend: SocketAddr = backend.parse().unwrap();
        let answer = Sample { src: backend, dst: local, ..known.clone() };
        let (request, reply) = (with(ACK, &[], &known), with(ACK, &[], &answer));
        both.agree(&[with(SYN | ACK, &[], &reply), request.clone(), reply.clone()]);
        let neighbour = if backend.is_ipv4() { "198.51.100.12" } else { "2001:db8:b::12" };
        for src in [SocketAddr::new(backend.ip(), 8001), SocketAddr::new(neighbour.parse().unwrap(), 8000)] {
            let stranger = Sample { src, ..reply.clone() };
            both.agree(&[request.clone(), reply.clone(), stranger, reply.clone()]);
        }
        both.agree(&[with(FIN | ACK, &[], &request), with(FIN | ACK, &[], &reply), request.clone()]);
        // Enough of another flow's packets that the run goes on after them, which takes the late ones, too.
        let other = Sample { src: SocketAddr::new(known.src.ip(), known.src.port() + 1), ..known.clone() };
        let more = with(ACK, &[], &other);
        both.agree(&[other, more.clone()]);
        let mut burst = vec![known.clone(), more.clone(), more.clone(), more.clone(), more, request];
        burst.extend([reply.clone(), reply.clone()]);
        let next = both.agree(&burst)[0];
        assert_ne!(next, local);
        both.agree(&[with(SYN | ACK, &[], &Sample { dst: next, ..reply.clone() }), reply]);
    }
}

/// The same worker of many twice, which has few ports of either address, with a table that is large enough to be asked for
/// early, and more of its clients than that. The service has a second backend.
fn with_few_ports(second: Backend) -> ([Path; 2], impl FnMut(usize) -> Vec<SocketAddr>) {
    let (number, workers) = (5, 100);
    let mut parts = parts();
    parts.locals.push("198.51.100.201".parse().unwrap());
    parts.pools[0].v4.push(LocalSlot(1));
    let service = testing::service(&format!("tcp:{VIP}"), &[(0, 1), (2, 1)]);
    parts.services[0] = Some(Service { pool: Some(PoolSlot(0)), ..service }.into());
    parts.backends.push(Some(second));
    let owners = Owners::new(workers);
    let locals = LocalAddresses::new(&parts.locals, &owners, number);
    let both = [0, 1].map(|_| {
        let team = Team::new(workers, 16, 64);
        let setup = Setup { number, team, flow_capacity: 20_000, ..testing::setup() };
        let mut path = Path::set_up(Snapshot::new(parts.clone()), setup);
        path.forwarder.install(LocalSlot(0), locals.clone());
        path
    });
    // All of them begin at the same address.
    let ports =
        (1..=u16::MAX).flat_map(|port| [7, 9, 11, 13, 15].map(|host| ([203, 0, 113, host], port).into()));
    let mut clients =
        ports.filter(move |client: &SocketAddr| owners.of(client.ip(), client.port()) == number);
    (both, move |count: usize| clients.by_ref().take(count).collect())
}

#[test]
fn both_paths_agree_when_ports_run_out_and_come_back() {
    let (mut both, mut next) = with_few_ports(testing::backend(0, "198.51.100.12:8000", Mode::FullNat));
    let first = next(1);
    let mut sent = opened(&mut both, &first);
    while sent > 0 {
        sent = opened(&mut both, &next(15));
    }
    let taken = [0, 1].map(|slot| both[0].stats.local_ports(LocalSlot(slot)).get());
    assert!(taken.iter().all(|taken| *taken > 600), "{taken:?}");
    // A flow that is over has its port again, and all of them when they are swept out. Who is refused takes no turn: each
    // backend has one of the two, though five are refused in between.
    let taken = |path: &Path| [0, 2].map(|slot| path.stats.conns(BackendSlot(slot)).get());
    let before = taken(&both[0]);
    for _ in 0..2 {
        both.iter_mut().for_each(|path| path.now += 1000);
        assert_eq!(opened(&mut both, &[next(2), first.clone(), next(3)].concat()), 1);
    }
    assert_eq!(taken(&both[0]), before.map(|taken| taken + 1));
    both.iter_mut().for_each(|path| (0..2000).for_each(|_| path.housekeeping()));
    assert_eq!(opened(&mut both, &next(16)), 16);
}

#[test]
fn backends_that_need_no_port_take_flows_when_none_is_left() {
    let (mut both, mut next) = with_few_ports(testing::backend(0, "198.51.100.12:80", Mode::Dr));
    while opened(&mut both, &next(16)) == 16 {}
    assert_eq!(opened(&mut both, &next(16)), 8);
    // Without any backend it is not for want of a port.
    let mut parts = both[0].snapshot.parts.clone();
    let service = Arc::make_mut(parts.services[0].as_mut().unwrap());
    (service.candidates, service.no_backend) = (Vec::new(), config::words::NoBackend::Drop);
    both.iter_mut().for_each(|path| path.snapshot = Snapshot::new(parts.clone()));
    assert_eq!(opened(&mut both, &next(16)), 0);
    assert_eq!(both[0].stats.drops.get(DropReason::NoBackend), 16);
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

/// In a table that is too small for all flows, by the fast path and by the stages.
#[test]
fn ports_come_back_from_flows_that_make_way() {
    for ([client, vip, backend, local], slowly) in
        ENDS.into_iter().flat_map(|ends| [(ends, false), (ends, true)])
    {
        let setup = Setup { flow_capacity: 8, wide_capacity: 8, ..testing::setup() };
        let mut path = Path::set_up(Snapshot::new(parts_of(vip, backend, local)), setup);
        let address = LocalAddresses::new(&[local.parse().unwrap()], &Owners::new(1), 0);
        path.forwarder.install(LocalSlot(0), address);
        let free = |path: &Path| path.forwarder.flows().free_ports(LocalSlot(0), Protocol::Tcp);
        let all = free(&path);
        for (round, flags) in (0..200u16).flat_map(|round| [(round, SYN), (round, ACK)]) {
            let mut burst = Burst::default();
            for port in (0..16).filter(|port| flags == SYN || port % 5 == 0) {
                let mut sample = Sample { body: Body::Tcp { flags, options: Vec::new() }, ..syn(vip, vip) };
                sample.src = SocketAddr::new(endpoint(client).ip(), 1000 + round * 16 + port);
                burst.push(sample.frame()).unwrap();
            }
            if slowly {
                path.forward_slowly(&mut burst)
            } else {
                path.forward(&mut burst)
            };
            assert_eq!(free(&path), all - path.forwarder.flows().len(), "{vip}, round {round}");
            // Some are over by then.
            path.now += if round % 7 == 0 { 1000 } else { 1 };
        }
        let stats = &path.stats;
        assert!(stats.evicted.get() > 100 && stats.expired.get() > 100, "{vip}");
        path.now += 100_000;
        (0..100).for_each(|_| path.housekeeping());
        assert_eq!((path.forwarder.flows().len(), free(&path)), (0, all), "{vip}");
    }
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
    let requests =
        [(syn(inside, world), 12), (datagram(inside, world), 12), (syn("198.51.100.13:5000", world), 13)];
    for (request, station) in requests {
        if station == 13 {
            // From now on narrow flows have had ports of the pool, too.
            sent_from(&mut path, &syn(CLIENT, VIP));
        }
        let End::Sent(frame) = path.pass(request.frame()) else { panic!() };
        let local = SocketAddr::new(LOCAL.parse().unwrap(), u16::from_be_bytes([frame[34], frame[35]]));
        assert_eq!(frame, Sample { src: local, ttl: 63, ..request.clone() }.sent(1, 254));
        let reply = Sample { src: request.dst, dst: local, ..request.clone() };
        let at_station = Sample { dst: request.src, ttl: 63, ..reply.clone() };
        assert_eq!(path.pass(reply.frame()), End::Sent(at_station.sent(station, 254)));
    }
}

/// A port that has only tagged interfaces takes no untagged frames for a gateway, whoever waits for them.
#[test]
fn a_gateways_replies_are_for_the_stages() {
    let mut parts = parts();
    parts.interfaces[0].gateway = Some(Gateway { pool: Some(PoolSlot(0)) });
    let mut path = path_of(parts.clone(), 0, 1);
    // Of an address that narrow flows have ports of, too.
    sent_from(&mut path, &syn(CLIENT, VIP));
    let request = syn("198.51.100.12:5000", "203.0.113.9:443");
    let End::Sent(frame) = path.pass(request.frame()) else { panic!() };
    let local = SocketAddr::new(LOCAL.parse().unwrap(), u16::from_be_bytes([frame[34], frame[35]]));
    parts.interfaces[0].tags.inner = 5;
    path.snapshot = Snapshot::new(parts);
    let reply = Sample { src: request.dst, dst: local, ..request };
    assert_eq!(path.pass(reply.frame()), End::Dropped(DropReason::BadVlan));
}

/// A backend that is its own client, by the port that it serves.
#[test]
fn a_packet_to_its_sender_is_no_request() {
    let (vip, backend) = ("[2001:db8::100]:80", "[2001:db8:b::11]:80");
    let mut parts = Parts {
        locals: vec!["2001:db8:b::200".parse().unwrap()],
        ..modes::world(vip, backend, Mode::FullNat)
    };
    parts.pools = vec![Pool { v4: Vec::new(), v6: vec![LocalSlot(0)] }];
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).pool = Some(PoolSlot(0));
    }
    let mut path = Path::new(Snapshot::new(parts.clone()));
    let local = LocalAddresses::new(&[parts.locals[0]], &Owners::new(1), 0);
    path.forwarder.install(LocalSlot(0), local);
    let opening = syn(backend, vip);
    assert!(matches!(path.pass(opening.frame()), End::Sent(_)));
    let body = Body::Tcp { flags: ACK, options: Vec::new() };
    assert!(matches!(path.pass(Sample { body: body.clone(), ..opening.clone() }.frame()), End::Sent(_)));
    let known = Sample { body, ..opening };
    let to_itself = Sample { dst: known.src, ..known.clone() };
    let mut burst = Burst::default();
    for sample in [&known, &to_itself] {
        burst.push(sample.frame()).unwrap();
    }
    let ends = path.forward(&mut burst);
    assert!(matches!(ends[..], [End::Sent(_), End::Dropped(DropReason::MartianAddress)]), "{ends:?}");
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

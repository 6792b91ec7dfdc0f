//! Flows from their first packet to their end: who they belong to, how long they last, what is counted.

use super::*;

#[test]
fn round_robin_spreads_flows_and_each_keeps_its_backend() {
    let mut path = Path::nat();
    let first: Vec<u8> = (0..6).map(|number| path.backend_of(&request(40000 + number, SYN))).collect();
    assert_eq!(first, [11, 12, 13, 11, 12, 13]);
    for number in (0..6).rev() {
        assert_eq!(path.backend_of(&request(40000 + number, ACK)), first[usize::from(number)]);
    }
    assert_eq!(path.forwarder.flows().len(), 6);
}

#[test]
fn a_flow_outlives_the_configuration() {
    let mut path = Path::nat();
    assert_eq!(path.backend_of(&request(40000, SYN)), 11);
    let mut parts = testing::world(Mode::Nat);
    parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[(1, 1)]).into());
    path.snapshot = Snapshot::new(parts.clone());
    assert_eq!(path.backend_of(&request(40000, ACK)), 11, "its backend takes no new flows");
    assert_eq!(path.backend_of(&request(40001, SYN)), 12);
    let mut retired = testing::service("tcp:192.0.2.100:80", &[]);
    retired.retired = true;
    parts.services[0] = Some(retired.into());
    path.snapshot = Snapshot::new(parts);
    assert_eq!(path.backend_of(&request(40000, ACK)), 11, "its service is gone");
    assert_eq!(path.send(&request(40002, SYN)), End::Dropped(DropReason::NoService));
}

#[test]
fn idle_flows_expire_by_their_state() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    path.send(&request(40001, SYN));
    path.send(&request(40001, ACK));
    path.now += 61;
    assert_eq!(path.send(&request(40000, ACK)), End::Dropped(DropReason::NoFlowNotSyn), "SYN_RECV: 60 s");
    path.now += 839;
    assert_eq!(path.backend_of(&request(40001, ACK)), 12, "ESTABLISHED: 900 s");
    path.now += 901;
    assert_eq!(path.send(&request(40001, ACK)), End::Dropped(DropReason::NoFlowNotSyn));
}

#[test]
fn the_sweeper_ends_what_nobody_asks_for() {
    let mut path = Path::nat();
    for port in 0..50 {
        path.send(&request(port, SYN));
    }
    path.now += 61;
    let context = Context { snapshot: &path.snapshot, now: path.now };
    for _ in 0..path.forwarder.flows().lines() {
        path.forwarder.housekeeping(context, 16, &mut path.out);
    }
    assert!(path.forwarder.flows().is_empty());
    assert_eq!((path.stats.expired.get(), path.stats.flows.get()), (50, 0));
    assert_eq!(gauges(&path), (0, 0));
}

#[test]
fn counters_follow_a_connection() {
    let mut path = Path::nat();
    let reply = |flags| packet((BACKEND, 8000), (CLIENT, 40000)).flags(flags);
    path.send(&request(40000, SYN));
    path.send(&reply(SYN | ACK));
    path.send(&request(40000, ACK));
    assert_eq!(gauges(&path), (1, 0));
    path.send(&reply(FIN | ACK));
    assert_eq!(gauges(&path), (0, 1));
    path.send(&request(40000, FIN | ACK));
    let counters = path.stats.backend(BackendSlot(0));
    assert_eq!(path.stats.conns(BackendSlot(0)).get(), 1);
    assert_eq!((counters.in_packets.get(), counters.in_bytes.get()), (3, 3 * 45));
    assert_eq!((counters.out_packets.get(), counters.out_bytes.get()), (2, 2 * 45));
}

#[test]
fn a_closed_connection_is_scheduled_anew_from_the_same_port() {
    for (mode, last) in [(Mode::Nat, RST | ACK), (Mode::Dr, FIN | ACK), (Mode::Tunnel, RST | ACK)] {
        let mut path = Path::new(testing::snapshot(mode));
        assert_eq!(path.backend_of(&request(40000, SYN)), 11);
        assert_eq!(path.backend_of(&request(40000, SYN)), 11, "a retransmission");
        path.send(&request(40000, ACK));
        path.send(&request(40000, last));
        assert_eq!(path.backend_of(&request(40000, SYN)), 12, "{mode}");
        assert_eq!((path.forwarder.flows().len(), gauges(&path)), (1, (1, 0)));
    }
}

/// Two services whose only backend is the same server.
#[test]
fn an_opening_that_a_dead_backend_left_unanswered_is_scheduled_anew() {
    for mode in [Mode::Nat, Mode::Dr] {
        let mut path = Path::new(testing::snapshot(mode));
        let (unanswered, established) = (request(40000, SYN), request(40003, SYN));
        assert_eq!(path.backend_of(&unanswered), 11);
        for port in 40001..40003 {
            path.send(&request(port, SYN));
        }
        assert_eq!(path.backend_of(&established), 11);
        path.send(&request(40003, ACK));
        let mut parts = testing::world(mode);
        parts.backends[0].as_mut().unwrap().up = false;
        parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[(1, 1), (2, 1)]).into());
        path.snapshot = Snapshot::new(parts);
        assert_ne!(path.backend_of(&unanswered), 11, "the repeated SYN finds another backend");
        assert_eq!(path.backend_of(&request(40003, ACK)), 11, "an established flow stays");
    }
}

fn shared_backend() -> Path {
    let mut parts = testing::parts();
    parts.services = vec![
        Some(testing::service("tcp:192.0.2.100:80", &[(0, 1)]).into()),
        Some(testing::service("tcp:192.0.2.101:80", &[(1, 1)]).into()),
    ];
    let backends = [0, 1].map(|service| Some(testing::backend(service, "198.51.100.11:8000", Mode::Nat)));
    parts.backends = backends.into();
    Path::new(Snapshot::new(parts))
}

#[test]
fn replies_of_a_shared_backend_go_back_to_the_right_vip() {
    let mut path = shared_backend();
    let other_vip = [192, 0, 2, 101];
    path.send(&request(40000, SYN));
    path.send(&packet((CLIENT, 40001), (other_vip, 80)));
    for (port, vip) in [(40000, VIP), (40001, other_vip)] {
        let reply = packet((BACKEND, 8000), (CLIENT, port)).flags(SYN | ACK);
        let right = Packet { src: vip, ports: (80, port), ..reply.clone() };
        assert_eq!(path.send(&reply), End::Sent(arrived(right, 1)));
    }
}

#[test]
fn a_flow_that_does_not_begin_leaves_its_place_to_another() {
    let mut path = shared_backend();
    let mut parts = path.snapshot.parts.clone();
    let service = Arc::make_mut(parts.services[1].as_mut().unwrap());
    (service.candidates[0].upper, service.candidates[0].lower) = (1, 1);
    service.is_limited = true;
    path.snapshot = Snapshot::new(parts);
    let through_other = |port| packet((CLIENT, port), ([192, 0, 2, 101], 80));
    path.send(&request(40000, SYN));
    assert_eq!(path.send(&through_other(40000)), End::Dropped(DropReason::ReplyAmbiguous));
    assert_eq!(path.backend_of(&through_other(40001)), 11);
    path.send(&through_other(40002));
    assert_eq!(path.stats.answered_for.get(DropReason::NoBackend), 1);
}

#[test]
fn one_client_port_reaches_a_shared_backend_through_one_vip_at_a_time() {
    let mut path = shared_backend();
    let through_other = packet((CLIENT, 40000), ([192, 0, 2, 101], 80));
    path.send(&request(40000, SYN));
    assert_eq!(path.send(&through_other), End::Dropped(DropReason::ReplyAmbiguous));
    path.send(&request(40000, ACK));
    path.send(&packet((BACKEND, 8000), (CLIENT, 40000)).flags(FIN | ACK));
    assert_eq!(path.backend_of(&through_other), 11, "the first connection is closing");
    assert_eq!(path.send(&request(40000, ACK)), End::Dropped(DropReason::NoFlowNotSyn));
    assert_eq!(gauges(&path), (1, 0));
}

#[test]
fn replies_without_a_flow_or_from_another_backend_are_not_sent() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    let other = packet(([198, 51, 100, 12], 8000), (CLIENT, 40000)).flags(SYN | ACK);
    assert_eq!(path.send(&other), End::Dropped(DropReason::NoFlow));
    let stranger = packet((BACKEND, 8000), (CLIENT, 40001)).flags(SYN | ACK);
    assert_eq!(path.send(&stranger), End::Dropped(DropReason::NoFlow));
}

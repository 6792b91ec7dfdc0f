//! Persistence on the packet path. What IPVS does in the same cases was seen in Linux 6.1.

use config::words::Scheduler;

use super::*;
use crate::snapshot::{Candidate, Persistence, Service, ServiceSlot};

const PERSISTENCE: Persistence = Persistence {
    scope: 1,
    is_group: false,
    secs: 300,
    prefix_v4: 32,
    prefix_v6: 128,
    across_ports: true,
    respect_limits: false,
    expire_when_drained: false,
};

/// A path of a service with round robin over A and B, of this upper limit, that is persistent so.
fn path(upper: u32, persistence: Persistence) -> Path {
    let mut path = Path::new(testing::snapshot(Mode::Dr));
    list(&mut path, &[(0, upper), (1, upper)], persistence);
    path
}

/// Makes these backends, with these upper limits, the ones that take new flows.
fn list(path: &mut Path, backends: &[(u32, u32)], persistence: Persistence) {
    let mut parts = path.snapshot.parts.clone();
    let candidates = backends.iter().map(|&(slot, upper)| Candidate {
        upper,
        lower: upper,
        ..Candidate::new(BackendSlot(slot), 1)
    });
    let key = "tcp:192.0.2.100:80".parse().unwrap();
    let version = path.snapshot.service(ServiceSlot(0)).unwrap().version + 1;
    let service = Service::new(key, Scheduler::Rr, version, candidates.collect());
    parts.services[0] = Some(Arc::new(Service { persistence: Some(persistence), ..service }));
    path.snapshot = Snapshot::new(parts);
}

/// The letter of the backend that a new connection of the client with this last byte and port goes to.
fn open(path: &mut Path, (host, port): (u8, u16)) -> char {
    let packet = packet(([203, 0, 113, host], port), (VIP, 80)).flags(SYN);
    char::from(b'A' + path.backend_of(&packet) - 11)
}

#[test]
fn a_client_comes_back_to_its_backend() {
    let mut path = path(0, PERSISTENCE);
    let clients = [1, 1, 2, 2, 1, 3, 1, 4, 5, 5].iter().zip(1000..);
    let letters: String = clients.map(|(host, port)| open(&mut path, (*host, port))).collect();
    assert_eq!(letters, "AABBAAABAA");
}

#[test]
fn clients_of_one_network_are_one() {
    let mut path = path(0, Persistence { prefix_v4: 28, ..PERSISTENCE });
    let hosts = [1, 2, 15, 16, 17, 31, 32];
    let letters: String =
        hosts.iter().zip(1000..).map(|(host, port)| open(&mut path, (*host, port))).collect();
    assert_eq!(letters, "AAABBBA");
}

#[test]
fn a_drained_backend_keeps_its_clients_unless_it_is_asked_not_to() {
    for (expire_when_drained, later) in [(false, "AB"), (true, "BB")] {
        let persistence = Persistence { expire_when_drained, ..PERSISTENCE };
        let mut path = path(0, persistence);
        assert_eq!(open(&mut path, (1, 1000)), 'A');
        list(&mut path, &[(1, 0)], persistence);
        let letters: String = [(1, 1001), (2, 1002)].map(|client| open(&mut path, client)).iter().collect();
        assert_eq!(letters, later);
        list(&mut path, &[(0, 0), (1, 0)], persistence);
        assert_eq!(
            open(&mut path, (1, 1003)),
            later.chars().next().unwrap(),
            "the template followed, or did not"
        );
    }
}

#[test]
fn a_client_of_a_dead_backend_moves_and_stays_there() {
    let mut path = path(0, PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    let alive = |path: &mut Path, persists| {
        let mut parts = path.snapshot.parts.clone();
        parts.backends[0].as_mut().unwrap().persists = persists;
        path.snapshot = Snapshot::new(parts);
    };
    alive(&mut path, false);
    list(&mut path, &[(1, 0)], PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1001)), 'B');
    alive(&mut path, true);
    list(&mut path, &[(0, 0), (1, 0)], PERSISTENCE);
    assert_eq!((open(&mut path, (1, 1002)), open(&mut path, (1, 1003))), ('B', 'B'));
}

#[test]
fn a_limit_counts_for_clients_that_come_back_only_if_it_is_asked_to() {
    for (respect_limits, letters) in [(false, "AAAAB"), (true, "AABBB")] {
        let mut path = path(2, Persistence { respect_limits, ..PERSISTENCE });
        let mut opened: String = (1000..1004).map(|port| open(&mut path, (1, port))).collect();
        list(&mut path, &[(0, 2), (1, 9)], Persistence { respect_limits, ..PERSISTENCE });
        opened.push(open(&mut path, (2, 1000)));
        assert_eq!(opened, letters);
    }
}

#[test]
fn a_template_ends_when_nobody_needs_it() {
    let mut path = path(0, PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    assert_eq!(open(&mut path, (2, 1000)), 'B');
    path.now += 299;
    assert_eq!(open(&mut path, (1, 1001)), 'A', "a new flow gives it 300 seconds again");
    path.now += 299;
    assert_eq!(open(&mut path, (1, 1002)), 'A');
    path.now += 300;
    assert_eq!(open(&mut path, (2, 1001)), 'A', "over: chosen anew");
}

#[test]
fn a_template_lives_as_long_as_a_flow_of_it() {
    let mut path = path(0, PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    path.send(&packet(([203, 0, 113, 1], 1000), (VIP, 80)).flags(ACK));
    for _ in 0..14 {
        path.now += 59;
        path.housekeeping();
    }
    assert_eq!(open(&mut path, (1, 1001)), 'A', "the connection is idle for 826 seconds, and lives for 900");
    path.now += 1000;
    path.housekeeping();
    assert_eq!(open(&mut path, (1, 1002)), 'B');
}

#[test]
fn a_template_of_few_seconds_lives_as_long_as_a_flow_of_it_in_a_large_table() {
    for secs in [1, 10] {
        // By 16 lines in each turn a round would take 12 seconds; one of all that are due takes one.
        let turns = 20;
        let mut path = Path::of(testing::snapshot(Mode::Dr), 0, 1, 10_000);
        list(&mut path, &[(0, 0), (1, 0)], Persistence { secs, ..PERSISTENCE });
        let second = |path: &mut Path| {
            for _ in 0..turns {
                path.ends(|path, context| path.forwarder.housekeeping(context, 16, path.out));
            }
            path.now += 1;
        };
        // The round is somewhere else each time.
        let first: Vec<char> = (1..20)
            .map(|host| {
                second(&mut path);
                let backend = open(&mut path, (host, 1000));
                path.send(&packet(([203, 0, 113, host], 1000), (VIP, 80)).flags(ACK));
                backend
            })
            .collect();
        (0..30).for_each(|_| second(&mut path));
        let later: Vec<char> = (1..20).map(|host| open(&mut path, (host, 1001))).collect();
        assert_eq!(later, first, "{secs} seconds");
    }
}

/// Changes what the snapshot says of backends.
fn change(path: &mut Path, with: impl FnOnce(&mut Vec<Option<crate::snapshot::Backend>>)) {
    let mut parts = path.snapshot.parts.clone();
    with(&mut parts.backends);
    path.snapshot = Snapshot::new(parts);
}

#[test]
fn a_client_does_not_follow_a_slot_to_another_service() {
    let mut path = path(0, PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    // The backend was removed, and its slot was given to one of another service.
    change(&mut path, |backends| backends[0].as_mut().unwrap().service = ServiceSlot(1));
    list(&mut path, &[(1, 0)], PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1001)), 'B');
}

#[test]
fn a_drained_server_keeps_clients_that_it_had_by_another_service_of_its_group() {
    let persistence = Persistence { is_group: true, ..PERSISTENCE };
    let mut path = path(0, persistence);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    // As if another service had chosen; this one knows the server by another slot.
    change(&mut path, |backends| {
        let mut own = backends[0].unwrap();
        backends[0].as_mut().unwrap().service = ServiceSlot(1);
        own.address.set_port(8080);
        backends.resize(8, None);
        backends[7] = Some(own);
    });
    list(&mut path, &[(1, 0)], persistence);
    let service = path.snapshot.parts.services[0].as_mut().unwrap();
    Arc::get_mut(service).unwrap().grouped = vec![BackendSlot(7), BackendSlot(1)];
    assert_eq!(open(&mut path, (1, 1001)), 'A');
}

#[test]
fn who_was_sent_to_a_sorry_backend_comes_back_to_his_own() {
    let mut path = path(0, PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1000)), 'A');
    let persist = |path: &mut Path, a, b| {
        change(path, |backends| {
            backends[0].as_mut().unwrap().persists = a;
            backends[1].as_mut().unwrap().persists = b;
        });
    };
    persist(&mut path, false, false);
    list(&mut path, &[(1, 0)], PERSISTENCE);
    assert_eq!(open(&mut path, (1, 1001)), 'B', "B is a sorry backend");
    persist(&mut path, true, false);
    assert_eq!(open(&mut path, (1, 1002)), 'A', "A has a template of the client still");
}

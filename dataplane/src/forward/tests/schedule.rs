//! Schedulers and limits on the packet path. Sequences are those of IPVS in Linux 6.1, fed with the same packets.

use config::model::Hash;
use config::words::{HashPart, NoBackend, Scheduler};

use super::*;
use crate::measure::Times;
use crate::schedule::Ingredients;
use crate::schedule::hash::Secret;
use crate::schedule::quic::Layout;
use crate::schedule::table::Member;
use crate::snapshot::{Candidate, Parts, Service};

/// A world whose service has this scheduler and candidates A, B and C of these weights and upper limits.
pub(super) fn world(scheduler: Scheduler, hash: Hash, backends: [(u32, u32); 3]) -> Parts {
    let mut parts = testing::world(Mode::Dr);
    let candidates = backends.iter().zip(0..).map(|(&(weight, upper), slot)| {
        let lower = upper - upper / 4;
        Candidate { backend: BackendSlot(slot), weight, upper, lower }
    });
    let candidates: Vec<_> = candidates.collect();
    let members = candidates.iter().map(|it| Member {
        backend: it.backend,
        address: parts.backends[it.backend.0 as usize].unwrap().address,
        weight: it.weight,
        full_weight: it.weight.max(1),
    });
    let members: Vec<_> = members.collect();
    for service in parts.services.iter_mut().flatten() {
        let taking = candidates.iter().copied().filter(|it| it.weight > 0).collect();
        let made = Service::new(service.key, scheduler, 1, taking);
        let (secret, members) = (Secret::from_text("secret"), members.clone());
        let ingredients = Ingredients {
            hash,
            secret,
            members,
            expiration: config::model::Service::EXPIRATION_SECS,
            layout: None,
            servers: Vec::new(),
        };
        let made = made.planned(&ingredients, None);
        *service = Arc::new(Service { no_backend: NoBackend::Drop, ..made });
    }
    parts
}

fn path(scheduler: Scheduler, backends: [(u32, u32); 3]) -> Path {
    Path::new(Snapshot::new(world(scheduler, Hash::of(scheduler), backends)))
}

/// The letters of the backends that connections from these ports go to, `!` for none; each is opened and stays.
fn opened(path: &mut Path, ports: std::ops::Range<u16>) -> String {
    let letter = |end| match end {
        End::Sent(frame) => char::from(b'A' + frame[5] - 11),
        _ => '!',
    };
    let open = |port| {
        let letter = letter(path.send(&request(port, SYN)));
        path.send(&request(port, ACK));
        letter
    };
    ports.map(open).collect()
}

#[test]
fn connections_that_stay_open_are_spread_as_in_ipvs() {
    let plain = |weights: [u32; 3]| weights.map(|weight| (weight, 0));
    let sequences = [
        (Scheduler::Lc, [1, 2, 3], "ABCABCABCABC"),
        (Scheduler::Wlc, [1, 2, 3], "ABCCBCABCCBC"),
        (Scheduler::Wlc, [5, 1, 1], "ABCAAAAABCAAAAABC"),
        (Scheduler::Sed, [1, 2, 3], "CBCABCCBCABC"),
        (Scheduler::Sed, [5, 1, 1], "AAAAABCAAAAABC"),
        (Scheduler::Nq, [1, 2, 3], "ABCCBCCBCABCCBC"),
        (Scheduler::Nq, [5, 1, 1], "ABCAAAAAAAAABC"),
        (Scheduler::Fo, [1, 2, 3], "CCCC"),
        (Scheduler::Fo, [1, 1, 1], "AAAA"),
        (Scheduler::Ovf, [1, 2, 3], "CCCCBBBAA!!!"),
        (Scheduler::Ovf, [1, 1, 1], "AABBCC!!!"),
        (Scheduler::Lblc, [1, 2, 3], "AABBBCCCCCCCC"),
        (Scheduler::Lblc, [1, 1, 1], "AABBCCCCCC"),
        (Scheduler::Lblcr, [1, 2, 3], "AABBBCCCCCBCCBACBCCBACBC"),
        (Scheduler::Lblcr, [1, 1, 1], "AABBCCCBACBACBACBACBACBA"),
        (Scheduler::Lblcr, [5, 1, 1], "AAAAAABBCCAAAACBAAAAACBA"),
    ];
    for (scheduler, weights, sequence) in sequences {
        let mut path = path(scheduler, plain(weights));
        let ports = 1000..1000 + sequence.len() as u16;
        assert_eq!(opened(&mut path, ports), sequence, "{scheduler} {weights:?}");
    }
}

#[test]
fn a_backend_at_its_limit_is_passed_over_as_in_ipvs() {
    for (scheduler, sequence) in [
        (Scheduler::Rr, "ABCABCBCCCCCCC"),
        (Scheduler::Wrr, "ABCABCBCCCCCCC"),
        (Scheduler::Lc, "ABCABCBCCCCCCC"),
        (Scheduler::Wlc, "ABCABCBCCCCCCC"),
        (Scheduler::Sed, "ABCABCBCCCCCCC"),
        (Scheduler::Nq, "ABCABCBCCCCCCC"),
        (Scheduler::Fo, "AABBBCCCCCCCCC"),
        (Scheduler::Ovf, "AABBBCCCCCCCCC"),
        (Scheduler::Lblcr, "AABBBCCCCCCCCC"),
        (Scheduler::Swrr, "ABCABCBCCCCCCC"),
    ] {
        let mut path = path(scheduler, [(9, 2), (9, 3), (9, 0)]);
        assert_eq!(opened(&mut path, 1000..1014), sequence, "{scheduler}");
    }
}

#[test]
fn an_overloaded_backend_comes_back_below_three_quarters() {
    let mut path = path(Scheduler::Fo, [(9, 8), (1, 0), (1, 0)]);
    assert_eq!(opened(&mut path, 1000..1009), "AAAAAAAAB");
    // Flows that are over are swept out: 6 of 8 are three quarters, 5 are fewer.
    let end = |path: &mut Path, ports: std::ops::Range<u16>| {
        ports.for_each(|port| _ = path.send(&request(port, RST)));
        path.now += 11;
        for _ in 0..path.forwarder.flows().lines() {
            path.housekeeping();
        }
    };
    end(&mut path, 1000..1002);
    assert_eq!(opened(&mut path, 2000..2001), "B");
    end(&mut path, 1002..1003);
    assert_eq!(opened(&mut path, 3000..3004), "AAAB");
}

#[test]
fn all_at_their_limits_leave_nobody() {
    let mut path = path(Scheduler::Wrr, [(7, 1), (3, 1), (1, 1)]);
    assert_eq!(opened(&mut path, 1000..1005), "ABC!!");
    assert_eq!(path.stats.drops.get(DropReason::NoBackend), 2);
}

/// The letters of the backends of these clients, `!` for none.
fn of_clients(path: &mut Path, clients: impl Iterator<Item = ([u8; 4], u16)>) -> String {
    let open = |client| match path.send(&packet(client, (VIP, 80)).flags(SYN)) {
        End::Sent(frame) => char::from(b'A' + frame[5] - 11),
        _ => '!',
    };
    clients.map(open).collect()
}

#[test]
fn clients_are_hashed_as_in_ipvs() {
    let hosts = || (14..42).map(|host| ([198, 51, 100, host], 4711));
    // Seen in Linux 6.1 with these weights, hosts 1 to 64; here are those that are no station of ours.
    for (weights, letters) in [
        ([1, 1, 1], "ACCBABAACBCACACABABABCBCBCACACABACABCBAACACBBACABCBABCACBCACACCB"),
        ([1, 2, 3], "ABCBCBCABCBCCCCCCACACCBCBBABABCBCCCCBCACCCCBCABABCBCBBABCBCCCCBC"),
        ([0, 1, 1], "!CCB!B!!CBC!C!C!B!B!BCBCBC!C!C!B!C!BCB!!C!CBB!C!BCB!BC!CBC!C!CCB"),
    ] {
        let mut path = path(Scheduler::Sh, weights.map(|weight| (weight, 0)));
        assert_eq!(of_clients(&mut path, hosts()), letters[13..41]);
    }
    let hash = Hash { on: HashPart::SourcePort, ..Hash::default() };
    let ports = |first: u16| (first..first + 32).map(|port| ([198, 51, 100, 7], port));
    let with = |hash, weights: [u32; 3]| {
        Path::new(Snapshot::new(world(Scheduler::Sh, hash, weights.map(|weight| (weight, 0)))))
    };
    let letters = of_clients(&mut with(hash, [1, 2, 1]), ports(10_000));
    assert_eq!(letters, "ABCBCABABABCBCBBABABCBCBBABABCBC");
}

#[test]
fn hash_schedulers_keep_a_client_and_pass_over_whoever_is_full() {
    let clients = || (0..90).map(|host| ([198, 18, 0, host], 4711));
    for scheduler in [Scheduler::Maglev, Scheduler::Bounded, Scheduler::Mh] {
        let hash = Hash { fallback: scheduler == Scheduler::Mh, load_factor: 1.5, ..Hash::of(scheduler) };
        let new = |upper| Path::new(Snapshot::new(world(scheduler, hash, [(1, upper), (1, 0), (1, 0)])));
        let letters = of_clients(&mut new(0), clients());
        assert_eq!(letters, of_clients(&mut new(0), clients()), "the same clients, the same backends");
        let share = |letter| letters.matches(letter).count();
        assert!(['A', 'B', 'C'].map(share).iter().all(|share| (15..=50).contains(share)), "{letters}");
        let limited = of_clients(&mut new(5), clients());
        assert_eq!((limited.matches('A').count(), limited.matches('!').count()), (5, 0), "{scheduler}");
    }
}

/// A QUIC packet with a short header and the ID of this server, and 60 octets of payload.
fn quic(client: [u8; 4], server: u8) -> Packet {
    let mut payload = vec![0x40, 0b001_00000, 0, server, 1, 2, 3, 4];
    payload.resize(60, 0xaa);
    Packet { payload, ..packet((client, 4711), (VIP, 80)).udp() }
}

#[test]
fn a_quic_connection_is_found_again_from_another_address() {
    let mut parts = world(Scheduler::Quic, Hash::default(), [(1, 0), (1, 2), (1, 0)]);
    let layout = Layout { rotation: 1, server_id_len: 2, nonce_len: 4, key: None };
    for (slot, service) in parts.services.iter_mut().enumerate() {
        let service = Arc::make_mut(service.as_mut().unwrap());
        let first = 3 * slot as u32;
        let servers = (0..3).map(|number| (format!("000{}", number + 1).parse().unwrap(), number));
        let servers = servers.map(|(id, number)| (id, BackendSlot(first + number))).collect();
        for candidate in &mut service.candidates {
            candidate.backend.0 += first;
        }
        let member = |it: &Candidate| Member {
            backend: it.backend,
            address: parts.backends[it.backend.0 as usize].unwrap().address,
            weight: 1,
            full_weight: 1,
        };
        let members = service.candidates.iter().map(member).collect();
        let secret = Secret::from_text("secret");
        let hash = Hash::default();
        let made = Ingredients {
            hash,
            secret,
            members,
            expiration: config::model::Service::EXPIRATION_SECS,
            layout: Some(layout),
            servers,
        };
        *service = service.clone().planned(&made, None);
    }
    let mut path = Path::new(Snapshot::new(parts));
    let mut to = |client: u8, server: u8| path.backend_of(&quic([198, 18, 0, client], server)) - 10;
    assert_eq!([to(1, 3), to(2, 3), to(3, 1), to(4, 1)], [3, 3, 1, 1]);
    assert_eq!([to(5, 2), to(6, 2)], [2, 2]);
    assert!((7..20).all(|client| to(client, 2) != 2), "it has all the flows that it may have");
    assert_eq!(to(1, 2), 3, "a flow stays where it is");
    let others: Vec<_> = (30..60).map(|client| to(client, 9)).collect();
    assert!([1, 3].iter().all(|server| others.contains(server)), "no server has this ID: {others:?}");
    let mut parts = path.snapshot.parts.clone();
    let service = Arc::make_mut(parts.services[1].as_mut().unwrap());
    service.candidates.retain(|candidate| candidate.backend != BackendSlot(5));
    service.is_limited = false;
    path.snapshot = Snapshot::new(parts);
    let mut to = |client: u8, server: u8| path.backend_of(&quic([198, 18, 0, client], server)) - 10;
    assert!((70..90).any(|client| to(client, 3) != 3), "its server takes no new flows");
    let hostile = [&[][..], &[0x40], &[0x40, 0x20], &[0xc0, 0, 0, 0, 1, 255], &[0x80; 6], &[0xff; 30]];
    for (payload, client) in hostile.into_iter().zip(100..) {
        let frame = Packet { payload: payload.to_vec(), ..quic([198, 18, 0, client], 1) };
        assert!(matches!(path.send(&frame), End::Sent(_)));
    }
}

#[test]
fn workers_weigh_what_all_of_them_have() {
    let team = Team::new(2, 16, 64);
    let mut paths = [0, 1].map(|number| {
        let snapshot = Snapshot::new(world(Scheduler::Lc, Hash::default(), [(1, 4), (1, 0), (1, 0)]));
        Path::in_team(snapshot, number, &team)
    });
    // Ports by the worker that owns their flows.
    let mut owned = [0, 1].map(|number| (1000u16..).filter(move |port| owner_of(*port, 2) == number));
    let mut letters = String::new();
    for number in [0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0] {
        let port = owned[number].next().unwrap();
        letters += &opened(&mut paths[number], port..port + 1);
    }
    assert_eq!(letters, "ABCABCABCABCBCB");
    for path in &mut paths {
        path.now += 10_000;
        (0..path.forwarder.flows().lines()).for_each(|_| path.housekeeping());
        assert_eq!(gauges(path), (0, 0));
    }
    assert_eq!(team.load(BackendSlot(0)), crate::load::Load::default());
}

#[test]
fn a_place_that_another_worker_takes_at_the_same_moment_is_nobody_elses() {
    let team = Team::new(2, 16, 64);
    let parts = world(Scheduler::Fo, Hash::default(), [(9, 2), (1, 1), (1, 0)]);
    let service = Arc::clone(parts.services[0].as_ref().unwrap());
    let mut path = Path::in_team(Snapshot::new(parts), 0, &team);
    let mut owned = (1000u16..).filter(|port| owner_of(*port, 2) == 0);
    let mut open = || {
        let port = owned.next().unwrap();
        opened(&mut path, port..port + 1)
    };
    assert_eq!(open(), "A");
    let [last, only] = [0, 1].map(|slot| team.claim(&service, BackendSlot(slot)).unwrap());
    assert_eq!(open(), "C");
    team.release(last);
    assert_eq!(open(), "A", "its flow did not begin");
    team.release(only);
    assert_eq!([open(), open()], ["B", "C"]);
}

/// The worker that owns a flow of the client's port.
pub(super) fn owner_of(port: u16, workers: usize) -> usize {
    crate::toeplitz::Owners::new(workers).of_v4(u32::from_be_bytes(CLIENT), port)
}

/// The request of a client's port, whose backend the letter tells, and what that answers.
fn shaken(path: &mut Path, port: u16, answers: bool) -> char {
    let End::Sent(frame) = path.send(&request(port, SYN)) else { return '!' };
    if answers {
        let backend = [198, 51, 100, frame[5]];
        let answer = packet((backend, 8000), (CLIENT, port)).flags(SYN | ACK);
        assert!(matches!(path.send(&answer), End::Sent(_)));
    }
    char::from(b'A' + frame[5] - 11)
}

fn nat(scheduler: Scheduler) -> Path {
    let services = world(scheduler, Hash::default(), [(1, 0), (1, 0), (1, 0)]).services;
    Path::new(Snapshot::new(Parts { services, ..testing::world(Mode::Nat) }))
}

/// Times of A, B and C.
fn times(path: &Path) -> [u64; 3] {
    [0, 1, 2].map(|slot| path.forwarder.team.times.get(BackendSlot(slot)))
}

fn is_known(time: u64) -> bool {
    ![Times::UNASKED, Times::UNANSWERED].contains(&time)
}

#[test]
fn fastest_asks_each_once_and_then_takes_the_fastest() {
    let mut path = nat(Scheduler::Fastest);
    assert_eq!(shaken(&mut path, 1000, false), 'A');
    assert_eq!(times(&path), [Times::UNANSWERED, Times::UNASKED, Times::UNASKED]);
    assert_eq!(shaken(&mut path, 1001, true), 'B');
    assert!(is_known(times(&path)[1]));
    assert_eq!(shaken(&mut path, 1002, true), 'C');
    for (slot, nanos) in [(1, 3_600_000_000_000), (2, 8)] {
        (0..100).for_each(|_| path.forwarder.team.times.note(BackendSlot(slot), nanos));
    }
    let letters: String = (2000..2100).map(|port| shaken(&mut path, port, false)).collect();
    let others = letters.len() - letters.matches('C').count();
    assert!((1..10).contains(&others), "one in 32 goes by round robin: {letters}");
}

#[test]
fn a_repeated_syn_tells_that_nobody_answers() {
    let mut path = nat(Scheduler::Fastest);
    assert_eq!(shaken(&mut path, 1000, false), 'A');
    assert_eq!(shaken(&mut path, 1000, false), 'A');
    assert!(is_known(times(&path)[0]));
    let before = times(&path);
    path.send(&request(1000, ACK));
    let late = packet((BACKEND, 8000), (CLIENT, 1000)).flags(ACK);
    assert!(matches!(path.send(&late), End::Sent(_)));
    assert_eq!(times(&path), before, "no other packet is a sample");
}

#[test]
fn no_other_scheduler_times_handshakes() {
    let mut path = nat(Scheduler::Rr);
    assert_eq!((0..3).map(|port| shaken(&mut path, 1000 + port, true)).collect::<String>(), "ABC");
    assert_eq!(times(&path), [Times::UNASKED; 3]);
}

#[test]
fn least_packets_follows_what_goes_both_ways_from_the_first_packet_on() {
    // A gets the first one. Its answer makes two packets of it, and B and C have none.
    let mut path = nat(Scheduler::LeastPackets);
    let letters: String = (1000..1009).map(|port| shaken(&mut path, port, port == 1000)).collect();
    assert_eq!(letters, "ABCBCABCA");
    let mark = |path: &Path, slot| {
        let (team, slot) = (&path.forwarder.team, BackendSlot(slot));
        team.marks.set(slot, team.traffic(slot));
    };
    // What A had is over, and the others have three each.
    mark(&path, 0);
    let letters: String = (2000..2004).map(|port| shaken(&mut path, port, false)).collect();
    assert_eq!(letters, "AAAA", "of equal ones the first");
}

#[test]
fn least_bandwidth_follows_bytes() {
    let mut path = nat(Scheduler::LeastBandwidth);
    let send = |path: &mut Path, port, len| {
        let End::Sent(frame) = path.send(&Packet { payload: vec![0; len], ..request(port, SYN) }) else {
            return '!';
        };
        char::from(b'A' + frame[5] - 11)
    };
    // 40 bytes of headers each.
    let letters: String = [60, 10, 11, 9, 0, 200, 0, 0]
        .into_iter()
        .zip(1000..)
        .map(|(len, port)| send(&mut path, port, len))
        .collect();
    // A 100; B 50; C 51; B 99; C 91; C 331; B 139; A 140.
    assert_eq!(letters, "ABCBCCBA");
}

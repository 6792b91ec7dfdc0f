//! Connections that are over: both ends are told by numbers that one of them said, and silent ends are asked.

use std::net::SocketAddr;
use std::ops::Range;

use config::words::{ClientAddress, Fate, Protocol};

use super::segment::Segment;
use super::*;
use crate::flow::state::State;
use crate::rewrite::proxy::Header;
use crate::wire::eth::Tags;

const CLIENTS: [&str; 2] = ["203.0.113.7:40000", "[2001:db8:c::7]:40000"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];
const BACKENDS: [&str; 2] = ["198.51.100.11:8000", "[2001:db8:b::11]:8000"];
/// The numbers that the client's and the backend's next bytes have, each as its sender counts.
const NEXT: (u32, u32) = (1006, 5001);

/// A way to a backend.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    /// IP versions of the client and the backend.
    versions: (usize, usize),
    client_address: ClientAddress,
    tags: Tags,
}

const PLAIN: Case = Case {
    mode: Mode::Nat,
    versions: (0, 0),
    client_address: ClientAddress::None,
    tags: Tags { outer: 0, inner: 0 },
};

fn cases() -> Vec<Case> {
    let same = [(0, 0), (1, 1)];
    let all = [(0, 0), (1, 1), (0, 1), (1, 0)];
    let plain = |mode, versions| Case { mode, versions, ..PLAIN };
    let told = |client_address| move |versions| Case { client_address, ..plain(Mode::FullNat, versions) };
    let mut cases: Vec<_> = [Mode::Nat, Mode::Dr, Mode::Tunnel]
        .into_iter()
        .flat_map(|mode| same.map(|versions| plain(mode, versions)))
        .collect();
    let ways = [ClientAddress::None, ClientAddress::ProxyV1, ClientAddress::ProxyV2, ClientAddress::Toa];
    cases.extend(ways.into_iter().flat_map(|way| all.map(told(way))));
    cases.push(Case { tags: Tags { outer: 8, inner: 7 }, ..PLAIN });
    cases.into_iter().step_by(if cfg!(miri) { 6 } else { 1 }).collect()
}

/// An established connection that has said something.
struct Pair {
    case: Case,
    path: Path,
    client: SocketAddr,
    vip: SocketAddr,
    /// Whom the backend talks to, and as whom.
    far: (SocketAddr, SocketAddr),
    /// Bytes that it got before the client's.
    more: u32,
}

impl Pair {
    fn new(case: Case) -> Self {
        let Case { mode, versions: (outer, inner), client_address, tags } = case;
        let mut path = match mode {
            Mode::FullNat => client_address::path(case.versions, client_address),
            Mode::Nat => Path::new(Snapshot::new(modes::world(VIPS[outer], BACKENDS[inner], mode))),
            _ => Path::new(Snapshot::new(modes::world(
                VIPS[outer],
                &BACKENDS[inner].replace(":8000", ":80"),
                mode,
            ))),
        };
        let mut parts = path.snapshot.parts.clone();
        parts.interfaces[0].tags = tags;
        path.snapshot = Snapshot::new(parts);
        let (client, vip): (SocketAddr, _) = (CLIENTS[outer].parse().unwrap(), VIPS[outer].parse().unwrap());
        let mut pair = Self { case, path, client, vip, far: (client, vip), more: 0 };
        let opening = pair.asks((1000, 0), SYN, b"");
        pair.far = opening.ends;
        if pair.is_two_way() {
            pair.answers((5000, 1001), SYN | ACK);
        }
        let said = pair.asks((1001, 5001), ACK, b"hello");
        pair.more = said.payload.len() as u32 - 5;
        let header =
            Header::new(client_address, Protocol::Tcp, client, vip).map_or(0, |header| header.count());
        assert_eq!(pair.more, header.into());
        if pair.is_two_way() {
            pair.answers((5001, 1006 + pair.more), ACK);
        }
        assert_eq!(pair.state(), Some(State::Established));
        pair
    }

    fn is_two_way(&self) -> bool {
        matches!(self.case.mode, Mode::Nat | Mode::FullNat)
    }

    /// Its backend is given up, as one that is up or not.
    fn over(case: Case, up: bool) -> Self {
        let mut pair = Self::new(case);
        pair.give_up(Fate::Reset, up);
        pair
    }

    fn give_up(&mut self, fate: Fate, up: bool) {
        let mut parts = self.path.snapshot.parts.clone();
        for backend in parts.backends.iter_mut().flatten() {
            (backend.fate, backend.up) = (fate, up);
        }
        self.path.snapshot = Snapshot::after(&self.path.snapshot, parts);
    }

    /// Packets of the backend, both ways.
    fn counted(&self) -> (u64, u64) {
        let its = self.path.stats.backend(BackendSlot(0));
        (its.in_packets.get(), its.out_packets.get())
    }

    fn state(&self) -> Option<State> {
        let mut state = None;
        let table = self.path.forwarder.flows();
        (0..table.lines()).for_each(|line| table.visit(line, |_, flow| state = Some(flow.state())));
        state
    }

    fn to_vip(&self, numbers: (u32, u32), flags: u8, payload: &[u8]) -> HeapFrame {
        self.tagged(&Segment {
            ends: (self.client, self.vip),
            numbers,
            flags,
            options: Vec::new(),
            payload: payload.to_vec(),
        })
    }

    fn of_backend(&self, numbers: (u32, u32), flags: u8) -> HeapFrame {
        let ends = (self.far.1, self.far.0);
        self.tagged(&Segment { ends, numbers, flags, options: Vec::new(), payload: Vec::new() })
    }

    fn tagged(&self, segment: &Segment) -> HeapFrame {
        let frame = segment.frame();
        let addresses = segment::headers_of(frame.bytes()).ip.addresses;
        let link = crate::samples::link(254, 1, self.case.tags, addresses);
        HeapFrame::new(&[link.bytes(), &frame.bytes()[14..]].concat())
    }

    fn asks(&mut self, numbers: (u32, u32), flags: u8, payload: &[u8]) -> Segment {
        let frame = self.to_vip(numbers, flags, payload);
        self.sent(frame)
    }

    fn answers(&mut self, numbers: (u32, u32), flags: u8) -> Segment {
        let frame = self.of_backend(numbers, flags);
        self.sent(frame)
    }

    fn sent(&mut self, frame: HeapFrame) -> Segment {
        let end = self.path.pass(frame);
        self.seen(end)
    }

    /// What arrives at an end.
    fn seen(&self, end: End) -> Segment {
        let End::Sent(mut frame) = end else { panic!("{end:?} {:?}", self.case) };
        let headers =
            14 + 4 * [self.case.tags.outer, self.case.tags.inner].iter().filter(|tag| **tag != 0).count();
        frame.drain(12..headers - 2);
        if matches!(frame[12..24], [8, 0, _, _, _, _, _, _, _, _, _, 4]) {
            frame.drain(14..34);
        }
        if frame[12..14] == [0x86, 0xdd] && frame[20] == 41 {
            frame.drain(14..54);
        }
        let mut seen = Segment::of(&frame);
        // The option with the client's address.
        seen.options.clear();
        seen
    }

    /// All that is asked in a round.
    fn round(&mut self) -> Vec<Segment> {
        a_round(&mut self.path).into_iter().map(|end| self.seen(end)).collect()
    }

    fn client_end(&self) -> (SocketAddr, SocketAddr) {
        (self.vip, self.client)
    }
}

/// All that is sent while the whole table is looked at once.
fn a_round(path: &mut Path) -> Vec<End> {
    let turns = path.forwarder.flows().lines().div_ceil(128);
    (0..turns).flat_map(|_| path.keep_house()).collect()
}

fn reset(ends: (SocketAddr, SocketAddr), numbers: (u32, u32), flags: u8) -> Segment {
    Segment { ends, numbers, flags, options: Vec::new(), payload: Vec::new() }
}

#[test]
fn what_one_end_sends_resets_both() {
    for case in cases() {
        for from_client in [true, false] {
            let mut pair = Pair::over(case, true);
            if !from_client && !pair.is_two_way() {
                continue;
            }
            let ((client, server), more) = (NEXT, pair.more);
            let (first, frame) = match from_client {
                true => (reset(pair.client_end(), (server, 0), RST), pair.to_vip((client, server), ACK, b"")),
                false => {
                    (reset(pair.far, (client + more, 0), RST), pair.of_backend((server, client + more), ACK))
                }
            };
            // The second is for an end to which this was a probe of an idle connection.
            let others = [0, 1].map(|more_or_less| match from_client {
                true => reset(pair.far, (client + more + more_or_less, server), RST | ACK),
                false => reset(pair.client_end(), (server + more_or_less, client), RST | ACK),
            });
            let before = pair.counted();
            assert_eq!(pair.sent(frame.clone()), first, "{case:?}");
            let told: Vec<_> = pair.path.offer_ready().into_iter().map(|end| pair.seen(end)).collect();
            assert_eq!(told, others, "{case:?}");
            assert_eq!(pair.state(), Some(State::Close));
            // What was on its way meanwhile is answered, and nobody else is told again.
            assert_eq!(pair.sent(frame), first);
            assert_eq!((pair.path.offer_ready(), pair.round()), (vec![], vec![]));
            assert_eq!((pair.path.stats.made.get(), pair.counted()), (2, before));
            assert_eq!(pair.path.stats.answered_for.get(DropReason::FlowReset), 2);
        }
    }
}

/// What a segment carries goes nowhere, but may have come before: the other end awaits its first byte or what follows.
#[test]
fn what_is_said_late_resets_the_other_end_wherever_it_is() {
    for case in cases() {
        for (flags, payload, len) in [(ACK, &b"late"[..], 4), (FIN | ACK, b"", 1), (FIN | ACK, b"bye", 4)] {
            let mut pair = Pair::over(case, true);
            let late = pair.to_vip(NEXT, flags, payload);
            assert_eq!(pair.sent(late), reset(pair.client_end(), (NEXT.1, 0), RST));
            let told: Vec<_> = pair.path.offer_ready().into_iter().map(|end| pair.seen(end)).collect();
            let first = NEXT.0 + pair.more;
            let both = [first, first + len].map(|number| reset(pair.far, (number, NEXT.1), RST | ACK));
            assert_eq!(told, both, "{case:?}");
        }
    }
}

#[test]
fn silent_ends_are_asked_the_backend_first_and_three_times() {
    for case in cases() {
        for up in [true, false] {
            let mut pair = Pair::over(case, up);
            let (far, near, two_way, before) =
                (pair.far, pair.client_end(), pair.is_two_way(), pair.counted());
            let mut numbers = Vec::new();
            for round in 0..3 {
                let asked = pair.round();
                let mut ends = vec![far, near];
                ends.retain(|end| {
                    if *end == far && far != near { two_way } else { !(two_way && up && round == 0) }
                });
                assert_eq!(asked.iter().map(|it| it.ends).collect::<Vec<_>>(), ends, "{case:?} {up} {round}");
                assert!(asked.iter().all(|it| it.flags == ACK && it.payload.is_empty()));
                numbers.extend(asked.last().map(|it| it.numbers.0));
                // Not before its time.
                assert_eq!(pair.round(), []);
                pair.path.now += 2;
            }
            numbers.dedup();
            assert_eq!(numbers.len(), 3, "other numbers in each round");
            assert_eq!(pair.counted(), before, "they are made here");
            assert_eq!(pair.round(), []);
            // Who does not answer is told when it sends, as long as the flow lives.
            assert_eq!(pair.state(), Some(State::Established));
            let late = pair.to_vip(NEXT, ACK, b"late");
            assert_eq!(pair.sent(late), reset(near, (NEXT.1, 0), RST));
        }
    }
}

#[test]
fn a_reset_passes_on_but_not_one_of_who_knows_no_connection() {
    for case in cases() {
        let mut pair = Pair::over(case, false);
        let asked = pair.round();
        let to_client = asked.iter().find(|it| it.ends == pair.client_end()).unwrap();
        let stranger = pair.to_vip((to_client.numbers.1, 0), RST, b"");
        assert_eq!(pair.path.pass(stranger), End::Dropped(DropReason::FlowReset), "{case:?}");
        assert_eq!(pair.state(), Some(State::Established));
        let (far, more) = (pair.far, pair.more);
        assert_eq!(pair.asks(NEXT, RST, b""), reset(far, (NEXT.0 + more, NEXT.1), RST));
        assert_eq!(pair.state(), Some(State::Close));
    }
}

#[test]
fn an_opening_that_is_over_is_not_held_against_its_client() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    let mut parts = testing::world(Mode::Nat);
    parts.backends[0].as_mut().unwrap().fate = Fate::Reset;
    Arc::make_mut(parts.services[0].as_mut().unwrap()).candidates.remove(0);
    path.snapshot = Snapshot::after(&path.snapshot, parts);
    assert_eq!(path.keep_house(), []);
    let End::Sent(frame) = path.send(&packet((BACKEND, 8000), (CLIENT, 40000)).flags(SYN | ACK)) else {
        panic!()
    };
    assert_eq!((frame[33], frame[47]), (BACKEND[3], RST));
    assert_eq!(path.offer_ready(), []);
    assert_ne!(path.backend_of(&request(40000, SYN)), 11, "it repeats its SYN, and goes elsewhere");
}

#[test]
fn nobody_is_asked_about_flows_that_go_on() {
    let mut pair = Pair::new(PLAIN);
    assert_eq!(pair.round(), []);
    for fate in [Fate::Reschedule, Fate::Keep] {
        pair.give_up(fate, false);
        assert_eq!((pair.round(), pair.path.snapshot.given_up), (vec![], 0));
    }
    // Each time that a backend is given up is another one, for which ends are asked anew.
    for _ in 0..2 {
        let before = pair.path.snapshot.given_up;
        pair.give_up(Fate::Reset, true);
        assert_eq!(pair.path.snapshot.given_up, before + 2, "it serves TCP and UDP");
        pair.give_up(Fate::Reset, true);
        assert_eq!(pair.path.snapshot.given_up, before + 2, "it was so before");
        for _ in 0..3 {
            assert_ne!(pair.round(), []);
            pair.path.now += 2;
        }
        assert_eq!(pair.round(), []);
        pair.give_up(Fate::Keep, true);
        assert_eq!(pair.round(), []);
    }
}

#[test]
fn who_is_given_up_meanwhile_is_asked_in_the_next_round() {
    let mut path = Path::nat();
    for port in 40000..40003 {
        path.send(&request(port, SYN));
        path.send(&request(port, ACK));
    }
    let asked = |path: &mut Path| {
        let station = |end| match end {
            End::Sent(frame) => frame[33],
            end => panic!("{end:?}"),
        };
        let mut stations: Vec<_> = a_round(path).into_iter().map(station).collect();
        stations.sort_unstable();
        stations
    };
    let give_up = |path: &mut Path, slots: Range<usize>| {
        let mut parts = testing::world(Mode::Nat);
        parts.backends[slots].iter_mut().flatten().for_each(|backend| backend.fate = Fate::Reset);
        path.snapshot = Snapshot::after(&path.snapshot, parts);
    };
    give_up(&mut path, 0..1);
    assert_eq!(asked(&mut path), [11]);
    give_up(&mut path, 0..2);
    assert_eq!(asked(&mut path), []);
    for _ in 0..2 {
        path.now += 2;
        assert_eq!(asked(&mut path), [7, 7, 11, 12], "clients of both, too");
    }
    path.now += 2;
    assert_eq!(asked(&mut path), [11, 12]);
    path.now += 2;
    assert_eq!(asked(&mut path), []);
}

#[test]
fn many_are_asked_a_few_at_a_time() {
    let flows = if cfg!(miri) { 40 } else { 15_000 };
    let mut path = Path::of(testing::snapshot(Mode::Dr), 0, 1, 2 * usize::from(flows));
    for port in 0..flows {
        path.send(&request(port, SYN));
        path.send(&request(port, ACK));
    }
    let mut parts = testing::world(Mode::Dr);
    parts.backends.iter_mut().flatten().for_each(|backend| backend.fate = Fate::Reset);
    path.snapshot = Snapshot::after(&path.snapshot, parts);
    let (mut asked, mut per_second) = (std::collections::HashSet::new(), Vec::new());
    for _ in 0..2 {
        let before = asked.len();
        for _ in 0..path.forwarder.flows().lines() {
            let ends = path.keep_house();
            assert!(ends.len() <= 12);
            for end in ends {
                let End::Sent(frame) = end else { panic!("{end:?}") };
                assert!(asked.insert([frame[36], frame[37]]), "nobody twice");
            }
        }
        per_second.push(asked.len() - before);
        path.now += 1;
    }
    assert_eq!(asked.len(), usize::from(flows));
    assert!(cfg!(miri) || (9_990..=10_000).contains(&per_second[0]), "{per_second:?}");
}

#[test]
fn stations_that_are_not_known_are_asked_a_few_at_a_time() {
    let (mut path, _) = answers(40000..40020);
    let mut parts = path.snapshot.parts.clone();
    parts.neighbours = Arc::new(NeighbourTable::new([]));
    path.snapshot = Snapshot::after(&path.snapshot, parts);
    path.out.punt = Arc::new(ArrayQueue::new(32));
    for _ in 0..20 {
        let asked = path.keep_house();
        assert!(asked.iter().all(|end| matches!(end, End::Punted(PuntReason::Resolve(_), _))), "{asked:?}");
        assert!(asked.len() <= 8, "others have half of the queue, too: {}", asked.len());
        path.now += 1;
    }
    assert_ne!(path.stats.made.get(), 0);
}

#[test]
fn a_burst_of_answers_tells_all_others() {
    let (mut path, mut burst) = answers(40000..40032);
    let told = path.forward(&mut burst);
    let others: Vec<_> = [path.offer_ready(), path.offer_ready()].into_iter().flatten().collect();
    assert_eq!((told.len(), others.len(), path.offer_ready().len()), (32, 64, 0));
    assert!(told.iter().chain(&others).all(|end| matches!(end, End::Sent(frame) if frame[47] & RST == RST)));
}

#[test]
fn who_cannot_be_told_at_once_is_asked_later() {
    if cfg!(miri) {
        return;
    }
    let (mut path, mut burst) = answers(40000..40300);
    assert_eq!(path.forward(&mut burst).len(), 32);
    for port in (40032..40300).step_by(32) {
        let mut burst = burst_of(port..40300.min(port + 32));
        path.forward(&mut burst);
    }
    let told: usize = (0..20).map(|_| path.offer_ready().len()).sum();
    assert_eq!(told, 2 * 256);
    // A turn asks twelve at most, so that a round may take more turns; the next one does not begin in this second.
    let asked: usize = (0..4).map(|_| a_round(&mut path).len()).sum();
    assert_eq!(asked, 300 - 256);
}

#[test]
fn a_piece_tells_nobody_so_that_the_ends_are_asked() {
    let (mut path, _) = answers(40000..40001);
    let mut first = Packet { dont_fragment: false, payload: vec![0; 4], ..request(40000, ACK) }.bytes();
    // More fragments follow; the header's sum is less by what it is more (RFC 1624).
    first[20] = 0x20;
    let sum = u16::from_be_bytes([first[24], first[25]]);
    first[24..26].copy_from_slice(&sum.wrapping_sub(0x2000 + u16::from(sum < 0x2000)).to_be_bytes());
    assert_eq!(path.pass(HeapFrame::new(&first)), End::Dropped(DropReason::FlowReset));
    assert_eq!((path.offer_ready().len(), a_round(&mut path).len()), (0, 1));
}

/// A path with established connections that are over then, and the answers of the first ones' clients.
fn answers(ports: Range<u16>) -> (Path, Burst<HeapFrame>) {
    let mut path = Path::of(testing::snapshot(Mode::Nat), 0, 1, 1000);
    for port in ports.clone() {
        path.send(&request(port, SYN));
        path.send(&request(port, ACK));
    }
    let mut parts = testing::world(Mode::Nat);
    parts.backends.iter_mut().flatten().for_each(|backend| backend.fate = Fate::Reset);
    path.snapshot = Snapshot::after(&path.snapshot, parts);
    (path, burst_of(ports.start..ports.start + 32))
}

fn burst_of(ports: Range<u16>) -> Burst<HeapFrame> {
    let mut burst = Burst::default();
    for port in ports {
        let answer = Packet { payload: Vec::new(), ..request(port, ACK) };
        burst.push(HeapFrame::new(&answer.bytes())).unwrap();
    }
    burst
}

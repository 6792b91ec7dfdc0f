//! Full NAT that tells backends who their clients are, judged by a model of both ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

use config::words::{ClientAddress, Protocol};

use super::segment::{Segment, ends_of, headers_of};
use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::rewrite::proxy::Header;
use crate::samples::{Sample, datagram, icmp, is_valid};
use crate::snapshot::{Pool, PoolSlot};

const LOCALS: [&str; 2] = ["198.51.100.200", "2001:db8:b::200"];
const CLIENTS: [&str; 2] = ["203.0.113.7:40000", "[2001:db8:c::7]:40000"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];
const BACKENDS: [&str; 2] = ["198.51.100.11:8000", "[2001:db8:b::11]:8000"];
const KINDS: [ClientAddress; 2] = [ClientAddress::ProxyV1, ClientAddress::ProxyV2];

/// IP versions of a client and its backend: 0 for IPv4, 1 for IPv6.
type Versions = (usize, usize);

pub(super) fn path((outer, inner): Versions, kind: ClientAddress) -> Path {
    let mut parts = modes::world(VIPS[outer], BACKENDS[inner], Mode::FullNat);
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).pool = Some(PoolSlot(0));
    }
    parts.backends.iter_mut().flatten().for_each(|backend| backend.client_address = kind);
    parts.locals = LOCALS.map(|local| local.parse().unwrap()).to_vec();
    parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(1)] }];
    let mut path = Path::new(Snapshot::new(parts));
    // Made once: their ports are many.
    static PORTS: LazyLock<[LocalAddresses; 2]> = LazyLock::new(|| {
        LOCALS.map(|local| LocalAddresses::new(&[local.parse().unwrap()], &Owners::new(1), 0))
    });
    for (slot, address) in PORTS.iter().enumerate() {
        path.forwarder.install(LocalSlot(slot as u8), address.clone());
    }
    path
}

/// A connection through a path, as its client and its backend see it.
struct Connection {
    path: Path,
    ends: (SocketAddr, SocketAddr),
    /// The backend's ends.
    far: (SocketAddr, SocketAddr),
}

impl Connection {
    /// A connection whose opening came through and is answered.
    fn open((outer, inner): Versions, kind: ClientAddress, isn: u32) -> Self {
        let ends = (CLIENTS[outer].parse().unwrap(), VIPS[outer].parse().unwrap());
        let mut it = Self { path: path((outer, inner), kind), ends, far: ends };
        let opening = it.ask(isn, 0, SYN, &[2, 4, 5, 180], b"");
        assert_eq!((opening.numbers.0, opening.flags, opening.payload), (isn, SYN, Vec::new()));
        assert_eq!(opening.options, [2, 4, 5, 180], "what the backend sends is not made longer");
        it.far = opening.ends;
        assert_eq!(it.far, (it.far.0, BACKENDS[inner].parse().unwrap()));
        assert_eq!(it.far.0.ip(), LOCALS[inner].parse::<IpAddr>().unwrap());
        it
    }

    fn header(&self, kind: ClientAddress) -> Vec<u8> {
        Header::new(kind, Protocol::Tcp, self.ends.0, self.ends.1).unwrap().bytes().to_vec()
    }

    fn sent(&mut self, segment: &Segment) -> Segment {
        match self.path.pass(segment.frame()) {
            End::Sent(frame) => Segment::of(&frame),
            end => panic!("{end:?}"),
        }
    }

    /// What becomes of a client's segment.
    fn ask(&mut self, sequence: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) -> Segment {
        let (options, payload) = (options.to_vec(), payload.to_vec());
        self.sent(&Segment { ends: self.ends, numbers: (sequence, ack), flags, options, payload })
    }

    /// What becomes of a backend's segment.
    fn answer(&mut self, sequence: u32, ack: u32, flags: u8, options: &[u8], payload: &[u8]) -> Segment {
        let (ends, options, payload) = ((self.far.1, self.far.0), options.to_vec(), payload.to_vec());
        let sent = self.sent(&Segment { ends, numbers: (sequence, ack), flags, options, payload });
        assert_eq!(sent.ends, (self.ends.1, self.ends.0));
        sent
    }
}

const ALL: [Versions; 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

#[test]
fn a_server_that_speaks_first_knows_its_client() {
    for (versions, kind) in ALL.into_iter().flat_map(|versions| KINDS.map(|kind| (versions, kind))) {
        let mut it = Connection::open(versions, kind, u32::MAX);
        let header = it.header(kind);
        let len = header.len() as u32;
        // The offer leaves room for the header, which the client does not know of.
        let answer = it.answer(900, 0, SYN | ACK, &[2, 4, 5, 180], b"");
        assert_eq!(answer.numbers, (900, 0));
        assert_eq!(answer.options[2..], (1460 - len as u16).to_be_bytes());
        // Each time until it is known to have come.
        for _ in 0..2 {
            let established = it.ask(0, 901, ACK, &[], b"");
            assert_eq!((established.numbers, &established.payload), ((0, 901), &header));
        }
        let banner = it.answer(901, len, ACK, &[], b"220 ready");
        assert_eq!((banner.numbers, &banner.payload[..]), ((901, 0), &b"220 ready"[..]));
        let acknowledged = it.ask(0, 910, ACK, &[], b"");
        assert_eq!((acknowledged.numbers, acknowledged.payload), ((len, 910), Vec::new()));
        let spoken = it.ask(0, 910, ACK, &[], b"HELO");
        assert_eq!((spoken.numbers, &spoken.payload[..]), ((len, 910), &b"HELO"[..]));
        assert_eq!(it.answer(910, len + 4, ACK, &[], b"").numbers, (910, 4));
        assert_eq!(it.ask(4, 910, RST, &[], b"").numbers.0, len + 4);
    }
}

#[test]
fn a_segment_without_room_for_the_header_is_refused_and_told_how_long_it_may_be() {
    for (versions, mtu) in [((0, 0), 1472), ((0, 1), 1452)] {
        let mut it = Connection::open(versions, ClientAddress::ProxyV2, 99);
        let longest = it.ask(100, 901, ACK, &[], &vec![7; mtu - 40]);
        assert_eq!(longest.payload.len(), mtu - 40 + 28);
        let ends = it.ends;
        let payload = vec![7; mtu - 39];
        let longer = Segment { ends, numbers: (100, 901), flags: ACK, options: Vec::new(), payload };
        let End::Sent(told) = it.path.pass(longer.frame()) else { panic!() };
        assert_eq!(told[34..36], [3, 4], "fragmentation needed");
        assert_eq!(told[40..42], (mtu as u16).to_be_bytes());
        // Behind the header there is room for all that the MTU has.
        it.answer(901, 128, ACK, &[], b"");
        assert_eq!(it.ask(100, 901, ACK, &[], &vec![7; mtu - 12]).payload.len(), mtu - 12);
        let longer = Segment { payload: vec![7; mtu - 11], ..longer };
        let End::Sent(told) = it.path.pass(longer.frame()) else { panic!() };
        assert_eq!(told[66..70], 100u32.to_be_bytes(), "the client's own number is quoted");
    }
}

/// An error of a router behind us about the packet in a frame, of which it quotes so much.
fn error_about(frame: &[u8], kind: [u8; 2], rest: [u8; 4], quoted: usize) -> Sample {
    let (src, _) = ends_of(&headers_of(frame));
    let router = if src.is_ipv4() { "198.51.100.99:0" } else { "[2001:db8:b::99]:0" };
    icmp(router, &src.to_string(), kind, rest, &frame[14..][..quoted])
}

#[test]
fn errors_about_a_clients_segments_are_in_its_own_numbers() {
    const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
    const EXPIRED: [[u8; 2]; 2] = [[11, 0], [3, 0]];
    for (versions, kind) in
        ALL.into_iter().flat_map(|it| [KINDS[0], KINDS[1], ClientAddress::Toa].map(|kind| (it, kind)))
    {
        let (outer, inner) = versions;
        let mut it = Connection::open(versions, kind, u32::MAX);
        it.answer(900, 0, SYN | ACK, &[], b"");
        let more = match kind {
            ClientAddress::Toa => [8, 20][outer],
            _ => it.header(kind).len() as u16,
        };
        // Of three segments: the opening, the first one, and a later one.
        for (sequence, flags) in [(u32::MAX, SYN), (0, ACK), (1000, ACK)] {
            for told in [EXPIRED, TOO_BIG] {
                let (ends, options) = (it.ends, Vec::new());
                let segment =
                    Segment { ends, numbers: (sequence, 901), flags, options, payload: vec![7; 1000] };
                let segment = if flags == SYN { Segment { payload: Vec::new(), ..segment } } else { segment };
                let End::Sent(sent) = it.path.pass(segment.frame()) else { panic!() };
                let mtu = 1400u16.to_be_bytes();
                let rest = if told == TOO_BIG { [0, 0, mtu[0], mtu[1]] } else { [0; 4] };
                let error = error_about(&sent, told[inner], rest, [28, 48][inner]);
                let End::Sent(heard) = it.path.pass(error.frame()) else { panic!("{versions:?} {kind}") };
                assert!(is_valid(&heard[14..]));
                let at = 14 + [20, 40][outer];
                assert_eq!(heard[at], told[outer][0]);
                let quoted = at + 8 + [20, 40][outer];
                assert_eq!(
                    heard[quoted + 4..quoted + 8],
                    sequence.to_be_bytes(),
                    "{versions:?} {kind} {sequence}"
                );
                if told == TOO_BIG {
                    let here = (1400 + 20 * outer as u16).wrapping_sub(20 * inner as u16);
                    let wanted = here - if sequence == 0 { more } else { 0 };
                    assert_eq!(heard[at + 6..at + 8], wanted.to_be_bytes(), "{versions:?} {kind} {sequence}");
                }
            }
        }
    }
}

#[test]
fn an_opening_with_data_has_the_header_before_them() {
    let mut it = Connection::open((0, 0), ClientAddress::ProxyV2, 99);
    let header = it.header(ClientAddress::ProxyV2);
    let opening = it.ask(99, 0, SYN, &[34, 2, 1, 1], b"GET /");
    assert_eq!((opening.numbers.0, opening.payload), (99, [&header[..], b"GET /"].concat()));
    assert_eq!(it.answer(900, 100, SYN | ACK, &[], b"").numbers.1, 100, "only the opening is taken");
    assert_eq!(it.ask(100, 901, ACK, &[], b"GET /").payload, [&header[..], b"GET /"].concat());
    assert_eq!(it.answer(900, 133, SYN | ACK, &[], b"").numbers.1, 105, "all of it is taken");
    assert_eq!(it.ask(105, 901, ACK, &[], b"").numbers, (133, 901));
}

#[test]
fn what_began_elsewhere_is_left_as_it_is() {
    let mut it = Connection::open((0, 0), ClientAddress::ProxyV2, 99);
    it.path.snapshot.parts.services.iter_mut().flatten().for_each(|service| {
        Arc::make_mut(service).no_flow = config::words::NoFlow::Schedule;
    });
    it.ends.0.set_port(40001);
    let taken_up = it.ask(5000, 7000, ACK, &[], b"more");
    assert_eq!((taken_up.numbers, &taken_up.payload[..]), ((5000, 7000), &b"more"[..]));
    it.far = taken_up.ends;
    assert_eq!(it.answer(7000, 5004, ACK, &[], b"").numbers, (7000, 5004));
}

#[test]
fn the_option_goes_with_all_segments_before_the_clients_second_byte() {
    let long: Vec<u8> = vec![1; 36];
    for (versions, len) in [((0, 0), 8), ((0, 1), 8), ((1, 0), 20), ((1, 1), 20)] {
        let mut it = Connection::open(versions, ClientAddress::Toa, 99);
        let option = match it.ends.0.ip() {
            IpAddr::V4(ip) => [&[254, 8, 0x9c, 0x40][..], &ip.octets()].concat(),
            IpAddr::V6(ip) => [&[254, 20, 0x9c, 0x40][..], &ip.octets()].concat(),
        };
        assert_eq!(option.len(), len);
        let answer = it.answer(900, 100, SYN | ACK, &[2, 4, 5, 180], b"");
        assert_eq!(answer.options[2..], (1460 - len as u16).to_be_bytes());
        for payload in [&b""[..], b"GET /"] {
            let marked = it.ask(100, 901, ACK, &[1; 12], payload);
            assert_eq!(marked.options, [&option[..], &[1; 12]].concat());
            assert_eq!((marked.numbers, &marked.payload[..]), ((100, 901), payload));
        }
        let untold = |it: &Connection| it.path.stats.addresses_untold.get();
        assert_eq!(untold(&it), 0);
        // Neither a full header nor a full packet is a reason to refuse it.
        assert_eq!(it.ask(100, 901, ACK, &long, b"GET /").options, long);
        assert_eq!(untold(&it), 1);
        // The longest that passes without the option, and the longest that passes with it.
        let room = match versions {
            (0, 0) => 1460,
            (1, 1) | (0, 1) => 1440,
            _ => 1460,
        };
        assert_eq!(it.ask(100, 901, ACK, &[], &vec![7; room]).options, []);
        assert_eq!(untold(&it), 2);
        assert_eq!(it.ask(100, 901, ACK, &[], &vec![7; room - len]).options, option);
        let taken = it.answer(901, 105, ACK, &[], b"");
        assert_eq!(taken.numbers, (901, 105));
        assert_eq!(it.ask(100, 901, ACK, &[], b"GET /").options, []);
        assert_eq!(it.ask(105, 901, ACK, &[], b"more").options, []);
        assert_eq!(untold(&it), 2);
    }
}

#[test]
fn datagrams_have_the_header_until_one_is_answered_or_always() {
    use ClientAddress::{ProxyV2, ProxyV2Each};
    for (versions, kind) in ALL.into_iter().flat_map(|it| [(it, ProxyV2), (it, ProxyV2Each)]) {
        let (outer, inner) = versions;
        let mut path = path(versions, kind);
        for round in 0..2 {
            let client = CLIENTS[outer].replace("40000", &format!("4000{round}"));
            let question = datagram(&client, VIPS[outer]);
            let header = Header::new(kind, Protocol::Udp, question.src, question.dst).unwrap();
            let too_long = Sample { payload: vec![7; 1500], ..question.clone() };
            assert!(matches!(path.pass(too_long.frame()), End::Sent(told) if told.len() > 48), "refused");
            // The first two are not answered: nobody knows whether they came.
            for (number, answered) in [false, false, true, true, false].into_iter().enumerate() {
                let has_it = number < 3 || kind == ProxyV2Each;
                let payload = [if has_it { header.bytes() } else { b"" }, b"GET /"].concat();
                let End::Sent(frame) = path.pass(question.frame()) else { panic!() };
                assert!(is_valid(&frame[14..]));
                let headers = headers_of(&frame);
                let (src, dst) = ends_of(&headers);
                assert_eq!(dst, BACKENDS[inner].parse().unwrap());
                assert_eq!(frame[usize::from(headers.ip.l4) + 8..], *payload);
                assert_eq!(headers.ip.len, Sample { src, dst, payload, ..question.clone() }.packet().len);
                let error = datagram_too_long_for_a_router(&frame, inner);
                let End::Sent(told) = path.pass(error.frame()) else { panic!() };
                let here = 1400 + 20 * outer as u16 - 20 * inner as u16;
                let wanted = here - if has_it { u16::from(header.count()) } else { 0 };
                assert!(is_valid(&told[14..]));
                assert_eq!(
                    told[14 + [20, 40][outer] + 6..][..2],
                    wanted.to_be_bytes(),
                    "{versions:?} {kind}"
                );
                if answered {
                    let reply = Sample { src: dst, dst: src, ..question.clone() };
                    let End::Sent(answer) = path.pass(reply.frame()) else { panic!() };
                    assert_eq!(ends_of(&headers_of(&answer)), (question.dst, question.src));
                    assert_eq!(answer[answer.len() - 5..], *b"GET /");
                }
            }
        }
    }
}

/// What a router behind us, whose next link has an MTU of 1400, says of the datagram in a frame.
fn datagram_too_long_for_a_router(frame: &[u8], inner: usize) -> Sample {
    error_about(frame, [[3, 4], [2, 0]][inner], [0, 0, 5, 120], [28, 48][inner])
}

#[test]
fn a_datagram_in_pieces_has_no_place_for_the_header() {
    let mut path = path((0, 0), ClientAddress::ProxyV2);
    let whole = Sample { payload: vec![7; 64], ..datagram(CLIENTS[0], VIPS[0]) };
    let first = path.pass(whole.piece(0, 40).frame());
    assert_eq!(first, End::Dropped(DropReason::AddressInPieces));
    assert!(matches!(path.pass(whole.piece(40, 64).frame()), End::Sent(_)));
    let End::Sent(next) = path.pass(whole.frame()) else { panic!() };
    assert_eq!(next.len(), whole.bytes().len() + 28, "the next one has it");
    let (src, dst) = ends_of(&headers_of(&next));
    assert!(matches!(path.pass(datagram(&dst.to_string(), &src.to_string()).frame()), End::Sent(_)));
    assert!(
        matches!(path.pass(whole.piece(0, 40).frame()), End::Sent(_)),
        "and when it is answered, pieces pass"
    );
}

/// A backend's end: what came, in whatever order.
#[derive(Default)]
struct Receiver {
    /// By place in the stream.
    bytes: BTreeMap<u32, u8>,
    end: Option<u32>,
    latest: Option<(u32, u32)>,
}

impl Receiver {
    fn take(&mut self, isn: u32, segment: &Segment) {
        let at = segment.numbers.0.wrapping_sub(isn.wrapping_add(1));
        for (place, byte) in (at..).zip(&segment.payload) {
            assert_eq!(*self.bytes.entry(place).or_insert(*byte), *byte, "byte {place} came as another");
        }
        let end = at + segment.payload.len() as u32;
        if segment.flags & FIN != 0 {
            assert_eq!(*self.end.get_or_insert(end), end);
        }
        self.latest = Some((at, end)).filter(|_| !segment.payload.is_empty());
    }

    /// The first place that is missing.
    fn next(&self) -> u32 {
        (0..)
            .zip(self.bytes.keys())
            .find(|(place, had)| place != *had)
            .map_or(self.bytes.len() as u32, |(place, _)| place)
    }

    /// What it acknowledges: all before a place, and its latest segment, be that behind a gap or a repetition.
    fn acknowledgment(&self, isn: u32) -> (u32, Vec<u8>) {
        let place = |at: u32| isn.wrapping_add(1).wrapping_add(at);
        let next = self.next();
        let ended = u32::from(self.end == Some(next));
        let Some((left, right)) = self.latest else { return (place(next + ended), Vec::new()) };
        let block = [place(left).to_be_bytes(), place(right).to_be_bytes()].concat();
        (place(next + ended), [&[1, 1, 5, 10][..], &block].concat())
    }
}

fn blocks_of(options: &[u8]) -> Option<(u32, u32)> {
    let long = |at: usize| u32::from_be_bytes(options[at..at + 4].try_into().unwrap());
    (options.get(2) == Some(&5)).then(|| (long(4), long(8)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 200 }))]

    /// A client sends pieces of its bytes, again and in any order; frames are lost, doubled and late both ways. The
    /// backend gets the header and the bytes, each once, and the client is told of no byte that it did not send.
    #[test]
    fn a_stream_comes_through_with_its_header_before_it(
        (versions, text) in (prop::sample::select(&ALL[..]), any::<bool>()),
        isn in prop_oneof![any::<u32>(), Just(u32::MAX), Just(u32::MAX - 40)],
        data in prop::collection::vec(any::<u8>(), 0..400),
        steps in prop::collection::vec((0u8..10, any::<prop::sample::Index>(), 0usize..120), 0..150),
    ) {
        let kind = KINDS[usize::from(text)];
        let mut it = Connection::open(versions, kind, isn);
        let whole = [it.header(kind), data.clone()].concat();
        let first = isn.wrapping_add(1);
        prop_assert_eq!(it.answer(900, first, SYN | ACK, &[], b"").numbers, (900, first));
        let mut receiver = Receiver::default();
        let (mut on_their_way, mut answers) = (Vec::new(), Vec::new());
        // The client never sends beyond what it has, and a FIN with the last byte only.
        let mut reached = 0;
        let mut known = 0;
        for (step, which, len) in steps {
            match step {
                0..=3 => {
                    let start = which.index(reached + 1);
                    let end = (start + len).min(data.len());
                    let flags = if end == data.len() { ACK | FIN } else { ACK };
                    let number = first.wrapping_add(start as u32);
                    on_their_way.push(it.ask(number, 901, flags, &[], &data[start..end]));
                    reached = reached.max(end);
                }
                4 => on_their_way.push(it.ask(first.wrapping_add(reached as u32), 901, ACK, &[], b"")),
                5 if !on_their_way.is_empty() => {
                    on_their_way.swap_remove(which.index(on_their_way.len()));
                }
                6..=7 if !on_their_way.is_empty() => {
                    let index = which.index(on_their_way.len());
                    let segment = on_their_way[index].clone();
                    if step == 6 {
                        on_their_way.swap_remove(index);
                    }
                    receiver.take(isn, &segment);
                    answers.push(receiver.acknowledgment(isn));
                }
                _ if !answers.is_empty() => {
                    let (ack, options) = answers.swap_remove(which.index(answers.len()));
                    let told = it.answer(901, ack, ACK, &options, b"");
                    let count = told.numbers.1.wrapping_sub(first);
                    prop_assert!(count as i32 >= -(whole.len() as i32) && count as i32 <= reached as i32 + 1);
                    // What was not told before is told exactly.
                    let exact = ack.wrapping_sub(first).saturating_sub((whole.len() - data.len()) as u32);
                    if count as i32 >= 0 {
                        prop_assert_eq!(count, exact);
                        known = known.max(count);
                    } else {
                        prop_assert!(exact <= known);
                    }
                    if let Some((left, right)) = blocks_of(&told.options) {
                        let (left, right) = (left.wrapping_sub(first), right.wrapping_sub(first));
                        prop_assert!(left < right && right <= reached as u32);
                    }
                }
                _ => {}
            }
        }
        // At last all of it comes once more.
        for start in (0..=data.len()).step_by(100) {
            let end = (start + 100).min(data.len());
            let flags = if end == data.len() { ACK | FIN } else { ACK };
            let segment = it.ask(first.wrapping_add(start as u32), 901, flags, &[], &data[start..end]);
            receiver.take(isn, &segment);
        }
        let (ack, _) = receiver.acknowledgment(isn);
        prop_assert_eq!(receiver.bytes.into_values().collect::<Vec<_>>(), whole);
        prop_assert_eq!(it.answer(901, ack, ACK, &[], b"").numbers.1, first.wrapping_add(data.len() as u32 + 1));
    }
}

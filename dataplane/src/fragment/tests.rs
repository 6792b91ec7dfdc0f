use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { pieces: 64, datagrams: 64, timeout: 5, remember: 30 };

/// A table of numbered frames, and what became of them.
struct World {
    table: FragmentTable<u32>,
    offered: u32,
    passed: HashMap<u32, Transport>,
    dropped: HashMap<u32, DropReason>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let table = FragmentTable::new(limits, RandomState::new());
        Self { table, offered: 0, passed: HashMap::new(), dropped: HashMap::new() }
    }

    /// Offers a piece; its frame's number is the answer, its fate is in `passed`, `dropped` or neither.
    fn offer(&mut self, datagram: &Datagram, piece: Piece, now: Seconds) -> u32 {
        let frame = self.offered;
        self.offered += 1;
        let dropped = &mut self.dropped;
        let mut gone = |frame, why| assert_eq!(dropped.insert(frame, why), None);
        let offered = self.table.offer(datagram, piece, frame, now, &mut gone);
        match offered {
            Offered::Pass(frame, transport) => self.pass(frame, transport),
            Offered::First(frame, transport) => {
                self.pass(frame, transport);
                while let Some(frame) = self.table.release(datagram) {
                    self.pass(frame, transport);
                }
            }
            Offered::Held => {}
            Offered::Dropped => assert!(self.dropped.contains_key(&frame)),
        }
        self.check();
        frame
    }

    fn pass(&mut self, frame: u32, transport: Transport) {
        assert_eq!(self.passed.insert(frame, transport), None);
    }

    fn expire(&mut self, now: Seconds, budget: usize) {
        let dropped = &mut self.dropped;
        self.table.expire(now, budget, &mut |frame, why| assert_eq!(dropped.insert(frame, why), None));
        self.check();
    }

    /// The balance: every frame was passed, was dropped, or waits.
    fn check(&self) {
        assert_eq!(self.passed.len() + self.dropped.len() + self.table.held(), self.offered as usize);
        assert!(self.table.held() <= self.table.limits.pieces);
        assert!(self.table.len() <= self.table.limits.pieces + self.table.limits.datagrams);
        assert_eq!(self.table.shares.iter().sum::<u32>() as usize, self.table.held());
    }

    fn fate(&self, frame: u32) -> Option<Result<Transport, DropReason>> {
        let passed = self.passed.get(&frame).map(|transport| Ok(*transport));
        passed.or(self.dropped.get(&frame).map(|why| Err(*why)))
    }
}

fn v4(source: u32, id: u32) -> Datagram {
    Datagram::new(Addresses::V4 { src: 0xc000_0200 + source, dst: 0xc633_6401 }, id, ipv4::PROTOCOL_UDP)
}

fn v6(source: u32, id: u32) -> Datagram {
    let network = 0x2001_0db8 << 96 | u128::from(source) << 64;
    Datagram::new(Addresses::V6 { src: network | 7, dst: 0x2001_0db8 << 96 | 1 }, id, ipv4::PROTOCOL_UDP)
}

fn transport(src_port: u16) -> Transport {
    Transport { protocol: Protocol::Udp, src_port, dst_port: 53 }
}

fn first(len: u16, src_port: u16) -> Piece {
    Piece { offset: 0, len, more: true, transport: Some(transport(src_port)) }
}

fn middle(offset: u16, len: u16) -> Piece {
    Piece { offset, len, more: true, transport: None }
}

fn last(offset: u16, len: u16) -> Piece {
    Piece { offset, len, more: false, transport: None }
}

#[test]
fn later_pieces_follow_the_first_one() {
    let mut world = World::new(LIMITS);
    for datagram in [v4(1, 1), v6(1, 1)] {
        for piece in [first(16, 1000), middle(16, 8), last(24, 3)] {
            let frame = world.offer(&datagram, piece, 0);
            assert_eq!(world.fate(frame), Some(Ok(transport(1000))));
        }
        assert!(world.table.is_empty(), "a complete datagram is forgotten");
    }
}

#[test]
fn pieces_that_come_early_wait_and_keep_their_order() {
    let mut table = FragmentTable::new(LIMITS, RandomState::new());
    let mut gone = |_: &str, why| panic!("{why:?}");
    let datagram = v6(1, 1);
    assert_eq!(table.offer(&datagram, last(32, 1), "last", 0, &mut gone), Offered::Held);
    assert_eq!(table.offer(&datagram, middle(16, 16), "middle", 0, &mut gone), Offered::Held);
    assert_eq!(table.release(&datagram), None, "the first piece has not come");
    assert_eq!(table.held(), 2);
    let offered = table.offer(&datagram, first(16, 7), "first", 0, &mut gone);
    assert_eq!(offered, Offered::First("first", transport(7)));
    assert_eq!([(); 3].map(|()| table.release(&datagram)), [Some("last"), Some("middle"), None]);
    assert!(table.is_empty() && table.held() == 0);
}

#[test]
fn datagrams_are_told_apart_by_all_that_ipv4_has_and_all_but_the_protocol_in_ipv6() {
    let mut world = World::new(LIMITS);
    let (Addresses::V4 { src, dst }, id) = (v4(1, 1).addresses, 1) else { unreachable!() };
    world.offer(&v4(1, 1), first(16, 1), 0);
    let other_source = Datagram::new(Addresses::V4 { src: src + 1, dst }, id, ipv4::PROTOCOL_UDP);
    let other_destination = Datagram::new(Addresses::V4 { src, dst: dst + 1 }, id, ipv4::PROTOCOL_UDP);
    let other_protocol = Datagram::new(v4(1, 1).addresses, id, ipv4::PROTOCOL_TCP);
    for other in [other_source, other_destination, v4(1, 2), other_protocol] {
        let frame = world.offer(&other, last(16, 8), 0);
        assert_eq!(world.fate(frame), None, "{other:?}");
    }
    world.offer(&v6(1, 1), first(16, 2), 0);
    let lying = Datagram::new(v6(1, 1).addresses, 1, 59);
    let frame = world.offer(&lying, last(16, 8), 0);
    assert_eq!(world.fate(frame), Some(Ok(transport(2))));
}

#[test]
fn lies_about_lengths_are_refused() {
    let mut world = World::new(LIMITS);
    let whole = Piece { more: false, ..first(8, 1) };
    let cases = [
        (middle(8, 9), Some(DropReason::BadFragment)),
        (Piece { len: 9, ..first(8, 1) }, Some(DropReason::BadFragment)),
        (middle(8, 0), Some(DropReason::BadFragment)),
        (last(8, 0), Some(DropReason::BadFragment)),
        (last(65_528, 8), Some(DropReason::BadFragment)),
        (last(65_528, 7), None),
        (whole, None),
    ];
    for (number, (piece, why)) in cases.into_iter().enumerate() {
        for datagram in [v4(1, number as u32), v6(1, number as u32)] {
            let frame = world.offer(&datagram, piece, 0);
            assert_eq!(world.fate(frame).and_then(Result::err), why, "{piece:?}");
        }
    }
}

#[test]
fn tiny_pieces_are_refused() {
    let mut world = World::new(LIMITS);
    for datagram in [v4(1, 1), v6(1, 1)] {
        let frame = world.offer(&datagram, middle(0, 8), 0);
        assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentTiny)));
    }
    // RFC 3128: a piece that would write over the flags of a TCP header.
    let tcp = Datagram::new(v4(1, 2).addresses, 2, ipv4::PROTOCOL_TCP);
    let frame = world.offer(&tcp, last(8, 100), 0);
    assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentTiny)));
    let frame = world.offer(&v4(1, 2), last(8, 100), 0);
    assert_eq!(world.fate(frame), None, "UDP's header has 8 bytes");
}

#[test]
fn an_overlap_kills_the_piece_in_ipv4() {
    let mut world = World::new(LIMITS);
    world.offer(&v4(1, 1), first(32, 1), 0);
    for overlapping in [middle(24, 16), first(32, 2), first(8, 2), last(24, 8)] {
        let frame = world.offer(&v4(1, 1), overlapping, 0);
        assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentOverlap)));
    }
    let frame = world.offer(&v4(1, 1), last(32, 8), 0);
    assert_eq!(world.fate(frame), Some(Ok(transport(1))));
}

#[test]
fn an_overlap_kills_the_datagram_in_ipv6() {
    let mut world = World::new(LIMITS);
    world.offer(&v6(1, 1), first(32, 1), 0);
    for later in [middle(24, 16), last(40, 8), first(32, 1)] {
        let frame = world.offer(&v6(1, 1), later, 0);
        assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentOverlap)));
    }
    // Pieces that wait die with it, and the first one when it comes.
    let pieces = [middle(32, 16), middle(64, 8), middle(40, 16), first(32, 1)];
    for frame in pieces.map(|piece| world.offer(&v6(1, 2), piece, 0)) {
        assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentOverlap)));
    }
    assert_eq!(world.table.held(), 0);
    world.expire(31, 10);
    assert!(world.table.is_empty());
}

#[test]
fn a_piece_that_the_network_doubled_dies_alone() {
    let mut world = World::new(LIMITS);
    for datagram in [v4(1, 1), v6(1, 1)] {
        world.offer(&datagram, last(32, 8), 0);
        let doubled = world.offer(&datagram, last(32, 8), 0);
        assert_eq!(world.fate(doubled), Some(Err(DropReason::FragmentOverlap)));
        let frame = world.offer(&datagram, first(32, 1), 0);
        assert_eq!(world.fate(frame), Some(Ok(transport(1))));
    }
    assert!(world.table.is_empty());
}

#[test]
fn one_sender_holds_a_quarter_at_most() {
    let mut world = World::new(LIMITS);
    let frames: Vec<_> = (0..20).map(|id| world.offer(&v6(1, id), last(16, 8), 0)).collect();
    assert_eq!(world.table.held(), 16);
    for frame in &frames[16..] {
        assert_eq!(world.fate(*frame), Some(Err(DropReason::FragmentTableFull)));
    }
    world.expire(6, 100);
    let frame = world.offer(&v6(1, 30), last(16, 8), 6);
    assert_eq!(world.fate(frame), None, "what expired counts no longer");
}

#[test]
fn a_flood_gives_up_the_datagrams_that_wait_longest() {
    let mut world = World::new(LIMITS);
    // What is known already is not touched by pieces that wait.
    world.offer(&v4(1000, 1), first(16, 1), 0);
    let flood: Vec<_> = (0..500).map(|source| world.offer(&v4(source, 1), middle(16, 8), 0)).collect();
    let waiting = flood.iter().filter(|frame| world.fate(**frame).is_none());
    assert_eq!(waiting.count(), LIMITS.pieces);
    assert_eq!(world.fate(flood[0]), Some(Err(DropReason::FragmentTableFull)));
    assert_eq!(world.fate(flood[499]), None);
    world.offer(&v4(499, 1), first(16, 4), 0);
    assert_eq!(world.fate(flood[499]), Some(Ok(transport(4))));
    let frame = world.offer(&v4(1000, 1), last(16, 1), 0);
    assert_eq!(world.fate(frame), Some(Ok(transport(1))));
}

#[test]
fn a_flood_of_first_pieces_forgets_the_oldest_of_them_and_leaves_what_waits() {
    let mut world = World::new(LIMITS);
    let early = world.offer(&v4(1000, 1), last(16, 8), 0);
    for source in 0..500 {
        let frame = world.offer(&v4(source, 1), first(16, 1), 0);
        assert_eq!(world.fate(frame), Some(Ok(transport(1))));
    }
    assert_eq!(world.table.len(), LIMITS.datagrams + 1);
    assert_eq!(world.table.forgotten(), 500 - LIMITS.datagrams as u64);
    world.offer(&v4(1000, 1), first(16, 9), 0);
    assert_eq!(world.fate(early), Some(Ok(transport(9))));
}

#[test]
fn one_datagram_waits_with_some_pieces_and_few_gaps() {
    let limits = Limits { pieces: 4096, ..LIMITS };
    let mut world = World::new(limits);
    let in_order: Vec<_> = (0..80).map(|n| world.offer(&v4(1, 1), middle(8 + n * 8, 8), 0)).collect();
    assert_eq!(world.table.held(), 64);
    assert_eq!(world.fate(in_order[64]), Some(Err(DropReason::FragmentTableFull)));
    let gaps: Vec<_> = (0..9).map(|n| world.offer(&v4(1, 2), middle(16 + n * 16, 8), 0)).collect();
    assert_eq!(world.fate(gaps[7]), None);
    assert_eq!(world.fate(gaps[8]), Some(Err(DropReason::FragmentTableFull)));
}

#[test]
fn waiting_and_remembering_end() {
    let mut world = World::new(LIMITS);
    let early: Vec<_> = (0..4).map(|n| world.offer(&v4(1, 1), middle(8 + n * 8, 8), 100)).collect();
    world.offer(&v4(1, 2), first(16, 1), 100);
    world.expire(105, 100);
    assert_eq!(world.table.held(), 4, "five seconds are not over before the sixth one begins");
    world.expire(106, 3);
    assert_eq!(world.table.held(), 1, "a call does no more than it may");
    world.expire(106, 100);
    for frame in early {
        assert_eq!(world.fate(frame), Some(Err(DropReason::FragmentTimeout)));
    }
    let frame = world.offer(&v4(1, 2), middle(16, 8), 130);
    assert_eq!(world.fate(frame), Some(Ok(transport(1))));
    world.expire(131, 100);
    assert!(world.table.is_empty());
    let frame = world.offer(&v4(1, 2), last(24, 8), 131);
    assert_eq!(world.fate(frame), None, "its ports are forgotten");
}

#[test]
fn owners_are_agreed_on_and_spread() {
    let (secret, table) = (RandomState::new(), &mut [0; 4]);
    for id in 0..4000 {
        let owner = v4(1, id).owner(&secret, table.len());
        assert_eq!(owner, v4(1, id).owner(&secret.clone(), table.len()));
        table[owner] += 1;
    }
    assert!(table.iter().all(|count| (800..1200).contains(count)), "{table:?}");
}

/// A datagram's pieces in order: their lengths but for the last one are multiples of 8.
fn cut(src_port: u16, eighths: &[u16], rest: u16) -> Vec<Piece> {
    let mut pieces = vec![first(8, src_port)];
    for len in eighths {
        let offset = pieces.last().map_or(0, |piece| piece.end() as u16);
        pieces.push(middle(offset, len * 8));
    }
    let offset = pieces.last().map_or(0, |piece| piece.end() as u16);
    pieces.push(last(offset, rest));
    pieces
}

fn datagram(source: u32, id: u32, ipv6: bool) -> Datagram {
    if ipv6 { v6(source, id) } else { v4(source, id) }
}

/// All pieces of some datagrams, in any order, with the port that their first one tells.
fn shuffled_pieces() -> impl Strategy<Value = Vec<(Datagram, Piece, u16)>> {
    let datagram_cuts = (any::<bool>(), prop::collection::vec(1u16..100, 0..6), 1u16..100);
    prop::collection::vec(datagram_cuts, 1..12).prop_flat_map(|cuts| {
        let pieces = cuts.into_iter().zip(1u16..).flat_map(|((ipv6, eighths, rest), number)| {
            let whose = datagram(u32::from(number), 1, ipv6);
            cut(number, &eighths, rest).into_iter().map(move |piece| (whose, piece, number))
        });
        Just(pieces.collect::<Vec<_>>()).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn every_piece_follows_its_first_one_in_any_interleaving(pieces in shuffled_pieces()) {
        let mut world = World::new(Limits { pieces: 400, datagrams: 16, ..LIMITS });
        let frames: Vec<_> = pieces.iter().map(|(whose, piece, _)| world.offer(whose, *piece, 0)).collect();
        for (frame, (.., src_port)) in frames.into_iter().zip(pieces) {
            prop_assert_eq!(world.fate(frame), Some(Ok(transport(src_port))));
        }
        prop_assert!(world.table.is_empty() && world.table.held() == 0);
    }

    #[test]
    fn any_pieces_end_once_and_memory_stays_bounded(
        pieces in prop::collection::vec(
            (0u32..4, 0u32..3, any::<bool>(), 0u16..12, prop_oneof![0u16..40, any::<u16>()], any::<bool>(), any::<bool>()),
            0..300,
        ),
        limits in (0usize..12, 0usize..4),
        step in 1usize..40,
    ) {
        let limits = Limits { pieces: limits.0, datagrams: limits.1, timeout: 1, remember: 3 };
        let mut world = World::new(limits);
        for (at, (source, id, ipv6, offset, len, more, whole)) in pieces.into_iter().enumerate() {
            let now = (at / step) as Seconds;
            let piece = Piece { offset: offset * 8, len, more, transport: whole.then_some(transport(1)) };
            world.offer(&datagram(source, id, ipv6), piece, now);
            if at % 3 == 0 {
                world.expire(now, 2);
            }
        }
        world.expire(Seconds::MAX, usize::MAX);
        prop_assert!(world.table.is_empty() && world.table.held() == 0);
        prop_assert_eq!(world.passed.len() + world.dropped.len(), world.offered as usize);
    }
}

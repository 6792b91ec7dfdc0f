//! Packets of one IP version and what becomes of them in the other, made anew for comparison.

use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::rewrite::quote::Quoted;
use crate::samples::{
    BACKEND4, BACKEND6, Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, cases, datagram, endpoint, icmp,
    is_valid, link, links, packets, syn,
};
use crate::wire::eth::Tags;

const LOCAL4: &str = "198.51.100.200:1025";
const LOCAL6: &str = "[2001:db8:5::200]:1025";
const ROUTER4: &str = "203.0.113.99:0";
const ROUTER6: &str = "[2001:db8:9::99]:0";

fn v4(end: &str) -> SocketAddrV4 {
    end.parse().unwrap()
}

fn v6(end: &str) -> SocketAddrV6 {
    end.parse().unwrap()
}

/// Translates a frame of one version to the other, between these ends.
fn translate(
    frame: &mut HeapFrame,
    headers: &Headers,
    ends: (&str, &str),
    link: &LinkHeader,
) -> Result<(), DropReason> {
    if headers.ip.is_v4() {
        to_v6(frame, headers, v6(ends.0), v6(ends.1), link)
    } else {
        to_v4(frame, headers, v4(ends.0), v4(ends.1), 7, link)
    }
}

/// The same packet as the other version has it, between these ends.
fn other(sample: &Sample, ends: (&str, &str)) -> Sample {
    let mut other = Sample {
        src: endpoint(ends.0),
        dst: endpoint(ends.1),
        ttl: sample.ttl - 1,
        flow_label: 0,
        options: vec![],
        ..sample.clone()
    };
    if other.src.is_ipv4() {
        if sample.piece.is_none() {
            other.id = 7;
        }
        other.dont_fragment = other.packet().len > 1260;
    }
    other
}

fn translated(sample: &Sample, ends: (&str, &str)) -> Vec<u8> {
    let mut frame = sample.frame();
    let header =
        link(11, 254, sample.tags, crate::samples::addresses(endpoint(ends.0).ip(), endpoint(ends.1).ip()));
    translate(&mut frame, &sample.headers(), ends, &header).unwrap();
    frame.bytes().to_vec()
}

/// A packet of each version, and the ends it gets.
const WAYS: [(&str, &str, (&str, &str)); 2] =
    [(CLIENT6, VIP6, (LOCAL4, BACKEND4)), (CLIENT4, VIP4, (LOCAL6, BACKEND6))];

#[test]
fn a_packet_becomes_one_of_the_other_version() {
    for (src, dst, ends) in WAYS {
        for plain in [syn(src, dst), datagram(src, dst)] {
            for sample in [
                plain.clone(),
                Sample { tos: 0xb9, ttl: 2, options: vec![1; 12], ..plain.clone() },
                Sample { payload: vec![7; 1300], ..plain.clone() },
                Sample { payload: vec![], tags: Tags { outer: 5, inner: 6 }, ..plain },
            ] {
                assert_eq!(translated(&sample, ends), other(&sample, ends).sent(11, 254), "{sample:?}");
            }
        }
    }
}

#[test]
fn a_packet_may_be_fragmented_if_no_sender_would_learn_the_mtu() {
    for (len, dont_fragment) in [(1260, false), (1261, true)] {
        let sample = Sample { payload: vec![7; len - 28], ..datagram(CLIENT6, VIP6) };
        let frame = translated(&sample, (LOCAL4, BACKEND4));
        assert_eq!(frame.len(), 14 + len);
        assert_eq!(frame[14 + ipv4::FRAGMENT], if dont_fragment { 0x40 } else { 0 });
    }
}

#[test]
fn pieces_become_pieces() {
    for (src, dst, ends) in WAYS {
        for whole in [syn(src, dst), datagram(src, dst)] {
            let whole = Sample { payload: vec![7; 50], ..whole };
            for offset in [0, 24, 48] {
                let piece = whole.piece(offset, 24);
                assert_eq!(translated(&piece, ends), other(&piece, ends).sent(11, 254), "{src} {offset}");
            }
        }
    }
}

#[test]
fn lengths_are_known_before() {
    for (src, dst, ends) in WAYS {
        for sample in
            [syn(src, dst), Sample { options: vec![1; 12], ..syn(src, dst) }, syn(src, dst).piece(0, 24)]
        {
            let len = if sample.src.is_ipv4() { len_as_v6 } else { len_as_v4 }(&sample.packet());
            assert_eq!(usize::from(len), translated(&sample, ends).len() - 14);
        }
    }
}

#[test]
fn a_udp_checksum_of_ipv4_is_computed_if_there_is_none() {
    let none = Sample { body: Body::Udp { checksum: false }, ..datagram(CLIENT4, VIP4) };
    let some = Sample { body: Body::Udp { checksum: true }, ..none.clone() };
    let ends = (LOCAL6, BACKEND6);
    assert_eq!(translated(&none, ends), other(&some, ends).sent(11, 254));
    let padded = |sample: &Sample| HeapFrame::new(&[sample.bytes(), vec![0xff; 5]].concat());
    let header = link(11, 254, Tags::default(), other(&some, ends).packet().addresses);
    let mut frame = padded(&none);
    translate(&mut frame, &none.headers(), ends, &header).unwrap();
    assert_eq!(frame.bytes(), [other(&some, ends).sent(11, 254), vec![0xff; 5]].concat());

    let refused = |mut frame: HeapFrame, headers: Headers| translate(&mut frame, &headers, ends, &header);
    let segmented = HeapFrame::segmented(&none.bytes(), none.bytes().len() - 1);
    assert_eq!(refused(segmented, none.headers()), Err(DropReason::Scattered));
    let long = Sample { payload: vec![7; 40], ..none };
    let (first, later) = (long.piece(0, 16), long.piece(16, 16));
    assert_eq!(refused(first.frame(), first.headers()), Err(DropReason::Scattered));
    // A length that would fit the piece is a lie.
    let mut lying = first.bytes();
    lying[34 + udp::LEN..][..2].copy_from_slice(&[0, 9]);
    assert_eq!(refused(HeapFrame::new(&lying), first.headers()), Err(DropReason::Scattered));
    assert_eq!(refused(later.frame(), later.headers()), Ok(()));
}

#[test]
fn no_udp_checksum_of_ipv6_stays_none() {
    let none = Sample { body: Body::Udp { checksum: false }, ..datagram(CLIENT6, VIP6) };
    let ends = (LOCAL4, BACKEND4);
    assert_eq!(translated(&none, ends), other(&none, ends).sent(11, 254));
}

#[test]
fn what_can_not_be_translated_is_refused() {
    let header = link(11, 254, Tags::default(), syn(CLIENT4, VIP4).packet().addresses);
    let (six, four) = (syn(CLIENT6, VIP6), syn(CLIENT4, VIP4));
    let result = to_v6(&mut six.frame(), &six.headers(), v6(LOCAL6), v6(BACKEND6), &header);
    assert_eq!(result, Err(DropReason::WrongFamily));
    let result = to_v4(&mut four.frame(), &four.headers(), v4(LOCAL4), v4(BACKEND4), 0, &header);
    assert_eq!(result, Err(DropReason::WrongFamily));

    let piece = Sample { payload: vec![7; 40], ..six }.piece(0, 24);
    let mut deeper = piece.headers();
    deeper.ip.l4 += 8;
    let mut unknown = piece.headers();
    unknown.ip.next = ipv6::NEXT_DESTINATION;
    for headers in [deeper, unknown] {
        let result = to_v4(&mut piece.frame(), &headers, v4(LOCAL4), v4(BACKEND4), 0, &header);
        assert_eq!(result, Err(DropReason::UnknownProtocol));
    }

    let mut frame = four.frame();
    while frame.grow_front(1) {}
    let result = to_v6(&mut frame, &four.headers(), v6(LOCAL6), v6(BACKEND6), &header);
    assert_eq!(result, Err(DropReason::NoHeadroom));
}

/// Type and code and the word behind the checksum, in IPv4 and in IPv6.
type Kinds = ([u8; 2], [u8; 4], [u8; 2], [u8; 4]);

/// RFC 7915, 4.2.
const FROM_V4: &[Kinds] = &[
    ([3, 0], [0; 4], [1, 0], [0; 4]),
    ([3, 1], [0; 4], [1, 0], [0; 4]),
    ([3, 2], [0; 4], [4, 1], [0, 0, 0, 6]),
    ([3, 3], [0; 4], [1, 4], [0; 4]),
    ([3, 4], [0, 0, 5, 0x78], [2, 0], [0, 0, 5, 0x8c]),
    ([3, 4], [0, 0, 4, 0xec], [2, 0], [0, 0, 5, 0]),
    ([3, 4], [0, 0, 0, 0x44], [2, 0], [0, 0, 5, 0]),
    ([3, 4], [0, 0, 0xff, 0xff], [2, 0], [0, 1, 0, 0x13]),
    ([3, 5], [0; 4], [1, 0], [0; 4]),
    ([3, 8], [0; 4], [1, 0], [0; 4]),
    ([3, 9], [0; 4], [1, 1], [0; 4]),
    ([3, 10], [0; 4], [1, 1], [0; 4]),
    ([3, 11], [0; 4], [1, 0], [0; 4]),
    ([3, 12], [0; 4], [1, 0], [0; 4]),
    ([3, 13], [0; 4], [1, 1], [0; 4]),
    ([3, 15], [0; 4], [1, 1], [0; 4]),
    ([11, 0], [9; 4], [3, 0], [0; 4]),
    ([11, 1], [0; 4], [3, 1], [0; 4]),
    ([12, 0], [0, 9, 9, 9], [4, 0], [0, 0, 0, 0]),
    ([12, 0], [1, 0, 0, 0], [4, 0], [0, 0, 0, 1]),
    ([12, 2], [2, 0, 0, 0], [4, 0], [0, 0, 0, 4]),
    ([12, 0], [3, 0, 0, 0], [4, 0], [0, 0, 0, 4]),
    ([12, 0], [8, 0, 0, 0], [4, 0], [0, 0, 0, 7]),
    ([12, 0], [9, 0, 0, 0], [4, 0], [0, 0, 0, 6]),
    ([12, 0], [12, 0, 0, 0], [4, 0], [0, 0, 0, 8]),
    ([12, 0], [15, 0, 0, 0], [4, 0], [0, 0, 0, 8]),
    ([12, 0], [16, 0, 0, 0], [4, 0], [0, 0, 0, 24]),
    ([12, 0], [19, 0, 0, 0], [4, 0], [0, 0, 0, 24]),
];

/// RFC 7915, 5.2.
const FROM_V6: &[Kinds] = &[
    ([3, 1], [0; 4], [1, 0], [0; 4]),
    ([3, 10], [0; 4], [1, 1], [0; 4]),
    ([3, 1], [0; 4], [1, 2], [0; 4]),
    ([3, 1], [0; 4], [1, 3], [0; 4]),
    ([3, 3], [0; 4], [1, 4], [0; 4]),
    ([3, 4], [0, 0, 5, 0x64], [2, 0], [0, 0, 5, 0x78]),
    ([3, 4], [0, 0, 0xff, 0xff], [2, 0], [0, 2, 0, 0]),
    ([3, 4], [0; 4], [2, 0], [0, 0, 0, 7]),
    ([11, 0], [0; 4], [3, 0], [9; 4]),
    ([11, 1], [0; 4], [3, 1], [0; 4]),
    ([12, 0], [0; 4], [4, 0], [0; 4]),
    ([12, 0], [1, 0, 0, 0], [4, 0], [0, 0, 0, 1]),
    ([12, 0], [2, 0, 0, 0], [4, 0], [0, 0, 0, 5]),
    ([12, 0], [9, 0, 0, 0], [4, 0], [0, 0, 0, 6]),
    ([12, 0], [8, 0, 0, 0], [4, 0], [0, 0, 0, 7]),
    ([12, 0], [12, 0, 0, 0], [4, 0], [0, 0, 0, 23]),
    ([12, 0], [16, 0, 0, 0], [4, 0], [0, 0, 0, 24]),
    ([3, 2], [0; 4], [4, 1], [0, 0, 0, 40]),
];

/// The first `len` bytes of a packet's transport header and what follows, with all headers before it.
fn quote(sample: &Sample, len: usize) -> Vec<u8> {
    let (ip, packet) = (sample.ip(), sample.packet());
    let header_len = usize::from(packet.l4 - packet.l3);
    ip[..ip.len().min(header_len + len)].to_vec()
}

/// The packet of a client to a VIP in one version and to the backend in the other.
fn request(sample: Sample) -> (Sample, Sample) {
    let four = Sample { src: endpoint(LOCAL4), dst: endpoint(BACKEND4), id: 0, ..sample.clone() };
    let six = Sample { src: endpoint(CLIENT6), dst: endpoint(VIP6), flow_label: 0, ..sample };
    (Sample { dont_fragment: four.packet().len > 1260, ..four }, six)
}

fn error_v4(kind: [u8; 2], rest: [u8; 4], quote: &[u8]) -> Sample {
    Sample { ttl: 60, id: 7, ..icmp(ROUTER4, LOCAL4, kind, rest, quote) }
}

fn error_v6(kind: [u8; 2], rest: [u8; 4], quote: &[u8]) -> Sample {
    Sample { ttl: 60, flow_label: 0, ..icmp(ROUTER6, CLIENT6, kind, rest, quote) }
}

/// An ICMP error in the other version.
fn as_other(said: &Sample, mut frame: HeapFrame) -> Result<Vec<u8>, DropReason> {
    let quoted = Quoted::read(frame.head(), &said.packet()).unwrap();
    if said.src.is_ipv4() {
        let header = link(11, 254, said.tags, error_v6([1, 0], [0; 4], &[]).packet().addresses);
        let (outer, ends) = ((*v6(ROUTER6).ip(), *v6(CLIENT6).ip()), (v6(CLIENT6), v6(VIP6)));
        error_to_v6(&mut frame, &said.packet(), &quoted, outer, ends, &header)?;
    } else {
        let header = link(11, 254, said.tags, error_v4([3, 1], [0; 4], &[]).packet().addresses);
        let (outer, ends) = ((*v4(ROUTER4).ip(), *v4(LOCAL4).ip()), (v4(LOCAL4), v4(BACKEND4)));
        error_to_v4(&mut frame, &said.packet(), &quoted, outer, ends, 7, &header)?;
    }
    Ok(frame.bytes().to_vec())
}

/// An error one hop later. What is made here of IPv4 may be fragmented if it is short, as all errors are.
fn later(said: Sample) -> Vec<u8> {
    Sample { ttl: 59, dont_fragment: false, ..said }.sent(11, 254)
}

#[test]
fn an_error_becomes_one_of_the_other_version() {
    let requests = [request(syn(CLIENT6, VIP6)), request(datagram(CLIENT6, VIP6))];
    // Every row with one packet and one length of a quote, in turn.
    let what = || requests.iter().flat_map(|request| [8, 20, 100].map(|len| (request, len))).cycle();
    for ((kind4, rest4, kind6, rest6), ((four, six), len)) in FROM_V4.iter().zip(what()) {
        let said = error_v4(*kind4, *rest4, &quote(four, len));
        let heard = error_v6(*kind6, *rest6, &quote(six, len));
        assert_eq!(as_other(&said, said.frame()), Ok(later(heard)), "{kind4:?} {rest4:?}");
    }
    for ((kind4, rest4, kind6, rest6), ((four, six), len)) in FROM_V6.iter().zip(what()) {
        let said = error_v6(*kind6, *rest6, &quote(six, len));
        let heard = error_v4(*kind4, *rest4, &quote(four, len));
        assert_eq!(as_other(&said, said.frame()), Ok(later(heard)), "{kind6:?} {rest6:?}");
    }
}

#[test]
fn what_the_other_version_can_not_say_is_dropped() {
    let (four, six) = request(syn(CLIENT6, VIP6));
    for (kind, rest) in [
        ([3, 14], [0; 4]),
        ([3, 16], [0; 4]),
        ([4, 0], [0; 4]),
        ([5, 1], [0; 4]),
        ([12, 1], [0; 4]),
        ([12, 0], [4, 0, 0, 0]),
        ([12, 0], [7, 0, 0, 0]),
        ([12, 0], [10, 0, 0, 0]),
        ([12, 0], [20, 0, 0, 0]),
    ] {
        let said = error_v4(kind, rest, &quote(&four, 8));
        assert_eq!(as_other(&said, said.frame()), Err(DropReason::UnknownIcmp), "{kind:?} {rest:?}");
    }
    for (kind, rest) in [
        ([1, 5], [0; 4]),
        ([4, 2], [0; 4]),
        ([4, 0], [0, 0, 0, 2]),
        ([4, 0], [0, 0, 0, 40]),
        ([100, 0], [0; 4]),
    ] {
        let said = error_v6(kind, rest, &quote(&six, 8));
        assert_eq!(as_other(&said, said.frame()), Err(DropReason::UnknownIcmp), "{kind:?} {rest:?}");
    }
}

#[test]
fn a_router_that_tells_no_mtu_is_taken_to_have_a_common_one() {
    for (len, mtu) in [(1492, 1280), (1493, 1512), (2003, 2022)] {
        let (four, six) = request(Sample { payload: vec![7; len - 28], ..datagram(CLIENT6, VIP6) });
        let said = error_v4([3, 4], [0; 4], &quote(&four, 8));
        let heard = error_v6([2, 0], u32::to_be_bytes(mtu), &quote(&six, 8));
        assert_eq!(as_other(&said, said.frame()), Ok(later(heard)), "{len}");
    }
}

#[test]
fn an_error_about_a_first_piece_quotes_a_first_piece() {
    let (four, six) = request(Sample { payload: vec![7; 40], ..datagram(CLIENT6, VIP6) });
    let (four, six) = (Sample { id: 0x1234, ..four }.piece(0, 24), six.piece(0, 24));
    let said = error_v4([3, 4], [0, 0, 5, 0x78], &four.ip());
    let heard = error_v6([2, 0], [0, 0, 5, 0x8c], &six.ip());
    assert_eq!(as_other(&said, said.frame()), Ok(later(heard)));
    // The fragment header counts, too.
    let said = error_v6([2, 0], [0, 0, 5, 0x78], &six.ip());
    let heard = error_v4([3, 4], [0, 0, 5, 0x5c], &four.ip());
    assert_eq!(as_other(&said, said.frame()), Ok(later(heard)));
}

#[test]
fn a_long_quote_is_cut() {
    let (four, six) = request(Sample { payload: vec![7; 1400], ..datagram(CLIENT6, VIP6) });
    let said = error_v6([1, 4], [0; 4], &six.ip()[..1232]);
    let heard = error_v4([3, 3], [0; 4], &four.ip()[..548]);
    assert_eq!(as_other(&said, said.frame()), Ok(later(heard)));
    let said = error_v4([3, 3], [0; 4], &four.ip());
    let heard = error_v6([1, 4], [0; 4], &six.ip()[..1232]);
    assert_eq!(as_other(&said, said.frame()), Ok(later(heard)));
}

#[test]
fn a_wrong_or_scattered_error_is_not_made_right() {
    let (four, six) = request(syn(CLIENT6, VIP6));
    for said in [error_v4([3, 1], [0; 4], &four.ip()), error_v6([1, 0], [0; 4], &six.ip())] {
        let mut damaged = said.bytes();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(as_other(&said, HeapFrame::new(&damaged)), Err(DropReason::BadIcmp));
        let segmented = HeapFrame::segmented(&said.bytes(), said.bytes().len() - 1);
        assert_eq!(as_other(&said, segmented), Err(DropReason::Scattered));
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn there_and_back_keeps_all_but_options(sample in packets(false), there in links(true), back in links(false)) {
        let mut frame = sample.frame();
        translate(&mut frame, &sample.headers(), (LOCAL6, BACKEND6), &there).unwrap();
        let six = Sample { tags: Tags::default(), ..other(&sample, (LOCAL6, BACKEND6)) };
        let at = there.bytes().len();
        prop_assert!(is_valid(&frame.bytes()[at..]));
        let mut headers = six.headers();
        (headers.ip.l3, headers.ip.l4) = (at as u16, at as u16 + 40);
        if sample.ttl < 3 {
            return Ok(());
        }
        translate(&mut frame, &headers, (CLIENT4, VIP4), &back).unwrap();
        let body = match sample.body {
            // What was not computed is.
            Body::Udp { .. } => Body::Udp { checksum: true },
            other => other,
        };
        let ends = (endpoint(CLIENT4), endpoint(VIP4));
        let expected = Sample {
            src: ends.0, dst: ends.1, body, options: vec![], dont_fragment: false, id: 7, ttl: sample.ttl - 2, ..sample
        };
        prop_assert_eq!(&frame.bytes()[back.bytes().len()..], expected.ip());
    }

    #[test]
    fn every_packet_of_ipv6_is_right_as_ipv4(sample in packets(true), header in links(false)) {
        let mut frame = sample.frame();
        translate(&mut frame, &sample.headers(), (LOCAL4, BACKEND4), &header).unwrap();
        prop_assert_eq!(&frame.bytes()[header.bytes().len()..], other(&sample, (LOCAL4, BACKEND4)).ip());
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..120), cut in 0usize..120, v4: bool,
        four in packets(false), six in packets(true), piece: bool, l3: u16, l4: u16, len: u16, header in links(true),
    ) {
        let sample = if v4 { four } else { six };
        let sample = if piece { sample.piece(0, 8) } else { sample };
        let mut headers = sample.headers();
        (headers.ip.l3, headers.ip.l4, headers.ip.len) = (l3 % 64, l4 % 128, len);
        let ends = if v4 { (LOCAL6, BACKEND6) } else { (LOCAL4, BACKEND4) };
        let mut frame = HeapFrame::segmented(&bytes, cut);
        let _ = translate(&mut frame, &headers, ends, &header);
        headers.ip.l4 = l4;
        let _ = translate(&mut frame, &headers, ends, &header);
    }

    #[test]
    fn any_damage_to_an_error_does_no_harm(
        v4: bool, damage in prop::collection::vec((0usize..80, any::<u8>()), 0..5), kind in 0u8..16, code in 0u8..16,
    ) {
        let (four, six) = request(syn(CLIENT6, VIP6));
        let mut quote = if v4 { four.ip() } else { six.ip() };
        for (at, byte) in damage {
            if let Some(place) = quote.get_mut(at) {
                *place = byte;
            }
        }
        let error = if v4 { error_v4 } else { error_v6 };
        let said = error([kind, code], [0; 4], &quote);
        let is_read = Quoted::read(said.frame().head(), &said.packet()).is_some();
        if is_read && let Ok(heard) = as_other(&said, said.frame()) {
            prop_assert!(is_valid(&heard[14..]));
        }
    }
}

//! ICMP in and out, written here byte by byte.

use config::words::Mode;
use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::csum;
use crate::forward::tests::{BACKEND, End, Path, arrived, request};
use crate::testing::{self, CLIENT, OWN, Packet, VIP, mac, packet};
use crate::wire::eth;
use crate::wire::tcp::{ACK, SYN};

const ROUTER: [u8; 4] = [203, 0, 113, 99];

/// A frame with an ICMP packet, all checksums right.
fn icmp(
    to: u8,
    from: u8,
    ttl: u8,
    (src, dst): ([u8; 4], [u8; 4]),
    kind: [u8; 2],
    rest: [u8; 4],
    data: &[u8],
) -> Vec<u8> {
    let mut body = [&kind[..], &[0, 0], &rest, data].concat();
    let checksum = !csum::sum(&body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend(((20 + body.len()) as u16).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, ttl, 1, 0, 0]);
    ip.extend([src, dst].concat());
    let checksum = !csum::sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    [&eth::header(mac(to), mac(from), eth::TYPE_IPV4)[..], &ip, &body].concat()
}

/// An error as we make it: with precedence, and quoting a frame's packet.
fn our_error(to: u8, dst: [u8; 4], kind: [u8; 2], rest: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let mut frame = icmp(to, 254, 64, (OWN, dst), kind, rest, &quoted[14..]);
    frame[15] = 0xc0;
    frame[24..26].fill(0);
    let checksum = !csum::sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn pass(path: &mut Path, frame: &[u8]) -> End {
    path.pass(HeapFrame::new(frame))
}

#[test]
fn pings_of_own_addresses_and_vips_are_answered() {
    for address in [OWN, VIP] {
        let mut path = Path::nat();
        let question = icmp(254, 1, 3, (CLIENT, address), [8, 0], [0, 7, 0, 1], b"abcdefg");
        let answer = icmp(1, 254, 64, (address, CLIENT), [0, 0], [0, 7, 0, 1], b"abcdefg");
        assert_eq!(pass(&mut path, &question), End::Sent(answer));
        assert_eq!(path.stats.answered.get(), 1);
    }
}

#[test]
fn other_icmp_is_dropped_by_name() {
    let mut path = Path::nat();
    let to = |dst, kind, data: &[u8]| icmp(254, 1, 64, (CLIENT, dst), kind, [0; 4], data);
    assert_eq!(
        pass(&mut path, &to(BACKEND, [8, 0], b"")),
        End::Dropped(DropReason::UnknownIcmp),
        "not for us"
    );
    assert_eq!(pass(&mut path, &to(VIP, [0, 0], b"")), End::Dropped(DropReason::UnknownIcmp), "nobody asked");
    assert_eq!(pass(&mut path, &to(VIP, [13, 0], b"")), End::Dropped(DropReason::UnknownIcmp), "timestamp");
    assert_eq!(pass(&mut path, &to(VIP, [3, 1], &[0x45; 19])), End::Dropped(DropReason::BadIcmp), "no quote");
    let mut short = to(VIP, [8, 0], b"");
    short[17] = 27;
    short[24..26].fill(0);
    let checksum = !csum::sum(&short[14..34]);
    short[24..26].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(pass(&mut path, &short), End::Dropped(DropReason::BadIcmp), "seven bytes");
}

#[test]
fn answers_are_limited_in_each_second() {
    let mut path = Path::nat();
    let question = icmp(254, 1, 64, (CLIENT, VIP), [8, 0], [0; 4], b"");
    path.forwarder.icmp_budget = Budget { second: path.now, spent: ANSWERS_PER_SECOND - 10 };
    let sent = (0..15).filter(|_| matches!(pass(&mut path, &question), End::Sent(_))).count();
    assert_eq!(sent, 10);
    assert_eq!(path.stats.drops.get(DropReason::IcmpRate), 5);
    path.now += 1;
    assert!(matches!(pass(&mut path, &question), End::Sent(_)));
}

#[test]
fn a_sender_is_told_that_the_ttl_ran_out() {
    for ttl in [0, 1] {
        let mut path = Path::nat();
        let last = Packet { ttl, ..request(40000, SYN) };
        let told = our_error(1, CLIENT, [11, 0], [0; 4], &last.bytes());
        assert_eq!(path.send(&last), End::Sent(told));
        let reply = Packet { ttl, ..packet((BACKEND, 8000), (CLIENT, 40000)) };
        let told = our_error(11, BACKEND, [11, 0], [0; 4], &reply.bytes());
        assert_eq!(path.send(&reply), End::Sent(told));
    }
}

#[test]
fn a_sender_is_told_how_long_a_packet_may_be() {
    let long = |len: usize| Packet { payload: vec![7; len - 40], ..request(40000, SYN) };
    for (mode, len, mtu) in [(Mode::Nat, 1501, 1500u16), (Mode::Dr, 1501, 1500), (Mode::Tunnel, 1481, 1480)] {
        let mut path = Path::new(testing::snapshot(mode));
        let [high, low] = mtu.to_be_bytes();
        let told = our_error(1, CLIENT, [3, 4], [0, 0, high, low], &long(len).bytes()[..14 + 548]);
        assert_eq!(path.send(&long(len)), End::Sent(told), "{mode}");
    }
}

#[test]
fn a_quote_ends_with_the_first_segment() {
    let mut path = Path::new(testing::snapshot(Mode::Dr));
    let bytes = Packet { payload: vec![7; 1461], ..request(40000, SYN) }.bytes();
    let told = our_error(1, CLIENT, [3, 4], [0, 0, 0x05, 0xdc], &bytes[..100]);
    assert_eq!(path.pass(HeapFrame::segmented(&bytes, 100)), End::Sent(told));
}

/// The last packet that a client or a backend would quote, with as much of it as `len` bytes.
fn quote(frame: &[u8], len: usize) -> Vec<u8> {
    frame[14..].iter().copied().take(len).collect()
}

#[test]
fn errors_about_replies_reach_the_backend() {
    let reply = || packet((BACKEND, 8000), (CLIENT, 40000)).flags(SYN | ACK);
    for (udp, len) in [(false, 28), (false, 45), (true, 28), (true, 33)] {
        let shape = |packet: Packet| if udp { packet.udp() } else { packet };
        let mut path = Path::nat();
        path.send(&shape(request(40000, SYN)));
        let End::Sent(at_client) = path.send(&shape(reply())) else { panic!() };
        let said = icmp(254, 1, 60, (ROUTER, VIP), [3, 4], [0, 0, 5, 0x14], &quote(&at_client, len));
        // What the router quotes is one hop older than what the backend sent.
        let sent = Packet { ttl: 63, ..shape(reply()) };
        let heard = icmp(11, 254, 59, (ROUTER, BACKEND), [3, 4], [0, 0, 5, 0x14], &quote(&sent.bytes(), len));
        assert_eq!(pass(&mut path, &said), End::Sent(heard), "{udp} {len}");
    }
}

#[test]
fn errors_about_requests_reach_the_client_and_hide_the_backend() {
    for (udp, len) in [(false, 28), (false, 45), (true, 28), (true, 33)] {
        let shape = |packet: Packet| if udp { packet.udp() } else { packet };
        for (from, shown) in [(BACKEND, VIP), (ROUTER, ROUTER)] {
            let mut path = Path::nat();
            let End::Sent(at_backend) = path.send(&shape(request(40000, SYN))) else { panic!() };
            let said = icmp(254, 11, 64, (from, CLIENT), [3, 3], [0; 4], &quote(&at_backend, len));
            let sent = Packet { ttl: 63, ..shape(request(40000, SYN)) };
            let heard = icmp(1, 254, 63, (shown, CLIENT), [3, 3], [0; 4], &quote(&sent.bytes(), len));
            assert_eq!(pass(&mut path, &said), End::Sent(heard), "{udp} {len}");
        }
    }
}

#[test]
fn errors_about_direct_replies_reach_the_backend_whole() {
    let reply = packet((VIP, 80), (CLIENT, 40000)).flags(SYN | ACK);
    let said = |to, from, ttl| {
        icmp(to, from, ttl, (ROUTER, VIP), [3, 4], [0, 0, 5, 0x14], &quote(&reply.bytes(), 28))
    };
    let mut path = Path::new(testing::snapshot(Mode::Dr));
    path.send(&request(40000, SYN));
    assert_eq!(pass(&mut path, &said(254, 1, 60)), End::Sent(said(11, 254, 59)));
    let mut path = Path::new(testing::snapshot(Mode::Tunnel));
    path.send(&request(40000, SYN));
    let End::Sent(wrapped) = pass(&mut path, &said(254, 1, 60)) else { panic!() };
    assert_eq!((&wrapped[30..34], &wrapped[34..]), (&BACKEND[..], &said(11, 254, 59)[14..]));
}

#[test]
fn errors_must_quote_a_live_flow_of_their_receiver() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    let quoted = |port| quote(&packet((VIP, 80), (CLIENT, port)).bytes(), 28);
    let said = |dst, quoted: &[u8]| icmp(254, 1, 64, (ROUTER, dst), [3, 1], [0; 4], quoted);
    assert!(matches!(pass(&mut path, &said(VIP, &quoted(40000))), End::Sent(_)));
    assert_eq!(pass(&mut path, &said(VIP, &quoted(40001))), End::Dropped(DropReason::NoFlow));
    assert_eq!(pass(&mut path, &said(OWN, &quoted(40000))), End::Dropped(DropReason::BadIcmp));
    path.now += 61;
    assert_eq!(pass(&mut path, &said(VIP, &quoted(40000))), End::Dropped(DropReason::NoFlow), "expired");
    let mut later_piece = quoted(40000);
    later_piece[7] = 1;
    assert_eq!(pass(&mut path, &said(VIP, &later_piece)), End::Dropped(DropReason::BadIcmp));
    let mut other = quoted(40000);
    other[9] = 47;
    assert_eq!(pass(&mut path, &said(VIP, &other)), End::Dropped(DropReason::NoFlow));
    let mut nobody = quote(&packet((VIP, 80), ([0; 4], 40000)).bytes(), 28);
    nobody[16..20].fill(0);
    assert_eq!(pass(&mut path, &said(VIP, &nobody)), End::Dropped(DropReason::NoFlow));
}

#[test]
fn errors_change_nothing_in_the_flow() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    path.now += 50;
    let quoted = quote(&packet((VIP, 80), (CLIENT, 40000)).bytes(), 28);
    assert!(matches!(
        pass(&mut path, &icmp(254, 1, 64, (ROUTER, VIP), [3, 3], [0; 4], &quoted)),
        End::Sent(_)
    ));
    path.now += 11;
    assert_eq!(
        path.send(&request(40000, ACK)),
        End::Dropped(DropReason::NoFlowNotSyn),
        "it expired in its time"
    );
    let first = arrived(Packet { dst: [198, 51, 100, 12], ports: (40000, 8000), ..request(40000, SYN) }, 12);
    assert_eq!(path.send(&request(40000, SYN)), End::Sent(first));
}

#[test]
fn errors_go_to_the_owner_of_the_flow() {
    let quoted = quote(&packet((VIP, 80), (CLIENT, 40000)).bytes(), 28);
    let frame = icmp(254, 1, 64, (ROUTER, VIP), [3, 1], [0; 4], &quoted);
    let owner = |frame: &[u8]| -> Vec<usize> {
        (0..3)
            .map(|number| {
                match Path::of(testing::snapshot(Mode::Nat), number, 3, 10).pass(HeapFrame::new(frame)) {
                    End::HandedOver(owner) => owner,
                    _ => number,
                }
            })
            .collect()
    };
    assert_eq!(owner(&frame), owner(&request(40000, SYN).bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
    #[test]
    fn any_damage_to_an_error_ends_in_one_place(
        cut in 0usize..40,
        damage in prop::collection::vec((14usize..80, any::<u8>()), 0..4),
        mode in prop_oneof![Just(Mode::Nat), Just(Mode::Dr), Just(Mode::Tunnel)],
    ) {
        let mut path = Path::new(testing::snapshot(mode));
        path.send(&request(40000, SYN));
        let mut data = quote(&packet((VIP, 80), (CLIENT, 40000)).bytes(), 40);
        data.truncate(data.len() - cut);
        let mut frame = icmp(254, 1, 64, (ROUTER, VIP), [3, 4], [0; 4], &data);
        for (offset, byte) in damage {
            if let Some(place) = frame.get_mut(offset) {
                *place = byte;
            }
        }
        if frame.len() >= 34 {
            frame[24..26].fill(0);
            let checksum = !csum::sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        pass(&mut path, &frame);
    }
}

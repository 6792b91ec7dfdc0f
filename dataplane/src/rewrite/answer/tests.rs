//! Answers against those of another encoder, and the laws of answering.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::samples::{
    Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, datagram, endpoint, hex, icmp, is_valid,
    link, links, syn,
};
use crate::wire::eth::Tags;

const OWN4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254));
const OWN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe));

fn own(packet: &Packet) -> IpAddr {
    if packet.addresses.src().is_ipv4() { OWN4 } else { OWN6 }
}

fn back(packet: &Packet) -> LinkHeader {
    link(1, 254, Tags::default(), packet.addresses)
}

#[test]
fn a_ping_is_answered() {
    for (client, vip, ask, reply) in [(CLIENT4, VIP4, 8, 0), (CLIENT6, VIP6, 128, 129)] {
        let asked = icmp(client, vip, [ask, 0], [0, 7, 0, 1], b"abcdefg");
        let asked = Sample { ttl: 3, tos: 0x20, options: vec![1; 4], ..asked };
        let mut frame = asked.frame();
        echo_reply(&mut frame, &asked.packet(), &back(&asked.packet())).unwrap();
        let answer = icmp(vip, client, [reply, 0], [0, 7, 0, 1], b"abcdefg");
        let answer = Sample { ttl: 64, tos: 0x20, options: vec![1; 4], ..answer };
        assert_eq!(frame.bytes(), answer.sent(1, 254));
    }
}

#[test]
fn a_ping_of_nothing_but_zeros_is_answered() {
    let asked = icmp(CLIENT4, VIP4, [8, 0], [0; 4], &[0; 6]);
    let mut frame = asked.frame();
    echo_reply(&mut frame, &asked.packet(), &back(&asked.packet())).unwrap();
    assert_eq!(frame.bytes()[34..42], [0, 0, 0xff, 0xff, 0, 0, 0, 0]);
}

/// What goes no further, why, and scapy's bytes before the quoted packet.
#[rustfmt::skip]
const ERRORS: [(bool, Cause, &str); 8] = [
    (false, Cause::TimeExceeded, "45c00049000040004001d2bac63364fecb0071070b00f38b00000000"),
    (false, Cause::TooBig { mtu: 1480 }, "45c00049000040004001d2bac63364fecb0071070304f5bf000005c8"),
    (false, Cause::PortUnreachable, "45c00049000040004001d2bac63364fecb0071070303fb8800000000"),
    (false, Cause::HostUnreachable, "45c00049000040004001d2bac63364fecb0071070301fb8a00000000"),
    (true, Cause::TimeExceeded, "6c00000000493a4020010db80000000000000000000000fe20010db8000c00000000000000000007\
                                 0300167900000000"),
    (true, Cause::TooBig { mtu: 1460 }, "6c00000000493a4020010db80000000000000000000000fe20010db8000c00000000000000000007\
                                         020011c5000005b4"),
    (true, Cause::PortUnreachable, "6c00000000493a4020010db80000000000000000000000fe20010db8000c00000000000000000007\
                                    0104187500000000"),
    (true, Cause::HostUnreachable, "6c00000000493a4020010db80000000000000000000000fe20010db8000c00000000000000000007\
                                    0103187600000000"),
];

#[test]
fn errors_are_as_another_encoder_makes_them() {
    for (v6, cause, headers) in ERRORS {
        let sample = if v6 { syn(CLIENT6, VIP6) } else { syn(CLIENT4, VIP4) };
        let (packet, mut frame) = (sample.packet(), HeapFrame::new(&[sample.bytes(), vec![0; 5]].concat()));
        error(&mut frame, &packet, cause, own(&packet), &back(&packet)).unwrap();
        let expected = [back(&packet).bytes(), &hex(headers), &sample.ip()].concat();
        assert_eq!(frame.bytes(), expected, "{v6} {cause:?}");
    }
}

#[test]
fn a_quote_has_its_limit_and_ends_with_the_first_segment() {
    for (client, vip, limit, overhead) in [(CLIENT4, VIP4, 576, 28), (CLIENT6, VIP6, 1280, 48)] {
        let sample = Sample { payload: vec![7; 1400], ..datagram(client, vip) };
        let packet = sample.packet();
        let told = |mut frame: HeapFrame| {
            error(&mut frame, &packet, Cause::TimeExceeded, own(&packet), &back(&packet)).unwrap();
            assert!(is_valid(&frame.bytes()[14..]));
            frame.bytes()[14..].to_vec()
        };
        assert_eq!(told(sample.frame()).len(), limit);
        let segmented = told(HeapFrame::segmented(&sample.bytes(), 14 + 100));
        assert_eq!(segmented[overhead..], sample.ip()[..100]);
    }
}

#[test]
fn what_can_not_be_told_stays_as_it_was() {
    let sample = syn(CLIENT4, VIP4);
    let packet = sample.packet();
    let mut frame = sample.frame();
    assert_eq!(
        error(&mut frame, &packet, Cause::TimeExceeded, OWN6, &back(&packet)),
        Err(DropReason::WrongFamily)
    );
    assert_eq!(frame, sample.frame());
    while frame.grow_front(1) {}
    let before = frame.clone();
    assert_eq!(
        error(&mut frame, &packet, Cause::TimeExceeded, OWN4, &back(&packet)),
        Err(DropReason::NoHeadroom)
    );
    assert_eq!(frame, before);
}

#[test]
fn senders_are_told_of_what_deserves_it() {
    let told = |sample: Sample| may_be_told(&sample.bytes(), &sample.packet());
    let from = |sample: Sample, src: &str| Sample { src: endpoint(src), ..sample };
    for (client, vip, echo, error) in [(CLIENT4, VIP4, 8, 3), (CLIENT6, VIP6, 128, 1)] {
        assert!(told(syn(client, vip)));
        assert!(told(datagram(client, vip)));
        assert!(told(icmp(client, vip, [echo, 0], [0; 4], b"")));
        assert!(!told(icmp(client, vip, [error, 0], [0; 4], b"")));
        let whole = Sample { payload: vec![7; 40], ..datagram(client, vip) };
        assert!(told(whole.piece(0, 16)));
        assert!(!told(whole.piece(16, 16)));
    }
    assert!(!told(icmp(CLIENT6, VIP6, [137, 0], [0; 4], b"")), "a redirect");
    for src in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1"] {
        assert!(!told(from(syn(CLIENT4, VIP4), src)), "{src}");
    }
    for src in ["[::]:1", "[ff02::1]:1"] {
        assert!(!told(from(syn(CLIENT6, VIP6), src)), "{src}");
    }
}

/// Flags of a segment with sequence number 1, acknowledgment number 2 and 5 bytes, and scapy's answer.
#[rustfmt::skip]
const RESETS: [(bool, u8, &str); 4] = [
    (false, tcp::SYN, "450000280000400040063c64c0000264cb00710700509c4000000000000000075014000014cd0000"),
    (false, tcp::ACK, "450000280000400040063c64c0000264cb00710700509c4000000002000000005004000014e20000"),
    (true, tcp::SYN, "600000000014064020010db800000000000000000000010020010db8000c00000000000000000007\
                      00509c40000000000000000750140000b6b40000"),
    (true, tcp::ACK, "600000000014064020010db800000000000000000000010020010db8000c00000000000000000007\
                      00509c40000000020000000050040000b6c90000"),
];

#[test]
fn resets_are_as_another_encoder_makes_them() {
    for (v6, flags, packet) in RESETS {
        let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
        let body = Body::Tcp { flags, options: vec![] };
        for options in [0, 4, 40] {
            let options = vec![1; options];
            let sample =
                Sample { body: body.clone(), options, tags: Tags { outer: 0, inner: 7 }, ..syn(client, vip) };
            let mut frame = HeapFrame::new(&[sample.bytes(), vec![0xff; 9]].concat());
            let link = back(&sample.packet());
            reset(&mut frame, &sample.headers(), &link).unwrap();
            assert_eq!(frame.bytes(), [link.bytes(), &hex(packet)].concat(), "{v6} {flags}");
        }
    }
}

#[test]
fn a_reset_acknowledges_all_of_a_segment() {
    for (flags, options, data, len) in [(tcp::SYN, 0, 0, 1), (tcp::FIN, 4, 7, 8), (0x08, 40, 3, 3)] {
        let body = Body::Tcp { flags, options: vec![1; options] };
        let sample = Sample { body, payload: vec![7; data], ..syn(CLIENT4, VIP4) };
        let mut frame = sample.frame();
        reset(&mut frame, &sample.headers(), &back(&sample.packet())).unwrap();
        assert_eq!(read_u32(&frame.bytes()[34..], tcp::ACKNOWLEDGMENT), Some(1 + len), "{flags}");
    }
}

#[test]
fn no_reset_answers_a_reset_a_piece_or_a_datagram() {
    let resets = Sample { body: Body::Tcp { flags: tcp::RST, options: vec![] }, ..syn(CLIENT4, VIP4) };
    let piece = Sample { payload: vec![7; 40], ..syn(CLIENT6, VIP6) }.piece(0, 24);
    for sample in [resets, piece, datagram(CLIENT4, VIP4)] {
        let mut frame = sample.frame();
        let refused = reset(&mut frame, &sample.headers(), &back(&sample.packet()));
        assert_eq!((refused, frame), (Err(DropReason::NoFlow), sample.frame()));
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn answers_are_right_in_full(sample in any_packets(), header in links(false)) {
        let at = header.bytes().len();
        let mut told = sample.frame();
        error(&mut told, &sample.packet(), Cause::PortUnreachable, own(&sample.packet()), &header).unwrap();
        prop_assert!(is_valid(&told.bytes()[at..]));
        prop_assert_eq!(&told.bytes()[..at], header.bytes());
        let mut reset_by = sample.frame();
        if reset(&mut reset_by, &sample.headers(), &header).is_ok() {
            prop_assert!(is_valid(&reset_by.bytes()[at..]));
            prop_assert_eq!(&reset_by.bytes()[..at], header.bytes());
        }
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..120), cut in 0usize..120, sample in any_packets(),
        l3: u16, l4: u16, len: u16, header in links(true),
    ) {
        let packet = Packet { l3: l3 % 64, l4, len, ..sample.packet() };
        let headers = Headers { ip: packet, ..sample.headers() };
        let frame = HeapFrame::segmented(&bytes, cut);
        may_be_told(&bytes, &packet);
        let _ = echo_reply(&mut frame.clone(), &packet, &header);
        let _ = error(&mut frame.clone(), &packet, Cause::TimeExceeded, own(&packet), &header);
        let _ = reset(&mut frame.clone(), &headers, &header);
    }
}

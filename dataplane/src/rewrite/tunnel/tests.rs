//! Outer headers against those of another encoder, and the laws of wrapping.

use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::samples::{
    CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, endpoint, hex, is_valid, link, links, syn,
};
use crate::wire::eth::Tags;
use crate::wire::read_u16;

const IPIP: Encapsulation = Encapsulation::Ipip;
const GUE: Encapsulation = Encapsulation::Gue { port: gue::PORT, checksum: false };
const GUE_SUM: Encapsulation = Encapsulation::Gue { port: gue::PORT, checksum: true };
const GRE: Encapsulation = Encapsulation::Gre { checksum: false };
const GRE_SUM: Encapsulation = Encapsulation::Gre { checksum: true };

fn outer(v6: bool, encapsulation: Encapsulation) -> Outer {
    let (src, dst) = if v6 {
        ("[2001:db8:b::254]:0", "[2001:db8:b::11]:0")
    } else {
        ("198.51.100.254:0", "198.51.100.11:0")
    };
    Outer { src: endpoint(src).ip(), dst: endpoint(dst).ip(), encapsulation, entropy: 0xbeef }
}

fn link_of(v6: bool) -> LinkHeader {
    let (src, dst) = (outer(v6, IPIP).src, outer(v6, IPIP).dst);
    link(11, 254, Tags::default(), crate::samples::addresses(src, dst))
}

fn inner(v6: bool) -> Sample {
    let (src, dst) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
    Sample { tos: 0xb9, ..syn(src, dst) }
}

/// Outer version, inner version, encapsulation, and scapy's bytes before the inner packet.
#[rustfmt::skip]
const VECTORS: [(bool, bool, Encapsulation, &str); 20] = [
    (false, false, IPIP, "45b90041000040003f04e58fc63364fec633640b"),
    (false, false, GUE, "45b9004d000040003f11e576c63364fec633640bfeef17c00039000000040000"),
    (false, false, GUE_SUM, "45b9004d000040003f11e576c63364fec633640bfeef17c0003991e300040000"),
    (false, false, GRE, "45b90045000040003f2fe560c63364fec633640b00000800"),
    (false, false, GRE_SUM, "45b90049000040003f2fe55cc63364fec633640b80000800768b0000"),
    (false, true, IPIP, "45b90055000700003f292550c63364fec633640b"),
    (false, true, GUE, "45b90061000700003f11255cc63364fec633640bfeef17c0004d000000290000"),
    (false, true, GUE_SUM, "45b90061000700003f11255cc63364fec633640bfeef17c0004dfdfa00290000"),
    (false, true, GRE, "45b90059000700003f2f2546c63364fec633640b000086dd"),
    (false, true, GRE_SUM, "45b9005d000700003f2f2542c63364fec633640b800086dd64120000"),
    (true, false, IPIP, "6b91beef002d043f20010db8000b0000000000000000025420010db8000b00000000000000000011"),
    (true, false, GUE, "6b91beef0039113f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                        feef17c00039000000040000"),
    (true, false, GUE_SUM, "6b91beef0039113f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                            feef17c00039896700040000"),
    (true, false, GRE, "6b91beef00312f3f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                        00000800"),
    (true, false, GRE_SUM, "6b91beef00352f3f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                            80000800768b0000"),
    (true, true, IPIP, "6b91beef0041293f20010db8000b0000000000000000025420010db8000b00000000000000000011"),
    (true, true, GUE, "6b91beef004d113f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                       feef17c0004d000000290000"),
    (true, true, GUE_SUM, "6b91beef004d113f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                           feef17c0004df57e00290000"),
    (true, true, GRE, "6b91beef00452f3f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                       000086dd"),
    (true, true, GRE_SUM, "6b91beef00492f3f20010db8000b0000000000000000025420010db8000b00000000000000000011\
                           800086dd64120000"),
];

#[test]
fn outer_headers_are_as_another_encoder_makes_them() {
    for (outer_v6, inner_v6, encapsulation, headers) in VECTORS {
        let (sample, outer, link) = (inner(inner_v6), outer(outer_v6, encapsulation), link_of(outer_v6));
        let mut frame = sample.frame();
        wrap(&mut frame, &sample.packet(), &outer, 7, &link).unwrap();
        let older = Sample { ttl: 63, ..sample }.ip();
        assert_eq!(frame.bytes(), [link.bytes(), &hex(headers), &older].concat(), "{outer:?} {inner_v6}");
        assert_eq!(usize::from(outer.overhead()), headers.len() / 2, "{outer:?}");
    }
}

#[test]
fn ipv4_that_may_be_fragmented_has_an_identification() {
    let sample = Sample { dont_fragment: false, ..inner(false) };
    let mut frame = sample.frame();
    wrap(&mut frame, &sample.packet(), &outer(false, IPIP), 0x4321, &link_of(false)).unwrap();
    assert_eq!(frame.bytes()[18..22], [0x43, 0x21, 0, 0]);
}

#[test]
fn padding_is_in_no_checksum() {
    for encapsulation in [GUE_SUM, GRE_SUM] {
        let sample = Sample { payload: vec![], ..inner(false) };
        let (mut bare, mut padded) =
            (sample.frame(), HeapFrame::new(&[&sample.bytes()[..], &[0xff; 6]].concat()));
        for frame in [&mut bare, &mut padded] {
            wrap(frame, &sample.packet(), &outer(true, encapsulation), 0, &link_of(true)).unwrap();
        }
        assert_eq!([bare.bytes(), &[0xff; 6]].concat(), padded.bytes());
    }
}

#[test]
fn what_can_not_be_wrapped_is_refused_whole() {
    let sample = inner(false);
    let refused = |mut frame: HeapFrame, packet: Packet, outer: Outer| {
        let before = frame.clone();
        let result = wrap(&mut frame, &packet, &outer, 0, &link_of(false));
        assert_eq!(frame, before);
        result.unwrap_err()
    };
    for (v6, encapsulation, room) in
        [(false, IPIP, 20), (false, GUE, 32), (false, GRE, 24), (false, GRE_SUM, 28), (true, GUE, 12)]
    {
        let packet = Packet { len: 65535 - room + 1, ..sample.packet() };
        let tunnel = outer(v6, encapsulation);
        let segmented = HeapFrame::segmented(&[&sample.bytes()[..], &[0; 65535]].concat(), 70000);
        assert_eq!(refused(segmented, packet, tunnel), DropReason::TooBig, "{tunnel:?}");
    }
    for encapsulation in [GUE_SUM, GRE_SUM] {
        let segmented = HeapFrame::segmented(&sample.bytes(), 54);
        assert_eq!(refused(segmented, sample.packet(), outer(false, encapsulation)), DropReason::Scattered);
    }
    let mixed = Outer { src: outer(true, IPIP).src, ..outer(false, IPIP) };
    assert_eq!(refused(sample.frame(), sample.packet(), mixed), DropReason::WrongFamily);
}

#[test]
fn without_headroom_nothing_is_wrapped() {
    let sample = inner(false);
    let mut frame = sample.frame();
    while frame.grow_front(1) {}
    let result = wrap(&mut frame, &sample.packet(), &outer(false, IPIP), 0, &link_of(false));
    assert_eq!(result, Err(DropReason::NoHeadroom));
}

#[test]
fn a_segmented_frame_is_wrapped_without_a_checksum() {
    let sample = Sample { payload: vec![7; 1000], ..inner(false) };
    for encapsulation in [IPIP, GUE, GRE] {
        let mut frame = HeapFrame::segmented(&sample.bytes(), 60);
        wrap(&mut frame, &sample.packet(), &outer(false, encapsulation), 0, &link_of(false)).unwrap();
        assert!(frame.bytes().ends_with(&Sample { ttl: 63, ..sample.clone() }.ip()));
    }
}

#[test]
fn sources_are_spread_over_their_prefix() {
    for (prefix, entropy, source) in [
        ("172.16.0.0/16", 0x1234, "172.16.18.52"),
        ("10.0.0.0/8", 0xffff, "10.0.255.255"),
        ("198.51.100.64/28", 0xffff, "198.51.100.79"),
        ("198.51.100.7/32", 0xffff, "198.51.100.7"),
        ("2001:db8:a::/64", 0x1234, "2001:db8:a::1234"),
        ("2001:db8:a::8/125", 0xffff, "2001:db8:a::f"),
    ] {
        assert_eq!(spread_source(prefix.parse().unwrap(), entropy), source.parse::<IpAddr>().unwrap());
    }
}

fn encapsulations() -> impl Strategy<Value = Encapsulation> {
    (any::<u16>(), prop::sample::select(vec![IPIP, GUE, GUE_SUM, GRE, GRE_SUM])).prop_map(
        |(port, encapsulation)| match encapsulation {
            Encapsulation::Gue { checksum, .. } => Encapsulation::Gue { port, checksum },
            other => other,
        },
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_inner_packet_is_the_packet_one_hop_older(
        sample in any_packets(), v6: bool, encapsulation in encapsulations(), entropy: u16, id: u16,
        link in links(false),
    ) {
        let outer = Outer { entropy, ..outer(v6, encapsulation) };
        let mut frame = sample.frame();
        wrap(&mut frame, &sample.packet(), &outer, id, &link).unwrap();
        let (header, ip) = frame.bytes().split_at(link.bytes().len());
        prop_assert_eq!(header, link.bytes());
        // The outer headers are right in full, the UDP checksum among them.
        prop_assert!(is_valid(ip));
        let (headers, carried) = ip.split_at(outer.overhead().into());
        prop_assert_eq!(carried, Sample { ttl: sample.ttl - 1, ..sample }.ip());
        let at = if v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        match encapsulation {
            Encapsulation::Gue { checksum, .. } => {
                prop_assert_eq!(read_u16(ip, at + udp::CHECKSUM) != Some(0), checksum);
                prop_assert!(read_u16(ip, at).unwrap() >= 49152);
            }
            Encapsulation::Gre { checksum: true } => prop_assert_eq!(csum::sum(&ip[at..]), 0xffff),
            Encapsulation::Gre { checksum: false } | Encapsulation::Ipip => {}
        }
        prop_assert_eq!(headers[0] >> 4, if v6 { 6 } else { 4 });
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..80, sample in any_packets(),
        l3: u16, len: u16, v6: bool, encapsulation in encapsulations(), link in links(true),
    ) {
        let mut frame = HeapFrame::segmented(&bytes, cut);
        let packet = Packet { l3, len, ..sample.packet() };
        let _ = wrap(&mut frame, &packet, &outer(v6, encapsulation), 0, &link);
    }
}

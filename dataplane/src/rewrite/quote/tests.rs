//! Errors in and out, made anew for comparison.

use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::rewrite::answer;
use crate::rewrite::tunnel::{Encapsulation, Outer, wrap};
use crate::samples::{
    BACKEND4, BACKEND6, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, datagram, endpoint, icmp,
    link, packets, syn,
};
use crate::wire::eth::Tags;

/// Client, VIP, backend, another local end, and a router.
const ENDS: [[&str; 5]; 2] = [
    [CLIENT4, VIP4, BACKEND4, "198.51.100.200:1025", "203.0.113.99:0"],
    [CLIENT6, VIP6, BACKEND6, "[2001:db8:5::200]:1025", "[2001:db8:9::99]:0"],
];

/// An error that says "too big", 1300 bytes, about a packet that it quotes.
fn too_big(src: &str, dst: &str, quote: &[u8]) -> Sample {
    let kind = if endpoint(src).is_ipv4() { [3, 4] } else { [2, 0] };
    Sample { ttl: 60, ..icmp(src, dst, kind, [0, 0, 5, 0x14], quote) }
}

/// Bytes of a packet's headers up to the eight of its transport that every error quotes.
fn least(sample: &Sample) -> usize {
    usize::from(sample.packet().l4 - sample.packet().l3) + 8
}

fn back(sample: &Sample) -> LinkHeader {
    link(11, 254, sample.tags, sample.packet().addresses)
}

#[test]
fn either_end_of_a_quote_is_translated() {
    for [client, vip, backend, local, router] in ENDS {
        for make in [syn as fn(&str, &str) -> Sample, datagram] {
            for more in [0, 7, 12, 100] {
                let quote = |sample: &Sample| {
                    let ip = sample.ip();
                    ip[..ip.len().min(least(sample) + more)].to_vec()
                };
                // A reply was sent by the backend; the client's side quotes it as it came from the VIP.
                let (sent, seen) = (make(backend, client), make(vip, client));
                let said = too_big(router, vip, &quote(&seen));
                let mut frame = said.frame();
                let quoted = Quoted::read(frame.head(), &said.packet()).unwrap();
                assert_eq!((quoted.src, quoted.dst), (endpoint(vip), endpoint(client)));
                translate(frame.head_mut(), &said.packet(), &quoted, Some(endpoint(backend)), None).unwrap();
                readdress(&mut frame, &said.packet(), None, Some(endpoint(backend).ip()), &back(&said))
                    .unwrap();
                let heard = Sample { ttl: 59, ..too_big(router, backend, &quote(&sent)) };
                assert_eq!(frame.bytes(), heard.sent(11, 254), "{client} {more}");

                // A request was sent by the client; full NAT replaced both of its ends.
                let (sent, seen) = (make(client, vip), make(local, backend));
                let said = too_big(backend, local, &quote(&seen));
                let mut frame = said.frame();
                let quoted = Quoted::read(frame.head(), &said.packet()).unwrap();
                let ends = (Some(endpoint(client)), Some(endpoint(vip)));
                translate(frame.head_mut(), &said.packet(), &quoted, ends.0, ends.1).unwrap();
                let ends = (Some(endpoint(vip).ip()), Some(endpoint(client).ip()));
                readdress(&mut frame, &said.packet(), ends.0, ends.1, &back(&said)).unwrap();
                let heard = Sample { ttl: 59, ..too_big(vip, client, &quote(&sent)) };
                assert_eq!(frame.bytes(), heard.sent(11, 254), "{client} {more}");
            }
        }
    }
}

#[test]
fn padding_is_no_part_of_a_quote() {
    for [client, vip, backend, _, router] in ENDS {
        let seen = syn(vip, client);
        let said = too_big(router, vip, &seen.ip()[..least(&seen)]);
        let mut bare = said.frame();
        let quoted = Quoted::read(bare.head(), &said.packet()).unwrap();
        let mut padded = HeapFrame::new(&[said.bytes(), vec![7; 20]].concat());
        assert_eq!(Quoted::read(padded.head(), &said.packet()), Some(quoted));
        for frame in [&mut bare, &mut padded] {
            translate(frame.head_mut(), &said.packet(), &quoted, Some(endpoint(backend)), None).unwrap();
        }
        assert_eq!(padded.bytes(), [bare.bytes(), &[7; 20]].concat());
    }
}

#[test]
fn a_quote_must_say_whose_it_is() {
    for [client, vip, _, _, router] in ENDS {
        let read = |quote: &[u8]| {
            let said = too_big(router, vip, quote);
            Quoted::read(said.frame().head(), &said.packet())
        };
        let whole = Sample { payload: vec![7; 40], options: vec![1; 12], ..datagram(vip, client) };
        for len in 0..least(&whole) {
            assert_eq!(read(&whole.ip()[..len]), None, "{len} bytes");
        }
        assert!(read(&whole.ip()[..least(&whole)]).is_some());
        let (first, later) = (whole.piece(0, 16), whole.piece(16, 16));
        assert_eq!(read(&first.ip()).unwrap().dst, endpoint(client));
        assert_eq!(read(&later.ip()), None, "a later piece");
        let mut other_version = whole.ip();
        other_version[0] ^= 0x20;
        assert_eq!(read(&other_version), None);
    }
    let other = too_big(ENDS[0][4], VIP4, &syn(VIP6, CLIENT6).ip());
    assert_eq!(Quoted::read(other.frame().head(), &other.packet()), None, "of the other version");
}

#[test]
fn a_chain_of_headers_has_an_end() {
    let read = |headers: usize| {
        let sample = syn(VIP6, CLIENT6);
        let mut ip = sample.ip();
        ip[6] = ipv6::NEXT_DESTINATION;
        let chain = [ipv6::NEXT_DESTINATION, 0, 1, 4, 0, 0, 0, 0].repeat(headers - 1);
        let last = [ipv4::PROTOCOL_TCP, 0, 1, 4, 0, 0, 0, 0];
        ip.splice(40..40, [&chain[..], &last].concat());
        let said = too_big(ENDS[1][4], VIP6, &ip);
        Quoted::read(said.frame().head(), &said.packet())
    };
    assert_eq!(read(7).unwrap().dst, endpoint(CLIENT6));
    assert_eq!(read(8).unwrap().dst, endpoint(CLIENT6));
    assert_eq!(read(9), None);
}

#[test]
fn ends_of_the_other_version_are_refused() {
    for ([client, vip, _, _, router], [other, ..]) in ENDS.iter().zip(ENDS.iter().rev()) {
        let said = too_big(router, vip, &syn(vip, client).ip());
        let mut frame = said.frame();
        let quoted = Quoted::read(frame.head(), &said.packet()).unwrap();
        let other = endpoint(other);
        let refused = Err(DropReason::WrongFamily);
        assert_eq!(translate(frame.head_mut(), &said.packet(), &quoted, None, Some(other)), refused);
        assert_eq!(readdress(&mut frame, &said.packet(), Some(other.ip()), None, &back(&said)), refused);
    }
}

const GUE: Encapsulation = Encapsulation::Gue { port: 6080, checksum: true };
const GRE: Encapsulation = Encapsulation::Gre { checksum: false };
const GRE_SUM: Encapsulation = Encapsulation::Gre { checksum: true };

/// The packet of a tunnel, and that in it as it was quoted: one hop older than its sender made it.
fn tunnelled(sample: &Sample, v6: bool, encapsulation: Encapsulation) -> (Vec<u8>, Sample) {
    let [_, _, backend, local, _] = ENDS[usize::from(v6)];
    let outer = Outer { src: endpoint(local).ip(), dst: endpoint(backend).ip(), encapsulation, entropy: 77 };
    let mut frame = sample.frame();
    wrap(&mut frame, &sample.packet(), &outer, 0, &back(sample)).unwrap();
    let ip = frame.bytes()[back(sample).bytes().len()..].to_vec();
    (ip, Sample { ttl: sample.ttl - 1, ..sample.clone() })
}

/// What becomes of an error about the packet of a tunnel, and what was said of the packet in it.
fn unwrapped(said: &Sample, src: IpAddr) -> Option<Result<HeapFrame, DropReason>> {
    let mut frame = said.frame();
    let outer = Quoted::read(frame.head(), &said.packet())?;
    let inner = outer.inner(frame.head())?;
    let link = link(1, 254, Tags::default(), crate::samples::addresses(src, inner.src.ip()));
    let result = unwrap_tunnel_error(&mut frame, &said.packet(), &outer, &inner, src, &link);
    Some(result.map(|()| frame))
}

/// The same as we would say it of the packet in the tunnel, of which `quoted` bytes are left.
fn told(sample: &Sample, quoted: usize, cause: Cause, src: IpAddr) -> HeapFrame {
    let l3 = usize::from(sample.packet().l3);
    let mut frame = HeapFrame::new(&sample.bytes()[..l3 + quoted]);
    let link = link(1, 254, Tags::default(), sample.packet().addresses);
    answer::error(&mut frame, &sample.packet(), cause, src, &link).unwrap();
    frame
}

#[test]
fn an_error_of_a_tunnel_becomes_one_of_the_packet_in_it() {
    for (v6, outer_v6, encapsulation, mtu) in [
        (false, false, Encapsulation::Ipip, 1400 - 20),
        (false, false, GUE, 1400 - 32),
        (false, false, GRE, 1400 - 24),
        (false, true, GRE_SUM, 1400 - 48),
        (false, true, Encapsulation::Ipip, 1400 - 40),
        (true, false, Encapsulation::Ipip, 1400 - 20),
        (true, true, Encapsulation::Ipip, 1400 - 40),
        (true, true, GUE, 1400 - 52),
    ] {
        let [client, vip, ..] = ENDS[usize::from(v6)];
        let [_, _, _, local, router] = ENDS[usize::from(outer_v6)];
        let src = endpoint(vip).ip();
        let (quote, inner) = tunnelled(&syn(client, vip), outer_v6, encapsulation);
        let overhead = quote.len() - inner.ip().len();
        let kinds: [([u8; 2], Cause); 3] = if outer_v6 {
            [([2, 0], Cause::TooBig { mtu }), ([3, 0], Cause::TimeExceeded), ([1, 0], Cause::HostUnreachable)]
        } else {
            [
                ([3, 4], Cause::TooBig { mtu }),
                ([11, 0], Cause::TimeExceeded),
                ([3, 2], Cause::HostUnreachable),
            ]
        };
        let say = |kind, quote: &[u8]| icmp(router, local, kind, [0, 0, 5, 0x78], quote);
        // Enough is the inner header with eight bytes behind it.
        for len in [overhead, overhead + 19, overhead + least(&inner) - 1] {
            assert!(unwrapped(&say(kinds[0].0, &quote[..len]), src).is_none(), "{len}");
        }
        for (kind, cause) in kinds {
            for len in [overhead + least(&inner), quote.len()] {
                let heard = unwrapped(&say(kind, &quote[..len]), src).unwrap().unwrap();
                let expected = told(&inner, len - overhead, cause, src);
                assert_eq!(heard.bytes(), expected.bytes(), "{v6} {outer_v6} {encapsulation:?} {kind:?}");
            }
        }
        for kind in if outer_v6 { [[3, 1], [4, 0]] } else { [[11, 1], [12, 0]] } {
            assert_eq!(unwrapped(&say(kind, &quote), src), Some(Err(DropReason::BadIcmp)), "{kind:?}");
        }
    }
}

#[test]
fn a_wrong_checksum_does_not_become_right() {
    for v6 in [false, true] {
        let [client, vip, _, local, router] = ENDS[usize::from(v6)];
        let src = endpoint(vip).ip();
        let (quote, _) = tunnelled(&syn(client, vip), v6, Encapsulation::Ipip);
        let said = too_big(router, local, &quote);
        let unwrap = |mut frame: HeapFrame| {
            let outer = Quoted::read(frame.head(), &said.packet()).unwrap();
            let inner = outer.inner(frame.head()).unwrap();
            unwrap_tunnel_error(&mut frame, &said.packet(), &outer, &inner, src, &back(&said))
        };
        let mut damaged = said.bytes();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(unwrap(said.frame()), Ok(()));
        assert_eq!(unwrap(HeapFrame::new(&damaged)), Err(DropReason::BadIcmp));
        let segmented = HeapFrame::segmented(&said.bytes(), said.bytes().len() - 1);
        assert_eq!(unwrap(segmented), Err(DropReason::Scattered));
    }
}

#[test]
fn no_sender_is_told_of_less_than_every_link_takes() {
    for (v6, said, mtu) in [(false, 0, 0), (false, 80, 68), (true, 1300, 1280), (true, 68, 1280)] {
        let [client, vip, _, local, router] = ENDS[usize::from(v6)];
        let (quote, inner) = tunnelled(&syn(client, vip), v6, Encapsulation::Ipip);
        let kind = if v6 { [2, 0] } else { [3, 4] };
        let said = icmp(router, local, kind, u32::to_be_bytes(said), &quote);
        let heard = unwrapped(&said, endpoint(vip).ip()).unwrap().unwrap();
        let expected = told(&inner, inner.ip().len(), Cause::TooBig { mtu }, endpoint(vip).ip());
        assert_eq!(heard.bytes(), expected.bytes());
    }
}

#[test]
fn other_tunnels_are_not_ours() {
    let [client, vip, _, local, router] = ENDS[0];
    let inner = |damage: usize, byte: u8, encapsulation| {
        let (mut quote, _) = tunnelled(&syn(client, vip), false, encapsulation);
        quote[damage] = byte;
        let said = icmp(router, local, [3, 4], [0; 4], &quote);
        unwrapped(&said, endpoint(vip).ip())
    };
    assert!(inner(0, 0x45, GRE).is_some() && inner(0, 0x45, GUE).is_some());
    assert!(inner(20, 0x20, GRE).is_none(), "a key");
    assert!(inner(22, 0x65, GRE).is_none(), "Ethernet");
    assert!(inner(28, 1, GUE).is_none(), "options");
    assert!(inner(29, 6, GUE).is_none(), "TCP");
    let plain = icmp(router, vip, [3, 4], [0; 4], &syn(vip, client).ip());
    assert!(unwrapped(&plain, endpoint(vip).ip()).is_none());
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_translated_error_is_one_about_the_translated_packet(
        sample in any_packets(), other in any_packets(), cut: u16, tos: u8,
    ) {
        let [_, vip, .., router] = ENDS[usize::from(sample.src.is_ipv6())];
        let of = |sample: &Sample| {
            let ip = sample.ip();
            let more = usize::from(cut) % (ip.len() - least(sample) + 1);
            // Half a checksum can not be changed.
            let len = least(sample) + if more == 9 { 8 } else { more };
            Sample { tos, tags: sample.tags, ..too_big(router, vip, &ip[..len]) }
        };
        let said = of(&sample);
        let (src, dst) = (moved(sample.src, other.src), moved(sample.dst, other.dst));
        let mut frame = said.frame();
        let quoted = Quoted::read(frame.head(), &said.packet()).unwrap();
        translate(frame.head_mut(), &said.packet(), &quoted, Some(src), Some(dst)).unwrap();
        prop_assert_eq!(frame.bytes(), of(&Sample { src, dst, ..sample }).bytes());
    }

    #[test]
    fn any_damage_to_an_error_does_no_harm(
        sample in packets(true), v6: bool, outer_v6: bool, gue: bool, cut in 0usize..200,
        damage in prop::collection::vec((0usize..200, any::<u8>()), 0..6), segment in 0usize..300,
    ) {
        let [client, vip, ..] = ENDS[usize::from(v6)];
        let [_, _, _, local, router] = ENDS[usize::from(outer_v6)];
        let carried = Sample { body: sample.body, payload: sample.payload, ..syn(client, vip) };
        let (mut quote, _) = tunnelled(&carried, outer_v6, if gue { GUE } else { GRE_SUM });
        quote.truncate(cut);
        for (at, byte) in damage {
            if let Some(place) = quote.get_mut(at) {
                *place = byte;
            }
        }
        let said = too_big(router, local, &quote);
        let mut frame = HeapFrame::segmented(&said.bytes(), segment);
        let src = endpoint(vip).ip();
        if let Some(outer) = Quoted::read(frame.head(), &said.packet()) {
            let ends = (Some(endpoint(client)), Some(endpoint(vip)));
            let _ = translate(frame.head_mut(), &said.packet(), &outer, ends.0, ends.1);
            if let Some(inner) = outer.inner(frame.head()) {
                let _ = unwrap_tunnel_error(&mut frame, &said.packet(), &outer, &inner, src, &back(&said));
            }
        }
        let _ = readdress(&mut frame, &said.packet(), Some(src), None, &back(&said));
    }
}

/// One end's address of the version of another.
fn moved(end: Endpoint, other: Endpoint) -> Endpoint {
    let ip: IpAddr = match (end.ip(), other.ip()) {
        (IpAddr::V4(_), IpAddr::V6(other)) => (other.to_bits() as u32).to_be_bytes().into(),
        (IpAddr::V6(end), IpAddr::V4(other)) => {
            (end.to_bits() ^ u128::from(other.to_bits())).to_be_bytes().into()
        }
        (_, other) => other,
    };
    Endpoint::new(ip, other.port())
}

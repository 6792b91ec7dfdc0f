//! What the parser says of frames of every shape; those of IPv4 are in the tests of forwarding, too.

use super::*;
use crate::samples::{Sample, any_packets, cases, datagram, icmp, syn};
use crate::testing::mac;
use proptest::prelude::*;

const CLIENT: &str = "[2001:db8:c::7]:40000";
const VIP: &str = "[2001:db8::100]:80";

type Parsed = Result<(Headers, Tags), Refusal>;

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame, frame.len(), mac(254))
}

/// A frame whose IPv6 header is followed by these bytes, the first header of which has this number.
fn with_chain(next: u8, chain: &[u8]) -> Vec<u8> {
    let mut frame = syn(CLIENT, VIP).bytes();
    frame[14 + 6] = next;
    let len = (frame.len() - 54 + chain.len()) as u16;
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, chain.iter().copied());
    frame
}

/// An options header of eight bytes before the header with number `next`.
fn options(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

fn dropped(why: DropReason) -> Parsed {
    Err(Refusal::Drop(why))
}

#[test]
fn extension_headers_are_walked_within_bounds() {
    const TCP: u8 = ipv4::PROTOCOL_TCP;
    let plain = with_chain(TCP, &[]);
    let (headers, _) = parsed(&plain).unwrap();
    let behind = |len: u16| {
        Ok((
            Headers { ip: Packet { l4: 54 + len, len: headers.ip.len + len, ..headers.ip }, ..headers },
            Tags::default(),
        ))
    };
    let chain = |headers: &[u8]| headers.iter().flat_map(|next| options(*next)).collect::<Vec<_>>();
    let cases: Vec<(&str, u8, Vec<u8>, Parsed)> = vec![
        ("hop-by-hop", 0, options(TCP), behind(8)),
        ("destination options", 60, options(TCP), behind(8)),
        ("hop-by-hop, destination options", 0, chain(&[60, TCP]), behind(16)),
        ("eight of them", 60, chain(&[60, 60, 60, 60, 60, 60, 60, TCP]), behind(64)),
        ("nine of them", 60, chain(&[60; 9]), dropped(DropReason::BadExtensionHeader)),
        ("hop-by-hop in second place", 60, chain(&[0, TCP]), dropped(DropReason::BadExtensionHeader)),
        ("hop-by-hop twice", 0, chain(&[0, TCP]), dropped(DropReason::BadExtensionHeader)),
        (
            "longer than the packet",
            60,
            vec![TCP, 255, 1, 4, 0, 0, 0, 0],
            dropped(DropReason::BadExtensionHeader),
        ),
        ("routing type 0", 43, vec![TCP, 0, 0, 0, 0, 0, 0, 0], dropped(DropReason::RoutingHeader)),
        ("routing with hops left", 43, vec![TCP, 0, 4, 1, 0, 0, 0, 0], dropped(DropReason::RoutingHeader)),
        ("routing at its end", 43, vec![TCP, 0, 4, 0, 0, 0, 0, 0], behind(8)),
        ("an atomic fragment", 44, vec![TCP, 0, 0, 0, 0, 0, 0, 9], behind(8)),
        ("nothing", 59, vec![], dropped(DropReason::NoNextHeader)),
        ("nothing behind options", 60, options(59), dropped(DropReason::NoNextHeader)),
    ];
    for (name, next, chain, expected) in cases {
        let expected = expected.map(|(mut headers, tags)| {
            headers.ip.next = TCP;
            (headers, tags)
        });
        assert_eq!(parsed(&with_chain(next, &chain)), expected, "{name}");
    }
    let (other, first) = (with_chain(47, &[]), with_chain(44, &[TCP, 0, 0, 1, 0, 0, 0, 9]));
    assert!(matches!(parsed(&other), Err(Refusal::Other(packet, _)) if packet.next == 47));
    let Err(Refusal::Piece(packet, _)) = parsed(&first) else { panic!() };
    assert_eq!(packet.fragment, Some(Fragment { id: 9, offset: 0, more: true, header: 54 }));
    assert_eq!((packet.l4, packet.next), (62, TCP));
    let later = with_chain(44, &[60, 0, 0, 8, 0, 0, 0, 9]);
    let Err(Refusal::Piece(packet, _)) = parsed(&later) else { panic!() };
    assert_eq!((packet.l4, packet.next), (62, 60), "headers end with the fragment header");
}

#[test]
fn malformed_ipv6_has_its_reasons() {
    type Breakage = fn(&mut Vec<u8>);
    let cases: &[(&str, Breakage, DropReason)] = &[
        ("half a header", |b| b.truncate(53), DropReason::Truncated),
        ("version 4", |b| b[14] = 0x45, DropReason::BadIpHeader),
        ("no payload, or a jumbogram", |b| b[18..20].fill(0), DropReason::BadIpLength),
        ("longer than 65,535 bytes", |b| b[18..20].fill(0xff), DropReason::BadIpLength),
        ("shorter than its length", |b| b.truncate(60), DropReason::Truncated),
        ("half a TCP header", |b| b[19] = 10, DropReason::BadTcpHeader),
        ("unspecified source", |b| b[22..38].fill(0), DropReason::MartianAddress),
        ("loopback source", |b| (b[22..37].fill(0), b[37] = 1).1, DropReason::MartianAddress),
        ("multicast source", |b| b[22] = 0xff, DropReason::MartianAddress),
        ("multicast destination", |b| b[38] = 0xff, DropReason::MartianAddress),
        ("link-local source", |b| b[22..24].copy_from_slice(&[0xfe, 0xbf]), DropReason::MartianAddress),
        (
            "an IPv4 address in disguise",
            |b| {
                b[22..32].fill(0);
                b[32..34].fill(0xff);
            },
            DropReason::MartianAddress,
        ),
        ("source is destination", |b| b.copy_within(22..38, 38), DropReason::MartianAddress),
        ("another station", |b| b[5] ^= 1, DropReason::NotOurMac),
        ("a group", |b| b[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]), DropReason::NotOurMac),
    ];
    for (name, breakage, why) in cases {
        let mut frame = syn(CLIENT, VIP).bytes();
        breakage(&mut frame);
        assert_eq!(parsed(&frame), dropped(*why), "{name}");
    }
}

#[test]
fn neighbour_discovery_is_known_by_its_type_and_hop_limit() {
    for (kind, group) in [(133, false), (135, true), (136, false), (137, true)] {
        let sample =
            Sample { ttl: 255, ..icmp("[fe80::7]:0", "[ff02::1:ff00:100]:0", [kind, 0], [0; 4], &[0; 16]) };
        let mut frame = sample.bytes();
        if group {
            frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 1, 0]);
        }
        assert_eq!(parsed(&frame), Err(Refusal::Nd(Tags::default())), "{kind}");
        let mut routed = Sample { ttl: 254, ..sample }.bytes();
        if group {
            routed[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 1, 0]);
        }
        assert_eq!(parsed(&routed), dropped(DropReason::BadIcmp), "{kind}");
    }
    let ping = icmp(CLIENT, VIP, [128, 0], [0; 4], b"");
    assert!(matches!(parsed(&ping.bytes()), Err(Refusal::Icmp(..))));
    let mut short = ping.bytes();
    short[19] = 7;
    assert_eq!(parsed(&short), dropped(DropReason::BadIcmp));
}

#[test]
fn ipv4_options_may_not_choose_the_route() {
    let with =
        |options: &[u8]| Sample { options: options.to_vec(), ..datagram("203.0.113.7:9", "192.0.2.100:53") };
    let cases: &[(&[u8], Option<DropReason>)] = &[
        (&[1, 1, 0, 0], None),
        (&[1, 7, 3, 4], None),
        (&[0, 131, 3, 4], None),
        (&[131, 3, 4, 0], Some(DropReason::SourceRoute)),
        (&[1, 137, 3, 4], Some(DropReason::SourceRoute)),
        (&[68, 1, 0, 0], Some(DropReason::BadIpHeader)),
        (&[1, 1, 68, 3], Some(DropReason::BadIpHeader)),
        (&[1, 1, 1, 68], Some(DropReason::BadIpHeader)),
    ];
    for (options, why) in cases {
        let end = parsed(&with(options).bytes());
        assert_eq!(end.err(), why.map(Refusal::Drop), "{options:?}");
    }
}

#[test]
fn tags_are_read_and_a_priority_is_none() {
    for (bytes, tags) in [
        (vec![0x81, 0, 0xe0, 7], Tags { outer: 0, inner: 7 }),
        (vec![0x81, 0, 0xe0, 0], Tags { outer: 0, inner: 0 }),
        (vec![0x88, 0xa8, 0, 8, 0x81, 0, 0, 7], Tags { outer: 8, inner: 7 }),
    ] {
        let mut frame = syn("203.0.113.7:9", "192.0.2.100:53").bytes();
        frame.splice(12..12, bytes);
        assert_eq!(parsed(&frame).map(|(_, tags)| tags), Ok(tags));
    }
    let mut cut = syn(CLIENT, VIP).bytes();
    cut.truncate(12);
    cut.extend([0x81, 0, 0]);
    assert_eq!(parsed(&cut), dropped(DropReason::Truncated));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_good_packet_is_read_as_it_was_built(sample in any_packets()) {
        let frame = sample.bytes();
        match parsed(&frame) {
            Ok((headers, tags)) => prop_assert_eq!((headers, tags), (sample.headers(), sample.tags)),
            Err(Refusal::Drop(why)) => prop_assert!(
                matches!(why, DropReason::MartianAddress | DropReason::BadTcpFlags | DropReason::BadTcpHeader),
                "{}", why.name()
            ),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn any_bytes_of_any_length_are_read_safely(
        mut bytes in prop::collection::vec(any::<u8>(), 0..160),
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806, 7]),
        head_len in 0usize..160,
    ) {
        if bytes.len() >= 14 {
            bytes[..6].copy_from_slice(&mac(254).0);
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        }
        let head = &bytes[..head_len.min(bytes.len())];
        if let Ok((headers, _)) = parse(head, bytes.len(), mac(254)) {
            prop_assert!(usize::from(headers.ip.l3) + usize::from(headers.ip.len) <= bytes.len());
            prop_assert!(usize::from(headers.ip.l4) + 8 <= head.len());
        }
    }
}

//! Numbers there and back, options that lie, and headers that are not all there.

use super::*;
use crate::samples::{Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, is_valid, syn};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

const LEN: u8 = 28;

fn begun(sequence: u32) -> Introduction {
    let mut introduction = Introduction::default();
    introduction.begin(sequence, LEN);
    introduction
}

/// A segment with these numbers, whose checksum is right.
fn numbered(sample: &Sample, sequence: u32, acknowledgment: u32) -> Vec<u8> {
    let mut bytes = sample.bytes();
    change(&mut bytes, &sample.headers(), |header| {
        write_u32(header, tcp::SEQUENCE, sequence);
        write_u32(header, tcp::ACKNOWLEDGMENT, acknowledgment);
    });
    bytes
}

fn segment(flags: u8, options: &[u8]) -> Sample {
    Sample { body: Body::Tcp { flags, options: options.to_vec() }, ..syn(CLIENT4, VIP4) }
}

fn sack(kind: u8, blocks: &[(u32, u32)]) -> Vec<u8> {
    let mut option = vec![1, 1, kind, 2 + 8 * blocks.len() as u8];
    option.extend(blocks.iter().flat_map(|(left, right)| [left.to_be_bytes(), right.to_be_bytes()].concat()));
    option
}

#[test]
fn what_a_segment_needs_follows_from_its_number() {
    for isn in [0, 77, u32::MAX - 1, u32::MAX] {
        let first = isn.wrapping_add(1);
        let need = |introduction: &Introduction, offset: i32, flags| {
            introduction.need(first.wrapping_add_signed(offset), flags, true)
        };
        let mut introduction = Introduction::default();
        assert_eq!(need(&introduction, 0, ACK), Need::Nothing, "it began elsewhere");
        introduction.begin(isn, LEN);
        let needs =
            [(-1, SYN), (0, ACK), (0, ACK | FIN), (0, RST), (-1, ACK), (1, ACK), (1, RST), (1, FIN | ACK)];
        let needs =
            |introduction: &Introduction| needs.map(|(offset, flags)| need(introduction, offset, flags));
        let (bytes, shift, nothing) = (Need::Bytes, Need::Shift, Need::Nothing);
        assert_eq!(needs(&introduction), [bytes, bytes, bytes, nothing, shift, shift, shift, shift]);
        assert_eq!(introduction.need(isn, SYN, false), Need::Nothing);
        introduction.end();
        assert_eq!(needs(&introduction), [nothing, shift, shift, shift, shift, shift, shift, shift]);
        let before = introduction;
        introduction.begin(isn.wrapping_add(99), LEN);
        assert_eq!(introduction, before, "a late or forged opening changes nothing");
    }
}

#[test]
fn acknowledgments_end_at_the_opening() {
    for isn in [0, 77, u32::MAX - 20, u32::MAX] {
        let first = isn.wrapping_add(1);
        let mut introduction = begun(isn);
        let ack = |introduction: &mut Introduction, offset: i64, flags| {
            let count = introduction.acknowledged(first.wrapping_add(offset as u32), flags);
            count.wrapping_sub(first) as i32
        };
        assert_eq!(ack(&mut introduction, -1, ACK), -1);
        assert_eq!(ack(&mut introduction, 0, ACK | SYN), 0);
        assert_eq!(ack(&mut introduction, 5, ACK), 0);
        assert_eq!(ack(&mut introduction, 27, ACK), 0);
        assert_eq!(introduction, begun(isn));
        assert_eq!(ack(&mut introduction, 28, ACK), 0);
        assert!(introduction.is_over());
        assert_eq!(ack(&mut introduction, 30, ACK), 2);
        assert_eq!(ack(&mut introduction, 0, ACK | SYN), 0, "comes again");
        assert_eq!(ack(&mut introduction, (1 << 32) + 5, ACK), 5 - 28, "behind 4 GiB");
    }
}

#[test]
fn an_option_is_given_until_the_backend_has_some_of_the_clients_bytes() {
    let mut introduction = Introduction::default();
    introduction.begin(99, 0);
    assert_eq!(introduction.acknowledged(100, SYN | ACK), 100);
    assert_eq!(introduction.need(100, ACK, true), Need::Bytes);
    assert_eq!(introduction.acknowledged(101, ACK), 101);
    assert!(introduction.is_over());
}

#[test]
fn selective_acknowledgments_are_of_the_clients_bytes_only() {
    let at = |offset: u32| 1000 + offset;
    type Blocks<'a> = &'a [(u32, u32)];
    let cases: [(Blocks, Blocks); 5] = [
        (&[(at(40), at(50))], &[(at(12), at(22))]),
        (&[(at(0), at(28)), (at(40), at(50))], &[(at(12), at(22))]),
        (&[(at(0), at(30)), (at(40), at(50))], &[(at(0), at(2)), (at(12), at(22))]),
        (&[(at(40), at(50)), (at(5), at(20)), (at(60), at(70))], &[(at(12), at(22)), (at(32), at(42))]),
        (&[(at(0), at(28))], &[]),
    ];
    for (blocks, kept) in cases {
        let introduction = &mut begun(999);
        let sample = segment(ACK, &sack(5, blocks));
        let mut frame = numbered(&sample, 7, at(28));
        shift_back(&mut frame, &sample.headers(), introduction);
        let mut option = if kept.is_empty() { vec![1; 4] } else { sack(5, kept) };
        option.resize(4 + 8 * blocks.len(), tcp::OPTION_NOP);
        assert_eq!(frame, numbered(&segment(ACK, &option), 7, at(0)), "{blocks:?}");
    }
}

#[test]
fn options_that_lie_stay_as_they_are() {
    for options in [
        &[5, 0, 1, 1][..],
        &[5, 1, 1, 1],
        &[5, 2, 1, 1],
        &[5, 40, 1, 1],
        &[5, 5, 1, 1, 1, 1, 1, 1],
        &[8, 0, 5, 10, 0, 0, 9, 9, 0, 0, 9, 10],
        &[0, 5, 10, 0, 0, 9, 9, 0, 0, 9, 10, 1],
    ] {
        let sample = segment(ACK, options);
        let mut frame = numbered(&sample, 7, 2000);
        shift_back(&mut frame, &sample.headers(), &mut begun(999));
        let mut after = options.to_vec();
        // An option of no blocks says as much as none.
        if options.starts_with(&[5, 2]) {
            after.fill(1);
        }
        assert_eq!(frame, numbered(&segment(ACK, &after), 7, 1972), "{options:?}");
    }
}

#[test]
fn a_header_that_is_not_all_there_stays_as_it_is() {
    let sample = segment(ACK, &sack(5, &[(1040, 1050)]));
    let (headers, whole) = (sample.headers(), numbered(&sample, 1000, 2000));
    let header_end = whole.len() - sample.payload.len();
    for len in 0..header_end {
        let mut frame = whole[..len].to_vec();
        assert_eq!(of_segment(&mut frame, &headers), None);
        shift(&mut frame, &headers, &begun(999));
        shift_back(&mut frame, &headers, &mut begun(999));
        assert_eq!(frame, whole[..len]);
    }
    assert_eq!(of_segment(&mut whole.clone(), &headers), Some((1000, true)));
    let empty = Sample { payload: Vec::new(), ..sample };
    assert_eq!(of_segment(&mut numbered(&empty, 5, 0), &empty.headers()), Some((5, false)));
    let mut without = numbered(&segment(RST, &[]), 1, 2000);
    shift_back(&mut without, &segment(RST, &[]).headers(), &mut begun(999));
    assert_eq!(without, numbered(&segment(RST, &[]), 1, 2000), "it acknowledges nothing");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_goes_and_is_acknowledged_is_what_was_sent(
        v6: bool, isn: u32, count in 1u32..1 << 30, blocks in prop::collection::vec((1u32..1 << 30, 1u32..9999), 0..4),
    ) {
        let (client, vip) = if v6 { (CLIENT6, VIP6) } else { (CLIENT4, VIP4) };
        let plain = |options: Vec<u8>| Sample { src: client.parse().unwrap(), dst: vip.parse().unwrap(), ..segment(ACK, &options) };
        let mut introduction = begun(isn);
        let sequence = isn.wrapping_add(1).wrapping_add(count);
        let to_backend = plain(Vec::new());
        let mut frame = numbered(&to_backend, sequence, 9);
        shift(&mut frame, &to_backend.headers(), &introduction);
        prop_assert!(is_valid(&frame[14..]));
        let shifted = read_u32(&frame, usize::from(to_backend.packet().l4) + tcp::SEQUENCE).unwrap();
        prop_assert_eq!(shifted, sequence.wrapping_add(LEN.into()));

        let moved = |by: u32| -> Vec<_> {
            let place = |(left, len): &(u32, u32)| {
                let left = isn.wrapping_add(1).wrapping_add(*left).wrapping_add(by);
                (left, left.wrapping_add(*len))
            };
            blocks.iter().map(place).collect()
        };
        let reply = plain(sack(5, &moved(LEN.into())));
        let mut frame = numbered(&reply, 3, shifted);
        shift_back(&mut frame, &reply.headers(), &mut introduction);
        let mut expected = sack(5, &moved(0));
        if blocks.is_empty() {
            expected = vec![1; 4];
        }
        prop_assert_eq!(frame, numbered(&plain(expected), 3, sequence));
        prop_assert!(introduction.is_over());
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..90), sample in any_packets(), l4: u16, isn: u32,
    ) {
        let mut headers = sample.headers();
        headers.tcp_flags |= ACK;
        for l4 in [headers.ip.l4, l4 % 90, l4] {
            headers.ip.l4 = l4;
            let _ = of_segment(&mut bytes.clone(), &headers);
            shift(&mut bytes.clone(), &headers, &begun(isn));
            shift_back(&mut bytes.clone(), &headers, &mut begun(isn));
            let (place, end) = (usize::from(isn as u16 % 100), usize::from((isn >> 16) as u16 % 100));
            let (src, dst) = (sample.src, sample.dst);
            let quoted = Quoted { src, dst, protocol: 6, piece_of: None, l3: 0, l4: place, end };
            let _ = shift_quoted(&mut bytes.clone(), &headers.ip, &quoted, &begun(isn), (LEN, 68));
        }
    }

    #[test]
    fn any_options_leave_the_checksum_right(mut options in prop::collection::vec(0u8..12, 0..40), ack: u32) {
        options.resize(options.len().next_multiple_of(4), 0);
        let sample = segment(ACK, &options);
        let mut frame = numbered(&sample, 1, ack);
        shift_back(&mut frame, &sample.headers(), &mut begun(999));
        prop_assert!(is_valid(&frame[14..]));
    }
}

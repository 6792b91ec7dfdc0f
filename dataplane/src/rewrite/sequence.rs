//! TCP sequence numbers of a connection into which bytes were put that its client did not send.
//!
//! The bytes stand before the client's first one. Everything that the client sends later has higher numbers for the
//! backend, and everything that the backend acknowledges has lower ones for the client. What is done to a segment
//! depends on its numbers alone, so that retransmissions, in whatever pieces and order, come out alike.

use super::tcp_header;
use crate::csum::{self, Delta};
use crate::packet::Headers;
use crate::wire::{read_u16, read_u32, tcp, write_u16, write_u32};

/// How far a client's introduction to its backend is: the bytes before its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Sequence number of the client's first byte, as it counts.
    first: u32,
    /// How many bytes stand before it.
    len: u8,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The flow did not begin here, or not yet. Nothing is known of its numbers, and nothing is put into it.
    #[default]
    Unbegun,
    /// The backend has not all of the bytes, as far as is known.
    Begun,
    /// It has them.
    Over,
}

/// What a client's segment needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Numbers of the backend.
    Shift,
    /// The bytes, before its payload.
    Bytes,
}

impl Introduction {
    /// Notes a client's opening: its sequence number, and how many bytes are to stand before the client's. One that
    /// comes again says the same; another one, before the backend had anything, begins anew. Without bytes it is over
    /// when the backend has some of the client's.
    pub fn begin(&mut self, sequence: u32, len: u8) {
        if self.stage != Stage::Over {
            *self = Self { first: sequence.wrapping_add(1), len, stage: Stage::Begun };
        }
    }

    /// Notes that the bytes are with the backend; those of a flow of UDP are when they were sent.
    pub fn end(&mut self) {
        self.stage = Stage::Over;
    }

    /// Whether they are.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// How many bytes stand before the client's.
    pub fn count(&self) -> u8 {
        self.len
    }

    /// What a client's segment needs. An opening with a payload (RFC 7413) needs the bytes before that.
    pub fn need(&self, sequence: u32, flags: u8, has_payload: bool) -> Need {
        let begins = self.stage == Stage::Begun && sequence == self.first;
        match (self.stage, flags & (tcp::SYN | tcp::RST)) {
            (Stage::Unbegun, _) => Need::Nothing,
            (Stage::Begun, tcp::SYN) if has_payload => Need::Bytes,
            (_, tcp::SYN) => Need::Nothing,
            // Until the backend has the bytes, it awaits what comes first.
            (_, tcp::RST) if begins => Need::Nothing,
            _ if begins => Need::Bytes,
            _ => Need::Shift,
        }
    }

    /// What a backend acknowledges, as its client counts; notes whether it has all of the bytes.
    fn acknowledged(&mut self, acknowledgment: u32, flags: u8) -> u32 {
        let count = acknowledgment.wrapping_sub(self.first);
        if self.stage == Stage::Begun && (u32::from(self.len).max(1)..1 << 31).contains(&count) {
            self.stage = Stage::Over;
        }
        // What comes late, or again, may say less than was known; it never says less than that the opening came.
        // Behind 4 GiB the same number is a new one.
        let early = self.stage == Stage::Begun || flags & tcp::SYN != 0;
        match early {
            // Not even the opening is acknowledged.
            true if count >= 1 << 31 => acknowledgment,
            true => self.lowered(acknowledgment),
            false => acknowledgment.wrapping_sub(self.len.into()),
        }
    }

    /// A number of the backend's as the client counts, none of whose bytes the first ones are.
    fn lowered(&self, sequence: u32) -> u32 {
        let count = sequence.wrapping_sub(self.first);
        sequence.wrapping_sub(count.min(self.len.into()))
    }
}

/// The sequence number of a segment, and whether it has a payload; `None` if its header is not all there.
pub fn of_segment(head: &mut [u8], headers: &Headers) -> Option<(u32, bool)> {
    let end = headers.ip.l4.wrapping_sub(headers.ip.l3);
    let header = tcp_header(head, headers)?;
    let has_payload = usize::from(headers.ip.len.saturating_sub(end)) > header.len();
    Some((read_u32(header, tcp::SEQUENCE)?, has_payload))
}

/// Gives a client's segment the sequence number that it has for the backend.
pub fn shift(head: &mut [u8], headers: &Headers, introduction: &Introduction) {
    change(head, headers, |header| {
        let sequence = read_u32(header, tcp::SEQUENCE).unwrap_or_default();
        write_u32(header, tcp::SEQUENCE, sequence.wrapping_add(introduction.len.into()));
    });
}

/// Gives a backend's segment the acknowledgments that it has for the client, and learns from them.
pub fn shift_back(head: &mut [u8], headers: &Headers, introduction: &mut Introduction) {
    if introduction.stage == Stage::Unbegun || headers.tcp_flags & tcp::ACK == 0 {
        return;
    }
    change(head, headers, |header| {
        let acknowledgment = read_u32(header, tcp::ACKNOWLEDGMENT).unwrap_or_default();
        let acknowledgment = introduction.acknowledged(acknowledgment, headers.tcp_flags);
        write_u32(header, tcp::ACKNOWLEDGMENT, acknowledgment);
        if let Some(blocks) = tcp::option(header, tcp::OPTION_SACK) {
            shift_blocks(header.get_mut(blocks).unwrap_or_default(), introduction);
        }
    });
}

/// Gives selective acknowledgments (RFC 2018, 3), an option with kind and length, the numbers that they have for the
/// client. Blocks of none of its bytes, such as of our own ones that came twice (RFC 2883), are taken out.
fn shift_blocks(option: &mut [u8], introduction: &Introduction) {
    const BLOCK: usize = 8;
    let count = (option.len() - 2) / BLOCK;
    if option.len() != 2 + count * BLOCK {
        return;
    }
    let mut end = 2;
    for block in 0..count {
        let at = 2 + block * BLOCK;
        let (left, right) = (read_u32(option, at), read_u32(option, at + 4));
        let lowered = |edge: Option<u32>| introduction.lowered(edge.unwrap_or_default());
        let (left, right) = (lowered(left), lowered(right));
        if left != right {
            write_u32(option, end, left);
            write_u32(option, end + 4, right);
            end += BLOCK;
        }
    }
    if let Some(len) = option.get_mut(1) {
        *len = end as u8;
    }
    // Without a block there is no option.
    let rest = if end == 2 { 0 } else { end };
    option.get_mut(rest..).unwrap_or_default().fill(tcp::OPTION_NOP);
}

/// Changes a TCP header, but for its checksum, which is then repaired. One that is not all there stays as it is.
fn change(head: &mut [u8], headers: &Headers, change: impl FnOnce(&mut [u8])) {
    let Some(header) = tcp_header(head, headers) else { return };
    let before = csum::sum(header);
    change(header);
    let checksum = read_u16(header, tcp::CHECKSUM).unwrap_or_default();
    let changes = Delta::default().word(before, csum::sum(header));
    write_u16(header, tcp::CHECKSUM, changes.apply(checksum));
}

#[cfg(test)]
mod tests {
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
        option.extend(
            blocks.iter().flat_map(|(left, right)| [left.to_be_bytes(), right.to_be_bytes()].concat()),
        );
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
            let needs = [
                (-1, SYN),
                (0, ACK),
                (0, ACK | FIN),
                (0, RST),
                (-1, ACK),
                (1, ACK),
                (1, RST),
                (1, FIN | ACK),
            ];
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
}

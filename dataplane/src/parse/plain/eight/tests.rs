use super::*;
use crate::csum;
use crate::eight::{Avx512, lowest_8, lowest_16, words};
use crate::parse::plain::{Kind, Plain, glance_v4, glance_v6};
use crate::samples::{CLIENT4, CLIENT6, Sample, VIP4, VIP6, cases, datagram, syn};
use crate::testing::mac;
use config::words::Protocol;
use proptest::prelude::*;
use std::fmt::Debug;

/// What is seen of a frame, if it is plain.
type Seen<A> = Option<Plain<A>>;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn seen<E, A>(eight: &Eight<E>, ends: impl Fn(&E, usize) -> (A, u16)) -> [Seen<A>; 8] {
    let (len, tcp_flags) = (lowest_16(eight.len), lowest_8(eight.tcp_flags));
    std::array::from_fn(|row| {
        let ((src, src_port), (dst, dst_port)) = (ends(&eight.src, row), ends(&eight.dst, row));
        let protocol = if eight.tcp >> row & 1 != 0 { Protocol::Tcp } else { Protocol::Udp };
        let (len, tcp_flags) = (len[row], tcp_flags[row]);
        let plain = Plain { src, dst, src_port, dst_port, len, protocol, tcp_flags };
        (eight.plain >> row & 1 != 0).then_some(plain)
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn seen_v4(fronts: &[&Front; 8], lens: [u32; 8]) -> [Seen<u32>; 8] {
    seen(&glance_eight_v4(Station::new(mac(254)), fronts, lens), |ends, row| {
        let word = words(*ends)[row];
        assert_eq!(word as u16, 0);
        (((word >> 32) as u32).swap_bytes(), ((word >> 16) as u16).swap_bytes())
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn seen_v6(fronts: &[&FrontV6; 8], lens: [u32; 8]) -> [Seen<u128>; 8] {
    seen(&glance_eight_v6(Station::new(mac(254)), fronts, lens), |ends, row| {
        let [upper, lower, port] = [ends.address[0], ends.address[1], ends.port].map(|word| words(word)[row]);
        (u128::from(upper) << 64 | u128::from(lower), u16::try_from(port).unwrap())
    })
}

/// Eight frames are what each of them is.
fn assert_agree<const LEN: usize, A: Debug + PartialEq>(
    frames: &[([u8; LEN], u32)],
    together: impl Fn(&[&[u8; LEN]; 8], [u32; 8]) -> [Seen<A>; 8],
    alone: impl Fn(&[u8; LEN], u32) -> Seen<A>,
) {
    for frames in frames.chunks(8) {
        let at = |row: usize| &frames[row % frames.len()];
        let fronts = std::array::from_fn(|row| &at(row).0);
        let together = together(&fronts, std::array::from_fn(|row| at(row).1));
        for (row, together) in together.into_iter().enumerate() {
            let (front, len) = at(row);
            assert_eq!(together, alone(front, *len), "{front:02x?} of {len} bytes");
        }
    }
}

fn assert_agree_v4(frames: &[(Front, u32)]) {
    let Some(Avx512 { .. }) = Avx512::detect() else { return };
    let alone = |front: &Front, len| {
        let kind = Station::new(mac(254)).kind(front).filter(|kind| *kind == Kind::V4);
        kind.and_then(|_| glance_v4(front, len as usize))
    };
    // SAFETY: `Avx512` is a proof that the processor can.
    assert_agree(frames, |fronts, lens| unsafe { seen_v4(fronts, lens) }, alone);
}

fn assert_agree_v6(frames: &[(FrontV6, u32)]) {
    let Some(Avx512 { .. }) = Avx512::detect() else { return };
    let alone = |front: &FrontV6, len| {
        let kind = front.first_chunk().and_then(|front| Station::new(mac(254)).kind(front));
        kind.filter(|kind| *kind == Kind::V6).and_then(|_| glance_v6(&front[L3..], len as usize))
    };
    // SAFETY: as above.
    assert_agree(frames, |fronts, lens| unsafe { seen_v6(fronts, lens) }, alone);
}

fn front_of<const LEN: usize>(sample: &Sample) -> [u8; LEN] {
    let mut front = [0; LEN];
    front.iter_mut().zip(sample.bytes()).for_each(|(there, here)| *there = here);
    front
}

fn mend(front: &mut Front) {
    front[24..26].fill(0);
    let sum = !csum::sum(&front[L3..L4]);
    front[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// With each bit turned and changed by `then`, in frames of all lengths around theirs.
fn turned<const LEN: usize>(sample: &Sample, then: impl Fn(&mut [u8; LEN])) -> Vec<([u8; LEN], u32)> {
    let whole = sample.bytes().len() as u32;
    let turn = |bit: usize| {
        let mut front = front_of(sample);
        front[bit / 8] ^= 1 << (bit % 8);
        then(&mut front);
        [whole - 1, whole, whole + 1, 1514].map(|len| (front, len))
    };
    (0..LEN * 8).flat_map(turn).collect()
}

#[test]
fn eight_glances_see_what_each_does() {
    for sample in [syn(CLIENT4, VIP4), datagram(CLIENT4, VIP4)] {
        assert!(glance_v4(&front_of(&sample), sample.bytes().len()).is_some());
        assert_agree_v4(&turned(&sample, |_| {}));
        assert_agree_v4(&turned(&sample, mend));
    }
    for sample in [syn(CLIENT6, VIP6), datagram(CLIENT6, VIP6)] {
        let whole = sample.bytes();
        assert!(glance_v6(&front_of::<{ size_of::<FrontV6>() }>(&sample)[L3..], whole.len()).is_some());
        assert_agree_v6(&turned(&sample, |_| {}));
    }
}

/// Sums of headers carry out of 64 bits where a source ends with such bytes.
#[test]
fn eight_glances_see_sums_that_carry() {
    let with = |end: [u8; 3], flags: u8, wrong: u8| {
        let mut front = front_of(&syn(CLIENT4, VIP4));
        front[27..30].copy_from_slice(&end);
        front[20] = flags;
        mend(&mut front);
        front[25] ^= wrong;
        (front, 1514)
    };
    let ends = [[255, 255, 255], [0, 255, 255], [255, 192, 255], [255, 191, 255], [255, 255, 254], [0, 0, 0]];
    let of_end = |end| [0, 1].map(|wrong| [0, 0x40].map(|flags| with(end, flags, wrong)));
    let frames: Vec<_> = ends.into_iter().flat_map(of_end).flatten().collect();
    let is_plain = |(front, len): &(Front, u32)| glance_v4(front, *len as usize).is_some();
    assert_eq!(frames.iter().filter(|frame| is_plain(frame)).count(), frames.len() / 2);
    assert_agree_v4(&frames);
}

/// The longest IPv6 packets of which a length of 16 bits can tell, and longer ones.
#[test]
fn eight_glances_see_lengths_that_are_too_long() {
    let with = |payload_len: u16| {
        let mut front: FrontV6 = front_of(&syn(CLIENT6, VIP6));
        front[18..20].copy_from_slice(&payload_len.to_be_bytes());
        (front, 70_000)
    };
    let frames = [20, 65_494, 65_495, 65_496, 65_535].map(with);
    let are_plain = frames.map(|(front, len)| glance_v6(&front[L3..], len as usize).is_some());
    assert_eq!(are_plain, [true, true, true, false, false]);
    assert_agree_v6(&frames);
}

/// Some fields of a front with any bytes.
fn with_any<const LEN: usize>(
    front: &mut [u8; LEN],
    fields: [std::ops::Range<usize>; 8],
    kept: [bool; 8],
    bytes: &[u8; 60],
) {
    for field in fields.into_iter().zip(kept).filter_map(|(field, kept)| (!kept).then_some(field)) {
        front[field.clone()].copy_from_slice(&bytes[field.start - L3..field.end - L3]);
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Any numbers where they matter.
    #[test]
    fn eight_glances_see_what_each_does_with_any_header(
        headers in prop::collection::vec((any::<[u8; 60]>(), any::<[bool; 8]>(), any::<u8>(), 0u32..120), 8),
    ) {
        let frame_v4 = |(bytes, kept, choice, len): &([u8; 60], [bool; 8], u8, u32)| {
            let mut front = front_of(&syn(CLIENT4, VIP4));
            let fields = [14..16, 16..18, 20..22, 22..23, 23..24, 26..34, 34..46, 46..54];
            with_any(&mut front, fields, *kept, bytes);
            // Lengths that may be right, and UDP, half of the times.
            if choice & 1 != 0 {
                front[16..18].copy_from_slice(&(u16::from(bytes[58]) % 100).to_be_bytes());
            }
            if choice & 2 != 0 {
                front[23] = ipv4::PROTOCOL_UDP;
                front[38..40].copy_from_slice(&(u16::from(bytes[57]) % 100).to_be_bytes());
            }
            if choice & 4 != 0 {
                mend(&mut front);
            }
            (front, *len)
        };
        let frame_v6 = |(bytes, kept, choice, len): &([u8; 60], [bool; 8], u8, u32)| {
            let mut front: FrontV6 = front_of(&syn(CLIENT6, VIP6));
            let fields = [14..16, 18..20, 20..21, 21..22, 22..38, 38..54, 54..66, 66..74];
            with_any(&mut front, fields, *kept, bytes);
            if choice & 1 != 0 {
                front[18..20].copy_from_slice(&(u16::from(bytes[58]) % 100).to_be_bytes());
            }
            if choice & 2 != 0 {
                front[20] = ipv4::PROTOCOL_UDP;
                front[58..60].copy_from_slice(&(u16::from(bytes[57]) % 100).to_be_bytes());
            }
            (front, *len)
        };
        assert_agree_v4(&headers.iter().map(frame_v4).collect::<Vec<_>>());
        assert_agree_v6(&headers.iter().map(frame_v6).collect::<Vec<_>>());
    }
}

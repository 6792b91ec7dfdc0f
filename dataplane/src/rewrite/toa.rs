//! The TCP option with the client's address that kernel modules by the name of `toa` read, as LVS and DPVS send it:
//! kind 254, length, port, address; 8 bytes with an IPv4 address, 20 with one of IPv6.

use std::net::{IpAddr, SocketAddr};

use super::{insert, tcp_header};
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::packet::Headers;
use crate::wire::{read_u16, tcp, write_u16};

/// Kind of the option; of those for experiments (RFC 6994), without the identifier that belongs there.
const KIND: u8 = 254;
/// Longest TCP header, in bytes.
const LONGEST_HEADER: usize = 60;

/// Bytes that the option takes for a client with this address.
pub const fn len(client: IpAddr) -> u8 {
    match client {
        IpAddr::V4(_) => 8,
        IpAddr::V6(_) => 20,
    }
}

/// Puts the option before all others of a segment; these may end before the header does. Returns the headers of the
/// longer packet; `None`, and nothing happens, if there is no room for it in the TCP header.
///
/// # Errors
/// [`DropReason::AddressInPieces`] if the packet is a piece of one, and what [`insert::insert`] may say. The frame is
/// unchanged then.
pub fn add<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    client: SocketAddr,
) -> Result<Option<Headers>, DropReason> {
    if headers.ip.fragment.is_some() {
        return Err(DropReason::AddressInPieces);
    }
    let len = len(client.ip());
    let header_len = tcp_header(frame.head_mut(), headers).ok_or(DropReason::Scattered)?.len();
    if header_len + usize::from(len) > LONGEST_HEADER {
        return Ok(None);
    }
    let mut option = [0; 20];
    let [high, low] = client.port().to_be_bytes();
    option[..4].copy_from_slice(&[KIND, len, high, low]);
    match client.ip() {
        IpAddr::V4(address) => option[4..8].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => option[4..].copy_from_slice(&address.octets()),
    }
    let l4 = usize::from(headers.ip.l4);
    let old = read_u16(frame.head(), l4 + tcp::DATA_OFFSET).unwrap_or_default();
    // The length in words is in the upper four bits, and has room, as was seen.
    let new = old.wrapping_add(u16::from(len / 4) << 12);
    let option = option.get(..usize::from(len)).unwrap_or_default();
    let changes = Delta::default().word(old, new);
    let longer = insert::insert(frame, headers, l4 + tcp::HEADER_LEN, option, changes)?;
    write_u16(frame.head_mut(), l4 + tcp::DATA_OFFSET, new);
    Ok(Some(longer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapFrame;
    use crate::samples::{Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, syn};
    use proptest::prelude::*;

    const V4: [u8; 8] = [254, 8, 0x9c, 0x40, 203, 0, 113, 7];
    const V6: [u8; 20] = [254, 20, 0x9c, 0x40, 0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

    fn with(sample: &Sample, options: &[u8]) -> Sample {
        Sample { body: Body::Tcp { flags: tcp::ACK, options: options.to_vec() }, ..sample.clone() }
    }

    #[test]
    fn it_stands_before_all_other_options() {
        for (plain, option) in [(syn(CLIENT4, VIP4), &V4[..]), (syn(CLIENT6, VIP6), &V6)] {
            for others in [&[][..], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], &[0; 20]] {
                let (before, after) = (with(&plain, others), with(&plain, &[option, others].concat()));
                let mut frame = before.frame();
                let longer = add(&mut frame, &before.headers(), before.src).unwrap();
                assert_eq!((frame.bytes(), longer), (&after.bytes()[..], Some(after.headers())));
            }
        }
    }

    #[test]
    fn a_full_header_goes_without() {
        for (plain, most) in [(syn(CLIENT4, VIP4), 32), (syn(CLIENT6, VIP6), 20)] {
            let added = |options: usize| {
                let sample = with(&plain, &vec![1; options]);
                let mut frame = sample.frame();
                let longer = add(&mut frame, &sample.headers(), sample.src).unwrap();
                assert_eq!(longer.is_none(), frame == sample.frame());
                longer.is_some()
            };
            assert_eq!((added(most), added(most + 4)), (true, false));
        }
        let whole = Sample { payload: vec![7; 64], ..with(&syn(CLIENT4, VIP4), &[]) };
        let piece = whole.piece(0, 24);
        assert_eq!(add(&mut piece.frame(), &piece.headers(), piece.src), Err(DropReason::AddressInPieces));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..90), sample in any_packets(), l4: u16,
        ) {
            let mut headers = sample.headers();
            let _ = add(&mut HeapFrame::new(&bytes), &headers, sample.src);
            headers.ip.l4 = l4 % 90;
            let _ = add(&mut HeapFrame::new(&bytes), &headers, sample.src);
        }
    }
}

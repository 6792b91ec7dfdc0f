//! Network address translation: the destination of the request and the source of the reply are replaced,
//! ports included (RFC 3022); full NAT replaces both ends of both.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use config::words::Protocol;

use super::{age_ipv4, age_ipv6, put_link};
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::packet::{Addresses, Endpoint, Headers};
use crate::wire::eth::LinkHeader;
use crate::wire::{ipv4, ipv6, read_u16, tcp, udp, write, write_u16};

/// Directs a client's packet to a backend.
///
/// # Errors
/// As [`both`].
#[inline]
pub fn to_backend<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    backend: Endpoint,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    readdress(frame.head_mut(), headers, None, Some(backend))?;
    put_link(frame, headers.ip.l3, link)
}

/// Makes a backend's reply come from the VIP.
///
/// # Errors
/// As [`both`].
#[inline]
pub fn to_client<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    vip: Endpoint,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    readdress(frame.head_mut(), headers, Some(vip), None)?;
    put_link(frame, headers.ip.l3, link)
}

/// Gives a packet another source and another destination, as full NAT does both ways.
///
/// # Errors
/// [`DropReason::WrongFamily`] if an end is of another IP version than the packet;
/// [`DropReason::NoHeadroom`] if the buffer has no room for a longer Ethernet header.
#[inline]
pub fn both<F: Frame>(
    frame: &mut F,
    headers: &Headers,
    src: Endpoint,
    dst: Endpoint,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    readdress(frame.head_mut(), headers, Some(src), Some(dst))?;
    put_link(frame, headers.ip.l3, link)
}

/// Replaces the ends that are given and takes a hop off the TTL or hop limit. A piece of a fragmented packet
/// without the transport header changes in its IP header only: the first piece carries the ports, and the
/// checksum of the whole.
///
/// # Errors
/// [`DropReason::WrongFamily`] if an end is of another IP version than the packet.
// The version is asked for once, and each arm knows then where all of its fields are: asking at each field
// cost a third more.
#[inline(always)]
pub fn readdress(
    head: &mut [u8],
    headers: &Headers,
    src: Option<Endpoint>,
    dst: Option<Endpoint>,
) -> Result<(), DropReason> {
    match headers.ip.addresses {
        Addresses::V4 { src: old_src, dst: old_dst } => {
            let (src, dst) = (src.map(only_v4).transpose()?, dst.map(only_v4).transpose()?);
            let new = (src.map(|end| *end.ip()), dst.map(|end| *end.ip()));
            let changes = readdress_ipv4(head, headers.ip.l3, (old_src, old_dst), new);
            replace_ports(head, headers, changes, (src.map(|end| end.port()), dst.map(|end| end.port())));
        }
        Addresses::V6 { src: old_src, dst: old_dst } => {
            let (src, dst) = (src.map(only_v6).transpose()?, dst.map(only_v6).transpose()?);
            let new = (src.map(|end| *end.ip()), dst.map(|end| *end.ip()));
            let changes = readdress_ipv6(head, headers.ip.l3, (old_src, old_dst), new);
            replace_ports(head, headers, changes, (src.map(|end| end.port()), dst.map(|end| end.port())));
        }
    }
    Ok(())
}

#[inline(always)]
fn only_v4(end: Endpoint) -> Result<SocketAddrV4, DropReason> {
    if let Endpoint::V4(end) = end { Ok(end) } else { Err(DropReason::WrongFamily) }
}

#[inline(always)]
fn only_v6(end: Endpoint) -> Result<SocketAddrV6, DropReason> {
    if let Endpoint::V6(end) = end { Ok(end) } else { Err(DropReason::WrongFamily) }
}

/// Replaces addresses of the IPv4 header at `l3`, takes a hop off its TTL and repairs its checksum. What the
/// addresses add to other checksums that cover them is returned.
#[inline(always)]
pub(super) fn readdress_ipv4(
    head: &mut [u8],
    l3: u16,
    (old_src, old_dst): (u32, u32),
    (src, dst): (Option<Ipv4Addr>, Option<Ipv4Addr>),
) -> Delta {
    let mut changes = Delta::default();
    let Some(header) = head.get_mut(usize::from(l3)..).and_then(|rest| rest.first_chunk_mut()) else {
        return changes;
    };
    if let Some(src) = src {
        write(header, ipv4::SRC, &src.octets());
        changes = changes.long(old_src, src.to_bits());
    }
    if let Some(dst) = dst {
        write(header, ipv4::DST, &dst.octets());
        changes = changes.long(old_dst, dst.to_bits());
    }
    age_ipv4(header, changes);
    changes
}

/// Replaces addresses of the IPv6 header at `l3` and takes a hop off its hop limit. What the addresses add to
/// checksums that cover them is returned.
#[inline(always)]
pub(super) fn readdress_ipv6(
    head: &mut [u8],
    l3: u16,
    (old_src, old_dst): (u128, u128),
    (src, dst): (Option<Ipv6Addr>, Option<Ipv6Addr>),
) -> Delta {
    let mut changes = Delta::default();
    let Some(header) = head.get_mut(usize::from(l3)..).and_then(|rest| rest.first_chunk_mut()) else {
        return changes;
    };
    if let Some(src) = src {
        write(header, ipv6::SRC, &src.octets());
        changes = changes.wide(old_src, src.to_bits());
    }
    if let Some(dst) = dst {
        write(header, ipv6::DST, &dst.octets());
        changes = changes.wide(old_dst, dst.to_bits());
    }
    age_ipv6(header);
    changes
}

/// Replaces ports, where the packet has any, and repairs the transport checksum for them and for `changes` of
/// the addresses, which it covers by its pseudo header.
#[inline(always)]
fn replace_ports(
    head: &mut [u8],
    headers: &Headers,
    mut changes: Delta,
    (src, dst): (Option<u16>, Option<u16>),
) {
    if !headers.has_transport() {
        return;
    }
    let l4 = usize::from(headers.ip.l4);
    // TCP and UDP have their ports at the same places.
    if let Some(src) = src {
        write_u16(head, l4 + tcp::SRC_PORT, src);
        changes = changes.word(headers.src_port, src);
    }
    if let Some(dst) = dst {
        write_u16(head, l4 + tcp::DST_PORT, dst);
        changes = changes.word(headers.dst_port, dst);
    }
    mend_transport(head, l4, headers.protocol, changes);
}

/// Repairs the checksum of a transport header at `l4` for changes of what it covers.
#[inline(always)]
pub(super) fn mend_transport(head: &mut [u8], l4: usize, protocol: Protocol, changes: Delta) {
    match protocol {
        Protocol::Tcp => {
            let checksum = read_u16(head, l4 + tcp::CHECKSUM).unwrap_or_default();
            write_u16(head, l4 + tcp::CHECKSUM, changes.apply(checksum));
        }
        Protocol::Udp => {
            let checksum = read_u16(head, l4 + udp::CHECKSUM).unwrap_or_default();
            // 0 means that the sender computed none. In IPv6 that is the receiver's to refuse, or to take from
            // a tunnel (RFC 6935).
            if checksum != 0 {
                write_u16(head, l4 + udp::CHECKSUM, udp::computed(changes.apply(checksum)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapFrame;
    use crate::samples::{
        BACKEND4, BACKEND6, Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, datagram, endpoint,
        is_valid, link, syn,
    };
    use crate::wire::eth::Tags;
    use proptest::prelude::*;
    use std::net::IpAddr;

    const ENDS: [[&str; 4]; 2] = [
        [CLIENT4, VIP4, BACKEND4, "198.51.100.200:1025"],
        [CLIENT6, VIP6, BACKEND6, "[2001:db8:5::200]:1025"],
    ];

    #[test]
    fn each_way_replaces_its_end() {
        for [client, vip, backend, local] in ENDS {
            for make in [syn as fn(&str, &str) -> Sample, datagram] {
                let to = |sample: Sample, from: &str, to: &str| Sample {
                    src: endpoint(from),
                    dst: endpoint(to),
                    ttl: sample.ttl - 1,
                    ..sample
                };
                let (request, reply) = (make(client, vip), make(backend, client));
                let header = link(11, 254, Tags::default(), request.packet().addresses);

                let mut frame = request.frame();
                to_backend(&mut frame, &request.headers(), endpoint(backend), &header).unwrap();
                assert_eq!(frame.bytes(), to(request.clone(), client, backend).sent(11, 254));

                let mut frame = reply.frame();
                to_client(&mut frame, &reply.headers(), endpoint(vip), &header).unwrap();
                assert_eq!(frame.bytes(), to(reply, vip, client).sent(11, 254));

                let mut frame = request.frame();
                both(&mut frame, &request.headers(), endpoint(local), endpoint(backend), &header).unwrap();
                assert_eq!(frame.bytes(), to(request, local, backend).sent(11, 254));
            }
        }
    }

    #[test]
    fn pieces_change_as_their_whole_does() {
        for [client, vip, backend, local] in ENDS {
            for whole in [syn(client, vip), datagram(client, vip)] {
                let whole = Sample { payload: vec![7; 50], ..whole };
                let changed =
                    Sample { src: endpoint(local), dst: endpoint(backend), ttl: 63, ..whole.clone() };
                for offset in [0, 24, 48] {
                    let piece = whole.piece(offset, 24);
                    let mut frame = piece.frame();
                    let ends = (Some(endpoint(local)), Some(endpoint(backend)));
                    readdress(frame.head_mut(), &piece.headers(), ends.0, ends.1).unwrap();
                    assert_eq!(frame.bytes(), changed.piece(offset, 24).bytes(), "{client} {offset}");
                }
            }
        }
    }

    #[test]
    fn no_udp_checksum_stays_none() {
        for [client, vip, backend, _] in ENDS {
            let sample = Sample { body: Body::Udp { checksum: false }, ..datagram(client, vip) };
            let mut frame = sample.frame();
            readdress(frame.head_mut(), &sample.headers(), None, Some(endpoint(backend))).unwrap();
            assert_eq!(frame.bytes(), Sample { dst: endpoint(backend), ttl: 63, ..sample }.bytes());
        }
    }

    #[test]
    fn a_udp_checksum_never_becomes_none() {
        // The last port makes the sum 0xffff.
        let sample = Sample { payload: vec![], ..datagram(CLIENT4, "192.0.2.100:1") };
        let at = 14 + 20 + udp::CHECKSUM;
        let missing = read_u16(&sample.bytes(), at).unwrap();
        let port = 1 + missing;
        let mut frame = sample.frame();
        let to = format!("192.0.2.100:{port}");
        readdress(frame.head_mut(), &sample.headers(), None, Some(endpoint(&to))).unwrap();
        assert_eq!(read_u16(frame.bytes(), at), Some(0xffff));
        assert!(is_valid(&frame.bytes()[14..]));
    }

    #[test]
    fn an_end_of_the_other_version_is_refused() {
        for (sample, other) in [(syn(CLIENT4, VIP4), BACKEND6), (syn(CLIENT6, VIP6), BACKEND4)] {
            let other = Some(endpoint(other));
            for (src, dst) in [(other, None), (None, other)] {
                let result = readdress(sample.frame().head_mut(), &sample.headers(), src, dst);
                assert_eq!(result, Err(DropReason::WrongFamily));
            }
        }
    }

    proptest! {
        #![proptest_config(crate::samples::cases())]
        #[test]
        fn checksums_stay_as_right_as_they_were(sample in any_packets(), a: u128, b: u128, ports: (u16, u16)) {
            let (src, dst) = (moved(sample.src, a, ports.0), moved(sample.dst, b, ports.1));
            let mut frame = sample.frame();
            readdress(frame.head_mut(), &sample.headers(), Some(src), Some(dst)).unwrap();
            let ip = frame.bytes()[usize::from(sample.packet().l3)..].to_vec();
            prop_assert!(is_valid(&ip));
            prop_assert_eq!(ip, Sample { src, dst, ttl: sample.ttl - 1, ..sample }.ip());
        }

        #[test]
        fn the_way_back_restores_the_frame(sample in any_packets(), a: u128, b: u128, ports: (u16, u16)) {
            let (src, dst) = (moved(sample.src, a, ports.0), moved(sample.dst, b, ports.1));
            let mut frame = sample.frame();
            readdress(frame.head_mut(), &sample.headers(), Some(src), Some(dst)).unwrap();
            let there = Sample { src, dst, ttl: sample.ttl - 1, ..sample.clone() };
            readdress(frame.head_mut(), &there.headers(), Some(sample.src), Some(sample.dst)).unwrap();
            prop_assert_eq!(frame.bytes(), Sample { ttl: sample.ttl.wrapping_sub(2), ..sample }.bytes());
        }

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..80), sample in any_packets(), l3: u16, l4: u16,
        ) {
            let mut frame = HeapFrame::new(&bytes);
            let mut headers = sample.headers();
            (headers.ip.l3, headers.ip.l4) = (l3, l4);
            readdress(frame.head_mut(), &headers, Some(sample.dst), Some(sample.src)).unwrap();
        }
    }

    /// An end at another address of the same version.
    fn moved(end: Endpoint, bits: u128, port: u16) -> Endpoint {
        let ip: IpAddr = match end.ip() {
            IpAddr::V4(_) => (bits as u32).to_be_bytes().into(),
            IpAddr::V6(_) => bits.to_be_bytes().into(),
        };
        Endpoint::new(ip, port)
    }
}

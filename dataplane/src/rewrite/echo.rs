//! Echo requests and replies through a NAT gateway: what a port is elsewhere is their identifier here
//! (RFC 5508, 3).

use std::net::IpAddr;

use super::answer::{change_word, mend_zeros};
use super::quote;
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::packet::{Endpoint, Packet};
use crate::wire::eth::LinkHeader;
use crate::wire::icmp4;

/// Makes a request come from a local address and identifier.
///
/// # Errors
/// As [`quote::readdress`].
pub fn from_local<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    local: Endpoint,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    change(frame, packet, local.port(), (Some(local.ip()), None), link)
}

/// Directs a reply to the station inside that asked, by its own identifier.
///
/// # Errors
/// As [`quote::readdress`].
pub fn to_station<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    station: Endpoint,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    change(frame, packet, station.port(), (None, Some(station.ip())), link)
}

fn change<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    identifier: u16,
    (src, dst): (Option<IpAddr>, Option<IpAddr>),
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let (head, l4) = (frame.head_mut(), usize::from(packet.l4));
    // ICMPv6 has the identifier at the same place.
    change_word(head, l4 + icmp4::REST, identifier, l4 + icmp4::CHECKSUM);
    if packet.is_v4() {
        mend_zeros(head, l4);
    }
    quote::readdress(frame, packet, src, dst, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Sample, icmp, is_valid, link};
    use crate::wire::eth::Tags;

    const REQUEST: [[u8; 2]; 2] = [[8, 0], [128, 0]];
    const REPLY: [[u8; 2]; 2] = [[0, 0], [129, 0]];
    const STATIONS: [&str; 2] = ["198.51.100.12:5000", "[2001:db8:b::12]:5000"];
    const LOCALS: [&str; 2] = ["192.0.2.200:1025", "[2001:db8:5::200]:1025"];
    const WORLD: [&str; 2] = ["203.0.113.9:0", "[2001:db8:c::9]:0"];

    /// An echo packet with the identifier that the port of an end stands for.
    fn echo(kind: [u8; 2], src: &str, dst: &str, identifier: u16, data: &[u8]) -> Sample {
        let [high, low] = identifier.to_be_bytes();
        icmp(src, dst, kind, [high, low, 0, 0], data)
    }

    #[test]
    fn address_and_identifier_change_there_and_back() {
        for version in [0, 1] {
            let (station, local, world) = (STATIONS[version], LOCALS[version], WORLD[version]);
            let header = |sample: &Sample| link(11, 254, Tags::default(), sample.packet().addresses);
            let request = echo(REQUEST[version], station, world, 5000, b"hello");
            let mut frame = request.frame();
            from_local(&mut frame, &request.packet(), local.parse().unwrap(), &header(&request)).unwrap();
            let sent = Sample { ttl: 63, ..echo(REQUEST[version], local, world, 1025, b"hello") };
            assert_eq!(frame.bytes(), sent.sent(11, 254));

            let reply = echo(REPLY[version], world, local, 1025, b"hello");
            let mut frame = reply.frame();
            to_station(&mut frame, &reply.packet(), station.parse().unwrap(), &header(&reply)).unwrap();
            let sent = Sample { ttl: 63, ..echo(REPLY[version], world, station, 5000, b"hello") };
            assert_eq!(frame.bytes(), sent.sent(11, 254));
        }
    }

    #[test]
    fn a_reply_of_nothing_but_zeros_has_a_checksum() {
        let reply = echo(REPLY[0], WORLD[0], LOCALS[0], 1025, &[0; 8]);
        let mut frame = reply.frame();
        let header = link(11, 254, Tags::default(), reply.packet().addresses);
        to_station(&mut frame, &reply.packet(), "198.51.100.12:0".parse().unwrap(), &header).unwrap();
        assert!(is_valid(&frame.bytes()[14..]));
        assert_eq!(frame.bytes()[36..38], [0xff, 0xff]);
    }
}

//! The header of the PROXY protocol, version 1 and 2 (haproxy.org, doc/proxy-protocol.txt, sections 2.1 and 2.2):
//! a backend reads from the first bytes of a connection who the client is, and whom it asked.

use std::io::Write;
use std::net::SocketAddr;

use config::words::{ClientAddress, Protocol};

use super::tcp_header;
use crate::buf::Frame;
use crate::csum::Delta;
use crate::drops::DropReason;
use crate::packet::Headers;
use crate::wire::{read_u16, tcp, udp, write_u16};

/// Longest header: version 1 with two IPv6 addresses that nothing shortens, in bytes.
const LONGEST: usize = 104;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command PROXY.
const VERSION_COMMAND: u8 = 0x21;
const FAMILY_V4: u8 = 0x10;
const FAMILY_V6: u8 = 0x20;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

/// The header, version 1, of a connection that nobody asked for: of a check.
pub const UNKNOWN_V1: &[u8] = b"PROXY UNKNOWN\r\n";
/// The same, version 2: the command LOCAL, no protocol, and no bytes of addresses.
pub const LOCAL_V2: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; LONGEST],
    len: u8,
}

impl Header {
    /// The header of a client's connection, or its datagrams, to a VIP; none with a client address that is told
    /// otherwise, and none of two IP versions.
    pub fn new(kind: ClientAddress, protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Option<Self> {
        let mut bytes = [0; LONGEST];
        let mut rest = &mut bytes[..];
        match kind {
            ClientAddress::ProxyV1 => write_v1(&mut rest, client, vip),
            ClientAddress::ProxyV2 | ClientAddress::ProxyV2Each => write_v2(&mut rest, protocol, client, vip),
            ClientAddress::None | ClientAddress::Toa => None,
        }?;
        let len = (LONGEST - rest.len()) as u8;
        Some(Self { bytes, len })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// How many they are.
    pub fn count(&self) -> u8 {
        self.len
    }
}

fn write_v1(to: &mut &mut [u8], client: SocketAddr, vip: SocketAddr) -> Option<()> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (src, dst) = (client.ip(), vip.ip());
    write!(to, "PROXY {family} {src} {dst} {} {}\r\n", client.port(), vip.port()).ok()
}

fn write_v2(to: &mut &mut [u8], protocol: Protocol, client: SocketAddr, vip: SocketAddr) -> Option<()> {
    let transport = if protocol == Protocol::Tcp { STREAM } else { DATAGRAM };
    let mut put = |bytes: &[u8]| to.write_all(bytes).ok();
    put(&SIGNATURE)?;
    match (client, vip) {
        (SocketAddr::V4(client), SocketAddr::V4(vip)) => {
            put(&[VERSION_COMMAND, FAMILY_V4 | transport, 0, 12])?;
            put(&client.ip().octets())?;
            put(&vip.ip().octets())?;
        }
        (SocketAddr::V6(client), SocketAddr::V6(vip)) => {
            put(&[VERSION_COMMAND, FAMILY_V6 | transport, 0, 36])?;
            put(&client.ip().octets())?;
            put(&vip.ip().octets())?;
        }
        _ => return None,
    }
    put(&client.port().to_be_bytes())?;
    put(&vip.port().to_be_bytes())
}

/// Puts a header before the payload of a packet. Returns the headers of the longer packet.
///
/// # Errors
/// [`DropReason::AddressInPieces`] if the packet is a piece of one, whose other pieces would then have other places;
/// [`DropReason::Scattered`], [`DropReason::TooBig`] and [`DropReason::NoHeadroom`] as
/// [`insert`](super::insert::insert). The frame is unchanged then.
pub fn prepend<F: Frame>(frame: &mut F, headers: &Headers, header: &Header) -> Result<Headers, DropReason> {
    if headers.ip.fragment.is_some() {
        return Err(DropReason::AddressInPieces);
    }
    let l4 = usize::from(headers.ip.l4);
    let payload = match headers.protocol {
        Protocol::Tcp => l4 + tcp_header(frame.head_mut(), headers).ok_or(DropReason::Scattered)?.len(),
        Protocol::Udp => l4 + udp::HEADER_LEN,
    };
    let longer = super::insert::insert(frame, headers, payload, header.bytes(), Delta::default())?;
    if headers.protocol == Protocol::Tcp && headers.tcp_flags & tcp::URG != 0 {
        push_urgent(frame.head_mut(), l4, header.count());
    }
    Ok(longer)
}

/// The urgent pointer counts from the segment's first byte, which is now the header's.
fn push_urgent(head: &mut [u8], l4: usize, len: u8) {
    let old = read_u16(head, l4 + tcp::URGENT).unwrap_or_default();
    let new = old.saturating_add(len.into());
    write_u16(head, l4 + tcp::URGENT, new);
    super::nat::mend_transport(head, l4, Protocol::Tcp, Delta::default().word(old, new));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::HeapFrame;
    use crate::samples::{
        Body, CLIENT4, CLIENT6, Sample, VIP4, VIP6, any_packets, cases, datagram, endpoint, hex, syn,
    };
    use proptest::prelude::*;

    fn header(kind: ClientAddress, protocol: Protocol, client: &str, vip: &str) -> Header {
        Header::new(kind, protocol, endpoint(client), endpoint(vip)).unwrap()
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        let line = |client, vip| {
            let header = header(ClientAddress::ProxyV1, Protocol::Tcp, client, vip);
            String::from_utf8(header.bytes().to_vec()).unwrap()
        };
        assert_eq!(line(CLIENT4, VIP4), "PROXY TCP4 203.0.113.7 192.0.2.100 40000 80\r\n");
        assert_eq!(line(CLIENT6, VIP6), "PROXY TCP6 2001:db8:c::7 2001:db8::100 40000 80\r\n");
        let long = "[2001:2db8:3f3f:4444:5555:6666:7777:8888]:65535";
        assert_eq!(line(long, long).len(), LONGEST);
    }

    /// As they stand in the specification, section 2.2, with other addresses.
    #[test]
    fn version_2_is_binary() {
        let bytes =
            |protocol, client, vip| header(ClientAddress::ProxyV2, protocol, client, vip).bytes().to_vec();
        let signature = "0d0a0d0a000d0a515549540a";
        let v4 = "000ccb007107c00002649c400050";
        let v6 = "002420010db8000c0000000000000000000720010db80000000000000000000001009c400050";
        assert_eq!(bytes(Protocol::Tcp, CLIENT4, VIP4), hex(&format!("{signature}2111{v4}")));
        assert_eq!(bytes(Protocol::Udp, CLIENT4, VIP4), hex(&format!("{signature}2112{v4}")));
        assert_eq!(bytes(Protocol::Tcp, CLIENT6, VIP6), hex(&format!("{signature}2121{v6}")));
        assert_eq!(bytes(Protocol::Udp, CLIENT6, VIP6), hex(&format!("{signature}2122{v6}")));
        assert_eq!([v4, v6].map(|rest| signature.len() / 2 + 2 + rest.len() / 2), [28, 52]);
    }

    #[test]
    fn who_is_no_client_begins_with_a_header_of_the_same_form() {
        assert!(UNKNOWN_V1.starts_with(b"PROXY ") && UNKNOWN_V1.ends_with(b"\r\n"));
        assert_eq!(LOCAL_V2[..], [&SIGNATURE[..], &[VERSION_COMMAND & 0xf0, 0, 0, 0]].concat());
    }

    #[test]
    fn nothing_is_told_where_nothing_is_to_be_told() {
        let (client, vip) = (endpoint(CLIENT4), endpoint(VIP4));
        for kind in [ClientAddress::None, ClientAddress::Toa] {
            assert!(Header::new(kind, Protocol::Tcp, client, vip).is_none());
        }
        assert!(Header::new(ClientAddress::ProxyV2, Protocol::Tcp, client, endpoint(VIP6)).is_none());
    }

    #[test]
    fn pieces_have_no_place_for_it() {
        let whole = Sample { payload: vec![7; 64], ..datagram(CLIENT4, VIP4) };
        let piece = whole.piece(0, 24);
        let header = header(ClientAddress::ProxyV2, Protocol::Udp, CLIENT4, VIP4);
        let mut frame = piece.frame();
        assert_eq!(prepend(&mut frame, &piece.headers(), &header), Err(DropReason::AddressInPieces));
        assert_eq!(frame, piece.frame());
    }

    #[test]
    fn the_urgent_pointer_goes_with_its_byte() {
        let flags = tcp::ACK | tcp::URG;
        let body = Body::Tcp { flags, options: vec![1; 4] };
        let sample = Sample { body, ..syn(CLIENT4, VIP4) };
        let header = header(ClientAddress::ProxyV1, Protocol::Tcp, CLIENT4, VIP4);
        let urgent = |bytes: &[u8]| read_u16(bytes, usize::from(sample.packet().l4) + tcp::URGENT).unwrap();
        let mut frame = sample.frame();
        prepend(&mut frame, &sample.headers(), &header).unwrap();
        assert_eq!(urgent(frame.bytes()), urgent(&sample.bytes()) + u16::from(header.count()));
        assert!(crate::samples::is_valid(&frame.bytes()[14..]));
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn it_stands_before_the_payload(mut sample in any_packets(), text: bool) {
            if let Body::Tcp { flags, .. } = &mut sample.body {
                *flags &= !tcp::URG;
            }
            let headers = sample.headers();
            let kind = match (text, headers.protocol) {
                (true, Protocol::Tcp) => ClientAddress::ProxyV1,
                _ => ClientAddress::ProxyV2,
            };
            let header = Header::new(kind, headers.protocol, sample.src, sample.dst).unwrap();
            let mut frame = sample.frame();
            let longer = prepend(&mut frame, &headers, &header).unwrap();
            let whole = Sample { payload: [header.bytes(), &sample.payload].concat(), ..sample };
            prop_assert_eq!(frame.bytes(), whole.bytes());
            prop_assert_eq!(longer, whole.headers());
        }

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..90), sample in any_packets(), l4: u16,
        ) {
            let header = Header::new(ClientAddress::ProxyV2, Protocol::Tcp, sample.src, sample.dst).unwrap();
            let mut headers = sample.headers();
            let _ = prepend(&mut HeapFrame::new(&bytes), &headers, &header);
            headers.ip.l4 = l4 % 90;
            let _ = prepend(&mut HeapFrame::new(&bytes), &headers, &header);
        }
    }
}

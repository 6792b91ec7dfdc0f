//! Network address translation: the destination of the request and the source of the reply are replaced,
//! ports included (RFC 3022).

use config::words::Protocol;

use super::{finish_ipv4, write_link};
use crate::csum::Delta;
use crate::parse::Headers;
use crate::wire::{eth, ipv4, read_u16, tcp, udp, write_u16, write_u32};

/// An address and port to put into a packet, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 address.
    pub address: u32,
    /// TCP or UDP port.
    pub port: u16,
}

impl From<std::net::SocketAddrV4> for Endpoint {
    fn from(address: std::net::SocketAddrV4) -> Self {
        Self { address: address.ip().to_bits(), port: address.port() }
    }
}

/// Directs a client's packet to a backend.
#[inline]
pub fn to_backend(head: &mut [u8], headers: &Headers, backend: Endpoint, link: &[u8; eth::HEADER_LEN]) {
    let old = Endpoint { address: headers.ip.dst, port: headers.dst_port };
    replace(head, headers, old, backend, (ipv4::DST, tcp::DST_PORT));
    write_link(head, usize::from(headers.ip.l3), link);
}

/// Makes a backend's reply come from the VIP.
#[inline]
pub fn to_client(head: &mut [u8], headers: &Headers, vip: Endpoint, link: &[u8; eth::HEADER_LEN]) {
    let old = Endpoint { address: headers.ip.src, port: headers.src_port };
    replace(head, headers, old, vip, (ipv4::SRC, tcp::SRC_PORT));
    write_link(head, usize::from(headers.ip.l3), link);
}

/// Replaces an address at one offset of the IPv4 header and a port at one of the transport header; TCP and
/// UDP have their ports at the same places.
#[inline]
fn replace(head: &mut [u8], headers: &Headers, old: Endpoint, new: Endpoint, offsets: (usize, usize)) {
    let (l3, l4) = (usize::from(headers.ip.l3), usize::from(headers.ip.l4));
    write_u32(head, l3 + offsets.0, new.address);
    write_u16(head, l4 + offsets.1, new.port);
    let addresses = Delta::default().long(old.address, new.address);
    // The transport checksum covers the addresses too, by its pseudo header (RFC 9293, 3.1).
    let transport = addresses.word(old.port, new.port);
    match headers.protocol {
        Protocol::Tcp => {
            let checksum = read_u16(head, l4 + tcp::CHECKSUM).unwrap_or_default();
            write_u16(head, l4 + tcp::CHECKSUM, transport.apply(checksum));
        }
        Protocol::Udp => {
            let checksum = read_u16(head, l4 + udp::CHECKSUM).unwrap_or_default();
            // 0 means that the sender computed none, and a computed 0 is sent as its other form (RFC 768).
            if checksum != 0 {
                let new = match transport.apply(checksum) {
                    0 => 0xffff,
                    other => other,
                };
                write_u16(head, l4 + udp::CHECKSUM, new);
            }
        }
    }
    finish_ipv4(head, &headers.ip, addresses);
}

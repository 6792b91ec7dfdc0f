//! Tunnels: the packet travels whole to a backend that may be many hops away, which takes the outer headers
//! off and replies to the client directly. Either IP version carries either (RFC 2003, RFC 2473, RFC 4213),
//! bare or behind a header of GUE or GRE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{age, make_room, write_link};
use crate::buf::Frame;
use crate::csum::{self, Delta};
use crate::drops::DropReason;
use crate::packet::{Addresses, Packet};
use crate::wire::eth::{self, LinkHeader};
use crate::wire::{gre, gue, ipv4, ipv6, udp, write, write_u16, write_u32};

/// What stands between the outer IP header and the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing.
    Ipip,
    /// UDP and a GUE header, so that routers and network cards spread flows by the source port.
    Gue {
        /// Destination port.
        port: u16,
        /// Whether the UDP header has a checksum. Without one IPv6 relies on RFC 6935 and RFC 6936.
        checksum: bool,
    },
    /// A GRE header.
    Gre {
        /// Whether it has a checksum.
        checksum: bool,
    },
}

/// Where a tunnel begins and ends, and how packets travel in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Our end.
    pub src: IpAddr,
    /// The backend's end, of the same IP version.
    pub dst: IpAddr,
    /// What stands between the outer IP header and the packet.
    pub encapsulation: Encapsulation,
    /// Bits of the flow's hash. They go into the source port of GUE and the flow label of IPv6, for all who
    /// spread flows by these.
    pub entropy: u16,
}

impl Outer {
    /// Bytes that the tunnel puts before a packet.
    #[inline]
    pub fn overhead(&self) -> u16 {
        let ip = if self.dst.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        // At most 52.
        (ip + self.encapsulation.len()) as u16
    }
}

impl Encapsulation {
    #[inline]
    const fn len(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gue { .. } => udp::HEADER_LEN + gue::HEADER_LEN,
            Self::Gre { checksum: false } => gre::HEADER_LEN,
            Self::Gre { checksum: true } => gre::LONG_HEADER_LEN,
        }
    }

    const fn has_checksum(self) -> bool {
        matches!(self, Self::Gue { checksum: true, .. } | Self::Gre { checksum: true })
    }
}

/// An address of `prefix` chosen by a flow's hash. As the source of a tunnel it spreads the flows over the
/// receive queues of a backend whose network card hashes no more than outer addresses.
#[inline]
pub fn spread_source(prefix: IpNet, entropy: u16) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => {
            let host = u32::from(entropy) & prefix.hostmask().to_bits();
            Ipv4Addr::from_bits(prefix.network().to_bits() | host).into()
        }
        IpNet::V6(prefix) => {
            let host = u128::from(entropy) & prefix.hostmask().to_bits();
            Ipv6Addr::from_bits(prefix.network().to_bits() | host).into()
        }
    }
}

/// Takes a hop off a packet's TTL or hop limit and wraps it in outer headers.
///
/// Traffic class and TTL are copied outwards, as IPVS does (RFC 2003, 3.1; RFC 6040, 4.1, normal mode for
/// ECN), and "don't fragment" from IPv4 to IPv4. IPv6 in IPv4 may be fragmented on its way (RFC 4213, 3.2.1):
/// routers may quote too little of a packet for its sender to be told. `id` identifies the outer IPv4 packet
/// where it may be fragmented; one that may not needs none (RFC 6864, 4.1).
///
/// # Errors
/// [`DropReason::NoHeadroom`] if the buffer has no room before the packet, [`DropReason::TooBig`] if it is too
/// long for outer headers, [`DropReason::Scattered`] if a checksum over more than its first segment is asked
/// for, [`DropReason::WrongFamily`] if the ends of the tunnel are not of one IP version.
#[inline]
pub fn wrap<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    outer: &Outer,
    id: u16,
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let shim_len = outer.encapsulation.len() as u16;
    let carried = packet.len.checked_add(shim_len).ok_or(DropReason::TooBig)?;
    let next = match (outer.encapsulation, packet.addresses) {
        (Encapsulation::Ipip, addresses) => protocol_of(addresses),
        (Encapsulation::Gue { .. }, _) => ipv4::PROTOCOL_UDP,
        (Encapsulation::Gre { .. }, _) => ipv4::PROTOCOL_GRE,
    };
    match (outer.src, outer.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let dont_fragment = packet.dont_fragment && matches!(packet.addresses, Addresses::V4 { .. });
            let header = ipv4::NewHeader {
                tos: packet.tos,
                total_len: carried.checked_add(ipv4::HEADER_LEN as u16).ok_or(DropReason::TooBig)?,
                id: if dont_fragment { 0 } else { id },
                fragment: if dont_fragment { ipv4::DONT_FRAGMENT } else { 0 },
                ttl: packet.ttl.wrapping_sub(1),
                protocol: next,
                src: src.to_bits(),
                dst: dst.to_bits(),
            };
            put(frame, packet, outer, &header.bytes(), link)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let header = ipv6::NewHeader {
                traffic_class: packet.tos,
                flow_label: flow_label(outer.entropy),
                payload_len: carried,
                next,
                hop_limit: packet.ttl.wrapping_sub(1),
                src: src.to_bits(),
                dst: dst.to_bits(),
            };
            put(frame, packet, outer, &header.bytes(), link)
        }
        _ => Err(DropReason::WrongFamily),
    }
}

/// The flow label of packets in a tunnel: never 0, which is no label (RFC 6437, 2).
#[inline]
pub(super) fn flow_label(entropy: u16) -> u32 {
    0x1_0000 | u32::from(entropy)
}

/// The number that an IP packet has as what another carries.
#[inline]
fn protocol_of(addresses: Addresses) -> u8 {
    match addresses {
        Addresses::V4 { .. } => ipv4::PROTOCOL_IPIP,
        Addresses::V6 { .. } => ipv4::PROTOCOL_IPV6,
    }
}

/// Ages a packet and puts before it what stands between, the outer IP header and the Ethernet header.
#[inline(always)]
fn put<F: Frame, const N: usize>(
    frame: &mut F,
    packet: &Packet,
    outer: &Outer,
    header: &[u8; N],
    link: &LinkHeader,
) -> Result<(), DropReason> {
    let end = usize::from(packet.l3) + usize::from(packet.len);
    if outer.encapsulation.has_checksum() && frame.head().len() < end {
        return Err(DropReason::Scattered);
    }
    age(frame.head_mut(), packet, Delta::default());
    let l3 = link.bytes().len();
    make_room(frame, usize::from(packet.l3), l3 + N + outer.encapsulation.len())?;
    let head = frame.head_mut();
    write_link(head, link);
    write(head, l3, header);
    let Some(carried) = head.get_mut(l3 + N..) else { return Ok(()) };
    match outer.encapsulation {
        Encapsulation::Ipip => {}
        Encapsulation::Gue { port, checksum } => write_gue(carried, packet, outer, port, checksum),
        Encapsulation::Gre { checksum } => write_gre(carried, packet, checksum),
    }
    Ok(())
}

/// Writes UDP and GUE headers over the bytes before a packet.
fn write_gue(bytes: &mut [u8], packet: &Packet, outer: &Outer, port: u16, checksum: bool) {
    // `wrap` found that the sum fits.
    let len = (udp::HEADER_LEN + gue::HEADER_LEN) as u16 + packet.len;
    // The ports that no service has for its own (RFC 6335, 6).
    write_u16(bytes, udp::SRC_PORT, 0xc000 | outer.entropy);
    write_u16(bytes, udp::DST_PORT, port);
    write_u16(bytes, udp::LEN, len);
    write_u16(bytes, udp::CHECKSUM, 0);
    write(bytes, udp::HEADER_LEN, &[0, protocol_of(packet.addresses), 0, 0]);
    if !checksum {
        return;
    }
    let addresses = match (outer.src, outer.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() },
        _ => return,
    };
    let datagram = bytes.get(..usize::from(len)).unwrap_or(&[]);
    let sum = csum::transport(addresses, ipv4::PROTOCOL_UDP, datagram);
    write_u16(bytes, udp::CHECKSUM, udp::computed(sum));
}

/// Writes a GRE header over the bytes before a packet.
fn write_gre(bytes: &mut [u8], packet: &Packet, checksum: bool) {
    let ethertype = match packet.addresses {
        Addresses::V4 { .. } => eth::TYPE_IPV4,
        Addresses::V6 { .. } => eth::TYPE_IPV6,
    };
    write_u16(bytes, 0, if checksum { gre::CHECKSUM_PRESENT } else { 0 });
    write_u16(bytes, gre::PROTOCOL, ethertype);
    if checksum {
        write_u32(bytes, gre::CHECKSUM, 0);
        let covered = bytes.get(..gre::LONG_HEADER_LEN + usize::from(packet.len)).unwrap_or(&[]);
        let sum = !csum::sum(covered);
        write_u16(bytes, gre::CHECKSUM, sum);
    }
}

#[cfg(test)]
mod tests;

//! IPv4 ends that packets get instead of others, of which is known before what it changes in a packet.

use std::hint::select_unpredictable;
use std::net::SocketAddrV4;

use super::{Link, aged, checksum, datagrams, read, write};
use crate::csum::{self, Delta};
use crate::parse::plain::{Front, L3};
use crate::wire::{ipv4, tcp, udp};
use config::words::Protocol;

/// An IPv4 address and port as they stand in a packet and are read by a little-endian machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: u32,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// That of an address and port as numbers.
    #[inline(always)]
    pub fn new(address: u32, port: u16) -> Self {
        Self { address: address.swap_bytes(), port: port.swap_bytes() }
    }

    /// That of a packet's source, or else of its destination.
    #[inline(always)]
    fn read(front: &Front, is_src: bool) -> Self {
        let (address, port) = places(is_src);
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| front[address + at]);
        Self { address: u32::from_le_bytes([a, b, c, d]), port: read(front, port) }
    }

    /// Whether a packet has this end, as its source or else its destination.
    #[inline(always)]
    pub fn is_in(self, front: &Front, is_src: bool) -> bool {
        Self::read(front, is_src) == self
    }

    #[inline(always)]
    fn put(self, front: &mut Front, is_src: bool) {
        let (address, port) = places(is_src);
        front[address..address + 4].copy_from_slice(&self.address.to_le_bytes());
        write(front, port, self.port);
    }

    /// The first of two, or else the second, without a jump.
    #[inline(always)]
    pub fn either(is_first: bool, first: Self, second: Self) -> Self {
        Self {
            address: select_unpredictable(is_first, first.address, second.address),
            port: select_unpredictable(is_first, first.port, second.port),
        }
    }
}

/// An end that packets get instead of another one, and what that changes, all as it stands in a packet and is read by a
/// little-endian machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The end.
    pub end: Endpoint,
    /// What the checksum of the IP header follows, a hop included.
    pub header: u16,
    /// What that of TCP or UDP follows.
    pub transport: u16,
}

/// Where the checksum of an IPv4 header stands.
const HEADER_CHECKSUM: usize = L3 + ipv4::CHECKSUM;

impl Swap {
    /// For packets that get `new` instead of `old`.
    pub fn new(old: SocketAddrV4, new: SocketAddrV4) -> Self {
        let [old, end] = [old, new].map(|end| Endpoint::new(end.ip().to_bits(), end.port()));
        let changes = Delta::default().long(old.address, end.address);
        let (header, transport) = (aged(changes).folded(), changes.word(old.port, end.port).folded());
        Self { end, header, transport }
    }

    /// Gives a packet this end, as its source or else its destination, without a jump that depends on which. [`exchange`](super::exchange) is the
    /// twin that finds out what changes.
    #[inline(always)]
    pub fn put(&self, front: &mut Front, protocol: Protocol, is_src: bool, link: &Link) {
        front[..L3].copy_from_slice(link);
        front[L3 + ipv4::TTL] = front[L3 + ipv4::TTL].wrapping_sub(1);
        let header = csum::follow(read(front, HEADER_CHECKSUM), self.header);
        write(front, HEADER_CHECKSUM, header);
        self.end.put(front, is_src);
        let at = transport_checksum(protocol);
        let old = read(front, at);
        let new = csum::follow(old, self.transport);
        write(front, at, if protocol == Protocol::Tcp { new } else { datagrams(old, new) });
    }

    /// The same, and its other end becomes `far`. [`nat`](super::nat) is the twin.
    #[inline(always)]
    pub fn put_with(&self, far: Endpoint, front: &mut Front, protocol: Protocol, is_src: bool, link: &Link) {
        front[..L3].copy_from_slice(link);
        front[L3 + ipv4::TTL] = front[L3 + ipv4::TTL].wrapping_sub(1);
        let old = Endpoint::read(front, !is_src);
        let changes = Delta::default().long(old.address, far.address);
        let header = changes.and(self.header).apply(read(front, HEADER_CHECKSUM));
        write(front, HEADER_CHECKSUM, header);
        self.end.put(front, is_src);
        far.put(front, !is_src);
        let changes = changes.word(old.port, far.port).and(self.transport);
        let at = transport_checksum(protocol);
        let new = checksum(protocol, read(front, at), changes);
        write(front, at, new);
    }
}

/// Where the checksum of a plain IPv4 packet's transport header stands.
#[inline(always)]
fn transport_checksum(protocol: Protocol) -> usize {
    L3 + ipv4::HEADER_LEN + if protocol == Protocol::Tcp { tcp::CHECKSUM } else { udp::CHECKSUM }
}

/// Where a packet's source address and port stand, or else its destination.
#[inline(always)]
fn places(is_src: bool) -> (usize, usize) {
    if is_src {
        (L3 + ipv4::SRC, L3 + ipv4::HEADER_LEN + tcp::SRC_PORT)
    } else {
        (L3 + ipv4::DST, L3 + ipv4::HEADER_LEN + tcp::DST_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::super::nat;
    use super::*;
    use crate::parse::plain::NO_FRONT;
    use crate::wire::eth;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::samples::cases())]

        /// Whatever the bytes are.
        #[test]
        fn ends_are_swapped_as_nat_does(
            head in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], NO_FRONT.len()),
            udp: bool,
            is_src: bool,
            address in prop_oneof![Just(0u32), Just(u32::MAX), any::<u32>()],
            port: u16,
            same: bool,
            far in (prop_oneof![Just(0u32), Just(u32::MAX), any::<u32>()], any::<u16>()),
        ) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let link = &[7; eth::HEADER_LEN];
            let mut front: Front = head.try_into().unwrap();
            let (at, port_at) = places(is_src);
            let old_address = u32::from_be_bytes(front[at..at + 4].try_into().unwrap());
            let old = (old_address, u16::from_be_bytes([front[port_at], front[port_at + 1]]));
            let new = if same { old } else { (address, port) };
            let [old_end, new_end] = [old, new].map(|(address, port)| SocketAddrV4::new(address.into(), port));
            let [there, back] = [Swap::new(old_end, new_end), Swap::new(new_end, old_end)];
            prop_assert!(back.end.is_in(&front, is_src));
            prop_assert_eq!(there.end.is_in(&front, is_src), old == new);
            let (mut both, mut twin) = (front, front);
            there.put_with(Endpoint::new(far.0, far.1), &mut both, protocol, is_src, link);
            let (src, dst) = if is_src { (new, far) } else { (far, new) };
            nat(&mut twin, protocol, Some(src), Some(dst), link).unwrap();
            prop_assert_eq!(both, twin);
            let mut twin = front;
            nat(&mut twin, protocol, is_src.then_some(new), (!is_src).then_some(new), link).unwrap();
            there.put(&mut front, protocol, is_src, link);
            prop_assert_eq!(front, twin);
            let neighbour = Swap::new(old_end, SocketAddrV4::new(new.0.into(), new.1 ^ 1));
            prop_assert!(there.end.is_in(&front, is_src) && !neighbour.end.is_in(&front, is_src));
        }
    }
}

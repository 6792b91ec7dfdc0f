//! What the stages know of a packet once its headers were read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use config::words::Protocol;

use crate::flow::mapped;
use crate::wire::{ipv4, ipv6};

/// Source and destination of an IP packet, host order. The variant is the packet's IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        src: u32,
        /// Destination.
        dst: u32,
    },
    /// IPv6.
    V6 {
        /// Source.
        src: u128,
        /// Destination.
        dst: u128,
    },
}

impl Addresses {
    /// The source, of either version.
    pub fn src(self) -> IpAddr {
        match self {
            Self::V4 { src, .. } => Ipv4Addr::from_bits(src).into(),
            Self::V6 { src, .. } => Ipv6Addr::from_bits(src).into(),
        }
    }

    /// The destination, of either version.
    pub fn dst(self) -> IpAddr {
        match self {
            Self::V4 { dst, .. } => Ipv4Addr::from_bits(dst).into(),
            Self::V6 { dst, .. } => Ipv6Addr::from_bits(dst).into(),
        }
    }

    /// Those of the way back.
    #[must_use]
    pub fn swapped(self) -> Self {
        match self {
            Self::V4 { src, dst } => Self::V4 { src: dst, dst: src },
            Self::V6 { src, dst } => Self::V6 { src: dst, dst: src },
        }
    }
}

/// An IP version, by the number that an address of it is, in host order. Code that is made for each version does
/// not ask for it at every step.
pub trait Version: Copy + Eq + Default {
    /// Bytes of an IP header without options or extensions.
    const HEADER_LEN: usize;
    /// Whether it is IPv4.
    const IS_V4: bool;

    /// An address, if it is of this version.
    fn of(address: IpAddr) -> Option<Self>;

    /// The address as wide flow keys hold it.
    fn wide(self) -> u128;

    /// An address that wide flow keys hold, if it is of this version.
    fn of_wide(wide: u128) -> Option<Self>;

    /// The same of one that is of this version.
    fn within(wide: u128) -> Self;
}

impl Version for u32 {
    const HEADER_LEN: usize = ipv4::HEADER_LEN;
    const IS_V4: bool = true;

    #[inline]
    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(address.to_bits()) } else { None }
    }

    #[inline]
    fn wide(self) -> u128 {
        mapped(self)
    }

    #[inline]
    fn of_wide(wide: u128) -> Option<Self> {
        (wide >> 32 == 0xffff).then_some(wide as u32)
    }

    #[inline]
    fn within(wide: u128) -> Self {
        wide as u32
    }
}

impl Version for u128 {
    const HEADER_LEN: usize = ipv6::HEADER_LEN;
    const IS_V4: bool = false;

    #[inline]
    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(address.to_bits()) } else { None }
    }

    #[inline]
    fn wide(self) -> u128 {
        self
    }

    #[inline]
    fn of_wide(wide: u128) -> Option<Self> {
        (wide >> 32 != 0xffff).then_some(wide)
    }

    #[inline]
    fn within(wide: u128) -> Self {
        wide
    }
}

/// An IP packet within its frame. Offsets count from the frame's first byte; lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it, and to whom.
    pub addresses: Addresses,
    /// Offset of the IP header.
    pub l3: u16,
    /// Offset of what follows the IP header and, in IPv6, its extension headers.
    pub l4: u16,
    /// Length of the packet, IP header included. The frame may be longer by its padding.
    pub len: u16,
    /// Time to live or hop limit, as received.
    pub ttl: u8,
    /// Type of service or traffic class, all eight bits.
    pub tos: u8,
    /// Protocol number of what is at `l4`.
    pub next: u8,
    /// Whether it must not be fragmented on its way; always so in IPv6.
    pub dont_fragment: bool,
    /// Where it is a piece of a fragmented packet: how.
    pub fragment: Option<Fragment>,
}

impl Packet {
    /// Whether it is an IPv4 packet.
    #[inline]
    pub fn is_v4(&self) -> bool {
        matches!(self.addresses, Addresses::V4 { .. })
    }

    /// Whether it carries ICMP, of its IP version.
    pub fn is_icmp(&self) -> bool {
        self.next == if self.is_v4() { ipv4::PROTOCOL_ICMP } else { ipv6::NEXT_ICMP }
    }
}

/// Which piece of a fragmented packet a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, shared by all pieces; 16 bits in IPv4.
    pub id: u32,
    /// Where its bytes belong, from the start of the fragmentable part; a multiple of 8.
    pub offset: u16,
    /// Whether more pieces follow behind it.
    pub more: bool,
    /// Offset of the fragment header from the frame's first byte, in IPv6; 0 in IPv4.
    pub header: u16,
}

/// A packet with TCP or UDP in it, or a piece of one whose ports are known from its first piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The packet.
    pub ip: Packet,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// TCP flags; 0 for UDP, and for pieces without a TCP header.
    pub tcp_flags: u8,
}

impl Headers {
    /// Whether the packet has its transport header: it is no piece, or the first one.
    pub fn has_transport(&self) -> bool {
        self.ip.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// An address and port to put into a packet.
pub type Endpoint = SocketAddr;

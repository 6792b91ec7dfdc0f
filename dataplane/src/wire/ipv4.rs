//! IPv4 header fields (RFC 791, 3.1). Offsets count from the header's first byte.

use crate::csum;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Offset of the type of service (RFC 2474, RFC 3168).
pub const TOS: usize = 1;
/// Offset of the total length.
pub const TOTAL_LEN: usize = 2;
/// Offset of the identification.
pub const ID: usize = 4;
/// Offset of flags and fragment offset.
pub const FRAGMENT: usize = 6;
/// Offset of the time to live; the protocol shares its 16-bit word.
pub const TTL: usize = 8;
/// Offset of the protocol.
pub const PROTOCOL: usize = 9;
/// Offset of the header checksum.
pub const CHECKSUM: usize = 10;
/// Offset of the source address.
pub const SRC: usize = 12;
/// Offset of the destination address.
pub const DST: usize = 16;

/// "Don't fragment", in the word at [`FRAGMENT`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments", in the word at [`FRAGMENT`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Bits of the word at [`FRAGMENT`] that are the offset, in units of eight bytes.
pub const OFFSET_MASK: u16 = 0x1fff;
/// Bits of the word at [`FRAGMENT`] that are zero in a packet which is no fragment.
pub const FRAGMENT_MASK: u16 = 0x3fff;

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of an IPv4 packet inside another (RFC 2003).
pub const PROTOCOL_IPIP: u8 = 4;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of an IPv6 packet inside an IPv4 one (RFC 4213).
pub const PROTOCOL_IPV6: u8 = 41;
/// Protocol number of generic routing encapsulation.
pub const PROTOCOL_GRE: u8 = 47;

/// Option that ends the list.
pub const OPTION_END: u8 = 0;
/// Option of one byte that does nothing.
pub const OPTION_NOP: u8 = 1;
/// Option "loose source and record route".
pub const OPTION_LOOSE_ROUTE: u8 = 131;
/// Option "strict source and record route".
pub const OPTION_STRICT_ROUTE: u8 = 137;

/// What a header says that we put before a packet; the rest follows.
#[derive(Clone, Copy, Debug)]
pub struct NewHeader {
    /// Type of service, all eight bits.
    pub tos: u8,
    /// Length of this header and what follows it, in bytes.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Whether the packet must not be fragmented.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
}

impl NewHeader {
    /// The header's bytes, with its checksum.
    #[inline]
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = 0x45;
        bytes[TOS] = self.tos;
        bytes[TOTAL_LEN..][..2].copy_from_slice(&self.total_len.to_be_bytes());
        bytes[ID..][..2].copy_from_slice(&self.id.to_be_bytes());
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        bytes[FRAGMENT..][..2].copy_from_slice(&flags.to_be_bytes());
        bytes[TTL] = self.ttl;
        bytes[PROTOCOL] = self.protocol;
        bytes[SRC..][..4].copy_from_slice(&self.src.to_be_bytes());
        bytes[DST..][..4].copy_from_slice(&self.dst.to_be_bytes());
        let checksum = !csum::sum_header(&bytes);
        bytes[CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

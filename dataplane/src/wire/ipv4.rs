//! IPv4 header fields (RFC 791, 3.1). Offsets count from the header's first byte.

use crate::csum;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Least MTU of a link (RFC 791, 3.2).
pub const MIN_MTU: u16 = 68;
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
    /// Flags and fragment offset, such as [`DONT_FRAGMENT`].
    pub fragment: u16,
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
    // Put together in registers, and inlined so that it stays there: a load of bytes that were just stored one by one
    // waits until all stores are done. That was a fifth of a packet into a tunnel.
    #[inline(always)]
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let first = u64::from(0x4500 | u16::from(self.tos)) << 48
            | u64::from(self.total_len) << 32
            | u64::from(self.id) << 16
            | u64::from(self.fragment);
        let second = u64::from(self.ttl) << 56 | u64::from(self.protocol) << 48 | u64::from(self.src);
        let checksum = !csum::sum_of(first, second, self.dst);
        let second = second | u64::from(checksum) << 32;
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..16].copy_from_slice(&second.to_be_bytes());
        bytes[16..].copy_from_slice(&self.dst.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::hex;

    /// The bytes are scapy's.
    #[test]
    fn headers_are_as_another_encoder_makes_them() {
        let header = NewHeader {
            tos: 0xb9,
            total_len: 1480,
            id: 0xbeef,
            fragment: DONT_FRAGMENT,
            ttl: 63,
            protocol: PROTOCOL_IPIP,
            src: 0xc000_0201,
            dst: 0xc633_64fe,
        };
        let bytes = header.bytes();
        assert_eq!(bytes[..], hex("45b905c8beef40003f048956c0000201c63364fe"));
        assert_eq!(csum::sum_header(&bytes), 0xffff);
    }
}

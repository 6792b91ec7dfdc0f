//! IPv6 header fields (RFC 8200). Offsets count from the first byte of the header they are in.

/// Length of the fixed header, in bytes.
pub const HEADER_LEN: usize = 40;
/// Offset of the length of all that follows the fixed header.
pub const PAYLOAD_LEN: usize = 4;
/// Offset of the number of what follows; the hop limit shares its 16-bit word.
pub const NEXT: usize = 6;
/// Offset of the hop limit.
pub const HOP_LIMIT: usize = 7;
/// Offset of the source address.
pub const SRC: usize = 8;
/// Offset of the destination address.
pub const DST: usize = 24;

/// Smallest MTU that a link may have (RFC 8200, 5).
pub const MIN_MTU: u16 = 1280;

/// Number of the hop-by-hop options header, which can only be the first (RFC 8200, 4.3).
pub const NEXT_HOP_BY_HOP: u8 = 0;
/// Number of a whole IPv4 packet (RFC 2473).
pub const NEXT_IPV4: u8 = 4;
/// Number of a whole IPv6 packet (RFC 2473).
pub const NEXT_IPV6: u8 = 41;
/// Number of the routing header (RFC 8200, 4.4).
pub const NEXT_ROUTING: u8 = 43;
/// Number of the fragment header (RFC 8200, 4.5).
pub const NEXT_FRAGMENT: u8 = 44;
/// Number of the encapsulating security payload, behind which nothing can be read (RFC 4303).
pub const NEXT_ESP: u8 = 50;
/// Number of the authentication header, whose length counts 4-byte words (RFC 4302).
pub const NEXT_AUTHENTICATION: u8 = 51;
/// Number of ICMPv6.
pub const NEXT_ICMP: u8 = 58;
/// Number that says that nothing follows (RFC 8200, 4.7).
pub const NEXT_NONE: u8 = 59;
/// Number of the destination options header (RFC 8200, 4.6).
pub const NEXT_DESTINATION: u8 = 60;
/// Number of the mobility header (RFC 6275).
pub const NEXT_MOBILITY: u8 = 135;

/// Offset of the length of an extension header, in 8-byte words beyond its first; the number of what follows
/// it is its first byte. The fragment header has no length.
pub const EXTENSION_LEN: usize = 1;
/// Type of the deprecated source route (RFC 5095), at offset 2 of the routing header.
pub const ROUTING_TYPE_0: u8 = 0;
/// Offset of the routing header's type.
pub const ROUTING_TYPE: usize = 2;
/// Offset of the routing header's count of stations still to be visited.
pub const ROUTING_SEGMENTS_LEFT: usize = 3;

/// Length of the fragment header, in bytes.
pub const FRAGMENT_LEN: usize = 8;
/// Offset of the fragment header's offset and flag. The offset counts bytes once the low bits are masked off.
pub const FRAGMENT_OFFSET: usize = 2;
/// Offset of the fragment header's identification.
pub const FRAGMENT_ID: usize = 4;
/// Bits of the word at [`FRAGMENT_OFFSET`] that are the offset in bytes.
pub const FRAGMENT_OFFSET_MASK: u16 = 0xfff8;
/// "More fragments", in the word at [`FRAGMENT_OFFSET`].
pub const MORE_FRAGMENTS: u16 = 1;

/// What a header says that we put before a packet; the rest follows.
#[derive(Clone, Copy, Debug)]
pub struct NewHeader {
    /// Traffic class, all eight bits.
    pub traffic_class: u8,
    /// Flow label; its low 20 bits count (RFC 6437).
    pub flow_label: u32,
    /// Length of what follows this header, in bytes.
    pub payload_len: u16,
    /// Number of what follows.
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
}

impl NewHeader {
    /// The header's bytes.
    // In registers, as an IPv4 header's.
    #[inline(always)]
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff;
        let first = u64::from(first) << 32
            | u64::from(self.payload_len) << 16
            | u64::from(self.next) << 8
            | u64::from(self.hop_limit);
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[SRC..][..16].copy_from_slice(&self.src.to_be_bytes());
        bytes[DST..][..16].copy_from_slice(&self.dst.to_be_bytes());
        bytes
    }
}

/// A fragment header before what has number `next`; `offset` is in bytes, a multiple of 8.
pub fn fragment_header(next: u8, offset: u16, more: bool, id: u32) -> [u8; FRAGMENT_LEN] {
    let [high, low] = (offset & FRAGMENT_OFFSET_MASK | u16::from(more)).to_be_bytes();
    let [a, b, c, d] = id.to_be_bytes();
    [next, 0, high, low, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{address, hex};

    /// The bytes are scapy's.
    #[test]
    fn headers_are_as_another_encoder_makes_them() {
        let header = NewHeader {
            traffic_class: 0xb9,
            flow_label: 0xf12345,
            payload_len: 24,
            next: NEXT_FRAGMENT,
            hop_limit: 63,
            src: address("2001:db8::1"),
            dst: address("2001:db8:1::2"),
        };
        assert_eq!(
            header.bytes()[..],
            hex("6b91234500182c3f20010db800000000000000000000000120010db8000100000000000000000002")
        );
        assert_eq!(fragment_header(17, 1480, true, 0xdead_beef)[..], hex("110005c9deadbeef"));
    }
}

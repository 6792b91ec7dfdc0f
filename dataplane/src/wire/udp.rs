//! UDP header fields (RFC 768). Offsets count from the header's first byte.

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;
/// Offset of the source port.
pub const SRC_PORT: usize = 0;
/// Offset of the destination port.
pub const DST_PORT: usize = 2;
/// Offset of the length of header and data.
pub const LEN: usize = 4;
/// Offset of the checksum; 0 means that there is none.
pub const CHECKSUM: usize = 6;

/// A checksum that was computed, as it is sent: 0 in its other form, since it would say that there is none.
#[inline]
pub const fn computed(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

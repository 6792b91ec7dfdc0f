//! Generic routing encapsulation (RFC 2784). Offsets count from the header's first byte.

/// Length of a header without its checksum, in bytes.
pub const HEADER_LEN: usize = 4;
/// Length of a header with its checksum, in bytes.
pub const LONG_HEADER_LEN: usize = 8;
/// Offset of the Ethertype of what follows.
pub const PROTOCOL: usize = 2;
/// Offset of the checksum, where [`CHECKSUM_PRESENT`] says that there is one.
pub const CHECKSUM: usize = 4;

/// A checksum and a word of no meaning follow, in the header's first word.
pub const CHECKSUM_PRESENT: u16 = 0x8000;
/// Bits of the header's first word that are zero in a header which has nothing more than a checksum: no key,
/// no sequence number (RFC 2890), and version 0.
pub const UNKNOWN_MASK: u16 = 0x7fff;

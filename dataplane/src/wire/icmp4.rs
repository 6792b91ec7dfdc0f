//! ICMP header fields (RFC 792). Offsets count from the header's first byte.

/// Length of the header before a quoted packet or echo data, in bytes.
pub const HEADER_LEN: usize = 8;
/// Offset of the type; the code shares its 16-bit word.
pub const TYPE: usize = 0;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of what depends on the type; the MTU of the next hop is its low half (RFC 1191, 4).
pub const REST: usize = 4;

/// Answer to an echo request.
pub const ECHO_REPLY: u8 = 0;
/// A packet could not be delivered.
pub const UNREACHABLE: u8 = 3;
/// Asks to be answered.
pub const ECHO_REQUEST: u8 = 8;
/// A packet's time to live ran out.
pub const TIME_EXCEEDED: u8 = 11;
/// A packet's header could not be understood.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Code of [`UNREACHABLE`]: no route to the network.
pub const NET_UNREACHABLE: u8 = 0;
/// Code of [`UNREACHABLE`]: the host is not reached.
pub const HOST_UNREACHABLE: u8 = 1;
/// Code of [`UNREACHABLE`]: the host does not know the protocol.
pub const PROTOCOL_UNREACHABLE: u8 = 2;
/// Code of [`UNREACHABLE`]: nobody listens there.
pub const PORT_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: too long for the next hop, and not to be fragmented.
pub const FRAGMENTATION_NEEDED: u8 = 4;

//! ICMPv6 header fields (RFC 4443). Offsets count from the header's first byte. Its checksum covers a pseudo
//! header.

/// Length of the header before a quoted packet or echo data, in bytes.
pub const HEADER_LEN: usize = 8;
/// Offset of the type; the code shares its 16-bit word.
pub const TYPE: usize = 0;
/// Offset of the checksum.
pub const CHECKSUM: usize = 2;
/// Offset of what depends on the type: all of the MTU, or of the place of a problem.
pub const REST: usize = 4;

/// A packet could not be delivered.
pub const UNREACHABLE: u8 = 1;
/// A packet was too long for the next hop.
pub const PACKET_TOO_BIG: u8 = 2;
/// A packet's hop limit ran out.
pub const TIME_EXCEEDED: u8 = 3;
/// A packet's header could not be understood.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Asks to be answered; smaller types are errors.
pub const ECHO_REQUEST: u8 = 128;
/// Answer to an echo request.
pub const ECHO_REPLY: u8 = 129;
/// Asks for routers (RFC 4861, 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Asks for a neighbour's address on the link (RFC 4861, 4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Tells a neighbour's address on the link (RFC 4861, 4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Tells of a better router (RFC 4861, 4.5).
pub const REDIRECT: u8 = 137;

/// Code of [`UNREACHABLE`]: no route.
pub const NO_ROUTE: u8 = 0;
/// Code of [`UNREACHABLE`]: forbidden by the administrator.
pub const PROHIBITED: u8 = 1;
/// Code of [`UNREACHABLE`]: the next hop does not answer.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: nobody listens there.
pub const PORT_UNREACHABLE: u8 = 4;
/// Code of [`PARAMETER_PROBLEM`]: a wrong value.
pub const WRONG_FIELD: u8 = 0;
/// Code of [`PARAMETER_PROBLEM`]: a protocol that is not known.
pub const UNKNOWN_NEXT: u8 = 1;

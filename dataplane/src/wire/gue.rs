//! Generic UDP encapsulation, variant 0 without options (draft-ietf-intarea-gue-09, 3), as the Linux kernel's
//! IPVS and `fou` speak it. Offsets count from the first byte behind the UDP header.

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 4;
/// Offset of the protocol number of what follows.
pub const PROTOCOL: usize = 1;
/// Port of a receiver (IANA).
pub const PORT: u16 = 6080;

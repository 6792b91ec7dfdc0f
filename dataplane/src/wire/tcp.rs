//! TCP header fields (RFC 9293, 3.1). Offsets count from the header's first byte.

use std::ops::Range;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// Offset of the source port.
pub const SRC_PORT: usize = 0;
/// Offset of the destination port.
pub const DST_PORT: usize = 2;
/// Offset of the sequence number.
pub const SEQUENCE: usize = 4;
/// Offset of the acknowledgment number.
pub const ACKNOWLEDGMENT: usize = 8;
/// Offset of the byte whose high half is the header length in 32-bit words.
pub const DATA_OFFSET: usize = 12;
/// Offset of the flags.
pub const FLAGS: usize = 13;
/// Offset of the checksum.
pub const CHECKSUM: usize = 16;
/// Offset of the urgent pointer.
pub const URGENT: usize = 18;

/// Kind of the option that ends the list of options.
pub const OPTION_END: u8 = 0;
/// Kind of the option that fills a byte; all others but [`OPTION_END`] have a length.
pub const OPTION_NOP: u8 = 1;
/// Kind of the option with the longest segment that its sender takes, a 16-bit value.
pub const OPTION_MSS: u8 = 2;
/// Kind of the option with blocks that were received behind a gap (RFC 2018).
pub const OPTION_SACK: u8 = 5;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// The acknowledgment field counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;

/// Where in a header the first option of a kind is that has a length, with its kind and length; `None` without one,
/// or if an option before it or itself makes no sense. The header is at most 60 bytes long, and each turn takes one.
pub fn option(header: &[u8], kind: u8) -> Option<Range<usize>> {
    let mut at = HEADER_LEN;
    loop {
        match *header.get(at..)? {
            [] | [OPTION_END, ..] => return None,
            [OPTION_NOP, ..] => at += 1,
            // The length counts kind and length.
            [found, len, ..] if len >= 2 => {
                let end = at + usize::from(len);
                if found == kind {
                    return (end <= header.len()).then_some(at..end);
                }
                at = end;
            }
            _ => return None,
        }
    }
}

/// Whether no honest sender sets these flags: none at all, or SYN together with FIN or RST.
#[inline]
pub const fn absurd(flags: u8) -> bool {
    ABSURD >> (flags & FLAGS_MASK) & 1 != 0
}

/// The flags of RFC 9293; the two above them belong to congestion control (RFC 3168).
pub const FLAGS_MASK: u8 = 0x3f;

/// A bit for each set of flags, which says whether [`absurd`].
pub const ABSURD: u64 = {
    let (mut absurd, mut flags) = (0, 0);
    while flags <= FLAGS_MASK {
        if flags == 0 || (flags & SYN != 0 && flags & (FIN | RST) != 0) {
            absurd |= 1 << flags;
        }
        flags += 1;
    }
    absurd
};

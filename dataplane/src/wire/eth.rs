//! Ethernet II (IEEE 802.3, clause 3).

use config::words::MacAddr;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 14;
/// Offset of the destination address.
pub const DST: usize = 0;
/// Offset of the source address.
pub const SRC: usize = 6;
/// Offset of the Ethertype.
pub const TYPE: usize = 12;

/// Ethertype of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub const TYPE_ARP: u16 = 0x0806;

/// A header with these addresses.
pub const fn header(dst: MacAddr, src: MacAddr, ethertype: u16) -> [u8; HEADER_LEN] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (dst.0, src.0);
    let [m, n] = ethertype.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

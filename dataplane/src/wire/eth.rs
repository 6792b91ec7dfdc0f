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

/// Ethertype of IPv6 (RFC 2464, 3).
pub const TYPE_IPV6: u16 = 0x86dd;
/// Ethertype of a customer VLAN tag (IEEE 802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// Ethertype of a service VLAN tag (IEEE 802.1ad, "QinQ").
pub const TYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Length of a VLAN tag, in bytes.
pub const TAG_LEN: usize = 4;
/// Bits of a tag's second word that are the VLAN's number.
pub const VLAN_MASK: u16 = 0x0fff;

/// The VLAN tags of a frame, by number; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    /// Of the service tag, the first of two.
    pub outer: u16,
    /// Of the only tag, or the second of two.
    pub inner: u16,
}

/// A whole header, VLAN tags included, ready to be put before an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkHeader {
    bytes: [u8; HEADER_LEN + 2 * TAG_LEN],
    len: u8,
}

impl LinkHeader {
    /// A header with these addresses and tags.
    pub fn new(dst: MacAddr, src: MacAddr, tags: Tags, ethertype: u16) -> Self {
        let mut header = Self { bytes: [0; HEADER_LEN + 2 * TAG_LEN], len: 0 };
        header.push(&dst.0);
        header.push(&src.0);
        if tags.outer != 0 {
            header.push(&TYPE_SERVICE_VLAN.to_be_bytes());
            header.push(&tags.outer.to_be_bytes());
        }
        if tags.inner != 0 {
            header.push(&TYPE_VLAN.to_be_bytes());
            header.push(&tags.inner.to_be_bytes());
        }
        header.push(&ethertype.to_be_bytes());
        header
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// Its bytes: 14, 18 or 22.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The same with another Ethertype.
    #[must_use]
    pub fn with_type(mut self, ethertype: u16) -> Self {
        let at = usize::from(self.len) - 2;
        self.bytes[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        self
    }
}

/// A header with these addresses.
pub const fn header(dst: MacAddr, src: MacAddr, ethertype: u16) -> [u8; HEADER_LEN] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (dst.0, src.0);
    let [m, n] = ethertype.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

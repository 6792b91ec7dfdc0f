//! The formats on the wire, as constants of their fields and small readers and writers. Offsets are bytes.

pub mod arp;
pub mod eth;
pub mod gre;
pub mod gue;
pub mod icmp4;
pub mod icmp6;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod tcp;
pub mod udp;

/// The big-endian 16-bit field at `offset`, if `bytes` hold it.
#[inline]
pub fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The big-endian 32-bit field at `offset`, if `bytes` hold it.
#[inline]
pub fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The big-endian 128-bit field at `offset`, if `bytes` hold it.
#[inline]
pub fn read_u128(bytes: &[u8], offset: usize) -> Option<u128> {
    Some(u128::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Writes a field of any fixed length. Nothing is written past the end of `bytes`.
#[inline]
pub fn write<const N: usize>(bytes: &mut [u8], offset: usize, field: &[u8; N]) {
    if let Some(place) = bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
        *place = *field;
    }
}

/// Writes a big-endian 16-bit field. Nothing is written past the end of `bytes`.
#[inline]
pub fn write_u16(bytes: &mut [u8], offset: usize, value: u16) {
    write(bytes, offset, &value.to_be_bytes());
}

/// Writes a big-endian 32-bit field. Nothing is written past the end of `bytes`.
#[inline]
pub fn write_u32(bytes: &mut [u8], offset: usize, value: u32) {
    write(bytes, offset, &value.to_be_bytes());
}

/// Writes a big-endian 128-bit field. Nothing is written past the end of `bytes`.
#[inline]
pub fn write_u128(bytes: &mut [u8], offset: usize, value: u128) {
    write(bytes, offset, &value.to_be_bytes());
}

//! Stand-in.
use crate::packet::Headers;
pub fn clamp(_: &mut [u8], _: &Headers, _: u16) {}

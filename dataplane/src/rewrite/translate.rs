//! Stand-in.
use crate::drops::DropReason;
use crate::packet::*;
use crate::wire::eth::LinkHeader;
use std::net::*;
pub fn len_as_v6(p: &Packet) -> u16 {
    p.len
}
pub fn len_as_v4(p: &Packet) -> u16 {
    p.len
}
pub fn to_v4<F>(
    _: &mut F,
    _: &Headers,
    _: SocketAddrV4,
    _: SocketAddrV4,
    _: u16,
    _: &LinkHeader,
) -> Result<(), DropReason> {
    Err(DropReason::WrongFamily)
}
pub fn to_v6<F>(
    _: &mut F,
    _: &Headers,
    _: SocketAddrV6,
    _: SocketAddrV6,
    _: &LinkHeader,
) -> Result<(), DropReason> {
    Err(DropReason::WrongFamily)
}
pub fn error<F>(
    _: &mut F,
    _: &Packet,
    _: &crate::rewrite::quote::Quoted,
    _: (SocketAddr, SocketAddr),
    _: (IpAddr, IpAddr),
    _: &LinkHeader,
) -> Result<(), DropReason> {
    Err(DropReason::WrongFamily)
}

//! How the fast path reaches a backend: all that it needs to know of one, in half a cache line.

use std::net::IpAddr;

use config::words::Mode;
use ipnet::IpNet;

use super::{Backend, Egress};
use crate::port::PortId;
use crate::rewrite::tunnel::Encapsulation;
use crate::wire::eth;

/// What is done to a packet on its way to a backend. Addresses are of host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Nothing but what every hop does.
    Dr,
    /// It is for this address, and its port is shifted by so many.
    Nat {
        /// The backend's address.
        address: u32,
        /// What is added to the port (modulo 2^16).
        port_shift: u16,
    },
    /// It gets an outer IPv4 header without more.
    Ipip {
        /// Our end.
        src: u32,
        /// Bits of it that follow the flow instead.
        spread: u32,
        /// The backend's end.
        dst: u32,
    },
}

/// The way to a backend whose next hop is known and behind an untagged interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(32))]
pub struct Way {
    /// What is done to a packet.
    pub carriage: Carriage,
    /// The longest IPv4 packet that reaches it.
    pub room: u16,
    /// Which of the snapshot's timeouts its flows have.
    pub timeouts: u16,
    /// Ethernet header.
    pub link: [u8; eth::HEADER_LEN],
    /// The device port it leaves by.
    pub port: PortId,
}

const _: () = assert!(size_of::<Option<Way>>() <= 64);

impl Way {
    /// The way to a backend, if the fast path can go it.
    pub fn new(backend: &Backend, egress: &Egress) -> Option<Self> {
        let IpAddr::V4(address) = backend.address.ip() else { return None };
        let carriage = match (backend.mode, backend.tunnel) {
            (Mode::Dr, _) => Carriage::Dr,
            (Mode::Nat, _) => Carriage::Nat { address: address.to_bits(), port_shift: backend.port_shift },
            (Mode::Tunnel, Some(tunnel)) if tunnel.encapsulation == Encapsulation::Ipip => {
                let (src, spread) = match (tunnel.spread, tunnel.src) {
                    (Some(IpNet::V4(prefix)), _) => (prefix.network(), prefix.hostmask().to_bits()),
                    (None, IpAddr::V4(src)) => (src, 0),
                    _ => return None,
                };
                // The hash has 16 bits to give.
                Carriage::Ipip { src: src.to_bits(), spread: spread & 0xffff, dst: address.to_bits() }
            }
            _ => return None,
        };
        let link = *egress.link.bytes().first_chunk()?;
        let room = backend.room(egress.mtu);
        egress.is_plain().then_some(Self {
            carriage,
            room,
            timeouts: backend.timeouts,
            link,
            port: egress.port,
        })
    }
}

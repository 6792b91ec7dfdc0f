//! How the fast path reaches a backend: all that it needs to know of one, in one cache line.

use std::net::IpAddr;

use config::words::{ClientAddress, Fate, Mode, ServiceKey};
use ipnet::IpNet;

use super::{Backend, Egress, Exit, ServiceSlot};
use crate::flow::state::View;
use crate::packet::Version;
use crate::rewrite::tunnel::Encapsulation;

/// What is done to a packet on its way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// Nothing but what every hop does.
    Dr,
    /// It is for the backend then.
    Nat,
    /// The same, and it comes from its flow's local address and port.
    FullNat,
    /// It gets an outer header of its own IP version without more.
    Ipip,
}

/// An address of either IP version, the lowest byte first.
type Bytes = [u8; 16];

/// The way to a backend whose next hop is known and behind an untagged interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Way {
    /// What is done to a packet.
    pub carriage: Carriage,
    /// Which packets of its flows are seen, of those to it.
    pub view: View,
    /// IP version of the backend, and of the packets that go this way.
    is_v4: bool,
    /// Its service.
    pub service: ServiceSlot,
    /// The port of that, if it has one alone.
    pub service_port: u16,
    /// What is added to a port of the service to get the backend's (modulo 2^16).
    pub port_shift: u16,
    /// Which of the snapshot's timeouts its flows have.
    pub timeouts: u16,
    /// Bits of the outer header's source that follow the flow.
    pub spread: u16,
    /// How it leaves; there is room for the longest packet that reaches the backend.
    pub exit: Exit,
    backend: Bytes,
    /// Our end.
    near: Bytes,
}

const _: () = assert!(size_of::<Option<Way>>() <= 64);

/// An address as it is kept in a [`Way`].
pub trait Kept: Version {
    /// The address.
    fn read(bytes: &Bytes) -> Self;

    /// The address with these low bits set.
    #[must_use]
    fn with(self, bits: u16) -> Self;
}

impl Kept for u32 {
    #[inline]
    fn read(bytes: &Bytes) -> Self {
        bytes.first_chunk().map_or(0, |bytes| Self::from_le_bytes(*bytes))
    }

    #[inline]
    fn with(self, bits: u16) -> Self {
        self | Self::from(bits)
    }
}

impl Kept for u128 {
    #[inline]
    fn read(bytes: &Bytes) -> Self {
        Self::from_le_bytes(*bytes)
    }

    #[inline]
    fn with(self, bits: u16) -> Self {
        self | Self::from(bits)
    }
}

fn keep(address: IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()).to_le_bytes(),
        IpAddr::V6(address) => address.to_bits().to_le_bytes(),
    }
}

impl Way {
    /// The way to a backend, if the fast path can go it.
    pub fn new(backend: &Backend, service: &ServiceKey, egress: &Egress) -> Option<Self> {
        // What becomes of its flows takes a closer look.
        if backend.fate != Fate::Keep {
            return None;
        }
        let address = backend.address.ip();
        let (carriage, near, spread) = match (backend.mode, backend.tunnel) {
            (Mode::Dr, _) => (Carriage::Dr, address, 0),
            (Mode::Nat, _) => (Carriage::Nat, service.address, 0),
            // More than addresses is changed there.
            (Mode::FullNat, _) if backend.client_address != ClientAddress::None => return None,
            (Mode::FullNat, _) => (Carriage::FullNat, address, 0),
            (Mode::Tunnel, Some(tunnel)) if tunnel.encapsulation == Encapsulation::Ipip => {
                // The hash has 16 bits to give.
                let (src, spread) = match tunnel.spread {
                    Some(IpNet::V4(prefix)) => (prefix.network().into(), prefix.hostmask().to_bits() as u16),
                    Some(IpNet::V6(prefix)) => (prefix.network().into(), prefix.hostmask().to_bits() as u16),
                    None => (tunnel.src, 0),
                };
                (Carriage::Ipip, src, spread)
            }
            _ => return None,
        };
        let view = match carriage {
            Carriage::Nat | Carriage::FullNat => View::Client,
            Carriage::Dr | Carriage::Ipip => View::OneWay,
        };
        Some(Self {
            carriage,
            view,
            is_v4: address.is_ipv4(),
            service: backend.service,
            service_port: service.ports.first,
            port_shift: backend.port_shift,
            timeouts: backend.timeouts,
            spread,
            exit: Exit { room: backend.room(egress.mtu), ..Exit::new(egress)? },
            backend: keep(address),
            near: keep(near),
        })
    }

    /// Whether packets of an IP version can go it.
    #[inline]
    pub fn is_of<A: Version>(&self) -> bool {
        self.is_v4 == A::IS_V4
    }

    /// The backend's address, of the way's IP version.
    #[inline]
    pub fn backend<A: Kept>(&self) -> A {
        A::read(&self.backend)
    }

    /// The address of the service under NAT, of the way's IP version; in a tunnel the source of the outer header, in which
    /// bits that follow the flow are 0.
    #[inline]
    pub fn near<A: Kept>(&self) -> A {
        A::read(&self.near)
    }
}

//! How the fast path reaches a backend: all that it needs to know of one, in one cache line.

use std::net::{IpAddr, SocketAddr};

use config::words::{ClientAddress, Fate, Mode, ServiceKey};
use ipnet::IpNet;

use super::tables::Tables;
use super::{Backend, Egress, Exit, ServiceSlot};
use crate::flow::state::View;
use crate::packet::Version;
use crate::rewrite::plain::{Endpoint, Swap};
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

/// An address of either IP version, the lowest word first. Behind one of IPv4 there may be a [`Swap`].
type Words = [u32; 4];

impl Swap {
    /// Keeps it behind its address.
    fn keep(self, words: &mut Words) {
        words[1] = self.end.address;
        words[2] = u32::from(self.end.port) | u32::from(self.header) << 16;
        words[3] = self.transport.into();
    }

    #[inline(always)]
    fn read(words: &Words) -> Self {
        let [_, address, second, third] = *words;
        let end = Endpoint { address, port: second as u16 };
        Self { end, header: (second >> 16) as u16, transport: third as u16 }
    }
}

/// The way to a backend whose next hop is known and behind an untagged interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Way {
    /// What is done to a packet.
    pub carriage: Carriage,
    /// Which packets of its flows are seen, of those to it.
    pub view: View,
    /// Whether what the backend sends from its end is, under NAT, for this service alone.
    pub replies_alone: bool,
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
    /// The backend's end, and ours.
    ends: [Words; 2],
}

const _: () = assert!(size_of::<Option<Way>>() <= 64);

/// An address as it is kept in a [`Way`].
pub trait Kept: Version {
    /// The address.
    fn read(words: &Words) -> Self;

    /// The address with these low bits set.
    #[must_use]
    fn with(self, bits: u16) -> Self;
}

impl Kept for u32 {
    #[inline]
    fn read(words: &Words) -> Self {
        words[0]
    }

    #[inline]
    fn with(self, bits: u16) -> Self {
        self | Self::from(bits)
    }
}

impl Kept for u128 {
    #[inline]
    fn read(words: &Words) -> Self {
        let [first, second, third, fourth] = words.map(u128::from);
        fourth << 96 | third << 64 | second << 32 | first
    }

    #[inline]
    fn with(self, bits: u16) -> Self {
        self | Self::from(bits)
    }
}

fn keep(address: IpAddr) -> Words {
    let number = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    [0, 32, 64, 96].map(|shift| (number >> shift) as u32)
}

/// Both ends, with what packets get that get them instead of each other.
fn exchanged(ends: [SocketAddr; 2]) -> [Words; 2] {
    let [backend, near] = ends;
    [(backend, near), (near, backend)].map(|(new, old)| {
        let mut words = keep(new.ip());
        if let (SocketAddr::V4(old), SocketAddr::V4(new)) = (old, new) {
            Swap::new(old, new).keep(&mut words);
        }
        words
    })
}

impl Way {
    /// The way to a backend, if the fast path can go it.
    pub fn new(backend: &Backend, service: &ServiceKey, egress: &Egress, tables: &Tables) -> Option<Self> {
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
            (Mode::FullNat, _) => (Carriage::FullNat, service.address, 0),
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
        let port = service.ports.first;
        let ends = [(address, port.wrapping_add(backend.port_shift)), (near, port)].map(SocketAddr::from);
        Some(Self {
            carriage,
            view,
            replies_alone: carriage == Carriage::Nat && tables.replies_for_one(service.protocol, ends[0]),
            is_v4: address.is_ipv4(),
            service: backend.service,
            service_port: port,
            port_shift: backend.port_shift,
            timeouts: backend.timeouts,
            spread,
            exit: Exit { room: backend.room(egress.mtu), ..Exit::new(egress)? },
            ends: exchanged(ends),
        })
    }

    /// Whether packets of an IP version can go it.
    #[inline]
    pub fn is_of<A: Version>(&self) -> bool {
        self.is_v4 == A::IS_V4
    }

    /// The end that IPv4 packets of a service with one port get under NAT: the backend's or, if they are replies, ours.
    #[inline(always)]
    pub fn swap(&self, is_reply: bool) -> Swap {
        Swap::read(&self.ends[usize::from(is_reply)])
    }

    /// The backend's address, of the way's IP version.
    #[inline]
    pub fn backend<A: Kept>(&self) -> A {
        A::read(&self.ends[0])
    }

    /// The address of the service under NAT and full NAT, of the way's IP version; in a tunnel the source of the outer
    /// header, in which bits that follow the flow are 0.
    #[inline]
    pub fn near<A: Kept>(&self) -> A {
        A::read(&self.ends[1])
    }
}

//! Flows of one worker: which client of which service belongs to which backend.
//!
//! `table` stores them: narrow ones, of IPv4 clients and services of one port, four in a cache line; wide
//! ones, of all others, two. `state` says what a flow is doing and when it is dead.

pub mod state;
pub mod table;

use std::net::{IpAddr, Ipv6Addr};

use config::words::Protocol;

use crate::clock::Seconds;
use crate::local::LocalSlot;
use crate::snapshot::{BackendSlot, ServiceSlot};
use state::{State, View};
use table::{FlowHash, HashSecret};

/// What identifies a flow in a table.
pub trait Key: Copy {
    /// Marks an empty place; no flow has this key.
    const EMPTY: Self;

    /// Whether both are keys of the same flow.
    fn is(&self, other: &Self) -> bool;

    /// Hash of the flow's client.
    fn hash(&self, secret: &HashSecret) -> FlowHash;

    /// Who the flow belongs to.
    fn owner(&self) -> FlowOwner;
}

/// Who a flow belongs to, as people read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowOwner {
    /// The client's address.
    pub client: IpAddr,
    /// The client's port.
    pub client_port: u16,
    /// The service.
    pub service: ServiceSlot,
    /// The port of the service, if it has several.
    pub service_port: Option<u16>,
    /// The local port that the backend sees, in full NAT.
    pub local_port: Option<u16>,
}

/// Key of a narrow flow: client address and port, as they stand in a packet for a little-endian machine, and service slot.
/// The service implies protocol, VIP and port, so equal keys are the same flow.
///
/// Of a flow it is never zero, because no client has the address 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey(u64);

impl FlowKey {
    /// The key of a client's flow to a service.
    #[inline]
    pub fn new(client: u32, client_port: u16, service: ServiceSlot) -> Self {
        Self(endpoint(client, client_port) | u64::from(service.0))
    }

    /// All of it in one number, which is not 0 if it is a flow's.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The key that is this number.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The client's address.
    pub fn client(self) -> u32 {
        ((self.0 >> 32) as u32).swap_bytes()
    }

    /// The client's port.
    pub fn client_port(self) -> u16 {
        ((self.0 >> 16) as u16).swap_bytes()
    }

    /// The service.
    pub fn service(self) -> ServiceSlot {
        ServiceSlot(self.0 as u16)
    }
}

impl Key for FlowKey {
    const EMPTY: Self = Self(0);

    #[inline]
    fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    #[inline]
    fn hash(&self, secret: &HashSecret) -> FlowHash {
        secret.hash(self.client(), self.client_port()).with_service(self.service(), 0)
    }

    fn owner(&self) -> FlowOwner {
        FlowOwner {
            client: IpAddr::from(self.client().to_be_bytes()),
            client_port: self.client_port(),
            service: self.service(),
            service_port: None,
            local_port: None,
        }
    }
}

/// An IPv4 address and port in the order in which they stand in a packet, so that a little-endian machine turns nothing
/// around. The lowest 16 bits are 0.
#[inline]
fn endpoint(address: u32, port: u16) -> u64 {
    u64::from(address.swap_bytes()) << 32 | u64::from(port.swap_bytes()) << 16
}

/// Key of a wide flow: a client of either IP version (an IPv4 address as its mapped IPv6 one), the port of the
/// service, and the local port of full NAT, which is stored beside the key but is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct WideKey {
    client: [u64; 2],
    /// Client port, service slot, service port, local port, from the top.
    ports: u64,
}

impl WideKey {
    /// The key of a client's flow to a port of a service.
    #[inline]
    pub fn new(client: u128, client_port: u16, service: ServiceSlot, service_port: u16) -> Self {
        debug_assert!(client != 0);
        let ports = u64::from(client_port) << 48 | u64::from(service.0) << 32 | u64::from(service_port) << 16;
        Self { client: [(client >> 64) as u64, client as u64], ports }
    }

    /// The same with the port by which the backend knows the client.
    #[must_use]
    pub fn with_local_port(self, port: u16) -> Self {
        Self { ports: self.ports & !0xffff | u64::from(port), ..self }
    }

    /// The client's address; an IPv4 one is mapped.
    #[inline]
    pub fn client(&self) -> u128 {
        u128::from(self.client[0]) << 64 | u128::from(self.client[1])
    }

    /// The client's port.
    pub fn client_port(&self) -> u16 {
        (self.ports >> 48) as u16
    }

    /// The service.
    pub fn service(&self) -> ServiceSlot {
        ServiceSlot((self.ports >> 32) as u16)
    }

    /// The port of the service that the client talks to.
    pub fn service_port(&self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// The port by which the backend knows the client; 0 but in full NAT.
    #[inline]
    pub fn local_port(&self) -> u16 {
        self.ports as u16
    }
}

impl Key for WideKey {
    const EMPTY: Self = Self { client: [0; 2], ports: 0 };

    #[inline]
    fn is(&self, other: &Self) -> bool {
        self.client == other.client && (self.ports ^ other.ports) >> 16 == 0
    }

    #[inline]
    fn hash(&self, secret: &HashSecret) -> FlowHash {
        let client = secret.hash_any(self.client(), self.client_port());
        client.with_service(self.service(), self.service_port())
    }

    fn owner(&self) -> FlowOwner {
        FlowOwner {
            client: Ipv6Addr::from_bits(self.client()).to_canonical(),
            client_port: self.client_port(),
            service: self.service(),
            service_port: Some(self.service_port()),
            local_port: Some(self.local_port()).filter(|port| *port != 0),
        }
    }
}

/// An IPv4 address as its mapped IPv6 one (RFC 4291, 2.5.5.2), the form in which wide keys hold it.
#[inline]
pub fn mapped(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

/// The network of an address: its first `v4` bits if it is mapped, and it remains so; else its first `v6` bits.
#[inline]
pub fn network(address: u128, v4: u8, v6: u8) -> u128 {
    let bits = if address >> 32 == 0xffff { 96 + v4.min(32) } else { v6.min(128) };
    address & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// What a flow is bound to and how it stands, in 64 bits:
/// backend slot (24), state (4), whether it has a local port (1), displaced (1), slot of the local address (8), last seen
/// in seconds (22), and four bits that belong to the line and are no part of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue(u64);

const STATE_SHIFT: u32 = 24;
/// Next to the state: see [`state::goes_on`].
const HAS_LOCAL: u64 = 1 << (STATE_SHIFT + 4);
const DISPLACED: u64 = HAS_LOCAL << 1;
const LOCAL_SHIFT: u32 = STATE_SHIFT + 6;
/// Whether it has a local port, and the slot.
const LOCAL: u64 = 0xff << LOCAL_SHIFT | HAS_LOCAL;
/// Seconds are counted modulo 48 days, longer than any timeout (`config::limits`).
const SEEN_SHIFT: u32 = 38;
const SEEN_MASK: u64 = 0x003f_ffff;

impl FlowValue {
    /// A flow in its home line.
    #[inline]
    pub fn new(backend: BackendSlot, state: State, seen: Seconds) -> Self {
        debug_assert!(backend.0 < 1 << STATE_SHIFT);
        Self(
            u64::from(backend.0)
                | (state as u64) << STATE_SHIFT
                | (u64::from(seen) & SEEN_MASK) << SEEN_SHIFT,
        )
    }

    /// The backend it is bound to.
    #[inline]
    pub fn backend(self) -> BackendSlot {
        BackendSlot((self.0 & 0x00ff_ffff) as u32)
    }

    /// What it is doing.
    #[inline]
    pub fn state(self) -> State {
        // Only states are ever stored; the default keeps the compiler from adding a panic.
        State::ALL.get((self.0 >> STATE_SHIFT & 0xf) as usize).copied().unwrap_or(State::None)
    }

    /// Seconds since its last packet.
    #[inline]
    pub fn idle(self, now: Seconds) -> Seconds {
        (u64::from(now).wrapping_sub(self.0 >> SEEN_SHIFT) & SEEN_MASK) as Seconds
    }

    /// The same flow after a packet that left it in `state`.
    #[inline]
    #[must_use]
    pub fn seen(self, state: State, now: Seconds) -> Self {
        const KEPT: u64 = DISPLACED | LOCAL;
        Self(Self::new(self.backend(), state, now).0 | self.0 & KEPT)
    }

    /// The same flow after a packet that left it in its state.
    #[inline]
    #[must_use]
    pub fn touched(self, now: Seconds) -> Self {
        Self(self.0 & !(SEEN_MASK << SEEN_SHIFT) | (u64::from(now) & SEEN_MASK) << SEEN_SHIFT)
    }

    /// Whether it is of full NAT or not, as `has_local` says, and a packet opens nothing and leaves it in the state that it
    /// is in.
    #[inline]
    pub fn goes_on(self, view: View, tcp_flags: u8, has_local: bool) -> bool {
        state::goes_on((self.0 >> STATE_SHIFT) as u32, view, tcp_flags, has_local)
    }

    /// The same flow with the address by which the backend knows its client, in full NAT.
    #[must_use]
    pub fn with_local(self, local: LocalSlot) -> Self {
        Self(self.0 & !LOCAL | u64::from(local.0) << LOCAL_SHIFT | HAS_LOCAL)
    }

    /// That address; of meaning only if it [has one](Self::has_local).
    #[inline]
    pub fn local(self) -> LocalSlot {
        LocalSlot((self.0 >> LOCAL_SHIFT) as u8)
    }

    /// Whether the backend knows its client by another address, and so by a local port, in full NAT.
    #[inline]
    pub fn has_local(self) -> bool {
        self.0 & HAS_LOCAL != 0
    }

    /// Whether it has a local port of this address and protocol.
    #[inline]
    pub fn has_local_of(self, slot: LocalSlot, protocol: Protocol) -> bool {
        self.has_local() && self.local() == slot && self.protocol() == protocol
    }

    /// The protocol of its packets.
    #[inline]
    pub fn protocol(self) -> Protocol {
        if self.state().is_udp() { Protocol::Udp } else { Protocol::Tcp }
    }

    fn is_displaced(self) -> bool {
        self.0 & DISPLACED != 0
    }

    fn with_displaced(self, displaced: bool) -> Self {
        Self(if displaced { self.0 | DISPLACED } else { self.0 & !DISPLACED })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_port_is_of_an_address_and_protocol() {
        for (state, protocol, other) in
            [(State::Udp, Protocol::Udp, Protocol::Tcp), (State::SynRecv, Protocol::Tcp, Protocol::Udp)]
        {
            let flow = FlowValue::new(BackendSlot(1), state, 0);
            assert!(!flow.has_local_of(LocalSlot(0), protocol), "it has none");
            let flow = flow.with_local(LocalSlot(7));
            assert!(flow.has_local_of(LocalSlot(7), protocol));
            assert!(!flow.has_local_of(LocalSlot(6), protocol) && !flow.has_local_of(LocalSlot(7), other));
        }
    }

    #[test]
    fn a_network_keeps_its_bits_and_the_version() {
        let client = mapped(0xc000_02ff);
        let network = |v4, v6, address| super::network(address, v4, v6);
        assert_eq!(network(24, 0, client), mapped(0xc000_0200));
        assert_eq!(network(0, 0, client), mapped(0));
        assert_eq!(network(32, 0, client), client);
        assert_eq!(network(255, 255, client), client);
        assert_eq!(network(0, 48, 0x2001_0db8_0001_0002 << 64 | 7), 0x2001_0db8_0001 << 80);
        assert_eq!(network(0, 0, u128::MAX), 0);
        assert_eq!(network(0, 128, u128::MAX), u128::MAX);
        assert_eq!(network(0, 255, u128::MAX), u128::MAX);
    }
}

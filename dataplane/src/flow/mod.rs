//! Flows of one worker: which client of which service belongs to which backend.
//!
//! `table` stores them, four in a cache line; `state` says what a flow is doing and when it is dead.

pub mod state;
pub mod table;

use crate::clock::Seconds;
use crate::snapshot::{BackendSlot, ServiceSlot};
use state::State;

/// Who a flow belongs to: client address, client port and service slot. The service implies protocol,
/// VIP and port, so equal keys are the same flow.
///
/// Never zero, because no client has the address 0.0.0.0; zero marks an empty place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey(u64);

impl FlowKey {
    /// The key of a client's flow to a service.
    #[inline]
    pub fn new(client: u32, client_port: u16, service: ServiceSlot) -> Self {
        debug_assert!(client != 0);
        Self(u64::from(client) << 32 | u64::from(client_port) << 16 | u64::from(service.0))
    }

    /// The client's address.
    pub fn client(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The client's port.
    pub fn client_port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The service.
    pub fn service(self) -> ServiceSlot {
        ServiceSlot(self.0 as u16)
    }
}

/// What a flow is bound to and how it stands, in 64 bits:
/// backend slot (24), state (4), displaced (1), unused (3), last seen in seconds (28), and four bits that
/// belong to the line and are no part of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowValue(u64);

const STATE_SHIFT: u32 = 24;
const DISPLACED: u64 = 1 << 28;
const SEEN_SHIFT: u32 = 32;
const SEEN_MASK: u64 = 0x0fff_ffff;

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
        Self(Self::new(self.backend(), state, now).0 | self.0 & DISPLACED)
    }

    fn is_displaced(self) -> bool {
        self.0 & DISPLACED != 0
    }

    fn with_displaced(self, displaced: bool) -> Self {
        Self(if displaced { self.0 | DISPLACED } else { self.0 & !DISPLACED })
    }
}

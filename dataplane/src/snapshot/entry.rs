//! What the tables of a snapshot have for an end of a flow: who listens there, or for whom it replies. Both say in the same
//! words which service easy packets are of, so that the fast path need not tell one from the other.

use super::ServiceSlot;
use crate::lookup::Pair;

/// What a table has for an address, or an address and port.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Entry {
    /// A flag in the highest bit, above a number.
    head: u32,
    /// With the flag a service in the lower half and a port of it in the other, else a number.
    tail: u32,
}

/// There is one service alone.
const SOLE: u32 = 1 << 31;
const NUMBER: u32 = SOLE - 1;

#[allow(unsafe_code)]
// SAFETY: two numbers of 32 bits, in the order of C.
unsafe impl Pair for Entry {}

impl Entry {
    /// What [`Entry::is_sole`] tells, in the number that both halves are together.
    pub const SOLE_OF_TWO: u64 = SOLE as u64;

    /// One service and port, and a number below 2^31.
    pub fn sole(number: u32, service: ServiceSlot, port: u16) -> Self {
        Self { head: SOLE | number, tail: u32::from(port) << 16 | u32::from(service.0) }
    }

    /// Something else, by a number below 2^31 and a second one.
    pub fn other(number: u32, tail: u32) -> Self {
        Self { head: number, tail }
    }

    /// The number of something else, or beside one service.
    #[inline(always)]
    pub fn number(self) -> u32 {
        self.head & NUMBER
    }

    /// The second number of something else.
    #[inline(always)]
    pub fn tail(self) -> u32 {
        self.tail
    }

    /// Whether there is one service alone.
    #[inline(always)]
    pub fn is_sole(self) -> bool {
        self.head & SOLE != 0
    }

    /// That service.
    #[inline(always)]
    pub fn service(self) -> ServiceSlot {
        ServiceSlot(self.tail as u16)
    }

    /// Its port.
    #[inline(always)]
    pub fn port(self) -> u16 {
        (self.tail >> 16) as u16
    }
}

//! The coarse clock of the flow table: whole seconds since the appliance started.
//!
//! Monotonic, so that steps of the wall clock expire no flow. Read once per housekeeping turn, never per
//! packet.

use std::time::Instant;

/// Seconds since the clock's start. 28 bits of them, 8.5 years, fit a flow.
pub type Seconds = u32;

/// Where the seconds are counted from; one for the whole process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that stands at 0 now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    pub fn now(&self) -> Seconds {
        // 2^32 seconds are 136 years of uptime.
        self.0.elapsed().as_secs() as Seconds
    }
}

//! Who takes new flows when not all backends are up, ready or wanted, and what becomes of the flows they have.

use serde::{Deserialize, Serialize};

use super::Backend;
use crate::words::{Fate, Protocol};

/// The policies of a service; each is a key of `[[service]]` by its own name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How a backend that comes back grows into its weight; none: it has all of it at once.
    pub slow_start: Option<SlowStart>,
    /// Live backends of the highest priorities that make lower ones unnecessary.
    pub min_active: u32,
    /// Live weight that the service needs; without it, its sorry backends serve.
    pub quorum: Quorum,
    /// Share of live backends, in percent, below which checks are not believed and all backends serve; none: they
    /// are always believed.
    pub fail_open: Option<u8>,
    /// What becomes of the flows of a backend that is down; none: as the protocol has it, [`Policy::fate_down`].
    pub on_down: Option<Fate>,
    /// What becomes of the flows of a backend that is disabled.
    pub on_disabled: Fate,
    /// `[[service.sorry]]`: who serves when the service has no quorum. They are not checked.
    pub sorry: Vec<Backend>,
}

impl Policy {
    /// What becomes of the flows of a backend that is down. Without a choice, connections are kept, since another
    /// backend knows nothing of them, and what has no connection goes elsewhere.
    pub fn fate_down(&self, protocol: Protocol) -> Fate {
        self.on_down.unwrap_or(match protocol {
            Protocol::Tcp => Fate::Keep,
            Protocol::Udp => Fate::Reschedule,
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            slow_start: None,
            min_active: 1,
            quorum: Quorum::default(),
            fail_open: None,
            on_down: None,
            on_disabled: Fate::Reset,
            sorry: Vec::new(),
        }
    }
}

/// `slow_start = { ... }`: the share of its weight that a backend has after `t` seconds is
/// `(t / secs) ^ exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// Seconds after which it has all of its weight.
    pub secs: u32,
    /// 1 is a straight line, more begins slower and less begins faster.
    #[serde(default = "straight")]
    pub exponent: f64,
}

/// A ramp that is a straight line.
const fn straight() -> f64 {
    1.0
}

/// `quorum = { ... }`, with the arithmetic of keepalived: it is gained when the live weight is at least `weight` +
/// `hysteresis`, and lost when that is less than `weight` - `hysteresis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// Sum of the weights of live backends.
    pub weight: u32,
    /// How far the sum goes up and down without effect; less than `weight`.
    #[serde(default)]
    pub hysteresis: u32,
}

impl Default for Quorum {
    fn default() -> Self {
        Self { weight: 1, hysteresis: 0 }
    }
}

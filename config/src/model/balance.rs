//! How new flows are spread over a service's backends.

use serde::{Deserialize, Serialize};

/// `persistence = { ... }`: a client comes back to the backend that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Persistence {
    /// Seconds for which a client's backend is known since its last new flow; longer while one of its flows lives.
    pub timeout_secs: u32,
    /// Bits of an IPv4 client's address that count: those who share them are one client.
    pub prefix_v4: u8,
    /// The same of an IPv6 client.
    pub prefix_v6: u8,
    /// Services of one group know a client's server from each other; none: each knows its own.
    pub group: Option<String>,
    /// Whether a client has the same backend on all ports of the service.
    pub across_ports: bool,
    /// Whether a client chooses anew when its backend has as many flows as it may have.
    pub respect_limits: bool,
    /// Whether a client chooses anew when its backend takes no new flows, as `expire_quiescent_template` of IPVS.
    pub expire_when_drained: bool,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            timeout_secs: 300,
            prefix_v4: 32,
            prefix_v6: 128,
            group: None,
            across_ports: true,
            respect_limits: false,
            expire_when_drained: false,
        }
    }
}

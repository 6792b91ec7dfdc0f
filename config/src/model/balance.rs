//! How new flows are spread over a service's backends.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::{AesKey, AtLimit, HashPart, Scheduler};

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

/// `hash = { ... }`: what hash schedulers hash, and into which table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hash {
    /// The part of a flow that is hashed.
    pub on: HashPart,
    /// Bits of an IPv4 client's address that are hashed, on `source-prefix`.
    pub prefix_v4: u8,
    /// The same of an IPv6 client.
    pub prefix_v6: u8,
    /// Slots of the table: a prime of `maglev` and `bounded`, one of ten sizes of `mh`.
    pub table_size: u32,
    /// Whether `sh` and `mh` try other slots if a slot's backend takes no new flows.
    pub fallback: bool,
    /// How many times its share of flows a backend may have, under `bounded`.
    pub load_factor: f64,
}

impl Hash {
    /// Slots of a table unless the file says otherwise.
    pub const TABLE_SIZE: u32 = 65_537;
    /// The same of `mh`.
    pub const MH_TABLE_SIZE: u32 = 4093;
}

impl Hash {
    /// What a service with this scheduler has that says nothing of it.
    pub fn of(scheduler: Scheduler) -> Self {
        match scheduler {
            Scheduler::Mh => Self { table_size: Self::MH_TABLE_SIZE, ..Self::default() },
            _ => Self::default(),
        }
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self {
            on: HashPart::Source,
            prefix_v4: 24,
            prefix_v6: 64,
            table_size: Self::TABLE_SIZE,
            fallback: false,
            load_factor: 1.25,
        }
    }
}

/// `[cluster]`: what balancers that choose alike have in common.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// What hashes are keyed with; none: one of its own, which is another one after each start.
    pub secret: Option<String>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("Cluster").field("secret", &self.secret.as_ref().map(|_| "...")).finish()
    }
}

/// `quic = { ... }`: how servers make connection IDs, by draft-ietf-quic-load-balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quic {
    /// Number of this way to make them, in the first three bits of an ID.
    pub rotation: u8,
    /// Octets of a server's ID.
    pub server_id_len: u8,
    /// Octets that make an ID unique.
    pub nonce_len: u8,
    /// What both are enciphered with, if they are.
    pub key: Option<AesKey>,
}

impl Default for Quic {
    fn default() -> Self {
        Self { rotation: 0, server_id_len: 4, nonce_len: 4, key: None }
    }
}

/// `limits = { ... }`: what a service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Flows at most.
    pub connections: Option<u32>,
    /// New flows in a second.
    pub new_per_sec: Option<u32>,
    /// New flows in a second on one backend; then others have them.
    pub new_per_sec_per_backend: Option<u32>,
    /// New flows in a second from one source.
    pub new_per_sec_per_source: Option<u32>,
    /// Bits of an IPv4 address that make a source.
    pub prefix_v4: u8,
    /// The same of an IPv6 address.
    pub prefix_v6: u8,
    /// Packets from clients in a second.
    pub packets_per_sec: Option<u64>,
    /// Bits of IP packets from clients in a second.
    pub bits_per_sec: Option<u64>,
    /// What becomes of a new flow that is too much.
    pub answer: AtLimit,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            new_per_sec: None,
            new_per_sec_per_backend: None,
            new_per_sec_per_source: None,
            prefix_v4: 32,
            prefix_v6: 64,
            packets_per_sec: None,
            bits_per_sec: None,
            answer: AtLimit::Drop,
        }
    }
}

//! Trutina's control plane: one thread that owns all state and tells the workers what is in force.
//!
//! The journey of a command: `trutina` → [`client`] → [`api`] → [`server`] → [`engine`] → [`state`] →
//! [`compile`] → publish → workers; the answer goes back when every worker has reported the new generation.
//! [`state`], [`compile`], [`neighbour`], [`observe`] and [`pools`] are pure; the other modules are thin shells that do I/O.

pub mod api;
pub mod client;
pub mod compile;
pub mod engine;
pub mod health;
pub mod host;
pub mod metrics;
pub mod neighbour;
pub mod observe;
pub mod policy;
pub mod pools;
pub mod report;
pub mod server;
pub mod state;

//! Trutina's configuration.
//!
//! `words` is the vocabulary, `model` what a valid configuration says. A leaf: nothing here knows of
//! packets, DPDK or sockets.

pub mod model;
pub mod words;

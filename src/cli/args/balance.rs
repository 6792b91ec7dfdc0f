//! How new flows of a new service are spread, as it is typed.

use clap::{Args, value_parser};
use config::model::Persistence;

/// Whether clients come back to the backend that they had.
#[derive(Debug, Args)]
pub struct PersistenceArguments {
    /// Bring a client back to its backend for so many seconds
    #[arg(long, value_name = "SECS", value_parser = value_parser!(u32).range(1..))]
    persistence: Option<u32>,
    /// Bits of an IPv4 client's address that count [default: 32]
    #[arg(long, requires = "persistence", value_name = "BITS", value_parser = value_parser!(u8).range(..=32))]
    persistence_v4: Option<u8>,
    /// Bits of an IPv6 client's address that count [default: 128]
    #[arg(long, requires = "persistence", value_name = "BITS", value_parser = value_parser!(u8).range(..=128))]
    persistence_v6: Option<u8>,
    /// Share clients' servers with the other services of this group
    #[arg(long, requires = "persistence", value_name = "NAME")]
    persistence_group: Option<String>,
    /// Let a client have another backend on each port of the service
    #[arg(long, requires = "persistence")]
    persistence_by_port: bool,
    /// Let a client choose anew when its backend has as many flows as it may have
    #[arg(long, requires = "persistence")]
    respect_limits: bool,
    /// Let a client choose anew when its backend takes no new flows
    #[arg(long, requires = "persistence")]
    expire_when_drained: bool,
}

impl PersistenceArguments {
    /// What is asked for.
    pub fn persistence(&self) -> Option<Persistence> {
        let default = Persistence::default();
        Some(Persistence {
            timeout_secs: self.persistence?,
            prefix_v4: self.persistence_v4.unwrap_or(default.prefix_v4),
            prefix_v6: self.persistence_v6.unwrap_or(default.prefix_v6),
            group: self.persistence_group.clone(),
            across_ports: !self.persistence_by_port,
            respect_limits: self.respect_limits,
            expire_when_drained: self.expire_when_drained,
        })
    }
}

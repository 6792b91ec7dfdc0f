//! How new flows of a new service are spread, as it is typed.

use clap::{Args, value_parser};
use config::model::{Hash, Limits, Persistence, Quic};
use config::words::{AesKey, AtLimit, HashPart, Scheduler};

/// What a hash scheduler hashes.
#[derive(Debug, Args)]
pub struct HashArguments {
    /// The part of a flow that is hashed: source, source-port, destination, five-tuple or source-prefix
    #[arg(long, value_name = "PART")]
    hash_on: Option<HashPart>,
    /// Bits of an IPv4 client's address that are hashed on source-prefix [default: 24]
    #[arg(long, value_name = "BITS", value_parser = value_parser!(u8).range(..=32))]
    hash_v4: Option<u8>,
    /// Bits of an IPv6 client's address that are hashed on source-prefix [default: 64]
    #[arg(long, value_name = "BITS", value_parser = value_parser!(u8).range(..=128))]
    hash_v6: Option<u8>,
    /// Slots of the scheduler's table, a prime [default: 65537, of mh 4093]
    #[arg(long, value_name = "SLOTS")]
    table_size: Option<u32>,
    /// Let sh and mh try other slots if a slot's backend takes no new flows
    #[arg(long)]
    fallback: bool,
    /// How many times its share of flows a backend may have, under bounded [default: 1.25]
    #[arg(long, value_name = "FACTOR")]
    load_factor: Option<f64>,
}

impl HashArguments {
    /// What is asked for, if anything is. The appliance says whether it fits the scheduler.
    pub fn hash(&self, scheduler: Scheduler) -> Option<Hash> {
        let default = Hash::of(scheduler);
        let hash = Hash {
            on: self.hash_on.unwrap_or(default.on),
            prefix_v4: self.hash_v4.unwrap_or(default.prefix_v4),
            prefix_v6: self.hash_v6.unwrap_or(default.prefix_v6),
            table_size: self.table_size.unwrap_or(default.table_size),
            fallback: self.fallback,
            load_factor: self.load_factor.unwrap_or(default.load_factor),
        };
        (hash != default).then_some(hash)
    }
}

/// How servers make QUIC connection IDs.
#[derive(Debug, Args)]
pub struct QuicArguments {
    /// Number of this way to make connection IDs, for scheduler quic [default: 0]
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u8).range(..=6))]
    quic_rotation: Option<u8>,
    /// Octets of a server's ID in a connection ID [default: 4]
    #[arg(long, value_name = "OCTETS", value_parser = value_parser!(u8).range(1..=15))]
    quic_server_id_len: Option<u8>,
    /// Octets that make a connection ID unique [default: 4]
    #[arg(long, value_name = "OCTETS", value_parser = value_parser!(u8).range(4..=18))]
    quic_nonce_len: Option<u8>,
    /// What both are enciphered with, 32 hexadecimal digits [default: they are not]
    #[arg(long, value_name = "KEY")]
    quic_key: Option<AesKey>,
}

impl QuicArguments {
    /// What is asked for, if anything is.
    pub fn quic(&self) -> Option<Quic> {
        let default = Quic::default();
        let quic = Quic {
            rotation: self.quic_rotation.unwrap_or(default.rotation),
            server_id_len: self.quic_server_id_len.unwrap_or(default.server_id_len),
            nonce_len: self.quic_nonce_len.unwrap_or(default.nonce_len),
            key: self.quic_key,
        };
        (quic != default).then_some(quic)
    }
}

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

/// What a service takes at most.
#[derive(Debug, Args)]
pub struct LimitArguments {
    /// Flows that the service may have
    #[arg(long, value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    max_connections: Option<u32>,
    /// New flows in a second
    #[arg(long, value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    max_new_per_sec: Option<u32>,
    /// New flows in a second on one backend; others have them then
    #[arg(long, value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    max_new_per_backend: Option<u32>,
    /// New flows in a second from one source
    #[arg(long, value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    max_new_per_source: Option<u32>,
    /// Bits of an IPv4 address that make a source [default: 32]
    #[arg(long, value_name = "BITS", value_parser = value_parser!(u8).range(..=32))]
    source_v4: Option<u8>,
    /// Bits of an IPv6 address that make a source [default: 64]
    #[arg(long, value_name = "BITS", value_parser = value_parser!(u8).range(..=128))]
    source_v6: Option<u8>,
    /// Packets from clients in a second
    #[arg(long, value_name = "PACKETS", value_parser = value_parser!(u64).range(1..))]
    max_packets_per_sec: Option<u64>,
    /// Bits of IP packets from clients in a second
    #[arg(long, value_name = "BITS", value_parser = value_parser!(u64).range(1..))]
    max_bits_per_sec: Option<u64>,
    /// What becomes of a new flow that is too much: drop, icmp, rst or sorry [default: drop]
    #[arg(long, value_name = "ANSWER")]
    limit_answer: Option<AtLimit>,
}

impl LimitArguments {
    /// What is asked for, if anything is.
    pub fn limits(&self) -> Option<Limits> {
        let default = Limits::default();
        let limits = Limits {
            connections: self.max_connections,
            new_per_sec: self.max_new_per_sec,
            new_per_sec_per_backend: self.max_new_per_backend,
            new_per_sec_per_source: self.max_new_per_source,
            prefix_v4: self.source_v4.unwrap_or(default.prefix_v4),
            prefix_v6: self.source_v6.unwrap_or(default.prefix_v6),
            packets_per_sec: self.max_packets_per_sec,
            bits_per_sec: self.max_bits_per_sec,
            answer: self.limit_answer.unwrap_or(default.answer),
        };
        (limits != default).then_some(limits)
    }
}

//! How new flows are spread over a service's backends.

use crate::limits as bounds;
use crate::model::{Hash, Limits, Persistence, Quic};
use crate::reader::Step::Key;
use crate::reader::Table;
use crate::rules;
use crate::values::{aes_key, boolean, factor, name, number, word};
use crate::words::{AtLimit, HashPart, Protocol, Scheduler};

/// What a service says of how its new flows are spread.
pub(super) struct Balance {
    pub scheduler: Scheduler,
    pub hash: Option<Hash>,
    pub quic: Option<Quic>,
    pub expiration_secs: Option<u32>,
    pub persistence: Option<Persistence>,
    pub limits: Option<Limits>,
}

/// Reads it; `protocol` is the service's, if it is known.
pub(super) fn balance(table: &Table, protocol: Option<Protocol>) -> Balance {
    let scheduler = table.optional("scheduler", word("scheduler", Scheduler::WORDS));
    // One that can not be read is no other one, whose rules would be others.
    let certain = if table.has("scheduler") { scheduler } else { Some(Scheduler::default()) };
    let hash = table.optional_section("hash", |table| hash(table, certain));
    let quic = table.optional_section("quic", quic);
    let expiration_secs = table.optional("expiration_secs", number(bounds::IDLE_SECS));
    let persistence = table.optional_section("persistence", persistence);
    let limits = table.optional_section("limits", limits);
    if let (Some(protocol), Some(scheduler)) = (protocol, certain) {
        let faults = [
            rules::quic_use_fault(protocol, scheduler, quic.as_ref()),
            rules::fastest_use_fault(protocol, scheduler),
            rules::expiration_use_fault(scheduler, expiration_secs),
            rules::agent_use_fault(scheduler, table.has("agent")),
        ];
        faults.into_iter().flatten().for_each(|(at, fault)| table.report(&[Key(at)], fault));
    }
    let scheduler = scheduler.unwrap_or_default();
    Balance { scheduler, hash, quic, expiration_secs, persistence, limits }
}

/// Reads `hash` of a service with this scheduler, as far as that is known.
fn hash(table: &Table, scheduler: Option<Scheduler>) -> Hash {
    let default = Hash::of(scheduler.unwrap_or_default());
    let on = table.optional("on", word("part of a flow", HashPart::WORDS));
    let prefix_v4 = table.optional("prefix_v4", number(bounds::PREFIX_V4));
    let prefix_v6 = table.optional("prefix_v6", number(bounds::PREFIX_V6));
    let table_size = table.optional("table_size", number(bounds::TABLE_SIZE));
    let fallback = table.optional("fallback", boolean);
    let load_factor = table.optional("load_factor", factor(bounds::LOAD_FACTOR));
    let hash = Hash {
        on: on.unwrap_or(default.on),
        prefix_v4: prefix_v4.unwrap_or(default.prefix_v4),
        prefix_v6: prefix_v6.unwrap_or(default.prefix_v6),
        table_size: table_size.unwrap_or(default.table_size),
        fallback: fallback.unwrap_or(default.fallback),
        load_factor: load_factor.unwrap_or(default.load_factor),
    };
    if let Some(scheduler) = scheduler {
        for (key, fault) in rules::hash_faults(scheduler, &hash) {
            table.report(&[Key(key)], fault);
        }
    }
    hash
}

/// Reads `quic`.
fn quic(table: &Table) -> Quic {
    let default = Quic::default();
    let quic = Quic {
        rotation: table.optional("rotation", number(bounds::QUIC_ROTATION)).unwrap_or(default.rotation),
        server_id_len: table
            .optional("server_id_len", number(bounds::QUIC_SERVER_ID))
            .unwrap_or(default.server_id_len),
        nonce_len: table.optional("nonce_len", number(bounds::QUIC_NONCE)).unwrap_or(default.nonce_len),
        key: table.optional("key", aes_key),
    };
    for (key, fault) in rules::quic_faults(&quic) {
        table.report(&[Key(key)], fault);
    }
    quic
}

/// Reads `persistence`.
fn persistence(table: &Table) -> Persistence {
    let default = Persistence::default();
    let flag = |key, default| table.optional(key, boolean).unwrap_or(default);
    Persistence {
        timeout_secs: table
            .optional("timeout_secs", number(bounds::IDLE_SECS))
            .unwrap_or(default.timeout_secs),
        prefix_v4: table.optional("prefix_v4", number(bounds::PREFIX_V4)).unwrap_or(default.prefix_v4),
        prefix_v6: table.optional("prefix_v6", number(bounds::PREFIX_V6)).unwrap_or(default.prefix_v6),
        group: table.optional("group", name),
        across_ports: flag("across_ports", default.across_ports),
        respect_limits: flag("respect_limits", default.respect_limits),
        expire_when_drained: flag("expire_when_drained", default.expire_when_drained),
    }
}

/// Reads `limits`.
fn limits(table: &Table) -> Limits {
    let default = Limits::default();
    let new = |key| table.optional(key, number(bounds::NEW_FLOWS));
    Limits {
        connections: table.optional("connections", number(bounds::THRESHOLD)),
        new_per_sec: new("new_per_sec"),
        new_per_sec_per_backend: new("new_per_sec_per_backend"),
        new_per_sec_per_source: new("new_per_sec_per_source"),
        prefix_v4: table.optional("prefix_v4", number(bounds::PREFIX_V4)).unwrap_or(default.prefix_v4),
        prefix_v6: table.optional("prefix_v6", number(bounds::PREFIX_V6)).unwrap_or(default.prefix_v6),
        packets_per_sec: table.optional("packets_per_sec", number(bounds::PACKETS)),
        bits_per_sec: table.optional("bits_per_sec", number(bounds::BITS)),
        answer: table.optional("answer", word("answer", AtLimit::WORDS)).unwrap_or(default.answer),
    }
}

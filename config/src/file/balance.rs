//! How new flows are spread over a service's backends.

use crate::limits;
use crate::model::{Hash, Persistence};
use crate::reader::Step::Key;
use crate::reader::Table;
use crate::rules;
use crate::values::{boolean, factor, name, number, word};
use crate::words::{HashPart, Scheduler};

/// Reads `hash` of a service with this scheduler, as far as that is known.
pub(super) fn hash(table: &Table, scheduler: Option<Scheduler>) -> Hash {
    let default = Hash::of(scheduler.unwrap_or_default());
    let on = table.optional("on", word("part of a flow", HashPart::WORDS));
    let prefix_v4 = table.optional("prefix_v4", number(limits::PREFIX_V4));
    let prefix_v6 = table.optional("prefix_v6", number(limits::PREFIX_V6));
    let table_size = table.optional("table_size", number(limits::TABLE_SIZE));
    let fallback = table.optional("fallback", boolean);
    let load_factor = table.optional("load_factor", factor(limits::LOAD_FACTOR));
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

/// Reads `persistence`.
pub(super) fn persistence(table: &Table) -> Persistence {
    let default = Persistence::default();
    let flag = |key, default| table.optional(key, boolean).unwrap_or(default);
    Persistence {
        timeout_secs: table
            .optional("timeout_secs", number(limits::IDLE_SECS))
            .unwrap_or(default.timeout_secs),
        prefix_v4: table.optional("prefix_v4", number(limits::PREFIX_V4)).unwrap_or(default.prefix_v4),
        prefix_v6: table.optional("prefix_v6", number(limits::PREFIX_V6)).unwrap_or(default.prefix_v6),
        group: table.optional("group", name),
        across_ports: flag("across_ports", default.across_ports),
        respect_limits: flag("respect_limits", default.respect_limits),
        expire_when_drained: flag("expire_when_drained", default.expire_when_drained),
    }
}

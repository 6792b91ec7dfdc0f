//! How new flows are spread over a service's backends.

use crate::limits;
use crate::model::Persistence;
use crate::reader::Table;
use crate::values::{boolean, name, number};

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

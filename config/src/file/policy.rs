//! The policies of a service.

use crate::limits;
use crate::model::{Backend, Policy, Quorum, SlowStart};
use crate::reader::Step::Key;
use crate::reader::Table;
use crate::rules;
use crate::values::{factor, number, word};
use crate::words::Fate;

/// Reads the policies of a service, whose sorry backends are `sorry`.
pub(super) fn policy(table: &Table, sorry: Vec<Backend>) -> Policy {
    let default = Policy::default();
    let fate = || word("fate of flows", Fate::WORDS);
    let slow_start = table.optional_section("slow_start", slow_start).flatten();
    let min_active = table.optional("min_active", number(limits::MIN_ACTIVE));
    let quorum = table.optional_section("quorum", quorum).flatten();
    let fail_open = table.optional("fail_open", number(limits::PERCENT));
    let on_down = table.optional("on_down", fate());
    let on_disabled = table.optional("on_disabled", fate());
    Policy {
        slow_start,
        min_active: min_active.unwrap_or(default.min_active),
        quorum: quorum.unwrap_or(default.quorum),
        fail_open,
        on_down,
        on_disabled: on_disabled.unwrap_or(default.on_disabled),
        sorry,
    }
}

fn slow_start(table: &Table) -> Option<SlowStart> {
    let secs = table.required("secs", "60", number(limits::SLOW_START_SECS));
    let exponent = table.optional("exponent", factor(limits::EXPONENT)).unwrap_or(1.0);
    Some(SlowStart { secs: secs?, exponent })
}

fn quorum(table: &Table) -> Option<Quorum> {
    let weight = table.required("weight", "2", number(limits::QUORUM));
    let hysteresis = table.optional("hysteresis", number(0..=*limits::QUORUM.end())).unwrap_or(0);
    let quorum = Quorum { weight: weight?, hysteresis };
    if let Some(fault) = rules::hysteresis_fault(quorum) {
        table.report(&[Key("hysteresis")], fault);
        return None;
    }
    Some(quorum)
}

//! Who takes new flows: the policies of a service, as one decision.
//!
//! Pure. [`decide`] knows nothing of slots, sockets or clocks: what a service wants, how its backends stand and
//! since when goes in; a weight for each of them, and the reason for it, comes out. docs/policy.md has the order of
//! precedence as a table.

mod ramp;

use std::time::Duration;

use config::model::Policy;
use config::words::Admin;
use serde::{Deserialize, Serialize};

use ramp::Ramp;

/// One backend as the policies see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// As configured.
    pub weight: u16,
    /// As configured.
    pub priority: u16,
    /// As the operator wants it now.
    pub admin: Admin,
    /// Whether its checks say that it is down.
    pub down: bool,
    /// Since when it grows into its weight, from the appliance's start.
    pub ramps_since: Option<Duration>,
}

/// Where a backend stands: whether it takes new flows, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It takes new flows.
    Active,
    /// It takes new flows, fewer than its weight says: it has come back not long ago.
    Ramping,
    /// It takes new flows although it is down: too few are up for that to be believed.
    FailOpen,
    /// It takes none: enough of a higher priority are up. Of a sorry backend: its service has a quorum.
    Standby,
    /// It takes none although it is up: without a quorum the sorry backends serve.
    NoQuorum,
    /// It takes none: its checks say that it is down.
    Down,
    /// It takes none: its weight is 0.
    Quiesced,
    /// It takes none: the operator drains it.
    Draining,
    /// It takes none: the operator disabled it.
    Disabled,
}

impl Standing {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Active,
        Self::Ramping,
        Self::FailOpen,
        Self::Standby,
        Self::NoQuorum,
        Self::Down,
        Self::Quiesced,
        Self::Draining,
        Self::Disabled,
    ];

    /// Whether it takes new flows.
    pub fn takes_flows(self) -> bool {
        matches!(self, Self::Active | Self::Ramping | Self::FailOpen)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ramping => "ramping",
            Self::FailOpen => "fail-open",
            Self::Standby => "standby",
            Self::NoQuorum => "no-quorum",
            Self::Down => "down",
            Self::Quiesced => "quiesced",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        }
    }
}

/// Who serves a service's new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serving {
    /// Its live backends.
    Backends,
    /// All of its backends, since too few are up for that to be believed.
    FailOpen,
    /// Its sorry backends.
    Sorry,
    /// Nobody.
    Nobody,
}

impl Serving {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backends => "backends",
            Self::FailOpen => "fail-open",
            Self::Sorry => "sorry",
            Self::Nobody => "nobody",
        }
    }
}

/// What becomes of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whether it takes new flows, and why.
    pub standing: Standing,
    /// Its share of them, to be compared with others of the same decision; 0 if it takes none.
    pub weight: u32,
}

/// What the policies of a service come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Of its backends, in their order.
    pub backends: Vec<Share>,
    /// Of its sorry backends, in their order.
    pub sorry: Vec<Share>,
    /// Who serves.
    pub serving: Serving,
    /// Whether there is a quorum, to be remembered for the next decision.
    pub quorum: bool,
    /// Whether time alone will change the decision: some backend grows into its weight.
    pub ramping: bool,
}

impl Decision {
    /// What all weights are multiplied by.
    pub fn scale(&self) -> u32 {
        if self.ramping { ramp::SCALE } else { 1 }
    }
}

/// Decides who takes new flows. `had_quorum` is what the decision before this one said, or true.
///
/// Of backends and sorry backends, those that are drained, disabled or have no weight are never asked. Then:
/// the quorum is counted over live weights; without it the sorry backends serve, if there are any; else all backends
/// do, if too few are live; else the live ones of as many priorities as are needed. Slow start comes last: it
/// changes weights, but nobody's standing among others.
pub fn decide(
    policy: &Policy,
    backends: &[Member],
    sorry: &[Member],
    had_quorum: bool,
    now: Duration,
) -> Decision {
    let quorum = has_quorum(policy, backends, had_quorum);
    let spare = sorry.iter().any(|member| refusal(member).is_none());
    let serving = match () {
        () if !quorum && spare => Serving::Sorry,
        () if fails_open(policy, backends) => Serving::FailOpen,
        () if backends.iter().any(Member::is_live) => Serving::Backends,
        () => Serving::Nobody,
    };
    let lowest = lowest_priority(policy, backends);
    let standing = |member: &Member| match (refusal(member), serving) {
        (Some(standing), _) => standing,
        (None, Serving::FailOpen) if member.down => Standing::FailOpen,
        (None, _) if member.down => Standing::Down,
        (None, Serving::Sorry | Serving::Nobody) => Standing::NoQuorum,
        (None, Serving::Backends) if member.priority < lowest => Standing::Standby,
        (None, Serving::Backends | Serving::FailOpen) => Standing::Active,
    };
    let of_sorry = |member: &Member| match (refusal(member), serving) {
        (Some(standing), _) => standing,
        (None, Serving::Sorry) => Standing::Active,
        (None, _) => Standing::Standby,
    };
    let ramp = Ramp::new(policy.slow_start, now);
    let of_backends: Vec<_> = backends.iter().map(|member| (member, standing(member))).collect();
    let ramps = |(member, standing): &(&Member, Standing)| standing.takes_flows() && ramp.covers(member);
    let ramping = of_backends.iter().any(ramps);
    let share = |(member, standing): (&Member, Standing)| ramp.share(ramping, member, standing);
    // A sorry backend is wanted at once and whole.
    let whole = |member| Share::whole(member, of_sorry(member));
    Decision {
        backends: of_backends.into_iter().map(share).collect(),
        sorry: sorry.iter().map(whole).collect(),
        serving,
        quorum,
        ramping,
    }
}

/// Why a backend is not asked, whatever the others do.
fn refusal(member: &Member) -> Option<Standing> {
    match member.admin {
        Admin::Disabled => Some(Standing::Disabled),
        Admin::Drain => Some(Standing::Draining),
        Admin::Enabled => (member.weight == 0).then_some(Standing::Quiesced),
    }
}

impl Member {
    fn is_live(&self) -> bool {
        refusal(self).is_none() && !self.down
    }
}

impl Default for Share {
    /// Of a backend about which nothing was decided yet.
    fn default() -> Self {
        Self { standing: Standing::Standby, weight: 0 }
    }
}

impl Share {
    /// A backend's whole weight, if it takes new flows.
    fn whole(member: &Member, standing: Standing) -> Self {
        Self { standing, weight: if standing.takes_flows() { member.weight.into() } else { 0 } }
    }
}

/// As keepalived counts it: the live weight has to pass the quorum by the hysteresis, whichever way it goes.
fn has_quorum(policy: &Policy, backends: &[Member], had_quorum: bool) -> bool {
    let live: u64 =
        backends.iter().filter(|member| member.is_live()).map(|member| u64::from(member.weight)).sum();
    let (weight, hysteresis) = (u64::from(policy.quorum.weight), u64::from(policy.quorum.hysteresis));
    if had_quorum { live >= weight.saturating_sub(hysteresis) } else { live >= weight + hysteresis }
}

/// Whether so few of those that could serve are up that all of them shall.
fn fails_open(policy: &Policy, backends: &[Member]) -> bool {
    let Some(least) = policy.fail_open else { return false };
    let wanted = backends.iter().filter(|member| refusal(member).is_none()).count();
    let live = backends.iter().filter(|member| member.is_live()).count();
    live * 100 < wanted * usize::from(least)
}

/// The lowest priority that is needed for as many live backends as the service wants.
fn lowest_priority(policy: &Policy, backends: &[Member]) -> u16 {
    let mut priorities: Vec<u16> =
        backends.iter().filter(|member| member.is_live()).map(|member| member.priority).collect();
    priorities.sort_unstable_by(|one, other| other.cmp(one));
    let last = (policy.min_active.max(1) as usize - 1).min(priorities.len().saturating_sub(1));
    priorities.get(last).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;

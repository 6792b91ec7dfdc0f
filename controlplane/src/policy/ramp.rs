//! Slow start: how a backend that has come back grows into its weight.

use std::time::Duration;

use config::model::SlowStart;

use super::{Member, Share, Standing};

/// Weights are multiplied by this while any backend ramps, so that one of weight 1 can begin with a hundredth.
pub(super) const SCALE: u32 = 100;

/// A service's slow start at one time.
///
/// Both times are taken as whole seconds of the appliance's clock: all backends of all services step at the same
/// moments, once in a second, however many of them ramp.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    slow_start: Option<SlowStart>,
    now_secs: u64,
}

impl Ramp {
    pub(super) fn new(slow_start: Option<SlowStart>, now: Duration) -> Self {
        Self { slow_start, now_secs: now.as_secs() }
    }

    /// Whether a backend has not all of its weight yet.
    pub(super) fn covers(self, member: &Member) -> bool {
        self.part(member).is_some()
    }

    /// The part of its weight that a backend has, less than 1; `None` if that is all of it.
    fn part(self, member: &Member) -> Option<f64> {
        let SlowStart { secs, exponent } = self.slow_start?;
        let passed = self.now_secs.saturating_sub(member.ramps_since?.as_secs());
        (passed < u64::from(secs)).then(|| (passed as f64 / f64::from(secs)).powf(exponent))
    }

    /// What a backend gets, beside others of which some ramp or none.
    pub(super) fn share(self, some_ramp: bool, member: &Member, standing: Standing) -> Share {
        let whole = Share::whole(member, standing);
        match self.part(member).filter(|_| whole.weight > 0) {
            None if some_ramp => Share { weight: whole.weight * SCALE, ..whole },
            None => whole,
            Some(part) => {
                // At most 2^16 * 100, and at least one: who takes no flow at all warms nothing up.
                let weight = (f64::from(whole.weight * SCALE) * part) as u32;
                let standing = if standing == Standing::FailOpen { standing } else { Standing::Ramping };
                Share { standing, weight: weight.max(1) }
            }
        }
    }
}

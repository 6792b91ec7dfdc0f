//! What holds for the policies of a service.

use super::{Fault, Found};
use crate::limits;
use crate::model::{Policy, Quorum};

/// The policies of a service, but for its sorry backends.
pub(crate) fn policy_faults(policy: &Policy) -> Vec<Found> {
    let secs = policy.slow_start.map(|ramp| Fault::range("secs", ramp.secs, limits::SLOW_START_SECS));
    let exponent = policy.slow_start.and_then(|ramp| exponent_fault(ramp.exponent));
    let faults = [
        ("slow_start", secs.flatten().or(exponent)),
        ("min_active", Fault::range("min_active", policy.min_active, limits::MIN_ACTIVE)),
        ("quorum", Fault::range("weight", policy.quorum.weight, limits::QUORUM)),
        ("quorum", hysteresis_fault(policy.quorum)),
        ("fail_open", policy.fail_open.and_then(|share| Fault::range("fail_open", share, limits::PERCENT))),
    ];
    faults.into_iter().filter_map(|(key, fault)| Some((key, fault?))).collect()
}

/// A quorum that could never be lost.
pub(crate) fn hysteresis_fault(quorum: Quorum) -> Option<Fault> {
    let Quorum { weight, hysteresis } = quorum;
    (hysteresis >= weight).then_some(Fault::Hysteresis { weight, hysteresis })
}

fn exponent_fault(exponent: f64) -> Option<Fault> {
    (!limits::EXPONENT.contains(&exponent)).then(|| Fault::Exponent(exponent.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SlowStart;

    #[test]
    fn every_policy_has_its_range() {
        assert_eq!(policy_faults(&Policy::default()), []);
        let ramp = |secs, exponent| Some(SlowStart { secs, exponent });
        let keys =
            |policy: Policy| -> Vec<_> { policy_faults(&policy).into_iter().map(|(key, _)| key).collect() };
        for (policy, key) in [
            (Policy { slow_start: ramp(0, 1.0), ..Policy::default() }, "slow_start"),
            (Policy { slow_start: ramp(1, 0.0), ..Policy::default() }, "slow_start"),
            (Policy { slow_start: ramp(1, f64::NAN), ..Policy::default() }, "slow_start"),
            (Policy { min_active: 0, ..Policy::default() }, "min_active"),
            (Policy { fail_open: Some(0), ..Policy::default() }, "fail_open"),
            (Policy { fail_open: Some(101), ..Policy::default() }, "fail_open"),
            (Policy { quorum: Quorum { weight: 3, hysteresis: 3 }, ..Policy::default() }, "quorum"),
        ] {
            assert_eq!(keys(policy), [key]);
        }
        let never = Quorum { weight: 0, hysteresis: 0 };
        assert_eq!(keys(Policy { quorum: never, ..Policy::default() }), ["quorum", "quorum"]);
    }
}

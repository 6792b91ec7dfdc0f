//! Who takes new flows, by the table of docs/policy.md and by laws that hold for all services.

use config::model::{Quorum, SlowStart};
use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1000);

const UP: Member = Member { weight: 1, priority: 0, admin: Admin::Enabled, down: false, ramps_since: None };
const DOWN: Member = Member { down: true, ..UP };

fn standings(shares: &[Share]) -> Vec<Standing> {
    shares.iter().map(|share| share.standing).collect()
}

fn weights(shares: &[Share]) -> Vec<u32> {
    shares.iter().map(|share| share.weight).collect()
}

fn backends(policy: &Policy, backends: &[Member]) -> Vec<Share> {
    decide(policy, backends, &[], true, NOW).backends
}

/// The rows of the table in the documentation, by the first words of their columns.
fn documented() -> Vec<[&'static str; 5]> {
    let text = include_str!("../../../docs/policy.md");
    let table = text.split("| live backends | quorum |").nth(1).expect("the table").lines().skip(2);
    let row = |line: &'static str| -> [&'static str; 5] {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().expect("five columns")
    };
    table.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn precedence_is_as_documented() {
    let rows = documented();
    for live in ["none", "too few", "enough"] {
        // Of four backends, with 50 % as the threshold of fail-open.
        let up = match live {
            "none" => 0,
            "too few" => 1,
            _ => 3,
        };
        let members: Vec<_> = (0..4).map(|number| if number < up { UP } else { DOWN }).collect();
        // Without live backends nothing is a quorum.
        for quorum in if up == 0 { vec!["no"] } else { vec!["yes", "no"] } {
            for spare in ["ready", "none"] {
                for fail_open in ["yes", "no"] {
                    let policy = Policy {
                        quorum: Quorum { weight: if quorum == "yes" { up } else { up + 1 }, hysteresis: 0 },
                        fail_open: (fail_open == "yes").then_some(50),
                        ..Policy::default()
                    };
                    // One that is drained is none.
                    let sorry = [if spare == "ready" { UP } else { Member { admin: Admin::Drain, ..UP } }];
                    let decision = decide(&policy, &members, &sorry, true, NOW);
                    let fits = |row: &&[&str; 5]| {
                        let found = [live, quorum, spare, fail_open];
                        row.iter().zip(found).all(|(cell, found)| *cell == found || *cell == "any")
                    };
                    let found: Vec<_> = rows.iter().filter(fits).collect();
                    let case = format!("{live} live, quorum {quorum}, sorry {spare}, fail_open {fail_open}");
                    assert_eq!(found.len(), 1, "{case}: {found:?}");
                    assert_eq!(format!("`{}`", decision.serving.name()), found[0][4], "{case}");
                    assert_eq!(decision.quorum, quorum == "yes", "{case}");
                    check_who_serves(&decision, &members, case);
                }
            }
        }
    }
}

fn check_who_serves(decision: &Decision, members: &[Member], case: String) {
    let takers = decision.backends.iter().filter(|share| share.weight > 0).count();
    let want = match decision.serving {
        Serving::Backends => members.iter().filter(|member| !member.down).count(),
        Serving::FailOpen => members.len(),
        Serving::Sorry | Serving::Nobody => 0,
    };
    assert_eq!(takers, want, "{case}");
    assert_eq!(decision.sorry[0].weight > 0, decision.serving == Serving::Sorry, "{case}");
}

#[test]
fn every_state_has_its_row_in_the_documentation() {
    let text = include_str!("../../../docs/policy.md");
    for standing in Standing::ALL {
        let new_flows = match standing {
            Standing::Ramping => "some",
            other if other.takes_flows() => "yes",
            _ => "no",
        };
        assert!(text.contains(&format!("\n| `{}` | {new_flows} | ", standing.name())), "{standing:?}");
        assert_eq!(serde_json::to_value(standing).unwrap(), standing.name());
    }
}

#[test]
fn the_operators_word_goes_first() {
    let members = [
        Member { admin: Admin::Drain, ..UP },
        Member { admin: Admin::Disabled, ..DOWN },
        Member { weight: 0, ..UP },
        DOWN,
    ];
    let policy = Policy { fail_open: Some(100), ..Policy::default() };
    use Standing::{Disabled, Down, Draining, FailOpen, Quiesced};
    assert_eq!(standings(&backends(&policy, &members)), [Draining, Disabled, Quiesced, FailOpen]);
    assert_eq!(standings(&backends(&Policy::default(), &members)), [Draining, Disabled, Quiesced, Down]);
    // What the operator took out is not missing: one of one is up.
    let policy = Policy { fail_open: Some(100), ..Policy::default() };
    let decision = decide(&policy, &[members[0], members[1], UP], &[], true, NOW);
    assert_eq!(decision.serving, Serving::Backends);
}

#[test]
fn as_many_priorities_serve_as_are_needed() {
    let at = |priority, down| Member { priority, down, ..UP };
    let policy = |min_active| Policy { min_active, ..Policy::default() };
    let active = |policy: &Policy, members: &[Member]| weights(&backends(policy, members));
    let all = [at(5, false), at(9, false), at(9, false), at(1, false)];
    assert_eq!(active(&policy(1), &all), [0, 1, 1, 0]);
    assert_eq!(active(&policy(2), &all), [0, 1, 1, 0]);
    assert_eq!(active(&policy(3), &all), [1, 1, 1, 0]);
    assert_eq!(active(&policy(9), &all), [1, 1, 1, 1]);
    let one_down = [at(5, false), at(9, true), at(9, false), at(1, false)];
    assert_eq!(active(&policy(1), &one_down), [0, 0, 1, 0]);
    assert_eq!(active(&policy(2), &one_down), [1, 0, 1, 0]);
    assert_eq!(standings(&backends(&policy(2), &one_down))[3], Standing::Standby);
    // Whoever could help does, when nobody is to be believed.
    let open = Policy { fail_open: Some(90), ..policy(1) };
    assert_eq!(active(&open, &one_down), [1, 1, 1, 1]);
}

#[test]
fn a_quorum_is_gained_and_lost_as_with_keepalived() {
    let policy = Policy { quorum: Quorum { weight: 4, hysteresis: 1 }, ..Policy::default() };
    let mut quorum = true;
    let mut after = |live: u16| {
        let member = Member { weight: live, ..UP };
        quorum = decide(&policy, &[member], &[UP], quorum, NOW).quorum;
        quorum
    };
    let seen: Vec<_> = [4, 3, 2, 3, 4, 5, 4, 3, 2, 5].into_iter().map(&mut after).collect();
    assert_eq!(seen, [true, true, false, false, false, true, true, true, false, true]);
}

#[test]
fn without_a_quorum_the_sorry_backends_serve() {
    let policy = Policy { quorum: Quorum { weight: 2, hysteresis: 0 }, ..Policy::default() };
    let sorry = [Member { weight: 7, ..UP }, Member { weight: 0, ..UP }];
    let short = decide(&policy, &[UP, DOWN], &sorry, true, NOW);
    assert_eq!(standings(&short.backends), [Standing::NoQuorum, Standing::Down]);
    assert_eq!(standings(&short.sorry), [Standing::Active, Standing::Quiesced]);
    assert_eq!((weights(&short.backends), weights(&short.sorry)), (vec![0, 0], vec![7, 0]));
    let enough = decide(&policy, &[UP, UP], &sorry, short.quorum, NOW);
    assert_eq!(standings(&enough.sorry), [Standing::Standby, Standing::Quiesced]);
    assert_eq!((weights(&enough.backends), weights(&enough.sorry)), (vec![1, 1], vec![0, 0]));
}

/// Weights of two backends of weight 3 and 2, the second one back for this long, in milliseconds.
fn ramp(secs: u32, exponent: f64, back_for_ms: u64) -> Vec<u32> {
    let policy = Policy { slow_start: Some(SlowStart { secs, exponent }), ..Policy::default() };
    let since = Some(NOW - Duration::from_millis(back_for_ms));
    let members = [Member { weight: 3, ..UP }, Member { weight: 2, ramps_since: since, ..UP }];
    weights(&backends(&policy, &members))
}

#[test]
fn a_backend_grows_into_its_weight() {
    let line: Vec<_> = (0..=4).map(|secs| ramp(4, 1.0, secs * 1000)).collect();
    assert_eq!(line, [[300, 1], [300, 50], [300, 100], [300, 150], [3, 2]]);
    let late: Vec<_> = (0..4).map(|secs| ramp(4, 2.0, secs * 1000)[1]).collect();
    assert_eq!(late, [1, 12, 50, 112]);
    let early: Vec<_> = (0..4).map(|secs| ramp(4, 0.5, secs * 1000)[1]).collect();
    assert_eq!(early, [1, 100, 141, 173]);
    // The heaviest of all backends fits, and the lightest takes some.
    let policy = Policy { slow_start: Some(SlowStart { secs: 86_400, exponent: 10.0 }), ..Policy::default() };
    let of = |weight, secs| Member { weight, ramps_since: Some(NOW - Duration::from_secs(secs)), ..UP };
    assert_eq!(weights(&backends(&policy, &[of(u16::MAX, 0), of(1, 1), UP])), [1, 1, 100]);
    assert_eq!(weights(&backends(&policy, &[Member { weight: u16::MAX, ..UP }, of(1, 1)])), [6_553_500, 1]);
}

#[test]
fn slow_start_steps_once_in_a_second_for_all() {
    let policy = Policy { slow_start: Some(SlowStart { secs: 60, exponent: 1.0 }), ..Policy::default() };
    // Back at different times within their seconds.
    let members = [100, 350, 999].map(|ms| Member { ramps_since: Some(Duration::from_millis(ms)), ..UP });
    let shares = |ms| decide(&policy, &members, &[], true, Duration::from_millis(ms)).backends;
    let mut changes = 0;
    for ms in (10_000..20_000).step_by(10) {
        changes += usize::from(shares(ms) != shares(ms + 10));
    }
    assert_eq!(changes, 10);
}

#[test]
fn only_those_that_take_flows_ramp() {
    let policy = Policy { slow_start: Some(SlowStart { secs: 60, exponent: 1.0 }), ..Policy::default() };
    let back = Member { ramps_since: Some(NOW), ..UP };
    let decision = decide(&policy, &[UP, Member { admin: Admin::Drain, ..back }], &[back], true, NOW);
    assert_eq!((weights(&decision.backends), decision.ramping, decision.scale()), (vec![1, 0], false, 1));
    let sorry = decide(&policy, &[DOWN], &[back], true, NOW);
    assert_eq!((weights(&sorry.sorry), sorry.ramping), (vec![1], false));
    assert_eq!(standings(&backends(&policy, &[UP, back])), [Standing::Active, Standing::Ramping]);
}

fn member() -> impl Strategy<Value = Member> {
    let admin = prop_oneof![3 => Just(Admin::Enabled), 1 => Just(Admin::Drain), 1 => Just(Admin::Disabled)];
    let since = proptest::option::of((0..=NOW.as_millis() as u64).prop_map(Duration::from_millis));
    let weight = prop_oneof![1 => Just(0), 4 => 1..9_u16, 1 => any::<u16>()];
    (weight, 0..3_u16, admin, any::<bool>(), since).prop_map(
        |(weight, priority, admin, down, ramps_since)| Member { weight, priority, admin, down, ramps_since },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let slow_start = proptest::option::of(
        (1..2000_u32, 0.1..10.0).prop_map(|(secs, exponent)| SlowStart { secs, exponent }),
    );
    let quorum = (1..40_u32)
        .prop_flat_map(|weight| (0..weight).prop_map(move |hysteresis| Quorum { weight, hysteresis }));
    let fail_open = proptest::option::of(1..=100_u8);
    (slow_start, 1..5_u32, quorum, fail_open).prop_map(|(slow_start, min_active, quorum, fail_open)| Policy {
        slow_start,
        min_active,
        quorum,
        fail_open,
        ..Policy::default()
    })
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    proptest::collection::vec(member(), 0..8)
}

proptest! {
    #[test]
    fn nobody_serves_whom_the_operator_took_out(
        policy in policy(), backends in members(), sorry in members(), had in any::<bool>(),
    ) {
        let decision = decide(&policy, &backends, &sorry, had, NOW);
        let all = backends.iter().zip(&decision.backends).chain(sorry.iter().zip(&decision.sorry));
        for (member, share) in all {
            prop_assert_eq!(share.weight > 0, share.standing.takes_flows());
            if member.admin != Admin::Enabled || member.weight == 0 {
                prop_assert_eq!(share.weight, 0);
            }
        }
        for (member, share) in backends.iter().zip(&decision.backends) {
            let open = decision.serving == Serving::FailOpen;
            prop_assert!(!member.down || share.weight == 0 || open, "one that is down serves");
        }
    }

    #[test]
    fn somebody_serves_if_anybody_can(
        policy in policy(), backends in members(), sorry in members(), had in any::<bool>(),
    ) {
        let decision = decide(&policy, &backends, &sorry, had, NOW);
        let serves = decision.backends.iter().chain(&decision.sorry).any(|share| share.weight > 0);
        let can = |member: &Member| member.admin == Admin::Enabled && member.weight > 0;
        let live = backends.iter().any(|member| can(member) && !member.down);
        prop_assert!(serves || !live);
        prop_assert_eq!(serves, decision.serving != Serving::Nobody);
        // Never both of them at once.
        let [ours, theirs] = [&decision.backends, &decision.sorry]
            .map(|shares| shares.iter().any(|share| share.weight > 0));
        prop_assert!(!(ours && theirs));
        if sorry.iter().any(can) && !decision.quorum {
            prop_assert_eq!(decision.serving, Serving::Sorry);
        }
    }

    #[test]
    fn whole_weights_stay_in_proportion(policy in policy(), backends in members()) {
        let decision = decide(&policy, &backends, &[], true, NOW);
        for (member, share) in backends.iter().zip(&decision.backends) {
            let whole = u32::from(member.weight) * decision.scale();
            match share.standing {
                Standing::Active => prop_assert_eq!(share.weight, whole),
                Standing::Ramping => prop_assert!((1..whole).contains(&share.weight)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_decision_without_news_stays(policy in policy(), backends in members(), sorry in members()) {
        let first = decide(&policy, &backends, &sorry, true, NOW);
        prop_assert_eq!(decide(&policy, &backends, &sorry, first.quorum, NOW), first);
    }
}

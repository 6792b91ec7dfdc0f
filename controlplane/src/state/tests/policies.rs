//! Administrative states, drains and slow start over time, and how changes of the configuration meet them.

use config::model::{Quorum, SlowStart};
use config::words::{Fate, Then};

use super::*;
use crate::api::AdminChange;
use crate::policy::{Serving, Standing};

const SECOND: Duration = Duration::from_secs(1);

fn drain(timeout_secs: Option<u32>, then: Then) -> AdminChange {
    AdminChange::Drain { timeout_secs, then, persistent: true }
}

fn administer(state: &mut State, last: u8, change: AdminChange, now: Duration) {
    state.set_backend(key(1), address(last), (None, Some(change)), now).unwrap();
}

fn observe(state: &mut State, last: u8, up: bool, now: Duration) {
    let target = Target { service: key(1), backend: address(last) };
    state.observe(target, Some(up), String::new(), now);
}

fn standing(state: &State, last: u8) -> Standing {
    found(state, last).share.standing
}

fn found(state: &State, last: u8) -> &Backend {
    state.backends_of(key(1)).find(|backend| backend.config.address == address(last)).unwrap()
}

/// A service of these backends, checked, with slow start over 10 s.
fn slow(backends: &[(u8, u16)]) -> model::Service {
    let slow_start = Some(SlowStart { secs: 10, exponent: 1.0 });
    let policy = Policy { slow_start, ..Policy::default() };
    model::Service { check: Some(check()), policy, ..service(1, backends) }
}

fn with(wanted: model::Service) -> State {
    let mut state = state();
    state.replace(ground(), &[wanted], NOW).unwrap();
    state
}

#[test]
fn a_drain_ends_as_was_asked_for() {
    for then in [Then::Keep, Then::Remove, Then::Reset] {
        let mut state = with(service(1, &[(11, 1), (12, 1)]));
        administer(&mut state, 11, drain(Some(5), then), NOW);
        assert_eq!(candidates(&state, key(1)), [(12, 1)]);
        assert_eq!(found(&state, 11).wish.drain().unwrap().deadline, Some(5 * SECOND));
        assert_eq!(state.pass_time(4 * SECOND), Passed::default());
        assert_eq!((standing(&state, 11), found(&state, 11).fate), (Standing::Draining, Fate::Keep));
        let passed = state.pass_time(5 * SECOND);
        let drained = Drained { service: key(1), address: address(11), then };
        assert_eq!(passed, Passed { drained: vec![drained], changed: true });
        let left: Vec<_> = state.backends_of(key(1)).map(|backend| backend.fate).collect();
        match then {
            Then::Keep => assert_eq!(left, [Fate::Keep, Fate::Keep]),
            Then::Reset => assert_eq!(left, [Fate::Reset, Fate::Keep]),
            Then::Remove => assert_eq!(left, [Fate::Keep]),
        }
        assert_eq!(candidates(&state, key(1)), [(12, 1)]);
        assert!(state.timed.is_empty(), "nothing is left to wait for");
        assert_eq!(state.pass_time(50 * SECOND), Passed::default());
    }
}

#[test]
fn a_drain_may_be_called_off() {
    let mut state = with(service(1, &[(11, 1), (12, 1)]));
    administer(&mut state, 11, drain(Some(5), Then::Remove), NOW);
    administer(&mut state, 11, AdminChange::Enabled, SECOND);
    assert_eq!(candidates(&state, key(1)), [(11, 1), (12, 1)]);
    assert_eq!(state.pass_time(50 * SECOND), Passed::default());
    assert_eq!(state.backends_of(key(1)).count(), 2);
    // A drain that is over and begun again begins anew.
    administer(&mut state, 11, drain(Some(5), Then::Reset), 60 * SECOND);
    state.pass_time(65 * SECOND);
    administer(&mut state, 11, drain(None, Then::Keep), 66 * SECOND);
    assert_eq!(found(&state, 11).fate, Fate::Keep);
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let mut state = with(service(1, &[(11, 1)]));
    for change in [
        (None, None),
        (Some(4), Some(drain(None, Then::Remove))),
        (Some(4), Some(drain(Some(0), Then::Keep))),
        (Some(4), Some(drain(Some(u32::MAX), Then::Keep))),
    ] {
        let error = state.set_backend(key(1), address(11), change, NOW).unwrap_err();
        assert!(error.code == code::INVALID_CONFIG && error.message.matches("; ").count() == 2, "{error}");
    }
    assert_eq!(candidates(&state, key(1)), [(11, 1)], "not even the weight changed");
}

#[test]
fn flows_of_a_disabled_backend_end_unless_they_are_kept() {
    let mut state = with(service(1, &[(11, 1), (12, 1)]));
    let disabled = |flows| AdminChange::Disabled { flows };
    administer(&mut state, 11, disabled(None), NOW);
    assert_eq!((standing(&state, 11), found(&state, 11).fate), (Standing::Disabled, Fate::Reset));
    administer(&mut state, 11, disabled(Some(Fate::Keep)), NOW);
    assert_eq!(found(&state, 11).fate, Fate::Keep);
    let policy = Policy { on_disabled: Fate::Reschedule, ..Policy::default() };
    let mut other = with(model::Service { policy, ..service(1, &[(11, 1)]) });
    administer(&mut other, 11, disabled(None), NOW);
    assert_eq!(found(&other, 11).fate, Fate::Reschedule);
}

#[test]
fn flows_of_a_backend_that_is_down_are_as_the_protocol_has_it() {
    let fate = |key: &str, policy: Policy| {
        let key: ServiceKey = key.parse().unwrap();
        let check = model::Check { port: Some(80), ..check() };
        let mut state = with(model::Service { key, policy, check: Some(check), ..service(1, &[(11, 1)]) });
        let target = Target { service: key, backend: address(11) };
        state.observe(target, Some(false), String::new(), NOW);
        state.backends_of(key).next().unwrap().fate
    };
    let chosen = |fate| Policy { on_down: Some(fate), ..Policy::default() };
    assert_eq!(fate("tcp:192.0.2.1:80", Policy::default()), Fate::Keep);
    assert_eq!(fate("udp:192.0.2.1:80", Policy::default()), Fate::Reschedule);
    assert_eq!(fate("tcp:192.0.2.1:80", chosen(Fate::Reset)), Fate::Reset);
    assert_eq!(fate("udp:192.0.2.1:80", chosen(Fate::Keep)), Fate::Keep);
    let open = Policy { fail_open: Some(50), ..chosen(Fate::Reset) };
    assert_eq!(fate("tcp:192.0.2.1:80", open), Fate::Keep, "it serves again");
}

#[test]
fn nobody_ramps_when_the_appliance_starts() {
    let mut state = with(slow(&[(11, 2), (12, 1)]));
    assert_eq!(candidates(&state, key(1)), [(11, 2), (12, 1)]);
    assert_eq!(state.pass_time(SECOND), Passed::default());
    // Nor in a service that is new as a whole, nor when its file is read again.
    state.replace(ground(), &[slow(&[(11, 2), (12, 1)])], 2 * SECOND).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 2), (12, 1)]);
}

#[test]
fn whoever_comes_back_ramps() {
    let both = |state: &State| candidates(state, key(1));
    let begin = [(11, 200), (12, 1)];
    let mut state = with(slow(&[(11, 2), (12, 1)]));
    observe(&mut state, 12, false, 10 * SECOND);
    assert_eq!(both(&state), [(11, 2)]);
    observe(&mut state, 12, true, 20 * SECOND);
    assert_eq!((both(&state), standing(&state, 12)), (begin.to_vec(), Standing::Ramping));
    assert!(state.pass_time(25 * SECOND).changed);
    assert_eq!(both(&state), [(11, 200), (12, 50)]);
    assert!(!state.pass_time(25 * SECOND + SECOND / 2).changed, "it steps at whole seconds");
    assert!(state.pass_time(30 * SECOND).changed);
    assert_eq!(both(&state), [(11, 2), (12, 1)]);
    assert!(state.timed.is_empty());
    administer(&mut state, 12, AdminChange::Disabled { flows: None }, 40 * SECOND);
    administer(&mut state, 12, AdminChange::Enabled, 50 * SECOND);
    assert_eq!(both(&state), begin, "enabled again");
    // It falls while it ramps, and begins at the beginning.
    state.pass_time(55 * SECOND);
    observe(&mut state, 12, false, 55 * SECOND);
    observe(&mut state, 12, true, 56 * SECOND);
    assert_eq!(both(&state), begin);
    state.pass_time(90 * SECOND);
    set_weight(&mut state, key(1), address(12), 0).unwrap();
    state.set_backend(key(1), address(12), (Some(1), None), 90 * SECOND).unwrap();
    assert_eq!(both(&state), begin, "its weight was 0");
    // Another weight is no way back.
    state.pass_time(100 * SECOND);
    state.set_backend(key(1), address(12), (Some(3), None), 100 * SECOND).unwrap();
    assert_eq!(both(&state), [(11, 2), (12, 3)]);
}

#[test]
fn whoever_is_added_ramps() {
    let mut state = with(slow(&[(11, 2)]));
    state.add_backend(key(1), backend(12, 1), false, SECOND).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 200), (12, 1)]);
    state.pass_time(20 * SECOND);
    state.replace(ground(), &[slow(&[(11, 2), (12, 1), (13, 1)])], 20 * SECOND).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 200), (12, 100), (13, 1)]);
    // One that was removed, and has flows left, is as new.
    state.pass_time(40 * SECOND);
    state.remove_backend(key(1), address(13), 40 * SECOND).unwrap();
    state.add_backend(key(1), backend(13, 1), false, 50 * SECOND).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 200), (12, 100), (13, 1)]);
}

#[test]
fn one_that_is_drained_when_it_comes_up_ramps_when_it_is_enabled() {
    let mut state = with(slow(&[(11, 2), (12, 1)]));
    administer(&mut state, 12, drain(None, Then::Keep), NOW);
    observe(&mut state, 12, false, SECOND);
    observe(&mut state, 12, true, 2 * SECOND);
    administer(&mut state, 12, AdminChange::Enabled, 100 * SECOND);
    assert_eq!(candidates(&state, key(1)), [(11, 200), (12, 1)]);
}

#[test]
fn the_operators_word_outlives_a_reload_unless_the_file_has_a_new_one() {
    let configured = |admin| {
        let mut wanted = service(1, &[(11, 1), (12, 1)]);
        wanted.backends[0].admin = admin;
        wanted
    };
    let mut state = with(configured(Admin::Enabled));
    administer(&mut state, 11, drain(Some(60), Then::Remove), NOW);
    state.replace(ground(), &[configured(Admin::Enabled)], SECOND).unwrap();
    assert_eq!(found(&state, 11).wish.drain().unwrap().deadline, Some(60 * SECOND));
    state.replace(ground(), &[configured(Admin::Disabled)], SECOND).unwrap();
    assert_eq!(found(&state, 11).wish, Wish::Disabled { flows: None });
    state.replace(ground(), &[configured(Admin::Enabled)], SECOND).unwrap();
    assert_eq!(found(&state, 11).wish, Wish::Enabled);
    // At the start the file is all there is.
    assert_eq!(candidates(&with(configured(Admin::Drain)), key(1)), [(12, 1)]);
}

#[test]
fn sorry_backends_serve_while_there_is_no_quorum() {
    let policy = Policy {
        quorum: Quorum { weight: 2, hysteresis: 0 },
        sorry: vec![backend(19, 1)],
        ..Policy::default()
    };
    let mut state = with(model::Service { check: Some(check()), policy, ..service(1, &[(11, 1), (12, 1)]) });
    let serving = |state: &State| state.services().next().unwrap().serving;
    assert_eq!((candidates(&state, key(1)), serving(&state)), (vec![(11, 1), (12, 1)], Serving::Backends));
    assert_eq!(state.checks().count(), 2, "a sorry backend has no check");
    observe(&mut state, 12, false, NOW);
    assert_eq!((candidates(&state, key(1)), serving(&state)), (vec![(19, 1)], Serving::Sorry));
    assert_eq!((standing(&state, 11), standing(&state, 12)), (Standing::NoQuorum, Standing::Down));
    observe(&mut state, 12, true, NOW);
    assert_eq!(
        (candidates(&state, key(1)), standing(&state, 19)),
        (vec![(11, 1), (12, 1)], Standing::Standby)
    );
    // It may be drained and removed as any other.
    administer(&mut state, 19, drain(Some(1), Then::Remove), NOW);
    observe(&mut state, 12, false, NOW);
    assert_eq!((candidates(&state, key(1)), serving(&state)), (vec![(11, 1)], Serving::Backends));
    state.pass_time(SECOND);
    assert_eq!(state.backends_of(key(1)).count(), 2);
    state.add_backend(key(1), backend(18, 5), true, SECOND).unwrap();
    assert_eq!(candidates(&state, key(1)), [(18, 5)]);
}

/// The last bytes of the addresses of those that have slots of the scheduler's table, with both weights.
fn members(state: &State) -> Vec<(u8, u32, u32)> {
    let planned = state.services().next().unwrap().planned.as_ref().unwrap();
    let last = |address: SocketAddr| match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(address) => address.ip().octets()[15],
    };
    planned.members.iter().map(|it| (last(it.address), it.weight, it.full_weight)).collect()
}

#[test]
fn tables_leave_slots_to_those_that_come_back_to_them() {
    for (scheduler, quiesced, drained, down) in
        [(Scheduler::Maglev, true, true, true), (Scheduler::Sh, true, false, false)]
    {
        let mut wanted = model::Service { scheduler, ..slow(&[(11, 2), (12, 3)]) };
        wanted.policy.sorry = vec![backend(19, 1)];
        let kept = |keeps: bool| if keeps { vec![(11, 2, 2), (12, 0, 3)] } else { vec![(11, 2, 2)] };
        let mut state = with(wanted.clone());
        assert_eq!(members(&state), [(11, 2, 2), (12, 3, 3)]);
        set_weight(&mut state, key(1), address(12), 0).unwrap();
        assert_eq!(members(&state), kept(quiesced), "{scheduler}");
        set_weight(&mut state, key(1), address(12), 3).unwrap();
        // It ramps by its share of the table.
        assert_eq!(members(&state), [(11, 200, 200), (12, 1, 300)]);
        let mut state = with(wanted.clone());
        administer(&mut state, 12, drain(None, Then::Keep), NOW);
        assert_eq!(members(&state), kept(drained), "{scheduler}");
        let mut state = with(wanted);
        observe(&mut state, 12, false, NOW);
        assert_eq!(members(&state), kept(down), "{scheduler}");
        observe(&mut state, 11, false, NOW);
        assert_eq!(members(&state), [(19, 1, 1)], "the sorry backend has the table for itself");
    }
}

#[test]
fn clients_are_bound_to_whom_they_may_come_back_to() {
    let spare = model::Backend { address: address(19), ..backend(19, 1) };
    let policy =
        Policy { quorum: Quorum { weight: 2, hysteresis: 0 }, sorry: vec![spare], ..Policy::default() };
    let wanted = model::Service { policy, check: Some(check()), ..service(1, &[(11, 1), (12, 1), (13, 1)]) };
    let mut state = with(wanted);
    let bound = |state: &State| -> Vec<u8> {
        let service = state.services().next().unwrap();
        let all = state.slots_of(service).filter(|(slot, backend)| service.binds(*slot, backend));
        all.map(|(_, backend)| backend.config.address.to_string()[11..13].parse().unwrap()).collect()
    };
    assert_eq!(bound(&state), [11, 12, 13], "none to the sorry backend");
    let target = Target { service: key(1), backend: address(11) };
    state.hear_agent(target, Ok(Report::of("down")), NOW);
    assert_eq!(bound(&state), [12, 13], "its agent says that it cannot serve");
    administer(&mut state, 12, drain(None, Then::Keep), NOW);
    assert_eq!(standing(&state, 13), Standing::NoQuorum);
    assert_eq!(bound(&state), [12], "drained; and where the sorry backend serves, the live ones do not");
    observe(&mut state, 12, false, NOW);
    assert!(bound(&state).is_empty());
}

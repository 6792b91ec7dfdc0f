//! Changes, refusals and slots, without a socket or a clock.

use std::cell::RefCell;

use config::model::Policy;
use config::words::{Admin, ClientAddress, Encapsulation, Mode, NoBackend, NoFlow, ProxyHeader, Scheduler};
use dataplane::load::Load;
use dataplane::snapshot::PoolSlot;

use super::*;
use crate::health::agent::Report;
use crate::pools::Locals;

mod policies;

const NOW: Duration = Duration::ZERO;
const LATER: Duration = Duration::from_secs(9);

const CONFIG: &str = r#"
[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["198.51.100.254/24"]
"#;

/// The ground of a configuration with these pools and classes.
fn ground_with(more: &str) -> Ground {
    let config = config::parse("test.toml", &format!("{CONFIG}{more}")).unwrap();
    Ground::new(&config, &Locals::default()).unwrap()
}

fn ground() -> Ground {
    ground_with("")
}

fn state() -> State {
    State::new(ground(), Limits { services: 3, backends: 6 })
}

fn key(last: u8) -> ServiceKey {
    format!("tcp:192.0.2.{last}:80").parse().unwrap()
}

fn address(last: u8) -> SocketAddr {
    format!("198.51.100.{last}:8000").parse().unwrap()
}

fn backend(last: u8, weight: u16) -> model::Backend {
    let (mode, tunnel) = (Mode::Nat, model::Tunnel::default());
    let (admin, server_id) = (Admin::Enabled, None);
    let address = address(last);
    model::Backend { address, mode, tunnel, weight, server_id, upper: 0, lower: 0, admin, priority: 0 }
}

fn check() -> model::Check {
    let kind = model::CheckKind::Tcp;
    model::Check { kind, port: None, interval_ms: 1000, timeout_ms: 500, rise: 2, fall: 3 }
}

fn set_weight(state: &mut State, key: ServiceKey, address: SocketAddr, weight: u16) -> Result<(), ApiError> {
    state.set_backend(key, address, (Some(weight), None), NOW)
}

fn service(last: u8, backends: &[(u8, u16)]) -> model::Service {
    model::Service {
        name: format!("web{last}"),
        key: key(last),
        scheduler: Scheduler::Wrr,
        hash: None,
        quic: None,
        expiration_secs: None,
        persistence: None,
        limits: None,
        check: None,
        agent: None,
        no_backend: NoBackend::Icmp,
        no_flow: NoFlow::Drop,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        client_address: ClientAddress::None,
        echo: true,
        policy: Policy::default(),
        backends: backends.iter().map(|&(last, weight)| backend(last, weight)).collect(),
    }
}

/// The last bytes of the addresses of those that take new flows, with their weights.
fn candidates(state: &State, key: ServiceKey) -> Vec<(u8, u32)> {
    let slot = state.slot_of[&key];
    let compiled = &state.service(slot).unwrap().compiled;
    let last = |slot: BackendSlot| match state.backend(slot).unwrap().config.address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(address) => address.ip().octets()[15],
    };
    compiled.candidates.iter().map(|candidate| (last(candidate.backend), candidate.weight)).collect()
}

fn slot(state: &State, key: ServiceKey, last: u8) -> BackendSlot {
    state.find_backend(state.slot_of[&key], address(last)).unwrap()
}

fn version(state: &State, key: ServiceKey) -> u64 {
    state.service(state.slot_of[&key]).unwrap().compiled.version
}

/// As `check-send-proxy` of HAProxy: checks begin as clients do where clients do, unless they say otherwise.
#[test]
fn checks_bring_the_header_that_clients_have() {
    use ClientAddress::{None as Untold, ProxyV1, ProxyV2, Toa};
    let header = |client_address, port, proxy| {
        let kind = model::CheckKind::Http { path: "/".to_owned(), host: None, status: None, proxy };
        let check = Some(model::Check { kind, port, ..check() });
        let service = model::Service { check, client_address, ..service(1, &[(11, 1)]) };
        let mut state = state();
        state.replace(ground(), &[service], NOW).unwrap();
        match state.checks_of(key(1)).next().unwrap().1.kind {
            model::CheckKind::Http { proxy, .. } => proxy,
            model::CheckKind::Tcp => None,
        }
    };
    for (client_address, port, given, used) in [
        (ProxyV1, None, None, ProxyHeader::V1),
        (ProxyV2, None, None, ProxyHeader::V2),
        (Toa, None, None, ProxyHeader::None),
        (Untold, None, None, ProxyHeader::None),
        (ProxyV2, Some(8080), None, ProxyHeader::None),
        (ProxyV2, None, Some(ProxyHeader::None), ProxyHeader::None),
        (ProxyV2, Some(8080), Some(ProxyHeader::V1), ProxyHeader::V1),
        (Untold, None, Some(ProxyHeader::V2), ProxyHeader::V2),
    ] {
        assert_eq!(header(client_address, port, given), Some(used), "{client_address} {port:?} {given:?}");
    }
}

#[test]
fn services_and_backends_come_and_go() {
    let mut state = state();
    state.add_service(service(1, &[(11, 4), (12, 3)]), NOW).unwrap();
    state.add_backend(key(1), backend(13, 2), false, NOW).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 4), (12, 3), (13, 2)]);
    set_weight(&mut state, key(1), address(12), 0).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 4), (13, 2)]);
    state.remove_backend(key(1), address(11), NOW).unwrap();
    assert_eq!(candidates(&state, key(1)), [(13, 2)]);
    assert_eq!(state.services().next().unwrap().backends.len(), 2);
    state.remove_service(key(1), NOW).unwrap();
    assert_eq!(state.services().count(), 0);
    assert!(candidates(&state, key(1)).is_empty(), "its slot stays while flows may name it");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut state = state();
    state.add_service(service(1, &[(11, 1)]), NOW).unwrap();
    let before = version(&state, key(1));
    let off_link = model::Backend { mode: Mode::Dr, ..backend(12, 1) };
    let tunnel = model::Tunnel { spread: "198.51.100.8/29".parse().ok(), ..model::Tunnel::default() };
    let over_another = model::Backend {
        mode: Mode::Tunnel,
        tunnel,
        address: "198.51.100.20:80".parse().unwrap(),
        ..backend(20, 1)
    };
    let missing = address(99);
    let refused = [
        (state.add_service(service(1, &[]), NOW), code::EXISTS),
        (state.add_service(service(2, &[(11, 1), (11, 1)]), NOW), code::INVALID_CONFIG),
        (
            state.add_service(service(2, &[(11, 1), (12, 1), (13, 1), (14, 1), (15, 1), (16, 1)]), NOW),
            code::LIMIT,
        ),
        (state.remove_service(key(9), NOW), code::NOT_FOUND),
        (state.add_backend(key(9), backend(11, 1), false, NOW), code::NOT_FOUND),
        (state.add_backend(key(1), backend(11, 1), false, NOW), code::EXISTS),
        (state.add_backend(key(1), off_link, false, NOW), code::INVALID_CONFIG),
        (state.add_backend(key(1), over_another, false, NOW), code::INVALID_CONFIG),
        (state.remove_backend(key(1), missing, NOW), code::NOT_FOUND),
        (set_weight(&mut state, key(1), missing, 1), code::NOT_FOUND),
    ];
    for (number, (result, code)) in refused.into_iter().enumerate() {
        let error = result.expect_err(&format!("case {number}"));
        assert_eq!(error.code, code, "{error}");
        assert_eq!(error.message.matches(';').count(), 2, "{error}");
    }
    assert_eq!((state.services().count(), version(&state, key(1))), (1, before));
}

#[test]
fn schedulers_hear_only_of_changes_that_concern_them() {
    let mut state = state();
    state.add_service(service(1, &[(11, 1), (12, 1)]), NOW).unwrap();
    let before = version(&state, key(1));
    set_weight(&mut state, key(1), address(11), 1).unwrap();
    state.replace(ground(), &[service(1, &[(11, 1), (12, 1)])], NOW).unwrap();
    assert_eq!(version(&state, key(1)), before);
    set_weight(&mut state, key(1), address(11), 2).unwrap();
    assert!(version(&state, key(1)) > before);
}

#[test]
fn health_takes_out_and_brings_back() {
    let mut state = state();
    let checked = model::Service { check: Some(check()), ..service(1, &[(11, 1), (12, 1)]) };
    state.add_service(checked, NOW).unwrap();
    assert_eq!(state.checks().count(), 2);
    let target = Target { service: key(1), backend: address(11) };
    assert!(!state.observe(target, None, "HTTP 200 in 1 ms".to_owned(), LATER));
    assert!(state.observe(target, Some(false), "connection refused".to_owned(), LATER));
    assert_eq!(candidates(&state, key(1)), [(12, 1)]);
    let down = state.backend(slot(&state, key(1), 11)).unwrap();
    assert_eq!((down.health, down.reason.as_str(), down.since), (Health::Down, "connection refused", LATER));
    set_weight(&mut state, key(1), address(11), 5).unwrap();
    assert_eq!(candidates(&state, key(1)), [(12, 1)], "a weight heals nothing");
    assert!(state.observe(target, Some(true), "connected".to_owned(), LATER));
    assert_eq!(candidates(&state, key(1)), [(11, 5), (12, 1)]);
    let stranger = Target { service: key(2), backend: address(11) };
    assert!(!state.observe(stranger, Some(false), String::new(), LATER));
}

#[test]
fn reload_keeps_health_slots_and_flows_of_what_stays() {
    let mut state = state();
    let checked = |backends| model::Service { check: Some(check()), ..service(1, backends) };
    state.add_service(checked(&[(11, 1), (12, 1)]), NOW).unwrap();
    let target = Target { service: key(1), backend: address(11) };
    state.observe(target, Some(false), "connection refused".to_owned(), NOW);
    let before = [slot(&state, key(1), 11), slot(&state, key(1), 12)];
    state.replace(ground(), &[service(2, &[(11, 1)]), checked(&[(13, 1), (12, 7), (11, 1)])], LATER).unwrap();
    assert_eq!(candidates(&state, key(1)), [(13, 1), (12, 7)]);
    assert_eq!([slot(&state, key(1), 11), slot(&state, key(1), 12)], before);
    let keys: Vec<ServiceKey> = state.services().map(|service| service.config.key).collect();
    assert_eq!(keys, [key(2), key(1)], "in the order of the file");
    assert!(state.services().map(|service| service.compiled.rank).is_sorted());
    state.replace(ground(), &[service(1, &[(11, 1)])], LATER).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 1)], "without a check it counts as up");
}

#[test]
fn a_reload_that_changes_the_mode_of_a_dead_backend_does_not_revive_it() {
    let mut state = state();
    let checked = |mode| {
        let backend = model::Backend { mode, address: "198.51.100.11:80".parse().unwrap(), ..backend(11, 1) };
        model::Service { check: Some(check()), backends: vec![backend], ..service(1, &[]) }
    };
    state.add_service(checked(Mode::Nat), NOW).unwrap();
    let target = Target { service: key(1), backend: "198.51.100.11:80".parse().unwrap() };
    state.observe(target, Some(false), "connection refused".to_owned(), NOW);
    state.replace(ground(), &[checked(Mode::Dr)], LATER).unwrap();
    assert!(candidates(&state, key(1)).is_empty());
    assert!(state.observe(target, Some(true), "connected".to_owned(), LATER));
    assert_eq!(candidates(&state, key(1)), [(11, 1)]);
}

#[test]
fn flows_keep_the_way_in_which_their_client_was_told() {
    let mut state = state();
    let told = |client_address| {
        let backend = model::Backend { mode: Mode::FullNat, ..backend(11, 1) };
        let snat_pool = Some("out".to_owned());
        model::Service { snat_pool, client_address, backends: vec![backend], ..service(1, &[]) }
    };
    state.replace(ground_with(POOL), &[told(ClientAddress::ProxyV1)], NOW).unwrap();
    let first = state.service(ServiceSlot(0)).unwrap().backends[0];
    state.replace(ground_with(POOL), &[told(ClientAddress::ProxyV2)], NOW).unwrap();
    let service = state.service(ServiceSlot(0)).unwrap();
    let ways = |slot: BackendSlot| state.backend(slot).unwrap().client_address;
    assert_eq!(service.retired_backends, [first]);
    assert_eq!((ways(first), ways(service.backends[0])), (ClientAddress::ProxyV1, ClientAddress::ProxyV2));
}

#[test]
fn a_reload_that_finds_no_room_changes_nothing() {
    let mut state = state();
    state.add_service(service(1, &[(11, 1)]), NOW).unwrap();
    let many: Vec<_> = (2..6).map(|last| service(last, &[])).collect();
    assert_eq!(state.replace(ground(), &many, NOW).unwrap_err().code, code::LIMIT);
    assert_eq!(candidates(&state, key(1)), [(11, 1)]);
}

#[test]
fn a_slot_is_free_when_its_last_flow_has_ended_and_counters_go_on() {
    let counters = RefCell::new(HashMap::<BackendSlot, (Counters, u64)>::new());
    let counted = |slot: BackendSlot| counters.borrow().get(&slot).copied().unwrap_or_default();
    let conns = |conns| Counters { conns, ..Counters::default() };
    let mut state = state();
    state.add_service(service(1, &[(11, 1), (12, 1)]), NOW).unwrap();
    let gone = slot(&state, key(1), 11);
    counters.borrow_mut().insert(gone, (conns(10), 2));
    state.remove_backend(key(1), address(11), NOW).unwrap();
    assert!(state.has_retired());
    assert!(!state.free_retired(counted), "two flows are left");
    counters.borrow_mut().insert(gone, (conns(10), 0));
    assert!(state.free_retired(counted));
    assert!(!state.has_retired());
    let past = state.services().next().unwrap().past;
    assert_eq!(past, conns(10));
    let mut add = |last| {
        state.add_backend(key(1), backend(last, 1), false, NOW).unwrap();
        slot(&state, key(1), last)
    };
    assert!((13..17).all(|last| add(last) != gone), "slots are used again as late as possible");
    assert_eq!(add(17), gone, "but used again");
    counters.borrow_mut().insert(gone, (conns(15), 1));
    assert_eq!(state.since_base(gone, conns(15)), conns(5), "and count anew");
}

#[test]
fn a_backend_that_comes_back_in_time_keeps_its_flows() {
    let mut state = state();
    state.add_service(service(1, &[(11, 1)]), NOW).unwrap();
    let before = slot(&state, key(1), 11);
    state.remove_service(key(1), NOW).unwrap();
    assert!(!state.free_retired(|_| (Counters::default(), 1)));
    state.add_service(service(1, &[(11, 3)]), NOW).unwrap();
    assert_eq!((slot(&state, key(1), 11), candidates(&state, key(1))), (before, vec![(11, 3)]));
    assert!(!state.has_retired());
    let other_mode =
        model::Backend { mode: Mode::Tunnel, address: "198.51.100.12:80".parse().unwrap(), ..backend(12, 1) };
    state.add_backend(key(1), other_mode, false, NOW).unwrap();
    state.remove_service(key(1), NOW).unwrap();
    assert!(state.free_retired(|_| (Counters::default(), 0)));
    assert!(
        state.service_slots().iter().all(Option::is_none)
            && state.backend_slots().iter().all(Option::is_none)
    );
}

#[test]
fn a_backend_whose_tunnel_changes_keeps_its_flows_in_the_old_one() {
    let mut state = state();
    let tunnel = |encapsulation| {
        let tunnel = model::Tunnel { encapsulation, ..model::Tunnel::default() };
        let address = "198.51.100.11:80".parse().unwrap();
        let backend = model::Backend { mode: Mode::Tunnel, tunnel, address, ..backend(11, 1) };
        model::Service { backends: vec![backend], ..service(1, &[]) }
    };
    state.replace(ground(), &[tunnel(Encapsulation::Ipip)], NOW).unwrap();
    state.replace(ground(), &[tunnel(Encapsulation::Gre)], NOW).unwrap();
    let kinds: Vec<_> =
        state.backend_slots().iter().flatten().map(|it| it.config.tunnel.encapsulation).collect();
    assert_eq!(kinds, [Encapsulation::Ipip, Encapsulation::Gre]);
    assert!(state.has_retired() && candidates(&state, key(1)) == [(11, 1)]);
}

const POOL: &str = "[[snat_pool]]\nname = \"out\"\naddresses = [\"198.51.100.200\"]\n";
const OTHER_POOL: &str = "[[snat_pool]]\nname = \"other\"\naddresses = [\"198.51.100.201\"]\n";
const CLASS: &str = "[[class]]\nname = \"gold\"\ndscp = 46\n";

#[test]
fn services_name_pools_and_classes_by_the_numbers_of_now() {
    let mut state = State::new(ground_with(&format!("{POOL}{CLASS}")), Limits { services: 3, backends: 6 });
    let gold: ServiceKey = "tcp:192.0.2.1:80@gold".parse().unwrap();
    let wanted = model::Service { key: gold, snat_pool: Some("out".to_owned()), ..service(1, &[(11, 1)]) };
    state.add_service(wanted.clone(), NOW).unwrap();
    let compiled = |state: &State| {
        let compiled = &state.service(state.slot_of[&gold]).unwrap().compiled;
        (compiled.pool, compiled.class)
    };
    assert_eq!(compiled(&state), (Some(PoolSlot(0)), Some(0)));
    let ground = ground_with(&format!("{OTHER_POOL}{POOL}{CLASS}"));
    state.replace(ground, &[wanted], NOW).unwrap();
    assert_eq!(compiled(&state), (Some(PoolSlot(1)), Some(0)));
    state.replace(ground_with(""), &[], NOW).unwrap();
    assert_eq!(compiled(&state), (None, Some(u16::MAX)), "a class that is gone has no packets");
}

#[test]
fn services_that_meet_others_or_name_what_is_not_there_are_refused() {
    let mut state = state();
    state.add_service(service(1, &[]), NOW).unwrap();
    let range = |key: &str| model::Service { key: key.parse().unwrap(), ..service(2, &[]) };
    state.add_service(range("tcp:192.0.2.1:8000-8099"), NOW).unwrap();
    let full = model::Backend { mode: Mode::FullNat, ..backend(11, 1) };
    for wanted in [
        range("tcp:192.0.2.1:0@gold"),
        range("tcp:192.0.2.1:8050-8150"),
        model::Service { snat_pool: Some("out".to_owned()), ..service(2, &[]) },
        model::Service { backends: vec![full], ..service(2, &[]) },
    ] {
        let error = state.add_service(wanted.clone(), NOW).expect_err(&format!("{wanted:?}"));
        assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
    }
    assert_eq!(state.add_backend(key(1), full, false, NOW).unwrap_err().code, code::INVALID_CONFIG);
}

/// A service with this scheduler and three equal backends of these connections, looked at once.
fn looked_at(state: &mut State, scheduler: Scheduler, connections: [u32; 3]) {
    if state.configured(key(1)).is_none() {
        let service = service(1, &[(11, 1), (12, 1), (13, 2)]);
        state.add_service(model::Service { scheduler, ..service }, NOW).unwrap();
    }
    let slots = [11, 12, 13].map(|last| slot(state, key(1), last));
    let load = |slot| slots.iter().position(|it| *it == slot).map_or(0, |index| connections[index]);
    state.reweigh(|slot| Load::new(load(slot), 0), NOW);
}

/// What weights come to, as the API shows them.
fn effective_weights(state: &State) -> Vec<f64> {
    let services = crate::report::services(state, &[], NOW);
    services[0].backends.iter().map(|backend| backend.effective_weight).collect()
}

#[test]
fn weights_follow_connections() {
    let mut state = state();
    looked_at(&mut state, Scheduler::Observed, [4, 5, 11]);
    assert_eq!(candidates(&state, key(1)), [(11, 3), (12, 2), (13, 4)], "5 are the average of weight 1");
    assert_eq!(effective_weights(&state), [3.0, 2.0, 4.0]);
    let before = version(&state, key(1));
    looked_at(&mut state, Scheduler::Observed, [4, 5, 11]);
    assert_eq!(version(&state, key(1)), before, "nothing changed");
    state.set_backend(key(1), address(12), (Some(10), None), NOW).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 3), (12, 20), (13, 4)]);
    state.remove_service(key(1), NOW).unwrap();
    state.free_retired(|_| (Counters::default(), 0));
    looked_at(&mut state, Scheduler::Predictive, [4, 5, 11]);
    looked_at(&mut state, Scheduler::Predictive, [3, 5, 10]);
    assert_eq!(candidates(&state, key(1)), [(11, 4), (12, 1), (13, 4)]);
    looked_at(&mut state, Scheduler::Predictive, [6, 6, 6]);
    assert_eq!(candidates(&state, key(1)), [(11, 1), (12, 1), (13, 8)]);
}

#[test]
fn a_new_backend_counts_as_most_until_it_is_looked_at() {
    let mut state = state();
    looked_at(&mut state, Scheduler::Observed, [4, 5, 11]);
    state.add_backend(key(1), backend(14, 1), false, NOW).unwrap();
    assert_eq!(candidates(&state, key(1)), [(11, 3), (12, 2), (13, 4), (14, 2)]);
}

#[test]
fn weights_follow_agents() {
    let mut state = state();
    let agent = Some(model::Agent { port: 9999, interval_ms: 2000, timeout_ms: 1000 });
    let scheduler = Scheduler::DynamicRatio;
    let wanted = model::Service { scheduler, agent, ..service(1, &[(11, 4), (12, 3)]) };
    state.add_service(wanted.clone(), NOW).unwrap();
    assert_eq!(state.agents().count(), 2);
    assert_eq!(candidates(&state, key(1)), [(11, 400), (12, 300)]);
    let target = Target { service: key(1), backend: address(11) };
    for (line, changed, left) in [
        ("50%", false, &[(11, 200), (12, 300)][..]),
        ("50% ready", false, &[(11, 200), (12, 300)]),
        ("drain", true, &[(12, 300)]),
        ("100%", false, &[(12, 300)]),
        ("up ready", true, &[(11, 400), (12, 300)]),
        ("0%", true, &[(12, 300)]),
        ("75%", true, &[(11, 300), (12, 300)]),
        ("stopped", true, &[(12, 300)]),
        ("drain", false, &[(12, 300)]),
        ("ready", false, &[(12, 300)]),
        ("up 0%", false, &[(12, 300)]),
        ("256% sleepy", true, &[(11, 1024), (12, 300)]),
    ] {
        assert_eq!(state.hear_agent(target, Ok(Report::of(line)), NOW), changed, "{line}");
        let waits = !changed && candidates(&state, key(1)) != left;
        assert_eq!(state.pass_time(NOW).changed, waits, "{line}");
        assert_eq!(candidates(&state, key(1)), left, "{line}");
        let weight = |last| left.iter().find(|(of, _)| *of == last).map_or(0.0, |it| f64::from(it.1) / 100.0);
        assert_eq!(effective_weights(&state), [weight(11), weight(12)], "{line}");
    }
    assert_eq!(state.told(target), Some("256%; ignored: sleepy"));
    assert!(!state.hear_agent(target, Err("connection refused".to_owned()), NOW));
    assert_eq!(state.told(target), Some("connection refused"));
    assert_eq!(candidates(&state, key(1)), [(11, 1024), (12, 300)], "no answer changes nothing");
    let without = model::Service { scheduler: Scheduler::Wrr, agent: None, ..wanted };
    state.replace(ground(), &[without], NOW).unwrap();
    assert_eq!((candidates(&state, key(1)), state.told(target)), (vec![(11, 4), (12, 3)], Some("")));
    assert_eq!(state.agents().count(), 0);
}

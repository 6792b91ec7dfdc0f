use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use proptest::prelude::*;

use super::*;
use crate::flow::state::State;
use crate::local::LocalSlot;
use crate::snapshot::{BackendSlot, ServiceSlot};
use crate::toeplitz::Owners;

const SECRET: HashSecret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);

fn key(number: u32) -> FlowKey {
    FlowKey::new(0x0a00_0000 + number, (number * 7) as u16, ServiceSlot((number % 3) as u16))
}

fn value(number: u32) -> FlowValue {
    FlowValue::new(BackendSlot(number & 0xff_ffff), State::Established, number)
}

fn hash(table: &NarrowTable, key: FlowKey) -> FlowHash {
    table.hash_of(&key)
}

fn insert(table: &mut NarrowTable, number: u32, worth: impl Fn(FlowValue) -> Worth) -> Inserted<FlowKey> {
    let hash = hash(table, key(number));
    table.insert(hash, key(number), value(number), worth)
}

fn find(table: &NarrowTable, number: u32) -> Option<FlowValue> {
    let place = table.find(hash(table, key(number)), &key(number))?;
    Some(table.value(place).with_displaced(false))
}

fn live(_: FlowValue) -> Worth {
    Worth::Live
}

/// The count of spilled flows that each line should have, by looking at every flow.
fn assert_spill_counts<K: Key, const WAYS: usize>(table: &FlowTable<K, WAYS>) {
    let mut spilled = HashMap::new();
    for line in 0..table.lines() {
        for Record { key, flow: value, .. } in table.visit(line) {
            let hash = table.hash_of(&key);
            if value.is_displaced() {
                assert_eq!(table.alternate(hash), line);
                *spilled.entry(table.home(hash)).or_insert(0) += 1;
            } else {
                assert_eq!(table.home(hash), line);
            }
        }
    }
    for line in 0..table.lines() {
        let count = table.lines[line].spilled();
        assert!(count == SPILL_MAX || count == spilled.get(&line).copied().unwrap_or(0));
    }
}

#[test]
fn fields_keep_out_of_each_other() {
    let value = FlowValue::new(BackendSlot(0xff_ffff), State::Udp, 0x007f_ffff);
    assert_eq!((value.backend(), value.state()), (BackendSlot(0xff_ffff), State::Udp));
    assert_eq!(value.idle(0x0fff_ffff), 0);
    assert_eq!(value.0 & SPILL_MASK, 0);
    assert_eq!(FlowValue::new(BackendSlot(0), State::None, 5).idle(12), 7);
    assert_eq!(FlowValue::new(BackendSlot(0), State::None, 0x0fff_ffff).idle(0x1000_0001), 2);
    let key = FlowKey::new(0xc000_0201, 65535, ServiceSlot(9));
    assert_eq!((key.client(), key.client_port(), key.service()), (0xc000_0201, 65535, ServiceSlot(9)));
}

#[test]
fn rated_load_is_stored_whole_and_mostly_at_home() {
    let capacity = if cfg!(miri) { 200 } else { 100_000 };
    let mut table = NarrowTable::new(capacity, SECRET);
    for number in 0..capacity as u32 {
        assert!(matches!(insert(&mut table, number, live), Inserted::Placed(_)));
    }
    assert_eq!(table.len(), capacity);
    let displaced: usize =
        (0..table.lines()).map(|line| table.visit(line).filter(|its| its.flow.is_displaced()).count()).sum();
    assert!(displaced * 100 < capacity * 8, "{displaced} of {capacity}");
    for number in 0..capacity as u32 {
        assert_eq!(find(&table, number), Some(value(number)));
    }
    assert_spill_counts(&table);
}

/// Also where flows had to move to make room for others.
#[test]
fn flows_keep_their_local_ports() {
    let capacity = if cfg!(miri) { 200 } else { 10_000 };
    let mut table = NarrowTable::new(capacity, SECRET);
    table.make_room_for_ports(Some(NarrowTable::room_for_ports(capacity)));
    assert!(table.bytes() <= 36 * capacity + 72);
    let local = |number: u32| value(number).with_local(LocalSlot(number as u8));
    let mut placed = Vec::new();
    for number in 0..capacity as u32 * 7 / 4 {
        let (key, hash) = (key(number), hash(&table, key(number)));
        if let Inserted::Placed(place) = table.insert(hash, key, local(number), live) {
            table.set_port(place, number as u16);
            placed.push(number);
        }
    }
    assert!(placed.len() * 100 > capacity * 170);
    for number in placed {
        let place = table.find(hash(&table, key(number)), &key(number)).unwrap();
        let flow = local(number).with_displaced(table.value(place).is_displaced());
        let record = Record { key: key(number), flow, port: number as u16 };
        assert_eq!(table.record(place), record);
        assert_eq!(table.remove(place), record);
    }
    assert!(table.is_empty());
}

/// Also of flows that share a line, and their ports if they are of other addresses.
#[test]
fn a_wide_flow_is_found_by_its_hash_and_port() {
    let capacity = if cfg!(miri) { 50 } else { 5_000 };
    let mut table = WideTable::new(capacity, SECRET);
    let wide = |number: u32| {
        let client = u128::from(0x1_0000_0000u64 + u64::from(number));
        WideKey::new(client, 5000, ServiceSlot(1), 80).with_local_port(1 + (number / 3) as u16)
    };
    let local = |number: u32| LocalSlot((number % 3) as u8);
    let numbers = 0..2 * capacity as u32 * 9 / 10;
    let mut stored = Vec::new();
    for number in numbers {
        let key = wide(number);
        let flow = value(number).with_local(local(number));
        if let Inserted::Placed(_) = table.insert(table.hash_of(&key), key, flow, live) {
            stored.push(number);
        }
    }
    assert!(table.is_crowded() && stored.len() > capacity);
    for number in stored {
        let key = wide(number);
        let find = |slot: LocalSlot, port: u16| {
            let place = table.find_by_port(table.hash_of(&key), port, |flow| flow.local() == slot)?;
            Some(table.key(place))
        };
        assert_eq!(find(local(number), key.local_port()), Some(key));
        for (slot, port) in [(LocalSlot(3), key.local_port()), (local(number), 65_535)] {
            assert_eq!(find(slot, port), None);
        }
    }
}

#[test]
fn rated_load_of_wide_flows_is_stored_whole() {
    let capacity = if cfg!(miri) { 200 } else { 200_000 };
    let mut table = WideTable::new(capacity, SECRET);
    let key = |number: usize| {
        let client = (0x2001_0db8_0005 << 80) | (number as u128 / 4);
        WideKey::new(client, (number % 4) as u16, ServiceSlot(1), 443)
    };
    for number in 0..capacity {
        let hash = table.hash_of(&key(number));
        let inserted = table.insert(hash, key(number), value(number as u32), live);
        assert!(matches!(inserted, Inserted::Placed(_)), "{number}");
    }
    for number in 0..capacity {
        let place = table.find(table.hash_of(&key(number)), &key(number)).unwrap();
        assert_eq!(table.value(place).with_displaced(false), value(number as u32));
    }
    assert_spill_counts(&table);
}

#[test]
fn rated_load_takes_half_a_line_of_four_or_one_of_two() {
    for capacity in [1000, 1001, 9999] {
        let (narrow, wide) = (NarrowTable::new(capacity, SECRET), WideTable::new(capacity, SECRET));
        assert!(narrow.bytes() <= 32 * capacity + 64 && wide.bytes() <= 64 * capacity, "{capacity}");
    }
}

/// The address and port of a client by the number of its flow.
type Clients = fn(u32) -> (u32, u16);

/// Clients as they are found: in rows and columns of all kinds.
const CLIENTS: [Clients; 6] = [
    |flow| (0x0a00_0001 + flow / 4, 40_000 + (flow % 4) as u16),
    |flow| (0x0a00_0001 + flow, 1024),
    |flow| (0xc0a8_0000 + flow % 256, 1024 + (flow / 256) as u16),
    |flow| (0xc0a8_0000 + flow % 16, 1024 + (flow / 16) as u16),
    |flow| (0x0a00_0001 + flow / 16 * 256, 1024 + (flow % 16) as u16),
    |flow| (0x0a00_0001 + flow, 1024 + flow as u16),
];

/// How many flows of these clients find no place in a table that is rated for as many live flows.
fn refused<K: Key, const WAYS: usize>(
    flows: u32,
    secret: HashSecret,
    clients: Clients,
    key: fn(u32, u16) -> K,
) -> usize {
    let mut table = FlowTable::<K, WAYS>::new(flows as usize, secret);
    let insert = |flow| {
        let (address, port) = clients(flow);
        let key = key(address, port);
        table.insert(table.hash_of(&key), key, value(flow), live)
    };
    (0..flows).map(insert).filter(|inserted| matches!(inserted, Inserted::Full)).count()
}

/// Multiplications by one secret alone, whatever the client, were bad for one secret of a thousand, and for one that looks
/// random.
#[test]
fn rated_load_is_stored_whatever_the_clients_and_the_secret() {
    let (flows, secrets) = if cfg!(miri) { (200, 1) } else { (20_000, 40) };
    let draw = |number: u64| BuildHasherDefault::<DefaultHasher>::default().hash_one(number) | 1;
    let drawn = (1..secrets).map(|number| HashSecret([2 * number, 2 * number + 1].map(draw)));
    let bad_for_v6 = HashSecret([0xe424_e9bf_13b5_87c5, 0xe1c8_96fd_d1b4_6d95]);
    for secret in [SECRET, bad_for_v6].into_iter().chain(drawn) {
        for (number, clients) in CLIENTS.into_iter().enumerate() {
            let narrow = refused::<_, 4>(flows, secret, clients, |address, port| {
                FlowKey::new(address, port, ServiceSlot(1))
            });
            let near = refused::<_, 2>(flows, secret, clients, |address, port| {
                WideKey::new(0x2001_0db8 << 96 | u128::from(address), port, ServiceSlot(1), 443)
            });
            let far = refused::<_, 2>(flows, secret, clients, |address, port| {
                WideKey::new(u128::from(address) << 64 | 1, port, ServiceSlot(1), 443)
            });
            assert!(
                narrow.max(near).max(far) as u32 * 10_000 <= flows,
                "{secret:?}, clients {number}: {narrow} {near} {far}"
            );
        }
    }
}

#[test]
fn a_flood_beyond_a_nearly_full_table_moves_nothing() {
    const FLOOD: u32 = 2_000;
    let more = if cfg!(miri) { 3 } else { 100 };
    let mut table = NarrowTable::new(100, SECRET);
    let embryonic = |_| Worth::Embryonic { idle: 0 };
    (0..FLOOD).for_each(|number| assert!(insert(&mut table, number, embryonic) != Inserted::Full));
    assert!(table.is_nearly_full());
    let places = |table: &NarrowTable| -> HashMap<u64, Place> {
        let stored = (0..FLOOD)
            .filter_map(|number| table.find(hash(table, key(number)), &key(number)).zip(Some(key(number).0)));
        stored.map(|(place, key)| (key, place)).collect()
    };
    for number in FLOOD..FLOOD + more {
        let before = places(&table);
        match insert(&mut table, number, embryonic) {
            Inserted::Placed(_) => {}
            Inserted::Evicted(_, Record { key: gone, .. }) => {
                let after = places(&table);
                assert!(before.iter().all(|(key, place)| *key == gone.0 || after.get(key) == Some(place)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_spill_counts(&table);
}

#[test]
fn flows_that_move_in_a_crowded_table_stay_themselves() {
    let mut table = WideTable::new(100, SECRET);
    let key = |number: u32| WideKey::new(u128::from(number) + 1, 1024, ServiceSlot(1), 443);
    let mut stored = Vec::new();
    for number in 0..400 {
        let hash = table.hash_of(&key(number));
        match table.insert(hash, key(number), value(number), live) {
            Inserted::Placed(_) => stored.push(number),
            other => assert_eq!(other, Inserted::Full),
        }
    }
    assert!(stored.len() > 160 && stored.len() < 400);
    for number in stored {
        let place = table.find(table.hash_of(&key(number)), &key(number)).unwrap();
        assert_eq!(table.value(place).with_displaced(false), value(number));
    }
    assert_spill_counts(&table);
}

#[test]
fn one_client_port_has_flows_to_more_services_than_two_lines_hold() {
    fn fill<K: Key, const WAYS: usize>(key: impl Fn(ServiceSlot) -> K) {
        let mut table = FlowTable::<K, WAYS>::new(1000, SECRET);
        for service in 0..64 {
            let key = key(ServiceSlot(service));
            let inserted = table.insert(table.hash_of(&key), key, value(service.into()), live);
            assert!(matches!(inserted, Inserted::Placed(_)), "{service}");
        }
        assert_spill_counts(&table);
    }
    fill::<FlowKey, 4>(|service| FlowKey::new(0xcb00_7107, 1024, service));
    fill::<WideKey, 2>(|service| WideKey::new(0x2001_0db8 << 96 | 5, 1024, service, 443));
}

#[test]
fn the_flows_of_one_owner_reach_every_line() {
    let table = NarrowTable::new(if cfg!(miri) { 64 } else { 1 << 20 }, SECRET);
    let eighths = |line: usize| line * 8 / table.lines();
    let (mut homes, mut alternates) = ([0; 8], [0; 8]);
    let (flows, workers) = if cfg!(miri) { (400, 4) } else { (100_000, 64) };
    let owners = Owners::new(workers);
    for number in 0..flows {
        let hash = hash(&table, key(number));
        if owners.of_v4(key(number).client(), key(number).client_port()) == 3 {
            homes[eighths(table.home(hash))] += 1;
            alternates[eighths(table.alternate(hash))] += 1;
        }
    }
    let least = if cfg!(miri) { 1 } else { 130 };
    assert!(homes.iter().chain(&alternates).all(|count| *count >= least), "{homes:?} {alternates:?}");
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut table = NarrowTable::new(32, SECRET);
    let offered = if cfg!(miri) { 100 } else { 400 };
    let stored: Vec<u32> =
        (0..offered).filter(|&number| insert(&mut table, number, live) != Inserted::Full).collect();
    assert!(stored.len() > 56 && stored.len() <= 64, "{}", stored.len());
    assert!(stored.iter().all(|&number| find(&table, number).is_some()));
    assert_spill_counts(&table);
}

#[test]
fn the_longest_idle_embryonic_flow_goes_first_and_live_ones_stay() {
    let mut table = NarrowTable::new(1, SECRET);
    let worth = |value: FlowValue| match value.backend().0 {
        0..4 => Worth::Live,
        number => Worth::Embryonic { idle: 100 - number },
    };
    for number in 0..8 {
        assert!(matches!(insert(&mut table, number, worth), Inserted::Placed(_)));
    }
    assert!(
        matches!(insert(&mut table, 8, worth), Inserted::Evicted(_, Record { key: gone, .. }) if gone == key(4))
    );
    assert!(
        matches!(insert(&mut table, 9, worth), Inserted::Evicted(_, Record { key: gone, .. }) if gone == key(5))
    );
    assert!((0..4).all(|number| find(&table, number).is_some()));
    assert_eq!(insert(&mut table, 10, live), Inserted::Full);
    assert_spill_counts(&table);
}

#[test]
fn the_sweeper_visits_every_line() {
    let mut table = NarrowTable::new(50, SECRET);
    for number in 0..50 {
        insert(&mut table, number, live);
    }
    let even_is_dead =
        |value: FlowValue| if value.backend().0.is_multiple_of(2) { Worth::Dead } else { Worth::Live };
    let mut removed = 0;
    for _ in 0..table.lines() {
        table.sweep(1, even_is_dead, |_| removed += 1);
    }
    assert_eq!((removed, table.len()), (25, 25));
    assert!((0..50).all(|number| find(&table, number).is_some() == (number % 2 == 1)));
    assert_spill_counts(&table);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Settle(u32),
    Remove(u32),
    Touch(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..120u32;
    let step = prop_oneof![
        3 => number.clone().prop_map(Step::Insert),
        3 => number.clone().prop_map(Step::Settle),
        1 => number.clone().prop_map(Step::Remove),
        1 => number.prop_map(Step::Touch),
    ];
    prop::collection::vec(step, 0..if cfg!(miri) { 40 } else { 400 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
    #[test]
    fn behaves_as_a_map_that_may_refuse(steps in steps()) {
        let mut table = NarrowTable::new(40, SECRET);
        let mut model = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(number) if !model.contains_key(&number) => {
                    match insert(&mut table, number, live) {
                        Inserted::Placed(_) => { model.insert(number, value(number)); }
                        Inserted::Full => prop_assert!(model.len() > 40),
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                Step::Settle(number) if !model.contains_key(&number) => {
                    let hash = hash(&table, key(number));
                    let home = Home(table.home(hash) as u32);
                    let settled = table.settle(home, key(number), value(number));
                    if settled.is_some() {
                        prop_assert_eq!(table.find(hash, &key(number)), settled);
                        model.insert(number, value(number));
                    }
                    // What does not settle there is asked for elsewhere early.
                    prop_assert!(settled.is_some() || table.needs_alternate(home));
                }
                Step::Remove(number) => {
                    if let Some(place) = table.find(hash(&table, key(number)), &key(number)) {
                        table.remove(place);
                        prop_assert!(model.remove(&number).is_some());
                    } else {
                        prop_assert!(!model.contains_key(&number));
                    }
                }
                Step::Insert(number) | Step::Settle(number) | Step::Touch(number) => {
                    if let Some(place) = table.find(hash(&table, key(number)), &key(number)) {
                        let touched = table.value(place).seen(State::FinWait, 77);
                        table.set(place, touched);
                        model.insert(number, touched.with_displaced(false));
                    }
                }
            }
            prop_assert_eq!(table.len(), model.len());
        }
        for number in 0..120 {
            prop_assert_eq!(find(&table, number), model.get(&number).copied());
        }
        assert_spill_counts(&table);
    }
}

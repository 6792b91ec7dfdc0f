//! Templates alone: one worker, and several at the same moment.

use super::*;
use crate::flow::mapped;
use crate::testing::at_once;

const SECRET: HashSecret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);

fn key(scope: u64, client: u32, port: u16) -> Persistent {
    Persistent { scope, client: mapped(client), port }
}

#[test]
fn a_client_keeps_its_backend_until_its_time_is_over() {
    let templates = Templates::new(64, SECRET);
    let client = key(1, 7, 0);
    assert_eq!(templates.find(100, &client), None);
    assert_eq!(templates.keep(100, &client, BackendSlot(5), 300, None), BackendSlot(5));
    assert_eq!(templates.keep(110, &client, BackendSlot(6), 10, None), BackendSlot(5), "it has one");
    assert_eq!(templates.find(399, &client), Some(BackendSlot(5)));
    assert_eq!(templates.find(400, &client), None);
    assert_eq!(templates.keep(400, &client, BackendSlot(6), 300, None), BackendSlot(6), "it had one");
    assert_eq!(
        templates.keep(401, &client, BackendSlot(9), 300, Some(BackendSlot(5))),
        BackendSlot(6),
        "fit"
    );
    assert_eq!(templates.keep(401, &client, BackendSlot(9), 300, Some(BackendSlot(6))), BackendSlot(9));
    let template = Template { key: client, backend: BackendSlot(9), left: 201 };
    assert_eq!(templates.list(500, |_| Some(1)).collect::<Vec<_>>(), [template]);
}

#[test]
fn templates_are_listed_by_whom_they_belong_to() {
    let templates = Templates::new(64, SECRET);
    let keys = [key(1, 7, 0), key(1, 8, 80), key(2, 7, 0), key(3, 9, 0)];
    for (key, slot) in keys.iter().zip(1..) {
        templates.keep(0, key, BackendSlot(slot), 10, None);
    }
    let listed = |scopes: fn(u32) -> Option<u64>| -> Vec<Persistent> {
        let mut listed: Vec<_> =
            templates.list(5, |slot| scopes(slot.0)).map(|template| template.key).collect();
        listed.sort_by_key(|key| (key.scope, key.client, key.port));
        listed
    };
    assert_eq!(listed(|slot| Some([0, 1, 1, 2, 3][slot as usize])), keys);
    assert_eq!(listed(|slot| (slot < 3).then_some(1)), keys[..2], "others' backends are nobody's");
    // The third slot has a backend of the first scope by now.
    assert_eq!(listed(|slot| (slot < 4).then_some(1)), keys[..2]);
    assert_eq!((templates.used(5, 0..64), templates.capacity()), (4, 64));
    let halves = templates.used(5, 0..32) + templates.used(5, 32..64);
    assert_eq!((halves, templates.used(5, 64..99), templates.used(10, 0..64)), (4, 0, 0));
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let templates = Templates::new(8, SECRET);
    let client = key(1, 7, 0);
    templates.keep(0, &client, BackendSlot(1), 3600, None);
    let listed = |now| templates.list(now, |_| Some(1)).collect::<Vec<_>>();
    let [template] = listed(0)[..] else { panic!("one template") };
    templates.keep(0, &client, BackendSlot(2), 3600, Some(BackendSlot(1)));
    assert!(!templates.forget(&template), "it has changed");
    assert!(templates.forget(&listed(0)[0]));
    assert_eq!((templates.find(0, &client), listed(0)), (None, vec![]));
    templates.touch(0, &client, 300);
    assert_eq!(templates.find(0, &client), None, "a flow that lives does not bring it back");
    for client in 0..8 {
        templates.keep(0, &key(1, 100 + client, 0), BackendSlot(3), 5, None);
    }
    assert_eq!(templates.used(4, 0..8), 8);
    assert_eq!(templates.used(5, 0..8), 0, "no later one lives as long as it would have");
}

#[test]
fn lists_are_right_while_workers_change_templates() {
    let turns = if cfg!(miri) { 20 } else { 20_000 };
    let templates = Templates::new(8, SECRET);
    // More clients than places: each takes the place of another one. Each has a backend of its own number.
    let work = || {
        for turn in 0..turns {
            let client = 1 + turn % 16;
            templates.keep(0, &key(1, client, 0), BackendSlot(client), 10, None);
        }
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        while !workers.iter().all(|worker| worker.is_finished()) {
            for template in templates.list(0, |_| Some(1)) {
                assert_eq!(template.key, key(1, template.backend.0, 0));
            }
        }
    });
}

#[test]
fn scopes_and_ports_have_templates_of_their_own() {
    let templates = Templates::new(64, SECRET);
    let keys = [key(1, 7, 0), key(2, 7, 0), key(1, 8, 0), key(1, 7, 80), key(1, 7, 443)];
    for (key, slot) in keys.iter().zip(0..) {
        assert_eq!(templates.keep(0, key, BackendSlot(slot), 10, None), BackendSlot(slot));
    }
    for (key, slot) in keys.iter().zip(0..) {
        assert_eq!(templates.find(0, key), Some(BackendSlot(slot)));
    }
}

#[test]
fn a_living_flow_keeps_its_template_alive() {
    let templates = Templates::new(8, SECRET);
    let client = key(1, 7, 0);
    templates.keep(0, &client, BackendSlot(1), 10, None);
    templates.touch(9, &client, 300);
    assert_eq!(templates.find(68, &client), Some(BackendSlot(1)));
    templates.touch(69, &client, 300);
    assert_eq!(templates.find(69, &client), None, "it was over");
    templates.keep(100, &client, BackendSlot(1), 10, None);
    templates.touch(105, &client, 10);
    assert_eq!(templates.find(114, &client), Some(BackendSlot(1)));
    assert_eq!(templates.find(115, &client), None, "short ones are short");
    templates.keep(200, &client, BackendSlot(1), 1, None);
    assert_eq!(templates.find(204, &client), Some(BackendSlot(1)), "it is seen again before");
}

#[test]
fn where_all_places_are_taken_the_first_to_end_goes() {
    let templates = Templates::new(8, SECRET);
    for client in 0..8 {
        templates.keep(0, &key(1, 1 + client, 0), BackendSlot(client), 100 + client, None);
    }
    templates.keep(0, &key(1, 99, 0), BackendSlot(99), 500, None);
    assert_eq!(templates.find(0, &key(1, 1, 0)), None);
    assert_eq!(templates.find(0, &key(1, 99, 0)), Some(BackendSlot(99)));
    assert!((2..9).all(|client| templates.find(0, &key(1, client, 0)).is_some()));
}

/// A table of one set for each turn, with such a template.
fn tables(template: Option<(Persistent, BackendSlot)>) -> Vec<Templates> {
    let tables: Vec<_> = (0..TURNS).map(|_| Templates::new(8, SECRET)).collect();
    for (templates, (key, slot)) in tables.iter().zip(template.iter().cycle()) {
        templates.keep(0, key, *slot, 100, None);
    }
    tables
}

const TURNS: u32 = if cfg!(miri) { 3 } else { 5_000 };

#[test]
fn no_worker_puts_a_client_in_the_place_of_another_while_there_is_room() {
    let tables = tables(None);
    // Those of one worker live for a shorter time.
    let secs = |client| if client < 5 { 100 } else { 10 };
    let keep = |turn: u32, clients: Range<u32>| {
        for client in clients {
            let key = key(1, client, 0);
            tables[turn as usize].keep(0, &key, BackendSlot(client), secs(client), None);
        }
    };
    at_once(TURNS, |turn| keep(turn, 1..5), |turn| keep(turn, 5..9));
    let is_as_kept = |templates: &Templates, client| {
        let find = |now| templates.find(now, &key(1, client, 0));
        find(secs(client) - 1) == Some(BackendSlot(client)) && find(secs(client)).is_none()
    };
    let is_right = |templates: &&Templates| {
        (1..9).all(|client| is_as_kept(templates, client)) && templates.list(0, |_| Some(1)).count() == 8
    };
    assert_eq!(tables.iter().filter(is_right).count(), tables.len());
}

#[test]
fn workers_whose_clocks_differ_agree() {
    // In the first place is one that is over for one worker and alive for the other.
    let tables = tables(Some((key(1, 99, 0), BackendSlot(99))));
    let client = key(1, 7, 0);
    let keep = |turn: u32, now, slot| tables[turn as usize].keep(now, &client, BackendSlot(slot), 100, None);
    let kept = at_once(TURNS, |turn| keep(turn, 100, 1), |turn| keep(turn, 99, 2));
    let agree = |((one, other), templates): &(&(BackendSlot, BackendSlot), &Templates)| {
        one == other && templates.find(100, &client) == Some(*one)
    };
    assert_eq!(kept.iter().zip(&tables).filter(agree).count(), tables.len());
}

#[test]
fn what_another_worker_sees_alive_is_not_taken_for_over() {
    let tables = tables(Some((key(1, 99, 0), BackendSlot(99))));
    let keep = |turn: u32, now, client| {
        tables[turn as usize].keep(now, &key(1, client, 0), BackendSlot(client), 300, None)
    };
    at_once(TURNS, |turn| keep(turn, 100, 7), |turn| keep(turn, 99, 99));
    let has_both = |templates: &&Templates| {
        [7, 99].iter().all(|client| templates.find(200, &key(1, *client, 0)).is_some())
    };
    assert_eq!(tables.iter().filter(has_both).count(), tables.len());
}

#[test]
fn workers_that_replace_a_template_at_once_agree() {
    let client = key(1, 7, 0);
    let tables = tables(Some((client, BackendSlot(9))));
    let keep = |turn: u32, slot| {
        tables[turn as usize].keep(0, &client, BackendSlot(slot), 100, Some(BackendSlot(9)))
    };
    let kept = at_once(TURNS, |turn| keep(turn, 1), |turn| keep(turn, 2));
    assert_eq!(kept.iter().filter(|(one, other)| one == other).count(), kept.len());
}

#[test]
fn workers_that_meet_a_client_at_once_agree() {
    let clients = if cfg!(miri) { 8 } else { 2000 };
    let templates = Templates::new(8 * clients as usize, SECRET);
    let choose = |worker: u32| {
        let keep = |client| templates.keep(0, &key(1, client, 0), BackendSlot(worker), 100, None);
        (1..=clients).map(keep).collect::<Vec<_>>()
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| choose(2));
        (choose(1), other.join().unwrap())
    });
    let differ = one.iter().zip(&other).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 0);
}

#[test]
fn a_worker_without_its_core_keeps_nobody_waiting() {
    let templates = Templates::new(8, SECRET);
    let (mark, ways) = templates.locate(&key(1, 7, 0));
    ways[0].word.store(mark << MARK_SHIFT | CLAIM | 5, Ordering::Relaxed);
    let keep = |client| templates.keep(0, &key(1, client, 0), BackendSlot(6), 100, None);
    assert_eq!(keep(7), BackendSlot(5), "the same client goes where it sends it");
    for client in 8..99 {
        keep(client);
        assert_eq!(templates.find(0, &key(1, client, 0)), Some(BackendSlot(6)), "all others have places");
    }
    assert_eq!((templates.used(0, 0..8), templates.list(0, |_| Some(1)).count()), (7, 7));
}

//! Persistence templates: which backend a client had last, shared by all workers.
//!
//! A client's connections come from many ports, and so to all workers; each of them must know. An entry changes by
//! one compare-and-swap of one word, so that nobody ever waits. Two workers that meet a client for the first time at
//! the same moment try the same free place, and the later one takes what the earlier one chose.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Seconds;
use crate::flow::table::HashSecret;
use crate::prefetch::gathered;
use crate::snapshot::BackendSlot;

/// Places for an entry.
const WAYS: usize = 8;

/// Bits of a word for the backend's slot; the rest tells clients apart.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// Seconds for which a template lives on from when a flow of it was seen alive: as long as it lives without one, but
/// long enough for that flow to be seen again, and no longer than in IPVS.
const CHILD_SECS: RangeInclusive<Seconds> = 5..=60;

/// Who is to come back to the same backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistent {
    /// The service or group of services.
    pub scope: u64,
    /// The client's network, without the bits behind its prefix; IPv4 ones are mapped.
    pub client: u128,
    /// The port of the service, if ports have templates of their own; else 0.
    pub port: u16,
}

/// One template; half a cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Entry {
    /// The client's mark and the backend's slot; 0 is a free place. The rest follows it, and may be of the entry before
    /// for a moment.
    word: AtomicU64,
    /// The second from which it is over.
    expires: AtomicU32,
    /// The port of the service, for lists.
    port: AtomicU32,
    /// The client, for lists.
    client: [AtomicU64; 2],
}

const _: () = assert!(size_of::<Entry>() == 32);

/// A template, as it was when it was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Whose it is.
    pub key: Persistent,
    /// Where it goes.
    pub backend: BackendSlot,
    /// Seconds until it is over.
    pub left: Seconds,
}

/// The templates of all services.
#[derive(Debug)]
pub struct Templates {
    entries: Box<[Entry]>,
    secret: HashSecret,
}

impl Templates {
    /// Room for so many, at least.
    pub fn new(capacity: usize, secret: HashSecret) -> Self {
        let entries = capacity.next_multiple_of(WAYS);
        Self { entries: gathered((0..entries).map(|_| Entry::default())).into(), secret }
    }

    /// The backend that a client has, if it has one.
    pub fn find(&self, now: Seconds, key: &Persistent) -> Option<BackendSlot> {
        let (mark, ways) = self.locate(key);
        ways.iter().find_map(|entry| entry.backend_of(mark, now))
    }

    /// Gives a client this backend for so many seconds, unless it has another one by now. Returns the one it has;
    /// with `replace` that is always this one.
    ///
    /// If all places are taken, the template goes that would end first.
    pub fn keep(
        &self,
        now: Seconds,
        key: &Persistent,
        backend: BackendSlot,
        secs: Seconds,
        replace: bool,
    ) -> BackendSlot {
        let (mark, ways) = self.locate(key);
        let word = mark << SLOT_BITS | u64::from(backend.0);
        // Each turn either ends or saw another worker change an entry.
        for _ in 0..=WAYS {
            let known = ways.iter().find(|entry| entry.backend_of(mark, now).is_some());
            let Some(entry) = known.or_else(|| ways.iter().min_by_key(|entry| entry.left(now))) else {
                return backend;
            };
            let before = entry.word.load(Ordering::Acquire);
            if before >> SLOT_BITS == mark && entry.left(now) > 0 {
                entry.touch(now, secs);
                if !replace {
                    return BackendSlot((before & SLOT_MASK) as u32);
                }
                if entry.swap(before, word) {
                    return backend;
                }
            } else if entry.swap(before, 0) {
                // It must be alive at once when it is there, or the next worker would take it for free; and it lives
                // no longer because the one before it would have.
                entry.expires.store(now.saturating_add(secs), Ordering::Release);
                if entry.swap(0, word) {
                    entry.describe(key);
                    // Another worker may have put the client elsewhere since all places were looked at.
                    let first = ways.iter().find(|entry| entry.backend_of(mark, now).is_some());
                    if first.is_none_or(|first| std::ptr::eq(first, entry)) {
                        return backend;
                    }
                    entry.swap(word, 0);
                }
            }
        }
        backend
    }

    /// A flow of this client lives, so that its template, which is one of so many seconds, does for a while.
    pub fn touch(&self, now: Seconds, key: &Persistent, secs: Seconds) {
        let (mark, ways) = self.locate(key);
        let entry = ways.iter().find(|entry| entry.backend_of(mark, now).is_some());
        entry.inspect(|entry| entry.touch(now, secs.clamp(*CHILD_SECS.start(), *CHILD_SECS.end())));
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// How many of these places have a template.
    pub fn used(&self, now: Seconds, places: Range<usize>) -> usize {
        let places = self.entries.get(places).unwrap_or_default();
        places.iter().filter(|entry| entry.left(now) > 0).count()
    }

    /// The templates whose scope `scope_of` knows by their backend.
    ///
    /// Any thread may ask while workers change them, since what an entry says of its client counts only if it makes
    /// the entry's own mark: one that is being changed is left out, and so is one whose backend's slot has another
    /// service's backend by now.
    pub fn list<S>(&self, now: Seconds, scope_of: S) -> impl Iterator<Item = Template>
    where
        S: Fn(BackendSlot) -> Option<u64>,
    {
        self.entries.iter().filter_map(move |entry| {
            let word = entry.word.load(Ordering::Acquire);
            let backend = BackendSlot((word & SLOT_MASK) as u32);
            let left = entry.left(now);
            let scope = scope_of(backend).filter(|_| left > 0)?;
            let [high, low] = entry.client.each_ref().map(|half| half.load(Ordering::Relaxed));
            let client = u128::from(high) << 64 | u128::from(low);
            let key = Persistent { scope, client, port: entry.port.load(Ordering::Relaxed) as u16 };
            let (mark, ways) = self.locate(&key);
            let is_here = ways.iter().any(|way| std::ptr::eq(way, entry));
            (is_here && mark == word >> SLOT_BITS).then_some(Template { key, backend, left })
        })
    }

    /// Forgets a template, unless its client has another backend by now. Returns whether it did. Flows stay where
    /// they are.
    pub fn forget(&self, template: &Template) -> bool {
        let (mark, ways) = self.locate(&template.key);
        let word = mark << SLOT_BITS | u64::from(template.backend.0);
        ways.iter().any(|entry| entry.swap(word, 0))
    }

    /// A client's mark, never 0, and the places where it may be.
    fn locate(&self, key: &Persistent) -> (u64, &[Entry]) {
        let hash = self.secret.hash_any(key.client, key.port).with_scope(key.scope);
        let sets = self.entries.len() / WAYS;
        // The mark has the low bits, the set the high ones.
        let set = ((u128::from(hash) * sets as u128) >> 64) as usize;
        let ways = self.entries.get(set * WAYS..(set + 1) * WAYS).unwrap_or_default();
        ((hash & (u64::MAX >> SLOT_BITS)).max(1), ways)
    }
}

impl Entry {
    fn backend_of(&self, mark: u64, now: Seconds) -> Option<BackendSlot> {
        let word = self.word.load(Ordering::Acquire);
        (word >> SLOT_BITS == mark && self.left(now) > 0).then_some(BackendSlot((word & SLOT_MASK) as u32))
    }

    /// Seconds until it is over; 0 if it is, or there is none.
    fn left(&self, now: Seconds) -> Seconds {
        match self.word.load(Ordering::Acquire) {
            0 => 0,
            _ => self.expires.load(Ordering::Acquire).saturating_sub(now),
        }
    }

    /// Changes the word if it is still `before`.
    fn swap(&self, before: u64, word: u64) -> bool {
        self.word.compare_exchange(before, word, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn touch(&self, now: Seconds, secs: Seconds) {
        self.expires.fetch_max(now.saturating_add(secs), Ordering::AcqRel);
    }

    fn describe(&self, key: &Persistent) {
        self.port.store(key.port.into(), Ordering::Relaxed);
        self.client[0].store((key.client >> 64) as u64, Ordering::Relaxed);
        self.client[1].store(key.client as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::mapped;

    const SECRET: HashSecret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);

    fn key(scope: u64, client: u32, port: u16) -> Persistent {
        Persistent { scope, client: mapped(client), port }
    }

    #[test]
    fn a_client_keeps_its_backend_until_its_time_is_over() {
        let templates = Templates::new(64, SECRET);
        let client = key(1, 7, 0);
        assert_eq!(templates.find(100, &client), None);
        assert_eq!(templates.keep(100, &client, BackendSlot(5), 300, false), BackendSlot(5));
        assert_eq!(templates.keep(110, &client, BackendSlot(6), 10, false), BackendSlot(5), "it has one");
        assert_eq!(templates.find(399, &client), Some(BackendSlot(5)));
        assert_eq!(templates.find(400, &client), None);
        assert_eq!(templates.keep(400, &client, BackendSlot(6), 300, false), BackendSlot(6), "it had one");
        assert_eq!(templates.keep(401, &client, BackendSlot(9), 300, true), BackendSlot(9), "replaced");
        let template = Template { key: client, backend: BackendSlot(9), left: 201 };
        assert_eq!(templates.list(500, |_| Some(1)).collect::<Vec<_>>(), [template]);
    }

    #[test]
    fn templates_are_listed_by_whom_they_belong_to() {
        let templates = Templates::new(64, SECRET);
        let keys = [key(1, 7, 0), key(1, 8, 80), key(2, 7, 0), key(3, 9, 0)];
        for (key, slot) in keys.iter().zip(1..) {
            templates.keep(0, key, BackendSlot(slot), 10, false);
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
        templates.keep(0, &client, BackendSlot(1), 3600, false);
        let listed = |now| templates.list(now, |_| Some(1)).collect::<Vec<_>>();
        let [template] = listed(0)[..] else { panic!("one template") };
        templates.keep(0, &client, BackendSlot(2), 3600, true);
        assert!(!templates.forget(&template), "it has changed");
        assert!(templates.forget(&listed(0)[0]));
        assert_eq!((templates.find(0, &client), listed(0)), (None, vec![]));
        templates.touch(0, &client, 300);
        assert_eq!(templates.find(0, &client), None, "a flow that lives does not bring it back");
        for client in 0..8 {
            templates.keep(0, &key(1, 100 + client, 0), BackendSlot(3), 5, false);
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
                templates.keep(0, &key(1, client, 0), BackendSlot(client), 10, false);
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
            assert_eq!(templates.keep(0, key, BackendSlot(slot), 10, false), BackendSlot(slot));
        }
        for (key, slot) in keys.iter().zip(0..) {
            assert_eq!(templates.find(0, key), Some(BackendSlot(slot)));
        }
    }

    #[test]
    fn a_living_flow_keeps_its_template_alive() {
        let templates = Templates::new(8, SECRET);
        let client = key(1, 7, 0);
        templates.keep(0, &client, BackendSlot(1), 10, false);
        templates.touch(9, &client, 300);
        assert_eq!(templates.find(68, &client), Some(BackendSlot(1)));
        templates.touch(69, &client, 300);
        assert_eq!(templates.find(69, &client), None, "it was over");
        templates.keep(100, &client, BackendSlot(1), 10, false);
        templates.touch(105, &client, 10);
        assert_eq!(templates.find(114, &client), Some(BackendSlot(1)));
        assert_eq!(templates.find(115, &client), None, "short ones are short");
        templates.keep(200, &client, BackendSlot(1), 1, false);
        templates.touch(200, &client, 1);
        assert_eq!(templates.find(204, &client), Some(BackendSlot(1)), "it is seen again before");
    }

    #[test]
    fn where_all_places_are_taken_the_first_to_end_goes() {
        let templates = Templates::new(8, SECRET);
        for client in 0..8 {
            templates.keep(0, &key(1, 1 + client, 0), BackendSlot(client), 100 + client, false);
        }
        templates.keep(0, &key(1, 99, 0), BackendSlot(99), 500, false);
        assert_eq!(templates.find(0, &key(1, 1, 0)), None);
        assert_eq!(templates.find(0, &key(1, 99, 0)), Some(BackendSlot(99)));
        assert!((2..9).all(|client| templates.find(0, &key(1, client, 0)).is_some()));
    }

    #[test]
    fn workers_that_meet_a_client_at_once_agree() {
        let clients = if cfg!(miri) { 8 } else { 2000 };
        let templates = Templates::new(8 * clients as usize, SECRET);
        let choose = |worker: u32| {
            let keep = |client| templates.keep(0, &key(1, client, 0), BackendSlot(worker), 100, false);
            (1..=clients).map(keep).collect::<Vec<_>>()
        };
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| choose(2));
            (choose(1), other.join().unwrap())
        });
        let differ = one.iter().zip(&other).filter(|(one, other)| one != other).count();
        assert_eq!(differ, 0);
    }
}

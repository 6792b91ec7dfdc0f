//! Persistence templates: which backend a client had last, shared by all workers.
//!
//! A client's connections come from many ports, and so to all workers; each of them must know. A template is found,
//! renewed, replaced and forgotten by one word, for which nobody waits. A new one is several words: its worker first
//! claims a place for it, by a word that says who is to be there, and looks whether another worker has one for the same
//! client. Who meets a client that another worker has a claim for polls until that is a template, some 100 ns; if that
//! worker lost its core meanwhile, what the claim says is done.

use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Seconds;
use crate::flow::table::HashSecret;
use crate::prefetch::{Table, gathered};
use crate::snapshot::BackendSlot;

/// Places for an entry.
const WAYS: usize = 8;

/// Bits of a word for the backend's slot; next is whether it is a claim; the rest tells clients apart.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = CLAIM - 1;
const CLAIM: u64 = 1 << SLOT_BITS;
const MARK_SHIFT: u32 = SLOT_BITS + 1;

/// How often a worker tries to add a template at most; a try is some 10 to 50 ns.
const TRIES: usize = 500;

/// Seconds for which a template lives on from when a flow of it was seen alive: as long as it lives without one, but
/// long enough for that flow to be seen again, and no longer than in IPVS.
const CHILD_SECS: RangeInclusive<Seconds> = 5..=60;

/// For how long a template of so many seconds lives on from when a flow of it was seen alive.
pub fn child_secs(secs: Seconds) -> Seconds {
    secs.clamp(*CHILD_SECS.start(), *CHILD_SECS.end())
}

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
    entries: Table<Entry>,
    secret: HashSecret,
}

impl Templates {
    /// Room for so many, at least.
    pub fn new(capacity: usize, secret: HashSecret) -> Self {
        let entries = capacity.next_multiple_of(WAYS);
        Self { entries: gathered((0..entries).map(|_| Entry::default())), secret }
    }

    /// The backend that a client has, if it has one.
    pub fn find(&self, now: Seconds, key: &Persistent) -> Option<BackendSlot> {
        let (mark, ways) = self.locate(key);
        live(ways, mark, now).map(|(_, word)| backend_in(word))
    }

    /// Gives a client this backend for so many seconds, unless it has another one by now, which is not the one that is
    /// `unfit`. Returns the one it has.
    ///
    /// It lives long enough for its flow to be seen. If all places are taken, the template goes that would end first.
    pub fn keep(
        &self,
        now: Seconds,
        key: &Persistent,
        backend: BackendSlot,
        secs: Seconds,
        unfit: Option<BackendSlot>,
    ) -> BackendSlot {
        let (mark, ways) = self.locate(key);
        let secs = secs.max(*CHILD_SECS.start());
        let word = mark << MARK_SHIFT | u64::from(backend.0);
        let mut other = None;
        for _ in 0..TRIES {
            if let Some((entry, known)) = live(ways, mark, now) {
                let kept = if unfit == Some(backend_in(known)) { word } else { known };
                if (kept == known || entry.swap(known, kept)) && entry.renew(kept, now, secs) {
                    return backend_in(kept);
                }
            } else if let Some(claim) = ways.iter().find_map(|entry| entry.claim_for(mark)) {
                other = Some(backend_in(claim));
                std::hint::spin_loop();
            } else if add(ways, key, word, now, secs) {
                return backend;
            }
        }
        other.unwrap_or(backend)
    }

    /// A flow of this client lives, so that its template, which is one of so many seconds, does for a while.
    pub fn touch(&self, now: Seconds, key: &Persistent, secs: Seconds) {
        let (mark, ways) = self.locate(key);
        if let Some((entry, word)) = live(ways, mark, now) {
            entry.renew(word, now, child_secs(secs));
        }
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// How many of these places have a template.
    pub fn used(&self, now: Seconds, places: Range<usize>) -> usize {
        let places = self.entries.get(places).unwrap_or_default();
        places.iter().filter(|entry| entry.see(now).left > 0).count()
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
            let Seen { word, left, .. } = entry.see(now);
            let backend = backend_in(word);
            let scope = scope_of(backend).filter(|_| left > 0)?;
            let [high, low] = entry.client.each_ref().map(|half| half.load(Ordering::Relaxed));
            let client = u128::from(high) << 64 | u128::from(low);
            let key = Persistent { scope, client, port: entry.port.load(Ordering::Relaxed) as u16 };
            let (mark, ways) = self.locate(&key);
            let is_here = ways.iter().any(|way| std::ptr::eq(way, entry));
            (is_here && mark == word >> MARK_SHIFT).then_some(Template { key, backend, left })
        })
    }

    /// Forgets a template, unless its client has another backend by now. Returns whether it did. Flows stay where
    /// they are.
    pub fn forget(&self, template: &Template) -> bool {
        let (mark, ways) = self.locate(&template.key);
        let word = mark << MARK_SHIFT | u64::from(template.backend.0);
        ways.iter().any(|entry| entry.swap(word, 0))
    }

    /// A client's mark, never 0, and the places where it may be.
    fn locate(&self, key: &Persistent) -> (u64, &[Entry]) {
        let hash = self.secret.hash_any(key.client, key.port).with_scope(key.scope);
        let sets = self.entries.len() / WAYS;
        // The mark has the low bits, the set the high ones.
        let set = ((u128::from(hash) * sets as u128) >> 64) as usize;
        let ways = self.entries.get(set * WAYS..(set + 1) * WAYS).unwrap_or_default();
        ((hash & (u64::MAX >> MARK_SHIFT)).max(1), ways)
    }
}

/// An entry as it was at one moment.
#[derive(Clone, Copy)]
struct Seen {
    word: u64,
    expires: Seconds,
    /// Seconds until it is over; 0 if it is, or there is none yet.
    left: Seconds,
}

impl Seen {
    /// Whether the entry is a worker's that puts a template there.
    fn is_claimed(self) -> bool {
        self.word & CLAIM != 0
    }
}

impl Entry {
    fn see(&self, now: Seconds) -> Seen {
        loop {
            let word = self.word.load(Ordering::SeqCst);
            let expires = self.expires.load(Ordering::SeqCst);
            // Else the time may be another template's.
            if word == self.word.load(Ordering::Acquire) {
                let left = if word == 0 || word & CLAIM != 0 { 0 } else { expires.saturating_sub(now) };
                return Seen { word, expires, left };
            }
        }
    }

    /// The claim for this client, if that is what it is.
    fn claim_for(&self, mark: u64) -> Option<u64> {
        let word = self.word.load(Ordering::SeqCst);
        (word & CLAIM != 0 && word >> MARK_SHIFT == mark).then_some(word)
    }

    /// Changes the word if it is still `before`.
    fn swap(&self, before: u64, word: u64) -> bool {
        self.word.compare_exchange(before, word, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Has the template with this word live for so many seconds at least. Returns whether it is still there: then
    /// nobody takes it for over who looks at it later.
    fn renew(&self, word: u64, now: Seconds, secs: Seconds) -> bool {
        let until = now.saturating_add(secs);
        let later = |expires| (expires < until && self.word.load(Ordering::Acquire) == word).then_some(until);
        let _ = self.expires.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        self.word.load(Ordering::SeqCst) == word
    }

    fn describe(&self, key: &Persistent) {
        self.port.store(key.port.into(), Ordering::Relaxed);
        self.client[0].store((key.client >> 64) as u64, Ordering::Relaxed);
        self.client[1].store(key.client as u64, Ordering::Relaxed);
    }
}

/// The backend in an entry's word.
fn backend_in(word: u64) -> BackendSlot {
    BackendSlot((word & SLOT_MASK) as u32)
}

/// The template of the client with this mark, and its word.
fn live(ways: &[Entry], mark: u64, now: Seconds) -> Option<(&Entry, u64)> {
    let mut seen = ways.iter().map(|entry| (entry, entry.see(now)));
    let (entry, seen) = seen.find(|(_, seen)| seen.word >> MARK_SHIFT == mark && seen.left > 0)?;
    Some((entry, seen.word))
}

/// Puts a template into the place of the one that ends first. Returns whether that one was as it seemed to be and the
/// client has no other one.
fn add(ways: &[Entry], key: &Persistent, word: u64, now: Seconds, secs: Seconds) -> bool {
    let mark = word >> MARK_SHIFT;
    let seen = ways.iter().map(|entry| (entry, entry.see(now))).filter(|(_, seen)| !seen.is_claimed());
    // A client has one place, also for a worker whose clock is behind.
    let place = seen.min_by_key(|(_, seen)| (seen.word >> MARK_SHIFT != mark, seen.left));
    let Some((entry, before)) = place else { return false };
    // Its claim may have become a template since it was looked for.
    let known = before.word >> MARK_SHIFT == mark && before.left > 0;
    if known || !entry.swap(before.word, word | CLAIM) {
        return false;
    }
    // Another worker, whose clock is behind, may have renewed it just before.
    let renewed = entry.expires.load(Ordering::SeqCst) != before.expires;
    if renewed || !prevails(ways, entry, mark, now) {
        entry.word.store(before.word, Ordering::Release);
        return false;
    }
    // The word comes last: before it the entry is no template.
    entry.expires.store(now.saturating_add(secs), Ordering::Relaxed);
    entry.describe(key);
    entry.word.store(word, Ordering::SeqCst);
    true
}

/// Whether the claim that an entry is now is to become its client's template. Of two workers that look after their
/// claims, one sees the other's at least, and the first place prevails.
fn prevails(ways: &[Entry], entry: &Entry, mark: u64, now: Seconds) -> bool {
    for _ in 0..TRIES {
        let claim = ways.iter().find(|way| !std::ptr::eq(*way, entry) && way.claim_for(mark).is_some());
        // A claim that is gone may be a template by now.
        let taken = live(ways, mark, now).is_some();
        match claim {
            None => return !taken,
            Some(claim) if taken || std::ptr::from_ref(claim) < std::ptr::from_ref(entry) => return false,
            // Its worker may have looked before this one's claim was there.
            Some(_) => std::hint::spin_loop(),
        }
    }
    false
}

#[cfg(test)]
mod tests;

//! The memory of a fragment table: datagrams, found by key and by age, and frames that wait.
//!
//! Both are arrays of places made at the start; places are chained by their numbers.

use super::spans::Spans;
use super::{Datagram, Transport};
use crate::clock::Seconds;
use crate::packet::Addresses;
use crate::prefetch::{Table, table};

/// Number of a place.
pub type Index = u32;

/// No place.
const NONE: Index = Index::MAX;

/// What is known of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its first piece has not come.
    Waiting,
    /// Its first piece has come.
    Known(Transport),
    /// Its pieces overlapped; those that may still come die too.
    Dead,
}

/// A chain of frames that wait.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    first: Index,
    last: Index,
    len: u32,
}

impl Queue {
    const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    /// Frames in it.
    pub fn len(self) -> u32 {
        self.len
    }
}

/// A datagram of which pieces have come.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Which one.
    pub datagram: Datagram,
    /// What is known of it.
    pub state: State,
    /// Which of its bytes have come.
    pub spans: Spans,
    /// Its pieces that wait.
    pub waiting: Queue,
    /// Since when it is in its state.
    pub since: Seconds,
    /// Where the pieces of its sender are counted.
    pub share: u16,
    /// The bucket it is found by.
    bucket: u32,
    /// Next in the bucket, or next free place.
    next: Index,
    /// Neighbours by age among those of its kind.
    older: Index,
    newer: Index,
}

/// Datagrams by age, the oldest first.
#[derive(Clone, Copy)]
struct Ages {
    oldest: Index,
    newest: Index,
    count: usize,
}

/// Datagrams of one kind expire in the order of their age, so the oldest of it is the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Those that wait for their first piece.
    Waiting,
    /// All others.
    Settled,
}

impl State {
    fn kind(self) -> Kind {
        if self == Self::Waiting { Kind::Waiting } else { Kind::Settled }
    }
}

/// All datagrams of a table.
pub struct Datagrams {
    entries: Table<Entry>,
    /// First place of each bucket; a power of two of them.
    buckets: Table<Index>,
    free: Index,
    ages: [Ages; 2],
}

impl Datagrams {
    /// Room for `size` datagrams.
    pub fn new(size: usize) -> Self {
        let nobody = Entry {
            datagram: Datagram::new(Addresses::V4 { src: 0, dst: 0 }, 0, 0),
            state: State::Dead,
            spans: Spans::default(),
            waiting: Queue::EMPTY,
            since: 0,
            share: 0,
            bucket: 0,
            next: NONE,
            older: NONE,
            newer: NONE,
        };
        let mut entries = table(nobody, size);
        for (place, entry) in entries.iter_mut().enumerate() {
            entry.next = following(place, size);
        }
        Self {
            entries,
            buckets: table(NONE, size.next_power_of_two()),
            free: first_of(size),
            ages: [Ages { oldest: NONE, newest: NONE, count: 0 }; 2],
        }
    }

    /// Number of datagrams.
    pub fn len(&self) -> usize {
        self.count(Kind::Waiting) + self.count(Kind::Settled)
    }

    /// Number of datagrams of a kind.
    pub fn count(&self, kind: Kind) -> usize {
        self.ages[kind as usize].count
    }

    /// The one of a kind that has been so for the longest time.
    pub fn oldest(&self, kind: Kind) -> Option<Index> {
        some(self.ages[kind as usize].oldest)
    }

    /// The datagram in a place.
    pub fn at(&mut self, index: Index) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// The place of a datagram with this hash.
    pub fn find(&self, hash: u64, datagram: &Datagram) -> Option<Index> {
        let mut index = self.buckets[self.bucket(hash)];
        while index != NONE {
            let entry = &self.entries[index as usize];
            if entry.datagram == *datagram {
                return Some(index);
            }
            index = entry.next;
        }
        None
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// Adds a datagram that is not there yet, if a place is free.
    pub fn insert(
        &mut self,
        hash: u64,
        datagram: &Datagram,
        state: State,
        now: Seconds,
        share: u16,
    ) -> Option<Index> {
        let index = some(self.free)?;
        let bucket = self.bucket(hash);
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        *entry = Entry {
            datagram: *datagram,
            state,
            spans: Spans::default(),
            waiting: Queue::EMPTY,
            since: now,
            share,
            // Fewer than 2^32, as places are.
            bucket: bucket as u32,
            next: self.buckets[bucket],
            older: NONE,
            newer: NONE,
        };
        self.buckets[bucket] = index;
        self.append(index);
        Some(index)
    }

    /// Gives a datagram another state, from `now` on.
    pub fn set_state(&mut self, index: Index, state: State, now: Seconds) {
        self.unlink(index);
        let entry = self.at(index);
        entry.state = state;
        entry.since = now;
        self.append(index);
    }

    /// Takes a datagram out. None of its pieces wait any more.
    pub fn remove(&mut self, index: Index) {
        self.unlink(index);
        let Entry { bucket, next, .. } = *self.at(index);
        let mut place = self.buckets[bucket as usize];
        if place == index {
            self.buckets[bucket as usize] = next;
        } else {
            // It is in its bucket, so the one before it is found before the chain ends.
            while self.at(place).next != index {
                place = self.at(place).next;
            }
            self.at(place).next = next;
        }
        self.at(index).next = self.free;
        self.free = index;
    }

    /// Adds a datagram to those of its kind, as the newest.
    fn append(&mut self, index: Index) {
        let kind = self.at(index).state.kind() as usize;
        let newest = std::mem::replace(&mut self.ages[kind].newest, index);
        self.ages[kind].count += 1;
        self.at(index).older = newest;
        self.at(index).newer = NONE;
        match some(newest) {
            Some(newest) => self.at(newest).newer = index,
            None => self.ages[kind].oldest = index,
        }
    }

    /// Takes a datagram from those of its kind.
    fn unlink(&mut self, index: Index) {
        let Entry { state, older, newer, .. } = *self.at(index);
        let kind = state.kind() as usize;
        self.ages[kind].count -= 1;
        match some(older) {
            Some(older) => self.at(older).newer = newer,
            None => self.ages[kind].oldest = newer,
        }
        match some(newer) {
            Some(newer) => self.at(newer).older = older,
            None => self.ages[kind].newest = older,
        }
    }
}

/// All frames that wait.
pub struct Pieces<F> {
    places: Box<[(Option<F>, Index)]>,
    free: Index,
    len: usize,
}

impl<F> Pieces<F> {
    /// Room for `size` frames.
    pub fn new(size: usize) -> Self {
        let places = (0..size).map(|place| (None, following(place, size)));
        Self { places: places.collect(), free: first_of(size), len: 0 }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no more fit.
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// Puts a frame at the end of a queue.
    ///
    /// # Errors
    /// The frame, if there is no room.
    pub fn push(&mut self, queue: &mut Queue, frame: F) -> Result<(), F> {
        let Some(index) = some(self.free) else { return Err(frame) };
        self.free = self.places[index as usize].1;
        self.places[index as usize] = (Some(frame), NONE);
        match some(std::mem::replace(&mut queue.last, index)) {
            Some(last) => self.places[last as usize].1 = index,
            None => queue.first = index,
        }
        queue.len += 1;
        self.len += 1;
        Ok(())
    }

    /// Takes the frame that is first in a queue.
    pub fn pop(&mut self, queue: &mut Queue) -> Option<F> {
        let index = some(queue.first)?;
        let (frame, next) = &mut self.places[index as usize];
        let frame = frame.take();
        queue.first = std::mem::replace(next, self.free);
        self.free = index;
        queue.len -= 1;
        self.len -= 1;
        if queue.first == NONE {
            queue.last = NONE;
        }
        frame
    }
}

/// The first of `size` places.
fn first_of(size: usize) -> Index {
    if size == 0 { NONE } else { 0 }
}

/// The place behind another one of `size` places, which are fewer than 2^32.
fn following(place: usize, size: usize) -> Index {
    if place + 1 < size { (place + 1) as Index } else { NONE }
}

fn some(index: Index) -> Option<Index> {
    (index != NONE).then_some(index)
}

//! The flow table: lines of four narrow or two wide flows, each line one cache line.
//!
//! Owned by its worker, never shared, never grown. A flow lives in its home line or, if that was full, in
//! its one alternate line; a line counts how many of its flows live elsewhere, so that the alternate is
//! read only when that can help. Expired flows are found when probed, replaced or swept: no timers.

mod early;
mod eight;
mod hash;

use super::{FlowKey, FlowValue, Key, WideKey};
use crate::prefetch::{Table, table};
pub use hash::{FlowHash, HashSecret};

/// Narrow flows in a line.
pub const NARROW_WAYS: usize = 4;
/// Four flows a line.
pub type NarrowTable = FlowTable<FlowKey, NARROW_WAYS>;
/// Two flows a line.
pub type WideTable = FlowTable<WideKey, 2>;

/// Where the count of flows that live elsewhere is kept: the top bits of the first value.
const SPILL_SHIFT: u32 = 60;
const SPILL_MASK: u64 = 0xf << SPILL_SHIFT;
/// A count that reached this is not exact any more and stays.
const SPILL_MAX: u64 = 0xf;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<K, const WAYS: usize> {
    keys: [K; WAYS],
    values: [u64; WAYS],
}

const _: () = assert!(size_of::<Line<FlowKey, 4>>() == 64 && size_of::<Line<WideKey, 2>>() == 64);

impl<K: Key, const WAYS: usize> Line<K, WAYS> {
    const EMPTY: Self = Self { keys: [K::EMPTY; WAYS], values: [0; WAYS] };

    /// Where a flow is, of which there is one at most.
    #[inline]
    fn way_of(&self, key: &K) -> Option<usize> {
        // Compares without a branch between them: which way it is cannot be predicted. If it is in no other, it may be
        // in the first.
        let mut way = 0;
        for other in 1..WAYS {
            way |= usize::from(self.keys[other].is(key)) * other;
        }
        self.keys[way].is(key).then_some(way)
    }

    /// The first empty way.
    #[inline]
    fn free_way(&self) -> Option<usize> {
        let mut free = 0u32;
        for way in 0..WAYS {
            free |= u32::from(self.is_free(way)) << way;
        }
        (free != 0).then(|| free.trailing_zeros() as usize)
    }

    #[inline]
    fn is_free(&self, way: usize) -> bool {
        self.keys[way].is(&K::EMPTY)
    }

    #[inline]
    fn value(&self, way: usize) -> FlowValue {
        FlowValue(self.values[way] & !SPILL_MASK)
    }

    #[inline]
    fn set_value(&mut self, way: usize, value: FlowValue) {
        self.values[way] = self.values[way] & SPILL_MASK | value.0 & !SPILL_MASK;
    }

    #[inline]
    fn spilled(&self) -> u64 {
        self.values[0] >> SPILL_SHIFT
    }

    fn set_spilled(&mut self, count: u64) {
        self.values[0] = self.values[0] & !SPILL_MASK | count << SPILL_SHIFT;
    }
}

/// Number of the line in which a flow is stored unless that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(u32);

/// Where a flow is stored; good until the table changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    line: u32,
    way: u8,
}

/// What a stored flow is worth when another one needs its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It has expired.
    Dead,
    /// It is given up when there is no other place; the longest idle one goes first.
    Embryonic {
        /// Seconds since its last packet.
        idle: u32,
    },
    /// It stays.
    Live,
}

/// A flow as it is stored, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<K> {
    /// Its key.
    pub key: K,
    /// What it was bound to.
    pub flow: FlowValue,
    /// Its local port, if it has one that is not in its key.
    pub port: u16,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted<K> {
    /// It is stored.
    Placed(Place),
    /// It is stored where an expired flow was.
    Replaced(Place, Record<K>),
    /// It is stored where a flow was that had to go.
    Evicted(Place, Record<K>),
    /// There is no place for it.
    Full,
}

impl<K> Inserted<K> {
    /// Stored in a place that was empty, or held an expired flow.
    fn at(place: Place, dead: Option<Record<K>>) -> Self {
        dead.map_or(Self::Placed(place), |dead| Self::Replaced(place, dead))
    }
}

/// The table of one worker.
pub struct FlowTable<K, const WAYS: usize> {
    lines: Table<Line<K, WAYS>>,
    /// Of each line, if there are any: see [`Self::port`].
    ports: Table<[u16; WAYS]>,
    secret: HashSecret,
    flows: usize,
    swept: usize,
}

impl<K: Key, const WAYS: usize> FlowTable<K, WAYS> {
    /// Flows that move at most to make room for one. At the rated load a line of four is full so rarely that
    /// one is enough; with one, lines of two refused 3 flows of 10,000, with two one of a million, with three
    /// none of four million.
    const MOVES: usize = if WAYS < 4 { 3 } else { 1 };

    /// A table rated for `capacity` flows. It has twice as many places, so that a rated load leaves it
    /// half empty: 32 bytes a narrow flow, 64 a wide one.
    pub fn new(capacity: usize, secret: HashSecret) -> Self {
        let lines = lines(capacity, WAYS);
        Self { lines: table(Line::EMPTY, lines), ports: table([0; WAYS], 0), secret, flows: 0, swept: 0 }
    }

    /// Room for a local port of each flow in a table that is rated for `capacity` flows.
    pub fn room_for_ports(capacity: usize) -> Table<[u16; WAYS]> {
        table([0; WAYS], lines(capacity, WAYS))
    }

    /// Has such room from now on; what it is given may be that, or it makes its own.
    pub fn make_room_for_ports(&mut self, room: Option<Table<[u16; WAYS]>>) {
        if self.ports.is_empty() {
            let room = room.filter(|room| room.len() == self.lines.len());
            self.ports = room.unwrap_or_else(|| table([0; WAYS], self.lines.len()));
        }
    }

    /// Number of flows stored, expired ones included until they are found.
    pub fn len(&self) -> usize {
        self.flows
    }

    /// Whether no flow is stored.
    pub fn is_empty(&self) -> bool {
        self.flows == 0
    }

    /// The home line of a client's flow.
    #[inline]
    pub fn home_of(&self, hash: FlowHash) -> Home {
        // A table has fewer than 2^32 lines (`FlowTable::new`).
        Home(self.home(hash) as u32)
    }

    #[inline]
    fn home(&self, hash: FlowHash) -> usize {
        multiply_shift(hash.0 >> 32, self.lines.len())
    }

    #[inline]
    fn alternate(&self, hash: FlowHash) -> usize {
        let line = multiply_shift(hash.0 & 0xffff_ffff, self.lines.len());
        if line != self.home(hash) {
            line
        } else if line + 1 < self.lines.len() {
            line + 1
        } else {
            0
        }
    }

    fn hash_of(&self, key: &K) -> FlowHash {
        key.hash(&self.secret)
    }

    /// Where a flow is stored.
    #[inline]
    pub fn find(&self, hash: FlowHash, key: &K) -> Option<Place> {
        self.get(self.home_of(hash), key, || hash).map(|(place, _)| place)
    }

    /// A flow, and where it is stored. Of its hash `home` is known already. The bits of the value that belong to the line
    /// are what they are there.
    #[inline(always)]
    pub fn get(&self, home: Home, key: &K, hash: impl FnOnce() -> FlowHash) -> Option<(Place, FlowValue)> {
        if let Some(found) = self.get_in(home, key) {
            return Some(found);
        }
        if self.lines[home.0 as usize].spilled() == 0 {
            return None;
        }
        let place = self.find_spilled(hash(), key)?;
        Some((place, self.value(place)))
    }

    // What it returns fits registers. With the flow it would not, and then a flow from its home line would go through memory,
    // too.
    #[cold]
    #[inline(never)]
    fn find_spilled(&self, hash: FlowHash, key: &K) -> Option<Place> {
        let line = self.alternate(hash);
        Some(place(line, self.lines[line].way_of(key)?))
    }

    /// The same of a flow that is in one line.
    #[inline(always)]
    pub fn get_in(&self, line: Home, key: &K) -> Option<(Place, FlowValue)> {
        let of = &self.lines[line.0 as usize];
        let way = of.way_of(key)?;
        Some((place(line.0 as usize, way), FlowValue(of.values[way])))
    }

    /// The line where a flow may be that is not in its home line. Asks for it to come into the cache. `None` if there is no
    /// other, or it was the one that was looked at.
    #[inline]
    pub fn elsewhere(&self, line: Home, key: &K, hash: FlowHash) -> Option<Home> {
        let (of, alternate) = (&self.lines[line.0 as usize], self.alternate(hash));
        if of.spilled() == 0 || of.way_of(key).is_some() || line.0 as usize == alternate {
            return None;
        }
        self.ask(alternate);
        Some(Home(alternate as u32))
    }

    /// Stores a flow that is not in the table yet in its home line, unless that is full. Returns where.
    #[inline(always)]
    pub fn settle(&mut self, home: Home, key: K, value: FlowValue) -> Option<Place> {
        debug_assert!(home.0 as usize == self.home(self.hash_of(&key)));
        let line = &mut self.lines[home.0 as usize];
        let way = line.free_way()?;
        line.keys[way] = key;
        line.set_value(way, value.with_displaced(false));
        self.flows += 1;
        Some(place(home.0 as usize, way))
    }

    /// The flow in a place.
    #[inline]
    pub fn record(&self, place: Place) -> Record<K> {
        let flow = self.value(place);
        Record { key: self.key(place), flow, port: self.port_of(place, flow) }
    }

    /// The key of the flow in a place.
    #[inline]
    pub fn key(&self, place: Place) -> K {
        self.lines[place.line as usize].keys[usize::from(place.way)]
    }

    /// The flow in a place.
    #[inline]
    pub fn value(&self, place: Place) -> FlowValue {
        self.lines[place.line as usize].value(usize::from(place.way))
    }

    /// The local port of the flow in a place; of no meaning if it has none, or that is in its key.
    #[inline]
    pub fn port(&self, place: Place) -> u16 {
        self.ports.get(place.line as usize).map_or(0, |ports| ports[usize::from(place.way)])
    }

    /// The same where nothing is looked up for flows without one.
    #[inline]
    fn port_of(&self, place: Place, flow: FlowValue) -> u16 {
        if flow.has_local() { self.port(place) } else { 0 }
    }

    /// Notes it. There is room for it, unless it is in the key.
    #[inline]
    pub fn set_port(&mut self, place: Place, port: u16) {
        debug_assert!(WAYS < NARROW_WAYS || !self.ports.is_empty());
        if let Some(ports) = self.ports.get_mut(place.line as usize) {
            ports[usize::from(place.way)] = port;
        }
    }

    /// Changes the flow in a place. Nothing is written if nothing changes, so the line stays clean.
    #[inline]
    pub fn set(&mut self, place: Place, value: FlowValue) {
        let line = &mut self.lines[place.line as usize];
        if line.value(usize::from(place.way)).0 != value.0 & !SPILL_MASK {
            line.set_value(usize::from(place.way), value);
        }
    }

    /// Takes a flow out.
    #[inline]
    pub fn remove(&mut self, place: Place) -> Record<K> {
        let removed = self.record(place);
        let line = &mut self.lines[place.line as usize];
        let way = usize::from(place.way);
        line.keys[way] = K::EMPTY;
        line.set_value(way, FlowValue(0));
        self.flows -= 1;
        if removed.flow.is_displaced() {
            self.unspill(self.hash_of(&removed.key));
        }
        removed
    }

    fn spill(&mut self, hash: FlowHash) {
        let home = self.home(hash);
        let home = &mut self.lines[home];
        home.set_spilled((home.spilled() + 1).min(SPILL_MAX));
    }

    fn unspill(&mut self, hash: FlowHash) {
        let home = self.home(hash);
        let home = &mut self.lines[home];
        if home.spilled() != SPILL_MAX {
            home.set_spilled(home.spilled().saturating_sub(1));
        }
    }

    /// Stores a flow that is not in the table yet.
    ///
    /// In this order: a free or dead place in the home line, then in the alternate; a place that one of
    /// their flows leaves for its own other line, as in cuckoo hashing; the place of the embryonic flow
    /// that is idle longest, which comes before moving in a table that is nearly full. Live flows never lose
    /// theirs.
    pub fn insert(
        &mut self,
        hash: FlowHash,
        key: K,
        value: FlowValue,
        worth: impl Fn(FlowValue) -> Worth,
    ) -> Inserted<K> {
        debug_assert!(self.find(hash, &key).is_none());
        // Most home lines have room.
        match self.settle(self.home_of(hash), key, value) {
            Some(place) => Inserted::Placed(place),
            None => self.insert_apart(hash, key, value, worth),
        }
    }

    fn insert_apart(
        &mut self,
        hash: FlowHash,
        key: K,
        value: FlowValue,
        worth: impl Fn(FlowValue) -> Worth,
    ) -> Inserted<K> {
        for (line, displaced) in self.lines_of(hash) {
            if let Some((free, dead)) = self.make_room(line, 0, &worth) {
                self.store(free, hash, key, value.with_displaced(displaced));
                return Inserted::at(free, dead);
            }
        }
        self.insert_crowded(hash, key, value, worth)
    }

    #[cold]
    fn insert_crowded(
        &mut self,
        hash: FlowHash,
        key: K,
        value: FlowValue,
        worth: impl Fn(FlowValue) -> Worth,
    ) -> Inserted<K> {
        // In a table that is nearly full, the lines that flows could move to are so too: looking there would only
        // make a flood dear.
        let victim = if self.is_nearly_full() { self.victim(hash, &worth) } else { None };
        if victim.is_none() {
            // One move is enough nearly always, and all that it may need is in the cache by now.
            for moves in 1..=Self::MOVES {
                for (line, displaced) in self.lines_of(hash) {
                    if let Some((free, dead)) = self.make_room(line, moves, &worth) {
                        self.store(free, hash, key, value.with_displaced(displaced));
                        return Inserted::at(free, dead);
                    }
                }
            }
        }
        let Some((victim, displaced)) = victim.or_else(|| self.victim(hash, &worth)) else {
            return Inserted::Full;
        };
        let evicted = self.remove(victim);
        self.store(victim, hash, key, value.with_displaced(displaced));
        Inserted::Evicted(victim, evicted)
    }

    /// Whether seven of eight places are taken.
    fn is_nearly_full(&self) -> bool {
        self.flows > self.lines.len() * WAYS / 8 * 7
    }

    /// The embryonic flow that is idle longest where a flow may live, and whether that would be displaced there.
    fn victim(&self, hash: FlowHash, worth: &impl Fn(FlowValue) -> Worth) -> Option<(Place, bool)> {
        let mut victim: Option<(u32, Place, bool)> = None;
        for (line, displaced) in self.lines_of(hash) {
            for way in 0..WAYS {
                if let Worth::Embryonic { idle } = worth(self.lines[line].value(way))
                    && victim.is_none_or(|(longest, ..)| idle > longest)
                {
                    victim = Some((idle, place(line, way), displaced));
                }
            }
        }
        victim.map(|(_, place, displaced)| (place, displaced))
    }

    /// Where a flow may live, and whether it is displaced there.
    #[inline]
    fn lines_of(&self, hash: FlowHash) -> [(usize, bool); 2] {
        [(self.home(hash), false), (self.alternate(hash), true)]
    }

    fn store(&mut self, place: Place, hash: FlowHash, key: K, value: FlowValue) {
        let line = &mut self.lines[place.line as usize];
        line.keys[usize::from(place.way)] = key;
        line.set_value(usize::from(place.way), value);
        self.flows += 1;
        if value.is_displaced() {
            self.spill(hash);
        }
    }

    /// A way of the line that is empty or, failing that, holds a dead flow.
    fn spare_way(&self, line: usize, worth: &impl Fn(FlowValue) -> Worth) -> Option<usize> {
        let line = &self.lines[line];
        line.free_way().or_else(|| (0..WAYS).find(|&way| worth(line.value(way)) == Worth::Dead))
    }

    /// Finds or makes an empty place in a line, for which up to `moves` flows move, each to make room for the
    /// one before it. Says which dead flow had to make way.
    fn make_room(
        &mut self,
        line: usize,
        moves: usize,
        worth: &impl Fn(FlowValue) -> Worth,
    ) -> Option<(Place, Option<Record<K>>)> {
        if let Some(way) = self.spare_way(line, worth) {
            let free = self.lines[line].is_free(way);
            return Some((place(line, way), (!free).then(|| self.remove(place(line, way)))));
        }
        let moves = moves.checked_sub(1)?;
        (0..WAYS).find_map(|way| self.relocate(place(line, way), moves, worth))
    }

    /// Moves a flow from its home line to its alternate one or back, for which up to `moves` others move.
    // No line is met twice with another outcome: those on the way here have no room.
    fn relocate(
        &mut self,
        from: Place,
        moves: usize,
        worth: &impl Fn(FlowValue) -> Worth,
    ) -> Option<(Place, Option<Record<K>>)> {
        let (key, displaced) = (self.key(from), self.value(from).is_displaced());
        let hash = self.hash_of(&key);
        let other = if displaced { self.home(hash) } else { self.alternate(hash) };
        let (to, dead) = self.make_room(other, moves, worth)?;
        let Record { flow, port, .. } = self.remove(from);
        self.store(to, hash, key, flow.with_displaced(!displaced));
        if flow.has_local() {
            self.set_port(to, port);
        }
        Some((from, dead))
    }

    /// Takes the dead flows out of the next `lines` lines, beginning again at the end.
    pub fn sweep(
        &mut self,
        lines: usize,
        worth: impl Fn(FlowValue) -> Worth,
        mut removed: impl FnMut(Record<K>),
    ) {
        for _ in 0..lines.min(self.lines.len()) {
            for way in 0..WAYS {
                let line = &self.lines[self.swept];
                if !line.is_free(way) && worth(line.value(way)) == Worth::Dead {
                    removed(self.remove(place(self.swept, way)));
                }
            }
            self.swept = if self.swept + 1 == self.lines.len() { 0 } else { self.swept + 1 };
        }
    }

    /// The flows of the next `lines` lines that [`Self::sweep`] looks at.
    pub fn visit_next(&self, lines: usize) -> impl Iterator<Item = Record<K>> + '_ {
        let lines = (self.swept..self.lines.len()).chain(0..self.swept).take(lines);
        lines.flat_map(|line| self.visit(line))
    }

    /// Bytes of memory that it takes, all flows included.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.ports)
    }

    /// Number of lines, for [`FlowTable::visit`].
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The flows of one line.
    pub fn visit(&self, number: usize) -> impl Iterator<Item = Record<K>> + '_ {
        let line = &self.lines[number];
        (0..WAYS).filter(|&way| !line.is_free(way)).map(move |way| self.record(place(number, way)))
    }
}

impl WideTable {
    /// Where the flow is stored that has this hash and local port, and whose value says the rest: `is_its`.
    pub(crate) fn find_by_port(
        &self,
        hash: FlowHash,
        port: u16,
        is_its: impl Fn(FlowValue) -> bool,
    ) -> Option<Place> {
        let places = self.lines_of(hash).into_iter().flat_map(|(line, _)| [place(line, 0), place(line, 1)]);
        places.into_iter().find(|its| self.key(*its).local_port() == port && is_its(self.value(*its)))
    }
}

/// Lines of a table with so many ways that is rated for `capacity` flows.
fn lines(capacity: usize, ways: usize) -> usize {
    (capacity * 2).div_ceil(ways).clamp(2, u32::MAX as usize)
}

#[inline]
fn place(line: usize, way: usize) -> Place {
    // A table has fewer than 2^32 lines (`FlowTable::new`) of four ways.
    Place { line: line as u32, way: way as u8 }
}

/// `bits`, of which there are 32, scaled to 0..`len`: no division, and `len` need not be a power of two.
#[inline]
fn multiply_shift(bits: u64, len: usize) -> usize {
    ((bits * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;

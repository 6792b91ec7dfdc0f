//! Lines that are asked for early, so that memory works on those of all packets of a burst at once.

use super::{FlowHash, FlowTable, Home, Key, Line};
use crate::prefetch::{prefetch, prefetch_once};

/// Lines of 64 MiB. In a table of that size, full of two million IPv4 flows, what is done above it takes as long as what is
/// done below. Tests have fewer.
const MANY: usize = if cfg!(test) { 8 } else { 1 << 20 };

impl<K: Key, const WAYS: usize> FlowTable<K, WAYS> {
    /// Asks for the home line of a client's flow to come into the cache, and returns which that is.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) -> Home {
        let home = self.home_of(hash);
        self.prefetch_home(home);
        home
    }

    /// Asks for a home line to come into the cache.
    #[inline]
    pub fn prefetch_home(&self, home: Home) {
        self.ask(home.0 as usize);
    }

    /// Asks for the local ports of a home line to come into the cache that are not in it.
    #[inline(always)]
    pub fn prefetch_ports(&self, home: Home) {
        prefetch(self.ports.as_ptr().wrapping_add(home.0 as usize));
    }

    /// Asks for any line.
    #[inline(always)]
    pub(super) fn ask(&self, line: usize) {
        let line = self.lines.as_ptr().wrapping_add(line);
        if self.is_streamed() { prefetch_once(line) } else { prefetch(line) }
    }

    /// Whether so many lines have flows that one is hardly ever needed again while the second-level cache still has it, and
    /// would only take the place of something else there, such as of the addresses of pages.
    #[inline(always)]
    fn is_streamed(&self) -> bool {
        self.is_vast() && self.flows > MANY
    }

    /// Whether it has so many pages that the processor hardly ever knows where a line is.
    #[inline(always)]
    pub fn is_vast(&self) -> bool {
        self.lines.len() > MANY
    }

    /// Whether it is too large for the caches that are near.
    #[inline]
    pub fn is_far(&self) -> bool {
        const NEAR: usize = 1 << 19;
        self.lines.len() > NEAR / size_of::<Line<K, WAYS>>()
    }

    /// Whether to find that there is no flow, or to store it, takes more than its home line: that is full, or some
    /// of its flows live elsewhere.
    #[inline]
    pub fn needs_alternate(&self, home: Home) -> bool {
        let line = &self.lines[home.0 as usize];
        (line.spilled() != 0) | line.free_way().is_none()
    }

    /// Asks for the alternate line of a flow to come into the cache.
    #[inline]
    pub fn prefetch_alternate(&self, hash: FlowHash) {
        self.ask(self.alternate(hash));
    }

    /// Whether both lines of a flow are full often enough to ask early for what storing it takes then: of lines of four
    /// that are half full on the average they rarely are.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        WAYS < 4 || self.flows > self.lines.len() * WAYS / 16 * 9
    }

    /// The same of what storing it takes besides both its lines, which should be in the cache by now: if these are full,
    /// of the lines to which flows could move, or in a table that is nearly full of the home lines of those that may have
    /// to go.
    #[inline]
    pub fn prefetch_moves(&self, hash: FlowHash) {
        let [home, alternate] = self.lines_of(hash).map(|(line, _)| &self.lines[line]);
        if home.free_way().is_some() || alternate.free_way().is_some() {
            return;
        }
        let is_nearly_full = self.is_nearly_full();
        // Flows of the home line are tried first, and one of four can nearly always move.
        let lines = if is_nearly_full || WAYS < 4 { 2 } else { 1 };
        for line in [home, alternate].into_iter().take(lines) {
            for (key, way) in line.keys.iter().zip(0..) {
                let displaced = line.value(way).is_displaced();
                if displaced || !is_nearly_full {
                    let hash = self.hash_of(key);
                    let other = if displaced { self.home(hash) } else { self.alternate(hash) };
                    self.ask(other);
                }
            }
        }
    }
}

//! Finds what the range of an address has for an answer, among thousands of ranges in a few steps, usually one or two.
//!
//! A node cuts the space between its first and its last range into equal parts, more of them than it has ranges. A part
//! with one answer says it; any other has a node of its own, however small the piece of the space is that its routes
//! are crowded in. Routes begin at multiples of powers of two, and so do parts: those of neighbours of one size need
//! no more than a part each.

use super::Address;

/// The answers of ranges, which are numbers of 31 bits.
#[derive(Clone, Debug, Default)]
pub struct Index<A> {
    /// The root is the first; none if there is one range.
    nodes: Vec<Node<A>>,
    /// The parts of all nodes: the answer of a part, or the number of its node with [`NODE`].
    parts: Vec<u32>,
    /// What the first range has for an answer.
    first: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node<A> {
    /// Where the parts begin. Addresses before it are in the first part, too.
    first: A,
    /// Each part has 2 to the `shift` addresses.
    shift: u32,
    /// Where its parts are among all of them.
    begin: u32,
    /// Number of its last part, in which are also all addresses that follow.
    last: u32,
}

/// What tells the number of a node from an answer.
const NODE: u32 = 1 << 31;
/// So many parts for each range that begins in a node leave most parts with one answer.
const PARTS: usize = 8;

impl<A: Address> Index<A> {
    /// The index of ranges with these starts, ascending from 0, and answers. Neighbours with the same are one.
    pub fn new(ranges: impl IntoIterator<Item = (A, u32)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.dedup_by_key(|(_, answer)| *answer);
        let mut index = Self::default();
        if let [(_, first), others @ ..] = &*ranges {
            index.first = *first;
            if !others.is_empty() {
                index.add(others, *first);
            }
        }
        index
    }

    /// Adds a node for some ranges, and `before` them another answer. Returns its number.
    fn add(&mut self, ranges: &[(A, u32)], before: u32) -> u32 {
        let (start, most) = (ranges[0].0, ranges[ranges.len() - 1].0);
        let finest = ranges.iter().map(|(start, _)| start.alignment()).min().unwrap_or_default();
        let parts = (PARTS * ranges.len()).next_power_of_two();
        let shift = most.width_from(start).saturating_sub(parts.ilog2()).max(finest);
        let first = start.block_before(shift);
        let last = most.part(first, shift, u32::MAX as usize);
        let (number, begin) = (self.nodes.len(), self.parts.len());
        self.nodes.push(Node { first, shift, begin: begin as u32, last: last as u32 });
        self.parts.resize(begin + last + 1, before);
        let (mut rest, mut answer) = (ranges, before);
        for part in 0..=last {
            let is_here = |(start, _): &(A, u32)| start.part(first, shift, last) == part;
            let (mut here, behind) = rest.split_at(rest.iter().take_while(|range| is_here(range)).count());
            rest = behind;
            // One that begins with the part has all of it, but for those that begin within.
            if let [(start, of_all), within @ ..] = here
                && start.alignment() >= shift
            {
                (here, answer) = (within, *of_all);
            }
            self.parts[begin + part] = if here.is_empty() { answer } else { self.add(here, answer) | NODE };
            answer = here.last().map_or(answer, |(_, answer)| *answer);
        }
        number as u32
    }

    /// The answer for an address.
    #[inline]
    pub fn find(&self, address: A) -> u32 {
        let Some(mut node) = self.nodes.first() else { return self.first };
        loop {
            let part = node.begin as usize + address.part(node.first, node.shift, node.last as usize);
            let Some(&it) = self.parts.get(part) else { return self.first };
            match self.nodes.get((it ^ NODE) as usize) {
                Some(next) => node = next,
                None => return it,
            }
        }
    }
}

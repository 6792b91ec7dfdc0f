//! Finds the range of an address among thousands in two or three steps.
//!
//! A node cuts the space between its first and its last range into equal parts, more of them than it has ranges. A part
//! in which at most one range begins says which; any other has a node of its own, however small the piece of the
//! space is that its routes are crowded in.

use super::Address;

/// Which ranges begin where.
#[derive(Clone, Debug, Default)]
pub(super) struct Index<A> {
    /// The root is the first.
    nodes: Vec<Node<A>>,
    /// The parts of all nodes: the number of the range in which a part begins, or of its node with [`NODE`].
    parts: Vec<u32>,
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

/// What tells the number of a node from that of a range.
const NODE: u32 = 1 << 31;
/// So many parts for each range that begins in a node leave most parts with one range at most.
const PARTS: usize = 8;
/// So few ranges are searched faster.
const FEW: usize = 8;

impl<A: Address> Index<A> {
    /// The index of ranges that begin there, ascending; empty for a few.
    pub fn new(starts: &[A]) -> Self {
        let mut index = Self { nodes: Vec::new(), parts: Vec::new() };
        if starts.len() > FEW {
            index.add(starts, 1, starts.len());
        }
        index
    }

    /// Adds a node for the ranges from `from` to before `to`, of which there are two at least. Returns its number.
    fn add(&mut self, starts: &[A], from: usize, to: usize) -> u32 {
        let (first, most) = (starts[from], starts[to - 1]);
        let parts = (PARTS * (to - from)).next_power_of_two();
        // The last range begins in the upper half of the parts, so that no part has them all.
        let shift = most.width_from(first).saturating_sub(parts.ilog2());
        let (number, begin) = (self.nodes.len(), self.parts.len());
        self.nodes.push(Node { first, shift, begin: begin as u32, last: parts as u32 - 1 });
        self.parts.resize(begin + parts, 0);
        let mut next = from;
        for part in 0..parts {
            let is_here = |start: &A| start.part(first, shift, parts - 1) == part;
            let here = starts[next..to].iter().take_while(|start| is_here(start)).count();
            self.parts[begin + part] =
                if here > 1 { self.add(starts, next, next + here) | NODE } else { next as u32 - 1 };
            next += here;
        }
        number as u32
    }

    /// Number of the range of an address, by the same starts.
    #[inline]
    pub fn range(&self, starts: &[A], address: A) -> Option<usize> {
        let Some(mut node) = self.nodes.first() else {
            return starts.partition_point(|&start| start <= address).checked_sub(1);
        };
        loop {
            let part = address.part(node.first, node.shift, node.last as usize);
            let it = *self.parts.get(node.begin as usize + part)?;
            if it & NODE == 0 {
                let next = it as usize + 1;
                let is_next = starts.get(next).is_some_and(|&start| start <= address);
                return Some(it as usize + usize::from(is_next));
            }
            node = self.nodes.get((it & !NODE) as usize)?;
        }
    }
}

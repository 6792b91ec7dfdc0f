//! How many flows each backend has: what schedulers and limits weigh.
//!
//! Each worker writes its own table and reads those of all, so that what is weighed is the sum over all workers
//! and nothing is locked or shared by writers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::prefetch::{Table, gathered, prefetch};
use crate::snapshot::BackendSlot;

/// Flows of a backend, those in states that IPVS calls active apart from the others. Both are less than 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load(u64);

/// An active flow: they are counted in the upper half.
const ACTIVE: u64 = 1 << Load::ACTIVE_SHIFT;

impl Load {
    /// A load of so many flows.
    pub const fn new(active: u32, inactive: u32) -> Self {
        Self((active as u64) << Self::ACTIVE_SHIFT | inactive as u64)
    }

    /// Where active flows are in the bits of a load; inactive ones are below.
    pub const ACTIVE_SHIFT: u32 = 32;

    /// The bits of a load.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Active flows.
    #[inline]
    pub const fn active(self) -> u64 {
        self.0 >> Self::ACTIVE_SHIFT
    }

    /// All other flows.
    #[inline]
    pub const fn inactive(self) -> u64 {
        self.0 & (ACTIVE - 1)
    }

    /// All flows.
    #[inline]
    pub const fn flows(self) -> u64 {
        self.active() + self.inactive()
    }

    /// The load of both.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

/// Loads as one worker makes them, by backend slot.
#[derive(Debug)]
pub struct Loads {
    loads: Table<AtomicU64>,
    /// How many flows began or ended.
    changes: AtomicU64,
}

impl Loads {
    /// No flows yet, of backends in slots 0 to `backends` - 1.
    pub fn new(backends: usize) -> Self {
        let loads = gathered((0..backends).map(|_| AtomicU64::new(0)));
        Self { loads, changes: AtomicU64::new(0) }
    }

    /// The load of a backend; none of a slot that there is not.
    #[inline]
    pub fn get(&self, slot: BackendSlot) -> Load {
        self.view().get(slot)
    }

    /// All of them, for who reads many.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View(&self.loads)
    }

    /// A flow began. Only its one writer may say so, as of all that follows.
    #[inline]
    pub fn begin(&self, slot: BackendSlot, active: bool) {
        self.change(slot, |load| load.wrapping_add(unit(active)));
        self.count_change();
    }

    /// A flow ended.
    #[inline]
    pub fn end(&self, slot: BackendSlot, active: bool) {
        self.change(slot, |load| load.wrapping_sub(unit(active)));
        self.count_change();
    }

    /// A flow became active, or not any more.
    #[inline]
    pub fn turn(&self, slot: BackendSlot, active: bool) {
        self.change(slot, |load| load.wrapping_add(unit(active)).wrapping_sub(unit(!active)));
    }

    /// How many flows began or ended. Loads that are read afterwards have all of these in them.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Asks for the load of a backend to come into the cache.
    #[inline]
    pub fn prefetch(&self, slot: BackendSlot) {
        prefetch(self.loads.as_ptr().wrapping_add(slot.0 as usize));
    }

    #[inline]
    fn count_change(&self) {
        // Behind the change itself.
        self.changes.store(self.changes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    #[inline]
    fn change(&self, slot: BackendSlot, change: impl Fn(u64) -> u64) {
        if let Some(load) = self.loads.get(slot.0 as usize) {
            // One store, so that a reader never sees a flow in neither half, or in both.
            load.store(change(load.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}

/// Loads as one worker makes them. Where they are is in registers and not asked of memory for each, as it has to be of
/// what has atomics in it.
#[derive(Clone, Copy)]
pub struct View<'a>(&'a [AtomicU64]);

impl View<'_> {
    /// The load of a backend; none of a slot that there is not.
    #[inline]
    pub fn get(self, slot: BackendSlot) -> Load {
        Load(match self.0.get(slot.0 as usize) {
            Some(load) => load.load(Ordering::Relaxed),
            None => nothing(),
        })
    }
}

/// The load of a slot that there is not: a call, for the way of all others to be a straight line.
#[cold]
#[inline(never)]
fn nothing() -> u64 {
    0
}

#[inline]
fn unit(active: bool) -> u64 {
    if active { ACTIVE } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_come_turn_and_go() {
        let (loads, slot) = (Loads::new(2), BackendSlot(1));
        loads.begin(slot, true);
        loads.begin(slot, true);
        loads.begin(slot, false);
        assert_eq!(loads.get(slot), Load::new(2, 1));
        loads.turn(slot, false);
        assert_eq!((loads.get(slot), loads.get(slot).flows()), (Load::new(1, 2), 3));
        loads.turn(slot, true);
        loads.end(slot, true);
        loads.end(slot, true);
        loads.end(slot, false);
        assert_eq!((loads.get(slot), loads.get(BackendSlot(0))), (Load::default(), Load::default()));
        loads.begin(BackendSlot(2), true);
        assert_eq!(loads.get(BackendSlot(2)), Load::default());
    }

    #[test]
    fn loads_of_several_workers_add_up() {
        assert_eq!(Load::new(1, u32::MAX - 1).plus(Load::new(2, 1)), Load::new(3, u32::MAX));
    }
}

//! Frames that travel together, so that their cache misses overlap.

/// Frames in a burst at most: enough to hide memory latency, few enough to stay in the first-level cache.
pub const BURST: usize = 32;

/// Up to [`BURST`] owned frames, in order.
#[derive(Debug)]
pub struct Burst<F> {
    /// The first `len` are `Some`, but for those already taken; all others are `None`.
    slots: [Option<F>; BURST],
    len: usize,
    /// Places among them whose frames were taken.
    taken: usize,
}

impl<F> Default for Burst<F> {
    fn default() -> Self {
        Self { slots: [const { None }; BURST], len: 0, taken: 0 }
    }
}

impl<F> Burst<F> {
    /// Number of places in use, taken ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no place is in use.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a frame at the end, or gives it back if the burst is full.
    #[inline]
    pub fn push(&mut self, frame: F) -> Result<(), F> {
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                debug_assert!(slot.is_none());
                // Nothing is there to be freed, and nobody has to look.
                std::mem::forget(slot.replace(frame));
                self.len += 1;
                Ok(())
            }
            None => Err(frame),
        }
    }

    /// The places in use.
    #[inline]
    pub fn places(&self) -> &[Option<F>] {
        // No more are in use than there are.
        self.slots.get(..self.len).unwrap_or_default()
    }

    /// All places; those that are not in use are empty.
    #[inline]
    pub(crate) fn all_places(&self) -> &[Option<F>; BURST] {
        &self.slots
    }

    /// All places, to change frames in them; none of these is taken out.
    #[inline]
    pub(crate) fn places_mut(&mut self) -> &mut [Option<F>; BURST] {
        &mut self.slots
    }

    /// The frame in a place, if it was not taken.
    #[inline]
    pub fn get(&self, place: usize) -> Option<&F> {
        self.slots.get(place)?.as_ref()
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, place: usize) -> Option<&mut F> {
        self.slots.get_mut(place)?.as_mut()
    }

    /// Moves a frame out of its place, which stays empty.
    #[inline]
    pub fn take(&mut self, place: usize) -> Option<F> {
        let frame = self.slots.get_mut(place)?.take()?;
        self.taken += 1;
        Some(frame)
    }

    /// Forgets all places; frames still in them are freed.
    #[inline]
    pub fn clear(&mut self) {
        // Nearly every burst is emptied frame by frame.
        if self.taken < self.len {
            self.slots[..self.len].fill_with(|| None);
        }
        self.len = 0;
        self.taken = 0;
    }

    /// Moves the first frame out and the rest to the front.
    pub fn take_front(&mut self) -> Option<F> {
        self.close_gaps();
        let frame = self.slots[0].take()?;
        self.shift(1);
        Some(frame)
    }

    /// Moves the frames together, so that the first `len` places all hold one.
    #[inline]
    pub(crate) fn close_gaps(&mut self) {
        if self.taken > 0 {
            self.compact();
        }
    }

    #[cold]
    fn compact(&mut self) {
        let mut kept = 0;
        for place in 0..self.len {
            if self.slots[place].is_some() {
                self.slots.swap(kept, place);
                kept += 1;
            }
        }
        self.len = kept;
        self.taken = 0;
    }

    /// Forgets the first `count` frames without freeing them, because a driver owns them now; the rest moves
    /// to the front.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn disown(&mut self, count: usize) {
        self.slots[..count].iter_mut().for_each(|slot| std::mem::forget(slot.take()));
        if count == self.len {
            self.len = 0;
        } else {
            self.shift(count);
        }
    }

    /// Moves all but the first `count` places to the front.
    fn shift(&mut self, count: usize) {
        self.slots[..self.len].rotate_left(count);
        self.len -= count;
    }

    /// All places, for a driver to fill or to empty; [`Burst::set_len`] then says how many it filled.
    #[cfg(feature = "dpdk")]
    pub(crate) fn slots_mut(&mut self) -> &mut [Option<F>; BURST] {
        &mut self.slots
    }

    /// Says how many places, counted from the first, hold frames. What a driver left behind them is still its own: vector
    /// functions of Intel's drivers fill places by fours, and then count those that have a frame.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn set_len(&mut self, len: usize) {
        debug_assert!(self.slots[..len].iter().all(Option::is_some));
        self.slots[len..].iter_mut().for_each(|slot| std::mem::forget(slot.take()));
        self.len = len;
        self.taken = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_burst_is_bounded_and_gives_back_what_does_not_fit() {
        let mut burst = Burst::default();
        for number in 0..BURST {
            assert_eq!(burst.push(number), Ok(()));
        }
        assert_eq!(burst.push(99), Err(99));
        assert_eq!(burst.take(3), Some(3));
        assert_eq!(burst.take(3), None);
        assert_eq!(burst.take(BURST), None);
        burst.clear();
        assert!(burst.is_empty() && burst.get(0).is_none());
    }

    #[test]
    fn a_cleared_burst_frees_what_was_left_and_takes_as_many_again() {
        let freed = Rc::new(());
        let mut burst = Burst::default();
        for left in [0, 1, BURST] {
            for _ in 0..BURST {
                burst.push(Rc::clone(&freed)).unwrap();
            }
            for place in left..BURST {
                // A place is taken once, whoever tries again.
                assert!(burst.take(place).is_some() && burst.take(place).is_none());
            }
            burst.clear();
            assert_eq!((Rc::strong_count(&freed), burst.len()), (1, 0), "{left}");
        }
    }

    #[cfg(feature = "dpdk")]
    #[test]
    fn what_a_driver_leaves_behind_its_frames_is_neither_seen_nor_freed() {
        let frame = Rc::new(());
        let mut burst = Burst::default();
        burst.slots_mut()[..4].fill_with(|| Some(Rc::clone(&frame)));
        burst.set_len(2);
        assert!(burst.get(1).is_some() && burst.all_places()[2..].iter().all(Option::is_none));
        drop(burst);
        assert_eq!(Rc::strong_count(&frame), 1 + 2);
    }

    #[test]
    fn taking_from_the_front_keeps_the_order_of_the_rest() {
        let mut burst = Burst::default();
        for number in 0..3 {
            burst.push(number).unwrap();
        }
        assert_eq!(burst.take_front(), Some(0));
        assert_eq!((burst.len(), burst.get(0), burst.get(1), burst.get(2)), (2, Some(&1), Some(&2), None));
        assert_eq!([burst.take_front(), burst.take_front(), burst.take_front()], [Some(1), Some(2), None]);
        assert!(burst.is_empty());
    }

    #[test]
    fn gaps_close_and_keep_the_order() {
        let mut burst = Burst::default();
        for number in 0..6 {
            burst.push(number).unwrap();
        }
        for place in [0, 3, 5] {
            burst.take(place);
        }
        burst.close_gaps();
        assert_eq!(burst.len(), 3);
        assert_eq!([burst.get(0), burst.get(1), burst.get(2)], [Some(&1), Some(&2), Some(&4)]);
        assert_eq!(burst.push(7), Ok(()));
        assert_eq!(burst.get(3), Some(&7));
    }
}

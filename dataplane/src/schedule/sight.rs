//! What a choice sees of backends: what all workers did, or the only one, which takes fewer looks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::load::Load;
use crate::snapshot::BackendSlot;
use crate::stats::{BackendCounters, WorkerStats};
use crate::team::Team;

/// Who looks at backends.
pub(super) trait Sight<'a>: Copy {
    /// The team that is looked at.
    fn team(self) -> &'a Team;

    /// How often flows began or ended.
    fn changes(self) -> u64;

    /// The flows of a backend.
    fn loads(self) -> impl Fn(BackendSlot) -> Load + Copy;
}

impl<'a> Sight<'a> for &'a Team {
    #[inline]
    fn team(self) -> &'a Team {
        self
    }

    #[inline]
    fn changes(self) -> u64 {
        self.changes()
    }

    #[inline]
    fn loads(self) -> impl Fn(BackendSlot) -> Load + Copy {
        move |slot| self.load(slot)
    }
}

/// The only worker.
#[derive(Clone, Copy)]
pub(super) struct Alone<'a> {
    team: &'a Team,
    stats: &'a WorkerStats,
}

impl<'a> Sight<'a> for Alone<'a> {
    #[inline]
    fn team(self) -> &'a Team {
        self.team
    }

    #[inline]
    fn changes(self) -> u64 {
        self.stats.loads.changes()
    }

    #[inline]
    fn loads(self) -> impl Fn(BackendSlot) -> Load + Copy {
        let loads = self.stats.loads.view();
        move |slot| loads.get(slot)
    }
}

impl<'a> Alone<'a> {
    /// The only worker of a team, if there is only one.
    #[inline]
    pub(super) fn of(team: &'a Team) -> Option<Self> {
        team.alone().map(|stats| Self { team, stats })
    }

    /// Recent packets of a backend, in and out; less than none if its counters were read before its mark.
    // Counters that nobody asks for would be read all the same, so packets and bytes are apart.
    #[inline]
    pub(super) fn recent_packets(self) -> impl Fn(BackendSlot) -> i64 {
        self.recent(BackendCounters::packets, self.team.marks.packets())
    }

    /// The bytes of these.
    #[inline]
    pub(super) fn recent_bytes(self) -> impl Fn(BackendSlot) -> i64 {
        self.recent(BackendCounters::bytes, self.team.marks.bytes())
    }

    /// What `count` says of a backend's counters, less what it was at their mark.
    #[inline]
    fn recent(
        self,
        count: impl Fn(&BackendCounters) -> u64,
        marks: &'a [AtomicU64],
    ) -> impl Fn(BackendSlot) -> i64 {
        // There are as many of both. That their lengths are one spares a comparison.
        let counters = self.stats.backends();
        let len = counters.len().min(marks.len());
        let (counters, marks) = (&counters[..len], &marks[..len]);
        move |BackendSlot(slot)| match counters.get(slot as usize).zip(marks.get(slot as usize)) {
            Some((counters, mark)) => {
                count(counters).wrapping_sub(mark.load(Ordering::Relaxed)).cast_signed()
            }
            None => nothing(),
        }
    }
}

/// The traffic of a slot that there is not: a call, for the way of all others to be a straight line.
#[cold]
#[inline(never)]
fn nothing() -> i64 {
    0
}

//! What a choice sees of backends: what all workers did, or the only one, which takes fewer looks.

use crate::load::Load;
use crate::measure::Mark;
use crate::snapshot::{BackendSlot, Candidate};
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

    /// Its recent packets, in and out.
    fn recent_packets(self) -> impl Fn(&Candidate) -> u64;

    /// The bytes of these.
    fn recent_bytes(self) -> impl Fn(&Candidate) -> u64;
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

    #[inline]
    fn recent_packets(self) -> impl Fn(&Candidate) -> u64 {
        move |it: &Candidate| self.recent_traffic(it.backend).packets
    }

    #[inline]
    fn recent_bytes(self) -> impl Fn(&Candidate) -> u64 {
        move |it: &Candidate| self.recent_traffic(it.backend).bytes
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

    // Counters that nobody asks for would be read all the same, so packets and bytes are apart.
    #[inline]
    fn recent_packets(self) -> impl Fn(&Candidate) -> u64 {
        self.recent(BackendCounters::packets, Mark::packets)
    }

    #[inline]
    fn recent_bytes(self) -> impl Fn(&Candidate) -> u64 {
        self.recent(BackendCounters::bytes, Mark::bytes)
    }
}

impl<'a> Alone<'a> {
    /// The only worker of a team, if there is only one.
    #[inline]
    pub(super) fn of(team: &'a Team) -> Option<Self> {
        team.alone().map(|stats| Self { team, stats })
    }

    /// What `count` says of a backend's counters, less what `mark` says of their marks.
    #[inline]
    fn recent(
        self,
        count: impl Fn(&BackendCounters) -> u64,
        mark: impl Fn(&Mark) -> u64,
    ) -> impl Fn(&Candidate) -> u64 {
        // There are as many of both. That their lengths are one spares a comparison.
        let (counters, marks) = (self.stats.backends(), self.team.marks.all());
        let len = counters.len().min(marks.len());
        let (counters, marks) = (&counters[..len], &marks[..len]);
        move |it: &Candidate| {
            let slot = it.backend.0 as usize;
            let both = counters.get(slot).zip(marks.get(slot));
            both.map_or(0, |(counters, its)| count(counters).saturating_sub(mark(its)))
        }
    }
}

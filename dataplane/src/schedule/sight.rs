//! What a choice sees of backends: what all workers did, or the only one, which takes fewer looks.

use crate::load::Load;
use crate::measure::{Mark, Marks};
use crate::snapshot::Candidate;
use crate::stats::{BackendCounters, WorkerStats};
use crate::team::Team;

/// Who looks at backends.
pub(super) trait Sight<'a>: Copy {
    /// Who looks for a team, if that is right for it.
    fn of(team: &'a Team) -> Option<Self>;

    /// How often flows began or ended.
    fn changes(self) -> u64;

    /// The flows of a backend.
    fn loads(self) -> impl Fn(&Candidate) -> Load + Copy;

    /// Its recent packets, in and out.
    fn recent_packets(self) -> impl Fn(&Candidate) -> u64;

    /// The bytes of these.
    fn recent_bytes(self) -> impl Fn(&Candidate) -> u64;
}

impl<'a> Sight<'a> for &'a Team {
    #[inline]
    fn of(team: &'a Team) -> Option<Self> {
        Some(team)
    }

    #[inline]
    fn changes(self) -> u64 {
        self.changes()
    }

    #[inline]
    fn loads(self) -> impl Fn(&Candidate) -> Load + Copy {
        move |it: &Candidate| self.load(it.backend)
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
    stats: &'a WorkerStats,
    marks: &'a Marks,
}

impl<'a> Sight<'a> for Alone<'a> {
    #[inline]
    fn of(team: &'a Team) -> Option<Self> {
        team.alone().map(|stats| Self { stats, marks: &team.marks })
    }

    #[inline]
    fn changes(self) -> u64 {
        self.stats.loads.changes()
    }

    #[inline]
    fn loads(self) -> impl Fn(&Candidate) -> Load + Copy {
        let loads = self.stats.loads.view();
        move |it: &Candidate| loads.get(it.backend)
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
    /// What `count` says of a backend's counters, less what `mark` says of their marks.
    #[inline]
    fn recent(
        self,
        count: impl Fn(&BackendCounters) -> u64,
        mark: impl Fn(&Mark) -> u64,
    ) -> impl Fn(&Candidate) -> u64 {
        // There are as many of both. That their lengths are one spares a comparison.
        let (counters, marks) = (self.stats.backends(), self.marks.all());
        let len = counters.len().min(marks.len());
        let (counters, marks) = (&counters[..len], &marks[..len]);
        move |it: &Candidate| {
            let slot = it.backend.0 as usize;
            let both = counters.get(slot).zip(marks.get(slot));
            both.map_or(0, |(counters, its)| count(counters).saturating_sub(mark(its)))
        }
    }
}

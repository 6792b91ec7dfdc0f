//! What is measured of backends for the schedulers that follow it: recent traffic, and how fast they answer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::prefetch::{Table, gathered};
use crate::snapshot::BackendSlot;
use crate::stats::WorkerStats;

/// Packets and their bytes, in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

impl Traffic {
    /// What one worker counted for a backend.
    #[inline]
    pub fn of(stats: &WorkerStats, slot: BackendSlot) -> Self {
        let its = stats.backend(slot);
        Self { packets: its.packets(), bytes: its.bytes() }
    }

    /// The traffic of both.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
        }
    }

    /// What came since a mark. Counters that are read while they grow may be behind it, which is nothing.
    #[inline]
    #[must_use]
    pub const fn since(self, mark: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(mark.packets),
            bytes: self.bytes.saturating_sub(mark.bytes),
        }
    }
}

/// What backends had counted some seconds ago, by slot. Only the control thread writes.
#[derive(Debug)]
pub struct Marks {
    packets: Table<AtomicU64>,
    bytes: Table<AtomicU64>,
}

impl Marks {
    /// Nothing was counted, of backends in slots 0 to `backends` - 1.
    pub(crate) fn new(backends: usize) -> Self {
        let nothing = || gathered((0..backends).map(|_| AtomicU64::new(0)));
        Self { packets: nothing(), bytes: nothing() }
    }

    /// The mark of a backend.
    #[inline]
    pub fn get(&self, slot: BackendSlot) -> Traffic {
        let of = |marks: &[AtomicU64]| marks.get(slot.0 as usize).map_or(0, |it| it.load(Ordering::Relaxed));
        Traffic { packets: of(&self.packets), bytes: of(&self.bytes) }
    }

    /// The packets of all marks, by slot.
    #[inline]
    pub(crate) fn packets(&self) -> &[AtomicU64] {
        &self.packets
    }

    /// Their bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[AtomicU64] {
        &self.bytes
    }

    /// Moves it.
    pub fn set(&self, slot: BackendSlot, to: Traffic) {
        let slot = slot.0 as usize;
        if let (Some(packets), Some(bytes)) = (self.packets.get(slot), self.bytes.get(slot)) {
            // A reader between the two weighs by one of them alone, and so sees no mixture.
            packets.store(to.packets, Ordering::Relaxed);
            bytes.store(to.bytes, Ordering::Relaxed);
        }
    }
}

/// How long backends take to answer a SYN, by slot: moving averages in nanoseconds.
///
/// All workers write. Two that write at once may lose one of their samples, of which there are more.
#[derive(Debug)]
pub struct Times(Table<AtomicU64>);

impl Times {
    /// Of a backend that nobody asked yet.
    pub const UNASKED: u64 = 0;
    /// Of a backend that was asked and has not answered yet.
    pub const UNANSWERED: u64 = u64::MAX;

    /// Nobody was asked, of backends in slots 0 to `backends` - 1.
    pub(crate) fn new(backends: usize) -> Self {
        Self(gathered((0..backends).map(|_| AtomicU64::new(Self::UNASKED))))
    }

    /// The time of a backend.
    #[inline]
    pub fn get(&self, slot: BackendSlot) -> u64 {
        self.0.get(slot.0 as usize).map_or(Self::UNANSWERED, |time| time.load(Ordering::Relaxed))
    }

    /// A backend is asked.
    #[inline]
    pub fn ask(&self, slot: BackendSlot) {
        if self.get(slot) == Self::UNASKED {
            self.set(slot, Self::UNANSWERED);
        }
    }

    /// A backend answered after so many nanoseconds, or has not done so for as long: the newest sample is an eighth
    /// of the average (RFC 6298, 2.3).
    pub fn note(&self, slot: BackendSlot, nanos: u64) {
        // An hour is longer than any handshake; the least average is not taken for none.
        let sample = nanos.clamp(8, 3_600_000_000_000);
        let average = match self.get(slot) {
            Self::UNASKED | Self::UNANSWERED => sample,
            average => average - average / 8 + sample / 8,
        };
        self.set(slot, average);
    }

    /// The slot has another backend.
    pub fn forget(&self, slot: BackendSlot) {
        self.set(slot, Self::UNASKED);
    }

    fn set(&self, slot: BackendSlot, to: u64) {
        self.0.get(slot.0 as usize).inspect(|time| time.store(to, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: BackendSlot = BackendSlot(1);

    #[test]
    fn traffic_is_counted_from_the_mark_on() {
        let (stats, marks) = (WorkerStats::new(2), Marks::new(2));
        stats.backend(SLOT).in_packets.add(3);
        stats.backend(SLOT).out_packets.add(4);
        stats.backend(SLOT).in_bytes.add(300);
        stats.backend(SLOT).out_bytes.add(1000);
        let traffic = Traffic::of(&stats, SLOT);
        assert_eq!(traffic, Traffic { packets: 7, bytes: 1300 });
        marks.set(SLOT, Traffic { packets: 5, bytes: 1000 });
        assert_eq!(traffic.since(marks.get(SLOT)), Traffic { packets: 2, bytes: 300 });
        marks.set(SLOT, Traffic { packets: 8, bytes: 1000 });
        assert_eq!(traffic.since(marks.get(SLOT)).packets, 0, "a counter that lags is nothing");
        marks.set(BackendSlot(2), traffic);
        assert_eq!(marks.get(BackendSlot(2)), Traffic::default());
    }

    #[test]
    fn times_are_averages_of_an_eighth() {
        let times = Times::new(2);
        assert_eq!(times.get(SLOT), Times::UNASKED);
        times.ask(SLOT);
        assert_eq!(times.get(SLOT), Times::UNANSWERED);
        let mut averages = [8000, 16_000, 0, 0].into_iter().map(|nanos| {
            times.note(SLOT, nanos);
            times.get(SLOT)
        });
        assert!(averages.by_ref().eq([8000, 9000, 7876, 6893]));
        times.ask(SLOT);
        assert_eq!(times.get(SLOT), 6893, "what is known stays");
        (0..1000).for_each(|_| times.note(SLOT, 0));
        assert_eq!(times.get(SLOT), 15, "an average is never as if nobody was asked");
        times.note(SLOT, u64::MAX);
        assert_ne!(times.get(SLOT), Times::UNANSWERED);
        times.forget(SLOT);
        assert_eq!(times.get(SLOT), Times::UNASKED);
        assert_eq!(times.get(BackendSlot(2)), Times::UNANSWERED);
    }
}

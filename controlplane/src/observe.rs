//! What schedulers follow that measure load: decided once a second from what the workers count. Pure.

use std::collections::HashMap;

use config::words::Scheduler;
use dataplane::load::Load;
use dataplane::measure::Traffic;
use dataplane::snapshot::BackendSlot;

/// Notes in a window. The oldest of three was made two seconds ago, and up to three when the next one comes.
const NOTES: usize = 3;

/// What the backends that are measured had counted at the last looks.
#[derive(Debug, Default)]
pub struct Windows(HashMap<BackendSlot, [Traffic; NOTES]>);

impl Windows {
    /// Measures exactly the backends in these slots from now on. Returns those that were not measured before, with
    /// what they have counted: nothing of it is theirs, or recent.
    pub fn follow(
        &mut self,
        slots: impl Iterator<Item = BackendSlot>,
        counted: impl Fn(BackendSlot) -> Traffic,
    ) -> Vec<(BackendSlot, Traffic)> {
        let mut new = Vec::new();
        let mut begin = |slot| {
            let traffic = counted(slot);
            new.push((slot, traffic));
            [traffic; NOTES]
        };
        let kept = |slot: BackendSlot| {
            let notes = self.0.remove(&slot).unwrap_or_else(|| begin(slot));
            (slot, notes)
        };
        self.0 = slots.map(kept).collect();
        new
    }

    /// Notes what each has counted. Returns the oldest of its notes.
    pub fn note(
        &mut self,
        counted: impl Fn(BackendSlot) -> Traffic,
    ) -> impl Iterator<Item = (BackendSlot, Traffic)> {
        self.0.iter_mut().map(move |(slot, notes)| {
            notes.rotate_left(1);
            notes[NOTES - 1] = counted(*slot);
            (*slot, notes[0])
        })
    }
}

/// A backend at a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its weight.
    pub weight: u16,
    /// Its connections, as [`connections`] counts them.
    pub now: u64,
    /// The same at the look before; none if it was not looked at.
    pub before: Option<u64>,
}

/// The connections of a backend as they count for a ratio: inactive ones hardly do, unless there are no others.
pub fn connections(load: Load) -> u64 {
    (load.active() << 8) + load.flows()
}

/// Whether the weights of a service with this scheduler are multiplied by [`ratios`].
pub const fn has_ratios(scheduler: Scheduler) -> bool {
    matches!(scheduler, Scheduler::Observed | Scheduler::Predictive)
}

/// The ratios of the backends of a service, in their order. All are 1 if its scheduler has none.
///
/// `observed` gives 3 to a backend with fewer connections for its weight than all of them have, and 2 to others.
/// `predictive` also heeds whether they have become fewer since the look before:
///
/// | | fewer than before | not fewer |
/// |---|---|---|
/// | below the average | 4 | 3 |
/// | not below it | 2 | 1 |
pub fn ratios(scheduler: Scheduler, looks: &[Look]) -> Vec<u32> {
    let connections: u128 = looks.iter().map(|look| u128::from(look.now)).sum();
    let weights: u128 = looks.iter().map(|look| u128::from(look.weight)).sum();
    let ratio = |look: &Look| {
        // now / weight < connections / weights
        let is_below = u128::from(look.now) * weights < connections * u128::from(look.weight);
        let improves = look.before.is_some_and(|before| look.now < before);
        match scheduler {
            Scheduler::Observed => 2 + u32::from(is_below),
            Scheduler::Predictive => 1 + 2 * u32::from(is_below) + u32::from(improves),
            _ => 1,
        }
    };
    looks.iter().map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: BackendSlot = BackendSlot(3);

    fn traffic(packets: u64) -> Traffic {
        Traffic { packets, bytes: 100 * packets }
    }

    #[test]
    fn a_window_begins_two_looks_ago() {
        let mut windows = Windows::default();
        assert_eq!(windows.follow([SLOT].into_iter(), |_| traffic(7)), [(SLOT, traffic(7))]);
        assert!(windows.follow([SLOT].into_iter(), |_| traffic(8)).is_empty());
        let oldest: Vec<_> = [10, 20, 30, 40]
            .into_iter()
            .flat_map(|packets| windows.note(|_| traffic(packets)).collect::<Vec<_>>())
            .map(|(_, oldest)| oldest.packets)
            .collect();
        assert_eq!(oldest, [7, 7, 10, 20]);
    }

    #[test]
    fn who_comes_back_begins_anew() {
        let mut windows = Windows::default();
        windows.follow([SLOT].into_iter(), |_| traffic(7));
        assert!(windows.follow([].into_iter(), |_| traffic(8)).is_empty());
        assert_eq!(windows.note(|_| traffic(8)).count(), 0);
        assert_eq!(windows.follow([SLOT].into_iter(), |_| traffic(9)), [(SLOT, traffic(9))]);
    }

    /// The ratios of backends of these weights, connections, and connections before.
    fn of(scheduler: Scheduler, looks: &[(u16, u64, u64)]) -> Vec<u32> {
        let look = |&(weight, now, before): &_| Look { weight, now, before: Some(before) };
        ratios(scheduler, &looks.iter().map(look).collect::<Vec<_>>())
    }

    #[test]
    fn observed_is_3_below_the_average_and_2_else() {
        let observed = |looks: &[_]| of(Scheduler::Observed, looks);
        assert_eq!(observed(&[(1, 10, 0), (1, 20, 0), (1, 15, 0)]), [3, 2, 2], "15 are not below 15");
        assert_eq!(observed(&[(1, 10, 0), (1, 20, 0), (1, 16, 0)]), [3, 2, 2]);
        assert_eq!(observed(&[(1, 10, 0), (1, 20, 0), (1, 14, 0)]), [3, 2, 3]);
        assert_eq!(observed(&[(1, 10, 0), (3, 29, 0)]), [2, 3], "by weight");
        assert_eq!(observed(&[(1, 0, 0), (1, 0, 0)]), [2, 2]);
        assert_eq!(observed(&[(u16::MAX, u64::MAX, 0), (1, u64::MAX, 0)]), [3, 2], "nothing overflows");
        assert!(observed(&[]).is_empty());
    }

    #[test]
    fn predictive_heeds_the_trend_too() {
        let predictive = |looks: &[_]| of(Scheduler::Predictive, looks);
        assert_eq!(predictive(&[(1, 10, 11), (1, 10, 10), (1, 30, 31), (1, 30, 30)]), [4, 3, 2, 1]);
        assert_eq!(predictive(&[(1, 10, 9), (1, 30, 29)]), [3, 1], "more is no better than as many");
        let looks = [Look { weight: 1, now: 0, before: None }, Look { weight: 1, now: 1, before: None }];
        assert_eq!(ratios(Scheduler::Predictive, &looks), [3, 1], "without a look before there is no trend");
        assert_eq!(ratios(Scheduler::Swrr, &looks), [1, 1]);
    }

    #[test]
    fn inactive_connections_hardly_count_beside_active_ones() {
        assert_eq!(connections(Load::new(1, 0)), connections(Load::new(0, 257)));
    }

    /// New connections of which none ends, by ratio: those who had none catch up, and then all have as many.
    #[test]
    fn observed_connections_come_together() {
        let mut open = [300.0, 100.0, 0.0];
        for _ in 0..200 {
            let looks = open.map(|now| Look { weight: 1, now: now as u64, before: None });
            let ratios = ratios(Scheduler::Observed, &looks);
            let sum: u32 = ratios.iter().sum();
            // 50 connections a second, of which a tenth ends.
            for (open, ratio) in open.iter_mut().zip(ratios) {
                *open = *open * 0.9 + 50.0 * f64::from(ratio) / f64::from(sum);
            }
        }
        let mean = open.iter().sum::<f64>() / 3.0;
        assert!(open.iter().all(|open| (open / mean - 1.0).abs() < 0.1), "{open:?}");
    }
}

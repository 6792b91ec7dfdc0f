//! Adds up what was seen of a worker, by windows.

use std::time::Duration;

use super::changes::Window;
use super::gaps::{Turn, Why};
use crate::summary::Summary;

/// The longest gap that is no stall.
pub const STALL: Duration = Duration::from_micros(10);

/// What was seen in all windows of a kind of change.
#[derive(Debug, Default)]
pub struct Tally {
    /// Turns that took a new snapshot.
    adopting: Vec<Turn>,
    /// Some of the others.
    usual: Vec<Turn>,
    /// All other turns while changes were made.
    pub change: Sum,
    /// All turns while none was.
    pub quiet: Sum,
}

/// Turns within some time.
#[derive(Debug, Default)]
pub struct Sum {
    length: Duration,
    stalls: u64,
    own_stalls: u64,
    /// The longest gap.
    pub longest: Duration,
    /// The most time of its own that a turn took.
    pub longest_own: Duration,
}

impl Tally {
    /// Adds what was seen in a window of some length.
    pub fn add(&mut self, window: Window, length: Duration, turns: impl Iterator<Item = Turn>) {
        let sum = match window {
            // Belongs to what went on before.
            Window::Before => return turns.for_each(drop),
            Window::Quiet => &mut self.quiet,
            Window::Change => &mut self.change,
        };
        sum.length += length;
        for turn in turns {
            match turn.why {
                Why::Adopts => self.adopting.push(turn),
                Why::Long => sum.add(turn),
                Why::Usual => self.usual.push(turn),
            }
        }
    }
}

impl Tally {
    /// Microseconds of something in all turns that took a snapshot.
    pub fn adopting(&self, micros: impl Fn(&Turn) -> f64) -> Option<Summary> {
        Summary::of(self.adopting.iter().map(micros).collect())
    }

    /// The same of those among them in which nobody else had the core.
    pub fn undisturbed(&self, micros: impl Fn(&Turn) -> f64) -> Option<Summary> {
        let undisturbed = self.adopting.iter().filter(|turn| !turn.lost_its_core());
        Summary::of(undisturbed.map(micros).collect())
    }

    /// The same of some other turns.
    pub fn usual(&self, micros: impl Fn(&Turn) -> f64) -> Option<Summary> {
        Summary::of(self.usual.iter().map(micros).collect())
    }

    /// Page faults in turns that took a snapshot.
    pub fn faults(&self) -> u64 {
        self.adopting.iter().map(|turn| turn.faults).sum()
    }
}

impl Sum {
    fn add(&mut self, turn: Turn) {
        self.stalls += 1;
        self.own_stalls += u64::from(turn.own > STALL);
        self.longest = self.longest.max(turn.gap);
        self.longest_own = self.longest_own.max(turn.own);
    }

    /// Stalls in a second, and those among them in which the worker had its core for longer than a stall.
    pub fn rates(&self) -> (f64, f64) {
        let rate = |count| count as f64 / self.length.as_secs_f64();
        (rate(self.stalls), rate(self.own_stalls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_told_apart_by_kind_and_window() {
        let mut tally = Tally::default();
        let turn = |why, gap, own| {
            let [gap, own] = [gap, own].map(Duration::from_micros);
            Turn { why, gap, own, burst: Duration::ZERO, faults: 0 }
        };
        let (long, adopts, usual) = (Why::Long, Why::Adopts, Why::Usual);
        let second = Duration::from_secs(1);
        tally.add(Window::Before, second, [turn(long, 900, 900), turn(adopts, 1, 1)].into_iter());
        tally.add(Window::Quiet, 2 * second, [turn(long, 30, 20), turn(usual, 1, 1)].into_iter());
        tally.add(Window::Change, second, [turn(long, 80, 2), turn(adopts, 40, 3)].into_iter());
        assert_eq!((tally.quiet.rates(), tally.change.rates()), ((0.5, 0.5), (1.0, 0.0)));
        assert_eq!(tally.change.longest.as_micros(), 80);
        assert_eq!(tally.quiet.longest_own.as_micros(), 20);
        let own = |turn: &Turn| turn.own.as_micros() as f64;
        let max = |summary: Option<Summary>| summary.unwrap().max;
        assert_eq!((max(tally.adopting(own)), max(tally.usual(own))), (3.0, 1.0));
    }

    #[test]
    fn turns_in_which_the_core_was_lost_are_known() {
        let turn = |own, gap| Turn {
            why: Why::Adopts,
            gap: Duration::from_micros(gap),
            own: Duration::from_micros(own),
            burst: Duration::ZERO,
            faults: 1,
        };
        let mut tally = Tally::default();
        tally.add(Window::Change, Duration::from_secs(1), [turn(50, 90), turn(2, 2), turn(3, 3)].into_iter());
        let undisturbed = tally.undisturbed(|turn| turn.own.as_micros() as f64).unwrap();
        assert_eq!((undisturbed.min, undisturbed.max, tally.faults()), (2.0, 3.0, 3));
    }
}

//! Adds up what was seen of a worker, by windows.

use std::time::Duration;

use super::changes::Window;
use super::gaps::Seen;

/// What was seen in all windows of a kind of change.
#[derive(Debug, Default)]
pub struct Tally {
    /// Microseconds of each turn that took a new snapshot.
    pub adopting: Vec<f64>,
    /// Windows with a change.
    pub change: Sum,
    /// Windows without.
    pub quiet: Sum,
}

/// Stalls within some time.
#[derive(Debug, Default)]
pub struct Sum {
    stalls: u64,
    /// Gaps in which another thread had the worker's core.
    pub disturbed: u64,
    length: Duration,
}

impl Tally {
    /// Adds what was seen in a window of some length.
    pub fn add(&mut self, window: Window, length: Duration, seen: Seen) {
        let sum = match window {
            // Belongs to what went on before.
            Window::Before => return,
            Window::Quiet => &mut self.quiet,
            Window::Change => &mut self.change,
        };
        sum.stalls += seen.stalls;
        sum.disturbed += seen.disturbed;
        sum.length += length;
        self.adopting.extend(seen.adopting);
    }
}

impl Sum {
    /// Stalls in a second.
    pub fn rate(&self) -> f64 {
        self.stalls as f64 / self.length.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_kind_of_window() {
        let mut tally = Tally::default();
        let seen = |stalls, adopting| Seen { adopting, stalls, disturbed: 1 };
        tally.add(Window::Before, Duration::from_secs(1), seen(100, Some(100.0)));
        tally.add(Window::Quiet, Duration::from_secs(2), seen(4, None));
        tally.add(Window::Change, Duration::from_secs(1), seen(3, Some(1.5)));
        tally.add(Window::Change, Duration::from_secs(1), seen(1, None));
        assert_eq!((tally.quiet.rate(), tally.change.rate()), (2.0, 2.0));
        assert_eq!((tally.adopting, tally.change.disturbed), (vec![1.5], 2));
    }
}

//! From single checks to a verdict: rise and fall.
//!
//! Pure: neither clock nor network, so all behaviour is tested by feeding it results.

/// What a change of the verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Passed as many times in a row as it takes to be trusted again.
    Rose,
    /// Failed as many times in a row as it takes to be given up.
    Fell,
}

/// Whether one backend is up.
///
/// A new one is up, so that a restart of the appliance is no outage; it falls like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    rise: u32,
    fall: u32,
    up: bool,
    /// Results in a row that speak against `up`.
    against: u32,
}

impl Verdict {
    /// A backend that is up, and changes after `rise` passed or `fall` failed checks in a row (each at
    /// least 1).
    pub fn new(rise: u32, fall: u32) -> Self {
        Self::resume(rise, fall, true)
    }

    /// A backend whose state is known from before, as when its check changes.
    pub fn resume(rise: u32, fall: u32, up: bool) -> Self {
        Self { rise, fall, up, against: 0 }
    }

    /// Whether the backend is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Takes the result of one check, and says what it changes.
    pub fn observe(&mut self, passed: bool) -> Option<Change> {
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if self.up { self.fall } else { self.rise };
        if self.against < needed {
            return None;
        }
        self.up = passed;
        self.against = 0;
        Some(if passed { Change::Rose } else { Change::Fell })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The changes that a string of `+` (passed) and `-` (failed) makes, as one character a check.
    fn changes(rise: u32, fall: u32, checks: &str) -> String {
        let mut verdict = Verdict::new(rise, fall);
        let change = |check| match verdict.observe(check == '+') {
            Some(Change::Rose) => 'U',
            Some(Change::Fell) => 'D',
            None => '.',
        };
        checks.chars().map(change).collect()
    }

    #[test]
    fn a_new_backend_is_up_and_falls_like_any_other() {
        assert!(Verdict::new(2, 3).is_up());
        assert_eq!(changes(2, 3, "---"), "..D");
        assert_eq!(changes(2, 3, "+---"), "...D");
    }

    #[test]
    fn only_results_in_a_row_count() {
        assert_eq!(changes(2, 3, "--+--+---"), "........D");
        assert_eq!(changes(2, 3, "---+-+-++"), "..D.....U");
    }

    #[test]
    fn one_of_one_changes_at_once() {
        assert_eq!(changes(1, 1, "-+-++--"), "DUDU.D.");
    }

    #[test]
    fn a_resumed_backend_keeps_its_state() {
        let mut verdict = Verdict::resume(2, 3, false);
        assert!(!verdict.is_up());
        assert_eq!((verdict.observe(true), verdict.observe(true)), (None, Some(Change::Rose)));
    }

    /// The rule read literally: look back over all results since the last change.
    fn naive(rise: usize, fall: usize, results: &[bool]) -> Vec<Option<Change>> {
        let (mut up, mut since, mut changes) = (true, 0, Vec::new());
        for now in 1..=results.len() {
            let run = results[since..now].iter().rev().take_while(|&&passed| passed != up).count();
            let change = match up {
                true if run == fall => Some(Change::Fell),
                false if run == rise => Some(Change::Rose),
                _ => None,
            };
            if change.is_some() {
                (up, since) = (!up, now);
            }
            changes.push(change);
        }
        changes
    }

    proptest! {
        #[test]
        fn it_is_the_rule_read_literally(
            rise in 1_u32..5,
            fall in 1_u32..5,
            results in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut verdict = Verdict::new(rise, fall);
            let changes: Vec<_> = results.iter().map(|&passed| verdict.observe(passed)).collect();
            prop_assert_eq!(changes, naive(rise as usize, fall as usize, &results));
        }
    }
}

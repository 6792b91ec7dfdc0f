//! What a worker does in turns that find nothing, so that others may have the core.
//!
//! The more such turns in a row, the longer the rest; a turn that finds a frame ends it. Counted in turns,
//! not in time: a turn with frames pays one store, and nobody reads a clock.

use std::time::Duration;

use config::words;

/// How long to rest before the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Not at all.
    None,
    /// So many `pause` instructions: some 10 to 50 ns each, which go to the core's other hardware thread.
    Pause(u32),
    /// So long in the kernel, which runs other threads meanwhile.
    Sleep(Duration),
}

const fn sleep(micros: u64) -> Rest {
    Rest::Sleep(Duration::from_micros(micros))
}

/// A rest, and up to how many empty turns in a row it is the one; the last of a list is it for ever.
type Step = (u32, Rest);

const POLL: &[Step] = &[(0, Rest::None)];
const PAUSE: &[Step] =
    &[(128, Rest::None), (192, Rest::Pause(4)), (256, Rest::Pause(16)), (0, Rest::Pause(64))];
/// A worker that waits for longer than a sleep would cost, some microseconds, takes the core from those who
/// are about to send to it, and what comes meanwhile can be sent by one system call.
///
/// While a worker sleeps its receive rings fill: at 10 GbE's 14.9 million frames a second one of 1024 takes
/// 69 µs, and so does the queue of frames that other workers hand over.
const SLEEP: &[Step] =
    &[(16, Rest::None), (32, Rest::Pause(4)), (96, sleep(10)), (160, sleep(25)), (0, sleep(50))];

/// How long one worker has been idle.
pub struct Idle {
    steps: &'static [Step],
    /// Turns in a row that found nothing.
    empty: u32,
}

impl Idle {
    /// A worker that was just busy.
    pub fn new(mode: words::Idle) -> Self {
        let steps = match mode {
            words::Idle::Poll => POLL,
            words::Idle::Pause => PAUSE,
            words::Idle::Sleep => SLEEP,
        };
        Self { steps, empty: 0 }
    }

    /// After a turn that found something.
    #[inline]
    pub fn busy(&mut self) {
        self.empty = 0;
    }

    /// After a turn that found nothing: how long to rest.
    #[inline]
    pub fn rest(&mut self) -> Rest {
        match self.steps.iter().find(|(end, _)| self.empty < *end) {
            Some((_, rest)) => {
                self.empty += 1;
                *rest
            }
            None => self.steps[self.steps.len() - 1].1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rests of a worker that finds nothing, without repetitions.
    fn rests(idle: &mut Idle) -> Vec<Rest> {
        let mut rests: Vec<_> = (0..1000).map(|_| idle.rest()).collect();
        rests.dedup();
        rests
    }

    #[test]
    fn rests_grow_up_to_what_the_mode_allows_and_begin_anew_after_a_frame() {
        for (mode, longest) in [
            (words::Idle::Poll, Rest::None),
            (words::Idle::Pause, Rest::Pause(64)),
            (words::Idle::Sleep, sleep(50)),
        ] {
            let mut idle = Idle::new(mode);
            let first = rests(&mut idle);
            assert_eq!((first.first(), first.last()), (Some(&Rest::None), Some(&longest)), "{mode}");
            assert_eq!(rests(&mut idle), [longest], "{mode}");
            idle.busy();
            assert_eq!(rests(&mut idle), first, "{mode}");
        }
    }

    #[test]
    fn short_gaps_are_polled() {
        for mode in [words::Idle::Pause, words::Idle::Sleep] {
            let mut idle = Idle::new(mode);
            for _ in 0..100 {
                idle.busy();
                assert!((0..16).all(|_| idle.rest() == Rest::None), "{mode}");
            }
        }
    }
}

//! Watches a worker's turns: how long until it polls again, and how much of that it had its core.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use dataplane::port::Queue;
use dataplane::worker::{HOUSEKEEPING_TURNS, Worker};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// Turns from one that is told of although nothing is special about it to the next.
const USUAL_TURNS: u32 = 1 << 11;

/// Two looks at clocks are no further apart than this, unless something comes between them.
const LOOK: Duration = Duration::from_micros(1);

/// What is special about a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It took a new snapshot.
    Adopts,
    /// It was long.
    Long,
    /// Nothing.
    Usual,
}

/// One turn of a worker, and the look at two clocks behind it.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Why it is told of.
    pub why: Why,
    /// From poll to poll.
    pub gap: Duration,
    /// For how much of it the thread had its core; the rest another thread had, or the hypervisor. Interrupts of
    /// the core, and what the kernel does to switch threads, count as the thread's.
    pub own: Duration,
    /// The same of its burst, from when it was received until it was sent.
    pub burst: Duration,
    /// Page faults since the last turn that was told of.
    pub faults: u64,
}

impl Turn {
    /// Whether somebody else had the core.
    pub fn lost_its_core(&self) -> bool {
        self.gap > self.own + LOOK
    }
}

/// Runs a worker as [`Worker::run`] does, until `stop` is set, and tells of its turns. `burst_ns` is what its queue
/// notes of each burst; turns longer than `long` are told of.
///
/// # Errors
/// The kernel does not count for a thread.
pub fn watch<Q: Queue>(
    mut worker: Worker<Q>,
    stop: &AtomicBool,
    burst_ns: &AtomicU64,
    long: Duration,
    turns: &Sender<Turn>,
) -> io::Result<()> {
    let mut count = 0u32;
    let mut generation = worker.generation();
    let mut faults = page_faults()?;
    let (mut began, mut had) = (Instant::now(), own_time()?);
    while !stop.load(Ordering::Relaxed) {
        count = count.wrapping_add(1);
        if count.is_multiple_of(HOUSEKEEPING_TURNS) {
            worker.housekeeping();
        }
        worker.turn();
        let (now, has) = (Instant::now(), own_time()?);
        let (gap, own) = (now.duration_since(began), has.saturating_sub(had));
        (began, had) = (now, has);
        let why = if worker.generation() != generation {
            Why::Adopts
        } else if count.is_multiple_of(USUAL_TURNS) {
            Why::Usual
        } else if gap > long {
            Why::Long
        } else {
            continue;
        };
        let burst = Duration::from_nanos(burst_ns.load(Ordering::Relaxed));
        let all_faults = page_faults()?;
        // Nobody listens any more at the end.
        let _ = turns.send(Turn { why, gap, own, burst, faults: all_faults - faults });
        generation = worker.generation();
        // Telling takes longer than a turn.
        faults = page_faults()?;
        (began, had) = (Instant::now(), own_time()?);
    }
    Ok(())
}

/// Time for which the calling thread had a core.
///
/// # Errors
/// The kernel has no such clock.
pub fn own_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Page faults of the calling thread.
fn page_faults() -> io::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    // A number of events is not negative.
    Ok((usage.minor_page_faults() + usage.major_page_faults()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_or_touches_memory_is_seen() {
        let (begun, had, faults) = (Instant::now(), own_time().unwrap(), page_faults().unwrap());
        std::thread::sleep(Duration::from_millis(50));
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        let (gap, own) = (begun.elapsed(), own_time().unwrap() - had);
        assert!(page_faults().unwrap() > faults);
        assert!(own > Duration::ZERO && gap - own >= Duration::from_millis(50), "{gap:?} {own:?}");
        let turn = Turn { why: Why::Usual, gap, own, burst: own, faults };
        assert!(turn.lost_its_core() && !Turn { gap: own, ..turn }.lost_its_core());
    }
}

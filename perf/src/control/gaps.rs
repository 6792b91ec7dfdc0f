//! Watches a worker's turns: how long until it polls again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use dataplane::port::Queue;
use dataplane::worker::Worker;

/// Turns between housekeeping turns, as in [`Worker::run`].
const HOUSEKEEPING_TURNS: u32 = 256;
/// A gap of so many nanoseconds is looked into; asking the kernel takes longer than a turn.
const SUSPECT_NS: u64 = 2_000;
/// The longest gap, in nanoseconds, that is no stall.
const STALL_NS: u64 = 10_000;

/// What is seen of one worker. Written by its thread.
#[derive(Default)]
pub struct Gaps {
    /// Nanoseconds of the last turn that took a new snapshot; 0 if there was none, or the thread lost its core in it.
    adopting: AtomicU64,
    /// Stalls in all other turns, of those in which the thread had its core.
    stalls: AtomicU64,
    /// Gaps in which another thread had the core.
    disturbed: AtomicU64,
}

/// What was seen since it was last asked for.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Microseconds of the turn that took a new snapshot, if there was one and nothing else in it.
    pub adopting: Option<f64>,
    /// Other gaps that are longer than 10 µs.
    pub stalls: u64,
    /// Gaps in which another thread had the core.
    pub disturbed: u64,
}

impl Gaps {
    /// What was seen since this was last asked.
    pub fn take(&self) -> Seen {
        let [adopting, stalls, disturbed] =
            [&self.adopting, &self.stalls, &self.disturbed].map(|number| number.swap(0, Ordering::Relaxed));
        Seen { adopting: (adopting > 0).then_some(adopting as f64 / 1e3), stalls, disturbed }
    }
}

/// Runs a worker as [`Worker::run`] does, until `stop` is set, with a look at the clock after each turn.
///
/// # Errors
/// The kernel does not tell when another thread had the core.
pub fn watch<Q: Queue>(mut worker: Worker<Q>, stop: &AtomicBool, gaps: &Arc<Gaps>) -> std::io::Result<()> {
    let core = Core::open()?;
    let mut seen = core.slices()?;
    let mut turns = 0u32;
    let mut generation = worker.generation();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(HOUSEKEEPING_TURNS) {
            worker.housekeeping();
        }
        worker.turn();
        let now = Instant::now();
        // A gap of more than 500 years is none.
        let gap = now.duration_since(last).as_nanos() as u64;
        last = now;
        let adopted = worker.generation() != generation;
        if gap > SUSPECT_NS || adopted {
            generation = worker.generation();
            let slices = core.slices()?;
            if slices != seen {
                gaps.disturbed.fetch_add(1, Ordering::Relaxed);
            } else if adopted {
                gaps.adopting.store(gap, Ordering::Relaxed);
            } else if gap > STALL_NS {
                gaps.stalls.fetch_add(1, Ordering::Relaxed);
            }
            seen = slices;
            last = Instant::now();
        }
    }
    Ok(())
}

/// The kernel's word on who has the core.
struct Core(File);

impl Core {
    /// Of the calling thread.
    fn open() -> std::io::Result<Self> {
        Ok(Self(File::open("/proc/thread-self/schedstat")?))
    }

    /// How many times the thread was given a core so far: the last of three numbers.
    fn slices(&self) -> std::io::Result<u64> {
        let mut text = [0; 64];
        let len = self.0.read_at(&mut text, 0)?;
        let number = String::from_utf8_lossy(&text[..len]).split_whitespace().last().map(str::parse);
        number.and_then(Result::ok).ok_or_else(|| std::io::Error::other("schedstat has another form"))
    }
}

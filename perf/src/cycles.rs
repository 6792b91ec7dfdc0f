//! The clock of the core, which differs from the one that the time is read from.

use std::hint::black_box;
use std::time::Instant;

/// Steps of the chain: some 60 µs, so that most of the tries run undisturbed.
const STEPS: u32 = 100_000;
/// Cycles of a step: an exclusive or and a rotation, each of which waits for what comes before it and takes
/// one cycle on every core that DPDK runs on.
const CYCLES_PER_STEP: u32 = 2;
const TRIES: usize = 20;

/// Cycles per nanosecond that this core makes, by the shortest time that a chain of known length took.
///
/// Counters of cycles can not be read in safe code, nor at all in many virtual machines.
pub fn per_ns() -> f64 {
    let ns = (0..TRIES).map(|_| chain()).min().unwrap_or_default();
    f64::from(STEPS * CYCLES_PER_STEP) / ns as f64
}

/// Nanoseconds that the chain takes.
fn chain() -> u128 {
    let (mut value, key) = (black_box(1u64), black_box(0x9e37_79b9_7f4a_7c15));
    let start = Instant::now();
    for _ in 0..STEPS {
        value = (value ^ key).rotate_left(7);
    }
    black_box(value);
    start.elapsed().as_nanos()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_core_makes_some_cycles_per_nanosecond() {
        // Unoptimised, each step is a few more instructions.
        let clock = super::per_ns();
        assert!((0.05..10.0).contains(&clock), "{clock}");
    }
}

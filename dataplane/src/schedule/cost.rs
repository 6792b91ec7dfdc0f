//! What a backend has to do, as `lc`, `wlc`, `sed` and `nq` reckon it.
//!
//! Source: Linux 6.1, net/netfilter/ipvs/ip_vs_lc.c, ip_vs_wlc.c, ip_vs_sed.c and ip_vs_nq.c.

use wide::u64x2;

use crate::load::Load;

/// A reckoning.
pub(super) trait Cost: Copy {
    /// The cost of a backend with this load, less than [`MOST`].
    fn of(self, load: Load) -> u64;

    /// The costs of two backends with these loads, as [`Load::bits`] has them.
    fn of_two(self, loads: u64x2) -> u64x2;
}

/// More than any cost.
pub(super) const MOST: u64 = 1 << 41;

/// The active ones of two loads.
#[inline(always)]
fn active(loads: u64x2) -> u64x2 {
    loads >> Load::ACTIVE_SHIFT
}

/// `lc` and `wlc`: what IPVS takes for the work of a backend. An active connection counts as much as 257 inactive ones;
/// that is what the kernel does, whose comment says 256.
#[derive(Clone, Copy)]
pub(super) struct Overhead;

impl Cost for Overhead {
    #[inline(always)]
    fn of(self, load: Load) -> u64 {
        load.flows() + (load.active() << 8)
    }

    #[inline(always)]
    fn of_two(self, loads: u64x2) -> u64x2 {
        let inactive = loads & u64x2::splat(u64::from(u32::MAX));
        inactive + active(loads) + (active(loads) << 8u32)
    }
}

/// `sed`: active connections, with the one that comes.
#[derive(Clone, Copy)]
pub(super) struct Delay;

impl Cost for Delay {
    #[inline(always)]
    fn of(self, load: Load) -> u64 {
        load.active() + 1
    }

    #[inline(always)]
    fn of_two(self, loads: u64x2) -> u64x2 {
        active(loads) + u64x2::splat(1)
    }
}

/// `nq`: the same, but nothing without active connections: nothing is less than anything, for any weight.
#[derive(Clone, Copy)]
pub(super) struct Queue;

impl Cost for Queue {
    #[inline(always)]
    fn of(self, load: Load) -> u64 {
        load.active() + u64::from(load.active() > 0)
    }

    #[inline(always)]
    fn of_two(self, loads: u64x2) -> u64x2 {
        let active = active(loads);
        active + ((active + u64x2::splat(u64::from(u32::MAX))) >> 32u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn two_cost_what_each_costs(one: [u32; 2], other: [u32; 2], shifts in prop::array::uniform4(0..32u32)) {
            // Of all sizes.
            let loads = [
                Load::new(one[0] >> shifts[0], one[1] >> shifts[1]),
                Load::new(other[0] >> shifts[2], other[1] >> shifts[3]),
            ];
            let two = u64x2::new(loads.map(Load::bits));
            prop_assert_eq!(Overhead.of_two(two).to_array(), loads.map(|it| Overhead.of(it)));
            prop_assert_eq!(Delay.of_two(two).to_array(), loads.map(|it| Delay.of(it)));
            prop_assert_eq!(Queue.of_two(two).to_array(), loads.map(|it| Queue.of(it)));
            prop_assert!(loads.iter().all(|it| Overhead.of(*it) < MOST && Delay.of(*it) < MOST && Queue.of(*it) < MOST));
        }
    }

    #[test]
    fn most_is_more_than_all() {
        assert!(Overhead.of(Load::new(u32::MAX, u32::MAX)) < MOST && Queue.of(Load::new(u32::MAX, 0)) < MOST);
    }
}

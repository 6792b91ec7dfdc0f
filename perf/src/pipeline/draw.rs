//! Which flow the next packet is of.

use clap::ValueEnum;
use serde::Serialize;

use crate::rng::Rng;

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// Each flow is as likely as any other
    Uniform,
    /// The k-th likeliest flow has 1/k of the packets of the likeliest (Zipf's law, exponent 1)
    Zipf,
}

/// Flows at random, counted from 0.
pub struct Flows {
    draw: Draw,
    count: u32,
    rng: Rng,
    /// Areas below the curve 1/x: to the left of the first bar of width 1, and to the right of the last.
    areas: (f64, f64),
}

impl Flows {
    /// Draws from `count` flows, of which there is one at least.
    pub fn new(draw: Draw, count: u32, rng: Rng) -> Self {
        let areas = (1.5f64.ln() - 1.0, (f64::from(count) + 0.5).ln());
        Self { draw, count, rng, areas }
    }

    /// The next one.
    pub fn next(&mut self) -> u32 {
        match self.draw {
            Draw::Uniform => self.rng.below(self.count),
            // Neighbours are flows of one client, of which not all shall be likely.
            Draw::Zipf => scattered(u64::from(self.rank()), self.count),
        }
    }

    /// The generator that the flows come from.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A rank from 1 on by rejection-inversion (Hörmann and Derflinger, "Rejection-inversion to generate
    /// variates from monotone discrete distributions", 1996): a point below the curve is kept if it is in the
    /// bar of its rank.
    fn rank(&mut self) -> u32 {
        let (first, last) = self.areas;
        loop {
            let area = last + self.rng.unit() * (first - last);
            // At most the count, by the clamp.
            let rank = area.exp().round().clamp(1.0, f64::from(self.count));
            if area >= (rank + 0.5).ln() - 1.0 / rank {
                return rank as u32;
            }
        }
    }
}

/// The flow of a turn: as many turns as there are flows visit each once, in no order.
pub fn scattered(turn: u64, flows: u32) -> u32 {
    // A prime above the number of flows.
    const STEP: u64 = 2_654_435_761;
    // Less than the number of flows, which has 32 bits.
    (turn * STEP % u64::from(flows)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_visit_each_flow_once() {
        for flows in [1, 2, 10_000] {
            let mut seen = vec![false; flows as usize];
            (5..5 + u64::from(flows)).for_each(|turn| seen[scattered(turn, flows) as usize] = true);
            assert!(seen.iter().all(|&seen| seen));
        }
    }

    #[test]
    fn ranks_follow_zipf() {
        let mut flows = Flows::new(Draw::Zipf, 1000, Rng::new(1));
        let mut times = vec![0u32; 1001];
        (0..1_000_000).for_each(|_| times[flows.rank() as usize] += 1);
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 3, 10, 100] {
            let expected = 1e6 / harmonic / f64::from(rank as u32);
            let off = (f64::from(times[rank]) - expected).abs();
            // Five standard deviations.
            assert!(off < 5.0 * expected.sqrt(), "rank {rank}: {} instead of {expected}", times[rank]);
        }
        let last: u32 = times[501..].iter().sum();
        assert!((80_000..105_000).contains(&last), "{last} of the last half");
    }

    #[test]
    fn all_flows_come_up() {
        for draw in [Draw::Uniform, Draw::Zipf] {
            let mut flows = Flows::new(draw, 10, Rng::new(1));
            let mut seen = [0; 10];
            (0..1000).for_each(|_| seen[flows.next() as usize] += 1);
            assert!(seen.iter().all(|&times| times > 10), "{seen:?}");
            assert_eq!(Flows::new(draw, 1, Rng::new(1)).next(), 0);
        }
    }
}

//! Limits of a service: how many flows it has, how fast new ones come, how many packets and bits pass.
//!
//! Made by the control thread and shared by all workers: what one lets pass counts for all. A bucket is one word that
//! says until when it is empty (the virtual scheduling of ATM's GCRA, ITU-T I.371), so that nobody refills it and a
//! worker takes from it by one compare-and-swap.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use config::model;

use crate::flow::network;

/// Nanoseconds since some moment before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

/// Why a flow or packet does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The service has all the flows it may have.
    Connections,
    /// New flows come too fast.
    NewFlows,
    /// Packets or bits come too fast.
    Traffic,
}

/// Parts of a nanosecond that buckets count in: so many that a bit at 400 Gbit/s is not rounded by more than 0.1 %.
const PARTS: u64 = 1 << 10;
const SECOND: u64 = 1_000_000_000 * PARTS;

/// What no bucket is ever empty for. One that seems to be was used before the clock began anew, and is full.
const LONG: u64 = 3600 * SECOND;

/// Whether a bucket with this word is full.
fn is_full(word: u64, now: Nanos) -> bool {
    let now = now.0 * PARTS;
    word <= now || word - now > LONG
}

/// The units that may pass in a second. As many as pass in a tenth of it, and at least one, may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    per_sec: u64,
}

impl Rate {
    /// Whether one unit is in a bucket.
    fn may_take(self, bucket: &AtomicU64, now: Nanos) -> bool {
        self.after(bucket.load(Ordering::Relaxed), now, 1).is_some()
    }

    /// Takes so many units from a bucket, if they are there.
    fn take(self, bucket: &AtomicU64, now: Nanos, units: u64) -> bool {
        let after = |word| self.after(word, now, units);
        bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
    }

    /// The word of a bucket after so many units were taken, if they are there.
    fn after(self, word: u64, now: Nanos, units: u64) -> Option<u64> {
        let word = if is_full(word, now) { 0 } else { word };
        let now = now.0 * PARTS;
        let cost = (u128::from(units) * u128::from(SECOND) / u128::from(self.per_sec)) as u64;
        let depth = (SECOND / 10).max(cost);
        let until = word.max(now).saturating_add(cost);
        (until - now <= depth).then_some(until)
    }
}

/// Buckets of sources, in sets. A source has one of its set until it is full: a full one is like any other, so that
/// another source can have it as it is. Where all of a set are in use, sources share them.
#[derive(Debug)]
struct Sources {
    rate: Rate,
    prefix_v4: u8,
    prefix_v6: u8,
    hasher: RandomState,
    sets: Box<[[Bucket; WAYS]]>,
}

/// The bucket of a source.
#[derive(Debug, Default)]
struct Bucket {
    /// The hash of its network; 0 is nobody's.
    source: AtomicU64,
    word: AtomicU64,
}

/// Buckets of a set: two cache lines.
const WAYS: usize = 8;
/// Sets for the sources of one service.
const SETS: usize = 1 << 11;

/// The limits of a service, and how near to them it is.
#[derive(Debug)]
pub struct Limits {
    config: model::Limits,
    /// Where [`Nanos`] are counted from.
    start: Instant,
    /// Flows that were let begin and are not yet among those that the workers count.
    admitted: AtomicU64,
    flows: AtomicU64,
    packets: AtomicU64,
    bits: AtomicU64,
    sources: Option<Sources>,
}

impl Limits {
    /// Limits that nobody has come near to.
    pub fn new(config: &model::Limits) -> Self {
        let sources = config.new_per_sec_per_source.map(|per_sec| Sources {
            rate: Rate { per_sec: per_sec.into() },
            prefix_v4: config.prefix_v4,
            prefix_v6: config.prefix_v6,
            hasher: RandomState::new(),
            sets: (0..SETS).map(|_| Default::default()).collect(),
        });
        let bucket = || AtomicU64::new(0);
        // Later than the moment that an empty word stands for.
        let start = Instant::now();
        Self {
            config: *config,
            start,
            admitted: AtomicU64::new(0),
            flows: bucket(),
            packets: bucket(),
            bits: bucket(),
            sources,
        }
    }

    /// What they are.
    pub fn config(&self) -> &model::Limits {
        &self.config
    }

    /// The time by which buckets fill.
    pub fn now(&self) -> Nanos {
        // 2^54 nanoseconds are 208 days, then buckets are full once.
        Nanos((self.start.elapsed().as_nanos() as u64) & ((1 << 54) - 1))
    }

    /// Whether traffic has limits.
    pub fn polices(&self) -> bool {
        self.config.packets_per_sec.is_some() || self.config.bits_per_sec.is_some()
    }

    /// Whether a backend with this bucket may have a new flow now.
    pub fn backend_may(&self, now: Nanos, bucket: &AtomicU64) -> bool {
        let rate = |per_sec: u32| Rate { per_sec: per_sec.into() };
        self.config.new_per_sec_per_backend.is_none_or(|per_sec| rate(per_sec).may_take(bucket, now))
    }

    /// Takes a new flow from a backend's bucket.
    pub fn began(&self, now: Nanos, bucket: &AtomicU64) {
        if let Some(per_sec) = self.config.new_per_sec_per_backend {
            Rate { per_sec: per_sec.into() }.take(bucket, now, 1);
        }
    }

    /// Whether another flow of this source may begin, of a service that has so many now. It counts from now on; what is
    /// returned is to be dropped when `flows` has it.
    ///
    /// # Errors
    /// The limit that it would exceed. Of several workers that ask at the same moment, one may be refused that comes
    /// between a flow's being counted and its being no longer admitted; never do more begin than may.
    pub fn admit(
        &self,
        now: Nanos,
        flows: impl Fn() -> u64,
        source: u128,
    ) -> Result<Option<Admitted<'_>>, Exceeded> {
        let admitted = match self.config.connections {
            None => None,
            Some(most) => Some(self.claim(most.into(), flows).ok_or(Exceeded::Connections)?),
        };
        // What its source may not is taken from nobody else.
        let of_source = self.sources.as_ref().is_none_or(|sources| sources.take(now, source));
        let takes = |per_sec: u32| Rate { per_sec: per_sec.into() }.take(&self.flows, now, 1);
        let in_time = of_source && self.config.new_per_sec.is_none_or(takes);
        in_time.then_some(admitted).ok_or(Exceeded::NewFlows)
    }

    /// Takes one of so many places for flows.
    fn claim(&self, most: u64, flows: impl Fn() -> u64) -> Option<Admitted<'_>> {
        // First this, then those that began: so no flow is in neither.
        let before = self.admitted.fetch_add(1, Ordering::AcqRel);
        let admitted = Admitted(&self.admitted);
        (flows() + before < most).then_some(admitted)
    }

    /// Whether a packet of so many bytes may pass.
    ///
    /// # Errors
    /// The limit that it would exceed.
    pub fn pass(&self, now: Nanos, bytes: u16) -> Result<(), Exceeded> {
        let packet = |per_sec: u64| Rate { per_sec }.take(&self.packets, now, 1);
        let bits = |per_sec: u64| Rate { per_sec }.take(&self.bits, now, 8 * u64::from(bytes));
        let passes =
            self.config.packets_per_sec.is_none_or(packet) && self.config.bits_per_sec.is_none_or(bits);
        passes.then_some(()).ok_or(Exceeded::Traffic)
    }
}

/// A flow that was let begin, until its worker counts it.
#[derive(Debug)]
pub struct Admitted<'a>(&'a AtomicU64);

impl PartialEq for Admitted<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        // Behind the worker's own count.
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sources {
    fn take(&self, now: Nanos, source: u128) -> bool {
        let network = network(source, self.prefix_v4, self.prefix_v6);
        let source = self.hasher.hash_one(network) | 1;
        let set = (source >> 1) as usize % self.sets.len();
        let bucket = self.sets.get(set).and_then(|ways| bucket_of(ways, source, now));
        bucket.is_none_or(|bucket| self.rate.take(&bucket.word, now, 1))
    }
}

/// The bucket that a source has; else a full one, which it has from now on; else the one of others that has the most.
fn bucket_of(ways: &[Bucket; WAYS], source: u64, now: Nanos) -> Option<&Bucket> {
    if let Some(own) = ways.iter().find(|bucket| bucket.source.load(Ordering::Relaxed) == source) {
        return Some(own);
    }
    for bucket in ways.iter().filter(|bucket| is_full(bucket.word.load(Ordering::Relaxed), now)) {
        let owner = bucket.source.load(Ordering::Relaxed);
        let swapped = bucket.source.compare_exchange(owner, source, Ordering::Relaxed, Ordering::Relaxed);
        // Another worker may have met the same source at the same moment.
        if swapped.is_ok() || swapped == Err(source) {
            return Some(bucket);
        }
    }
    ways.iter().min_by_key(|bucket| bucket.word.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flow::mapped;
    use crate::testing;

    fn millis(count: u64) -> Nanos {
        Nanos(1_000_000_000 + count * 1_000_000)
    }

    /// How many of the tries at these milliseconds pass.
    fn passed(times: impl Iterator<Item = u64>, mut admit: impl FnMut(Nanos) -> bool) -> usize {
        times.filter(|time| admit(millis(*time))).count()
    }

    #[test]
    fn as_many_pass_as_the_rate_says_and_a_tenth_at_once() {
        let limits = Limits::new(&model::Limits { new_per_sec: Some(1000), ..model::Limits::default() });
        let mut admit = |now| limits.admit(now, || 0, 7).is_ok();
        assert_eq!(passed((0..5000).map(|_| 0), &mut admit), 100, "a tenth of a second's");
        let twice_as_fast = (0..10_000).map(|number| number / 2);
        let passed = passed(twice_as_fast, &mut admit);
        assert!((4990..=5010).contains(&passed), "{passed}");
    }

    #[test]
    fn slow_rates_let_one_pass_at_a_time() {
        let limits = Limits::new(&model::Limits { new_per_sec: Some(1), ..model::Limits::default() });
        let mut admit = |now| limits.admit(now, || 0, 7).is_ok();
        assert_eq!(passed((0..10_000).step_by(100), &mut admit), 10);
    }

    #[test]
    fn workers_together_let_no_more_pass() {
        let limits = Limits::new(&model::Limits { new_per_sec: Some(100_000), ..model::Limits::default() });
        // A second passes as they ask 200,000 times.
        let time = AtomicU64::new(0);
        let worker = || {
            let mut passed = 0u64;
            loop {
                let micros = time.fetch_add(5, Ordering::Relaxed);
                if micros >= 1_000_000 {
                    return passed;
                }
                passed += u64::from(limits.admit(Nanos(1_000_000_000 + micros * 1000), || 0, 7).is_ok());
            }
        };
        let passed: u64 = std::thread::scope(|scope| {
            let workers = [(); 4].map(|()| scope.spawn(worker));
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // A tenth of a second's come at once, besides those of the second.
        assert!((108_900..=111_100).contains(&passed), "{passed}");
    }

    #[test]
    fn sources_have_buckets_of_their_own() {
        let config = model::Limits { new_per_sec_per_source: Some(10), ..model::Limits::default() };
        let limits = Limits::new(&model::Limits { prefix_v4: 24, ..config });
        let from = |source: u32| limits.admit(millis(0), || 0, mapped(source)).is_ok();
        assert_eq!([0x0a00_0001, 0x0a00_0002, 0x0b00_0001].map(from), [true, false, true]);
        assert!(limits.admit(millis(100), || 0, mapped(0x0a00_0003)).is_ok());
    }

    proptest! {
        /// Each takes a second's tenth that it has, so no more than `WAYS` have less at any time: even if all of them
        /// are of one set, there is room.
        #[test]
        fn no_source_pays_for_another_while_there_is_room(
            tries in prop::collection::vec((0..64_u32, 100 / WAYS as u64 + 1..40), 0..300),
        ) {
            let config = model::Limits { new_per_sec_per_source: Some(10), ..model::Limits::default() };
            let mut limits = Limits::new(&config);
            limits.sources.as_mut().unwrap().sets = [Default::default()].into();
            let mut alone = std::collections::HashMap::new();
            let mut time = 0;
            for (source, later) in tries {
                time += later;
                let its = alone.entry(source).or_insert_with(|| AtomicU64::new(0));
                let may = Rate { per_sec: 10 }.take(its, millis(time), 1);
                prop_assert_eq!(limits.admit(millis(time), || 0, mapped(source)).is_ok(), may);
            }
        }
    }

    #[test]
    fn without_room_sources_share_what_there_is() {
        let config = model::Limits { new_per_sec_per_source: Some(10), ..model::Limits::default() };
        let mut limits = Limits::new(&config);
        limits.sources.as_mut().unwrap().sets = [Default::default()].into();
        let from = |source: u32| limits.admit(millis(0), || 0, mapped(source)).is_ok();
        assert_eq!((0..100).filter(|source| from(*source)).count(), WAYS);
    }

    #[test]
    fn a_bucket_is_full_when_its_clock_begins_anew() {
        let rate = Rate { per_sec: 10 };
        let bucket = AtomicU64::new(0);
        assert!(rate.take(&bucket, Nanos((1 << 54) - 2_000_000_000), 1));
        assert!(!rate.take(&bucket, Nanos((1 << 54) - 2_000_000_000), 1));
        assert!(rate.take(&bucket, Nanos(0), 1) && !rate.take(&bucket, Nanos(1000), 1));
        assert!(rate.take(&bucket, Nanos(100_001_000), 1));
    }

    #[test]
    fn connections_are_counted_by_the_caller() {
        let limits = Limits::new(&model::Limits { connections: Some(5), ..model::Limits::default() });
        let first = limits.admit(millis(0), || 3, 7);
        assert!(first.is_ok() && limits.admit(millis(0), || 3, 7).is_ok());
        assert_eq!(
            limits.admit(millis(0), || 4, 7),
            Err(Exceeded::Connections),
            "the first is not among them"
        );
        drop(first);
        assert!(limits.admit(millis(0), || 4, 7).is_ok());
        assert_eq!(limits.admit(millis(0), || 5, 7), Err(Exceeded::Connections));
    }

    #[test]
    fn workers_that_ask_at_once_have_no_more_connections() {
        let turns: u32 = if cfg!(miri) { 10 } else { 5000 };
        let config = model::Limits { connections: Some(1), ..model::Limits::default() };
        let services: Vec<_> = (0..turns).map(|_| Limits::new(&config)).collect();
        let counts: Vec<_> = (0..turns).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        let flows =
            |turn: u32| counts[turn as usize].iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        let work = |turn: u32, worker: usize| {
            let admitted = services[turn as usize].admit(millis(0), || flows(turn), 7);
            // It takes a while to store a flow.
            (0..1000).for_each(|_| std::hint::spin_loop());
            counts[turn as usize][worker].store(u64::from(admitted.is_ok()), Ordering::Relaxed);
        };
        testing::at_once(turns, |turn| work(turn, 0), |turn| work(turn, 1));
        let exact = (0..turns).filter(|turn| flows(*turn) == 1).count();
        assert_eq!(exact, services.len());
        assert!(services.iter().all(|limits| limits.admitted.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn traffic_is_limited_by_packets_and_by_bits() {
        let config = model::Limits { packets_per_sec: Some(100), ..model::Limits::default() };
        let limits = Limits::new(&config);
        assert_eq!(passed((0..100).map(|_| 0), |now| limits.pass(now, 1500).is_ok()), 10);
        let config = model::Limits { bits_per_sec: Some(1_000_000), ..model::Limits::default() };
        let limits = Limits::new(&config);
        let passed = passed((0..10_000).flat_map(|time| [time; 3]), |now| limits.pass(now, 1250).is_ok());
        assert!((1000..=1010).contains(&passed), "ten seconds at 100 packets of 10,000 bits: {passed}");
        let config = model::Limits { bits_per_sec: Some(400_000_000_000), ..model::Limits::default() };
        let (limits, mut sent) = (Limits::new(&config), 0u64);
        for nanos in 0..1_000_000 {
            sent += u64::from(limits.pass(Nanos(1_000_000_000 + nanos), 64).is_ok()) * 512;
        }
        assert_eq!(sent, 512_000_000, "a packet in a nanosecond is more, but a tenth of a second is free");
    }
}

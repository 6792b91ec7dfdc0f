//! The golden choices of `tests/golden/schedules.tsv`, which a script works out from the definitions and Linux IPVS
//! makes, too.

use config::model::Hash;

use super::hash::Secret;
use super::*;
use crate::stats::WorkerStats;
use crate::testing;

const TABLE: &str = include_str!("../../../tests/golden/schedules.tsv");
const DRAWS: u32 = if cfg!(miri) { 200 } else { 50_000 };
/// One of so many sequences is tried: miri takes long.
const STEP: usize = if cfg!(miri) { 20 } else { 1 };
/// What chi-square exceeds once in ten thousand times, by degrees of freedom.
const UNLIKELY: [f64; 4] = [0.0, 15.2, 18.5, 21.2];

/// A row of the table.
struct Row {
    scheduler: Scheduler,
    weights: Vec<u32>,
    /// Connections that each server has already, or its recent packets or bytes; none: idle ones, and those that come
    /// stay.
    loads: Option<Vec<u64>>,
    choices: &'static str,
}

/// The rows of the schedulers that choose by what a worker knows of connections.
fn rows() -> impl Iterator<Item = Row> {
    TABLE.lines().skip(1).filter_map(move |line| {
        let [scheduler, weights, loads, choices] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        Some(Row {
            scheduler: scheduler.parse().ok()?,
            weights: weights.split(':').map(|number| number.parse().unwrap()).collect(),
            loads: (loads != "-").then(|| loads.split(':').map(|number| number.parse().unwrap()).collect()),
            choices,
        })
    })
}

/// What the plans of these schedulers are made of: nothing.
fn ingredients() -> Ingredients {
    let secret = Secret::from_text("secret");
    Ingredients {
        hash: Hash::default(),
        secret,
        members: Vec::new(),
        expiration: config::model::Service::EXPIRATION_SECS,
        layout: None,
        servers: Vec::new(),
    }
}

/// A worker and a service of a row, whose backends have as many active connections as it says.
struct World {
    schedulers: Schedulers,
    service: Service,
    stats: Arc<WorkerStats>,
}

impl World {
    fn new(row: &Row) -> Self {
        let setup = testing::setup();
        let stats = Arc::new(WorkerStats::new(setup.team.backends()));
        setup.team.join(0, &stats);
        let weights: Vec<_> =
            (0..).zip(row.weights.iter().copied()).filter(|(_, weight)| *weight > 0).collect();
        let service = testing::service("tcp:192.0.2.100:80", &weights);
        let service = Service { scheduler: row.scheduler, ..service };
        for (slot, load) in (0..).zip(row.loads.iter().flatten()) {
            let slot = BackendSlot(slot);
            match row.scheduler {
                Scheduler::LeastPackets => stats.backend(slot).out_packets.add(*load),
                Scheduler::LeastBandwidth => stats.backend(slot).in_bytes.add(*load),
                _ => (0..*load).for_each(|_| stats.loads.begin(slot, true)),
            }
        }
        Self { schedulers: Schedulers::new(&setup), service: service.planned(&ingredients(), None), stats }
    }

    fn pick(&mut self) -> Option<BackendSlot> {
        let opening = || unreachable!("it is no hash scheduler");
        self.schedulers.pick(1, ServiceSlot(0), &self.service, opening)
    }

    /// The letter of the backend of a connection that comes and stays.
    fn open(&mut self) -> char {
        let Some(slot) = self.pick() else { return '!' };
        self.stats.loads.begin(slot, true);
        char::from(b'A' + slot.0 as u8)
    }
}

#[test]
fn sequences_are_the_golden_ones() {
    let mut seen = 0;
    for row in rows().filter(|row| row.loads.is_none()).step_by(STEP) {
        let mut world = World::new(&row);
        let choices: String = row.choices.chars().map(|_| world.open()).collect();
        assert_eq!(choices, row.choices, "{} {:?}", row.scheduler, row.weights);
        seen += 1;
    }
    assert!(seen >= 200 / STEP, "{seen} rows");
}

#[test]
fn the_least_traffic_is_the_golden_one() {
    let measured = [Scheduler::LeastPackets, Scheduler::LeastBandwidth];
    let mut seen = 0;
    for row in rows().filter(|row| measured.contains(&row.scheduler)) {
        let choice = World::new(&row).open().to_string();
        assert_eq!(choice, row.choices, "{} {:?} {:?}", row.scheduler, row.weights, row.loads);
        seen += 1;
    }
    assert_eq!(seen, 18);
}

#[test]
fn shares_of_lots_are_the_golden_ones() {
    let mut seen = 0;
    for row in rows().filter(|row| row.loads.is_some() && row.choices.contains(':')) {
        let parts: Vec<f64> = row.choices.split(':').map(|part| part.parse().unwrap()).collect();
        let whole: f64 = parts.iter().sum();
        let mut world = World::new(&row);
        let mut counts = vec![0; parts.len()];
        (0..DRAWS).for_each(|_| counts[world.pick().unwrap().0 as usize] += 1);
        let mut square = 0.0;
        for (&part, &count) in parts.iter().zip(&counts) {
            let wanted = f64::from(DRAWS) * part / whole;
            assert!(part > 0.0 || count == 0, "{} {:?}: {counts:?}", row.scheduler, row.weights);
            square += if part > 0.0 { (f64::from(count) - wanted).powi(2) / wanted } else { 0.0 };
        }
        let free = parts.iter().filter(|part| **part > 0.0).count() - 1;
        assert!(free == 0 || square < UNLIKELY[free], "{} {:?}: {counts:?}", row.scheduler, row.weights);
        seen += 1;
    }
    assert!(seen >= 12, "{seen} rows");
}

//! What holds for every scheduler, whatever the backends and whatever was before.

use std::sync::Arc;

use config::model::Hash;
use config::words::Protocol;
use proptest::prelude::*;

use super::hash::Secret;
use super::table::Member;
use super::*;
use crate::flow::mapped;
use crate::stats::WorkerStats;
use crate::testing;

const BACKENDS: usize = 8;
const SLOT: ServiceSlot = ServiceSlot(0);

/// A backend: weight, upper limit, and flows on each of two workers, active and not.
type Standing = (u32, u32, [(u32, u32); 2]);

fn standings() -> impl Strategy<Value = Vec<Standing>> {
    let limit = prop_oneof![Just(0), 1..12u32];
    prop::collection::vec((0..6u32, limit, [(0..4u32, 0..4u32), (0..4u32, 0..4u32)]), 0..BACKENDS)
}

fn all() -> impl Strategy<Value = Scheduler> {
    prop::sample::select(Scheduler::WORDS).prop_map(|word| word.parse().unwrap())
}

/// A worker's schedulers, and what both workers count.
fn worker() -> (Schedulers, [Arc<WorkerStats>; 2]) {
    let team = Team::new(2, BACKENDS, 0);
    let stats = [0, 1].map(|number| {
        let stats = Arc::new(WorkerStats::new(BACKENDS));
        team.join(number, &stats);
        stats
    });
    (Schedulers::new(&Setup { team, ..testing::setup() }), stats)
}

/// A service with these backends in slots from 0. Those without weight are quiesced.
fn service(scheduler: Scheduler, version: u64, backends: &[Standing], before: Option<&Service>) -> Service {
    let candidates = backends.iter().zip(0..).filter(|((weight, ..), _)| *weight > 0).map(
        |(&(weight, upper, _), slot)| Candidate {
            upper,
            lower: upper,
            ..Candidate::new(BackendSlot(slot), weight)
        },
    );
    let members = backends.iter().zip(0..).map(|(&(weight, ..), slot)| Member {
        backend: BackendSlot(slot),
        address: format!("198.51.100.{}:80", 10 + slot).parse().unwrap(),
        weight,
        full_weight: weight.max(1),
    });
    let hash = Hash { table_size: 251, fallback: true, ..Hash::of(scheduler) };
    let ingredients = Ingredients {
        hash,
        secret: Secret::from_text("secret"),
        members: members.collect(),
        expiration: config::model::Service::EXPIRATION_SECS,
        layout: None,
        servers: Vec::new(),
    };
    let key = "tcp:192.0.2.100:80".parse().unwrap();
    Service::new(key, scheduler, version, candidates.collect()).planned(&ingredients, before)
}

fn opening(client: u32) -> Opening {
    Opening {
        source: mapped(0xc612_0000 | client),
        source_port: 4711,
        destination: mapped(0xc000_0264),
        destination_port: 80,
        protocol: Protocol::Tcp,
    }
}

/// Whether a scheduler may refuse a flow although somebody could take it, as IPVS has it.
fn may_refuse(scheduler: Scheduler) -> bool {
    // A full slot of `dh` has no other one, and `ovf` counts more than there is room for.
    matches!(scheduler, Scheduler::Dh | Scheduler::Ovf)
}

/// Backends of these weights, without limits and flows.
fn idle(weights: &[u32]) -> Vec<Standing> {
    weights.iter().map(|&weight| (weight, 0, [(0, 0); 2])).collect()
}

/// The part of all new flows that each backend of these weights is to have; `None` of schedulers that share nothing
/// out: `fo` and `ovf` want one after the other, `fastest` the fastest, and `lblc` and `lblcr` who has the destination.
fn shares(scheduler: Scheduler, weights: &[u32]) -> Option<Vec<f64>> {
    let of = |parts: &[u32]| {
        let whole: u32 = parts.iter().sum();
        parts.iter().map(|part| f64::from(*part) / f64::from(whole)).collect()
    };
    match scheduler {
        Scheduler::Fo | Scheduler::Ovf | Scheduler::Fastest | Scheduler::Lblc | Scheduler::Lblcr => None,
        // Two of n are drawn, so that nobody can have more than 2 / n: these are for equal backends.
        Scheduler::P2c if weights.iter().any(|weight| *weight != weights[0]) => None,
        Scheduler::Rr | Scheduler::Lc | Scheduler::Dh => Some(of(&vec![1; weights.len()])),
        // 256 slots, around and around, so many in a row as each has weight.
        Scheduler::Sh => {
            let round = weights.iter().enumerate().flat_map(|(who, weight)| vec![who; *weight as usize]);
            let mut slots = vec![0; weights.len()];
            round.collect::<Vec<_>>().iter().cycle().take(256).for_each(|who| slots[*who] += 1);
            Some(of(&slots))
        }
        _ => Some(of(weights)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]
    #[test]
    fn only_those_are_chosen_that_take_new_flows(scheduler in all(), backends in standings(), clients: [u16; 8]) {
        let (mut schedulers, stats) = worker();
        for (slot, (_, _, flows)) in backends.iter().enumerate() {
            for (stats, &(active, inactive)) in stats.iter().zip(flows) {
                let slot = BackendSlot(slot as u32);
                (0..active).for_each(|_| stats.loads.begin(slot, true));
                (0..inactive).for_each(|_| stats.loads.begin(slot, false));
            }
        }
        let takes = |&(weight, upper, flows): &Standing| {
            let flows: u32 = flows.iter().map(|(active, inactive)| active + inactive).sum();
            weight > 0 && (upper == 0 || flows < upper)
        };
        let service = service(scheduler, 1, &backends, None);
        for client in clients {
            match schedulers.pick(1, SLOT, &service, || opening(client.into())) {
                Some(chosen) => prop_assert!(takes(&backends[chosen.0 as usize]), "{scheduler}: {chosen:?}"),
                None => prop_assert!(may_refuse(scheduler) || !backends.iter().any(takes), "{scheduler} refuses"),
            }
        }
    }

    #[test]
    fn nobody_starves(scheduler in all(), weights in prop::collection::vec(1..6u32, 1..BACKENDS)) {
        // These choose one for its weight or its address, and others only if that has enough.
        let choosy = [Scheduler::Fo, Scheduler::Ovf, Scheduler::Lblc, Scheduler::Lblcr, Scheduler::Dh];
        prop_assume!(!choosy.contains(&scheduler));
        let service = service(scheduler, 1, &idle(&weights), None);
        let (mut schedulers, stats) = worker();
        let mut chosen = vec![0u32; weights.len()];
        for client in 0..600 {
            let slot = schedulers.pick(1, SLOT, &service, || opening(client * 7919)).unwrap();
            chosen[slot.0 as usize] += 1;
            stats[client as usize % 2].loads.begin(slot, true);
        }
        prop_assert!(chosen.iter().all(|count| *count > 0), "{scheduler} {weights:?}: {chosen:?}");
    }

    #[test]
    fn turns_are_exact_after_whatever_was_before(
        smooth: bool,
        changes in prop::collection::vec((prop::collection::vec(0..6u32, 1..BACKENDS), 0..20usize), 0..6),
        last in prop::collection::vec(1..6u32, 1..BACKENDS),
    ) {
        let scheduler = if smooth { Scheduler::Swrr } else { Scheduler::Wrr };
        let (mut schedulers, _) = worker();
        let mut before: Option<Service> = None;
        for (version, (weights, picks)) in changes.iter().enumerate() {
            let now = service(scheduler, 1 + version as u64, &idle(weights), before.as_ref());
            (0..*picks).for_each(|_| _ = schedulers.pick(1, SLOT, &now, || opening(0)));
            before = Some(now);
        }
        let service = service(scheduler, 99, &idle(&last), before.as_ref());
        // A round may be entered in its middle; a hundred of them show the weights.
        let round: u32 = last.iter().sum();
        let mut chosen = vec![0i64; last.len()];
        (0..100 * round).for_each(|_| {
            chosen[schedulers.pick(1, SLOT, &service, || opening(0)).unwrap().0 as usize] += 1;
        });
        for (count, weight) in chosen.iter().zip(&last) {
            let wanted = 100 * i64::from(*weight);
            prop_assert!((count - wanted).abs() <= i64::from(*weight), "{last:?}: {chosen:?}");
        }
    }
}

/// Weights of backends, and how many flows come and go while they have them.
type Phase = (Vec<u32>, u32);

/// How many of so many flows that stay go to each backend of the last weights, after flows of other phases came and
/// went.
fn shared(scheduler: Scheduler, changes: &[Phase], last: &[u32], flows: u32) -> Vec<u32> {
    let (mut schedulers, [stats, _]) = worker();
    let mut before = None;
    for (version, (weights, flows)) in changes.iter().enumerate() {
        let now = service(scheduler, 1 + version as u64, &idle(weights), before.as_ref());
        let open = |client| schedulers.pick(1, SLOT, &now, || opening(client));
        let began = (0..*flows).filter_map(open).inspect(|slot| stats.loads.begin(*slot, true));
        began.collect::<Vec<_>>().iter().for_each(|slot| stats.loads.end(*slot, true));
        before = Some(now);
    }
    let service = service(scheduler, 99, &idle(last), before.as_ref());
    let mut chosen = vec![0; last.len()];
    for client in 0..flows {
        let anew = || Opening { destination: mapped(client), ..opening(client.wrapping_mul(0x9e37_79b9)) };
        let slot = schedulers.pick(1, SLOT, &service, anew).unwrap();
        chosen[slot.0 as usize] += 1;
        stats.loads.begin(slot, true);
        stats.backend(slot).in_packets.add(1);
        stats.backend(slot).in_bytes.add(100);
    }
    chosen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 8 }))]
    #[test]
    fn shares_are_those_of_the_weights_after_whatever_was_before(
        changes in prop::collection::vec((prop::collection::vec(0..6u32, 1..BACKENDS), 0..40u32), 0..6),
        last in prop_oneof![prop::collection::vec(1..6u32, 1..BACKENDS), (1..BACKENDS).prop_map(|n| vec![3; n])],
    ) {
        // Draws and hashes are right to 2 % only if there are many of them.
        let flows = if cfg!(miri) { 4000 } else { 40_000 };
        for scheduler in Scheduler::WORDS.iter().map(|word| word.parse().unwrap()) {
            let Some(wanted) = shares(scheduler, &last) else { continue };
            let chosen = shared(scheduler, &changes, &last, flows);
            for (count, share) in chosen.iter().zip(wanted) {
                let it = f64::from(*count) / f64::from(flows);
                prop_assert!((it - share).abs() < 0.02, "{scheduler} {last:?}: {chosen:?}");
            }
        }
    }
}

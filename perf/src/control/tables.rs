//! Times making the tables that hash schedulers pick from, which the control thread does when backends change.

use std::hint::black_box;

use config::model::Hash;
use config::words::Scheduler;
use dataplane::schedule::hash::Secret;
use dataplane::schedule::table::Member;
use dataplane::schedule::{Ingredients, Plan};
use dataplane::snapshot::{BackendSlot, Candidate};

use super::build::timed;
use super::report::{Report, Row};

/// Who has a table of a size to choose, with the sizes: the default one, and a larger one that it has.
const SIZES: [(Scheduler, [u32; 2]); 3] = [
    (Scheduler::Maglev, [Hash::TABLE_SIZE, 655_373]),
    (Scheduler::Bounded, [Hash::TABLE_SIZE, 655_373]),
    (Scheduler::Mh, [Hash::MH_TABLE_SIZE, 131_071]),
];
const BACKENDS: [u32; 3] = [10, 100, 1_000];

/// Times each table with so many backends, once with equal weights and once with those from 1 to 10.
///
/// # Errors
/// None was made.
pub fn measure(repeats: usize, report: &Report) -> Result<(), String> {
    for (scheduler, sizes) in SIZES {
        for (size, backends) in sizes.into_iter().flat_map(|size| BACKENDS.map(|backends| (size, backends))) {
            for most in [1, 10] {
                let ingredients = ingredients(scheduler, size, backends, most);
                let candidates: Vec<_> =
                    ingredients.members.iter().map(|it| Candidate::new(it.backend, it.weight)).collect();
                let make = || timed(|| Plan::new(scheduler, black_box(&candidates), &ingredients, None));
                let times: Vec<_> = (0..repeats).map(|_| make().0).collect();
                report.line(&Row::table(backends, scheduler, size, most > 1, &times)?);
            }
        }
    }
    Ok(())
}

/// Backends in slots from 0, with weights from 1 to `most` in turn.
fn ingredients(scheduler: Scheduler, size: u32, backends: u32, most: u32) -> Ingredients {
    let member = |slot: u32| {
        let weight = 1 + slot % most;
        let address = ([10, 0, (slot >> 8) as u8, slot as u8], 80).into();
        Member { backend: BackendSlot(slot), address, weight, full_weight: weight }
    };
    Ingredients {
        hash: Hash { table_size: size, ..Hash::of(scheduler) },
        secret: Secret::from_text("measured"),
        members: (0..backends).map(member).collect(),
        expiration: config::model::Service::EXPIRATION_SECS,
        layout: None,
        servers: Vec::new(),
    }
}

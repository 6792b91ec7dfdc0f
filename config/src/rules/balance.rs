//! What holds for how new flows are spread.

use super::{Fault, Found, name_fault};
use crate::limits;
use crate::model::{Hash, Persistence};
use crate::words::{HashPart, Scheduler};

/// The numbers of a service's persistence.
pub(crate) fn persistence_faults(persistence: &Persistence) -> Vec<Found> {
    let Persistence { timeout_secs, prefix_v4, prefix_v6, ref group, .. } = *persistence;
    let faults = [
        Fault::range("timeout_secs", timeout_secs, limits::IDLE_SECS),
        Fault::range("prefix_v4", prefix_v4, limits::PREFIX_V4),
        Fault::range("prefix_v6", prefix_v6, limits::PREFIX_V6),
        group.as_deref().and_then(name_fault),
    ];
    faults.into_iter().flatten().map(|fault| ("persistence", fault)).collect()
}

/// What hash schedulers need, and that no other scheduler is told it.
pub(crate) fn hash_faults(scheduler: Scheduler, hash: &Hash) -> Vec<Found> {
    let default = Hash::of(scheduler);
    let given = [
        ("on", hash.on != default.on),
        ("prefix_v4", hash.prefix_v4 != default.prefix_v4),
        ("prefix_v6", hash.prefix_v6 != default.prefix_v6),
        ("table_size", hash.table_size != default.table_size),
        ("fallback", hash.fallback != default.fallback),
        ("load_factor", hash.load_factor != default.load_factor),
    ];
    let useless = given.into_iter().filter(|(key, given)| *given && !heeds(scheduler, hash, key));
    let useless = useless.map(|(key, _)| (key, Fault::HashKey { key, scheduler }));
    let mut faults: Vec<Found> = useless.collect();
    faults.extend(part_fault(scheduler, hash.on).map(|fault| ("on", fault)));
    faults.extend(size_fault(scheduler, hash.table_size).map(|fault| ("table_size", fault)));
    let ranges = [
        ("prefix_v4", Fault::range("prefix_v4", hash.prefix_v4, limits::PREFIX_V4)),
        ("prefix_v6", Fault::range("prefix_v6", hash.prefix_v6, limits::PREFIX_V6)),
        ("load_factor", (!limits::LOAD_FACTOR.contains(&hash.load_factor)).then_some(Fault::LoadFactor)),
    ];
    faults.extend(ranges.into_iter().filter_map(|(key, fault)| Some((key, fault?))));
    faults
}

/// Whether a scheduler heeds a key of `hash`.
fn heeds(scheduler: Scheduler, hash: &Hash, key: &str) -> bool {
    use Scheduler::{Bounded, Maglev, Mh, Sh};
    match key {
        "on" => matches!(scheduler, Sh | Mh | Maglev | Bounded),
        "prefix_v4" | "prefix_v6" => {
            matches!(scheduler, Maglev | Bounded) && hash.on == HashPart::SourcePrefix
        }
        "table_size" => matches!(scheduler, Mh | Maglev | Bounded),
        "fallback" => matches!(scheduler, Sh | Mh),
        _ => scheduler == Bounded,
    }
}

/// `sh` and `mh` hash what they do in IPVS.
fn part_fault(scheduler: Scheduler, on: HashPart) -> Option<Fault> {
    let ipvs = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
    (ipvs && !matches!(on, HashPart::Source | HashPart::SourcePort)).then_some(Fault::HashPart(scheduler))
}

fn size_fault(scheduler: Scheduler, size: u32) -> Option<Fault> {
    let fits = match scheduler {
        Scheduler::Mh => limits::MH_SIZES.contains(&size),
        Scheduler::Maglev | Scheduler::Bounded => limits::TABLE_SIZE.contains(&size) && is_prime(size),
        _ => true,
    };
    (!fits).then_some(Fault::TableSize { scheduler, size })
}

fn is_prime(number: u32) -> bool {
    let up_to_root = |divisor: &u32| u64::from(*divisor).pow(2) <= u64::from(number);
    number > 1 && (2..).take_while(up_to_root).all(|divisor| !number.is_multiple_of(divisor))
}

/// The next prime, or size of `mh`, from a number on.
pub(super) fn next_size(scheduler: Scheduler, size: u32) -> u32 {
    let mut sizes = limits::MH_SIZES.into_iter();
    match scheduler {
        Scheduler::Mh => sizes.find(|it| *it >= size).unwrap_or(131_071),
        _ => (size.max(*limits::TABLE_SIZE.start())..).find(|it| is_prime(*it)).unwrap_or(Hash::TABLE_SIZE),
    }
}

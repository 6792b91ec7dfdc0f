//! What holds for how new flows are spread.

use std::ops::RangeInclusive;

use super::{Fault, Found, Terms, name_fault};
use crate::limits as bounds;
use crate::model::{Backend, Hash, Limits, Persistence, Quic, Service};
use crate::words::{HashPart, Mode, Protocol, Scheduler};

/// The numbers of a service's persistence.
pub(crate) fn persistence_faults(persistence: &Persistence) -> Vec<Found> {
    let Persistence { timeout_secs, prefix_v4, prefix_v6, ref group, .. } = *persistence;
    let faults = [
        Fault::range("timeout_secs", timeout_secs, bounds::IDLE_SECS),
        Fault::range("prefix_v4", prefix_v4, bounds::PREFIX_V4),
        Fault::range("prefix_v6", prefix_v6, bounds::PREFIX_V6),
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
        ("prefix_v4", Fault::range("prefix_v4", hash.prefix_v4, bounds::PREFIX_V4)),
        ("prefix_v6", Fault::range("prefix_v6", hash.prefix_v6, bounds::PREFIX_V6)),
        ("load_factor", (!bounds::LOAD_FACTOR.contains(&hash.load_factor)).then_some(Fault::LoadFactor)),
    ];
    faults.extend(ranges.into_iter().filter_map(|(key, fault)| Some((key, fault?))));
    faults
}

/// Whether a scheduler heeds a key of `hash`.
fn heeds(scheduler: Scheduler, hash: &Hash, key: &str) -> bool {
    use Scheduler::{Bounded, Maglev, Mh, Quic, Sh};
    match key {
        "on" => matches!(scheduler, Sh | Mh | Maglev | Bounded),
        "prefix_v4" | "prefix_v6" => {
            matches!(scheduler, Maglev | Bounded) && hash.on == HashPart::SourcePrefix
        }
        "table_size" => matches!(scheduler, Mh | Maglev | Bounded | Quic),
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
        Scheduler::Mh => bounds::MH_SIZES.contains(&size),
        Scheduler::Maglev | Scheduler::Bounded | Scheduler::Quic => {
            bounds::TABLE_SIZE.contains(&size) && is_prime(size)
        }
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
    let mut sizes = bounds::MH_SIZES.into_iter();
    match scheduler {
        Scheduler::Mh => sizes.find(|it| *it >= size).unwrap_or(131_071),
        _ => {
            let (least, most) = bounds::TABLE_SIZE.into_inner();
            (size.max(least)..=most).find(|it| is_prime(*it)).unwrap_or(Hash::TABLE_SIZE)
        }
    }
}

/// The lengths of connection IDs.
pub(crate) fn quic_faults(quic: &Quic) -> Vec<Found> {
    let Quic { rotation, server_id_len, nonce_len, key } = *quic;
    let ranges = [
        ("rotation", Fault::range("rotation", rotation, bounds::QUIC_ROTATION)),
        ("server_id_len", Fault::range("server_id_len", server_id_len, bounds::QUIC_SERVER_ID)),
        ("nonce_len", Fault::range("nonce_len", nonce_len, bounds::QUIC_NONCE)),
        (
            "nonce_len",
            (server_id_len.saturating_add(nonce_len) > bounds::QUIC_ID).then_some(Fault::QuicLength),
        ),
        ("key", key.filter(|key| key.as_slice().len() != 16).map(|_| Fault::QuicKey)),
    ];
    ranges.into_iter().filter_map(|(key, fault)| Some((key, fault?))).collect()
}

/// QUIC's scheduler is for UDP, and only it has connection IDs.
pub(crate) fn quic_use_fault(protocol: Protocol, scheduler: Scheduler, quic: Option<&Quic>) -> Option<Found> {
    let other = Fault::OtherProtocol { key: "scheduler", protocol: Protocol::Udp };
    let wrong = (scheduler == Scheduler::Quic && protocol != Protocol::Udp).then_some(("scheduler", other));
    wrong.or((quic.is_some() && scheduler != Scheduler::Quic).then_some(("quic", Fault::QuicScheduler)))
}

/// Scheduler `fastest` times the handshakes of TCP.
pub(crate) fn fastest_use_fault(protocol: Protocol, scheduler: Scheduler) -> Option<Found> {
    let other = Fault::OtherProtocol { key: "scheduler fastest", protocol: Protocol::Tcp };
    (scheduler == Scheduler::Fastest && protocol != Protocol::Tcp).then_some(("scheduler", other))
}

/// It needs both ways of them.
pub(super) fn fastest_fault(terms: &Terms, backend: &Backend) -> Option<Fault> {
    let Backend { address, mode, .. } = *backend;
    let is_one_way = matches!(mode, Mode::Dr | Mode::Tunnel);
    (terms.scheduler == Scheduler::Fastest && is_one_way).then_some(Fault::Untimed { backend: address, mode })
}

/// The ID of a server is as long as the service says.
pub(super) fn server_id_fault(quic: Option<&Quic>, backend: &Backend) -> Option<Found> {
    let len = quic.copied().unwrap_or_default().server_id_len;
    let its = backend.server_id?.as_slice().len();
    (its != usize::from(len)).then_some(("server_id", Fault::ServerIdLength(len)))
}

/// What of a service's QUIC breaks a rule.
pub(super) fn quic_of_service(service: &Service) -> Vec<Found> {
    let quic = service.quic.as_ref();
    let of_use = quic_use_fault(service.key.protocol, service.scheduler, quic);
    of_use.into_iter().chain(quic.iter().flat_map(|quic| quic_faults(quic))).collect()
}

/// Only locality-based schedulers keep what expires.
pub(crate) fn expiration_use_fault(scheduler: Scheduler, secs: Option<u32>) -> Option<Found> {
    let keeps = matches!(scheduler, Scheduler::Lblc | Scheduler::Lblcr);
    let key = "expiration_secs";
    (secs.is_some() && !keeps).then_some((key, Fault::HashKey { key, scheduler }))
}

/// What of a service's expiration breaks a rule.
pub(super) fn expiration_faults(service: &Service) -> impl Iterator<Item = Found> {
    let secs = service.expiration_secs;
    let range = secs.and_then(|secs| Fault::range("expiration_secs", secs, bounds::IDLE_SECS));
    let range = range.map(|fault| ("expiration_secs", fault));
    expiration_use_fault(service.scheduler, secs).into_iter().chain(range)
}

/// The numbers of a service's limits.
pub(crate) fn limit_faults(limits: &Limits) -> Vec<Found> {
    let new = |key, number: Option<u32>| Fault::range(key, number?, bounds::NEW_FLOWS);
    let most = |range: RangeInclusive<u64>, number: Option<u64>| {
        number.is_some_and(|number| !range.contains(&number)).then_some(Fault::Rate)
    };
    let faults = [
        limits.connections.and_then(|most| Fault::range("connections", most, bounds::THRESHOLD)),
        new("new_per_sec", limits.new_per_sec),
        new("new_per_sec_per_backend", limits.new_per_sec_per_backend),
        new("new_per_sec_per_source", limits.new_per_sec_per_source),
        Fault::range("prefix_v4", limits.prefix_v4, bounds::PREFIX_V4),
        Fault::range("prefix_v6", limits.prefix_v6, bounds::PREFIX_V6),
        most(bounds::PACKETS, limits.packets_per_sec),
        most(bounds::BITS, limits.bits_per_sec),
    ];
    faults.into_iter().flatten().map(|fault| ("limits", fault)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_prime_sizes() {
        let sizes = bounds::MH_SIZES.into_iter().chain([Hash::TABLE_SIZE, 4_194_301, 2, 3]);
        assert!(sizes.into_iter().all(is_prime));
        assert!(![0, 1, 4, 9, 65_535, 65_536, u32::MAX, 65_521 * 65_519].into_iter().any(is_prime));
        assert_eq!(next_size(Scheduler::Maglev, 1000), 1009);
        assert_eq!(next_size(Scheduler::Maglev, u32::MAX), Hash::TABLE_SIZE);
        assert_eq!((next_size(Scheduler::Mh, 252), next_size(Scheduler::Mh, 1 << 20)), (509, 131_071));
    }
}

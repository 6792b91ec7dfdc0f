//! What holds for how new flows are spread.

use super::{Fault, Found, name_fault};
use crate::limits;
use crate::model::Persistence;

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

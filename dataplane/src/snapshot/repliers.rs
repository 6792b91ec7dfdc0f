//! Whose replies a NAT backend's packets may be.

use config::words::Mode;

use super::entry::Entry;
use super::tables::{Found, Keyed, number};
use super::{Parts, ServiceSlot};

/// For whom a NAT backend replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replier {
    /// The service.
    pub service: ServiceSlot,
    /// Ports of the service.
    pub first: u16,
    /// The same.
    pub last: u16,
    /// What is added to one of them to get the backend's.
    shift: u16,
}

/// The repliers with a NAT backend's address and port, or with several ports: where they begin in the list of all, and how
/// many they are, or the service and port of one alone that has one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd(pub Entry);

impl Crowd {
    /// The repliers, of all.
    pub fn members(self, all: &[Replier]) -> &[Replier] {
        let start = self.0.number() as usize;
        let count = if self.0.is_sole() { 1 } else { self.0.tail() as usize };
        all.get(start..start + count).unwrap_or_default()
    }
}

/// The services that a backend's packet may be a reply of.
#[derive(Clone, Copy, Debug)]
pub struct Repliers<'a> {
    exact: &'a [Replier],
    ranges: &'a [Replier],
    port: u16,
    is_v4: bool,
}

impl<'a> Repliers<'a> {
    /// Those with a backend's address and this port, and those with several ports.
    pub(super) fn new(exact: &'a [Replier], ranges: &'a [Replier], port: u16, is_v4: bool) -> Self {
        Self { exact, ranges, port, is_v4 }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && (self.ranges.is_empty() || self.iter().next().is_none())
    }

    /// The services, each with the port of it that the backend's port stands for.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (Found, u16)> + '_ {
        self.exact.iter().chain(self.ranges).filter_map(|replier| {
            let port = self.port.wrapping_sub(replier.shift);
            let found =
                Found { service: replier.service, narrow: self.is_v4 && replier.first == replier.last };
            (replier.first..=replier.last).contains(&port).then_some((found, port))
        })
    }
}

/// All repliers by their keys.
pub(super) fn replies(parts: &Parts) -> (Vec<Keyed<Entry>>, Vec<Replier>) {
    let mut endpoints: Vec<Keyed<Replier>> = parts
        .backends
        .iter()
        .flatten()
        .filter(|backend| matches!(backend.mode, Mode::Nat | Mode::FullNat))
        .filter_map(|backend| {
            let service = parts.services.get(usize::from(backend.service.0))?.as_ref()?;
            let ports = service.key.ports;
            let shift = backend.port_shift;
            let port = ports.single().map_or(0, |port| port.wrapping_add(shift));
            let replier = Replier { service: backend.service, first: ports.first, last: ports.last, shift };
            Some(((number(service.key.protocol), backend.address.ip(), port), replier))
        })
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let (mut crowds, mut start) = (Vec::<Keyed<Entry>>::new(), 0);
    for group in endpoints.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((key, Replier { service, first, last, .. })) = group.first() else { continue };
        let is_alone = group.len() == 1 && first == last;
        // There are no more than backends, whose slots have 24 bits.
        let len = group.len() as u32;
        let entry = if is_alone { Entry::sole(start, *service, *first) } else { Entry::other(start, len) };
        crowds.push((*key, entry));
        start += len;
    }
    (crowds, endpoints.into_iter().map(|(_, replier)| replier).collect())
}

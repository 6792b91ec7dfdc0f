//! What schedulers need besides the list of candidates. The control thread makes it when that list changes.

use config::model::Hash;
use config::words::{HashPart, Scheduler, ServerId};

use super::bounded::Bounded;
use super::hash::{HashOn, Keys, Secret};
use super::ipvs_hash::{Dh, Flags, Mh, Sh};
use super::locality::Locality;
use super::maglev::Maglev;
use super::quic::{Layout, Quic};
use super::quotient::Divisors;
use super::random::Lots;
use super::table::Member;
use crate::clock::Seconds;
use crate::snapshot::{BackendSlot, Candidate};

/// Turns of a sequence at most; weights whose sum is larger are rounded to that many parts.
const MOST_TURNS: u64 = 1 << 16;

/// What is made for a scheduler.
#[derive(Debug, Default)]
pub enum Plan {
    /// It needs nothing.
    #[default]
    None,
    /// Candidates in turn, by their places.
    Turns(Box<[u32]>),
    /// Weights by which costs are divided.
    Divisors(Divisors),
    /// Lots, by candidate.
    Lots(Lots),
    /// The entry of a service.
    Locality(Locality),
    /// Slots by the destination.
    Dh(Dh),
    /// Slots by the source.
    Sh(Sh),
    /// Slots by the source, as IPVS's Maglev has them.
    Mh(Mh),
    /// Slots by a hash under the cluster's secret.
    Maglev(Keyed<Maglev>),
    /// The same, with bounded loads.
    Bounded(Keyed<Bounded>),
    /// Servers by their IDs, and slots for what names none of them.
    Quic(Box<Quic>, Keyed<Maglev>),
}

/// A table, and the hash by which flows find their slots.
#[derive(Debug)]
pub struct Keyed<T> {
    pub(super) table: T,
    pub(super) on: HashOn,
    pub(super) keys: Keys,
}

/// What plans are made of, besides the candidates. Most is for tables alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingredients {
    /// What hash schedulers hash.
    pub hash: Hash,
    /// The cluster's secret.
    pub secret: Secret,
    /// How long locality is kept.
    pub expiration: Seconds,
    /// The backends, with those that are quiesced.
    pub members: Vec<Member>,
    /// How servers make QUIC's connection IDs.
    pub layout: Option<Layout>,
    /// What names them there.
    pub servers: Vec<(ServerId, BackendSlot)>,
}

impl Ingredients {
    /// Servers by their IDs; none if the layout is none that QUIC has.
    fn quic(&self) -> Option<Quic> {
        let servers = self.servers.iter().map(|(id, backend)| (id.as_slice().to_vec(), *backend));
        Quic::new(self.layout?, servers).ok()
    }
}

impl Plan {
    /// Whether a scheduler's plan is made of members, and not only of candidates.
    pub const fn is_made_of_members(scheduler: Scheduler) -> bool {
        use Scheduler::{Bounded, Dh, Maglev, Mh, Quic, Sh};
        matches!(scheduler, Dh | Sh | Mh | Maglev | Bounded | Quic)
    }

    /// The plan for these backends; `before` is the one that it replaces, with its candidates.
    pub fn new(
        scheduler: Scheduler,
        candidates: &[Candidate],
        ingredients: &Ingredients,
        before: Option<(&Self, &[Candidate])>,
    ) -> Self {
        let Ingredients { hash, secret, members, .. } = ingredients;
        let size = hash.table_size;
        let keys = || Keys::new(secret);
        let maglev = |on| Keyed { table: Maglev::new(members, size, secret), on, keys: keys() };
        match scheduler {
            Scheduler::Swrr | Scheduler::DynamicRatio | Scheduler::Observed | Scheduler::Predictive => {
                Self::Turns(smooth(candidates))
            }
            Scheduler::Wlc
            | Scheduler::Sed
            | Scheduler::Nq
            | Scheduler::LeastBandwidth
            | Scheduler::LeastPackets => Self::Divisors(Divisors::new(candidates)),
            Scheduler::Random => Self::Lots(Lots::weighted(candidates)),
            Scheduler::Twos => Self::Lots(Lots::twos(candidates)),
            Scheduler::Lblc | Scheduler::Lblcr => {
                let before = before.and_then(|(plan, its)| Some((plan.locality()?, its)));
                Self::Locality(Locality::new(candidates, ingredients.expiration, before))
            }
            Scheduler::Dh => Self::Dh(Dh::new(members)),
            Scheduler::Sh => Self::Sh(Sh::new(members, flags(hash))),
            Scheduler::Mh => Self::Mh(Mh::new(members, size, flags(hash))),
            Scheduler::Maglev => Self::Maglev(maglev(hash_on(hash))),
            // A client's packets all agree, whether or not its servers put their numbers into IDs.
            Scheduler::Quic => match ingredients.quic() {
                Some(servers) => Self::Quic(Box::new(servers), maglev(HashOn::FiveTuple)),
                None => Self::Maglev(maglev(HashOn::FiveTuple)),
            },
            Scheduler::Bounded => Self::Bounded(Keyed {
                table: Bounded::new(members, size, secret, hash.load_factor),
                on: hash_on(hash),
                keys: keys(),
            }),
            _ => Self::None,
        }
    }

    /// How many slots each member has in a table as IPVS has it.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<usize> {
        match self {
            Self::Dh(it) => it.table().shares(),
            Self::Sh(it) => it.table().shares(),
            Self::Mh(it) => it.table().shares(),
            _ => Vec::new(),
        }
    }

    /// Weights by which costs are divided.
    #[inline]
    pub(super) fn divisors(&self) -> Option<&Divisors> {
        if let Self::Divisors(divisors) = self { Some(divisors) } else { None }
    }

    /// Lots, by candidate.
    #[inline]
    pub(super) fn lots(&self) -> Option<&Lots> {
        if let Self::Lots(lots) = self { Some(lots) } else { None }
    }

    /// Candidates in turn.
    #[inline]
    pub(super) fn turns(&self) -> &[u32] {
        if let Self::Turns(turns) = self { turns } else { &[] }
    }

    /// The entry of a service.
    #[inline]
    pub(super) fn locality(&self) -> Option<&Locality> {
        if let Self::Locality(entry) = self { Some(entry) } else { None }
    }
}

/// The flags of `sh` and `mh`.
fn flags(hash: &Hash) -> Flags {
    Flags { port: hash.on == HashPart::SourcePort, fallback: hash.fallback }
}

fn hash_on(hash: &Hash) -> HashOn {
    match hash.on {
        HashPart::Source => HashOn::Source,
        HashPart::SourcePort => HashOn::SourcePort,
        HashPart::Destination => HashOn::Destination,
        HashPart::FiveTuple => HashOn::FiveTuple,
        HashPart::SourcePrefix => HashOn::SourcePrefix { v4: hash.prefix_v4, v6: hash.prefix_v6 },
    }
}

/// One round of smooth weighted round robin, as nginx has it: each gains its weight, and who has most has its turn and
/// pays the sum of all; of equal ones the first. Weights 5, 1, 1 give A A B A C A A.
fn smooth(candidates: &[Candidate]) -> Box<[u32]> {
    let weights = scaled(candidates);
    let sum: u64 = weights.iter().sum();
    let mut credits = vec![0i64; weights.len()];
    let turns = (0..sum).map(|_| {
        let mut best = 0;
        for (place, weight) in weights.iter().enumerate() {
            credits[place] += *weight as i64;
            if credits[place] > credits[best] {
                best = place;
            }
        }
        credits[best] -= sum as i64;
        best as u32
    });
    turns.collect()
}

/// Weights without their greatest common divisor, and so small that a round is not too long. None becomes 0.
fn scaled(candidates: &[Candidate]) -> Vec<u64> {
    let weights = || candidates.iter().map(|it| u64::from(it.weight));
    let divisor = weights().fold(0, gcd).max(1);
    let sum = weights().sum::<u64>() / divisor;
    let scale = |weight: u64| match weight / divisor {
        weight if sum <= MOST_TURNS => weight,
        weight => (weight * MOST_TURNS).div_ceil(sum),
    };
    weights().map(scale).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::BackendSlot;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights.iter().zip(0..).map(|(&weight, slot)| Candidate::new(BackendSlot(slot), weight)).collect()
    }

    fn round(weights: &[u32]) -> String {
        smooth(&candidates(weights)).iter().map(|place| char::from(b'A' + *place as u8)).collect()
    }

    #[test]
    fn smooth_rounds_are_those_of_nginx() {
        assert_eq!(round(&[5, 1, 1]), "AABACAA");
        assert_eq!(round(&[4, 3, 2]), "ABCABACBA");
        assert_eq!(round(&[100, 100]), "AB");
        assert_eq!(round(&[300, 100, 200]), "ACABCA");
        assert_eq!(round(&[7]), "A");
        assert_eq!(round(&[]), "");
    }

    #[test]
    fn weights_that_are_too_large_keep_their_shares() {
        let turns = smooth(&candidates(&[16_776_960, 1, 8_000_001]));
        let count = |place| turns.iter().filter(|it| **it == place).count();
        assert!((1 << 16..(1 << 16) + 3).contains(&turns.len()));
        assert_eq!((count(1), count(0)), (1, (16_776_960_u64 << 16).div_ceil(24_776_962) as usize));
    }
}

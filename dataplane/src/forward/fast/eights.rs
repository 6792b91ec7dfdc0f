//! Packets of a burst eight at a time, where the processor gains by that: those of IPv4.
#![allow(unsafe_code)]

use super::super::flows::{Flows, Tabled};
use super::super::{Forwarder, Live, PREFETCH_AHEAD};
use super::{Fast, Lane, Lanes, Narrow, Sights, Wide};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::eight::{Avx512, Bits, lowest_8, lowest_16};
use crate::flow::table::{FlowHash, Home};
use crate::flow::{FlowKey, WideKey};
use crate::parse::plain::eight::{Eight, glance_eight};
use crate::parse::plain::{Front, Kind, NO_FRONT, Station};
use crate::snapshot::{Rows, Snapshot};

/// Packets of eight that are known at least, or those that come are better taken one by one.
// Tests mix all kinds.
const WORTH: u32 = if cfg!(test) { 1 } else { 5 };

/// What was found of a burst.
#[derive(Default)]
pub(super) struct Eights {
    /// Packets whose flows are known now, and asked for.
    pub known: Live,
    /// Those behind, from this place on, were not looked at.
    pub end: usize,
}

impl<F: Frame> Forwarder<F> {
    /// Finds packets of IPv4 from the first on, eight by eight, and asks for their flows: narrow ones, or those of full NAT.
    #[inline]
    pub(super) fn sight_eights(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        sights: &mut Sights,
        lanes: &mut Lanes,
    ) -> Eights {
        let Some(Avx512 { .. }) = self.avx512 else { return Eights::default() };
        let front = burst.get(0).and_then(|frame| frame.head().first_chunk());
        if front.and_then(|front| station.kind(front)) != Some(Kind::V4) {
            return Eights::default();
        }
        let rows = snapshot.rows::<u32>();
        if rows == Rows::FullNat {
            // SAFETY: the processor has all features of this function, for `Avx512` is a proof of that.
            let eights = unsafe { self.sight_full_nat_eights(snapshot, station, burst, &mut sights.wide_v4) };
            if eights.end != 0 {
                let (wide, live) = (&mut sights.wide_v4, &mut lanes.wide_v4);
                live.join(self.owned(eights.known.without(wide.local_replies), wide));
                // Not by the way, where a jump would depend on which way a packet goes.
                for slot in wide.local_replies {
                    self.foresee_behind(slot, wide);
                }
                return eights;
            }
        }
        let narrow = &mut sights.narrow;
        let eights = match rows {
            // SAFETY: as above.
            Rows::BothWays => unsafe { self.sight_narrow_eights::<true>(snapshot, station, burst, narrow) },
            // SAFETY: as above.
            _ => unsafe { self.sight_narrow_eights::<false>(snapshot, station, burst, narrow) },
        };
        lanes.narrow.join(self.owned(eights.known, narrow));
        eights
    }

    /// The same of narrow flows, with `REPLIES` of packets whichever way they go.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_narrow_eights<const REPLIES: bool>(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        narrow: &mut Narrow,
    ) -> Eights {
        each_eight(station, burst, |group, packets| {
            let flows = snapshot.narrow_flows::<REPLIES>(packets);
            are_worth(flows.known)?;
            let key = FlowKey::of_eight(flows.clients, flows.services);
            let (hash, home) = self.flows.homes_of_eight(flows.clients, flows.services);
            narrow.note_eight(group, packets, key, (hash, home), &self.flows);
            narrow.replies.join(Live::of_eight(group, flows.replies));
            Some(flows.known)
        })
    }

    /// The same of flows of full NAT, whichever way packets go. Of replies it finds out what `look_behind` needs.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_full_nat_eights(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        wide: &mut Wide<u32>,
    ) -> Eights {
        let eights = each_eight(station, burst, |group, packets| {
            let flows = snapshot.full_nat_flows(packets);
            let known = flows.known & packets.have_clients();
            are_worth(known)?;
            let key = WideKey::of_eight(packets.src, flows.targets);
            let home = self.flows.wide_homes_of_eight(packets.src, flows.targets, !flows.replies);
            wide.note_eight(group, packets, key, home, &self.flows);
            put(&mut wide.local, group, flows.locals);
            wide.local_replies.join(Live::of_eight(group, known & flows.replies));
            Some(known)
        });
        wide.replies.join(wide.local_replies);
        eights
    }
}

/// Reads the packets of a burst eight by eight, as long as `take` says which of them are known.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn each_eight<F: Frame>(
    station: Station,
    burst: &Burst<F>,
    mut take: impl FnMut(usize, &Eight) -> Option<Bits>,
) -> Eights {
    let places = burst.all_places();
    let (groups, _) = places.as_chunks::<8>();
    let mut eights = Eights::default();
    for (group, frames) in groups.iter().enumerate() {
        let slot = group * 8;
        let (mut fronts, mut lens): ([&Front; 8], _) = ([&NO_FRONT; 8], [0; 8]);
        for place in 0..8 {
            places
                .get(slot + place + PREFETCH_AHEAD)
                .and_then(Option::as_ref)
                .inspect(|frame| frame.prefetch());
            let Some(frame) = &frames[place] else { return eights };
            let Some(front) = frame.head().first_chunk() else { return eights };
            // None is longer than what DPDK counts by 32 bits.
            (fronts[place], lens[place]) = (front, frame.len() as u32);
        }
        let Some(known) = take(group, &glance_eight(station, &fronts, lens)) else { return eights };
        eights.known.join(Live::of_eight(group, known));
        eights.end = slot + 8;
    }
    eights
}

/// Whether so many of eight are known that it pays.
#[inline(always)]
fn are_worth(known: Bits) -> Option<()> {
    (known == !0 || known.count_ones() >= WORTH).then_some(())
}

impl<A: Fast, K: Tabled> Lane<A, K> {
    /// Notes what is known of the packets of a group of eight, but for their headings, and asks for their homes.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn note_eight(
        &mut self,
        group: usize,
        packets: &Eight,
        key: [K; 8],
        (hash, home): ([FlowHash; 8], [Home; 8]),
        flows: &Flows,
    ) {
        put(&mut self.len, group, lowest_16(packets.len));
        put(&mut self.tcp_flags, group, lowest_8(packets.tcp_flags));
        put(&mut self.key, group, key);
        put(&mut self.hash, group, hash);
        put(&mut self.home, group, home);
        home.into_iter().for_each(|home| K::prefetch_home(flows, home));
    }
}

/// Puts what belongs to the packets of a group in its places.
#[inline(always)]
fn put<T>(places: &mut [T; BURST], group: usize, eight: [T; 8]) {
    if let Some(places) = places.as_chunks_mut::<8>().0.get_mut(group) {
        *places = eight;
    }
}

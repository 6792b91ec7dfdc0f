//! Packets of a burst eight at a time, where the processor gains by that: those of narrow flows.
#![allow(unsafe_code)]

use super::super::flows::Tabled;
use super::super::{Forwarder, Live, PREFETCH_AHEAD};
use super::{Narrow, Sights};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::eight::{Avx512, lowest_8, lowest_16};
use crate::flow::FlowKey;
use crate::flow::table::{FlowHash, Home};
use crate::parse::plain::eight::glance_eight;
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
    /// Finds packets of narrow flows from the first on, eight by eight, and asks for their flows.
    #[inline]
    pub(super) fn sight_eights(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        sights: &mut Sights,
    ) -> Eights {
        let Some(Avx512 { .. }) = self.avx512 else { return Eights::default() };
        let front = burst.get(0).and_then(|frame| frame.head().first_chunk());
        if front.and_then(|front| station.kind(front)) != Some(Kind::V4) {
            return Eights::default();
        }
        let narrow = &mut sights.narrow;
        match snapshot.rows::<u32>() {
            Rows::FullNat => Eights::default(),
            // SAFETY: the processor has all features of this function, for `Avx512` is a proof of that.
            Rows::BothWays => unsafe { self.sight_all_eights::<true>(snapshot, station, burst, narrow) },
            // SAFETY: as above.
            _ => unsafe { self.sight_all_eights::<false>(snapshot, station, burst, narrow) },
        }
    }

    /// The same, with `REPLIES` of packets whichever way they go.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_all_eights<const REPLIES: bool>(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        narrow: &mut Narrow,
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
            let packets = glance_eight(station, &fronts, lens);
            let flows = snapshot.narrow_flows::<REPLIES>(&packets);
            if flows.known != !0 && flows.known.count_ones() < WORTH {
                return eights;
            }
            let key = FlowKey::of_eight(flows.clients, flows.services);
            let (hash, home) = self.flows.homes_of_eight(flows.clients, flows.services);
            let brief = (lowest_16(packets.len), lowest_8(packets.tcp_flags));
            narrow.note_eight(group, brief, key, (hash, home));
            narrow.replies.join(Live::of_eight(group, flows.replies));
            narrow.home[slot..].iter().take(8).for_each(|home| FlowKey::prefetch_home(&self.flows, *home));
            eights.known.join(Live::of_eight(group, flows.known));
            eights.end = slot + 8;
        }
        eights
    }
}

impl Narrow {
    /// Notes what is known of the packets of a group of eight: lengths and flags, keys, hashes and homes.
    #[inline(always)]
    fn note_eight(
        &mut self,
        group: usize,
        (len, tcp_flags): ([u16; 8], [u8; 8]),
        key: [FlowKey; 8],
        (hash, home): ([FlowHash; 8], [Home; 8]),
    ) {
        put(&mut self.len, group, len);
        put(&mut self.tcp_flags, group, tcp_flags);
        put(&mut self.key, group, key);
        put(&mut self.hash, group, hash);
        put(&mut self.home, group, home);
    }
}

/// Puts what belongs to the packets of a group in its places.
#[inline(always)]
fn put<T>(places: &mut [T; BURST], group: usize, eight: [T; 8]) {
    if let Some(places) = places.as_chunks_mut::<8>().0.get_mut(group) {
        *places = eight;
    }
}

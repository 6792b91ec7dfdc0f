//! Packets of a burst eight at a time, where the processor gains by that.
#![allow(unsafe_code)]

use std::arch::x86_64::{_mm512_maskz_mov_epi64, _mm512_srli_epi64};

use super::super::flows::{Flows, Homes, Tabled};
use super::super::{Forwarder, Live, PREFETCH_AHEAD};
use super::{Fast, Lane, Lanes, Narrow, Sights, Wide};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::eight::{Avx512, Bits, lowest_8, lowest_16};
use crate::flow::table::{FlowHash, Home};
use crate::flow::{FlowKey, WideKey};
use crate::parse::plain::eight::{Eight, FrontV6, NO_FRONT_V6, glance_eight_v4, glance_eight_v6};
use crate::parse::plain::{Front, Kind, NO_FRONT, Station};
use crate::snapshot::{FullNatFlows, Rows, Snapshot};

/// Packets of eight that are known at least, or those that come are better taken one by one.
// Tests mix all kinds.
const WORTH: u32 = if cfg!(test) { 1 } else { 5 };

/// The packets of a burst, and for whom they are.
type Packets<'a, F> = (Station, &'a Burst<F>);

/// What was found of a burst.
#[derive(Default)]
pub(super) struct Eights {
    /// Packets whose flows are known now, and asked for.
    pub known: Live,
    /// Those behind, from this place on, were not looked at.
    pub end: usize,
}

impl<F: Frame> Forwarder<F> {
    /// Finds packets from the first on, eight by eight, and asks for their flows.
    #[inline(never)]
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
        let packets = (station, burst);
        match front.and_then(|front| station.kind(front)) {
            Some(Kind::V4) => {
                let narrow = &mut sights.narrow;
                let eights = match snapshot.rows::<u32>() {
                    // SAFETY: the processor has all features of this function, for `Avx512` is a proof of that.
                    Rows::FullNat => unsafe { self.sight_full_nat_eights(snapshot, packets, narrow) },
                    // SAFETY: as above.
                    Rows::BothWays => unsafe { self.sight_narrow_eights::<true>(snapshot, packets, narrow) },
                    // SAFETY: as above.
                    _ => unsafe { self.sight_narrow_eights::<false>(snapshot, packets, narrow) },
                };
                self.keep_known(eights, narrow, &mut lanes.narrow)
            }
            Some(Kind::V6) => {
                let wide = &mut sights.wide;
                let eights = match snapshot.rows::<u128>() {
                    // SAFETY: as above.
                    Rows::FullNat => unsafe { self.sight_full_nat_eights_v6(snapshot, packets, wide) },
                    // SAFETY: as above.
                    Rows::BothWays => unsafe { self.sight_wide_eights::<true>(snapshot, packets, wide) },
                    // SAFETY: as above.
                    _ => unsafe { self.sight_wide_eights::<false>(snapshot, packets, wide) },
                };
                self.keep_known(eights, wide, &mut lanes.wide)
            }
            None => Eights::default(),
        }
    }

    /// Puts the packets whose flows are known in their lane. Of replies of full NAT it asks for what `look_behind` needs.
    // Not within the loop, where a jump would depend on which way a packet goes.
    #[inline]
    fn keep_known<A: Fast, K: Tabled>(
        &self,
        eights: Eights,
        lane: &mut Lane<A, K>,
        live: &mut Live,
    ) -> Eights {
        live.join(self.owned(eights.known.without(lane.local_replies), lane));
        lane.replies.join(lane.local_replies);
        for slot in lane.local_replies {
            self.foresee_behind(slot, lane);
        }
        eights
    }

    /// IPv4 packets of narrow flows; with `REPLIES` whichever way they go.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_narrow_eights<const REPLIES: bool>(
        &self,
        snapshot: &Snapshot,
        (station, burst): Packets<F>,
        narrow: &mut Narrow,
    ) -> Eights {
        let glance = |fronts: &[&Front; 8], lens| glance_eight_v4(station, fronts, lens);
        each_eight(burst, &NO_FRONT, glance, |group, packets| {
            let flows = snapshot.narrow_flows::<REPLIES>(packets);
            are_worth(flows.known)?;
            let key = FlowKey::of_eight(flows.clients, flows.services);
            let homes = self.flows.homes_of_eight(flows.clients, flows.services);
            narrow.note_eight(group, packets, key, homes, &self.flows);
            narrow.replies.join(Live::of_eight(group, flows.replies));
            Some(flows.known)
        })
    }

    /// IPv6 packets; with `REPLIES` whichever way they go.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_wide_eights<const REPLIES: bool>(
        &self,
        snapshot: &Snapshot,
        (station, burst): Packets<F>,
        wide: &mut Wide,
    ) -> Eights {
        let glance = |fronts: &[&FrontV6; 8], lens| glance_eight_v6(station, fronts, lens);
        each_eight(burst, &NO_FRONT_V6, glance, |group, packets| {
            let flows = snapshot.wide_flows::<REPLIES>(packets);
            let known = flows.known & flows.clients.are_clients();
            are_worth(known)?;
            let key = WideKey::of_eight(&flows.clients, flows.targets);
            let homes = self.flows.wide_homes_of_eight(&flows.clients, flows.targets);
            wide.note_eight(group, packets, key, homes, &self.flows);
            wide.replies.join(Live::of_eight(group, known & flows.replies));
            Some(known)
        })
    }

    /// IPv4 packets of full NAT, whichever way they go, and requests to other services.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_full_nat_eights(
        &self,
        snapshot: &Snapshot,
        (station, burst): Packets<F>,
        narrow: &mut Narrow,
    ) -> Eights {
        let glance = |fronts: &[&Front; 8], lens| glance_eight_v4(station, fronts, lens);
        each_eight(burst, &NO_FRONT, glance, |group, packets| {
            let flows = snapshot.full_nat_flows(packets);
            let known = flows.known & packets.have_clients();
            are_worth(known)?;
            let services = _mm512_srli_epi64::<16>(flows.targets);
            let key = FlowKey::of_eight(packets.src, services);
            let homes = self.flows.homes_of_eight(packets.src, services);
            narrow.note_eight(group, packets, key, homes.of(!flows.replies), &self.flows);
            narrow.note_locals(group, &flows, known, &self.flows);
            Some(known)
        })
    }

    /// The same of IPv6.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline(never)]
    fn sight_full_nat_eights_v6(
        &self,
        snapshot: &Snapshot,
        (station, burst): Packets<F>,
        wide: &mut Wide,
    ) -> Eights {
        let glance = |fronts: &[&FrontV6; 8], lens| glance_eight_v6(station, fronts, lens);
        each_eight(burst, &NO_FRONT_V6, glance, |group, packets| {
            let flows = snapshot.full_nat_flows_v6(packets);
            let known = flows.known & packets.src.are_clients();
            are_worth(known)?;
            let key = WideKey::of_eight(&packets.src, flows.targets);
            let homes = self.flows.wide_homes_of_eight(&packets.src, flows.targets);
            wide.note_eight(group, packets, key, homes.of(!flows.replies), &self.flows);
            wide.note_locals(group, &flows, known, &self.flows);
            Some(known)
        })
    }
}

impl Homes {
    /// Those of some, which are asked for then, and the first line for all others, which is near.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn of(self, some: Bits) -> Self {
        Self { homes: _mm512_maskz_mov_epi64(some, self.homes), ..self }
    }
}

/// Reads the packets of a burst eight by eight, as long as `take` says which of them are known. `no_front` is of none.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
fn each_eight<F: Frame, const LEN: usize, E>(
    burst: &Burst<F>,
    no_front: &[u8; LEN],
    glance: impl Fn(&[&[u8; LEN]; 8], [u32; 8]) -> Eight<E>,
    mut take: impl FnMut(usize, &Eight<E>) -> Option<Bits>,
) -> Eights {
    let places = burst.all_places();
    let (groups, _) = places.as_chunks::<8>();
    let mut eights = Eights::default();
    for (group, frames) in groups.iter().enumerate() {
        let slot = group * 8;
        let (mut fronts, mut lens) = ([no_front; 8], [0; 8]);
        for place in 0..8 {
            places
                .get(slot + place + PREFETCH_AHEAD)
                .and_then(Option::as_ref)
                .inspect(|frame| frame.prefetch());
            let Some(frame) = &frames[place] else { return eights };
            // Shorter ones are taken one by one: one must not do away with eights for a whole burst.
            fronts[place] = frame.head().first_chunk().unwrap_or(no_front);
            // None is longer than what DPDK counts by 32 bits.
            lens[place] = frame.len() as u32;
        }
        let Some(known) = take(group, &glance(&fronts, lens)) else { return eights };
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
    fn note_eight<E>(
        &mut self,
        group: usize,
        packets: &Eight<E>,
        key: [K; 8],
        Homes { hashes, homes }: Homes,
        flows: &Flows,
    ) {
        let home = Home::of_eight(homes);
        put(&mut self.len, group, lowest_16(packets.len));
        put(&mut self.tcp_flags, group, lowest_8(packets.tcp_flags));
        put(&mut self.key, group, key);
        put(&mut self.hash, group, FlowHash::of_eight(hashes));
        put(&mut self.home, group, home);
        home.into_iter().for_each(|home| K::prefetch_home(flows, home));
    }

    /// Notes the local addresses and ports that replies of these are for, and asks for those ports that are not in homes.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    fn note_locals(&mut self, group: usize, its: &FullNatFlows, known: Bits, flows: &Flows) {
        put(&mut self.local, group, its.locals);
        put(&mut self.local_port, group, lowest_16(its.targets));
        self.local_replies.join(Live::of_eight(group, known & its.replies));
        self.home[group * 8..].iter().take(8).for_each(|home| K::prefetch_ports(flows, *home));
    }
}

/// Puts what belongs to the packets of a group in its places.
#[inline(always)]
fn put<T>(places: &mut [T; BURST], group: usize, eight: [T; 8]) {
    if let Some(places) = places.as_chunks_mut::<8>().0.get_mut(group) {
        *places = eight;
    }
}

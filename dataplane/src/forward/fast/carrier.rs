//! Loops over packets of flows that are known.

use super::super::flows::{Flows, Tabled};
use super::super::{Context, Forwarder, Live};
use super::lane::Stop;
use super::{Fast, Lane};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::port::PortId;
use crate::snapshot::{BackendSlot, Way};
use crate::stats::BackendCounters;

/// All that such packets need of their worker and its snapshot, so that it is found once for all of them.
pub(super) struct Carrier<'a> {
    pub context: Context<'a>,
    pub flows: &'a mut Flows,
    /// Identification of the next packet that is made here and may be fragmented.
    pub next_id: &'a mut u16,
    /// By backend slot; these and the counters are as many, so that one comparison does for both.
    ways: &'a [Option<Way>],
    counters: &'a [BackendCounters],
}

impl<F: Frame> Forwarder<F> {
    #[inline(always)]
    pub(super) fn carrier<'a>(&'a mut self, context: Context<'a>) -> Carrier<'a> {
        let Self { flows, stats, next_id, .. } = self;
        let (ways, counters) = (context.snapshot.ways(), stats.backends());
        let count = ways.len().min(counters.len());
        Carrier { context, flows, next_id, ways: &ways[..count], counters: &counters[..count] }
    }
}

impl<'a> Carrier<'a> {
    /// The way to a backend that packets of an IP version can go, and its counters.
    #[inline(always)]
    pub fn way<A: Fast>(&self, backend: BackendSlot) -> Option<(&'a Way, &'a BackendCounters)> {
        let slot = backend.0 as usize;
        let way = self.ways.get(slot)?.as_ref().filter(|way| way.is_of::<A>())?;
        Some((way, &self.counters[slot]))
    }

    /// Takes packets to their ends by `carry`, which says the port that one leaves by, if it took it: as long as that is the
    /// same, and none comes that is among `others`. Those that it took, and where it stopped, are not in `rest` any more.
    #[inline(always)]
    pub fn run<F: Frame, A: Fast, K: Tabled>(
        mut self,
        (rest, others): (&mut Live, Live),
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
        carry: impl Fn(&mut Self, &Lane<A, K>, usize, &mut F) -> Option<PortId>,
    ) -> Option<Stop> {
        let (all, places) = (*rest, burst.places_mut());
        let mut live = all.before(others);
        let (mut late, mut stop) = (Live::default(), None);
        for slot in live.by_ref() {
            let Some(frame) = &mut places[slot] else { continue };
            let way = carry(&mut self, lane, slot, frame);
            if way != Some(port) {
                if way.is_none() && lane.look_elsewhere(slot, self.flows) {
                    late.keep(slot);
                    continue;
                }
                stop = Some(Stop::at(slot, way));
                break;
            }
        }
        let mut behind = all.without(all.before(others));
        let stop = stop.or_else(|| behind.next().map(|slot| Stop::at(slot, None)));
        *rest = behind.with(live).with(late);
        stop.and_then(|stop| stop.after(late, rest))
    }
}

//! The shortest way of all: requests of flows whose replies go another way, to backends of one kind.

use super::super::flows::{Flows, Tabled};
use super::super::{Context, Forwarder, Live};
use super::carry::touch;
use super::lane::Stop;
use super::{Fast, Lane, Sighted};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::flow::state::View;
use crate::parse::plain::L3;
use crate::port::PortId;
use crate::rewrite::plain::{self, Outer};
use crate::snapshot::{Carriage, Way};
use crate::stats::BackendCounters;

/// What such packets need of their worker and its snapshot.
struct OneWay<'a> {
    context: Context<'a>,
    flows: &'a mut Flows,
    /// By backend slot; these and the counters are as many, so that one comparison does for both.
    ways: &'a [Option<Way>],
    counters: &'a [BackendCounters],
    next_id: &'a mut u16,
}

impl<F: Frame> Forwarder<F> {
    /// The same as [`Self::run`] for packets to backends that are reached as a router does. It stops at all others.
    // Nothing else is in the loop, whose registers would not suffice; so with the next one.
    #[inline(never)]
    pub(super) fn run_dr<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Stop> {
        self.one_way(context).run(Carriage::Dr, rest, port, lane, burst, |_, way, _, frame| {
            plain::dr::<A>(frame.head_mut(), &way.exit.link)
        })
    }

    /// The same for packets to backends behind bare tunnels.
    #[inline(never)]
    pub(super) fn run_ipip<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Stop> {
        self.one_way(context).run(Carriage::Ipip, rest, port, lane, burst, wrap)
    }

    #[inline(always)]
    fn one_way<'a>(&'a mut self, context: Context<'a>) -> OneWay<'a> {
        let Self { flows, stats, next_id, .. } = self;
        let (ways, counters) = (context.snapshot.ways(), stats.backends());
        let count = ways.len().min(counters.len());
        OneWay { context, flows, ways: &ways[..count], counters: &counters[..count], next_id }
    }
}

impl OneWay<'_> {
    /// Takes packets to their ends by `rewrite`, as long as they leave by this port.
    #[inline(always)]
    fn run<F: Frame, A: Fast, K: Tabled>(
        mut self,
        carriage: Carriage,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
        rewrite: impl Fn(&mut u16, &Way, &Sighted<A, K>, &mut F) -> Option<()>,
    ) -> Option<Stop> {
        let (all, places) = (*rest, burst.places_mut());
        let mut requests = all.before(lane.replies);
        let (mut late, mut stop) = (Live::default(), None);
        for slot in requests.by_ref() {
            let (known, Some(frame)) = (lane.request(slot), &mut places[slot]) else { continue };
            if self.carry(carriage, port, &known, frame, &rewrite).is_none() {
                if lane.look_elsewhere(slot, self.flows) {
                    late.keep(slot);
                    continue;
                }
                stop = Some(Stop::untried(slot));
                break;
            }
        }
        let mut replies = all.without(all.before(lane.replies));
        let stop = stop.or_else(|| replies.next().map(Stop::untried));
        *rest = replies.with(requests).with(late);
        stop.and_then(|stop| stop.after(late, rest))
    }

    /// Notes a packet in its flow and rewrites it; `None`, and no more has happened than that its flow was seen, for what
    /// does not go this way.
    #[inline(always)]
    fn carry<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        carriage: Carriage,
        port: PortId,
        known: &Sighted<A, K>,
        frame: &mut F,
        rewrite: impl Fn(&mut u16, &Way, &Sighted<A, K>, &mut F) -> Option<()>,
    ) -> Option<()> {
        let (place, flow) = known.key.get_in(self.flows, known.home)?;
        let backend = flow.backend().0 as usize;
        let way = self.ways.get(backend)?.as_ref().filter(|way| way.is_of::<A>())?;
        if way.carriage != carriage || way.exit.port != port || known.brief.len > way.exit.room {
            return None;
        }
        let course = (View::OneWay, false);
        touch::<K>(self.flows, self.context, known.brief.tcp_flags, way, course, (place, flow))?;
        rewrite(self.next_id, way, known, frame)?;
        let outer = if carriage == Carriage::Ipip { A::HEADER_LEN } else { 0 };
        // Padding ends here: the device adds its own where a frame needs it.
        frame.truncate(L3 + outer + usize::from(known.brief.len));
        let counters = &self.counters[backend];
        counters.in_packets.add(1);
        counters.in_bytes.add(u64::from(known.brief.len));
        Some(())
    }
}

/// Puts a packet into the tunnel to its backend.
#[inline(always)]
pub(super) fn wrap<F: Frame, A: Fast, K: Tabled>(
    next_id: &mut u16,
    way: &Way,
    known: &Sighted<A, K>,
    frame: &mut F,
) -> Option<()> {
    let entropy = known.hash.entropy();
    let src = way.near::<A>().with(entropy & way.spread);
    let outer = Outer { src, dst: way.backend(), entropy };
    let id = || {
        let id = *next_id;
        *next_id = id.wrapping_add(1);
        id
    };
    plain::ipip(frame, known.brief.len, &outer, id, &way.exit.link)
}

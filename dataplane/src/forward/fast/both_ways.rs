//! Packets of flows under NAT, of which half may be requests and half replies.
//!
//! Which one a packet is cannot be foretold in a burst of both, and a wrong guess costs more than all that is chosen
//! here without a jump.

use std::hint::select_unpredictable;

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live};
use super::carrier::Carrier;
use super::carry::touch;
use super::lane::Stop;
use super::{Fast, Lane, Sighted};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::flow::FlowValue;
use crate::flow::state::View;
use crate::flow::table::Place;
use crate::parse::plain::L3;
use crate::port::PortId;
use crate::rewrite::plain;
use crate::snapshot::{Carriage, Exit, Snapshot, Way};
use crate::stats::BackendCounters;

impl<F: Frame> Forwarder<F> {
    /// The same as [`Self::run`] for packets of flows under NAT. It stops at all others. `WAY` and `FOUND` are what [`way_of`]
    /// said.
    #[inline(never)]
    pub(super) fn run_nat<A: Fast, K: Tabled, const WAY: u8, const FOUND: bool>(
        &mut self,
        context: Context,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Stop> {
        let snapshot = context.snapshot;
        let usual = snapshot.exit_of_most::<A>();
        // Those of full NAT go another way.
        let others = if WAY == THERE { Live::default() } else { lane.local_replies };
        self.carrier(context).run((rest, others), port, lane, burst, |its, lane, slot, frame| {
            let found = if FOUND { snapshot.exit::<A>(lane.exit[slot]) } else { usual };
            let is_reply = goes_back::<WAY>(lane.replies, slot);
            its.carry_nat(&lane.request(slot), is_reply, found, frame)
        })
    }
}

impl Carrier<'_> {
    /// The same as [`Self::carry`] for a flow under NAT.
    #[inline(always)]
    fn carry_nat<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        is_reply: bool,
        found: &Exit,
        frame: &mut F,
    ) -> Option<PortId> {
        let flow = known.key.get_in(self.flows, known.home)?;
        let its = self.way::<A>(flow.1.backend())?;
        if its.0.carriage != Carriage::Nat {
            return None;
        }
        if A::IS_V4 {
            self.swap(known, (is_reply, found), its, flow, frame)
        } else {
            self.exchange(known, (is_reply, Some(found)), its, flow, frame)
        }
    }

    /// The same for IPv4, whose ends are both known.
    #[inline(always)]
    fn swap<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        (is_reply, found): (bool, &Exit),
        (way, counters): (&Way, &BackendCounters),
        flow: (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let brief = &known.brief;
        let front = frame.head_mut().first_chunk_mut()?;
        // No flow of another service has such an easy way.
        if way.service != known.key.service() || !way.swap(!is_reply).end.is_in(front, is_reply) {
            return None;
        }
        let view = if is_reply { View::Server } else { View::Client };
        touch::<K>(self.flows, self.context, brief.tcp_flags, way, (view, false), flow)?;
        let exit = select_unpredictable(is_reply, found, &way.exit);
        if brief.len > exit.room {
            return None;
        }
        way.swap(is_reply).put(front, brief.protocol(), is_reply, &exit.link);
        frame.truncate(L3 + usize::from(brief.len));
        counters.count(is_reply, brief.len);
        Some(exit.port)
    }

    /// The same for a reply whose flow and way are known.
    #[inline(never)]
    pub(super) fn carry_reply<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        its: (&Way, &BackendCounters),
        flow: (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        self.exchange(known, (true, None), its, flow, frame)
    }

    /// Gives a packet the backend's end instead of the service's, or the other way.
    #[inline(always)]
    fn exchange<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        (is_reply, found): (bool, Option<&Exit>),
        (way, counters): (&Way, &BackendCounters),
        (place, flow): (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let (snapshot, brief) = (self.context.snapshot, &known.brief);
        // No flow of another service has such an easy way.
        if way.service != known.key.service() {
            return None;
        }
        let head = frame.head_mut();
        let plain = &brief.plain::<A>(head)?;
        let (backend, vip) = (way.backend::<A>(), way.near::<A>());
        // Asked of both, for a question to replies alone would become a jump.
        let old = select_unpredictable(is_reply, plain.src, plain.dst);
        if old != select_unpredictable(is_reply, backend, vip) {
            return None;
        }
        let view = if is_reply { View::Server } else { View::Client };
        touch::<K>(self.flows, self.context, brief.tcp_flags, way, (view, false), (place, flow))?;
        let exit = match found {
            Some(found) => select_unpredictable(is_reply, found, &way.exit),
            None => snapshot.usual_exit(plain.dst).or_else(|| snapshot.exit_to(plain.dst))?,
        };
        if brief.len > exit.room {
            return None;
        }
        let end = (
            select_unpredictable(is_reply, vip, backend),
            select_unpredictable(is_reply, way.service_port, plain.dst_port.wrapping_add(way.port_shift)),
        );
        plain::exchange(head, brief.protocol(), is_reply, end, &exit.link)?;
        frame.truncate(L3 + usize::from(brief.len));
        counters.count(is_reply, brief.len);
        Some(exit.port)
    }
}

/// Some packets of a run are requests and some are replies.
pub(super) const EITHER: u8 = 0;
/// All are requests, as where clients and backends are at different ports: then nothing is chosen by which way one goes.
pub(super) const THERE: u8 = 1;
/// All are replies.
pub(super) const BACK: u8 = 2;

/// Whether a packet of a run that goes this `WAY` is one of the replies.
#[inline(always)]
pub(super) fn goes_back<const WAY: u8>(replies: Live, slot: usize) -> bool {
    match WAY {
        THERE => false,
        BACK => true,
        _ => replies.has(slot),
    }
}

/// Which way the packets of a lane go, and whether exits had to be found for replies.
#[inline(always)]
pub(super) fn way_of<A: Fast, K: Tabled>(
    snapshot: &Snapshot,
    live: Live,
    lane: &mut Lane<A, K>,
) -> (u8, bool) {
    let requests = live.without(lane.replies);
    if requests == live {
        return (THERE, false);
    }
    (if requests.is_empty() { BACK } else { EITHER }, find_exits(snapshot, live, lane))
}

/// Whether some replies do not go by the usual exit; then the exits to all their clients are found, which is a search for
/// each. In either case nothing jumps later by which way a packet goes.
#[inline(never)]
fn find_exits<A: Fast, K: Tabled>(snapshot: &Snapshot, live: Live, lane: &mut Lane<A, K>) -> bool {
    let replies = live.among(lane.replies);
    let has_other =
        replies.into_iter().any(|slot| snapshot.usual_exit(lane.key[slot].client_end::<A>().0).is_none());
    if has_other {
        for slot in replies {
            lane.exit[slot] = snapshot.exit_number(lane.key[slot].client_end::<A>().0);
        }
    }
    has_other
}

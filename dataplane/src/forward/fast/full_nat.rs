//! Packets of flows of full NAT, of which half may be requests and half replies.
//!
//! As in [`both_ways`](super::both_ways) nothing jumps by which one a packet is.

use std::hint::select_unpredictable;

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live};
use super::both_ways::{THERE, goes_back};
use super::carrier::Carrier;
use super::carry::touch;
use super::lane::Stop;
use super::{Fast, Lane, Sighted};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::flow::FlowValue;
use crate::flow::state::View;
use crate::flow::table::Place;
use crate::packet::Version;
use crate::parse::plain::L3;
use crate::port::PortId;
use crate::rewrite::plain::{self, Endpoint};
use crate::snapshot::{Carriage, Exit, Way};
use crate::stats::BackendCounters;

impl<F: Frame> Forwarder<F> {
    /// The same as [`Self::run`] for packets of flows of full NAT. It stops at all others. `WAY` and `FOUND` are what
    /// [`way_of`](super::both_ways::way_of) said.
    #[inline(never)]
    pub(super) fn run_full_nat<A: Fast, K: Tabled, const WAY: u8, const FOUND: bool>(
        &mut self,
        context: Context,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Stop> {
        let snapshot = context.snapshot;
        let usual = snapshot.exit_of_most::<A>();
        // Replies of NAT go another way.
        let others = if WAY == THERE { Live::default() } else { lane.replies.without(lane.local_replies) };
        self.carrier(context).run((rest, others), port, lane, burst, |its, lane, slot, frame| {
            let is_reply = goes_back::<WAY>(lane.local_replies, slot);
            let found = if FOUND { snapshot.exit::<A>(lane.exit[slot]) } else { usual };
            its.carry_full_nat(&lane.request(slot), (is_reply, found), frame)
        })
    }
}

impl Carrier<'_> {
    /// The same as [`Self::carry`] for a flow of full NAT.
    #[inline(always)]
    fn carry_full_nat<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        course: (bool, &Exit),
        frame: &mut F,
    ) -> Option<PortId> {
        let flow = known.key.get_in(self.flows, known.home)?;
        let its = self.way::<A>(flow.1.backend())?;
        if its.0.carriage != Carriage::FullNat {
            return None;
        }
        self.change_both(known, course, its, flow, frame)
    }

    /// The same for one whose flow and way are known.
    #[inline(always)]
    fn change_both<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        course: (bool, &Exit),
        its: (&Way, &BackendCounters),
        flow: (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        if A::IS_V4 {
            self.swap_both(known, course, its, flow, frame)
        } else {
            self.exchange_both(known, course, its, flow, frame)
        }
    }

    /// The same for a packet of IPv4 and a service with one port, whose end is swapped with the backend's as in
    /// [`both_ways`](super::both_ways): what is left is the client's end and the local one.
    #[inline(always)]
    fn swap_both<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        (is_reply, found): (bool, &Exit),
        (way, counters): (&Way, &BackendCounters),
        (place, flow): (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let (brief, local_port) = (&known.brief, K::local_port(self.flows, place));
        if way.service != known.key.service() {
            return None;
        }
        let (client, client_port) = known.key.client_end::<u32>();
        let client = Endpoint::new(client, client_port);
        let local = Endpoint::new(u32::of(self.context.snapshot.local_address(flow.local())?)?, local_port);
        let front = frame.head_mut().first_chunk_mut()?;
        // A request is from its client, by whom its flow was found. No jump, as in `exchange_both`.
        let is_for_other = is_reply & !local.is_in(front, false);
        if !way.swap(!is_reply).end.is_in(front, is_reply) || is_for_other {
            return None;
        }
        let view = if is_reply { View::Server } else { View::Client };
        touch::<K>(self.flows, self.context, brief.tcp_flags, way, (view, true), (place, flow))?;
        let exit = select_unpredictable(is_reply, found, &way.exit);
        if brief.len > exit.room {
            return None;
        }
        let far = Endpoint::either(is_reply, client, local);
        way.swap(is_reply).put_with(far, front, brief.protocol(), is_reply, &exit.link);
        frame.truncate(L3 + usize::from(brief.len));
        counters.count(is_reply, brief.len);
        Some(exit.port)
    }

    /// The same for a reply whose flow and way are known.
    #[inline(never)]
    pub(super) fn carry_local_reply<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        its: (&Way, &BackendCounters),
        flow: (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let client = known.key.client_end::<A>().0;
        let snapshot = self.context.snapshot;
        let exit = snapshot.usual_exit(client).or_else(|| snapshot.exit_to(client))?;
        self.change_both(known, (true, exit), its, flow, frame)
    }

    /// Gives a packet both ends of the other side.
    #[inline(always)]
    fn exchange_both<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        (is_reply, found): (bool, &Exit),
        (way, counters): (&Way, &BackendCounters),
        (place, flow): (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let (brief, local_port) = (&known.brief, K::local_port(self.flows, place));
        if way.service != known.key.service() {
            return None;
        }
        let address = A::of(self.context.snapshot.local_address(flow.local())?)?;
        let head = frame.head_mut();
        let plain = &brief.plain::<A>(head)?;
        let service_port = known.key.service_port();
        let backend = (way.backend::<A>(), service_port.wrapping_add(way.port_shift));
        let (vip, client) = (way.near::<A>(), known.key.client_end::<A>());
        // Asked of both, for a question to replies alone would become a jump: a request is its flow's by what it was found
        // by, a reply perhaps only by its local port.
        let from = (
            select_unpredictable(is_reply, backend.0, client.0),
            select_unpredictable(is_reply, backend.1, client.1),
        );
        let to = (
            select_unpredictable(is_reply, address, plain.dst),
            select_unpredictable(is_reply, local_port, service_port),
        );
        if (plain.src, plain.src_port) != from || (plain.dst, plain.dst_port) != to {
            return None;
        }
        let view = if is_reply { View::Server } else { View::Client };
        touch::<K>(self.flows, self.context, brief.tcp_flags, way, (view, true), (place, flow))?;
        let exit = select_unpredictable(is_reply, found, &way.exit);
        if brief.len > exit.room {
            return None;
        }
        let src = (
            select_unpredictable(is_reply, vip, address),
            select_unpredictable(is_reply, service_port, local_port),
        );
        let dst = (
            select_unpredictable(is_reply, client.0, backend.0),
            select_unpredictable(is_reply, client.1, backend.1),
        );
        plain::nat(head, brief.protocol(), Some(src), Some(dst), &exit.link)?;
        frame.truncate(L3 + usize::from(brief.len));
        counters.count(is_reply, brief.len);
        Some(exit.port)
    }
}

//! What the fast path does with one packet.

use super::super::Context;
use super::super::flows::{Flows, Tabled};
use super::carrier::Carrier;
use super::one_way::wrap;
use super::{End, Fast, Heading, Sighted};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::flow::FlowValue;
use crate::flow::state::View;
use crate::flow::table::Place;
use crate::local::LocalSlot;
use crate::parse::plain::{L3, Plain};
use crate::port::PortId;
use crate::rewrite::plain;
use crate::snapshot::{Carriage, Snapshot, Way};

impl Carrier<'_> {
    /// Notes a packet in its flow and rewrites it. Returns the port it leaves by; `None`, and no more has happened than
    /// that its flow was seen, if that is unknown, over or about to change, or the packet has no easy way.
    #[inline(always)]
    pub(super) fn carry<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        known: &Sighted<A, K>,
        (place, flow): (Place, FlowValue),
        frame: &mut F,
    ) -> Option<PortId> {
        let (way, counters) = self.way::<A>(flow.backend())?;
        let brief = &known.brief;
        match known.heading {
            Heading::Request => {
                let port = if flow.has_local() { K::local_port(self.flows, place) } else { 0 };
                let local = (flow.local(), port);
                let course = (way.view, way.carriage == Carriage::FullNat);
                touch::<K>(self.flows, self.context, brief.tcp_flags, way, course, (place, flow))?;
                let port = self.reach_backend(way, known, local, frame)?;
                counters.count_in(brief.len);
                Some(port)
            }
            Heading::Reply if way.carriage == Carriage::Nat => {
                self.carry_reply(known, (way, counters), (place, flow), frame)
            }
            Heading::Reply => None,
            Heading::LocalReply(_) if way.carriage == Carriage::FullNat => {
                self.carry_local_reply(known, (way, counters), (place, flow), frame)
            }
            Heading::LocalReply(_) => None,
        }
    }

    /// Rewrites a packet for its backend, which knows the client by `local` in full NAT.
    #[inline(always)]
    pub(super) fn reach_backend<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        way: &Way,
        known: &Sighted<A, K>,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Option<PortId> {
        let brief = &known.brief;
        if brief.len > way.exit.room {
            return None;
        }
        let mut len = L3 + usize::from(brief.len);
        // A match would become a jump by a table, which costs more than these questions.
        if way.carriage == Carriage::Dr {
            plain::dr::<A>(frame.head_mut(), &way.exit.link)?;
        } else if way.carriage == Carriage::Ipip {
            wrap(self.next_id, way, known, frame)?;
            len += A::HEADER_LEN;
        } else {
            let plain = &brief.plain::<A>(frame.head())?;
            let to = Some(backend(way, plain));
            if way.carriage == Carriage::Nat {
                plain::nat(frame.head_mut(), brief.protocol(), None, to, &way.exit.link)?;
            } else {
                let from = Some((A::of(self.context.snapshot.local_address(local.0)?)?, local.1));
                plain::nat(frame.head_mut(), brief.protocol(), from, to, &way.exit.link)?;
            }
        }
        // Padding ends here: the device adds its own where a frame needs it.
        frame.truncate(len);
        Some(way.exit.port)
    }
}

/// The backend's end of a client's packet.
#[inline(always)]
pub(super) fn backend<A: Fast>(way: &Way, plain: &Plain<A>) -> End<A> {
    (way.backend(), plain.dst_port.wrapping_add(way.port_shift))
}

/// Notes that a packet of a flow was seen; `None`, and nothing has happened, if that is over, or the packet does more, or
/// the flow began when its backend was reached otherwise and has a local port, or none.
#[inline(always)]
pub(super) fn touch<K: Tabled>(
    flows: &mut Flows,
    context: Context,
    tcp_flags: u8,
    way: &Way,
    (view, has_local): (View, bool),
    (place, flow): (Place, FlowValue),
) -> Option<()> {
    // Openings may find their flow over; they and their answers announce a segment size that may be lowered.
    flow.goes_on(view, tcp_flags, has_local).then_some(())?;
    let idle = flow.idle(context.now);
    if idle != 0 {
        if is_over(context.snapshot, way, flow, idle) {
            return None;
        }
        // Also if it then has no easy way: the stages would do the same.
        K::set(flows, place, flow.touched(context.now));
    }
    Some(())
}

/// Whether a flow was idle for too long.
#[inline(always)]
fn is_over(snapshot: &Snapshot, way: &Way, flow: FlowValue, idle: Seconds) -> bool {
    let longest = || snapshot.timeouts(way.timeouts).map_or(0, |its| its.of(flow.state()));
    idle > snapshot.shortest_timeout && idle > longest()
}

//! The shortest way of all: requests of flows whose replies go another way, to backends of one kind.

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live};
use super::carrier::Carrier;
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
        let (carrier, course) = (self.carrier(context), (Carriage::Dr, port));
        carrier.run((rest, lane.replies), port, lane, burst, |its, lane, slot, frame| {
            its.carry_one_way(course, &lane.request(slot), frame, |_, way, _, frame| {
                plain::dr::<A>(frame.head_mut(), &way.exit.link)
            })
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
        let (carrier, course) = (self.carrier(context), (Carriage::Ipip, port));
        carrier.run((rest, lane.replies), port, lane, burst, |its, lane, slot, frame| {
            its.carry_one_way(course, &lane.request(slot), frame, wrap)
        })
    }
}

impl Carrier<'_> {
    /// Notes a packet in its flow and rewrites it; `None`, and no more has happened than that its flow was seen, for what
    /// does not go this way.
    #[inline(always)]
    fn carry_one_way<F: Frame, A: Fast, K: Tabled>(
        &mut self,
        (carriage, port): (Carriage, PortId),
        known: &Sighted<A, K>,
        frame: &mut F,
        rewrite: impl Fn(&mut u16, &Way, &Sighted<A, K>, &mut F) -> Option<()>,
    ) -> Option<PortId> {
        let (place, flow) = known.key.get_in(self.flows, known.home)?;
        let (way, counters) = self.way::<A>(flow.backend())?;
        if way.carriage != carriage || way.exit.port != port || known.brief.len > way.exit.room {
            return None;
        }
        let course = (View::OneWay, false);
        touch::<K>(self.flows, self.context, known.brief.tcp_flags, way, course, (place, flow))?;
        rewrite(self.next_id, way, known, frame)?;
        let outer = if carriage == Carriage::Ipip { A::HEADER_LEN } else { 0 };
        // Padding ends here: the device adds its own where a frame needs it.
        frame.truncate(L3 + outer + usize::from(known.brief.len));
        counters.count_in(known.brief.len);
        Some(port)
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

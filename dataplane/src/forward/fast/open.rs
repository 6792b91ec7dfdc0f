//! What the fast path does with packets that begin, change or end a flow.

use config::words::Protocol;

use super::super::flows::{Tabled, worth};
use super::super::{Context, Forwarder, Outbox, Role, Work};
use super::{Fast, Heading, Sighted, opens};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::flow::FlowValue;
use crate::flow::state::{self, State, View};
use crate::flow::table::{Place, Worth};
use crate::local::LocalSlot;
use crate::parse::plain::Plain;
use crate::port::PortId;
use crate::snapshot::{BackendSlot, Carriage, Ease, Found, ServiceSlot, Snapshot};

/// Why the fast path did not open a flow and send its packet, whose frame is as it was.
#[derive(Clone, Copy)]
pub(super) enum Unopened {
    /// The packet has no easy way, or none any more: its flow is stored.
    Unasked,
    /// It has no easy way to the backend that the scheduler chose for it, which is to be asked no more.
    Chosen(BackendSlot),
    /// There is no place for its flow.
    Refused(DropReason),
}

impl<F: Frame> Forwarder<F> {
    /// Takes a packet to its end that changes or ends a flow, or has no easy way. Returns whether it could.
    #[inline(never)]
    pub(super) fn take_up<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        why: Unopened,
        slot: usize,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> bool {
        let chosen = if let Unopened::Chosen(backend) = why { Some(backend) } else { None };
        let Some(frame) = burst.get(slot) else { return false };
        let Some(mut work) = known.work(frame.head()) else { return false };
        let Some(frame) = burst.take(slot) else { return false };
        work.chosen = chosen;
        self.work_through(context, &mut work, frame, out);
        true
    }

    /// Takes one packet through the third and the fourth stage.
    #[inline(never)]
    fn work_through(&mut self, context: Context, work: &mut Work, frame: F, out: &mut Outbox<F>) {
        self.note_server(context, work, frame.head());
        match self.bind_one(context, work) {
            Ok(()) => self.deliver_one(context, work, frame, out),
            Err(why) => self.unbound(context, work, why, Some(frame), out),
        }
    }

    /// Chooses the backend of a client's first packet, stores the flow and rewrites the packet. Returns the port it
    /// leaves by.
    // Not within the loop over a lane, whose registers would not suffice.
    #[inline(never)]
    pub(super) fn open<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        frame: &mut F,
    ) -> Result<PortId, Unopened> {
        let snapshot = context.snapshot;
        // By `ok_or` its addresses would be stored, and loaded by pieces that lie across them, for which the processor waits.
        let Some(plain) = &known.brief.plain::<A>(frame.head()) else { return Err(Unopened::Unasked) };
        let begins =
            matches!(known.heading, Heading::Request) && (plain.protocol == Protocol::Udp || opens(plain));
        if !begins || !is_easy(snapshot, known.key.service(), plain) {
            return Err(Unopened::Unasked);
        }
        let service = snapshot.service(known.key.service()).ok_or(Unopened::Unasked)?;
        if !self.make_way(context, known, plain) {
            return Err(Unopened::Unasked);
        }
        if let Err(why) = self.ask_for_port(context, known.key.service(), service, plain.protocol) {
            return Err(Unopened::Refused(why));
        }
        let backend = self
            .schedulers
            .pick(context.now, known.key.service(), service, || plain.into())
            .ok_or(Unopened::Unasked)?;
        if snapshot.is_large() {
            self.variety.note_opening(backend);
        }
        let chosen = Unopened::Chosen(backend);
        let way = snapshot.way(backend).filter(|way| way.is_of::<A>()).ok_or(chosen)?;
        // The stages would take it for the second packet of a flow that is stored here.
        if plain.len > way.exit.room {
            return Err(chosen);
        }
        let mut locals: &[LocalSlot] = &[];
        let view = match way.carriage {
            Carriage::Dr | Carriage::Ipip => View::OneWay,
            Carriage::Nat => {
                if !way.replies_alone {
                    return Err(chosen);
                }
                View::Client
            }
            Carriage::FullNat => {
                locals = service.pool.and_then(|pool| snapshot.pool_of::<A>(pool)).unwrap_or_default();
                if locals.is_empty() {
                    return Err(chosen);
                }
                View::Client
            }
        };
        let state = match plain.protocol {
            Protocol::Tcp => state::next(State::None, view, plain.tcp_flags),
            Protocol::Udp => State::UdpNew,
        };
        let flow = FlowValue::new(backend, state, context.now);
        let of = (known.home, &known.hash);
        let mut local = (LocalSlot::default(), 0);
        if locals.is_empty() {
            known.key.store(&mut self.flows, context, of, flow).map_err(Unopened::Refused)?;
        } else {
            let stored = known.key.store_with_local(&mut self.flows, context, of, flow, locals);
            local = stored.map_err(Unopened::Refused)?;
        }
        // If it cannot be sent, the stages find its flow, as they would have stored it.
        let port = self.carrier(context).reach_backend(way, known, local, frame).ok_or(Unopened::Unasked)?;
        self.count_in(backend, plain.len);
        Ok(port)
    }

    /// Makes sure that there is no flow of this client and service: one that is over ends. Returns whether it could; else
    /// that goes on, or what becomes of it takes a closer look.
    #[inline(always)]
    fn make_way<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        plain: &Plain<A>,
    ) -> bool {
        match known.key.get(&self.flows, known.home, &known.hash) {
            None => true,
            Some((place, flow)) => self.unbind::<A, K>(context, plain, (place, flow)),
        }
    }

    /// Ends a flow that is over, so that a packet that begins another one takes its place: it has expired, or is
    /// closing. Returns whether it is.
    #[inline(never)]
    fn unbind<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        plain: &Plain<A>,
        (place, flow): (Place, FlowValue),
    ) -> bool {
        let way = context.snapshot.way(flow.backend());
        let is_closing = way.is_some_and(|way| flow.state().is_closing(way.view));
        let is_over = worth(context, flow) == Worth::Dead || (opens(plain) && is_closing);
        if is_over {
            self.flows.end(context, K::stored(place));
        }
        is_over
    }
}

impl<A: Fast, K: Tabled> Sighted<A, K> {
    /// What the first two stages make of the packet, whose frame begins with `head`; `None` if they would drop it.
    #[inline(never)]
    fn work(&self, head: &[u8]) -> Option<Work> {
        let service = self.key.service();
        let role = match self.heading {
            Heading::Request => Role::Request(Found { service, narrow: A::IS_V4 }),
            Heading::Reply => Role::Reply,
            Heading::LocalReply(local) => Role::LocalReply(local),
        };
        let plain = self.brief.plain::<A>(head)?;
        let headers = plain.headers(head).filter(|_| !A::is_martian(&plain))?;
        Some(Work { headers, role, hash: self.hash, ..Work::NONE })
    }
}

/// Whether a service takes this new flow of its clients without further questions, which are then all in one table.
#[inline(always)]
fn is_easy<A: Fast>(snapshot: &Snapshot, service: ServiceSlot, plain: &Plain<A>) -> bool {
    snapshot.ease(service) != Ease::Hard && !A::is_martian(plain) && !snapshot.is_local(plain.src)
}

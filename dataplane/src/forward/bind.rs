//! The third stage: the flow of each packet, found or made, and so its backend.

use config::words::{Mode, Protocol};

use super::{Batch, Context, Forwarder, Live, Role, Work};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::flow::state::{self, State, View};
use crate::flow::table::{FlowHash, Inserted, Place, Removed, Worth};
use crate::flow::{FlowKey, FlowValue};
use crate::parse::{Headers, Ipv4};
use crate::snapshot::{Backend, BackendSlot, ServiceSlot};
use crate::wire::tcp;

/// Backends tried for a new flow when replies of the chosen one would be ambiguous.
const AMBIGUITY_TRIES: usize = 4;

impl Forwarder {
    /// Third stage: binds each packet to a flow.
    pub(super) fn bind<F: Frame>(
        &mut self,
        context: Context,
        live: Live,
        batch: &mut Batch,
        burst: &mut Burst<F>,
    ) -> Live {
        let mut left = Live::default();
        for slot in live {
            let work = &mut batch[slot];
            let bound = match work.role {
                Role::Request(service) => {
                    self.bind_request(context, work, service).map(|backend| (service, backend))
                }
                Role::Reply => self.bind_reply(context, work),
            };
            match bound {
                Ok((service, backend)) => {
                    (work.service, work.backend) = (service, backend);
                    left.keep(slot);
                }
                Err(why) => self.drop(burst.take(slot), why),
            }
        }
        left
    }

    #[inline]
    fn bind_request(
        &mut self,
        context: Context,
        work: &Work,
        service: ServiceSlot,
    ) -> Result<BackendSlot, DropReason> {
        let key = FlowKey::new(work.headers.ip.src, work.headers.src_port, service);
        if let Some(place) = self.flows.find(work.hash, key) {
            let flow = self.flows.value(place);
            if let Some(backend) = context.snapshot.backend(flow.backend()) {
                let view = request_view(backend.mode);
                // A client that repeats its SYN because the backend died meanwhile finds another one, and so
                // does the next client of a port whose flow a dead backend never answered.
                let unanswered = flow.state().is_embryonic() && !backend.up;
                let reopens = opens(&work.headers) && (flow.state().is_closing(view) || unanswered);
                if !reopens && worth(context, flow) != Worth::Dead {
                    self.advance(context, place, flow, view, work.headers.tcp_flags);
                    return Ok(flow.backend());
                }
            }
            self.stats.expired.add(u64::from(worth(context, flow) == Worth::Dead));
            let ended = self.flows.remove(place);
            self.forget(ended);
        }
        self.schedule(context, work, key)
    }

    /// Chooses the backend of a new flow and stores it.
    #[cold]
    fn schedule(&mut self, context: Context, work: &Work, key: FlowKey) -> Result<BackendSlot, DropReason> {
        let service = context.snapshot.service(key.service()).ok_or(DropReason::NoService)?;
        if service.retired {
            return Err(DropReason::NoService);
        }
        if work.headers.protocol == Protocol::Tcp && !opens(&work.headers) {
            return Err(DropReason::NoFlowNotSyn);
        }
        for _ in 0..AMBIGUITY_TRIES {
            let slot = self.schedulers.pick(key.service(), service).ok_or(DropReason::NoBackend)?;
            let backend = context.snapshot.backend(slot).ok_or(DropReason::NoBackend)?;
            if backend.mode == Mode::Nat && !self.make_unambiguous(context, work, key, backend) {
                continue;
            }
            let state = match work.headers.protocol {
                Protocol::Tcp => state::next(State::None, request_view(backend.mode), work.headers.tcp_flags),
                Protocol::Udp => State::UdpNew,
            };
            return self.store(context, work.hash, key, FlowValue::new(slot, state, context.now));
        }
        Err(DropReason::ReplyAmbiguous)
    }

    /// Makes sure that replies of a NAT backend will belong to one flow only, although it also serves other
    /// services: the same client port may not use it through two of them at once. A flow that is closing
    /// gives way, as a connection in TIME_WAIT does to a new one.
    fn make_unambiguous(&mut self, context: Context, work: &Work, key: FlowKey, backend: &Backend) -> bool {
        let (address, port) = (backend.address.ip().to_bits(), backend.address.port());
        for &other in context.snapshot.replies_of(work.headers.protocol, address, port) {
            let sibling = FlowKey::new(key.client(), key.client_port(), other);
            if sibling == key {
                continue;
            }
            let Some(place) = self.flows.find(work.hash, sibling) else { continue };
            let flow = self.flows.value(place);
            let same =
                context.snapshot.backend(flow.backend()).is_some_and(|it| it.address == backend.address);
            if !same {
                continue;
            }
            let closing = flow.state().is_closing(View::Client)
                || matches!(flow.state(), State::FinWait | State::CloseWait | State::LastAck);
            if !closing && worth(context, flow) != Worth::Dead {
                return false;
            }
            self.stats.expired.add(u64::from(worth(context, flow) == Worth::Dead));
            let ended = self.flows.remove(place);
            self.forget(ended);
        }
        true
    }

    fn store(
        &mut self,
        context: Context,
        hash: FlowHash,
        key: FlowKey,
        flow: FlowValue,
    ) -> Result<BackendSlot, DropReason> {
        match self.flows.insert(hash, key, flow, |flow| worth(context, flow)) {
            Inserted::Placed(_) => {}
            Inserted::Replaced(_, dead) => {
                self.stats.expired.add(1);
                self.forget(dead);
            }
            Inserted::Evicted(_, evicted) => {
                self.stats.evicted.add(1);
                self.forget(evicted);
            }
            Inserted::Full => return Err(DropReason::FlowTableFull),
        }
        let counters = self.stats.backend(flow.backend());
        counters.conns.add(1);
        counters.flows.add(1);
        counters.active.add(u64::from(flow.state().is_active()));
        Ok(flow.backend())
    }

    #[inline]
    fn bind_reply(
        &mut self,
        context: Context,
        work: &Work,
    ) -> Result<(ServiceSlot, BackendSlot), DropReason> {
        let Headers { ip: Ipv4 { src, dst, .. }, src_port, dst_port, protocol, tcp_flags } = work.headers;
        for &service in context.snapshot.replies_of(protocol, src, src_port) {
            let Some(place) = self.flows.find(work.hash, FlowKey::new(dst, dst_port, service)) else {
                continue;
            };
            let flow = self.flows.value(place);
            let from_it = |backend: &Backend| {
                backend.address.ip().to_bits() == src
                    && backend.address.port() == src_port
                    && backend.mode == Mode::Nat
            };
            if context.snapshot.backend(flow.backend()).is_some_and(from_it)
                && worth(context, flow) != Worth::Dead
            {
                self.advance(context, place, flow, View::Server, tcp_flags);
                return Ok((service, flow.backend()));
            }
        }
        Err(DropReason::NoFlow)
    }

    /// Notes a packet in its flow.
    #[inline(always)]
    fn advance(&mut self, context: Context, place: Place, flow: FlowValue, view: View, tcp_flags: u8) {
        let next = state::next(flow.state(), view, tcp_flags);
        if next != flow.state() {
            self.count_transition(flow, next);
        }
        self.flows.set(place, flow.seen(next, context.now));
    }

    fn count_transition(&self, flow: FlowValue, next: State) {
        let counters = self.stats.backend(flow.backend());
        match (flow.state().is_active(), next.is_active()) {
            (true, false) => counters.active.sub(1),
            (false, true) => counters.active.add(1),
            _ => {}
        }
    }

    /// Takes a flow that left the table out of its backend's gauges.
    fn forget(&self, (_, flow): Removed) {
        let counters = self.stats.backend(flow.backend());
        counters.active.sub(u64::from(flow.state().is_active()));
        counters.flows.sub(1);
    }

    /// Takes dead flows out of a few lines; a bounded piece of work for a housekeeping turn.
    pub fn sweep(&mut self, context: Context, lines: usize) {
        let mut ended = [const { None }; 64];
        let mut count = 0;
        // Four flows a line at most.
        let lines = lines.min(ended.len() / 4);
        self.flows.sweep(
            lines,
            |flow| worth(context, flow),
            |removed| {
                ended[count] = Some(removed);
                count += 1;
            },
        );
        for removed in ended.into_iter().flatten() {
            self.forget(removed);
        }
        self.stats.expired.add(count as u64);
        self.stats.flows.set(self.flows.len() as u64);
    }
}

/// Which packets are seen of flows that go to their backends in this mode.
#[inline]
fn request_view(mode: Mode) -> View {
    match mode {
        Mode::Nat => View::Client,
        Mode::Dr | Mode::Tunnel => View::OneWay,
    }
}

/// Whether a TCP packet opens a connection.
#[inline]
fn opens(headers: &Headers) -> bool {
    headers.protocol == Protocol::Tcp && headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

#[inline]
pub(super) fn worth(context: Context, flow: FlowValue) -> Worth {
    let idle = flow.idle(context.now);
    if idle > context.snapshot.parts.timeouts.of(flow.state()) {
        Worth::Dead
    } else if flow.state().is_embryonic() {
        Worth::Embryonic { idle }
    } else {
        Worth::Live
    }
}

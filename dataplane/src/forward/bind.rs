//! The third stage: the flow of each packet, found or made, and so its backend.

use config::words::{Fate, Mode, NoFlow, Protocol, Scheduler};

use super::flows::{Stored, Tabled as _, wide_address, worth};
use super::limits::Admission;
use super::local::host_of;
use super::{Batch, Context, Forwarder, Live, Outbox, PuntReason, Role, Target, Work};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::flow::state::{self, State, View};
use crate::flow::table::Worth;
use crate::flow::{FlowKey, FlowValue, WideKey};
use crate::local::LocalSlot;
use crate::packet::{Addresses, Headers};
use crate::snapshot::{Backend, BackendSlot, Ease, Found, Gateway, Service, ServiceSlot};
use crate::wire::tcp;

/// Backends tried for a new flow when replies of the chosen one would be ambiguous.
const AMBIGUITY_TRIES: usize = 4;

/// In place of services in the keys of flows that NAT gateways keep, by protocol.
const OUTWARD_TCP: ServiceSlot = ServiceSlot(u16::MAX);
const OUTWARD_UDP: ServiceSlot = ServiceSlot(u16::MAX - 1);
/// The same of echo requests: flows of UDP whose ports are the identifiers (RFC 5508, 3.1).
pub(super) const OUTWARD_ECHO: ServiceSlot = ServiceSlot(u16::MAX - 2);
/// Service slots that workers keep for themselves, the highest ones.
pub const RESERVED_SERVICES: usize = 3;

/// Whether a flow with this in place of a service is one that a NAT gateway keeps.
#[inline]
pub(super) fn is_outward(service: ServiceSlot) -> bool {
    usize::from(service.0) > usize::from(u16::MAX) - RESERVED_SERVICES
}

impl<F: Frame> Forwarder<F> {
    /// Third stage: binds each packet to a flow.
    pub(super) fn bind(
        &mut self,
        context: Context,
        live: Live,
        batch: &mut Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> Live {
        let mut left = Live::default();
        for slot in live {
            let work = &mut batch[slot];
            let head = burst.get(slot).map(F::head).unwrap_or_default();
            self.note_server(context, work, head);
            match self.bind_one(context, work) {
                Ok(()) => left.keep(slot),
                Err(why) => self.unbound(context, work, why, burst.take(slot), out),
            }
        }
        left
    }

    /// Binds one packet to a flow.
    #[inline]
    pub(super) fn bind_one(&mut self, context: Context, work: &mut Work) -> Result<(), DropReason> {
        match work.role {
            Role::Request(found) => {
                self.police(context, work, found)?;
                self.bind_request(context, work, found)
            }
            Role::Reply => self.bind_reply(context, work),
            Role::LocalReply(local) => self.bind_local_reply(context, work, local),
            Role::Outward(gateway) => self.bind_outward(context, work, gateway),
            Role::Inward => {
                work.target = Target::Onward;
                Ok(())
            }
        }
    }

    /// Ends a packet that found no flow and got none.
    #[cold]
    pub(super) fn unbound(
        &mut self,
        context: Context,
        work: &Work,
        why: DropReason,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        match (why, work.target) {
            (DropReason::NoFlow, _) => self.take_flowless(context, work, frame, out),
            (DropReason::FlowReset, Target::Over(stored)) => self.reset(context, work, stored, frame, out),
            _ => self.refuse(context, work, why, frame, out),
        }
    }

    /// What a backend or a host inside sends without a flow: the kernel asked for it, or nobody did.
    fn take_flowless(&mut self, context: Context, work: &Work, frame: Option<F>, out: &mut Outbox<F>) {
        match host_of(context.snapshot, work.headers.ip.addresses.dst()) {
            Some(own) => self.punt(frame, PuntReason::Host(own), out),
            None => self.refuse(context, work, DropReason::NoFlow, frame, out),
        }
    }

    #[inline]
    fn bind_request(&mut self, context: Context, work: &mut Work, found: Found) -> Result<(), DropReason> {
        let ports = (work.headers.src_port, work.headers.dst_port);
        let stored = self.flows.find(work.hash, work.headers.ip.addresses, true, ports, found);
        if let Some(stored) = stored {
            let flow = self.flows.value(stored);
            if let Some(backend) = context.snapshot.backend(flow.backend()) {
                let view = request_view(backend.mode);
                // A client that repeats its SYN because the backend died meanwhile finds another one, and so
                // does the next client of a port whose flow a dead backend never answered.
                let unanswered = flow.state().is_embryonic() && !backend.up;
                let over = flow.state().is_closing(view) || unanswered || backend.fate != Fate::Keep;
                let reopens = opens(&work.headers) && over;
                if !reopens && worth(context, flow) != Worth::Dead {
                    if backend.fate != Fate::Keep {
                        return self.bind_fated(context, work, found, stored, backend.fate);
                    }
                    self.flows.advance(context, stored, flow, view, &work.headers);
                    (work.service, work.backend) = (found.service, flow.backend());
                    self.note_repeated_syn(context, work);
                    work.target = self.backend_target(stored);
                    return Ok(());
                }
            }
            self.flows.end(context, stored);
        }
        self.schedule(context, work, found, false)
    }

    /// A client's packet of a flow whose backend is down, disabled or drained for long enough.
    #[cold]
    fn bind_fated(
        &mut self,
        context: Context,
        work: &mut Work,
        found: Found,
        stored: Stored,
        fate: Fate,
    ) -> Result<(), DropReason> {
        if fate == Fate::Reset {
            return self.bind_over(work, stored);
        }
        self.flows.end(context, stored);
        self.schedule(context, work, found, true)
    }

    /// A packet of a flow that is over.
    #[cold]
    fn bind_over(&self, work: &mut Work, stored: Stored) -> Result<(), DropReason> {
        (work.service, work.backend) = (self.flows.owner(stored).service, self.flows.value(stored).backend());
        work.target = Target::Over(stored);
        Err(DropReason::FlowReset)
    }

    #[inline]
    pub(super) fn backend_target(&self, stored: Stored) -> Target {
        match self.flows.local(stored) {
            None => Target::Backend,
            Some((local, port)) => Target::BackendFrom(local, port),
        }
    }

    /// Chooses the backend of a new flow and stores it. One that `moves` from a backend to another may be in its
    /// middle.
    #[cold]
    fn schedule(
        &mut self,
        context: Context,
        work: &mut Work,
        found: Found,
        moves: bool,
    ) -> Result<(), DropReason> {
        let retired =
            |found: &Found| context.snapshot.service(found.service).is_none_or(|service| service.retired);
        // What a removed service does not take any more may be for a wider one.
        let found = match Some(found).filter(|found| !retired(found)) {
            Some(found) => found,
            None => {
                let open = context.snapshot.open_service_for(&work.headers, work.tags);
                open.ok_or(DropReason::NoService)?
            }
        };
        let service = context.snapshot.service(found.service).ok_or(DropReason::NoService)?;
        work.service = found.service;
        // Nobody else has an address of ours. Flows need not be asked: they begin here.
        if context.snapshot.local(work.headers.ip.addresses.src()).is_some() {
            return Err(DropReason::MartianAddress);
        }
        if work.headers.protocol == Protocol::Tcp
            && !opens(&work.headers)
            && !moves
            && !takes_up(service, &work.headers)
        {
            return Err(DropReason::NoFlowNotSyn);
        }
        let (mut first, _admitted) = match self.admit(service, &work.headers)? {
            Admission::Sorry(chosen) => (Some(chosen), None),
            Admission::Within(admitted) => {
                (work.chosen.and_then(|slot| self.team.claim(service, slot)), admitted)
            }
        };
        if first.is_none() {
            self.ask_for_port(context, found.service, service, work.headers.protocol)?;
        }
        for _ in 0..AMBIGUITY_TRIES {
            let chosen = first.take().or_else(|| self.choose(context, found, service, &work.headers));
            let chosen = chosen.or_else(|| self.overflow(service)).ok_or(DropReason::NoBackend)?;
            let begun = self.begin(context, work, found, service, chosen.backend);
            // The flow counts, or does not begin; as what was admitted.
            self.team.release(chosen);
            if begun != Err(DropReason::ReplyAmbiguous) {
                return begun;
            }
        }
        Err(DropReason::ReplyAmbiguous)
    }

    /// Refuses a new flow at once, before a backend is chosen for it, if none can have it for want of a local port.
    ///
    /// # Errors
    /// [`DropReason::LocalPortsExhausted`].
    #[inline]
    pub(super) fn ask_for_port(
        &self,
        context: Context,
        slot: ServiceSlot,
        service: &Service,
        protocol: Protocol,
    ) -> Result<(), DropReason> {
        if !self.flows.is_any_spent() || context.snapshot.ease(slot) != Ease::LocalPort {
            return Ok(());
        }
        let locals = service.pool.and_then(|pool| context.snapshot.pool(pool, service.key.address));
        match self.flows.are_spent(locals.unwrap_or_default(), protocol) {
            true => Err(self.flows.without_port()),
            false => Ok(()),
        }
    }

    /// Begins a flow on a backend.
    fn begin(
        &mut self,
        context: Context,
        work: &mut Work,
        found: Found,
        service: &Service,
        slot: BackendSlot,
    ) -> Result<(), DropReason> {
        let backend = context.snapshot.backend(slot).ok_or(DropReason::NoBackend)?;
        work.backend = slot;
        if service.one_packet && backend.mode != Mode::FullNat {
            work.target = Target::Backend;
            return Ok(());
        }
        if backend.mode == Mode::Nat && !self.make_unambiguous(context, work, backend) {
            return Err(DropReason::ReplyAmbiguous);
        }
        let stored = self.store(context, work, found, service, backend)?;
        if service.is_limited {
            self.team.began(service, slot);
        }
        if service.scheduler == Scheduler::Fastest && opens(&work.headers) {
            self.note_first_syn(work);
        }
        work.target = self.backend_target(stored);
        Ok(())
    }

    /// Stores the flow of a packet for which a backend is chosen.
    fn store(
        &mut self,
        context: Context,
        work: &Work,
        found: Found,
        service: &Service,
        backend: &Backend,
    ) -> Result<Stored, DropReason> {
        let headers = &work.headers;
        let state = match headers.protocol {
            Protocol::Tcp => state::next(State::None, request_view(backend.mode), headers.tcp_flags),
            Protocol::Udp => State::UdpNew,
        };
        let flow = FlowValue::new(work.backend, state, context.now);
        let locals = match backend.mode {
            Mode::FullNat => {
                let pool = service.pool.and_then(|pool| context.snapshot.pool(pool, backend.address.ip()));
                pool.filter(|locals| !locals.is_empty()).ok_or(DropReason::LocalPortsExhausted)?
            }
            _ => &[],
        };
        if let Addresses::V4 { src, .. } = headers.ip.addresses
            && found.narrow
        {
            let key = FlowKey::new(src, headers.src_port, found.service);
            let stored = self.flows.store_narrow(context, key.line(work.hash), key, flow, locals);
            return stored.map(Stored::Narrow);
        }
        let client = wide_address(headers.ip.addresses.src());
        let key = WideKey::new(client, headers.src_port, found.service, headers.dst_port);
        self.flows.store_wide(context, key.line(work.hash), key, flow, locals).map(Stored::Wide)
    }

    /// Makes sure that replies of a NAT backend will belong to one flow only, although it also serves other
    /// services: the same client port may not use it through two of them at once. A flow that is closing
    /// gives way, as a connection in TIME_WAIT does to a new one.
    fn make_unambiguous(&mut self, context: Context, work: &Work, backend: &Backend) -> bool {
        let headers = &work.headers;
        let port = headers.dst_port.wrapping_add(backend.port_shift);
        let repliers = context.snapshot.replies_of(headers.protocol, backend.address.ip(), port);
        for (other, other_port) in repliers.iter() {
            if (other.service, other_port) == (work.service, headers.dst_port) {
                continue;
            }
            let ports = (headers.src_port, other_port);
            let Some(stored) = self.flows.find(work.hash, headers.ip.addresses, true, ports, other) else {
                continue;
            };
            let flow = self.flows.value(stored);
            let its = context.snapshot.backend(flow.backend());
            let same = its.is_some_and(|it| it.mode == Mode::Nat && it.address.ip() == backend.address.ip());
            if !same {
                continue;
            }
            let closing = flow.state().is_closing(View::Client)
                || matches!(flow.state(), State::FinWait | State::CloseWait | State::LastAck);
            if !closing && worth(context, flow) != Worth::Dead {
                return false;
            }
            self.flows.end(context, stored);
        }
        true
    }

    #[inline]
    fn bind_reply(&mut self, context: Context, work: &mut Work) -> Result<(), DropReason> {
        let headers = &work.headers;
        for (found, port) in context.snapshot.replies_by(headers).iter() {
            let ports = (headers.dst_port, port);
            let Some(stored) = self.flows.find(work.hash, headers.ip.addresses, false, ports, found) else {
                continue;
            };
            let flow = self.flows.value(stored);
            let from_it = |backend: &Backend| {
                backend.mode == Mode::Nat && backend.address.ip() == headers.ip.addresses.src()
            };
            let backend = context.snapshot.backend(flow.backend()).filter(|backend| from_it(backend));
            if let Some(backend) = backend
                && worth(context, flow) != Worth::Dead
            {
                if backend.fate == Fate::Reset {
                    return self.bind_over(work, stored);
                }
                self.flows.advance(context, stored, flow, View::Server, headers);
                (work.service, work.backend) = (found.service, flow.backend());
                self.note_syn_ack(context, work, |_| work.hash, port);
                work.target = Target::Client { from: port };
                return Ok(());
            }
        }
        self.bind_flowless_reply(context, work)
    }

    /// A reply of a service that keeps no flows belongs to the first such service that its sender serves.
    #[cold]
    fn bind_flowless_reply(&mut self, context: Context, work: &mut Work) -> Result<(), DropReason> {
        let headers = &work.headers;
        let flowless = context.snapshot.replies_by(headers).iter().find_map(|(found, port)| {
            let service = context.snapshot.service(found.service).filter(|service| service.one_packet)?;
            let from = |candidate: &BackendSlot| {
                let backend = context.snapshot.backend(*candidate);
                backend
                    .is_some_and(|it| it.mode == Mode::Nat && it.address.ip() == headers.ip.addresses.src())
            };
            let backend = service.candidates.iter().map(|candidate| candidate.backend).find(from)?;
            Some((found.service, backend, port))
        });
        let (service, backend, from) = flowless.ok_or(DropReason::NoFlow)?;
        (work.service, work.backend, work.target) = (service, backend, Target::Client { from });
        Ok(())
    }

    /// A packet for a local address belongs to the flow that its port was taken for.
    pub(super) fn bind_local_reply(
        &mut self,
        context: Context,
        work: &mut Work,
        local: LocalSlot,
    ) -> Result<(), DropReason> {
        let headers = &work.headers;
        let stored = self.flows.find_local(local, headers.protocol, headers.dst_port);
        let stored = stored.ok_or(DropReason::NoFlow)?;
        let flow = self.flows.value(stored);
        let owner = self.flows.owner(stored);
        if worth(context, flow) == Worth::Dead {
            return Err(DropReason::NoFlow);
        }
        work.target = if flow.backend() == BackendSlot::NONE {
            // The port of an echo request takes no UDP, nor the other way round.
            if (owner.service == OUTWARD_ECHO) != headers.ip.is_icmp() {
                return Err(DropReason::NoFlow);
            }
            Target::Inside { station: owner.client, port: owner.client_port }
        } else {
            let from = context.snapshot.port_of(&owner).unwrap_or_default();
            let backend = context.snapshot.backend(flow.backend()).ok_or(DropReason::NoFlow)?;
            let its = (backend.address.ip(), from.wrapping_add(backend.port_shift));
            if its != (headers.ip.addresses.src(), headers.src_port) {
                return Err(DropReason::NoFlow);
            }
            if backend.fate == Fate::Reset {
                return self.bind_over(work, stored);
            }
            Target::ClientAt { client: owner.client, port: owner.client_port, from }
        };
        (work.service, work.backend) = (owner.service, flow.backend());
        self.flows.advance(context, stored, flow, View::Server, &work.headers);
        if let Some(port) = context.snapshot.port_of(&owner) {
            let client = |it: &Self| it.flows.hash(owner.client, owner.client_port);
            self.note_syn_ack(context, work, client, port);
        }
        Ok(())
    }

    /// A packet that leaves an inside network keeps its addresses or gets one of the gateway's pool: the same
    /// one and the same port for all that its sender sends from a port (RFC 4787, REQ-1).
    pub(super) fn bind_outward(
        &mut self,
        context: Context,
        work: &mut Work,
        gateway: Gateway,
    ) -> Result<(), DropReason> {
        let headers = &work.headers;
        work.backend = BackendSlot::NONE;
        let Some(pool) = gateway.pool else {
            work.target = Target::Onward;
            return Ok(());
        };
        let service = match headers.protocol {
            Protocol::Tcp => OUTWARD_TCP,
            Protocol::Udp if headers.ip.is_icmp() => OUTWARD_ECHO,
            Protocol::Udp => OUTWARD_UDP,
        };
        work.service = service;
        let ports = (headers.src_port, 0);
        let found = Found { service, narrow: false };
        let known = self.flows.find(work.hash, headers.ip.addresses, true, ports, found);
        let stored = match known.filter(|stored| worth(context, self.flows.value(*stored)) != Worth::Dead) {
            Some(stored) => {
                let flow = self.flows.value(stored);
                self.flows.advance(context, stored, flow, View::Client, headers);
                stored
            }
            None => {
                known.into_iter().for_each(|stored| self.flows.end(context, stored));
                let locals = context.snapshot.pool(pool, headers.ip.addresses.src());
                let locals =
                    locals.filter(|locals| !locals.is_empty()).ok_or(DropReason::LocalPortsExhausted)?;
                self.store_outward(context, work, locals)?
            }
        };
        let (local, port) = self.flows.local(stored).ok_or(DropReason::LocalPortsExhausted)?;
        work.target = Target::OnwardFrom(local, port);
        Ok(())
    }

    fn store_outward(
        &mut self,
        context: Context,
        work: &Work,
        locals: &[LocalSlot],
    ) -> Result<Stored, DropReason> {
        let headers = &work.headers;
        let state = match headers.protocol {
            Protocol::Tcp if !opens(headers) => return Err(DropReason::NoFlowNotSyn),
            Protocol::Tcp => State::SynRecv,
            Protocol::Udp => State::UdpNew,
        };
        let key = WideKey::new(wide_address(headers.ip.addresses.src()), headers.src_port, work.service, 0);
        let flow = FlowValue::new(BackendSlot::NONE, state, context.now);
        let line = work.hash.with_service(work.service, 0);
        self.flows.store_wide(context, line, key, flow, locals).map(Stored::Wide)
    }
}

/// Which packets are seen of flows that go to their backends in this mode.
#[inline]
fn request_view(mode: Mode) -> View {
    match mode {
        Mode::Nat | Mode::FullNat => View::Client,
        Mode::Dr | Mode::Tunnel => View::OneWay,
    }
}

/// Whether a segment of a connection that began elsewhere may go on here.
fn takes_up(service: &Service, headers: &Headers) -> bool {
    service.no_flow == NoFlow::Schedule && headers.tcp_flags & tcp::RST == 0
}

/// Whether a TCP packet opens a connection.
#[inline]
pub(super) fn opens(headers: &Headers) -> bool {
    headers.protocol == Protocol::Tcp && headers.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

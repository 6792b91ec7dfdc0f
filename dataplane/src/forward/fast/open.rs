//! What the fast path does with the first packet of a flow.

use config::words::Protocol;

use super::super::flows::Tabled;
use super::super::{Context, Forwarder};
use super::carry::backend as backend_of;
use super::{Fast, Heading, Sighted, opens};
use crate::buf::Frame;
use crate::flow::FlowValue;
use crate::flow::state::{self, State, View};
use crate::local::LocalSlot;
use crate::port::PortId;
use crate::snapshot::{BackendSlot, Carriage, Service, Snapshot};

impl<F: Frame> Forwarder<F> {
    /// Chooses the backend of a client's first packet, stores the flow and rewrites the packet. Returns the port it
    /// leaves by.
    ///
    /// # Errors
    /// The packet has no easy way, and its frame is as it was. If a backend is given, the scheduler chose it for
    /// this flow, and it is to be asked no more.
    #[inline(always)]
    pub(super) fn open<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        frame: &mut F,
    ) -> Result<PortId, Option<BackendSlot>> {
        let (snapshot, plain) = (context.snapshot, &known.plain);
        let begins = matches!(known.heading, Heading::Request)
            && (plain.protocol == Protocol::Udp || opens(plain))
            && known.key.get(&self.flows, known.line).is_none();
        let service = snapshot.service(known.key.service());
        let Some(service) = service.filter(|service| begins && is_easy(snapshot, service, known)) else {
            return Err(None);
        };
        let backend = self.schedulers.pick(known.key.service(), service).ok_or(None)?;
        let way = snapshot.way(backend).filter(|way| way.is_of::<A>()).ok_or(Some(backend))?;
        let view = match way.carriage {
            Carriage::Dr | Carriage::Ipip => View::OneWay,
            Carriage::Nat => {
                if !snapshot.replies_for_one(plain.protocol, backend_of(way, plain)) {
                    return Err(Some(backend));
                }
                View::Client
            }
            Carriage::FullNat => return Err(Some(backend)),
        };
        let state = match plain.protocol {
            Protocol::Tcp => state::next(State::None, view, plain.tcp_flags),
            Protocol::Udp => State::UdpNew,
        };
        let flow = FlowValue::new(backend, state, context.now);
        known.key.store(&mut self.flows, context, known.line, flow).map_err(|_| Some(backend))?;
        // If it cannot be sent, the stages find its flow, as they would have stored it.
        let port = self.reach_backend(snapshot, way, known, (LocalSlot(0), 0), frame).ok_or(None)?;
        self.count_in(backend, plain.len);
        Ok(port)
    }
}

/// Whether a service takes this new flow of its clients without further questions, which are then all in one table.
#[inline(always)]
fn is_easy<A: Fast, K: Tabled>(snapshot: &Snapshot, service: &Service, known: &Sighted<A, K>) -> bool {
    let plain = &known.plain;
    let is_plain = !service.retired && !service.one_packet && service.pool.is_none();
    is_plain
        && (service.mss.is_none() || plain.protocol == Protocol::Udp)
        && !A::is_martian(plain)
        && !snapshot.is_local(plain.src)
}

//! QUIC: a new flow may be a connection's that was there before, from another address.

use super::{Context, Forwarder, Role, Work};
use crate::buf::Frame;
use crate::schedule::Plan;
use crate::wire::udp;

impl<F: Frame> Forwarder<F> {
    /// Notes the backend that a packet's connection ID names, for the flow that it may begin. `head` is the beginning
    /// of its frame.
    #[inline]
    pub(super) fn note_server(&self, context: Context, work: &mut Work, head: &[u8]) {
        if !context.snapshot.uses.quic {
            return;
        }
        let Role::Request(found) = work.role else { return };
        let Some(service) = context.snapshot.service(found.service) else { return };
        let Plan::Quic(servers, _) = &*service.plan else { return };
        let datagram = head.get(usize::from(work.headers.ip.l4) + udp::HEADER_LEN..).unwrap_or_default();
        // Ethernet's padding is none of it.
        let end = usize::from(work.headers.ip.l3) + usize::from(work.headers.ip.len);
        let room = end.saturating_sub(usize::from(work.headers.ip.l4) + udp::HEADER_LEN);
        let datagram = &datagram[..datagram.len().min(room)];
        if work.headers.has_transport() {
            // Servers that are down, drained or disabled have their numbers still.
            let candidate = |slot| service.candidates.iter().find(|candidate| candidate.backend == slot);
            let takes = |slot| candidate(slot).is_some_and(|it| self.team.has_room(service, it));
            work.chosen = servers.pick(datagram, takes);
        }
    }
}

//! How long backends take to answer a SYN, for the scheduler that asks.

use super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::flow::table::FlowHash;
use crate::schedule::fastest::Opened;
use crate::wire::tcp;
use config::words::Scheduler;

impl<F: Frame> Forwarder<F> {
    /// A client's first SYN is passed on to the backend that was chosen for it.
    pub(super) fn note_first_syn(&mut self, work: &Work) {
        let now = self.handshakes.now();
        self.handshakes.begin(of_request(work), now);
    }

    /// A client's packet of a known flow. A SYN that is repeated tells that its backend has not answered for so long:
    /// else one that never does would count as it did before.
    #[inline]
    pub(super) fn note_repeated_syn(&mut self, context: Context, work: &Work) {
        if is_timed(context, work, tcp::SYN) {
            let now = self.handshakes.now();
            let waited = self.handshakes.waited(of_request(work), now);
            waited.into_iter().for_each(|nanos| self.team.times.note(work.backend, nanos));
        }
    }

    /// A backend's packet to a client that asked for this port of the service.
    #[inline]
    pub(super) fn note_syn_ack(
        &mut self,
        context: Context,
        work: &Work,
        client: impl Fn(&Self) -> FlowHash,
        port: u16,
    ) {
        if is_timed(context, work, tcp::SYN | tcp::ACK) {
            let (connection, now) = (Opened::new(client(self), work.service, port), self.handshakes.now());
            let waited = self.handshakes.end(connection, now);
            waited.into_iter().for_each(|nanos| self.team.times.note(work.backend, nanos));
        }
    }
}

fn of_request(work: &Work) -> Opened {
    Opened::new(work.hash, work.service, work.headers.dst_port)
}

/// Whether a packet has these of the flags that tell its place in a handshake, and is of a service whose handshakes are
/// timed.
#[inline]
fn is_timed(context: Context, work: &Work, flags: u8) -> bool {
    let is_it = || work.headers.tcp_flags & (tcp::SYN | tcp::ACK | tcp::RST) == flags;
    let service = || context.snapshot.service(work.service);
    context.snapshot.uses.fastest
        && is_it()
        && service().is_some_and(|service| service.scheduler == Scheduler::Fastest)
}

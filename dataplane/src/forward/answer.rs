//! What we tell senders: why a packet goes no further.

use config::words::{AtLimit, NoBackend, NoFlow, Protocol};

use super::deliver::longest;
use super::{Context, Forwarder, Outbox, Target, Work};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::rewrite::answer::{self, Cause};
use crate::snapshot::{Egress, Snapshot};
use crate::wire::ipv6;

/// How many packets were made of others in this second.
#[derive(Debug, Default)]
pub(super) struct Budget {
    second: Seconds,
    spent: u32,
}

impl Budget {
    /// Whether one more may be made (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f).
    pub(super) fn take(&mut self, context: Context) -> bool {
        if self.second != context.now {
            *self = Self { second: context.now, spent: 0 };
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= context.snapshot.parts.icmp_rate
    }
}

/// How a packet is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// By an ICMP error.
    Error(Cause),
    /// By a TCP reset.
    Reset,
}

impl<F: Frame> Forwarder<F> {
    /// Sends a packet's sender the answer that says why it goes no further; without one it is dropped for the
    /// same reason.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        context: Context,
        work: &Work,
        why: DropReason,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(mut frame) = frame else { return };
        let packet = &work.headers.ip;
        frame.truncate(usize::from(packet.l3) + usize::from(packet.len));
        match self.answer(context, work, why, &mut frame) {
            Some(egress) => self.send(frame, &egress, out),
            None => self.drop(Some(frame), why),
        }
    }

    fn answer(&mut self, context: Context, work: &Work, why: DropReason, frame: &mut F) -> Option<Egress> {
        let (snapshot, packet) = (context.snapshot, &work.headers.ip);
        let answer = answer_to(snapshot, work, why)?;
        if !answer::may_be_told(frame.head(), packet) {
            return None;
        }
        let egress = snapshot.egress_to(packet.addresses.src())?;
        // What is left of a connection would go on in vain, and each of its segments is answered by a shorter one.
        let is_owed = answer == Answer::Reset && why == DropReason::FlowReset;
        if !is_owed && !self.icmp_budget.take(context) {
            return None;
        }
        match answer {
            Answer::Reset => answer::reset(frame, &work.headers, &egress.link).ok()?,
            Answer::Error(cause) => {
                let dst = packet.addresses.dst();
                let src = match cause {
                    // The end itself says so, not a router on the way.
                    Cause::PortUnreachable => dst,
                    _ => snapshot.own_address(egress.next_hop.interface, dst).unwrap_or(dst),
                };
                answer::error(frame, packet, cause, src, &egress.link).ok()?;
            }
        }
        self.stats.answered.add(1);
        self.stats.answered_for.count(why);
        Some(egress)
    }
}

/// How a packet that goes no further is answered, if it is.
fn answer_to(snapshot: &Snapshot, work: &Work, why: DropReason) -> Option<Answer> {
    match why {
        DropReason::TtlExceeded => Some(Answer::Error(Cause::TimeExceeded)),
        DropReason::TooBig if work.headers.ip.dont_fragment => {
            let mtu = longest(snapshot, work)?;
            if work.headers.ip.is_v4() {
                return Some(Answer::Error(Cause::TooBig { mtu }));
            }
            // Every IPv6 link takes so much, so no sender would send less (RFC 8200, 5).
            let told = work.headers.ip.len > ipv6::MIN_MTU;
            told.then_some(Answer::Error(Cause::TooBig { mtu: mtu.max(ipv6::MIN_MTU) }))
        }
        DropReason::NoBackend => as_chosen(snapshot.service(work.service)?.no_backend, work),
        DropReason::ServiceFull | DropReason::NewFlowRate => {
            let choice = match snapshot.service(work.service)?.limits.as_ref()?.config().answer {
                AtLimit::Drop => NoBackend::Drop,
                // Its sorry backends cannot take it either.
                AtLimit::Icmp | AtLimit::Sorry => NoBackend::Icmp,
                AtLimit::Rst => NoBackend::Rst,
            };
            as_chosen(choice, work)
        }
        DropReason::NoFlowNotSyn => {
            let no_flow = snapshot.service(work.service)?.no_flow;
            (no_flow == NoFlow::Rst).then_some(Answer::Reset)
        }
        DropReason::FlowReset => as_chosen(NoBackend::Rst, work),
        DropReason::NoService => {
            snapshot.local(work.headers.ip.addresses.dst())?;
            as_chosen(snapshot.parts.no_service, work)
        }
        DropReason::NoRoute if work.target == Target::Onward => Some(Answer::Error(Cause::HostUnreachable)),
        _ => None,
    }
}

/// The operator's choice for packets that nobody takes. Only TCP has resets.
fn as_chosen(choice: NoBackend, work: &Work) -> Option<Answer> {
    match choice {
        NoBackend::Drop => None,
        NoBackend::Rst if work.headers.protocol == Protocol::Tcp => Some(Answer::Reset),
        NoBackend::Rst | NoBackend::Icmp => Some(Answer::Error(Cause::PortUnreachable)),
    }
}

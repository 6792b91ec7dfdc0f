//! Flows that are over because their backend is: both ends are told by a reset, at once and even if they are silent.
//!
//! A reset counts if it has the very sequence number that its receiver awaits (RFC 5961, 3.2). Nobody notes these, but
//! each segment has them: what one end sends makes the resets for both. An end that sends nothing is asked: by a
//! segment with any numbers in the other one's name, which it answers by an acknowledgment with its own
//! (RFC 9293, 3.10.7.4). Housekeeping looks for the flows that are to be asked, in a few rounds over the whole table.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use config::words::{Fate, Mode, Protocol};

use super::flows::{Flows, Stored, WAYS, worth};
use super::work::{Role, Target, Work};
use super::{BURST, Context, Forwarder, Outbox};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::flow::state::{State, View};
use crate::flow::table::Worth;
use crate::flow::{FlowOwner, FlowValue};
use crate::packet::{Addresses, Headers};
use crate::rewrite::bare::Bare;
use crate::rewrite::{answer, put_link};
use crate::snapshot::{Backend, Egress, Snapshot};
use crate::wire::{read_u32, tcp};

/// Rounds in which an end is asked that does not answer.
const ROUNDS: u32 = 3;
/// Between two rounds. Linux answers such a segment twice in a second (`tcp_invalid_ratelimit`), and a clock of whole
/// seconds may show one too many.
const ROUND_SECS: Seconds = 2;
/// Lines of the flow tables looked at in a housekeeping turn: 4 million flows in 16,000 turns, a few seconds.
const LINES_PER_TURN: usize = 128;
/// Flows whose ends are asked in a housekeeping turn at most: two frames for each fit into a burst.
const ASKED_PER_TURN: u32 = 12;
/// The same in a second, so that ends by the million neither answer nor come back at the same moment.
const ASKED_PER_SEC: u32 = 10_000;
/// Resets that may wait for their turn.
const UNTOLD: usize = 512;

const _: () = assert!(2 * ASKED_PER_TURN as usize <= BURST);

/// What one worker knows of the flows that it resets.
pub(super) struct Resets<F> {
    /// Resets for ends that did not send what they are made of, and how they go there: a burst of segments makes twice
    /// as many.
    untold: VecDeque<(F, Work)>,
    search: Search,
}

impl<F> Resets<F> {
    pub(super) fn new() -> Self {
        Self { untold: VecDeque::with_capacity(UNTOLD), search: Search::default() }
    }

    /// Whether resets wait.
    #[inline]
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }
}

/// How far the search for flows is whose ends are to be asked.
#[derive(Debug, Default)]
struct Search {
    /// The backends that it is about, as snapshots count them.
    given_up: u64,
    /// Rounds to come, the present one included.
    left: u32,
    /// The number of the present one since there was nothing to be looked for.
    round: u32,
    /// The next line of the tables.
    line: usize,
    /// When the present round begins.
    begins: Seconds,
    /// Flows whose ends were asked in this second.
    asked: (Seconds, u32),
}

impl Search {
    /// Whether there is something to be looked for now.
    #[inline]
    fn is_on(&mut self, context: Context) -> bool {
        let (given_up, now) = (context.snapshot.given_up, context.now);
        if self.given_up != given_up {
            if self.left == 0 {
                self.round = 0;
            }
            // A round that is under way has passed some of their flows by. It goes on, and the next one has its time:
            // backends that are given up one by one must not have the same ends asked again each time.
            self.left = ROUNDS + u32::from(self.line > 0);
            self.given_up = given_up;
        }
        self.left > 0 && now >= self.begins
    }

    /// Goes to the next line; whether the round goes on.
    fn advance(&mut self, lines: usize, now: Seconds) -> bool {
        self.line += 1;
        if self.line < lines {
            return true;
        }
        (self.line, self.begins) = (0, now.saturating_add(ROUND_SECS));
        (self.left, self.round) = (self.left - 1, self.round.wrapping_add(1));
        false
    }

    /// How many more flows' ends may be asked in this second.
    fn allowance(&mut self, now: Seconds) -> u32 {
        if self.asked.0 != now {
            self.asked = (now, 0);
        }
        ASKED_PER_SEC.saturating_sub(self.asked.1)
    }

    /// Whether clients are to be left alone whose backends may answer.
    fn asks_backends_first(&self) -> bool {
        self.round.is_multiple_of(ROUNDS)
    }
}

impl<F: Frame> Forwarder<F> {
    /// Ends a packet of a flow that is over: its sender is told so, and of a connection the other end, too. The flow is
    /// closed, but kept a while for what they send meanwhile.
    #[cold]
    pub(super) fn reset(
        &mut self,
        context: Context,
        work: &Work,
        stored: Stored,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(frame) = frame else { return };
        let headers = &work.headers;
        if headers.protocol == Protocol::Udp {
            self.flows.end(context, stored);
            return self.refuse(context, work, DropReason::FlowReset, Some(frame), out);
        }
        let (flow, owner) = (self.flows.value(stored), self.flows.owner(stored));
        let target = match work.role {
            Role::Request(_) => self.backend_target(stored),
            _ => to_client(context.snapshot, owner),
        };
        let onward = Work { target, ..*work };
        if headers.tcp_flags & tcp::RST != 0 {
            if answers_question(&self.flows, owner, frame.head(), headers) {
                // Its sender does not know the connection, or is a gateway before an end that does: nobody was told.
                return self.drop(Some(frame), DropReason::FlowReset);
            }
            self.flows.enter(context, stored, flow, State::Close);
            return self.deliver_one(context, &onward, frame, out);
        }
        // As long as the other end is to be told, a later round finds the flow. A piece tells nobody.
        let is_piece = headers.ip.fragment.is_some();
        if !is_piece && (flow.state().is_closing(View::Client) || self.tell_other(&onward, &frame)) {
            self.flows.enter(context, stored, flow, State::Close);
        }
        self.refuse(context, work, DropReason::FlowReset, Some(frame), out);
    }

    /// Makes the reset that the other end gets, if what one has sent says something to it. Returns whether that is
    /// done.
    fn tell_other(&mut self, onward: &Work, frame: &F) -> bool {
        let resets = answer::resets_for_other(frame.head(), &onward.headers);
        resets.into_iter().flatten().all(|reset| {
            let room = self.resets.untold.len() < UNTOLD;
            let Some((made, headers)) = reset.frame(frame).filter(|_| room) else { return false };
            self.resets.untold.push_back((made, Work { headers, made: true, ..*onward }));
            true
        })
    }

    /// Sends resets that wait, up to a burst. The transmit bursts are empty before.
    #[cold]
    pub(super) fn tell_others(&mut self, context: Context, out: &mut Outbox<F>) {
        for _ in 0..BURST {
            let Some((frame, work)) = self.resets.untold.pop_front() else { break };
            self.stats.made.add(1);
            self.deliver_one(context, &work, frame, out);
        }
    }

    /// Looks at a few lines of the tables for flows that are over, and asks their ends. The transmit bursts are empty
    /// before.
    #[inline]
    pub(super) fn search(&mut self, context: Context, out: &mut Outbox<F>) {
        if self.resets.search.is_on(context) {
            self.ask_next(context, out);
        }
    }

    #[cold]
    fn ask_next(&mut self, context: Context, out: &mut Outbox<F>) {
        let mut left = self.resets.search.allowance(context.now).min(ASKED_PER_TURN);
        for _ in 0..LINES_PER_TURN {
            // A line's flows are asked all at once, so that none is asked twice.
            if left < WAYS as u32 {
                return;
            }
            let mut found = [None; WAYS];
            let mut free = found.iter_mut();
            self.flows.visit(self.resets.search.line, |owner, flow| {
                if let Some(backend) = given_up(context, flow) {
                    free.next().into_iter().for_each(|place| *place = Some((owner, flow, backend)));
                }
            });
            for (owner, flow, backend) in found.into_iter().flatten() {
                left -= 1;
                self.resets.search.asked.1 += 1;
                self.ask(context, owner, flow, backend, out);
            }
            if !self.resets.search.advance(self.flows.lines(), context.now) {
                return;
            }
        }
    }

    /// Asks the ends of a flow for their numbers.
    fn ask(
        &mut self,
        context: Context,
        owner: FlowOwner,
        flow: FlowValue,
        backend: &Backend,
        out: &mut Outbox<F>,
    ) {
        let Some(vip) = virtual_end(context.snapshot, owner) else { return };
        let replies = matches!(backend.mode, Mode::Nat | Mode::FullNat);
        // Its answer tells both ends, and finds its way to a client behind a firewall, for which a segment with any
        // numbers is none of the connection.
        if replies {
            self.ask_backend(context, owner, flow, vip, out);
        }
        if !(replies && backend.up && self.resets.search.asks_backends_first()) {
            self.ask_client(context, owner, vip, out);
        }
    }

    fn ask_backend(
        &mut self,
        context: Context,
        owner: FlowOwner,
        flow: FlowValue,
        vip: SocketAddr,
        out: &mut Outbox<F>,
    ) {
        let client = SocketAddr::new(owner.client, owner.client_port);
        let egress = context.snapshot.backend_egress(flow.backend());
        if egress.is_none_or(|egress| !may_ask(egress, out)) {
            return;
        }
        let Some((frame, headers)) = self.question(owner, client, vip, out) else { return };
        let target = owner.local_port.map_or(Target::Backend, |port| Target::BackendFrom(flow.local(), port));
        let hash = self.flows.hash(owner.client, owner.client_port);
        let work = Work {
            headers,
            hash,
            made: true,
            service: owner.service,
            backend: flow.backend(),
            target,
            ..Work::NONE
        };
        self.stats.made.add(1);
        self.deliver_one(context, &work, frame, out);
    }

    fn ask_client(&mut self, context: Context, owner: FlowOwner, vip: SocketAddr, out: &mut Outbox<F>) {
        let client = SocketAddr::new(owner.client, owner.client_port);
        let Some(egress) = context.snapshot.egress_to(owner.client).filter(|egress| may_ask(egress, out))
        else {
            return;
        };
        let Some((mut frame, headers)) = self.question(owner, vip, client, out) else { return };
        self.stats.made.add(1);
        match put_link(&mut frame, headers.ip.l3, &egress.link) {
            Ok(()) => self.send(frame, &egress, out),
            Err(why) => self.drop(Some(frame), why),
        }
    }

    /// A segment that its receiver answers: that its numbers are right for it is as likely as its window is large.
    fn question(
        &self,
        owner: FlowOwner,
        src: SocketAddr,
        dst: SocketAddr,
        out: &Outbox<F>,
    ) -> Option<(F, Headers)> {
        let addresses = match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() },
            (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() },
            _ => return None,
        };
        let (sequence, acknowledgment) = numbers(&self.flows, owner);
        // Others in each round, lest the same chance repeats itself.
        let sequence = sequence.wrapping_add(self.resets.search.round << 30);
        let (src_port, dst_port) = (src.port(), dst.port());
        Bare { addresses, src_port, dst_port, sequence, acknowledgment, flags: tcp::ACK }
            .frame(out.seed.as_ref()?)
    }
}

/// Whether an end that is reached so may be asked. Until its station is known questions wait for the control thread, in
/// a quarter of its queue; a later round has the others.
fn may_ask<F>(egress: &Egress, out: &Outbox<F>) -> bool {
    egress.resolved || out.punt.len() < out.punt.capacity() / 4
}

/// The backend of a flow that is over, if ends of it may not know yet.
fn given_up<'a>(context: Context<'a>, flow: FlowValue) -> Option<&'a Backend> {
    let backend = context.snapshot.backend(flow.backend()).filter(|backend| backend.fate == Fate::Reset)?;
    (flow.state().is_open() && worth(context, flow) != Worth::Dead).then_some(backend)
}

/// Numbers for questions to the ends of a flow.
fn numbers(flows: &Flows, owner: FlowOwner) -> (u32, u32) {
    const QUESTIONS: u64 = 0x7175_6573_7469_6f6e;
    let number = flows.hash(owner.client, owner.client_port).with_scope(QUESTIONS);
    ((number >> 32) as u32, number as u32)
}

/// Whether a reset answers a question: it then has the number that this acknowledges (RFC 9293, 3.10.7.1).
fn answers_question(flows: &Flows, owner: FlowOwner, head: &[u8], headers: &Headers) -> bool {
    let sequence = read_u32(head, usize::from(headers.ip.l4) + tcp::SEQUENCE);
    headers.has_transport() && sequence == Some(numbers(flows, owner).1)
}

/// The address and port that a flow's client talks to.
fn virtual_end(snapshot: &Snapshot, owner: FlowOwner) -> Option<SocketAddr> {
    let vip = snapshot.service(owner.service)?.key.address;
    Some(SocketAddr::new(vip, snapshot.port_of(&owner)?))
}

/// The way to a flow's client.
fn to_client(snapshot: &Snapshot, owner: FlowOwner) -> Target {
    let from = virtual_end(snapshot, owner).map_or(0, |vip| vip.port());
    Target::ClientAt { client: owner.client, port: owner.client_port, from }
}

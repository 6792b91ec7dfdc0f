//! A burst of frames through all its stages: the whole packet path of one worker.
//!
//! The fast path first takes out what nearly all packets are: plain ones. The rest goes through four stages.
//! Both are short loops over the burst instead of one long one over each frame, so that the cache misses of
//! 32 frames overlap; what is no TCP or UDP packet waits for their end. Every frame ends in exactly one place:
//! a transmit burst, the control thread, another worker, a table of waiting pieces, or a drop counter.

mod answer;
mod bind;
mod deliver;
mod fast;
mod flows;
mod handshake;
mod icmp;
mod introduce;
mod limits;
mod local;
mod persist;
mod pieces;
mod quic;
mod reset;
mod work;

use std::hash::RandomState;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::eight::Avx512;
use crate::flow::table::HashSecret;
use crate::fragment::Transport;
use crate::local::{LocalAddresses, LocalSlot};
use crate::packet::{Addresses, Headers};
use crate::parse::{Refusal, parse};
use crate::port::PortId;
use crate::route::{InterfaceId, NextHop};
use crate::schedule::Schedulers;
use crate::schedule::fastest::Handshakes;
use crate::snapshot::{Egress, Local, Snapshot};
use crate::stats::WorkerStats;
use crate::team::Team;
use crate::toeplitz::Owners;
use crate::wire::eth::Tags;
pub use bind::RESERVED_SERVICES;
use fast::{Sights, Variety};
pub use flows::Flows;
use work::{Batch, Live, Role, Target, Work};

/// Frames ahead of the one being parsed whose headers are asked for.
const PREFETCH_AHEAD: usize = 8;

/// Bursts after which what is often used of a snapshot is in the cache, if that is not too much.
const COLD_BURSTS: u32 = 16;

/// A frame for the control thread.
#[derive(Debug)]
pub struct Punt<F> {
    /// The frame.
    pub frame: F,
    /// What is to be done with it.
    pub why: PuntReason,
}

/// What the control thread does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PuntReason {
    /// An ARP packet that came in by an interface.
    Arp(InterfaceId),
    /// A neighbour discovery packet that came in by an interface.
    Nd(InterfaceId),
    /// A packet for an own address of an interface, which its tap device gives to the kernel.
    Host(InterfaceId),
    /// A finished frame whose next hop has no known Ethernet address; it is to be injected when it has.
    Resolve(NextHop),
}

/// A frame from one worker to the owner of its flow.
#[derive(Debug)]
pub struct HandedOver<F> {
    /// The device port it came in by.
    pub port: PortId,
    /// The frame.
    pub frame: F,
    /// What its first piece said, if it is a piece of a packet and its worker found that out.
    pub transport: Option<Transport>,
}

/// Where frames leave a worker.
pub struct Outbox<F> {
    /// By port number; empty when a burst begins, so that it can take all of it.
    pub transmit: Vec<Burst<F>>,
    /// To the control thread.
    pub punt: Arc<ArrayQueue<Punt<F>>>,
    /// To the workers, by number.
    pub owners: Vec<Arc<ArrayQueue<HandedOver<F>>>>,
    /// Never sent; frames that answer none are made where its memory is from.
    pub seed: Option<F>,
}

/// What forwarding reads but never changes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration in force.
    pub snapshot: &'a Snapshot,
    /// The coarse time.
    pub now: Seconds,
}

/// How a worker is set up; the same for all but for `number`.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its number in the team.
    pub number: usize,
    /// All workers.
    pub team: Arc<Team>,
    /// Flows its narrow table is rated for.
    pub flow_capacity: usize,
    /// Flows its wide table is rated for.
    pub wide_capacity: usize,
    /// How pieces of packets are treated.
    pub pieces: PieceSetup,
    /// Service slots there may be.
    pub services: usize,
    /// Secret of the flow hash, shared by all workers.
    pub secret: HashSecret,
}

/// How a worker treats pieces of packets.
#[derive(Clone, Debug)]
pub struct PieceSetup {
    /// Pieces that may wait for their first ones.
    pub capacity: usize,
    /// Seconds that they wait.
    pub timeout: Seconds,
    /// Seconds for which the ports of a packet are remembered.
    pub remember: Seconds,
    /// Secret by which all workers agree on who owns a packet's pieces.
    pub secret: RandomState,
}

/// One worker's packet path with all that belongs to it alone.
pub struct Forwarder<F: Frame> {
    number: usize,
    workers: usize,
    owners: Owners,
    flows: Flows,
    schedulers: Schedulers,
    handshakes: Handshakes,
    team: Arc<Team>,
    stats: Arc<WorkerStats>,
    /// Identification of the next packet that is made here and may be fragmented.
    next_id: u16,
    icmp_budget: answer::Budget,
    pieces: pieces::Pieces<F>,
    resets: reset::Resets<F>,
    round: persist::Round,
    /// Taken out while a burst is forwarded; kept here so that it is not cleared each time.
    batch: Option<Box<Batch>>,
    /// The same for the fast path.
    sights: Option<Box<Sights>>,
    /// Bursts to come for which the snapshot's tables are not in the cache yet.
    cold: u32,
    /// To how many backends packets go, of those of a large snapshot.
    variety: Variety,
    /// If packets are sighted eight at a time.
    avx512: Option<Avx512>,
}

impl<F: Frame> Forwarder<F> {
    /// A packet path with empty tables.
    pub fn new(setup: &Setup, stats: Arc<WorkerStats>) -> Self {
        let workers = setup.team.workers();
        setup.team.join(setup.number, &stats);
        Self {
            number: setup.number,
            workers,
            owners: Owners::new(workers),
            flows: Flows::new(setup, Arc::clone(&stats)),
            schedulers: Schedulers::new(setup),
            handshakes: Handshakes::new(),
            team: Arc::clone(&setup.team),
            stats,
            next_id: 0,
            icmp_budget: answer::Budget::default(),
            pieces: pieces::Pieces::new(setup),
            resets: reset::Resets::new(),
            round: persist::Round::default(),
            batch: Some(Box::new([Work::NONE; BURST])),
            sights: Some(Sights::new()),
            cold: COLD_BURSTS,
            variety: Variety::new(),
            avx512: if cfg!(test) { Avx512::detect() } else { Avx512::worthwhile() },
        }
    }

    /// Takes over this worker's ports of local addresses, which have this slot and those that follow.
    pub fn install(&mut self, slot: LocalSlot, addresses: LocalAddresses) {
        self.flows.install(slot, addresses);
    }

    /// Says that the next burst comes with another snapshot.
    pub fn adopt(&mut self) {
        self.cold = COLD_BURSTS;
    }

    /// The worker's flows.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Takes a burst that came in by `port` to its end, what is common by the fast path and the rest through
    /// all stages; it is empty afterwards.
    pub fn forward(&mut self, context: Context, port: PortId, burst: &mut Burst<F>, out: &mut Outbox<F>) {
        if !self.forward_known(context, port, burst, out) {
            self.forward_staged(context, port, burst, out);
        }
        burst.clear();
    }

    /// Takes the frames that are in a burst through all stages.
    fn forward_staged(&mut self, context: Context, port: PortId, burst: &mut Burst<F>, out: &mut Outbox<F>) {
        let Some(mut batch) = self.batch.take() else { return };
        let (packets, others) = self.parse(context, port, &mut batch, burst);
        self.forward_packets(context, port, packets, &mut batch, burst, out);
        // Only now, so that an ICMP error finds the flow of a packet that came just before it.
        for slot in others {
            self.take_other(context, port, burst.take(slot), out);
        }
        self.batch = Some(batch);
    }

    /// The stages behind the first.
    #[inline]
    fn forward_packets(
        &mut self,
        context: Context,
        port: PortId,
        packets: Live,
        batch: &mut Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) {
        let classified = self.classify(context, port, packets, batch, burst, out);
        if context.snapshot.has_locals() {
            self.prefetch_behind(classified, batch);
        }
        let bound = self.bind(context, classified, batch, burst, out);
        self.deliver(context, bound, batch, burst, out);
    }

    /// First stage: headers. Returns the packets with ports, and the frames that are something else.
    fn parse(
        &mut self,
        context: Context,
        port: PortId,
        batch: &mut Batch,
        burst: &mut Burst<F>,
    ) -> (Live, Live) {
        let own = context.snapshot.mac(port).unwrap_or_default();
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        let (mut packets, mut others) = (Live::default(), Live::default());
        for (slot, work) in batch.iter_mut().enumerate().take(burst.len()) {
            burst.get(slot + PREFETCH_AHEAD).inspect(|frame| frame.prefetch());
            let Some(frame) = burst.get(slot) else { continue };
            match parse(frame.head(), frame.len(), own) {
                Ok((headers, tags)) => {
                    work.headers = headers;
                    work.tags = tags;
                    // What comes without a tag needs no look at the interfaces.
                    if tags == Tags::default() || context.snapshot.interface_of(port, tags).is_some() {
                        packets.keep(slot);
                    } else {
                        self.drop(burst.take(slot), DropReason::BadVlan);
                    }
                }
                Err(Refusal::Drop(why)) => self.drop(burst.take(slot), why),
                Err(_) => others.keep(slot),
            }
        }
        (packets, others)
    }

    /// Second stage: which way each packet goes, and which flow line to fetch. Packets whose flows belong
    /// to another worker leave here.
    fn classify(
        &mut self,
        context: Context,
        port: PortId,
        live: Live,
        batch: &mut Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> Live {
        let mut left = Live::default();
        for slot in live {
            let work = &mut batch[slot];
            if let Some(found) = context.snapshot.service_for(&work.headers, work.tags) {
                work.role = Role::Request(found);
                work.hash = self.flows.hash_src(&work.headers);
            } else if !context.snapshot.replies_by(&work.headers).is_empty() {
                work.role = reply_role(context, &work.headers);
                work.hash = self.flows.hash_dst(&work.headers);
            } else if let Some(role) = self.classify_rest(context, port, work, slot, burst, out) {
                work.role = role;
                work.hash = match role {
                    Role::LocalReply(_) => self.flows.hash_dst(&work.headers),
                    _ => self.flows.hash_src(&work.headers),
                };
            } else {
                continue;
            }
            if work.headers.ip.ttl <= 1 {
                self.refuse(context, work, DropReason::TtlExceeded, burst.take(slot), out);
                continue;
            }
            let owner = self.owner(work);
            if owner != self.number {
                let transport = work.headers.ip.fragment.map(|_| Transport::of(&work.headers));
                self.hand_over(burst.take(slot), port, owner, transport, out);
                continue;
            }
            match work.role {
                Role::Request(found) => self.flows.prefetch(work.hash, found, work.headers.dst_port),
                Role::Reply => {
                    let replies = context.snapshot.replies_by(&work.headers);
                    let first = replies.iter().next();
                    first.inspect(|(found, port)| self.flows.prefetch(work.hash, *found, *port));
                }
                Role::LocalReply(local) => {
                    self.flows.prefetch_local(local, work.headers.protocol, work.headers.dst_port);
                }
                Role::Outward(_) | Role::Inward => {}
            }
            left.keep(slot);
        }
        left
    }

    /// Asks for the flows of replies to local addresses, which are known only by what is behind their ports.
    fn prefetch_behind(&self, live: Live, batch: &Batch) {
        for slot in live {
            if let Role::LocalReply(local) = batch[slot].role {
                self.flows.prefetch_behind(local, &batch[slot].headers);
            }
        }
    }

    /// The worker that owns a packet's flow: by its client or, in full NAT, by the address that stands for one.
    #[inline]
    fn owner(&self, work: &Work) -> usize {
        if self.workers == 1 {
            return 0;
        }
        let Headers { ip, src_port, dst_port, .. } = &work.headers;
        let from_src = matches!(work.role, Role::Request(_) | Role::Outward(_));
        match ip.addresses {
            Addresses::V4 { src, .. } if from_src => self.owners.of_v4(src, *src_port),
            Addresses::V4 { dst, .. } => self.owners.of_v4(dst, *dst_port),
            Addresses::V6 { src, .. } if from_src => self.owners.of_v6(src, *src_port),
            Addresses::V6 { dst, .. } => self.owners.of_v6(dst, *dst_port),
        }
    }

    #[inline(always)]
    fn send(&self, frame: F, egress: &Egress, out: &mut Outbox<F>) {
        if !egress.resolved {
            // Half of the queue is kept for ARP: frames for a station that is silent must not crowd out
            // the answers of all others.
            if out.punt.len() >= out.punt.capacity() / 2 {
                return self.drop(Some(frame), DropReason::PuntFull);
            }
            return self.punt(Some(frame), PuntReason::Resolve(egress.next_hop), out);
        }
        self.transmit(frame, egress.port, out);
    }

    /// Puts a finished frame into its port's burst.
    #[inline(always)]
    fn transmit(&self, frame: F, port: PortId, out: &mut Outbox<F>) {
        // The bursts were empty when this one began, so none of them is full.
        match out.transmit.get_mut(usize::from(port.0)) {
            Some(transmit) => match transmit.push(frame) {
                Ok(()) => {}
                Err(frame) => self.drop(Some(frame), DropReason::TxFull),
            },
            None => self.drop(Some(frame), DropReason::BadPort),
        }
    }

    #[cold]
    fn punt(&self, frame: Option<F>, why: PuntReason, out: &mut Outbox<F>) {
        let Some(frame) = frame else { return };
        match out.punt.push(Punt { frame, why }) {
            Ok(()) => self.stats.punted.add(1),
            Err(punt) => self.drop(Some(punt.frame), DropReason::PuntFull),
        }
    }

    fn hand_over(
        &self,
        frame: Option<F>,
        port: PortId,
        owner: usize,
        transport: Option<Transport>,
        out: &mut Outbox<F>,
    ) {
        let Some(frame) = frame else { return };
        let Some(queue) = out.owners.get(owner) else {
            return self.drop(Some(frame), DropReason::HandOverFull);
        };
        match queue.push(HandedOver { port, frame, transport }) {
            Ok(()) => self.stats.handed_over.add(1),
            Err(HandedOver { frame, .. }) => self.drop(Some(frame), DropReason::HandOverFull),
        }
    }

    /// Frees a frame and counts why.
    #[cold]
    fn drop(&self, frame: Option<F>, why: DropReason) {
        if frame.is_some() {
            self.stats.drops.count(why);
        }
    }

    /// Identification of the next packet that is made here and may be fragmented.
    fn next_id(&mut self) -> u16 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    /// Whether there is something to be sent that no packet brought just now.
    #[inline]
    pub fn has_ready(&self) -> bool {
        self.has_ready_pieces() || self.resets.has_untold()
    }

    /// Forwards pieces that waited, or sends resets that do, up to a burst. The transmit bursts are empty before.
    #[cold]
    pub fn forward_ready(&mut self, context: Context, out: &mut Outbox<F>) {
        if self.has_ready_pieces() {
            self.forward_pieces(context, out);
        } else {
            self.tell_others(context, out);
        }
    }

    /// A bounded piece of the work that no packet waits for: takes out dead flows of a few lines, and pieces
    /// that waited in vain; asks the ends of flows that are over. The transmit bursts are empty before.
    pub fn housekeeping(&mut self, context: Context, lines: usize, out: &mut Outbox<F>) {
        for _ in 0..self.steps(context) {
            self.touch_templates(context, lines);
            self.flows.sweep(context, lines);
        }
        self.expire_pieces(context);
        self.search(context, out);
    }
}

/// A NAT backend's packet goes to a client or, in full NAT, to the local address that stands for one.
#[inline]
fn reply_role(context: Context, headers: &Headers) -> Role {
    if context.snapshot.has_locals()
        && let Some(Local::Snat(slot)) = context.snapshot.local(headers.ip.addresses.dst())
    {
        return Role::LocalReply(slot);
    }
    Role::Reply
}

#[cfg(test)]
mod tests;

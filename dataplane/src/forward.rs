//! A burst of frames through all its stages: the whole packet path of one worker.
//!
//! Four short loops over the burst instead of one long one over each frame, so that the cache misses of 32
//! frames overlap. Every frame ends in exactly one place: a transmit burst, the control thread, another
//! worker, or a drop counter.

mod bind;
mod icmp;

use std::sync::Arc;

use config::words::{Mode, Protocol};
use crossbeam::queue::ArrayQueue;

use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::flow::table::{FlowHash, FlowTable, HashSecret};
use crate::parse::{Headers, Ipv4, Refusal, parse};
use crate::rewrite;
use crate::route::{InterfaceId, NextHop};
use crate::schedule::Schedulers;
use crate::snapshot::{BackendSlot, Egress, ServiceSlot, Snapshot};
use crate::stats::WorkerStats;
use crate::wire::ipv4;

/// Frames ahead of the one being parsed whose headers are asked for.
const PREFETCH_AHEAD: usize = 4;

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
    /// An ARP packet that came in by a port.
    Arp(InterfaceId),
    /// A finished frame whose next hop has no known Ethernet address; it is to be injected when it has.
    Resolve(NextHop),
}

/// A frame from one worker to the owner of its flow, and the port it came in by.
pub type HandedOver<F> = (InterfaceId, F);

/// Where frames leave a worker.
pub struct Outbox<F> {
    /// By port number; empty when a burst begins, so that it can take all of it.
    pub transmit: Vec<Burst<F>>,
    /// To the control thread.
    pub punt: Arc<ArrayQueue<Punt<F>>>,
    /// To the workers, by number.
    pub owners: Vec<Arc<ArrayQueue<HandedOver<F>>>>,
}

/// What forwarding reads but never changes.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The configuration in force.
    pub snapshot: &'a Snapshot,
    /// The coarse time.
    pub now: Seconds,
}

/// Which way a packet goes, and for which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// From a client to a service.
    Request(ServiceSlot),
    /// From a NAT backend to a client; the flow tells the service.
    Reply,
}

/// A packet on its way through the stages.
#[derive(Clone, Copy)]
struct Work {
    headers: Headers,
    role: Role,
    hash: FlowHash,
    /// Set by the third stage.
    service: ServiceSlot,
    /// Set by the third stage.
    backend: BackendSlot,
}

impl Work {
    const NONE: Self = Self {
        headers: Headers {
            ip: Ipv4 { src: 0, dst: 0, l3: 0, l4: 0, len: 0, ttl: 0, dont_fragment: false },
            src_port: 0,
            dst_port: 0,
            protocol: Protocol::Tcp,
            tcp_flags: 0,
        },
        role: Role::Reply,
        hash: FlowHash::ZERO,
        service: ServiceSlot(0),
        backend: BackendSlot(0),
    };
}

/// The packets of a burst, by their places in it. Each stage writes its part of a packet's work in place:
/// copying the whole of it from stage to stage was a quarter of a packet's cost.
type Batch = [Work; BURST];

/// Places in the burst whose packets are still on their way.
#[derive(Clone, Copy, Default)]
struct Live(u32);

const _: () = assert!(BURST == u32::BITS as usize);

impl Live {
    #[inline]
    fn keep(&mut self, slot: usize) {
        self.0 |= 1 << slot;
    }
}

impl Iterator for Live {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros();
        // Takes the lowest bit away.
        self.0 &= self.0.wrapping_sub(1);
        (slot < u32::BITS).then_some(slot as usize)
    }
}

/// How a worker is set up; the same for all but for `number`.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Its number among `workers`.
    pub number: usize,
    /// How many there are.
    pub workers: usize,
    /// Flows its table is rated for.
    pub flow_capacity: usize,
    /// Service slots there may be.
    pub services: usize,
    /// Secret of the flow hash, shared by all workers.
    pub secret: HashSecret,
}

/// One worker's packet path with all that belongs to it alone.
pub struct Forwarder {
    number: usize,
    workers: usize,
    flows: FlowTable,
    schedulers: Schedulers,
    stats: Arc<WorkerStats>,
    /// Identification of the next tunnel packet that may be fragmented.
    tunnel_id: u16,
    icmp_budget: icmp::Budget,
    /// Taken out while a burst is forwarded; kept here so that it is not cleared each time.
    batch: Option<Box<Batch>>,
}

impl Forwarder {
    /// A packet path with an empty flow table.
    pub fn new(setup: &Setup, stats: Arc<WorkerStats>) -> Self {
        Self {
            number: setup.number,
            workers: setup.workers,
            flows: FlowTable::new(setup.flow_capacity, setup.secret),
            schedulers: Schedulers::new(setup.services),
            stats,
            tunnel_id: 0,
            icmp_budget: icmp::Budget::default(),
            batch: Some(Box::new([Work::NONE; BURST])),
        }
    }

    /// The worker's flows.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// Takes a burst that came in by `port` through all stages; it is empty afterwards.
    pub fn forward<F: Frame>(
        &mut self,
        context: Context,
        port: InterfaceId,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(mut batch) = self.batch.take() else { return };
        let parsed = self.parse(context, port, &mut batch, burst, out);
        let classified = self.classify(context, port, parsed, &mut batch, burst, out);
        let bound = self.bind(context, classified, &mut batch, burst);
        self.rewrite(context, bound, &batch, burst, out);
        self.batch = Some(batch);
        burst.clear();
    }

    /// First stage: headers.
    fn parse<F: Frame>(
        &mut self,
        context: Context,
        port: InterfaceId,
        batch: &mut Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> Live {
        let own =
            context.snapshot.parts.ports.get(usize::from(port.0)).map(|info| info.mac).unwrap_or_default();
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        let mut left = Live::default();
        for (slot, work) in batch.iter_mut().enumerate().take(burst.len()) {
            burst.get(slot + PREFETCH_AHEAD).inspect(|frame| frame.prefetch());
            let Some(frame) = burst.get(slot) else { continue };
            match parse(frame.head(), frame.len(), own) {
                Ok(headers) => {
                    work.headers = headers;
                    left.keep(slot);
                }
                Err(Refusal::Drop(why)) => self.drop(burst.take(slot), why),
                Err(Refusal::Arp) => self.punt(burst.take(slot), PuntReason::Arp(port), out),
                Err(Refusal::Icmp(packet)) => self.take_icmp(context, port, &packet, burst.take(slot), out),
            }
        }
        left
    }

    /// Second stage: which way each packet goes, and which flow line to fetch. Packets whose flows belong
    /// to another worker leave here.
    fn classify<F: Frame>(
        &mut self,
        context: Context,
        port: InterfaceId,
        live: Live,
        batch: &mut Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> Live {
        let mut left = Live::default();
        for slot in live {
            let work = &mut batch[slot];
            let Headers { ip: Ipv4 { src, dst, ttl, .. }, src_port, dst_port, protocol, .. } = work.headers;
            let client = if let Some(service) = context.snapshot.service_at(protocol, dst, dst_port) {
                work.role = Role::Request(service);
                (src, src_port)
            } else if !context.snapshot.replies_of(protocol, src, src_port).is_empty() {
                work.role = Role::Reply;
                (dst, dst_port)
            } else {
                self.drop(burst.take(slot), DropReason::NoService);
                continue;
            };
            if ttl <= 1 {
                self.refuse(context, work, DropReason::TtlExceeded, burst.take(slot), out);
                continue;
            }
            work.hash = self.flows.hash(client.0, client.1);
            let owner = work.hash.owner(self.workers);
            if owner != self.number {
                self.hand_over(burst.take(slot), port, owner, out);
                continue;
            }
            self.flows.prefetch(work.hash);
            left.keep(slot);
        }
        left
    }

    /// Fourth stage: change each frame and hand it to its port.
    fn rewrite<F: Frame>(
        &mut self,
        context: Context,
        live: Live,
        batch: &Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) {
        for slot in live {
            let work = &batch[slot];
            let Some(mut frame) = burst.take(slot) else { continue };
            // Padding ends here: the device adds its own where a frame needs it.
            frame.truncate(usize::from(work.headers.ip.l3) + usize::from(work.headers.ip.len));
            let refused = match work.role {
                Role::Request(_) => match self.rewrite_request(context, work, &mut frame) {
                    Ok(egress) => {
                        self.send(frame, egress, out);
                        continue;
                    }
                    Err(why) => why,
                },
                Role::Reply => match self.rewrite_reply(context, work, &mut frame) {
                    Ok(egress) => {
                        self.send(frame, &egress, out);
                        continue;
                    }
                    Err(why) => why,
                },
            };
            self.refuse(context, work, refused, Some(frame), out);
        }
    }

    #[inline(always)]
    fn rewrite_request<'a, F: Frame>(
        &mut self,
        context: Context<'a>,
        work: &Work,
        frame: &mut F,
    ) -> Result<&'a Egress, DropReason> {
        let backend = context.snapshot.backend(work.backend).ok_or(DropReason::NoBackend)?;
        let egress = context.snapshot.backend_egress(work.backend).ok_or(DropReason::NoRoute)?;
        let headers = &work.headers;
        let overhead = if backend.mode == Mode::Tunnel { ipv4::HEADER_LEN } else { 0 };
        if usize::from(headers.ip.len) + overhead > usize::from(egress.mtu) {
            return Err(DropReason::TooBig);
        }
        match backend.mode {
            Mode::Nat => rewrite::to_backend(frame.head_mut(), headers, backend.address.into(), &egress.link),
            Mode::Dr => rewrite::dr(frame.head_mut(), &headers.ip, &egress.link),
            Mode::Tunnel => {
                let path = (backend.tunnel_src, backend.address.ip().to_bits());
                let id = self.next_tunnel_id();
                rewrite::tunnel(frame, &headers.ip, path, id, &egress.link)?;
            }
        }
        let counters = self.stats.backend(work.backend);
        counters.in_packets.add(1);
        counters.in_bytes.add(u64::from(headers.ip.len));
        Ok(egress)
    }

    /// Identification of the next tunnel packet, of use if that may be fragmented.
    fn next_tunnel_id(&mut self) -> u16 {
        let id = self.tunnel_id;
        self.tunnel_id = id.wrapping_add(1);
        id
    }

    #[inline(always)]
    fn rewrite_reply<F: Frame>(
        &self,
        context: Context,
        work: &Work,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let service = context.snapshot.service(work.service).ok_or(DropReason::NoService)?;
        let egress = context.snapshot.egress_to(work.headers.ip.dst).ok_or(DropReason::NoRoute)?;
        if work.headers.ip.len > egress.mtu {
            return Err(DropReason::TooBig);
        }
        rewrite::to_client(frame.head_mut(), &work.headers, service.key.vip.into(), &egress.link);
        let counters = self.stats.backend(work.backend);
        counters.out_packets.add(1);
        counters.out_bytes.add(u64::from(work.headers.ip.len));
        Ok(egress)
    }

    #[inline(always)]
    fn send<F: Frame>(&self, frame: F, egress: &Egress, out: &mut Outbox<F>) {
        if !egress.resolved {
            // Half of the queue is kept for ARP: frames for a station that is silent must not crowd out
            // the answers of all others.
            if out.punt.len() >= out.punt.capacity() / 2 {
                return self.drop(Some(frame), DropReason::PuntFull);
            }
            return self.punt(Some(frame), PuntReason::Resolve(egress.next_hop), out);
        }
        // The bursts were empty when this one began, so none of them is full.
        match out.transmit.get_mut(usize::from(egress.next_hop.interface.0)) {
            Some(transmit) => match transmit.push(frame) {
                Ok(()) => {}
                Err(frame) => self.drop(Some(frame), DropReason::TxFull),
            },
            None => self.drop(Some(frame), DropReason::BadPort),
        }
    }

    #[cold]
    fn punt<F: Frame>(&self, frame: Option<F>, why: PuntReason, out: &mut Outbox<F>) {
        let Some(frame) = frame else { return };
        match out.punt.push(Punt { frame, why }) {
            Ok(()) => self.stats.punted.add(1),
            Err(punt) => self.drop(Some(punt.frame), DropReason::PuntFull),
        }
    }

    fn hand_over<F: Frame>(&self, frame: Option<F>, port: InterfaceId, owner: usize, out: &mut Outbox<F>) {
        let Some(frame) = frame else { return };
        let Some(queue) = out.owners.get(owner) else {
            return self.drop(Some(frame), DropReason::HandOverFull);
        };
        match queue.push((port, frame)) {
            Ok(()) => self.stats.handed_over.add(1),
            Err((_, frame)) => self.drop(Some(frame), DropReason::HandOverFull),
        }
    }

    /// Frees a frame and counts why.
    #[cold]
    fn drop<F: Frame>(&self, frame: Option<F>, why: DropReason) {
        if frame.is_some() {
            self.stats.drops.count(why);
        }
    }
}

#[cfg(test)]
mod tests;

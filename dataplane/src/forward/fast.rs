//! The fast path: plain packets of flows that are known and stay as they are, which nearly all packets are.
//!
//! It takes such packets out of a burst and leaves all others to the four stages, which are its slow twin: they
//! would do the same with every packet, and tests hold both against each other. Packets of one flow keep their
//! order, but for those with IP options and pieces, which later ones of their burst may overtake.

use config::words::Protocol;

use super::{Context, Forwarder, Live, Outbox, PREFETCH_AHEAD};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::clock::Seconds;
use crate::flow::state::View;
use crate::flow::table::FlowHash;
use crate::flow::{FlowKey, FlowValue, Key};
use crate::parse::plain::{L3, Plain, glance};
use crate::port::PortId;
use crate::rewrite::plain;
use crate::snapshot::{Carriage, Direction, ServiceSlot, Snapshot, Way};
use crate::wire::{ipv4, tcp};

/// A plain packet, and what its flow must be if it is here.
#[derive(Clone, Copy)]
pub(super) struct Sighted {
    plain: Plain,
    direction: Direction,
    key: FlowKey,
    /// Of its client.
    hash: FlowHash,
    /// Of the flow itself.
    line: FlowHash,
}

impl Sighted {
    pub(super) const NONE: Self = Self {
        plain: Plain {
            src: 0,
            dst: 0,
            src_port: 0,
            dst_port: 0,
            len: 0,
            protocol: Protocol::Tcp,
            tcp_flags: 0,
        },
        direction: Direction::Request(ServiceSlot(0)),
        key: FlowKey::EMPTY,
        hash: FlowHash::ZERO,
        line: FlowHash::ZERO,
    };
}

/// Clients whose packets must wait, for another of theirs in the burst does: a filter by their hashes.
#[derive(Default)]
struct Waiting(u64);

impl Waiting {
    #[inline]
    fn add(&mut self, hash: FlowHash) {
        self.0 |= 1 << hash.sixth();
    }

    #[inline]
    fn has(&self, hash: FlowHash) -> bool {
        self.0 >> hash.sixth() & 1 != 0
    }
}

impl<F: Frame> Forwarder<F> {
    /// Sends the plain packets of known flows. Returns whether these were all.
    pub(super) fn forward_known(
        &mut self,
        context: Context,
        port: PortId,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> bool {
        let Some(mut sighted) = self.sighted.take() else { return false };
        let (live, waiting) = self.sight(context.snapshot, port, burst, &mut sighted);
        let sent = self.carry_all(context, (live, waiting), &sighted, burst, out);
        self.sighted = Some(sighted);
        sent == burst.len()
    }

    /// Finds the plain packets whose flows may be here, and asks for these. Clients that open a flow wait.
    #[inline]
    fn sight(
        &self,
        snapshot: &Snapshot,
        port: PortId,
        burst: &Burst<F>,
        sighted: &mut [Sighted; BURST],
    ) -> (Live, Waiting) {
        let own = snapshot.mac(port).unwrap_or_default();
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        let (mut live, mut waiting) = (Live::default(), Waiting::default());
        for (slot, place) in sighted.iter_mut().enumerate().take(burst.len()) {
            burst.get(slot + PREFETCH_AHEAD).inspect(|frame| frame.prefetch());
            let Some(frame) = burst.get(slot) else { continue };
            let Some(plain) = glance(frame.head(), frame.len(), own) else { continue };
            // Openings may find their flow over, and announce a segment size that is to be lowered.
            if plain.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN {
                // Either end may be the client: under NAT backends can open, too.
                waiting.add(self.flows.hash_v4(plain.src, plain.src_port));
                waiting.add(self.flows.hash_v4(plain.dst, plain.dst_port));
                continue;
            }
            let Some(direction) = snapshot.direction(&plain) else { continue };
            let (client, client_port, service) = match direction {
                Direction::Request(service) => (plain.src, plain.src_port, service),
                Direction::Reply { service, .. } => (plain.dst, plain.dst_port, service),
            };
            // No flow has this client, and an empty place may look like one.
            if client == 0 {
                continue;
            }
            if self.workers > 1 && self.owners.of_v4(client, client_port) != self.number {
                continue;
            }
            let hash = self.flows.hash_v4(client, client_port);
            let line = hash.with_service(service, 0);
            self.flows.prefetch_narrow(line);
            let key = FlowKey::new(client, client_port, service);
            *place = Sighted { plain, direction, key, hash, line };
            live.keep(slot);
        }
        (live, waiting)
    }

    /// Sends the packets whose flows are known. Returns how many they were.
    #[inline]
    fn carry_all(
        &mut self,
        context: Context,
        (live, mut waiting): (Live, Waiting),
        sighted: &[Sighted; BURST],
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> usize {
        let mut sent = 0;
        for slot in live {
            let (known, Some(frame)) = (&sighted[slot], burst.get_mut(slot)) else { continue };
            let way_out = match waiting.has(known.hash) {
                true => None,
                false => self.carry(context, known, frame),
            };
            match way_out {
                Some(port) => {
                    let Some(frame) = burst.take(slot) else { continue };
                    self.transmit(frame, port, out);
                    sent += 1;
                }
                None => waiting.add(known.hash),
            }
        }
        sent
    }

    /// Rewrites a packet and notes it in its flow. Returns the port it leaves by; `None`, and nothing has
    /// happened, if its flow is unknown, over or about to change, or the packet has no easy way.
    #[inline(always)]
    fn carry(&mut self, context: Context, known: &Sighted, frame: &mut F) -> Option<PortId> {
        let Sighted { plain, direction, key, line, .. } = known;
        // Answers to openings announce one, too.
        if plain.tcp_flags & tcp::SYN != 0 {
            return None;
        }
        let snapshot = context.snapshot;
        let (place, flow) = self.flows.find_narrow(*line, key)?;
        let way = snapshot.way(flow.backend())?;
        let view = view(direction, way, plain)?;
        let idle = flow.idle(context.now);
        if !flow.stays(view, plain.tcp_flags) || (idle != 0 && is_over(snapshot, way, flow, idle)) {
            return None;
        }
        let port = match *direction {
            Direction::Request(_) => {
                let port = self.reach_backend(way, known, frame)?;
                self.count_in(flow.backend(), plain.len);
                port
            }
            Direction::Reply { vip, .. } => {
                let port = reach_client(snapshot, vip, plain, frame)?;
                self.count_out(flow.backend(), plain.len);
                port
            }
        };
        if idle != 0 {
            self.flows.set_narrow(place, flow.touched(context.now));
        }
        Some(port)
    }

    /// Rewrites a packet for its backend.
    #[inline(always)]
    fn reach_backend(&mut self, way: &Way, known: &Sighted, frame: &mut F) -> Option<PortId> {
        let plain = &known.plain;
        if plain.len > way.room {
            return None;
        }
        let mut len = L3 + usize::from(plain.len);
        match way.carriage {
            Carriage::Dr => plain::dr(frame.head_mut(), &way.link)?,
            Carriage::Nat { address, port_shift } => {
                let end = (address, plain.dst_port.wrapping_add(port_shift));
                plain::to_backend(frame.head_mut(), plain, end, &way.link)?;
            }
            Carriage::Ipip { src, spread, dst } => {
                let src = src | u32::from(known.hash.entropy()) & spread;
                plain::ipip(frame, plain, (src, dst), || self.next_id(), &way.link)?;
                len += ipv4::HEADER_LEN;
            }
        }
        // Padding ends here: the device adds its own where a frame needs it.
        frame.truncate(len);
        Some(way.port)
    }
}

/// Which packets are seen of a flow, and from where this one came; `None` if it is no reply of its backend.
#[inline(always)]
fn view(direction: &Direction, way: &Way, plain: &Plain) -> Option<View> {
    match (direction, way.carriage) {
        (Direction::Request(_), Carriage::Nat { .. }) => Some(View::Client),
        (Direction::Request(_), _) => Some(View::OneWay),
        (Direction::Reply { .. }, Carriage::Nat { address, .. }) => {
            (address == plain.src).then_some(View::Server)
        }
        (Direction::Reply { .. }, _) => None,
    }
}

/// Whether a flow was idle for too long.
#[inline(always)]
fn is_over(snapshot: &Snapshot, way: &Way, flow: FlowValue, idle: Seconds) -> bool {
    let longest = || snapshot.timeouts(way.timeouts).map_or(0, |its| its.of(flow.state()));
    idle > snapshot.shortest_timeout && idle > longest()
}

/// Makes a reply come from its service and sends it by the gateway to its client.
#[inline(always)]
fn reach_client<F: Frame>(
    snapshot: &Snapshot,
    vip: (u32, u16),
    plain: &Plain,
    frame: &mut F,
) -> Option<PortId> {
    let egress = snapshot.gateway_to(plain.dst)?;
    let link = egress.link.bytes().first_chunk().filter(|_| egress.is_plain())?;
    if plain.len > egress.mtu {
        return None;
    }
    plain::to_client(frame.head_mut(), plain, vip, link)?;
    frame.truncate(L3 + usize::from(plain.len));
    Some(egress.port)
}

//! The fast path: plain packets, which nearly all are. Those of flows that are known and stay as they are have the
//! shortest way; others begin a flow, or are for nobody.
//!
//! It takes such packets out of a burst and leaves all others to the four stages, which are its slow twin: they
//! would do the same with every packet, and tests hold both against each other. Packets of one flow keep their
//! order, but for those with IP options and pieces, which later ones of their burst may overtake.

mod ahead;
mod carry;
mod lane;
mod one_way;
mod open;

use config::words::Protocol;
use lane::Waiting;

use super::flows::{Hashed, Tabled};
use super::{Context, Forwarder, Live, Outbox, PREFETCH_AHEAD};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::drops::DropReason;
use crate::flow::table::{FlowHash, Home};
use crate::flow::{FlowKey, Key, WideKey};
use crate::local::LocalSlot;
use crate::packet::Version;
use crate::parse::plain::{Brief, Kind, L3, NO_FRONT, Plain, Station, Whole, front, glance_v4, glance_v6};
use crate::port::PortId;
use crate::rewrite::plain::Rewrite;
use crate::snapshot::{Address, Direction, Kept, Listener, Routed, ServiceSlot, Snapshot};
use crate::toeplitz::Owners;
use crate::wire::eth::Tags;
use crate::wire::tcp;

/// An IP version whose packets the fast path takes.
trait Fast: Address + Routed + Hashed + Kept + Rewrite + Whole {
    /// The worker that owns a client's flows.
    fn owner(self, owners: &Owners, port: u16) -> usize;
}

impl Fast for u32 {
    #[inline]
    fn owner(self, owners: &Owners, port: u16) -> usize {
        owners.of_v4(self, port)
    }
}

impl Fast for u128 {
    #[inline]
    fn owner(self, owners: &Owners, port: u16) -> usize {
        owners.of_v6(self, port)
    }
}

/// An address and port.
type End<A> = (A, u16);

/// Which way a plain packet goes.
#[derive(Clone, Copy)]
enum Heading<A> {
    /// To a service.
    Request,
    /// From a NAT backend to a client, by this address and port of a service.
    Reply { vip: End<A> },
    /// From a backend of full NAT to the local address and port that stand for this client of a service.
    LocalReply { local: (LocalSlot, u16), vip: End<A>, client: End<A> },
}

/// A plain packet, and what its flow must be if it is here.
#[derive(Clone, Copy)]
struct Sighted<A, K> {
    brief: Brief,
    heading: Heading<A>,
    key: K,
    /// Of its client.
    hash: FlowHash,
    home: Home,
}

impl<A: Version, K: Key> Sighted<A, K> {
    /// Whether it is an opening or the answer to one.
    #[inline(always)]
    fn opens(&self) -> bool {
        self.brief.tcp_flags & tcp::SYN != 0
    }
}

/// What is known of the packets of a lane, by their places in the burst. Each part has an array of its own, for a place is
/// then all that it takes to find it.
struct Lane<A, K> {
    len: [u16; BURST],
    protocol: [Protocol; BURST],
    tcp_flags: [u8; BURST],
    home: [Home; BURST],
    key: [K; BURST],
    hash: [FlowHash; BURST],
    /// Of those that are no requests; it is out of date for all others.
    heading: [Heading<A>; BURST],
    replies: Live,
}

impl<A: Version, K: Key> Lane<A, K> {
    fn new() -> Self {
        Self {
            len: [0; BURST],
            protocol: [Protocol::Tcp; BURST],
            tcp_flags: [0; BURST],
            home: [Home::default(); BURST],
            key: [K::EMPTY; BURST],
            hash: [FlowHash::ZERO; BURST],
            heading: [Heading::Request; BURST],
            replies: Live::default(),
        }
    }

    /// What is known of the packet in a place.
    #[inline(always)]
    fn at(&self, slot: usize) -> Sighted<A, K> {
        let heading = if self.replies.has(slot) { self.heading[slot] } else { Heading::Request };
        Sighted { heading, ..self.request(slot) }
    }

    /// The same of a request.
    #[inline(always)]
    fn request(&self, slot: usize) -> Sighted<A, K> {
        let (len, protocol, tcp_flags) = (self.len[slot], self.protocol[slot], self.tcp_flags[slot]);
        let (key, hash, home) = (self.key[slot], self.hash[slot], self.home[slot]);
        Sighted { brief: Brief { len, protocol, tcp_flags }, heading: Heading::Request, key, hash, home }
    }

    /// Notes what is known of the packet in a place, but for its heading.
    #[inline(always)]
    fn note(&mut self, slot: usize, brief: Brief, key: K, hash: FlowHash, home: Home) {
        let Brief { len, protocol, tcp_flags } = brief;
        (self.len[slot], self.protocol[slot], self.tcp_flags[slot]) = (len, protocol, tcp_flags);
        (self.key[slot], self.hash[slot], self.home[slot]) = (key, hash, home);
    }

    /// Notes where the packet in a place is heading. All are requests before.
    #[inline(always)]
    fn head(&mut self, slot: usize, heading: Heading<A>) {
        if !matches!(heading, Heading::Request) {
            self.heading[slot] = heading;
            self.replies.keep(slot);
        }
    }
}

type Narrow = Lane<u32, FlowKey>;
type Wide<A> = Lane<A, WideKey>;

/// The plain packets of a burst, by their places in it, in lanes: of each lane all is of one kind, so that its code
/// asks nothing.
pub(super) struct Sights {
    /// IPv4 packets of narrow flows.
    narrow: Narrow,
    /// IPv4 packets of wide flows.
    wide_v4: Wide<u32>,
    /// IPv6 packets.
    wide_v6: Wide<u128>,
}

impl Sights {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self { narrow: Lane::new(), wide_v4: Lane::new(), wide_v6: Lane::new() })
    }
}

/// Which packets are in which lane.
#[derive(Default)]
struct Lanes {
    narrow: Live,
    wide_v4: WideLane,
    wide_v6: WideLane,
    /// Of either version, for addresses and ports where nobody listens.
    nobodys: Live,
}

#[derive(Default)]
struct WideLane {
    live: Live,
    /// Packets for local addresses, whose flows are yet to be found out.
    behind: Live,
}

impl<F: Frame> Forwarder<F> {
    /// Takes the plain packets to their ends, but for those that must wait. Returns whether these were all.
    pub(super) fn forward_known(
        &mut self,
        context: Context,
        port: PortId,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> bool {
        let Some(mut sights) = self.sights.take() else { return false };
        let snapshot = context.snapshot;
        let far = snapshot.is_large() || self.cold > 0;
        self.cold = self.cold.saturating_sub(1);
        if far {
            self.foresee_directions(snapshot, port, burst);
        }
        let (mut lanes, mut waiting) = self.sight(snapshot, port, burst, &mut sights);
        if snapshot.has_locals() {
            self.look_behind(snapshot, &mut lanes.wide_v4, &mut sights.wide_v4);
            self.look_behind(snapshot, &mut lanes.wide_v6, &mut sights.wide_v6);
        }
        if far {
            self.foresee_backends(context, lanes.narrow, &sights.narrow, burst);
            self.foresee_backends(context, lanes.wide_v4.live, &sights.wide_v4, burst);
            self.foresee_backends(context, lanes.wide_v6.live, &sights.wide_v6, burst);
        }
        let received = burst.len();
        let mut ended = self.drop_nobodys(snapshot, port, lanes.nobodys, burst);
        // Narrow flows come behind wide ones: where a service has both, requests of the narrow ones are found to
        // wait in the other lane, and so do their replies.
        if !lanes.wide_v4.live.is_empty() {
            ended +=
                self.carry_lane(context, (lanes.wide_v4.live, &mut waiting), &sights.wide_v4, burst, out);
        }
        if !lanes.narrow.is_empty() {
            ended += self.carry_lane(context, (lanes.narrow, &mut waiting), &sights.narrow, burst, out);
        }
        if !lanes.wide_v6.live.is_empty() {
            ended +=
                self.carry_lane(context, (lanes.wide_v6.live, &mut waiting), &sights.wide_v6, burst, out);
        }
        self.sights = Some(sights);
        ended == received
    }

    /// Finds the plain packets whose flows may be here, and asks for these.
    // By itself, so that nothing else takes its registers.
    #[inline(never)]
    fn sight(
        &self,
        snapshot: &Snapshot,
        port: PortId,
        burst: &Burst<F>,
        sights: &mut Sights,
    ) -> (Lanes, Waiting) {
        let station = Station::new(snapshot.mac(port).unwrap_or_default());
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        let (mut lanes, mut waiting) = (Lanes::default(), Waiting::default());
        for replies in [&mut sights.narrow.replies, &mut sights.wide_v4.replies, &mut sights.wide_v6.replies]
        {
            *replies = Live::default();
        }
        let requests = if self.workers == 1 {
            self.sight_requests(snapshot, station, burst, &mut sights.narrow)
        } else {
            0
        };
        lanes.narrow = Live::first(requests);
        let (places, mut padded) = (burst.places(), NO_FRONT);
        for slot in requests..places.len().min(BURST) {
            places.get(slot + PREFETCH_AHEAD).and_then(Option::as_ref).inspect(|frame| frame.prefetch());
            let Some(frame) = &places[slot] else { continue };
            let Some(front) = front(frame.head(), &mut padded) else {
                waiting.leave(slot);
                continue;
            };
            match station.kind(front) {
                Some(Kind::V4) => {
                    let Some(plain) = glance_v4(front, frame.len()) else {
                        waiting.leave(slot);
                        continue;
                    };
                    let listener = snapshot.listener(&plain);
                    match listener.and_then(Listener::sole) {
                        // Nearly all packets are such, so that nothing else is asked for them.
                        Some(service) if self.workers == 1 => {
                            lanes.narrow.keep(slot);
                            let client = ((plain.src, plain.src_port), service);
                            self.sight_narrow(slot, plain, client, &mut sights.narrow);
                        }
                        _ => {
                            let to = (&mut lanes, &mut waiting);
                            self.sight_v4(snapshot, slot, plain, listener, sights, to);
                        }
                    }
                }
                Some(Kind::V6) => self.sight_v6(snapshot, slot, frame, sights, (&mut lanes, &mut waiting)),
                None => waiting.leave(slot),
            }
        }
        (lanes, waiting)
    }

    /// The same for the first packets of a burst, as long as all are for services whose flows are narrow and here. Returns
    /// how many these are.
    // Nothing else is in the loop, whose registers would not suffice.
    #[inline(never)]
    fn sight_requests(
        &self,
        snapshot: &Snapshot,
        station: Station,
        burst: &Burst<F>,
        narrow: &mut Narrow,
    ) -> usize {
        let places = burst.places();
        let ahead = places.get(PREFETCH_AHEAD..).unwrap_or_default();
        let count = places.len().min(BURST);
        for slot in 0..count {
            ahead.get(slot).and_then(Option::as_ref).inspect(|frame| frame.prefetch());
            let Some(frame) = &places[slot] else { return slot };
            let Some(front) = frame.head().first_chunk() else { return slot };
            if station.kind(front) != Some(Kind::V4) {
                return slot;
            }
            let Some(plain) = glance_v4(front, frame.len()) else { return slot };
            let Some(service) = snapshot.listener(&plain).and_then(Listener::sole) else { return slot };
            self.sight_narrow(slot, plain, ((plain.src, plain.src_port), service), narrow);
        }
        count
    }

    /// The same for one packet of IPv4.
    // Not within the loop, whose registers would not suffice.
    #[inline(never)]
    fn sight_v4(
        &self,
        snapshot: &Snapshot,
        slot: usize,
        plain: Plain<u32>,
        listener: Option<Listener>,
        sights: &mut Sights,
        (lanes, waiting): (&mut Lanes, &mut Waiting),
    ) {
        let nobodys = &mut lanes.nobodys;
        let direction = self.direction(snapshot, slot, &plain, listener, (waiting, nobodys));
        let Some(direction) = direction else { return };
        match direction {
            Direction::Request { service, full_nat: false } => {
                lanes.narrow.keep(slot);
                let client = ((plain.src, plain.src_port), service);
                self.sight_narrow(slot, plain, client, &mut sights.narrow);
            }
            Direction::Reply { service, vip } => {
                lanes.narrow.keep(slot);
                let client = ((plain.dst, plain.dst_port), service);
                self.sight_narrow(slot, plain, client, &mut sights.narrow);
                sights.narrow.head(slot, Heading::Reply { vip });
            }
            _ => self.sight_wide(slot, plain, direction, &mut sights.wide_v4, &mut lanes.wide_v4),
        }
    }

    /// The same for one packet of IPv6.
    #[inline(never)]
    fn sight_v6(
        &self,
        snapshot: &Snapshot,
        slot: usize,
        frame: &F,
        sights: &mut Sights,
        (lanes, waiting): (&mut Lanes, &mut Waiting),
    ) {
        let plain = frame.head().get(L3..).and_then(|ip| glance_v6(ip, frame.len()));
        let Some(plain) = plain else { return waiting.leave(slot) };
        let listener = snapshot.listener(&plain);
        let nobodys = &mut lanes.nobodys;
        if let Some(direction) = self.direction(snapshot, slot, &plain, listener, (waiting, nobodys)) {
            self.sight_wide(slot, plain, direction, &mut sights.wide_v6, &mut lanes.wide_v6);
        }
    }

    /// Which way a plain packet goes whose flow may be here. Clients wait whose openings go another way.
    #[inline(always)]
    fn direction<A: Fast>(
        &self,
        snapshot: &Snapshot,
        slot: usize,
        plain: &Plain<A>,
        listener: Option<Listener>,
        (waiting, nobodys): (&mut Waiting, &mut Live),
    ) -> Option<Direction<A>> {
        let Some(direction) = snapshot.direction(plain, listener) else {
            if listener.is_none() && snapshot.is_for_nobody(plain) && !A::is_martian(plain) {
                nobodys.keep(slot);
                return None;
            }
            waiting.leave(slot);
            if opens(plain) {
                // Either end may be the client: under NAT backends can open, too.
                waiting.add(self.flows.hash_of(plain.src, plain.src_port));
                waiting.add(self.flows.hash_of(plain.dst, plain.dst_port));
            }
            return None;
        };
        if self.workers > 1 {
            let owner = match direction {
                Direction::Request { .. } => plain.src.owner(&self.owners, plain.src_port),
                _ => plain.dst.owner(&self.owners, plain.dst_port),
            };
            (owner == self.number).then_some(())?;
        }
        Some(direction)
    }

    /// Notes a packet of a client's narrow flow.
    #[inline(always)]
    fn sight_narrow(
        &self,
        slot: usize,
        plain: Plain<u32>,
        ((client, port), service): (End<u32>, ServiceSlot),
        sighted: &mut Narrow,
    ) {
        let (hash, key) = (self.flows.hash_of(client, port), FlowKey::new(client, port, service));
        let home = FlowKey::prefetch(&self.flows, key.line(hash));
        let Plain { len, protocol, tcp_flags, .. } = plain;
        sighted.note(slot, Brief { len, protocol, tcp_flags }, key, hash, home);
    }

    /// Notes a packet of a wide flow.
    #[inline(never)]
    fn sight_wide<A: Fast>(
        &self,
        slot: usize,
        plain: Plain<A>,
        direction: Direction<A>,
        sighted: &mut Wide<A>,
        lane: &mut WideLane,
    ) {
        let Plain { len, protocol, tcp_flags, .. } = plain;
        let brief = Brief { len, protocol, tcp_flags };
        let (client, port, service, service_port, heading) = match direction {
            Direction::Request { service, .. } => {
                (plain.src, plain.src_port, service, plain.dst_port, Heading::Request)
            }
            Direction::Reply { service, vip } => {
                (plain.dst, plain.dst_port, service, vip.1, Heading::Reply { vip })
            }
            Direction::LocalReply(local) => {
                self.flows.prefetch_local(local, plain.protocol, plain.dst_port);
                let end = Default::default();
                let local = (local, plain.dst_port);
                sighted.note(slot, brief, WideKey::EMPTY, FlowHash::ZERO, Home::default());
                sighted.head(slot, Heading::LocalReply { local, vip: end, client: end });
                return lane.behind.keep(slot);
            }
        };
        // No flow has this client, and an empty place may look like one.
        if client == A::default() {
            return;
        }
        let hash = self.flows.hash_of(client, port);
        let key = WideKey::new(client.wide(), port, service, service_port);
        let home = WideKey::prefetch(&self.flows, key.line(hash));
        sighted.note(slot, brief, key, hash, home);
        sighted.head(slot, heading);
        lane.live.keep(slot);
    }

    /// Drops what is for nobody. Returns how many packets these were.
    #[inline]
    fn drop_nobodys(&self, snapshot: &Snapshot, port: PortId, nobodys: Live, burst: &mut Burst<F>) -> usize {
        // Without such an interface there is another reason.
        if nobodys.is_empty() || snapshot.interface_of(port, Tags::default()).is_none() {
            return 0;
        }
        nobodys.map(|slot| self.drop(burst.take(slot), DropReason::NoService)).count()
    }

    /// Finds out the clients for whom local addresses stand, and asks for their flows.
    #[inline]
    fn look_behind<A: Fast>(&self, snapshot: &Snapshot, lane: &mut WideLane, sighted: &mut Wide<A>) {
        for slot in lane.behind {
            let protocol = sighted.protocol[slot];
            let Heading::LocalReply { local, vip, client } = &mut sighted.heading[slot] else { continue };
            let Some(key) = self.flows.key_of(local.0, protocol, local.1) else { continue };
            let (Some(address), Some(service)) = (A::of_wide(key.client()), snapshot.vip(key.service()))
            else {
                continue;
            };
            *client = (address, key.client_port());
            *vip = (service, key.service_port());
            let hash = self.flows.hash_of(address, key.client_port());
            let home = WideKey::prefetch(&self.flows, key.line(hash));
            (sighted.key[slot], sighted.hash[slot], sighted.home[slot]) = (key, hash, home);
            lane.live.keep(slot);
        }
    }

    /// Whether a packet has an easy way.
    #[cfg(test)]
    pub(super) fn carries(&mut self, context: Context, port: PortId, mut frame: F) -> bool {
        let mut sights = Sights::new();
        let mut burst = Burst::default();
        let _ = burst.push(frame);
        let (mut lanes, _) = self.sight(context.snapshot, port, &burst, &mut sights);
        self.look_behind(context.snapshot, &mut lanes.wide_v4, &mut sights.wide_v4);
        self.look_behind(context.snapshot, &mut lanes.wide_v6, &mut sights.wide_v6);
        let Some(taken) = burst.take(0) else { return false };
        frame = taken;
        let narrow =
            !lanes.narrow.is_empty() && self.carry(context, &sights.narrow.at(0), &mut frame).is_some();
        let wide_v4 = !lanes.wide_v4.live.is_empty()
            && self.carry(context, &sights.wide_v4.at(0), &mut frame).is_some();
        let wide_v6 = !lanes.wide_v6.live.is_empty()
            && self.carry(context, &sights.wide_v6.at(0), &mut frame).is_some();
        narrow || wide_v4 || wide_v6
    }
}

/// Whether a packet opens a connection.
#[inline(always)]
fn opens<A>(plain: &Plain<A>) -> bool {
    plain.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

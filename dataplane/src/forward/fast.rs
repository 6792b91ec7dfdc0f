//! The fast path: plain packets, which nearly all are. Those of flows that are known and stay as they are have the
//! shortest way; others begin a flow, or are for nobody.
//!
//! It takes such packets out of a burst and leaves all others to the four stages, which are its slow twin: they
//! would do the same with every packet, and tests hold both against each other. Packets of one flow keep their
//! order, but for those with IP options and pieces, which later ones of their burst may overtake.

mod ahead;
mod both_ways;
mod carry;
mod lane;
mod one_way;
mod open;
mod sights;

use lane::Waiting;
pub(super) use sights::Sights;
use sights::{Heading, Lane, Lanes, Narrow, Sighted, Wide, WideLane};

use super::flows::{Hashed, Tabled};
use super::{Context, Forwarder, Live, Outbox, PREFETCH_AHEAD};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::drops::DropReason;
use crate::flow::table::{FlowHash, Home};
use crate::flow::{FlowKey, Key, WideKey};
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
            self.foresee_directions(snapshot, burst);
        }
        let (mut lanes, mut waiting) = self.sight(snapshot, port, burst, &mut sights);
        if snapshot.has_locals() {
            self.look_behind(snapshot, &mut lanes.wide_v4, &mut sights.wide_v4);
            self.look_behind(snapshot, &mut lanes.wide_v6, &mut sights.wide_v6);
        }
        if far {
            self.foresee_backends(context, lanes.narrow, &sights.narrow);
            self.foresee_backends(context, lanes.wide_v4.live, &sights.wide_v4);
            self.foresee_backends(context, lanes.wide_v6.live, &sights.wide_v6);
        }
        let received = burst.len();
        let mut ended = self.drop_nobodys(snapshot, port, lanes.nobodys, burst);
        // Narrow flows come behind wide ones: where a service has both, requests of the narrow ones are found to
        // wait in the other lane, and so do their replies.
        if !lanes.wide_v4.live.is_empty() {
            ended +=
                self.carry_lane(context, (lanes.wide_v4.live, &mut waiting), &mut sights.wide_v4, burst, out);
        }
        if !lanes.narrow.is_empty() {
            ended += self.carry_lane(context, (lanes.narrow, &mut waiting), &mut sights.narrow, burst, out);
        }
        if !lanes.wide_v6.live.is_empty() {
            ended +=
                self.carry_lane(context, (lanes.wide_v6.live, &mut waiting), &mut sights.wide_v6, burst, out);
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
        let (places, both_ways) = (burst.places(), self.workers == 1 && snapshot.goes_both_ways());
        let mut slot = 0;
        if self.workers == 1 && !both_ways {
            slot = self.sight_requests(snapshot, station, burst, &mut sights.narrow);
            lanes.narrow = Live::first(slot);
        }
        while slot < places.len().min(BURST) {
            if both_ways {
                let end = self.sight_both_ways(snapshot, station, (burst, slot), &mut sights.narrow);
                lanes.narrow.join(Live::first(end).without(Live::first(slot)));
                slot = end;
            }
            // Where one of them is no such packet, the next ones are often not, either.
            while slot < places.len().min(BURST) {
                places.get(slot + PREFETCH_AHEAD).and_then(Option::as_ref).inspect(|frame| frame.prefetch());
                if let Some(frame) = places.get(slot).and_then(Option::as_ref) {
                    self.sight_one(snapshot, station, slot, frame, sights, (&mut lanes, &mut waiting));
                }
                slot += 1;
                if both_ways && lanes.narrow.has(slot - 1) {
                    break;
                }
            }
        }
        (lanes, waiting)
    }

    /// The same for one packet, whatever it is.
    #[inline(always)]
    fn sight_one(
        &self,
        snapshot: &Snapshot,
        station: Station,
        slot: usize,
        frame: &F,
        sights: &mut Sights,
        (lanes, waiting): (&mut Lanes, &mut Waiting),
    ) {
        let mut padded = NO_FRONT;
        let Some(front) = front(frame.head(), &mut padded) else { return waiting.leave(slot) };
        match station.kind(front) {
            Some(Kind::V4) => {
                let Some(plain) = glance_v4(front, frame.len()) else { return waiting.leave(slot) };
                let listener = snapshot.listener(&plain);
                match listener.and_then(Listener::sole) {
                    // Nearly all packets are such, so that nothing else is asked for them.
                    Some(service) if self.workers == 1 => {
                        lanes.narrow.keep(slot);
                        let client = ((plain.src, plain.src_port), service);
                        self.sight_narrow(slot, plain, client, &mut sights.narrow);
                    }
                    _ => self.sight_v4(snapshot, slot, plain, listener, sights, (lanes, waiting)),
                }
            }
            Some(Kind::V6) => self.sight_v6(snapshot, slot, frame, sights, (lanes, waiting)),
            None => waiting.leave(slot),
        }
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
            let Some(Some(frame)) = places.get(slot) else { return slot };
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
            Direction::Reply { service, .. } => {
                lanes.narrow.keep(slot);
                let client = ((plain.dst, plain.dst_port), service);
                self.sight_narrow(slot, plain, client, &mut sights.narrow);
                sights.narrow.head(slot, Heading::Reply);
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
        let direction = match listener {
            None if snapshot.has_only_requests::<A>() => None,
            _ => snapshot.direction(plain, listener),
        };
        let Some(direction) = direction else {
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
        let Plain { len, tcp_flags, .. } = plain;
        sighted.note(slot, Brief { len, tcp_flags }, key, hash, home);
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
        let brief = Brief { len: plain.len, tcp_flags: plain.tcp_flags };
        let (client, port, service, service_port, heading) = match direction {
            Direction::Request { service, .. } => {
                (plain.src, plain.src_port, service, plain.dst_port, Heading::Request)
            }
            Direction::Reply { service, vip } => (plain.dst, plain.dst_port, service, vip.1, Heading::Reply),
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
        let dropped = nobodys.filter(|slot| burst.take(*slot).is_some()).count();
        self.stats.drops.add(DropReason::NoService, dropped as u64);
        dropped
    }

    /// Finds out the clients for whom local addresses stand, and asks for their flows.
    #[inline]
    fn look_behind<A: Fast>(&self, snapshot: &Snapshot, lane: &mut WideLane, sighted: &mut Wide<A>) {
        for slot in lane.behind {
            let protocol = sighted.request(slot).brief.protocol();
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
            !lanes.narrow.is_empty() && self.carry_alone(context, &sights.narrow.at(0), &mut frame).is_some();
        let wide_v4 = !lanes.wide_v4.live.is_empty()
            && self.carry_alone(context, &sights.wide_v4.at(0), &mut frame).is_some();
        let wide_v6 = !lanes.wide_v6.live.is_empty()
            && self.carry_alone(context, &sights.wide_v6.at(0), &mut frame).is_some();
        narrow || wide_v4 || wide_v6
    }
}

/// Whether a packet opens a connection.
#[inline(always)]
fn opens<A>(plain: &Plain<A>) -> bool {
    plain.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

//! What the packets of a burst are: those in [rows](super::rows) together, all others one by one.

use super::super::flows::Tabled;
use super::super::{Forwarder, Live, PREFETCH_AHEAD};
use super::lane::{FEW, Waiting};
use super::rows::is_client;
use super::{Fast, Lane, Lanes, Sights, opens};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::flow::table::{FlowHash, Home};
use crate::parse::plain::{Brief, Kind, L3, NO_FRONT, Plain, Station, front, glance_v4, glance_v6};
use crate::port::PortId;
use crate::snapshot::{Direction, Listener, Rows, Snapshot};

/// Packets that are taken one by one where there was no row.
const BETWEEN_ROWS: usize = 8;

impl<F: Frame> Forwarder<F> {
    /// Finds the plain packets whose flows may be here, and asks for these.
    // By itself, so that nothing else takes its registers.
    #[inline(never)]
    pub(super) fn sight(
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
        sights.clear();
        let places = burst.places();
        let eights = self.sight_eights(snapshot, station, burst, sights, &mut lanes);
        let gaps = Live::first(eights.end).without(eights.known);
        if !gaps.is_empty() {
            self.sight_gaps(snapshot, station, (burst, gaps), sights, (&mut lanes, &mut waiting));
        }
        let (mut slot, mut next_row) = (eights.end, eights.end);
        while slot < places.len().min(BURST) {
            if slot >= next_row {
                let end = self.sight_row(snapshot, station, (burst, slot), sights, &mut lanes);
                // Where there is none, the next packets are often of many kinds, too.
                next_row = if end < slot + FEW { end + BETWEEN_ROWS } else { end };
                slot = end;
            }
            places.get(slot + PREFETCH_AHEAD).and_then(Option::as_ref).inspect(|frame| frame.prefetch());
            if let Some(frame) = places.get(slot).and_then(Option::as_ref) {
                self.sight_one(snapshot, station, slot, frame, sights, (&mut lanes, &mut waiting));
            }
            slot += 1;
        }
        sights.narrow.ask_rest(&self.flows);
        sights.wide.ask_rest(&self.flows);
        (lanes, waiting)
    }

    /// The same for those that were not known among eight.
    #[inline(never)]
    fn sight_gaps(
        &self,
        snapshot: &Snapshot,
        station: Station,
        (burst, gaps): (&Burst<F>, Live),
        sights: &mut Sights,
        (lanes, waiting): (&mut Lanes, &mut Waiting),
    ) {
        for slot in gaps {
            if let Some(frame) = burst.get(slot) {
                self.sight_one(snapshot, station, slot, frame, sights, (lanes, waiting));
            }
        }
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
                    Some(service) if self.owns((plain.src, plain.src_port)) => {
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
        self.sight_way(slot, plain, direction, &mut sights.narrow, &mut lanes.narrow);
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
            self.sight_way(slot, plain, direction, &mut sights.wide, &mut lanes.wide);
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
    ) -> Option<Direction> {
        let direction = match listener {
            None if snapshot.rows::<A>() == Rows::Requests => None,
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
        let owned = match direction {
            Direction::Request { .. } => self.owns((plain.src, plain.src_port)),
            _ => self.owns((plain.dst, plain.dst_port)),
        };
        owned.then_some(direction)
    }

    /// Notes a packet that goes a way.
    #[inline(never)]
    fn sight_way<A: Fast, K: Tabled>(
        &self,
        slot: usize,
        plain: Plain<A>,
        direction: Direction,
        lane: &mut Lane<A, K>,
        live: &mut Live,
    ) {
        let (src, dst) = ((plain.src, plain.src_port), (plain.dst, plain.dst_port));
        let (client, service, service_port) = match direction {
            Direction::Request { service } => (src, service, plain.dst_port),
            Direction::Reply { service, service_port } => (dst, service, service_port),
            // Nothing else is known of its flow until `look_behind`.
            Direction::LocalReply(local) => {
                lane.note(slot, Brief::of(&plain), K::EMPTY, FlowHash::ZERO, Home::default());
                lane.head_to(slot, (local, plain.dst_port));
                return self.foresee_behind(slot, lane);
            }
        };
        if !is_client(client.0) {
            return;
        }
        self.sight_flow(slot, plain, client, K::of(client, service, service_port), lane);
        lane.head_back(slot, matches!(direction, Direction::Reply { .. }));
        live.keep(slot);
    }
}

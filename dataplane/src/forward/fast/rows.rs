//! Rows: packets of a burst that follow each other and are of one kind, so that its code asks nothing else of them. Most
//! packets are in rows.

use std::hint::select_unpredictable;

use super::super::flows::Tabled;
use super::super::{Forwarder, Live, PREFETCH_AHEAD};
use super::{End, Fast, Lane, Lanes, Narrow, Sights, Wide};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::flow::table::Home;
use crate::flow::{FlowKey, WideKey};
use crate::parse::plain::{Brief, Kind, Plain, Station};
use crate::snapshot::{Listener, Rows, ServiceSlot, Snapshot};

/// Where a row begins.
pub(super) type Begin<'a, F> = (&'a Burst<F>, usize);

impl<F: Frame> Forwarder<F> {
    /// Finds the packets of a row, which is of the kind of its first packet, and asks for their flows. Returns where it
    /// ends: there, if that is of no kind.
    pub(super) fn sight_row(
        &self,
        snapshot: &Snapshot,
        station: Station,
        (burst, from): Begin<F>,
        sights: &mut Sights,
        lanes: &mut Lanes,
    ) -> usize {
        let front = burst.get(from).and_then(|frame| frame.head().first_chunk());
        let begin = (burst, from);
        match front.and_then(|front| station.kind(front)) {
            Some(Kind::V4) => {
                let (narrow, live) = (&mut sights.narrow, &mut lanes.narrow);
                let end = match snapshot.rows::<u32>() {
                    Rows::FullNat => return self.sight_full_nat(snapshot, station, begin, narrow, live),
                    Rows::BothWays => self.sight_both_ways(snapshot, station, begin, narrow),
                    _ => self.sight_requests(snapshot, station, begin, narrow),
                };
                live.join(self.owned(Live::between(from, end), narrow));
                end
            }
            Some(Kind::V6) => {
                let (wide, live) = (&mut sights.wide, &mut lanes.wide);
                let end = match snapshot.rows::<u128>() {
                    Rows::FullNat => return self.sight_full_nat(snapshot, station, begin, wide, live),
                    Rows::BothWays => self.sight_wide_both_ways::<true>(snapshot, station, begin, wide),
                    _ => self.sight_wide_both_ways::<false>(snapshot, station, begin, wide),
                };
                live.join(self.owned(Live::between(from, end), wide));
                end
            }
            None => from,
        }
    }

    /// The packets of a row whose flows are this worker's. They are told from others when all flows are noted: from a
    /// NIC that brings each worker its own there are no others.
    #[inline(always)]
    pub(super) fn owned<A: Fast, K: Tabled>(&self, row: Live, lane: &Lane<A, K>) -> Live {
        if self.workers == 1 { row } else { self.owned_among(row, lane) }
    }

    #[inline(never)]
    fn owned_among<A: Fast, K: Tabled>(&self, row: Live, lane: &Lane<A, K>) -> Live {
        let mut owned = row;
        for slot in row {
            if !self.owns(lane.key[slot].client_end::<A>()) {
                owned.leave(slot);
            }
        }
        owned
    }

    /// A row of packets for services whose flows are narrow.
    // Nothing else is in the loop, whose registers would not suffice; so with all rows.
    #[inline(never)]
    fn sight_requests(
        &self,
        snapshot: &Snapshot,
        station: Station,
        begin: Begin<F>,
        narrow: &mut Narrow,
    ) -> usize {
        row(station, begin, |slot, plain: Plain<u32>| {
            let service = snapshot.listener(&plain).and_then(Listener::sole)?;
            self.sight_narrow(slot, plain, ((plain.src, plain.src_port), service), narrow);
            Some(())
        })
    }

    /// A row of packets of narrow flows, whichever way they go.
    #[inline(never)]
    fn sight_both_ways(
        &self,
        snapshot: &Snapshot,
        station: Station,
        begin: Begin<F>,
        narrow: &mut Narrow,
    ) -> usize {
        row(station, begin, |slot, plain: Plain<u32>| {
            let (client, service, is_reply) = snapshot.narrow_flow(&plain)?;
            self.sight_narrow(slot, plain, (client, service), narrow);
            narrow.head_back(slot, is_reply);
            Some(())
        })
    }

    /// A row of packets of wide flows; with `REPLIES` whichever way they go.
    #[inline(never)]
    fn sight_wide_both_ways<const REPLIES: bool>(
        &self,
        snapshot: &Snapshot,
        station: Station,
        begin: Begin<F>,
        wide: &mut Wide,
    ) -> usize {
        row(station, begin, |slot, plain: Plain<u128>| {
            let flow = snapshot.wide_flow::<u128, REPLIES>(&plain)?;
            let (client, port) = flow.client;
            is_client(client).then_some(())?;
            let key = WideKey::new(client, port, flow.service, flow.service_port);
            self.sight_flow(slot, plain, (client, port), key, wide);
            if REPLIES {
                wide.head_back(slot, flow.is_reply);
            }
            Some(())
        })
    }

    /// A row of packets of full NAT, whichever way they go, and of requests to other services.
    #[inline(never)]
    fn sight_full_nat<A: Fast, K: Tabled>(
        &self,
        snapshot: &Snapshot,
        station: Station,
        (burst, from): Begin<F>,
        lane: &mut Lane<A, K>,
        live: &mut Live,
    ) -> usize {
        let mut replies = Live::default();
        let end = row(station, (burst, from), |slot, plain: Plain<A>| {
            let flow = snapshot.full_nat_flow(&plain)?;
            is_client(plain.src).then_some(())?;
            // Of a reply nothing is known but where it goes until `look_behind`.
            let key = K::of((plain.src, plain.src_port), flow.service, plain.dst_port);
            let hash = self.flows.hash_of(plain.src, plain.src_port);
            // Else the first line, which is near: no jump.
            let home = K::home(&self.flows, key.line(hash));
            let home = select_unpredictable(flow.is_reply, Home::default(), home);
            K::prefetch_home(&self.flows, home);
            K::prefetch_ports(&self.flows, home);
            lane.note(slot, Brief::of(&plain), key, hash, home);
            (lane.local[slot], lane.local_port[slot]) = (flow.local, plain.dst_port);
            replies.keep_if(slot, flow.is_reply);
            Some(())
        });
        live.join(self.owned(Live::between(from, end), lane).without(replies));
        lane.replies.join(replies);
        lane.local_replies.join(replies);
        // Not by the way, where a jump would depend on which way a packet goes.
        for slot in replies {
            self.foresee_behind(slot, lane);
        }
        end
    }

    /// Asks for what tells whose flow a reply to a local address is of.
    #[inline(always)]
    pub(super) fn foresee_behind<A: Fast, K: Tabled>(&self, slot: usize, lane: &mut Lane<A, K>) {
        let protocol = lane.request(slot).brief.protocol();
        lane.place[slot] = self.flows.prefetch_local(lane.local[slot], protocol, lane.local_port[slot]);
    }

    /// Finds out the clients for whom local addresses stand, and asks for their flows. A gateway's are for the stages, and of
    /// IPv4 those of services with several ports.
    #[inline]
    pub(super) fn look_behind<A: Fast, K: Tabled>(&self, lane: &mut Lane<A, K>, live: &mut Live) {
        for slot in lane.local_replies {
            let Some(key) = lane.place[slot].and_then(|at| K::behind(&self.flows, at)) else { continue };
            let (client, port) = key.client_end::<A>();
            let hash = self.flows.hash_of(client, port);
            let home = K::prefetch(&self.flows, key.line(hash));
            K::prefetch_ports(&self.flows, home);
            (lane.key[slot], lane.hash[slot], lane.home[slot]) = (key, hash, home);
            live.keep(slot);
        }
    }

    /// Notes a packet of a client's narrow flow.
    #[inline(always)]
    pub(super) fn sight_narrow(
        &self,
        slot: usize,
        plain: Plain<u32>,
        ((client, port), service): (End<u32>, ServiceSlot),
        narrow: &mut Narrow,
    ) {
        self.sight_flow(slot, plain, (client, port), FlowKey::new(client, port, service), narrow);
    }

    /// Notes a packet of a client's flow, and asks for that.
    #[inline(always)]
    pub(super) fn sight_flow<A: Fast, K: Tabled>(
        &self,
        slot: usize,
        plain: Plain<A>,
        (client, port): End<A>,
        key: K,
        lane: &mut Lane<A, K>,
    ) {
        let hash = self.flows.hash_of(client, port);
        let home = K::home(&self.flows, key.line(hash));
        lane.note(slot, Brief::of(&plain), key, hash, home);
        lane.ask(slot, &self.flows);
    }

    /// Whether a client's flows are this worker's.
    #[inline(always)]
    pub(super) fn owns<A: Fast>(&self, (client, port): End<A>) -> bool {
        self.workers == 1 || client.owner(&self.owners, port) == self.number
    }
}

/// Whether an address may be a client's: no flow has another, and an empty place may look like one.
#[inline(always)]
pub(super) fn is_client<A: Fast>(address: A) -> bool {
    address != A::default()
}

/// Reads the packets of a row as long as they are plain and taken. Returns where it ends.
#[inline(always)]
fn row<F: Frame, A: Fast>(
    station: Station,
    (burst, from): Begin<F>,
    mut take: impl FnMut(usize, Plain<A>) -> Option<()>,
) -> usize {
    let places = burst.all_places();
    for slot in from..BURST {
        places.get(slot + PREFETCH_AHEAD).and_then(Option::as_ref).inspect(|frame| frame.prefetch());
        let Some(frame) = &places[slot] else { return slot };
        let Some(plain) = A::glance(station, frame.head(), frame.len()) else { return slot };
        if take(slot, plain).is_none() {
            return slot;
        }
    }
    BURST
}

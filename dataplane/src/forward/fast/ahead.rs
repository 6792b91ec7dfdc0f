//! Asks early for what the packets of a burst will need, where services and backends are too many for the caches, or
//! new.
//!
//! Each step reads only what an earlier one asked for, for all packets of the burst, so that memory works on all of
//! them at once.

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live, PREFETCH_AHEAD};
use super::carry::backend as backend_of;
use super::{Fast, Heading, Lane};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::parse::plain::{Kind, L3, NO_FRONT, Station, front, glance_v4, glance_v6};
use crate::port::PortId;
use crate::prefetch::prefetch_all;
use crate::snapshot::{BackendSlot, Carriage, Snapshot};

impl<F: Frame> Forwarder<F> {
    /// Asks for what tells which way packets go.
    #[inline(never)]
    pub(super) fn foresee_directions(&self, snapshot: &Snapshot, port: PortId, burst: &Burst<F>) {
        let (station, mut padded) = (Station::new(snapshot.mac(port).unwrap_or_default()), NO_FRONT);
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        for slot in 0..burst.len() {
            burst.get(slot + PREFETCH_AHEAD).inspect(|frame| frame.prefetch());
            let Some(frame) = burst.get(slot) else { continue };
            let Some(front) = front(frame.head(), &mut padded) else { continue };
            match station.kind(front) {
                Some(Kind::V4) => {
                    glance_v4(front, frame.len()).inspect(|plain| snapshot.prefetch_direction(plain));
                }
                Some(Kind::V6) => {
                    let ip = frame.head().get(L3..);
                    ip.and_then(|ip| glance_v6(ip, frame.len()))
                        .inspect(|plain| snapshot.prefetch_direction(plain));
                }
                None => {}
            }
        }
    }

    /// Asks for what is known of the backends of a lane's packets, also of those that will get their flows.
    #[inline(never)]
    pub(super) fn foresee_backends<A: Fast, K: Tabled>(
        &self,
        context: Context,
        live: Live,
        sighted: &Lane<A, K>,
        burst: &Burst<F>,
    ) {
        let snapshot = context.snapshot;
        let mut new = Live::default();
        for slot in live {
            let known = sighted.at(slot);
            if let Some((_, flow)) = known.key.get(&self.flows, known.home, &known.hash) {
                self.prefetch_backend(snapshot, flow.backend());
            } else if matches!(known.heading, Heading::Request) {
                snapshot.prefetch_service(known.key.service());
                self.schedulers.prefetch(known.key.service());
                new.keep(slot);
            }
        }
        if !new.is_empty() {
            self.foresee_openings(snapshot, new, sighted, burst);
        }
    }

    fn foresee_openings<A: Fast, K: Tabled>(
        &self,
        snapshot: &Snapshot,
        new: Live,
        sighted: &Lane<A, K>,
        burst: &Burst<F>,
    ) {
        let service_of = |slot: usize| {
            let service = sighted.key[slot].service();
            Some((service, snapshot.service(service)?))
        };
        for (_, service) in new.filter_map(service_of) {
            prefetch_all(service);
        }
        for (slot, service) in new.filter_map(service_of) {
            self.schedulers.prefetch_next(slot, service);
        }
        let mut backends = [None; BURST];
        for slot in new {
            let next = service_of(slot).and_then(|(slot, service)| self.schedulers.next(slot, service));
            next.inspect(|backend| self.prefetch_backend(snapshot, *backend));
            backends[slot] = next;
        }
        for slot in new {
            let way = backends[slot].and_then(|backend| snapshot.way(backend));
            if let Some(way) = way.filter(|way| way.carriage == Carriage::Nat && way.is_of::<A>())
                && let Some(plain) =
                    burst.get(slot).and_then(|frame| sighted.at(slot).brief.plain(frame.head()))
            {
                snapshot.prefetch_replies(plain.protocol, backend_of::<A>(way, &plain));
            }
        }
    }

    /// Asks for the lines besides their home lines that the flow table will need for a lane's openings.
    #[inline(never)]
    pub(super) fn foresee_places<A: Fast, K: Tabled>(&self, live: Live, sighted: &Lane<A, K>) {
        if !K::is_far(&self.flows) {
            return;
        }
        let mut apart = Live::default();
        for slot in live {
            let known = sighted.request(slot);
            // No jump that depends on it: which it will be cannot be predicted.
            apart.keep_if(slot, known.may_begin() & known.key.needs_alternate(&self.flows, known.home));
        }
        for slot in apart {
            sighted.key[slot].prefetch_alternate(&self.flows, &sighted.hash[slot]);
        }
        for slot in apart {
            sighted.key[slot].prefetch_moves(&self.flows, &sighted.hash[slot]);
        }
    }

    #[inline(always)]
    fn prefetch_backend(&self, snapshot: &Snapshot, backend: BackendSlot) {
        snapshot.prefetch_way(backend);
        self.stats.prefetch_backend(backend);
    }
}

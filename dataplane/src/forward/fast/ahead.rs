//! Asks early for what the packets of a burst will need, where the services and backends that have packets are too many
//! for the caches, or new.
//!
//! Each step reads only what an earlier one asked for, for all packets of the burst, so that memory works on all of
//! them at once.

use config::words::Protocol;

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live, PREFETCH_AHEAD};
use super::{End, Fast, Heading, Lane, Sighted};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::parse::plain::L3;
use crate::prefetch::prefetch;
use crate::snapshot::Snapshot;
use crate::wire::{ipv4, ipv6};

impl<F: Frame> Forwarder<F> {
    /// Asks for what tells which way packets go.
    #[inline(never)]
    pub(super) fn foresee_directions(&self, snapshot: &Snapshot, burst: &Burst<F>) {
        for slot in 0..burst.len().min(PREFETCH_AHEAD) {
            burst.get(slot).inspect(|frame| frame.prefetch());
        }
        for slot in 0..burst.len() {
            burst.get(slot + PREFETCH_AHEAD).inspect(|frame| frame.prefetch());
            let head = burst.get(slot).map(F::head).unwrap_or_default();
            match head.split_at_checked(L3) {
                Some(([.., 0x08, 0x00], ip)) => foresee_direction::<u32>(snapshot, ip),
                Some(([.., 0x86, 0xdd], ip)) => foresee_direction::<u128>(snapshot, ip),
                _ => {}
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
    ) {
        let snapshot = context.snapshot;
        let mut new = Live::default();
        for slot in live {
            let known = sighted.at(slot);
            if let Some((_, flow)) = known.key.get_in(&self.flows, known.home) {
                snapshot.prefetch_way(flow.backend());
                self.stats.prefetch_backend(flow.backend());
            } else if known.key.elsewhere(&self.flows, known.home, &known.hash).is_none()
                && matches!(known.heading, Heading::Request)
            {
                snapshot.prefetch_service(known.key.service());
                self.schedulers.prefetch(known.key.service());
                new.keep(slot);
            }
        }
        if !new.is_empty() {
            self.foresee_openings(snapshot, new, sighted);
        }
    }

    fn foresee_openings<A: Fast, K: Tabled>(&self, snapshot: &Snapshot, new: Live, sighted: &Lane<A, K>) {
        let service_of = |slot: usize| {
            let service = sighted.key[slot].service();
            Some((service, snapshot.service(service)?))
        };
        for (_, service) in new.filter_map(service_of) {
            prefetch(service);
        }
        for (slot, service) in new.filter_map(service_of) {
            self.schedulers.prefetch_next(slot, service);
        }
        for (slot, service) in new.filter_map(service_of) {
            if let Some(backend) = self.schedulers.next(slot, service) {
                snapshot.prefetch_way(backend);
                self.stats.prefetch_backend(backend);
                self.stats.prefetch_new(backend);
            }
        }
    }

    /// Asks for what openings of a lane need of the flow table besides their home lines, and of local ports and headroom.
    #[inline(never)]
    pub(super) fn foresee_places<A: Fast, K: Tabled>(
        &mut self,
        snapshot: &Snapshot,
        live: Live,
        sighted: &Lane<A, K>,
        burst: &Burst<F>,
    ) {
        if !K::is_far(&self.flows) {
            return;
        }
        // What is stored for an opening is more than can wait for such a line.
        if snapshot.uses.tunnels {
            for frame in live.filter_map(|slot| burst.get(slot)) {
                prefetch(frame.head().as_ptr().wrapping_sub(A::HEADER_LEN));
            }
        }
        let mut live = live;
        if snapshot.has_locals() {
            if self.flows.is_any_spent() {
                self.foresee_refusals(snapshot, &mut live, sighted);
            }
            if self.flows.are_ports_far() {
                self.foresee_new_ports(snapshot, live, sighted);
            }
            // Where flows were over, others are so, too.
            if self.flows.gave_back() {
                self.foresee_local_ports(live, sighted);
            }
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
        if !K::is_crowded(&self.flows) {
            return;
        }
        for slot in apart {
            sighted.key[slot].prefetch_moves(&self.flows, &sighted.hash[slot]);
        }
    }

    /// The same of what openings need that will find no local port: only whether their flows are there. They are not in `live`
    /// any more.
    #[inline(never)]
    fn foresee_refusals<A: Fast, K: Tabled>(
        &self,
        snapshot: &Snapshot,
        live: &mut Live,
        sighted: &Lane<A, K>,
    ) {
        // Nearly always all packets have the same pool, and it may have many addresses.
        let mut last = (None, false);
        for slot in *live {
            let known = sighted.request(slot);
            let pool = snapshot.service(known.key.service()).and_then(|service| service.pool);
            let of = pool.map(|pool| (pool, known.brief.protocol()));
            if of != last.0 {
                let locals = |(pool, protocol)| Some((snapshot.pool_of::<A>(pool)?, protocol));
                let is_spent = |(locals, protocol)| self.flows.are_spent(locals, protocol);
                last = (of, of.and_then(locals).is_some_and(is_spent));
            }
            // One whose flow is over has a port: its own.
            if last.1 && known.key.get_in(&self.flows, known.home).is_none() {
                // Asks for the other line, if it may be there.
                let _ = known.key.elsewhere(&self.flows, known.home, &known.hash);
                live.leave(slot);
            }
        }
    }

    /// The same of the local ports that openings will take. All are asked for together, for the processor hardly ever knows
    /// where such a place is, and finds out for several at once.
    #[inline(never)]
    fn foresee_new_ports<A: Fast, K: Tabled>(
        &mut self,
        snapshot: &Snapshot,
        live: Live,
        sighted: &Lane<A, K>,
    ) {
        let mut last = (None, &[][..]);
        let begins = |known: &Sighted<A, K>| {
            known.opens() || known.may_begin() && known.key.get_in(&self.flows, known.home).is_none()
        };
        let mut new = Live::default();
        for slot in live.without(sighted.replies) {
            new.keep_if(slot, begins(&sighted.request(slot)));
        }
        for known in new.map(|slot| sighted.request(slot)) {
            let service = known.key.service();
            if last.0 != Some(service) {
                let pool = snapshot.service(service).and_then(|service| service.pool);
                last = (Some(service), pool.and_then(|pool| snapshot.pool_of::<A>(pool)).unwrap_or_default());
            }
            let client = known.key.client_end::<A>().0.wide() as u32;
            self.flows.foresee_taking(client, known.brief.protocol(), last.1);
        }
    }

    /// The same of the local ports that flows give back which are over.
    #[inline(never)]
    fn foresee_local_ports<A: Fast, K: Tabled>(&self, live: Live, sighted: &Lane<A, K>) {
        for known in live.map(|slot| sighted.request(slot)).filter(Sighted::may_begin) {
            if let Some((place, flow)) = known.key.get_in(&self.flows, known.home)
                && flow.has_local()
            {
                let port = K::local_port(&self.flows, place);
                self.flows.prefetch_local(flow.local(), known.brief.protocol(), port);
            }
        }
    }
}

#[inline(always)]
fn foresee_direction<A: Fast>(snapshot: &Snapshot, ip: &[u8]) {
    if let Some((protocol, src, dst)) = peek::<A>(ip) {
        snapshot.prefetch_direction(protocol, src, dst);
    }
}

/// Protocol and ends of a packet, if it is what nearly all are. Nothing is checked: to ask for what is not needed does no
/// harm.
type Glimpse<A> = (Protocol, End<A>, End<A>);

#[inline(always)]
fn peek<A: Fast>(ip: &[u8]) -> Option<Glimpse<A>> {
    let (next, len) =
        if A::IS_V4 { (ipv4::PROTOCOL, ipv4::HEADER_LEN) } else { (ipv6::NEXT, ipv6::HEADER_LEN) };
    let (src, dst) = A::addresses(ip)?;
    let ports = u32::from_be_bytes(*ip.get(len..)?.first_chunk()?);
    let protocol = protocol_of(*ip.get(next)?)?;
    Some((protocol, (src, (ports >> 16) as u16), (dst, ports as u16)))
}

#[inline(always)]
fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        ipv4::PROTOCOL_TCP => Some(Protocol::Tcp),
        ipv4::PROTOCOL_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

//! The fourth stage: change each frame for where it goes, and hand it to its port.

use std::net::{IpAddr, SocketAddr};

use config::words::{ClientAddress, Mode};

use super::introduce::preface_len;
use super::{Batch, Context, Forwarder, Live, Outbox, Target, Work};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::local::LocalSlot;
use crate::packet::{Headers, Packet};
use crate::rewrite::{dr, echo, mss, nat, translate, tunnel};
use crate::snapshot::{Backend, BackendSlot, Egress, Snapshot};
use crate::wire::tcp;

impl<F: Frame> Forwarder<F> {
    /// Fourth stage: change each frame and hand it to its port.
    pub(super) fn deliver(
        &mut self,
        context: Context,
        live: Live,
        batch: &Batch,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) {
        for slot in live {
            let work = &batch[slot];
            let Some(frame) = burst.take(slot) else { continue };
            self.deliver_one(context, work, frame, out);
        }
    }

    /// Changes one frame and hands it to its port.
    #[inline]
    pub(super) fn deliver_one(&mut self, context: Context, work: &Work, mut frame: F, out: &mut Outbox<F>) {
        // Padding ends here: the device adds its own where a frame needs it.
        frame.truncate(usize::from(work.headers.ip.l3) + usize::from(work.headers.ip.len));
        let refused = match work.target {
            Target::Backend => match self.deliver_to_backend(context, work, &mut frame) {
                Ok(egress) => return self.send(frame, egress, out),
                Err(why) => why,
            },
            _ => match self.elsewhere(context, work, &mut frame) {
                Ok(egress) => return self.send(frame, &egress, out),
                Err(why) => why,
            },
        };
        self.refuse(context, work, refused, Some(frame), out);
    }

    /// Everything but the plain way to a backend.
    #[inline]
    fn elsewhere(&mut self, context: Context, work: &Work, frame: &mut F) -> Result<Egress, DropReason> {
        match work.target {
            Target::Backend => self.deliver_to_backend(context, work, frame).copied(),
            Target::BackendFrom(local, port) => self.deliver_from(context, work, (local, port), frame),
            Target::Client { from } => self.deliver_to_client(context, work, from, frame),
            Target::ClientAt { client, port, from } => {
                self.deliver_at(context, work, SocketAddr::new(client, port), from, frame)
            }
            Target::Onward | Target::OnwardFrom(..) | Target::Inside { .. } => {
                self.route(context, work, frame)
            }
            Target::Over(_) => Err(DropReason::FlowReset),
        }
    }

    #[inline(always)]
    fn deliver_to_backend<'a>(
        &mut self,
        context: Context<'a>,
        work: &Work,
        frame: &mut F,
    ) -> Result<&'a Egress, DropReason> {
        let snapshot = context.snapshot;
        let backend = snapshot.backend(work.backend).ok_or(DropReason::NoBackend)?;
        let egress = snapshot.backend_egress(work.backend).ok_or(DropReason::NoRoute)?;
        let headers = &work.headers;
        if headers.ip.len > backend.room(egress.mtu) {
            return Err(DropReason::TooBig);
        }
        if headers.tcp_flags & tcp::SYN != 0 {
            clamp(snapshot, work, frame);
        }
        match (backend.mode, backend.tunnel) {
            (Mode::Dr, _) => dr::to_backend(frame, &headers.ip, &egress.link)?,
            (Mode::Tunnel, Some(through)) => {
                let outer = backend.outer(&through, work.hash.entropy());
                let id = if headers.ip.dont_fragment && headers.ip.is_v4() { 0 } else { self.next_id() };
                tunnel::wrap(frame, &headers.ip, &outer, id, &egress.link)?;
            }
            _ => nat::to_backend(frame, headers, endpoint(backend, headers), &egress.link)?,
        }
        self.note_in(work);
        Ok(egress)
    }

    #[inline]
    fn deliver_from(
        &mut self,
        context: Context,
        work: &Work,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let snapshot = context.snapshot;
        let backend = snapshot.backend(work.backend).ok_or(DropReason::NoBackend)?;
        let egress = snapshot.backend_egress(work.backend).ok_or(DropReason::NoRoute)?;
        let address = snapshot.local_address(local.0).ok_or(DropReason::LocalPortsExhausted)?;
        if work.headers.tcp_flags & tcp::SYN != 0 {
            clamp(snapshot, work, frame);
        }
        let ends = (SocketAddr::new(address, local.1), endpoint(backend, &work.headers));
        if backend.client_address == ClientAddress::None {
            self.readdress(frame, &work.headers, ends, egress)?;
        } else {
            let headers = self.introduce(backend, egress, work, local, frame)?;
            self.readdress(frame, &headers, ends, egress)?;
        }
        self.note_in(work);
        Ok(*egress)
    }

    #[inline(always)]
    fn deliver_to_client(
        &mut self,
        context: Context,
        work: &Work,
        from: u16,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let snapshot = context.snapshot;
        let service = snapshot.service(work.service).ok_or(DropReason::NoService)?;
        let egress = snapshot.egress_to(work.headers.ip.addresses.dst()).ok_or(DropReason::NoRoute)?;
        if work.headers.ip.len > egress.mtu {
            return Err(DropReason::TooBig);
        }
        if work.headers.tcp_flags & tcp::SYN != 0 {
            clamp(snapshot, work, frame);
        }
        nat::to_client(frame, &work.headers, SocketAddr::new(service.key.address, from), &egress.link)?;
        self.note_out(work);
        Ok(egress)
    }

    #[inline]
    fn deliver_at(
        &mut self,
        context: Context,
        work: &Work,
        client: SocketAddr,
        from: u16,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let snapshot = context.snapshot;
        let service = snapshot.service(work.service).ok_or(DropReason::NoService)?;
        let egress = snapshot.egress_to(client.ip()).ok_or(DropReason::NoRoute)?;
        if work.headers.tcp_flags & tcp::SYN != 0 {
            clamp(snapshot, work, frame);
        }
        let backend = snapshot.backend(work.backend);
        if let Some(backend) = backend.filter(|it| it.client_address != ClientAddress::None) {
            self.count_as_client(backend, work, client.ip(), frame);
        }
        let ends = (SocketAddr::new(service.key.address, from), client);
        self.readdress(frame, &work.headers, ends, &egress)?;
        self.note_out(work);
        Ok(egress)
    }

    /// Gives a packet both ends anew, of the other IP version where these are so (RFC 7915).
    #[inline]
    fn readdress(
        &mut self,
        frame: &mut F,
        headers: &Headers,
        (src, dst): (SocketAddr, SocketAddr),
        egress: &Egress,
    ) -> Result<(), DropReason> {
        let v4 = headers.ip.is_v4();
        if len_toward(&headers.ip, dst.ip()) > egress.mtu {
            return Err(DropReason::TooBig);
        }
        match (src, dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) if !v4 => {
                let id = self.next_id();
                translate::to_v4(frame, headers, src, dst, id, &egress.link)
            }
            (SocketAddr::V6(src), SocketAddr::V6(dst)) if v4 => {
                translate::to_v6(frame, headers, src, dst, &egress.link)
            }
            _ => nat::both(frame, headers, src, dst, &egress.link),
        }
    }

    /// Sends a packet on its way that is no service's, as a router does.
    #[cold]
    pub(super) fn route(
        &mut self,
        context: Context,
        work: &Work,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let (snapshot, headers) = (context.snapshot, &work.headers);
        let to = match work.target {
            Target::Inside { station, .. } => station,
            _ => headers.ip.addresses.dst(),
        };
        let egress = snapshot.egress_to(to).ok_or(DropReason::NoRoute)?;
        if headers.ip.len > egress.mtu {
            return Err(DropReason::TooBig);
        }
        let echo = headers.ip.is_icmp();
        match work.target {
            Target::Inside { station, port } if echo => {
                echo::to_station(frame, &headers.ip, SocketAddr::new(station, port), &egress.link)?;
            }
            Target::Inside { station, port } => {
                nat::to_backend(frame, headers, SocketAddr::new(station, port), &egress.link)?;
            }
            Target::OnwardFrom(local, port) => {
                let address = snapshot.local_address(local).ok_or(DropReason::LocalPortsExhausted)?;
                let local = SocketAddr::new(address, port);
                if echo {
                    echo::from_local(frame, &headers.ip, local, &egress.link)?;
                } else {
                    nat::to_client(frame, headers, local, &egress.link)?;
                }
            }
            _ => dr::to_backend(frame, &headers.ip, &egress.link)?,
        }
        self.stats.routed.add(1);
        Ok(egress)
    }

    #[inline]
    fn note_in(&self, work: &Work) {
        if !work.made {
            self.count_in(work.backend, work.headers.ip.len);
        }
    }

    #[inline]
    fn note_out(&self, work: &Work) {
        if !work.made {
            self.count_out(work.backend, work.headers.ip.len);
        }
    }

    #[inline]
    pub(super) fn count_in(&self, backend: BackendSlot, len: u16) {
        self.stats.backend(backend).count_in(len);
    }

    #[inline]
    pub(super) fn count_out(&self, backend: BackendSlot, len: u16) {
        self.stats.backend(backend).count_out(len);
    }
}

/// The backend's end of a client's packet.
#[inline]
fn endpoint(backend: &Backend, headers: &Headers) -> SocketAddr {
    SocketAddr::new(backend.address.ip(), headers.dst_port.wrapping_add(backend.port_shift))
}

/// Length that a packet has in the IP version of who it goes to, in bytes.
#[inline]
pub(super) fn len_toward(packet: &Packet, to: IpAddr) -> u16 {
    match (packet.is_v4(), to) {
        (true, IpAddr::V6(_)) => translate::len_as_v6(packet),
        (false, IpAddr::V4(_)) => translate::len_as_v4(packet),
        _ => packet.len,
    }
}

/// Lowers the segment size that an opening announces to what the service allows.
#[cold]
fn clamp(snapshot: &Snapshot, work: &Work, frame: &mut impl Frame) {
    if let Some(most) = snapshot.service(work.service).and_then(|service| service.mss) {
        mss::clamp(frame.head_mut(), &work.headers, most);
    }
}

/// The longest packet that would have gone on, where one is refused as too big.
pub(super) fn longest(snapshot: &Snapshot, work: &Work) -> Option<u16> {
    match work.target {
        Target::Backend => {
            let mtu = snapshot.backend_egress(work.backend)?.mtu;
            Some(snapshot.backend(work.backend)?.room(mtu))
        }
        Target::BackendFrom(..) => {
            let backend = snapshot.backend(work.backend)?;
            let mtu = snapshot.backend_egress(work.backend)?.mtu;
            let longest = translated(mtu, work.headers.ip.is_v4(), backend.address.ip());
            Some(longest.saturating_sub(preface_len(backend, &work.headers).into()))
        }
        Target::ClientAt { client, .. } => {
            Some(translated(snapshot.egress_to(client)?.mtu, work.headers.ip.is_v4(), client))
        }
        Target::Inside { station, .. } => Some(snapshot.egress_to(station)?.mtu),
        Target::Over(_) => None,
        Target::Client { .. } | Target::Onward | Target::OnwardFrom(..) => {
            Some(snapshot.egress_to(work.headers.ip.addresses.dst())?.mtu)
        }
    }
}

/// The longest packet that becomes none longer than `mtu` by translation to the IP version of `to`
/// (RFC 7915, 4.2 and 5.2: the headers differ by 20 bytes).
fn translated(mtu: u16, v4: bool, to: IpAddr) -> u16 {
    match (v4, to) {
        (true, IpAddr::V6(_)) => mtu.saturating_sub(20),
        (false, IpAddr::V4(_)) => mtu.saturating_add(20),
        _ => mtu,
    }
}

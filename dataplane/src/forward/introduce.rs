//! Full NAT hides clients from their backends; here they are told who it is, where the service says so.

use std::net::{IpAddr, SocketAddr};

use config::words::{ClientAddress, Protocol};

use super::deliver::len_toward;
use super::{Forwarder, Role, Work};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::local::LocalSlot;
use crate::packet::{Headers, Packet};
use crate::rewrite::proxy::{self, Header};
use crate::rewrite::quote::Quoted;
use crate::rewrite::sequence::{self, Introduction, Need};
use crate::rewrite::{mss, toa};
use crate::snapshot::{Backend, BackendSlot, Egress, Local, Snapshot};
use crate::wire::{ipv4, ipv6};

impl<F: Frame> Forwarder<F> {
    /// Puts into a client's packet what its backend is to learn, if that is due, and makes its numbers those of the
    /// backend. Returns its headers as they are then.
    ///
    /// # Errors
    /// [`DropReason::TooBig`] if there is no room for it, and what [`proxy::prepend`] may say.
    #[inline(never)]
    pub(super) fn introduce(
        &mut self,
        backend: &Backend,
        egress: &Egress,
        work: &Work,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Result<Headers, DropReason> {
        let headers = &work.headers;
        // What is refused is quoted to its client, who has to know the numbers in it.
        if !fits(backend, egress, headers, 0) {
            return Err(DropReason::TooBig);
        }
        match (backend.client_address, headers.protocol) {
            _ if !headers.has_transport() => Ok(*headers),
            (ClientAddress::Toa, _) => self.mark(backend, egress, headers, local, frame),
            (_, Protocol::Tcp) => self.begin_stream(backend, egress, headers, local, frame),
            (_, Protocol::Udp) => self.begin_datagrams(backend, egress, headers, local, frame),
        }
    }

    /// The PROXY header of a TCP connection.
    fn begin_stream(
        &mut self,
        backend: &Backend,
        egress: &Egress,
        headers: &Headers,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Result<Headers, DropReason> {
        let (sequence, has_payload) =
            sequence::of_segment(frame.head_mut(), headers).ok_or(DropReason::Scattered)?;
        let introduction = self.flows.introduction(local, Protocol::Tcp).ok_or(DropReason::NoFlow)?;
        if super::bind::opens(headers) {
            introduction.begin(sequence, preface_len(backend, headers));
        }
        match introduction.need(sequence, headers.tcp_flags, has_payload) {
            Need::Nothing => Ok(*headers),
            Need::Shift => {
                sequence::shift(frame.head_mut(), headers, introduction);
                Ok(*headers)
            }
            Need::Bytes => prepend(backend, egress, headers, frame),
        }
    }

    /// The PROXY header of a flow of UDP, in each datagram that has to have it.
    fn begin_datagrams(
        &mut self,
        backend: &Backend,
        egress: &Egress,
        headers: &Headers,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Result<Headers, DropReason> {
        let introduction = self.flows.introduction(local, Protocol::Udp).ok_or(DropReason::NoFlow)?;
        match is_due(backend, introduction) {
            true => prepend(backend, egress, headers, frame),
            false => Ok(*headers),
        }
    }

    /// The TCP option, in all segments before the client's first byte and with it. A segment that has no room for it
    /// goes without.
    fn mark(
        &mut self,
        backend: &Backend,
        egress: &Egress,
        headers: &Headers,
        local: (LocalSlot, u16),
        frame: &mut F,
    ) -> Result<Headers, DropReason> {
        let (sequence, _) = sequence::of_segment(frame.head_mut(), headers).ok_or(DropReason::Scattered)?;
        let introduction = self.flows.introduction(local, Protocol::Tcp).ok_or(DropReason::NoFlow)?;
        if super::bind::opens(headers) {
            introduction.begin(sequence, 0);
        }
        if introduction.need(sequence, headers.tcp_flags, false) != Need::Bytes {
            return Ok(*headers);
        }
        let client = client_of(headers);
        let fits = fits(backend, egress, headers, toa::len(client.ip()));
        let marked = if fits { toa::add(frame, headers, client).ok().flatten() } else { None };
        if marked.is_none() {
            self.stats.addresses_untold.add(1);
        }
        Ok(marked.unwrap_or(*headers))
    }

    /// Makes the numbers of a backend's segment those of its client, and notes what the backend has.
    #[inline(never)]
    pub(super) fn count_as_client(&mut self, backend: &Backend, work: &Work, client: IpAddr, frame: &mut F) {
        let (headers, Role::LocalReply(slot)) = (&work.headers, work.role) else { return };
        let local = (slot, headers.dst_port);
        let Some(introduction) = self.flows.introduction(local, headers.protocol) else { return };
        if headers.protocol == Protocol::Udp {
            // Datagrams may be lost, and have no numbers that tell. Who answers has one with the header.
            introduction.end();
            return;
        }
        sequence::shift_back(frame.head_mut(), headers, introduction);
        // The client's first segment gets longer than the client knows. What the backend sends does not.
        let more = added(backend, client, introduction);
        mss::make_room(frame.head_mut(), headers, more);
    }

    /// Makes what an error says of a segment that went to a backend right for its client, who numbers it otherwise and
    /// sent it shorter.
    pub(super) fn quote_as_client(
        &mut self,
        snapshot: &Snapshot,
        packet: &Packet,
        quoted: &Quoted,
        (backend, client): (Option<BackendSlot>, IpAddr),
        frame: &mut F,
    ) {
        let Some(Local::Snat(slot)) = snapshot.local(quoted.src.ip()) else { return };
        let backend = backend.and_then(|slot| snapshot.backend(slot));
        let Some(backend) = backend.filter(|it| it.client_address != ClientAddress::None) else { return };
        let protocol = match quoted.protocol {
            ipv4::PROTOCOL_TCP => Protocol::Tcp,
            ipv4::PROTOCOL_UDP => Protocol::Udp,
            _ => return,
        };
        let local = (slot, quoted.src.port());
        let Some(introduction) = self.flows.introduction(local, protocol) else { return };
        let least = if client.is_ipv6() && !packet.is_v4() { ipv6::MIN_MTU } else { ipv4::MIN_MTU };
        if protocol == Protocol::Tcp {
            let room = (added(backend, client, introduction), least);
            sequence::shift_quoted(frame.head_mut(), packet, quoted, introduction, room);
        } else if is_due(backend, introduction) {
            let anybody = SocketAddr::new(client, 0);
            let header = Header::new(backend.client_address, protocol, anybody, anybody);
            let room = (header.map_or(0, |header| header.count()), least);
            sequence::shorten_mtu(frame.head_mut(), packet, quoted, room);
        }
    }
}

/// Whether a datagram needs the header: all do, or as long as it is not known that the backend had one.
fn is_due(backend: &Backend, introduction: &Introduction) -> bool {
    backend.client_address == ClientAddress::ProxyV2Each || !introduction.is_over()
}

/// Puts the PROXY header before a packet's payload.
fn prepend<F: Frame>(
    backend: &Backend,
    egress: &Egress,
    headers: &Headers,
    frame: &mut F,
) -> Result<Headers, DropReason> {
    let Some(header) = header_for(backend, headers) else { return Ok(*headers) };
    if !fits(backend, egress, headers, header.count()) {
        return Err(DropReason::TooBig);
    }
    proxy::prepend(frame, headers, &header)
}

/// Bytes by which a client's first segment becomes longer.
fn added(backend: &Backend, client: IpAddr, introduction: &Introduction) -> u8 {
    match backend.client_address {
        ClientAddress::Toa => toa::len(client),
        _ => introduction.count(),
    }
}

/// Whether a client's packet may be longer by `more` bytes on its way to its backend.
fn fits(backend: &Backend, egress: &Egress, headers: &Headers, more: u8) -> bool {
    let longer = headers.ip.len.checked_add(more.into());
    let longer = longer.map(|len| len_toward(&Packet { len, ..headers.ip }, backend.address.ip()));
    longer.is_some_and(|len| len <= egress.mtu)
}

/// The PROXY header for the backend of a client's packet, if it gets one.
fn header_for(backend: &Backend, headers: &Headers) -> Option<Header> {
    let vip = SocketAddr::new(headers.ip.addresses.dst(), headers.dst_port);
    Header::new(backend.client_address, headers.protocol, client_of(headers), vip)
}

fn client_of(headers: &Headers) -> SocketAddr {
    SocketAddr::new(headers.ip.addresses.src(), headers.src_port)
}

/// Bytes by which a client's packet may become longer on its way to a backend that learns its address.
pub(super) fn preface_len(backend: &Backend, headers: &Headers) -> u8 {
    match backend.client_address {
        // Where there is no room for the option, it is left out.
        ClientAddress::None | ClientAddress::Toa => 0,
        ClientAddress::ProxyV1 | ClientAddress::ProxyV2 | ClientAddress::ProxyV2Each => {
            header_for(backend, headers).map_or(0, |header| header.count())
        }
    }
}

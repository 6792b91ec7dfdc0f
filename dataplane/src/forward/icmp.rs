//! ICMP and ICMPv6: what is asked of us, and what others tell of flows.

mod about;
mod echo;

use super::{Context, Forwarder, Outbox};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::packet::{Addresses, Packet};
use crate::port::PortId;
use crate::rewrite::{answer, dr, quote, translate, tunnel};
use crate::route::InterfaceId;
use crate::snapshot::{Backend, Egress, Local};
use crate::wire::{icmp4, icmp6};
use about::{About, End, Error};
use config::words::Mode;
use std::net::{IpAddr, SocketAddr};

/// Where an ICMP packet goes.
enum Next {
    Send(Egress),
    /// To the worker that owns the flow it is about.
    HandOver(usize),
    /// To whoever else may want it; for this reason it is dropped if nobody does.
    Stranger(DropReason),
}

/// What an ICMP message is for us.
enum Kind {
    EchoRequest,
    EchoReply,
    /// It quotes a packet that did not get through.
    Error,
    Other,
}

impl Kind {
    fn of(head: &[u8], packet: &Packet) -> Self {
        let kind = head.get(usize::from(packet.l4)).copied().unwrap_or(u8::MAX);
        match (packet.addresses, kind) {
            (Addresses::V4 { .. }, icmp4::ECHO_REQUEST) | (Addresses::V6 { .. }, icmp6::ECHO_REQUEST) => {
                Self::EchoRequest
            }
            (Addresses::V4 { .. }, icmp4::ECHO_REPLY) | (Addresses::V6 { .. }, icmp6::ECHO_REPLY) => {
                Self::EchoReply
            }
            (Addresses::V4 { .. }, icmp4::UNREACHABLE | icmp4::TIME_EXCEEDED | icmp4::PARAMETER_PROBLEM)
            | (
                Addresses::V6 { .. },
                icmp6::UNREACHABLE | icmp6::PACKET_TOO_BIG | icmp6::TIME_EXCEEDED | icmp6::PARAMETER_PROBLEM,
            ) => Self::Error,
            _ => Self::Other,
        }
    }
}

impl<F: Frame> Forwarder<F> {
    /// Takes an ICMP packet to its end.
    #[cold]
    pub(super) fn take_icmp(
        &mut self,
        context: Context,
        port: PortId,
        interface: InterfaceId,
        packet: &Packet,
        mut frame: F,
        out: &mut Outbox<F>,
    ) {
        frame.truncate(usize::from(packet.l3) + usize::from(packet.len));
        let kind = Kind::of(frame.head(), packet);
        if let Some(role) = echo::translated(context.snapshot, interface, packet, &kind) {
            return self.translate_echo(context, port, role, packet, frame, out);
        }
        let next = match kind {
            Kind::EchoRequest => self.answer_echo(context, packet, &mut frame),
            Kind::Error => self.pass_error_on(context, packet, &mut frame),
            Kind::EchoReply | Kind::Other => Ok(Next::Stranger(DropReason::UnknownIcmp)),
        };
        match next {
            Ok(Next::Send(egress)) => self.send(frame, &egress, out),
            Ok(Next::HandOver(owner)) => self.hand_over(Some(frame), port, owner, None, out),
            Ok(Next::Stranger(why)) => self.take_stranger(context, interface, packet, frame, why, out),
            Err(why) => self.drop(Some(frame), why),
        }
    }

    /// Answers an echo request for an address of ours.
    fn answer_echo(&mut self, context: Context, packet: &Packet, frame: &mut F) -> Result<Next, DropReason> {
        match context.snapshot.local(packet.addresses.dst()) {
            None => return Ok(Next::Stranger(DropReason::UnknownIcmp)),
            Some(Local::Vip { echo: false }) => return Err(DropReason::EchoRefused),
            Some(_) => {}
        }
        if !self.icmp_budget.take(context) {
            return Err(DropReason::IcmpRate);
        }
        let egress = context.snapshot.egress_to(packet.addresses.src()).ok_or(DropReason::NoRoute)?;
        check_room(packet.len, egress.mtu)?;
        answer::echo_reply(frame, packet, &egress.link)?;
        self.stats.answered.add(1);
        Ok(Next::Send(egress))
    }

    /// Passes an ICMP error on to the end of the flow that it is about. It must quote a packet of a live flow
    /// (RFC 5927, 4), and changes nothing in it.
    fn pass_error_on(
        &mut self,
        context: Context,
        packet: &Packet,
        frame: &mut F,
    ) -> Result<Next, DropReason> {
        let quoted = quote::Quoted::read(frame.head(), packet).ok_or(DropReason::BadIcmp)?;
        // An error goes to who sent the packet that it quotes.
        if packet.addresses.dst() != quoted.src.ip() {
            return Err(DropReason::BadIcmp);
        }
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let Some(error) = Error::of(context.snapshot, &quoted, frame.head()) else {
            return Ok(Next::Stranger(DropReason::NoFlow));
        };
        let owner = self.owners.of(error.client.0, error.client.1);
        if self.workers > 1 && owner != self.number {
            return Ok(Next::HandOver(owner));
        }
        let Some(about) = self.flow_of(context, &quoted, &error) else {
            return Ok(Next::Stranger(DropReason::NoFlow));
        };
        let egress = match about.end {
            End::Backend => self.tell_backend(context, packet, &quoted, &about, frame)?,
            End::Sender { inner: Some(inner) } => {
                let egress = context.snapshot.egress_to(inner.src.ip()).ok_or(DropReason::NoRoute)?;
                let src = context.snapshot.own_address(egress.next_hop.interface, inner.src.ip());
                let src = src.unwrap_or(about.vip.ip());
                quote::unwrap_tunnel_error(frame, packet, &quoted, &inner, src, &egress.link)?;
                egress
            }
            End::Sender { inner: None } => {
                let told = (about.backend, about.sender.ip());
                self.quote_as_client(context.snapshot, packet, &quoted, told, frame);
                self.tell_sender(context, packet, &quoted, &about, frame)?
            }
        };
        Ok(Next::Send(egress))
    }

    /// Makes an error right for the client, or the station inside, that sent the packet it quotes.
    fn tell_sender(
        &mut self,
        context: Context,
        packet: &Packet,
        quoted: &quote::Quoted,
        about: &About,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let egress = context.snapshot.egress_to(about.sender.ip()).ok_or(DropReason::NoRoute)?;
        check_room(packet.len, egress.mtu)?;
        // What the backend itself says comes from the VIP; routers on the way have their own names.
        let from_backend = packet.addresses.src() == quoted.dst.ip() && about.backend.is_some();
        let src = from_backend.then_some(about.vip.ip());
        if about.sender.is_ipv4() != packet.is_v4() {
            let carried = (about.vip.ip(), about.sender.ip());
            self.translate_error(frame, packet, quoted, (about.sender, about.vip), carried, &egress)?;
            return Ok(egress);
        }
        let dst = about.backend.is_some().then_some(about.vip);
        quote::translate(frame.head_mut(), packet, quoted, Some(about.sender), dst)?;
        quote::readdress(frame, packet, src, Some(about.sender.ip()), &egress.link)?;
        Ok(egress)
    }

    /// Makes an error right for the backend whose reply it quotes.
    fn tell_backend(
        &mut self,
        context: Context,
        packet: &Packet,
        quoted: &quote::Quoted,
        about: &About,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let slot = about.backend.ok_or(DropReason::NoBackend)?;
        let backend = context.snapshot.backend(slot).ok_or(DropReason::NoBackend)?;
        let egress = *context.snapshot.backend_egress(slot).ok_or(DropReason::NoRoute)?;
        check_room(packet.len, backend.room(egress.mtu))?;
        let end = backend_end(backend, about);
        match (backend.mode, backend.tunnel) {
            (Mode::Nat, _) => {
                quote::translate(frame.head_mut(), packet, quoted, Some(end), None)?;
                quote::readdress(frame, packet, None, Some(end.ip()), &egress.link)?;
            }
            (Mode::FullNat, _) => {
                let local = about.local.ok_or(DropReason::NoFlow)?;
                let from_client = packet.addresses.src() == quoted.dst.ip();
                let src = from_client.then_some(local.ip());
                if end.is_ipv4() != packet.is_v4() {
                    let carried = (local.ip(), end.ip());
                    self.translate_error(frame, packet, quoted, (end, local), carried, &egress)?;
                    return Ok(egress);
                }
                quote::translate(frame.head_mut(), packet, quoted, Some(end), Some(local))?;
                quote::readdress(frame, packet, src, Some(end.ip()), &egress.link)?;
            }
            (Mode::Tunnel, Some(through)) => {
                let id = self.next_id();
                let outer = backend.outer(&through, about.entropy);
                tunnel::wrap(frame, packet, &outer, id, &egress.link)?;
            }
            (Mode::Dr | Mode::Tunnel, _) => dr::to_backend(frame, packet, &egress.link)?,
        }
        Ok(egress)
    }
}

impl<F: Frame> Forwarder<F> {
    /// Makes an error one of the other IP version between the ends `carried`, about a packet between `ends`.
    fn translate_error(
        &mut self,
        frame: &mut F,
        packet: &Packet,
        quoted: &quote::Quoted,
        ends: (SocketAddr, SocketAddr),
        carried: (IpAddr, IpAddr),
        egress: &Egress,
    ) -> Result<(), DropReason> {
        match (ends, carried) {
            ((SocketAddr::V4(src), SocketAddr::V4(dst)), (IpAddr::V4(from), IpAddr::V4(to))) => {
                let id = self.next_id();
                translate::error_to_v4(frame, packet, quoted, (from, to), (src, dst), id, &egress.link)
            }
            ((SocketAddr::V6(src), SocketAddr::V6(dst)), (IpAddr::V6(from), IpAddr::V6(to))) => {
                translate::error_to_v6(frame, packet, quoted, (from, to), (src, dst), &egress.link)
            }
            _ => Err(DropReason::WrongFamily),
        }
    }
}

/// The backend's end of the flow.
fn backend_end(backend: &Backend, about: &About) -> SocketAddr {
    let address: IpAddr = backend.address.ip();
    SocketAddr::new(address, about.vip.port().wrapping_add(backend.port_shift))
}

/// Nobody is told that an error is too long (RFC 1122, 3.2.2).
fn check_room(len: u16, room: u16) -> Result<(), DropReason> {
    if len > room { Err(DropReason::TooBig) } else { Ok(()) }
}

//! ICMP: what is asked of us, what we tell senders, and what others tell of flows.

use config::words::{Mode, Protocol};

use super::{Context, Forwarder, Outbox, Role, Work};
use crate::buf::Frame;
use crate::clock::Seconds;
use crate::drops::DropReason;
use crate::flow::FlowKey;
use crate::flow::table::{FlowHash, Worth};
use crate::parse::Ipv4;
use crate::rewrite::{self, icmp};
use crate::route::InterfaceId;
use crate::snapshot::{BackendSlot, Egress, ServiceSlot, Snapshot};
use crate::wire::{icmp4, ipv4};

/// ICMP packets that a worker makes in a second at most (RFC 1812, 4.3.2.8).
const ANSWERS_PER_SECOND: u32 = 1000;

/// How many more ICMP packets may be made in this second.
#[derive(Debug, Default)]
pub(super) struct Budget {
    second: Seconds,
    spent: u32,
}

impl Budget {
    fn take(&mut self, now: Seconds) -> bool {
        if self.second != now {
            *self = Self { second: now, spent: 0 };
        }
        self.spent += 1;
        self.spent <= ANSWERS_PER_SECOND
    }
}

/// Where an ICMP packet goes.
enum Next {
    Send(Egress),
    /// To the worker that owns the flow it is about.
    HandOver(usize),
}

/// The flow that an ICMP error is about, and which end of it sent the quoted packet.
struct About {
    service: ServiceSlot,
    backend: BackendSlot,
    to: Receiver,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// The quoted packet came from the VIP.
    Backend,
    /// The quoted packet came from the client and was sent on to a NAT backend.
    Client,
}

impl Forwarder {
    /// Takes an ICMP packet to its end.
    #[cold]
    pub(super) fn take_icmp<F: Frame>(
        &mut self,
        context: Context,
        port: InterfaceId,
        packet: &Ipv4,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(mut frame) = frame else { return };
        frame.truncate(usize::from(packet.l3) + usize::from(packet.len));
        let next = match frame.head().get(usize::from(packet.l4)) {
            Some(&icmp4::ECHO_REQUEST) => self.answer_echo(context, packet, &mut frame).map(Next::Send),
            Some(&(icmp4::UNREACHABLE | icmp4::TIME_EXCEEDED | icmp4::PARAMETER_PROBLEM)) => {
                self.pass_error_on(context, packet, &mut frame)
            }
            _ => Err(DropReason::UnknownIcmp),
        };
        match next {
            Ok(Next::Send(egress)) => self.send(frame, &egress, out),
            Ok(Next::HandOver(owner)) => self.hand_over(Some(frame), port, owner, out),
            Err(why) => self.drop(Some(frame), why),
        }
    }

    /// Answers an echo request for an own address or a VIP.
    fn answer_echo<F: Frame>(
        &mut self,
        context: Context,
        packet: &Ipv4,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        if !context.snapshot.is_local(packet.dst) {
            return Err(DropReason::UnknownIcmp);
        }
        if !self.icmp_budget.take(context.now) {
            return Err(DropReason::IcmpRate);
        }
        let egress = context.snapshot.egress_to(packet.src).ok_or(DropReason::NoRoute)?;
        check_room(packet.len, egress.mtu)?;
        icmp::echo_reply(frame.head_mut(), packet, &egress.link);
        self.stats.answered.add(1);
        Ok(egress)
    }

    /// Sends a packet's sender the ICMP error that says why it goes no further; without one it is dropped
    /// for the same reason.
    #[cold]
    pub(super) fn refuse<F: Frame>(
        &mut self,
        context: Context,
        work: &Work,
        why: DropReason,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(mut frame) = frame else { return };
        let packet = &work.headers.ip;
        frame.truncate(usize::from(packet.l3) + usize::from(packet.len));
        match self.make_error(context, work, why, &mut frame) {
            Some(egress) => self.send(frame, &egress, out),
            None => self.drop(Some(frame), why),
        }
    }

    fn make_error<F: Frame>(
        &mut self,
        context: Context,
        work: &Work,
        why: DropReason,
        frame: &mut F,
    ) -> Option<Egress> {
        let packet = &work.headers.ip;
        let (kind, code, mtu) = match why {
            DropReason::TtlExceeded => (icmp4::TIME_EXCEEDED, 0, 0),
            DropReason::TooBig if packet.dont_fragment => {
                (icmp4::UNREACHABLE, icmp4::FRAGMENTATION_NEEDED, room(context.snapshot, work)?)
            }
            _ => return None,
        };
        let egress = context.snapshot.egress_to(packet.src)?;
        let src = context.snapshot.own_address(egress.next_hop.interface).unwrap_or(packet.dst);
        if !self.icmp_budget.take(context.now) {
            return None;
        }
        let error = icmp::Error { kind, code, mtu, src };
        icmp::error(frame, packet, &error, &egress.link).ok()?;
        self.stats.answered.add(1);
        Some(egress)
    }

    /// Passes an ICMP error on to the end of the flow that it is about. It must quote a packet of a live flow
    /// (RFC 5927, 4), and changes nothing in it.
    fn pass_error_on<F: Frame>(
        &mut self,
        context: Context,
        packet: &Ipv4,
        frame: &mut F,
    ) -> Result<Next, DropReason> {
        let quoted = icmp::Quoted::read(frame.head(), packet).ok_or(DropReason::BadIcmp)?;
        let protocol = match quoted.protocol {
            ipv4::PROTOCOL_TCP => Protocol::Tcp,
            ipv4::PROTOCOL_UDP => Protocol::Udp,
            _ => return Err(DropReason::NoFlow),
        };
        // An error goes to who sent the packet that it quotes.
        if packet.dst != quoted.src.address {
            return Err(DropReason::BadIcmp);
        }
        if packet.ttl <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        let snapshot = context.snapshot;
        let from_vip = snapshot.service_at(protocol, quoted.src.address, quoted.src.port);
        let client = if from_vip.is_some() { quoted.dst } else { quoted.src };
        let hash = self.flows.hash(client.address, client.port);
        let owner = hash.owner(self.workers);
        if owner != self.number {
            return Ok(Next::HandOver(owner));
        }
        let about = match from_vip {
            Some(service) => self.flow_of(context, hash, client, service).map(|backend| About {
                service,
                backend,
                to: Receiver::Backend,
            }),
            None => {
                let (address, port) = (quoted.dst.address, quoted.dst.port);
                snapshot.replies_of(protocol, address, port).iter().find_map(|&service| {
                    let backend = self.flow_of(context, hash, client, service)?;
                    let is_it = snapshot.backend(backend)?.address.ip().to_bits() == address;
                    is_it.then_some(About { service, backend, to: Receiver::Client })
                })
            }
        };
        let egress = self.deliver(snapshot, packet, &quoted, &about.ok_or(DropReason::NoFlow)?, frame)?;
        Ok(Next::Send(egress))
    }

    /// The backend of a client's live flow to a service.
    fn flow_of(
        &self,
        context: Context,
        hash: FlowHash,
        client: rewrite::Endpoint,
        service: ServiceSlot,
    ) -> Option<BackendSlot> {
        if client.address == 0 {
            return None;
        }
        let flow =
            self.flows.value(self.flows.find(hash, FlowKey::new(client.address, client.port, service))?);
        (super::bind::worth(context, flow) != Worth::Dead).then(|| flow.backend())
    }

    /// Rewrites an ICMP error for the end of the flow that it goes to.
    fn deliver<F: Frame>(
        &mut self,
        snapshot: &Snapshot,
        packet: &Ipv4,
        quoted: &icmp::Quoted,
        about: &About,
        frame: &mut F,
    ) -> Result<Egress, DropReason> {
        let backend = snapshot.backend(about.backend).ok_or(DropReason::NoBackend)?;
        let service = snapshot.service(about.service).ok_or(DropReason::NoService)?;
        let address = backend.address.ip().to_bits();
        if about.to == Receiver::Client {
            let egress = snapshot.egress_to(packet.dst).ok_or(DropReason::NoRoute)?;
            check_room(packet.len, egress.mtu)?;
            let vip: rewrite::Endpoint = service.key.vip.into();
            icmp::translate_quote(frame.head_mut(), packet, quoted, icmp::End::Destination, vip);
            // What the backend itself says comes from the VIP; routers on the way have their own names.
            let src = (packet.src == address).then_some(vip.address);
            icmp::readdress(frame.head_mut(), packet, src, None, &egress.link);
            return Ok(egress);
        }
        let egress = *snapshot.backend_egress(about.backend).ok_or(DropReason::NoRoute)?;
        check_room(packet.len, room_for(backend.mode, egress.mtu))?;
        match backend.mode {
            Mode::Nat => {
                let new = backend.address.into();
                icmp::translate_quote(frame.head_mut(), packet, quoted, icmp::End::Source, new);
                icmp::readdress(frame.head_mut(), packet, None, Some(address), &egress.link);
            }
            Mode::Dr => rewrite::dr(frame.head_mut(), packet, &egress.link),
            Mode::Tunnel => {
                let id = self.next_tunnel_id();
                rewrite::tunnel(frame, packet, (backend.tunnel_src, address), id, &egress.link)?;
            }
        }
        Ok(egress)
    }
}

/// Nobody is told that an error is too long (RFC 1122, 3.2.2).
fn check_room(len: u16, room: u16) -> Result<(), DropReason> {
    if len > room { Err(DropReason::TooBig) } else { Ok(()) }
}

/// The longest packet that reaches a backend by a port with this MTU.
fn room_for(mode: Mode, mtu: u16) -> u16 {
    match mode {
        Mode::Tunnel => mtu.saturating_sub(ipv4::HEADER_LEN as u16),
        Mode::Nat | Mode::Dr => mtu,
    }
}

/// The longest packet that would have gone on.
fn room(snapshot: &Snapshot, work: &Work) -> Option<u16> {
    match work.role {
        Role::Request(_) => {
            let mtu = snapshot.backend_egress(work.backend)?.mtu;
            Some(room_for(snapshot.backend(work.backend)?.mode, mtu))
        }
        Role::Reply => Some(snapshot.egress_to(work.headers.ip.dst)?.mtu),
    }
}

#[cfg(test)]
mod tests;

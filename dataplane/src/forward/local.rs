//! Packets that are no service's: for the appliance itself, or on their way through it.

use std::net::IpAddr;

use super::{Context, Forwarder, Outbox, PuntReason, Role, Work};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::packet::{Addresses, Headers, Packet};
use crate::parse::{Refusal, parse};
use crate::port::PortId;
use crate::rewrite::dr;
use crate::route::InterfaceId;
use crate::snapshot::{Local, Snapshot};

impl<F: Frame> Forwarder<F> {
    /// What a TCP or UDP packet is that belongs to no service and no NAT backend. `None` if it went elsewhere.
    #[cold]
    pub(super) fn classify_rest(
        &mut self,
        context: Context,
        port: PortId,
        work: &Work,
        slot: usize,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> Option<Role> {
        let snapshot = context.snapshot;
        let Some(interface) = snapshot.interface_of(port, work.tags) else {
            self.drop(burst.take(slot), DropReason::BadVlan);
            return None;
        };
        if let Some(own) = host_of(snapshot, work.headers.ip.addresses.dst()) {
            self.punt(burst.take(slot), PuntReason::Host(own), out);
            return None;
        }
        let why = match snapshot.local(work.headers.ip.addresses.dst()) {
            Some(Local::Snat(local)) => return Some(Role::LocalReply(local)),
            Some(_) => DropReason::NoService,
            None => match passage(snapshot, interface, &work.headers.ip.addresses) {
                Some(role) => return Some(role),
                None => DropReason::NoService,
            },
        };
        self.refuse(context, work, why, burst.take(slot), out);
        None
    }

    /// Takes a frame to its end that is no TCP or UDP packet in one piece.
    #[cold]
    pub(super) fn take_other(
        &mut self,
        context: Context,
        port: PortId,
        frame: Option<F>,
        out: &mut Outbox<F>,
    ) {
        let Some(frame) = frame else { return };
        let own = context.snapshot.mac(port).unwrap_or_default();
        let Err(what) = parse(frame.head(), frame.len(), own) else { return };
        let tags = match what {
            Refusal::Drop(why) => return self.drop(Some(frame), why),
            Refusal::Arp(tags)
            | Refusal::Nd(tags)
            | Refusal::Icmp(_, tags)
            | Refusal::Piece(_, tags)
            | Refusal::Other(_, tags) => tags,
        };
        let Some(interface) = context.snapshot.interface_of(port, tags) else {
            return self.drop(Some(frame), DropReason::BadVlan);
        };
        match what {
            Refusal::Drop(_) => {}
            Refusal::Arp(_) => self.punt(Some(frame), PuntReason::Arp(interface), out),
            Refusal::Nd(_) => self.punt(Some(frame), PuntReason::Nd(interface), out),
            Refusal::Icmp(packet, _) => self.take_icmp(context, port, interface, &packet, frame, out),
            Refusal::Piece(packet, _) => self.take_piece(context, port, interface, &packet, frame, out),
            Refusal::Other(packet, _) => {
                self.take_stranger(context, interface, &packet, frame, DropReason::UnknownProtocol, out);
            }
        }
    }

    /// Takes a packet to its end that no service can have: the kernel's, or one that is only routed. `why` is
    /// the reason for which it is dropped otherwise.
    pub(super) fn take_stranger(
        &mut self,
        context: Context,
        interface: InterfaceId,
        packet: &Packet,
        frame: F,
        why: DropReason,
        out: &mut Outbox<F>,
    ) {
        let snapshot = context.snapshot;
        if let Some(own) = host_of(snapshot, packet.addresses.dst()) {
            return self.punt(Some(frame), PuntReason::Host(own), out);
        }
        match snapshot.local(packet.addresses.dst()) {
            Some(_) => self.drop(Some(frame), why),
            None => self.route_plain(context, interface, packet, frame, why, out),
        }
    }

    /// Routes a packet in or out by a NAT gateway, unless its source would have to be translated.
    fn route_plain(
        &mut self,
        context: Context,
        interface: InterfaceId,
        packet: &Packet,
        mut frame: F,
        why: DropReason,
        out: &mut Outbox<F>,
    ) {
        let through = match passage(context.snapshot, interface, &packet.addresses) {
            Some(Role::Outward(gateway)) => gateway.pool.is_none(),
            Some(_) => true,
            None => false,
        };
        if !through {
            return self.drop(Some(frame), why);
        }
        frame.truncate(usize::from(packet.l3) + usize::from(packet.len));
        let egress = context.snapshot.egress_to(packet.addresses.dst()).ok_or(DropReason::NoRoute);
        let routed = egress.and_then(|egress| match packet.len > egress.mtu {
            true => Err(DropReason::TooBig),
            false if packet.ttl <= 1 => Err(DropReason::TtlExceeded),
            false => dr::to_backend(&mut frame, packet, &egress.link).map(|()| egress),
        });
        match routed {
            Ok(egress) => {
                self.stats.routed.add(1);
                self.send(frame, &egress, out);
            }
            Err(why) => {
                let work = Work { headers: Headers { ip: *packet, ..Work::NONE.headers }, ..Work::NONE };
                self.refuse(context, &Work { target: super::Target::Onward, ..work }, why, Some(frame), out);
            }
        }
    }
}

/// The interface whose own address this is, if the kernel gets what is for it.
pub(super) fn host_of(snapshot: &Snapshot, address: IpAddr) -> Option<InterfaceId> {
    match snapshot.local(address)? {
        Local::Own(own) => snapshot.interface(own)?.host.then_some(own),
        Local::Vip { .. } | Local::Snat(_) => None,
    }
}

/// Whether a packet may pass through the appliance as through a router: out from an inside interface, or in
/// to one.
pub(super) fn passage(snapshot: &Snapshot, from: InterfaceId, addresses: &Addresses) -> Option<Role> {
    if let Some(gateway) = snapshot.interface(from)?.gateway {
        return Some(Role::Outward(gateway));
    }
    let egress = snapshot.egress_to(addresses.dst())?;
    snapshot.interface(egress.next_hop.interface)?.gateway.map(|_| Role::Inward)
}

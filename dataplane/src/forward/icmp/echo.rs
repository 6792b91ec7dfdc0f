//! Echo requests and replies whose addresses a NAT gateway changes: flows whose port is the identifier.

use config::words::Protocol;

use super::super::local::passage;
use super::super::{Context, Forwarder, Outbox, Role, Target, Work};
use super::Kind;
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::packet::{Headers, Packet};
use crate::port::PortId;
use crate::route::InterfaceId;
use crate::snapshot::{Local, Snapshot};
use crate::wire::{icmp4, read_u16};

/// Which way an ICMP packet goes, if it is an echo request from inside to the world that gets a local address,
/// or a reply to one.
pub(super) fn translated(
    snapshot: &Snapshot,
    interface: InterfaceId,
    packet: &Packet,
    kind: &Kind,
) -> Option<Role> {
    match (kind, snapshot.local(packet.addresses.dst())) {
        (Kind::EchoRequest, None) => match passage(snapshot, interface, &packet.addresses)? {
            Role::Outward(gateway) => gateway.pool.map(|_| Role::Outward(gateway)),
            _ => None,
        },
        (Kind::EchoReply, Some(Local::Snat(local))) => Some(Role::LocalReply(local)),
        _ => None,
    }
}

impl<F: Frame> Forwarder<F> {
    /// Takes such a packet the way of all flows of a gateway.
    pub(super) fn translate_echo(
        &mut self,
        context: Context,
        port: PortId,
        role: Role,
        packet: &Packet,
        mut frame: F,
        out: &mut Outbox<F>,
    ) {
        let identifier = read_u16(frame.head(), usize::from(packet.l4) + icmp4::REST).unwrap_or_default();
        let (src_port, dst_port) =
            if matches!(role, Role::Outward(_)) { (identifier, 0) } else { (0, identifier) };
        let headers = Headers { ip: *packet, src_port, dst_port, protocol: Protocol::Udp, tcp_flags: 0 };
        let mut work = Work { headers, role, hash: self.flows.hash_src(&headers), ..Work::NONE };
        let owner = self.owner(&work);
        if packet.ttl > 1 && owner != self.number {
            return self.hand_over(Some(frame), port, owner, None, out);
        }
        let bound = match role {
            _ if packet.ttl <= 1 => Err(DropReason::TtlExceeded),
            Role::Outward(gateway) => self.bind_outward(context, &mut work, gateway),
            Role::LocalReply(local) => self.bind_local_reply(context, &mut work, local),
            _ => Err(DropReason::NoFlow),
        };
        let routed = bound.and_then(|()| match work.target {
            Target::OnwardFrom(..) | Target::Inside { .. } => self.route(context, &work, &mut frame),
            // An identifier that is the port of a full NAT flow.
            _ => Err(DropReason::NoFlow),
        });
        match routed {
            Ok(egress) => self.send(frame, &egress, out),
            Err(why) => self.refuse(context, &work, why, Some(frame), out),
        }
    }
}

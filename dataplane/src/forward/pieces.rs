//! Pieces of fragmented packets on their way to the flow of their first one.
//!
//! Whoever receives a piece gives it to the worker that owns the datagram; that one finds its ports and gives
//! it to the worker that owns the flow; that one forwards it like any other packet.

use std::collections::VecDeque;
use std::hash::RandomState;

use super::local::host_of;
use super::{BURST, Context, Forwarder, HandedOver, Live, Outbox, PuntReason, Setup, Work};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::fragment::{Datagram, FragmentTable, Limits, Offered, Piece, Transport};
use crate::packet::{Fragment, Headers, Packet};
use crate::parse::{Refusal, first_piece, parse};
use crate::port::PortId;
use crate::route::InterfaceId;
use crate::wire::{ipv4, ipv6};

/// Waiting pieces given up in a housekeeping turn at most.
const EXPIRED_PER_TURN: usize = 64;

/// What one worker knows of pieces.
pub(super) struct Pieces<F> {
    table: FragmentTable<(PortId, F)>,
    /// Pieces that waited and whose ports are known now.
    ready: VecDeque<(PortId, F, Transport)>,
    secret: RandomState,
}

impl<F> Pieces<F> {
    pub(super) fn new(setup: &Setup) -> Self {
        let limits = Limits {
            pieces: setup.pieces.capacity,
            datagrams: setup.pieces.capacity,
            timeout: setup.pieces.timeout,
            remember: setup.pieces.remember,
        };
        Self {
            table: FragmentTable::new(limits, setup.pieces.secret.clone()),
            ready: VecDeque::with_capacity(setup.pieces.capacity),
            secret: setup.pieces.secret.clone(),
        }
    }
}

impl<F: Frame> Forwarder<F> {
    /// Takes a piece of a packet as far as it can go now.
    #[cold]
    pub(super) fn take_piece(
        &mut self,
        context: Context,
        port: PortId,
        interface: InterfaceId,
        packet: &Packet,
        frame: F,
        out: &mut Outbox<F>,
    ) {
        let Some(fragment) = packet.fragment else { return };
        // The kernel puts its packets together itself.
        if let Some(own) = host_of(context.snapshot, packet.addresses.dst()) {
            return self.punt(Some(frame), PuntReason::Host(own), out);
        }
        // In IPv6 a later piece may have more headers before its ports.
        if packet.next == ipv6::NEXT_ICMP || packet.is_v4() && !has_ports(packet.next) {
            return self.take_stranger(context, interface, packet, frame, DropReason::Fragment, out);
        }
        let datagram = Datagram::new(packet.addresses, fragment.id, packet.next);
        let owner = datagram.owner(&self.pieces.secret, self.workers);
        if owner != self.number {
            return self.hand_over(Some(frame), port, owner, None, out);
        }
        let transport = match fragment.offset {
            0 => match first_piece(frame.head(), *packet) {
                Ok(headers) => Some(Transport::of(&headers)),
                // The table counts tiny pieces; what else is wrong is told here.
                Err(DropReason::FragmentTiny) => None,
                Err(why) => return self.drop(Some(frame), why),
            },
            _ => None,
        };
        let piece = Piece {
            offset: fragment.offset,
            len: piece_len(packet, &fragment),
            more: fragment.more,
            transport,
        };
        let stats = &self.stats;
        let mut gone = |_, why| stats.drops.count(why);
        match self.pieces.table.offer(&datagram, piece, (port, frame), context.now, &mut gone) {
            Offered::Pass((port, frame), transport) => {
                self.forward_piece(context, port, frame, &transport, out);
            }
            Offered::First((port, frame), transport) => {
                while let Some((port, waited)) = self.pieces.table.release(&datagram) {
                    self.pieces.ready.push_back((port, waited, transport));
                }
                self.forward_piece(context, port, frame, &transport, out);
            }
            Offered::Held | Offered::Dropped => {}
        }
        self.count_held();
    }

    /// Whether pieces that waited can go on.
    #[inline]
    pub(super) fn has_ready_pieces(&self) -> bool {
        !self.pieces.ready.is_empty()
    }

    /// Forwards pieces that waited, up to a burst. The transmit bursts are empty before.
    #[cold]
    pub(super) fn forward_pieces(&mut self, context: Context, out: &mut Outbox<F>) {
        for _ in 0..BURST {
            let Some((port, frame, transport)) = self.pieces.ready.pop_front() else { break };
            self.forward_piece(context, port, frame, &transport, out);
        }
        self.count_held();
    }

    /// Forwards a frame that another worker handed over with its ports.
    #[cold]
    pub fn forward_handed(&mut self, context: Context, handed: HandedOver<F>, out: &mut Outbox<F>) {
        match handed.transport {
            Some(transport) => self.forward_piece(context, handed.port, handed.frame, &transport, out),
            None => self.drop(Some(handed.frame), DropReason::Fragment),
        }
    }

    /// Forwards a piece whose ports are known, as a burst of one.
    fn forward_piece(
        &mut self,
        context: Context,
        port: PortId,
        frame: F,
        transport: &Transport,
        out: &mut Outbox<F>,
    ) {
        let own = context.snapshot.mac(port).unwrap_or_default();
        let Err(Refusal::Piece(packet, tags)) = parse(frame.head(), frame.len(), own) else {
            return self.drop(Some(frame), DropReason::Fragment);
        };
        let first = packet.fragment.is_some_and(|fragment| fragment.offset == 0);
        let headers = match first_piece(frame.head(), packet) {
            Ok(headers) if first => headers,
            _ => Headers {
                ip: packet,
                src_port: transport.src_port,
                dst_port: transport.dst_port,
                protocol: transport.protocol,
                tcp_flags: 0,
            },
        };
        let mut batch = [Work::NONE; BURST];
        batch[0] = Work { headers, tags, ..Work::NONE };
        let mut burst = Burst::default();
        // An empty burst has room.
        let _ = burst.push(frame);
        let mut live = Live::default();
        live.keep(0);
        self.forward_packets(context, port, live, &mut batch, &mut burst, out);
    }

    /// Gives up pieces that waited too long.
    pub(super) fn expire_pieces(&mut self, context: Context) {
        let stats = &self.stats;
        let mut gone = |_, why| stats.drops.count(why);
        self.pieces.table.expire(context.now, EXPIRED_PER_TURN, &mut gone);
        self.count_held();
    }

    fn count_held(&self) {
        self.stats.held.set((self.pieces.table.held() + self.pieces.ready.len()) as u64);
    }
}

fn has_ports(next: u8) -> bool {
    matches!(next, ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP)
}

/// Bytes of the fragmentable part that a piece brings.
fn piece_len(packet: &Packet, fragment: &Fragment) -> u16 {
    let start =
        if packet.is_v4() { packet.l4 } else { fragment.header.saturating_add(ipv6::FRAGMENT_LEN as u16) };
    (packet.l3.saturating_add(packet.len)).saturating_sub(start)
}

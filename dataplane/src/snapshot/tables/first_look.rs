//! Whose flow a plain packet is, where the first look at a table tells: without a jump that depends on which way it goes,
//! for in a burst of requests and replies that cannot be foretold, and a wrong guess costs more than all looks.

use std::hint::select_unpredictable;

use super::{ANY, Address, Tables, number};
use crate::local::LocalSlot;
use crate::lookup::Key;
use crate::parse::plain::Plain;
use crate::snapshot::ServiceSlot;

/// What packets of an IP version have an easy way, besides those for services with one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None.
    Requests,
    /// Replies of NAT backends.
    BothWays,
    /// Those for local addresses, and replies of NAT backends, of which there are few beside full NAT.
    FullNat,
    /// Some for which one look at a table is not enough, since services have several ports.
    Mixed,
}

/// The wide flow of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideFlow<A> {
    /// Its client.
    pub client: (A, u16),
    /// The service.
    pub service: ServiceSlot,
    /// The port of that.
    pub service_port: u16,
    /// Whether the packet is for the client.
    pub is_reply: bool,
}

/// What is known of a packet where there is full NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullNatFlow {
    /// The service, if it is a request.
    pub service: ServiceSlot,
    /// The local address that it is for, if it is a reply.
    pub local: LocalSlot,
    /// Whether it is for a client.
    pub is_reply: bool,
}

impl Tables {
    /// What packets of an IP version have an easy way besides requests.
    #[inline]
    pub(in super::super) fn rows<A: Address>(&self) -> Rows {
        A::tables(self).rows
    }

    /// The client and service of whose narrow flow a packet is, and whether it is a reply. It is for [`Rows::BothWays`].
    #[inline(always)]
    pub(in super::super) fn narrow_flow(
        &self,
        plain: &Plain<u32>,
    ) -> Option<((u32, u16), ServiceSlot, bool)> {
        debug_assert!(self.v4.rows == Rows::BothWays);
        let number = number(plain.protocol);
        let (to, from) = (plain.dst.key(number, plain.dst_port), plain.src.key(number, plain.src_port));
        let is_request = self.v4.listens(plain.dst);
        let (key, client) =
            (select_unpredictable(is_request, to, from), select_unpredictable(is_request, from, to));
        let (found, entry) = self.v4.ends(is_request).first(key);
        let client = (((client >> 32) as u32).swap_bytes(), ((client >> 16) as u16).swap_bytes());
        ((found == key) & entry.is_sole()).then_some((client, entry.service(), !is_request))
    }

    /// The wide flow of a packet. Without `REPLIES` it knows requests alone; with them it is for
    /// [`Rows::BothWays`].
    #[inline(always)]
    pub(in super::super) fn wide_flow<A: Address, const REPLIES: bool>(
        &self,
        plain: &Plain<A>,
    ) -> Option<WideFlow<A>> {
        let (tables, number) = (A::tables(self), number(plain.protocol));
        debug_assert!(!REPLIES || tables.rows == Rows::BothWays);
        let is_request = !REPLIES || tables.listens(plain.dst);
        let either = |request, reply| select_unpredictable(is_request, request, reply);
        let (src, dst) = (plain.src, plain.dst);
        let (address, port) =
            (select_unpredictable(is_request, dst, src), either(plain.dst_port, plain.src_port));
        let key = address.key(number, port);
        let table = if REPLIES { tables.ends(is_request) } else { &tables.services };
        let (found, entry) = table.first(key);
        let flow = WideFlow {
            client: (select_unpredictable(is_request, src, dst), either(plain.src_port, plain.dst_port)),
            service: entry.service(),
            service_port: entry.port(),
            is_reply: !is_request,
        };
        ((found == key) & entry.is_sole()).then_some(flow)
    }

    /// For which service a packet is, or for which local address. It is for [`Rows::FullNat`].
    #[inline(always)]
    pub(in super::super) fn full_nat_flow<A: Address>(&self, plain: &Plain<A>) -> Option<FullNatFlow> {
        let tables = A::tables(self);
        let to = plain.dst.key(number(plain.protocol), plain.dst_port);
        let address = plain.dst.key(ANY, 0);
        let ((there, entry), (here, snat)) = (tables.services.first(to), tables.snat.first(address));
        let is_request = there == to;
        let is_reply = !there.is_passed() & (here == address);
        let local = LocalSlot(snat.number() as u8);
        let flow = FullNatFlow { service: entry.service(), local, is_reply: !is_request };
        select_unpredictable(is_request, entry.is_sole(), is_reply).then_some(flow)
    }
}

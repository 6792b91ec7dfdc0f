//! The fast path: plain packets, which nearly all are. Those of flows that are known and stay as they are have the
//! shortest way; others begin a flow, or are for nobody.
//!
//! It takes such packets out of a burst and leaves all others to the four stages, which are its slow twin: they
//! would do the same with every packet, and tests hold both against each other. Packets of one flow keep their
//! order, but for those that are not plain, such as with IP options, and pieces: later ones of their burst that leave the
//! flow as it is may overtake them.

mod ahead;
mod both_ways;
mod carrier;
mod carry;
mod eights;
mod full_nat;
mod lane;
mod one_way;
mod open;
mod rows;
mod sight;
mod sights;
mod variety;

pub(super) use sights::Sights;
use sights::{Heading, Lane, Lanes, Narrow, Sighted, Wide};
pub(super) use variety::Variety;

use super::flows::Hashed;
use super::{Context, Forwarder, Live, Outbox};
use crate::buf::Frame;
use crate::burst::Burst;
use crate::drops::DropReason;
use crate::parse::plain::{Kind, L3, Plain, Station, Whole, glance_v4, glance_v6};
use crate::port::PortId;
use crate::rewrite::plain::Rewrite;
use crate::snapshot::{Address, Kept, Routed, Snapshot};
use crate::toeplitz::Owners;
use crate::wire::eth::Tags;
use crate::wire::tcp;

/// An IP version whose packets the fast path takes.
trait Fast: Address + Routed + Hashed + Kept + Rewrite + Whole {
    /// The worker that owns a client's flows.
    fn owner(self, owners: &Owners, port: u16) -> usize;

    /// Reads a frame of `len` bytes that begins with `head`; `None` if its packet is not plain, is of another IP version, or
    /// so short that no TCP segment fits.
    fn glance(station: Station, head: &[u8], len: usize) -> Option<Plain<Self>>;
}

impl Fast for u32 {
    #[inline]
    fn owner(self, owners: &Owners, port: u16) -> usize {
        owners.of_v4(self, port)
    }

    #[inline(always)]
    fn glance(station: Station, head: &[u8], len: usize) -> Option<Plain<u32>> {
        let front = head.first_chunk().filter(|front| station.kind(front) == Some(Kind::V4))?;
        glance_v4(front, len)
    }
}

impl Fast for u128 {
    #[inline]
    fn owner(self, owners: &Owners, port: u16) -> usize {
        owners.of_v6(self, port)
    }

    #[inline(always)]
    fn glance(station: Station, head: &[u8], len: usize) -> Option<Plain<u128>> {
        head.first_chunk().filter(|front| station.kind(front) == Some(Kind::V6))?;
        glance_v6(head.get(L3..)?, len)
    }
}

/// An address and port.
type End<A> = (A, u16);

impl<F: Frame> Forwarder<F> {
    /// Takes the plain packets to their ends, but for those that must wait. Returns whether these were all.
    pub(super) fn forward_known(
        &mut self,
        context: Context,
        port: PortId,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> bool {
        let Some(mut sights) = self.sights.take() else { return false };
        let snapshot = context.snapshot;
        let far = self.cold > 0 || (snapshot.is_large() && self.variety.is_great());
        self.cold = self.cold.saturating_sub(1);
        if far {
            self.foresee_directions(snapshot, burst);
        }
        let (mut lanes, mut waiting) = self.sight(snapshot, port, burst, &mut sights);
        if snapshot.has_locals() {
            self.look_behind(&mut sights.narrow, &mut lanes.narrow);
            self.look_behind(&mut sights.wide, &mut lanes.wide);
        }
        if far {
            self.foresee_backends(context, lanes.narrow, &sights.narrow);
            self.foresee_backends(context, lanes.wide, &sights.wide);
        }
        let received = burst.len();
        let mut ended = self.drop_nobodys(snapshot, port, lanes.nobodys, burst);
        if !lanes.narrow.is_empty() {
            ended += self.carry_lane(context, (lanes.narrow, &mut waiting), &mut sights.narrow, burst, out);
        }
        if !lanes.wide.is_empty() {
            ended += self.carry_lane(context, (lanes.wide, &mut waiting), &mut sights.wide, burst, out);
        }
        self.sights = Some(sights);
        ended == received
    }

    /// Drops what is for nobody. Returns how many packets these were.
    #[inline]
    fn drop_nobodys(&self, snapshot: &Snapshot, port: PortId, nobodys: Live, burst: &mut Burst<F>) -> usize {
        // Without such an interface there is another reason.
        if nobodys.is_empty() || snapshot.interface_of(port, Tags::default()).is_none() {
            return 0;
        }
        let dropped = nobodys.filter(|slot| burst.take(*slot).is_some()).count();
        self.stats.drops.add(DropReason::NoService, dropped as u64);
        dropped
    }

    /// Whether a packet has an easy way.
    #[cfg(test)]
    pub(super) fn carries(&mut self, context: Context, port: PortId, mut frame: F) -> bool {
        let mut sights = Sights::new();
        let mut burst = Burst::default();
        let _ = burst.push(frame);
        let (mut lanes, _) = self.sight(context.snapshot, port, &burst, &mut sights);
        self.look_behind(&mut sights.narrow, &mut lanes.narrow);
        self.look_behind(&mut sights.wide, &mut lanes.wide);
        let Some(taken) = burst.take(0) else { return false };
        frame = taken;
        let narrow =
            !lanes.narrow.is_empty() && self.carry_alone(context, &sights.narrow.at(0), &mut frame).is_some();
        let wide =
            !lanes.wide.is_empty() && self.carry_alone(context, &sights.wide.at(0), &mut frame).is_some();
        narrow || wide
    }
}

/// Whether a packet opens a connection.
#[inline(always)]
fn opens<A>(plain: &Plain<A>) -> bool {
    plain.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

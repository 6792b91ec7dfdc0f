//! The packets of a lane on their way, in their order.

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live, Outbox};
use super::open::Unopened;
use super::{Fast, Sighted};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::flow::table::FlowHash;
use crate::port::PortId;

/// Packets that must wait for the four stages, for others of the burst do.
pub(super) struct Waiting {
    /// Clients of whom a packet waits: a filter by their hashes.
    clients: u64,
    /// The first place whose packet goes through the stages and may open a flow: those behind it may not before.
    opening: usize,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { clients: 0, opening: BURST }
    }
}

impl Waiting {
    #[inline]
    pub fn add(&mut self, hash: FlowHash) {
        self.clients |= 1 << hash.sixth();
    }

    #[inline]
    fn has(&self, hash: FlowHash) -> bool {
        self.clients >> hash.sixth() & 1 != 0
    }

    /// The packet in this place goes through the stages.
    #[inline]
    pub fn leave(&mut self, slot: usize) {
        self.opening = self.opening.min(slot);
    }
}

/// Packets of a lane that leave by one port, by their places. They stay there until all can leave together, and others
/// that leave by it after them wait as long.
#[derive(Clone, Copy, Default)]
struct Leaving {
    port: PortId,
    live: Live,
}

impl<F: Frame> Forwarder<F> {
    /// Takes the packets of a lane to their ends, if nothing before them waits; those that leave by one port, in their
    /// order. Returns how many they were.
    // Each lane's code by itself: in one function with others the registers do not suffice.
    #[inline(never)]
    pub(super) fn carry_lane<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        (live, waiting): (Live, &mut Waiting),
        sighted: &[Sighted<A, K>; BURST],
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> usize {
        let (mut rest, mut leaving, mut left) = (live, Leaving::default(), 0);
        loop {
            let (before, mut other) = (rest, None);
            if waiting.clients == 0 {
                // As long as packets go the shortest way, by one port. For others the registers would not suffice.
                for slot in rest.by_ref() {
                    let (known, Some(frame)) = (&sighted[slot], burst.get_mut(slot)) else { continue };
                    let way = if known.opens() { None } else { self.carry(context, known, frame) };
                    if way != Some(leaving.port) {
                        other = Some((slot, way));
                        break;
                    }
                }
            } else {
                other = rest.next().map(|slot| (slot, None));
            }
            leaving.live.join(before.without(rest));
            let Some((slot, mut way)) = other else { break };
            leaving.live.leave(slot);
            let known = &sighted[slot];
            if waiting.clients != 0 {
                if waiting.has(known.hash) {
                    waiting.leave(slot);
                    left += 1;
                    continue;
                }
                way = burst.get_mut(slot).and_then(|frame| self.carry_alone(context, known, frame));
            }
            let way = match (way, burst.get_mut(slot)) {
                (Some(port), _) => Ok(port),
                (None, Some(frame)) if slot < waiting.opening => self.open(context, known, frame),
                _ => Err(Unopened::Unasked),
            };
            match way {
                Ok(port) if port == leaving.port || leaving.live.is_empty() => {
                    leaving.port = port;
                    leaving.live.keep(slot);
                }
                Ok(port) => burst.take(slot).into_iter().for_each(|frame| self.transmit(frame, port, out)),
                Err(why) => {
                    // It may go the same way.
                    self.depart(leaving, burst, out);
                    leaving.live = Live::default();
                    if slot >= waiting.opening || !self.take_up(context, known, why, slot, burst, out) {
                        waiting.add(known.hash);
                        left += 1;
                    }
                }
            }
        }
        self.depart(leaving, burst, out);
        live.len() - left
    }

    /// The same as [`Self::carry`], for packets that others wait before.
    #[inline(never)]
    fn carry_alone<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        frame: &mut F,
    ) -> Option<PortId> {
        if known.opens() { None } else { self.carry(context, known, frame) }
    }

    /// Hands packets to the port that they leave by.
    #[inline(never)]
    fn depart(&self, leaving: Leaving, burst: &mut Burst<F>, out: &mut Outbox<F>) {
        // Most bursts leave as they came.
        if let Some(transmit) = out.transmit.get_mut(usize::from(leaving.port.0))
            && transmit.is_empty()
            && leaving.live.len() == burst.len()
        {
            return std::mem::swap(transmit, burst);
        }
        for slot in leaving.live {
            burst.take(slot).into_iter().for_each(|frame| self.transmit(frame, leaving.port, out));
        }
    }
}

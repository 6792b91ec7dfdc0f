//! The packets of a lane on their way, in their order.

use super::super::flows::Tabled;
use super::super::{Context, Forwarder, Live, Outbox};
use super::both_ways::{BACK, EITHER, THERE, way_of};
use super::open::Unopened;
use super::{Fast, Lane, Sighted};
use crate::buf::Frame;
use crate::burst::{BURST, Burst};
use crate::flow::table::FlowHash;
use crate::port::PortId;
use crate::snapshot::Carriage;

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

/// Where a run through a lane stopped.
pub(super) struct Stop {
    slot: usize,
    /// The port that the packet leaves by, if it is on its way.
    way: Option<PortId>,
    /// Whether it has no easy way otherwise.
    tried: bool,
}

impl Stop {
    /// At a packet that leaves by another port, or else may have an easy way, but not this one.
    #[inline(always)]
    pub fn at(slot: usize, way: Option<PortId>) -> Self {
        Self { slot, way, tried: way.is_some() }
    }

    /// The same, if no packets before it are left for the next run. Else that begins with them, for what becomes of this one
    /// may be an opening, and of them, too; unless it is on its way.
    #[inline(always)]
    pub fn after(self, late: Live, rest: &mut Live) -> Option<Self> {
        if late.is_empty() || self.way.is_some() {
            return Some(self);
        }
        rest.keep(self.slot);
        None
    }
}

/// A packet whose way is known, or why it has none.
struct Ended {
    slot: usize,
    way: Result<PortId, Unopened>,
}

/// How packets of a lane are taken to their ends, such as [`Forwarder::run`]. They go by packets whose flows live elsewhere
/// than in their home lines, and leave them: in the next run these are near ([`Lane::look_elsewhere`]).
type Run<F, A, K> =
    fn(&mut Forwarder<F>, Context, &mut Live, PortId, &mut Lane<A, K>, &mut Burst<F>) -> Option<Stop>;

/// A run or a row of fewer packets than these does not pay.
pub(super) const FEW: usize = 4;

impl<F: Frame> Forwarder<F> {
    /// Takes the packets of a lane to their ends, if nothing before them waits; those that leave by one port, in their
    /// order. Returns how many they were.
    // Each lane's code by itself: in one function with others the registers do not suffice.
    #[inline(never)]
    pub(super) fn carry_lane<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        (live, waiting): (Live, &mut Waiting),
        sighted: &mut Lane<A, K>,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> usize {
        let (mut rest, mut left) = (live, 0);
        sighted.elsewhere = Live::default();
        let (mut run, port) = self.usual_run(context, live, sighted);
        let mut leaving = Leaving { port, live: Live::default() };
        let mut foreseen = false;
        while !rest.is_empty() {
            let before = rest;
            // No run takes openings.
            let opens = before.take(1).any(|slot| sighted.request(slot).opens());
            if opens && waiting.clients == 0 {
                if !foreseen {
                    self.foresee_places(context.snapshot, before, sighted, burst);
                    foreseen = true;
                }
                sighted.look_home(&self.flows);
                let opened = (&mut leaving, waiting.opening);
                if let Some(stop) = self.open_all(context, &mut rest, opened, sighted, burst) {
                    left +=
                        usize::from(!self.end(context, stop, (&mut leaving, waiting), sighted, burst, out));
                }
                continue;
            }
            let mut stop = None;
            if waiting.clients != 0 {
                stop = rest.next().map(|slot| Stop { slot, way: None, tried: true });
            }
            while stop.is_none() && !rest.is_empty() {
                stop = run(self, context, &mut rest, leaving.port, sighted, burst);
            }
            let gone = before.without(rest);
            leaving.live.join(gone);
            let Some(Stop { slot, mut way, tried }) = stop else { break };
            // What becomes of this packet may move their flows.
            sighted.look_home(&self.flows);
            let known = &sighted.at(slot);
            if !foreseen && known.may_begin() {
                self.foresee_places(context.snapshot, before, sighted, burst);
                foreseen = true;
            }
            if !tried {
                way = burst.get_mut(slot).and_then(|frame| self.carry_alone(context, known, frame));
                // Where it stops soon it was the wrong one.
                if gone.len() < FEW {
                    run = Self::run;
                }
            }
            if waiting.clients != 0 {
                if waiting.has(known.hash) {
                    leaving.live.leave(slot);
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
            let end = Ended { slot, way };
            left += usize::from(!self.end(context, end, (&mut leaving, waiting), sighted, burst, out));
        }
        self.depart(leaving, burst, out);
        live.len() - left
    }

    /// Opens the flows of packets in a row, as long as these are openings that leave by the same port as others and are
    /// before a place in the burst. They and the one where it stopped are not in `rest` any more.
    // Nothing else is in the loop.
    #[inline(never)]
    fn open_all<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        rest: &mut Live,
        (leaving, until): (&mut Leaving, usize),
        lane: &Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Ended> {
        for slot in *rest {
            let known = lane.at(slot);
            if !known.opens() {
                return None;
            }
            rest.leave(slot);
            let way = match burst.get_mut(slot) {
                Some(frame) if slot < until => self.open(context, &known, frame),
                _ => Err(Unopened::Unasked),
            };
            match way {
                Ok(port) if port == leaving.port => leaving.live.keep(slot),
                // Nobody is told of these reasons.
                Err(Unopened::Refused(why)) => self.drop(burst.take(slot), why),
                way => return Some(Ended { slot, way }),
            }
        }
        None
    }

    /// Has a packet leave whose way is known, after those that wait; or takes it to another end. Returns whether it could; else
    /// it waits for the stages.
    #[inline(never)]
    fn end<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        Ended { slot, way }: Ended,
        (leaving, waiting): (&mut Leaving, &mut Waiting),
        lane: &Lane<A, K>,
        burst: &mut Burst<F>,
        out: &mut Outbox<F>,
    ) -> bool {
        leaving.live.leave(slot);
        match way {
            Ok(port) if port == leaving.port || leaving.live.is_empty() => {
                leaving.port = port;
                leaving.live.keep(slot);
            }
            Ok(port) => burst.take(slot).into_iter().for_each(|frame| self.transmit(frame, port, out)),
            Err(Unopened::Refused(why)) => self.drop(burst.take(slot), why),
            Err(why) => {
                // It may go the same way.
                self.depart(*leaving, burst, out);
                leaving.live = Live::default();
                let known = &lane.at(slot);
                if slot >= waiting.opening || !self.take_up(context, known, why, slot, burst, out) {
                    waiting.add(known.hash);
                    return false;
                }
            }
        }
        true
    }

    /// What most packets of a lane probably need and the port that they leave by, by the first of them, whose backend is a
    /// sample. For those under NAT it finds the exits of replies.
    #[inline]
    fn usual_run<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        live: Live,
        lane: &mut Lane<A, K>,
    ) -> (Run<F, A, K>, PortId) {
        let first = live.into_iter().next().map(|slot| lane.at(slot));
        let flow = first.and_then(|known| known.key.get(&self.flows, known.home, &known.hash));
        let way = flow.and_then(|(_, flow)| context.snapshot.way(flow.backend()));
        if let Some((_, flow)) = flow
            && context.snapshot.is_large()
        {
            self.variety.note(flow.backend());
        }
        let run: Run<F, A, K> = match way.map(|way| way.carriage) {
            Some(Carriage::Dr) => Self::run_dr,
            Some(Carriage::Ipip) => Self::run_ipip,
            Some(Carriage::Nat) => match way_of(context.snapshot, live, lane) {
                (THERE, _) => Self::run_nat::<A, K, THERE, false>,
                (BACK, false) => Self::run_nat::<A, K, BACK, false>,
                (BACK, true) => Self::run_nat::<A, K, BACK, true>,
                (_, false) => Self::run_nat::<A, K, EITHER, false>,
                (_, true) => Self::run_nat::<A, K, EITHER, true>,
            },
            Some(Carriage::FullNat) => match way_of(context.snapshot, live, lane) {
                (THERE, _) => Self::run_full_nat::<A, K, THERE, false>,
                (BACK, false) => Self::run_full_nat::<A, K, BACK, false>,
                (BACK, true) => Self::run_full_nat::<A, K, BACK, true>,
                (_, false) => Self::run_full_nat::<A, K, EITHER, false>,
                (_, true) => Self::run_full_nat::<A, K, EITHER, true>,
            },
            _ => Self::run,
        };
        (run, way.map_or(PortId::default(), |way| way.exit.port))
    }

    /// Takes packets to their ends as long as they go the shortest way, by one port. Those that it went by are not in
    /// `rest` any more.
    // For others the registers would not suffice.
    #[inline(never)]
    fn run<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        rest: &mut Live,
        port: PortId,
        lane: &mut Lane<A, K>,
        burst: &mut Burst<F>,
    ) -> Option<Stop> {
        let carrier = self.carrier(context);
        let stop = carrier.run((rest, Live::default()), port, lane, burst, |its, lane, slot, frame| {
            let known = lane.at(slot);
            let flow = known.key.get_in(its.flows, known.home)?;
            its.carry(&known, flow, frame)
        });
        // There is no other easy way.
        stop.map(|stop| Stop { tried: true, ..stop })
    }

    /// The same of one packet, wherever its flow is.
    #[inline(never)]
    pub(super) fn carry_alone<A: Fast, K: Tabled>(
        &mut self,
        context: Context,
        known: &Sighted<A, K>,
        frame: &mut F,
    ) -> Option<PortId> {
        let flow = known.key.get(&self.flows, known.home, &known.hash)?;
        self.carrier(context).carry(known, flow, frame)
    }

    /// Hands packets to the port that they leave by.
    #[inline(never)]
    fn depart(&self, leaving: Leaving, burst: &mut Burst<F>, out: &mut Outbox<F>) {
        // Most bursts leave as they came.
        if let Some(transmit) = out.transmit.get_mut(usize::from(leaving.port.0))
            && transmit.is_empty()
            && leaving.live == Live::first(burst.len())
        {
            return std::mem::swap(transmit, burst);
        }
        for slot in leaving.live {
            burst.take(slot).into_iter().for_each(|frame| self.transmit(frame, leaving.port, out));
        }
    }
}

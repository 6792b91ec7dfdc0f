//! Packets of flows that are in the table.

use std::collections::HashSet;
use std::net::SocketAddr;

use dataplane::local::LocalSlot;
use dataplane::snapshot::BackendSlot;
use dataplane::wire::tcp::ACK;

use super::draw::Flows;
use super::path::Path;
use super::pool::FRAMES;
use super::traffic::{Segment, flow_of};
use super::world::World;
use crate::rng::Rng;

/// Packets that are drawn at once, for 64 rounds of a whole pool. What ten million flows are bound to takes 80 MB and is read at random: between
/// all rounds it would throw out of the caches what is measured.
const DRAWN: usize = 64 * FRAMES;

/// What a flow in the table is bound to.
#[derive(Clone, Copy, Default)]
struct Bound {
    backend: BackendSlot,
    /// The address and port by which the backend knows its client, in full NAT; the port is 0 elsewhere.
    local: LocalSlot,
    port: u16,
}

/// Makes packets of flows that are in a table.
pub struct Known<'a> {
    world: &'a World,
    flows: Flows,
    /// Flows that found no place.
    refused: HashSet<u32>,
    /// By flow; none where the balancer sees no replies.
    bound: Vec<Bound>,
    /// The next packets, the last one first: their flows, and what these are bound to if they are replies.
    drawn: Vec<(u32, Option<Bound>)>,
}

impl<'a> Known<'a> {
    /// Packets of the first `live` flows.
    pub fn new(path: &Path<'a>, live: u32) -> Self {
        let world = path.world;
        let mut stored = vec![false; live as usize];
        let mut bound =
            if world.shape.sees_replies() { vec![Bound::default(); live as usize] } else { Vec::new() };
        let table = path.flows();
        for line in 0..table.lines() {
            table.visit(line, |owner, value| {
                let flow = flow_of(SocketAddr::new(owner.client, owner.client_port)) as usize;
                stored.get_mut(flow).into_iter().for_each(|stored| *stored = true);
                if let Some(bound) = bound.get_mut(flow) {
                    let port = owner.local_port.unwrap_or_default();
                    *bound = Bound { backend: value.backend(), local: value.local(), port };
                }
            });
        }
        let refused = (0..live).filter(|flow| !stored[*flow as usize]).collect();
        let flows = Flows::new(world.shape.draw, live, Rng::new(1));
        Self { world, flows, refused, bound, drawn: Vec::with_capacity(DRAWN) }
    }

    /// The next one. Where the balancer sees replies, half are such.
    pub fn next(&mut self) -> Segment {
        let World { shape, snapshot, .. } = self.world;
        let (flow, bound) = loop {
            match self.drawn.pop() {
                Some(drawn) => break drawn,
                None => self.draw(),
            }
        };
        let client = self.world.client_of(flow);
        let request = Segment { src: client, dst: self.world.vip_of(flow), flags: ACK, frame: shape.frame };
        let Some(Bound { backend, local, port }) = bound else { return request };
        // In full NAT the backend answers a local address.
        let local = snapshot.local_address(local).filter(|_| port != 0);
        let dst = local.map_or(client, |address| SocketAddr::new(address, port));
        Segment { src: shape.address_of(backend), dst, ..request }
    }

    fn draw(&mut self) {
        for _ in 0..DRAWN {
            let mut flow = self.flows.next();
            while self.refused.contains(&flow) {
                flow = self.flows.next();
            }
            let bound = self.bound.get(flow as usize).copied();
            let bound = bound.filter(|_| self.flows.rng().below(2) == 0);
            self.drawn.push((flow, bound));
        }
    }
}

//! Packets of flows that are in the table.

use std::net::SocketAddr;

use dataplane::local::LocalSlot;
use dataplane::snapshot::BackendSlot;
use dataplane::wire::tcp::ACK;

use super::draw::Flows;
use super::path::Path;
use super::traffic::{Segment, client_of, flow_of};
use super::world::{Fill, World};
use crate::rng::Rng;

/// What a flow in the table is bound to.
#[derive(Clone, Copy)]
struct Bound {
    backend: BackendSlot,
    /// What the backend knows its client by, in full NAT.
    local: Option<(LocalSlot, u16)>,
}

/// Makes packets of flows that are in a table.
pub struct Known<'a> {
    world: &'a World,
    flows: Flows,
    /// By flow, none for those that found no place; nothing if all did and there are no replies to be made.
    bound: Vec<Option<Bound>>,
}

impl<'a> Known<'a> {
    /// Packets of the first `live` flows.
    pub fn new(path: &Path<'a>, live: u32) -> Self {
        let world = path.world;
        let flows = Flows::new(world.shape.draw, live, Rng::new(1));
        if !world.shape.sees_replies() && world.shape.fill <= Fill::RATED {
            return Self { world, flows, bound: Vec::new() };
        }
        let mut bound = vec![None; live as usize];
        let table = path.flows();
        for line in 0..table.lines() {
            table.visit(line, |owner, value| {
                let flow = flow_of(SocketAddr::new(owner.client, owner.client_port));
                if let Some(bound) = bound.get_mut(flow as usize) {
                    let local = owner.local_port.map(|port| (value.local(), port));
                    *bound = Some(Bound { backend: value.backend(), local });
                }
            });
        }
        Self { world, flows, bound }
    }

    /// The next one. Where the balancer sees replies, half are such.
    pub fn next(&mut self) -> Segment {
        let World { shape, snapshot } = self.world;
        loop {
            let flow = self.flows.next();
            let bound = self.bound.get(flow as usize).copied();
            let client = client_of(shape.family, flow);
            let request =
                Segment { src: client, dst: self.world.vip_of(flow), flags: ACK, frame: shape.frame };
            match bound {
                // It found no place.
                Some(None) => {}
                Some(Some(Bound { backend, local }))
                    if shape.sees_replies() && self.flows.rng().below(2) == 0 =>
                {
                    let Some(backend) = snapshot.backend(backend) else { continue };
                    // In full NAT the backend answers a local address.
                    let address = |(slot, port)| Some(SocketAddr::new(snapshot.local_address(slot)?, port));
                    let dst = local.and_then(address).unwrap_or(client);
                    return Segment { src: backend.address, dst, ..request };
                }
                _ => return request,
            }
        }
    }
}

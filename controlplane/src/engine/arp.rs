//! The control thread's packets: ARP in and out, and frames that wait for an address.

use std::net::Ipv4Addr;
use std::time::Duration;

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::drops::DropReason;
use dataplane::forward::{Punt, PuntReason};
use dataplane::route::{NextHop, PortId};
use dataplane::wire::arp::{Arp, Operation};
use dataplane::wire::eth;
use dataplane::worker::Injection;

use super::{Devices, Engine};
use crate::api;
use crate::compile::port_id;
use crate::neighbour::{Ask, Held};
use crate::report;

/// Frames taken from each worker in one turn, so that a flood of them holds nothing else up.
const PUNTS_PER_TURN: usize = 256;

/// What became of punted frames.
#[derive(Debug, Default)]
pub(super) struct Counters {
    punted: u64,
    answered: u64,
    resolved: u64,
}

impl<D: Devices> Engine<D> {
    /// Takes the frames that workers gave up.
    pub(super) fn take_punted(&mut self) {
        for worker in 0..self.workers.len() {
            for _ in 0..PUNTS_PER_TURN {
                let Some(Punt { frame, why }) = self.workers[worker].punt.pop() else { break };
                self.control.punted += 1;
                match why {
                    PuntReason::Arp(port) => self.hear_arp(port, &frame),
                    PuntReason::Resolve(station) => self.hold(station, frame),
                }
            }
        }
    }

    /// Answers a question for an own address or a VIP, and learns from what stations say of themselves.
    fn hear_arp(&mut self, port: PortId, frame: &D::Frame) {
        self.control.answered += 1;
        let Some(arp) = Arp::parse(frame.head()) else { return };
        let own_mac = self.mac(port);
        let ours = self.is_ours(port, arp.target);
        if arp.sender_mac != own_mac && self.is_ours(port, arp.sender) {
            tracing::warn!(
                "{} is used by {} too, seen on port {}",
                arp.sender,
                arp.sender_mac,
                self.port_name(port)
            );
            return;
        }
        let on_link = self.state.network.connected(arp.sender) == Some(usize::from(port.0));
        if on_link && !arp.sender.is_unspecified() && arp.sender_mac != own_mac {
            let station = NextHop { port, address: arp.sender.to_bits() };
            let released = self.neighbours.hear(station, arp.sender_mac, ours, self.now());
            self.release(released);
        }
        if arp.operation == Operation::Request && ours && arp.sender != arp.target {
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: own_mac,
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.send_arp(port, &reply, arp.sender_mac);
        }
    }

    /// Whether we answer for an address on a port: an own address there, or a VIP that does not belong to
    /// another port's prefix.
    fn is_ours(&self, port: PortId, address: Ipv4Addr) -> bool {
        let network = &self.state.network;
        let here = network.connected(address).is_none_or(|connected| connected == usize::from(port.0));
        let is_vip =
            || self.state.service_slots().iter().flatten().any(|service| *service.key.vip.ip() == address);
        here && (network.is_own(address) || is_vip())
    }

    fn hold(&mut self, station: NextHop, frame: D::Frame) {
        match self.neighbours.hold(station, frame, self.now()) {
            Held::Waiting => self.ask_neighbours(),
            Held::Known(frame, mac) => self.release(vec![(station, frame, mac)]),
            Held::Dropped(why) => self.drops.count(why),
        }
    }

    /// Sends frames that waited for the Ethernet addresses of their next hops.
    pub(super) fn release(&mut self, frames: Vec<(NextHop, D::Frame, MacAddr)>) {
        for (station, mut frame, mac) in frames {
            if let Some(place) = frame.head_mut().get_mut(eth::DST..eth::DST + 6) {
                place.copy_from_slice(&mac.0);
            }
            if self.inject(station.port, frame) {
                self.control.resolved += 1;
            }
        }
    }

    /// Sends the requests that are due, and drops the frames that waited in vain.
    pub(super) fn ask_neighbours(&mut self) {
        let (asks, expired) = self.neighbours.poll(self.now());
        for _ in expired {
            self.drops.count(DropReason::NeighbourUnresolved);
        }
        for Ask { station, to } in asks {
            let target = Ipv4Addr::from_bits(station.address);
            // A port without an address asks as a probe does (RFC 5227, 2.1.1).
            let sender = self.state.network.own_address(usize::from(station.port.0), target);
            let request = Arp {
                operation: Operation::Request,
                sender_mac: self.mac(station.port),
                sender: sender.unwrap_or(Ipv4Addr::UNSPECIFIED),
                target_mac: MacAddr::default(),
                target,
            };
            self.send_arp(station.port, &request, to.unwrap_or(MacAddr::BROADCAST));
        }
    }

    /// Announces the own addresses and VIPs that are new (RFC 5227, 3), so that stations which knew them
    /// elsewhere come here.
    pub(super) fn announce_new(&mut self) {
        let own =
            self.config.ports.iter().flat_map(|port| port.addresses.iter().map(|address| address.addr()));
        let vips = self.state.services().map(|service| *service.key.vip.ip());
        let all: Vec<Ipv4Addr> = own.chain(vips).collect();
        let mut before = std::mem::take(&mut self.announced);
        for address in all {
            if self.announced.insert(address) && !before.remove(&address) {
                self.announce(address);
            }
        }
    }

    /// Announces an address on the port it belongs to, or on all if it belongs to none.
    fn announce(&mut self, address: Ipv4Addr) {
        for port in (0..self.macs.len()).map(port_id) {
            if !self.is_ours(port, address) {
                continue;
            }
            let announcement = Arp {
                operation: Operation::Request,
                sender_mac: self.mac(port),
                sender: address,
                target_mac: MacAddr::default(),
                target: address,
            };
            self.send_arp(port, &announcement, MacAddr::BROADCAST);
        }
    }

    fn send_arp(&mut self, port: PortId, arp: &Arp, to: MacAddr) {
        // Without memory the packet is lost as it could be on the wire; it is asked or asked for again.
        if let Some(frame) = self.devices.frame(&arp.frame(to)) {
            self.inject(port, frame);
        }
    }

    /// Gives a frame to a worker to be sent. Workers take turns.
    fn inject(&mut self, port: PortId, frame: D::Frame) -> bool {
        self.next_worker = (self.next_worker + 1) % self.workers.len().max(1);
        let Some(worker) = self.workers.get(self.next_worker) else { return false };
        let taken = worker.inject.push(Injection { frame, port }).is_ok();
        if !taken {
            self.drops.count(DropReason::InjectFull);
        }
        taken
    }

    fn mac(&self, port: PortId) -> MacAddr {
        self.macs.get(usize::from(port.0)).copied().unwrap_or_default()
    }

    fn port_name(&self, port: PortId) -> &str {
        self.config.ports.get(usize::from(port.0)).map_or("?", |port| &port.name)
    }

    pub(super) fn control_stats(&self) -> api::ControlStats {
        api::ControlStats {
            punted: self.control.punted,
            answered: self.control.answered,
            resolved: self.control.resolved,
            waiting: self.neighbours.waiting() as u64,
            dropped: self.drops.total(),
            drops: report::drops(&[&self.drops]),
        }
    }

    pub(super) fn neighbour_status(&self) -> Vec<api::NeighbourStatus> {
        let mut list: Vec<_> = self
            .neighbours
            .list()
            .map(|(station, mac)| api::NeighbourStatus {
                address: Ipv4Addr::from_bits(station.address),
                mac,
                port: self.port_name(station.port).to_owned(),
            })
            .collect();
        list.sort_by_key(|neighbour| neighbour.address);
        list
    }

    /// Sets which stations are fixed and which are wanted, as configured.
    pub(super) fn configure_neighbours(&mut self, now: Duration) {
        let fixed = super::reload::fixed_stations(&self.state, &self.config);
        let wanted = crate::compile::wanted_stations(&self.state, &self.config);
        let released = self.neighbours.configure(fixed, wanted, now);
        self.release(released);
    }
}

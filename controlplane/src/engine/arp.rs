//! The control thread's packets: ARP in and out, and frames that wait for an address.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

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
use crate::neighbour::{Ask, Held, Time, Weight};
use crate::report;

/// Frames taken from each worker in one turn, so that a flood of them holds nothing else up.
const PUNTS_PER_TURN: usize = 256;

/// Announcements sent in one turn, so that those of many VIPs leave room for other frames.
const ANNOUNCEMENTS_PER_TURN: usize = 32;
/// Time between the two announcements of an address (RFC 5227, 1.1: ANNOUNCE_INTERVAL).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// Time between log lines about the same address conflict.
const CONFLICT_INTERVAL: Duration = Duration::from_secs(10);

/// What became of punted frames.
#[derive(Debug, Default)]
pub(super) struct Counters {
    punted: u64,
    answered: u64,
    resolved: u64,
    unsent: u64,
}

/// The VIPs we answer for, and what is to be said of our addresses.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// VIPs of configured services.
    vips: HashSet<Ipv4Addr>,
    /// VIPs of which only flows of removed services are left. Given up when another station claims one.
    retired: HashSet<Ipv4Addr>,
    given_up: HashSet<Ipv4Addr>,
    /// Own addresses and VIPs that were announced.
    announced: HashSet<Ipv4Addr>,
    /// To be announced for the first time.
    first: VecDeque<Ipv4Addr>,
    /// To be announced again, and when.
    again: VecDeque<(Time, Ipv4Addr)>,
    /// When a conflict over an address was last logged.
    conflicts: HashMap<Ipv4Addr, Time>,
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
        if self.macs.contains(&arp.sender_mac) {
            return;
        }
        if self.is_ours(port, arp.sender) {
            return self.note_conflict(port, &arp);
        }
        let ours = self.is_ours(port, arp.target);
        let on_link = self.state.network.connected(arp.sender) == Some(usize::from(port.0));
        if on_link && !arp.sender.is_unspecified() {
            let station = NextHop { port, address: arp.sender.to_bits() };
            let weight = if ours { Weight::ForUs } else { Weight::Overheard };
            let released = self.neighbours.hear(station, arp.sender_mac, weight, self.now());
            self.release(released);
        }
        if arp.operation == Operation::Request && ours {
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: self.mac(port),
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
        let Claims { vips, retired, .. } = &self.claims;
        here && (network.is_own(address) || vips.contains(&address) || retired.contains(&address))
    }

    /// Another station says that it has an address of ours.
    fn note_conflict(&mut self, port: PortId, arp: &Arp) {
        if self.claims.retired.remove(&arp.sender) {
            tracing::info!("{} was removed here and is taken over by {}", arp.sender, arp.sender_mac);
            self.claims.given_up.insert(arp.sender);
            return;
        }
        let now = self.now();
        let last = self.claims.conflicts.get(&arp.sender);
        if last.is_none_or(|last| now - *last >= CONFLICT_INTERVAL) {
            self.claims.conflicts.insert(arp.sender, now);
            let name = self.port_name(port);
            tracing::warn!(
                "{} is used by {} too, seen on port {name}; remove it there",
                arp.sender,
                arp.sender_mac
            );
        }
    }

    /// Finds the VIPs we answer for, after services changed.
    pub(super) fn claim_vips(&mut self) {
        let vips = |retired| {
            let services = self.state.service_slots().iter().flatten();
            services.filter(move |service| service.retired == retired).map(|service| *service.key.vip.ip())
        };
        let (configured, mut retired): (HashSet<_>, HashSet<_>) =
            (vips(false).collect(), vips(true).collect());
        retired.retain(|vip| !configured.contains(vip));
        self.claims.given_up.retain(|vip| retired.contains(vip));
        retired.retain(|vip| !self.claims.given_up.contains(vip));
        (self.claims.vips, self.claims.retired) = (configured, retired);
    }

    fn hold(&mut self, station: NextHop, frame: D::Frame) {
        match self.neighbours.hold(station, frame, self.now()) {
            Held::Waiting => self.next_neighbours = Instant::now(),
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
            } else {
                self.drops.count(DropReason::InjectFull);
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

    /// Has the own addresses and VIPs announced that are new (RFC 5227, 3), so that stations which knew them
    /// elsewhere come here.
    pub(super) fn announce_new(&mut self) {
        let own =
            self.config.ports.iter().flat_map(|port| port.addresses.iter().map(|address| address.addr()));
        let vips = self.state.services().map(|service| *service.key.vip.ip());
        let all: Vec<Ipv4Addr> = own.chain(vips).collect();
        let mut before = std::mem::take(&mut self.claims.announced);
        for address in all {
            if self.claims.announced.insert(address) && !before.remove(&address) {
                self.claims.first.push_back(address);
            }
        }
    }

    /// Has everything announced again, as when a link came up.
    pub(super) fn announce_all(&mut self) {
        self.claims.announced.clear();
        self.announce_new();
    }

    /// Sends the announcements that are due, a bounded number of them.
    pub(super) fn send_announcements(&mut self) {
        let now = self.now();
        for _ in 0..ANNOUNCEMENTS_PER_TURN {
            if let Some(address) = self.claims.first.pop_front() {
                self.announce(address);
                self.claims.again.push_back((now + ANNOUNCE_INTERVAL, address));
                continue;
            }
            match self.claims.again.front() {
                Some((due, address)) if *due <= now => self.announce(*address),
                _ => return,
            }
            self.claims.again.pop_front();
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
        // What is not sent is as if lost on the wire; requests and announcements are repeated.
        let frame = self.devices.frame(&arp.frame(to));
        if !frame.is_some_and(|frame| self.inject(port, frame)) {
            self.control.unsent += 1;
        }
    }

    /// Gives a frame to a worker to be sent. Workers take turns.
    fn inject(&mut self, port: PortId, frame: D::Frame) -> bool {
        self.next_worker = (self.next_worker + 1) % self.workers.len().max(1);
        let Some(worker) = self.workers.get(self.next_worker) else { return false };
        worker.inject.push(Injection { frame, port }).is_ok()
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
            unsent: self.control.unsent,
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

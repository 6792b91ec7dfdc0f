//! Frames that come to the control thread and leave it.

use std::time::Instant;

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::drops::DropReason;
use dataplane::forward::{Punt, PuntReason};
use dataplane::route::NextHop;
use dataplane::wire::{eth, read_u16};
use dataplane::worker::Injection;

use super::{Devices, Engine};
use crate::api;
use crate::neighbour::Held;
use crate::report;

/// Frames taken from each worker in one turn, so that a flood of them holds nothing else up.
const PUNTS_PER_TURN: usize = 256;

/// What became of the frames that the control thread was given.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) punted: u64,
    pub(super) from_host: u64,
    pub(super) answered: u64,
    pub(super) resolved: u64,
    pub(super) to_host: u64,
    pub(super) host_sent: u64,
    pub(super) unsent: u64,
}

/// Offset of what follows the Ethernet header of a frame and its VLAN tags, up to two.
pub(super) fn l3_of(frame: &[u8]) -> u16 {
    let is_tag = |at| matches!(read_u16(frame, at), Some(eth::TYPE_VLAN | eth::TYPE_SERVICE_VLAN));
    let tags = (0..2).take_while(|tag| is_tag(eth::TYPE + tag * eth::TAG_LEN)).count();
    (eth::HEADER_LEN + tags * eth::TAG_LEN) as u16
}

impl<D: Devices> Engine<D> {
    /// Takes the frames that workers gave up.
    pub(super) fn take_punted(&mut self) {
        for worker in 0..self.workers.len() {
            for _ in 0..PUNTS_PER_TURN {
                let Some(Punt { frame, why }) = self.workers[worker].punt.pop() else { break };
                self.control.punted += 1;
                match why {
                    PuntReason::Arp(interface) => self.hear_arp(interface.0.into(), &frame),
                    PuntReason::Nd(interface) => self.hear_nd(interface.0.into(), &frame),
                    PuntReason::Host(interface) => self.give_to_kernel(interface.0.into(), &frame),
                    PuntReason::Resolve(station) => self.hold(station, frame),
                }
            }
        }
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
            if self.inject(station.interface.0.into(), frame) {
                self.control.resolved += 1;
            } else {
                self.drops.count(DropReason::InjectFull);
            }
        }
    }

    /// Sends an own frame. One that is not sent is as if lost on the wire: questions and announcements are
    /// repeated.
    pub(super) fn send(&mut self, interface: usize, bytes: &[u8]) {
        let frame = self.devices.frame(bytes);
        if !frame.is_some_and(|frame| self.inject(interface, frame)) {
            self.control.unsent += 1;
        }
    }

    /// Gives a frame to a worker to be sent. Workers take turns.
    fn inject(&mut self, interface: usize, frame: D::Frame) -> bool {
        self.next_worker = (self.next_worker + 1) % self.workers.len().max(1);
        self.inject_by(self.next_worker, interface, frame)
    }

    /// Gives a frame to one worker to be sent.
    pub(super) fn inject_by(&self, worker: usize, interface: usize, frame: D::Frame) -> bool {
        let (port, _) = self.frame.link(interface);
        self.workers.get(worker).is_some_and(|worker| worker.inject.push(Injection { frame, port }).is_ok())
    }

    pub(super) fn control_stats(&self) -> api::ControlStats {
        let counters = &self.control;
        api::ControlStats {
            punted: counters.punted,
            from_host: counters.from_host,
            answered: counters.answered,
            resolved: counters.resolved,
            to_host: counters.to_host,
            host_sent: counters.host_sent,
            waiting: self.neighbours.waiting() as u64,
            dropped: self.drops.total(),
            drops: report::drops(&[&self.drops]),
            unsent: counters.unsent,
        }
    }
}

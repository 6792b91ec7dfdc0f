//! ARP (RFC 826): questions answered and asked, own addresses announced.

use std::net::{IpAddr, Ipv4Addr};

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::wire::arp::{Arp, Operation};
use dataplane::wire::eth::{self, LinkHeader};

use super::frames::l3_of;
use super::{Devices, Engine};
use crate::neighbour::Weight;

impl<D: Devices> Engine<D> {
    /// Answers a question for an address of ours, and learns from what stations say of themselves.
    pub(super) fn hear_arp(&mut self, interface: usize, frame: &D::Frame) {
        self.control.answered += 1;
        let head = frame.head();
        let Some(arp) = Arp::parse_at(head, l3_of(head)) else { return };
        if self.frame.macs.contains(&arp.sender_mac) {
            return;
        }
        if self.is_ours(interface, arp.sender.into()) {
            return self.note_conflict(interface, arp.sender.into(), arp.sender_mac);
        }
        let ours = self.is_ours(interface, arp.target.into());
        let weight = if ours { Weight::ForUs } else { Weight::Overheard };
        self.learn(interface, arp.sender.into(), arp.sender_mac, weight);
        // The kernel asks for itself, and should hear what it is told; it must not answer for other links.
        let tells = arp.operation == Operation::Reply || arp.sender == arp.target;
        if tells && self.host.has(interface) {
            self.copy_to_kernel(interface, frame);
        }
        if arp.operation == Operation::Request && ours && self.may_answer() {
            let reply = Arp {
                operation: Operation::Reply,
                sender_mac: self.frame.mac(interface),
                sender: arp.target,
                target_mac: arp.sender_mac,
                target: arp.sender,
            };
            self.send_arp(interface, &reply, arp.sender_mac);
        }
    }

    /// Asks a station, or all stations, for the Ethernet address of one.
    pub(super) fn ask_by_arp(&mut self, interface: usize, target: Ipv4Addr, to: Option<MacAddr>) {
        // An interface without an address asks as a probe does (RFC 5227, 2.1.1).
        let sender = match self.state.ground.network.own_address(interface, target.into()) {
            Some(IpAddr::V4(own)) => own,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let request = self.arp_request(interface, sender, target);
        self.send_arp(interface, &request, to.unwrap_or(MacAddr::BROADCAST));
    }

    /// Tells all stations that an address is ours (RFC 5227, 3).
    pub(super) fn announce_by_arp(&mut self, interface: usize, address: Ipv4Addr) {
        let announcement = self.arp_request(interface, address, address);
        self.send_arp(interface, &announcement, MacAddr::BROADCAST);
    }

    fn arp_request(&self, interface: usize, sender: Ipv4Addr, target: Ipv4Addr) -> Arp {
        let (operation, target_mac) = (Operation::Request, MacAddr::default());
        Arp { operation, sender_mac: self.frame.mac(interface), sender, target_mac, target }
    }

    fn send_arp(&mut self, interface: usize, arp: &Arp, to: MacAddr) {
        let (_, tags) = self.frame.link(interface);
        let link = LinkHeader::new(to, arp.sender_mac, tags, eth::TYPE_ARP);
        self.send(interface, &arp.frame_by(&link));
    }
}

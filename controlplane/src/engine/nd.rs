//! Neighbour discovery (RFC 4861): questions answered and asked, own addresses probed and announced.
//!
//! Router advertisements and redirects are ignored: routes are those of the configuration.

use std::net::{IpAddr, Ipv6Addr};

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::wire::eth::{self, LinkHeader};
use dataplane::wire::nd::{Message, Nd, group_mac};

use super::frames::l3_of;
use super::{Devices, Engine};
use crate::neighbour::Weight;

impl<D: Devices> Engine<D> {
    /// Answers a question for an address of ours, and learns from what stations say of themselves.
    pub(super) fn hear_nd(&mut self, interface: usize, frame: &D::Frame) {
        self.control.answered += 1;
        let head = frame.head();
        let Some(from) = sender(head).filter(|mac| !self.frame.macs.contains(mac)) else { return };
        let Some(nd) = Nd::parse(head, l3_of(head)) else { return };
        match nd.message {
            Message::Solicitation => self.hear_solicitation(interface, &nd, from),
            Message::Advertisement { .. } => self.hear_advertisement(interface, &nd, from, frame),
        }
    }

    fn hear_solicitation(&mut self, interface: usize, nd: &Nd, from: MacAddr) {
        let ours = self.is_ours(interface, nd.target.into());
        if nd.src.is_unspecified() {
            // Somebody is about to take the target. What is ours is defended below; what we only kept for the
            // flows of a removed service is let go.
            if ours {
                self.note_conflict(interface, nd.target.into(), from);
            }
        } else if self.is_ours(interface, nd.src.into()) {
            return self.note_conflict(interface, nd.src.into(), from);
        } else if let Some(mac) = nd.mac {
            let weight = if ours { Weight::ForUs } else { Weight::Overheard };
            self.learn(interface, nd.src.into(), mac, weight);
        }
        if self.is_ours(interface, nd.target.into()) && self.may_answer() {
            let answer = nd.answer(self.frame.mac(interface), self.is_router(interface));
            let to = if answer.dst.is_multicast() { group_mac(answer.dst) } else { nd.mac.unwrap_or(from) };
            self.send_nd(interface, &answer, to);
        }
    }

    fn hear_advertisement(&mut self, interface: usize, nd: &Nd, from: MacAddr, frame: &D::Frame) {
        let Message::Advertisement { overrides, .. } = nd.message else { return };
        if self.is_ours(interface, nd.target.into()) {
            return self.note_conflict(interface, nd.target.into(), from);
        }
        // Who was not asked for is not noted (RFC 4861, 7.2.5).
        let weight = if overrides { Weight::Overheard } else { Weight::Hint };
        // The answer to a question by unicast may leave the option out (RFC 4861, 4.4).
        self.learn(interface, nd.target.into(), nd.mac.unwrap_or(from), weight);
        // The kernel asks for itself, and should hear what it is told.
        if self.host.has(interface) {
            self.copy_to_kernel(interface, frame);
        }
    }

    /// Asks a station, or all who may be it, for the Ethernet address of one.
    pub(super) fn ask_by_nd(&mut self, interface: usize, target: Ipv6Addr, to: Option<MacAddr>) {
        let own = match self.state.ground.network.own_address(interface, target.into()) {
            Some(IpAddr::V6(own)) => own,
            _ => self.claims.link_local(interface),
        };
        let mut question = Nd::solicitation(own, self.frame.mac(interface), target);
        if to.is_some() {
            question.dst = target;
        }
        self.send_nd(interface, &question, to.unwrap_or(group_mac(question.dst)));
    }

    /// Asks whether somebody else has an address of ours (RFC 4862, 5.4).
    pub(super) fn probe_by_nd(&mut self, interface: usize, address: Ipv6Addr) {
        let probe = Nd::solicitation(Ipv6Addr::UNSPECIFIED, self.frame.mac(interface), address);
        self.send_nd(interface, &probe, group_mac(probe.dst));
    }

    /// Tells all stations that an address is ours (RFC 4861, 7.2.6).
    pub(super) fn announce_by_nd(&mut self, interface: usize, address: Ipv6Addr) {
        let router = self.is_router(interface);
        let announcement = Nd::announcement(address, self.frame.mac(interface), router);
        self.send_nd(interface, &announcement, group_mac(announcement.dst));
    }

    /// Whether stations on an interface may use us as their router.
    fn is_router(&self, interface: usize) -> bool {
        self.config.interfaces.get(interface).is_some_and(|interface| interface.gateway.is_some())
    }

    fn send_nd(&mut self, interface: usize, nd: &Nd, to: MacAddr) {
        let (_, tags) = self.frame.link(interface);
        let link = LinkHeader::new(to, self.frame.mac(interface), tags, eth::TYPE_IPV6);
        self.send(interface, &nd.frame(&link));
    }
}

/// The Ethernet address that a frame comes from, if a station may have it.
fn sender(frame: &[u8]) -> Option<MacAddr> {
    let mac = MacAddr(*frame.get(eth::SRC..)?.first_chunk()?);
    (mac.is_unicast() && mac != MacAddr::default()).then_some(mac)
}

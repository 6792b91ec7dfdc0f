//! Stations and our own addresses: what ARP and ND have in common.

use std::net::IpAddr;
use std::time::Duration;

use config::words::MacAddr;
use dataplane::drops::DropReason;
use dataplane::route::NextHop;

use super::claims::{Conflict, Notice};
use super::{Devices, Engine};
use crate::api;
use crate::compile::{interface_id, speaks_v6};
use crate::neighbour::{Ask, Time, Weight};

/// Announcements sent in one turn, so that those of many VIPs leave room for other frames.
const NOTICES_PER_TURN: usize = 32;

/// Questions answered in a tenth of a second, so that a flood of them is not answered by a flood.
const ANSWERS_PER_WINDOW: u32 = 1000;
const ANSWER_WINDOW: Duration = Duration::from_millis(100);

/// Answers that may still be given.
#[derive(Debug, Default)]
pub(super) struct AnswerBudget {
    since: Time,
    given: u32,
}

impl AnswerBudget {
    fn take(&mut self, now: Time) -> bool {
        if now - self.since >= ANSWER_WINDOW {
            *self = Self { since: now, given: 0 };
        }
        self.given += 1;
        self.given <= ANSWERS_PER_WINDOW
    }
}

impl<D: Devices> Engine<D> {
    /// Whether a question of ARP or ND may be answered now; all of them count as answered.
    pub(super) fn may_answer(&mut self) -> bool {
        self.answers.take(self.now())
    }

    /// Whether we answer for an address on an interface.
    pub(super) fn is_ours(&self, interface: usize, address: IpAddr) -> bool {
        // One without IPv6 has no link-local address, though it has that of others of its port by its Ethernet address.
        let is_link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        if is_link_local && !self.config.interfaces.get(interface).is_some_and(speaks_v6) {
            return false;
        }
        self.claims.is_ours(&self.state.ground.network, interface, address)
    }

    /// Notes the address of a station, if it is one of its link's.
    pub(super) fn learn(&mut self, interface: usize, address: IpAddr, mac: MacAddr, weight: Weight) {
        if self.state.ground.network.connected(address) != Some(interface) || address.is_unspecified() {
            return;
        }
        let station = NextHop { interface: interface_id(interface), address };
        let released = self.neighbours.hear(station, mac, weight, self.now());
        self.release(released);
    }

    /// Another station says that it has an address of ours.
    pub(super) fn note_conflict(&mut self, interface: usize, address: IpAddr, mac: MacAddr) {
        match self.claims.conflict(address, self.now()) {
            Conflict::Known => {}
            Conflict::GivenUp => tracing::info!("{address} was removed here and is taken over by {mac}"),
            Conflict::Told => {
                let name = self.interface_name(interface);
                tracing::warn!("{address} is used by {mac} too, seen on {name}; remove it there");
            }
        }
    }

    /// Finds what we answer for, after the configuration changed.
    pub(super) fn claim_addresses(&mut self) {
        let vips = |retired| {
            let services = self.state.service_slots().iter().flatten();
            services.filter(move |it| it.retired == retired).map(|it| it.config.key.address)
        };
        self.claims.set(vips(false), vips(true), self.state.ground.locals.addresses().iter().copied());
    }

    /// Has the addresses announced that are new, so that stations which knew them elsewhere come here.
    pub(super) fn announce_new(&mut self) {
        let interfaces = self.config.interfaces.iter().enumerate();
        let own = interfaces.flat_map(|(number, interface)| {
            let link_local = speaks_v6(interface).then(|| self.claims.link_local(number).into());
            interface.addresses.iter().map(|own| own.addr()).chain(link_local)
        });
        let vips = self.state.services().map(|service| service.config.key.address);
        let pools = self.state.ground.pools.iter().flat_map(|pool| pool.addresses.iter().copied());
        let all: Vec<IpAddr> = own.chain(vips).chain(pools).collect();
        self.claims.announce(all);
    }

    /// Has everything announced again, as when a link came up.
    pub(super) fn announce_all(&mut self) {
        self.claims.forget_announced();
        self.announce_new();
    }

    /// Sends the notices that are due, a bounded number of them, each on the interfaces where the address is
    /// ours.
    pub(super) fn send_notices(&mut self) {
        let now = self.now();
        for _ in 0..NOTICES_PER_TURN {
            let Some((notice, address)) = self.claims.next_notice(now) else { return };
            for interface in 0..self.config.interfaces.len() {
                if !self.is_ours(interface, address) {
                    continue;
                }
                match (address, notice) {
                    (IpAddr::V4(address), _) => self.announce_by_arp(interface, address),
                    (IpAddr::V6(address), Notice::Probe) => self.probe_by_nd(interface, address),
                    (IpAddr::V6(address), Notice::Announcement) => self.announce_by_nd(interface, address),
                }
            }
        }
    }

    /// Sends the questions that are due, and drops the frames that waited in vain.
    pub(super) fn ask_neighbours(&mut self) {
        let (asks, expired) = self.neighbours.poll(self.now());
        for _ in expired {
            self.drops.count(DropReason::NeighbourUnresolved);
        }
        for Ask { station, to } in asks {
            let interface = station.interface.0.into();
            match station.address {
                IpAddr::V4(address) => self.ask_by_arp(interface, address, to),
                IpAddr::V6(address) => self.ask_by_nd(interface, address, to),
            }
        }
    }

    /// Sets which stations are fixed and which are wanted, as configured.
    pub(super) fn configure_neighbours(&mut self, now: Duration) {
        let fixed = super::reload::fixed_stations(&self.state, &self.config);
        let wanted = crate::compile::wanted_stations(&self.state, &self.config);
        let released = self.neighbours.configure(fixed, wanted, now);
        self.release(released);
    }

    pub(super) fn interface_name(&self, interface: usize) -> &str {
        self.config.interfaces.get(interface).map_or("?", |interface| &interface.name)
    }

    pub(super) fn neighbour_status(&self) -> Vec<api::NeighbourStatus> {
        let mut list: Vec<_> = self
            .neighbours
            .list()
            .map(|(station, mac)| api::NeighbourStatus {
                address: station.address,
                mac,
                interface: self.interface_name(station.interface.0.into()).to_owned(),
            })
            .collect();
        list.sort_by(|a, b| (a.address, &a.interface).cmp(&(b.address, &b.interface)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_limited_and_go_on_later() {
        let mut budget = AnswerBudget::default();
        let at = Duration::from_millis;
        assert_eq!((0..5000).filter(|_| budget.take(at(99))).count(), ANSWERS_PER_WINDOW as usize);
        assert!(budget.take(at(100)));
    }
}

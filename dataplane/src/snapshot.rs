//! What workers need to forward, frozen: services, backends, routes, neighbours.
//!
//! Made by the control thread, read by all workers, changed by nobody; a change is a new snapshot. What
//! changes with packets (flows, scheduler positions, counters) belongs to the workers.

use std::net::{IpAddr, SocketAddrV4};
use std::sync::Arc;

use config::words::{MacAddr, Mode, Protocol, Scheduler, ServiceKey};

use crate::flow::state::Timeouts;
use crate::lookup::Lookup;
use crate::route::{InterfaceId, NextHop, RouteTable};
use crate::wire::eth;

/// Number of a service for as long as it or one of its flows exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceSlot(pub u16);

/// Number of a backend of one service for as long as it or one of its flows exists. At most 24 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendSlot(pub u32);

/// A port as packets see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet it sends, in bytes.
    pub mtu: u16,
    /// Its own address, host order, from which it tells senders what went wrong.
    pub address: Option<u32>,
}

/// A service that is configured, or was and has flows left.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Protocol, address and port.
    pub key: ServiceKey,
    /// How a new flow's backend is chosen.
    pub scheduler: Scheduler,
    /// Whether it was removed and only its flows remain.
    pub retired: bool,
    /// Tells services apart that have the same slot one after the other.
    pub incarnation: u64,
    /// Changes whenever `candidates` does, so that schedulers notice.
    pub version: u64,
    /// Backends that take new flows, none with weight 0, in the order of configuration.
    pub candidates: Vec<Candidate>,
    /// Largest weight of the candidates.
    pub max_weight: u32,
    /// Greatest common divisor of their weights.
    pub weight_gcd: u32,
}

/// A backend that takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub backend: BackendSlot,
    /// Its share of new flows; not 0.
    pub weight: u16,
}

impl Service {
    /// A service with these candidates.
    pub fn new(key: ServiceKey, scheduler: Scheduler, version: u64, candidates: Vec<Candidate>) -> Self {
        let weights = || candidates.iter().map(|candidate| u32::from(candidate.weight));
        let (max_weight, weight_gcd) = (weights().max().unwrap_or(0), weights().fold(0, gcd));
        Self { key, scheduler, retired: false, incarnation: 0, version, candidates, max_weight, weight_gcd }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A backend that is configured, or was and has flows left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The service it belongs to.
    pub service: ServiceSlot,
    /// Its address and port.
    pub address: SocketAddrV4,
    /// How packets reach it.
    pub mode: Mode,
    /// Source address of the outer header, host order; of use with [`Mode::Tunnel`] only.
    pub tunnel_src: u32,
    /// Whether its checks let it live. One that is down keeps its flows, but no opening of one.
    pub up: bool,
}

/// How to send a packet on its next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The next station.
    pub next_hop: NextHop,
    /// Ethernet header; its destination is of no meaning unless `resolved`.
    pub link: [u8; eth::HEADER_LEN],
    /// Whether the next station's Ethernet address is known.
    pub resolved: bool,
    /// Largest IP packet the port sends, in bytes.
    pub mtu: u16,
}

/// Ethernet addresses of the stations on the links.
pub type NeighbourTable = Lookup<[u64; 3], MacAddr>;

/// Key of a station in the [`NeighbourTable`].
pub fn neighbour_key(station: NextHop) -> [u64; 3] {
    let address = match station.address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    // The added 1 keeps it from being all zeros.
    [u64::from(station.interface.0) + 1, (address >> 64) as u64, address as u64]
}

/// What a snapshot is made from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// All ports, by number.
    pub ports: Vec<PortInfo>,
    /// All own addresses, host order.
    pub own: Vec<u32>,
    /// All routes.
    pub routes: Arc<RouteTable<u32>>,
    /// All known stations.
    pub neighbours: Arc<NeighbourTable>,
    /// Services by slot.
    pub services: Vec<Option<Arc<Service>>>,
    /// Backends by slot.
    pub backends: Vec<Option<Backend>>,
    /// Idle timeouts of flows.
    pub timeouts: Timeouts,
}

/// Forwarding state that is in force from one generation to the next.
#[derive(Debug)]
pub struct Snapshot {
    /// The parts, as they were given.
    pub parts: Parts,
    /// Own addresses and VIPs.
    local: Lookup<u64, ()>,
    /// Service slots by protocol, address and port.
    services: Lookup<u64, ServiceSlot>,
    /// By a NAT backend's protocol, address and port: the range of `reply_services` it replies for.
    replies: Lookup<u64, (u32, u32)>,
    reply_services: Vec<ServiceSlot>,
    /// How each backend is reached, by slot.
    egress: Vec<Option<Egress>>,
}

impl Snapshot {
    /// Makes the tables that packets are looked up in.
    pub fn new(parts: Parts) -> Self {
        let keys: Vec<_> = parts
            .services
            .iter()
            .enumerate()
            .filter_map(|(slot, service)| {
                let key = service.as_ref()?.key;
                Some((
                    endpoint_key(key.protocol, key.vip.ip().to_bits(), key.vip.port()),
                    ServiceSlot(slot as u16),
                ))
            })
            .collect();
        let (replies, reply_services) = reply_tables(&parts);
        let vips = parts.services.iter().flatten().filter(|service| !service.retired);
        let local: Vec<u64> = parts
            .own
            .iter()
            .copied()
            .chain(vips.map(|vip| vip.key.vip.ip().to_bits()))
            .map(u64::from)
            .collect();
        let mut snapshot = Self {
            local: Lookup::new(local.into_iter().map(|address| (address, ()))),
            services: Lookup::new(keys.into_iter()),
            replies,
            reply_services,
            egress: Vec::new(),
            parts,
        };
        snapshot.egress = snapshot
            .parts
            .backends
            .iter()
            .map(|backend| snapshot.egress_to(backend.as_ref()?.address.ip().to_bits()))
            .collect();
        snapshot
    }

    /// The service that listens on an address and port.
    #[inline]
    pub fn service_at(&self, protocol: Protocol, address: u32, port: u16) -> Option<ServiceSlot> {
        self.services.get(endpoint_key(protocol, address, port))
    }

    /// Whether an address is an own one or a VIP.
    pub fn is_local(&self, address: u32) -> bool {
        self.local.get(u64::from(address)).is_some()
    }

    /// A port's own address.
    pub fn own_address(&self, port: InterfaceId) -> Option<u32> {
        self.parts.ports.get(usize::from(port.0))?.address
    }

    /// The services for which a NAT backend with this address and port replies; none if there is no such
    /// backend.
    #[inline]
    pub fn replies_of(&self, protocol: Protocol, address: u32, port: u16) -> &[ServiceSlot] {
        match self.replies.get(endpoint_key(protocol, address, port)) {
            Some((start, end)) => self.reply_services.get(start as usize..end as usize).unwrap_or(&[]),
            None => &[],
        }
    }

    /// The service in a slot.
    #[inline]
    pub fn service(&self, slot: ServiceSlot) -> Option<&Service> {
        self.parts.services.get(usize::from(slot.0))?.as_deref()
    }

    /// The backend in a slot.
    #[inline]
    pub fn backend(&self, slot: BackendSlot) -> Option<&Backend> {
        self.parts.backends.get(slot.0 as usize)?.as_ref()
    }

    /// How to reach the backend in a slot; `None` without a route.
    #[inline]
    pub fn backend_egress(&self, slot: BackendSlot) -> Option<&Egress> {
        self.egress.get(slot.0 as usize)?.as_ref()
    }

    /// How to reach an address; `None` without a route.
    #[inline]
    pub fn egress_to(&self, destination: u32) -> Option<Egress> {
        let next_hop = self.parts.routes.next_hop(destination)?;
        let port = self.parts.ports.get(usize::from(next_hop.interface.0))?;
        let known = self.parts.neighbours.get(neighbour_key(next_hop));
        Some(Egress {
            next_hop,
            link: eth::header(known.unwrap_or_default(), port.mac, eth::TYPE_IPV4),
            resolved: known.is_some(),
            mtu: port.mtu,
        })
    }
}

/// Key of a protocol, address and port; not 0 because no protocol has the number 0.
#[inline]
fn endpoint_key(protocol: Protocol, address: u32, port: u16) -> u64 {
    let protocol = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    u64::from(address) << 32 | u64::from(port) << 16 | protocol
}

fn reply_tables(parts: &Parts) -> (Lookup<u64, (u32, u32)>, Vec<ServiceSlot>) {
    let mut endpoints: Vec<(u64, ServiceSlot)> = parts
        .backends
        .iter()
        .flatten()
        .filter(|backend| backend.mode == Mode::Nat)
        .filter_map(|backend| {
            let service = parts.services.get(usize::from(backend.service.0))?.as_ref()?;
            let (address, port) = (backend.address.ip().to_bits(), backend.address.port());
            Some((endpoint_key(service.key.protocol, address, port), backend.service))
        })
        .collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let mut ranges: Vec<(u64, (u32, u32))> = Vec::new();
    for (index, (key, _)) in endpoints.iter().enumerate() {
        match ranges.last_mut() {
            Some((last, (_, end))) if last == key => *end += 1,
            _ => ranges.push((*key, (index as u32, index as u32 + 1))),
        }
    }
    let services = endpoints.into_iter().map(|(_, service)| service).collect();
    (Lookup::new(ranges.into_iter()), services)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    use crate::testing;

    #[test]
    fn a_backend_of_two_services_replies_for_both() {
        let mut parts = testing::parts();
        let shared = testing::backend(0, "198.51.100.11:8000", Mode::Nat);
        let other = Backend { service: ServiceSlot(1), ..shared };
        parts.services = vec![
            Some(testing::service("tcp:192.0.2.100:80", &[(0, 1)]).into()),
            Some(testing::service("tcp:192.0.2.101:80", &[(1, 1)]).into()),
        ];
        parts.backends = vec![Some(shared), Some(other), Some(Backend { mode: Mode::Dr, ..shared })];
        let snapshot = Snapshot::new(parts);
        let address = shared.address.ip().to_bits();
        assert_eq!(snapshot.replies_of(Protocol::Tcp, address, 8000), [ServiceSlot(0), ServiceSlot(1)]);
        assert!(snapshot.replies_of(Protocol::Udp, address, 8000).is_empty());
        assert!(snapshot.replies_of(Protocol::Tcp, address, 80).is_empty());
    }

    #[test]
    fn egress_is_known_only_with_route_and_neighbour() {
        let mut parts = testing::parts();
        let snapshot = Snapshot::new(parts.clone());
        let known = snapshot.egress_to(u32::from_be_bytes([198, 51, 100, 11])).unwrap();
        assert!(known.resolved && known.link[..6] == testing::mac(11).0);
        assert!(!snapshot.egress_to(u32::from_be_bytes([198, 51, 100, 99])).unwrap().resolved);
        let far = snapshot.egress_to(0x0808_0808).unwrap();
        assert_eq!(far.next_hop.address, std::net::Ipv4Addr::new(198, 51, 100, 1));
        parts.routes = Arc::new(RouteTable::new(std::iter::empty::<(ipnet::Ipv4Net, Route<u32>)>()));
        assert!(Snapshot::new(parts).egress_to(0x0808_0808).is_none());
    }
}

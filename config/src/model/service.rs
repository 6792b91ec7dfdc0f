//! What is balanced: services, who serves them, and how that is checked.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Hash, Limits, Persistence, Policy, Quic, Timeouts};
use crate::words::{
    Admin, ClientAddress, Encapsulation, Mode, NoBackend, NoFlow, ProxyHeader, Scheduler, ServerId,
    ServiceKey,
};

/// `[[service]]`: one virtual address with its ports, and who serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The operator's name for it; the key's text if none is given.
    pub name: String,
    /// Protocol, address, ports and class.
    pub key: ServiceKey,
    /// How a new flow's backend is chosen.
    pub scheduler: Scheduler,
    /// What its scheduler hashes, if it does; none: what it does by itself.
    pub hash: Option<Hash>,
    /// How its servers make connection IDs, under scheduler `quic`; none: as they do unless they are told.
    pub quic: Option<Quic>,
    /// Seconds for which schedulers `lblc` and `lblcr` keep a backend that nobody asks for, and `lblcr` more of them
    /// than it has to; none: [`Service::EXPIRATION_SECS`].
    #[serde(default)]
    pub expiration_secs: Option<u32>,
    /// Whether clients come back to the backend that they had.
    pub persistence: Option<Persistence>,
    /// What it takes at most.
    pub limits: Option<Limits>,
    /// How backends are checked; none means that they count as healthy.
    pub check: Option<Check>,
    /// Who says what the weights of backends are worth, under scheduler `dynamic-ratio`.
    #[serde(default)]
    pub agent: Option<Agent>,
    /// What a new client is told when no backend takes it.
    #[serde(default)]
    pub no_backend: NoBackend,
    /// What becomes of a segment of no flow that does not open one; only of TCP.
    #[serde(default)]
    pub no_flow: NoFlow,
    /// Largest segment that a TCP SYN of this service may announce; greater ones are lowered to it.
    pub mss: Option<u16>,
    /// How long its flows may be idle; none: as the configuration says for all.
    pub timeouts: Option<Timeouts>,
    /// Whether every packet is scheduled and no flow is kept; only of UDP.
    #[serde(default)]
    pub one_packet: bool,
    /// Pool that full NAT speaks from.
    pub snat_pool: Option<String>,
    /// How its backends, all of full NAT then, learn their clients' addresses.
    #[serde(default)]
    pub client_address: ClientAddress,
    /// Whether the VIP answers pings; it does only if all of its services say so.
    #[serde(default = "echo_default")]
    pub echo: bool,
    /// Who of them takes new flows, and what becomes of the flows of those that do not.
    #[serde(default)]
    pub policy: Policy,
    /// Who serves it, in the order the scheduler takes them.
    pub backends: Vec<Backend>,
}

impl Service {
    /// As `lblc_expiration` and `lblcr_expiration` of Linux.
    pub const EXPIRATION_SECS: u32 = 24 * 60 * 60;
}

const fn echo_default() -> bool {
    true
}

/// `[[service.backend]]`: a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Address and port. Of a service with several ports, port 0 is the one the client asked for, and another
    /// the first of as many as the service has, one for one. With `dr` and `tunnel` the port is always the
    /// service's single one, or 0.
    pub address: SocketAddr,
    /// How packets reach it; the service's `mode` unless the backend has its own.
    pub mode: Mode,
    /// How packets of mode `tunnel` are wrapped; the default in all others.
    #[serde(default)]
    pub tunnel: Tunnel,
    /// Share of new flows, 0 to 65,535; 0 gives it none and leaves the flows it has.
    pub weight: u16,
    /// What names it in QUIC's connection IDs.
    #[serde(default)]
    pub server_id: Option<ServerId>,
    /// With so many flows it takes no new ones; 0 is no limit.
    #[serde(default)]
    pub upper: u32,
    /// With fewer flows it takes new ones again; 0 is three quarters of `upper`.
    #[serde(default)]
    pub lower: u32,
    /// Whether it is in use.
    #[serde(default)]
    pub admin: Admin,
    /// The higher, the sooner it is used; of those in `sorry` it says nothing.
    #[serde(default)]
    pub priority: u16,
}

/// `tunnel = { ... }`: how packets are wrapped for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    /// What stands between outer and inner header.
    #[serde(rename = "type")]
    pub encapsulation: Encapsulation,
    /// Destination port of the outer UDP header; always [`Tunnel::GUE_PORT`] without one.
    pub port: u16,
    /// Whether the header between them has a checksum; never without one.
    pub checksum: bool,
    /// Prefix of the outer source addresses, of the backend's IP version: each flow has one of them, so that
    /// a backend whose NIC hashes no more than outer addresses spreads flows over its queues. None: the
    /// interface's own address. Nobody has these, so what routers tell the sender of outer headers is lost.
    pub spread: Option<IpNet>,
}

impl Tunnel {
    /// The port IANA assigned to GUE.
    pub const GUE_PORT: u16 = 6080;
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { encapsulation: Encapsulation::Ipip, port: Self::GUE_PORT, checksum: false, spread: None }
    }
}

/// `check = { ... }`: how a backend proves that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Port to ask; the backend's own if none is given. A service with several ports always gives one.
    pub port: Option<u16>,
    /// Time from one check's start to the next one's.
    pub interval_ms: u32,
    /// Time after which an unanswered check has failed; at most the interval.
    pub timeout_ms: u32,
    /// Passed checks in a row after which a backend that was down is up.
    pub rise: u32,
    /// Failed checks in a row after which a backend that was up is down.
    pub fall: u32,
}

impl Check {
    /// The check with the PROXY header that it has in a service whose backends learn their clients' addresses this
    /// way. A port of its own is not where clients ask, so it gets none there unless it says so.
    pub fn within(mut self, client_address: ClientAddress) -> Self {
        let as_clients = match client_address {
            ClientAddress::ProxyV1 => ProxyHeader::V1,
            ClientAddress::ProxyV2 => ProxyHeader::V2,
            ClientAddress::None | ClientAddress::ProxyV2Each | ClientAddress::Toa => ProxyHeader::None,
        };
        if let CheckKind::Http { proxy, .. } = &mut self.kind {
            proxy.get_or_insert(if self.port.is_none() { as_clients } else { ProxyHeader::None });
        }
        self
    }
}

/// `agent = { ... }`: a program on each backend that says how much of its weight it can bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Port of the backend's address where it listens.
    pub port: u16,
    /// Time from one question's start to the next one's.
    pub interval_ms: u32,
    /// Time after which an unanswered question is given up; at most the interval.
    pub timeout_ms: u32,
}

/// The question of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum CheckKind {
    /// A TCP connection opens.
    Tcp,
    /// An HTTP GET over TCP is answered with an expected status.
    Http {
        /// Request target, beginning with a slash.
        path: String,
        /// Host header; the backend's address and port if none is given.
        host: Option<String>,
        /// The one status that passes; any of 200 to 399 if none is given.
        status: Option<u16>,
        /// The PROXY header before the request; that of clients if it asks where they do, and none given.
        #[serde(default)]
        proxy: Option<ProxyHeader>,
    },
}

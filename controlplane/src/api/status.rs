//! How things stand: the appliance, services, backends.

use std::net::{IpAddr, SocketAddr};

use config::model;
use config::words::{
    Admin, ClientAddress, Idle, MacAddr, Mode, NoBackend, NoFlow, Scheduler, ServiceKey, Then,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::{Serving, Standing};

/// Answer to [`super::Request::Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of trutinad.
    pub version: String,
    /// Version of DPDK it runs on.
    pub dpdk: String,
    /// Process id of trutinad.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Path of the configuration file.
    pub config_file: String,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Ports, by number.
    pub ports: Vec<PortStatus>,
    /// Interfaces, by number.
    pub interfaces: Vec<InterfaceStatus>,
    /// Workers, by number.
    pub workers: Vec<WorkerStatus>,
    /// Services configured.
    pub services: usize,
    /// Backends that new flows may go to.
    pub backends_up: usize,
    /// Backends configured.
    pub backends: usize,
    /// Known and awaited neighbours.
    pub neighbours: Vec<NeighbourStatus>,
}

/// One place where frames come and go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortStatus {
    /// The operator's name for it.
    pub name: String,
    /// Its devices as configured; mostly one.
    pub devices: Vec<String>,
    /// DPDK's driver for it.
    pub driver: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Whether it has a link.
    pub link_up: bool,
    /// Speed in Mbit/s; `None` if the device does not know.
    pub speed_mbps: Option<u32>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

/// IP on a port, or on one of its VLANs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// The operator's name for it.
    pub name: String,
    /// Name of the port it is on.
    pub port: String,
    /// Number of its VLAN, or of the inner one of two; `None` if it is untagged.
    pub vlan: Option<u16>,
    /// Number of the outer VLAN, if there are two.
    pub outer_vlan: Option<u16>,
    /// Own addresses with their connected prefixes.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The tap device by which the appliance's own kernel uses it, if there is one.
    pub host: Option<String>,
    /// Whether packets that are no service's are routed for its hosts.
    pub gateway: bool,
}

/// One polling thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its CPU core.
    pub core: usize,
    /// What it does while nothing comes.
    pub idle: Idle,
    /// Flows in its tables.
    pub flows: u64,
    /// Flows that its narrow table is rated for.
    pub flow_capacity: u64,
    /// Flows that its wide table is rated for.
    pub wide_capacity: u64,
    /// Generation of the snapshot it uses.
    pub generation: u64,
}

/// One entry of the neighbour table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NeighbourStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address, once known.
    pub mac: Option<MacAddr>,
    /// Name of the interface it is on.
    pub interface: String,
}

/// One service: an element of the answer to [`super::Request::ServiceList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The operator's name for it.
    pub name: String,
    /// address and port.
    pub service: ServiceKey,
    /// How a new flow's backend is chosen.
    pub scheduler: Scheduler,
    /// What its scheduler hashes, if that was said.
    pub hash: Option<model::Hash>,
    /// Whether clients come back to the backend that they had.
    pub persistence: Option<model::Persistence>,
    /// What it takes at most.
    pub limits: Option<model::Limits>,
    /// What a new client is told when no backend takes it.
    pub no_backend: NoBackend,
    /// What becomes of a TCP segment of no flow that does not open one.
    pub no_flow: NoFlow,
    /// Whether every packet is scheduled and no flow is kept.
    pub one_packet: bool,
    /// Pool that full NAT speaks from.
    pub snat_pool: Option<String>,
    /// How its backends learn their clients' addresses.
    pub client_address: ClientAddress,
    /// What it has done; the sum over its present and past backends.
    pub counters: Counters,
    /// Who serves its new clients now.
    pub serving: Serving,
    /// Whether its live backends are enough.
    pub quorum: bool,
    /// Its backends, in the scheduler's order, and then its sorry backends.
    pub backends: Vec<BackendStatus>,
}

/// One backend of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Address and port.
    pub address: SocketAddr,
    /// How packets reach it.
    pub mode: Mode,
    /// How they are wrapped, with mode `tunnel`.
    pub tunnel: Option<model::Tunnel>,
    /// Whether it is one of the sorry backends.
    pub sorry: bool,
    /// Share of new flows as configured.
    pub weight: u16,
    /// With so many flows it takes no new ones; 0 is no limit.
    pub upper: u32,
    /// With fewer flows it takes new ones again; 0 is three quarters of `upper`.
    pub lower: u32,
    /// The share that it has now beside the other backends, by which new flows are dealt: the weight, less while it
    /// ramps, times what its agent says or what is measured of it; 0 if it takes none.
    pub effective_weight: f64,
    /// The higher, the sooner it is used.
    pub priority: u16,
    /// Its administrative state as configured.
    pub configured: Admin,
    /// Its administrative state as the operator wants it now.
    pub admin: Admin,
    /// Whether it takes new flows, and why.
    pub operational: Standing,
    /// Its drain, if it is drained.
    pub drain: Option<DrainStatus>,
    /// Whether its check lets it take new flows.
    pub health: Health,
    /// Why it is so: the last check's result in words.
    pub reason: String,
    /// Seconds since `health` last changed.
    pub since_secs: u64,
    /// Connections in states that IPVS calls active.
    pub active: u64,
    /// All other flows.
    pub inactive: u64,
    /// What it has done.
    pub counters: Counters,
}

/// A drain that is under way, or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Seconds until `then` happens; none if there is no such time, or it is over.
    pub left_secs: Option<u64>,
    /// What happens at that time.
    pub then: Then,
    /// Whether clients that are bound to the backend may still begin flows.
    pub persistent: bool,
    /// Flows that the backend has.
    pub flows: u64,
}

/// What the checks say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It takes new flows.
    Up,
    /// It takes no new flows; those it has stay.
    Down,
    /// It has no check and counts as up.
    Unchecked,
}

/// Work done since start, as `ipvsadm --stats` counts it. `in` is from the client, `out` to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Flows scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients; always 0 where backends reply directly.
    pub out_packets: u64,
    /// Bytes of IP packets from clients.
    pub in_bytes: u64,
    /// Bytes of IP packets to clients.
    pub out_bytes: u64,
}

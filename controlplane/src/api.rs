//! The control protocol: what may be asked of the appliance, and what it answers.
//!
//! JSON-RPC 2.0, one message a line, over a Unix stream socket. [`Request`] serialises to exactly the
//! `method` and `params` members of a call. Counters only grow, from 0 at the appliance's start.

mod persistence;

use std::net::{IpAddr, SocketAddr};

use config::model;
use config::words::{
    Admin, ClientAddress, Fate, Idle, MacAddr, Mode, NoBackend, NoFlow, Protocol, Scheduler, ServiceKey, Then,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::policy::{Serving, Standing};
pub use persistence::{Forgotten, Template, TemplateList, TemplateUsage, TemplatesWanted};

/// A call is a line of at most so many bytes, its newline included. Answers may be longer.
pub const MAX_LINE_LEN: usize = 1 << 20;

/// A call, by method name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", deny_unknown_fields)]
pub enum Request {
    /// What runs, since when, on which ports and cores. Answered by [`Status`].
    #[serde(rename = "status")]
    Status,
    /// Every service with its backends. Answered by a list of [`ServiceStatus`].
    #[serde(rename = "service.list")]
    ServiceList,
    /// Adds a service, with any backends it names. Answered by [`Done`].
    #[serde(rename = "service.add")]
    ServiceAdd(Box<model::Service>),
    /// Removes a service; its flows keep their backends until they end. Answered by [`Done`].
    #[serde(rename = "service.remove")]
    ServiceRemove {
        /// Which service.
        service: ServiceKey,
    },
    /// Adds a backend to a service. Answered by [`Done`].
    #[serde(rename = "backend.add")]
    BackendAdd {
        /// Which service.
        service: ServiceKey,
        /// What to add.
        backend: model::Backend,
        /// Whether it becomes one of the sorry backends.
        #[serde(default)]
        sorry: bool,
    },
    /// Removes a backend; its flows stay with it until they end. Answered by [`Done`].
    #[serde(rename = "backend.remove")]
    BackendRemove {
        /// Which service.
        service: ServiceKey,
        /// Which backend.
        address: SocketAddr,
    },
    /// Changes a backend's weight or administrative state. Answered by [`Done`].
    #[serde(rename = "backend.set")]
    BackendSet {
        /// Which service.
        service: ServiceKey,
        /// Which backend.
        address: SocketAddr,
        /// Its new weight; 0 gives it no new flows.
        weight: Option<u16>,
        /// Its new administrative state.
        admin: Option<AdminChange>,
    },
    /// Flows of all workers. Answered by [`FlowList`].
    #[serde(rename = "flow.list")]
    FlowList {
        /// At most so many flows are answered.
        limit: usize,
    },
    /// Persistence templates. Answered by [`TemplateList`].
    #[serde(rename = "persistence.list")]
    PersistenceList(TemplatesWanted),
    /// Forgets the persistence templates of a service and its group; flows stay with their backends. Answered by
    /// [`Forgotten`].
    #[serde(rename = "persistence.flush")]
    PersistenceFlush {
        /// Which service.
        service: ServiceKey,
        /// Only those whose network this client is in; none: of all clients.
        client: Option<IpAddr>,
    },
    /// All counters. Answered by [`Stats`].
    #[serde(rename = "stats")]
    Stats,
    /// Dropped frames by reason. Answered by a list of [`Drop`], one for every reason.
    #[serde(rename = "drops")]
    Drops,
    /// Reads the configuration file again and puts it in force, all or nothing. Answered by [`Done`].
    #[serde(rename = "reload")]
    Reload,
    /// Stops the appliance. Answered by [`Done`] before it stops.
    #[serde(rename = "stop")]
    Stop,
}

/// A new administrative state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminChange {
    /// It takes new flows if it is up.
    Enabled,
    /// It takes no new flows; those it has stay.
    Drain {
        /// Seconds until `then` happens; none: never.
        timeout_secs: Option<u32>,
        /// What happens at that time.
        #[serde(default)]
        then: Then,
        /// Whether clients that are bound to it by persistence may still begin flows.
        #[serde(default = "persistent_default")]
        persistent: bool,
    },
    /// It takes no new flows.
    Disabled {
        /// What becomes of the flows it has; none: as its service has it.
        flows: Option<Fate>,
    },
}

const fn persistent_default() -> bool {
    true
}

/// A change is in force on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Generation of the snapshot that holds the change.
    pub generation: u64,
}

/// Why a call failed: the error member of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// JSON-RPC error code; ours are in [`code`].
    pub code: i32,
    /// What is wrong, and what to do about it: `what; because; try`.
    pub message: String,
}

/// Codes of [`ApiError`]: those of JSON-RPC 2.0, section 5.1, and our own.
pub mod code {
    /// The line is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The JSON is not a JSON-RPC 2.0 request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// A limit of the appliance forbids it.
    pub const LIMIT: i32 = -32001;
    /// What the call names does not exist.
    pub const NOT_FOUND: i32 = -32002;
    /// What the call would make exists already.
    pub const EXISTS: i32 = -32003;
    /// The configuration it asks for is not valid.
    pub const INVALID_CONFIG: i32 = -32004;
    /// The appliance is stopping, or a worker did not answer in time.
    pub const UNAVAILABLE: i32 = -32005;
}

/// Answer to [`Request::Status`].
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

/// One service: an element of the answer to [`Request::ServiceList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The operator's name for it.
    pub name: String,
    /// Protocol, address and port.
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

/// Answer to [`Request::FlowList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowList {
    /// The flows, in no order.
    pub flows: Vec<Flow>,
    /// Flows that exist; more than `flows` holds if the limit cut it.
    pub total: u64,
}

/// One flow, with the columns of `ipvsadm -Lc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Worker whose table holds it.
    pub worker: usize,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The service; `None` for a host inside that a NAT gateway speaks for.
    pub service: Option<ServiceKey>,
    /// The client, or the host inside.
    pub client: SocketAddr,
    /// The address and port of the service that the client speaks to.
    pub vip: Option<SocketAddr>,
    /// The local address and port by which the other end knows the client, with full NAT.
    pub local: Option<SocketAddr>,
    /// The real server.
    pub backend: Option<SocketAddr>,
    /// Name of its state, such as ESTABLISHED or UDP.
    pub state: String,
    /// Seconds until it expires if no packet comes.
    pub expires_secs: u32,
}

/// Answer to [`Request::Stats`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// By worker number.
    pub workers: Vec<WorkerStats>,
    /// The control thread's own.
    pub control: ControlStats,
    /// By port number.
    pub ports: Vec<PortStats>,
    /// Local addresses of all pools.
    pub locals: Vec<LocalStats>,
    /// Persistence templates, counted some moments ago.
    pub templates: TemplateUsage,
    /// As in [`Request::ServiceList`].
    pub services: Vec<ServiceStatus>,
}

/// Where a worker's frames came from and went.
///
/// received + injected + taken_over + made = sent + punted + handed_over + dropped + held, but for the frames that
/// are in the worker's hands while it is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Frames taken from receive queues.
    pub received: u64,
    /// Frames taken from the control thread to be sent.
    pub injected: u64,
    /// Frames taken over from other workers, which own their flows here.
    pub taken_over: u64,
    /// Frames made here that answer none: resets for the other ends of connections, and what asks silent ends.
    pub made: u64,
    /// Frames given to transmit queues.
    pub sent: u64,
    /// Frames given to the control thread.
    pub punted: u64,
    /// Frames given to the worker that owns their flow.
    pub handed_over: u64,
    /// Frames dropped, for all reasons.
    pub dropped: u64,
    /// The same by reason; every reason is there.
    pub drops: Vec<Drop>,
    /// Received packets that were made into an answer to their senders: echo replies and ICMP errors. They
    /// are among those sent or punted.
    pub answered: u64,
    /// The errors among them by the reason for which they would have been dropped; every reason is there.
    pub answered_for: Vec<Drop>,
    /// Packets sent on as a router does, in and out of inside networks. They are among those sent or punted.
    pub routed: u64,
    /// Pieces of packets that wait for their first ones now.
    pub held: u64,
    /// New flows that found no free local port.
    pub snat_exhausted: u64,
    /// Segments that had no room for the TCP option with their client's address, and went without it.
    pub addresses_untold: u64,
}

/// What became of the frames that the control thread was given, by workers and by the kernel.
///
/// punted + from_host = answered + resolved + to_host + host_sent + waiting + dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ControlStats {
    /// Frames taken from workers.
    pub punted: u64,
    /// Frames taken from tap devices.
    pub from_host: u64,
    /// ARP and ND packets from workers; all of them end here.
    pub answered: u64,
    /// Frames that waited for the address of their next hop and were given back to a worker to be sent.
    pub resolved: u64,
    /// Frames from workers given to tap devices.
    pub to_host: u64,
    /// Frames from tap devices given to a worker to be sent.
    pub host_sent: u64,
    /// Frames that wait now.
    pub waiting: u64,
    /// Frames dropped, for all reasons.
    pub dropped: u64,
    /// The same by reason; every reason is there.
    pub drops: Vec<Drop>,
    /// Own ARP and ND packets that could not be sent, for want of memory or of room in a worker's queue.
    pub unsent: u64,
}

/// One local address of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalStats {
    /// The address.
    pub address: IpAddr,
    /// The pool that has it; `None` if it was taken out of all pools since the start.
    pub pool: Option<String>,
    /// Ports in use, of both protocols and by all workers.
    pub ports_used: u64,
    /// Ports there are.
    pub capacity: u64,
}

/// Frames of one port, as the worker queues and the driver counted them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortStats {
    /// The operator's name for it.
    pub name: String,
    /// Frames received by the driver.
    pub rx_packets: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Frames the device lost because no one fetched them in time.
    pub rx_missed: u64,
    /// Frames received with errors.
    pub rx_errors: u64,
    /// Frames lost because there was no buffer for them.
    pub rx_no_mbuf: u64,
    /// Frames sent by the driver.
    pub tx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Frames the device failed to send.
    pub tx_errors: u64,
}

/// Frames dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    /// Stable name of the reason, in snake case.
    pub reason: String,
    /// What it means, in one line.
    pub meaning: String,
    /// Frames.
    pub packets: u64,
}

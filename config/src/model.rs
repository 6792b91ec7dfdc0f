//! What a valid configuration says, after every check: plain values, no positions, no options left open.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::words::{MacAddr, Mode, Scheduler, ServiceKey};

/// One appliance.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How DPDK's environment abstraction layer is started.
    pub dpdk: Dpdk,
    /// Which CPU cores do what.
    pub cores: Cores,
    /// Ethernet devices, in the order of their DPDK port numbers.
    pub ports: Vec<Port>,
    /// Static routes; connected ones follow from the ports' addresses.
    pub routes: Vec<Route>,
    /// Neighbours that are known beforehand and never asked for.
    pub neighbours: Vec<Neighbour>,
    /// Size of each worker's flow table.
    pub flow_table: FlowTable,
    /// The control socket.
    pub control: Control,
    /// The metrics listener, if there is one.
    pub metrics: Option<Metrics>,
    /// What is balanced.
    pub services: Vec<Service>,
}

/// `[dpdk]`: arguments of the EAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dpdk {
    /// Packet memory on huge pages; without them every cache miss costs more.
    pub hugepages: bool,
    /// Packet memory to reserve, in MiB.
    pub memory_mib: u32,
    /// Name that keeps several instances on one machine apart.
    pub file_prefix: String,
}

/// `[cores]`: CPU numbers as the kernel counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Where the control thread runs.
    pub control: usize,
    /// One polling worker each; worker N uses queue N of every port.
    pub workers: Vec<usize>,
    /// Whether a core may be listed twice or be the control thread's too: to try several workers on a small
    /// machine, where they take turns.
    pub shared: bool,
}

/// `[[port]]`: one Ethernet device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The operator's name for it.
    pub name: String,
    /// What to open.
    pub device: Device,
    /// Own addresses with their connected prefixes, e.g. 192.0.2.254/24.
    pub addresses: Vec<Ipv4Net>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Ethernet address to set; the device keeps its own if none is given.
    pub mac: Option<MacAddr>,
}

/// How a port's device is named to DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// PCI address such as 0000:03:00.0, with driver arguments if any (EAL `-a`).
    Pci(String),
    /// Software device with its arguments, such as `net_tap0,iface=t0` (EAL `--vdev`).
    Vdev(String),
}

/// `[[route]]`: a static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub to: Ipv4Net,
    /// Gateway; always on a connected prefix.
    pub via: Ipv4Addr,
}

/// `[[neighbour]]`: a fixed entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address; always on a connected prefix.
    pub address: Ipv4Addr,
    /// Its Ethernet address; always unicast.
    pub mac: MacAddr,
}

/// `[flow_table]`: memory is taken at start and never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTable {
    /// Flows each worker is rated for; the table holds twice as many places.
    pub capacity: u32,
    /// Seconds a flow may be idle, by what it is doing.
    pub timeouts: Timeouts,
}

/// Idle timeouts in seconds; defaults are those of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections that are established (IPVS `tcp`).
    pub tcp_secs: u32,
    /// TCP connections after the first FIN (IPVS `tcpfin`).
    pub tcp_fin_secs: u32,
    /// UDP exchanges (IPVS `udp`).
    pub udp_secs: u32,
}

/// `[control]`: the Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Path of the socket; it is created with mode 0660.
    pub socket: PathBuf,
}

/// `[metrics]`: the Prometheus listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address and port; always a loopback address.
    pub listen: SocketAddr,
}

/// `[[service]]`: one virtual address and port, and who serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The operator's name for it; the key's text if none is given.
    pub name: String,
    /// Protocol, address and port.
    pub key: ServiceKey,
    /// How a new flow's backend is chosen.
    pub scheduler: Scheduler,
    /// How backends are checked; none means that they count as healthy.
    pub check: Option<Check>,
    /// Who serves it, in the order the scheduler takes them.
    pub backends: Vec<Backend>,
}

/// `[[service.backend]]`: a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Address and port; with `dr` and `tunnel` the port is always the service's.
    pub address: SocketAddrV4,
    /// How packets reach it; the service's `mode` unless the backend has its own.
    pub mode: Mode,
    /// Share of new flows, 0 to 65,535; 0 gives it none and leaves the flows it has.
    pub weight: u16,
}

/// `check = { ... }`: how a backend proves that it is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Port to ask; the backend's own if none is given.
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
    },
}

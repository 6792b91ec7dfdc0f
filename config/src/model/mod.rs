//! What a valid configuration says, after every check: plain values, no positions, no options left open.

mod balance;
mod links;
mod policy;
mod service;
mod timeouts;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use self::balance::{Cluster, Hash, Limits, Persistence, Quic};
pub use self::links::{Class, Device, Gateway, Interface, Neighbour, Port, Route, SnatPool, Tags};
pub use self::policy::{Policy, Quorum, SlowStart};
pub use self::service::{Agent, Backend, Check, CheckKind, Service, Tunnel};
pub use self::timeouts::Timeouts;
use crate::words::{Idle, NoBackend};

/// One appliance.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How DPDK's environment abstraction layer is started.
    pub dpdk: Dpdk,
    /// Which CPU cores do what.
    pub cores: Cores,
    /// Where frames come and go. The devices of all of them, in this order, have DPDK's port numbers.
    pub ports: Vec<Port>,
    /// Where IP is spoken, over the ports: the untagged interface of port 0, the VLANs of port 0, the
    /// untagged interface of port 1, and so on. Their index is what everything else calls an interface's
    /// number.
    pub interfaces: Vec<Interface>,
    /// Static routes; connected ones follow from the interfaces' addresses.
    pub routes: Vec<Route>,
    /// Neighbours that are known beforehand and never asked for.
    pub neighbours: Vec<Neighbour>,
    /// Addresses that full NAT and source NAT speak from.
    pub snat_pools: Vec<SnatPool>,
    /// Classes of packets that services may be bound to.
    pub classes: Vec<Class>,
    /// What this appliance shares with others.
    pub cluster: Cluster,
    /// Size of each worker's flow tables.
    pub flow_table: FlowTable,
    /// How long flows may be idle, unless their service has times of its own.
    pub timeouts: Timeouts,
    /// ICMP messages of the appliance itself.
    pub icmp: Icmp,
    /// How pieces of datagrams are brought together with their flows.
    pub fragments: Fragments,
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
    /// One polling worker each; worker N uses queue N of every port that has one device, and device N of
    /// every port that has several.
    pub workers: Vec<usize>,
    /// Whether a core may be listed twice or be the control thread's too: to try several workers on a small
    /// machine, where they take turns.
    pub shared: bool,
    /// What workers do while nothing comes.
    pub idle: Idle,
}

/// `[flow_table]`: memory is taken at start and never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTable {
    /// Flows each worker is rated for; the table holds twice as many places.
    pub capacity: u32,
    /// Of those that need more room, in a table of their own: flows over IPv6, of gateways, and of services with several
    /// ports.
    pub wide_capacity: u32,
    /// Clients whose backends all workers together know, for persistence.
    pub templates: u32,
}

/// `[icmp]`: what the appliance answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Messages that one worker sends a second, at most: echo replies and errors, but not those it only
    /// passes on.
    pub rate: u32,
    /// What a VIP or an own address says to a port that no service has.
    pub no_service: NoBackend,
}

/// `[fragments]`: memory is taken at start and never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Pieces that one worker holds until their datagram's first one comes.
    pub capacity: u32,
    /// Seconds such a piece waits.
    pub timeout_secs: u32,
    /// Seconds after its first piece for which a datagram is known.
    pub remember_secs: u32,
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

//! What was counted.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ServiceStatus, TemplateUsage};

/// Answer to [`super::Request::Stats`].
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
    /// As in [`super::Request::ServiceList`].
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

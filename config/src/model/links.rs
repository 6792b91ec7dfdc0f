//! What the appliance is connected to, and which addresses and packets it tells apart there.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::words::{ClassName, MacAddr};

/// `[[port]]`: one place where frames come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The operator's name for it.
    pub name: String,
    /// What to open: one device with a queue for each worker, or as many devices as there are workers, with
    /// one queue each. Those are sockets on the queues of one NIC, such as `net_af_xdp` with `start_queue`.
    pub devices: Vec<Device>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Ethernet address to set; the device keeps its own if none is given.
    pub mac: Option<MacAddr>,
}

/// How a device is named to DPDK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// PCI address such as 0000:03:00.0, with driver arguments if any (EAL `-a`).
    Pci(String),
    /// Software device with its arguments, such as `net_tap0,iface=t0` (EAL `--vdev`).
    Vdev(String),
}

/// IP on a port: what `[[port]]` says of untagged frames, or `[[port.vlan]]` of those of one VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The operator's name for it: the port's own if it is untagged.
    pub name: String,
    /// Number of the port it is on.
    pub port: usize,
    /// Tags of its frames.
    pub tags: Tags,
    /// Own addresses with their connected prefixes, of both families, e.g. 192.0.2.254/24.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Name of the tap device by which the kernel's own stack uses this interface.
    pub host: Option<String>,
    /// Whether packets that are no service's are routed for the hosts of this interface, and how.
    pub gateway: Option<Gateway>,
}

/// VLAN numbers of an interface, 1 to 4094; 0 where there is no tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tags {
    /// Of the service tag, the first of two (IEEE 802.1ad).
    pub outer: u16,
    /// Of the only tag, or of the second of two (IEEE 802.1Q).
    pub inner: u16,
}

/// `gateway = ...`: how the packets of an interface's hosts go out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Pool of the addresses they get as source; none leaves them their own.
    pub snat_pool: Option<String>,
}

/// `[[route]]`: a static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destination prefix.
    pub to: IpNet,
    /// Gateway of the same family; always on a connected prefix.
    pub via: IpAddr,
}

/// `[[neighbour]]`: a fixed entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address; always on a connected prefix.
    pub address: IpAddr,
    /// Its Ethernet address; always unicast.
    pub mac: MacAddr,
}

/// `[[snat_pool]]`: addresses to speak from. The appliance answers for them on every link, as for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatPool {
    /// The operator's name for it.
    pub name: String,
    /// Every address of it, in the order of the file, of both families; no other pool has any of them.
    pub addresses: Vec<IpAddr>,
}

/// `[[class]]`: packets that keep to all conditions which are given. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// How services name it.
    pub name: ClassName,
    /// Where they come from: any of these prefixes. Empty: from anywhere.
    pub sources: Vec<IpNet>,
    /// Number of their only VLAN tag, or of the inner one of two.
    pub vlan: Option<u16>,
    /// Differentiated services code point (RFC 2474).
    pub dscp: Option<u8>,
}

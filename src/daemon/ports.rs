//! Opens the devices of all ports, with memory for their frames.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use config::model::{Config, Port};
use config::network::Network;
use config::words::Mode;
use controlplane::neighbour;
use dataplane::dpdk::eal::Eal;
use dataplane::dpdk::ethdev::{self, PortQueue};
use dataplane::dpdk::mempool::Mempool;
use dataplane::dpdk::rss::Side;
use dataplane::toeplitz::Owners;
use dataplane::worker::FRAMES_IN_QUEUES;

use super::nodes;

/// Frames that the control thread makes and that threads keep in their caches, beside all queues.
const SPARE_FRAMES: usize = 512;
/// Mbufs that a thread's mempool cache may hold: one and a half times its size.
const CACHED_FRAMES: usize = 384;

/// Packet memory by NUMA node.
pub type Mempools = BTreeMap<i32, Arc<Mempool>>;

/// What runs when all devices are set up.
pub struct Opened {
    /// Devices by port.
    pub ports: Vec<Vec<Arc<ethdev::Port>>>,
    /// Queues by worker and port.
    pub queues: Vec<Vec<PortQueue>>,
    /// Where their frames are.
    pub mempools: Mempools,
}

/// Finds and opens the devices of all ports, each with memory on its own NUMA node.
///
/// A port's only device has a queue for each worker; of several, each has one, for the worker of its number.
pub fn open(config: &Config, eal: &Arc<Eal>) -> anyhow::Result<Opened> {
    let find = |port: &Port| -> Result<Vec<_>, _> {
        port.devices.iter().map(|device| ethdev::Device::find(port, device)).collect()
    };
    let found = config.ports.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let mempools = reserve(config, eal, &found)?;
    let (all, only) = (Owners::new(config.cores.workers.len()), Owners::new(1));
    let mut ports = Vec::new();
    let mut queues: Vec<Vec<PortQueue>> = config.cores.workers.iter().map(|_| Vec::new()).collect();
    for ((devices, port), side) in found.into_iter().zip(&config.ports).zip(sides(config)) {
        let nodes: Vec<i32> = devices.iter().map(ethdev::Device::numa_node).collect();
        nodes::warn_if_far(&port.name, &nodes, &config.cores.workers);
        let owners = if devices.len() == 1 { &all } else { &only };
        let (mut opened, mut of_port) = (Vec::new(), Vec::new());
        for device in devices {
            let mempool = Arc::clone(&mempools[&device.numa_node()]);
            let (device, its_queues) = device.open(port, side, owners, &mempool)?;
            tracing::info!("port {}: {}, RSS: {}", port.name, device.driver(), device.rss());
            opened.push(device);
            of_port.extend(its_queues);
        }
        ports.push(opened);
        queues.iter_mut().zip(of_port).for_each(|(worker, queue)| worker.push(queue));
    }
    Ok(Opened { ports, queues, mempools })
}

/// Reserves memory for all frames there may be at once, on the nodes that devices are on. `found` is by port.
fn reserve(config: &Config, eal: &Arc<Eal>, found: &[Vec<ethdev::Device>]) -> anyhow::Result<Mempools> {
    let workers = config.cores.workers.len();
    let mut queues: BTreeMap<i32, usize> = BTreeMap::new();
    for devices in found {
        for device in devices {
            *queues.entry(device.numa_node()).or_default() += if devices.len() == 1 { workers } else { 1 };
        }
    }
    let pieces = config.fragments.capacity as usize;
    let mut mempools = Mempools::new();
    for (node, queues) in queues {
        let rings = queues * 2 * usize::from(ethdev::RING_LEN);
        let held = workers * (FRAMES_IN_QUEUES + CACHED_FRAMES + pieces) + neighbour::MAX_WAITING;
        let frames = u32::try_from(rings + held + SPARE_FRAMES).context("too many workers and ports")?;
        mempools.insert(node, Arc::new(Mempool::new(eal, node, frames)?));
    }
    Ok(mempools)
}

/// Where the clients are, seen from each port, as far as the configuration says it.
fn sides(config: &Config) -> Vec<Side> {
    let network = Network::new(&config.interfaces, &config.routes);
    let port = |interface: usize| config.interfaces.get(interface).map(|interface| interface.port);
    let backends = config.services.iter().flat_map(|service| &service.backends);
    let replies: BTreeSet<usize> = backends
        .filter(|backend| matches!(backend.mode, Mode::Nat | Mode::FullNat))
        .filter_map(|backend| port(network.egress(backend.address.ip())?.interface))
        .collect();
    let vips = config.services.iter().map(|service| service.key.address);
    let routers = config.routes.iter().map(|route| route.via);
    let clients: BTreeSet<usize> =
        vips.chain(routers).filter_map(|address| port(network.connected(address)?)).collect();
    let side = |port: usize| match (replies.contains(&port), clients.contains(&port)) {
        (false, _) => Side::Clients,
        (true, false) if !clients.is_empty() => Side::Servers,
        (true, _) => Side::Both,
    };
    (0..config.ports.len()).map(side).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides_of(mode: &str, route: &str, backend: &str) -> Vec<Side> {
        let text = format!(
            r#"
[cores]
workers = [1, 2]
[[port]]
name = "out"
device = "net_null0"
addresses = ["192.0.2.254/24"]
[[port]]
name = "in"
device = "net_null1"
addresses = ["198.51.100.254/24"]
[[route]]
to = "0.0.0.0/0"
via = "{route}"
[[service]]
vip = "203.0.113.1:80"
protocol = "tcp"
mode = "{mode}"
[[service.backend]]
address = "{backend}"
"#
        );
        sides(&config::parse("test.toml", &text).unwrap())
    }

    #[test]
    fn replies_come_from_where_backends_are_and_requests_from_where_routers_are() {
        let (out, inside) = ("192.0.2.1", "198.51.100.1");
        assert_eq!(sides_of("nat", out, "198.51.100.11:8000"), [Side::Clients, Side::Servers]);
        assert_eq!(sides_of("nat", out, "192.0.2.11:8000"), [Side::Both, Side::Clients]);
        assert_eq!(sides_of("nat", inside, "198.51.100.11:8000"), [Side::Clients, Side::Both]);
        assert_eq!(sides_of("dr", out, "198.51.100.11:80"), [Side::Clients, Side::Clients]);
    }
}

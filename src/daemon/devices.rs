//! The control thread's view of DPDK's ports.

use std::sync::Arc;

use config::model::Config;
use config::words::MacAddr;
use controlplane::api::{PortStats, PortStatus};
use controlplane::engine::Devices;
use dataplane::dpdk::device_text;
use dataplane::dpdk::ethdev::Port;
use dataplane::dpdk::mbuf::Mbuf;
use dataplane::dpdk::mempool::Mempool;

/// Ports with what is configured of them, and memory for the control thread's own frames.
pub struct DpdkDevices {
    ports: Vec<Configured>,
    mempool: Arc<Mempool>,
}

struct Configured {
    port: Arc<Port>,
    device: String,
    mtu: u16,
}

impl DpdkDevices {
    /// The opened ports of a configuration, in its order.
    pub fn new(config: &Config, ports: Vec<Arc<Port>>, mempool: Arc<Mempool>) -> Self {
        let configured = ports.into_iter().zip(&config.ports).map(|(port, model)| Configured {
            port,
            device: device_text(&model.device).to_owned(),
            mtu: model.mtu,
        });
        Self { ports: configured.collect(), mempool }
    }
}

impl Devices for DpdkDevices {
    type Frame = Mbuf;

    fn frame(&self, bytes: &[u8]) -> Option<Mbuf> {
        self.mempool.frame(bytes)
    }

    fn macs(&self) -> Vec<MacAddr> {
        self.ports.iter().map(|configured| configured.port.mac()).collect()
    }

    fn links(&self) -> Vec<bool> {
        self.ports.iter().map(|configured| configured.port.link().up).collect()
    }

    fn status(&self) -> Vec<PortStatus> {
        let status = |Configured { port, device, mtu }: &Configured| {
            let link = port.link();
            PortStatus {
                name: port.name().to_owned(),
                device: device.clone(),
                driver: port.driver().to_owned(),
                mac: port.mac(),
                link_up: link.up,
                speed_mbps: link.speed_mbps,
                mtu: *mtu,
            }
        };
        self.ports.iter().map(status).collect()
    }

    fn stats(&self) -> Vec<PortStats> {
        let stats = |Configured { port, .. }: &Configured| {
            let driver = port.stats();
            PortStats {
                name: port.name().to_owned(),
                rx_packets: driver.ipackets,
                rx_bytes: driver.ibytes,
                rx_missed: driver.imissed,
                rx_errors: driver.ierrors,
                rx_no_mbuf: driver.rx_nombuf,
                tx_packets: driver.opackets,
                tx_bytes: driver.obytes,
                tx_errors: driver.oerrors,
            }
        };
        self.ports.iter().map(stats).collect()
    }
}

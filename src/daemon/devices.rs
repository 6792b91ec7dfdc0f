//! The control thread's view of DPDK's ports.

use std::sync::Arc;

use config::model::{Config, Device};
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
    name: String,
    /// At least one; what they have in common is told of the first.
    devices: Vec<Arc<Port>>,
    texts: Vec<String>,
    mtu: u16,
}

impl DpdkDevices {
    /// The opened devices of a configuration's ports, in its order.
    pub fn new(config: &Config, ports: Vec<Vec<Arc<Port>>>, mempool: Arc<Mempool>) -> Self {
        let text = |device: &Device| device_text(device).to_owned();
        let configured = ports.into_iter().zip(&config.ports).map(|(devices, model)| Configured {
            name: model.name.clone(),
            devices,
            texts: model.devices.iter().map(text).collect(),
            mtu: model.mtu,
        });
        Self { ports: configured.collect(), mempool }
    }
}

impl Configured {
    fn first(&self) -> &Port {
        &self.devices[0]
    }

    fn is_up(&self) -> bool {
        self.devices.iter().all(|device| device.link().up)
    }

    fn status(&self) -> PortStatus {
        let first = self.first();
        PortStatus {
            name: self.name.clone(),
            devices: self.texts.clone(),
            driver: first.driver().to_owned(),
            mac: first.mac(),
            link_up: self.is_up(),
            speed_mbps: first.link().speed_mbps,
            mtu: self.mtu,
        }
    }

    fn stats(&self) -> PortStats {
        let mut sum = PortStats { name: self.name.clone(), ..PortStats::default() };
        for driver in self.devices.iter().map(|device| device.stats()) {
            sum.rx_packets += driver.ipackets;
            sum.rx_bytes += driver.ibytes;
            sum.rx_missed += driver.imissed;
            sum.rx_errors += driver.ierrors;
            sum.rx_no_mbuf += driver.rx_nombuf;
            sum.tx_packets += driver.opackets;
            sum.tx_bytes += driver.obytes;
            sum.tx_errors += driver.oerrors;
        }
        sum
    }
}

impl Devices for DpdkDevices {
    type Frame = Mbuf;

    fn frame(&self, bytes: &[u8]) -> Option<Mbuf> {
        self.mempool.frame(bytes)
    }

    fn macs(&self) -> Vec<MacAddr> {
        self.ports.iter().map(|port| port.first().mac()).collect()
    }

    fn links(&self) -> Vec<bool> {
        self.ports.iter().map(Configured::is_up).collect()
    }

    fn status(&self) -> Vec<PortStatus> {
        self.ports.iter().map(Configured::status).collect()
    }

    fn stats(&self) -> Vec<PortStats> {
        self.ports.iter().map(Configured::stats).collect()
    }
}

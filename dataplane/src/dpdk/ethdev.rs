//! A port: opened with one receive and one transmit queue for each worker, closed when its last queue is
//! gone.

use std::ffi::{CStr, CString, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

use config::model;
use config::words::MacAddr;
use dpdk_sys::{
    eth_rx_burst_t, eth_tx_burst_t, rte_eth_conf, rte_eth_dev_info, rte_eth_link, rte_eth_stats,
    rte_ether_addr, rte_mbuf,
};

use super::mbuf::Mbuf;
use super::mempool::Mempool;
use super::rss::{Rss, Side};
use super::{DpdkError, device_name, device_text, error_text};
use crate::burst::{BURST, Burst};
use crate::port::Queue;
use crate::toeplitz::Owners;
use crate::wire::eth;

/// Descriptors asked for in each receive and transmit ring; the device may give fewer.
pub const RING_LEN: u16 = 1024;

/// What a device answers when it has no such setting.
const NOT_SUPPORTED: i32 = -libc::ENOTSUP;

/// A port that was found, before it is set up.
pub struct Device {
    id: u16,
    name: String,
    info: rte_eth_dev_info,
}

/// A running port.
pub struct Port {
    id: u16,
    name: String,
    driver: String,
    mac: MacAddr,
    rss: Rss,
    open: Open,
}

/// A device that was given frames of a mempool, and is closed before that goes.
struct Open {
    id: u16,
    mempool: Arc<Mempool>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // Errors cannot be mended here, and closing goes on after them.
        // SAFETY: the port exists, and nobody uses it any more: workers' queues hold an `Arc` of their `Port`.
        // Stopping a port that never started is allowed.
        unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        // SAFETY: the port is stopped and nobody uses it; the frames it holds go back to their pool.
        unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
    }
}

// SAFETY: DPDK's control functions for a port may be called from any thread, and all of them are called by
// the control thread; `Port` itself holds plain values.
unsafe impl Send for Port {}
// SAFETY: as above; the methods that workers' queues use touch only that queue.
unsafe impl Sync for Port {}

/// Link state of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a link.
    pub up: bool,
    /// Speed in Mbit/s, if the device knows.
    pub speed_mbps: Option<u32>,
}

/// What a port's driver says of it, or an error number.
fn info(id: u16) -> Result<rte_eth_dev_info, i32> {
    let mut info = MaybeUninit::<rte_eth_dev_info>::zeroed();
    // SAFETY: the port exists, and `info` has room for the answer.
    match unsafe { dpdk_sys::rte_eth_dev_info_get(id, info.as_mut_ptr()) } {
        // SAFETY: all-zero bytes are a valid `rte_eth_dev_info`, and the call filled it besides.
        0 => Ok(unsafe { info.assume_init() }),
        error => Err(error),
    }
}

impl Device {
    /// Finds the port that EAL made for one device of a configured port.
    ///
    /// # Errors
    /// [`DpdkError::NoDevice`] if there is none.
    pub fn find(port: &model::Port, device: &model::Device) -> Result<Self, DpdkError> {
        let missing = |because: &str| DpdkError::NoDevice {
            name: port.name.clone(),
            device: device_text(device).to_owned(),
            because: because.to_owned(),
            hint: match device {
                model::Device::Pci(_) => {
                    "run `dpdk-devbind.py --status` and bind the NIC with `dpdk-devbind.py --bind=vfio-pci ADDRESS`"
                }
                model::Device::Vdev(_) => "check its name and arguments against DPDK's NIC driver guide",
            },
        };
        let device = CString::new(device_name(device)).map_err(|_| missing("its name is not text"))?;
        let mut id = 0;
        // SAFETY: the name is a C string, and `id` outlives the call.
        if unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(device.as_ptr(), &mut id) } != 0 {
            return Err(missing("DPDK has no port of this name"));
        }
        let info = info(id).map_err(|error| missing(&error_text(error)))?;
        Ok(Self { id, name: port.name.clone(), info })
    }

    /// NUMA node the device is on; -1 if it is on none or any.
    pub fn numa_node(&self) -> i32 {
        // SAFETY: the port exists.
        unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }
    }

    /// Sets the device up with a queue each way for each worker and starts it. Received frames come from
    /// `mempool`; frames of flows come to their `owners` where the device can tell them by the fields of
    /// one `side`. The queues come in the order of the workers; each has one user.
    ///
    /// # Errors
    /// [`DpdkError`] if it has too few queues or refuses a setting.
    pub fn open(
        self,
        port: &model::Port,
        side: Side,
        owners: &Owners,
        mempool: &Arc<Mempool>,
    ) -> Result<(Arc<Port>, Vec<PortQueue>), DpdkError> {
        let queues = self.check_queues(port, owners.workers())?;
        let open = Open { id: self.id, mempool: Arc::clone(mempool) };
        let rss = self.configure(port, queues, side, mempool)?;
        self.set_up_queues(queues, mempool)?;
        if let Some(mac) = port.mac {
            self.set_mac(mac)?;
        }
        self.set_mtu(port.mtu)?;
        // SAFETY: the port is configured and all its queues are set up.
        let answer = unsafe { dpdk_sys::rte_eth_dev_start(self.id) };
        self.check(answer, "it does not start", "see its driver's lines above")?;
        // The table's size may follow from the number of queues.
        let rss = rss.redirect(self.id, info(self.id).map_or(0, |info| info.reta_size), owners);
        let mut mac = rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port exists, and `mac` outlives the call.
        let answer = unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &mut mac) };
        self.check(answer, "its MAC address is not known", "set `mac` in its [[port]]")?;
        let (driver, mac) = (self.driver(), MacAddr(mac.addr_bytes));
        let port = Arc::new(Port { id: self.id, name: self.name, driver, mac, rss, open });
        let queues = (0..queues).map(|queue| PortQueue::new(&port, queue)).collect();
        Ok((port, queues))
    }

    fn driver(&self) -> String {
        if self.info.driver_name.is_null() {
            return "unknown".to_owned();
        }
        // SAFETY: a driver's name is a static C string.
        unsafe { CStr::from_ptr(self.info.driver_name) }.to_string_lossy().into_owned()
    }

    /// An error of this port, unless `answer` is 0.
    fn check(&self, answer: i32, what: &str, hint: &'static str) -> Result<(), DpdkError> {
        if answer == 0 {
            return Ok(());
        }
        Err(DpdkError::Port {
            name: self.name.clone(),
            what: what.to_owned(),
            because: error_text(answer),
            hint,
        })
    }

    fn check_queues(&self, port: &model::Port, workers: usize) -> Result<u16, DpdkError> {
        let device = port.devices.first().map_or("", device_name);
        let hint = if device.starts_with("net_af_packet") {
            "add `,qpairs=N` to `device`"
        } else if device.starts_with("net_pcap") {
            "name one `rx_pcap=` and one `tx_pcap=` for each worker"
        } else {
            "see its driver's arguments"
        };
        for (kind, queues) in [("receive", self.info.max_rx_queues), ("transmit", self.info.max_tx_queues)] {
            if workers > usize::from(queues) {
                return Err(DpdkError::TooFewQueues { name: self.name.clone(), kind, workers, queues, hint });
            }
        }
        // At most `max_rx_queues`, which has 16 bits.
        Ok(workers as u16)
    }

    /// Configures the device; says how it chooses queues.
    fn configure(
        &self,
        port: &model::Port,
        queues: u16,
        side: Side,
        mempool: &Mempool,
    ) -> Result<Rss, DpdkError> {
        // SAFETY: all-zero bytes are DPDK's documented default configuration.
        let mut wanted: rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        wanted.rxmode.mtu = u32::from(port.mtu);
        let frame_len = usize::from(port.mtu) + eth::HEADER_LEN;
        if frame_len > mempool.data_room() as usize {
            // Software devices without this offload chain segments anyway.
            wanted.rxmode.offloads |= self.info.rx_offload_capa & dpdk_sys::TRUTINA_RX_OFFLOAD_SCATTER;
        }
        wanted.txmode.offloads |= self.info.tx_offload_capa & dpdk_sys::TRUTINA_TX_OFFLOAD_MULTI_SEGS;
        let choose =
            |side| Rss::choose(self.info.flow_type_rss_offloads, self.info.hash_key_size, side, queues);
        let mut rss = choose(side);
        let mut answer = self.try_configure(&mut wanted, queues, rss);
        // A device may refuse what it offers; then it spreads frames as it does by itself.
        if answer != 0 && rss != choose(Side::Both) {
            rss = choose(Side::Both);
            answer = self.try_configure(&mut wanted, queues, rss);
        }
        self.check(answer, "it refuses its configuration", "lower `mtu` or list fewer workers")?;
        Ok(rss)
    }

    fn try_configure(&self, wanted: &mut rte_eth_conf, queues: u16, rss: Rss) -> i32 {
        if let Some(settings) = rss.settings() {
            wanted.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
            wanted.rx_adv_conf.rss_conf = settings;
        }
        // SAFETY: the port exists and is stopped; the configuration is copied, but for the hash key, which
        // is static and only read.
        unsafe { dpdk_sys::rte_eth_dev_configure(self.id, queues, queues, &*wanted) }
    }

    fn set_up_queues(&self, queues: u16, mempool: &Mempool) -> Result<(), DpdkError> {
        let (mut receive, mut transmit) = (RING_LEN, RING_LEN);
        // SAFETY: the port exists, and both numbers outlive the call.
        let answer =
            unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut receive, &mut transmit) };
        self.check(answer, "it has no ring size", "see its driver's lines above")?;
        // A NUMA node of -1 is DPDK's SOCKET_ID_ANY.
        let node = self.numa_node() as u32;
        for queue in 0..queues {
            // SAFETY: the port was configured with this queue; the pool outlives the port, which holds it; a
            // null pointer asks for the default settings.
            let answer = unsafe {
                dpdk_sys::rte_eth_rx_queue_setup(
                    self.id,
                    queue,
                    receive,
                    node,
                    std::ptr::null(),
                    mempool.raw(),
                )
            };
            self.check(
                answer,
                &format!("receive queue {queue} fails"),
                "raise `memory_mib` in [dpdk], or lower `framesz` in `device` to 2048",
            )?;
            // SAFETY: as above.
            let answer =
                unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, transmit, node, std::ptr::null()) };
            self.check(answer, &format!("transmit queue {queue} fails"), "raise `memory_mib` in [dpdk]")?;
        }
        Ok(())
    }

    fn set_mac(&self, mac: MacAddr) -> Result<(), DpdkError> {
        let mut address = rte_ether_addr { addr_bytes: mac.0 };
        // SAFETY: the port is configured, and the address is copied.
        let answer = unsafe { dpdk_sys::rte_eth_dev_default_mac_addr_set(self.id, &mut address) };
        self.check(answer, "it does not take another MAC address", "leave `mac` out of its [[port]]")
    }

    fn set_mtu(&self, mtu: u16) -> Result<(), DpdkError> {
        // SAFETY: the port is configured and stopped.
        match unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, mtu) } {
            // Software devices without an MTU of their own take frames of any length.
            NOT_SUPPORTED => Ok(()),
            answer => self.check(answer, &format!("it does not take an MTU of {mtu}"), "lower `mtu`"),
        }
    }
}

impl Port {
    /// The driver's name, such as `net_af_packet`.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// How its device chooses queues.
    pub fn rss(&self) -> Rss {
        self.rss
    }

    /// The state of its link now.
    pub fn link(&self) -> Link {
        let mut link = MaybeUninit::<rte_eth_link>::zeroed();
        // SAFETY: the port exists, and `link` has room for the answer.
        let answer = unsafe { dpdk_sys::rte_eth_link_get_nowait(self.id, link.as_mut_ptr()) };
        // SAFETY: all-zero bytes are a valid `rte_eth_link`, and the call filled it besides.
        let link = unsafe { link.assume_init() };
        let known = link.link_speed != 0 && link.link_speed != u32::MAX;
        Link { up: answer == 0 && link.link_status() != 0, speed_mbps: known.then_some(link.link_speed) }
    }

    /// The driver's counters; all 0 if it keeps none.
    pub fn stats(&self) -> rte_eth_stats {
        let mut stats = rte_eth_stats::default();
        // SAFETY: the port exists, and `stats` outlives the call.
        unsafe { dpdk_sys::rte_eth_stats_get(self.id, &mut stats) };
        stats
    }
}

/// One receive and one transmit queue of a port, used by one worker.
pub struct PortQueue {
    receive: unsafe extern "C" fn(*mut c_void, *mut *mut rte_mbuf, u16) -> u16,
    receive_queue: *mut c_void,
    transmit: unsafe extern "C" fn(*mut c_void, *mut *mut rte_mbuf, u16) -> u16,
    transmit_queue: *mut c_void,
    /// Keeps the port running.
    port: Arc<Port>,
}

// SAFETY: a queue may be used from any one thread; `PortQueue` is not `Clone` and needs `&mut self`.
unsafe impl Send for PortQueue {}

impl PortQueue {
    fn new(port: &Arc<Port>, queue: u16) -> Self {
        let table = (&raw const dpdk_sys::rte_eth_fp_ops).cast::<dpdk_sys::rte_eth_fp_ops>();
        let entry = table.wrapping_add(usize::from(port.id));
        // SAFETY: port ids are below RTE_MAX_ETHPORTS, the table's length, and a started port's entry is
        // filled and stays as it is.
        let entry = unsafe { &*entry };
        let (Some(receive), Some(transmit)): (eth_rx_burst_t, eth_tx_burst_t) =
            (entry.rx_pkt_burst, entry.tx_pkt_burst)
        else {
            unreachable!("a started port has burst functions");
        };
        let receive_queue = entry.rxq.data.wrapping_add(usize::from(queue));
        let transmit_queue = entry.txq.data.wrapping_add(usize::from(queue));
        Self {
            receive,
            // SAFETY: the port was configured with this queue, so the array of its queues has it.
            receive_queue: unsafe { *receive_queue },
            transmit,
            // SAFETY: as above.
            transmit_queue: unsafe { *transmit_queue },
            port: Arc::clone(port),
        }
    }
}

impl Queue for PortQueue {
    type Frame = Mbuf;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<Mbuf>) {
        debug_assert!(burst.is_empty());
        let slots = burst.slots_mut().as_mut_ptr().cast::<*mut rte_mbuf>();
        // SAFETY:
        // - the array has BURST places, all `None`, and `Option<Mbuf>` is a pointer (asserted in mbuf.rs);
        // - the driver fills the first `count` with live mbufs that are ours from then on;
        // - `&mut self` makes this thread the queue's only user, and the port runs while `self` lives.
        let count = unsafe { (self.receive)(self.receive_queue, slots, BURST as u16) };
        burst.set_len(usize::from(count));
    }

    #[inline]
    fn send(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        burst.close_gaps();
        // At most BURST.
        let len = burst.len() as u16;
        let slots = burst.slots_mut().as_mut_ptr().cast::<*mut rte_mbuf>();
        // SAFETY:
        // - the first `len` places are `Some`, since there are no gaps;
        // - `&mut self` makes this thread the queue's only user, and the port runs while `self` lives;
        // - the `sent` first mbufs belong to the driver afterwards, and `disown` forgets them.
        let sent = usize::from(unsafe { (self.transmit)(self.transmit_queue, slots, len) });
        burst.disown(sent);
        sent
    }

    fn seed(&self) -> Option<Mbuf> {
        self.port.open.mempool.frame(&[0])
    }
}

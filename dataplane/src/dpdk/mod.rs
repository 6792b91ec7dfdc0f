//! The safe layer over DPDK: the only place where the packet path touches raw memory.
//!
//! `eal` starts DPDK, once per process; `mempool` owns packet memory; `mbuf` is one owned frame; `ethdev` is
//! a port and its queues, `rss` how its device chooses among them. Names are DPDK's without `rte_`. Nothing here can free a frame twice, use it after
//! sending, or leak it.
#![allow(unsafe_code)]

pub mod eal;
pub mod ethdev;
pub mod mbuf;
pub mod mempool;
pub mod rss;

use std::ffi::CStr;

use config::model::Device;

/// A call to DPDK that failed. Messages read `what; because; try`.
#[derive(Debug, thiserror::Error)]
pub enum DpdkError {
    /// DPDK can be started only once in a process.
    #[error("DPDK does not start; it was started before in this process; start a new process")]
    StartedBefore,
    /// EAL refused its arguments or its surroundings.
    #[error("DPDK does not start; {because}; look at the EAL lines above, or run `trutinad` as root")]
    Eal {
        /// EAL's error text.
        because: String,
    },
    /// There are no huge pages to put packets on.
    #[error(
        "DPDK does not start with {wanted_mib} MiB on huge pages; {free_mib} MiB of 2 MiB huge pages are free; \
         run `echo {pages} > /proc/sys/vm/nr_hugepages`, or set `hugepages = false` in [dpdk]"
    )]
    NoHugepages {
        /// Memory asked for.
        wanted_mib: u64,
        /// Memory there is.
        free_mib: u64,
        /// Number of pages that would do.
        pages: u64,
    },
    /// A configured device did not become a port.
    #[error("port `{name}`: device `{device}` did not open; {because}; {hint}")]
    NoDevice {
        /// The operator's name of the port.
        name: String,
        /// The device as configured.
        device: String,
        /// What is known of the reason.
        because: String,
        /// What to do.
        hint: &'static str,
    },
    /// A device has fewer queues than there are workers.
    #[error(
        "port `{name}`: {workers} workers need {workers} {kind} queues; the device has {queues}; \
         give it more ({hint}), or list {queues} in [cores] workers"
    )]
    TooFewQueues {
        /// The operator's name of the port.
        name: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Queues asked for.
        workers: usize,
        /// Queues there are.
        queues: u16,
        /// Arguments that give some software devices more queues.
        hint: &'static str,
    },
    /// A core that a worker should run on does not exist or is not ours.
    #[error(
        "core {core} cannot be used; this process may run on cores {allowed:?}; \
         change [cores] in the configuration, or the CPU affinity trutinad is started with"
    )]
    NoCore {
        /// The core asked for.
        core: usize,
        /// The cores there are.
        allowed: Vec<usize>,
    },
    /// Packet memory could not be reserved.
    #[error(
        "packet memory for {frames} frames cannot be reserved on NUMA node {node}; {because}; \
         raise `memory_mib` in [dpdk]"
    )]
    NoMemory {
        /// Frames asked for.
        frames: u32,
        /// NUMA node; -1 is any.
        node: i32,
        /// DPDK's error text.
        because: String,
    },
    /// A device refused a setting.
    #[error("port `{name}`: {what}; {because}; {hint}")]
    Port {
        /// The operator's name of the port.
        name: String,
        /// What failed.
        what: String,
        /// DPDK's error text.
        because: String,
        /// What to do.
        hint: &'static str,
    },
    /// A thread could not be registered with DPDK.
    #[error("worker on core {core} cannot be registered with DPDK; {because}; use fewer workers")]
    Register {
        /// The core it runs on.
        core: usize,
        /// DPDK's error text.
        because: String,
    },
}

/// The text of an error number, positive or negative.
fn error_text(number: i32) -> String {
    // SAFETY: rte_strerror takes any number and answers with a static or thread-local string.
    let text = unsafe { dpdk_sys::rte_strerror(number.abs()) };
    // SAFETY: the string ends with a zero byte and stays until this thread asks for the next one.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The text of the calling thread's last error.
fn last_error() -> String {
    // SAFETY: reads a thread-local variable.
    error_text(unsafe { dpdk_sys::trutina_errno() })
}

/// A device as EAL calls it: the name without its arguments.
fn device_name(device: &Device) -> &str {
    let (Device::Pci(text) | Device::Vdev(text)) = device;
    text.split(',').next().unwrap_or_default()
}

/// A device as the operator wrote it.
pub fn device_text(device: &Device) -> &str {
    let (Device::Pci(text) | Device::Vdev(text)) = device;
    text
}

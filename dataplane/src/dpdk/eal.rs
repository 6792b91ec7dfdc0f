//! DPDK's environment abstraction layer: started once per process, with arguments made from our config.

use std::ffi::{CStr, CString};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use config::model::{Config, Device};

use super::{DpdkError, error_text, last_error};

static STARTED: AtomicBool = AtomicBool::new(false);

/// DPDK, running. Dropping it cleans up; DPDK cannot be started again in the same process.
pub struct Eal {
    _once: (),
}

impl Eal {
    /// Starts DPDK. The calling thread becomes its main thread and is pinned to the control core.
    ///
    /// # Errors
    /// [`DpdkError`] if huge pages are missing, a core does not exist, or EAL refuses; a device that does not
    /// open may be reported here or by [`super::ethdev::Port::open`].
    pub fn start(config: &Config) -> Result<Arc<Self>, DpdkError> {
        check_cores(config)?;
        check_hugepages(config)?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(DpdkError::StartedBefore);
        }
        let arguments: Vec<CString> = arguments(config)
            .into_iter()
            .map(|argument| {
                CString::new(argument).expect("a TOML string that names a device has no zero byte")
            })
            .collect();
        let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = i32::try_from(pointers.len()).expect("arguments are few");
        // SAFETY: the array holds `count` C strings that live until the call returns; EAL may reorder the
        // array and copies what it keeps. `STARTED` makes this the only call in the process.
        let parsed = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
        if parsed < 0 {
            return Err(explain_failure(config, last_error()));
        }
        Ok(Arc::new(Self { _once: () }))
    }

    /// Version of the DPDK that runs, such as `DPDK 22.11.11`.
    pub fn version(&self) -> String {
        // SAFETY: rte_version answers with a static string.
        let text = unsafe { dpdk_sys::rte_version() };
        // SAFETY: the string ends with a zero byte and is never freed.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // SAFETY: EAL runs, and answers with a static string.
        let directory = unsafe { dpdk_sys::rte_eal_get_runtime_dir() };
        // SAFETY: the string ends with a zero byte and stays until EAL is cleaned up.
        let directory = unsafe { CStr::from_ptr(directory) }.to_string_lossy().into_owned();
        // SAFETY: EAL was started by `start`; ports and mempools hold an `Arc` of this, so none is left.
        unsafe { dpdk_sys::rte_eal_cleanup() };
        // EAL makes its directory although it puts nothing there; only an empty one is removed.
        let _ = fs::remove_dir(directory);
    }
}

/// A registration of the calling thread with DPDK, which gives it its own mempool caches.
pub struct Registered {
    /// Not `Send`: it belongs to the thread that made it.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Registered {
    /// Registers the calling thread, which runs on `core`.
    ///
    /// # Errors
    /// [`DpdkError::Register`] if DPDK has no more room for threads.
    pub fn new(core: usize) -> Result<Self, DpdkError> {
        // SAFETY: EAL runs: workers are started only after it, with queues that keep it alive.
        match unsafe { dpdk_sys::rte_thread_register() } {
            0 => Ok(Self { _thread: std::marker::PhantomData }),
            _ => Err(DpdkError::Register { core, because: last_error() }),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread was registered by `new` and has not been unregistered since.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// EAL's command line.
fn arguments(config: &Config) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "trutinad",
        "--lcores",
        &format!("0@{}", config.cores.control),
        "--no-telemetry",
        "--file-prefix",
        &config.dpdk.file_prefix,
        "-m",
        &config.dpdk.memory_mib.to_string(),
        "--log-level",
        "lib.eal:warning",
    ]
    .map(str::to_owned)
    .into();
    // No second process may join, so no file has to tell one how: nothing can be left behind.
    let memory: &[&str] =
        if config.dpdk.hugepages { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    arguments.extend(memory.iter().map(|&argument| argument.to_owned()));
    for device in devices(config) {
        match device {
            Device::Pci(device) => arguments.extend(["-a".to_owned(), device.clone()]),
            Device::Vdev(device) => arguments.push(format!("--vdev={device}")),
        }
    }
    // Without this EAL takes every NIC that is bound to one of its drivers.
    if !devices(config).any(|device| matches!(device, Device::Pci(_))) {
        arguments.push("--no-pci".to_owned());
    }
    arguments
}

/// The devices of all ports.
fn devices(config: &Config) -> impl Iterator<Item = &Device> {
    config.ports.iter().flat_map(|port| &port.devices)
}

fn check_cores(config: &Config) -> Result<(), DpdkError> {
    let allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let mut wanted = std::iter::once(&config.cores.control).chain(&config.cores.workers);
    match wanted.find(|core| !allowed.contains(core)) {
        Some(&core) => Err(DpdkError::NoCore { core, allowed }),
        None => Ok(()),
    }
}

/// Looks for free huge pages before EAL does, because EAL's own words do not say how to get some.
fn check_hugepages(config: &Config) -> Result<(), DpdkError> {
    if !config.dpdk.hugepages {
        return Ok(());
    }
    let wanted_mib = u64::from(config.dpdk.memory_mib);
    let free = |size_kib: u64| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{size_kib}kB/free_hugepages");
        let pages = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        size_kib / 1024 * pages
    };
    let free_mib = free(2048);
    if free_mib.max(free(1_048_576)) >= wanted_mib {
        return Ok(());
    }
    Err(DpdkError::NoHugepages { wanted_mib, free_mib, pages: wanted_mib.div_ceil(2) })
}

/// EAL gives one error number for everything; a software device that does not open is the usual reason.
fn explain_failure(config: &Config, because: String) -> DpdkError {
    let all = config.ports.iter().flat_map(|port| port.devices.iter().map(move |device| (port, device)));
    for (port, device) in all {
        let Device::Vdev(device) = device else { continue };
        let interface = device.split(',').find_map(|argument| argument.strip_prefix("iface="));
        let creates = device.starts_with("net_tap");
        if let Some(interface) = interface
            && !creates
            && !fs::exists(format!("/sys/class/net/{interface}")).unwrap_or(true)
        {
            return DpdkError::NoDevice {
                name: port.name.clone(),
                device: device.clone(),
                because: format!("there is no network interface `{interface}` here"),
                hint: "run `ip link` and name one that exists",
            };
        }
    }
    let because = if because == error_text(0) { "EAL gives no reason".to_owned() } else { because };
    DpdkError::Eal { because }
}

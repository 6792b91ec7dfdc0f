//! Starts and stops the parts of the appliance.

mod devices;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as ready;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use config::model::Config;
use controlplane::engine::{Devices as _, Engine, Identity, Plan, Signals};
use controlplane::state::Limits;
use controlplane::{metrics, neighbour, report, server};
use dataplane::clock::Clock;
use dataplane::dpdk::eal::{Eal, Registered};
use dataplane::dpdk::ethdev::{self, Port, PortQueue};
use dataplane::dpdk::mbuf::Mbuf;
use dataplane::dpdk::mempool::Mempool;
use dataplane::dpdk::rss::Side;
use dataplane::flow::table::HashSecret;
use dataplane::forward::Setup;
use dataplane::publish;
use dataplane::stats::WorkerStats;
use dataplane::toeplitz::Owners;
use dataplane::worker::{self, FRAMES_IN_QUEUES, Handle, Shared, Worker};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use devices::DpdkDevices;

/// Frames that the control thread makes and that threads keep in their caches, beside all queues.
const SPARE_FRAMES: usize = 512;
/// Mbufs that a thread's mempool cache may hold: one and a half times its size.
const CACHED_FRAMES: usize = 384;
/// Calls and scrapes that wait for the control thread.
const WAITING_CALLS: usize = 64;

/// Packet memory by NUMA node.
type Mempools = BTreeMap<i32, Arc<Mempool>>;

/// Runs the appliance until it is told to stop.
pub fn run(config: Config, config_file: PathBuf, exit_when_idle: Option<Duration>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The socket comes first: a second instance on it is told so before it touches a device.
    let in_runtime = runtime.enter();
    let signals = Signals::listen()?;
    let socket = server::bind(&config.control.socket)?;
    let listen = config.metrics.map(|metrics| metrics.listen);
    let scraped = match listen {
        Some(address) => Some(runtime.block_on(TcpListener::bind(address)).with_context(|| {
            format!("[metrics] listen = \"{address}\"; the address cannot be used; choose another port")
        })?),
        None => None,
    };
    let eal = Eal::start(&config)?;
    let Opened { ports, queues, mempools } = open_ports(&config, &eal)?;
    let identity = Identity {
        version: env!("TRUTINA_VERSION").to_owned(),
        dpdk: eal.version(),
        config_file,
        exit_when_idle,
    };
    let control_frames = mempools.values().next().cloned().context("no port; give one as [[port]]")?;
    let devices = DpdkDevices::new(&config, ports.clone(), control_frames);
    let limits = Limits::for_config(&config);
    let plan = Plan::new(config.clone(), &devices.macs(), limits)?;
    let (publisher, readers) = publish::channel(plan.snapshot(), config.cores.workers.len());
    let shared = Shared { stop: Arc::default(), clock: Clock::start() };
    let setup = Setup {
        number: 0,
        workers: config.cores.workers.len(),
        flow_capacity: config.flow_table.capacity as usize,
        services: limits.services,
        secret: HashSecret::random(),
    };
    let team = worker::team(by_worker(queues), &setup, limits.backends, readers, &shared);
    let (workers, handles): (Vec<_>, Vec<Handle<Mbuf>>) = team.into_iter().unzip();
    let stats: Vec<Arc<WorkerStats>> = handles.iter().map(|handle| Arc::clone(&handle.stats)).collect();
    let threads = start_workers(&config, workers, &shared);
    let ended = threads.and_then(|threads| {
        let engine = Engine::new(identity, plan, devices, publisher, handles, shared.clone());
        runtime.block_on(control(engine, socket, scraped, signals));
        stop_workers(threads, &shared)
    });
    drop(in_runtime);
    // A file that is just being read again does not hold the end up.
    runtime.shutdown_background();
    for (number, stats) in stats.iter().enumerate() {
        tracing::info!("worker {number}: {}", report::worker_line(stats));
    }
    drop(ports);
    check_mempools(&mempools);
    ended
}

/// What runs when all devices are set up.
struct Opened {
    ports: Vec<Arc<Port>>,
    /// By port and worker.
    queues: Vec<Vec<PortQueue>>,
    mempools: Mempools,
}

/// Finds and opens all ports, each with memory on its own NUMA node.
fn open_ports(config: &Config, eal: &Arc<Eal>) -> anyhow::Result<Opened> {
    let workers = config.cores.workers.len();
    let found = config.ports.iter().map(ethdev::Device::find).collect::<Result<Vec<_>, _>>()?;
    let mut on_node: BTreeMap<i32, usize> = BTreeMap::new();
    for device in &found {
        *on_node.entry(device.numa_node()).or_default() += 1;
    }
    let mut mempools = Mempools::new();
    for (node, ports) in on_node {
        let rings = ports * workers * 2 * usize::from(ethdev::RING_LEN);
        let queues = workers * (FRAMES_IN_QUEUES + CACHED_FRAMES) + neighbour::MAX_WAITING;
        let frames = u32::try_from(rings + queues + SPARE_FRAMES).context("too many workers and ports")?;
        mempools.insert(node, Arc::new(Mempool::new(eal, node, frames)?));
    }
    let owners = Owners::new(workers);
    let (mut ports, mut queues) = (Vec::new(), Vec::new());
    for (device, port) in found.into_iter().zip(&config.ports) {
        let mempool = Arc::clone(&mempools[&device.numa_node()]);
        let (opened, its_queues) = device.open(port, Side::Both, &owners, &mempool)?;
        tracing::info!("port {}: {}, RSS: {}", port.name, opened.driver(), opened.rss());
        ports.push(opened);
        queues.push(its_queues);
    }
    Ok(Opened { ports, queues, mempools })
}

/// Queues by port and worker → by worker and port.
fn by_worker(queues: Vec<Vec<PortQueue>>) -> Vec<Vec<PortQueue>> {
    let mut by_port: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
    let mut by_worker = Vec::new();
    loop {
        let queues: Vec<PortQueue> = by_port.iter_mut().filter_map(Iterator::next).collect();
        if queues.is_empty() {
            return by_worker;
        }
        by_worker.push(queues);
    }
}

/// Starts a pinned thread for each worker and waits until all of them poll.
fn start_workers(
    config: &Config,
    workers: Vec<Worker<PortQueue>>,
    shared: &Shared,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let (report, reports) = ready::channel();
    let mut threads = Vec::new();
    for (number, (worker, &core)) in workers.into_iter().zip(&config.cores.workers).enumerate() {
        let report = report.clone();
        let body = move || {
            let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
            let registered =
                match Registered::new(core) {
                    Ok(registered) if pinned => registered,
                    Ok(_) => return drop(report.send(Err(anyhow!(
                        "core {core} cannot be used; pinning a thread to it failed; change [cores] workers"
                    )))),
                    Err(error) => return drop(report.send(Err(error.into()))),
                };
            // The main thread waits for it.
            let _ = report.send(Ok(()));
            drop(report);
            worker.run();
            drop(registered);
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{number}")).spawn(body)?);
    }
    drop(report);
    for answer in reports {
        if let Err(error) = answer {
            stop_workers(threads, shared)?;
            return Err(error);
        }
    }
    Ok(threads)
}

fn stop_workers(threads: Vec<JoinHandle<()>>, shared: &Shared) -> anyhow::Result<()> {
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow!("a worker panicked; its flows are lost; report this as a defect"))?;
    }
    Ok(())
}

/// Serves the control socket and the metrics while the engine runs.
async fn control(
    engine: Engine<DpdkDevices>,
    socket: server::Listener,
    scraped: Option<TcpListener>,
    signals: Signals,
) {
    let (call, calls) = mpsc::channel(WAITING_CALLS);
    let (scrape, scrapes) = mpsc::channel(WAITING_CALLS);
    let serving = tokio::spawn(server::serve(socket, call));
    if let Some(listener) = scraped {
        tokio::spawn(metrics::serve(listener, scrape));
    }
    engine.run(calls, scrapes, signals).await;
    // The engine is gone, so the server ends when the last answers are written.
    let _ = serving.await;
}

/// Says so if a frame was not given back: by the law there is none.
fn check_mempools(mempools: &Mempools) {
    for (node, mempool) in mempools {
        let in_use = mempool.in_use();
        if in_use > 0 {
            tracing::error!(
                "{in_use} frames of NUMA node {node} were not given back; report this as a defect"
            );
        }
    }
}

//! Starts and stops the parts of the appliance.

mod devices;
mod pages;
mod ports;

use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as ready;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use config::model::Config;
use controlplane::engine::{Devices as _, Engine, Identity, Plan, Signals};
use controlplane::host::Host;
use controlplane::state::Limits;
use controlplane::{metrics, report, server};
use dataplane::clock::Clock;
use dataplane::dpdk::eal::{Eal, Registered};
use dataplane::dpdk::ethdev::PortQueue;
use dataplane::dpdk::mbuf::Mbuf;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{PieceSetup, Setup};
use dataplane::publish;
use dataplane::stats::WorkerStats;
use dataplane::worker::{self, Handle, Shared, Worker};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use devices::DpdkDevices;
use ports::{Mempools, Opened};

/// Calls and scrapes that wait for the control thread.
const WAITING_CALLS: usize = 64;
/// A driver whose closed devices do not give back the frames that wait in their rings.
const KEEPS_FRAMES: &str = "net_af_xdp";

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
    pages::warn_if_small(config.dpdk.hugepages);
    let Opened { ports, queues, mempools } = ports::open(&config, &eal)?;
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
    let host = runtime.block_on(Host::open(&config, &devices.macs()))?;
    let (publisher, readers) = publish::channel(plan.snapshot(), config.cores.workers.len());
    let shared = Shared { stop: Arc::default(), clock: Clock::start(), idle: config.cores.idle };
    let team = worker::team(queues, &setup(&config, limits), limits.backends, readers, &shared);
    let (workers, handles): (Vec<_>, Vec<Handle<Mbuf>>) = team.into_iter().unzip();
    let stats: Vec<Arc<WorkerStats>> = handles.iter().map(|handle| Arc::clone(&handle.stats)).collect();
    // It gives workers what they need from their first packet on, so it comes before they run.
    let engine = Engine::new(identity, plan, devices, host, publisher, handles, shared.clone());
    let threads = start_workers(&config, workers, &shared);
    let ended = threads.and_then(|threads| {
        runtime.block_on(control(engine, socket, scraped, signals));
        stop_workers(threads, &shared)
    });
    drop(in_runtime);
    // A file that is just being read again does not hold the end up.
    runtime.shutdown_background();
    for (number, stats) in stats.iter().enumerate() {
        tracing::info!("worker {number}: {}", report::worker_line(stats));
    }
    let kept = ports.iter().flatten().any(|device| device.driver() == KEEPS_FRAMES);
    drop(ports);
    if !kept {
        check_mempools(&mempools);
    }
    ended
}

/// What all workers have in common.
fn setup(config: &Config, limits: Limits) -> Setup {
    Setup {
        number: 0,
        workers: config.cores.workers.len(),
        flow_capacity: config.flow_table.capacity as usize,
        wide_capacity: config.flow_table.wide_capacity as usize,
        pieces: PieceSetup {
            capacity: config.fragments.capacity as usize,
            timeout: config.fragments.timeout_secs,
            remember: config.fragments.remember_secs,
            secret: RandomState::new(),
        },
        services: limits.services,
        secret: HashSecret::random(),
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
            // The kernel may make sleeps 50 µs longer to end several at once, unless told not to. That it knows
            // this call is certain, and a worker that sleeps longer is no reason not to start.
            let _ = nix::sys::prctl::set_timerslack(1);
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

//! Starts and stops the parts of the appliance.

mod devices;
mod nodes;
mod pages;
mod ports;
mod workers;

use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use config::model::Config;
use controlplane::engine::{Devices as _, Engine, Identity, Plan, Signals};
use controlplane::host::Host;
use controlplane::state::Limits;
use controlplane::{metrics, report, server};
use dataplane::clock::Clock;
use dataplane::dpdk::eal::Eal;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{PieceSetup, Setup};
use dataplane::publish;
use dataplane::stats::WorkerStats;
use dataplane::team::Team;
use dataplane::worker::{self, Shared};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use devices::DpdkDevices;
use ports::{Mempools, Opened};
use workers::Workers;

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
    let team = worker::team(queues, &setup(&config, limits), readers, &shared);
    let (workers, handles) = Workers::make(&config.cores.workers, team)?;
    let stats: Vec<Arc<WorkerStats>> = handles.iter().map(|handle| Arc::clone(&handle.stats)).collect();
    // It gives workers what they need from their first packet on, so it comes before they poll.
    let engine = Engine::new(identity, plan, devices, host, publisher, handles, shared.clone());
    workers.begin();
    runtime.block_on(control(engine, socket, scraped, signals));
    let ended = workers.stop(&shared);
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
        team: Team::new(config.cores.workers.len(), limits.backends, config.flow_table.templates as usize),
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

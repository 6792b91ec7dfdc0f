//! The appliance without DPDK, in this process: the same control thread, socket and worker, with devices in
//! memory, so that every turn of the worker can be watched.

use std::hash::RandomState;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use config::words::{Idle, MacAddr};
use controlplane::api::{Done, PortStats, PortStatus, Request};
use controlplane::client::Client;
use controlplane::engine::{Devices, Engine, Identity, Plan, Signals};
use controlplane::host::Host;
use controlplane::server;
use controlplane::state::Limits;
use dataplane::buf::HeapFrame;
use dataplane::clock::Clock;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{PieceSetup, Setup};
use dataplane::publish;
use dataplane::team::Team;
use dataplane::worker::{self, Shared};
use tokio::sync::mpsc;

use super::gaps::{self, Turn};
use super::site::Site;
use super::traffic::{Load, Source};

/// Time after the start in which announcements are sent, in IPv4 twice within two seconds.
const SETTLE: Duration = Duration::from_secs(3);
const MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]);

/// What the control thread sees of the devices.
struct Null;

impl Devices for Null {
    type Frame = HeapFrame;

    fn frame(&self, bytes: &[u8]) -> Option<HeapFrame> {
        Some(HeapFrame::new(bytes))
    }

    fn macs(&self) -> Vec<MacAddr> {
        vec![MAC]
    }

    fn links(&self) -> Vec<bool> {
        vec![true]
    }

    fn status(&self) -> Vec<PortStatus> {
        Vec::new()
    }

    fn stats(&self) -> Vec<PortStats> {
        Vec::new()
    }
}

/// What runs.
pub struct Appliance {
    /// What is seen of the worker.
    pub turns: Receiver<Turn>,
    worker: JoinHandle<Result<(), String>>,
    control: JoinHandle<Result<(), String>>,
}

impl Appliance {
    /// Starts worker and control thread, each on its core, and waits until they have said what there is to
    /// say at a start.
    ///
    /// # Errors
    /// The operating system refuses something.
    pub fn start(site: &Site, load: Load) -> Result<Self, String> {
        let limits = Limits::for_config(&site.config);
        let plan = Plan::new(site.config.clone(), &[MAC], limits).map_err(|error| error.to_string())?;
        let (publisher, readers) = publish::channel(plan.snapshot(), 1);
        let shared = Shared { stop: Arc::default(), clock: Clock::start(), idle: Idle::Poll };
        let burst_ns = Arc::default();
        let queues = vec![vec![Source::new(load, &site.config, &burst_ns)]];
        let team = worker::team(queues, &setup(site, limits), readers, &shared);
        let ((told, turns), (made, handles)) = (channel(), channel());
        let stop = Arc::clone(&shared.stop);
        let cores = &site.config.cores;
        let (control_core, worker_core) = (cores.control, cores.workers[0]);
        let work = move || {
            pin(worker_core)?;
            team.into_iter().try_for_each(|blueprint| {
                let (worker, handle) = blueprint.build().map_err(|error| error.to_string())?;
                // Who made this thread waits for it.
                let _ = made.send(handle);
                gaps::watch(worker, &stop, &burst_ns, load.long(), &told).map_err(|error| error.to_string())
            })
        };
        let worker = thread::spawn(work);
        let handles = vec![handles.recv().map_err(|_| "the worker could not be made".to_owned())?];
        let identity = Identity {
            version: "perf".to_owned(),
            dpdk: "none".to_owned(),
            config_file: site.file().to_owned(),
            exit_when_idle: None,
        };
        let config = site.config.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let in_runtime = runtime.enter();
        // Before the threads, so that a client finds it.
        let socket = server::bind(site.socket()).map_err(|error| error.to_string())?;
        drop(in_runtime);
        let control = move || {
            pin(control_core)?;
            runtime.block_on(async move {
                let signals = Signals::listen().map_err(|error| error.to_string())?;
                let host = Host::open(&config, &[MAC]).await.map_err(|error| error.to_string())?;
                let (call, calls) = mpsc::channel(1);
                let (_scrape, scrapes) = mpsc::channel(1);
                let serving = tokio::spawn(server::serve(socket, call));
                let engine = Engine::new(identity, plan, Null, host, publisher, handles, shared);
                engine.run(calls, scrapes, signals).await;
                // The engine is gone, so it ends when the last answers are written.
                serving.await.map_err(|error| error.to_string())
            })
        };
        let appliance = Self { turns, worker, control: thread::spawn(control) };
        thread::sleep(SETTLE);
        Ok(appliance)
    }

    /// Stops it.
    ///
    /// # Errors
    /// Something went wrong while it ran.
    pub fn stop(self, site: &Site) -> Result<(), String> {
        let mut client = Client::connect(site.socket()).map_err(|error| error.to_string())?;
        client.call::<Done>(&Request::Stop).map_err(|error| error.to_string())?;
        for thread in [self.control, self.worker] {
            thread.join().map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok(())
    }
}

fn pin(core: usize) -> Result<(), String> {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    pinned.then_some(()).ok_or_else(|| format!("core {core} cannot be used"))
}

fn setup(site: &Site, limits: Limits) -> Setup {
    let flows = &site.config.flow_table;
    Setup {
        number: 0,
        team: Team::new(1, limits.backends, 0),
        flow_capacity: flows.capacity as usize,
        wide_capacity: flows.wide_capacity as usize,
        pieces: PieceSetup { capacity: 1, timeout: 5, remember: 30, secret: RandomState::new() },
        services: limits.services,
        secret: HashSecret::random(),
    }
}

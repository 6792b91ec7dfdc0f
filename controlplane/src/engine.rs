//! The control thread's loop: everything that happens comes here, one thing at a time.
//!
//! Calls, health events, punted frames and timers change [`State`] or [`Neighbours`]; what changed is
//! compiled and published once per turn, and a call is answered when every worker uses the result.

mod answers;
mod arp;
mod calls;
mod claims;
mod flows;
mod frames;
mod host;
mod measure;
mod nd;
mod persistence;
mod policies;
mod reload;
mod stations;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use config::model::Config;
use config::words::MacAddr;
use dataplane::buf::Frame;
use dataplane::publish::Publisher;
use dataplane::snapshot::{BackendSlot, NeighbourTable, Snapshot};
use dataplane::stats::{DropCounters, WorkerStats};
use dataplane::worker::{Handle, Shared};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, MissedTickBehavior};

use crate::api::{ApiError, PortStats, PortStatus};
use crate::compile::{self, compile, recompile};
use crate::health::agent::Agents;
use crate::health::{Checker, Event};
use crate::host::Host;
use crate::metrics::Scrape;
use crate::neighbour::Neighbours;
use crate::observe::Windows;
use crate::pools::Locals;
use crate::report;
use crate::server::Call;
use crate::state::{Ground, Limits, State};
use calls::Pending;
use claims::Claims;

/// Time between looks at the workers' queues: the longest a punted frame waits.
const TICK: Duration = Duration::from_millis(1);
/// Time between looks at what is due in the neighbour table.
const NEIGHBOUR_TICK: Duration = Duration::from_millis(20);
/// Time between looks for retired slots whose last flow has ended, and for what time alone changes.
const RETIRED_TICK: Duration = Duration::from_millis(250);
/// Time between looks at what is measured.
const MEASURE_TICK: Duration = Duration::from_secs(1);
/// Time between looks at the ports' links.
const LINK_TICK: Duration = Duration::from_secs(1);
/// Least time between snapshots that differ in neighbours only, so that a station which flaps costs little.
const NEIGHBOUR_PUBLISH: Duration = Duration::from_millis(20);
/// Health events that wait at most.
const EVENTS: usize = 64;

/// What the control thread needs of the devices.
pub trait Devices {
    /// The frames that workers carry.
    type Frame: Frame;

    /// A frame of these bytes; `None` if no memory is free for it.
    fn frame(&self, bytes: &[u8]) -> Option<Self::Frame>;

    /// Ethernet address of each port, by number; one that has several devices has them all with the same.
    fn macs(&self) -> Vec<MacAddr>;

    /// Whether each port has a link now, by number.
    fn links(&self) -> Vec<bool>;

    /// State of each port now, by number.
    fn status(&self) -> Vec<PortStatus>;

    /// The drivers' counters of each port, by number.
    fn stats(&self) -> Vec<PortStats>;
}

/// What stays the same while the appliance runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of trutinad.
    pub version: String,
    /// Version of DPDK.
    pub dpdk: String,
    /// Where the configuration came from, and comes from again on reload.
    pub config_file: PathBuf,
    /// Stop when no frame came for so long, after at least one did. For replays.
    pub exit_when_idle: Option<Duration>,
}

/// The signals that the control thread obeys.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over from their default, which is to kill the process. Those that come before the
    /// control thread runs wait for it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Everything that a configuration says and that can be compiled before there are workers.
pub struct Plan {
    config: Config,
    state: State,
    frame: compile::Frame,
}

impl Plan {
    /// The plan of a configuration whose ports have these Ethernet addresses.
    ///
    /// # Errors
    /// [`ApiError`] if the configuration has more services, backends or local addresses than there are slots.
    pub fn new(config: Config, macs: &[MacAddr], limits: Limits) -> Result<Self, ApiError> {
        let ground = Ground::new(&config, &Locals::default())?;
        let mut state = State::new(Ground::default(), limits);
        state.replace(ground, &config.services, Duration::ZERO)?;
        let frame = compile::Frame::new(&config, macs);
        Ok(Self { config, state, frame })
    }

    /// Its first snapshot. Only fixed neighbours are known yet.
    pub fn snapshot(&self) -> Snapshot {
        let mut neighbours = Neighbours::<()>::default();
        neighbours.configure(reload::fixed_stations(&self.state, &self.config), [], Duration::ZERO);
        compile(&self.state, &self.frame, &Arc::new(neighbours.table()))
    }
}

/// The control thread.
pub struct Engine<D: Devices> {
    identity: Identity,
    devices: D,
    config: Config,
    state: State,
    frame: compile::Frame,
    host: Host,
    neighbours: Neighbours<D::Frame>,
    neighbour_table: Arc<NeighbourTable>,
    claims: Claims,
    answers: stations::AnswerBudget,
    /// Local addresses whose ports the workers have.
    locals: usize,
    publisher: Publisher<Snapshot>,
    workers: Vec<Handle<D::Frame>>,
    shared: Shared,
    checker: Checker,
    agents: Agents,
    events: mpsc::Receiver<Event>,
    started: Instant,
    /// Whether something changed that workers do not know yet.
    changed: bool,
    /// Calls whose changes belong to the next snapshot.
    unpublished: Vec<oneshot::Sender<Result<Value, ApiError>>>,
    pending: VecDeque<Pending>,
    listings: flows::Listings,
    persistence: persistence::Persistence,
    /// Of backends that are measured.
    windows: Windows,
    control: frames::Counters,
    drops: DropCounters,
    /// The worker that sends the control thread's frames next.
    next_worker: usize,
    /// Where frames are put together for the kernel and for workers.
    scratch: Vec<u8>,
    next_neighbours: Instant,
    next_retired: Instant,
    next_measure: Instant,
    next_links: Instant,
    next_neighbour_publish: Instant,
    /// Whether each port had a link when last looked at.
    links: Vec<bool>,
    /// Files that were read again.
    reloads: reload::Reloads,
    /// Frames received so far, and since when that number has stood.
    idle: (u64, Instant),
}

impl<D: Devices> Engine<D> {
    /// The control thread of these workers. Must be called within a tokio runtime.
    pub fn new(
        identity: Identity,
        plan: Plan,
        devices: D,
        host: Host,
        publisher: Publisher<Snapshot>,
        workers: Vec<Handle<D::Frame>>,
        shared: Shared,
    ) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let now = Instant::now();
        let Plan { config, state, frame } = plan;
        let link_local = (0..config.interfaces.len()).map(|number| compile::link_local(frame.mac(number)));
        let mut engine = Self {
            identity,
            claims: Claims::new(link_local.collect()),
            answers: stations::AnswerBudget::default(),
            locals: 0,
            devices,
            host,
            config,
            state,
            frame,
            neighbours: Neighbours::default(),
            neighbour_table: Arc::new(Neighbours::<()>::default().table()),
            publisher,
            workers,
            shared,
            checker: Checker::new(sender.clone()),
            agents: Agents::new(sender),
            events,
            started: now,
            changed: false,
            unpublished: Vec::new(),
            pending: VecDeque::new(),
            listings: flows::Listings::default(),
            persistence: persistence::Persistence::default(),
            windows: Windows::default(),
            control: frames::Counters::default(),
            drops: DropCounters::default(),
            next_worker: 0,
            scratch: Vec::new(),
            next_neighbours: now,
            next_retired: now,
            next_measure: now,
            next_links: now,
            next_neighbour_publish: now,
            links: Vec::new(),
            reloads: reload::Reloads::default(),
            idle: (0, now),
        };
        engine.adopt_configuration();
        engine
    }

    /// Runs until a signal or a call stops it. All workers stop with it.
    pub async fn run(
        mut self,
        mut calls: mpsc::Receiver<Call>,
        mut scrapes: mpsc::Receiver<Scrape>,
        mut signals: Signals,
    ) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let Config { cores, control, .. } = &self.config;
        tracing::info!(
            "ready: {} ports, workers on cores {:?}, control socket {}",
            self.config.ports.len(),
            cores.workers,
            control.socket.display()
        );
        let why = loop {
            tokio::select! {
                _ = tick.tick() => {
                    if self.tick() {
                        break "no more frames";
                    }
                }
                Some(event) = self.events.recv() => {
                    self.hear_of(event);
                    self.hear_of_all();
                }
                Some(sent) = self.host.next(), if self.has_room_for_kernel() => self.take_from_kernel(sent),
                Some(call) = calls.recv() => {
                    if self.take(call) {
                        break "asked by its control socket";
                    }
                }
                Some(scrape) = scrapes.recv() => {
                    // Whoever asked may be gone.
                    let _ = scrape.send((self.stats(), self.status()));
                }
                Some((loaded, reply)) = self.reloads.next() => self.finish_reload(loaded, reply),
                _ = signals.terminate.recv() => break "SIGTERM",
                _ = signals.interrupt.recv() => break "SIGINT",
                _ = signals.hangup.recv() => self.begin_reload(None),
            }
            self.publish();
        };
        tracing::info!("stopping: {why}");
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Time since the start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks at everything that does not wake the loop by itself. Returns whether it is time to stop.
    fn tick(&mut self) -> bool {
        self.take_punted();
        let now = Instant::now();
        if now >= self.next_neighbours {
            self.next_neighbours = now + NEIGHBOUR_TICK;
            self.ask_neighbours();
        }
        if now >= self.next_retired {
            self.next_retired = now + RETIRED_TICK;
            self.free_retired();
            self.pass_time();
            self.count_templates();
        }
        if now >= self.next_measure {
            self.next_measure = now + MEASURE_TICK;
            self.measure();
        }
        if now >= self.next_links {
            self.next_links = now + LINK_TICK;
            self.look_at_links();
        }
        self.send_notices();
        self.collect_flows();
        self.answer_pending();
        self.publisher.reclaim();
        self.is_idle()
    }

    /// Publishes what changed, if anything did.
    fn publish(&mut self) {
        let now = Instant::now();
        if (self.changed || now >= self.next_neighbour_publish) && self.neighbours.take_changed() {
            self.next_neighbour_publish = now + NEIGHBOUR_PUBLISH;
            self.neighbour_table = Arc::new(self.neighbours.table());
            self.changed = true;
        }
        if std::mem::take(&mut self.changed) {
            self.follow_measured();
            let (state, frame, neighbours) = (&self.state, &self.frame, &self.neighbour_table);
            let snapshot = match self.publisher.latest() {
                Some(before) => recompile(before, state, frame, neighbours),
                None => compile(state, frame, neighbours),
            };
            self.publisher.publish(snapshot);
        }
        let (generation, since) = (self.publisher.generation(), now);
        let waiting = self.unpublished.drain(..).map(|reply| Pending { generation, since, reply });
        self.pending.extend(waiting);
        self.answer_pending();
    }

    /// Notes everything that checks have found so far.
    fn hear_of_all(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.hear_of(event);
        }
    }

    /// Notes what a check found.
    fn hear_of(&mut self, event: Event) {
        let now = self.now();
        let (target, verdict, reason) = match event {
            Event::Transition { target, up, reason } => {
                let became = if up { "up" } else { "down" };
                tracing::warn!(
                    "service {}: backend {} is {became}: {reason}",
                    target.service,
                    target.backend
                );
                (target, Some(up), reason)
            }
            Event::Result { target, reason, .. } => (target, None, reason),
            Event::Agent { target, said } => {
                self.hear_agent(target, said);
                return;
            }
        };
        self.changed |= self.state.observe(target, verdict, reason, now);
    }

    /// A port whose link came up meets stations that know nothing of us.
    fn look_at_links(&mut self) {
        let links = self.devices.links();
        let ports = self.config.ports.iter().zip(links.iter().zip(&self.links));
        for (port, (up, _)) in ports.filter(|(_, (up, was_up))| up != was_up) {
            tracing::warn!("port {}: link {}", port.name, if *up { "up" } else { "down" });
        }
        let came_up = links.iter().zip(&self.links).any(|(up, was_up)| *up && !was_up);
        self.links = links;
        if came_up {
            self.announce_all();
        }
    }

    /// Frees the slots of retired services and backends whose last flow has ended.
    fn free_retired(&mut self) {
        // Until every worker knows that something is retired, one of them may still give it a flow.
        if !self.state.has_retired() || self.publisher.in_force() != self.publisher.generation() {
            return;
        }
        let workers: Vec<&WorkerStats> = self.workers.iter().map(|worker| &*worker.stats).collect();
        let counted = |slot: BackendSlot| {
            let (active, inactive) = report::flows(&workers, slot);
            (report::counted(&workers, slot), active + inactive)
        };
        if self.state.free_retired(counted) {
            self.claim_addresses();
            self.configure_neighbours(self.now());
            self.changed = true;
        }
    }

    fn is_idle(&mut self) -> bool {
        let Some(limit) = self.identity.exit_when_idle else { return false };
        let received: u64 = self.workers.iter().map(|worker| worker.stats.received.get()).sum();
        if received != self.idle.0 {
            self.idle = (received, Instant::now());
        }
        received > 0 && self.idle.1.elapsed() > limit
    }
}

#[cfg(test)]
mod tests;

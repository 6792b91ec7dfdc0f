//! The control thread with workers that are played by the test, and devices in memory.

mod links;
mod persistence;

use std::net::SocketAddr;

use config::words::{Idle, Protocol, Scheduler, ServiceKey};
use dataplane::buf::HeapFrame;
use dataplane::clock::Clock;
use dataplane::flow::state::State as FlowState;
use dataplane::flow::{FlowOwner, FlowValue};
use dataplane::forward::{Punt, PuntReason};
use dataplane::local::{LocalPorts, LocalSlot};
use dataplane::measure::Times;
use dataplane::publish::{self, Reader};
use dataplane::snapshot::{BackendSlot, ServiceSlot};
use dataplane::team::Team;
use dataplane::toeplitz::Owners;
use dataplane::worker::{Injection, Listed};

use super::*;
use crate::api::{self, Done, Request, code};
use crate::server::Peer;

const OWN: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 0xfe]);
const STATION: MacAddr = MacAddr([2, 0, 0x5e, 0, 0x53, 1]);

struct Memory;

impl Devices for Memory {
    type Frame = HeapFrame;

    fn frame(&self, bytes: &[u8]) -> Option<HeapFrame> {
        Some(HeapFrame::new(bytes))
    }

    fn macs(&self) -> Vec<MacAddr> {
        vec![OWN]
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

const CONFIG: &str = r#"
[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.254/24"]
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.1"
[[service]]
vip = "192.0.2.100:80"
protocol = "tcp"
mode = "nat"
[[service.backend]]
address = "192.0.2.11:8000"
"#;

struct Lab {
    engine: Engine<Memory>,
    reader: Reader<Snapshot>,
    file: tempfile::NamedTempFile,
}

/// Slots of backends.
const BACKENDS: usize = 64;

fn lab() -> Lab {
    lab_of(CONFIG, Host::none())
}

fn lab_of(config: &str, host: Host) -> Lab {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let config = config::load(file.path()).unwrap();
    let limits = Limits { backends: BACKENDS, ..Limits::for_config(&config) };
    let plan = Plan::new(config.clone(), &[OWN], limits).unwrap();
    let (publisher, mut readers) = publish::channel(plan.snapshot(), 1);
    let shared = Shared { stop: Arc::default(), clock: Clock::start(), idle: Idle::Poll };
    let (stats, team) = (Arc::new(WorkerStats::new(BACKENDS)), Team::new(1, BACKENDS, 64));
    team.join(0, &stats);
    let handle = Handle {
        punt: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        inject: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        list: Arc::default(),
        listing: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        locals: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        stats,
        team,
    };
    let identity = Identity {
        version: "test".to_owned(),
        dpdk: "none".to_owned(),
        config_file: file.path().to_owned(),
        exit_when_idle: None,
    };
    let mut engine = Engine::new(identity, plan, Memory, host, publisher, vec![handle], shared);
    engine.publish();
    let mut reader = readers.remove(0);
    reader.refresh();
    Lab { engine, reader, file }
}

impl Lab {
    /// What the control thread sent.
    fn sent(&mut self) -> Vec<Injection<HeapFrame>> {
        std::iter::from_fn(|| self.engine.workers[0].inject.pop()).collect()
    }

    /// A frame that a worker gives up.
    fn arrive(&mut self, frame: &[u8], why: PuntReason) {
        let frame = HeapFrame::new(frame);
        self.engine.workers[0].punt.push(Punt { frame, why }).unwrap();
        self.engine.take_punted();
        self.engine.publish();
    }

    /// Makes a call; the answer is there once the worker has taken the snapshot.
    fn call(&mut self, request: Request) -> oneshot::Receiver<Result<Value, ApiError>> {
        let (reply, answer) = oneshot::channel();
        let peer = Peer { uid: 0, gid: 0, pid: None };
        assert!(!self.engine.take(Call { request, reply, peer }));
        self.engine.publish();
        answer
    }
}

impl Lab {
    /// Reloads the file; the answer is there once the worker has taken the snapshot.
    async fn reload(&mut self) -> oneshot::Receiver<Result<Value, ApiError>> {
        let answer = self.call(Request::Reload);
        let (loaded, reply) = self.engine.reloads.next().await.unwrap();
        self.engine.finish_reload(loaded, reply);
        self.engine.publish();
        answer
    }
}

#[tokio::test]
async fn what_checks_found_of_a_removed_backend_does_not_touch_its_successor() {
    let mut lab = lab();
    let (sender, events) = mpsc::channel(4);
    lab.engine.events = events;
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    let target = crate::health::Target { service, backend: "192.0.2.11:8000".parse().unwrap() };
    sender.send(Event::Transition { target, up: false, reason: "late".to_owned() }).await.unwrap();
    drop(lab.call(Request::ServiceRemove { service }));
    let configured = lab.engine.config.services[0].clone();
    drop(lab.call(Request::ServiceAdd(Box::new(configured))));
    let services = lab.engine.services();
    assert_eq!(services[0].backends[0].health, api::Health::Unchecked);
}

#[tokio::test]
async fn a_change_is_answered_when_the_worker_uses_it() {
    let mut lab = lab();
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    let address = "192.0.2.11:8000".parse().unwrap();
    let mut answer = lab.call(Request::BackendSet { service, address, weight: Some(0), admin: None });
    assert!(answer.try_recv().is_err());
    lab.reader.refresh();
    lab.engine.answer_pending();
    let done: Done = serde_json::from_value(answer.try_recv().unwrap().unwrap()).unwrap();
    assert_eq!(done.generation, lab.engine.publisher.generation());
    assert!(lab.reader.current().service(ServiceSlot(0)).unwrap().candidates.is_empty());
}

#[tokio::test]
async fn refusals_are_answered_at_once_and_publish_nothing() {
    let mut lab = lab();
    let before = lab.engine.publisher.generation();
    let service = "tcp:192.0.2.9:80".parse().unwrap();
    let mut answer = lab.call(Request::ServiceRemove { service });
    assert_eq!(answer.try_recv().unwrap().unwrap_err().code, code::NOT_FOUND);
    assert_eq!(lab.engine.publisher.generation(), before);
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let mut lab = lab();
    let scheduler = |lab: &Lab| lab.engine.state.services().next().unwrap().config.scheduler;
    for (broken, says) in [
        (CONFIG.replace("\"nat\"", "\"natt\""), "natt"),
        (CONFIG.replace("workers = [1]", "workers = [2]"), "[cores]"),
        (CONFIG.replace("net_null0", "net_null1"), "[[port]]"),
        (CONFIG.replace(".254/24", ".253/24"), "[[port]]"),
        ("[".to_owned(), "1:"),
    ] {
        std::fs::write(lab.file.path(), broken).unwrap();
        let error = lab.reload().await.try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert!(error.message.contains(says), "{error}");
        assert_eq!(scheduler(&lab), Scheduler::Wlc);
    }
    let changed = CONFIG.replace("mode = \"nat\"", "mode = \"nat\"\nscheduler = \"rr\"");
    std::fs::write(lab.file.path(), changed).unwrap();
    let mut answer = lab.reload().await;
    lab.reader.refresh();
    lab.engine.answer_pending();
    answer.try_recv().unwrap().unwrap();
    assert_eq!(scheduler(&lab), Scheduler::Rr);
}

#[tokio::test]
async fn flows_are_listed_up_to_the_limit() {
    let mut lab = lab();
    let mut answer = lab.call(Request::FlowList { limit: 2 });
    lab.engine.collect_flows();
    assert!(lab.engine.workers[0].list.load(Ordering::Acquire));
    let owner = FlowOwner {
        client: "203.0.113.7".parse().unwrap(),
        client_port: 1024,
        service: ServiceSlot(0),
        service_port: None,
        local_port: None,
    };
    for _ in 0..3 {
        let value = FlowValue::new(BackendSlot(0), FlowState::Established, 5);
        lab.engine.workers[0].listing.push(Listed::Flow(owner, value, 65)).unwrap();
    }
    lab.engine.collect_flows();
    assert!(answer.try_recv().is_err());
    lab.engine.workers[0].listing.push(Listed::End).unwrap();
    lab.engine.collect_flows();
    let list: api::FlowList = serde_json::from_value(answer.try_recv().unwrap().unwrap()).unwrap();
    assert_eq!((list.flows.len(), list.total), (2, 3));
    let service: ServiceKey = "tcp:192.0.2.100:80".parse().unwrap();
    let flow = api::Flow {
        worker: 0,
        protocol: service.protocol,
        service: Some(service),
        client: "203.0.113.7:1024".parse().unwrap(),
        vip: Some("192.0.2.100:80".parse().unwrap()),
        local: None,
        backend: Some("192.0.2.11:8000".parse().unwrap()),
        state: "ESTABLISHED".to_owned(),
        expires_secs: 840,
    };
    assert_eq!(list.flows[0], flow);
}

#[tokio::test]
async fn workers_have_their_ports_of_local_addresses_before_these_are_in_force() {
    let mut lab = lab_of(WIDE, Host::none());
    let slots = |lab: &Lab| -> Vec<u8> {
        let mut ports = LocalPorts::new(Owners::new(1), 0);
        while let Some((slot, addresses)) = lab.engine.workers[0].locals.pop() {
            ports.install(slot, addresses);
        }
        (0..=u8::MAX).filter(|slot| ports.free(LocalSlot(*slot), Protocol::Tcp) > 0).collect()
    };
    assert_eq!(slots(&lab), [0, 1]);
    std::fs::write(lab.file.path(), WIDE.replace("\"192.0.2.201\"", "\"192.0.2.202\"")).unwrap();
    drop(lab.reload().await);
    assert_eq!(slots(&lab), [2], "the others have theirs");
    lab.reader.refresh();
    let parts = &lab.reader.current().parts;
    assert_eq!(parts.locals.len(), 3);
    assert_eq!(parts.pools[0].v4, [LocalSlot(0), LocalSlot(2)]);
}

const WIDE: &str = r#"
[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.254/24"]
[[snat_pool]]
name = "out"
addresses = ["192.0.2.200", "192.0.2.201"]
[[service]]
vip = "[2001:db8::1]:8000-8099"
protocol = "udp"
mode = "full-nat"
snat_pool = "out"
timeouts = { udp_secs = 30 }
[[service.backend]]
address = "192.0.2.11:9000"
"#;

#[tokio::test]
async fn wide_flows_show_all_their_addresses_and_ports() {
    let lab = lab_of(WIDE, Host::none());
    let owner = FlowOwner {
        client: "2001:db8:7::7".parse().unwrap(),
        client_port: 1024,
        service: ServiceSlot(0),
        service_port: Some(8003),
        local_port: Some(40_000),
    };
    let flow = |owner, value| report::flow(&lab.engine.state, &lab.engine.frame, 0, (owner, value, 10));
    let value = FlowValue::new(BackendSlot(0), FlowState::Udp, 5).with_local(LocalSlot(1));
    let shown = flow(owner, value).unwrap();
    let text = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string());
    assert_eq!(text(shown.vip).as_deref(), Some("[2001:db8::1]:8003"));
    assert_eq!(text(shown.local).as_deref(), Some("192.0.2.201:40000"));
    assert_eq!(text(shown.backend).as_deref(), Some("192.0.2.11:9003"));
    assert_eq!(shown.expires_secs, 25, "its service has a timeout of its own");
    // A host inside that a NAT gateway speaks for.
    let outward = FlowOwner { client: "192.0.2.7".parse().unwrap(), service_port: Some(0), ..owner };
    let value = FlowValue::new(BackendSlot::NONE, FlowState::Established, 5);
    let shown = flow(outward, value).unwrap();
    assert_eq!((shown.service, shown.vip, shown.backend), (None, None, None));
    assert_eq!((shown.protocol.to_string(), shown.expires_secs), ("tcp".to_owned(), 895));
}

#[tokio::test]
async fn a_retired_slot_is_freed_only_after_all_workers_know() {
    let mut lab = lab();
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    drop(lab.call(Request::ServiceRemove { service }));
    lab.engine.free_retired();
    assert!(lab.engine.state.has_retired(), "the worker may still give it a flow");
    lab.reader.refresh();
    lab.engine.free_retired();
    assert!(!lab.engine.state.has_retired());
    lab.engine.publish();
    lab.reader.refresh();
    assert!(lab.reader.current().service(ServiceSlot(0)).is_none());
}

#[tokio::test]
async fn a_backend_does_not_inherit_the_time_of_who_had_its_slot() {
    let config = CONFIG.replace("mode =", "scheduler = \"fastest\"\nmode =");
    let mut lab = lab_of(&config, Host::none());
    let team = Arc::clone(&lab.engine.workers[0].team);
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    let before = lab.engine.config.services[0].backends[0];
    let slot = BackendSlot(0);
    lab.engine.measure();
    team.times.note(slot, 5000);
    lab.engine.measure();
    assert_eq!(team.times.get(slot), 5000, "who stays keeps it");
    drop(lab.call(Request::BackendRemove { service, address: before.address }));
    // A handshake that was under way.
    team.times.note(slot, 5000);
    lab.reader.refresh();
    lab.engine.free_retired();
    for port in 1..=BACKENDS as u16 {
        let address = SocketAddr::new(before.address.ip(), port);
        let backend = config::model::Backend { address, ..before };
        assert!(lab.engine.state.backend(slot).is_none(), "it is used again as late as possible");
        drop(lab.call(Request::BackendAdd { service, backend, sorry: false }));
        lab.reader.refresh();
    }
    assert!(lab.engine.state.backend(slot).is_some());
    assert_eq!(team.times.get(slot), Times::UNASKED);
}

#[tokio::test]
async fn a_measured_backend_begins_with_no_recent_traffic() {
    let mut lab = lab_of(&CONFIG.replace("mode =", "scheduler = \"least-packets\"\nmode ="), Host::none());
    let team = Arc::clone(&lab.engine.workers[0].team);
    let recent = |slot: u32| team.recent_traffic(BackendSlot(slot)).packets;
    let count = |slot: u32, packets| {
        team.members().for_each(|stats| stats.backend(BackendSlot(slot)).in_packets.add(packets));
    };
    // What the slot's last owner counted.
    count(1, 1000);
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    let backend = lab.engine.config.services[0].backends[0];
    let backend = config::model::Backend { address: "192.0.2.12:8000".parse().unwrap(), ..backend };
    drop(lab.call(Request::BackendAdd { service, backend, sorry: false }));
    assert_eq!(recent(1), 0);
    let windows = [5, 3, 1, 0].map(|packets| {
        count(1, packets);
        lab.engine.measure();
        recent(1)
    });
    assert_eq!(windows, [5, 8, 4, 1], "the window holds the last two looks and what came since");
}

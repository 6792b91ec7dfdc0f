//! The control thread with workers that are played by the test, and devices in memory.

use config::words::Scheduler;
use dataplane::buf::HeapFrame;
use dataplane::clock::Clock;
use dataplane::flow::state::State as FlowState;
use dataplane::flow::{FlowKey, FlowValue};
use dataplane::forward::{Punt, PuntReason};
use dataplane::publish::{self, Reader};
use dataplane::route::{NextHop, PortId};
use dataplane::snapshot::ServiceSlot;
use dataplane::wire::arp::{Arp, Operation};
use dataplane::worker::Listed;

use super::*;
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

fn lab() -> Lab {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), CONFIG).unwrap();
    let config = config::load(file.path()).unwrap();
    let plan = Plan::new(config.clone(), &[OWN], Limits::for_config(&config)).unwrap();
    let (publisher, mut readers) = publish::channel(plan.snapshot(), 1);
    let shared = Shared { stop: Arc::default(), clock: Clock::start() };
    let handle = Handle {
        punt: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        inject: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        list: Arc::default(),
        listing: Arc::new(crossbeam::queue::ArrayQueue::new(64)),
        stats: Arc::new(WorkerStats::new(64)),
    };
    let identity = Identity {
        version: "test".to_owned(),
        dpdk: "none".to_owned(),
        config_file: file.path().to_owned(),
        exit_when_idle: None,
    };
    let mut engine = Engine::new(identity, plan, Memory, publisher, vec![handle], shared);
    engine.publish();
    let mut reader = readers.remove(0);
    reader.refresh();
    Lab { engine, reader, file }
}

impl Lab {
    /// The ARP packets that the control thread sent, and what else it sent.
    fn sent(&mut self) -> (Vec<Arp>, Vec<HeapFrame>) {
        let (mut arps, mut others) = (Vec::new(), Vec::new());
        while let Some(injection) = self.engine.workers[0].inject.pop() {
            match Arp::parse(injection.frame.head()) {
                Some(arp) => arps.push(arp),
                None => others.push(injection.frame),
            }
        }
        (arps, others)
    }

    fn arrive(&mut self, arp: &Arp) {
        let frame = HeapFrame::new(&arp.frame(MacAddr::BROADCAST));
        let punt = Punt { frame, why: PuntReason::Arp(PortId(0)) };
        self.engine.workers[0].punt.push(punt).unwrap();
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

fn arp(operation: Operation, sender: &str, target: &str) -> Arp {
    Arp {
        operation,
        sender_mac: STATION,
        sender: sender.parse().unwrap(),
        target_mac: MacAddr::default(),
        target: target.parse().unwrap(),
    }
}

/// The addresses announced since the last look.
fn announced(lab: &mut Lab) -> Vec<String> {
    lab.engine.send_announcements();
    lab.sent().0.iter().filter(|arp| arp.sender == arp.target).map(|arp| arp.target.to_string()).collect()
}

#[tokio::test]
async fn own_addresses_and_vips_are_announced_when_new_and_when_a_link_comes_up() {
    let mut lab = lab();
    assert_eq!(announced(&mut lab), ["192.0.2.254", "192.0.2.100"]);
    lab.engine.adopt_configuration();
    assert!(announced(&mut lab).is_empty());
    lab.engine.started -= Duration::from_secs(2);
    assert_eq!(announced(&mut lab), ["192.0.2.254", "192.0.2.100"], "once more after two seconds");
    lab.engine.links = vec![false];
    lab.engine.look_at_links();
    assert_eq!(announced(&mut lab), ["192.0.2.254", "192.0.2.100"]);
    lab.engine.look_at_links();
    assert!(announced(&mut lab).is_empty());
}

#[tokio::test]
async fn many_announcements_leave_room_for_other_frames() {
    let mut lab = lab();
    announced(&mut lab);
    for last in 1..=90 {
        let text = format!("tcp:198.51.100.{last}:80");
        let service = config::model::Service {
            name: text.clone(),
            key: text.parse().unwrap(),
            scheduler: Scheduler::Rr,
            check: None,
            backends: Vec::new(),
        };
        drop(lab.call(Request::ServiceAdd(service)));
    }
    let turns: Vec<usize> = (0..4).map(|_| announced(&mut lab).len()).collect();
    assert_eq!(turns, [32, 32, 26, 0]);
}

#[tokio::test]
async fn a_removed_vip_is_answered_for_until_another_station_claims_it() {
    let mut lab = lab();
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    drop(lab.call(Request::ServiceRemove { service }));
    lab.sent();
    let question = arp(Operation::Request, "192.0.2.7", "192.0.2.100");
    lab.arrive(&question);
    assert_eq!(lab.sent().0.len(), 1, "flows may be left");
    lab.arrive(&arp(Operation::Request, "192.0.2.100", "192.0.2.100"));
    lab.arrive(&question);
    assert!(lab.sent().0.is_empty());
    let service = lab.engine.config.services[0].clone();
    drop(lab.call(Request::ServiceAdd(service)));
    lab.sent();
    lab.arrive(&question);
    assert_eq!(lab.sent().0.len(), 1, "configured again");
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
    drop(lab.call(Request::ServiceAdd(configured)));
    let services = lab.engine.services();
    assert_eq!(services[0].backends[0].health, api::Health::Unchecked);
}

#[tokio::test]
async fn questions_for_own_addresses_and_vips_are_answered_and_no_others() {
    let mut lab = lab();
    lab.sent();
    for (target, answered) in [("192.0.2.254", true), ("192.0.2.100", true), ("192.0.2.11", false)] {
        lab.arrive(&arp(Operation::Request, "192.0.2.7", target));
        let replies: Vec<Arp> =
            lab.sent().0.into_iter().filter(|arp| arp.operation == Operation::Reply).collect();
        assert_eq!(replies.len(), usize::from(answered), "{target}");
        assert!(replies.iter().all(|arp| arp.sender_mac == OWN && arp.sender.to_string() == target));
    }
    lab.arrive(&arp(Operation::Request, "0.0.0.0", "192.0.2.100"));
    assert_eq!(lab.sent().0.len(), 1, "a probe is answered");
    lab.arrive(&arp(Operation::Request, "192.0.2.100", "192.0.2.7"));
    assert!(lab.sent().0.is_empty(), "a station with our address is no neighbour");
}

#[tokio::test]
async fn a_waiting_frame_is_sent_when_its_next_hop_answers() {
    let mut lab = lab();
    lab.engine.ask_neighbours();
    let asked: Vec<String> = lab
        .sent()
        .0
        .iter()
        .filter(|arp| arp.sender != arp.target)
        .map(|arp| arp.target.to_string())
        .collect();
    assert!(asked.contains(&"192.0.2.1".to_owned()) && asked.contains(&"192.0.2.11".to_owned()), "{asked:?}");
    let station = NextHop { port: PortId(0), address: 0xc000_020b };
    let frame = HeapFrame::new(&[0; 60]);
    lab.engine.workers[0].punt.push(Punt { frame, why: PuntReason::Resolve(station) }).unwrap();
    lab.engine.take_punted();
    assert_eq!(lab.engine.control_stats().waiting, 1);
    lab.arrive(&arp(Operation::Reply, "192.0.2.11", "192.0.2.254"));
    let sent = lab.sent().1;
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].head()[..6], STATION.0);
    assert!(lab.reader.refresh());
    assert!(lab.reader.current().egress_to(0xc000_020b).unwrap().resolved);
    let control = lab.engine.control_stats();
    assert_eq!(control.punted, control.answered + control.resolved + control.waiting + control.dropped);
}

#[tokio::test]
async fn a_change_is_answered_when_the_worker_uses_it() {
    let mut lab = lab();
    let service = "tcp:192.0.2.100:80".parse().unwrap();
    let address = "192.0.2.11:8000".parse().unwrap();
    let mut answer = lab.call(Request::BackendSet { service, address, weight: 0 });
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
    let scheduler = |lab: &Lab| lab.engine.state.services().next().unwrap().scheduler;
    for (broken, says) in [
        (CONFIG.replace("\"nat\"", "\"natt\""), "natt"),
        (CONFIG.replace("workers = [1]", "workers = [2]"), "[cores]"),
        (CONFIG.replace("net_null0", "net_null1"), "[[port]]"),
        ("[".to_owned(), "1:"),
    ] {
        std::fs::write(lab.file.path(), broken).unwrap();
        let error = lab.reload().await.try_recv().unwrap().unwrap_err();
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert!(error.message.contains(says), "{error}");
        assert_eq!(scheduler(&lab), Scheduler::Wrr);
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
    for port in 0..3 {
        let key = FlowKey::new(0xcb00_7107, port, ServiceSlot(0));
        let value = FlowValue::new(BackendSlot(0), FlowState::Established, 5);
        lab.engine.workers[0].listing.push(Listed::Flow(key, value, 65)).unwrap();
    }
    lab.engine.collect_flows();
    assert!(answer.try_recv().is_err());
    lab.engine.workers[0].listing.push(Listed::End).unwrap();
    lab.engine.collect_flows();
    let list: api::FlowList = serde_json::from_value(answer.try_recv().unwrap().unwrap()).unwrap();
    assert_eq!((list.flows.len(), list.total), (2, 3));
    let flow = &list.flows[0];
    assert_eq!((flow.client.to_string(), flow.expires_secs), ("203.0.113.7:0".to_owned(), 840));
    assert_eq!(
        (flow.backend.to_string(), flow.state.as_str()),
        ("192.0.2.11:8000".to_owned(), "ESTABLISHED")
    );
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

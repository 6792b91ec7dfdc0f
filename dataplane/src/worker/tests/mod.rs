//! Workers on queues in memory: what comes in, what goes out, and what is left over.

mod laws;

use std::collections::VecDeque;
use std::sync::Mutex;

use config::words::{self, Mode};

use super::*;
use crate::buf::HeapFrame;
use crate::flow::table::{HashSecret, NarrowTable, WideTable};
use crate::publish;
use crate::testing::{self, CLIENT, VIP, mac, packet};
use crate::wire::tcp::{ACK, SYN};

/// A wire with two ends.
#[derive(Clone, Default)]
struct Wire {
    to_worker: Arc<Mutex<VecDeque<HeapFrame>>>,
    from_worker: Arc<Mutex<Vec<HeapFrame>>>,
    /// Frames the device still takes; without a number it takes all.
    room: Arc<Mutex<Option<usize>>>,
}

impl Queue for Wire {
    type Frame = HeapFrame;

    fn receive(&mut self, burst: &mut Burst<HeapFrame>) {
        let mut arrived = self.to_worker.lock().unwrap();
        while let Some(frame) = arrived.pop_front() {
            if let Err(frame) = burst.push(frame) {
                arrived.push_front(frame);
                break;
            }
        }
    }

    fn send(&mut self, burst: &mut Burst<HeapFrame>) -> usize {
        let mut room = self.room.lock().unwrap();
        let count = room.unwrap_or(usize::MAX).min(burst.len());
        let frames = (0..count).filter_map(|_| burst.take_front());
        self.from_worker.lock().unwrap().extend(frames);
        if let Some(room) = room.as_mut() {
            *room -= count;
        }
        count
    }

    fn seed(&self) -> Option<HeapFrame> {
        Some(HeapFrame::new(&[0]))
    }
}

struct Team {
    workers: Vec<Worker<Wire>>,
    handles: Vec<Handle<HeapFrame>>,
    wires: Vec<Wire>,
    publisher: publish::Publisher<Snapshot>,
    shared: Shared,
}

fn team(size: usize) -> Team {
    team_that(words::Idle::Poll, size)
}

fn team_that(idle: words::Idle, size: usize) -> Team {
    let (publisher, readers) = publish::channel(testing::snapshot(Mode::Nat), size);
    let shared = Shared { stop: Arc::default(), clock: Clock::start(), idle };
    let secret = HashSecret([0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);
    let setup =
        Setup { team: crate::team::Team::new(size, 16, 0), flow_capacity: 300, secret, ..testing::setup() };
    let wires = vec![Wire::default(); size].into_iter().map(|_| Wire::default()).collect::<Vec<_>>();
    let queues = wires.iter().map(|wire| vec![wire.clone()]).collect();
    let team = super::team(queues, &setup, readers, &shared);
    let (workers, handles) = team.into_iter().map(|worker| worker.build().unwrap()).unzip();
    Team { workers, handles, wires, publisher, shared }
}

impl Team {
    fn arrive(&self, worker: usize, frame: &[u8]) {
        self.wires[worker].to_worker.lock().unwrap().push_back(HeapFrame::new(frame));
    }

    fn turn(&mut self) {
        for worker in &mut self.workers {
            worker.turn();
        }
    }

    fn sent(&self, worker: usize) -> usize {
        self.wires[worker].from_worker.lock().unwrap().len()
    }

    fn assert_balance(&self) {
        for handle in &self.handles {
            let stats = &handle.stats;
            assert_eq!(
                stats.received.get() + stats.injected.get() + stats.taken_over.get() + stats.made.get(),
                stats.sent.get()
                    + stats.punted.get()
                    + stats.handed_over.get()
                    + stats.held.get()
                    + stats.drops.total()
            );
        }
    }
}

fn syn(port: u16) -> Vec<u8> {
    packet((CLIENT, port), (VIP, 80)).bytes()
}

#[test]
fn frames_pass_in_turns_and_the_balance_holds() {
    let mut team = team(1);
    (0..100).for_each(|port| team.arrive(0, &syn(port)));
    team.arrive(0, &[0xff; 20]);
    for _ in 0..4 {
        team.turn();
        team.assert_balance();
    }
    assert_eq!((team.sent(0), team.handles[0].stats.drops.total()), (100, 1));
}

#[test]
fn tables_for_which_there_is_no_memory_are_an_error_that_says_what_to_do() {
    let (_publisher, readers) = publish::channel(testing::snapshot(Mode::Nat), 1);
    let shared = Shared { stop: Arc::default(), clock: Clock::start(), idle: words::Idle::Poll };
    let setup = Setup { flow_capacity: usize::MAX / 64, ..testing::setup() };
    let mut team = super::team(vec![vec![Wire::default()]], &setup, readers, &shared);
    let error = team.remove(0).build().err().unwrap();
    assert!(error.mib > 1 << 40 && error.to_string().contains("[flow_table]"), "{error}");
}

#[test]
fn what_is_asked_for_is_what_tables_take() {
    let secret = HashSecret([1, 2]);
    assert_eq!(NarrowTable::new(1000, secret).bytes(), 1000 * NARROW_FLOW_BYTES);
    assert_eq!(WideTable::new(1000, secret).bytes(), 1000 * WIDE_FLOW_BYTES);
    assert_eq!(size_of_val(&*NarrowTable::room_for_ports(1000)), 1000 * PORT_BYTES);
}

#[test]
fn a_flow_is_whole_on_its_owner_whoever_receives_its_packets() {
    let mut team = team(3);
    let flows = if cfg!(miri) { 6 } else { 60 };
    for port in 0..flows {
        team.arrive(0, &syn(port));
        team.turn();
        team.turn();
        team.arrive(1, &packet((CLIENT, port), (VIP, 80)).flags(ACK).bytes());
        team.turn();
        team.turn();
        for server in 11..14 {
            let reply = packet(([198, 51, 100, server], 8000), (CLIENT, port)).flags(SYN | ACK);
            team.arrive(2, &reply.bytes());
        }
        team.turn();
        team.turn();
    }
    team.assert_balance();
    let sum =
        |of: fn(&WorkerStats) -> u64| -> u64 { team.handles.iter().map(|handle| of(&handle.stats)).sum() };
    assert_eq!(sum(|stats| stats.sent.get()), 3 * u64::from(flows), "SYN, ACK and one reply of each");
    assert_eq!(sum(|stats| stats.drops.get(DropReason::NoFlow)), 2 * u64::from(flows));
    assert_eq!(sum(|stats| stats.handed_over.get()), sum(|stats| stats.taken_over.get()));
    assert!(sum(|stats| stats.handed_over.get()) > 0);
}

#[test]
fn what_a_device_does_not_take_is_dropped_and_counted() {
    let mut team = team(1);
    *team.wires[0].room.lock().unwrap() = Some(3);
    (0..10).for_each(|port| team.arrive(0, &syn(port)));
    team.turn();
    assert_eq!((team.sent(0), team.handles[0].stats.drops.get(DropReason::TxFull)), (3, 7));
    team.assert_balance();
}

#[test]
fn injected_frames_leave_by_their_port() {
    let mut team = team(1);
    for port in [0, 7] {
        let injection = Injection { frame: HeapFrame::new(&mac(1).0), port: PortId(port) };
        team.handles[0].inject.push(injection).unwrap();
    }
    team.turn();
    assert_eq!((team.sent(0), team.handles[0].stats.drops.get(DropReason::BadPort)), (1, 1));
    team.assert_balance();
}

#[test]
fn a_new_snapshot_is_used_from_the_next_turn_on() {
    let mut team = team(1);
    let mut parts = testing::world(Mode::Nat);
    parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[]).into());
    let generation = team.publisher.publish(Snapshot::new(parts));
    assert!(team.publisher.in_force() < generation);
    team.arrive(0, &syn(1));
    team.turn();
    assert_eq!(team.publisher.in_force(), generation);
    assert_eq!(team.handles[0].stats.answered_for.get(DropReason::NoBackend), 1);
}

#[test]
fn a_list_of_flows_is_complete_even_if_nobody_reads_for_a_while() {
    let mut team = team(1);
    let flows = if cfg!(miri) { 20 } else { 300 };
    for port in 0..flows {
        team.arrive(0, &syn(port));
        team.turn();
    }
    team.handles[0].list.store(true, Ordering::Release);
    let mut listed = Vec::new();
    for _ in 0..if cfg!(miri) { 5 } else { 100 } {
        team.workers[0].housekeeping();
        while let Some(line) = team.handles[0].listing.pop() {
            listed.push(line);
        }
    }
    assert_eq!(listed.pop(), Some(Listed::End));
    let mut ports: Vec<u16> = listed
        .iter()
        .map(|line| match line {
            Listed::Flow(key, ..) => key.client_port,
            Listed::End => panic!("the end comes last"),
        })
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, (0..flows).collect::<Vec<_>>());
}

#[test]
fn workers_find_all_that_comes_however_they_idle_and_stop_when_told() {
    for idle in [words::Idle::Poll, words::Idle::Pause, words::Idle::Sleep] {
        let mut team = team_that(idle, 2);
        let threads: Vec<_> = team.workers.drain(..).map(|worker| thread::spawn(|| worker.run())).collect();
        for port in 0..if cfg!(miri) { 2 } else { 20 } {
            // Long enough for the longest rest, and for one of the two to be asked by the other.
            thread::sleep(Duration::from_millis(5));
            team.arrive(0, &syn(port));
            wait_until(|| team.sent(0) + team.sent(1) > usize::from(port));
        }
        let generation = team.publisher.publish(testing::snapshot(Mode::Nat));
        wait_until(|| team.publisher.in_force() == generation);
        for handle in &team.handles {
            handle.list.store(true, Ordering::Release);
            wait_until(|| std::iter::from_fn(|| handle.listing.pop()).any(|line| line == Listed::End));
        }
        let taken_over = || team.handles.iter().map(|handle| handle.stats.taken_over.get()).sum::<u64>();
        assert!(cfg!(miri) || taken_over() > 0);
        team.shared.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        team.assert_balance();
    }
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::yield_now();
    }
}

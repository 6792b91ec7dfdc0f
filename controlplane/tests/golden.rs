//! Plays the golden frames (tests/golden), which scapy made, through one worker's packet path: configuration in,
//! snapshot, frames in and out. No device is needed.

use std::collections::HashMap;
use std::fs;
use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::words::MacAddr;
use controlplane::compile::{Frame, compile, interface_id};
use controlplane::pools::Locals;
use controlplane::state::{Ground, Limits, State};
use crossbeam::queue::ArrayQueue;
use dataplane::buf::HeapFrame;
use dataplane::burst::Burst;
use dataplane::drops::DropReason;
use dataplane::flow::table::HashSecret;
use dataplane::forward::{Context, Forwarder, Outbox, PieceSetup, Setup};
use dataplane::local::{LocalAddresses, LocalSlot};
use dataplane::port::PortId;
use dataplane::route::NextHop;
use dataplane::snapshot::{NeighbourTable, Snapshot};
use dataplane::stats::WorkerStats;
use dataplane::team::Team;
use dataplane::toeplitz::Owners;

/// What DPDK's net_pcap gives its first device, in the replay that has the same frames.
const PORT_MAC: MacAddr = MacAddr([0x02, 0x70, 0x63, 0x61, 0x70, 0x00]);
/// Fewer cases than this are not those that were to be kept.
const LEAST_CASES: usize = 400;

/// One line of the table.
struct Case {
    line: String,
    capture: String,
    received: Vec<usize>,
    verdicts: Vec<String>,
    sent: Vec<usize>,
    /// For each frame sent, the bytes that may have any value.
    free: Vec<Vec<(usize, usize)>>,
}

impl Case {
    fn read(line: &str) -> Self {
        let [_, _, _, _, _, _, capture, received, verdict, sent, free] =
            line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        let sent = span(sent);
        let free = match free {
            "-" => vec![Vec::new(); sent.len()],
            free => free.split("; ").map(ranges).collect(),
        };
        Self {
            line: line.to_owned(),
            capture: capture.to_owned(),
            received: span(received),
            verdicts: verdict.split(", ").map(str::to_owned).collect(),
            sent,
            free,
        }
    }

    /// Reasons for which its frames are dropped, sorted.
    fn drops(&self) -> Vec<&str> {
        let mut drops: Vec<_> =
            self.verdicts.iter().filter_map(|word| word.strip_prefix("dropped ")).collect();
        drops.sort_unstable();
        drops
    }
}

/// Indices of frames written `3-5`; `-` is none.
fn span(text: &str) -> Vec<usize> {
    ranges(text).into_iter().flat_map(|(first, last)| first - 1..last).collect()
}

/// Pairs written `3-5,9-9`; anything without numbers is none.
fn ranges(text: &str) -> Vec<(usize, usize)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('-'));
    pairs.filter_map(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?))).collect()
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// The frames of a capture: a header of 24 bytes, and before each frame 16 bytes with its length at 8.
fn frames(name: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(golden(&format!("{name}.pcap"))).unwrap();
    let mut rest = &bytes[24..];
    let mut frames = Vec::new();
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        frames.push(behind[..len].to_vec());
        rest = &behind[len..];
    }
    frames
}

/// One worker with a configuration, and the neighbours that it names.
struct Worker {
    snapshot: Snapshot,
    forwarder: Forwarder<HeapFrame>,
    stats: Arc<WorkerStats>,
    out: Outbox<HeapFrame>,
    /// Drops by reason that were looked at.
    seen: Vec<u64>,
}

impl Worker {
    fn new(file: &str) -> Self {
        let config = config::load(&golden(file)).unwrap_or_else(|error| panic!("{error}"));
        let ground = Ground::new(&config, &Locals::default()).unwrap();
        let mut state = State::new(Ground::default(), Limits::for_config(&config));
        state.replace(ground, &config.services, Duration::ZERO).unwrap();
        let stations = config.neighbours.iter().map(|neighbour| {
            let interface = state.ground.network.connected(neighbour.address).unwrap();
            (NextHop { interface: interface_id(interface), address: neighbour.address }, neighbour.mac)
        });
        let neighbours = Arc::new(NeighbourTable::new(stations));
        let snapshot = compile(&state, &Frame::new(&config, &[PORT_MAC]), &neighbours);
        let capacity = config.flow_table.capacity as usize;
        let backends = config.services.iter().map(|service| service.backends.len()).sum();
        let setup = Setup {
            number: 0,
            team: Team::new(1, backends, 0),
            flow_capacity: capacity,
            wide_capacity: capacity,
            pieces: PieceSetup { capacity: 64, timeout: 5, remember: 30, secret: RandomState::new() },
            services: config.services.len(),
            secret: HashSecret([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]),
        };
        let stats = Arc::new(WorkerStats::new(backends));
        let mut forwarder = Forwarder::new(&setup, Arc::clone(&stats));
        let locals = LocalAddresses::new(state.ground.locals.addresses(), &Owners::new(1), 0);
        forwarder.install(LocalSlot(0), locals);
        let out = Outbox {
            transmit: vec![Burst::default()],
            punt: Arc::new(ArrayQueue::new(4)),
            owners: vec![Arc::new(ArrayQueue::new(4))],
            seed: Some(HeapFrame::new(&[0])),
        };
        Self { snapshot, forwarder, stats, out, seen: vec![0; DropReason::COUNT] }
    }

    /// What is sent because of a frame, and because of those that waited for it.
    fn take(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let context = Context { snapshot: &self.snapshot, now: 100 };
        let mut burst = Burst::default();
        burst.push(HeapFrame::new(frame)).unwrap();
        self.forwarder.forward(context, PortId(0), &mut burst, &mut self.out);
        let mut sent = drain(&mut self.out);
        self.forwarder.forward_ready(context, &mut self.out);
        sent.extend(drain(&mut self.out));
        sent
    }

    /// Reasons of all drops since the last look, sorted.
    fn drops(&mut self) -> Vec<&'static str> {
        let mut drops = Vec::new();
        for (why, seen) in DropReason::ALL.iter().zip(&mut self.seen) {
            let count = self.stats.drops.get(*why);
            drops.extend((*seen..count).map(|_| why.name()));
            *seen = count;
        }
        drops.sort_unstable();
        drops
    }
}

/// What was sent since the last look.
fn drain(out: &mut Outbox<HeapFrame>) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| out.transmit[0].take_front()).map(|frame| frame.bytes().to_vec()).collect()
}

/// Whether a frame is the one wanted, but for bytes that may be anything.
fn is_like(frame: &[u8], wanted: &[u8], free: &[(usize, usize)]) -> bool {
    let same =
        |at: usize| frame[at] == wanted[at] || free.iter().any(|&(first, last)| (first..=last).contains(&at));
    frame.len() == wanted.len() && (0..wanted.len()).all(same)
}

fn hex(frames: &[Vec<u8>]) -> String {
    let hex = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    frames.iter().map(|frame| format!("\n  {}", hex(frame))).collect()
}

/// What is wrong with a case, if anything is.
fn fault(case: &Case, worker: &mut Worker, received: &[Vec<u8>], sent: &[Vec<u8>]) -> Option<String> {
    let mut came: Vec<_> = case.received.iter().flat_map(|&number| worker.take(&received[number])).collect();
    let mut missing = Vec::new();
    for (&number, free) in case.sent.iter().zip(&case.free) {
        match came.iter().position(|frame| is_like(frame, &sent[number], free)) {
            Some(place) => drop(came.remove(place)),
            None => missing.push(sent[number].clone()),
        }
    }
    let drops = worker.drops();
    let is_right = came.is_empty() && missing.is_empty() && drops == case.drops();
    (!is_right).then(|| {
        format!("{}\ndropped: {drops:?}\nsent:{}\nmissing:{}\n", case.line, hex(&came), hex(&missing))
    })
}

#[test]
fn every_golden_case_comes_out_as_it_is_kept() {
    let table = fs::read_to_string(golden("cases.tsv")).unwrap();
    let cases: Vec<_> = table.lines().skip(1).map(Case::read).collect();
    assert!(cases.len() >= LEAST_CASES, "{}", cases.len());
    let mut faults = Vec::new();
    let mut captures = HashMap::new();
    let mut workers = HashMap::new();
    for case in &cases {
        let file = if case.capture.starts_with("refused") { case.capture.as_str() } else { "modes" };
        let worker = workers.entry(file).or_insert_with(|| Worker::new(&format!("{file}.toml")));
        let (received, sent) = captures.entry(&case.capture).or_insert_with(|| {
            (frames(&format!("{}-received", case.capture)), frames(&format!("{}-sent", case.capture)))
        });
        faults.extend(fault(case, worker, received, sent));
    }
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

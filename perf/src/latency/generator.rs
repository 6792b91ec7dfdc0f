//! Sends frames that carry the time, at a rate of its own, and sees how late they come back.
//!
//! The loop is open: a frame is sent when it is due, whether or not others came back. Its clock stands still while
//! this thread does not run, and slices of time in which the worker lost its core do not count.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::words::MacAddr;
use dataplane::buf::Frame as _;
use dataplane::burst::{BURST, Burst};
use dataplane::csum;
use dataplane::dpdk::eal::Eal;
use dataplane::dpdk::ethdev::{Device, Port, PortQueue};
use dataplane::dpdk::mbuf::Mbuf;
use dataplane::dpdk::mempool::Mempool;
use dataplane::dpdk::rss::Side;
use dataplane::port::Queue as _;
use dataplane::toeplitz::Owners;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::undisturbed::Watched;
use crate::device::machine::memory_mib;

/// Ethernet address of both ends; nobody looks at it.
pub const OWN_MAC: MacAddr = MacAddr([0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]);
/// Address of the service that frames go to.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
/// Where it is served: not here, but the frames come here all the same.
pub const BACKEND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
/// UDP port of both.
pub const PORT: u16 = 9000;

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Flows that the frames are of, by their source port.
const FLOWS: u16 = 1024;
/// Bytes of a frame: as short as Ethernet's may be.
const FRAME_LEN: usize = 60;
/// Offsets from the Ethernet header.
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const STAMP: usize = 42;
/// Mbufs: more than the rings hold.
const FRAMES: u32 = 8191;
/// Frames on their way when as many as possible are to be sent: half of what a ring holds.
const WINDOW: u64 = 1024;
/// Longest time that a frame takes and is waited for.
const LATE: Duration = Duration::from_millis(100);
/// Longest time that is told from longer ones, in nanoseconds, to three digits.
const LONGEST_NS: u64 = 60_000_000_000;
/// Longest time from one look at the clock to the next while this thread runs: a few bursts.
const STEP_NS: u64 = 5000;
/// Longest time until the other end is there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time that is kept or left out as a whole. Most of those that others disturb are disturbed once.
const SLICE_NS: u64 = 5_000_000;
/// Times as long as there is to be measured, after which the machine has too much else to do.
const MOST_TIMES: u32 = 20;

/// What the generator is told on its command line.
#[derive(clap::Args)]
pub struct Order {
    /// Device to send to and receive from
    #[arg(long)]
    pub device: String,
    /// Core to run on
    #[arg(long)]
    pub core: usize,
    /// Frames a second; none: as many as come back
    #[arg(long)]
    pub rate_pps: Option<u64>,
    /// Time to measure
    #[arg(long)]
    pub millis: u64,
    /// Directory under /proc of the thread that sends frames back
    #[arg(long)]
    pub worker: PathBuf,
    /// File for the result
    #[arg(long)]
    pub result: PathBuf,
}

impl Order {
    /// The command line that says so.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = vec![
            format!("--device={}", self.device),
            format!("--core={}", self.core),
            format!("--millis={}", self.millis),
            format!("--worker={}", self.worker.display()),
            format!("--result={}", self.result.display()),
        ];
        words.extend(self.rate_pps.map(|rate| format!("--rate-pps={rate}")));
        words
    }
}

/// What it found.
#[derive(Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Frames sent.
    pub sent: u64,
    /// Frames that came back.
    pub received: u64,
    /// Frames a second that came back.
    pub rate_pps: f64,
    /// Nanoseconds of the middle frame.
    pub p50_ns: u64,
    /// Nanoseconds that 1 in 100 took longer than.
    pub p99_ns: u64,
    /// Nanoseconds that 1 in 1000 took longer than.
    pub p999_ns: u64,
    /// Nanoseconds of the slowest.
    pub max_ns: u64,
    /// Share of the slices that were left out, and are in none of the other numbers.
    pub disturbed: f64,
}

/// Measures as told and writes what it found.
///
/// # Errors
/// A sentence: what does not open, or that nothing comes back.
pub fn run(order: &Order) -> Result<(), String> {
    let mut generator = Generator::open(order)?;
    generator.wait_for_the_other_end()?;
    generator.measure(order.rate_pps, Duration::from_millis(order.millis))?;
    let text = serde_json::to_vec(&generator.measured()).map_err(|why| why.to_string())?;
    // Whoever sees the file sees all of it.
    let partial = order.result.with_extension("partial");
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, &order.result));
    written.map_err(|why| format!("{}: {why}", order.result.display()))
}

struct Generator {
    queue: PortQueue,
    _port: Arc<Port>,
    mempool: Arc<Mempool>,
    clock: Clock,
    template: [u8; FRAME_LEN],
    next_flow: u16,
    out: Burst<Mbuf>,
    back: Burst<Mbuf>,
    watched: Watched,
    /// The slice that is being measured.
    slice: Slice,
    kept: Kept,
}

/// Time for which this thread ran: when it lost its core, and found out, no time has passed. So frames that were out
/// meanwhile are not charged with it, and none is overdue.
struct Clock {
    start: Instant,
    /// When it was looked at last.
    looked_ns: u64,
    /// For how long it stood still.
    stood_ns: u64,
}

impl Clock {
    fn start() -> Self {
        Self { start: Instant::now(), looked_ns: 0, stood_ns: 0 }
    }

    /// Nanoseconds.
    fn now(&mut self) -> u64 {
        self.at(self.start.elapsed().as_nanos() as u64)
    }

    fn at(&mut self, real_ns: u64) -> u64 {
        let step = real_ns - self.looked_ns;
        if step > STEP_NS {
            self.stood_ns += step;
        }
        self.looked_ns = real_ns;
        real_ns - self.stood_ns
    }
}

/// What happened in one slice.
#[derive(Default)]
struct Slice {
    /// When it began, as stamps count.
    begin_ns: u64,
    sent: u64,
    /// Nanoseconds of each frame that came back.
    times: Vec<u64>,
}

/// All slices that were not disturbed.
struct Kept {
    time: Duration,
    sent: u64,
    times: Histogram<u64>,
    slices: u32,
    disturbed: u32,
}

impl Generator {
    fn open(order: &Order) -> Result<Self, String> {
        let (core, other) = (order.core, if order.core == 0 { 1 } else { 0 });
        // A worker is named because there must be one; none is started.
        let text = format!(
            "[dpdk]\nmemory_mib = {}\nfile_prefix = \"generator\"\n[cores]\ncontrol = {core}\nworkers = [{other}]\n\
             [[port]]\nname = \"lan\"\ndevice = \"{}\"\naddresses = [\"192.0.2.253/24\"]\n",
            memory_mib(0),
            order.device,
        );
        let config = config::parse("generator", &text)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let eal = Eal::start(&config).map_err(|why| why.to_string())?;
        let port = config.ports.first().ok_or("there is no port")?;
        let device = port.devices.first().ok_or("there is no device")?;
        let device = Device::find(port, device).map_err(|why| why.to_string())?;
        let mempool =
            Mempool::new(&eal, device.numa_node(), FRAMES).map(Arc::new).map_err(|why| why.to_string())?;
        let (opened, queues) =
            device.open(port, Side::Clients, &Owners::new(1), &mempool).map_err(|why| why.to_string())?;
        Ok(Self {
            queue: queues.into_iter().next().ok_or("the device has no queue")?,
            _port: opened,
            mempool,
            clock: Clock::start(),
            template: template(),
            next_flow: 0,
            out: Burst::default(),
            back: Burst::default(),
            watched: Watched::new(&order.worker),
            slice: Slice::default(),
            kept: Kept {
                time: Duration::ZERO,
                sent: 0,
                times: Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|why| why.to_string())?,
                slices: 0,
                disturbed: 0,
            },
        })
    }

    /// Sends now and then until every flow has come back twice.
    fn wait_for_the_other_end(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while self.slice.times.len() < 2 * usize::from(FLOWS) {
            if begin.elapsed() > PATIENCE {
                let Slice { sent, times, .. } = &self.slice;
                return Err(format!("{} of {sent} frames came back in {PATIENCE:?}", times.len()));
            }
            self.send(1);
            self.receive_for(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Measures in slices, until those that nothing disturbed are so long together.
    fn measure(&mut self, rate_pps: Option<u64>, time: Duration) -> Result<(), String> {
        let begin = Instant::now();
        while self.kept.time < time {
            let Kept { slices, disturbed, .. } = self.kept;
            if begin.elapsed() > MOST_TIMES * time {
                return Err(format!(
                    "other processes disturbed {disturbed} slices of {}; end what else runs on these cores",
                    slices + disturbed
                ));
            }
            let before = self.watched.interrupted()?;
            self.slice.begin(self.clock.now());
            match rate_pps {
                Some(rate_pps) => self.send_at(rate_pps),
                None => self.send_all(),
            }
            let passed = Duration::from_nanos(self.clock.now() - self.slice.begin_ns);
            self.receive_rest();
            if self.watched.interrupted()? == before {
                self.kept.add(&self.slice, passed);
            } else {
                self.kept.disturbed += 1;
            }
        }
        Ok(())
    }

    /// Sends at a rate for a slice. Frames that are overdue go together.
    fn send_at(&mut self, rate_pps: u64) {
        let mut due = 0u64;
        loop {
            let passed_ns = self.clock.now() - self.slice.begin_ns;
            if passed_ns >= SLICE_NS {
                break;
            }
            let now = passed_ns * rate_pps / 1_000_000_000;
            if now > due {
                let count = (now - due).min(BURST as u64);
                self.send(count as usize);
                due += count;
            }
            self.receive();
        }
    }

    /// Sends for a slice as long as few enough are on their way.
    fn send_all(&mut self) {
        while self.clock.now() - self.slice.begin_ns < SLICE_NS {
            if self.slice.on_their_way() < WINDOW {
                self.send(BURST);
            }
            self.receive();
        }
    }

    /// Sends so many frames, as far as there is room for them.
    fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.next_flow = (self.next_flow + 1) % FLOWS;
            self.template[SOURCE_PORT..DESTINATION_PORT]
                .copy_from_slice(&(1024 + self.next_flow).to_be_bytes());
            // Of one burst all are given the same time: they go together.
            let Some(frame) = self.mempool.frame(&self.template) else { break };
            // A burst holds as many as this loop makes.
            let _ = self.out.push(frame);
        }
        let now = self.clock.now().to_be_bytes();
        for slot in 0..self.out.len() {
            if let Some(frame) = self.out.get_mut(slot) {
                frame.head_mut()[STAMP..STAMP + 8].copy_from_slice(&now);
            }
        }
        self.slice.sent += self.queue.send(&mut self.out) as u64;
        for slot in 0..self.out.len() {
            drop(self.out.take(slot));
        }
        self.out.clear();
    }

    fn receive_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            self.receive();
        }
    }

    /// Takes what comes back until all has, or is too late.
    fn receive_rest(&mut self) {
        let begin = Instant::now();
        while self.slice.on_their_way() > 0 && begin.elapsed() < LATE {
            self.receive();
        }
    }

    /// Takes what has come back.
    fn receive(&mut self) {
        self.queue.receive(&mut self.back);
        // In every turn, or the clock would stand still.
        let now = self.clock.now();
        for slot in 0..self.back.len() {
            let Some(frame) = self.back.take(slot) else { continue };
            // Of an earlier slice were those that were too late.
            if let Some(sent) = stamp(frame.head()).filter(|&sent| sent >= self.slice.begin_ns) {
                self.slice.times.push(now.saturating_sub(sent));
            }
        }
        self.back.clear();
    }

    fn measured(&self) -> Measured {
        let Kept { time, sent, times, slices, disturbed } = &self.kept;
        Measured {
            sent: *sent,
            received: times.len(),
            rate_pps: times.len() as f64 / time.as_secs_f64(),
            p50_ns: times.value_at_quantile(0.5),
            p99_ns: times.value_at_quantile(0.99),
            p999_ns: times.value_at_quantile(0.999),
            max_ns: times.max(),
            disturbed: f64::from(*disturbed) / f64::from(slices + disturbed),
        }
    }
}

impl Slice {
    /// Forgets the one before.
    fn begin(&mut self, begin_ns: u64) {
        self.begin_ns = begin_ns;
        self.sent = 0;
        self.times.clear();
    }

    fn on_their_way(&self) -> u64 {
        self.sent.saturating_sub(self.times.len() as u64)
    }
}

impl Kept {
    /// Adds a slice that took a time.
    fn add(&mut self, slice: &Slice, time: Duration) {
        self.time += time;
        self.sent += slice.sent;
        self.slices += 1;
        slice.times.iter().for_each(|&ns| self.times.saturating_record(ns));
    }
}

/// A frame to the service, without source port and time.
fn template() -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&OWN_MAC.0);
    frame[6..12].copy_from_slice(&[0x02, 0x00, 0x5e, 0x00, 0x53, 0x07]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let len = (FRAME_LEN - 14) as u16;
    frame[14..24].copy_from_slice(&[0x45, 0, 0, len as u8, 0, 0, 0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&CLIENT.octets());
    frame[30..34].copy_from_slice(&VIP.octets());
    let checksum = !csum::sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[DESTINATION_PORT..38].copy_from_slice(&PORT.to_be_bytes());
    // The UDP checksum stays 0, "not computed" (RFC 768).
    frame[38..40].copy_from_slice(&(len - 20).to_be_bytes());
    frame
}

/// The time in a frame, if it is one of ours.
fn stamp(head: &[u8]) -> Option<u64> {
    let ours = head.get(DESTINATION_PORT..38)? == PORT.to_be_bytes() && head.get(12..14)? == [0x08, 0x00];
    let stamp = head.get(STAMP..)?.first_chunk().filter(|_| ours)?;
    Some(u64::from_be_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_with_what_did_not_come_back_and_only_its_own_frames_are_kept() {
        let mut slice = Slice { sent: 3, times: vec![10, 20], ..Slice::default() };
        assert_eq!(slice.on_their_way(), 1);
        let times = Histogram::new_with_bounds(1, LONGEST_NS, 3).unwrap();
        let mut kept = Kept { time: Duration::ZERO, sent: 0, times, slices: 0, disturbed: 0 };
        kept.add(&slice, Duration::from_millis(5));
        slice.begin(7);
        assert_eq!((slice.begin_ns, slice.on_their_way()), (7, 0));
        kept.add(&Slice { sent: 1, times: vec![30], ..slice }, Duration::from_millis(5));
        assert_eq!((kept.sent, kept.times.len(), kept.times.max(), kept.slices), (4, 3, 30, 2));
        assert_eq!(kept.time, Duration::from_millis(10));
    }

    #[test]
    fn the_clock_stands_still_while_the_thread_is_gone() {
        let mut clock = Clock::start();
        assert_eq!([clock.at(1000), clock.at(1000 + STEP_NS)], [1000, 1000 + STEP_NS]);
        assert_eq!([clock.at(5_000_000), clock.at(5_000_700)], [1000 + STEP_NS, 1700 + STEP_NS]);
    }

    #[test]
    fn frames_are_right_and_known_again() {
        let mut frame = template();
        assert_eq!(csum::sum(&frame[14..34]), 0xffff);
        frame[STAMP..STAMP + 8].copy_from_slice(&42u64.to_be_bytes());
        assert_eq!(stamp(&frame), Some(42));
        assert!((0..STAMP + 8).all(|len| stamp(&frame[..len]).is_none()));
        frame[DESTINATION_PORT] ^= 1;
        assert_eq!(stamp(&frame), None);
    }
}

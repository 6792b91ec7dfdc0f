//! Choices alone, without packets: [`Schedulers::pick`] for the first packets of random clients.
//!
//! Backends have random loads, recent traffic and times to answer, which choices leave as they are.

use std::hint::black_box;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use config::words::Protocol;
use dataplane::flow::mapped;
use dataplane::schedule::Schedulers;
use dataplane::schedule::hash::Opening;
use dataplane::snapshot::{BackendSlot, Service, ServiceSlot};
use dataplane::stats::WorkerStats;

use super::path::{BEGIN, Tally, setup};
use super::traffic::MAX_FLOWS;
use super::world::World;
use crate::rng::Rng;

/// Choices that are timed together, which is a repeat: so many that reading the clock is not felt.
const CHOICES: usize = 512;
/// Active flows of a backend at most, and inactive ones. Each has one of both at least.
const MOST: u32 = 100;
/// Packets of its recent traffic at most, each way, of this length in bytes on average.
const MOST_PACKETS: u32 = 100_000;
const PACKET_LEN: u64 = 700;
/// Nanoseconds that it takes to answer a SYN at most.
const MOST_NANOS: u32 = 1_000_000;

/// A flow that begins.
struct Newcomer<'a> {
    slot: ServiceSlot,
    service: &'a Service,
    opening: Opening,
}

/// Times choices. Some before them warm up.
///
/// # Errors
/// A sentence that says how many of them gave no backend.
pub fn choices(world: &World, repeats: usize) -> Result<Tally, String> {
    let setup = setup(&world.shape);
    let mut rng = Rng::new(3);
    setup.team.join(setup.number, &Arc::new(busy(world, &mut rng)));
    for slot in (0..world.shape.backends()).map(BackendSlot) {
        setup.team.times.note(slot, u64::from(rng.below(MOST_NANOS)));
    }
    let mut schedulers = Schedulers::new(&setup);
    let mut tally = Tally::default();
    for repeat in 0..repeats / 10 + repeats {
        // Others each time: whoever sees the same ones again predicts what becomes of them.
        let random = iter::repeat_with(|| newcomer(world, rng.below(MAX_FLOWS)));
        let newcomers = random.take(CHOICES).collect::<Option<Vec<_>>>().ok_or("a service is missing")?;
        let start = Instant::now();
        let chosen = choose(&mut schedulers, &newcomers);
        let elapsed = start.elapsed();
        if chosen < CHOICES {
            return Err(format!("{chosen} of {CHOICES} choices gave a backend: nothing to measure"));
        }
        if repeat >= repeats / 10 {
            tally.ns.push(elapsed.as_nanos() as f64 / CHOICES as f64);
            tally.packets += CHOICES as u64;
        }
    }
    Ok(tally)
}

/// What is measured. Returns how many choices gave a backend.
#[inline(never)]
fn choose(schedulers: &mut Schedulers, newcomers: &[Newcomer]) -> usize {
    let chosen = newcomers.iter().filter(|newcomer| {
        let Newcomer { slot, service, opening } = newcomer;
        black_box(schedulers.pick(BEGIN, *slot, service, || *opening)).is_some()
    });
    chosen.count()
}

/// Counters of a worker whose flows keep all backends busy.
fn busy(world: &World, rng: &mut Rng) -> WorkerStats {
    let backends = world.shape.backends();
    let stats = WorkerStats::new(backends as usize);
    for slot in (0..backends).map(BackendSlot) {
        for active in [true, false] {
            (0..=rng.below(MOST)).for_each(|_| stats.loads.begin(slot, active));
        }
    }
    for slot in (0..backends).map(BackendSlot) {
        let its = stats.backend(slot);
        for (packets, bytes) in [(&its.in_packets, &its.in_bytes), (&its.out_packets, &its.out_bytes)] {
            let count = u64::from(rng.below(MOST_PACKETS));
            packets.add(count);
            bytes.add(count * PACKET_LEN);
        }
    }
    stats
}

fn newcomer(world: &World, flow: u32) -> Option<Newcomer<'_>> {
    let (slot, vip) = (world.service_of(flow), world.vip_of(flow));
    let client = world.client_of(flow);
    let opening = Opening {
        source: wide(client),
        source_port: client.port(),
        destination: wide(vip),
        destination_port: vip.port(),
        protocol: Protocol::Tcp,
    };
    Some(Newcomer { slot, service: world.snapshot.service(slot)?, opening })
}

/// An address as openings have it.
fn wide(address: SocketAddr) -> u128 {
    match address.ip() {
        IpAddr::V4(address) => mapped(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

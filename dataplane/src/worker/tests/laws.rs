//! What holds for a team of workers whatever comes in, and by whichever of them.

use std::collections::HashMap;
use std::net::SocketAddr;

use config::words::Fate;
use proptest::prelude::*;

use super::*;
use crate::parse::parse;
use crate::samples::{Body, Sample, any_packets, cases, datagram, icmp, syn};
use crate::snapshot::Parts;
use crate::wire::tcp::RST;

const CLIENTS: [&str; 2] = ["203.0.113.7", "[2001:db8:c::7]"];
const VIPS: [&str; 2] = ["192.0.2.100:80", "[2001:db8::100]:80"];

/// TCP and UDP on a VIP of each version, three backends each, in this mode; those of `down` take no new flows.
fn world(mode: Mode, down: u32) -> Parts {
    let port = if mode == Mode::Nat { 8000 } else { 80 };
    let links = ["198.51.100.", "[2001:db8:b::"];
    let keys = [("tcp", 0), ("udp", 0), ("tcp", 1), ("udp", 1)];
    let service = |(slot, (protocol, version)): (usize, &(&str, usize))| {
        let first = 3 * slot as u32;
        let up: Vec<_> = (first..first + 3).filter(|slot| slot % 3 != down).map(|slot| (slot, 1)).collect();
        let mut service = testing::service(&format!("{protocol}:{}", VIPS[*version]), &up);
        service.version = u64::from(down) + 1;
        Some(service.into())
    };
    let backend = |slot: u32| {
        let version = (slot / 6) as usize;
        let end = if version == 0 { "" } else { "]" };
        let address = format!("{}{}{end}:{port}", links[version], 11 + slot % 3);
        Some(testing::backend((slot / 3) as u16, &address, mode))
    };
    Parts {
        services: keys.iter().enumerate().map(service).collect(),
        backends: (0..12).map(backend).collect(),
        ..testing::parts()
    }
}

fn team_of(size: usize, mode: Mode) -> Team {
    let mut team = team(size);
    team.publisher.publish(Snapshot::new(world(mode, 3)));
    team.turn();
    team
}

/// Lets the workers turn until nothing moves any more.
fn settle(team: &mut Team) {
    for _ in 0..12 {
        team.turn();
    }
}

/// What has been sent since the last look, as the stations it was sent to, and the frames.
fn taken(team: &Team) -> Vec<(u8, Vec<u8>)> {
    let frames = team.wires.iter().flat_map(|wire| std::mem::take(&mut *wire.from_worker.lock().unwrap()));
    frames.map(|frame| (frame.bytes()[5], frame.bytes().to_vec())).collect()
}

fn endpoint(version: usize, port: u16) -> String {
    format!("{}:{port}", CLIENTS[version])
}

/// What happens at one moment.
#[derive(Clone, Debug)]
enum Step {
    /// A client sends a datagram whole, or in pieces in this order.
    Send { version: usize, port: u16, pieces: Option<[usize; 3]> },
    /// One backend of each service is taken out, or none.
    Reload { down: u32 },
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let orders = prop::sample::select(vec![[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2], [2, 0, 1]]);
    let send = (0usize..2, 40000u16..40004, prop::option::of(orders))
        .prop_map(|(version, port, pieces)| Step::Send { version, port, pieces });
    let step = prop_oneof![4 => send, 1 => (0u32..4).prop_map(|down| Step::Reload { down })];
    prop::collection::vec((0usize..4, step), 1..30)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_flow_keeps_its_backend_through_workers_reloads_and_pieces(size in 1usize..5, steps in steps()) {
        let mut team = team_of(size, Mode::Dr);
        let mut backends = HashMap::new();
        for (number, (worker, step)) in steps.into_iter().enumerate() {
            let Step::Send { version, port, pieces } = step else {
                let Step::Reload { down } = step else { unreachable!() };
                team.publisher.publish(Snapshot::new(world(Mode::Dr, down)));
                continue;
            };
            let whole = Sample {
                payload: vec![number as u8; 60],
                dont_fragment: false,
                id: number as u16,
                ..datagram(&endpoint(version, port), VIPS[version])
            };
            let frames = match pieces {
                None => vec![whole.bytes()],
                Some(order) => order.map(|piece| whole.piece(24 * piece as u16, 24).bytes()).to_vec(),
            };
            for (offset, frame) in frames.iter().enumerate() {
                team.arrive((worker + offset) % size, frame);
                settle(&mut team);
            }
            let sent = taken(&team);
            prop_assert_eq!(sent.len(), frames.len(), "nothing is lost");
            for (station, _) in sent {
                prop_assert_eq!(station, *backends.entry((version, port)).or_insert(station));
            }
            team.assert_balance();
        }
    }

    #[test]
    fn whatever_comes_ends_in_one_place(
        size in 1usize..4,
        mode in prop::sample::select(vec![Mode::Nat, Mode::Dr, Mode::Tunnel]),
        frames in prop::collection::vec(
            (any_packets(), 0usize..8, prop::collection::vec((0usize..90, any::<u8>()), 0..4), 0usize..100),
            1..12,
        ),
    ) {
        let mut team = team_of(size, mode);
        for (number, (sample, shape, damage, cut)) in frames.into_iter().enumerate() {
            let version = usize::from(sample.src.is_ipv6());
            let vip: SocketAddr = VIPS[version].parse().unwrap();
            let near = Sample { dst: vip, dont_fragment: false, ..sample.clone() };
            let message = icmp(&endpoint(version, 1), VIPS[version], [(shape * 3) as u8, 3], [0; 4], &near.ip());
            let mut bytes = match shape {
                0 => sample.bytes(),
                1 | 2 => near.bytes(),
                3 => near.piece(0, 32).bytes(),
                4 => near.piece(8, 16).bytes(),
                5 => Sample { payload: vec![0; 1600], ..near }.bytes(),
                _ => message.bytes(),
            };
            let whole = bytes.len();
            bytes.truncate(whole.max(cut) - cut.min(whole) * usize::from(number % 3 == 0));
            for (at, byte) in damage {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            team.wires[number % size].to_worker.lock().unwrap().push_back(HeapFrame::segmented(&bytes, 130));
        }
        settle(&mut team);
        team.assert_balance();
    }

    #[test]
    fn both_ends_are_told_by_whichever_worker_hears_of_either(
        size in 1usize..4,
        mode in prop::sample::select(vec![Mode::Nat, Mode::Dr]),
        ports in prop::collection::btree_set(40000u16..40100, 1..8),
    ) {
        let mut team = team_of(size, mode);
        let segment = |src: &str, dst: &str, flags| Sample {
            body: Body::Tcp { flags, options: Vec::new() },
            ..syn(src, dst)
        };
        for (number, port) in ports.iter().enumerate() {
            for flags in [SYN, ACK] {
                let client = endpoint(number % 2, *port);
                team.arrive(number % size, &segment(&client, VIPS[number % 2], flags).bytes());
                settle(&mut team);
            }
        }
        taken(&team);
        let mut over = world(mode, 3);
        over.backends.iter_mut().flatten().for_each(|backend| backend.fate = Fate::Reset);
        team.publisher.publish(Snapshot::after(&Snapshot::new(world(mode, 3)), over));
        settle(&mut team);
        // All lines of the tables.
        (0..2).for_each(|_| team.workers.iter_mut().for_each(Worker::housekeeping));
        let asked = taken(&team);
        prop_assert_eq!(asked.len(), ports.len(), "one end is enough");
        // Each answers, by another worker than the one that asked.
        for (number, (station, frame)) in asked.iter().enumerate() {
            let headers = parse(frame, frame.len(), mac(*station)).unwrap().0;
            let (src, dst) = (headers.ip.addresses.src(), headers.ip.addresses.dst());
            let (src, dst) = (SocketAddr::new(src, headers.src_port), SocketAddr::new(dst, headers.dst_port));
            let answer = Sample { payload: Vec::new(), ..segment(&dst.to_string(), &src.to_string(), ACK) };
            team.arrive((number + 1) % size, &answer.bytes());
        }
        settle(&mut team);
        let resets = taken(&team);
        // One for who answered, and two for the other end: it may have taken the answer for a probe.
        prop_assert_eq!(resets.len(), 3 * ports.len());
        for (station, frame) in resets {
            let headers = parse(&frame, frame.len(), mac(station)).unwrap().0;
            prop_assert_eq!(headers.tcp_flags & RST, RST);
        }
        team.assert_balance();
    }

    #[test]
    fn opening_and_resetting_leaves_no_flow_active(flags in prop::collection::vec(0usize..3, 1..20)) {
        let mut team = team_of(2, Mode::Nat);
        for (number, which) in flags.into_iter().enumerate() {
            let client = endpoint(number % 2, 40000 + number as u16 / 2);
            let mut packet = syn(&client, VIPS[number % 2]);
            packet.body = Body::Tcp { flags: [SYN, ACK, RST][which], options: Vec::new() };
            team.arrive(number % 2, &packet.bytes());
            settle(&mut team);
        }
        let flows: u64 = team.workers.iter().map(|worker| worker.forwarder.flows().len() as u64).sum();
        let counted: u64 =
            team.handles.iter().flat_map(|it| (0..12).map(|slot| it.stats.loads.get(crate::snapshot::BackendSlot(slot)).flows())).sum();
        prop_assert_eq!(flows, counted);
    }
}

//! Laws of the packet path, as properties.

use config::model::Hash;
use config::words::Scheduler;

use super::schedule::{owner_of, world};
use super::*;
use crate::load::Load;
use crate::snapshot::Parts;

/// What random traffic is made of: clients, ports, directions and flags that meet often.
fn traffic() -> impl Strategy<Value = Vec<(bool, u8, u16, u8)>> {
    let flags = prop_oneof![Just(SYN), Just(ACK), Just(SYN | ACK), Just(FIN | ACK), Just(RST), Just(ACK | 8)];
    prop::collection::vec((any::<bool>(), 0u8..3, 0u16..6, flags), 0..if cfg!(miri) { 20 } else { 120 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]

    #[test]
    fn any_bytes_end_in_one_place(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::collection::vec(any::<u8>(), 200..if cfg!(miri) { 300 } else { 9000 }),
        ],
        to_us: bool,
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8]),
        head_len in 0usize..9000,
    ) {
        let mut bytes = bytes;
        // What is for others, or of no known type, ends soon.
        if let (true, Some(link)) = (to_us, bytes.get_mut(..14)) {
            link[..6].copy_from_slice(&mac(254).0);
            link[12..].copy_from_slice(&ethertype.to_be_bytes());
        }
        let mut path = Path::nat();
        path.pass(HeapFrame::segmented(&bytes, head_len));
    }

    #[test]
    fn any_damage_to_a_good_frame_ends_in_one_place(
        port: u16,
        cut in 0usize..80,
        damage in prop::collection::vec((0usize..70, any::<u8>()), 0..6),
    ) {
        for mode in [Mode::Nat, Mode::Dr, Mode::Tunnel] {
            let mut path = Path::new(testing::snapshot(mode));
            let mut bytes = request(port, SYN).bytes();
            bytes.truncate(bytes.len().saturating_sub(cut));
            for (offset, byte) in &damage {
                if let Some(place) = bytes.get_mut(*offset) {
                    *place = *byte;
                }
            }
            path.pass(HeapFrame::new(&bytes));
        }
    }

    #[test]
    fn the_reply_of_a_rewritten_request_is_the_request_turned_round(
        port in 1u16..,
        payload in prop::collection::vec(any::<u8>(), 0..64),
        udp: bool,
    ) {
        let mut path = Path::nat();
        let shape = |packet: Packet| if udp { packet.udp() } else { packet };
        let sent = Packet { payload: payload.clone(), ..shape(request(port, SYN)) };
        let End::Sent(frame) = path.send(&sent) else { return Err(TestCaseError::fail("not sent")) };
        let server = [198, 51, 100, frame[5]];
        let reply = Packet { payload, ..shape(packet((server, 8000), (CLIENT, port)).flags(SYN | ACK)) };
        let right = Packet { src: VIP, ports: (80, port), ..reply.clone() };
        prop_assert_eq!(path.send(&reply), End::Sent(arrived(right, 1)));
    }

    #[test]
    fn a_live_flow_keeps_its_backend(steps in traffic()) {
        let mut path = Path::nat();
        let mut backends: HashMap<(u8, u16), u8> = HashMap::new();
        for (from_client, client, port, flags) in steps {
            let client_address = [203, 0, 113, client];
            if !from_client {
                for server in 11..14 {
                    path.send(&packet(([198, 51, 100, server], 8000), (client_address, port)).flags(flags));
                }
                continue;
            }
            let scheduled = conns(&path);
            let end = path.send(&packet((client_address, port), (VIP, 80)).flags(flags));
            let (End::Sent(frame), false) = (end, conns(&path) > scheduled) else {
                backends.remove(&(client, port));
                continue;
            };
            let first = *backends.entry((client, port)).or_insert(frame[5]);
            prop_assert_eq!(frame[5], first);
        }
        let (active, inactive) = gauges(&path);
        prop_assert_eq!(active + inactive, path.forwarder.flows().len() as u64);
    }

    #[test]
    fn counters_are_those_of_the_flows_and_zero_without_any(
        workers in 1usize..5,
        mode in prop::sample::select(vec![Mode::Nat, Mode::Dr, Mode::Tunnel]),
        scheduler in prop::sample::select(Scheduler::WORDS).prop_map(|word| word.parse().unwrap()),
        steps in traffic(),
        leaver in 0usize..4,
    ) {
        let team = Team::new(workers, 16, 64);
        let parts = || {
            let hash = Hash { table_size: 251, ..Hash::of(scheduler) };
            let services = world(scheduler, hash, [(1, 0), (2, 3), (3, 0)]).services;
            Parts { services, ..testing::world(mode) }
        };
        let mut paths: Vec<Path> =
            (0..workers).map(|number| Path::in_team(Snapshot::new(parts()), number, &team)).collect();
        let flows = |paths: &[Path]| paths.iter().map(|path| path.forwarder.flows().len() as u64).sum::<u64>();
        let counted = || (0..16).map(|slot| team.load(BackendSlot(slot)).flows()).sum::<u64>();
        let half = steps.len() / 2;
        for (step, (from_client, _, port, flags)) in steps.into_iter().enumerate() {
            let port = 1000 + port;
            let path = &mut paths[owner_of(port, workers)];
            if step == half {
                // A backend that is gone leaves its flows behind.
                let mut parts = parts();
                parts.backends.get_mut(leaver).map(Option::take);
                path.snapshot = Snapshot::new(parts);
            }
            if from_client {
                path.send(&request(port, flags));
            } else {
                (11..14).for_each(|server| {
                    path.send(&packet(([198, 51, 100, server], 8000), (CLIENT, port)).flags(flags));
                });
            }
            prop_assert_eq!(counted(), flows(&paths));
        }
        for path in &mut paths {
            path.now += 100_000;
            (0..path.forwarder.flows().lines()).for_each(|_| path.housekeeping());
        }
        prop_assert_eq!(flows(&paths), 0);
        for slot in 0..16 {
            prop_assert_eq!(team.load(BackendSlot(slot)), Load::default(), "{} {:?}", scheduler, slot);
        }
    }
}

/// Flows scheduled so far.
fn conns(path: &Path) -> u64 {
    (0..16).map(|slot| path.stats.conns(BackendSlot(slot)).get()).sum()
}

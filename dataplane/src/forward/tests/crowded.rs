//! Flows that live elsewhere than in their home lines.

use super::fast::{counts, flows, settled};
use super::*;
use crate::samples::{Body, Sample, cases, endpoint, syn};

/// Client, VIP and backend, by IP version.
const ENDS: [[&str; 3]; 2] = [
    ["203.0.113.7:40000", "192.0.2.100:80", "198.51.100.11:80"],
    ["[2001:db8:c::7]:40000", "[2001:db8::100]:80", "[2001:db8:b::11]:80"],
];

/// Flows at the beginning; the tables have twice as many places.
const FLOWS: u16 = 24;

/// A packet of one client, or its reply.
fn segment([client, vip, backend]: [&str; 3], port: u16, flags: u8, is_reply: bool, number: u8) -> HeapFrame {
    let options = Vec::new();
    let mut sample = Sample { body: Body::Tcp { flags, options }, ..syn(client, vip) };
    sample.src.set_port(40000 + port);
    if is_reply {
        (sample.src, sample.dst) = (endpoint(backend), sample.src);
    }
    // Told apart by their type of service.
    Sample { tos: number << 2, ..sample }.frame()
}

/// The numbers of sent packets, by what they have for ports.
fn numbers(ends: &[End], v6: bool) -> HashMap<[u8; 4], Vec<u8>> {
    let mut numbers: HashMap<_, Vec<u8>> = HashMap::new();
    let ports = 14 + if v6 { 40 } else { 20 };
    for end in ends {
        let End::Sent(frame) = end else { continue };
        let tos = if v6 { frame[14] << 4 | frame[15] >> 4 } else { frame[15] };
        numbers.entry(frame[ports..ports + 4].try_into().unwrap()).or_default().push(tos >> 2);
    }
    numbers
}

fn path(ends: [&str; 3], mode: Mode) -> Path {
    let setup = Setup { flow_capacity: FLOWS.into(), wide_capacity: FLOWS.into(), ..testing::setup() };
    let mut path = Path::set_up(Snapshot::new(modes::world(ends[1], ends[2], mode)), setup);
    for flags in [SYN, ACK] {
        for port in 0..FLOWS {
            path.pass(segment(ends, port, flags, false, 0));
        }
    }
    path
}

proptest! {
    #![proptest_config(cases())]

    /// They are found as all others, and packets of a flow keep their order.
    #[test]
    fn flows_that_live_elsewhere_are_found(
        (v6, eights) in any::<(bool, bool)>(),
        mode in prop::sample::select(vec![Mode::Nat, Mode::Dr, Mode::Tunnel]),
        bursts in prop::collection::vec(prop::collection::vec(
            (0..FLOWS + 4, prop::sample::select(vec![ACK, ACK, ACK, ACK, ACK, ACK, ACK, FIN | ACK, RST, SYN]), any::<bool>()),
            1..=BURST,
        ), 1..4),
    ) {
        let ends = ENDS[usize::from(v6)];
        let [mut fast, mut slow] = [0, 1].map(|_| path(ends, mode));
        fast.take_eights(eights);
        prop_assert_eq!(flows(&fast).len(), usize::from(FLOWS));
        for packets in bursts {
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            for (number, (port, flags, is_reply)) in packets.into_iter().enumerate() {
                let frame = segment(ends, port, flags, is_reply && mode == Mode::Nat, number as u8);
                one.push(frame.clone()).unwrap();
                other.push(frame).unwrap();
            }
            let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
            if mode != Mode::Tunnel {
                prop_assert!(numbers(&one, v6).into_values().all(|numbers| numbers.is_sorted()));
            }
            prop_assert_eq!(settled(one), settled(other));
            prop_assert_eq!(flows(&fast), flows(&slow));
            prop_assert_eq!(counts(&fast), counts(&slow));
        }
    }
}

//! Flows that live elsewhere than in their home lines.

use std::net::SocketAddr;
use std::sync::LazyLock;

use super::fast::{counts, flows, locals_of, settled};
use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::samples::{Body, Sample, cases, endpoint, syn};
use crate::snapshot::{Pool, PoolSlot};

/// Client, VIP, backend and local address, by IP version.
const ENDS: [[&str; 4]; 2] = [
    ["203.0.113.7:40000", "192.0.2.100:80", "198.51.100.11:80", "198.51.100.200"],
    ["[2001:db8:c::7]:40000", "[2001:db8::100]:80", "[2001:db8:b::11]:80", "2001:db8:b::200"],
];

/// Under miri a local address, with its 64,512 ports, takes minutes.
const MODES: &[Mode] = match cfg!(miri) {
    true => &[Mode::Nat, Mode::Dr, Mode::Tunnel],
    false => &[Mode::Nat, Mode::Dr, Mode::Tunnel, Mode::FullNat],
};

/// Made once: it takes a while.
static ADDRESSES: LazyLock<[LocalAddresses; 2]> =
    LazyLock::new(|| ENDS.map(|ends| LocalAddresses::new(&[ends[3].parse().unwrap()], &Owners::new(1), 0)));

/// Flows at the beginning; the tables have twice as many places.
const FLOWS: u16 = 24;

fn client(ends: [&str; 4], port: u16) -> SocketAddr {
    SocketAddr::new(endpoint(ends[0]).ip(), 40000 + port)
}

/// A packet of one client, or its reply, to the address that the backend knows.
fn segment(
    ends @ [_, vip, backend, _]: [&str; 4],
    port: u16,
    flags: u8,
    reply: Option<SocketAddr>,
    number: u8,
) -> HeapFrame {
    let options = Vec::new();
    let mut sample = Sample { body: Body::Tcp { flags, options }, ..syn(ends[0], vip) };
    sample.src = client(ends, port);
    if let Some(known) = reply {
        (sample.src, sample.dst) = (endpoint(backend), known);
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

/// A path with flows, and by which addresses their backend knows the clients.
fn path(v6: bool, mode: Mode) -> (Path, Vec<SocketAddr>) {
    let setup = Setup { flow_capacity: FLOWS.into(), wide_capacity: FLOWS.into(), ..testing::setup() };
    let ends = ENDS[usize::from(v6)];
    let (mut parts, local) = (modes::world(ends[1], ends[2], mode), ends[3].parse().unwrap());
    if mode == Mode::FullNat {
        parts.locals = vec![local];
        parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(0)] }];
        parts.services.iter_mut().flatten().for_each(|it| Arc::make_mut(it).pool = Some(PoolSlot(0)));
    }
    let mut path = Path::set_up(Snapshot::new(parts), setup);
    if mode == Mode::FullNat {
        path.forwarder.install(LocalSlot(0), ADDRESSES[usize::from(v6)].clone());
    }
    let mut open = |port| {
        let sent = path.pass(segment(ends, port, SYN, None, 0));
        locals_of(&[sent], local).first().copied().unwrap_or(client(ends, port))
    };
    let known = (0..FLOWS).map(&mut open).collect();
    for port in 0..FLOWS {
        path.pass(segment(ends, port, ACK, None, 0));
    }
    (path, known)
}

proptest! {
    #![proptest_config(cases())]

    /// They are found as all others, and packets of a flow keep their order.
    #[test]
    fn flows_that_live_elsewhere_are_found(
        (v6, eights) in any::<(bool, bool)>(),
        mode in prop::sample::select(MODES),
        bursts in prop::collection::vec(prop::collection::vec(
            (0..FLOWS + 4, prop::sample::select(vec![ACK, ACK, ACK, ACK, ACK, ACK, ACK, FIN | ACK, RST, SYN]), any::<bool>()),
            1..=BURST,
        ), 1..4),
    ) {
        let ends = ENDS[usize::from(v6)];
        let [(mut fast, known), (mut slow, _)] = [0, 1].map(|_| path(v6, mode));
        fast.take_eights(eights);
        let replies = matches!(mode, Mode::Nat | Mode::FullNat);
        prop_assert_eq!(flows(&fast).len(), usize::from(FLOWS));
        for packets in bursts {
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            for (number, (port, flags, is_reply)) in packets.into_iter().enumerate() {
                let known = known.get(usize::from(port)).copied().unwrap_or(client(ends, port));
                let reply = (is_reply && replies).then_some(known);
                let frame = segment(ends, port, flags, reply, number as u8);
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

//! The fast path does with every packet what the four stages do.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use config::words::{Fate, NoBackend, Protocol};

use super::*;
use crate::flow::{FlowOwner, FlowValue};
use crate::local::{LocalAddresses, LocalSlot};
use crate::parse::plain::{Kind, NO_FRONT, Station, front, glance_v4};
use crate::samples::{Body, Sample, cases, endpoint, syn};
use crate::snapshot::{Backend, BackendSlot, Candidate, Gateway, Parts, Pool, PoolSlot};
use crate::stats::Counter;
use crate::wire::ipv4;

const PEERS: [[u8; 4]; 3] = [BACKEND, [198, 51, 100, 12], [198, 51, 100, 13]];

/// A packet of one of a few connections, which are so few that packets meet what others left.
#[derive(Clone, Debug)]
struct Step {
    packet: Packet,
    /// Bytes behind it that are padding.
    padding: usize,
    /// A byte of the frame that is not as it should be, and how.
    flaw: Option<(usize, u8)>,
    /// Whether the IPv4 header checksum is right in spite of it.
    mended: bool,
}

impl Step {
    fn frame(&self) -> HeapFrame {
        let mut bytes = self.packet.bytes();
        bytes.extend(vec![0xee; self.padding]);
        if let Some((at, how)) = self.flaw {
            let at = at % bytes.len();
            bytes[at] ^= how;
        }
        if self.mended {
            bytes[24..26].fill(0);
            let sum = !csum(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        HeapFrame::new(&bytes)
    }
}

/// The flow that a frame may be of, by protocol and the client's end, if any; and whether packets of that may overtake it:
/// it is not plain.
fn may_be_overtaken(frame: &HeapFrame) -> Option<((Protocol, IpAddr, u16), bool)> {
    let (headers, _) = parse(frame.head(), frame.len(), mac(254)).ok()?;
    let (src, dst) = (headers.ip.addresses.src(), headers.ip.addresses.dst());
    let is_reply = PEERS.map(IpAddr::from).contains(&src);
    let (client, port) = if is_reply { (dst, headers.dst_port) } else { (src, headers.src_port) };
    let mut padded = NO_FRONT;
    let front = front(frame.head(), &mut padded);
    let front = front.filter(|front| Station::new(mac(254)).kind(front) == Some(Kind::V4));
    let is_plain = front.is_some_and(|front| glance_v4(front, frame.len()).is_some());
    // Those with no hops left do not reach their flows.
    Some(((headers.protocol, client, port), !is_plain && headers.ip.ttl > 1))
}

fn steps() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, RST | ACK, 0x08, 0]);
    let shape = (any::<bool>(), any::<bool>(), any::<bool>(), 0usize..16, 1u8..4, any::<u8>());
    // Lengths, fragments, protocol and flags matter more than the rest.
    let telling = prop::sample::select(vec![14, 16, 17, 20, 21, 22, 23, 38, 39, 46, 47]);
    let flaw =
        prop::option::weighted(0.3, (prop_oneof![telling, 0usize..54], (0u8..8).prop_map(|bit| 1 << bit)));
    let to = prop::sample::select(vec![(VIP, 80), (VIP, 80), (VIP, 81), (OWN, 80), ([8, 8, 8, 8], 80)]);
    let ends = (0u16..4, 0usize..3, any::<bool>(), to);
    (ends, flags, shape, flaw, any::<bool>()).prop_map(|(ends, flags, shape, flaw, mended)| {
        let ((port, peer, reply, to), (udp, dont_fragment, options, padding, ttl, tos)) = (ends, shape);
        let client = (CLIENT, 40000 + port);
        let packet = if reply { packet((PEERS[peer], 8000), client) } else { packet(client, to) };
        let packet = if udp { packet.udp() } else { packet.flags(flags) };
        let options = if options && peer == 0 { vec![1, 1, 1, 0] } else { Vec::new() };
        Step { packet: Packet { ttl, tos, dont_fragment, options, ..packet }, padding, flaw, mended }
    })
}

/// Frames and counts in an order that both paths have in common. Outer headers are numbered in the order of
/// their making, which is not.
pub(super) fn settled(mut ends: Vec<End>) -> Vec<String> {
    for end in &mut ends {
        if let End::Sent(frame) = end
            && frame[14 + ipv4::PROTOCOL] == ipv4::PROTOCOL_IPIP
        {
            frame[18..20].fill(0);
            frame[24..26].fill(0);
        }
    }
    let mut ends: Vec<_> = ends.iter().map(|end| format!("{end:02x?}")).collect();
    ends.sort();
    ends
}

pub(super) fn flows(path: &Path) -> Vec<(FlowOwner, FlowValue)> {
    let mut flows = Vec::new();
    let table = path.forwarder.flows();
    (0..table.lines()).for_each(|line| table.visit(line, |owner, value| flows.push((owner, value))));
    flows
}

pub(super) fn counts(path: &Path) -> Vec<u64> {
    let drops = DropReason::ALL.iter().map(|why| path.stats.drops.get(*why));
    let backends = (0..6).flat_map(|slot| {
        let its = path.stats.backend(BackendSlot(slot));
        let load = path.stats.loads.get(BackendSlot(slot));
        let counters = [
            path.stats.conns(BackendSlot(slot)),
            &its.in_packets,
            &its.in_bytes,
            &its.out_packets,
            &its.out_bytes,
        ];
        counters.map(Counter::get).into_iter().chain([load.flows(), load.active()])
    });
    drops.chain(backends).chain([path.stats.punted.get(), path.stats.answered.get()]).collect()
}

/// What is asked of packets besides.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asks {
    Nothing,
    /// A lower segment size.
    Mss,
    /// That no flow is kept.
    OnePacket,
    /// No new flows.
    Retired,
    /// That senders to other ports are told.
    Telling,
    /// That what is for others passes.
    Passing,
}

const ASKS: [Asks; 7] =
    [Asks::Nothing, Asks::Nothing, Asks::Mss, Asks::OnePacket, Asks::Retired, Asks::Telling, Asks::Passing];

impl Asks {
    fn put(self, parts: &mut Parts) {
        match self {
            Self::Telling => parts.no_service = NoBackend::Icmp,
            Self::Passing => parts.interfaces[0].gateway = Some(Gateway::default()),
            _ => {}
        }
        for service in parts.services.iter_mut().flatten() {
            let service = Arc::make_mut(service);
            match self {
                Self::Nothing | Self::Telling | Self::Passing => {}
                Self::Mss => service.mss = Some(500),
                Self::OnePacket => service.one_packet = true,
                Self::Retired => service.retired = true,
            }
        }
    }
}

/// What becomes of TCP backends: they are up; or down, with their flows fated so.
type Fated = Option<Fate>;

const FATES: [Fate; 4] = [Fate::Keep, Fate::Keep, Fate::Reset, Fate::Reschedule];

fn befall(backend: &mut Backend, fated: Fated) {
    (backend.up, backend.fate) = (fated.is_none(), fated.unwrap_or_default());
}

fn world(mode: Mode, asks: Asks, fated: Fated) -> Snapshot {
    let mut parts = testing::world(mode);
    asks.put(&mut parts);
    parts.backends.iter_mut().take(2).flatten().for_each(|backend| befall(backend, fated));
    Snapshot::new(parts)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn both_paths_agree(
        mode in prop::sample::select(vec![Mode::Nat, Mode::Dr, Mode::Tunnel, Mode::FullNat]),
        asks in prop::sample::select(&ASKS[..]),
        fate in prop::sample::select(&FATES[..]),
        (workers, eights) in (1usize..3, any::<bool>()),
        bursts in prop::collection::vec((prop::collection::vec(steps(), 1..33), 0u32..3), 1..12),
    ) {
        let setup = Setup { team: Team::new(workers, 16, 64), ..testing::setup() };
        let [mut fast, mut slow] = [0, 1].map(|_| Path::set_up(world(mode, asks, None), setup.clone()));
        fast.take_eights(eights);
        for (number, (steps, wait)) in bursts.into_iter().enumerate() {
            if number == 4 {
                (fast.snapshot, slow.snapshot) =
                    (world(mode, asks, Some(fate)), world(mode, asks, Some(fate)));
            }
            // Nothing, a second, or longer than some states last.
            let wait = [0, 1, 65][wait as usize];
            (fast.now, slow.now) = (fast.now + wait, slow.now + wait);
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            let mut waiting = Vec::new();
            for step in &steps {
                let frame = step.frame();
                match may_be_overtaken(&frame) {
                    Some((flow, true)) => waiting.push(flow),
                    // It would find its flow as that packet did, or as it left it.
                    Some((flow, false)) if waiting.contains(&flow) => continue,
                    _ => {}
                }
                one.push(frame.clone()).unwrap();
                other.push(frame).unwrap();
            }
            let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
            prop_assert_eq!(settled(one), settled(other));
            prop_assert_eq!(flows(&fast), flows(&slow));
            prop_assert_eq!(counts(&fast), counts(&slow));
        }
    }
}

/// A packet of one of a few connections of either IP version. A reply of full NAT goes to one of the local ports
/// that were seen.
#[derive(Clone, Debug)]
struct WideStep {
    client: u16,
    reply: bool,
    body: Body,
    ttl: u8,
    tos: u8,
    padding: usize,
    flaw: Option<(usize, u8)>,
}

impl WideStep {
    /// `locals` are those that packets of TCP and of UDP came from.
    fn frame(&self, ends: [&str; 3], locals: &[Vec<SocketAddr>; 2]) -> HeapFrame {
        let [client, vip, backend] = ends.map(endpoint);
        let client = SocketAddr::new(client.ip(), client.port() + self.client);
        let locals = &locals[usize::from(matches!(self.body, Body::Udp { .. }))];
        let local = locals.get(usize::from(self.client) % locals.len().max(1)).copied().unwrap_or(client);
        let (src, dst) = if self.reply { (backend, local) } else { (client, vip) };
        let sample = Sample { src, dst, ttl: self.ttl, tos: self.tos, ..syn(ends[0], ends[1]) };
        let mut bytes = Sample { body: self.body.clone(), ..sample }.bytes();
        bytes.extend(vec![0xee; self.padding]);
        if let Some((at, how)) = self.flaw {
            let at = at % bytes.len();
            bytes[at] ^= how;
        }
        HeapFrame::new(&bytes)
    }
}

fn wide_steps() -> impl Strategy<Value = WideStep> {
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, 0x08]);
    // The largest segment, 1460 bytes.
    let options = prop_oneof![Just(Vec::new()), Just(vec![2, 4, 5, 0xb4])];
    let tcp = (flags, options).prop_map(|(flags, options)| Body::Tcp { flags, options });
    let body = prop_oneof![3 => tcp, 1 => any::<bool>().prop_map(|checksum| Body::Udp { checksum })];
    let flaw = prop::option::weighted(0.2, (0usize..80, (0u8..8).prop_map(|bit| 1 << bit)));
    (0u16..4, any::<bool>(), body, any::<(u8, u8)>(), 0usize..16, flaw).prop_map(
        |(client, reply, body, (ttl, tos), padding, flaw)| WideStep {
            client,
            reply,
            body,
            ttl,
            tos,
            padding,
            flaw,
        },
    )
}

/// Client, VIP, backend and local address, by IP version.
pub(super) const ENDS: [[&str; 4]; 2] = [
    ["203.0.113.7:40000", "192.0.2.100:80", "198.51.100.11:8000", "198.51.100.200"],
    ["[2001:db8:c::7]:40000", "[2001:db8::100]:80", "[2001:db8:b::11]:8000", "2001:db8:b::200"],
];

const MODES: [Mode; 5] = [Mode::Nat, Mode::Dr, Mode::Tunnel, Mode::FullNat, Mode::FullNat];

/// By IP version and number of workers, of the first of them. Made once: it takes a while.
static ADDRESSES: LazyLock<[[LocalAddresses; 2]; 2]> = LazyLock::new(|| {
    let address =
        |local: &str, workers| LocalAddresses::new(&[local.parse().unwrap()], &Owners::new(workers), 0);
    ENDS.map(|ends| [1, 2].map(|workers| address(ends[3], workers)))
});

/// Its backends are reached in `mode`, in full NAT from the local address and then every other one directly, or under NAT
/// if the address is `spare` (and not of IPv4, of which replies before their openings find these open). In other modes
/// there is that address if it is spare.
pub(super) fn wide_world(
    [_, vip, backend, local]: [&str; 4],
    (mode, spare): (Mode, bool),
    asks: Asks,
    fated: Fated,
) -> Snapshot {
    let backend = if mode == Mode::Dr { backend.replace(":8000", ":80") } else { backend.to_string() };
    let mut parts = modes::world(vip, &backend, mode);
    parts.backends.iter_mut().take(1).flatten().for_each(|backend| befall(backend, fated));
    if mode == Mode::FullNat {
        let direct = parts.backends.clone().into_iter().flatten();
        let mode = if spare && !backend.contains('.') { Mode::Nat } else { Mode::Dr };
        parts.backends.extend(direct.map(|backend| Some(Backend { mode, ..backend })));
        for (service, slot) in parts.services.iter_mut().flatten().zip(0u32..) {
            let candidates = [slot, slot + 2].map(|slot| Candidate::new(BackendSlot(slot), 1));
            Arc::make_mut(service).candidates = candidates.into();
        }
    }
    asks.put(&mut parts);
    let pool = (mode == Mode::FullNat).then_some(PoolSlot(0));
    parts.services.iter_mut().flatten().for_each(|service| Arc::make_mut(service).pool = pool);
    if mode == Mode::FullNat || spare {
        parts.locals = vec![local.parse().unwrap()];
        parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(0)] }];
    }
    Snapshot::new(parts)
}

/// The local addresses and ports that sent frames come from.
pub(super) fn locals_of<'a>(ends: impl IntoIterator<Item = &'a End>, local: IpAddr) -> Vec<SocketAddr> {
    let sent = ends.into_iter().filter_map(|end| if let End::Sent(frame) = end { Some(frame) } else { None });
    let (src, ports) = if local.is_ipv4() { (26..30, 34) } else { (22..38, 54) };
    let local_bytes = match local {
        IpAddr::V4(local) => local.octets().to_vec(),
        IpAddr::V6(local) => local.octets().to_vec(),
    };
    sent.filter(|frame| frame[src.clone()] == local_bytes[..])
        .map(|frame| SocketAddr::new(local, u16::from_be_bytes([frame[ports], frame[ports + 1]])))
        .collect()
}

/// The same of TCP, and of UDP: a reply to a port that nobody has yet may find the flow of an opening behind it, which is by
/// chance the one to get that port.
#[cfg(not(miri))]
fn locals_by_protocol(ends: &[End], local: IpAddr) -> [Vec<SocketAddr>; 2] {
    use crate::wire::{eth, ipv6};
    let at = eth::HEADER_LEN + if local.is_ipv4() { ipv4::PROTOCOL } else { ipv6::NEXT };
    [ipv4::PROTOCOL_TCP, ipv4::PROTOCOL_UDP].map(|protocol| {
        let is_its = |end: &&End| matches!(end, End::Sent(frame) if frame[at] == protocol);
        locals_of(ends.iter().filter(is_its), local)
    })
}

// Not under miri: a local address has 64,512 ports, which take it minutes.
#[cfg(not(miri))]
proptest! {
    #![proptest_config(cases())]

    #[test]
    fn both_paths_agree_in_all_modes_of_either_version(
        (v6, spare) in any::<(bool, bool)>(),
        mode in prop::sample::select(&MODES[..]),
        asks in prop::sample::select(&ASKS[..]),
        fate in prop::sample::select(&FATES[..]),
        (workers, eights) in (1usize..3, any::<bool>()),
        bursts in prop::collection::vec((prop::collection::vec(wide_steps(), 1..33), 0u32..3), 1..12),
    ) {
        let ends = ENDS[usize::from(v6)];
        let local: IpAddr = ends[3].parse().unwrap();
        let address = &ADDRESSES[usize::from(v6)][workers - 1];
        let setup = Setup { team: Team::new(workers, 16, 64), ..testing::setup() };
        let [mut fast, mut slow] = [0, 1].map(|_| {
            let mut path = Path::set_up(wide_world(ends, (mode, spare), asks, None), setup.clone());
            path.forwarder.install(LocalSlot(0), address.clone());
            path
        });
        fast.take_eights(eights);
        let mut locals = [const { Vec::new() }; 2];
        for (number, (steps, wait)) in bursts.into_iter().enumerate() {
            if number == 4 {
                (fast.snapshot, slow.snapshot) =
                    [0, 1].map(|_| wide_world(ends, (mode, spare), asks, Some(fate))).into();
            }
            let wait = [0, 1, 65][wait as usize];
            (fast.now, slow.now) = (fast.now + wait, slow.now + wait);
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            for step in &steps {
                let frame = step.frame([ends[0], ends[1], ends[2]], &locals);
                one.push(frame.clone()).unwrap();
                other.push(frame).unwrap();
            }
            let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
            let new = locals_by_protocol(&one, local);
            locals.iter_mut().zip(new).for_each(|(locals, new)| locals.extend(new));
            prop_assert_eq!(settled(one), settled(other));
            prop_assert_eq!(flows(&fast), flows(&slow));
            prop_assert_eq!(counts(&fast), counts(&slow));
        }
    }
}

/// Among eight packets that are told together.
#[test]
fn a_packet_for_nobody_among_others_has_the_fast_path_too() {
    let mut path = Path::nat();
    for port in 0..8 {
        path.send(&request(40000 + port, SYN));
        path.send(&request(40000 + port, ACK));
    }
    for nobodys in 0..8 {
        let mut burst = Burst::default();
        for port in 0..8 {
            let to = if port == nobodys { 81 } else { 80 };
            let frame = packet((CLIENT, 40000 + port), (VIP, to)).flags(ACK).bytes();
            burst.push(HeapFrame::new(&frame)).unwrap();
        }
        path.received += 8;
        let mut were_all = false;
        let ends = path.ends(|path, context| {
            were_all = path.forwarder.forward_known(context, PORT, &mut burst, path.out);
        });
        assert_eq!((were_all, ends.len()), (true, 8), "{nobodys}");
    }
}

#[test]
fn a_packet_does_not_overtake_the_opening_of_its_flow() {
    let mut path = Path::nat();
    assert_eq!(path.backend_of(&request(40000, SYN)), 11);
    path.send(&request(40000, ACK));
    path.send(&request(40000, RST));
    let mut burst = Burst::default();
    for flags in [SYN, ACK] {
        burst.push(HeapFrame::new(&request(40000, flags).bytes())).unwrap();
    }
    let ends = path.forward(&mut burst);
    let backends = ends.iter().map(|end| if let End::Sent(frame) = end { frame[5] } else { 0 });
    assert_eq!(backends.collect::<Vec<_>>(), [12, 12]);
}

#[test]
fn a_first_datagram_that_is_too_long_counts_once() {
    let sized = |len: usize, dont_fragment| {
        let datagram = Packet { payload: vec![0; len - 28], dont_fragment, ..request(40000, 0) }.udp();
        HeapFrame::new(&datagram.bytes())
    };
    for (mode, most) in [(Mode::Nat, 1500), (Mode::Dr, 1500), (Mode::Tunnel, 1480)] {
        for dont_fragment in [false, true] {
            let [mut fast, mut slow] = [0, 1].map(|_| Path::new(testing::snapshot(mode)));
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            one.push(sized(most + 1, dont_fragment)).unwrap();
            other.push(sized(most + 1, dont_fragment)).unwrap();
            assert_eq!(settled(fast.forward(&mut one)), settled(slow.forward_slowly(&mut other)));
            assert_eq!(flows(&fast), flows(&slow), "{mode:?}");
            assert_eq!(counts(&fast), counts(&slow));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Also of those that leave together, and what comes between them.
    #[test]
    fn packets_of_a_flow_keep_their_order(
        eights: bool,
        mode in prop::sample::select(vec![Mode::Dr, Mode::Nat]),
        bursts in prop::collection::vec(prop::collection::vec(
            (0u16..3, prop::sample::select(vec![SYN, ACK, ACK, ACK, FIN | ACK, RST]), any::<bool>()),
            1..BURST,
        ), 1..6),
    ) {
        let mut path = Path::new(world(mode, Asks::Nothing, None));
        path.take_eights(eights);
        for packets in bursts {
            let mut burst = Burst::default();
            for (number, (port, flags, udp)) in packets.into_iter().enumerate() {
                let packet = Packet { payload: vec![number as u8], ..request(40000 + port, flags) };
                let packet = if udp { packet.udp() } else { packet };
                burst.push(HeapFrame::new(&packet.bytes())).unwrap();
            }
            let mut last = std::collections::HashMap::new();
            for end in path.forward(&mut burst) {
                let End::Sent(frame) = end else { continue };
                // Protocol and client's port, and the number that is its data.
                let (flow, number) = ((frame[23], frame[34], frame[35]), frame.last().copied());
                let before = last.insert(flow, number).flatten();
                prop_assert!(before < number, "{before:?}, {number:?}");
            }
        }
    }
}

/// Whether the fast path has an easy way for a packet.
fn is_known(path: &mut Path, packet: &Packet) -> bool {
    is_known_frame(path, HeapFrame::new(&packet.bytes()))
}

fn is_known_frame(path: &mut Path, frame: HeapFrame) -> bool {
    let context = Context { snapshot: &path.snapshot, now: path.now };
    path.forwarder.carries(context, PORT, frame)
}

#[test]
fn the_fast_path_is_taken_by_flows_that_stay_as_they_are() {
    let mut path = Path::nat();
    let reply = packet((BACKEND, 8000), (CLIENT, 40000)).flags(ACK);
    assert!(!is_known(&mut path, &request(40000, ACK)) && !is_known(&mut path, &reply));
    path.send(&request(40000, SYN));
    assert!(!is_known(&mut path, &request(40000, ACK)), "it becomes established");
    path.send(&request(40000, ACK));
    assert!(is_known(&mut path, &request(40000, ACK)) && is_known(&mut path, &reply));
    for mode in [Mode::Dr, Mode::Tunnel] {
        let mut path = Path::new(testing::snapshot(mode));
        path.send(&request(40000, SYN));
        path.send(&request(40000, ACK));
        assert!(is_known(&mut path, &request(40000, ACK)), "{mode:?}");
    }
}

// Not under miri: a local address has 64,512 ports, which take it minutes.
#[cfg(not(miri))]
#[test]
fn the_fast_path_is_taken_in_all_modes_of_either_version() {
    for ends @ [client, vip, backend, local] in ENDS {
        let local: IpAddr = local.parse().unwrap();
        for mode in [Mode::Nat, Mode::Dr, Mode::Tunnel, Mode::FullNat] {
            let mut path = Path::new(wide_world(ends, (mode, false), Asks::Nothing, None));
            path.forwarder.install(LocalSlot(0), LocalAddresses::new(&[local], &Owners::new(1), 0));
            let opening = syn(client, vip);
            let body = Body::Tcp { flags: ACK, options: Vec::new() };
            let later = Sample { body: body.clone(), ..opening.clone() };
            let sent = path.pass(opening.frame());
            path.pass(later.frame());
            assert!(is_known_frame(&mut path, later.frame()), "{vip} {mode:?}");
            let to = match mode {
                Mode::FullNat => locals_of(&[sent], local)[0],
                Mode::Nat => endpoint(client),
                Mode::Dr | Mode::Tunnel => continue,
            };
            let reply = Sample { src: endpoint(backend), dst: to, body, ..opening };
            assert!(is_known_frame(&mut path, reply.frame()), "{vip} {mode:?}");
        }
    }
}

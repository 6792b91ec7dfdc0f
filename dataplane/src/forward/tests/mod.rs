//! Frames in and out through the whole path, and its laws as properties.

mod answers;
mod client_address;
mod echo;
mod fast;
mod fate;
mod full_nat;
mod gateway;
mod icmp;
mod limits;
mod modes;
mod persist;
mod ports;
mod schedule;

use std::collections::HashMap;
use std::net::IpAddr;

use config::words::Mode;
use proptest::prelude::*;

use super::*;
use crate::buf::HeapFrame;
use crate::snapshot::{BackendSlot, NeighbourTable};
use crate::testing::{self, CLIENT, OWN, Packet, VIP, mac, packet};
use crate::wire::tcp::{ACK, FIN, RST, SYN};

pub(super) const BACKEND: [u8; 4] = [198, 51, 100, 11];
const PORT: PortId = PortId(0);

/// A worker's packet path with its surroundings, one frame at a time.
pub(super) struct Path {
    pub(super) forwarder: Forwarder<HeapFrame>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) snapshot: Snapshot,
    out: Outbox<HeapFrame>,
    pub(super) now: Seconds,
    received: u64,
}

/// What runs of a [`Path`] while its snapshot is read.
pub(super) struct Running<'a> {
    forwarder: &'a mut Forwarder<HeapFrame>,
    out: &'a mut Outbox<HeapFrame>,
}

/// Where a frame ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Sent(Vec<u8>),
    Punted(PuntReason, Vec<u8>),
    HandedOver(usize),
    Dropped(DropReason),
}

impl Path {
    pub(super) fn new(snapshot: Snapshot) -> Self {
        Self::of(snapshot, 0, 1, 100)
    }

    pub(super) fn of(snapshot: Snapshot, number: usize, workers: usize, flow_capacity: usize) -> Self {
        Self::set_up(
            snapshot,
            Setup { number, team: Team::new(workers, 16, 64), flow_capacity, ..testing::setup() },
        )
    }

    /// One of several workers that know of each other.
    pub(super) fn in_team(snapshot: Snapshot, number: usize, team: &Arc<Team>) -> Self {
        Self::set_up(snapshot, Setup { number, team: Arc::clone(team), ..testing::setup() })
    }

    fn set_up(snapshot: Snapshot, setup: Setup) -> Self {
        let stats = Arc::new(WorkerStats::new(16));
        let workers = setup.team.workers();
        Self {
            forwarder: Forwarder::new(&setup, Arc::clone(&stats)),
            stats,
            snapshot,
            out: Outbox {
                transmit: vec![Burst::default()],
                punt: Arc::new(ArrayQueue::new(4)),
                owners: (0..workers).map(|_| Arc::new(ArrayQueue::new(4))).collect(),
            },
            now: 100,
            received: 0,
        }
    }

    pub(super) fn nat() -> Self {
        Self::new(testing::snapshot(Mode::Nat))
    }

    /// Forwards one frame and says where it ended.
    pub(super) fn pass(&mut self, frame: HeapFrame) -> End {
        let mut ends = self.offer(frame);
        assert_eq!(ends.len(), 1, "a frame ends in one place: {ends:?}");
        ends.remove(0)
    }

    /// Forwards one frame and says where it ended, and with it others that waited.
    pub(super) fn offer(&mut self, frame: HeapFrame) -> Vec<End> {
        let mut burst = Burst::default();
        burst.push(frame).unwrap();
        self.forward(&mut burst)
    }

    /// Forwards a burst and says where its frames ended.
    pub(super) fn forward(&mut self, burst: &mut Burst<HeapFrame>) -> Vec<End> {
        self.received += burst.len() as u64;
        self.ends(|path, context| path.forwarder.forward(context, PORT, burst, path.out))
    }

    /// The same without the fast path.
    fn forward_slowly(&mut self, burst: &mut Burst<HeapFrame>) -> Vec<End> {
        self.received += burst.len() as u64;
        self.ends(|path, context| {
            path.forwarder.forward_staged(context, PORT, burst, path.out);
            burst.clear();
        })
    }

    /// Forwards pieces whose first one came.
    pub(super) fn offer_ready(&mut self) -> Vec<End> {
        self.ends(|path, context| path.forwarder.forward_ready(context, path.out))
    }

    pub(super) fn housekeeping(&mut self) {
        self.ends(|path, context| path.forwarder.housekeeping(context, 1000));
    }

    /// Where frames ended in a step.
    fn ends(&mut self, step: impl FnOnce(&mut Running, Context)) -> Vec<End> {
        let before: Vec<_> = DropReason::ALL.iter().map(|why| self.stats.drops.get(*why)).collect();
        let context = Context { snapshot: &self.snapshot, now: self.now };
        let mut running = Running { forwarder: &mut self.forwarder, out: &mut self.out };
        step(&mut running, context);
        let mut ends = Vec::new();
        while let Some(frame) = self.out.transmit[0].take_front() {
            ends.push(End::Sent(frame.bytes().to_vec()));
        }
        while let Some(punt) = self.out.punt.pop() {
            ends.push(End::Punted(punt.why, punt.frame.bytes().to_vec()));
        }
        for (owner, queue) in self.out.owners.iter().enumerate() {
            ends.extend(queue.pop().map(|_| End::HandedOver(owner)));
        }
        let dropped = DropReason::ALL.iter().zip(before);
        let dropped = dropped.filter(|(why, before)| self.stats.drops.get(**why) > *before);
        ends.extend(dropped.map(|(why, _)| End::Dropped(*why)));
        ends
    }

    pub(super) fn send(&mut self, packet: &Packet) -> End {
        self.pass(HeapFrame::new(&packet.bytes()))
    }

    /// The last byte of the backend's address that a client's packet is sent to.
    fn backend_of(&mut self, packet: &Packet) -> u8 {
        match self.send(packet) {
            End::Sent(frame) => frame[5],
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn request(port: u16, flags: u8) -> Packet {
    packet((CLIENT, port), (VIP, 80)).flags(flags)
}

/// What arrives at a backend or, by the gateway, at the client: as `packet`, one hop older.
pub(super) fn arrived(packet: Packet, to: u8) -> Vec<u8> {
    let mut bytes = Packet { dst_mac: mac(to), ttl: packet.ttl - 1, ..packet }.bytes();
    bytes[6..12].copy_from_slice(&mac(254).0);
    bytes
}

#[test]
fn nat_rewrites_both_ways() {
    let mut path = Path::nat();
    let udp = |packet: Packet| packet.udp();
    let tcp = |packet: Packet| packet;
    for change in [tcp as fn(Packet) -> Packet, udp] {
        let to_vip = change(request(40000, SYN));
        let to_backend = Packet { dst: BACKEND, ports: (40000, 8000), ..to_vip.clone() };
        assert_eq!(path.send(&to_vip), End::Sent(arrived(to_backend, 11)));
        let reply = change(packet((BACKEND, 8000), (CLIENT, 40000)).flags(SYN | ACK));
        let from_vip = Packet { src: VIP, ports: (80, 40000), ..reply.clone() };
        assert_eq!(path.send(&reply), End::Sent(arrived(from_vip, 1)));
    }
}

#[test]
fn dr_changes_macs_and_ttl_only() {
    let mut path = Path::new(testing::snapshot(Mode::Dr));
    let mut to_vip = request(40000, SYN);
    to_vip.options = vec![1, 1, 1, 0];
    assert_eq!(path.send(&to_vip), End::Sent(arrived(to_vip, 11)));
}

#[test]
fn tunnel_puts_an_outer_header_on() {
    let mut path = Path::new(testing::snapshot(Mode::Tunnel));
    for (dont_fragment, id) in [(true, 0), (false, 0), (true, 0), (false, 1)] {
        let inner = Packet { dont_fragment, tos: 0xb9, ttl: 9, ..request(40000, SYN) };
        let End::Sent(frame) = path.send(&inner) else { panic!() };
        let carried = arrived(inner, 11);
        assert_eq!((&frame[..14], &frame[34..]), (&carried[..14], &carried[14..]));
        let outer = &frame[14..34];
        assert_eq!(csum(outer), 0xffff);
        assert_eq!(u16::from_be_bytes([outer[2], outer[3]]) as usize, frame.len() - 14);
        assert_eq!((outer[0], outer[1], outer[8], outer[9]), (0x45, 0xb9, 8, 4));
        assert_eq!((&outer[12..16], &outer[16..20]), (&OWN[..], &BACKEND[..]));
        assert_eq!(outer[4..8], if dont_fragment { [0, 0, 0x40, 0] } else { [0, id, 0, 0] });
    }
}

fn csum(bytes: &[u8]) -> u16 {
    crate::csum::sum(bytes)
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() {
    let mut path = Path::nat();
    let mut bytes = request(40000, 0).udp().bytes();
    bytes[40..42].fill(0);
    let End::Sent(frame) = path.pass(HeapFrame::new(&bytes)) else { panic!() };
    assert_eq!(frame[40..42], [0, 0]);
}

#[test]
fn a_wrong_checksum_is_not_mended() {
    let mut path = Path::nat();
    let mut bytes = request(40000, SYN).bytes();
    bytes[50] ^= 0x40;
    let End::Sent(frame) = path.pass(HeapFrame::new(&bytes)) else { panic!() };
    let right = arrived(Packet { dst: BACKEND, ports: (40000, 8000), ..request(40000, SYN) }, 11);
    assert_ne!(frame[50..52], right[50..52]);
}

#[test]
fn padding_is_cut_and_later_segments_travel_along() {
    let mut path = Path::nat();
    let mut padded = request(40000, SYN).bytes();
    let right = arrived(Packet { dst: BACKEND, ports: (40000, 8000), ..request(40000, SYN) }, 11);
    padded.extend([0xee; 7]);
    assert_eq!(path.pass(HeapFrame::new(&padded)), End::Sent(right));
    let long = Packet { payload: (0..1400).map(|byte| byte as u8).collect(), ..request(40000, ACK) };
    let right = arrived(Packet { dst: BACKEND, ports: (40000, 8000), ..long.clone() }, 11);
    assert_eq!(path.pass(HeapFrame::segmented(&long.bytes(), 60)), End::Sent(right));
}

#[test]
fn each_malformed_frame_has_its_reason() {
    use DropReason::*;
    type Breakage = fn(&mut Vec<u8>);
    let mend = |bytes: &mut Vec<u8>| {
        bytes[24..26].fill(0);
        let sum = !csum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let cases: &[(&str, Breakage, DropReason)] = &[
        ("half an Ethernet header", |b| b.truncate(13), Truncated),
        ("half an IP header", |b| b.truncate(33), Truncated),
        ("half a TCP header", |b| b.truncate(53), Truncated),
        ("shorter than its total length", |b| b.truncate(58), Truncated),
        ("another station", |b| b[5] ^= 1, NotOurMac),
        ("a group", |b| b[..6].fill(0xff), NotOurMac),
        ("IPv6 by its Ethertype only", |b| b[12..14].copy_from_slice(&[0x86, 0xdd]), BadIpHeader),
        ("three VLAN tags", |b| drop(b.splice(12..12, [0x81, 0, 0, 7].repeat(3))), BadVlan),
        ("the tag of no interface", |b| drop(b.splice(12..12, [0x81, 0, 0, 7])), BadVlan),
        ("802.3 length", |b| b[12..14].copy_from_slice(&[0, 46]), UnknownEthertype),
        ("version 6", |b| b[14] = 0x65, BadIpHeader),
        ("IHL 4", |b| b[14] = 0x44, BadIpHeader),
        (
            "IHL past the frame",
            |b| {
                b.truncate(54);
                b[14] = 0x4f
            },
            Truncated,
        ),
        ("total length 19", |b| b[16..18].copy_from_slice(&[0, 19]), BadIpLength),
        ("header checksum", |b| b[24] ^= 1, BadIpChecksum),
        ("source 0.0.0.0", |b| b[26..30].fill(0), MartianAddress),
        ("source loopback", |b| b[26] = 127, MartianAddress),
        ("source multicast", |b| b[26] = 224, MartianAddress),
        ("source broadcast", |b| b[26..30].fill(255), MartianAddress),
        ("destination 0.0.0.0", |b| b[30..34].fill(0), MartianAddress),
        ("destination multicast", |b| b[30] = 239, MartianAddress),
        ("source is destination", |b| b[26..30].copy_from_slice(&VIP), MartianAddress),
        ("first piece of another protocol", |b| (b[20], b[23]) = (0x20, 47), Fragment),
        ("later piece of another protocol", |b| (b[21], b[23]) = (9, 47), Fragment),
        ("first piece with half a header", |b| (b[17], b[20]) = (36, 0x20), FragmentTiny),
        ("a piece within the TCP header", |b| b[21] = 1, FragmentTiny),
        ("a piece of odd length", |b| b[20] = 0x20, BadFragment),
        ("GRE", |b| b[23] = 47, UnknownProtocol),
        ("TCP of 19 bytes", |b| b[16..18].copy_from_slice(&[0, 39]), BadTcpHeader),
        ("data offset 4", |b| b[46] = 0x40, BadTcpHeader),
        ("data offset past the segment", |b| b[46] = 0xf0, BadTcpHeader),
        ("no flags", |b| b[47] = 0, BadTcpFlags),
        ("SYN and FIN", |b| b[47] = SYN | FIN, BadTcpFlags),
        ("SYN and RST", |b| b[47] = SYN | RST, BadTcpFlags),
        (
            "UDP of 7 bytes",
            |b| {
                b[23] = 17;
                b[16..18].copy_from_slice(&[0, 27])
            },
            BadUdpLength,
        ),
        (
            "UDP length 7",
            |b| {
                b[23] = 17;
                b[38..40].copy_from_slice(&[0, 7])
            },
            BadUdpLength,
        ),
        (
            "UDP length past the datagram",
            |b| {
                b[23] = 17;
                b[38..40].copy_from_slice(&[0, 99])
            },
            BadUdpLength,
        ),
        ("another port", |b| b[37] = 81, NoService),
        ("another address", |b| b[33] ^= 1, NoService),
        ("an ACK out of nowhere", |b| b[47] = ACK, NoFlowNotSyn),
        ("a SYN-ACK out of nowhere", |b| b[47] = SYN | ACK, NoFlowNotSyn),
    ];
    let mut path = Path::nat();
    for (name, breakage, why) in cases {
        let mut bytes = request(40000, SYN).bytes();
        breakage(&mut bytes);
        if ![BadIpChecksum, BadVlan].contains(why) && bytes.len() >= 34 {
            mend(&mut bytes);
        }
        assert_eq!(path.pass(HeapFrame::new(&bytes)), End::Dropped(*why), "{name}");
    }
    assert!(path.forwarder.flows().is_empty(), "none of them made a flow");
    assert_eq!(path.stats.drops.total(), path.received);
}

#[test]
fn headers_must_lie_in_the_first_segment() {
    let bytes = request(40000, SYN).bytes();
    for head_len in (0..54).step_by(if cfg!(miri) { 9 } else { 1 }) {
        let mut path = Path::nat();
        let end = path.pass(HeapFrame::segmented(&bytes, head_len));
        assert_eq!(end, End::Dropped(DropReason::Truncated), "{head_len} bytes");
    }
}

#[test]
fn arp_and_unknown_next_hops_go_to_the_control_thread() {
    let mut path = Path::nat();
    let mut arp = vec![0xff; 6];
    arp.extend(mac(1).0);
    arp.extend([8, 6, 0, 1]);
    assert_eq!(path.pass(HeapFrame::new(&arp)), End::Punted(PuntReason::Arp(InterfaceId(0)), arp.clone()));
    let mut parts = testing::world(Mode::Nat);
    parts.neighbours = Arc::new(NeighbourTable::new([]));
    let mut path = Path::new(Snapshot::new(parts));
    let End::Punted(PuntReason::Resolve(hop), frame) = path.send(&request(40000, SYN)) else { panic!() };
    assert_eq!(hop.address, IpAddr::from(BACKEND));
    let right = arrived(Packet { dst: BACKEND, ports: (40000, 8000), ..request(40000, SYN) }, 0);
    assert_eq!(
        (&frame[..6], &frame[6..]),
        (&[0; 6][..], &right[6..]),
        "finished but for the destination MAC"
    );
    assert_eq!(path.stats.punted.get(), 1);
}

#[test]
fn round_robin_spreads_flows_and_each_keeps_its_backend() {
    let mut path = Path::nat();
    let first: Vec<u8> = (0..6).map(|number| path.backend_of(&request(40000 + number, SYN))).collect();
    assert_eq!(first, [11, 12, 13, 11, 12, 13]);
    for number in (0..6).rev() {
        assert_eq!(path.backend_of(&request(40000 + number, ACK)), first[usize::from(number)]);
    }
    assert_eq!(path.forwarder.flows().len(), 6);
}

#[test]
fn a_flow_outlives_the_configuration() {
    let mut path = Path::nat();
    assert_eq!(path.backend_of(&request(40000, SYN)), 11);
    let mut parts = testing::world(Mode::Nat);
    parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[(1, 1)]).into());
    path.snapshot = Snapshot::new(parts.clone());
    assert_eq!(path.backend_of(&request(40000, ACK)), 11, "its backend takes no new flows");
    assert_eq!(path.backend_of(&request(40001, SYN)), 12);
    let mut retired = testing::service("tcp:192.0.2.100:80", &[]);
    retired.retired = true;
    parts.services[0] = Some(retired.into());
    path.snapshot = Snapshot::new(parts);
    assert_eq!(path.backend_of(&request(40000, ACK)), 11, "its service is gone");
    assert_eq!(path.send(&request(40002, SYN)), End::Dropped(DropReason::NoService));
}

#[test]
fn idle_flows_expire_by_their_state() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    path.send(&request(40001, SYN));
    path.send(&request(40001, ACK));
    path.now += 61;
    assert_eq!(path.send(&request(40000, ACK)), End::Dropped(DropReason::NoFlowNotSyn), "SYN_RECV: 60 s");
    path.now += 839;
    assert_eq!(path.backend_of(&request(40001, ACK)), 12, "ESTABLISHED: 900 s");
    path.now += 901;
    assert_eq!(path.send(&request(40001, ACK)), End::Dropped(DropReason::NoFlowNotSyn));
}

#[test]
fn the_sweeper_ends_what_nobody_asks_for() {
    let mut path = Path::nat();
    for port in 0..50 {
        path.send(&request(port, SYN));
    }
    path.now += 61;
    let context = Context { snapshot: &path.snapshot, now: path.now };
    for _ in 0..path.forwarder.flows().lines() {
        path.forwarder.housekeeping(context, 16);
    }
    assert!(path.forwarder.flows().is_empty());
    assert_eq!((path.stats.expired.get(), path.stats.flows.get()), (50, 0));
    assert_eq!(gauges(&path), (0, 0));
}

/// Active and inactive flows of all backends.
fn gauges(path: &Path) -> (u64, u64) {
    let loads = (0..16).map(|slot| path.stats.loads.get(BackendSlot(slot)));
    loads.fold((0, 0), |(active, inactive), it| (active + it.active(), inactive + it.inactive()))
}

#[test]
fn counters_follow_a_connection() {
    let mut path = Path::nat();
    let reply = |flags| packet((BACKEND, 8000), (CLIENT, 40000)).flags(flags);
    path.send(&request(40000, SYN));
    path.send(&reply(SYN | ACK));
    path.send(&request(40000, ACK));
    assert_eq!(gauges(&path), (1, 0));
    path.send(&reply(FIN | ACK));
    assert_eq!(gauges(&path), (0, 1));
    path.send(&request(40000, FIN | ACK));
    let counters = path.stats.backend(BackendSlot(0));
    assert_eq!(counters.conns.get(), 1);
    assert_eq!((counters.in_packets.get(), counters.in_bytes.get()), (3, 3 * 45));
    assert_eq!((counters.out_packets.get(), counters.out_bytes.get()), (2, 2 * 45));
}

#[test]
fn a_closed_connection_is_scheduled_anew_from_the_same_port() {
    for (mode, last) in [(Mode::Nat, RST | ACK), (Mode::Dr, FIN | ACK), (Mode::Tunnel, RST | ACK)] {
        let mut path = Path::new(testing::snapshot(mode));
        assert_eq!(path.backend_of(&request(40000, SYN)), 11);
        assert_eq!(path.backend_of(&request(40000, SYN)), 11, "a retransmission");
        path.send(&request(40000, ACK));
        path.send(&request(40000, last));
        assert_eq!(path.backend_of(&request(40000, SYN)), 12, "{mode}");
        assert_eq!((path.forwarder.flows().len(), gauges(&path)), (1, (1, 0)));
    }
}

/// Two services whose only backend is the same server.
#[test]
fn an_opening_that_a_dead_backend_left_unanswered_is_scheduled_anew() {
    for mode in [Mode::Nat, Mode::Dr] {
        let mut path = Path::new(testing::snapshot(mode));
        let (unanswered, established) = (request(40000, SYN), request(40003, SYN));
        assert_eq!(path.backend_of(&unanswered), 11);
        for port in 40001..40003 {
            path.send(&request(port, SYN));
        }
        assert_eq!(path.backend_of(&established), 11);
        path.send(&request(40003, ACK));
        let mut parts = testing::world(mode);
        parts.backends[0].as_mut().unwrap().up = false;
        parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[(1, 1), (2, 1)]).into());
        path.snapshot = Snapshot::new(parts);
        assert_ne!(path.backend_of(&unanswered), 11, "the repeated SYN finds another backend");
        assert_eq!(path.backend_of(&request(40003, ACK)), 11, "an established flow stays");
    }
}

fn shared_backend() -> Path {
    let mut parts = testing::parts();
    parts.services = vec![
        Some(testing::service("tcp:192.0.2.100:80", &[(0, 1)]).into()),
        Some(testing::service("tcp:192.0.2.101:80", &[(1, 1)]).into()),
    ];
    let backends = [0, 1].map(|service| Some(testing::backend(service, "198.51.100.11:8000", Mode::Nat)));
    parts.backends = backends.into();
    Path::new(Snapshot::new(parts))
}

#[test]
fn replies_of_a_shared_backend_go_back_to_the_right_vip() {
    let mut path = shared_backend();
    let other_vip = [192, 0, 2, 101];
    path.send(&request(40000, SYN));
    path.send(&packet((CLIENT, 40001), (other_vip, 80)));
    for (port, vip) in [(40000, VIP), (40001, other_vip)] {
        let reply = packet((BACKEND, 8000), (CLIENT, port)).flags(SYN | ACK);
        let right = Packet { src: vip, ports: (80, port), ..reply.clone() };
        assert_eq!(path.send(&reply), End::Sent(arrived(right, 1)));
    }
}

#[test]
fn one_client_port_reaches_a_shared_backend_through_one_vip_at_a_time() {
    let mut path = shared_backend();
    let through_other = packet((CLIENT, 40000), ([192, 0, 2, 101], 80));
    path.send(&request(40000, SYN));
    assert_eq!(path.send(&through_other), End::Dropped(DropReason::ReplyAmbiguous));
    path.send(&request(40000, ACK));
    path.send(&packet((BACKEND, 8000), (CLIENT, 40000)).flags(FIN | ACK));
    assert_eq!(path.backend_of(&through_other), 11, "the first connection is closing");
    assert_eq!(path.send(&request(40000, ACK)), End::Dropped(DropReason::NoFlowNotSyn));
    assert_eq!(gauges(&path), (1, 0));
}

#[test]
fn replies_without_a_flow_or_from_another_backend_are_not_sent() {
    let mut path = Path::nat();
    path.send(&request(40000, SYN));
    let other = packet(([198, 51, 100, 12], 8000), (CLIENT, 40000)).flags(SYN | ACK);
    assert_eq!(path.send(&other), End::Dropped(DropReason::NoFlow));
    let stranger = packet((BACKEND, 8000), (CLIENT, 40001)).flags(SYN | ACK);
    assert_eq!(path.send(&stranger), End::Dropped(DropReason::NoFlow));
}

#[test]
fn routes_and_mtu_are_needed() {
    let mut parts = testing::world(Mode::Nat);
    parts.routes = Arc::default();
    assert_eq!(Path::new(Snapshot::new(parts)).send(&request(40000, SYN)), End::Dropped(DropReason::NoRoute));
    let sized = |len: usize| Packet { payload: vec![0; len - 40], ..request(40000, SYN) };
    assert!(matches!(Path::nat().send(&sized(1500)), End::Sent(_)));
    let fragmentable = |len| Packet { dont_fragment: false, ..sized(len) };
    assert_eq!(Path::nat().send(&fragmentable(1501)), End::Dropped(DropReason::TooBig));
    let tunnel = || Path::new(testing::snapshot(Mode::Tunnel));
    assert!(matches!(tunnel().send(&sized(1480)), End::Sent(_)));
    assert_eq!(tunnel().send(&fragmentable(1481)), End::Dropped(DropReason::TooBig));
}

#[test]
fn a_full_table_keeps_established_flows() {
    let mut path = Path::of(testing::snapshot(Mode::Nat), 0, 1, 4);
    let ports = 2..if cfg!(miri) { 20 } else { 50 };
    path.send(&request(1, SYN));
    path.send(&request(1, ACK));
    for port in ports.clone() {
        path.send(&request(port, SYN));
    }
    assert!(path.stats.evicted.get() > 0);
    assert_eq!(path.backend_of(&request(1, ACK)), 11);
    for port in ports {
        path.send(&request(port, SYN));
        path.send(&request(port, ACK));
    }
    assert!(path.stats.drops.get(DropReason::FlowTableFull) > 0);
    let flows = path.forwarder.flows().len() as u64;
    let (active, inactive) = gauges(&path);
    assert_eq!(active + inactive, flows);
}

#[test]
fn every_worker_agrees_on_the_owner_and_both_directions_meet_there() {
    for port in 0..if cfg!(miri) { 2 } else { 50 } {
        let mut owners = Vec::new();
        for packet in [request(port, SYN), packet((BACKEND, 8000), (CLIENT, port)).flags(SYN | ACK)] {
            for number in 0..4 {
                let mut path = Path::of(testing::snapshot(Mode::Nat), number, 4, 100);
                owners.push(match path.send(&packet) {
                    End::HandedOver(owner) => owner,
                    _ => number,
                });
            }
        }
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    }
}

#[test]
fn full_queues_are_counted() {
    let mut path = Path::nat();
    path.out.punt = Arc::new(ArrayQueue::new(1));
    let arp = [&[0xff; 6][..], &mac(1).0, &[8, 6]].concat();
    let mut burst = Burst::default();
    (0..3).for_each(|_| burst.push(HeapFrame::new(&arp)).unwrap());
    let context = Context { snapshot: &path.snapshot, now: 0 };
    path.forwarder.forward(context, PORT, &mut burst, &mut path.out);
    assert_eq!((path.stats.punted.get(), path.stats.drops.get(DropReason::PuntFull)), (1, 2));
}

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
}

/// Flows scheduled so far.
fn conns(path: &Path) -> u64 {
    (0..16).map(|slot| path.stats.backend(BackendSlot(slot)).conns.get()).sum()
}

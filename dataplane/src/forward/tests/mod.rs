//! Frames in and out through the whole path, and its laws as properties.

mod answers;
mod changed_modes;
mod client_address;
mod crowded;
mod echo;
mod exits;
mod fast;
mod fate;
mod full_nat;
mod gateway;
mod icmp;
mod laws;
mod limits;
mod lives;
mod modes;
mod openings;
mod persist;
mod ports;
mod reset;
mod schedule;
mod segment;
mod variety;
mod vast;

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
                owners: (0..workers).map(|_| Arc::new(ArrayQueue::new(BURST))).collect(),
                seed: Some(HeapFrame::new(&[0])),
            },
            now: 100,
            received: 0,
        }
    }

    pub(super) fn nat() -> Self {
        Self::new(testing::snapshot(Mode::Nat))
    }

    /// Says whether it sights packets eight at a time, if the processor can.
    pub(super) fn take_eights(&mut self, eights: bool) {
        self.forwarder.avx512 = Avx512::detect().filter(|_| eights);
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
        self.keep_house();
    }

    /// The same; says what it sent.
    pub(super) fn keep_house(&mut self) -> Vec<End> {
        self.ends(|path, context| path.forwarder.housekeeping(context, 1000, path.out))
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
            ends.extend(std::iter::from_fn(|| queue.pop()).map(|_| End::HandedOver(owner)));
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

/// Active and inactive flows of all backends.
pub(super) fn gauges(path: &Path) -> (u64, u64) {
    let loads = (0..16).map(|slot| path.stats.loads.get(BackendSlot(slot)));
    loads.fold((0, 0), |(active, inactive), it| (active + it.active(), inactive + it.inactive()))
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

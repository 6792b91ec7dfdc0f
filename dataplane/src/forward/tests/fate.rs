//! What becomes of the flows of a backend that is not fit for them any more.

use config::words::{Fate, NoFlow};

use super::*;
use crate::flow::state::State;
use crate::snapshot::Parts;

const REPLY: fn(u16) -> Packet = |port| packet((BACKEND, 8000), (CLIENT, port));

/// A world whose first backend's flows are fated so; new ones go to the third one.
fn fated(mode: Mode, fate: Fate) -> Parts {
    let mut parts = testing::world(mode);
    for slot in [0, 3] {
        parts.backends[slot].iter_mut().for_each(|backend| backend.fate = fate);
    }
    for service in parts.services.iter_mut().flatten() {
        Arc::make_mut(service).candidates.drain(..2);
    }
    parts
}

/// A path with an established flow of a backend whose flows are then fated so.
fn path(mode: Mode, fate: Fate) -> Path {
    let mut path = Path::new(testing::snapshot(mode));
    path.send(&request(40000, SYN));
    path.send(&request(40000, ACK));
    path.snapshot = Snapshot::after(&path.snapshot, fated(mode, fate));
    path
}

fn state(path: &Path) -> Option<State> {
    let mut state = None;
    let table = path.forwarder.flows();
    (0..table.lines()).for_each(|line| table.visit(line, |_, flow| state = Some(flow.state())));
    state
}

/// Whether a frame is a TCP reset, and the last byte of the address that it goes to.
fn reset_to(end: End) -> u8 {
    let End::Sent(frame) = end else { panic!("{end:?}") };
    assert_eq!(frame[47] & RST, RST, "{frame:02x?}");
    frame[33]
}

fn pass(path: &mut Path, packet: &Packet) -> End {
    path.pass(HeapFrame::new(&packet.bytes()))
}

#[test]
fn flows_are_kept_that_nobody_gave_up() {
    let mut path = path(Mode::Nat, Fate::Keep);
    assert_eq!(path.backend_of(&request(40000, ACK)), 11);
    assert_eq!(path.backend_of(&request(40001, SYN)), 13);
}

#[test]
fn both_ends_of_a_flow_are_reset_when_they_send() {
    for first in [true, false] {
        let mut path = path(Mode::Nat, Fate::Reset);
        let mut packets = [(request(40000, ACK), CLIENT[3]), (REPLY(40000).flags(ACK), BACKEND[3])];
        if first {
            packets.reverse();
        }
        for (packet, end) in packets {
            assert_eq!(reset_to(pass(&mut path, &packet)), end);
            assert_eq!(state(&path), Some(State::Close));
        }
        assert_eq!(path.stats.answered_for.get(DropReason::FlowReset), 2);
        // What a reset end begins anew goes elsewhere.
        assert_eq!(path.backend_of(&request(40000, SYN)), 13);
    }
}

#[test]
fn clients_of_one_way_modes_are_reset_too() {
    for mode in [Mode::Dr, Mode::Tunnel] {
        assert_eq!(reset_to(pass(&mut path(mode, Fate::Reset), &request(40000, ACK))), CLIENT[3]);
    }
}

#[test]
fn a_flow_goes_on_at_another_backend() {
    // Whatever the service says of segments without a flow: this one has one.
    for no_flow in [NoFlow::Drop, NoFlow::Rst] {
        let mut path = path(Mode::Nat, Fate::Reschedule);
        let mut parts = fated(Mode::Nat, Fate::Reschedule);
        parts.services.iter_mut().flatten().for_each(|service| Arc::make_mut(service).no_flow = no_flow);
        path.snapshot = Snapshot::after(&path.snapshot, parts);
        // Until the client sends, its backend may.
        let End::Sent(_) = pass(&mut path, &REPLY(40000).flags(ACK)) else { panic!() };
        assert_eq!(path.backend_of(&request(40000, ACK)), 13);
        assert_eq!(path.backend_of(&request(40000, ACK)), 13);
        assert_eq!(path.stats.loads.get(BackendSlot(0)).flows(), 0);
        assert_eq!(path.stats.loads.get(BackendSlot(2)).flows(), 1);
        assert_eq!(pass(&mut path, &REPLY(40000).flags(ACK)), End::Dropped(DropReason::NoFlow));
        // A stranger's segment still opens nothing.
        let stranger = pass(&mut path, &request(41000, ACK));
        assert_eq!(stranger == End::Dropped(DropReason::NoFlowNotSyn), no_flow == NoFlow::Drop);
    }
}

#[test]
fn udp_is_told_once_or_goes_on_elsewhere() {
    let ask = packet((CLIENT, 40000), (VIP, 80)).udp();
    for fate in [Fate::Reset, Fate::Reschedule] {
        let mut path = Path::new(testing::snapshot(Mode::Nat));
        assert_eq!(path.backend_of(&ask), 11);
        path.snapshot = Snapshot::after(&path.snapshot, fated(Mode::Nat, fate));
        if fate == Fate::Reset {
            let End::Sent(told) = pass(&mut path, &ask) else { panic!() };
            assert_eq!((told[23], told[34], told[35]), (1, 3, 3), "port unreachable");
            assert_eq!(state(&path), None);
        }
        assert_eq!(path.backend_of(&ask), 13);
    }
}

#[test]
fn a_backend_that_is_back_takes_its_flows_up_again() {
    let mut path = path(Mode::Nat, Fate::Reset);
    path.snapshot = Snapshot::after(&path.snapshot, testing::world(Mode::Nat));
    assert_eq!(path.backend_of(&request(40000, ACK)), 11);
    assert!(path.snapshot.way(BackendSlot(0)).is_some(), "the fast path, too");
}

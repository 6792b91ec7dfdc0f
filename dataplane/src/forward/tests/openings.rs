//! First packets in a row: each leaves by the port of its own backend, and flows begin in the order of their packets.

use config::words::NoFlow;

use super::*;
use crate::route::{InterfaceId, NextHop, Route, RouteTable};
use crate::snapshot::{Interface, Routes};

/// The second backend is behind another port.
fn two_ports() -> Path {
    let mut parts = testing::world(Mode::Dr);
    let other = InterfaceId(1);
    parts.interfaces.push(Interface { port: PortId(1), ..parts.interfaces[0] });
    let by = |number: usize| Route { interface: InterfaceId(number as u16), gateway: None };
    let nets = ["198.51.100.0/24", "198.51.100.12/32"].map(|net| net.parse().unwrap());
    let v4 = RouteTable::new(nets.into_iter().enumerate().map(|(number, net)| (net, by(number))));
    parts.routes = Arc::new(Routes { v4, v6: parts.routes.v6.clone() });
    parts.neighbours = Arc::new(NeighbourTable::new([11, 12, 13].map(|last| {
        let interface = if last == 12 { other } else { InterfaceId(0) };
        (NextHop { interface, address: [198, 51, 100, last].into() }, mac(last))
    })));
    let mut path = Path::new(Snapshot::new(parts));
    path.out.transmit.push(Burst::default());
    path
}

/// Client and backend of sent frames, by the last bytes of port and address.
fn ways<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Vec<(u8, u8)> {
    frames.map(|frame| (frame[15 + usize::from(frame[14] & 0xf) * 4], frame[5])).collect()
}

fn sent(ends: &[End]) -> Vec<(u8, u8)> {
    ways(ends.iter().map(|end| if let End::Sent(frame) = end { &frame[..] } else { panic!("{end:?}") }))
}

fn opening(number: u8, options: &[u8]) -> HeapFrame {
    let port = u16::from_be_bytes([0x9c, number]);
    HeapFrame::new(&Packet { options: options.to_vec(), ..request(port, SYN) }.bytes())
}

#[test]
fn each_leaves_by_the_port_of_its_backend() {
    let mut path = two_ports();
    let mut burst = Burst::default();
    (0..6).for_each(|number| burst.push(opening(number, &[])).unwrap());
    assert_eq!(sent(&path.forward(&mut burst)), [(0, 11), (2, 13), (3, 11), (5, 13)]);
    let by_other: Vec<_> = std::iter::from_fn(|| path.out.transmit[1].take_front()).collect();
    assert_eq!(ways(by_other.iter().map(|frame| frame.bytes())), [(1, 12), (4, 12)]);
}

#[test]
fn none_opens_before_one_that_the_stages_open() {
    let mut path = Path::new(testing::snapshot(Mode::Dr));
    let mut burst = Burst::default();
    // Those with IP options are not plain.
    let options: [&[u8]; 4] = [&[], &[1, 1, 1, 0], &[], &[]];
    for (number, options) in (0..).zip(options) {
        burst.push(opening(number, options)).unwrap();
    }
    let mut sent = sent(&path.forward(&mut burst));
    sent.sort_unstable();
    assert_eq!(sent, [(0, 11), (1, 12), (2, 13), (3, 11)]);
}

/// The second of three packets may be of a flow that lives elsewhere, where it is looked for later.
#[test]
fn none_opens_before_one_that_is_looked_for_elsewhere() {
    for mode in [Mode::Dr, Mode::Nat] {
        for number in 100..=123 {
            let mut parts = testing::world(mode);
            Arc::make_mut(parts.services[0].as_mut().unwrap()).no_flow = NoFlow::Schedule;
            // So crowded that some lines are full.
            let mut path = Path::of(Snapshot::new(parts), 0, 1, 24);
            for port in 0..36 {
                path.send(&request(40000 + port, ACK));
            }
            let ports = [40000, 40000 + number, 40200];
            let mut burst = Burst::default();
            for port in ports {
                burst.push(HeapFrame::new(&request(port, ACK).bytes())).unwrap();
            }
            path.forward(&mut burst);
            assert_eq!(ports.map(|port| path.backend_of(&request(port, ACK))), [11, 11, 12], "{number}");
        }
    }
}

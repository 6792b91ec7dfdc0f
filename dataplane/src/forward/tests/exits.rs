//! Replies leave by the gateway to their client, whichever others are in their burst.

use super::fast::locals_of;
use super::*;
use crate::local::{LocalAddresses, LocalSlot};
use crate::route::{InterfaceId, NextHop, Route, RouteTable};
use crate::samples::{Body, Sample, endpoint, syn};
use crate::snapshot::{Interface, Parts, Pool, PoolSlot, Routes};

/// VIP and backend, by IP version.
const ENDS: [[&str; 2]; 2] =
    [["192.0.2.100:80", "198.51.100.11:8000"], ["[2001:db8::100]:80", "[2001:db8:b::11]:8000"]];

/// Clients, by the gateway to whose network they are in turn; of the last one's nothing is known but its address.
const CLIENTS: [[&str; 4]; 2] = [
    ["192.0.2.7:40000", "203.0.113.71:40001", "203.0.113.135:40002", "203.0.113.199:40003"],
    ["[2001:db7::7]:40000", "[2001:db8:c:1::7]:40001", "[2001:db8:c:2::7]:40002", "[2001:db8:c:3::7]:40003"],
];
/// The last bytes of the gateways' addresses, and of their Ethernet addresses. The first is that of the default route.
const GATEWAYS: [u8; 4] = [1, 12, 13, 99];

/// The local addresses of full NAT, by IP version.
const LOCALS: [&str; 2] = ["198.51.100.200", "2001:db8:b::200"];

/// The second gateway is behind interface `second`.
fn parts(version: usize, mode: Mode, second: InterfaceId) -> Parts {
    let [vip, backend] = ENDS[version];
    let to = |last: u8| if last == GATEWAYS[1] { second } else { InterfaceId(0) };
    let by_v4 =
        |last: u8| Route { interface: to(last), gateway: Some(u32::from_be_bytes([198, 51, 100, last])) };
    let by_v6 = |last: u8| {
        let gateway: std::net::Ipv6Addr = format!("2001:db8:b::{last}").parse().unwrap();
        Route { interface: to(last), gateway: Some(gateway.to_bits()) }
    };
    let v4 = [
        ("198.51.100.0/24", Route { gateway: None, ..by_v4(1) }),
        ("0.0.0.0/0", by_v4(1)),
        ("203.0.113.64/26", by_v4(12)),
        ("203.0.113.128/26", by_v4(13)),
        ("203.0.113.192/26", by_v4(99)),
    ];
    let v6 = [
        ("2001:db8:b::/64", Route { gateway: None, ..by_v6(1) }),
        ("::/0", by_v6(1)),
        ("2001:db8:c:1::/64", by_v6(12)),
        ("2001:db8:c:2::/64", by_v6(13)),
        ("2001:db8:c:3::/64", by_v6(99)),
    ];
    let mut parts = modes::world(vip, backend, mode);
    if mode == Mode::FullNat {
        parts.locals = LOCALS.map(|address| address.parse().unwrap()).into();
        parts.pools = vec![Pool { v4: vec![LocalSlot(0)], v6: vec![LocalSlot(1)] }];
        for service in parts.services.iter_mut().flatten() {
            Arc::make_mut(service).pool = Some(PoolSlot(0));
        }
    }
    Parts {
        routes: Arc::new(Routes {
            v4: RouteTable::new(v4.map(|(net, route)| (net.parse().unwrap(), route))),
            v6: RouteTable::new(v6.map(|(net, route)| (net.parse().unwrap(), route))),
        }),
        ..parts
    }
}

fn segment(src: &str, dst: &str, flags: u8) -> Sample {
    Sample { body: Body::Tcp { flags, options: Vec::new() }, ..syn(src, dst) }
}

/// Where sent and punted frames go, by the last bytes of their ports and of their Ethernet destinations.
fn gateways(version: usize, ends: Vec<End>) -> Vec<(u8, u8)> {
    let client_port = [14 + 20, 14 + 40][version] + 3;
    let mut replies: Vec<_> = ends
        .into_iter()
        .filter_map(|end| match end {
            End::Sent(frame) if frame[5] != 11 => Some((frame[client_port], frame[5])),
            End::Punted(PuntReason::Resolve(_), frame) => Some((frame[client_port], 99)),
            _ => None,
        })
        .collect();
    replies.sort_unstable();
    replies
}

/// Opens a connection of each client. Returns them, each with the address by which the backend knows it.
fn connect(path: &mut Path, version: usize, mode: Mode) -> [(&'static str, String); 4] {
    let [vip, backend] = ENDS[version];
    let local = LOCALS[version].parse().unwrap();
    if mode == Mode::FullNat {
        let address = LocalAddresses::new(&[local], &Owners::new(1), 0);
        path.forwarder.install(LocalSlot(version as u8), address);
    }
    CLIENTS[version].map(|client| {
        let sent = path.pass(segment(client, vip, SYN).frame());
        let known = locals_of(&[sent], local).first().map_or(client.to_string(), ToString::to_string);
        path.offer(segment(backend, &known, SYN | ACK).frame());
        path.pass(segment(client, vip, ACK).frame());
        (client, known)
    })
}

/// IP versions and modes. Under miri a local address takes minutes.
fn cases() -> impl Iterator<Item = (usize, Mode)> {
    let modes = if cfg!(miri) { &[Mode::Nat][..] } else { &[Mode::Nat, Mode::FullNat] };
    [0, 1].into_iter().flat_map(|version| modes.iter().map(move |mode| (version, *mode)))
}

/// Also by another port than requests and replies to others.
#[test]
fn each_packet_leaves_by_the_port_to_its_next_hop() {
    for (version, mode) in cases() {
        let [vip, backend] = ENDS[version];
        let mut parts = parts(version, mode, InterfaceId(1));
        parts.interfaces.push(Interface { port: PortId(1), ..parts.interfaces[0] });
        let neighbours = [(11, 0), (GATEWAYS[0], 0), (GATEWAYS[1], 1)].map(|(last, interface)| {
            let address =
                [format!("198.51.100.{last}"), format!("2001:db8:b::{last}")][version].parse().unwrap();
            (NextHop { interface: InterfaceId(interface), address }, mac(last))
        });
        parts.neighbours = Arc::new(NeighbourTable::new(neighbours));
        let mut path = Path::new(Snapshot::new(parts));
        path.out.transmit.push(Burst::default());
        let clients = connect(&mut path, version, mode);
        path.out.transmit[1].clear();
        let mut burst = Burst::default();
        for (client, known) in (0..6).map(|number| &clients[number % 2]) {
            burst.push(segment(client, vip, ACK).frame()).unwrap();
            burst.push(segment(backend, known, ACK).frame()).unwrap();
        }
        let ends = path.forward(&mut burst);
        assert_eq!(ends.len(), 9, "six requests, and replies by the same port: {ends:?}");
        let port = |number: usize| endpoint(CLIENTS[version][number]).port() as u8;
        assert_eq!(gateways(version, ends), [(port(0), GATEWAYS[0]); 3], "{version} {mode:?}");
        let by_other = std::iter::from_fn(|| path.out.transmit[1].take_front());
        let by_other = by_other.map(|frame| End::Sent(frame.bytes().to_vec())).collect();
        assert_eq!(gateways(version, by_other), [(port(1), GATEWAYS[1]); 3], "{version} {mode:?}");
    }
}

#[test]
fn each_reply_leaves_by_the_gateway_to_its_client() {
    for (version, mode) in cases() {
        let [vip, backend] = ENDS[version];
        let mut path = Path::new(Snapshot::new(parts(version, mode, InterfaceId(0))));
        let clients = connect(&mut path, version, mode);
        // Whichever reply is the first one, and whichever are with it; but for three that wait for an Ethernet address, which
        // are too many here.
        for picked in (0..4usize.pow(3) - 1).rev().map(|number| [number % 4, number / 4 % 4, number / 16]) {
            // Requests with them, or none.
            for both_ways in [true, false] {
                let mut burst = Burst::default();
                for (client, known) in picked.map(|number| &clients[number]) {
                    if both_ways {
                        burst.push(segment(client, vip, ACK).frame()).unwrap();
                    }
                    burst.push(segment(backend, known, ACK).frame()).unwrap();
                }
                let port = |number: usize| endpoint(clients[number].0).port() as u8;
                let mut expected = picked.map(|number| (port(number), GATEWAYS[number]));
                expected.sort_unstable();
                let ends = gateways(version, path.forward(&mut burst));
                assert_eq!(ends, expected, "{mode:?} {picked:?} {both_ways}");
            }
        }
    }
}

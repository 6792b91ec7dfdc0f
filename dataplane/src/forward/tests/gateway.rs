//! Plain traffic of an inside network, and what is for the appliance itself.

use super::*;
use crate::route::{Route, RouteTable};
use crate::samples::{Sample, datagram, syn};
use crate::snapshot::Routes;
use crate::snapshot::{Gateway, Interface, Parts};
use crate::wire::eth::Tags;

/// VLAN 7, 198.51.100.0/24, is inside; VLAN 8, 192.0.2.0/24, leads to the world.
fn parts() -> Parts {
    let mut parts = testing::parts();
    let inside = parts.interfaces[0];
    let tags = |inner| Tags { outer: 0, inner };
    parts.interfaces = vec![
        Interface { tags: tags(7), gateway: Some(Gateway { pool: None }), ..inside },
        Interface { tags: tags(8), v4: Some(u32::from_be_bytes([192, 0, 2, 254])), ..inside },
    ];
    parts.own.push((std::net::IpAddr::from([192, 0, 2, 254]), InterfaceId(1)));
    let route = |interface, gateway: Option<u32>| Route { interface: InterfaceId(interface), gateway };
    let router = u32::from_be_bytes([192, 0, 2, 1]);
    parts.routes = Arc::new(Routes {
        v4: RouteTable::new([
            ("198.51.100.0/24".parse().unwrap(), route(0, None)),
            ("192.0.2.0/24".parse().unwrap(), route(1, None)),
            ("0.0.0.0/0".parse().unwrap(), route(1, Some(router))),
        ]),
        ..Routes::default()
    });
    let router = NextHop { interface: InterfaceId(1), address: [192, 0, 2, 1].into() };
    let server = NextHop { interface: InterfaceId(0), address: [198, 51, 100, 11].into() };
    parts.neighbours = Arc::new(crate::snapshot::NeighbourTable::new([(router, mac(1)), (server, mac(11))]));
    parts
}

#[test]
fn a_gateway_routes_out_of_and_into_its_inside_only() {
    let mut path = Path::new(Snapshot::new(parts()));
    let (inside, outside) = (Tags { outer: 0, inner: 7 }, Tags { outer: 0, inner: 8 });
    let out = Sample { tags: inside, ..syn("198.51.100.11:5000", "203.0.113.9:443") };
    let sent = Sample { tags: outside, ttl: 63, ..out.clone() };
    assert_eq!(path.pass(out.frame()), End::Sent(sent.sent(1, 254)));
    let back = Sample { tags: outside, ..syn("203.0.113.9:443", "198.51.100.11:5000") };
    let sent = Sample { tags: inside, ttl: 63, ..back.clone() };
    assert_eq!(path.pass(back.frame()), End::Sent(sent.sent(11, 254)));
    let through = Sample { tags: outside, ..syn("203.0.113.9:443", "203.0.113.10:80") };
    assert_eq!(path.pass(through.frame()), End::Dropped(DropReason::NoService));
    assert_eq!(path.stats.routed.get(), 2);
}

#[test]
fn the_kernel_gets_what_is_for_own_addresses() {
    let mut parts = testing::parts();
    let own = "198.51.100.254:22";
    let mut path = Path::new(Snapshot::new(parts.clone()));
    assert_eq!(path.pass(syn("203.0.113.7:40000", own).frame()), End::Dropped(DropReason::NoService));
    parts.interfaces[0].host = true;
    path.snapshot = Snapshot::new(parts);
    for packet in [syn("203.0.113.7:40000", own), datagram("203.0.113.7:40000", own)] {
        let frame = packet.frame();
        let bytes = frame.bytes().to_vec();
        assert_eq!(path.pass(frame), End::Punted(PuntReason::Host(InterfaceId(0)), bytes));
    }
}

#[test]
fn the_kernel_gets_what_a_backend_answers_to_its_checks() {
    let (backend, own) = ("198.51.100.11:8000", "198.51.100.254:40000");
    let mut parts = testing::snapshot(Mode::Nat).parts;
    let mut path = Path::new(Snapshot::new(parts.clone()));
    let answer = syn(backend, own);
    assert_eq!(path.pass(answer.frame()), End::Dropped(DropReason::NoFlow));
    parts.interfaces[0].host = true;
    path.snapshot = Snapshot::new(parts);
    let bytes = answer.frame().bytes().to_vec();
    assert_eq!(path.pass(answer.frame()), End::Punted(PuntReason::Host(InterfaceId(0)), bytes));
    assert_eq!(path.pass(syn(backend, "203.0.113.7:40000").frame()), End::Dropped(DropReason::NoFlow));
}

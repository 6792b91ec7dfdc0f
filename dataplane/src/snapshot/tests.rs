use super::*;
use crate::testing;
use config::words::{Mode, NoBackend};

#[test]
fn a_backend_of_two_services_replies_for_both() {
    let mut parts = testing::parts();
    let shared = testing::backend(0, "198.51.100.11:8000", Mode::Nat);
    let other = Backend { service: ServiceSlot(1), ..shared };
    parts.services = vec![
        Some(testing::service("tcp:192.0.2.100:80", &[(0, 1)]).into()),
        Some(testing::service("tcp:192.0.2.101:80", &[(1, 1)]).into()),
    ];
    parts.backends = vec![Some(shared), Some(other), Some(Backend { mode: Mode::Dr, ..shared })];
    let snapshot = Snapshot::new(parts);
    let address = shared.address.ip();
    let services: Vec<_> = snapshot
        .replies_of(Protocol::Tcp, address, 8000)
        .iter()
        .map(|(found, port)| (found.service, port))
        .collect();
    assert_eq!(services, [(ServiceSlot(0), 80), (ServiceSlot(1), 80)]);
    assert!(snapshot.replies_of(Protocol::Udp, address, 8000).is_empty());
    assert!(snapshot.replies_of(Protocol::Tcp, address, 80).is_empty());
}

#[test]
fn tables_are_shared_by_snapshots_that_differ_in_weights_and_health_only() {
    let mut parts = testing::parts();
    let backend = |slot| testing::backend(slot, "198.51.100.11:8000", Mode::Nat);
    parts.services = vec![Some(testing::service("tcp:192.0.2.100:80", &[(0, 1), (1, 1)]).into())];
    parts.backends = vec![
        Some(backend(0)),
        Some(Backend { address: "198.51.100.12:8000".parse().unwrap(), ..backend(0) }),
    ];
    let before = Snapshot::new(parts.clone());
    let shares = |parts: Parts| {
        let (after, anew) = (Snapshot::after(&before, parts.clone()), Snapshot::new(parts));
        assert_eq!(format!("{after:?}"), format!("{anew:?}"));
        Arc::ptr_eq(&after.ways, &before.ways)
    };
    type Change = fn(&mut Parts);
    let harmless: [Change; 4] = [
        |_| {},
        |parts| parts.services[0] = Some(testing::service("tcp:192.0.2.100:80", &[(1, 7)]).into()),
        |parts| parts.backends[1].as_mut().unwrap().up = false,
        |parts| parts.no_service = NoBackend::Drop,
    ];
    let others: [Change; 9] = [
        |parts| parts.services[0] = Some(testing::service("tcp:192.0.2.100:81", &[(0, 1), (1, 1)]).into()),
        |parts| {
            let service = testing::service("tcp:192.0.2.100:80", &[(0, 1), (1, 1)]);
            parts.services[0] = Some(Service { echo: !service.echo, ..service }.into());
        },
        |parts| parts.services.push(None),
        |parts| parts.backends[1] = None,
        |parts| parts.backends[1].as_mut().unwrap().mode = Mode::Dr,
        |parts| parts.backends.push(None),
        |parts| parts.locals.push("198.51.100.200".parse().unwrap()),
        |parts| parts.routes = Arc::default(),
        |parts| parts.neighbours = Arc::new(NeighbourTable::new([])),
    ];
    let changed = |change: &Change| {
        let mut parts = before.parts.clone();
        change(&mut parts);
        shares(parts)
    };
    assert_eq!(harmless.each_ref().map(changed), [true; 4]);
    assert_eq!(others.each_ref().map(changed), [false; 9]);
}

#[test]
fn egress_is_known_only_with_route_and_neighbour() {
    let mut parts = testing::parts();
    let snapshot = Snapshot::new(parts.clone());
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (link, far, gateway) in
        [("198.51.100", "8.8.8.8", "198.51.100.1"), ("2001:db8:b:", "2001:db8:ffff::1", "2001:db8:b::1")]
    {
        let dot = if link.contains(':') { ":" } else { "." };
        let known = snapshot.egress_to(ip(&format!("{link}{dot}11"))).unwrap();
        assert!(known.resolved && known.link.bytes()[..6] == testing::mac(11).0);
        assert!(!snapshot.egress_to(ip(&format!("{link}{dot}99"))).unwrap().resolved);
        assert_eq!(snapshot.egress_to(ip(far)).unwrap().next_hop.address, ip(gateway));
    }
    parts.routes = Arc::default();
    assert!(Snapshot::new(parts).egress_to(ip("8.8.8.8")).is_none());
}

#[test]
fn a_narrow_flow_is_known_as_its_direction_is() {
    let mut parts = testing::parts();
    let backend = |service, address| Some(testing::backend(service, address, Mode::Nat));
    parts.services = vec![
        Some(testing::service("tcp:192.0.2.100:80", &[(0, 1), (2, 1)]).into()),
        Some(testing::service("tcp:192.0.2.101:80", &[(1, 1)]).into()),
    ];
    // One that both services have, and one that is a client of the other service, too.
    let (shared, alone) = ("198.51.100.11:8000", "198.51.100.12:8000");
    parts.backends = vec![backend(0, shared), backend(1, shared), backend(0, alone)];
    let snapshot = Snapshot::new(parts);
    assert!(snapshot.rows::<u32>() == Rows::BothWays);
    let (client, vip, other) = ("203.0.113.7:40000", "192.0.2.100:80", "192.0.2.101:80");
    let end = |text: &str| {
        let end: std::net::SocketAddrV4 = text.parse().unwrap();
        (end.ip().to_bits(), end.port())
    };
    let flow = |src, dst| {
        let ((src, src_port), (dst, dst_port)) = (end(src), end(dst));
        let protocol = Protocol::Tcp;
        let plain = Plain { src, dst, src_port, dst_port, len: 40, protocol, tcp_flags: 0 };
        let known = snapshot.narrow_flow(&plain);
        let direction = match snapshot.direction(&plain, snapshot.listener(&plain)) {
            Some(Direction::Request { service, .. }) => Some(((src, src_port), service, false)),
            Some(Direction::Reply { service, .. }) => Some(((dst, dst_port), service, true)),
            _ => None,
        };
        assert_eq!(known, direction);
        known
    };
    assert_eq!(flow(client, vip), Some((end(client), ServiceSlot(0), false)));
    assert_eq!(flow(alone, client), Some((end(client), ServiceSlot(0), true)));
    assert_eq!(flow(alone, other), Some((end(alone), ServiceSlot(1), false)));
    for (src, dst) in [(shared, client), (client, alone), (vip, client), (client, client)] {
        assert_eq!(flow(src, dst), None);
    }
}

/// Two services of IPv6 with a NAT backend each, one whose port is the service's and one that both have.
fn wide_world(mode: Mode) -> Parts {
    let mut parts = testing::parts();
    let backend = |service, address| Some(testing::backend(service, address, mode));
    parts.services = vec![
        Some(testing::service("tcp:[2001:db8::100]:80", &[(0, 1), (2, 1)]).into()),
        Some(testing::service("tcp:[2001:db8::101]:80", &[(1, 1)]).into()),
    ];
    let (shared, alone) = ("[2001:db8:b::11]:8000", "[2001:db8:b::12]:8000");
    parts.backends = vec![backend(0, shared), backend(1, shared), backend(0, alone)];
    parts
}

fn plain_of<A: Version>([src, dst]: [&str; 2]) -> Plain<A> {
    let [src, dst]: [std::net::SocketAddr; 2] = [src, dst].map(|end| end.parse().unwrap());
    Plain {
        src: A::of(src.ip()).unwrap(),
        dst: A::of(dst.ip()).unwrap(),
        src_port: src.port(),
        dst_port: dst.port(),
        len: 60,
        protocol: Protocol::Tcp,
        tcp_flags: 0,
    }
}

#[test]
fn a_wide_flow_is_known_as_its_direction_is() {
    let snapshot = Snapshot::new(wide_world(Mode::Nat));
    assert_eq!(snapshot.rows::<u128>(), Rows::BothWays);
    assert_eq!(snapshot.rows::<u32>(), Rows::Requests);
    let (client, vip, other) = ("[2001:db8:c::7]:40000", "[2001:db8::100]:80", "[2001:db8::101]:80");
    let (shared, alone) = ("[2001:db8:b::11]:8000", "[2001:db8:b::12]:8000");
    let mut known = 0;
    for src in [client, vip, other, shared, alone] {
        for dst in [client, vip, other, shared, alone] {
            let plain: Plain<u128> = plain_of([src, dst]);
            let [requester, replier] = [(plain.src, plain.src_port), (plain.dst, plain.dst_port)];
            let direction = match snapshot.direction(&plain, snapshot.listener(&plain)) {
                Some(Direction::Request { service, .. }) => Some(WideFlow {
                    client: requester,
                    service,
                    service_port: plain.dst_port,
                    is_reply: false,
                }),
                Some(Direction::Reply { service, service_port }) => {
                    Some(WideFlow { client: replier, service, service_port, is_reply: true })
                }
                _ => None,
            };
            assert_eq!(snapshot.wide_flow::<u128, true>(&plain), direction, "{src} {dst}");
            let request = direction.filter(|flow| !flow.is_reply);
            assert_eq!(snapshot.wide_flow::<u128, false>(&plain), request, "{src} {dst}");
            known += usize::from(direction.is_some());
        }
    }
    // All to the services, and what the one that is alone sends elsewhere.
    assert_eq!(known, 5 * 2 + 3);
}

#[test]
fn a_packet_of_full_nat_is_known_as_its_direction_is() {
    let locals = ["198.51.100.200", "2001:db8:b::200"];
    let mut parts = wide_world(Mode::FullNat);
    parts.locals = locals.map(|address| address.parse().unwrap()).into();
    parts.services.push(Some(testing::service("tcp:192.0.2.100:80", &[(3, 1)]).into()));
    parts.services.push(Some(testing::service("tcp:192.0.2.100:81", &[]).into()));
    parts.backends.push(Some(testing::backend(2, "198.51.100.11:8000", Mode::FullNat)));
    let snapshot = Snapshot::new(parts);
    assert_eq!([snapshot.rows::<u32>(), snapshot.rows::<u128>()], [Rows::FullNat; 2]);
    fn known<A: Address>(snapshot: &Snapshot, ends: [&str; 2]) -> Option<FullNatFlow> {
        let plain: Plain<A> = plain_of(ends);
        let known = snapshot.full_nat_flow(&plain);
        let of_known = known.map(|flow| if flow.is_reply { Err(flow.local) } else { Ok(flow.service) });
        let direction =
            snapshot.direction(&plain, snapshot.listener(&plain)).and_then(|direction| match direction {
                Direction::Request { service } => Some(Ok(service)),
                Direction::LocalReply(local) => Some(Err(local)),
                Direction::Reply { .. } => None,
            });
        assert_eq!(of_known, direction, "{ends:?}");
        known
    }
    let v4 = [
        "203.0.113.7:40000",
        "192.0.2.100:80",
        "192.0.2.100:81",
        "198.51.100.11:8000",
        "198.51.100.200:5000",
    ];
    let v6 =
        ["[2001:db8:c::7]:40000", "[2001:db8::100]:80", "[2001:db8:b::11]:8000", "[2001:db8:b::200]:5000"];
    for src in v4 {
        let to = v4.map(|dst| known::<u32>(&snapshot, [src, dst]).map(|flow| (flow.is_reply, flow.local)));
        assert!(to[0].is_none() && to[1].is_some() && to[2].is_some() && to[3].is_none());
        assert_eq!(to[4], Some((true, LocalSlot(0))));
    }
    for src in v6 {
        let to = v6.map(|dst| known::<u128>(&snapshot, [src, dst]).map(|flow| (flow.is_reply, flow.local)));
        assert!(to[0].is_none() && to[1].is_some() && to[2].is_none());
        assert_eq!(to[3], Some((true, LocalSlot(1))));
    }
}

#[test]
fn services_of_several_ports_leave_rows_to_requests() {
    let mut parts = wide_world(Mode::Nat);
    parts.services.push(Some(testing::service("tcp:[2001:db8::100]:81-90", &[]).into()));
    assert_eq!(Snapshot::new(parts).rows::<u128>(), Rows::Mixed);
}

/// Backends that are clients of services which are not in the first place of their table.
#[cfg(not(miri))]
#[test]
fn no_request_is_taken_for_a_reply_in_a_crowded_table() {
    // In no order, so that no hash is without crowds.
    let vip = |v6: bool, service: u32| {
        let (host, port) = (service % 200 + 1, 1 + service * service * 7 % 60_013);
        (if v6 { format!("2001:db8::{host}") } else { format!("192.0.2.{host}") }, port)
    };
    let server = |v6: bool, service: u32| {
        let (net, host) = (100 + service / 250, 1 + service % 250);
        if v6 { format!("[2001:db8:b:{net}::{host}]:80") } else { format!("198.51.{net}.{host}:80") }
    };
    for v6 in [false, true] {
        let mut parts = testing::parts();
        let bracketed = |address: &str| if v6 { format!("[{address}]") } else { address.to_string() };
        for service in 0..5000 {
            let (address, port) = vip(v6, service);
            let key = format!("tcp:{}:{port}", bracketed(&address));
            parts.services.push(Some(testing::service(&key, &[(service, 1)]).into()));
            let backend = testing::backend(service as u16, &server(v6, service), Mode::Nat);
            parts.backends.push(Some(Backend { port_shift: 80u16.wrapping_sub(port as u16), ..backend }));
        }
        let snapshot = Snapshot::new(parts);
        let mut known = 0;
        for service in 0..5000 {
            let (address, port) = vip(v6, service);
            let ends = [server(v6, 0), format!("{}:{port}", bracketed(&address))];
            let flow = if v6 {
                let flow = snapshot.wide_flow::<u128, true>(&plain_of(ends.each_ref().map(String::as_str)));
                flow.map(|flow| (flow.service, flow.is_reply))
            } else {
                let flow = snapshot.narrow_flow(&plain_of(ends.each_ref().map(String::as_str)));
                flow.map(|(_, service, is_reply)| (service, is_reply))
            };
            if let Some(flow) = flow {
                assert_eq!(flow, (ServiceSlot(service as u16), false));
                known += 1;
            }
        }
        assert!((3500..5000).contains(&known), "{known}");
    }
}

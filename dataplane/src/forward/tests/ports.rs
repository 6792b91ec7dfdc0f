//! Services of several ports, of all ports, and of packet classes.

use config::words::ServiceKey;

use super::fast::{flows, settled};
use super::*;
use crate::flow::FlowOwner;
use crate::samples::{Sample, datagram, syn};
use crate::snapshot::{Backend, Class, Parts};
use crate::wire::eth::Tags;

/// A world with these services, each with one backend in mode NAT. Of a service with a class that is number 0.
fn world(services: &[(&str, &str)]) -> Parts {
    let service = |(slot, (key, _)): (usize, &(&str, &str))| {
        let mut service = testing::service(key, &[(slot as u32, 1)]);
        service.class = service.key.class.map(|_| 0);
        service.rank = slot as u64;
        Some(service.into())
    };
    let backend = |(slot, (key, address)): (usize, &(&str, &str))| {
        let ports = key.parse::<ServiceKey>().unwrap().ports;
        let backend = testing::backend(slot as u16, address, Mode::Nat);
        Some(Backend { port_shift: Backend::port_shift(ports, backend.address.port()), ..backend })
    };
    Parts {
        services: services.iter().enumerate().map(service).collect(),
        backends: services.iter().enumerate().map(backend).collect(),
        ..testing::parts()
    }
}

/// Where a packet to the VIP goes, as `address:port`; the reply must come from where it was sent to.
fn there_and_back(path: &mut Path, request: &Sample) -> String {
    let End::Sent(frame) = path.pass(request.frame()) else { return "nowhere".to_owned() };
    let (address, port) = ([frame[30], frame[31], frame[32], frame[33]], [frame[36], frame[37]]);
    let backend = std::net::SocketAddr::new(address.into(), u16::from_be_bytes(port));
    let reply = Sample { src: backend, dst: request.src, tags: Tags::default(), ..request.clone() };
    let at_client = Sample { src: request.dst, ttl: 63, ..reply.clone() };
    assert_eq!(path.pass(reply.frame()), End::Sent(at_client.sent(1, 254)));
    backend.to_string()
}

#[test]
fn ranges_map_one_to_one_and_port_0_keeps_the_port() {
    let parts = world(&[
        ("tcp:192.0.2.100:8000-8009", "198.51.100.11:9000"),
        ("tcp:192.0.2.100:0", "198.51.100.12:0"),
        ("tcp:192.0.2.100:8005", "198.51.100.13:80"),
    ]);
    let mut path = Path::new(Snapshot::new(parts));
    for (port, backend) in [
        (8000, "198.51.100.11:9000"),
        (8009, "198.51.100.11:9009"),
        (8005, "198.51.100.13:80"),
        (8010, "198.51.100.12:8010"),
        (1, "198.51.100.12:1"),
        (65535, "198.51.100.12:65535"),
    ] {
        let request = syn("203.0.113.7:40000", &format!("192.0.2.100:{port}"));
        assert_eq!(there_and_back(&mut path, &request), backend);
    }
    let other = datagram("203.0.113.7:40000", "192.0.2.100:8000");
    assert_eq!(path.pass(other.frame()), End::Dropped(DropReason::NoService));
    let mut owners = Vec::new();
    let flows = path.forwarder.flows();
    (0..flows.lines()).for_each(|line| flows.visit(line, |owner, _| owners.push(owner)));
    let ports = |owner: &FlowOwner| owner.service_port;
    owners.sort_by_key(ports);
    let expected = [None, Some(1), Some(8000), Some(8009), Some(8010), Some(65535)];
    assert_eq!(owners.iter().map(ports).collect::<Vec<_>>(), expected);
}

/// Where no backend replies through us, packets without a listener are asked less about.
#[test]
fn a_range_is_served_where_nothing_comes_back() {
    let mut parts = world(&[("tcp:192.0.2.100:8000-8009", "198.51.100.11:8000")]);
    parts.backends.iter_mut().flatten().for_each(|backend| backend.mode = Mode::Dr);
    let mut path = Path::new(Snapshot::new(parts));
    for port in [7999, 8000, 8009, 8010] {
        let end = path.pass(syn("203.0.113.7:40000", &format!("192.0.2.100:{port}")).frame());
        let served = (8000..=8009).contains(&port);
        assert!(if served {
            matches!(end, End::Sent(_))
        } else {
            end == End::Dropped(DropReason::NoService)
        });
    }
}

/// Packets for services of one port and of several, in bursts.
#[test]
fn both_paths_agree_where_some_services_have_several_ports() {
    let services = [
        ("tcp:192.0.2.100:8000-8009", "198.51.100.11:9000"),
        ("tcp:192.0.2.100:8005", "198.51.100.13:80"),
        ("tcp:192.0.2.100:80", "198.51.100.14:80"),
    ];
    for (mode, eights) in [(Mode::Nat, true), (Mode::Dr, true), (Mode::Nat, false), (Mode::Dr, false)] {
        let [mut fast, mut slow] = [0, 1].map(|_| {
            let mut parts = world(&services);
            parts.backends.iter_mut().flatten().for_each(|backend| backend.mode = mode);
            Path::new(Snapshot::new(parts))
        });
        fast.take_eights(eights);
        for round in 0..4 {
            let [mut one, mut other] = [Burst::default(), Burst::default()];
            for number in 0..BURST {
                let (client, port) =
                    (40000 + number, [80, 80, 80, 8005, 80, 8001, 80, 7999][(number + round) % 8]);
                let request = syn(&format!("203.0.113.7:{client}"), &format!("192.0.2.100:{port}"));
                one.push(request.frame()).unwrap();
                other.push(request.frame()).unwrap();
            }
            let (one, other) = (fast.forward(&mut one), slow.forward_slowly(&mut other));
            assert_eq!(settled(one), settled(other), "{mode:?}");
            assert_eq!(flows(&fast), flows(&slow));
        }
    }
}

#[test]
fn a_class_takes_its_packets_and_leaves_the_others() {
    let services = [
        ("tcp:192.0.2.100:80@gold", "198.51.100.11:80"),
        ("tcp:192.0.2.100:80", "198.51.100.12:80"),
        ("tcp:192.0.2.101:80@gold", "198.51.100.13:80"),
    ];
    let from = |source: &str| Class { sources: vec![source.parse().unwrap()], ..Class::default() };
    let cases = [
        (from("203.0.113.0/24"), true),
        (from("203.0.112.0/24"), false),
        (Class { dscp: Some(46), ..from("203.0.113.7/32") }, true),
        (Class { dscp: Some(45), ..from("203.0.113.7/32") }, false),
        (Class { vlan: Some(0), ..Class::default() }, true),
        (Class { vlan: Some(7), ..Class::default() }, false),
    ];
    for (class, fits) in cases {
        let mut path = Path::new(Snapshot::new(Parts { classes: vec![class], ..world(&services) }));
        let request = Sample { tos: 46 << 2, ..syn("203.0.113.7:40000", "192.0.2.100:80") };
        let backend = if fits { "198.51.100.11:80" } else { "198.51.100.12:80" };
        assert_eq!(there_and_back(&mut path, &request), backend);
        let classed_only = Sample { tos: 46 << 2, ..syn("203.0.113.7:40000", "192.0.2.101:80") };
        let backend = if fits { "198.51.100.13:80" } else { "nowhere" };
        assert_eq!(there_and_back(&mut path, &classed_only), backend);
    }
}

#[test]
fn a_retired_service_leaves_new_flows_to_a_wider_one() {
    let mut parts =
        world(&[("tcp:192.0.2.100:80", "198.51.100.11:80"), ("tcp:192.0.2.100:0", "198.51.100.12:0")]);
    let mut path = Path::new(Snapshot::new(parts.clone()));
    let (old, new) = (syn("203.0.113.7:40000", "192.0.2.100:80"), syn("203.0.113.7:40001", "192.0.2.100:80"));
    assert_eq!(there_and_back(&mut path, &old), "198.51.100.11:80");
    Arc::make_mut(parts.services[0].as_mut().unwrap()).retired = true;
    path.snapshot = Snapshot::new(parts);
    assert_eq!(there_and_back(&mut path, &old), "198.51.100.11:80");
    assert_eq!(there_and_back(&mut path, &new), "198.51.100.12:80");
}

#[test]
fn one_packet_services_keep_no_flow() {
    let mut parts = world(&[("udp:192.0.2.100:53", "198.51.100.11:5353")]);
    Arc::make_mut(parts.services[0].as_mut().unwrap()).one_packet = true;
    let mut path = Path::new(Snapshot::new(parts));
    for port in 40000..40004 {
        let query = datagram(&format!("203.0.113.7:{port}"), "192.0.2.100:53");
        assert_eq!(there_and_back(&mut path, &query), "198.51.100.11:5353");
    }
    assert!(path.forwarder.flows().is_empty());
}

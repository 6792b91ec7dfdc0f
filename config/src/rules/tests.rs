//! The rules as the control socket asks them: over a service or backend that no file has.

use super::*;
use crate::model::{Interface, Tags, Tunnel};
use crate::words::{NoBackend, Scheduler};

fn network() -> Network {
    let lan = Interface {
        name: "lan".to_owned(),
        port: 0,
        tags: Tags::default(),
        addresses: vec!["192.0.2.254/24".parse().unwrap()],
        mtu: 1500,
        host: None,
        gateway: None,
    };
    let route = Route { to: "10.0.0.0/8".parse().unwrap(), via: "192.0.2.1".parse().unwrap() };
    Network::new(&[lan], &[route])
}

fn key() -> ServiceKey {
    "tcp:192.0.2.100:80".parse().unwrap()
}

fn backend(address: &str, mode: Mode) -> Backend {
    Backend { address: address.parse().unwrap(), mode, tunnel: Tunnel::default(), weight: 1 }
}

fn service() -> Service {
    let kind = CheckKind::Http { path: "/health".to_owned(), host: None, status: Some(204) };
    Service {
        name: "web".to_owned(),
        key: key(),
        scheduler: Scheduler::Wrr,
        check: Some(Check { kind, port: None, interval_ms: 1000, timeout_ms: 500, rise: 1, fall: 2 }),
        no_backend: NoBackend::Icmp,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        echo: true,
        backends: vec![backend("192.0.2.11:8000", Mode::Nat), backend("10.0.0.11:80", Mode::Tunnel)],
    }
}

fn check_backend(key: &ServiceKey, backend: &Backend) -> Result<(), Fault> {
    super::check_backend(&Surroundings::new(&network(), &[], &[]), key, None, backend)
}

fn check_service(service: &Service) -> Result<(), Fault> {
    super::check_service(&Surroundings::new(&network(), &[], &[]), [], service)
}

#[test]
fn a_backend_keeps_to_its_mode() {
    for (address, mode) in [
        ("192.0.2.11:80", Mode::Dr),
        ("192.0.2.11:80", Mode::Tunnel),
        ("10.0.0.11:80", Mode::Tunnel),
        ("192.0.2.11:8000", Mode::Nat),
        ("10.0.0.11:8000", Mode::Nat),
    ] {
        assert_eq!(check_backend(&key(), &backend(address, mode)), Ok(()), "{address} {mode}");
    }
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let other_port = |mode| Fault::OtherPort { backend: address("192.0.2.11:8000"), mode, port: 80 };
    for (text, mode, fault) in [
        ("192.0.2.11:8000", Mode::Dr, other_port(Mode::Dr)),
        ("192.0.2.11:8000", Mode::Tunnel, other_port(Mode::Tunnel)),
        ("10.0.0.11:80", Mode::Dr, Fault::OffLink(address("10.0.0.11:80"))),
        ("198.51.100.1:80", Mode::Nat, Fault::NoRoute(address("198.51.100.1:80"))),
        ("192.0.2.100:80", Mode::Nat, Fault::BackendIsVip(address("192.0.2.100:80"))),
        ("192.0.2.254:80", Mode::Dr, Fault::OwnAddress("192.0.2.254".parse().unwrap())),
        ("192.0.2.11:0", Mode::Dr, Fault::PortZero),
    ] {
        assert_eq!(check_backend(&key(), &backend(text, mode)), Err(fault), "{text} {mode}");
    }
}

/// A change that makes a service break a rule, and the words that tell it.
type Break = (fn(&mut Service), &'static str);

#[test]
fn a_service_keeps_to_every_rule() {
    assert_eq!(check_service(&service()), Ok(()));
    let breaks: [Break; 12] = [
        (|s| s.name.clear(), "the name is empty"),
        (|s| s.name = "a\nb".to_owned(), "control characters"),
        (|s| s.key.address = Ipv4Addr::LOCALHOST.into(), "127.0.0.1 is a loopback address"),
        (|s| s.key.address = Ipv4Addr::new(192, 0, 2, 255).into(), "the broadcast address of 192.0.2.0/24"),
        (|s| s.backends[1].mode = Mode::Dr, "backend 10.0.0.11:80 is not on the link"),
        (|s| s.backends.push(s.backends[0]), "backend 192.0.2.11:8000 is listed twice"),
        (|s| s.check.as_mut().unwrap().interval_ms = 0, "interval_ms is 0, out of range"),
        (|s| s.check.as_mut().unwrap().timeout_ms = 1001, "longer than interval_ms, 1000"),
        (|s| s.check.as_mut().unwrap().rise = 101, "rise is 101, out of range"),
        (|s| s.check.as_mut().unwrap().port = Some(0), "port 0 is not a port"),
        (|s| s.key.protocol = Protocol::Udp, "no port to ask by TCP"),
        (
            |s| {
                let kind = CheckKind::Http { path: "/\r\n".to_owned(), host: None, status: None };
                s.check.as_mut().unwrap().kind = kind;
            },
            "must begin with a slash",
        ),
    ];
    for (change, words) in breaks {
        let mut service = service();
        change(&mut service);
        let fault = check_service(&service).expect_err(words);
        assert!(fault.to_string().contains(words), "{fault}");
        assert!(!fault.help().is_empty());
    }
}

#[test]
fn hosts_and_status_of_checks_are_bounded() {
    let kind = |host: &str, status| CheckKind::Http {
        path: "/".to_owned(),
        host: Some(host.to_owned()),
        status: Some(status),
    };
    let count = |kind| kind_faults(&kind).into_iter().filter(|(_, fault)| fault.is_some()).count();
    assert_eq!(count(kind("www.example.org:8080", 100)), 0);
    assert_eq!(count(kind("", 599)), 1);
    assert_eq!(count(kind("a b", 600)), 2);
}

#[test]
fn small_prefixes_have_no_edges() {
    for (address, fits) in [
        ("203.0.113.0/31", true),
        ("203.0.113.1/31", true),
        ("203.0.113.0/32", true),
        ("203.0.113.0/30", false),
        ("203.0.113.1/30", true),
        ("203.0.113.3/30", false),
    ] {
        assert_eq!(own_address_fault(address.parse().unwrap()).is_none(), fits, "{address}");
    }
}

#[test]
fn repeated_items_name_their_first() {
    assert_eq!(repeated([7, 8, 7, 7, 8]), [(2, 0), (3, 0), (4, 1)]);
    assert_eq!(repeated::<u8>([]), []);
}

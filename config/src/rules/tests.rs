//! The rules as the control socket asks them: over a service or backend that no file has.

use proptest::prelude::*;

use super::*;
use crate::model::{Agent, Check, CheckKind, Interface, Policy, Route, Tags, Timeouts, Tunnel};
use crate::words::{Admin, Encapsulation, Mode, NoBackend, NoFlow, Ports, Protocol, Scheduler};

fn network() -> Network {
    let lan = Interface {
        name: "lan".to_owned(),
        port: 0,
        tags: Tags::default(),
        addresses: vec!["192.0.2.254/24".parse().unwrap(), "2001:db8:1::fe/64".parse().unwrap()],
        mtu: 1500,
        host: None,
        gateway: None,
    };
    let route = |to: &str, via: &str| Route { to: to.parse().unwrap(), via: via.parse().unwrap() };
    Network::new(&[lan], &[route("10.0.0.0/8", "192.0.2.1"), route("2001:db8::/32", "2001:db8:1::1")])
}

fn pools() -> [SnatPool; 2] {
    let pool = |name: &str, addresses: &[&str]| SnatPool {
        name: name.to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    [pool("out", &["192.0.2.200", "2001:db8:1::200"]), pool("four", &["192.0.2.201"])]
}

fn class() -> Class {
    Class { name: "gold".parse().unwrap(), sources: Vec::new(), vlan: None, dscp: Some(46) }
}

fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

fn backend(address: &str, mode: Mode) -> Backend {
    Backend {
        address: address.parse().unwrap(),
        mode,
        tunnel: Tunnel::default(),
        weight: 1,
        server_id: None,
        upper: 0,
        lower: 0,
        admin: Admin::Enabled,
        priority: 0,
    }
}

fn net(text: &str) -> Option<IpNet> {
    Some(text.parse().unwrap())
}

fn service() -> Service {
    let kind = CheckKind::Http { path: "/health".to_owned(), host: None, status: Some(204), proxy: None };
    Service {
        name: "web".to_owned(),
        key: key("tcp:192.0.2.100:80@gold"),
        scheduler: Scheduler::Wrr,
        hash: None,
        quic: None,
        expiration_secs: None,
        persistence: None,
        limits: None,
        check: Some(Check { kind, port: None, interval_ms: 1000, timeout_ms: 500, rise: 1, fall: 2 }),
        agent: None,
        no_backend: NoBackend::Rst,
        no_flow: NoFlow::Drop,
        mss: Some(1400),
        timeouts: Some(Timeouts::DPVS),
        one_packet: false,
        snat_pool: Some("out".to_owned()),
        client_address: ClientAddress::None,
        echo: true,
        policy: Policy::default(),
        backends: vec![
            backend("192.0.2.11:8000", Mode::Nat),
            backend("10.0.0.11:80", Mode::Tunnel),
            backend("[2001:db8:9::11]:8000", Mode::FullNat),
        ],
    }
}

fn judge(service: &Service, others: &[ServiceKey]) -> Result<(), Fault> {
    let (network, pools, classes) = (network(), pools(), [class()]);
    check_service(&Surroundings::new(&network, &pools, &classes), others.iter().copied(), service)
}

/// What is told of a backend of a service with this key, which speaks from a pool of both families.
fn told(service: &str, address: &str, mode: Mode) -> Option<String> {
    let (network, pools, key) = (network(), pools(), key(service));
    let (client_address, scheduler) = (ClientAddress::None, Scheduler::Wlc);
    let terms =
        Terms { key: &key, snat_pool: Some("out"), one_packet: false, client_address, scheduler, quic: None };
    let surroundings = Surroundings::new(&network, &pools, &[]);
    check_backend(&surroundings, terms, [], &backend(address, mode)).err().map(|fault| fault.to_string())
}

#[test]
fn a_backend_keeps_to_its_mode() {
    use Mode::{Dr, FullNat, Nat, Tunnel};
    let four = "tcp:192.0.2.100:80";
    let six = "tcp:[2001:db8:1::100]:80";
    let other_port = "has port 8000, but mode";
    let other_family = "are of different IP versions";
    for (service, address, mode, wrong) in [
        (four, "192.0.2.11:80", Dr, None),
        (four, "192.0.2.11:80", Tunnel, None),
        (four, "10.0.0.11:80", Tunnel, None),
        (four, "192.0.2.11:8000", Nat, None),
        (four, "10.0.0.11:8000", Nat, None),
        (four, "10.0.0.11:8000", FullNat, None),
        (four, "[2001:db8:9::11]:8000", FullNat, None),
        (four, "[2001:db8:9::11]:80", Tunnel, None),
        (six, "[2001:db8:1::11]:80", Dr, None),
        (six, "[2001:db8:9::11]:8000", Nat, None),
        (six, "10.0.0.11:80", Tunnel, None),
        (six, "10.0.0.11:80", FullNat, None),
        (four, "192.0.2.11:8000", Dr, Some(other_port)),
        (four, "192.0.2.11:8000", Tunnel, Some(other_port)),
        (four, "192.0.2.11:0", Dr, Some("port 0 is not a port")),
        (four, "192.0.2.11:0", Nat, Some("port 0 is not a port")),
        (four, "[2001:db8:1::11]:80", Nat, Some(other_family)),
        (four, "[2001:db8:1::11]:80", Dr, Some(other_family)),
        (six, "192.0.2.11:80", Nat, Some(other_family)),
        (four, "10.0.0.11:80", Dr, Some("is not on the link of any interface")),
        (six, "[2001:db8:9::11]:80", Dr, Some("is not on the link of any interface")),
        (four, "198.51.100.1:80", Nat, Some("no route leads to backend 198.51.100.1:80")),
        (six, "[3fff::1]:80", Tunnel, Some("no route leads to backend [3fff::1]:80")),
        (four, "192.0.2.100:80", Nat, Some("has the address of the VIP")),
        (four, "192.0.2.254:80", Dr, Some("192.0.2.254 is an address of the appliance itself")),
        (six, "[2001:db8:1::fe]:80", Dr, Some("2001:db8:1::fe is an address of the appliance itself")),
        (four, "192.0.2.201:80", Nat, Some("192.0.2.201 is an address of snat pool four")),
        (six, "[2001:db8:1::]:80", Dr, Some("the subnet-router anycast address of 2001:db8:1::/64")),
        (six, "[fe80::11]:80", Dr, Some("fe80::11 is a link-local address")),
        (six, "[2001:db8:1::11%3]:80", Dr, Some("[2001:db8:1::11%3]:80 has a zone")),
        (six, "[::ffff:192.0.2.11]:80", FullNat, Some("is an IPv4 address mapped into IPv6")),
    ] {
        let found = told(service, address, mode);
        match wrong {
            None => assert_eq!(found, None, "{service} {address} {mode}"),
            Some(words) => {
                assert!(
                    found.as_ref().is_some_and(|found| found.contains(words)),
                    "{address} {mode}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn ports_of_backends_follow_those_of_the_service() {
    use Mode::{Dr, FullNat, Nat, Tunnel};
    let range = "tcp:192.0.2.100:8000-8099";
    let any = "udp:192.0.2.100:0";
    for (service, port, mode, fits) in [
        (range, 0, Nat, true),
        (range, 0, FullNat, true),
        (range, 0, Dr, true),
        (range, 0, Tunnel, true),
        (range, 9000, Nat, true),
        (range, 65436, Nat, true),
        (range, 65437, Nat, false),
        (range, 65535, FullNat, false),
        (range, 8000, Dr, false),
        (range, 8000, Tunnel, false),
        (any, 0, Nat, true),
        (any, 0, Dr, true),
        (any, 1, Nat, true),
        (any, 2, Nat, false),
        (any, 1, Dr, false),
    ] {
        let found = told(service, &format!("192.0.2.11:{port}"), mode);
        assert_eq!(found.is_none(), fits, "{service} {port} {mode}: {found:?}");
    }
    let fault = Fault::TooFewPorts { backend: "192.0.2.11:65437".parse().unwrap(), count: 100 };
    assert!(fault.help().starts_with("begin at 65436 or lower"), "{}", fault.help());
}

/// A change that makes a service break a rule, and the words that tell it.
type Break = (fn(&mut Service), &'static str);

fn check_of(service: &mut Service) -> &mut Check {
    service.check.as_mut().unwrap()
}

#[test]
fn a_service_keeps_to_every_rule() {
    assert_eq!(judge(&service(), &[]), Ok(()));
    let breaks: &[Break] = &[
        (|s| s.name.clear(), "the name is empty"),
        (|s| s.name = "a\nb".to_owned(), "control characters"),
        (|s| s.key = key("tcp:127.0.0.1:80"), "127.0.0.1 is a loopback address"),
        (|s| s.key = key("tcp:192.0.2.255:80"), "the broadcast address of 192.0.2.0/24"),
        (|s| s.key = key("tcp:[2001:db8:1::]:80"), "the subnet-router anycast address of 2001:db8:1::/64"),
        (|s| s.key = key("tcp:[ff02::1]:80"), "ff02::1 is a multicast address"),
        (|s| s.key = key("tcp:192.0.2.200:80"), "192.0.2.200 is an address of snat pool out"),
        (|s| s.key = key("tcp:192.0.2.100:80@silver"), "there is no class `silver`"),
        (|s| s.snat_pool = Some("uot".to_owned()), "there is no snat pool `uot`"),
        (|s| s.snat_pool = None, "its service names none"),
        (|s| s.snat_pool = Some("four".to_owned()), "snat pool four has no address of the IP version"),
        (|s| s.mss = Some(535), "mss is 535, out of range"),
        (|s| s.one_packet = true, "one_packet is only for udp"),
        (|s| s.client_address = ClientAddress::ProxyV2, "backend 192.0.2.11:8000 is in mode nat"),
        (
            |s| (s.client_address, s.key.protocol, s.mss) = (ClientAddress::Toa, Protocol::Udp, None),
            "client_address toa is only for tcp",
        ),
        (|s| s.key.protocol = Protocol::Udp, "mss is only for tcp"),
        (
            |s| (s.key.protocol, s.mss, s.no_flow) = (Protocol::Udp, None, NoFlow::Schedule),
            "no_flow is only for tcp",
        ),
        (|s| s.timeouts.as_mut().unwrap().udp_secs = 0, "udp_secs is 0, out of range"),
        (|s| s.timeouts.as_mut().unwrap().none_secs = 2_592_001, "none_secs is 2592001, out of range"),
        (|s| s.backends[1].mode = Mode::Dr, "backend 10.0.0.11:80 is not on the link"),
        (|s| s.backends.push(s.backends[0]), "backend 192.0.2.11:8000 is listed twice"),
        (|s| s.backends[0].tunnel.checksum = true, "tunnel is only for mode tunnel"),
        (|s| s.backends[1].tunnel.checksum = true, "a tunnel of type ipip has no checksum"),
        (|s| s.backends[1].tunnel.port = 4754, "a tunnel of type ipip has no port"),
        (
            |s| {
                let gue = Encapsulation::Gue;
                s.backends[1].tunnel = Tunnel { encapsulation: gue, port: 0, ..Tunnel::default() };
            },
            "port 0 is not a port",
        ),
        (|s| s.backends[0].tunnel.spread = net("172.16.0.0/16"), "tunnel is only for mode tunnel"),
        (|s| s.backends[1].tunnel.spread = net("172.16.0.0/31"), "prefix length is 31, out of range"),
        (|s| s.backends[1].tunnel.spread = net("192.0.2.96/28"), "192.0.2.100 is the VIP"),
        (|s| s.backends[1].tunnel.spread = net("192.0.2.8/29"), "192.0.2.11 is a backend of the service"),
        (|s| s.backends[1].tunnel.spread = net("10.0.0.0/8"), "10.0.0.11 is a backend of the service"),
        (|s| s.backends[1].tunnel.spread = net("100::/64"), "they are of different IP versions"),
        (|s| s.expiration_secs = Some(60), "scheduler wrr has no use for expiration_secs"),
        (
            |s| (s.scheduler, s.expiration_secs) = (Scheduler::Lblc, Some(0)),
            "expiration_secs is 0, out of range",
        ),
        (|s| check_of(s).interval_ms = 0, "interval_ms is 0, out of range"),
        (|s| check_of(s).timeout_ms = 1001, "longer than interval_ms, 1000"),
        (|s| check_of(s).rise = 101, "rise is 101, out of range"),
        (|s| check_of(s).port = Some(0), "port 0 is not a port"),
        (|s| s.key = key("tcp:192.0.2.100:80-90"), "a service with several ports has no port to ask"),
        (|s| (s.key.protocol, s.mss) = (Protocol::Udp, None), "no port to ask by TCP"),
        (
            |s| {
                let path = "/\r\n".to_owned();
                check_of(s).kind = CheckKind::Http { path, host: None, status: None, proxy: None };
            },
            "must begin with a slash",
        ),
    ];
    for (change, words) in breaks {
        let mut service = service();
        change(&mut service);
        let fault = judge(&service, &[]).expect_err(words);
        assert!(fault.to_string().contains(words), "{fault}");
        assert!(!fault.help().is_empty());
    }
}

#[test]
fn tunnels_begin_at_addresses_that_nobody_has() {
    let (network, pools) = (network(), pools());
    let surroundings = Surroundings::new(&network, &pools, &[]);
    let told = |spread: &str, vip: &str| {
        let fault = spread_fault(&surroundings, vip.parse().ok(), spread.parse().unwrap());
        fault.map(|fault| fault.to_string())
    };
    for (spread, wrong) in [
        ("172.16.0.0/16", None),
        ("10.0.0.0/8", None),
        ("192.0.2.4/30", None),
        ("192.0.2.96/30", None),
        ("100::/64", None),
        ("2001:db9::/32", None),
        ("2001:db8:1::4/126", None),
        ("172.16.0.1/16", Some("172.16.0.1/16 has bits set behind its prefix length")),
        ("0.0.0.0/0", Some("prefix length is 0, out of range")),
        ("10.0.0.0/7", Some("prefix length is 7, out of range")),
        ("172.16.0.0/32", Some("prefix length is 32, out of range")),
        ("2001:db8::/31", Some("prefix length is 31, out of range")),
        ("2001:db8:a::/127", Some("prefix length is 127, out of range")),
        ("0.0.0.0/8", Some("0.0.0.0 is an address of \"this network\", 0.0.0.0/8")),
        ("127.1.0.0/16", Some("127.1.0.0 is a loopback address")),
        ("232.0.0.0/8", Some("232.0.0.0 is a multicast address")),
        ("255.255.255.252/30", Some("255.255.255.252 is a reserved address, 240.0.0.0/4")),
        ("::/32", Some(":: is the unspecified address")),
        ("::fff8:0:0/93", Some("::ffff:255.255.255.255 is an IPv4 address mapped into IPv6")),
        ("::ffff:192.0.2.0/120", Some("::ffff:192.0.2.0 is an IPv4 address mapped into IPv6")),
        ("fe80::/64", Some("fe80:: is a link-local address")),
        ("ff02::/32", Some("ff02:: is a multicast address")),
        ("192.0.2.128/25", Some("192.0.2.254 is an address of the appliance itself")),
        ("2001:db8::/32", Some("2001:db8:1::fe is an address of the appliance itself")),
        ("192.0.2.192/28", Some("192.0.2.200 is an address of snat pool out")),
        ("2001:db8:1::200/120", Some("2001:db8:1::200 is an address of snat pool out")),
        ("192.0.2.100/30", Some("192.0.2.100 is the VIP")),
    ] {
        let found = told(spread, "192.0.2.100");
        let fits = found.as_deref().map(|found| wrong.is_some_and(|wrong| found.ends_with(wrong)));
        assert_eq!(fits, wrong.map(|_| true), "{spread}: {found:?}");
    }
    assert!(told("2001:db8:1::100/120", "2001:db8:1::1ff").is_some_and(|told| told.ends_with("is the VIP")));
}

#[test]
fn a_backend_and_the_tunnels_to_others_leave_each_other_their_addresses() {
    let (network, pools, key) = (network(), pools(), key("tcp:192.0.2.100:80"));
    let surroundings = Surroundings::new(&network, &pools, &[]);
    let (client_address, scheduler) = (ClientAddress::None, Scheduler::Wlc);
    let terms =
        Terms { key: &key, snat_pool: None, one_packet: false, client_address, scheduler, quic: None };
    let spread = |address: &str, spread: &str| {
        let tunnel = Tunnel { spread: net(spread), ..Tunnel::default() };
        Backend { tunnel, ..backend(address, Mode::Tunnel) }
    };
    let judge = |others, backend| check_backend(&surroundings, terms, &[others], &backend);
    let wide = spread("10.0.0.11:80", "10.16.0.0/12");
    let plain = |address: &str| backend(address, Mode::Nat);
    assert_eq!(judge(wide, plain("10.0.0.12:80")), Ok(()));
    assert_eq!(judge(plain("10.0.0.12:80"), wide), Ok(()));
    let why = "10.16.0.12 is a backend of the service".to_owned();
    let fault = Err(Fault::NotSources { spread: "10.16.0.0/12".parse().unwrap(), why });
    assert_eq!(judge(wide, plain("10.16.0.12:80")), fault);
    assert_eq!(judge(plain("10.16.0.12:80"), wide), fault);
}

#[test]
fn ids_of_servers_are_as_long_as_the_service_says() {
    let id = |backend| Backend { server_id: "0a1b".parse().ok(), ..backend };
    let quic = Quic { server_id_len: 3, nonce_len: 4, ..Quic::default() };
    let udp = Service {
        key: key("udp:192.0.2.100:443"),
        scheduler: Scheduler::Quic,
        quic: Some(quic),
        check: None,
        mss: None,
        backends: vec![backend("192.0.2.11:443", Mode::Nat)],
        ..service()
    };
    assert_eq!(judge(&udp, &[]), Ok(()));
    let wrong = Err(Fault::ServerIdLength(3));
    let sorry = Policy { sorry: vec![id(backend("192.0.2.12:443", Mode::Nat))], ..Policy::default() };
    assert_eq!(judge(&Service { policy: sorry, ..udp.clone() }, &[]), wrong);
    let (network, pools) = (network(), pools());
    let surroundings = Surroundings::new(&network, &pools, &[]);
    let arrives = id(backend("192.0.2.12:443", Mode::Nat));
    assert_eq!(check_backend(&surroundings, (&udp).into(), [], &arrives), wrong);
}

proptest! {
    #[test]
    fn spreads_over_backends_are_those_of_all_pairs(
        drawn in prop::collection::vec(
            (any::<bool>(), 0..64_u8, prop::option::of((0..64_u8, 26..=30_u8))),
            0..8,
        ),
    ) {
        let made = |(six, host, spread): &(bool, u8, Option<(u8, u8)>)| {
            let (v4, v6) = (format!("192.0.2.{host}:80"), format!("[2001:db8::{host:x}]:80"));
            let prefix = |(host, len): (u8, u8)| {
                let v4 = format!("192.0.2.{host}/{len}");
                let v6 = format!("2001:db8::{host:x}/{}", len + 96);
                net(if *six { &v6 } else { &v4 }).unwrap().trunc()
            };
            let tunnel = Tunnel { spread: spread.map(prefix), ..Tunnel::default() };
            Backend { tunnel, ..backend(if *six { &v6 } else { &v4 }, Mode::Tunnel) }
        };
        let backends: Vec<_> = drawn.iter().map(made).collect();
        let covers = |spread: &IpNet| backends.iter().any(|backend| spread.contains(&backend.address.ip()));
        let spreads = backends.iter().filter_map(|backend| backend.tunnel.spread);
        let expected: std::collections::BTreeSet<_> = spreads.filter(covers).collect();
        let found = spreads_over_backends(backends.iter()).into_iter().map(|(spread, _)| spread);
        prop_assert!(found.eq(expected));
    }
}

#[test]
fn a_service_without_flows_has_no_full_nat() {
    let (network, pools, key) = (network(), pools(), key("udp:192.0.2.100:53"));
    let (client_address, scheduler) = (ClientAddress::None, Scheduler::Wlc);
    let terms =
        Terms { key: &key, snat_pool: Some("out"), one_packet: true, client_address, scheduler, quic: None };
    let surroundings = Surroundings::new(&network, &pools, &[]);
    let judge = |mode| check_backend(&surroundings, terms, [], &backend("192.0.2.11:53", mode));
    assert_eq!(judge(Mode::Nat), Ok(()));
    assert_eq!(judge(Mode::Tunnel), Ok(()));
    let address = "192.0.2.11:53".parse().unwrap();
    assert_eq!(judge(Mode::FullNat), Err(Fault::OnePacketFullNat(address)));
}

#[test]
fn services_share_ports_only_where_one_goes_first() {
    let service = Service { check: None, ..service() };
    for (here, other, fits) in [
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:85-95@gold", false),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:70-80@gold", false),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:85@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:80-85@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:0@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:91-95@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:80-90@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.100:85-95", true),
        ("tcp:192.0.2.100:80-90@gold", "udp:192.0.2.100:85-95@gold", true),
        ("tcp:192.0.2.100:80-90@gold", "tcp:192.0.2.101:85-95@gold", true),
    ] {
        let service = Service { key: key(here), backends: Vec::new(), ..service.clone() };
        let found = judge(&service, &[key("tcp:192.0.2.100:443@gold"), key(other)]);
        let overlap = Fault::PortsOverlap { key: key(here), other: key(other) };
        assert_eq!(found, if fits { Ok(()) } else { Err(overlap) });
    }
}

#[test]
fn every_service_that_overlaps_is_found() {
    let keys = ["80-90", "85", "85-95", "0", "1-10", "5-20", "80-90", "60-90"];
    let keys: Vec<_> = keys.iter().map(|ports| Some(key(&format!("tcp:192.0.2.100:{ports}")))).collect();
    let mut found = overlapping(&keys);
    found.sort_unstable();
    // 85-95 overlaps 60-90 and both of 80-90; once is enough to have it mended.
    assert_eq!(found, [(5, 4), (6, 2)]);
}

proptest! {
    #[test]
    fn overlaps_are_found_if_and_only_if_there_are_any(
        ports in prop::collection::vec((1..30_u16, 0..10_u16, any::<bool>()), 0..8),
    ) {
        let key = |(first, more, other): &(u16, u16, bool)| ServiceKey {
            ports: Ports { first: *first, last: first + more },
            ..key(if *other { "udp:192.0.2.100:80" } else { "tcp:192.0.2.100:80" })
        };
        let keys: Vec<_> = ports.iter().map(key).collect();
        let crosses = |a: &ServiceKey, b: &ServiceKey| overlap_fault(*a, *b).is_some();
        let found = overlapping(&keys.iter().copied().map(Some).collect::<Vec<_>>());
        for (later, earlier) in &found {
            prop_assert!(later > earlier && crosses(&keys[*later], &keys[*earlier]));
        }
        let any = keys.iter().any(|a| keys.iter().any(|b| crosses(a, b)));
        prop_assert_eq!(!found.is_empty(), any);
    }
}

#[test]
fn unknown_names_are_told_with_the_nearest() {
    let fault = Fault::unknown("snat pool", "uot", &["out", "in"]);
    assert_eq!(fault.help(), "did you mean `out`?");
    let fault = Fault::unknown("class", "silver\n", &["gold"]);
    assert_eq!(fault.to_string(), "there is no class `silver\\n`");
    assert_eq!(fault.help(), "add a [[class]] with this name");
}

#[test]
fn repeated_items_name_their_first() {
    assert_eq!(repeated([7, 8, 7, 7, 8]), [(2, 0), (3, 0), (4, 1)]);
    assert_eq!(repeated::<u8>([]), []);
}

#[test]
fn what_times_handshakes_sees_both_ways_of_them() {
    let with = |key: ServiceKey, mode| Service {
        key,
        scheduler: Scheduler::Fastest,
        mss: None,
        check: None,
        backends: vec![backend("192.0.2.11:80", mode)],
        ..service()
    };
    let tcp = || key("tcp:192.0.2.100:80");
    assert_eq!(judge(&with(tcp(), Mode::Nat), &[]), Ok(()));
    for mode in [Mode::Dr, Mode::Tunnel] {
        let told = judge(&with(tcp(), mode), &[]).unwrap_err();
        assert!(told.to_string().contains(&format!("mode {mode} does not see those of 192.0.2.11:80")));
        assert_eq!(told.help(), "use mode = \"nat\" or mode = \"full-nat\", or another scheduler");
    }
    let udp = judge(&with(key("udp:192.0.2.100:80"), Mode::Nat), &[]).unwrap_err();
    assert_eq!(udp.to_string(), "scheduler fastest is only for tcp");
}

#[test]
fn an_agent_and_its_scheduler_go_together() {
    let agent = Agent { port: 9999, interval_ms: 2000, timeout_ms: 1000 };
    let with = |scheduler, agent| judge(&Service { scheduler, agent, ..service() }, &[]);
    assert_eq!(with(Scheduler::DynamicRatio, Some(agent)), Ok(()));
    assert_eq!(with(Scheduler::DynamicRatio, None), Err(Fault::NoAgent));
    assert_eq!(with(Scheduler::Wrr, Some(agent)), Err(Fault::AgentScheduler));
    let with = |agent| with(Scheduler::DynamicRatio, Some(agent));
    assert_eq!(with(Agent { port: 0, ..agent }), Err(Fault::PortZero));
    let late = Fault::TimeoutOverInterval { timeout_ms: 2001, interval_ms: 2000 };
    assert_eq!(with(Agent { timeout_ms: 2001, ..agent }), Err(late));
    assert!(matches!(with(Agent { interval_ms: 0, ..agent }), Err(Fault::Range { key: "interval_ms", .. })));
}

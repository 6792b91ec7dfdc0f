//! Fixed answers for the tests of what is printed.

use config::model::{Persistence, Tunnel};
use config::words::{Admin, ClientAddress, Encapsulation, Idle, Mode, NoBackend, NoFlow, Scheduler};
use controlplane::api::{
    BackendStatus, ControlStats, Counters, Drop, Flow, FlowList, Health, InterfaceStatus, LocalStats,
    NeighbourStatus, PortStats, PortStatus, ServiceStatus, Stats, Status, Template, TemplateList,
    TemplateUsage, WorkerStats, WorkerStatus,
};
use controlplane::policy::{Serving, Standing};

pub fn status() -> Status {
    let worker = |core, flows| WorkerStatus {
        core,
        idle: Idle::Poll,
        flows,
        flow_capacity: 100_000,
        wide_capacity: 25_000,
        generation: 7,
    };
    let port = |name: &str, link_up, speed_mbps| PortStatus {
        name: name.to_owned(),
        devices: vec![format!("net_tap0,iface={name}")],
        driver: "net_tap".to_owned(),
        mac: "02:00:5e:00:53:01".parse().unwrap(),
        link_up,
        speed_mbps,
        mtu: 1500,
    };
    let neighbour = |address: &str, mac: Option<&str>| NeighbourStatus {
        address: address.parse().unwrap(),
        mac: mac.map(|mac| mac.parse().unwrap()),
        interface: "lan".to_owned(),
    };
    let interface = |name: &str, vlans: [Option<u16>; 2], addresses: &[&str]| InterfaceStatus {
        name: name.to_owned(),
        port: "lan".to_owned(),
        outer_vlan: vlans[0],
        vlan: vlans[1],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: 1500,
        host: vlans[1].is_none().then(|| "tap-lan".to_owned()),
        gateway: vlans[0].is_some(),
    };
    Status {
        version: "0.1.0".to_owned(),
        dpdk: "DPDK 22.11.7".to_owned(),
        pid: 4242,
        uptime_secs: 93_784,
        config_file: "/etc/trutina/trutina.toml".to_owned(),
        generation: 7,
        ports: vec![port("lan", true, Some(10_000)), port("wan", false, None)],
        interfaces: vec![
            interface("lan", [None, None], &["192.0.2.254/24", "2001:db8:1::fe/64"]),
            interface("lan.100", [None, Some(100)], &["198.51.100.254/24"]),
            interface("lan.7.100", [Some(7), Some(100)], &[]),
        ],
        workers: vec![worker(1, 12), worker(2, 99_999)],
        services: 2,
        backends_up: 2,
        backends: 3,
        neighbours: vec![neighbour("192.0.2.11", Some("02:00:5e:00:53:0b")), neighbour("192.0.2.12", None)],
    }
}

pub fn services() -> Vec<ServiceStatus> {
    let counters = |conns| Counters {
        conns,
        in_packets: conns * 10,
        out_packets: conns * 9,
        in_bytes: conns * 1000,
        out_bytes: conns * 9000,
    };
    let backend = |address: &str, mode, weight, health, reason: &str, conns| BackendStatus {
        address: address.parse().unwrap(),
        mode,
        tunnel: (mode == Mode::Tunnel).then(|| Tunnel {
            encapsulation: Encapsulation::Gue,
            checksum: true,
            ..Tunnel::default()
        }),
        sorry: false,
        weight,
        upper: 0,
        lower: 0,
        effective_weight: weight.into(),
        priority: 0,
        configured: Admin::Enabled,
        admin: Admin::Enabled,
        operational: if health == Health::Down { Standing::Down } else { Standing::Active },
        drain: None,
        health,
        reason: reason.to_owned(),
        since_secs: 61,
        active: 5,
        inactive: 1234,
        counters: counters(conns),
    };
    let service = |name: &str, key: &str, scheduler, backends: Vec<BackendStatus>| ServiceStatus {
        name: name.to_owned(),
        service: key.parse().unwrap(),
        scheduler,
        no_backend: NoBackend::Icmp,
        hash: None,
        limits: None,
        persistence: key.starts_with("tcp").then(Persistence::default),
        no_flow: NoFlow::Drop,
        one_packet: key.starts_with("udp"),
        snat_pool: None,
        client_address: ClientAddress::None,
        serving: Serving::Backends,
        quorum: true,
        counters: counters(backends.iter().map(|backend| backend.counters.conns).sum()),
        backends,
    };
    vec![
        service(
            "web",
            "tcp:192.0.2.100:80",
            Scheduler::Wrr,
            vec![
                backend("198.51.100.7:8000", Mode::Nat, 4, Health::Up, "HTTP 200 in 1 ms", 40),
                backend("198.51.100.8:8000", Mode::Tunnel, 65535, Health::Down, "connection refused", 2),
            ],
        ),
        service(
            "udp:192.0.2.100:53",
            "udp:192.0.2.100:53",
            Scheduler::Rr,
            vec![backend("203.0.113.1:53", Mode::Dr, 1, Health::Unchecked, "no check", 0)],
        ),
    ]
}

pub fn flows() -> FlowList {
    let flow = |key: &str, client: &str, backend: &str, state: &str, expires_secs| Flow {
        worker: 0,
        protocol: key.split(':').next().unwrap().parse().unwrap(),
        service: key.parse().ok(),
        client: client.parse().unwrap(),
        vip: key.split_once(':').unwrap().1.parse().ok(),
        local: None,
        backend: backend.parse().ok(),
        state: state.to_owned(),
        expires_secs,
    };
    let outward = Flow {
        local: "198.51.100.200:40000".parse().ok(),
        ..flow("tcp:", "192.0.2.7:1024", "", "SYN_RECV", 60)
    };
    let full_nat = Flow {
        local: "[2001:db8:5::200]:40000".parse().ok(),
        ..flow("udp:[2001:db8::1]:53", "[2001:db8:7::7]:1024", "[2001:db8:2::11]:53", "UDP", 30)
    };
    FlowList {
        flows: vec![
            flow("tcp:192.0.2.100:80", "203.0.113.99:31337", "198.51.100.7:8000", "ESTABLISHED", 899),
            flow("udp:192.0.2.100:53", "203.0.113.5:1024", "203.0.113.1:53", "UDP", 6000),
            full_nat,
            outward,
        ],
        total: 14,
    }
}

pub fn stats() -> Stats {
    let worker = WorkerStats {
        received: 103,
        injected: 2,
        taken_over: 1,
        made: 2,
        sent: 97,
        punted: 3,
        handed_over: 1,
        answered: 1,
        answered_for: Vec::new(),
        routed: 0,
        held: 3,
        snat_exhausted: 0,
        addresses_untold: 0,
        dropped: 4,
        drops: drops(),
    };
    let port = PortStats {
        name: "lan".to_owned(),
        rx_packets: 100,
        rx_bytes: 6400,
        rx_missed: 1,
        rx_errors: 2,
        rx_no_mbuf: 3,
        tx_packets: 95,
        tx_bytes: 6080,
        tx_errors: 4,
    };
    let control = ControlStats {
        punted: 6,
        from_host: 9,
        answered: 3,
        resolved: 1,
        to_host: 2,
        host_sent: 7,
        waiting: 1,
        dropped: 1,
        drops: Vec::new(),
        unsent: 0,
    };
    let local = |address: &str, pool: Option<&str>, ports_used| LocalStats {
        address: address.parse().unwrap(),
        pool: pool.map(str::to_owned),
        ports_used,
        capacity: 129_024,
    };
    let locals = vec![local("198.51.100.200", Some("out"), 12), local("2001:db8:5::200", None, 0)];
    let templates = TemplateUsage { used: 17, capacity: 65_536 };
    let workers = vec![worker.clone(), worker];
    Stats { workers, control, ports: vec![port], locals, templates, services: services() }
}

pub fn templates() -> TemplateList {
    let template = |client: &str, service: &str, backend: &str| Template {
        client: client.parse().unwrap(),
        service: service.parse().unwrap(),
        group: None,
        port: None,
        backend: backend.parse().unwrap(),
        expires_secs: 299,
    };
    let shop = template("203.0.113.0/24", "tcp:192.0.2.100:80", "198.51.100.7:8000");
    let by_port = template("2001:db8:7::7/128", "tcp:[2001:db8::1]:0", "[2001:db8:2::11]:0");
    TemplateList {
        templates: vec![
            Template { group: Some("shop".to_owned()), ..shop },
            Template { port: Some(443), expires_secs: 3600, ..by_port },
        ],
        total: 12,
        usage: TemplateUsage { used: 17, capacity: 65_536 },
    }
}

pub fn drops() -> Vec<Drop> {
    let drop = |reason: &str, meaning: &str, packets| Drop {
        reason: reason.to_owned(),
        meaning: meaning.to_owned(),
        packets,
    };
    vec![
        drop("no_service", "No service has this address, protocol and port.", 4),
        drop("truncated", "A header runs past the end of the frame.", 0),
    ]
}

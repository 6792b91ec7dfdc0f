//! Numbers that are all different, for the tests of the page.

use crate::api::{
    BackendStatus, ControlStats, Counters, DrainStatus, Drop as Dropped, Health, LocalStats, PortStats,
    ServiceStatus, Stats, Status, TemplateUsage, WorkerStats, WorkerStatus,
};
use crate::policy::{Serving, Standing};

pub fn stats() -> Stats {
    let backend = BackendStatus {
        address: "198.51.100.7:8000".parse().unwrap(),
        mode: config::words::Mode::Nat,
        tunnel: None,
        sorry: false,
        weight: 4,
        upper: 0,
        lower: 0,
        effective_weight: 0.0,
        priority: 0,
        configured: config::words::Admin::Enabled,
        admin: config::words::Admin::Drain,
        operational: Standing::Draining,
        drain: Some(DrainStatus {
            left_secs: Some(17),
            then: config::words::Then::Remove,
            persistent: true,
            flows: 11,
        }),
        health: Health::Down,
        reason: "connection refused".to_owned(),
        since_secs: 3,
        active: 5,
        inactive: 6,
        counters: Counters { conns: 11, in_packets: 12, out_packets: 13, in_bytes: 14, out_bytes: 15 },
    };
    let service = ServiceStatus {
        name: "a \"web\"".to_owned(),
        service: "tcp:192.0.2.1:80".parse().unwrap(),
        scheduler: config::words::Scheduler::Wrr,
        hash: None,
        persistence: None,
        limits: None,
        no_backend: config::words::NoBackend::Icmp,
        no_flow: config::words::NoFlow::Drop,
        one_packet: false,
        client_address: config::words::ClientAddress::None,
        snat_pool: Some("out".to_owned()),
        serving: Serving::Sorry,
        quorum: false,
        counters: Counters { conns: 21, in_packets: 22, out_packets: 23, in_bytes: 24, out_bytes: 25 },
        backends: vec![backend],
    };
    let drop = |reason: &str, packets| Dropped { reason: reason.to_owned(), meaning: String::new(), packets };
    let worker = WorkerStats {
        received: u64::MAX,
        injected: 2,
        taken_over: 3,
        made: 15,
        sent: 4,
        punted: 5,
        handed_over: 6,
        answered: 8,
        answered_for: vec![drop("ttl_exceeded", 12)],
        routed: 9,
        held: 10,
        snat_exhausted: 11,
        addresses_untold: 14,
        dropped: 7,
        drops: vec![drop("no_service", 7), drop("truncated", 0)],
    };
    let port = PortStats {
        name: "lan".to_owned(),
        rx_packets: 31,
        rx_bytes: 32,
        rx_missed: 33,
        rx_errors: 34,
        rx_no_mbuf: 35,
        tx_packets: 36,
        tx_bytes: 37,
        tx_errors: 38,
    };
    let control = ControlStats {
        punted: 51,
        from_host: 57,
        answered: 52,
        resolved: 53,
        to_host: 58,
        host_sent: 59,
        waiting: 54,
        dropped: 55,
        drops: vec![drop("no_neighbour", 55)],
        unsent: 56,
    };
    let local = |address: &str, pool: Option<&str>| LocalStats {
        address: address.parse().unwrap(),
        pool: pool.map(str::to_owned),
        ports_used: 61,
        capacity: 62,
    };
    let locals = vec![local("192.0.2.200", Some("out")), local("2001:db8::200", None)];
    Stats {
        workers: vec![worker],
        control,
        ports: vec![port],
        locals,
        templates: TemplateUsage { used: 71, capacity: 72 },
        services: vec![service],
    }
}

pub fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        dpdk: "DPDK 22.11.7".to_owned(),
        pid: 1,
        uptime_secs: 41,
        config_file: "/etc/trutina/trutina.toml".to_owned(),
        generation: 42,
        ports: Vec::new(),
        interfaces: Vec::new(),
        workers: vec![WorkerStatus {
            core: 1,
            idle: config::words::Idle::Poll,
            flows: 43,
            flow_capacity: 44,
            wide_capacity: 45,
            generation: 42,
        }],
        services: 1,
        backends_up: 0,
        backends: 1,
        neighbours: Vec::new(),
    }
}

//! What valid files say, and how files are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use config::model::{
    Agent, Backend, Check, CheckKind, Class, Cluster, Config, Control, Cores, Device, Dpdk, FlowTable,
    Fragments, Gateway, Hash, Icmp, Interface, Limits, Metrics, Neighbour, Persistence, Policy, Port, Quic,
    Quorum, Route, Service, SlowStart, SnatPool, Tags, Timeouts, Tunnel,
};
use config::words::{
    Admin, AtLimit, ClientAddress, Encapsulation, Fate, HashPart, Idle, Mode, NoBackend, NoFlow, ProxyHeader,
    Scheduler,
};
use config::{LoadError, limits};

fn port(name: &str, devices: &[&str]) -> Port {
    let devices = devices.iter().map(|device| Device::Vdev((*device).to_owned())).collect();
    Port { name: name.to_owned(), devices, mtu: 1500, mac: None }
}

fn interface(name: &str, port: usize, tags: (u16, u16), addresses: &[&str]) -> Interface {
    Interface {
        name: name.to_owned(),
        port,
        tags: Tags { outer: tags.0, inner: tags.1 },
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: 1500,
        host: None,
        gateway: None,
    }
}

fn route(to: &str, via: &str) -> Route {
    Route { to: to.parse().unwrap(), via: via.parse().unwrap() }
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

/// A service that says nothing but its key and backends.
fn service(key: &str, backends: &[Backend]) -> Service {
    Service {
        name: key.to_owned(),
        key: key.parse().unwrap(),
        scheduler: Scheduler::Wlc,
        hash: None,
        quic: None,
        expiration_secs: None,
        persistence: None,
        limits: None,
        check: None,
        agent: None,
        no_backend: NoBackend::Icmp,
        no_flow: NoFlow::Drop,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        client_address: ClientAddress::None,
        echo: true,
        policy: Policy::default(),
        backends: backends.to_vec(),
    }
}

fn expected_interfaces() -> Vec<Interface> {
    let pool = Some("out".to_owned());
    let lan = ["192.0.2.254/24", "203.0.113.1/31", "2001:db8:1::fe/64"];
    vec![
        Interface {
            mtu: 9000,
            host: Some("tap-lan".to_owned()),
            gateway: Some(Gateway { snat_pool: None }),
            ..interface("lan", 0, (0, 0), &lan)
        },
        Interface {
            host: Some("tap-servers".to_owned()),
            gateway: Some(Gateway { snat_pool: pool }),
            ..interface("servers", 0, (0, 100), &["198.51.100.130/26"])
        },
        Interface { mtu: 9000, ..interface("lan.200.7", 0, (200, 7), &["2001:db8:7::fe/64"]) },
        interface("wan", 1, (0, 0), &["198.51.100.2/25"]),
        interface("trunk", 2, (0, 0), &[]),
        interface("trunk.100", 2, (0, 100), &["2001:db8:8::fe/64"]),
    ]
}

fn expected_services() -> Vec<Service> {
    let http = CheckKind::Http {
        path: "/health".to_owned(),
        host: Some("www.example.org".to_owned()),
        status: Some(204),
        proxy: Some(ProxyHeader::V1),
    };
    let check = Check { kind: http, port: Some(8081), interval_ms: 1000, timeout_ms: 500, rise: 1, fall: 2 };
    let dns_check =
        Check { kind: CheckKind::Tcp, port: Some(53), interval_ms: 2000, timeout_ms: 1000, rise: 2, fall: 3 };
    let gue = Tunnel {
        encapsulation: Encapsulation::Gue,
        port: 6081,
        checksum: true,
        spread: "172.16.0.0/16".parse().ok(),
    };
    let spread = "2001:db8:a::/64".parse().ok();
    let gre = Tunnel { encapsulation: Encapsulation::Gre, spread, ..Tunnel::default() };
    let web = [
        Backend {
            weight: 4,
            upper: 1000,
            lower: 900,
            priority: 10,
            admin: Admin::Drain,
            ..backend("192.0.2.11:80", Mode::Dr)
        },
        backend("10.0.0.12:8000", Mode::Nat),
        backend("[2001:db8:9::12]:8000", Mode::FullNat),
        Backend { tunnel: gue, ..backend("10.0.0.13:80", Mode::Tunnel) },
        Backend { tunnel: gre, ..backend("[2001:db8:9::13]:80", Mode::Tunnel) },
    ];
    let dns = [backend("192.0.2.13:53", Mode::Nat), backend("10.0.0.13:53", Mode::Tunnel)];
    let range = [backend("[2001:db8:1::11]:0", Mode::Nat), backend("[2001:db8:1::12]:9000", Mode::Nat)];
    let persistence = Persistence {
        timeout_secs: 600,
        prefix_v4: 24,
        prefix_v6: 64,
        group: Some("shop".to_owned()),
        across_ports: false,
        respect_limits: true,
        expire_when_drained: true,
    };
    let limits = Limits {
        connections: Some(10_000),
        new_per_sec: Some(500),
        new_per_sec_per_backend: Some(200),
        new_per_sec_per_source: Some(50),
        prefix_v4: 24,
        prefix_v6: 56,
        packets_per_sec: Some(1_000_000),
        bits_per_sec: Some(4_000_000_000),
        answer: AtLimit::Sorry,
    };
    let aes = "8f95f09245765f80256934e50c66207f";
    let quic = Backend { server_id: "0a1b".parse().ok(), ..backend("192.0.2.14:443", Mode::Nat) };
    vec![
        Service {
            name: "web".to_owned(),
            scheduler: Scheduler::Sh,
            hash: Some(Hash { on: HashPart::SourcePort, fallback: true, ..Hash::default() }),
            persistence: Some(persistence),
            limits: Some(limits),
            check: Some(check),
            no_backend: NoBackend::Rst,
            no_flow: NoFlow::Schedule,
            mss: Some(1400),
            timeouts: Some(Timeouts { established_secs: 3600, ..Timeouts::IPVS }),
            snat_pool: Some("out".to_owned()),
            echo: false,
            policy: Policy {
                slow_start: Some(SlowStart { secs: 60, exponent: 2.0 }),
                min_active: 2,
                quorum: Quorum { weight: 3, hysteresis: 1 },
                fail_open: Some(30),
                on_down: Some(Fate::Reset),
                on_disabled: Fate::Keep,
                sorry: vec![backend("192.0.2.19:80", Mode::Dr)],
            },
            ..service("tcp:192.0.2.100:80@gold", &web)
        },
        Service {
            scheduler: Scheduler::Quic,
            quic: Some(Quic { rotation: 1, server_id_len: 2, nonce_len: 6, key: aes.parse().ok() }),
            ..service("udp:192.0.2.100:443", &[quic])
        },
        Service { check: Some(dns_check), one_packet: true, ..service("udp:192.0.2.100:53", &dns) },
        Service {
            snat_pool: Some("out".to_owned()),
            client_address: ClientAddress::ProxyV2,
            ..service("tcp:192.0.2.100:25", &[backend("192.0.2.14:2525", Mode::FullNat)])
        },
        Service {
            scheduler: Scheduler::Lblcr,
            expiration_secs: Some(3600),
            ..service("tcp:192.0.2.100:3128", &[backend("192.0.2.16:3128", Mode::Nat)])
        },
        Service {
            scheduler: Scheduler::DynamicRatio,
            agent: Some(Agent { port: 9999, interval_ms: 500, timeout_ms: 400 }),
            ..service("tcp:192.0.2.100:8080", &[backend("192.0.2.15:8080", Mode::Nat)])
        },
        service("tcp:[2001:db8:1::100]:8000-8099", &range),
    ]
}

fn expected_pools() -> Vec<SnatPool> {
    let v4 = ["198.51.100.100", "198.51.100.104", "198.51.100.105", "198.51.100.106", "198.51.100.107"];
    let v6 = ["2001:db8:5::", "2001:db8:5::1", "2001:db8:5::2", "2001:db8:5::3"];
    let addresses = v4.iter().chain(&v6).map(|address| address.parse().unwrap()).collect();
    vec![SnatPool { name: "out".to_owned(), addresses }]
}

#[test]
fn a_tunnel_may_be_that_of_sorry_backends_alone() {
    let tunnels = "tunnel = { type = \"gue\" }\nsorry = [{ address = \"192.0.2.19:80\", mode = \"tunnel\" }]";
    let service = format!("[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n{tunnels}\n");
    let config = config::parse("t", &format!("{LEAST}{service}")).unwrap();
    assert_eq!(config.services[0].policy.sorry[0].tunnel.encapsulation, Encapsulation::Gue);
}

#[test]
fn every_key_is_read() {
    let lan = port("lan", &["net_af_packet0,iface=l0,qdisc_bypass=1"]);
    let wan = ["net_af_xdp0,iface=w0,start_queue=0", "net_af_xdp1,iface=w0,start_queue=1"];
    let expected = Config {
        dpdk: Dpdk { hugepages: false, memory_mib: 128, file_prefix: "lab".to_owned() },
        cores: Cores { control: 2, workers: vec![3, 4], shared: false, idle: Idle::Sleep },
        ports: vec![
            Port { mtu: 9000, mac: "02:00:5e:00:53:01".parse().ok(), ..lan },
            port("wan", &wan),
            Port { devices: vec![Device::Pci("0000:03:00.0,rxq=2".to_owned())], ..port("trunk", &[]) },
        ],
        interfaces: expected_interfaces(),
        routes: vec![route("0.0.0.0/0", "198.51.100.1"), route("2001:db8:9::/48", "2001:db8:1::1")],
        neighbours: vec![Neighbour {
            address: "192.0.2.11".parse().unwrap(),
            mac: "02:00:5e:00:53:0b".parse().unwrap(),
        }],
        snat_pools: expected_pools(),
        classes: vec![Class {
            name: "gold".parse().unwrap(),
            sources: vec!["203.0.113.0/24".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()],
            vlan: Some(100),
            dscp: Some(46),
        }],
        cluster: Cluster { secret: Some("correct horse battery".to_owned()) },
        flow_table: FlowTable { capacity: 100_000, wide_capacity: 50_000, templates: 1000 },
        timeouts: Timeouts {
            none_secs: 3,
            established_secs: 600,
            syn_sent_secs: 4,
            syn_recv_secs: 20,
            fin_wait_secs: 8,
            time_wait_secs: 9,
            close_secs: 5,
            close_wait_secs: 10,
            last_ack_secs: 11,
            listen_secs: 110,
            synack_secs: 25,
            udp_secs: 30,
        },
        icmp: Icmp { rate: 100, no_service: NoBackend::Icmp },
        fragments: Fragments { capacity: 512, timeout_secs: 3, remember_secs: 20 },
        control: Control { socket: "/run/lab.sock".into() },
        metrics: Some(Metrics { listen: "127.0.0.1:9400".parse().unwrap() }),
        services: expected_services(),
    };
    assert_eq!(config::parse("t", include_str!("every-key.toml")), Ok(expected));
}

/// The file with all keys is their documentation: some line of each says what it is for.
#[test]
fn every_key_is_explained() {
    let text = include_str!("every-key.toml");
    let key = |line: &str| line.split_once(" = ").map(|(key, _)| key.trim_start_matches("# ").to_owned());
    let plain = |key: &String| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let explained: Vec<_> = text.lines().filter(|line| line.contains("  # ")).filter_map(key).collect();
    // What these say is in their names.
    let obvious = ["address", "to", "via", "mac", "name", "device", "backend", "check"];
    for key in text.lines().filter_map(key).filter(plain) {
        assert!(explained.contains(&key) || obvious.contains(&key.as_str()), "{key}");
    }
}

const LEAST: &str = "
[cores]
workers = [1]
[[port]]
name = \"lan\"
device = \"net_null0\"
addresses = [\"192.0.2.254/24\"]
";

#[test]
fn all_else_has_a_default() {
    let expected = Config {
        dpdk: Dpdk { hugepages: true, memory_mib: 1024, file_prefix: "trutina".to_owned() },
        cores: Cores { control: 0, workers: vec![1], shared: false, idle: Idle::Poll },
        ports: vec![port("lan", &["net_null0"])],
        interfaces: vec![interface("lan", 0, (0, 0), &["192.0.2.254/24"])],
        routes: Vec::new(),
        neighbours: Vec::new(),
        snat_pools: Vec::new(),
        classes: Vec::new(),
        cluster: Cluster::default(),
        flow_table: FlowTable { capacity: 1_000_000, wide_capacity: 250_000, templates: 65_536 },
        timeouts: Timeouts::IPVS,
        icmp: Icmp { rate: 1000, no_service: NoBackend::Drop },
        fragments: Fragments { capacity: 1024, timeout_secs: 5, remember_secs: 30 },
        control: Control { socket: "/run/trutina.sock".into() },
        metrics: None,
        services: Vec::new(),
    };
    assert_eq!(config::parse("t", LEAST), Ok(expected));
    let small = config::parse("t", &format!("{LEAST}[dpdk]\nhugepages = false")).unwrap();
    assert_eq!(small.dpdk.memory_mib, 256);
    let few = config::parse("t", &format!("{LEAST}[flow_table]\ncapacity = 4000")).unwrap();
    assert_eq!(few.flow_table.wide_capacity, 1024);
    let bare = format!("{LEAST}[[service]]\nvip = \"192.0.2.100:0\"\nprotocol = \"udp\"\n");
    assert_eq!(config::parse("t", &bare).unwrap().services, [service("udp:192.0.2.100:0", &[])]);
}

#[test]
fn line_ends_and_byte_order_marks_are_no_matter() {
    let expected = config::parse("t", LEAST).unwrap();
    assert_eq!(config::parse("t", &LEAST.replace('\n', "\r\n")), Ok(expected.clone()));
    assert_eq!(config::parse("t", &format!("\u{feff}{LEAST}")), Ok(expected));
}

#[test]
fn legal_at_the_edges() {
    let text = LEAST.replace("192.0.2.254/24", "203.0.113.0/31")
        + "[metrics]\nlisten = \"[::1]:9400\"\n[flow_table]\ncapacity = 0x4000_0000\n\
           [[route]]\nto = \"192.0.2.0/24\"\nvia = \"203.0.113.1\"\n\
           [[service]]\nvip = \"203.0.113.0:80\"\nprotocol = \"tcp\"\nmode = \"tunnel\"\n\
           backend = [{ address = \"192.0.2.11:80\", weight = 65535 }, { address = \"192.0.2.12:80\", weight = 0 }]\n\
           [[service]]\nvip = \"203.0.113.0:80\"\nprotocol = \"udp\"\n";
    let config = config::parse("t", &text).unwrap();
    assert_eq!(config.flow_table.capacity, 1 << 30);
    assert_eq!(config.services.len(), 2);
}

#[test]
fn both_ip_versions_stand_side_by_side() {
    let text = LEAST.replace("\"192.0.2.254/24\"", "\"192.0.2.254/24\", \"2001:db8:1::fe/64\"")
        + "gateway = false\n\
           [[snat_pool]]\nname = \"out\"\naddresses = [\"192.0.2.200\", \"2001:db8:1::200\"]\n\
           [[service]]\nvip = \"[2001:db8:1::100]:80\"\nprotocol = \"tcp\"\nsnat_pool = \"out\"\n\
           backend = [\n\
           { address = \"192.0.2.11:8000\", mode = \"full-nat\" },\n\
           { address = \"192.0.2.12:80\", mode = \"tunnel\" },\n\
           { address = \"[2001:db8:1::11]:80\", mode = \"dr\" },\n\
           { address = \"[2001:db8:1::12]:8000\", mode = \"nat\" },\n\
           ]\n\
           [[service]]\nvip = \"192.0.2.254:80\"\nprotocol = \"tcp\"\nsnat_pool = \"out\"\n\
           backend = [\n\
           { address = \"[2001:db8:1::11]:80\", mode = \"full-nat\" },\n\
           { address = \"[2001:db8:1::12]:80\", mode = \"tunnel\" },\n\
           ]\n";
    let config = config::parse("t", &text).unwrap();
    assert_eq!(config.interfaces[0].gateway, None);
    assert_eq!(config.services.iter().map(|service| service.backends.len()).collect::<Vec<_>>(), [4, 2]);
}

#[test]
fn narrower_services_stand_beside_wider_ones() {
    let service = |vip: &str| format!("[[service]]\nvip = \"192.0.2.100:{vip}\"\nprotocol = \"tcp\"\n");
    let services: String = ["0", "80-90", "85", "80-85", "90", "80"].map(service).concat();
    let gold = format!("{}class = \"gold\"\n", service("85-95"));
    let class = "[[class]]\nname = \"gold\"\ndscp = 46\n";
    let config = config::parse("t", &format!("{LEAST}{class}{services}{gold}")).unwrap();
    assert_eq!(config.services.len(), 7);
}

#[test]
fn pools_fill_their_room_exactly() {
    let pools = "[[snat_pool]]\nname = \"a\"\naddresses = [\"10.0.0.0/25\"]\n\
                 [[snat_pool]]\nname = \"b\"\naddresses = [\"2001:db8:5::/121\"]\n";
    let config = config::parse("t", &(LEAST.to_owned() + pools)).unwrap();
    assert_eq!(config.snat_pools.iter().map(|pool| pool.addresses.len()).sum::<usize>(), 256);
}

#[test]
fn devices_are_bounded() {
    let port = |port: usize| {
        let device = |number: usize| format!("\"net_af_xdp{}\"", 16 * port + number);
        let devices: Vec<_> = (0..16).map(device).collect();
        format!("[[port]]\nname = \"p{port}\"\ndevices = [{}]\naddresses = []\n", devices.join(", "))
    };
    let workers: Vec<_> = (1..=16).collect();
    let most = format!("[cores]\nworkers = {workers:?}\n{}{}", port(0), port(1));
    assert_eq!(config::parse("t", &most).unwrap().ports[1].devices.len(), 16);
    let problems = config::parse("t", &(most + &port(2))).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].key, "port[2].devices[0]");
    assert_eq!(problems[0].message, "there are 48 devices, but DPDK has room for 32");
}

#[test]
fn totals_are_bounded() {
    let empty = "[[service]]\nvip = \"198.51.100.1:80\"\nprotocol = \"tcp\"\n";
    let problems = config::parse("t", &(LEAST.to_owned() + &empty.repeat(limits::SERVICES + 1))).unwrap_err();
    let message = format!("there are {} of these, but at most {} are possible", 65_001, 65_000);
    assert!(problems.iter().any(|problem| problem.message == message));
    assert_eq!(problems.len(), limits::PROBLEMS + 1);
}

#[test]
fn a_long_file_that_is_no_toml_is_told_once() {
    let told = |len| config::parse("t", &"=\n".repeat(len / 2)).unwrap_err().len();
    assert!(told(10) > 1);
    assert_eq!(told(limits::SYNTAX_LEN), limits::PROBLEMS + 1);
    assert_eq!(told(limits::SYNTAX_LEN + 2), 1);
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// What is told of a file with these contents, its path written as FILE.
fn told_of(name: &str, contents: &[u8]) -> String {
    let path = temporary(name);
    fs::write(&path, contents).unwrap();
    let told = config::load(&path).unwrap_err().to_string();
    fs::remove_file(&path).unwrap();
    told.replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn a_file_is_loaded() {
    let path = temporary("valid.toml");
    fs::write(&path, LEAST).unwrap();
    let config = config::load(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(Ok(config), config::parse("t", LEAST));
}

#[test]
fn files_that_can_not_be_read_say_what_to_do() {
    let told = config::load(Path::new("/nonexistent/trutina.toml")).unwrap_err().to_string();
    assert_eq!(
        told,
        "cannot read /nonexistent/trutina.toml; No such file or directory (os error 2); \
         create it, or name another file with --config"
    );
    let directory = config::load(Path::new("/")).unwrap_err();
    assert!(matches!(directory, LoadError::Io { .. }));
    assert!(directory.to_string().ends_with("name a regular file with --config"), "{directory}");
}

#[test]
fn problems_name_the_file_one_a_line() {
    let told = told_of("invalid.toml", format!("{LEAST}mtu = 1\nmac = 2\n").as_bytes());
    assert_eq!(
        told,
        "FILE:8:7: port[0].mtu: `1` is out of range; help: use a number from 68 to 9600\n\
         FILE:9:7: port[0].mac: expected a string, found an integer"
    );
}

#[test]
fn other_encodings_are_told_with_their_place() {
    let told = told_of("latin1.toml", b"# f\xc3\xbcr\nname = \"f\xfcr\"\n");
    assert_eq!(told, "FILE:2:10: the file is not UTF-8 from here on; help: save it in the encoding UTF-8");
}

#[test]
fn endless_files_are_not_read_to_their_end() {
    let told = config::load(Path::new("/dev/zero")).unwrap_err().to_string();
    assert_eq!(told, "/dev/zero:1:1: the file is longer than 64 MiB; help: name a configuration file");
}

//! What valid files say, and how files are loaded.

use std::fs;
use std::path::{Path, PathBuf};

use config::model::{
    Backend, Check, CheckKind, Config, Control, Cores, Device, Dpdk, FlowTable, Fragments, Icmp, Interface,
    Metrics, Neighbour, Port, Route, Service, Tags, Timeouts, Tunnel,
};
use config::words::{Mode, NoBackend, Scheduler};
use config::{LoadError, limits};

fn port(name: &str, device: Device) -> Port {
    Port { name: name.to_owned(), devices: vec![device], mtu: 1500, mac: None }
}

fn interface(name: &str, port: usize, addresses: &[&str]) -> Interface {
    Interface {
        name: name.to_owned(),
        port,
        tags: Tags::default(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: 1500,
        host: None,
        gateway: None,
    }
}

const ICMP: Icmp = Icmp { rate: 1000, no_service: NoBackend::Drop };
const FRAGMENTS: Fragments = Fragments { capacity: 4096, timeout_secs: 5, remember_secs: 30 };

fn backend(address: &str, mode: Mode, weight: u16) -> Backend {
    Backend { address: address.parse().unwrap(), mode, tunnel: Tunnel::default(), weight }
}

#[test]
fn every_key_is_read() {
    let lan = Device::Vdev("net_af_packet0,iface=l0,qdisc_bypass=1".to_owned());
    let lan = port("lan", lan);
    let http = CheckKind::Http {
        path: "/health".to_owned(),
        host: Some("www.example.org".to_owned()),
        status: Some(204),
    };
    let web = Service {
        name: "web".to_owned(),
        key: "tcp:192.0.2.100:80".parse().unwrap(),
        scheduler: Scheduler::Rr,
        check: Some(Check {
            kind: http,
            port: Some(8081),
            interval_ms: 1000,
            timeout_ms: 500,
            rise: 1,
            fall: 2,
        }),
        no_backend: NoBackend::Icmp,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        echo: true,
        backends: vec![backend("192.0.2.11:80", Mode::Dr, 4), backend("10.0.0.12:8000", Mode::Nat, 1)],
    };
    let tcp = CheckKind::Tcp;
    let dns = Service {
        name: "udp:192.0.2.100:53".to_owned(),
        key: "udp:192.0.2.100:53".parse().unwrap(),
        scheduler: Scheduler::Wrr,
        check: Some(Check {
            kind: tcp,
            port: Some(53),
            interval_ms: 2000,
            timeout_ms: 1000,
            rise: 2,
            fall: 3,
        }),
        no_backend: NoBackend::Icmp,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        echo: true,
        backends: vec![backend("192.0.2.13:53", Mode::Nat, 1), backend("10.0.0.13:53", Mode::Tunnel, 1)],
    };
    let expected = Config {
        dpdk: Dpdk { hugepages: false, memory_mib: 128, file_prefix: "lab".to_owned() },
        cores: Cores { control: 2, workers: vec![3, 4], shared: false },
        ports: vec![
            Port { mtu: 9000, mac: "02:00:5e:00:53:01".parse().ok(), ..lan },
            port("wan", Device::Pci("0000:03:00.0,rxq=2".to_owned())),
        ],
        interfaces: vec![
            Interface { mtu: 9000, ..interface("lan", 0, &["192.0.2.254/24", "203.0.113.1/31"]) },
            interface("wan", 1, &["198.51.100.2/25"]),
        ],
        routes: vec![Route { to: "0.0.0.0/0".parse().unwrap(), via: "198.51.100.1".parse().unwrap() }],
        neighbours: vec![Neighbour {
            address: "192.0.2.11".parse().unwrap(),
            mac: "02:00:5e:00:53:0b".parse().unwrap(),
        }],
        snat_pools: Vec::new(),
        classes: Vec::new(),
        flow_table: FlowTable { capacity: 100_000, wide_capacity: 25_000 },
        timeouts: Timeouts::IPVS,
        icmp: ICMP,
        fragments: FRAGMENTS,
        control: Control { socket: "/run/lab.sock".into() },
        metrics: Some(Metrics { listen: "127.0.0.1:9400".parse().unwrap() }),
        services: vec![web, dns],
    };
    assert_eq!(config::parse("t", include_str!("every-key.toml")), Ok(expected));
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
        cores: Cores { control: 0, workers: vec![1], shared: false },
        ports: vec![port("lan", Device::Vdev("net_null0".to_owned()))],
        interfaces: vec![interface("lan", 0, &["192.0.2.254/24"])],
        routes: Vec::new(),
        neighbours: Vec::new(),
        snat_pools: Vec::new(),
        classes: Vec::new(),
        flow_table: FlowTable { capacity: 1_000_000, wide_capacity: 250_000 },
        timeouts: Timeouts::IPVS,
        icmp: ICMP,
        fragments: FRAGMENTS,
        control: Control { socket: "/run/trutina.sock".into() },
        metrics: None,
        services: Vec::new(),
    };
    assert_eq!(config::parse("t", LEAST), Ok(expected));
    let small = config::parse("t", &format!("{LEAST}[dpdk]\nhugepages = false")).unwrap();
    assert_eq!(small.dpdk.memory_mib, 256);
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

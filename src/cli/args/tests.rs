//! What is typed, and what it becomes.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use config::model::{Agent, Backend, Check, CheckKind, Policy, Quorum, Service, SlowStart, Timeouts, Tunnel};
use config::words::{
    Admin, ClientAddress, Encapsulation, Fate, Mode, NoBackend, NoFlow, ProxyHeader, Scheduler, Then,
};
use controlplane::api::AdminChange;

use super::*;

fn parsed(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(line.split_whitespace())
}

fn request(line: &str) -> Request {
    parsed(line).unwrap().command.request().unwrap()
}

fn key() -> ServiceKey {
    "tcp:192.0.2.1:80".parse().unwrap()
}

#[test]
fn the_grammar_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn commands_become_calls() {
    let address = "198.51.100.7:8000".parse().unwrap();
    let administer =
        |change| Request::BackendSet { service: key(), address, weight: None, admin: Some(change) };
    for (line, want) in [
        ("trutina status", Request::Status),
        ("trutina service list", Request::ServiceList),
        ("trutina service remove tcp:192.0.2.1:80", Request::ServiceRemove { service: key() }),
        ("trutina backend list", Request::ServiceList),
        ("trutina backend list tcp:192.0.2.1:80", Request::ServiceList),
        (
            "trutina backend add tcp:192.0.2.1:80 198.51.100.7:8000",
            Request::BackendAdd {
                service: key(),
                backend: Backend {
                    address,
                    mode: Mode::Nat,
                    tunnel: Tunnel::default(),
                    weight: 1,
                    server_id: None,
                    upper: 0,
                    lower: 0,
                    admin: Admin::Enabled,
                    priority: 0,
                },
                sorry: false,
            },
        ),
        (
            "trutina backend add tcp:192.0.2.1:80 198.51.100.7:8000 --mode tunnel --weight 65535",
            Request::BackendAdd {
                service: key(),
                backend: Backend {
                    address,
                    mode: Mode::Tunnel,
                    tunnel: Tunnel::default(),
                    weight: 65535,
                    server_id: None,
                    upper: 0,
                    lower: 0,
                    admin: Admin::Enabled,
                    priority: 0,
                },
                sorry: false,
            },
        ),
        (
            "trutina backend remove tcp:192.0.2.1:80 198.51.100.7:8000",
            Request::BackendRemove { service: key(), address },
        ),
        (
            "trutina backend set tcp:192.0.2.1:80 198.51.100.7:8000 --weight 0",
            Request::BackendSet { service: key(), address, weight: Some(0), admin: None },
        ),
        ("trutina backend enable tcp:192.0.2.1:80 198.51.100.7:8000", administer(AdminChange::Enabled)),
        (
            "trutina backend drain tcp:192.0.2.1:80 198.51.100.7:8000",
            administer(AdminChange::Drain { timeout_secs: None, then: Then::Keep, persistent: true }),
        ),
        (
            "trutina b drain tcp:192.0.2.1:80 198.51.100.7:8000 --timeout 10m --then remove --no-persistent",
            administer(AdminChange::Drain { timeout_secs: Some(600), then: Then::Remove, persistent: false }),
        ),
        (
            "trutina backend disable tcp:192.0.2.1:80 198.51.100.7:8000",
            administer(AdminChange::Disabled { flows: None }),
        ),
        (
            "trutina backend disable tcp:192.0.2.1:80 198.51.100.7:8000 --flows keep",
            administer(AdminChange::Disabled { flows: Some(Fate::Keep) }),
        ),
        ("trutina flow list", Request::FlowList { limit: 1000 }),
        ("trutina flow list --limit 5", Request::FlowList { limit: 5 }),
        ("trutina stats", Request::Stats),
        ("trutina drops --all", Request::Drops),
        ("trutina reload", Request::Reload),
        ("trutina stop", Request::Stop),
    ] {
        assert_eq!(request(line), want, "{line}");
    }
}

#[test]
fn commands_may_be_shortened_while_they_stay_unique() {
    assert_eq!(request("trutina b l"), Request::ServiceList);
    assert_eq!(request("trutina se rem tcp:192.0.2.1:80"), Request::ServiceRemove { service: key() });
    assert_eq!(request("trutina f l --limit 7"), Request::FlowList { limit: 7 });
    assert_eq!(parsed("trutina sta").unwrap_err().kind(), ErrorKind::InvalidSubcommand);
}

fn service(options: &str) -> Service {
    match request(&format!("trutina service add tcp:192.0.2.1:80 {options}")) {
        Request::ServiceAdd(service) => *service,
        other => panic!("{other:?}"),
    }
}

fn backend(options: &str) -> Backend {
    match request(&format!("trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 {options}")) {
        Request::BackendAdd { backend, .. } => backend,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_service_takes_options() {
    let bare = service("");
    assert_eq!((bare.no_backend, bare.no_flow, bare.mss), (NoBackend::Icmp, NoFlow::Drop, None));
    assert_eq!((bare.one_packet, bare.snat_pool, bare.echo, bare.timeouts), (false, None, true, None));
    let full = service(
        "--no-backend rst --no-flow schedule --mss 1400 --one-packet --snat-pool out --no-echo --class gold --client-address proxy-v2",
    );
    assert_eq!((bare.client_address, full.client_address), (ClientAddress::None, ClientAddress::ProxyV2));
    assert_eq!((full.no_backend, full.mss, full.one_packet), (NoBackend::Rst, Some(1400), true));
    assert_eq!((full.snat_pool.as_deref(), full.echo, full.no_flow), (Some("out"), false, NoFlow::Schedule));
    assert_eq!(
        (full.key.to_string().as_str(), full.name.as_str()),
        ("tcp:192.0.2.1:80@gold", "tcp:192.0.2.1:80@gold")
    );
}

#[test]
fn a_service_of_a_class_says_so_once() {
    let add = |words: &str| parsed(&format!("trutina service add {words}")).unwrap().command.request();
    let key = |words: &str| match add(words) {
        Ok(Request::ServiceAdd(service)) => service.key.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(key("udp:[2001:db8::1]:8000-8099@gold"), "udp:[2001:db8::1]:8000-8099@gold");
    assert_eq!(key("udp:192.0.2.1:0@gold --class gold"), "udp:192.0.2.1:0@gold");
    assert!(add("udp:192.0.2.1:53@gold --class silver").unwrap_err().ends_with("; leave --class out"));
}

#[test]
fn timeouts_are_a_preset_and_what_differs() {
    let some = service("--timeout established=600 --timeout udp=30").timeouts;
    assert_eq!(some, Some(Timeouts { established_secs: 600, udp_secs: 30, ..Timeouts::IPVS }));
    let preset = service("--timeout syn_recv=20 --timeout preset=dpvs").timeouts;
    assert_eq!(preset, Some(Timeouts { syn_recv_secs: 20, ..Timeouts::DPVS }));
}

#[test]
fn a_service_takes_policies() {
    assert_eq!(service("").policy, Policy::default());
    let full = service(
        "--slow-start 5m --slow-start-exponent 2 --min-active 3 --quorum 7 --quorum-hysteresis 2 --fail-open 30 \
         --on-down reset --on-disabled keep",
    );
    let policy = Policy {
        slow_start: Some(SlowStart { secs: 300, exponent: 2.0 }),
        min_active: 3,
        quorum: Quorum { weight: 7, hysteresis: 2 },
        fail_open: Some(30),
        on_down: Some(Fate::Reset),
        on_disabled: Fate::Keep,
        sorry: Vec::new(),
    };
    assert_eq!(full.policy, policy);
    let spare = backend("--admin drain --priority 10");
    assert_eq!((spare.admin, spare.priority), (Admin::Drain, 10));
    let add = request("trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --sorry");
    assert!(matches!(add, Request::BackendAdd { sorry: true, .. }));
}

#[test]
fn a_service_takes_an_agent() {
    assert_eq!(service("").agent, None);
    let quick = service("--scheduler dynamic-ratio --agent-port 9999 --agent-interval-ms 500");
    assert_eq!(quick.scheduler, Scheduler::DynamicRatio);
    assert_eq!(quick.agent, Some(Agent { port: 9999, interval_ms: 500, timeout_ms: 500 }));
    let usual = service("--scheduler dynamic-ratio --agent-port 9999").agent;
    assert_eq!(usual, Some(Agent { port: 9999, interval_ms: 2000, timeout_ms: 1000 }));
}

#[test]
fn a_backend_takes_a_tunnel() {
    assert_eq!(backend("--mode full-nat").mode, Mode::FullNat);
    assert_eq!(backend("--mode tunnel").tunnel, Tunnel::default());
    let gre = Tunnel { encapsulation: Encapsulation::Gre, checksum: true, ..Tunnel::default() };
    assert_eq!(backend("--mode tunnel --tunnel gre --tunnel-checksum").tunnel, gre);
    let gue = Tunnel { encapsulation: Encapsulation::Gue, port: 6081, ..Tunnel::default() };
    assert_eq!(backend("--mode tunnel --tunnel gue --tunnel-port 6081").tunnel, gue);
    let spread = Tunnel { spread: "172.16.0.0/16".parse().ok(), ..Tunnel::default() };
    assert_eq!(backend("--mode tunnel --tunnel-spread 172.16.0.0/16").tunnel, spread);
    assert_eq!(
        backend("--mode tunnel --tunnel gre --tunnel-spread 100::/64").tunnel.spread,
        "100::/64".parse().ok()
    );
    let add = "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80";
    for (options, fix) in [
        ("--tunnel gue", "; use --mode tunnel"),
        ("--mode dr --tunnel-spread 172.16.0.0/16", "; use --mode tunnel"),
        ("--mode tunnel --tunnel gre --tunnel-port 6080", "; use --tunnel gue"),
    ] {
        let asks = parsed(&format!("{add} {options}")).unwrap();
        assert!(asks.command.request().unwrap_err().ends_with(fix), "{options}");
    }
}

#[test]
fn locality_takes_an_expiration() {
    assert_eq!(service("--scheduler lblc").expiration_secs, None);
    assert_eq!(service("--scheduler lblc --expiration-secs 60").expiration_secs, Some(60));
}

#[test]
fn a_service_takes_a_check() {
    let bare = service("");
    assert_eq!((bare.name.as_str(), bare.scheduler, bare.check), ("tcp:192.0.2.1:80", Scheduler::Wlc, None));
    let tcp =
        Check { kind: CheckKind::Tcp, port: None, interval_ms: 2000, timeout_ms: 1000, rise: 2, fall: 3 };
    assert_eq!(service("--check tcp").check, Some(tcp.clone()));
    assert_eq!(
        service("--check tcp --interval-ms 500").check,
        Some(Check { interval_ms: 500, timeout_ms: 500, ..tcp })
    );
    let full = service(
        "--name web --scheduler rr --check http --path /alive --host example.org --status 204 \
         --check-proxy v2 --check-port 8080 --interval-ms 900 --timeout-ms 800 --rise 4 --fall 5",
    );
    let kind = CheckKind::Http {
        path: "/alive".to_owned(),
        host: Some("example.org".to_owned()),
        status: Some(204),
        proxy: Some(ProxyHeader::V2),
    };
    assert_eq!((full.name.as_str(), full.scheduler), ("web", Scheduler::Rr));
    let check = Check { kind, port: Some(8080), interval_ms: 900, timeout_ms: 800, rise: 4, fall: 5 };
    assert_eq!(full.check, Some(check));
}

#[test]
fn options_must_fit_each_other() {
    for line in [
        "trutina service add tcp:192.0.2.1:80 --rise 3",
        "trutina service add tcp:192.0.2.1:80 --path /",
        "trutina service add tcp:192.0.2.1:80 --check icmp",
        "trutina service add tcp:192.0.2.1:80 --check tcp --interval-ms 0",
        "trutina service add tcp:192.0.2.1:80 --check http --status 99",
        "trutina service add tcp:192.0.2.1:80 --check http --check-proxy proxy-v2",
        "trutina service add 192.0.2.1:80",
        "trutina service add tcp:192.0.2.1:80 --mss 535",
        "trutina service add tcp:192.0.2.1:80 --no-backend sorry",
        "trutina service add tcp:192.0.2.1:80 --class golden-goose-egg",
        "trutina service add tcp:192.0.2.1:80 --timeout established",
        "trutina service add tcp:192.0.2.1:80 --timeout established=0",
        "trutina service add tcp:192.0.2.1:80 --timeout open=9",
        "trutina service add tcp:192.0.2.1:80 --timeout preset=linux",
        "trutina backend set tcp:192.0.2.1:80 198.51.100.7:8000",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:8000 --weight 65536",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7 --weight 1",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --mode masq",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --mode tunnel --tunnel vxlan",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --mode tunnel --tunnel-port 6081",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --mode tunnel --tunnel-checksum",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --mode tunnel --tunnel-spread 172.16.0.0",
        "trutina service add tcp:192.0.2.1:80 --slow-start-exponent 2",
        "trutina service add tcp:192.0.2.1:80 --fail-open 101",
        "trutina service add tcp:192.0.2.1:80 --on-down rst",
        "trutina backend add tcp:192.0.2.1:80 198.51.100.7:80 --sorry --priority 1",
        "trutina backend drain tcp:192.0.2.1:80 198.51.100.7:80 --then remove",
        "trutina backend drain tcp:192.0.2.1:80 198.51.100.7:80 --timeout 10x",
        "trutina flow list --limit -1",
        "trutina",
        "trutina service",
    ] {
        assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
    }
    for option in ["--path /", "--check-proxy v1"] {
        let asks = parsed(&format!("trutina service add tcp:192.0.2.1:80 --check tcp {option}")).unwrap();
        assert!(asks.command.request().unwrap_err().ends_with("; use --check http"), "{option}");
    }
}

#[test]
fn options_of_the_whole_program_stand_anywhere() {
    for line in ["trutina --json --socket /tmp/s status", "trutina status --socket /tmp/s --json"] {
        let arguments = parsed(line).unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.socket, PathBuf::from("/tmp/s"));
    }
}

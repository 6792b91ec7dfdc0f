//! Every refusal of the file, told with its position, key and fix.

mod interfaces;
mod links;
mod options;
mod pools;
mod services;
mod syntax;

use std::fmt::Write;

/// A valid file; cases change or append to it. Line 8 is the first that a case appends.
const BASE: &str = r#"[cores]
workers = [1]
[[port]]
name = "lan"
device = "net_null0"
addresses = ["192.0.2.254/24"]
mtu = 1500
"#;

/// A service for cases to append backends to, on lines 8 to 11.
const SERVICE: &str = "[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n[[service.backend]]\n";

fn problems(text: &str) -> String {
    let problems = config::parse("t", text).expect_err(text);
    problems.iter().fold(String::new(), |mut all, problem| {
        writeln!(all, "{problem}").unwrap();
        all
    })
}

/// Asserts what is told of each text.
fn refuse(cases: &[(String, &str)]) {
    for (text, told) in cases {
        assert_eq!(problems(text).trim_end(), *told, "\n{text}");
    }
}

fn base(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "{from}");
    BASE.replacen(from, to, 1)
}

fn with(appended: &str) -> String {
    format!("{BASE}{appended}\n")
}

fn backend(keys: &str) -> String {
    with(&format!("{SERVICE}{keys}"))
}

fn service(keys: &str) -> String {
    with(&format!("[[service]]\n{keys}"))
}

/// A service of its own, with more keys on line 11 and after.
fn option(keys: &str) -> String {
    service(&format!("vip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\n{keys}"))
}

fn udp(keys: &str) -> String {
    service(&format!("vip = \"192.0.2.100:53\"\nprotocol = \"udp\"\n{keys}"))
}

fn vlan(keys: &str) -> String {
    with(&format!("[[port.vlan]]\n{keys}"))
}

fn pool(addresses: &str) -> String {
    with(&format!("[[snat_pool]]\nname = \"out\"\naddresses = {addresses}"))
}

fn class(keys: &str) -> String {
    with(&format!("[[class]]\n{keys}"))
}

fn check(keys: &str) -> String {
    with(&format!("[[service]]\nvip = \"192.0.2.100:80\"\nprotocol = \"tcp\"\ncheck = {{ {keys} }}"))
}

#[test]
fn the_base_of_all_cases_is_valid() {
    for text in [BASE.to_owned(), backend("address = \"192.0.2.11:8000\""), check("kind = \"tcp\"")] {
        config::parse("t", &text).unwrap();
    }
}

#[test]
fn all_problems_are_told_in_one_go_and_in_order() {
    let text = "\
[[service]]
vip = \"192.0.2.100:80\"
protocol = \"tpc\"
bogus = 1
  [[service.backend]]
  address = \"198.51.100.1:8000\"
  mode = \"dr\"
  weight = 70000

[[port]]
name = 5
device = \"net_null0\"
addresses = [\"192.0.2.254/24\"]
mtu = 0

[[route]]
to = \"10.0.0.1/8\"
via = \"192.0.3.1\"
";
    let told = r#"t:1:1: cores.workers: this key is missing; help: add [cores] workers = [1]
t:3:12: service[0].protocol: unknown protocol `tpc`; help: did you mean `tcp`?
t:4:1: service[0].bogus: unknown key; help: the keys here are `name`, `vip`, `protocol`, `class`, `scheduler`, `hash`, `quic`, `expiration_secs`, `persistence`, `limits`, `mode`, `tunnel`, `snat_pool`, `client_address`, `no_backend`, `no_flow`, `mss`, `timeouts`, `one_packet`, `echo`, `check`, `agent`, `backend`, `sorry`, `slow_start`, `min_active`, `quorum`, `fail_open`, `on_down`, `on_disabled`
t:6:13: service[0].backend[0].address: backend 198.51.100.1:8000 has port 8000, but mode dr leaves the service's port as it is; help: use port 80, or mode = "nat" to change the port
t:6:13: service[0].backend[0].address: backend 198.51.100.1:8000 is not on the link of any interface, and mode dr reaches no further; help: use mode = "tunnel", or an address within a connected prefix
t:8:12: service[0].backend[0].weight: `70000` is out of range; help: use a number from 0 to 65535
t:11:8: port[0].name: expected a string, found an integer
t:14:7: port[0].mtu: `0` is out of range; help: use a number from 68 to 9600
t:17:6: route[0].to: 10.0.0.1/8 has bits set behind its prefix length; help: write 10.0.0.0/8
t:18:7: route[0].via: 192.0.3.1 is on no connected prefix; help: use an address within a prefix of some [[port]] or [[port.vlan]]
"#;
    assert_eq!(problems(text), told);
}

#[test]
fn a_network_that_can_not_be_read_is_told_once() {
    let text = backend("address = \"198.51.100.1:80\"").replace("192.0.2.254/24", "192.0.2.254");
    assert_eq!(problems(&text).lines().count(), 1, "{}", problems(&text));
}

#[test]
fn one_problem_of_a_service_hides_no_other() {
    let broken = format!("{SERVICE}address = \"192.0.2.11\"\n").repeat(2);
    let told = problems(&with(&broken));
    let lines: Vec<_> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["t:12:11", "t:14:7", "t:17:11"], "{told}");
}

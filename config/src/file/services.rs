//! Services, their backends and checks.

use super::report_repeated;
use crate::limits;
use crate::model::{Backend, Check, CheckKind, Service, Tunnel};
use crate::network::Network;
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::Table;
use crate::rules;
use crate::values::{address_and_port, address_and_ports, check_host, check_path, name, number, word};
use crate::words::{Mode, NoBackend, Protocol, Scheduler, ServiceKey};

/// Reads all services; without a network, the rules that need one are left out.
pub(super) fn services(root: &Table, network: Option<&Network>) -> Option<Vec<Service>> {
    let services = root.tables("service", limits::SERVICES, |table| service(table, network))?;
    let (keys, services): (Vec<_>, Vec<_>) = services.into_iter().unzip();
    report_repeated(root, "service", "vip", &keys);
    limit_backends(root, &services);
    services.into_iter().collect()
}

fn limit_backends(root: &Table, services: &[Option<Service>]) {
    let mut room = limits::BACKENDS;
    for (index, service) in services.iter().enumerate() {
        let backends = service.as_ref().map_or(0, |service| service.backends.len());
        if backends > room {
            let wrong = Wrong::new(format!("more than {} backends in all", limits::BACKENDS));
            root.report(
                &[Key("service"), Index(index), Key("backend"), Index(room)],
                wrong.help("remove some"),
            );
            return;
        }
        room -= backends;
    }
}

/// A service, and its key even if something else of it can not be read.
fn service(table: &Table, network: Option<&Network>) -> (Option<ServiceKey>, Option<Service>) {
    let name = table.optional("name", name);
    let vip = table.required("vip", "\"192.0.2.100:80\"", address_and_ports);
    let protocol = table.required("protocol", "\"tcp\"", word("protocol", Protocol::WORDS));
    let scheduler =
        table.optional("scheduler", word("scheduler", Scheduler::WORDS)).unwrap_or(Scheduler::Wrr);
    let mode = table.optional("mode", word("mode", Mode::WORDS)).unwrap_or(Mode::Nat);
    // Only a check's need of a port depends on the protocol, and TCP has none: an unknown one passes as TCP.
    let assumed = protocol.unwrap_or(Protocol::Tcp);
    let key = vip.map(|vip| ServiceKey { protocol: assumed, address: vip.0, ports: vip.1, class: None });
    if let Some(key) = &key {
        let reach = network.and_then(|network| rules::vip_reach_fault(network, key));
        for (at, fault) in rules::vip_faults(key).into_iter().chain(reach) {
            table.report(&[Key(at)], fault);
        }
    }
    let check = table.optional_section("check", |table| check(table, assumed));
    let place = Place { network, service: key.as_ref(), mode };
    let backends = table.tables("backend", limits::BACKENDS, |table| backend(table, &place));
    if let Some(backends) = &backends {
        compare_backends(table, backends);
    }
    let key = key.filter(|_| protocol.is_some());
    let backends = backends.and_then(|backends| backends.into_iter().collect());
    let service = key.zip(backends).map(|(key, backends)| Service {
        name: name.unwrap_or_else(|| key.to_string()),
        key,
        scheduler,
        check: check.flatten(),
        no_backend: NoBackend::Icmp,
        mss: None,
        timeouts: None,
        one_packet: false,
        snat_pool: None,
        echo: true,
        backends,
    });
    (key, service)
}

fn compare_backends(table: &Table, backends: &[Option<Backend>]) {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.map(|backend| backend.address)).collect();
    report_repeated(table, "backend", "address", &addresses);
}

/// What a backend is part of.
struct Place<'a> {
    network: Option<&'a Network>,
    service: Option<&'a ServiceKey>,
    mode: Mode,
}

fn backend(table: &Table, place: &Place) -> Option<Backend> {
    let address = table.required("address", "\"192.0.2.11:80\"", address_and_port);
    let mode = table.optional("mode", word("mode", Mode::WORDS)).unwrap_or(place.mode);
    let weight = table.optional("weight", number(limits::WEIGHT)).unwrap_or(1);
    let backend = Backend { address: address?, mode, tunnel: Tunnel::default(), weight };
    let own = rules::backend_faults(&backend);
    if own.is_empty() {
        let service = place.service.map(|key| rules::backend_service_faults(key, &backend));
        let reach = place.network.and_then(|network| rules::backend_reach_fault(network, &backend));
        for (at, fault) in service.into_iter().flatten().chain(reach) {
            table.report(&[Key(at)], fault);
        }
    }
    for (at, fault) in own {
        table.report(&[Key(at)], fault);
    }
    Some(backend)
}

fn check(table: &Table, protocol: Protocol) -> Option<Check> {
    let kind = table.required("kind", "\"tcp\"", word::<String>("kind of check", &["tcp", "http"]));
    let http = CheckKind::Http {
        path: table.optional("path", check_path).unwrap_or_else(|| "/".to_owned()),
        host: table.optional("host", check_host),
        status: table.optional("status", number(limits::HTTP_STATUS)),
    };
    let port = table.optional("port", number(limits::L4_PORT));
    let interval_ms = table.optional("interval_ms", number(limits::CHECK_MS)).unwrap_or(2000);
    let timeout_ms = table.optional("timeout_ms", number(limits::CHECK_MS)).unwrap_or(1000);
    let rise = table.optional("rise", number(limits::CHECKS_IN_A_ROW)).unwrap_or(2);
    let fall = table.optional("fall", number(limits::CHECKS_IN_A_ROW)).unwrap_or(3);
    let kind = match kind?.as_str() {
        "http" => http,
        _ => {
            refuse_http_keys(table);
            CheckKind::Tcp
        }
    };
    let check = Check { kind, port, interval_ms, timeout_ms, rise, fall };
    if table.is_sound() {
        for (at, fault) in rules::check_faults(protocol, &check) {
            table.report(&[Key(at)], fault);
        }
    }
    Some(check)
}

fn refuse_http_keys(table: &Table) {
    for key in ["path", "host", "status"].into_iter().filter(|key| table.has(key)) {
        let wrong = Wrong::new("a tcp check only opens a connection and asks for nothing");
        table.report(&[Key(key)], wrong.help("remove this key, or set kind = \"http\""));
    }
}

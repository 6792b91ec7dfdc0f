//! Services, their backends and checks.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::balance::{self, Balance};
use super::policy::policy;
use super::{each, report_repeated, timeouts};
use crate::limits as bounds;
use crate::model::{Agent, Backend, Check, CheckKind, Service, Timeouts, Tunnel};
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::{Step, Table};
use crate::rules::{self, Fault, Surroundings, Terms};
use crate::values::{
    address_and_port, address_and_ports, boolean, check_host, check_path, class_name, name, number,
    server_id, spread, word,
};
use crate::words::{
    Admin, ClientAddress, Encapsulation, Mode, NoBackend, NoFlow, Ports, Protocol, ProxyHeader, ServiceKey,
};

/// Reads all services. What one does not say of its timeouts is in `timeouts`.
pub(super) fn services(
    root: &Table,
    surroundings: &Surroundings,
    timeouts: Timeouts,
) -> Option<Vec<Service>> {
    let read = |table: &Table| service(table, surroundings, timeouts);
    let services = root.tables("service", bounds::SERVICES, read)?;
    let (keys, services): (Vec<_>, Vec<_>) = services.into_iter().unzip();
    report_repeated(root, &keys, each("service", "vip"));
    report_overlaps(root, &keys);
    limit_backends(root, &services);
    services.into_iter().collect()
}

fn report_overlaps(root: &Table, keys: &[Option<ServiceKey>]) {
    for (later, earlier) in rules::overlapping(keys) {
        if let (Some(key), Some(other)) = (keys[later], keys[earlier]) {
            let fault = Fault::PortsOverlap { key, other };
            let at = each("service", "vip");
            let wrong = Wrong::new(format!("{fault}, on line {}", root.line(&at(earlier))));
            root.report(&at(later), wrong.help(fault.help()));
        }
    }
}

fn limit_backends(root: &Table, services: &[Option<Service>]) {
    let counts = services.iter().map(|service| {
        service.as_ref().map_or((0, 0), |service| (service.backends.len(), service.policy.sorry.len()))
    });
    if let Some((service, table, index)) = first_beyond(bounds::BACKENDS, counts) {
        let wrong = Wrong::new(format!("more than {} backends in all", bounds::BACKENDS));
        let path = [Key("service"), Index(service), Key(table), Index(index)];
        root.report(&path, wrong.help("remove some"));
    }
}

/// The first backend beyond so many: the number of its service, the name of its array and its place there. `counts` are
/// those of each service's backends and sorry backends.
fn first_beyond(
    room: usize,
    counts: impl Iterator<Item = (usize, usize)>,
) -> Option<(usize, &'static str, usize)> {
    let mut room = room;
    for (service, (backends, sorry)) in counts.enumerate() {
        for (table, count) in [("backend", backends), ("sorry", sorry)] {
            if count > room {
                return Some((service, table, room));
            }
            room -= count;
        }
    }
    None
}

/// A service, and its key even if something else of it can not be read.
fn service(
    table: &Table,
    surroundings: &Surroundings,
    defaults: Timeouts,
) -> (Option<ServiceKey>, Option<Service>) {
    let name = table.optional("name", name);
    let identity = identity(table, surroundings);
    let Balance { scheduler, hash, quic, expiration_secs, persistence, limits } =
        balance::balance(table, identity.protocol);
    let mode = mode(table, Some(Mode::Nat));
    let vip = identity.key.map(|key| key.address);
    let tunnel = table.optional_section("tunnel", |table| tunnel(table, surroundings, vip)).flatten();
    let snat_pool = table.optional("snat_pool", self::name);
    let told = table.optional("client_address", word("way to tell client addresses", ClientAddress::WORDS));
    let client_address = told.unwrap_or_default();
    let no_backend = table.optional("no_backend", word("answer", NoBackend::WORDS));
    let no_flow = table.optional("no_flow", word("choice", NoFlow::WORDS)).unwrap_or_default();
    let mss = table.optional("mss", number(bounds::MSS));
    let timeouts = table.optional_section("timeouts", |table| timeouts(table, defaults));
    let one_packet = table.optional("one_packet", boolean).unwrap_or(false);
    let echo = table.optional("echo", boolean).unwrap_or(true);
    let unknown_pool = snat_pool.as_deref().and_then(|name| rules::pool_name_fault(surroundings, name));
    let options = identity.protocol.map(|protocol| rules::option_faults(protocol, no_flow, mss, one_packet));
    let untold = identity
        .protocol
        .and_then(|protocol| rules::client_address_fault(protocol, one_packet, client_address));
    for (at, fault) in options.into_iter().flatten().chain(unknown_pool).chain(untold) {
        table.report(&[Key(at)], fault);
    }
    let check = table.optional_section("check", |table| check(table, &identity));
    let agent = table.optional_section("agent", agent).flatten();
    // A pool whose name can not be read is not one that is missing.
    let key = identity.key.as_ref().filter(|_| snat_pool.is_some() == table.has("snat_pool"));
    let pool = snat_pool.as_deref();
    let terms = key.map(|key| Terms {
        key,
        snat_pool: pool,
        one_packet,
        client_address,
        scheduler,
        quic: quic.as_ref(),
    });
    let place = Place { surroundings, terms, mode, tunnel };
    let (backends, sorry) = (backends(table, &place), sorry(table, &place));
    report_beside(table, &place, &backends, &sorry);
    let backends = backends.and_then(|all| all.into_iter().collect());
    let sorry = sorry.and_then(|all| all.into_iter().collect::<Option<_>>());
    let policy = policy(table, sorry.unwrap_or_default());
    let key = identity.key.filter(|_| identity.certain);
    let service = key.zip(backends).map(|(key, backends)| Service {
        name: name.unwrap_or_else(|| key.to_string()),
        key,
        scheduler,
        hash,
        quic,
        expiration_secs,
        persistence,
        limits,
        check: check.flatten(),
        agent,
        no_backend: no_backend.unwrap_or(NoBackend::Icmp),
        no_flow,
        mss,
        timeouts,
        one_packet,
        snat_pool,
        client_address,
        echo,
        policy,
        backends,
    });
    (key, service)
}

/// What a service is known by, as far as it can be read.
struct Identity {
    protocol: Option<Protocol>,
    /// `None` without an address and ports. A protocol that can not be read passes as TCP, of which less is
    /// asked.
    key: Option<ServiceKey>,
    /// Whether the key is what the file says, to be compared with others.
    certain: bool,
}

fn identity(table: &Table, surroundings: &Surroundings) -> Identity {
    let vip = table.required("vip", "\"192.0.2.100:80\"", address_and_ports);
    let protocol = table.required("protocol", "\"tcp\"", word("protocol", Protocol::WORDS));
    let class = table.optional("class", class_name);
    let assumed = protocol.unwrap_or(Protocol::Tcp);
    let key = vip.map(|(address, ports)| ServiceKey { protocol: assumed, address, ports, class });
    let vip_fault = key.as_ref().and_then(|key| rules::vip_fault(surroundings, key));
    let class_fault = class.and_then(|class| rules::class_fault(surroundings, class));
    for (at, fault) in vip_fault.into_iter().chain(class_fault) {
        table.report(&[Key(at)], fault);
    }
    Identity { protocol, key, certain: protocol.is_some() && class.is_some() == table.has("class") }
}

/// What a backend is part of.
struct Place<'a> {
    surroundings: &'a Surroundings<'a>,
    terms: Option<Terms<'a>>,
    /// `None` if it can not be read.
    mode: Option<Mode>,
    tunnel: Option<Tunnel>,
}

fn mode(table: &Table, default: Option<Mode>) -> Option<Mode> {
    let mode = table.optional("mode", word("mode", Mode::WORDS));
    if table.has("mode") { mode } else { default }
}

/// Backends; `None` for each that can not be read.
type Listed = Vec<Option<Backend>>;

fn backends(table: &Table, place: &Place) -> Option<Listed> {
    let backends = table.tables("backend", bounds::BACKENDS, |table| {
        let priority = table.optional("priority", number(bounds::PRIORITY)).unwrap_or(0);
        Some(Backend { priority, ..backend(table, place)? })
    })?;
    report_repeated(table, &addresses(&backends), each("backend", "address"));
    Some(backends)
}

/// Those who serve when the service has no quorum.
fn sorry(table: &Table, place: &Place) -> Option<Listed> {
    let sorry = table.tables("sorry", bounds::BACKENDS, |table| backend(table, place))?;
    report_repeated(table, &addresses(&sorry), each("sorry", "address"));
    Some(sorry)
}

fn addresses(backends: &[Option<Backend>]) -> Vec<Option<SocketAddr>> {
    backends.iter().map(|backend| backend.map(|backend| backend.address)).collect()
}

/// What holds for all backends of a service together, those that serve without a quorum included.
fn report_beside(table: &Table, place: &Place, backends: &Option<Listed>, sorry: &Option<Listed>) {
    let listed = |of: &'static str, all: &Option<Listed>| -> Vec<([Step; 2], Backend)> {
        let at = |(index, backend): (usize, &Option<Backend>)| Some(([Key(of), Index(index)], (*backend)?));
        all.iter().flatten().enumerate().filter_map(at).collect()
    };
    let (backends, sorry) = (listed("backend", backends), listed("sorry", sorry));
    let taken: HashSet<_> = backends.iter().map(|(_, backend)| backend.address).collect();
    for (at, backend) in sorry.iter().filter(|(_, backend)| taken.contains(&backend.address)) {
        table.report(&[at[0], at[1], Key("address")], Fault::DuplicateBackend(backend.address));
    }
    let all = [backends, sorry].concat();
    let tunnels = all.iter().any(|(_, backend)| backend.mode == Mode::Tunnel);
    if place.tunnel.is_some() && place.mode.is_some_and(|mode| mode != Mode::Tunnel) && !tunnels {
        table.report(&[Key("tunnel")], Fault::TunnelMode);
    }
    let default = place.tunnel.and_then(|tunnel| tunnel.spread);
    for (spread, fault) in rules::spreads_over_backends(all.iter().map(|(_, backend)| backend)) {
        let its = all.iter().find(|(_, backend)| backend.tunnel.spread == Some(spread));
        let its = its.filter(|_| default != Some(spread)).map(|(at, _)| *at);
        let tunnel = [Key("tunnel"), Key("spread")];
        table.report(&its.into_iter().flatten().chain(tunnel).collect::<Vec<_>>(), fault);
    }
}

fn backend(table: &Table, place: &Place) -> Option<Backend> {
    let address = table.required("address", "\"192.0.2.11:80\"", address_and_port);
    let mode = mode(table, place.mode);
    let vip = place.terms.map(|terms| terms.key.address);
    let tunnel = table.optional_section("tunnel", |table| tunnel(table, place.surroundings, vip)).flatten();
    let weight = table.optional("weight", number(bounds::WEIGHT)).unwrap_or(1);
    let server_id = table.optional("server_id", server_id);
    let upper = table.optional("upper", number(bounds::THRESHOLD)).unwrap_or(0);
    let lower = table.optional("lower", number(bounds::THRESHOLD)).unwrap_or(0);
    let admin = table.optional("admin", word("administrative state", Admin::WORDS)).unwrap_or_default();
    let address = address?;
    // Rules of a mode that can not be read would be those of another.
    let Some(mode) = mode else {
        let fault = rules::backend_address_fault(place.surroundings, address);
        fault.into_iter().for_each(|(at, fault)| table.report(&[Key(at)], fault));
        return None;
    };
    let tunnel = match mode {
        Mode::Tunnel => tunnel.or(place.tunnel).unwrap_or_default(),
        _ => {
            tunnel.iter().for_each(|_| table.report(&[Key("tunnel")], Fault::TunnelMode));
            Tunnel::default()
        }
    };
    let backend = Backend { address, mode, tunnel, weight, server_id, upper, lower, admin, priority: 0 };
    for (at, fault) in rules::backend_faults(place.surroundings, place.terms.as_ref(), &backend) {
        table.report(&[Key(at)], fault);
    }
    Some(backend)
}

fn tunnel(table: &Table, surroundings: &Surroundings, vip: Option<IpAddr>) -> Option<Tunnel> {
    let kind = table.required("type", "\"gue\"", word("type of tunnel", Encapsulation::WORDS));
    let port = table.optional("port", number(bounds::L4_PORT));
    let checksum = table.optional("checksum", boolean).unwrap_or(false);
    let spread = table.optional("spread", spread);
    let encapsulation = kind?;
    if port.is_some() && encapsulation != Encapsulation::Gue {
        table.report(&[Key("port")], Fault::TunnelPort(encapsulation));
        return None;
    }
    if checksum && encapsulation == Encapsulation::Ipip {
        table.report(&[Key("checksum")], Fault::TunnelChecksum);
        return None;
    }
    if let Some(fault) = spread.and_then(|spread| rules::spread_fault(surroundings, vip, spread)) {
        table.report(&[Key("spread")], fault);
        return None;
    }
    Some(Tunnel { encapsulation, port: port.unwrap_or(Tunnel::GUE_PORT), checksum, spread })
}

fn check(table: &Table, identity: &Identity) -> Option<Check> {
    let kind = table.required("kind", "\"tcp\"", word::<String>("kind of check", &["tcp", "http"]));
    let http = CheckKind::Http {
        path: table.optional("path", check_path).unwrap_or_else(|| "/".to_owned()),
        host: table.optional("host", check_host),
        status: table.optional("status", number(bounds::HTTP_STATUS)),
        proxy: table.optional("proxy", word("PROXY header", ProxyHeader::WORDS)),
    };
    let port = table.optional("port", number(bounds::L4_PORT));
    let interval_ms = table.optional("interval_ms", number(bounds::CHECK_MS)).unwrap_or(2000);
    let timeout_ms = table.optional("timeout_ms", number(bounds::CHECK_MS)).unwrap_or(1000);
    let rise = table.optional("rise", number(bounds::CHECKS_IN_A_ROW)).unwrap_or(2);
    let fall = table.optional("fall", number(bounds::CHECKS_IN_A_ROW)).unwrap_or(3);
    let kind = match kind?.as_str() {
        "http" => http,
        _ => {
            refuse_http_keys(table);
            CheckKind::Tcp
        }
    };
    let check = Check { kind, port, interval_ms, timeout_ms, rise, fall };
    if table.is_sound() {
        // Only the need of a port depends on the service, and that of one TCP port has none.
        let protocol = identity.protocol.unwrap_or(Protocol::Tcp);
        let ports = identity.key.map_or(Ports::one(1), |key| key.ports);
        for (at, fault) in rules::check_faults(protocol, ports, &check) {
            table.report(&[Key(at)], fault);
        }
    }
    Some(check)
}

fn agent(table: &Table) -> Option<Agent> {
    let port = table.required("port", "9999", number(bounds::L4_PORT));
    let interval_ms = table.optional("interval_ms", number(bounds::CHECK_MS)).unwrap_or(2000);
    let timeout_ms = table.optional("timeout_ms", number(bounds::CHECK_MS)).unwrap_or(1000);
    let agent = Agent { port: port?, interval_ms, timeout_ms };
    for (at, fault) in rules::agent_faults(&agent) {
        table.report(&[Key(at)], fault);
    }
    Some(agent)
}

fn refuse_http_keys(table: &Table) {
    for key in ["path", "host", "status", "proxy"].into_iter().filter(|key| table.has(key)) {
        let wrong = Wrong::new("a tcp check only opens a connection and asks for nothing");
        table.report(&[Key(key)], wrong.help("remove this key, or set kind = \"http\""));
    }
}

#[cfg(test)]
mod tests {
    use super::first_beyond;

    #[test]
    fn the_first_backend_that_is_too_much_is_where_it_is_said_to_be() {
        let beyond = |room, counts: &[(usize, usize)]| first_beyond(room, counts.iter().copied());
        assert_eq!(beyond(5, &[(2, 0), (2, 1)]), None);
        assert_eq!(beyond(4, &[(2, 0), (3, 1)]), Some((1, "backend", 2)));
        assert_eq!(beyond(4, &[(2, 0), (2, 1)]), Some((1, "sorry", 0)));
        assert_eq!(beyond(4, &[(1, 9), (2, 1)]), Some((0, "sorry", 3)));
    }
}

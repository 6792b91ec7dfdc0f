//! Tables of what there is: status, services, backends, flows.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;

use comfy_table::{CellAlignment, Table, presets};
use config::model::Tunnel;
use config::words::{ClientAddress, Encapsulation};
use controlplane::api::{
    BackendStatus, Flow, FlowList, Health, InterfaceStatus, MAX_LISTED, ServiceStatus, Status, WorkerStatus,
};
use controlplane::policy::Serving;

/// A table without borders, whose first row is its headings; the columns in `numbers` align to the right.
pub fn table(headings: &[&str], numbers: Range<usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).add_row(headings);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The text of a table, each line ended by a newline and without blanks before it.
pub fn text(table: &Table) -> String {
    format!("{}\n", table.trim_fmt())
}

/// `trutina status`.
pub fn status(status: &Status) -> String {
    let mut ports = table(&["Port", "Devices", "Driver", "MAC", "Link", "MTU"], 5..6);
    for port in &status.ports {
        let link = match (port.link_up, port.speed_mbps) {
            (false, _) => "down".to_owned(),
            (true, None) => "up".to_owned(),
            (true, Some(speed)) => format!("up, {speed} Mbit/s"),
        };
        let mac = port.mac.to_string();
        let devices = port.devices.join(" ");
        ports.add_row([&port.name, &devices, &port.driver, &mac, &link, &port.mtu.to_string()]);
    }
    let mut workers = table(&["Worker", "Core", "Flows", "Capacity", "Wide", "Generation", "Idle"], 0..6);
    for (number, worker) in status.workers.iter().enumerate() {
        let WorkerStatus { flows, flow_capacity, wide_capacity, generation, .. } = *worker;
        let counts = [flows, flow_capacity, wide_capacity, generation].map(|count| count.to_string());
        let idle = worker.idle.to_string();
        let numbers = [number, worker.core].map(|number| number.to_string()).into_iter().chain(counts);
        workers.add_row(numbers.chain([idle]));
    }
    let mut neighbours = table(&["Neighbour", "MAC", "Interface"], 0..0);
    for neighbour in &status.neighbours {
        let mac = neighbour.mac.map_or_else(|| "awaited".to_owned(), |mac| mac.to_string());
        neighbours.add_row([&neighbour.address.to_string(), &mac, &neighbour.interface]);
    }
    format!(
        "trutinad {} on {}, process {}, up {}\n\
         configuration {}, generation {}\n\
         {} services, {} of {} backends up\n\n{}\n{}\n{}\n{}",
        status.version,
        status.dpdk,
        status.pid,
        span(status.uptime_secs),
        status.config_file,
        status.generation,
        status.services,
        status.backends_up,
        status.backends,
        text(&ports),
        interfaces(&status.interfaces),
        text(&workers),
        text(&neighbours),
    )
}

fn interfaces(interfaces: &[InterfaceStatus]) -> String {
    let mut list = table(&["Interface", "Port", "VLAN", "MTU", "Host", "Gateway", "Addresses"], 3..4);
    for interface in interfaces {
        let vlan = match (interface.outer_vlan, interface.vlan) {
            (Some(outer), Some(inner)) => format!("{outer}.{inner}"),
            (_, Some(vlan)) => vlan.to_string(),
            (_, None) => "-".to_owned(),
        };
        let addresses: Vec<String> = interface.addresses.iter().map(|address| address.to_string()).collect();
        list.add_row([
            interface.name.as_str(),
            &interface.port,
            &vlan,
            &interface.mtu.to_string(),
            interface.host.as_deref().unwrap_or("-"),
            if interface.gateway { "yes" } else { "-" },
            &addresses.join(" "),
        ]);
    }
    text(&list)
}

/// `trutina service list`, with the columns of `ipvsadm -L` and the health after them.
pub fn services(services: &[ServiceStatus]) -> String {
    let mut list = table(&["Prot", "LocalAddress:Port", "Scheduler", "", "", "", "", "Name"], 3..6);
    list.add_row([
        "  ->",
        "RemoteAddress:Port",
        "Forward",
        "Weight",
        "ActiveConn",
        "InActConn",
        "Health",
        "Reason",
    ]);
    for service in services {
        let protocol = service.service.protocol.to_string().to_uppercase();
        let (vip, scheduler) = (service.service.vip(), service.scheduler.to_string());
        // Live backends serve: nothing to be told.
        let serving = if service.serving == Serving::Backends { "" } else { service.serving.name() };
        list.add_row([&protocol, &vip, &scheduler, &flags(service), "", "", serving, &service.name]);
        for backend in &service.backends {
            list.add_row([
                "  ->",
                &backend.address.to_string(),
                &way(backend),
                &backend.weight.to_string(),
                &backend.active.to_string(),
                &backend.inactive.to_string(),
                health(backend),
                &backend.reason,
            ]);
        }
    }
    text(&list)
}

/// What `ipvsadm -L` prints behind the scheduler.
fn flags(service: &ServiceStatus) -> String {
    let persistent = service.persistence.as_ref().map(|it| match it.prefix_v4 {
        32 => format!("persistent {}", it.timeout_secs),
        bits => {
            let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0));
            format!("persistent {} mask {mask}", it.timeout_secs)
        }
    });
    let ops = service.one_packet.then(|| "ops".to_owned());
    let told = (service.client_address != ClientAddress::None).then(|| service.client_address.to_string());
    persistent.into_iter().chain(ops).chain(told).collect::<Vec<_>>().join(" ")
}

/// `trutina backend list`.
pub fn backends(services: &[ServiceStatus]) -> String {
    let headings = [
        "Service", "Backend", "Mode", "Weight", "Active", "Inactive", "Conns", "Config", "Admin", "State",
        "Health", "Since", "Reason",
    ];
    let mut list = table(&headings, 3..7);
    for (service, backend) in services.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b))) {
        list.add_row([
            &service.service.to_string(),
            &backend.address.to_string(),
            &way(backend),
            &weight(backend),
            &backend.active.to_string(),
            &backend.inactive.to_string(),
            &backend.counters.conns.to_string(),
            &backend.configured.to_string(),
            &admin(backend),
            &state(backend),
            health(backend),
            &span(backend.since_secs),
            &backend.reason,
        ]);
    }
    text(&list)
}

/// How packets reach a backend: `nat`, or `tunnel gue:6080 csum`.
fn way(backend: &BackendStatus) -> String {
    let checksum = |tunnel: &Tunnel| if tunnel.checksum { " csum" } else { "" };
    match &backend.tunnel {
        Some(tunnel) => match tunnel.encapsulation {
            Encapsulation::Ipip => "tunnel".to_owned(),
            Encapsulation::Gue => format!("tunnel gue:{}{}", tunnel.port, checksum(tunnel)),
            Encapsulation::Gre => format!("tunnel gre{}", checksum(tunnel)),
        },
        None => backend.mode.to_string(),
    }
}

/// A weight, behind what it comes to now if that is another one.
fn weight(backend: &BackendStatus) -> String {
    let BackendStatus { weight, effective_weight, operational, .. } = *backend;
    match operational.takes_flows() && effective_weight != f64::from(weight) {
        true => format!("{effective_weight}/{weight}"),
        false => weight.to_string(),
    }
}

/// What the operator wants: `enabled`, or `drain 00:09:32 then remove`.
fn admin(backend: &BackendStatus) -> String {
    let left = backend.drain.and_then(|drain| Some((drain.left_secs?, drain.then)));
    match left {
        Some((secs, then)) => format!("{} {} then {then}", backend.admin, span(secs)),
        None => backend.admin.to_string(),
    }
}

/// What a backend does: `active`, or `draining 5 flows`.
fn state(backend: &BackendStatus) -> String {
    let mut state = backend.operational.name().to_owned();
    if let Some(drain) = backend.drain {
        state += &format!(" {} flows", drain.flows);
    }
    if backend.sorry {
        state += " (sorry)";
    }
    state
}

fn health(backend: &BackendStatus) -> &'static str {
    match backend.health {
        Health::Up => "up",
        Health::Down => "down",
        Health::Unchecked => "unchecked",
    }
}

/// `trutina flow list`, with the columns of `ipvsadm -Lc`, and the local end of full NAT after them.
pub fn flows(list: &FlowList) -> String {
    let headings = ["pro", "expire", "state", "source", "virtual", "destination", "local", "worker"];
    let mut flows = table(&headings, 7..8);
    for flow in &list.flows {
        flows.add_row(flow_row(flow));
    }
    text(&flows) + &hidden(list.flows.len(), list.total)
}

/// What there is besides what a list shows, and how to see it.
pub(super) fn hidden(shown: usize, total: u64) -> String {
    match total.saturating_sub(shown as u64) {
        0 => String::new(),
        hidden if total > MAX_LISTED as u64 => {
            format!("{hidden} more; a list has no more than {MAX_LISTED}\n")
        }
        hidden => format!("{hidden} more; --limit {total} shows all\n"),
    }
}

fn flow_row(flow: &Flow) -> [String; 8] {
    let or_none = |end: Option<SocketAddr>| end.map_or_else(|| "-".to_owned(), |end| end.to_string());
    [
        flow.protocol.to_string().to_uppercase(),
        format!("{:02}:{:02}", flow.expires_secs / 60, flow.expires_secs % 60),
        flow.state.clone(),
        flow.client.to_string(),
        or_none(flow.vip),
        or_none(flow.backend),
        or_none(flow.local),
        flow.worker.to_string(),
    ]
}

/// A time span: `3d 04:05:06`, without the days if there are none.
pub fn span(secs: u64) -> String {
    let (days, hours, minutes, secs) = (secs / 86400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    match days {
        0 => format!("{hours:02}:{minutes:02}:{secs:02}"),
        _ => format!("{days}d {hours:02}:{minutes:02}:{secs:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use config::words::{Admin, Then};
    use controlplane::api::DrainStatus;
    use controlplane::policy::Standing;

    use super::*;

    #[test]
    fn status_is_shown() {
        assert_eq!(
            status(&samples::status()),
            "\
trutinad 0.1.0 on DPDK 22.11.7, process 4242, up 1d 02:03:04
configuration /etc/trutina/trutina.toml, generation 7
2 services, 2 of 3 backends up

Port  Devices             Driver   MAC                Link               MTU
lan   net_tap0,iface=lan  net_tap  02:00:5e:00:53:01  up, 10000 Mbit/s  1500
wan   net_tap0,iface=wan  net_tap  02:00:5e:00:53:01  down              1500

Interface  Port  VLAN    MTU  Host     Gateway  Addresses
lan        lan   -      1500  tap-lan  -        192.0.2.254/24 2001:db8:1::fe/64
lan.100    lan   100    1500  -        -        198.51.100.254/24
lan.7.100  lan   7.100  1500  -        yes

Worker  Core  Flows  Capacity   Wide  Generation  Idle
     0     1     12    100000  25000           7  poll
     1     2  99999    100000  25000           7  poll

Neighbour   MAC                Interface
192.0.2.11  02:00:5e:00:53:0b  lan
192.0.2.12  awaited            lan
"
        );
    }

    #[test]
    fn services_look_like_ipvsadm() {
        assert_eq!(
            services(&samples::services()),
            "\
Prot  LocalAddress:Port   Scheduler                                                               Name
  ->  RemoteAddress:Port  Forward                       Weight  ActiveConn  InActConn  Health     Reason
TCP   192.0.2.100:80      wrr                   persistent 300                                    web
  ->  198.51.100.7:8000   nat                                4           5       1234  up         HTTP 200 in 1 ms
  ->  198.51.100.8:8000   tunnel gue:6080 csum           65535           5       1234  down       connection refused
UDP   192.0.2.100:53      rr                               ops                                    udp:192.0.2.100:53
  ->  203.0.113.1:53      dr                                 1           5       1234  unchecked  no check
"
        );
        assert_eq!(services(&[]).lines().count(), 2);
    }

    #[test]
    fn backends_are_shown() {
        assert_eq!(backends(&samples::services()), "\
Service             Backend            Mode                  Weight  Active  Inactive  Conns  Config   Admin    State   Health     Since     Reason
tcp:192.0.2.100:80  198.51.100.7:8000  nat                        4       5      1234     40  enabled  enabled  active  up         00:01:01  HTTP 200 in 1 ms
tcp:192.0.2.100:80  198.51.100.8:8000  tunnel gue:6080 csum   65535       5      1234      2  enabled  enabled  down    down       00:01:01  connection refused
udp:192.0.2.100:53  203.0.113.1:53     dr                         1       5      1234      0  enabled  enabled  active  unchecked  00:01:01  no check
");
    }

    #[test]
    fn policies_are_shown() {
        let mut list = samples::services();
        let drain =
            |left_secs, flows| Some(DrainStatus { left_secs, then: Then::Remove, persistent: true, flows });
        let web = &mut list[0].backends;
        (web[0].operational, web[0].effective_weight) = (Standing::Ramping, 1.48);
        (web[1].operational, web[1].admin) = (Standing::Draining, Admin::Drain);
        web[1].drain = drain(Some(572), 5);
        let dns = &mut list[1].backends[0];
        (dns.operational, dns.admin, dns.configured) = (Standing::Draining, Admin::Drain, Admin::Drain);
        (dns.drain, dns.sorry) = (drain(None, 0), true);
        let cells = backends(&list);
        let cells: Vec<Vec<&str>> = cells
            .lines()
            .skip(1)
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!((cells[0][3], cells[0][9]), ("1.48/4", "ramping"));
        assert_eq!(&cells[1][7..10], ["enabled", "drain 00:09:32 then remove", "draining 5 flows"]);
        assert_eq!(&cells[2][7..10], ["drain", "drain", "draining 0 flows (sorry)"]);
        (list[0].serving, list[1].serving) = (Serving::Sorry, Serving::Nobody);
        let lines = services(&list);
        assert!(lines.lines().nth(2).is_some_and(|line| line.contains("  sorry  ")), "{lines}");
        assert!(lines.lines().nth(5).is_some_and(|line| line.contains("  nobody  ")), "{lines}");
    }

    #[test]
    fn flows_look_like_ipvsadm() {
        let mut list = samples::flows();
        assert_eq!(
            flows(&list),
            "\
pro  expire  state        source                virtual           destination          local                    worker
TCP  14:59   ESTABLISHED  203.0.113.99:31337    192.0.2.100:80    198.51.100.7:8000    -                             0
UDP  100:00  UDP          203.0.113.5:1024      192.0.2.100:53    203.0.113.1:53       -                             0
UDP  00:30   UDP          [2001:db8:7::7]:1024  [2001:db8::1]:53  [2001:db8:2::11]:53  [2001:db8:5::200]:40000       0
TCP  01:00   SYN_RECV     192.0.2.7:1024        -                 -                    198.51.100.200:40000          0
10 more; --limit 14 shows all
"
        );
        list.total = 4;
        assert!(!flows(&list).contains("more"));
        list.total = 100_001;
        assert!(flows(&list).ends_with("\n99997 more; a list has no more than 100000\n"));
    }

    #[test]
    fn spans_leave_out_days_that_are_none() {
        assert_eq!(span(0), "00:00:00");
        assert_eq!(span(86_399), "23:59:59");
        assert_eq!(span(86_400 * 400 + 61), "400d 00:01:01");
    }
}

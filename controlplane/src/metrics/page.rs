//! The page: every number under its name, with labels, in Prometheus' text format.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::api::{
    BackendStatus, ControlStats, Counters, Health, LocalStats, PortStats, ServiceStatus, Stats, Status,
    TemplateUsage, WorkerStats, WorkerStatus,
};

/// The page in Prometheus' text format.
///
/// # Errors
/// Only if two metrics have the same name, which would be a mistake in this file.
pub fn render(stats: &Stats, status: &Status) -> Result<String, prometheus::Error> {
    let page = Page(Registry::new());
    render_appliance(&page, status)?;
    render_workers(&page, stats, status)?;
    render_control(&page, &stats.control)?;
    render_ports(&page, stats)?;
    render_locals(&page, &stats.locals)?;
    render_templates(&page, stats.templates)?;
    render_services(&page, &stats.services)?;
    render_backends(&page, &stats.services)?;
    TextEncoder::new().encode_to_string(&page.0.gather())
}

/// Metrics under construction.
struct Page(Registry);

/// One line of a metric: the values of its labels, and its own.
type Row = (Vec<String>, u64);

/// Where a metric's number stands.
type Field<T> = fn(&T) -> u64;

impl Page {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl Iterator<Item = Row>,
    ) -> Result<(), prometheus::Error> {
        let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in rows {
            counter.get_metric_with_label_values(&labels)?.inc_by(value);
        }
        self.0.register(Box::new(counter))
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl Iterator<Item = Row>,
    ) -> Result<(), prometheus::Error> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        for (labels, value) in rows {
            gauge.get_metric_with_label_values(&labels)?.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.0.register(Box::new(gauge))
    }
}

/// The only row of a metric without labels.
fn one(value: u64) -> impl Iterator<Item = Row> {
    std::iter::once((Vec::new(), value))
}

/// What stands once for the whole appliance.
fn render_appliance(page: &Page, status: &Status) -> Result<(), prometheus::Error> {
    page.gauge("trutina_uptime_seconds", "Time since trutinad started.", &[], one(status.uptime_secs))?;
    page.gauge(
        "trutina_snapshot_generation",
        "Generation of the forwarding state in force.",
        &[],
        one(status.generation),
    )?;
    page.gauge(
        "trutina_build_info",
        "Versions of trutinad and of DPDK; always 1.",
        &["version", "dpdk"],
        std::iter::once((vec![status.version.clone(), status.dpdk.clone()], 1)),
    )
}

fn render_workers(page: &Page, stats: &Stats, status: &Status) -> Result<(), prometheus::Error> {
    let counters: [(&str, &str, Field<WorkerStats>); 11] = [
        ("trutina_answered_packets_total", "Packets made into echo replies and ICMP errors.", |w| w.answered),
        ("trutina_received_packets_total", "Frames taken from receive queues.", |w| w.received),
        ("trutina_injected_packets_total", "Frames taken from the control thread to be sent.", |w| {
            w.injected
        }),
        ("trutina_taken_over_packets_total", "Frames taken over from other workers.", |w| w.taken_over),
        (
            "trutina_made_packets_total",
            "Frames made to reset the other ends of connections, and to ask silent ends.",
            |w| w.made,
        ),
        ("trutina_sent_packets_total", "Frames given to transmit queues.", |w| w.sent),
        ("trutina_punted_packets_total", "Frames given to the control thread.", |w| w.punted),
        ("trutina_handed_over_packets_total", "Frames given to the worker that owns their flow.", |w| {
            w.handed_over
        }),
        ("trutina_routed_packets_total", "Packets sent on as a router does.", |w| w.routed),
        ("trutina_snat_exhausted_total", "New flows that found no free local port.", |w| w.snat_exhausted),
        (
            "trutina_addresses_untold_total",
            "Segments that had no room for the TCP option with their client's address.",
            |w| w.addresses_untold,
        ),
    ];
    for (name, help, field) in counters {
        let rows = stats.workers.iter().enumerate();
        page.counter(name, help, &["worker"], rows.map(|(n, w)| (vec![n.to_string()], field(w))))?;
    }
    let drops = stats.workers.iter().enumerate().flat_map(|(n, worker)| {
        worker.drops.iter().map(move |drop| (vec![n.to_string(), drop.reason.clone()], drop.packets))
    });
    page.counter(
        "trutina_dropped_packets_total",
        "Frames dropped, by reason.",
        &["worker", "reason"],
        drops,
    )?;
    let errors = stats.workers.iter().enumerate().flat_map(|(n, worker)| {
        let labels = move |reason: &str| vec![n.to_string(), reason.to_owned()];
        worker.answered_for.iter().map(move |answer| (labels(&answer.reason), answer.packets))
    });
    page.counter(
        "trutina_answered_errors_total",
        "Packets made into errors for their senders, by what is wrong with them.",
        &["worker", "reason"],
        errors,
    )?;
    let held = stats.workers.iter().enumerate().map(|(n, w)| (vec![n.to_string()], w.held));
    page.gauge(
        "trutina_held_packets",
        "Pieces of packets that wait for their first ones.",
        &["worker"],
        held,
    )?;
    let gauges: [(&str, &str, Field<WorkerStatus>); 3] = [
        ("trutina_flows", "Flows in the worker's tables.", |w| w.flows),
        ("trutina_flow_capacity", "Flows the worker's narrow table is rated for.", |w| w.flow_capacity),
        ("trutina_wide_flow_capacity", "Flows the worker's wide table is rated for.", |w| w.wide_capacity),
    ];
    for (name, help, field) in gauges {
        let rows = status.workers.iter().enumerate();
        page.gauge(name, help, &["worker"], rows.map(|(n, w)| (vec![n.to_string()], field(w))))?;
    }
    Ok(())
}

fn render_control(page: &Page, control: &ControlStats) -> Result<(), prometheus::Error> {
    let counters = [
        ("trutina_control_punted_packets_total", "Frames taken from workers.", control.punted),
        ("trutina_control_from_host_packets_total", "Frames taken from tap devices.", control.from_host),
        ("trutina_control_answered_packets_total", "ARP and ND packets from workers.", control.answered),
        ("trutina_control_resolved_packets_total", "Frames that waited for a neighbour.", control.resolved),
        ("trutina_control_to_host_packets_total", "Frames given to tap devices.", control.to_host),
        (
            "trutina_control_host_sent_packets_total",
            "Frames from tap devices given to workers.",
            control.host_sent,
        ),
        (
            "trutina_control_unsent_packets_total",
            "Own ARP and ND packets that could not be sent.",
            control.unsent,
        ),
    ];
    for (name, help, value) in counters {
        page.counter(name, help, &[], one(value))?;
    }
    page.gauge(
        "trutina_control_waiting_packets",
        "Frames that wait for a neighbour.",
        &[],
        one(control.waiting),
    )?;
    page.counter(
        "trutina_control_dropped_packets_total",
        "Frames dropped by the control thread, by reason.",
        &["reason"],
        control.drops.iter().map(|drop| (vec![drop.reason.clone()], drop.packets)),
    )
}

fn render_ports(page: &Page, stats: &Stats) -> Result<(), prometheus::Error> {
    let counters: [(&str, &str, Field<PortStats>); 8] = [
        ("trutina_port_rx_packets_total", "Frames received by the driver.", |p| p.rx_packets),
        ("trutina_port_rx_bytes_total", "Bytes of frames received.", |p| p.rx_bytes),
        ("trutina_port_rx_missed_packets_total", "Frames lost because no one fetched them in time.", |p| {
            p.rx_missed
        }),
        ("trutina_port_rx_errors_total", "Frames received with errors.", |p| p.rx_errors),
        ("trutina_port_rx_no_mbuf_packets_total", "Frames lost for want of a buffer.", |p| p.rx_no_mbuf),
        ("trutina_port_tx_packets_total", "Frames sent by the driver.", |p| p.tx_packets),
        ("trutina_port_tx_bytes_total", "Bytes of frames sent.", |p| p.tx_bytes),
        ("trutina_port_tx_errors_total", "Frames the device failed to send.", |p| p.tx_errors),
    ];
    for (name, help, field) in counters {
        page.counter(name, help, &["port"], stats.ports.iter().map(|p| (vec![p.name.clone()], field(p))))?;
    }
    Ok(())
}

fn render_locals(page: &Page, locals: &[LocalStats]) -> Result<(), prometheus::Error> {
    let gauges: [(&str, &str, Field<LocalStats>); 2] = [
        ("trutina_snat_ports_used", "Ports of a local address in use, of both protocols.", |l| l.ports_used),
        ("trutina_snat_ports_capacity", "Ports of a local address, of both protocols.", |l| l.capacity),
    ];
    for (name, help, field) in gauges {
        let labels = |l: &LocalStats| vec![l.address.to_string(), l.pool.clone().unwrap_or_default()];
        page.gauge(name, help, &["address", "pool"], locals.iter().map(|l| (labels(l), field(l))))?;
    }
    Ok(())
}

fn render_templates(page: &Page, templates: TemplateUsage) -> Result<(), prometheus::Error> {
    let TemplateUsage { used, capacity } = templates;
    page.gauge("trutina_persistence_templates", "Persistence templates that are alive.", &[], one(used))?;
    page.gauge(
        "trutina_persistence_templates_capacity",
        "Persistence templates there may be.",
        &[],
        one(capacity),
    )
}

/// What services and backends count alike: end of the metric's name, help, and where the number stands.
type Counted = (&'static str, &'static str, Field<Counters>);

const COUNTED: [Counted; 5] = [
    ("connections_total", "Flows scheduled.", |c| c.conns),
    ("in_packets_total", "Packets from clients.", |c| c.in_packets),
    ("out_packets_total", "Packets to clients.", |c| c.out_packets),
    ("in_bytes_total", "Bytes of IP packets from clients.", |c| c.in_bytes),
    ("out_bytes_total", "Bytes of IP packets to clients.", |c| c.out_bytes),
];

fn render_services(page: &Page, services: &[ServiceStatus]) -> Result<(), prometheus::Error> {
    for (end, help, field) in COUNTED {
        let rows = services.iter().map(|s| (vec![s.service.to_string(), s.name.clone()], field(&s.counters)));
        page.counter(&format!("trutina_service_{end}"), help, &["service", "name"], rows)?;
    }
    let labels = |s: &ServiceStatus| vec![s.service.to_string(), s.name.clone()];
    page.gauge(
        "trutina_service_quorum",
        "Whether the live backends are enough.",
        &["service", "name"],
        services.iter().map(|s| (labels(s), s.quorum.into())),
    )?;
    page.gauge(
        "trutina_service_serving",
        "Who serves new clients; always 1.",
        &["service", "name", "serving"],
        services.iter().map(|s| ([labels(s), vec![s.serving.name().to_owned()]].concat(), 1)),
    )
}

fn render_backends(page: &Page, services: &[ServiceStatus]) -> Result<(), prometheus::Error> {
    const LABELS: [&str; 2] = ["service", "backend"];
    let backends = || services.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b)));
    let labels = |s: &ServiceStatus, b: &BackendStatus| vec![s.service.to_string(), b.address.to_string()];
    for (end, help, field) in COUNTED {
        let rows = backends().map(|(s, b)| (labels(s, b), field(&b.counters)));
        page.counter(&format!("trutina_backend_{end}"), help, &LABELS, rows)?;
    }
    let gauges: [(&str, &str, Field<BackendStatus>); 5] = [
        ("trutina_backend_up", "Whether the backend takes new flows by its check.", |b| {
            u64::from(b.health != Health::Down)
        }),
        ("trutina_backend_weight", "Share of new flows as configured.", |b| b.weight.into()),
        ("trutina_backend_takes_flows", "Whether the backend takes new flows.", |b| {
            b.operational.takes_flows().into()
        }),
        ("trutina_backend_active_connections", "Connections in active states.", |b| b.active),
        ("trutina_backend_inactive_connections", "All other flows.", |b| b.inactive),
    ];
    for (name, help, field) in gauges {
        page.gauge(name, help, &LABELS, backends().map(|(s, b)| (labels(s, b), field(b))))?;
    }
    let states = |b: &BackendStatus| {
        let admin = [b.configured, b.admin].map(|admin| admin.to_string());
        admin.into_iter().chain([b.operational.name().to_owned()]).collect::<Vec<_>>()
    };
    page.gauge(
        "trutina_backend_state",
        "States of the backend: as configured, as the operator wants it, and what it does; always 1.",
        &["service", "backend", "configured", "admin", "operational"],
        backends().map(|(s, b)| ([labels(s, b), states(b)].concat(), 1)),
    )?;
    let left = |b: &BackendStatus| b.drain.and_then(|drain| drain.left_secs);
    page.gauge(
        "trutina_backend_drain_left_seconds",
        "Time until the drain of the backend is over.",
        &LABELS,
        backends().filter_map(|(s, b)| Some((labels(s, b), left(b)?))),
    )
}

#[cfg(test)]
mod tests {
    use super::super::samples::{stats, status};
    use super::*;

    /// Every line of the page that is no comment, in the order of the encoder.
    const PAGE: &str = r#"trutina_addresses_untold_total{worker="0"} 14
trutina_answered_errors_total{reason="ttl_exceeded",worker="0"} 12
trutina_answered_packets_total{worker="0"} 8
trutina_backend_active_connections{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 5
trutina_backend_connections_total{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 11
trutina_backend_drain_left_seconds{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 17
trutina_backend_in_bytes_total{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 14
trutina_backend_in_packets_total{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 12
trutina_backend_inactive_connections{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 6
trutina_backend_out_bytes_total{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 15
trutina_backend_out_packets_total{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 13
trutina_backend_state{admin="drain",backend="198.51.100.7:8000",configured="enabled",operational="draining",service="tcp:192.0.2.1:80"} 1
trutina_backend_takes_flows{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 0
trutina_backend_up{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 0
trutina_backend_weight{backend="198.51.100.7:8000",service="tcp:192.0.2.1:80"} 4
trutina_build_info{dpdk="DPDK 22.11.7",version="0.1.0"} 1
trutina_control_answered_packets_total 52
trutina_control_dropped_packets_total{reason="no_neighbour"} 55
trutina_control_from_host_packets_total 57
trutina_control_host_sent_packets_total 59
trutina_control_punted_packets_total 51
trutina_control_resolved_packets_total 53
trutina_control_to_host_packets_total 58
trutina_control_unsent_packets_total 56
trutina_control_waiting_packets 54
trutina_dropped_packets_total{reason="no_service",worker="0"} 7
trutina_dropped_packets_total{reason="truncated",worker="0"} 0
trutina_flow_capacity{worker="0"} 44
trutina_flows{worker="0"} 43
trutina_handed_over_packets_total{worker="0"} 6
trutina_held_packets{worker="0"} 10
trutina_injected_packets_total{worker="0"} 2
trutina_made_packets_total{worker="0"} 15
trutina_persistence_templates 71
trutina_persistence_templates_capacity 72
trutina_port_rx_bytes_total{port="lan"} 32
trutina_port_rx_errors_total{port="lan"} 34
trutina_port_rx_missed_packets_total{port="lan"} 33
trutina_port_rx_no_mbuf_packets_total{port="lan"} 35
trutina_port_rx_packets_total{port="lan"} 31
trutina_port_tx_bytes_total{port="lan"} 37
trutina_port_tx_errors_total{port="lan"} 38
trutina_port_tx_packets_total{port="lan"} 36
trutina_punted_packets_total{worker="0"} 5
trutina_received_packets_total{worker="0"} 18446744073709552000
trutina_routed_packets_total{worker="0"} 9
trutina_sent_packets_total{worker="0"} 4
trutina_service_connections_total{name="a \"web\"",service="tcp:192.0.2.1:80"} 21
trutina_service_in_bytes_total{name="a \"web\"",service="tcp:192.0.2.1:80"} 24
trutina_service_in_packets_total{name="a \"web\"",service="tcp:192.0.2.1:80"} 22
trutina_service_out_bytes_total{name="a \"web\"",service="tcp:192.0.2.1:80"} 25
trutina_service_out_packets_total{name="a \"web\"",service="tcp:192.0.2.1:80"} 23
trutina_service_quorum{name="a \"web\"",service="tcp:192.0.2.1:80"} 0
trutina_service_serving{name="a \"web\"",service="tcp:192.0.2.1:80",serving="sorry"} 1
trutina_snapshot_generation 42
trutina_snat_exhausted_total{worker="0"} 11
trutina_snat_ports_capacity{address="192.0.2.200",pool="out"} 62
trutina_snat_ports_capacity{address="2001:db8::200",pool=""} 62
trutina_snat_ports_used{address="192.0.2.200",pool="out"} 61
trutina_snat_ports_used{address="2001:db8::200",pool=""} 61
trutina_taken_over_packets_total{worker="0"} 3
trutina_uptime_seconds 41
trutina_wide_flow_capacity{worker="0"} 45
"#;

    #[test]
    fn every_number_has_its_name() {
        let text = render(&stats(), &status()).unwrap();
        let lines: String =
            text.lines().filter(|line| !line.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
        assert_eq!(lines, PAGE);
        for word in [
            "# HELP trutina_flows Flows in the worker's tables.",
            "# TYPE trutina_sent_packets_total counter",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }

    #[test]
    fn an_appliance_without_services_has_a_page_too() {
        let empty = Stats {
            workers: Vec::new(),
            control: ControlStats::default(),
            ports: Vec::new(),
            locals: Vec::new(),
            templates: TemplateUsage::default(),
            services: Vec::new(),
        };
        assert!(render(&empty, &status()).unwrap().contains("trutina_uptime_seconds 41"));
    }
}

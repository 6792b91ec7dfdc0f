//! The file from top to bottom: one function for each table of it, in the order of the documentation.
//!
//! Here stand the names of the keys, their types, ranges and defaults. A function reads all of its keys
//! before it gives up on any, so that all problems are told.

mod balance;
mod links;
mod policy;
mod pools;
mod ports;
mod services;

use std::fmt::Display;
use std::hash::Hash;

use crate::limits;
use crate::model::{Cluster, Config, Control, Cores, Dpdk, FlowTable, Fragments, Icmp, Metrics, Timeouts};
use crate::problem::Wrong;
use crate::reader::Step::{Index, Key};
use crate::reader::{Step, Table};
use crate::rules::{self, Fault, Surroundings};
use crate::values::{boolean, file_prefix, loopback, number, secret, socket_path, word};
use crate::words::{Idle, NoBackend, Preset};

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::new(fault.to_string()).help(fault.help())
    }
}

/// Reads the file. `None` only if a problem was reported; problems may be reported either way.
pub(crate) fn config(root: &Table) -> Option<Config> {
    let dpdk = root.section("dpdk", dpdk);
    let cores = root.section("cores", cores).flatten();
    let links = links::links(root, cores.as_ref().map(|cores| cores.workers.len()));
    let network = links.network.as_ref();
    let snat_pools = pools::snat_pools(root, network);
    let classes = pools::classes(root);
    let cluster = root.section("cluster", |table| Cluster { secret: table.optional("secret", secret) });
    let flow_table = root.section("flow_table", flow_table);
    let timeouts = root.section("timeouts", |table| timeouts(table, Timeouts::IPVS));
    let icmp = root.section("icmp", icmp);
    let fragments = root.section("fragments", fragments);
    let control = root.section("control", control);
    let metrics = root.optional_section("metrics", metrics);
    let surroundings = Surroundings::known(network, snat_pools.as_deref(), classes.as_deref());
    links::check_gateways(root, links.interfaces.as_deref().unwrap_or_default(), &surroundings);
    let services = services::services(root, &surroundings, timeouts.unwrap_or_default());
    Some(Config {
        dpdk: dpdk?,
        cores: cores?,
        ports: links.ports?,
        interfaces: links.interfaces?,
        routes: links.routes?,
        neighbours: links.neighbours?,
        snat_pools: snat_pools?,
        classes: classes?,
        cluster: cluster?,
        flow_table: flow_table?,
        timeouts: timeouts?,
        icmp: icmp?,
        fragments: fragments?,
        control: control?,
        metrics: metrics.flatten(),
        services: services?,
    })
}

/// Reports each value that came before; `at` says where the value with an index stands.
fn report_repeated<T: Copy + Display + Eq + Hash>(
    root: &Table,
    values: &[Option<T>],
    at: impl Fn(usize) -> Vec<Step>,
) {
    for (again, first) in rules::repeated(values) {
        if let Some(value) = values[again] {
            let wrong = Wrong::new(format!("{value} is already on line {}", root.line(&at(first))));
            root.report(&at(again), wrong.help("remove one of them, or change it"));
        }
    }
}

/// Where `key` of each table of the array `tables` stands.
fn each(tables: &'static str, key: &'static str) -> impl Fn(usize) -> Vec<Step> {
    move |index| vec![Key(tables), Index(index), Key(key)]
}

fn all<T>(items: Vec<Option<T>>) -> Option<Vec<T>> {
    items.into_iter().collect()
}

fn dpdk(table: &Table) -> Dpdk {
    let hugepages = table.optional("hugepages", boolean).unwrap_or(true);
    let memory_mib = if hugepages { 1024 } else { 256 };
    Dpdk {
        hugepages,
        memory_mib: table.optional("memory_mib", number(limits::MEMORY_MIB)).unwrap_or(memory_mib),
        file_prefix: table.optional("file_prefix", file_prefix).unwrap_or_else(|| "trutina".to_owned()),
    }
}

fn cores(table: &Table) -> Option<Cores> {
    let control = table.optional("control", number(limits::CORE)).unwrap_or(0);
    let workers = table.required_array("workers", "[1]", limits::WORKERS, number(limits::CORE))?;
    if workers.is_empty() {
        let wrong = Wrong::new("there is no worker, so nothing would forward packets");
        table.report(&[Key("workers")], wrong.help("name at least one core, such as workers = [1]"));
    }
    let shared = table.optional("shared", boolean).unwrap_or(false);
    for (again, _) in rules::repeated(&workers).into_iter().filter(|_| !shared) {
        let wrong = Wrong::new(format!("core {} is listed twice", workers[again]));
        table.report(&[Key("workers"), Index(again)], wrong.help("give each worker a core of its own"));
    }
    if let Some(place) = workers.iter().position(|core| *core == control && !shared) {
        let wrong = Wrong::new(format!("core {control} is the control thread's"));
        let help =
            "a worker polls without pause and would starve it: choose another core, or move [cores] control";
        table.report(&[Key("workers"), Index(place)], wrong.help(help));
    }
    let idle = table.optional("idle", word("way to be idle", Idle::WORDS)).unwrap_or_default();
    Some(Cores { control, workers, shared, idle })
}

fn flow_table(table: &Table) -> FlowTable {
    let capacity = table.optional("capacity", number(limits::CAPACITY)).unwrap_or(1_000_000);
    let wide = table.optional("wide_capacity", number(limits::CAPACITY));
    let templates = table.optional("templates", number(limits::TEMPLATES)).unwrap_or(1 << 16);
    let wide_capacity = wide.unwrap_or((capacity / 4).max(limits::WIDE_CAPACITY));
    FlowTable { capacity, wide_capacity, templates }
}

/// Timeouts, of which those that are not given are as in `others` unless a preset is named.
fn timeouts(table: &Table, others: Timeouts) -> Timeouts {
    let preset = table.optional("preset", word("preset", Preset::WORDS));
    let mut timeouts = preset.map_or(others, Timeouts::preset);
    for (key, secs) in timeouts.each() {
        *secs = table.optional(key, number(limits::IDLE_SECS)).unwrap_or(*secs);
    }
    timeouts
}

fn icmp(table: &Table) -> Icmp {
    let no_service = table.optional("no_service", word("answer", NoBackend::WORDS));
    Icmp {
        rate: table.optional("rate", number(limits::ICMP_RATE)).unwrap_or(1000),
        no_service: no_service.unwrap_or(NoBackend::Drop),
    }
}

fn fragments(table: &Table) -> Fragments {
    let seconds = |key, default| table.optional(key, number(limits::FRAGMENT_SECS)).unwrap_or(default);
    Fragments {
        capacity: table.optional("capacity", number(limits::FRAGMENTS)).unwrap_or(1024),
        timeout_secs: seconds("timeout_secs", 5),
        remember_secs: seconds("remember_secs", 30),
    }
}

fn control(table: &Table) -> Control {
    let socket = table.optional("socket", socket_path).unwrap_or_else(|| "/run/trutina.sock".into());
    Control { socket }
}

fn metrics(table: &Table) -> Option<Metrics> {
    let listen = table.required("listen", "\"127.0.0.1:9400\"", loopback)?;
    Some(Metrics { listen })
}

//! New services and backends as they are typed.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Args, ValueEnum, value_parser};
use config::limits;
use config::model::{Agent, Backend, Check, CheckKind, Service, Timeouts, Tunnel};
use config::words::{
    Admin, ClassName, ClientAddress, Encapsulation, Mode, NoBackend, NoFlow, Preset, ProxyHeader, Scheduler,
    ServerId, ServiceKey,
};
use ipnet::IpNet;

use super::balance::{HashArguments, LimitArguments, PersistenceArguments, QuicArguments};
use super::policy::PolicyArguments;

/// A new service.
#[derive(Debug, Args)]
pub struct ServiceAdd {
    /// Protocol, virtual address, ports and class
    service: ServiceKey,
    /// The class its packets must be of; the same as @NAME behind the service
    #[arg(long, value_name = "NAME")]
    class: Option<ClassName>,
    /// How a new flow's backend is chosen, such as wrr, rr or sed
    #[arg(long, default_value_t = Scheduler::Wlc)]
    scheduler: Scheduler,
    /// A name for it
    #[arg(long)]
    name: Option<String>,
    /// What a new client is told when no backend takes it: rst, icmp or drop
    #[arg(long, value_name = "ANSWER", default_value_t = NoBackend::Icmp)]
    no_backend: NoBackend,
    /// What becomes of a TCP segment in the middle of no known flow: drop, rst or schedule
    #[arg(long, value_name = "CHOICE", default_value_t = NoFlow::Drop)]
    no_flow: NoFlow,
    /// Lower the segment size that TCP SYNs announce to at most this
    #[arg(long, value_name = "BYTES", value_parser = value_parser!(u16).range(mss_range()))]
    mss: Option<u16>,
    /// Keep no flows and schedule every packet; only for udp
    #[arg(long)]
    one_packet: bool,
    /// The pool of addresses that mode full-nat speaks from
    #[arg(long, value_name = "NAME")]
    snat_pool: Option<String>,
    /// How backends of mode full-nat learn their clients' addresses: none, proxy-v1, proxy-v2, proxy-v2-each or
    /// toa
    #[arg(long, value_name = "WAY", default_value_t = ClientAddress::None)]
    client_address: ClientAddress,
    /// Leave pings to the VIP without an answer
    #[arg(long)]
    no_echo: bool,
    /// Seconds that flows in a state may be idle, such as established=600; preset=dpvs or preset=ipvs sets
    /// all that are not given [default: those of the configuration; with any, preset=ipvs]
    #[arg(long = "timeout", value_name = "STATE=SECS")]
    timeouts: Vec<Timeout>,
    #[command(flatten)]
    hash: HashArguments,
    /// Seconds for which lblc and lblcr keep a backend that nobody asks for [default: 86400]
    #[arg(long, value_name = "SECS", value_parser = value_parser!(u32).range(1..))]
    expiration_secs: Option<u32>,
    #[command(flatten)]
    quic: QuicArguments,
    #[command(flatten)]
    persistence: PersistenceArguments,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    check: CheckArguments,
    #[command(flatten)]
    agent: AgentArguments,
    #[command(flatten)]
    policy: PolicyArguments,
}

/// How backends of a new service are checked.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// How backends are checked; without it they count as healthy
    #[arg(long, value_name = "KIND")]
    check: Option<Kind>,
    /// What an HTTP check asks for [default: /]
    #[arg(long, requires = "check")]
    path: Option<String>,
    /// Host header of an HTTP check [default: the backend's address and port]
    #[arg(long, requires = "check")]
    host: Option<String>,
    /// The status that passes an HTTP check [default: any from 200 to 399]
    #[arg(long, requires = "check", value_name = "CODE", value_parser = value_parser!(u16).range(100..=599))]
    status: Option<u16>,
    /// The PROXY header that an HTTP check begins with: none, v1 or v2 [default: that of clients, by
    /// --client-address; none with --check-port]
    #[arg(long, requires = "check", value_name = "VERSION")]
    check_proxy: Option<ProxyHeader>,
    /// Port to check [default: the backend's own]
    #[arg(long, requires = "check", value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    check_port: Option<u16>,
    /// Time from one check's start to the next one's [default: 2000]
    #[arg(long, requires = "check", value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    interval_ms: Option<u32>,
    /// Time after which an unanswered check has failed [default: 1000, or the interval if that is shorter]
    #[arg(long, requires = "check", value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    timeout_ms: Option<u32>,
    /// Passed checks in a row that bring a backend back [default: 2]
    #[arg(long, requires = "check", value_name = "N", value_parser = value_parser!(u32).range(1..))]
    rise: Option<u32>,
    /// Failed checks in a row that take a backend out [default: 3]
    #[arg(long, requires = "check", value_name = "N", value_parser = value_parser!(u32).range(1..))]
    fall: Option<u32>,
}

/// What says how much of their weights the backends of a new service can bear.
#[derive(Debug, Args)]
pub struct AgentArguments {
    /// Port of the agent on each backend, with --scheduler dynamic-ratio
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    agent_port: Option<u16>,
    /// Time from one question's start to the next one's [default: 2000]
    #[arg(long, requires = "agent_port", value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    agent_interval_ms: Option<u32>,
    /// Time after which an unanswered question is given up [default: 1000, or the interval if that is shorter]
    #[arg(long, requires = "agent_port", value_name = "MS", value_parser = value_parser!(u32).range(1..))]
    agent_timeout_ms: Option<u32>,
}

impl AgentArguments {
    fn agent(&self) -> Option<Agent> {
        let interval_ms = self.agent_interval_ms.unwrap_or(2000);
        let timeout_ms = self.agent_timeout_ms.unwrap_or(interval_ms.min(1000));
        Some(Agent { port: self.agent_port?, interval_ms, timeout_ms })
    }
}

/// What a check asks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A TCP connection opens
    Tcp,
    /// An HTTP GET is answered with an expected status
    Http,
}

/// A new backend.
#[derive(Debug, Args)]
pub struct BackendAdd {
    /// Which service
    pub service: ServiceKey,
    /// Address and port of the backend; with several ports of the service, port 0 keeps the one asked for
    backend: SocketAddr,
    /// How packets reach it: nat, full-nat, dr or tunnel
    #[arg(long, default_value_t = Mode::Nat)]
    mode: Mode,
    /// How mode tunnel wraps packets: ipip, gue or gre [default: ipip]
    #[arg(long, value_name = "TYPE")]
    tunnel: Option<Encapsulation>,
    /// UDP port of a gue tunnel [default: 6080]
    #[arg(long, requires = "tunnel", value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    tunnel_port: Option<u16>,
    /// Give a gue or gre tunnel a checksum
    #[arg(long, requires = "tunnel")]
    tunnel_checksum: bool,
    /// Take the outer source address from this prefix, by the flow [default: the interface's own address]
    #[arg(long, value_name = "PREFIX")]
    tunnel_spread: Option<IpNet>,
    /// Share of new flows, 0 to 65535
    #[arg(long, default_value_t = 1)]
    weight: u16,
    /// What names it in QUIC connection IDs, in hexadecimal digits
    #[arg(long, value_name = "ID")]
    server_id: Option<ServerId>,
    /// Give it no more flows when it has so many [default: no limit]
    #[arg(long, value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    upper: Option<u32>,
    /// Give it new flows again when it has fewer [default: three quarters of --upper]
    #[arg(long, requires = "upper", value_name = "FLOWS", value_parser = value_parser!(u32).range(1..))]
    lower: Option<u32>,
    /// Whether it is in use: enabled, drain or disabled
    #[arg(long, value_name = "STATE", default_value_t = Admin::Enabled)]
    admin: Admin,
    /// The higher, the sooner it is used, 0 to 65535
    #[arg(long, default_value_t = 0)]
    priority: u16,
    /// Use it only when the service has no quorum
    #[arg(long, conflicts_with = "priority")]
    pub sorry: bool,
}

fn mss_range() -> std::ops::RangeInclusive<i64> {
    (*limits::MSS.start()).into()..=(*limits::MSS.end()).into()
}

/// One of the timeouts of a new service, or what the others begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timeout {
    Preset(Preset),
    /// By the name of its key in the file.
    Secs(&'static str, u32),
}

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write it as established=600 or preset=dpvs")?;
        if name == "preset" {
            return value
                .parse()
                .map(Self::Preset)
                .map_err(|error: config::words::WordError| error.to_string());
        }
        let mut timeouts = Timeouts::default();
        let keys = timeouts.each().map(|(key, _)| key);
        let states = keys.map(|key| key.trim_end_matches("_secs"));
        let Some(place) = states.iter().position(|state| *state == name) else {
            return Err(format!("there is no state `{name}`; use one of {}", states.join(", ")));
        };
        let secs = value.parse().ok().filter(|secs| limits::IDLE_SECS.contains(secs));
        let (least, most) = limits::IDLE_SECS.into_inner();
        let secs = secs.ok_or_else(|| format!("use a number of seconds from {least} to {most}"))?;
        Ok(Self::Secs(keys[place], secs))
    }
}

/// All timeouts of a service that gives some: a preset first, wherever it stands.
fn timeouts(given: &[Timeout]) -> Option<Timeouts> {
    let mut all = Timeouts::default();
    for timeout in given {
        if let Timeout::Preset(preset) = timeout {
            all = Timeouts::preset(*preset);
        }
    }
    for timeout in given {
        if let Timeout::Secs(key, secs) = timeout {
            all.each().into_iter().filter(|(other, _)| other == key).for_each(|(_, place)| *place = *secs);
        }
    }
    (!given.is_empty()).then_some(all)
}

impl ServiceAdd {
    /// The service that is to be added.
    ///
    /// # Errors
    /// What is wrong with the options, if they do not fit each other.
    pub fn service(&self) -> Result<Service, String> {
        let key = match (self.service.class, self.class) {
            (Some(written), Some(class)) if written != class => {
                return Err(format!(
                    "--class {class} does not go with {}; that has a class already; leave --class out",
                    self.service
                ));
            }
            (written, class) => ServiceKey { class: class.or(written), ..self.service },
        };
        Ok(Service {
            name: self.name.clone().unwrap_or_else(|| key.to_string()),
            key,
            scheduler: self.scheduler,
            hash: self.hash.hash(self.scheduler),
            quic: self.quic.quic(),
            expiration_secs: self.expiration_secs,
            persistence: self.persistence.persistence(),
            limits: self.limits.limits(),
            check: self.check.check()?,
            agent: self.agent.agent(),
            no_backend: self.no_backend,
            no_flow: self.no_flow,
            mss: self.mss,
            timeouts: timeouts(&self.timeouts),
            one_packet: self.one_packet,
            snat_pool: self.snat_pool.clone(),
            client_address: self.client_address,
            echo: !self.no_echo,
            policy: self.policy.policy(),
            backends: Vec::new(),
        })
    }
}

impl BackendAdd {
    /// The backend that is to be added.
    ///
    /// # Errors
    /// What is wrong with the options, if they do not fit each other.
    pub fn backend(&self) -> Result<Backend, String> {
        let spread = self.tunnel_spread.map(|_| "--tunnel-spread");
        let of_tunnels = self.tunnel.map(|_| "--tunnel").or(spread);
        if let Some(option) = of_tunnels.filter(|_| self.mode != Mode::Tunnel) {
            let mode = self.mode;
            return Err(format!(
                "{option} does not go with mode {mode}; that wraps no packets; use --mode tunnel"
            ));
        }
        let encapsulation = self.tunnel.unwrap_or(Tunnel::default().encapsulation);
        if self.tunnel_port.is_some() && encapsulation != Encapsulation::Gue {
            return Err(format!(
                "--tunnel-port does not go with --tunnel {encapsulation}; that has no port; use --tunnel gue"
            ));
        }
        let port = self.tunnel_port.unwrap_or(Tunnel::GUE_PORT);
        let tunnel =
            Tunnel { encapsulation, port, checksum: self.tunnel_checksum, spread: self.tunnel_spread };
        let (upper, lower) = (self.upper.unwrap_or(0), self.lower.unwrap_or(0));
        let Self { backend: address, mode, weight, server_id, admin, priority, .. } = *self;
        Ok(Backend { address, mode, tunnel, weight, server_id, upper, lower, admin, priority })
    }
}

impl CheckArguments {
    fn says_what_to_ask(&self) -> bool {
        self.path.is_some() || self.host.is_some() || self.status.is_some() || self.check_proxy.is_some()
    }

    fn check(&self) -> Result<Option<Check>, String> {
        let kind = match self.check {
            None => return Ok(None),
            Some(Kind::Tcp) if self.says_what_to_ask() => {
                return Err("--path, --host, --status and --check-proxy do not go with --check tcp; \
                            it asks for nothing; use --check http"
                    .to_owned());
            }
            Some(Kind::Tcp) => CheckKind::Tcp,
            Some(Kind::Http) => CheckKind::Http {
                path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
                host: self.host.clone(),
                status: self.status,
                proxy: self.check_proxy,
            },
        };
        let interval_ms = self.interval_ms.unwrap_or(2000);
        Ok(Some(Check {
            kind,
            port: self.check_port,
            interval_ms,
            timeout_ms: self.timeout_ms.unwrap_or(interval_ms.min(1000)),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
        }))
    }
}

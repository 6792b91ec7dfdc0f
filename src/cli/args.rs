//! What may be typed, and the request it stands for.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use config::model::{Backend, Check, CheckKind, Service};
use config::words::{Mode, Scheduler, ServiceKey};
use controlplane::api::Request;

/// Shows and changes what a running trutinad balances.
///
/// Commands may be shortened as long as they stay unique. A service is written tcp:192.0.2.1:80.
#[derive(Debug, Parser)]
#[command(name = "trutina", version, infer_subcommands = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// Control socket of trutinad
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "TRUTINA_SOCKET",
        default_value = "/run/trutina.sock"
    )]
    pub socket: PathBuf,
    /// Print the daemon's answer as JSON
    #[arg(long, global = true, display_order = 901)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What runs, since when, on which ports and cores
    Status,
    /// Services: what is balanced
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Backends: who serves it
    #[command(subcommand)]
    Backend(BackendCommand),
    /// Flows: which client is with which backend
    #[command(subcommand)]
    Flow(FlowCommand),
    /// Counters of workers, ports, services and backends
    Stats,
    /// Dropped frames by reason
    Drops {
        /// Show reasons that never happened, too
        #[arg(long)]
        all: bool,
    },
    /// Read the configuration file again, all or nothing
    Reload,
    /// Stop the appliance
    Stop,
}

/// What to do with services.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub enum ServiceCommand {
    /// Every service with its backends
    List,
    /// Add a service without backends
    Add(ServiceAdd),
    /// Remove a service; its flows keep their backends until they end
    Remove {
        /// Which service
        service: ServiceKey,
    },
}

/// A new service.
#[derive(Debug, Args)]
pub struct ServiceAdd {
    /// Protocol, virtual address and port
    service: ServiceKey,
    /// How a new flow's backend is chosen: rr or wrr
    #[arg(long, default_value_t = Scheduler::Wrr)]
    scheduler: Scheduler,
    /// A name for it
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    check: CheckArguments,
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

/// What a check asks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// A TCP connection opens
    Tcp,
    /// An HTTP GET is answered with an expected status
    Http,
}

/// What to do with backends.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub enum BackendCommand {
    /// Backends with their health and counters
    List {
        /// Only those of this service
        service: Option<ServiceKey>,
    },
    /// Add a backend to a service
    Add {
        /// Which service
        service: ServiceKey,
        /// Address and port of the backend
        backend: SocketAddrV4,
        /// How packets reach it: nat, dr or tunnel
        #[arg(long, default_value_t = Mode::Nat)]
        mode: Mode,
        /// Share of new flows, 0 to 65535
        #[arg(long, default_value_t = 1)]
        weight: u16,
    },
    /// Remove a backend; its flows stay with it until they end
    Remove {
        /// Which service
        service: ServiceKey,
        /// Address and port of the backend
        backend: SocketAddrV4,
    },
    /// Change a backend
    Set {
        /// Which service
        service: ServiceKey,
        /// Address and port of the backend
        backend: SocketAddrV4,
        /// Share of new flows, 0 to 65535; 0 gives it none and leaves the flows it has
        #[arg(long)]
        weight: u16,
    },
}

/// What to do with flows.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub enum FlowCommand {
    /// Flows of all workers
    List {
        /// Show at most so many
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
}

impl Command {
    /// The call that this command makes.
    ///
    /// # Errors
    /// What is wrong with the options, if they do not fit each other.
    pub fn request(&self) -> Result<Request, String> {
        Ok(match self {
            Self::Status => Request::Status,
            Self::Service(ServiceCommand::List) | Self::Backend(BackendCommand::List { .. }) => {
                Request::ServiceList
            }
            Self::Service(ServiceCommand::Add(add)) => Request::ServiceAdd(add.service()?),
            Self::Service(ServiceCommand::Remove { service }) => Request::ServiceRemove { service: *service },
            Self::Backend(BackendCommand::Add { service, backend, mode, weight }) => Request::BackendAdd {
                service: *service,
                backend: Backend { address: *backend, mode: *mode, weight: *weight },
            },
            Self::Backend(BackendCommand::Remove { service, backend }) => {
                Request::BackendRemove { service: *service, address: *backend }
            }
            Self::Backend(BackendCommand::Set { service, backend, weight }) => {
                Request::BackendSet { service: *service, address: *backend, weight: *weight }
            }
            Self::Flow(FlowCommand::List { limit }) => Request::FlowList { limit: *limit },
            Self::Stats => Request::Stats,
            Self::Drops { .. } => Request::Drops,
            Self::Reload => Request::Reload,
            Self::Stop => Request::Stop,
        })
    }
}

impl ServiceAdd {
    fn service(&self) -> Result<Service, String> {
        Ok(Service {
            name: self.name.clone().unwrap_or_else(|| self.service.to_string()),
            key: self.service,
            scheduler: self.scheduler,
            check: self.check.check()?,
            backends: Vec::new(),
        })
    }
}

impl CheckArguments {
    fn check(&self) -> Result<Option<Check>, String> {
        let kind = match self.check {
            None => return Ok(None),
            Some(Kind::Tcp) if self.path.is_some() || self.host.is_some() || self.status.is_some() => {
                return Err("--path, --host and --status do not go with --check tcp; \
                            it asks for nothing; use --check http"
                    .to_owned());
            }
            Some(Kind::Tcp) => CheckKind::Tcp,
            Some(Kind::Http) => CheckKind::Http {
                path: self.path.clone().unwrap_or_else(|| "/".to_owned()),
                host: self.host.clone(),
                status: self.status,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

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
                    backend: Backend { address, mode: Mode::Nat, weight: 1 },
                },
            ),
            (
                "trutina backend add tcp:192.0.2.1:80 198.51.100.7:8000 --mode tunnel --weight 65535",
                Request::BackendAdd {
                    service: key(),
                    backend: Backend { address, mode: Mode::Tunnel, weight: 65535 },
                },
            ),
            (
                "trutina backend remove tcp:192.0.2.1:80 198.51.100.7:8000",
                Request::BackendRemove { service: key(), address },
            ),
            (
                "trutina backend set tcp:192.0.2.1:80 198.51.100.7:8000 --weight 0",
                Request::BackendSet { service: key(), address, weight: 0 },
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

    #[test]
    fn a_service_takes_a_check() {
        let service =
            |options: &str| match request(&format!("trutina service add tcp:192.0.2.1:80 {options}")) {
                Request::ServiceAdd(service) => service,
                other => panic!("{other:?}"),
            };
        let bare = service("");
        assert_eq!(
            (bare.name.as_str(), bare.scheduler, bare.check),
            ("tcp:192.0.2.1:80", Scheduler::Wrr, None)
        );
        let tcp =
            Check { kind: CheckKind::Tcp, port: None, interval_ms: 2000, timeout_ms: 1000, rise: 2, fall: 3 };
        assert_eq!(service("--check tcp").check, Some(tcp.clone()));
        assert_eq!(
            service("--check tcp --interval-ms 500").check,
            Some(Check { interval_ms: 500, timeout_ms: 500, ..tcp })
        );
        let full = service(
            "--name web --scheduler rr --check http --path /alive --host example.org --status 204 \
             --check-port 8080 --interval-ms 900 --timeout-ms 800 --rise 4 --fall 5",
        );
        let kind = CheckKind::Http {
            path: "/alive".to_owned(),
            host: Some("example.org".to_owned()),
            status: Some(204),
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
            "trutina service add 192.0.2.1:80",
            "trutina backend set tcp:192.0.2.1:80 198.51.100.7:8000",
            "trutina backend add tcp:192.0.2.1:80 198.51.100.7:8000 --weight 65536",
            "trutina backend add tcp:192.0.2.1:80 198.51.100.7 --weight 1",
            "trutina flow list --limit -1",
            "trutina",
            "trutina service",
        ] {
            assert_eq!(parsed(line).unwrap_err().exit_code(), 2, "{line}");
        }
        let asks = parsed("trutina service add tcp:192.0.2.1:80 --check tcp --path /").unwrap();
        assert!(asks.command.request().unwrap_err().ends_with("; use --check http"));
    }

    #[test]
    fn options_of_the_whole_program_stand_anywhere() {
        for line in ["trutina --json --socket /tmp/s status", "trutina status --socket /tmp/s --json"] {
            let arguments = parsed(line).unwrap();
            assert!(arguments.json);
            assert_eq!(arguments.socket, PathBuf::from("/tmp/s"));
        }
    }
}

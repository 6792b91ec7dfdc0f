//! What may be typed, and the request it stands for.

mod add;
mod balance;
mod persistence;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use config::words::ServiceKey;
use controlplane::api::Request;

pub use self::add::{BackendAdd, ServiceAdd};
pub use self::persistence::PersistenceCommand;
use self::policy::{Disable, Drain, Which};

/// Shows and changes what a running trutinad balances.
///
/// Commands may be shortened as long as they stay unique. A service is written tcp:192.0.2.1:80 or
/// tcp:[2001:db8::1]:80, with several ports tcp:192.0.2.1:8000-8099, with any port tcp:192.0.2.1:0, and with a
/// class of packets tcp:192.0.2.1:80@gold.
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
    /// Persistence templates: which client comes back to which backend
    #[command(subcommand)]
    Persistence(PersistenceCommand),
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
    Add(Box<ServiceAdd>),
    /// Remove a service; its flows keep their backends until they end
    Remove {
        /// Which service
        service: ServiceKey,
    },
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
    Add(BackendAdd),
    /// Remove a backend; its flows stay with it until they end
    Remove {
        /// Which service
        service: ServiceKey,
        /// Address and port of the backend
        backend: SocketAddr,
    },
    /// Give a backend no new flows, and leave it those it has
    Drain(Drain),
    /// Take a backend out of use at once
    Disable(Disable),
    /// Take a backend into use that was drained or disabled
    Enable(Which),
    /// Change a backend
    Set {
        /// Which service
        service: ServiceKey,
        /// Address and port of the backend
        backend: SocketAddr,
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
        /// Show at most so many, of 100000 that a list may have
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
            Self::Service(ServiceCommand::Add(add)) => Request::ServiceAdd(Box::new(add.service()?)),
            Self::Service(ServiceCommand::Remove { service }) => Request::ServiceRemove { service: *service },
            Self::Backend(BackendCommand::Add(add)) => {
                Request::BackendAdd { service: add.service, backend: add.backend()?, sorry: add.sorry }
            }
            Self::Backend(BackendCommand::Remove { service, backend }) => {
                Request::BackendRemove { service: *service, address: *backend }
            }
            Self::Backend(BackendCommand::Set { service, backend, weight }) => {
                let (service, address, weight) = (*service, *backend, Some(*weight));
                Request::BackendSet { service, address, weight, admin: None }
            }
            Self::Backend(BackendCommand::Drain(drain)) => drain.request(),
            Self::Backend(BackendCommand::Disable(disable)) => disable.request(),
            Self::Backend(BackendCommand::Enable(which)) => which.enable(),
            Self::Flow(FlowCommand::List { limit }) => Request::FlowList { limit: *limit },
            Self::Persistence(command) => command.request(),
            Self::Stats => Request::Stats,
            Self::Drops { .. } => Request::Drops,
            Self::Reload => Request::Reload,
            Self::Stop => Request::Stop,
        })
    }
}

#[cfg(test)]
mod tests;

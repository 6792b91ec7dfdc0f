//! The control protocol: what may be asked of the appliance, and what it answers.
//!
//! JSON-RPC 2.0, one message a line, over a Unix stream socket. [`Request`] serialises to exactly the
//! `method` and `params` members of a call. Counters only grow, from 0 at the appliance's start.

mod persistence;
mod stats;
mod status;

use std::net::{IpAddr, SocketAddr};

use config::model;
use config::words::{Fate, Protocol, ServiceKey, Then};
use serde::{Deserialize, Serialize};

pub use persistence::{Forgotten, Template, TemplateList, TemplateUsage, TemplatesWanted};
pub use stats::{ControlStats, Drop, LocalStats, PortStats, Stats, WorkerStats};
pub use status::{
    BackendStatus, Counters, DrainStatus, Health, InterfaceStatus, NeighbourStatus, PortStatus,
    ServiceStatus, Status, WorkerStatus,
};

/// A call is a line of at most so many bytes, its newline included. Answers may be longer.
pub const MAX_LINE_LEN: usize = 1 << 20;

/// Flows or templates in one answer at most, whatever was asked for: more would hold the appliance up.
pub const MAX_LISTED: usize = 100_000;

/// A call, by method name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", deny_unknown_fields)]
pub enum Request {
    /// What runs, since when, on which ports and cores. Answered by [`Status`].
    #[serde(rename = "status")]
    Status,
    /// Every service with its backends. Answered by a list of [`ServiceStatus`].
    #[serde(rename = "service.list")]
    ServiceList,
    /// Adds a service, with any backends it names. Answered by [`Done`].
    #[serde(rename = "service.add")]
    ServiceAdd(Box<model::Service>),
    /// Removes a service; its flows keep their backends until they end. Answered by [`Done`].
    #[serde(rename = "service.remove")]
    ServiceRemove {
        /// Which service.
        service: ServiceKey,
    },
    /// Adds a backend to a service. Answered by [`Done`].
    #[serde(rename = "backend.add")]
    BackendAdd {
        /// Which service.
        service: ServiceKey,
        /// What to add.
        backend: model::Backend,
        /// Whether it becomes one of the sorry backends.
        #[serde(default)]
        sorry: bool,
    },
    /// Removes a backend; its flows stay with it until they end. Answered by [`Done`].
    #[serde(rename = "backend.remove")]
    BackendRemove {
        /// Which service.
        service: ServiceKey,
        /// Which backend.
        address: SocketAddr,
    },
    /// Changes a backend's weight or administrative state. Answered by [`Done`].
    #[serde(rename = "backend.set")]
    BackendSet {
        /// Which service.
        service: ServiceKey,
        /// Which backend.
        address: SocketAddr,
        /// Its new weight; 0 gives it no new flows.
        weight: Option<u16>,
        /// Its new administrative state.
        admin: Option<AdminChange>,
    },
    /// Flows of all workers. Answered by [`FlowList`].
    #[serde(rename = "flow.list")]
    FlowList {
        /// At most so many flows are answered, and no more than [`MAX_LISTED`].
        limit: usize,
    },
    /// Persistence templates. Answered by [`TemplateList`].
    #[serde(rename = "persistence.list")]
    PersistenceList(TemplatesWanted),
    /// Forgets the persistence templates of a service and its group; flows stay with their backends. Answered by
    /// [`Forgotten`].
    #[serde(rename = "persistence.flush")]
    PersistenceFlush {
        /// Which service.
        service: ServiceKey,
        /// Only those whose network this client is in; none: of all clients.
        client: Option<IpAddr>,
    },
    /// All counters. Answered by [`Stats`].
    #[serde(rename = "stats")]
    Stats,
    /// Dropped frames by reason. Answered by a list of [`Drop`], one for every reason.
    #[serde(rename = "drops")]
    Drops,
    /// Reads the configuration file again and puts it in force, all or nothing. Answered by [`Done`].
    #[serde(rename = "reload")]
    Reload,
    /// Stops the appliance. Answered by [`Done`] before it stops.
    #[serde(rename = "stop")]
    Stop,
}

/// A new administrative state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminChange {
    /// It takes new flows if it is up.
    Enabled,
    /// It takes no new flows; those it has stay.
    Drain {
        /// Seconds until `then` happens; none: never.
        timeout_secs: Option<u32>,
        /// What happens at that time.
        #[serde(default)]
        then: Then,
        /// Whether clients that are bound to it by persistence may still begin flows.
        #[serde(default = "persistent_default")]
        persistent: bool,
    },
    /// It takes no new flows.
    Disabled {
        /// What becomes of the flows it has; none: as its service has it.
        flows: Option<Fate>,
    },
}

const fn persistent_default() -> bool {
    true
}

/// A change is in force on every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Generation of the snapshot that holds the change.
    pub generation: u64,
}

/// Why a call failed: the error member of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// JSON-RPC error code; ours are in [`code`].
    pub code: i32,
    /// What is wrong, and what to do about it: `what; because; try`.
    pub message: String,
}

/// Codes of [`ApiError`]: those of JSON-RPC 2.0, section 5.1, and our own.
pub mod code {
    /// The line is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// The JSON is not a JSON-RPC 2.0 request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// A limit of the appliance forbids it.
    pub const LIMIT: i32 = -32001;
    /// What the call names does not exist.
    pub const NOT_FOUND: i32 = -32002;
    /// What the call would make exists already.
    pub const EXISTS: i32 = -32003;
    /// The configuration it asks for is not valid.
    pub const INVALID_CONFIG: i32 = -32004;
    /// The appliance is stopping, or a worker did not answer in time.
    pub const UNAVAILABLE: i32 = -32005;
}

/// Answer to [`Request::FlowList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowList {
    /// The flows, in no order.
    pub flows: Vec<Flow>,
    /// Flows that exist; more than `flows` holds if the limit cut it.
    pub total: u64,
}

/// One flow, with the columns of `ipvsadm -Lc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Worker whose table holds it.
    pub worker: usize,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The service; `None` for a host inside that a NAT gateway speaks for.
    pub service: Option<ServiceKey>,
    /// The client, or the host inside.
    pub client: SocketAddr,
    /// The address and port of the service that the client speaks to.
    pub vip: Option<SocketAddr>,
    /// The local address and port by which the other end knows the client, with full NAT.
    pub local: Option<SocketAddr>,
    /// The real server.
    pub backend: Option<SocketAddr>,
    /// Name of its state, such as ESTABLISHED or UDP.
    pub state: String,
    /// Seconds until it expires if no packet comes.
    pub expires_secs: u32,
}

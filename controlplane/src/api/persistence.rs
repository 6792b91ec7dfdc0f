//! Persistence templates: which clients are bound to which backends.

use std::net::{IpAddr, SocketAddr};

use config::words::ServiceKey;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which templates, of [`super::Request::PersistenceList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplatesWanted {
    /// Those of this service and of its group; none: of all services.
    pub service: Option<ServiceKey>,
    /// Those whose network this client is in; none: of all clients.
    pub client: Option<IpAddr>,
    /// At most so many are answered, and no more than [`super::MAX_LISTED`].
    pub limit: usize,
}

/// Answer to [`super::Request::PersistenceList`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateList {
    /// The templates, in no order.
    pub templates: Vec<Template>,
    /// Those that were asked for; more than `templates` holds if the limit cut it.
    pub total: u64,
    /// The whole table.
    pub usage: TemplateUsage,
}

/// How full the table of templates is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUsage {
    /// Templates that are alive, those of removed services until their time is over included.
    pub used: u64,
    /// Templates there may be.
    pub capacity: u64,
}

/// A client that comes back to its backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The client, or the network whose hosts count as one.
    pub client: IpNet,
    /// The service that chose the backend.
    pub service: ServiceKey,
    /// The group whose services share it.
    pub group: Option<String>,
    /// The port of the service that it is for; `None` if it is for all.
    pub port: Option<u16>,
    /// The backend that it names; of another service of the group it means the one with the same address.
    pub backend: SocketAddr,
    /// Seconds until it is over if no flow of it begins or lives.
    pub expires_secs: u32,
}

/// Answer to [`super::Request::PersistenceFlush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Templates that were forgotten.
    pub templates: u64,
}

//! What the rules may find, in words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::limits;
use crate::words::{MacAddr, Mode};

/// A rule that a value breaks. [`Fault::help`] says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No single host has this address.
    #[error("{address} is {kind}")]
    NotAHost {
        /// The address.
        address: IpAddr,
        /// What it is instead, with its article.
        kind: String,
    },
    /// No single station has this MAC address.
    #[error("{0} is not the MAC address of one station")]
    NotAStation(MacAddr),
    /// TCP and UDP have no port 0.
    #[error("port 0 is not a port")]
    PortZero,
    /// The address belongs to the appliance itself.
    #[error("{0} is an address of the appliance itself")]
    OwnAddress(IpAddr),
    /// A prefix has bits set behind its length.
    #[error("{0} has bits set behind its prefix length")]
    HostBits(IpNet),
    /// A gateway or neighbour is on no port's link.
    #[error("{0} is on no connected prefix")]
    NotConnected(IpAddr),
    /// A name that would break a line or a label.
    #[error("the name is empty, too long, or has spaces around it or control characters in it")]
    Name,
    /// The backend has the service's own address.
    #[error("backend {0} has the address of the VIP")]
    BackendIsVip(SocketAddr),
    /// The mode keeps the port, and the backend has another.
    #[error("backend {backend} has port {}, but mode {mode} leaves the service's port {port} as it is", backend.port())]
    OtherPort {
        /// The backend.
        backend: SocketAddr,
        /// Its mode: `dr` or `tunnel`.
        mode: Mode,
        /// The service's port.
        port: u16,
    },
    /// Mode `dr` needs the backend on the same link.
    #[error("backend {0} is not on the link of any port, and mode dr reaches no further")]
    OffLink(SocketAddr),
    /// Neither a connected prefix nor a route covers the backend.
    #[error("no route leads to backend {0}")]
    NoRoute(SocketAddr),
    /// A service names the same backend twice.
    #[error("backend {0} is listed twice")]
    DuplicateBackend(SocketAddr),
    /// A number of a check is out of range.
    #[error("{key} is {value}, out of range")]
    CheckRange {
        /// Which one.
        key: &'static str,
        /// Its value.
        value: u32,
        /// The least value that is allowed.
        least: u32,
        /// The greatest one.
        most: u32,
    },
    /// A check may not run into the next one.
    #[error("timeout_ms is {timeout_ms}, longer than interval_ms, {interval_ms}")]
    TimeoutOverInterval {
        /// The check's timeout.
        timeout_ms: u32,
        /// Its interval.
        interval_ms: u32,
    },
    /// Checks go over TCP, so those of a UDP service can not use its own port.
    #[error("the check of a udp service has no port to ask by TCP")]
    UdpCheckPort,
    /// A request target that is none.
    #[error("the path of a check must begin with a slash and be ASCII without spaces or control characters")]
    CheckPath,
    /// A Host header that is none.
    #[error("the host of a check must be ASCII without spaces or control characters, and not empty")]
    CheckHost,
}

impl Fault {
    pub(super) fn check_range(key: &'static str, value: u32, range: RangeInclusive<u32>) -> Option<Self> {
        let outside = Self::CheckRange { key, value, least: *range.start(), most: *range.end() };
        (!range.contains(&value)).then_some(outside)
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::NotAHost { .. } => "use the address of one host".to_owned(),
            Self::NotAStation(_) => "use a unicast address, such as 02:00:5e:00:53:01".to_owned(),
            Self::PortZero => "use a port from 1 to 65535".to_owned(),
            Self::OwnAddress(_) => "use the address of another host".to_owned(),
            Self::HostBits(prefix) => format!("write {}", prefix.trunc()),
            Self::NotConnected(_) => "use an address within a prefix of some [[port]]'s addresses".to_owned(),
            Self::Name => format!("use 1 to {} printable characters", limits::NAME_LEN),
            Self::BackendIsVip(_) => "give the real server's own address".to_owned(),
            Self::OtherPort { port, .. } => format!("use port {port}, or mode = \"nat\" to change the port"),
            Self::OffLink(_) => "use mode = \"tunnel\", or an address within a connected prefix".to_owned(),
            Self::NoRoute(_) => "add a [[route]] to it, or a default route to 0.0.0.0/0".to_owned(),
            Self::DuplicateBackend(_) => "remove one of them, and give the other more weight".to_owned(),
            Self::CheckRange { least, most, .. } => format!("use a number from {least} to {most}"),
            Self::TimeoutOverInterval { interval_ms, .. } => {
                format!("set timeout_ms to at most {interval_ms}, or interval_ms to more")
            }
            Self::UdpCheckPort => "add port = N, a port on which the backend answers TCP".to_owned(),
            Self::CheckPath => "write it as path = \"/health\"".to_owned(),
            Self::CheckHost => "write it as host = \"www.example.org\"".to_owned(),
        }
    }
}

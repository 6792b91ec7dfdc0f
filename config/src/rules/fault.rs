//! What the rules may find, in words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::balance::next_size;
use crate::limits;
use crate::problem::{nearest, quote};
use crate::words::{ClientAddress, Encapsulation, MacAddr, Mode, Protocol, Scheduler, ServiceKey};

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
    /// Every link has link-local addresses of its own, so one alone leads nowhere.
    #[error("{0} is a link-local address")]
    LinkLocal(IpAddr),
    /// An IPv4 address in the clothes of IPv6 (RFC 4291, 2.5.5.2).
    #[error("{0} is an IPv4 address mapped into IPv6")]
    Mapped(IpAddr),
    /// An IPv6 address that names an interface of the kernel's.
    #[error("{0} has a zone")]
    Zone(SocketAddr),
    /// No single station has this MAC address.
    #[error("{0} is not the MAC address of one station")]
    NotAStation(MacAddr),
    /// TCP and UDP have no port 0.
    #[error("port 0 is not a port")]
    PortZero,
    /// The address belongs to the appliance itself.
    #[error("{0} is an address of the appliance itself")]
    OwnAddress(IpAddr),
    /// The address belongs to a pool.
    #[error("{address} is an address of snat pool {pool}")]
    PoolAddress {
        /// The address.
        address: IpAddr,
        /// The pool's name.
        pool: String,
    },
    /// A prefix has bits set behind its length.
    #[error("{0} has bits set behind its prefix length")]
    HostBits(IpNet),
    /// A gateway or neighbour is on no interface's link.
    #[error("{0} is on no connected prefix")]
    NotConnected(IpAddr),
    /// A gateway of the other IP version than its route.
    #[error("{via} can not be the gateway to {to}: they are of different IP versions")]
    RouteFamily {
        /// The destination.
        to: IpNet,
        /// The gateway.
        via: IpAddr,
    },
    /// A name that would break a line or a label.
    #[error("the name is empty, too long, or has spaces around it or control characters in it")]
    Name,
    /// A name the kernel does not take for a device.
    #[error("{0} is not a name of a tap device")]
    TapName(String),
    /// A pool or class that is named but not there.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What it should be.
        what: &'static str,
        /// Its name, as it may stand in a message.
        name: String,
        /// A name that is there, and nearly this one.
        near: Option<String>,
    },
    /// Two services share some ports, and neither has all of the other's.
    #[error("{key} overlaps {other}")]
    PortsOverlap {
        /// The service.
        key: ServiceKey,
        /// The one that was there before.
        other: ServiceKey,
    },
    /// An option of one protocol, on a service of the other.
    #[error("{key} is only for {protocol}")]
    OtherProtocol {
        /// The option.
        key: &'static str,
        /// The protocol that has it.
        protocol: Protocol,
    },
    /// A number is out of range.
    #[error("{key} is {value}, out of range")]
    Range {
        /// Which one.
        key: &'static str,
        /// Its value.
        value: u32,
        /// The least value that is allowed.
        least: u32,
        /// The greatest one.
        most: u32,
    },
    /// The backend has the service's own address.
    #[error("backend {0} has the address of the VIP")]
    BackendIsVip(SocketAddr),
    /// The mode does not change ports, and the backend has another than the service.
    #[error("backend {backend} has port {}, but mode {mode} leaves the service's port as it is", backend.port())]
    OtherPort {
        /// The backend.
        backend: SocketAddr,
        /// Its mode: `dr` or `tunnel`.
        mode: Mode,
        /// The port it has to have.
        port: u16,
    },
    /// A one-to-one mapping of ports that ends beyond the last one.
    #[error("backend {backend} has no {count} ports from {} on", backend.port())]
    TooFewPorts {
        /// The backend.
        backend: SocketAddr,
        /// How many the service has.
        count: u16,
    },
    /// A key, of `hash` for most, that the scheduler does not heed.
    #[error("scheduler {scheduler} has no use for {key}")]
    HashKey {
        /// The key.
        key: &'static str,
        /// The service's scheduler.
        scheduler: Scheduler,
    },
    /// What IPVS's scheduler does not hash.
    #[error("scheduler {0} hashes source or source-port only, as in IPVS")]
    HashPart(Scheduler),
    /// A size that no table of this scheduler has.
    #[error("a table of scheduler {scheduler} cannot have {size} slots")]
    TableSize {
        /// The service's scheduler.
        scheduler: Scheduler,
        /// The size.
        size: u32,
    },
    /// A factor with which backends are full at once, or never.
    #[error("the load factor is out of range")]
    LoadFactor,
    /// Packets or bits in a second that no port has.
    #[error("a rate of packets or bits is out of range")]
    Rate,
    /// Connection IDs that are longer than QUIC's.
    #[error("a connection ID has at most 20 octets, and the first one is not of the server")]
    QuicLength,
    /// A key that is none.
    #[error("the key is not 16 octets")]
    QuicKey,
    /// Connection IDs of what has none.
    #[error("only scheduler quic looks at connection IDs")]
    QuicScheduler,
    /// A backend whose handshakes are seen one way only.
    #[error(
        "scheduler fastest times the answers of backends, and mode {mode} does not see those of {backend}"
    )]
    Untimed {
        /// The backend.
        backend: SocketAddr,
        /// Its mode: `dr` or `tunnel`.
        mode: Mode,
    },
    /// A scheduler that would be told nothing.
    #[error("scheduler dynamic-ratio has no agent to ask")]
    NoAgent,
    /// An agent that nobody heeds.
    #[error("only scheduler dynamic-ratio heeds an agent")]
    AgentScheduler,
    /// A server's ID that is never found.
    #[error("the server IDs of this service have {0} octets")]
    ServerIdLength(u8),
    /// A lower limit that the number of flows never reaches.
    #[error("with {lower} flows a backend cannot take new ones again, for it never has more than {upper}")]
    LowerThreshold {
        /// The limit at which it takes no more; 0 if there is none.
        upper: u32,
        /// The limit below which it takes some again.
        lower: u32,
    },
    /// The mode does not translate between the IP versions.
    #[error(
        "backend {backend} and VIP {vip} are of different IP versions, which mode {mode} does not translate"
    )]
    OtherFamily {
        /// The backend.
        backend: SocketAddr,
        /// The VIP.
        vip: IpAddr,
        /// The backend's mode: `nat` or `dr`.
        mode: Mode,
    },
    /// Mode `full-nat` needs a pool.
    #[error("backend {0} needs a snat pool to be spoken to in mode full-nat, and its service names none")]
    NoPool(SocketAddr),
    /// The pool has no address of the backend's family.
    #[error("snat pool {pool} has no address of the IP version of backend {backend}")]
    PoolFamily {
        /// The backend.
        backend: SocketAddr,
        /// The pool's name.
        pool: String,
    },
    /// The pool is of no use to the hosts of an interface.
    #[error("snat pool {0} has no address of an IP version that this interface has")]
    GatewayPoolFamily(String),
    /// Without a flow nobody knows whose a reply to a pool's address is.
    #[error("backend {0} can not be in mode full-nat, since its service keeps no flows")]
    OnePacketFullNat(SocketAddr),
    /// A way to tell client addresses that only TCP has.
    #[error("client_address {0} is only for tcp")]
    ClientAddressTcp(ClientAddress),
    /// A connection has no datagrams.
    #[error("client_address proxy-v2-each is only for udp")]
    ClientAddressUdp,
    /// Only the first packet of a flow tells whose it is.
    #[error("client addresses can not be told by a service that keeps no flows")]
    ClientAddressOnePacket,
    /// In other modes the client's address is in the packet.
    #[error("backend {backend} is in mode {mode}, and client_address is only for mode full-nat")]
    ClientAddressMode {
        /// The backend.
        backend: SocketAddr,
        /// Its mode.
        mode: Mode,
    },
    /// An option of tunnels in another mode.
    #[error("tunnel is only for mode tunnel")]
    TunnelMode,
    /// A port of a tunnel without UDP.
    #[error("a tunnel of type {0} has no port")]
    TunnelPort(Encapsulation),
    /// A checksum of a tunnel without a header that could have one.
    #[error("a tunnel of type ipip has no checksum")]
    TunnelChecksum,
    /// Source addresses of a tunnel that somebody has, or nobody can have.
    #[error("{spread} can not be the source addresses of a tunnel: {why}")]
    NotSources {
        /// Their prefix.
        spread: IpNet,
        /// What one of them is instead, as a sentence.
        why: String,
    },
    /// Source addresses of the other IP version than the backend.
    #[error("a tunnel to backend {backend} can not begin at {spread}: they are of different IP versions")]
    SpreadFamily {
        /// The backend.
        backend: SocketAddr,
        /// The source addresses.
        spread: IpNet,
    },
    /// Mode `dr` needs the backend on the same link.
    #[error("backend {0} is not on the link of any interface, and mode dr reaches no further")]
    OffLink(SocketAddr),
    /// Neither a connected prefix nor a route covers the backend.
    #[error("no route leads to backend {0}")]
    NoRoute(SocketAddr),
    /// A service names the same backend twice.
    #[error("backend {0} is listed twice")]
    DuplicateBackend(SocketAddr),
    /// A quorum that no loss of backends would lose.
    #[error("hysteresis is {hysteresis}, not less than the quorum's weight, {weight}")]
    Hysteresis {
        /// The quorum.
        weight: u32,
        /// How far the live weight goes without effect.
        hysteresis: u32,
    },
    /// A slow start that is none.
    #[error("exponent is {0}, out of range")]
    Exponent(String),
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
    /// A service with several ports does not say which one to ask.
    #[error("the check of a service with several ports has no port to ask")]
    CheckPort,
    /// A request target that is none.
    #[error("the path of a check must begin with a slash and be ASCII without spaces or control characters")]
    CheckPath,
    /// A Host header that is none.
    #[error("the host of a check must be ASCII without spaces or control characters, and not empty")]
    CheckHost,
}

impl Fault {
    pub(super) fn range<T: Copy + Into<u32> + PartialOrd>(
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) -> Option<Self> {
        let (least, most) = ((*range.start()).into(), (*range.end()).into());
        (!range.contains(&value)).then(|| Self::Range { key, value: value.into(), least, most })
    }

    /// `name` is not one of the `known` pools or classes.
    pub(super) fn unknown(what: &'static str, name: &str, known: &[&str]) -> Self {
        let near = nearest(name, known).map(str::to_owned);
        Self::Unknown { what, name: quote(name), near }
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::NotAHost { .. } => "use the address of one host".to_owned(),
            Self::LinkLocal(_) => {
                "use a global or unique local address: a link-local one names no interface, \
                                   and the appliance makes its own by itself"
                    .to_owned()
            }
            Self::Mapped(address) => format!("write the IPv4 address, {}", address.to_canonical()),
            Self::Zone(address) => format!("write [{}]:{}", address.ip(), address.port()),
            Self::NotAStation(_) => "use a unicast address, such as 02:00:5e:00:53:01".to_owned(),
            Self::PortZero => "use a port from 1 to 65535".to_owned(),
            Self::OwnAddress(_) => "use the address of another host".to_owned(),
            Self::PoolAddress { .. } => "use another address, or take this one out of the pool".to_owned(),
            Self::HostBits(prefix) => format!("write {}", prefix.trunc()),
            Self::NotConnected(_) => {
                "use an address within a prefix of some [[port]] or [[port.vlan]]".to_owned()
            }
            Self::RouteFamily { .. } => "use a gateway of the destination's IP version".to_owned(),
            Self::Name => format!("use 1 to {} printable characters", limits::NAME_LEN),
            Self::TapName(_) => {
                format!("use 1 to {} letters, digits, `_`, `-` and `.`", limits::TAP_NAME_LEN)
            }
            Self::Unknown { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::Unknown { what: "class", .. } => "add a [[class]] with this name".to_owned(),
            Self::Unknown { .. } => "add a [[snat_pool]] with this name".to_owned(),
            Self::PortsOverlap { .. } => {
                "move one of them, or widen one to all ports of the other, which then goes first".to_owned()
            }
            Self::OtherProtocol { protocol, .. } => format!("remove it, or make this a {protocol} service"),
            Self::Range { least, most, .. } => format!("use a number from {least} to {most}"),
            Self::BackendIsVip(_) => "give the real server's own address".to_owned(),
            Self::OtherPort { port: 0, .. } => {
                "use port 0, which stands for the one that the client asked for".to_owned()
            }
            Self::OtherPort { port, .. } => format!("use port {port}, or mode = \"nat\" to change the port"),
            Self::HashKey { key, .. } => format!("remove {key}"),
            Self::HashPart(_) => "use scheduler = \"maglev\" for other parts".to_owned(),
            Self::TableSize { scheduler, size } => format!("use {}", next_size(*scheduler, *size)),
            Self::LoadFactor => "use a number from 1.01 to 100".to_owned(),
            Self::Rate => "use 1 to 10000000000 packets, and 100000 to 4000000000000 bits".to_owned(),
            Self::QuicLength => "make server_id_len and nonce_len at most 19 together".to_owned(),
            Self::QuicKey => "write it as 32 hexadecimal digits".to_owned(),
            Self::QuicScheduler => "remove quic, or set scheduler = \"quic\"".to_owned(),
            Self::Untimed { .. } => {
                "use mode = \"nat\" or mode = \"full-nat\", or another scheduler".to_owned()
            }
            Self::NoAgent => "add agent = { port = 9999 }".to_owned(),
            Self::AgentScheduler => "remove agent, or set scheduler = \"dynamic-ratio\"".to_owned(),
            Self::ServerIdLength(_) => "make it as long, or set server_id_len under quic".to_owned(),
            Self::LowerThreshold { upper: 0, .. } => "set upper as well, or remove this key".to_owned(),
            Self::LowerThreshold { upper, .. } => format!("use at most {upper}"),
            Self::TooFewPorts { count, .. } => {
                let most = u16::MAX - count + 1;
                format!("begin at {most} or lower, or use port 0 for the one that the client asked for")
            }
            Self::OtherFamily { .. } => {
                "use mode = \"full-nat\" or mode = \"tunnel\", or a backend of the VIP's IP version"
                    .to_owned()
            }
            Self::NoPool(_) => {
                "add snat_pool = \"NAME\" to the service, the name of a [[snat_pool]]".to_owned()
            }
            Self::PoolFamily { .. } | Self::GatewayPoolFamily(_) => {
                "add one to the pool's addresses, or name another pool".to_owned()
            }
            Self::OnePacketFullNat(_) => "use another mode, or remove one_packet from the service".to_owned(),
            Self::ClientAddressTcp(_) => "use client_address = \"proxy-v2\", or remove it".to_owned(),
            Self::ClientAddressUdp => "use client_address = \"proxy-v2\"".to_owned(),
            Self::ClientAddressOnePacket => "remove client_address or one_packet".to_owned(),
            Self::ClientAddressMode { .. } => {
                "use mode = \"full-nat\", or remove client_address: in other modes backends see their clients"
                    .to_owned()
            }
            Self::TunnelMode => "remove it, or set mode = \"tunnel\"".to_owned(),
            Self::TunnelPort(_) => "remove the port, or set type = \"gue\"".to_owned(),
            Self::TunnelChecksum => "remove the checksum, or set type = \"gue\" or \"gre\"".to_owned(),
            Self::NotSources { .. } => "use a prefix of addresses that nobody has".to_owned(),
            Self::SpreadFamily { .. } => {
                "give this backend a tunnel of its own, with a spread of its IP version or without one"
                    .to_owned()
            }
            Self::OffLink(_) => "use mode = \"tunnel\", or an address within a connected prefix".to_owned(),
            Self::NoRoute(backend) if backend.is_ipv4() => {
                "add a [[route]] to it, or a default route to 0.0.0.0/0".to_owned()
            }
            Self::NoRoute(_) => "add a [[route]] to it, or a default route to ::/0".to_owned(),
            Self::DuplicateBackend(_) => "remove one of them, and give the other more weight".to_owned(),
            Self::Hysteresis { weight, .. } => {
                format!("set hysteresis to at most {}", weight.saturating_sub(1))
            }
            Self::Exponent(_) => {
                format!("use a number from {} to {}", limits::EXPONENT.start(), limits::EXPONENT.end())
            }
            Self::TimeoutOverInterval { interval_ms, .. } => {
                format!("set timeout_ms to at most {interval_ms}, or interval_ms to more")
            }
            Self::UdpCheckPort => "add port = N, a port on which the backend answers TCP".to_owned(),
            Self::CheckPort => "add port = N, one that tells of all of them".to_owned(),
            Self::CheckPath => "write it as path = \"/health\"".to_owned(),
            Self::CheckHost => "write it as host = \"www.example.org\"".to_owned(),
        }
    }
}

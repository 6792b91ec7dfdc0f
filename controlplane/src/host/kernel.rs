//! Setting taps up in the kernel: address, MTU, own addresses and routes by rtnetlink, quiet by sysctl.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use config::model::Config;
use config::network::Network;
use config::words::MacAddr;
use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tun_rs::AsyncDevice;

use crate::compile::link_local;

/// Largest IP packet of the kernel, whatever the interface takes: its frames fit into one packet buffer.
const MAX_MTU: u16 = 2000;

/// Priority of the routes we add: lower than that of any other, so that a route which the machine had before,
/// such as the one to its operator, stays in force.
const METRIC: u32 = 4096;

/// What the kernel must not do by itself on a tap, as it is not the only one who speaks for these addresses.
/// They stand under `/proc/sys/net/ipv6/conf/`.
const QUIET: [(&str, &str); 6] = [
    // The control thread looks for duplicates.
    ("accept_dad", "0"),
    // Own addresses are those of the configuration; its EUI-64 one is added with them.
    ("addr_gen_mode", "1"),
    ("autoconf", "0"),
    ("accept_ra", "0"),
    ("router_solicitations", "0"),
    ("accept_redirects", "0"),
];

/// Why a host port is not there. Messages read `what; because; try`.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The tap did not open.
    #[error(
        "interface `{interface}`: tap device `{tap}` cannot be made; {source}; \
         run trutinad as root on a kernel with /dev/net/tun, or take `host` out"
    )]
    Tap {
        /// The operator's name of the interface.
        interface: String,
        /// Name of the tap.
        tap: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refuses a setting of it.
    #[error("interface `{interface}`: tap device `{tap}` cannot be set up; {what}: {because}; {hint}")]
    Setting {
        /// The operator's name of the interface.
        interface: String,
        /// Name of the tap.
        tap: String,
        /// Which setting.
        what: String,
        /// What the kernel says.
        because: String,
        /// What to do.
        hint: &'static str,
    },
    /// There is no way to talk to the kernel about its network.
    #[error("the kernel's network cannot be set up; {0}; take `host` out of all interfaces")]
    Netlink(io::Error),
}

/// What a tap is to look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of its interface.
    pub interface: usize,
    /// The operator's name of its interface.
    pub interface_name: String,
    /// Name of the tap.
    pub name: String,
    /// Ethernet address, that of the port.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Addresses with their connected prefixes.
    pub addresses: Vec<IpNet>,
}

impl Plan {
    pub(super) fn not_opened(&self, source: io::Error) -> HostError {
        HostError::Tap { interface: self.interface_name.clone(), tap: self.name.clone(), source }
    }

    fn refused(&self, what: &str, because: impl ToString, hint: &'static str) -> HostError {
        HostError::Setting {
            interface: self.interface_name.clone(),
            tap: self.name.clone(),
            what: what.to_owned(),
            because: because.to_string(),
            hint,
        }
    }
}

/// The taps that a configuration asks for, on ports with these Ethernet addresses.
pub(super) fn plans(config: &Config, macs: &[MacAddr]) -> Vec<Plan> {
    let plan = |(number, interface): (usize, &config::model::Interface)| {
        let mac = macs.get(interface.port).copied().unwrap_or_default();
        let mut addresses = interface.addresses.clone();
        if addresses.iter().any(|address| address.addr().is_ipv6()) {
            addresses.extend(Ipv6Net::new(link_local(mac), 64).map(IpNet::from));
        }
        Some(Plan {
            interface: number,
            interface_name: interface.name.clone(),
            name: interface.host.clone()?,
            mac,
            mtu: interface.mtu.min(MAX_MTU),
            addresses,
        })
    };
    config.interfaces.iter().enumerate().filter_map(plan).collect()
}

/// A route of the kernel through a tap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostRoute {
    to: IpNet,
    via: IpAddr,
    tap: String,
}

/// The static routes of a configuration that lead through taps with these names.
pub(super) fn routes(config: &Config, taps: &HashMap<usize, String>) -> Vec<HostRoute> {
    let network = Network::new(&config.interfaces, &config.routes);
    let route = |route: &config::model::Route| {
        let tap = taps.get(&network.connected(route.via)?)?.clone();
        Some(HostRoute { to: route.to, via: route.via, tap })
    };
    config.routes.iter().filter_map(route).collect()
}

/// A connection to the kernel.
pub(super) struct Kernel {
    handle: Handle,
    /// Indexes of the taps by name.
    indexes: HashMap<String, u32>,
}

impl Kernel {
    /// Connects; the connection is one of `tasks`.
    pub(super) fn connect(tasks: &mut JoinSet<()>) -> Result<Self, HostError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(HostError::Netlink)?;
        tasks.spawn(connection);
        Ok(Self { handle, indexes: HashMap::new() })
    }

    /// Gives a new tap everything but its routes, and sets it up.
    pub(super) async fn set_up(&mut self, device: &AsyncDevice, plan: &Plan) -> Result<(), HostError> {
        let index = device.if_index().map_err(|source| plan.not_opened(source))?;
        let speaks_v6 = plan.addresses.iter().any(|address| address.addr().is_ipv6());
        silence(&plan.name)
            .map_err(|error| plan.refused("sysctl", error, "run trutinad with a writable /proc/sys"))?;
        let link = LinkUnspec::new_with_index(index).address(plan.mac.0.to_vec()).mtu(plan.mtu.into()).up();
        let answer = self.handle.link().set(link.build()).execute().await;
        let hint = if speaks_v6 { "IPv6 needs an `mtu` of 1280 or more" } else { "run trutinad as root" };
        answer.map_err(|error| plan.refused("MAC address and MTU", error, hint))?;
        for address in &plan.addresses {
            let mut request =
                self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
            if address.addr().is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            let hint = "enable IPv6 in the kernel if it is off, or take the address out";
            let answer = request.execute().await;
            answer.map_err(|error| plan.refused(&format!("address {address}"), error, hint))?;
        }
        self.indexes.insert(plan.name.clone(), index);
        Ok(())
    }

    /// Brings the kernel's routes through taps in line with what is wanted, again whenever that changes.
    pub(super) async fn follow(self, mut wanted: watch::Receiver<Vec<HostRoute>>) {
        let mut current = HashSet::new();
        loop {
            let next: HashSet<HostRoute> = wanted.borrow_and_update().iter().cloned().collect();
            for gone in current.difference(&next) {
                self.change(gone, false).await;
            }
            for new in next.difference(&current) {
                self.change(new, true).await;
            }
            current = next;
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// Adds or removes a route; what fails is told, and all else goes on.
    async fn change(&self, route: &HostRoute, add: bool) {
        let HostRoute { to, via, tap } = route;
        let Some(message) = self.indexes.get(tap).and_then(|index| message(route, *index)) else { return };
        let (what, answer) = match add {
            true => ("added", self.handle.route().add(message).execute().await),
            false => ("removed", self.handle.route().del(message).execute().await),
        };
        if let Err(error) = answer {
            tracing::warn!("host port {tap}: route to {to} via {via} cannot be {what}: {error}");
        }
    }
}

fn message(route: &HostRoute, index: u32) -> Option<RouteMessage> {
    let builder = RouteMessageBuilder::<IpAddr>::new().output_interface(index).priority(METRIC);
    let to = route.to.trunc();
    // They fail on prefixes of one family with gateways of the other, which no configuration has.
    let builder = builder.destination_prefix(to.addr(), to.prefix_len()).ok()?;
    Some(builder.gateway(route.via).ok()?.build())
}

/// Keeps the kernel from speaking by itself on a tap. On a kernel without IPv6 there is nothing to do.
fn silence(tap: &str) -> io::Result<()> {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(tap);
    if !directory.exists() {
        return Ok(());
    }
    for (setting, value) in QUIET {
        fs::write(directory.join(setting), value)?;
    }
    Ok(())
}

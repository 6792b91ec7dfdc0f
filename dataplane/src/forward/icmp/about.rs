//! Which flow an ICMP error is about, by the packet that it quotes.

use std::net::{IpAddr, SocketAddr};

use config::words::Protocol;

use super::super::bind::OUTWARD_ECHO;
use super::super::flows::{Stored, worth};
use super::super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::flow::table::Worth;
use crate::local::LocalSlot;
use crate::packet::{Addresses, Headers, Packet};
use crate::rewrite::quote::Quoted;
use crate::snapshot::{BackendSlot, Found, Local, Snapshot};
use crate::wire::eth::Tags;
use crate::wire::ipv4;

/// An ICMP error that may be about a flow.
pub(super) struct Error {
    /// By whom the flow is owned: its client, or the local address that stands for one.
    pub(super) client: (IpAddr, u16),
    protocol: Protocol,
    from: From,
}

/// Who sent the quoted packet.
enum From {
    /// The backend of this service, by its VIP: the client is its destination.
    Vip(Found),
    /// The client, to a NAT backend: the services are those that the backend replies for.
    Client,
    /// We, from a local address.
    Local(LocalSlot),
    /// We, in a tunnel: the packet in it is the client's, to this service.
    Tunnel(Quoted, Found),
}

/// A flow that an error is about.
pub(super) struct About {
    /// Its backend; none if it is a NAT gateway's.
    pub(super) backend: Option<BackendSlot>,
    /// The VIP and the port of the service; without a backend of no meaning.
    pub(super) vip: SocketAddr,
    /// Its client, or the station inside.
    pub(super) sender: SocketAddr,
    /// How the backend knows the client, in full NAT.
    pub(super) local: Option<SocketAddr>,
    /// Bits by which its packets are spread.
    pub(super) entropy: u16,
    /// Who is to be told.
    pub(super) end: End,
}

/// The end of a flow that is to be told.
pub(super) enum End {
    Backend,
    /// Its client, or the station inside. With a packet in a tunnel it is told of that one.
    Sender {
        inner: Option<Quoted>,
    },
}

impl Error {
    /// What a quoted packet says; `None` if it is none of ours.
    pub(super) fn of(snapshot: &Snapshot, quoted: &Quoted, head: &[u8]) -> Option<Self> {
        match snapshot.local(quoted.src.ip()) {
            Some(Local::Own(_)) => {
                let inner = quoted.inner(head)?;
                let (protocol, found) = addressed(snapshot, inner.src, inner.dst, inner.protocol)?;
                Some(Self { client: of(inner.src), protocol, from: From::Tunnel(inner, found) })
            }
            Some(Local::Vip { .. }) => {
                let (protocol, found) = addressed(snapshot, quoted.dst, quoted.src, quoted.protocol)?;
                Some(Self { client: of(quoted.dst), protocol, from: From::Vip(found) })
            }
            Some(Local::Snat(slot)) => {
                // The identifier of an echo request is a port of UDP.
                let protocol = if quoted.is_icmp() { Protocol::Udp } else { protocol(quoted.protocol)? };
                Some(Self { client: of(quoted.src), protocol, from: From::Local(slot) })
            }
            None => {
                let protocol = protocol(quoted.protocol)?;
                let replies = snapshot.replies_of(protocol, quoted.dst.ip(), quoted.dst.port());
                let client = of(quoted.src);
                (!replies.is_empty()).then_some(Self { client, protocol, from: From::Client })
            }
        }
    }
}

fn of(end: SocketAddr) -> (IpAddr, u16) {
    (end.ip(), end.port())
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        ipv4::PROTOCOL_TCP => Some(Protocol::Tcp),
        ipv4::PROTOCOL_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// The service that a packet between these ends would be for.
fn addressed(
    snapshot: &Snapshot,
    client: SocketAddr,
    vip: SocketAddr,
    number: u8,
) -> Option<(Protocol, Found)> {
    let protocol = protocol(number)?;
    let addresses = match (client.ip(), vip.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Addresses::V4 { src: src.to_bits(), dst: dst.to_bits() },
        (IpAddr::V6(src), IpAddr::V6(dst)) => Addresses::V6 { src: src.to_bits(), dst: dst.to_bits() },
        _ => return None,
    };
    let headers = Headers {
        ip: Packet { addresses, ..Work::NONE.headers.ip },
        src_port: client.port(),
        dst_port: vip.port(),
        protocol,
        tcp_flags: 0,
    };
    // Of a packet's class nothing is known but its source; without it the service is the one for all.
    Some((protocol, snapshot.service_for(&headers, Tags::default())?))
}

impl<F: Frame> Forwarder<F> {
    /// The live flow that an error is about.
    pub(super) fn flow_of(&self, context: Context, quoted: &Quoted, error: &Error) -> Option<About> {
        let (client, client_port) = error.client;
        match &error.from {
            From::Vip(found) => {
                let about = self.flow_at(context, quoted.dst, quoted.src.port(), *found)?;
                Some(About { end: End::Backend, ..about })
            }
            From::Tunnel(inner, found) => {
                let about = self.flow_at(context, inner.src, inner.dst.port(), *found)?;
                let backend = context.snapshot.backend(about.backend?)?;
                let end = End::Sender { inner: Some(*inner) };
                (backend.address.ip() == quoted.dst.ip()).then_some(About { end, ..about })
            }
            From::Client => {
                let replies = context.snapshot.replies_of(error.protocol, quoted.dst.ip(), quoted.dst.port());
                replies.iter().find_map(|(found, port)| {
                    let about = self.flow_at(context, SocketAddr::new(client, client_port), port, found)?;
                    let backend = context.snapshot.backend(about.backend?)?;
                    (backend.address.ip() == quoted.dst.ip()).then_some(about)
                })
            }
            From::Local(slot) => {
                let stored = self.flows.find_local(*slot, error.protocol, client_port)?;
                let owner = self.flows.owner(stored);
                let sender = SocketAddr::new(owner.client, owner.client_port);
                let flow = self.flows.value(stored);
                let other = (owner.service == OUTWARD_ECHO) != quoted.is_icmp();
                if other || worth(context, flow) == Worth::Dead {
                    return None;
                }
                if flow.backend() == BackendSlot::NONE {
                    let end = End::Sender { inner: None };
                    let vip = quoted.dst;
                    return Some(About { backend: None, vip, sender, local: None, entropy: 0, end });
                }
                let narrow = matches!(stored, Stored::Narrow(_));
                let found = Found { service: owner.service, narrow };
                self.flow_at(context, sender, context.snapshot.port_of(&owner)?, found)
            }
        }
    }

    /// The live flow of a client to a port of a service; the client is to be told.
    fn flow_at(
        &self,
        context: Context,
        client: SocketAddr,
        service_port: u16,
        found: Found,
    ) -> Option<About> {
        let hash = self.flows.hash(client.ip(), client.port());
        let addresses = match client.ip() {
            IpAddr::V4(src) => Addresses::V4 { src: src.to_bits(), dst: 0 },
            IpAddr::V6(src) => Addresses::V6 { src: src.to_bits(), dst: 0 },
        };
        let ports = (client.port(), service_port);
        let stored = self.flows.find(hash, addresses, true, ports, found)?;
        let flow = self.flows.value(stored);
        if worth(context, flow) == Worth::Dead {
            return None;
        }
        let local = match self.flows.local(stored) {
            Some((slot, port)) => Some(SocketAddr::new(context.snapshot.local_address(slot)?, port)),
            None => None,
        };
        let service = context.snapshot.service(found.service)?;
        Some(About {
            backend: Some(flow.backend()),
            vip: SocketAddr::new(service.key.address, service_port),
            sender: client,
            local,
            entropy: hash.entropy(),
            end: End::Sender { inner: None },
        })
    }
}

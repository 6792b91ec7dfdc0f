//! Both IP versions, and the addresses of everybody in them.
//!
//! They are those for benchmarks (RFC 2544, appendix C.2.2; RFC 5180, section 8) and documentation (RFC 5737,
//! RFC 3849); IPv4 clients, of whom there are many, have private ones (RFC 1918).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::ValueEnum;
use dataplane::wire::{ipv4, ipv6};
use serde::Serialize;

/// IP version of all packets of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4
    Ipv4,
    /// IPv6
    Ipv6,
}

/// A network that addresses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Of the clients, behind the gateway.
    Clients,
    /// Of the services.
    Vips,
    /// Of the balancer, the gateway and the backends, on one link.
    Link,
    /// Of the addresses that stand for clients in full NAT.
    Locals,
}

impl Family {
    /// An address of a network, which in IPv4 has room for 2^24, 256, 2^17 or 256 of them, in the order of
    /// [`Net`].
    pub fn address(self, net: Net, number: u32) -> IpAddr {
        match self {
            Self::Ipv4 => {
                let first = match net {
                    Net::Clients => Ipv4Addr::new(10, 0, 0, 0),
                    Net::Vips => Ipv4Addr::new(192, 0, 2, 0),
                    Net::Link => Ipv4Addr::new(198, 18, 0, 0),
                    Net::Locals => Ipv4Addr::new(198, 51, 100, 0),
                };
                Ipv4Addr::from_bits(first.to_bits() + number).into()
            }
            Self::Ipv6 => {
                let first = match net {
                    Net::Clients => Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 0),
                    Net::Vips => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0),
                    Net::Link => Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, 0, 0),
                    Net::Locals => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0),
                };
                Ipv6Addr::from_bits(first.to_bits() + u128::from(number)).into()
            }
        }
    }

    /// Length of its header without options or extensions, in bytes.
    pub fn header_len(self) -> usize {
        match self {
            Self::Ipv4 => ipv4::HEADER_LEN,
            Self::Ipv6 => ipv6::HEADER_LEN,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

//! What identifies a service: protocol, address, ports and class.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{Protocol, WordError};

/// The ports of a service. Written `80`, `8000-8099`, or `0` for any port, as IPVS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// The lowest, from 1.
    pub first: u16,
    /// The highest; `first` if there is only one.
    pub last: u16,
}

impl Ports {
    /// Every port there is: 1 to 65535.
    pub const ANY: Self = Self { first: 1, last: u16::MAX };

    /// A single port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The port, if it is a single one.
    pub const fn single(self) -> Option<u16> {
        if self.first == self.last { Some(self.first) } else { None }
    }

    /// How many ports there are.
    pub const fn count(self) -> u16 {
        self.last - self.first + 1 // port 0 is never one of them, so 65535 at most
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether all of `other` are among them.
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether any of `other` is among them.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => f.pad("0"),
            Self { first, last } if first == last => f.pad(&first.to_string()),
            Self { first, last } => f.pad(&format!("{first}-{last}")),
        }
    }
}

impl FromStr for Ports {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        if text == "0" {
            return Ok(Self::ANY);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(WordError::new(text, "a port: write 80, 8000-8099, or 0 for any")),
        }
    }
}

/// A number from 1 to 65535 in plain digits.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()); // `parse` takes a sign too
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// The name of a class of packets: 1 to 15 letters, digits, `-` and `_`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassName([u8; Self::LONGEST]); // filled up with zeros, so that the order is that of the text

impl ClassName {
    /// Bytes of the longest name.
    pub const LONGEST: usize = 15;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(Self::LONGEST);
        // `from_str` lets nothing in but ASCII.
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for ClassName {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > Self::LONGEST || !text.bytes().all(fits) {
            return Err(WordError::new(text, "a class: use 1 to 15 letters, digits, `-` and `_`"));
        }
        let mut bytes = [0; Self::LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

/// What identifies a service. Written `tcp:192.0.2.1:80`, `udp:[2001:db8::1]:8000-8099`, or with a class
/// `tcp:192.0.2.1:80@gold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address.
    pub address: IpAddr,
    /// Virtual ports.
    pub ports: Ports,
    /// The class its packets must be of; all others go to services without one.
    pub class: Option<ClassName>,
}

impl ServiceKey {
    /// Address, ports and class as they are written: all but the protocol.
    pub fn vip(&self) -> String {
        let Self { address, ports, .. } = self;
        let class = self.class.map(|class| format!("@{class}")).unwrap_or_default();
        match address {
            IpAddr::V4(address) => format!("{address}:{ports}{class}"),
            IpAddr::V6(address) => format!("[{address}]:{ports}{class}"),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.protocol, self.vip()))
    }
}

impl FromStr for ServiceKey {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let read = || {
            let (protocol, rest) = text.split_once(':')?;
            let (vip, class) = match rest.split_once('@') {
                Some((vip, class)) => (vip, Some(class.parse().ok()?)),
                None => (rest, None),
            };
            let (address, ports) = address_and_ports(vip)?;
            Some(Self { protocol: protocol.parse().ok()?, address, ports, class })
        };
        read().ok_or_else(|| {
            WordError::new(text, "a service: write it as tcp:192.0.2.1:80 or tcp:[2001:db8::1]:80")
        })
    }
}

/// An address and its ports, an IPv6 address in brackets.
pub(crate) fn address_and_ports(text: &str) -> Option<(IpAddr, Ports)> {
    let (address, ports) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => address.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some((address, ports.parse().ok()?))
}

text_serde!(Ports, ClassName, ServiceKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_as_written() {
        for text in [
            "tcp:192.0.2.1:80",
            "udp:198.51.100.7:53",
            "udp:192.0.2.1:0",
            "tcp:192.0.2.1:8000-8099",
            "tcp:192.0.2.1:80@gold",
            "tcp:[2001:db8::1]:80",
            "udp:[2001:db8::1]:1-65534@a-b_c",
            "tcp:[::ffff:192.0.2.1]:65535",
        ] {
            assert_eq!(text.parse::<ServiceKey>().unwrap().to_string(), text);
        }
        let key: ServiceKey = "tcp:[2001:DB8:0::1]:1-65535@gold".parse().unwrap();
        assert_eq!(key.to_string(), "tcp:[2001:db8::1]:0@gold");
    }

    #[test]
    fn broken_keys_are_refused() {
        for text in [
            "",
            "tcp",
            "tcp:",
            "192.0.2.1:80",
            "sctp:192.0.2.1:80",
            "tcp:192.0.2.1",
            "tcp:192.0.2.1:",
            "tcp:192.0.2.1:+80",
            "tcp:192.0.2.1:65536",
            "tcp:192.0.2.1:90-80",
            "tcp:192.0.2.1:0-80",
            "tcp:192.0.2.1:80-",
            "tcp:192.0.2.1:80-90-99",
            "tcp:192.0.2.1:80@",
            "tcp:192.0.2.1:80@a@b",
            "tcp:192.0.2.1@gold:80",
            "tcp:[192.0.2.1]:80",
            "tcp:2001:db8::1:80",
            "tcp:[2001:db8::1:80",
            "tcp:[2001:db8::1%1]:80",
            "tcp:[2001:db8::1]80",
        ] {
            assert!(text.parse::<ServiceKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_compared_as_sets() {
        let ports = |text: &str| text.parse::<Ports>().unwrap();
        assert_eq!(
            (ports("80").single(), ports("80-80").single(), ports("0").single()),
            (Some(80), Some(80), None)
        );
        assert_eq!((ports("80").count(), ports("8000-8099").count(), Ports::ANY.count()), (1, 100, 65535));
        assert!(Ports::ANY.contains(1) && Ports::ANY.contains(65535) && !Ports::ANY.contains(0));
        for (a, b, covers, overlaps) in [
            ("80", "80", true, true),
            ("0", "80-90", true, true),
            ("80-90", "85-95", false, true),
            ("80-90", "90-95", false, true),
            ("80-90", "91", false, false),
            ("85", "80-90", false, true),
        ] {
            assert_eq!(
                (ports(a).covers(ports(b)), ports(a).overlaps(ports(b))),
                (covers, overlaps),
                "{a} {b}"
            );
            assert_eq!(ports(b).overlaps(ports(a)), overlaps, "{b} {a}");
        }
    }

    #[test]
    fn class_names_are_short_words_in_the_order_of_their_text() {
        for text in ["g", "gold", "A-1_b", "exactly15_bytes"] {
            assert_eq!(text.parse::<ClassName>().unwrap().as_str(), text);
        }
        for text in ["", "sixteen_bytes_16", "a b", "größ", "a\0", "a@b", "a:b"] {
            assert!(text.parse::<ClassName>().is_err(), "{text:?}");
        }
        let class = |text: &str| text.parse::<ClassName>().unwrap();
        assert!(class("a") < class("ab") && class("ab") < class("b"));
    }
}

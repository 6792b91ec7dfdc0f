//! The vocabulary that configuration, control protocol and CLI share, spelled one way everywhere.

use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Serialises types as the text of their `Display`, and reads them by their `FromStr`.
macro_rules! text_serde {
    ($($name:ty),+) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

/// A word or an address that could not be read, with what would have been right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {wanted}")]
pub struct WordError {
    /// What stood there.
    pub found: String,
    /// What may stand there, as a noun phrase.
    pub wanted: &'static str,
}

impl WordError {
    fn new(found: &str, wanted: &'static str) -> Self {
        Self { found: found.to_owned(), wanted }
    }
}

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// How a packet reaches its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Destination address and port are rewritten; the reply comes back through the balancer.
    Nat,
    /// Only the destination MAC is rewritten; the backend replies directly.
    Dr,
    /// The packet is wrapped in an outer IPv4 header (RFC 2003); the backend replies directly.
    Tunnel,
}

/// How a service chooses the backend of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Round robin, as IPVS `rr`.
    Rr,
    /// Weighted round robin, as IPVS `wrr`.
    Wrr,
}

macro_rules! words {
    ($name:ident, $wanted:literal, $($variant:ident = $word:literal),+) => {
        impl $name {
            /// Every word of this kind, in the order of the documentation.
            pub const WORDS: &[&str] = &[$($word),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }

        impl FromStr for $name {
            type Err = WordError;

            fn from_str(text: &str) -> Result<Self, WordError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(WordError::new(text, $wanted)),
                }
            }
        }
    };
}

words!(Protocol, "a protocol: tcp or udp", Tcp = "tcp", Udp = "udp");
words!(Mode, "a mode: nat, dr or tunnel", Nat = "nat", Dr = "dr", Tunnel = "tunnel");
words!(Scheduler, "a scheduler: rr or wrr", Rr = "rr", Wrr = "wrr");

/// What identifies a service: protocol, virtual address and port. Written `tcp:192.0.2.1:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address and port.
    pub vip: SocketAddrV4,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.protocol, self.vip))
    }
}

impl FromStr for ServiceKey {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::new(text, "a service: write it as tcp:192.0.2.1:80");
        let (protocol, vip) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { protocol: protocol.parse().map_err(|_| wrong())?, vip: vip.parse().map_err(|_| wrong())? })
    }
}

/// Ethernet address, in the order of the wire. Written `02:00:5e:00:53:01` (RFC 7042).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address names one station, not a group (IEEE 802, I/G bit).
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::new(text, "a MAC address: write it as 02:00:5e:00:53:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            // `from_str_radix` takes a sign too.
            let two_digits =
                |part: &&str| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let part = parts.next().filter(two_digits).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

text_serde!(Protocol, Mode, Scheduler, ServiceKey, MacAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_written() {
        for word in Mode::WORDS {
            assert_eq!(word.parse::<Mode>().unwrap().to_string(), *word);
        }
        for text in ["tcp:192.0.2.1:80", "udp:198.51.100.7:53"] {
            assert_eq!(text.parse::<ServiceKey>().unwrap().to_string(), text);
        }
        let mac = "02:00:5e:00:53:0a";
        assert_eq!(mac.parse::<MacAddr>().unwrap().to_string(), mac);
    }

    #[test]
    fn broken_words_are_refused() {
        for text in ["", "tcp", "tcp:", "192.0.2.1:80", "sctp:192.0.2.1:80", "tcp:192.0.2.1"] {
            assert!(text.parse::<ServiceKey>().is_err(), "{text}");
        }
        for text in ["", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "0200:5e:00:53:01", "+2:00:5e:00:53:01"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}

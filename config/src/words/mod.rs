//! The vocabulary that configuration, control protocol and CLI share, spelled one way everywhere.

/// Serialises types as the text of their `Display`, and reads them by their `FromStr`.
macro_rules! text_serde {
    ($($name:ty),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

mod key;
mod mac;
mod octets;

use std::fmt;
use std::str::FromStr;

pub(crate) use self::key::address_and_ports;
pub use self::key::{ClassName, Ports, ServiceKey};
pub use self::mac::MacAddr;
pub use self::octets::{AesKey, ServerId};

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
    /// Destination address and port are rewritten; the reply comes back through the balancer because the
    /// backend routes it there.
    Nat,
    /// As `Nat`, and the source becomes an address of a pool, so that the reply comes back from anywhere.
    FullNat,
    /// Only the destination MAC is rewritten; the backend replies directly.
    Dr,
    /// The packet is wrapped in an outer IP header; the backend replies directly.
    Tunnel,
}

/// What stands between the outer and the inner IP header of mode `tunnel`, as `ipvsadm --tun-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// Nothing (RFC 2003, RFC 2473).
    Ipip,
    /// A UDP header and one of Generic UDP Encapsulation (draft-ietf-intarea-gue).
    Gue,
    /// A GRE header (RFC 2784).
    Gre,
}

/// What the client is told when nobody can serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoBackend {
    /// A TCP reset; a UDP client is told by ICMP.
    Rst,
    /// ICMP or ICMPv6 "port unreachable", as IPVS does.
    #[default]
    Icmp,
    /// Nothing.
    Drop,
}

/// What becomes of a new flow that is more than its service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AtLimit {
    /// Nothing: its client may try again.
    #[default]
    Drop,
    /// ICMP or ICMPv6 "port unreachable".
    Icmp,
    /// A TCP reset; a UDP client is told by ICMP.
    Rst,
    /// It goes to the sorry backends of the service.
    Sorry,
}

/// What becomes of a TCP segment of no flow that does not open one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NoFlow {
    /// It is dropped: the flow may be another balancer's.
    #[default]
    Drop,
    /// A TCP reset tells its sender to connect anew.
    Rst,
    /// It opens a flow, as with `sloppy_tcp` of IPVS: balancers that choose alike take over from each other.
    Schedule,
}

/// The part of a flow that hash schedulers hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashPart {
    /// The client's address.
    #[default]
    Source,
    /// The client's address and port.
    SourcePort,
    /// The service's address.
    Destination,
    /// Both addresses, both ports and the protocol.
    FiveTuple,
    /// The client's network.
    SourcePrefix,
}

/// How a backend of full NAT learns its clients' addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// It does not.
    #[default]
    None,
    /// By a line of text before a connection's bytes: PROXY protocol, version 1.
    ProxyV1,
    /// By a header before a connection's bytes, or in a flow's datagrams until one is answered: PROXY protocol,
    /// version 2.
    ProxyV2,
    /// By the same header in every datagram.
    ProxyV2Each,
    /// By a TCP option of LVS and DPVS that a kernel module reads.
    Toa,
}

/// The header of the PROXY protocol that a check begins with: it comes from the appliance, and is no client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// None.
    None,
    /// A line of text, with an unknown address.
    V1,
    /// A binary one, with the command LOCAL.
    V2,
}

/// Whether a backend is in use, as the operator wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Admin {
    /// It takes new flows if it is up.
    #[default]
    Enabled,
    /// It takes no new flows; those it has stay.
    Drain,
    /// It takes no new flows; what becomes of those it has is a choice of the service.
    Disabled,
}

/// What becomes of the flows of a backend that is down, disabled or drained for long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fate {
    /// They stay with it.
    #[default]
    Keep,
    /// They are over: both ends of a connection are told by a TCP reset, and who sends anything else by ICMP.
    Reset,
    /// The client's next packet goes to another backend.
    Reschedule,
}

/// What happens when the time of a drain is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Then {
    /// Nothing: flows that are left stay.
    #[default]
    Keep,
    /// The backend is removed, and flows that are left stay until they end.
    Remove,
    /// Flows that are left are over, as with [`Fate::Reset`].
    Reset,
}

/// A set of timeouts to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Those of the Linux kernel.
    Ipvs,
    /// The shorter ones of DPVS.
    Dpvs,
}

/// What a worker does while nothing comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Idle {
    /// It looks again at once.
    #[default]
    Poll,
    /// It looks after a short pause, in which the other thread of its core goes faster.
    Pause,
    /// It looks after a short sleep, in which its core runs other threads.
    Sleep,
}

/// How a service chooses the backend of a new flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Round robin, as IPVS `rr`.
    Rr,
    /// Weighted round robin, as IPVS `wrr`.
    Wrr,
    /// Least connection, as IPVS `lc`.
    Lc,
    /// Weighted least connection, as IPVS `wlc`.
    #[default]
    Wlc,
    /// Shortest expected delay, as IPVS `sed`.
    Sed,
    /// Never queue, as IPVS `nq`.
    Nq,
    /// Weighted failover, as IPVS `fo`.
    Fo,
    /// Weighted overflow, as IPVS `ovf`.
    Ovf,
    /// Power of two choices by weight, as IPVS `twos`.
    Twos,
    /// Locality-based least connection, as IPVS `lblc`.
    Lblc,
    /// Locality-based least connection with replication, as IPVS `lblcr`.
    Lblcr,
    /// Destination hashing, as IPVS `dh`.
    Dh,
    /// Source hashing, as IPVS `sh`.
    Sh,
    /// Maglev hashing, as IPVS `mh`.
    Mh,
    /// Maglev hashing under the cluster's secret.
    Maglev,
    /// Consistent hashing with bounded loads.
    Bounded,
    /// By the server that a QUIC connection ID names.
    Quic,
    /// Smooth weighted round robin, as nginx has it.
    Swrr,
    /// By lot, by weight.
    Random,
    /// Power of two choices: the better of two different backends.
    P2c,
    /// The backend with the least bytes of late.
    LeastBandwidth,
    /// The backend with the least packets of late.
    LeastPackets,
    /// The backend that answers a SYN the soonest.
    Fastest,
    /// Weights by what an agent of each backend says.
    DynamicRatio,
    /// Weights by whether a backend has fewer connections than others, as F5 `observed`.
    Observed,
    /// The same, also by whether they become fewer, as F5 `predictive`.
    Predictive,
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
words!(
    Mode,
    "a mode: nat, full-nat, dr or tunnel",
    Nat = "nat",
    FullNat = "full-nat",
    Dr = "dr",
    Tunnel = "tunnel"
);
words!(Encapsulation, "a type of tunnel: ipip, gue or gre", Ipip = "ipip", Gue = "gue", Gre = "gre");
words!(NoBackend, "an answer: rst, icmp or drop", Rst = "rst", Icmp = "icmp", Drop = "drop");
words!(
    AtLimit,
    "an answer: drop, icmp, rst or sorry",
    Drop = "drop",
    Icmp = "icmp",
    Rst = "rst",
    Sorry = "sorry"
);
words!(NoFlow, "a choice: drop, rst or schedule", Drop = "drop", Rst = "rst", Schedule = "schedule");
words!(
    HashPart,
    "what is hashed: source, source-port, destination, five-tuple or source-prefix",
    Source = "source",
    SourcePort = "source-port",
    Destination = "destination",
    FiveTuple = "five-tuple",
    SourcePrefix = "source-prefix"
);
words!(
    ClientAddress,
    "a way to tell client addresses: none, proxy-v1, proxy-v2, proxy-v2-each or toa",
    None = "none",
    ProxyV1 = "proxy-v1",
    ProxyV2 = "proxy-v2",
    ProxyV2Each = "proxy-v2-each",
    Toa = "toa"
);
words!(ProxyHeader, "a PROXY header: none, v1 or v2", None = "none", V1 = "v1", V2 = "v2");
words!(
    Admin,
    "an administrative state: enabled, drain or disabled",
    Enabled = "enabled",
    Drain = "drain",
    Disabled = "disabled"
);
words!(
    Fate,
    "a fate of flows: keep, reset or reschedule",
    Keep = "keep",
    Reset = "reset",
    Reschedule = "reschedule"
);
words!(Then, "an end of a drain: keep, remove or reset", Keep = "keep", Remove = "remove", Reset = "reset");
words!(Idle, "a way to be idle: poll, pause or sleep", Poll = "poll", Pause = "pause", Sleep = "sleep");
words!(Preset, "a preset: ipvs or dpvs", Ipvs = "ipvs", Dpvs = "dpvs");
words!(
    Scheduler,
    "a scheduler, such as wlc, wrr or rr",
    Rr = "rr",
    Wrr = "wrr",
    Lc = "lc",
    Wlc = "wlc",
    Sed = "sed",
    Nq = "nq",
    Fo = "fo",
    Ovf = "ovf",
    Twos = "twos",
    Lblc = "lblc",
    Lblcr = "lblcr",
    Dh = "dh",
    Sh = "sh",
    Mh = "mh",
    Maglev = "maglev",
    Bounded = "bounded",
    Quic = "quic",
    Swrr = "swrr",
    Random = "random",
    P2c = "p2c",
    LeastBandwidth = "least-bandwidth",
    LeastPackets = "least-packets",
    Fastest = "fastest",
    DynamicRatio = "dynamic-ratio",
    Observed = "observed",
    Predictive = "predictive"
);

text_serde!(
    Protocol,
    Mode,
    Encapsulation,
    ClientAddress,
    Admin,
    AtLimit,
    Fate,
    Then,
    HashPart,
    Idle,
    NoBackend,
    NoFlow,
    Preset,
    ProxyHeader,
    Scheduler
);

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    fn all_read_back<T: FromStr<Err: Debug> + fmt::Display>(words: &[&str]) {
        for word in words {
            assert_eq!(word.parse::<T>().unwrap().to_string(), *word);
            assert!(word.to_uppercase().parse::<T>().is_err(), "{word}");
        }
    }

    #[test]
    fn every_word_reads_back_as_written() {
        all_read_back::<Protocol>(Protocol::WORDS);
        all_read_back::<Mode>(Mode::WORDS);
        all_read_back::<Encapsulation>(Encapsulation::WORDS);
        all_read_back::<HashPart>(HashPart::WORDS);
        all_read_back::<ClientAddress>(ClientAddress::WORDS);
        all_read_back::<ProxyHeader>(ProxyHeader::WORDS);
        all_read_back::<Admin>(Admin::WORDS);
        all_read_back::<AtLimit>(AtLimit::WORDS);
        all_read_back::<Fate>(Fate::WORDS);
        all_read_back::<Then>(Then::WORDS);
        all_read_back::<NoBackend>(NoBackend::WORDS);
        all_read_back::<NoFlow>(NoFlow::WORDS);
        all_read_back::<Preset>(Preset::WORDS);
        all_read_back::<Scheduler>(Scheduler::WORDS);
    }
}

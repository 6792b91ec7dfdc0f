//! How much a configuration may say. Every table of the appliance is sized within these bounds.

use std::ops::RangeInclusive;

/// Size of the configuration file, in bytes.
pub const FILE_LEN: usize = 64 << 20;
/// Size of a file up to which all of its syntax errors are told; of a larger one only the first is.
pub const SYNTAX_LEN: usize = 256 << 10;
/// Problems that one reading of a file tells; a file with more of them is not a configuration.
pub const PROBLEMS: usize = 1_000;
/// Ethernet devices.
pub const PORTS: usize = 16;
/// VLANs of one port.
pub const VLANS: usize = 255;
/// Devices of all ports together: `RTE_MAX_ETHPORTS`.
pub const DEVICES: usize = 32;
/// Own addresses of one interface.
pub const ADDRESSES: usize = 256;
/// Worker cores.
pub const WORKERS: usize = 64;
/// Addresses of all pools together: each worker has a share of the ports of each.
pub const POOL_ADDRESSES: usize = 256;
/// Classes of packets.
pub const CLASSES: usize = 256;
/// Source prefixes of one class.
pub const SOURCES: usize = 256;
/// Services.
pub const SERVICES: usize = 65_000;
/// Backends of all services together.
pub const BACKENDS: usize = 1_000_000;
/// Characters of the name of a port or service.
pub const NAME_LEN: usize = 64;
/// Bytes of a Unix socket's path: `sun_path` less its closing NUL.
pub const SOCKET_PATH_LEN: usize = 107;
/// Bytes of a tap device's name: the kernel's `IFNAMSIZ` less its closing NUL.
pub const TAP_NAME_LEN: usize = 15;
/// Bytes of a device's name: `RTE_DEV_NAME_MAX_LEN` less its closing NUL.
pub const DEVICE_NAME_LEN: usize = 63;

/// CPU numbers, as in the kernel's `cpu_set_t`.
pub const CORE: RangeInclusive<usize> = 0..=1023;
/// MiB of packet memory.
pub const MEMORY_MIB: RangeInclusive<u32> = 32..=1 << 20;
/// Bytes of an IP packet: the least RFC 791 allows to what switches call jumbo.
pub const MTU: RangeInclusive<u16> = 68..=9600;
/// Bytes of an IPv6 packet that every link carries (RFC 8200, section 5).
pub const IPV6_MTU: u16 = 1280;
/// Bytes of a TCP segment: the least that every host takes (RFC 9293, 3.7.1) to the most that jumbo frames
/// carry.
pub const MSS: RangeInclusive<u16> = 536..=9000;
/// Numbers of a VLAN (IEEE 802.1Q): 0 and 4095 are none.
pub const VLAN: RangeInclusive<u16> = 1..=4094;
/// Differentiated services code points (RFC 2474).
pub const DSCP: RangeInclusive<u8> = 0..=63;
/// Prefix lengths of the source addresses of a tunnel over IPv4: longer ones hardly spread anything, and
/// shorter ones have addresses that no host may have.
pub const SPREAD_LEN_V4: RangeInclusive<u8> = 8..=30;
/// As [`SPREAD_LEN_V4`], over IPv6.
pub const SPREAD_LEN_V6: RangeInclusive<u8> = 32..=126;
/// Flows of one worker.
pub const CAPACITY: RangeInclusive<u32> = 1..=1 << 30;
/// The least wide flows of one worker unless the file says otherwise.
pub const WIDE_CAPACITY: u32 = 1024;
/// Clients whose backends are known.
pub const TEMPLATES: RangeInclusive<u32> = 8..=1 << 28;
/// Bits of a client's IPv4 address.
pub const PREFIX_V4: RangeInclusive<u8> = 0..=32;
/// Bits of a client's IPv6 address.
pub const PREFIX_V6: RangeInclusive<u8> = 0..=128;
/// Slots of a scheduler's table.
pub const TABLE_SIZE: RangeInclusive<u32> = 251..=4_194_301;
/// Sizes of IPVS's Maglev tables: primes below powers of two.
pub const MH_SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];
/// How many times its share a backend may have: below, backends that are full would leave no room for others.
pub const LOAD_FACTOR: RangeInclusive<f64> = 1.01..=100.0;
/// Numbers of ways to make QUIC connection IDs: the last one of three bits is none.
pub const QUIC_ROTATION: RangeInclusive<u8> = 0..=6;
/// Octets of a server's ID in them.
pub const QUIC_SERVER_ID: RangeInclusive<u8> = 1..=15;
/// Octets in them that make each unique.
pub const QUIC_NONCE: RangeInclusive<u8> = 4..=18;
/// Octets of both.
pub const QUIC_ID: u8 = 19;
/// Characters of the cluster's secret.
pub const SECRET_LEN: RangeInclusive<usize> = 16..=128;
/// New flows in a second.
pub const NEW_FLOWS: RangeInclusive<u32> = 1..=1_000_000_000;
/// Packets in a second.
pub const PACKETS: RangeInclusive<u64> = 1..=10_000_000_000;
/// Bits in a second: at least one packet, at most ten ports of 400 Gbit/s.
pub const BITS: RangeInclusive<u64> = 100_000..=4_000_000_000_000;
/// Seconds a flow may be idle: up to 30 days.
pub const IDLE_SECS: RangeInclusive<u32> = 1..=30 * 86_400;
/// ICMP messages a second of one worker.
pub const ICMP_RATE: RangeInclusive<u32> = 0..=10_000_000;
/// Pieces of datagrams that one worker holds.
pub const FRAGMENTS: RangeInclusive<u32> = 1..=1 << 20;
/// Seconds a piece waits for its first one, or a datagram is known: RFC 8200, 4.5, gives up after 60.
pub const FRAGMENT_SECS: RangeInclusive<u32> = 1..=60;
/// Share of new flows.
pub const WEIGHT: RangeInclusive<u16> = 0..=u16::MAX;
/// Flows of a backend at which it takes no more, or takes some again.
pub const THRESHOLD: RangeInclusive<u32> = 1..=u32::MAX;
/// Which backends are used first.
pub const PRIORITY: RangeInclusive<u16> = 0..=u16::MAX;
/// Backends that make lower priorities unnecessary.
pub const MIN_ACTIVE: RangeInclusive<u32> = 1..=BACKENDS as u32;
/// Live weight that a service needs.
pub const QUORUM: RangeInclusive<u32> = 1..=1 << 30;
/// Shares.
pub const PERCENT: RangeInclusive<u8> = 1..=100;
/// Seconds in which a backend grows into its weight: up to a day.
pub const SLOW_START_SECS: RangeInclusive<u32> = 1..=86_400;
/// Exponents of that growth: outside of these nearly all of it is in the first or the last second.
pub const EXPONENT: RangeInclusive<f64> = 0.1..=10.0;
/// TCP and UDP port numbers.
pub const L4_PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// Milliseconds between checks and for one check: up to a day.
pub const CHECK_MS: RangeInclusive<u32> = 1..=86_400_000;
/// Checks in a row that turn a backend's health.
pub const CHECKS_IN_A_ROW: RangeInclusive<u32> = 1..=100;
/// Status codes of HTTP (RFC 9110, section 15).
pub const HTTP_STATUS: RangeInclusive<u16> = 100..=599;

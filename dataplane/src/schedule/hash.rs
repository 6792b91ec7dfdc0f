//! What of a new flow is hashed, and how.
//!
//! All hashes are under a secret of the cluster: balancers that have the same one choose alike, and a client that does
//! not know it can not aim at one backend. Tables are laid out by SipHash-1-3. Flows find their slots by [`Keys`], a
//! handful of multiplications that do not wait for each other.
//!
//! Sources: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; Black, Halevi, Krawczyk, Krovetz and Rogaway,
//! "UMAC: Fast and Secure Message Authentication", 1999, for NH; Wang Yi, wyhash, for the folded multiplication.

use std::fmt;

use config::words::Protocol;

use crate::flow::network;
use crate::packet::{Addresses, Headers, Version};
use crate::parse::plain::Plain;

/// The key of all hashes of a cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub(super) [u64; 2]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // It stays out of logs.
        f.write_str("Secret")
    }
}

/// The addresses and ports of a new flow. IPv4 addresses are mapped ([`crate::flow::mapped`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The client's address.
    pub source: u128,
    /// The client's port.
    pub source_port: u16,
    /// The address that it wants.
    pub destination: u128,
    /// The port that it wants.
    pub destination_port: u16,
    /// How it talks.
    pub protocol: Protocol,
}

impl From<&Headers> for Opening {
    fn from(headers: &Headers) -> Self {
        let (source, destination) = match headers.ip.addresses {
            Addresses::V4 { src, dst } => (src.wide(), dst.wide()),
            Addresses::V6 { src, dst } => (src, dst),
        };
        let Headers { src_port: source_port, dst_port: destination_port, protocol, .. } = *headers;
        Self { source, source_port, destination, destination_port, protocol }
    }
}

impl<A: Version> From<&Plain<A>> for Opening {
    #[inline]
    fn from(plain: &Plain<A>) -> Self {
        let Plain { src_port: source_port, dst_port: destination_port, protocol, .. } = *plain;
        Self {
            source: plain.src.wide(),
            source_port,
            destination: plain.dst.wide(),
            destination_port,
            protocol,
        }
    }
}

/// The part of an opening that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address: all flows of a client go to one backend.
    Source,
    /// The client's address and port: every flow by itself.
    SourcePort,
    /// The address that the client wants: for services of several, as caches are.
    Destination,
    /// Both addresses, both ports and the protocol.
    FiveTuple,
    /// The network of the client, so many bits of its address: what is behind one router goes to one backend.
    SourcePrefix {
        /// Bits of an IPv4 address, at most 32.
        v4: u8,
        /// Bits of an IPv6 address, at most 128.
        v6: u8,
    },
}

/// The IPv4 address that is mapped into an IPv6 one, if there is one (RFC 4291, 2.5.5.2).
#[inline]
pub(super) fn v4(address: u128) -> Option<u32> {
    (address >> 32 == 0xffff).then_some(address as u32)
}

impl HashOn {
    /// The hash of this part.
    #[inline(always)]
    pub fn hash(&self, keys: &Keys, opening: &Opening) -> u64 {
        let Opening { source, source_port, destination, .. } = *opening;
        match *self {
            Self::Source => keys.address(source).finish(),
            Self::SourcePort => keys.address(source).with_rest(keys, source_port.into()).finish(),
            Self::Destination => keys.address(destination).finish(),
            Self::FiveTuple => {
                let ports = u64::from(opening.destination_port) << 16 | u64::from(source_port);
                let rest = ports | u64::from(opening.protocol == Protocol::Udp) << 32;
                keys.address(source).with_destination(keys, destination).with_rest(keys, rest).finish()
            }
            Self::SourcePrefix { v4: bits, v6: bits6 } => keys.address(network(source, bits, bits6)).finish(),
        }
    }
}

/// The keys by which flows find their slots. They follow from the cluster's secret, and it does not from them.
///
/// There are two sums, each of the product of the halves of an address, and of what else there is times another key; the
/// hash is the product of both sums. An IPv4 address counts as the IPv6 address that it is mapped to. Under keys of
/// their own, neither sum tells of the other, and what a difference of addresses does to one is multiplied by the
/// other: so no difference leads all addresses to the slot that they had, or to the next one, as with a linear hash.
///
/// It is a hash for tables that outsiders fill, as wyhash is, and no pseudorandom function as SipHash is: that nobody can
/// tell where an address falls rests on nobody having found a way, and fewer have looked for one. Whoever sees who answers
/// learns log2(n) bits of an address that is theirs, by way of a table whose order is secret, too. If that were enough to
/// work out the keys, they could tell where other addresses fall: what they can find out of those that they have by
/// trying, whatever the hash, but not the secret, nor the order of another service's table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Keys([u64; 10]);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Keys")
    }
}

/// What is hashed so far.
#[derive(Clone, Copy)]
struct Sums(u64, u64);

impl Keys {
    /// The keys that follow from a secret.
    pub fn new(secret: &Secret) -> Self {
        // One byte, where addresses have at least four.
        Self(std::array::from_fn(|number| sip13(secret.0, [last(1, number as u64)])))
    }

    /// The sums of an address.
    #[inline(always)]
    fn address(&self, address: u128) -> Sums {
        let [a, b, c, d, ..] = self.0;
        let (low, high) = (address as u64, (address >> 64) as u64);
        Sums(fold(low ^ a, high ^ b), fold(low ^ c, high ^ d))
    }
}

impl Sums {
    /// With the address that is wanted.
    #[inline(always)]
    fn with_destination(self, keys: &Keys, address: u128) -> Self {
        let [.., a, b, c, d] = keys.0;
        let (low, high) = (address as u64, (address >> 64) as u64);
        Self(self.0.wrapping_add(fold(low ^ a, high ^ b)), self.1.wrapping_add(fold(low ^ c, high ^ d)))
    }

    /// With all that is no address, in fewer than 48 bits.
    #[inline(always)]
    fn with_rest(self, keys: &Keys, rest: u64) -> Self {
        let [_, _, _, _, a, b, ..] = keys.0;
        Self(self.0.wrapping_add(rest.wrapping_mul(a)), self.1.wrapping_add(rest.wrapping_mul(b)))
    }

    #[inline(always)]
    fn finish(self) -> u64 {
        fold(self.0, self.1)
    }
}

/// A folded multiplication: both halves of the product, so that each bit of it depends on all bits of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Secret {
    /// A secret from the operating system's random numbers.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self([0, 1].map(|number: u8| RandomState::new().hash_one(number)))
    }

    /// The key that a text stands for.
    pub fn from_text(text: &str) -> Self {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let (whole, rest) = text.as_bytes().as_chunks::<8>();
        let words = || whole.iter().map(|bytes| word(bytes)).chain([last(text.len() as u64, word(rest))]);
        // Any two keys that differ do.
        Self([sip13([0, 1], words()), sip13([2, 3], words())])
    }

    /// Hash of an address and a port.
    #[inline]
    pub(super) fn address_and_port(&self, address: u128, port: u16) -> u64 {
        match v4(address) {
            Some(address) => sip13(self.0, [last(6, u64::from(port) << 32 | u64::from(address))]),
            None => sip13(self.0, [address as u64, (address >> 64) as u64, last(18, u64::from(port))]),
        }
    }
}

/// The word that ends an input of so many bytes: the bytes that fill no word, and the length.
#[inline]
fn last(length: u64, bytes: u64) -> u64 {
    length << 56 | bytes
}

/// SipHash-1-3 of an input in words, of which [`last`] makes the last one.
#[inline]
pub(super) fn sip13(key: [u64; 2], input: impl IntoIterator<Item = u64>) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for word in input {
        state[3] ^= word;
        round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline]
fn round(state: &mut [u64; 4]) {
    let [a, b, c, d] = *state;
    let (a, c) = (a.wrapping_add(b), c.wrapping_add(d));
    let (b, d) = (b.rotate_left(13) ^ a, d.rotate_left(16) ^ c);
    let (a, c) = (a.rotate_left(32).wrapping_add(d), c.wrapping_add(b));
    let (b, d) = (b.rotate_left(17) ^ c, d.rotate_left(21) ^ a);
    *state = [a, b, c.rotate_left(32), d];
}

/// SipHash-1-3 of a word of 32 bits, cut to 32 bits: Linux's `hsiphash_1u32` where words have 64.
#[inline]
pub(super) fn hsiphash(key: u64, input: u32) -> u32 {
    sip13([key; 2], [last(4, u64::from(input))]) as u32
}

/// One of `len` places for a hash, by its upper half.
#[inline]
pub(super) fn place(hash: u64, len: usize) -> usize {
    (((hash >> 32) * len as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::mapped;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use std::net::IpAddr;

    const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

    fn reference(bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(SECRET.0[0], SECRET.0[1]).hash(bytes)
    }

    /// The bytes of an address, as the hash takes them.
    fn bytes(address: u128) -> Vec<u8> {
        v4(address).map_or(address.to_le_bytes().to_vec(), |address| address.to_le_bytes().to_vec())
    }

    #[test]
    fn a_text_is_hashed_to_the_last_letter() {
        for text in ["", "0123456", "01234567", "a secret of some length, 42 letters long.."] {
            let half = |keys: [u64; 2]| SipHasher13::new_with_keys(keys[0], keys[1]).hash(text.as_bytes());
            assert_eq!(Secret::from_text(text).0, [half([0, 1]), half([2, 3])]);
        }
    }

    /// As golden/keyed_hash.py has it.
    #[test]
    fn hashes_are_the_golden_ones() {
        let keys = Keys::new(&Secret::from_text("secret"));
        let mut seen = 0;
        for line in include_str!("golden/keyed_hash.tsv").lines() {
            let [on, source, source_port, destination, destination_port, protocol, hash] =
                line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            let on = match on {
                "source" => HashOn::Source,
                "source-port" => HashOn::SourcePort,
                "destination" => HashOn::Destination,
                "five-tuple" => HashOn::FiveTuple,
                _ => HashOn::SourcePrefix { v4: 24, v6: 56 },
            };
            let address = |text: &str| match text.parse().unwrap() {
                IpAddr::V4(address) => mapped(address.to_bits()),
                IpAddr::V6(address) => address.to_bits(),
            };
            let opening = Opening {
                source: address(source),
                source_port: source_port.parse().unwrap(),
                destination: address(destination),
                destination_port: destination_port.parse().unwrap(),
                protocol: protocol.parse().unwrap(),
            };
            assert_eq!(on.hash(&keys, &opening), u64::from_str_radix(hash, 16).unwrap(), "{line}");
            seen += 1;
        }
        assert_eq!(seen, 40);
    }

    /// Part of the addresses of a network of 2^12 that have the same one of so many slots as the one that differs by so much.
    fn alike(secret: u64, slots: usize, base: u128, difference: u128) -> f64 {
        let keys = Keys::new(&Secret([secret, 42]));
        let slot = |address: u128| place(keys.address(address).finish(), slots);
        let addresses = || (0..1 << 12).map(|host| base | host);
        addresses().filter(|it| slot(*it) == slot(*it ^ difference)).count() as f64 / f64::from(1 << 12)
    }

    /// A linear hash has differences for which all addresses keep their slot, or go to the next one.
    #[test]
    fn no_difference_of_addresses_keeps_their_slots() {
        for secret in 0..if cfg!(miri) { 1 } else { 40 } {
            for bit in 0..if cfg!(miri) { 1 } else { 64 } {
                let v4 = alike(secret, 64, mapped(0x0a00_0000), 1 << (bit % 32) | (bit / 32) << 5);
                let v6 = alike(secret, 64, 0x2001_0db8 << 96, 1 << (2 * bit) | 1);
                assert!(v4.max(v6) < 0.04, "{secret} {bit}: {v4} {v6}");
            }
        }
    }

    #[test]
    fn neighbours_are_spread_evenly() {
        const SLOTS: usize = 64;
        for base in [mapped(0xc612_0000), 0x2001_0db8 << 96, 0x2001_0db8 << 96 | 0xffff_0000 << 64] {
            let keys = Keys::new(&Secret::from_text("secret"));
            let mut counts = [0u32; SLOTS];
            (0..1u128 << 16).for_each(|host| counts[place(keys.address(base | host).finish(), SLOTS)] += 1);
            let square: f64 = counts.iter().map(|count| (f64::from(*count) - 1024.0).powi(2) / 1024.0).sum();
            // Of 63 degrees of freedom, chi-square is above once in ten thousand times.
            assert!(square < 113.0, "{square}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn places_of_backends_are_by_siphash_1_3(address: u128, port: u16) {
            let bytes = [&bytes(address)[..], &port.to_le_bytes()].concat();
            prop_assert_eq!(SECRET.address_and_port(address, port), reference(&bytes));
        }

        #[test]
        fn a_place_is_one_of_those_there_are(hash: u64, len in 1usize..200_000) {
            prop_assert!(place(hash, len) < len);
        }
    }
}

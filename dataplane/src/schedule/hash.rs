//! What of a new flow is hashed, and how.
//!
//! The hash is SipHash-1-3 under a secret of the cluster: balancers that have the same secret choose alike, and a
//! client that does not know it can not aim at one backend.
//!
//! Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

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
    /// The hash of this part: SipHash-1-3 of the bytes of the fields in little-endian order, one behind the other. Of
    /// IPv6's five-tuple, the wanted address is in the key.
    #[inline]
    pub fn hash(self, secret: &Secret, opening: &Opening) -> u64 {
        match self {
            Self::Source => secret.address(opening.source),
            Self::SourcePort => secret.address_and_port(opening.source, opening.source_port),
            Self::Destination => secret.address(opening.destination),
            Self::FiveTuple => secret.five_tuple(opening),
            Self::SourcePrefix { v4: bits, v6: bits6 } => {
                secret.address(network(opening.source, bits, bits6))
            }
        }
    }
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

    /// Hash of an address.
    #[inline]
    pub(super) fn address(&self, address: u128) -> u64 {
        match v4(address) {
            Some(address) => sip13(self.0, [last(4, u64::from(address))]),
            None => sip13(self.0, [address as u64, (address >> 64) as u64, last(16, 0)]),
        }
    }

    /// Hash of an address and a port.
    #[inline]
    pub(super) fn address_and_port(&self, address: u128, port: u16) -> u64 {
        match v4(address) {
            Some(address) => sip13(self.0, [last(6, u64::from(port) << 32 | u64::from(address))]),
            None => sip13(self.0, [address as u64, (address >> 64) as u64, last(18, u64::from(port))]),
        }
    }

    /// Hash of everything. Of IPv6, the wanted address goes into the key, for it is the service's and no client chooses
    /// it: two rounds less wait for each other.
    #[inline]
    fn five_tuple(&self, opening: &Opening) -> u64 {
        let ports = u64::from(opening.destination_port) << 16 | u64::from(opening.source_port);
        let rest = ports | u64::from(opening.protocol == Protocol::Udp) << 32;
        let (source, destination) = (opening.source, opening.destination);
        // Both are of one version.
        match v4(source) {
            Some(source) => sip13(self.0, [(destination as u64) << 32 | u64::from(source), last(13, rest)]),
            None => {
                let key = [self.0[0] ^ destination as u64, self.0[1] ^ (destination >> 64) as u64];
                sip13(key, [source as u64, (source >> 64) as u64, last(21, rest)])
            }
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

    const SECRET: Secret = Secret([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

    fn reference(bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(SECRET.0[0], SECRET.0[1]).hash(bytes)
    }

    /// The bytes of an address, as the hash takes them.
    fn bytes(address: u128) -> Vec<u8> {
        v4(address).map_or(address.to_le_bytes().to_vec(), |address| address.to_le_bytes().to_vec())
    }

    fn opening(source: u128, destination: u128) -> Opening {
        Opening { source, source_port: 4711, destination, destination_port: 443, protocol: Protocol::Udp }
    }

    #[test]
    fn a_text_is_hashed_to_the_last_letter() {
        for text in ["", "0123456", "01234567", "a secret of some length, 42 letters long.."] {
            let half = |keys: [u64; 2]| SipHasher13::new_with_keys(keys[0], keys[1]).hash(text.as_bytes());
            assert_eq!(Secret::from_text(text).0, [half([0, 1]), half([2, 3])]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn hashes_are_siphash_1_3_of_what_they_are_on(v4s: bool, source: u128, destination: u128) {
            let of = |address: u128| if v4s { mapped(address as u32) } else { address };
            let opening = opening(of(source), of(destination));
            let hash = |on: HashOn| on.hash(&SECRET, &opening);
            let (source, destination) = (bytes(opening.source), bytes(opening.destination));
            let (port, wanted) = (4711u16.to_le_bytes(), 443u16.to_le_bytes());
            prop_assert_eq!(hash(HashOn::Source), reference(&source));
            prop_assert_eq!(hash(HashOn::SourcePort), reference(&[&source[..], &port].concat()));
            prop_assert_eq!(hash(HashOn::Destination), reference(&destination));
            let rest = [&port[..], &wanted, &[1]].concat();
            let all = if v4s {
                reference(&[&source[..], &destination, &rest].concat())
            } else {
                let to = opening.destination;
                let key = [SECRET.0[0] ^ to as u64, SECRET.0[1] ^ (to >> 64) as u64];
                SipHasher13::new_with_keys(key[0], key[1]).hash(&[&source[..], &rest].concat())
            };
            prop_assert_eq!(hash(HashOn::FiveTuple), all);
            let prefix = HashOn::SourcePrefix { v4: 24, v6: 56 };
            prop_assert_eq!(hash(prefix), reference(&bytes(network(opening.source, 24, 56))));
        }

        #[test]
        fn a_place_is_one_of_those_there_are(hash: u64, len in 1usize..200_000) {
            prop_assert!(place(hash, len) < len);
        }
    }
}

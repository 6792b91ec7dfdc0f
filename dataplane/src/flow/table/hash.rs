//! The hash by which flows are found, under a secret.

use crate::flow::endpoint;
use crate::snapshot::ServiceSlot;

/// 2^64 divided by the golden ratio.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of a client's address and port, and then of the service. It serves both directions of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash(pub(super) u64);

impl FlowHash {
    /// A hash of nothing, to begin with.
    pub const ZERO: Self = Self(0);

    /// The hash as a number.
    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// The hash that is this number.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Hash of the client's flow to one port of one of many services, so that they do not crowd one line.
    ///
    /// The client's part is secret already, and what is added for all his flows may be known: Fibonacci hashing, which
    /// sets neighbouring services far apart.
    #[inline]
    pub fn with_service(self, service: ServiceSlot, port: u16) -> Self {
        let target = u64::from(service.0) << 16 | u64::from(port);
        Self(self.0 ^ target.wrapping_mul(GOLDEN))
    }

    /// Hash of the client in one of many scopes.
    pub fn with_scope(self, scope: u64) -> u64 {
        fold(self.0 ^ scope, GOLDEN)
    }

    /// A number from 0 to 63.
    #[inline]
    pub fn sixth(self) -> u32 {
        self.0 as u32 & 63
    }

    /// Bits of it by which others may spread flows.
    #[inline]
    pub fn entropy(self) -> u16 {
        (self.0 >> 8) as u16 ^ (self.0 >> 40) as u16
    }
}

/// Secret of the flow hash. Drawn once per boot, so that nobody outside can aim at one line.
#[derive(Clone, Copy, Debug)]
pub struct HashSecret(pub [u64; 2]);

impl HashSecret {
    /// A secret from the operating system's random numbers.
    pub fn random() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let draw = |number: u64| RandomState::new().hash_one(number) | 1;
        Self([draw(0), draw(1)])
    }

    /// Hash of a client. A folded multiplication, as in wyhash: a product of secret factors spreads every input bit over
    /// all output bits. Both factors have the client in them: under one secret of a thousand, multiples of it alone crowd
    /// where clients follow each other.
    #[inline]
    pub fn hash(&self, client: u32, client_port: u16) -> FlowHash {
        let endpoint = endpoint(client, client_port);
        FlowHash(fold(endpoint ^ self.0[0], endpoint.rotate_left(32) ^ self.0[1]))
    }

    /// The same of an IPv6 client.
    #[inline]
    pub fn hash_v6(&self, client: u128, client_port: u16) -> FlowHash {
        let address = fold((client >> 64) as u64 ^ self.0[0], client as u64 ^ self.0[1]);
        let endpoint = address ^ u64::from(client_port);
        FlowHash(fold(endpoint ^ self.0[0], endpoint.rotate_left(32) ^ self.0[1] ^ GOLDEN))
    }

    /// The same of a client whose IPv4 address may be mapped; then it is the hash of that.
    #[inline]
    pub fn hash_any(&self, client: u128, client_port: u16) -> FlowHash {
        if client >> 32 == 0xffff {
            self.hash(client as u32, client_port)
        } else {
            self.hash_v6(client, client_port)
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

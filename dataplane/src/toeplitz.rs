//! Which worker owns a flow: the Toeplitz hash of its client's address and port, as NICs compute it.
//!
//! A NIC with receive-side scaling hashes the headers of each frame with a key, and the low bits of the hash
//! choose an entry of its redirection table, which names a queue. On the side of the clients it is told to
//! hash source fields only, on the side of the servers destination fields only; both are the client's, so
//! both directions of a flow come to one worker. The same is computed here for frames that some device
//! brought elsewhere: correctness depends on no NIC.
//!
//! # The key
//!
//! It repeats 16 bits, as in "Scalable TCP Session Monitoring with Symmetric Receive-side Scaling" (Woo and
//! Park, 2012). A field's part in the hash depends on where it stands in the hashed bytes, modulo the length
//! of what repeats. Addresses and ports are made of 16-bit words, so their parts are the same as source and as
//! destination, in one side's frames and the other's, and whether a NIC masks the fields that it is not to
//! hash or leaves them out and moves the others up. No longer pattern has this: ports are 16 bits apart.
//!
//! The price: the hash depends on nothing but the exclusive or of all words, so whoever chooses addresses and
//! ports can send everything to one worker, whatever the pattern is. A secret one would not prevent that, so
//! it is not secret, and owners stay the same from one start to the next. It gains a flood little: one that
//! is a single flow falls on one worker under any hash. What is stored by client (the flow table) hashes with
//! a secret.

use std::net::IpAddr;

/// What the key repeats. Its number of bits is odd, so that no two words' parts are the same; of these
/// patterns it is one that spreads best: see the tests.
const PATTERN: u16 = 0xa4bb;

/// Entries of the redirection table: the smallest that common NICs have. Larger ones repeat it.
pub const ENTRIES: usize = 128;

/// The key for a NIC that wants this many bytes.
pub const fn key<const LEN: usize>() -> [u8; LEN] {
    let mut key = [0; LEN];
    let mut at = 0;
    while at < LEN {
        key[at] = PATTERN.to_be_bytes()[at % 2];
        at += 1;
    }
    key
}

/// The Toeplitz hash of bytes, as defined for receive-side scaling: for each bit that is 1, from the first
/// byte's highest on, the 32 bits of the key that begin at its position. The key goes on in zeros.
pub fn hash(key: &[u8], input: &[u8]) -> u32 {
    let key_bit = |at: usize| key.get(at / 8).map_or(0, |byte| u32::from(byte >> (7 - at % 8) & 1));
    let mut window = (0..32).fold(0, |window, at| window << 1 | key_bit(at));
    let mut hash = 0;
    for at in 0..input.len() * 8 {
        if input[at / 8] >> (7 - at % 8) & 1 == 1 {
            hash ^= window;
        }
        window = window << 1 | key_bit(at + 32);
    }
    hash
}

/// Exclusive or of an address's 16-bit words, which with a port's is all that counts for its flows' owner.
#[inline]
pub fn words(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(address) => words_v4(address.to_bits()),
        IpAddr::V6(address) => words_v6(address.to_bits()),
    }
}

#[inline]
fn words_v4(address: u32) -> u16 {
    (address >> 16) as u16 ^ address as u16
}

#[inline]
fn words_v6(address: u128) -> u16 {
    let half = (address >> 64) as u64 ^ address as u64;
    words_v4((half >> 32) as u32 ^ half as u32)
}

/// The owners of all flows. Every worker and every port has the same.
#[derive(Clone, Debug)]
pub struct Owners {
    /// Parts of the hash's low half from the high and the low byte of the exclusive or of all words; its high
    /// half is the same. Its low bits are the index into the table.
    high: [u16; 256],
    low: [u16; 256],
    /// The redirection table.
    entries: [Entry; ENTRIES],
    workers: usize,
}

/// An entry of the redirection table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    worker: u8,
    /// How many entries of this worker come before it.
    rank: u8,
}

/// Sums of words that lead to one entry: the hash maps 16 bits one to one.
const WORDS_PER_ENTRY: usize = (1 << 16) / ENTRIES;

impl Owners {
    /// Owners among this many workers, at most [`ENTRIES`]; the flows are spread evenly.
    pub fn new(workers: usize) -> Self {
        debug_assert!((1..=ENTRIES).contains(&workers));
        let key = key::<8>();
        let bits: [u16; 16] = std::array::from_fn(|bit| hash(&key, &(1u16 << bit).to_be_bytes()) as u16);
        // The hash of an exclusive or is that of the hashes.
        let half =
            |word: usize| (0..16).filter(|bit| word >> bit & 1 == 1).fold(0, |hash, bit| hash ^ bits[bit]);
        // In turns, as drivers fill the table if nobody else does.
        let entry = |at| Entry { worker: (at % workers) as u8, rank: (at / workers) as u8 };
        Self {
            high: std::array::from_fn(|byte| half(byte << 8)),
            low: std::array::from_fn(half),
            entries: std::array::from_fn(entry),
            workers,
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The worker that owns the flows of an IPv4 client's port; of host order both.
    #[inline]
    pub fn of_v4(&self, address: u32, port: u16) -> usize {
        self.of_words(words_v4(address) ^ port)
    }

    /// The worker that owns the flows of an IPv6 client's port.
    #[inline]
    pub fn of_v6(&self, address: u128, port: u16) -> usize {
        self.of_words(words_v6(address) ^ port)
    }

    /// The worker that owns the flows of a client's port.
    pub fn of(&self, address: IpAddr, port: u16) -> usize {
        self.of_words(words(address) ^ port)
    }

    /// The worker that owns the flows whose client's address and port have this exclusive or.
    #[inline]
    pub fn of_words(&self, words: u16) -> usize {
        let hash = usize::from(self.hash(words));
        usize::from(self.entries[hash % ENTRIES].worker)
    }

    /// Numbers the exclusive ors that a worker owns, from 0 to [`Owners::places`]; `None` for those of others.
    #[inline]
    pub fn place(&self, words: u16, worker: usize) -> Option<usize> {
        let hash = usize::from(self.hash(words));
        let entry = self.entries[hash % ENTRIES];
        (usize::from(entry.worker) == worker)
            .then(|| usize::from(entry.rank) * WORDS_PER_ENTRY + hash / ENTRIES)
    }

    /// How many exclusive ors a worker owns.
    pub fn places(&self, worker: usize) -> usize {
        (ENTRIES - worker).div_ceil(self.workers) * WORDS_PER_ENTRY
    }

    #[inline]
    fn hash(&self, words: u16) -> u16 {
        let [high, low] = words.to_be_bytes();
        self.high[usize::from(high)] ^ self.low[usize::from(low)]
    }

    /// Whether a NIC brings all frames to their owners if its redirection table has this size.
    pub fn fit(&self, size: usize) -> bool {
        size.is_power_of_two() && (size >= ENTRIES || size.is_multiple_of(self.workers))
    }

    /// A NIC's redirection table of this size: the queues by entry.
    pub fn redirection(&self, size: usize) -> impl Iterator<Item = u16> {
        self.entries.iter().cycle().take(size).map(|entry| u16::from(entry.worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    /// The key of Microsoft's verification suite for receive-side scaling.
    const SUITE_KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn octets(address: IpAddr) -> Vec<u8> {
        match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }

    #[test]
    fn agrees_with_the_verification_suite() {
        // Source, destination, hash of addresses, hash of addresses and ports.
        let suite = [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc1_8cd5, 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c_461c, 0xdde5_1bbf),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (src, dst, addresses, all) in suite {
            let [src, dst] = [src, dst].map(|endpoint| endpoint.parse::<SocketAddr>().unwrap());
            let mut input = [octets(src.ip()), octets(dst.ip())].concat();
            assert_eq!(hash(&SUITE_KEY, &input), addresses, "{src} {dst}");
            input.extend(src.port().to_be_bytes());
            input.extend(dst.port().to_be_bytes());
            assert_eq!(hash(&SUITE_KEY, &input), all, "{src} {dst}");
        }
    }

    /// What a NIC hashes of a packet.
    #[derive(Clone, Copy, Debug)]
    enum Fields {
        Source,
        Destination,
    }

    /// The queue that a NIC chooses which masks the other fields, or leaves them out.
    fn queue(
        owners: &Owners,
        src: (IpAddr, u16),
        dst: (IpAddr, u16),
        fields: Fields,
        masks: bool,
        size: usize,
    ) -> usize {
        let keep = |bytes: Vec<u8>, kept: bool| match (kept, masks) {
            (true, _) => bytes,
            (false, true) => vec![0; bytes.len()],
            (false, false) => Vec::new(),
        };
        let source = matches!(fields, Fields::Source);
        let input = [
            keep(octets(src.0), source),
            keep(octets(dst.0), !source),
            keep(src.1.to_be_bytes().to_vec(), source),
            keep(dst.1.to_be_bytes().to_vec(), !source),
        ];
        let redirection: Vec<_> = owners.redirection(size).collect();
        usize::from(redirection[hash(&key::<40>(), &input.concat()) as usize & (size - 1)])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }))]
        #[test]
        fn nics_bring_both_directions_to_the_owner(
            client in any::<(u128, u16)>(),
            other in any::<(u128, u16)>(),
            ipv6 in any::<bool>(),
            workers in 1usize..=64,
        ) {
            let owners = Owners::new(workers);
            let [client, other] = [client, other].map(|(address, port)| match ipv6 {
                true => (IpAddr::from(Ipv6Addr::from_bits(address)), port),
                false => (IpAddr::from(Ipv4Addr::from_bits(address as u32)), port),
            });
            let owner = owners.of_words(words(client.0) ^ client.1);
            prop_assert!(owner < workers);
            for size in [2usize, 4, 64, 128, 512].into_iter().filter(|size| owners.fit(*size)) {
                for masks in [true, false] {
                    prop_assert_eq!(queue(&owners, client, other, Fields::Source, masks, size), owner);
                    prop_assert_eq!(queue(&owners, other, client, Fields::Destination, masks, size), owner);
                }
            }
        }
    }

    #[test]
    fn small_tables_fit_where_they_divide_evenly() {
        assert!(Owners::new(3).fit(128) && Owners::new(64).fit(512) && Owners::new(2).fit(2));
        assert!(!Owners::new(3).fit(64) && !Owners::new(4).fit(2) && !Owners::new(3).fit(192));
    }

    #[test]
    #[cfg_attr(miri, ignore = "65,536 places take minutes")]
    fn places_are_numbered_without_gaps() {
        for workers in [1, 3, 64, 128] {
            let owners = Owners::new(workers);
            let mut taken: Vec<_> = (0..workers).map(|worker| vec![false; owners.places(worker)]).collect();
            for words in 0..=u16::MAX {
                let owner = owners.of_words(words);
                let place = &mut taken[owner][owners.place(words, owner).unwrap()];
                assert!(!std::mem::replace(place, true));
            }
            assert!(taken.iter().flatten().all(|taken| *taken));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "200,000 clients take minutes")]
    fn hosts_and_ports_in_a_row_are_spread_evenly() {
        let by_port = |owners: &Owners, port| owners.of_v4(0xc000_0207, port);
        let by_host = |owners: &Owners, host| owners.of_v4(0xc633_0000 | u32::from(host), 40_000);
        let by_host6 = |owners: &Owners, host| owners.of_v6(0x2001_0db8 << 96 | u128::from(host), 40_000);
        for workers in [2, 3, 4, 8, 64] {
            let owners = Owners::new(workers);
            for owner in [&by_port as &dyn Fn(&Owners, u16) -> usize, &by_host, &by_host6] {
                let assert_even = |len: u16, first: u16, step: u16| {
                    let mut shares = vec![0; workers];
                    for number in 0..len {
                        shares[owner(&owners, first + number * step)] += 1;
                    }
                    let even = usize::from(len) / workers..=usize::from(len).div_ceil(workers);
                    assert!(shares.iter().all(|share| even.contains(share)), "{first} {step} {shares:?}");
                };
                // By two as well, because Linux prefers ports of one parity.
                for first in (0..0xff00).step_by(0x100) {
                    assert_even(128, first, 1);
                    assert_even(128, first, 2);
                    if workers.is_power_of_two() && workers <= 8 {
                        assert_even(8, first + 8, 1);
                    }
                }
            }
        }
    }
}

//! QUIC by connection ID: a flow goes to the server that its connection's ID names, wherever the client is now.
//!
//! Servers put their number into the IDs that they give out, in the clear or enciphered. What names no server, as
//! the random ID of a client's first packets, is for the fallback, which looks at addresses and ports only: then all
//! packets of a client agree, whether or not its servers number their IDs.
//!
//! Sources: RFC 8999 and RFC 9000, 17.2 and 17.3; draft-ietf-quic-load-balancers-21, sections 3 to 5.

use std::collections::BTreeMap;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use thiserror::Error;

use crate::snapshot::BackendSlot;

/// Longest connection ID of QUIC version 1 and 2, in bytes.
const MAX_ID: usize = 20;

/// How servers make connection IDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number of this configuration, in the first three bits of an ID; 7 means that there is none.
    pub rotation: u8,
    /// Length of a server's number, in bytes.
    pub server_id_len: u8,
    /// Length of what makes an ID unique, in bytes.
    pub nonce_len: u8,
    /// The key that both are enciphered with, if they are.
    pub key: Option<[u8; 16]>,
}

/// Why a layout is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Codepoint 7 says that an ID names no server.
    #[error("config rotation is 0 to 6")]
    Rotation,
    /// The draft's bounds.
    #[error("a server ID has at least 1 byte, a nonce at least 4, and both together at most 19")]
    Lengths,
}

/// What names the servers of a service.
#[derive(Clone, Debug)]
pub struct Quic {
    rotation: u8,
    server_id_len: usize,
    /// Length of what follows the first byte of an ID, 5 to 19.
    len: usize,
    cipher: Option<Aes128>,
    /// Servers by their number, in order.
    servers: Box<[(u128, BackendSlot)]>,
}

impl Layout {
    fn check(&self) -> Result<(), LayoutError> {
        if self.rotation > 6 {
            return Err(LayoutError::Rotation);
        }
        let both = self.server_id_len.saturating_add(self.nonce_len);
        if self.server_id_len < 1 || self.nonce_len < 4 || both > 19 {
            return Err(LayoutError::Lengths);
        }
        Ok(())
    }
}

impl Quic {
    /// Servers by their numbers, which are as long as the layout says and in network order; of two with the same
    /// number the last one counts. A number of another length is never found.
    ///
    /// # Errors
    /// [`LayoutError`] if the draft does not allow the layout.
    pub fn new(
        layout: Layout,
        servers: impl IntoIterator<Item = (Vec<u8>, BackendSlot)>,
    ) -> Result<Self, LayoutError> {
        layout.check()?;
        let server_id_len = usize::from(layout.server_id_len);
        let fits = servers.into_iter().filter(|(id, _)| id.len() == server_id_len);
        let numbers: BTreeMap<u128, BackendSlot> =
            fits.map(|(id, backend)| (number(padded(&id), server_id_len), backend)).collect();
        Ok(Self {
            rotation: layout.rotation,
            server_id_len,
            len: server_id_len + usize::from(layout.nonce_len),
            cipher: layout.key.map(|key| Aes128::new(&Array::from(key))),
            servers: numbers.into_iter().collect(),
        })
    }

    /// The backend that a datagram's connection ID names, if it takes this flow. `None` is for the fallback.
    #[inline]
    pub fn pick(&self, datagram: &[u8], available: impl Fn(BackendSlot) -> bool) -> Option<BackendSlot> {
        let server = self.server(connection_id(datagram)?)?;
        let at = self.servers.binary_search_by_key(&server, |&(number, _)| number).ok()?;
        self.servers.get(at).map(|&(_, backend)| backend).filter(|&backend| available(backend))
    }

    /// The server's number in an ID, which may be longer than the layout says.
    #[inline]
    fn server(&self, id: &[u8]) -> Option<u128> {
        let (first, rest) = id.split_first()?;
        if first >> 5 != self.rotation || rest.len() < self.len {
            return None;
        }
        let plain = self
            .cipher
            .as_ref()
            .map_or_else(|| padded(rest), |it| decipher(it, rest, self.len, self.server_id_len));
        Some(number(plain, self.server_id_len))
    }
}

/// The destination connection ID of a datagram's first packet, as far as the datagram goes: of a long header, all of
/// it; of a short one, which does not tell its length, all that follows.
#[inline]
fn connection_id(datagram: &[u8]) -> Option<&[u8]> {
    let (&first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return Some(rest);
    }
    // Behind the version, a byte says how long the ID is (RFC 8999, 5.1).
    let (&len, rest) = rest.get(4..)?.split_first()?;
    rest.get(..usize::from(len)).filter(|id| id.len() <= MAX_ID)
}

/// The first 16 bytes in network order, zeros behind fewer.
#[inline]
fn padded(bytes: &[u8]) -> u128 {
    // Most datagrams have 16 bytes here, which one load reads.
    bytes.first_chunk().map_or_else(|| padded_slowly(bytes), |bytes| u128::from_be_bytes(*bytes))
}

fn padded_slowly(bytes: &[u8]) -> u128 {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    u128::from_be_bytes(padded)
}

/// A server's number: the first 1 to 15 bytes of 16.
#[inline]
fn number(bytes: u128, len: usize) -> u128 {
    bytes >> (128 - 8 * len)
}

/// Undoes the encipherment of a block: the first `len` bytes, 5 to 19. Of the result, the first 16 are given, the
/// first `wanted` ones right.
#[inline]
fn decipher(cipher: &Aes128, block: &[u8], len: usize, wanted: usize) -> u128 {
    if len == 16 {
        let mut whole = Array::from(padded(block).to_be_bytes());
        cipher.decrypt_block(&mut whole);
        return u128::from_be_bytes(whole.into());
    }
    let mut halves = Halves::split(block, len);
    halves.left ^= halves.pass(cipher, 4, halves.right) & halves.left_mask();
    halves.right ^= halves.pass(cipher, 3, halves.left) & halves.right_mask();
    halves.left ^= halves.pass(cipher, 2, halves.right) & halves.left_mask();
    if wanted * 2 > len {
        halves.right ^= halves.pass(cipher, 1, halves.left) & halves.right_mask();
    }
    halves.join()
}

/// A block of the four passes: two halves of equal length, each in the first bytes of 16. The middle byte of an odd
/// length is split: its first four bits are the left half's last ones, and the others are of the right half, behind
/// four bits of zero.
struct Halves {
    left: u128,
    right: u128,
    len: usize,
}

impl Halves {
    fn split(block: &[u8], len: usize) -> Self {
        let mut halves = Self { left: padded(block), right: padded(&block[len / 2..]), len };
        (halves.left, halves.right) = (halves.left & halves.left_mask(), halves.right & halves.right_mask());
        halves
    }

    /// Bits of a half.
    fn bits(&self) -> u32 {
        self.len as u32 * 4
    }

    /// The bits of a left half: the first ones.
    fn left_mask(&self) -> u128 {
        !(u128::MAX >> self.bits())
    }

    /// The bits of a right half: as many, behind four if the length is odd.
    fn right_mask(&self) -> u128 {
        self.left_mask() >> self.gap()
    }

    /// What one half is changed by, which follows from the other one.
    #[inline]
    fn pass(&self, cipher: &Aes128, pass: u8, input: u128) -> u128 {
        let input = input | (self.len as u128) << 8 | u128::from(pass);
        let mut block = Array::from(input.to_be_bytes());
        cipher.encrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    }

    /// Zeros before the bits of a right half.
    fn gap(&self) -> usize {
        self.len % 2 * 4
    }

    fn join(&self) -> u128 {
        self.left | (self.right << self.gap()) >> self.bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "8f95f09245765f80256934e50c66207f";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// One server, number 9, with this ID.
    fn quic(rotation: u8, id: &str, nonce_len: u8, key: Option<&str>) -> Quic {
        let layout = Layout {
            rotation,
            server_id_len: (id.len() / 2) as u8,
            nonce_len,
            key: key.map(|key| hex(key).try_into().unwrap()),
        };
        Quic::new(layout, [(hex(id), BackendSlot(9))]).unwrap()
    }

    /// Packets with this destination ID: a short header, and the four kinds of long ones.
    fn packets(id: &[u8]) -> Vec<Vec<u8>> {
        let short = [&[0x40][..], id, &[0xaa; 24]].concat();
        let long = |kind: u8| [&[0xc0 | kind << 4, 0, 0, 0, 1, id.len() as u8][..], id, &[0; 24]].concat();
        [short].into_iter().chain((0..4).map(long)).collect()
    }

    /// Appendix B of the draft, and the example of 5.4.2.4. Its second plaintext vector has half a byte too many, and
    /// its last one says rotation 3 where the ID says 0.
    #[test]
    fn vectors_of_the_draft() {
        let key = Some(KEY);
        let example = Some("fdf726a9893ec05c0632d3956680baf0");
        for (rotation, server, nonce, key, id) in [
            (0, "c4605e", "4504cc4f", None, "07c4605e4504cc4f"),
            (0, "ed793a", "ee080dbf", key, "0720b1d07b359d3c"),
            (1, "ed793a51d49b8f5fab65", "ee080dbf48", key, "2fcc381bc74cb4fbad2823a3d1f8fed2"),
            (2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", key, "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
            (0, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", key, "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
            (0, "31441a", "9c69c275", example, "0767947d29be054a"),
        ] {
            let quic = quic(rotation, server, (nonce.len() / 2) as u8, key);
            for packet in packets(&hex(id)) {
                assert_eq!(quic.pick(&packet, |_| true), Some(BackendSlot(9)), "{server} {id}");
                assert_eq!(quic.pick(&packet, |_| false), None);
            }
            if let Some(cipher) = &quic.cipher {
                let plain = decipher(cipher, &hex(id)[1..], quic.len, 15);
                assert_eq!(plain, padded(&hex(&format!("{server}{nonce}"))), "the nonce, too");
            }
        }
    }

    #[test]
    fn an_id_of_no_server_is_for_the_fallback() {
        let quic = quic(1, "c4605e", 4, None);
        let pick = |id: &str| packets(&hex(id)).iter().map(|it| quic.pick(it, |_| true)).collect::<Vec<_>>();
        assert_eq!(pick("27c4605e4504cc4f"), [Some(BackendSlot(9)); 5]);
        assert_eq!(pick("27c4605e4504cc4f00112233"), [Some(BackendSlot(9)); 5], "servers may append bytes");
        assert_eq!(pick("27c4605f4504cc4f"), [None; 5], "another server");
        assert_eq!(pick("47c4605e4504cc4f"), [None; 5], "another configuration");
        assert_eq!(pick("e7c4605e4504cc4f"), [None; 5], "no configuration");
        assert_eq!(pick("27c4605e4504cc")[1..], [None; 4], "too short, as long headers tell");
    }

    #[test]
    fn a_layout_has_the_bounds_of_the_draft() {
        let check = |rotation, server_id_len, nonce_len| {
            Quic::new(Layout { rotation, server_id_len, nonce_len, key: None }, []).err()
        };
        for (lengths, error) in [
            ((1, 4), None),
            ((15, 4), None),
            ((1, 18), None),
            ((0, 8), Some(LayoutError::Lengths)),
            ((4, 3), Some(LayoutError::Lengths)),
            ((16, 4), Some(LayoutError::Lengths)),
            ((255, 255), Some(LayoutError::Lengths)),
        ] {
            assert_eq!(check(6, lengths.0, lengths.1), error, "{lengths:?}");
        }
        assert_eq!(check(7, 4, 4), Some(LayoutError::Rotation));
    }

    #[test]
    fn no_length_and_no_byte_is_trusted() {
        let ids = ["0720b1d07b359d3c", "504dd2d05a7b0de9b2b9907afb5ecf8cc3"];
        for (quic, id) in
            [quic(0, "ed793a", 4, Some(KEY)), quic(2, "ed793a51d49b8f5f", 8, Some(KEY))].iter().zip(ids)
        {
            for packet in packets(&hex(id)) {
                let needed = id.len() / 2 + if packet[0] & 0x80 == 0 { 1 } else { 6 };
                for len in 0..packet.len() {
                    assert_eq!(quic.pick(&packet[..len], |_| true).is_some(), len >= needed, "{len} bytes");
                }
                for at in 0..needed {
                    for byte in if cfg!(miri) { 0..=3 } else { 0..=255 } {
                        let mut hostile = packet.clone();
                        hostile[at] = byte;
                        let pick = quic.pick(&hostile, |_| true);
                        assert!(pick.is_none_or(|it| it == BackendSlot(9)));
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2048 }))]
        #[test]
        fn whatever_comes_goes_to_a_server_that_takes_it_or_to_none(
            datagram in prop::collection::vec(any::<u8>(), 0..60),
            (server_id_len, nonce_len) in (1u8..=2, 4u8..=17),
            key in any::<Option<[u8; 16]>>(),
        ) {
            let layout = Layout { rotation: 0, server_id_len, nonce_len, key };
            // Every number that one byte can have is a server's, so that random IDs name one.
            let id = |byte: u8| vec![byte; server_id_len.into()];
            let quic = Quic::new(layout, (0..=255).map(|it| (id(it), BackendSlot(it.into())))).unwrap();
            let pick = quic.pick(&datagram, |backend| backend.0 % 2 == 0);
            prop_assert!(pick.is_none_or(|backend| backend.0 % 2 == 0 && backend.0 < 256));
        }
    }
}

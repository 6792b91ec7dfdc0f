//! Octets in hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use super::WordError;

/// Up to so many octets, written as two hexadecimal digits each.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Octets<const MOST: usize> {
    len: u8,
    octets: [u8; MOST],
}

/// What names a server in QUIC's connection IDs.
pub type ServerId = Octets<15>;
/// A key of AES-128.
pub type AesKey = Octets<16>;

impl<const MOST: usize> Octets<MOST> {
    /// The octets.
    pub fn as_slice(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl<const MOST: usize> fmt::Display for Octets<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl<const MOST: usize> fmt::Debug for Octets<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const MOST: usize> FromStr for Octets<MOST> {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || WordError::new(text, "octets: write two hexadecimal digits for each, such as 0a1b");
        let digits = text.as_bytes();
        let whole = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
        let len = digits.len() / 2;
        if !whole || len == 0 || len > MOST {
            return Err(wrong());
        }
        let mut octets = [0; MOST];
        for (octet, at) in octets.iter_mut().zip((0..digits.len()).step_by(2)) {
            *octet = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        // At most as many as there is room for.
        Ok(Self { len: len as u8, octets })
    }
}

text_serde!(ServerId, AesKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_read_back_as_written() {
        for text in ["00", "0a1b2c", "0102030405060708090a0b0c0d0e0f"] {
            assert_eq!(text.parse::<ServerId>().unwrap().to_string(), text);
        }
        assert_eq!("0AfF".parse::<ServerId>().unwrap().as_slice(), [0x0a, 0xff]);
        for text in ["", "0", "0g", "+1", "0102030405060708090a0b0c0d0e0f10", "é1"] {
            assert!(text.parse::<ServerId>().is_err(), "{text}");
        }
    }
}

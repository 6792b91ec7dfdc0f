//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use super::WordError;

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

text_serde!(MacAddr);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        let mac = "02:00:5e:00:53:0a";
        assert_eq!(mac.parse::<MacAddr>().unwrap().to_string(), mac);
    }

    #[test]
    fn broken_addresses_are_refused() {
        for text in ["", "02:00:5e:00:53", "02:00:5e:00:53:01:02", "0200:5e:00:53:01", "+2:00:5e:00:53:01"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}

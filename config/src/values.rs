//! How single values are read: each function takes a TOML value and says what would have been right.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use toml::de::DeValue;

use crate::limits;
use crate::model::Device;
use crate::problem::{Wrong, list, nearest, quote};
use crate::reader::{ReadValue, unexpected};
use crate::rules::{self, Fault};
use crate::words::{self, AesKey, ClassName, MacAddr, Ports, ServerId};

pub(crate) fn boolean(value: &DeValue) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| unexpected("true or false", value))
}

fn text<'v>(value: &'v DeValue) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| unexpected("a string", value))
}

/// Text that keeps to a rule.
fn ruled(value: &DeValue, rule: impl Fn(&str) -> Option<Fault>) -> Result<String, Wrong> {
    let text = text(value)?;
    rule(text).map_or(Ok(text.to_owned()), |fault| Err(fault.into()))
}

/// An integer within `range`.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl ReadValue<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value: &DeValue<'_>| {
        let DeValue::Integer(found) = value else { return Err(unexpected("an integer", value)) };
        let number = i128::from_str_radix(found.as_str(), found.radix()).ok();
        number.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number)).ok_or_else(
            || {
                let wrong = Wrong::new(format!("{} is out of range", quote(&found.to_string())));
                wrong.help(format!("use a number from {} to {}", range.start(), range.end()))
            },
        )
    }
}

/// A number, with or without a fraction, within `range`.
pub(crate) fn factor(range: RangeInclusive<f64>) -> impl ReadValue<f64> {
    move |value: &DeValue<'_>| {
        let text = match value {
            DeValue::Integer(found) => found.to_string(),
            DeValue::Float(found) => found.to_string(),
            _ => return Err(unexpected("a number", value)),
        };
        text.replace('_', "").parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let wrong = Wrong::new(format!("{} is out of range", quote(&text)));
            wrong.help(format!("use a number from {} to {}", range.start(), range.end()))
        })
    }
}

/// What names a server in QUIC's connection IDs.
pub(crate) fn server_id(value: &DeValue) -> Result<ServerId, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let wrong = Wrong::new(format!("{} is not 1 to 15 octets", quote(text)));
        wrong.help("write two hexadecimal digits for each, such as \"0a1b2c3d\"")
    })
}

/// A key of AES-128.
pub(crate) fn aes_key(value: &DeValue) -> Result<AesKey, Wrong> {
    // The error does not repeat it.
    let key = text(value)?.parse::<AesKey>().ok().filter(|key| key.as_slice().len() == 16);
    key.ok_or_else(|| Wrong::new("the key is not 16 octets").help("write it as 32 hexadecimal digits"))
}

/// What balancers of a cluster know and nobody else.
pub(crate) fn secret(value: &DeValue) -> Result<String, Wrong> {
    let (least, most) = limits::SECRET_LEN.into_inner();
    let secret = text(value)?;
    // The error does not repeat it.
    limits::SECRET_LEN.contains(&secret.len()).then(|| secret.to_owned()).ok_or_else(|| {
        let wrong = Wrong::new("the secret is too short or too long");
        wrong.help(format!("use {least} to {most} characters, such as those of `openssl rand -hex 16`"))
    })
}

/// One of `words`; `what` is what they are called.
pub(crate) fn word<T: FromStr>(what: &'static str, words: &'static [&'static str]) -> impl ReadValue<T> {
    move |value: &DeValue<'_>| {
        let text = text(value)?;
        // The words themselves, not the parser, decide: it might be more lenient than the documentation.
        let known = words.contains(&text).then(|| text.parse().ok()).flatten();
        known.ok_or_else(|| {
            let wrong = Wrong::new(format!("unknown {what} {}", quote(text)));
            match nearest(text, words) {
                Some(near) => wrong.help(format!("did you mean `{near}`?")),
                None => wrong.help(format!("use one of {}", list(words))),
            }
        })
    }
}

/// Text that `T` reads; `what` with its article, `example` as it is written.
fn parsed<T: FromStr>(value: &DeValue, what: &str, example: &str) -> Result<T, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        Wrong::new(format!("{} is not {what}", quote(text))).help(format!("write it as {example}"))
    })
}

pub(crate) fn address(value: &DeValue) -> Result<IpAddr, Wrong> {
    parsed(value, "an address", "192.0.2.1 or 2001:db8::1")
}

/// A virtual address and its ports.
pub(crate) fn address_and_ports(value: &DeValue) -> Result<(IpAddr, Ports), Wrong> {
    let text = text(value)?;
    words::address_and_ports(text).ok_or_else(|| {
        let wrong = Wrong::new(format!("{} is not an address and port", quote(text)));
        wrong.help("write it as 192.0.2.1:80 or [2001:db8::1]:80; 8000-8099 are several ports, and 0 is any")
    })
}

pub(crate) fn address_and_port(value: &DeValue) -> Result<SocketAddr, Wrong> {
    parsed(value, "an address and port", "192.0.2.1:80 or [2001:db8::1]:80")
}

/// Destination of a route; the rules tell of bits behind the prefix.
pub(crate) fn destination(value: &DeValue) -> Result<IpNet, Wrong> {
    parsed(value, "a prefix", "198.51.100.0/24 or 2001:db8::/32, or 0.0.0.0/0 or ::/0 for a default route")
}

/// Own address of a port, with its connected prefix.
pub(crate) fn own_address(value: &DeValue) -> Result<IpNet, Wrong> {
    let address = parsed(value, "an address with prefix length", "192.0.2.1/24 or 2001:db8::1/64")?;
    rules::own_address_fault(address).map_or(Ok(address), |fault| Err(fault.into()))
}

/// Source addresses of a tunnel; the rules tell which fit.
pub(crate) fn spread(value: &DeValue) -> Result<IpNet, Wrong> {
    parsed(value, "a prefix", "172.16.0.0/16 or 2001:db8::/64")
}

/// Source prefix of a class.
pub(crate) fn source(value: &DeValue) -> Result<IpNet, Wrong> {
    let prefix = parsed(value, "a prefix", "203.0.113.0/24 or 2001:db8::/32")?;
    rules::prefix_fault(prefix).map_or(Ok(prefix), |fault| Err(fault.into()))
}

/// Addresses of a pool: one, or all of a prefix.
pub(crate) fn pool_addresses(value: &DeValue) -> Result<Vec<IpAddr>, Wrong> {
    let text = text(value)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    let prefix: IpNet = parsed(value, "an address or prefix", "198.51.100.200 or 198.51.100.208/29")?;
    if let Some(fault) = rules::prefix_fault(prefix) {
        return Err(fault.into());
    }
    let most = limits::POOL_ADDRESSES;
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    if host_bits > most.ilog2() {
        let wrong = Wrong::new(format!("{prefix} has more than {most} addresses"));
        return Err(wrong.help(
            "use a longer prefix: one address is enough for tens of thousands of connections to each backend",
        ));
    }
    Ok(match prefix {
        IpNet::V4(prefix) => {
            (0..1 << host_bits).map(|n| IpAddr::V4((prefix.addr().to_bits() | n).into())).collect()
        }
        IpNet::V6(prefix) => {
            (0..1 << host_bits).map(|n| IpAddr::V6((prefix.addr().to_bits() | n).into())).collect()
        }
    })
}

/// MAC address of one station.
pub(crate) fn mac(value: &DeValue) -> Result<MacAddr, Wrong> {
    let mac: MacAddr = parsed(value, "a MAC address", "02:00:5e:00:53:01")?;
    if mac.is_unicast() && mac != MacAddr::default() { Ok(mac) } else { Err(Fault::NotAStation(mac).into()) }
}

/// Loopback address and port; of either IP version, since no frame of it is ever balanced.
pub(crate) fn loopback(value: &DeValue) -> Result<SocketAddr, Wrong> {
    let listen: SocketAddr = parsed(value, "an address and port", "127.0.0.1:9400")?;
    if !listen.ip().is_loopback() {
        let wrong = Wrong::new(format!("{} is not a loopback address", listen.ip()));
        return Err(wrong.help(format!("the listener asks for no password: use 127.0.0.1:{}", listen.port())));
    }
    if listen.port() == 0 { Err(Fault::PortZero.into()) } else { Ok(listen) }
}

/// Name of a port, service or pool.
pub(crate) fn name(value: &DeValue) -> Result<String, Wrong> {
    ruled(value, rules::name_fault)
}

/// Name of a class.
pub(crate) fn class_name(value: &DeValue) -> Result<ClassName, Wrong> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let wrong = Wrong::new(format!("{} is not a name of a class", quote(text)));
        wrong.help(format!("use 1 to {} letters, digits, `-` and `_`", ClassName::LONGEST))
    })
}

/// Name of a tap device.
pub(crate) fn tap_name(value: &DeValue) -> Result<String, Wrong> {
    ruled(value, rules::tap_name_fault)
}

/// Request target of an HTTP check.
pub(crate) fn check_path(value: &DeValue) -> Result<String, Wrong> {
    ruled(value, rules::check_path_fault)
}

/// Host header of an HTTP check.
pub(crate) fn check_host(value: &DeValue) -> Result<String, Wrong> {
    ruled(value, rules::check_host_fault)
}

/// Path of a Unix socket.
pub(crate) fn socket_path(value: &DeValue) -> Result<PathBuf, Wrong> {
    let path = text(value)?;
    if !path.starts_with('/') || path.contains('\0') {
        let wrong = Wrong::new(format!("{} is not an absolute path", quote(path)));
        return Err(wrong.help("begin it with a slash, such as /run/trutina.sock"));
    }
    if path.len() > limits::SOCKET_PATH_LEN {
        let wrong = Wrong::new(format!("the path has {} bytes", path.len()));
        return Err(wrong.help(format!("a socket's path has at most {} bytes", limits::SOCKET_PATH_LEN)));
    }
    Ok(PathBuf::from(path))
}

/// EAL file prefix; it becomes part of file names, and of a directory's.
pub(crate) fn file_prefix(value: &DeValue) -> Result<String, Wrong> {
    let prefix = text(value)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if prefix.len() <= limits::NAME_LEN
        && prefix.starts_with(|first: char| first.is_ascii_alphanumeric())
        && prefix.bytes().all(fits)
    {
        return Ok(prefix.to_owned());
    }
    let wrong = Wrong::new(format!("{} can not be part of a file name", quote(prefix)));
    let most = limits::NAME_LEN;
    Err(wrong.help(format!("use at most {most} letters, digits, `_`, `-` and `.`, a letter or digit first")))
}

/// PCI address or software device, with arguments behind a comma.
pub(crate) fn device(value: &DeValue) -> Result<Device, Wrong> {
    let text = text(value)?;
    let name = text.split(',').next().unwrap_or_default();
    let printable = !text.contains(char::is_control);
    if let Some(full) = pci_address(name).filter(|_| printable) {
        return Ok(Device::Pci(full + &text[name.len()..]));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_driver = name.len() > "net_".len() && name.starts_with("net_") && name.bytes().all(fits);
    if is_driver && name.len() <= limits::DEVICE_NAME_LEN && printable {
        return Ok(Device::Vdev(text.to_owned()));
    }
    let wrong = Wrong::new(format!("{} is neither a PCI address nor a software device", quote(text)));
    Err(wrong
        .help("write 0000:03:00.0 for a NIC, or net_af_packet0,iface=eth0 for an interface of the kernel"))
}

/// A PCI address in full, domain first, if `name` is one; `lspci` leaves domain 0 out.
fn pci_address(name: &str) -> Option<String> {
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (rest, function) = name.split_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.split_once(':').unwrap_or(("0000", rest));
    let is_function = matches!(function.as_bytes(), [b'0'..=b'7']);
    let is_pci = hex(domain, 4) && hex(bus, 2) && hex(device, 2) && is_function;
    is_pci.then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn devices_are_told_apart() {
        let pci = |text: &str| Ok(Device::Pci(text.to_owned()));
        assert_eq!(device(&value("0000:03:00.0")), pci("0000:03:00.0"));
        assert_eq!(device(&value("0A:1f.7,queues=4")), pci("0000:0a:1f.7,queues=4"));
        let vdev = "net_pcap0,rx_pcap=/tmp/in put.pcap,tx_pcap=/tmp/out.pcap";
        assert_eq!(device(&value(vdev)), Ok(Device::Vdev(vdev.to_owned())));
        for text in
            ["", "eth0", "net_", "net_é", "net_tap0,\0", "03:00", "03:00.8", "00000:03:00.0", "1:2:3:4.0"]
        {
            assert!(device(&value(text)).is_err(), "{text}");
        }
        assert!(device(&value(&format!("net_{}", "x".repeat(60)))).is_err());
    }

    #[test]
    fn file_prefixes_stay_in_their_directory() {
        for text in ["trutina", "a", "lb-2.west_1"] {
            assert_eq!(file_prefix(&value(text)), Ok(text.to_owned()));
        }
        for text in ["", ".", "..", "a/b", "-a", "a b", "%d", "a\0"] {
            assert!(file_prefix(&value(text)).is_err(), "{text}");
        }
    }
}

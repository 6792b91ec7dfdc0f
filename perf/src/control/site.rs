//! A configuration of some size, in a file, with requests that change it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::model::{Backend, Config, Service};
use config::words::{Ports, ServiceKey};
use tempfile::TempDir;

/// Where VIPs begin (RFC 6598); the first one has number 0.
const VIPS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
/// Services on one VIP.
const SERVICES_ON_ONE: u32 = 50;
/// Where backends begin (RFC 2544); the first one has number 0.
const BACKENDS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Ports of services and backends that are added; none of those that are configured.
const NEW_PORT: u16 = 9000;

/// What stands above the services. The device has no frames; its neighbours are known, so that the control
/// thread has nothing else to do.
const HEAD: &str = r#"
[dpdk]
hugepages = false
memory_mib = 256
file_prefix = "trutina-perf"
[cores]
control = 0
workers = [1]
[[port]]
name = "null"
device = "net_null0,no-rx=1"
addresses = ["198.19.255.254/15"]
[[route]]
to = "0.0.0.0/0"
via = "198.19.255.253"
"#;

/// A configuration and its file, which goes with it.
pub struct Site {
    /// Number of services.
    pub services: u32,
    /// Number of backends of all services together.
    pub backends: u32,
    /// What the file says.
    pub config: Config,
    file: PathBuf,
    _directory: TempDir,
}

impl Site {
    /// Writes a file with so many services under weighted round robin, each with its share of the backends,
    /// which are on the link and get packets by NAT.
    ///
    /// # Errors
    /// The file cannot be written, or is no configuration.
    pub fn write(services: u32, backends: u32) -> Result<Self, String> {
        let directory = TempDir::new().map_err(|error| error.to_string())?;
        let (file, socket) = (directory.path().join("site.toml"), directory.path().join("sock"));
        let text = text(services, backends, &socket).map_err(|error| error.to_string())?;
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let config = config::load(&file).map_err(|error| error.to_string())?;
        Ok(Self { services, backends, config, file, _directory: directory })
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The control socket, when an appliance runs on it.
    pub fn socket(&self) -> &Path {
        &self.config.control.socket
    }

    /// The service in the middle, which has a backend.
    pub fn service(&self) -> &Service {
        &self.config.services[self.config.services.len() / 2]
    }

    /// A backend for it that it does not have.
    pub fn new_backend(&self) -> Backend {
        let known = self.service().backends[0];
        Backend { address: SocketAddr::new(known.address.ip(), NEW_PORT), ..known }
    }

    /// A service that is not configured, with the backends of one that is.
    pub fn new_service(&self) -> Service {
        let known = self.service();
        let key = ServiceKey { ports: Ports::one(NEW_PORT), ..known.key };
        Service { key, name: key.to_string(), ..known.clone() }
    }
}

fn text(services: u32, backends: u32, socket: &Path) -> Result<String, std::fmt::Error> {
    let mut text = HEAD.to_owned();
    writeln!(text, "[control]\nsocket = \"{}\"", socket.display())?;
    let each = backends / services;
    for service in 0..services {
        let vip = after(VIPS, service / SERVICES_ON_ONE);
        let port = 80 + service % SERVICES_ON_ONE;
        let head = "protocol = \"tcp\"\nmode = \"nat\"\nscheduler = \"wrr\"";
        writeln!(text, "[[service]]\nvip = \"{vip}:{port}\"\n{head}")?;
        for backend in service * each..(service + 1) * each {
            let address = after(BACKENDS, backend);
            writeln!(text, "[[service.backend]]\naddress = \"{address}:8000\"")?;
        }
    }
    for backend in 0..backends {
        let (address, [a, b, c, d]) = (after(BACKENDS, backend), backend.to_be_bytes());
        let mac = format!("06:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        writeln!(text, "[[neighbour]]\naddress = \"{address}\"\nmac = \"{mac}\"")?;
    }
    Ok(text)
}

fn after(first: Ipv4Addr, number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_a_valid_configuration_and_lacks_what_is_added() {
        let site = Site::write(100, 1_000).unwrap();
        assert_eq!(site.config.services.len(), 100);
        assert_eq!(site.config.services.iter().map(|service| service.backends.len()).sum::<usize>(), 1_000);
        let (added, backend) = (site.new_service(), site.new_backend());
        assert!(site.config.services.iter().all(|service| service.key != added.key));
        assert!(site.service().backends.iter().all(|known| known.address != backend.address));
    }
}

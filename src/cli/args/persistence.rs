//! What to do with persistence templates.

use std::net::IpAddr;

use clap::Subcommand;
use config::words::ServiceKey;
use controlplane::api::{Request, TemplatesWanted};

/// What to do with persistence templates.
#[derive(Debug, Subcommand)]
#[command(infer_subcommands = true)]
pub enum PersistenceCommand {
    /// Which clients come back to which backends, and for how long
    List {
        /// Only those of this service, and of its group
        service: Option<ServiceKey>,
        /// Only those of this client, or of the network it is in
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        /// Show at most so many, of 100000 that a list may have
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: usize,
    },
    /// Let the clients of a service, and of its group, choose anew; flows stay with their backends
    Flush {
        /// Which service
        service: ServiceKey,
        /// Only this client, or the network it is in
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
    },
}

impl PersistenceCommand {
    /// The call that it makes.
    pub fn request(&self) -> Request {
        match *self {
            Self::List { service, client, limit } => {
                Request::PersistenceList(TemplatesWanted { service, client, limit })
            }
            Self::Flush { service, client } => Request::PersistenceFlush { service, client },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Arguments;
    use super::*;

    fn request(line: &str) -> Request {
        Arguments::try_parse_from(line.split_whitespace()).unwrap().command.request().unwrap()
    }

    #[test]
    fn commands_become_calls() {
        let list = |service: Option<&str>, client: Option<&str>, limit| {
            let (service, client) =
                (service.map(|it| it.parse().unwrap()), client.map(|it| it.parse().unwrap()));
            Request::PersistenceList(TemplatesWanted { service, client, limit })
        };
        assert_eq!(request("trutina persistence list"), list(None, None, 1000));
        assert_eq!(
            request("trutina p l tcp:192.0.2.1:80 --client 2001:db8::7 --limit 5"),
            list(Some("tcp:192.0.2.1:80"), Some("2001:db8::7"), 5)
        );
        let service = "tcp:192.0.2.1:80".parse().unwrap();
        let flush = |client| Request::PersistenceFlush { service, client };
        assert_eq!(request("trutina persistence flush tcp:192.0.2.1:80"), flush(None));
        let one = request("trutina persistence flush tcp:192.0.2.1:80 --client 203.0.113.7");
        assert_eq!(one, flush("203.0.113.7".parse().ok()));
        let nothing = "trutina persistence flush".split_whitespace();
        assert_eq!(
            Arguments::try_parse_from(nothing).unwrap_err().exit_code(),
            2,
            "all of a service, not all"
        );
    }
}

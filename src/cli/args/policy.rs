//! Policies of new services, and administrative states of backends, as they are typed.

use std::net::SocketAddr;

use clap::{Args, value_parser};
use config::limits;
use config::model::{Policy, Quorum, SlowStart};
use config::words::{Fate, ServiceKey, Then};
use controlplane::api::{AdminChange, Request};

/// Who of a new service's backends takes new flows.
#[derive(Debug, Args)]
pub struct PolicyArguments {
    /// Let a backend that comes back grow into its weight for so long, such as 60 or 5m
    #[arg(long, value_name = "TIME", value_parser = time)]
    slow_start: Option<u32>,
    /// How it grows: 1 evenly, more slower at first, less faster at first
    #[arg(long, requires = "slow_start", value_name = "X", default_value_t = 1.0)]
    slow_start_exponent: f64,
    /// Live backends of the highest priorities that make lower ones unnecessary
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    min_active: u32,
    /// Live weight below which the sorry backends serve
    #[arg(long, value_name = "WEIGHT", default_value_t = 1)]
    quorum: u32,
    /// How far the live weight must pass the quorum for a change, up or down
    #[arg(long, value_name = "WEIGHT", default_value_t = 0)]
    quorum_hysteresis: u32,
    /// Use all backends when fewer than this share of them is up
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u8).range(1..=100))]
    fail_open: Option<u8>,
    /// What becomes of the flows of a backend that is down: keep, reset or reschedule [default: keep for tcp,
    /// reschedule for udp]
    #[arg(long, value_name = "FATE")]
    on_down: Option<Fate>,
    /// The same of a backend that is disabled
    #[arg(long, value_name = "FATE", default_value_t = Fate::Reset)]
    on_disabled: Fate,
}

impl PolicyArguments {
    /// The policies that they say.
    pub fn policy(&self) -> Policy {
        let exponent = self.slow_start_exponent;
        Policy {
            slow_start: self.slow_start.map(|secs| SlowStart { secs, exponent }),
            min_active: self.min_active,
            quorum: Quorum { weight: self.quorum, hysteresis: self.quorum_hysteresis },
            fail_open: self.fail_open,
            on_down: self.on_down,
            on_disabled: self.on_disabled,
            sorry: Vec::new(),
        }
    }
}

/// Which backend.
#[derive(Debug, Args)]
pub struct Which {
    /// Which service
    service: ServiceKey,
    /// Address and port of the backend
    backend: SocketAddr,
}

impl Which {
    fn set(&self, admin: AdminChange) -> Request {
        Request::BackendSet { service: self.service, address: self.backend, weight: None, admin: Some(admin) }
    }

    /// Takes it into use.
    pub fn enable(&self) -> Request {
        self.set(AdminChange::Enabled)
    }
}

/// A drain.
#[derive(Debug, Args)]
pub struct Drain {
    #[command(flatten)]
    which: Which,
    /// End the drain after so long, such as 90, 10m or 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<u32>,
    /// What happens then: keep leaves things as they are, remove removes the backend, reset ends flows that are left
    #[arg(long, requires = "timeout", value_name = "WHAT", default_value_t = Then::Keep)]
    then: Then,
    /// Take no new flows of clients that are bound to it either
    #[arg(long)]
    no_persistent: bool,
}

impl Drain {
    /// Begins it.
    pub fn request(&self) -> Request {
        let (timeout_secs, then, persistent) = (self.timeout, self.then, !self.no_persistent);
        self.which.set(AdminChange::Drain { timeout_secs, then, persistent })
    }
}

/// Taking a backend out of use.
#[derive(Debug, Args)]
pub struct Disable {
    #[command(flatten)]
    which: Which,
    /// What becomes of its flows: keep, reset or reschedule [default: on_disabled of the service]
    #[arg(long, value_name = "FATE")]
    flows: Option<Fate>,
}

impl Disable {
    /// Takes it out.
    pub fn request(&self) -> Request {
        self.which.set(AdminChange::Disabled { flows: self.flows })
    }
}

/// A time in seconds, minutes or hours.
fn time(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 3600),
        _ => (text, 1),
    };
    let secs = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
    secs.filter(|secs| limits::IDLE_SECS.contains(secs))
        .ok_or_else(|| "use a time such as 90, 10m or 2h, from 1 s to 30 days".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, secs) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(time(text), Ok(secs));
        }
        for text in ["", "m", "0", "1d", "-1", "1.5m", "721h", "4294967295h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}

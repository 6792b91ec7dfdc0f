//! Limits of services: what is too much goes no further.

use super::flows::wide_address;
use super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::limit::Exceeded;
use crate::packet::Headers;
use crate::snapshot::{Found, Service};

impl<F: Frame> Forwarder<F> {
    /// Lets a client's packet pass if its service takes so much.
    #[inline]
    pub(super) fn police(&self, context: Context, work: &mut Work, found: Found) -> Result<(), DropReason> {
        if !context.snapshot.has_limits {
            return Ok(());
        }
        let Some(service) = context.snapshot.service(found.service) else { return Ok(()) };
        let Some(limits) = service.limits.as_ref().filter(|limits| limits.polices()) else { return Ok(()) };
        work.service = found.service;
        Ok(limits.pass(limits.now(), work.headers.ip.len)?)
    }

    /// Lets a flow begin if its service takes another one.
    pub(super) fn admit(&self, service: &Service, headers: &Headers) -> Result<(), DropReason> {
        let Some(limits) = &service.limits else { return Ok(()) };
        let flows = || {
            let loads = service.candidates.iter().map(|candidate| self.team.load(candidate.backend).flows());
            loads.sum()
        };
        Ok(limits.admit(limits.now(), flows, wide_address(headers.ip.addresses.src()))?)
    }
}

impl From<Exceeded> for DropReason {
    fn from(exceeded: Exceeded) -> Self {
        match exceeded {
            Exceeded::Connections => Self::ServiceFull,
            Exceeded::NewFlows => Self::NewFlowRate,
            Exceeded::Traffic => Self::TrafficRate,
        }
    }
}

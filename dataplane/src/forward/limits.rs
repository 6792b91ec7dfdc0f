//! Limits of services: what is too much goes no further.

use config::words::AtLimit;

use super::flows::wide_address;
use super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::limit::{Exceeded, Limits};
use crate::packet::Headers;
use crate::snapshot::{BackendSlot, Found, Service};

impl<F: Frame> Forwarder<F> {
    /// Lets a client's packet pass if its service takes so much.
    #[inline]
    pub(super) fn police(&self, context: Context, work: &mut Work, found: Found) -> Result<(), DropReason> {
        if !context.snapshot.uses.limits {
            return Ok(());
        }
        let Some(service) = context.snapshot.service(found.service) else { return Ok(()) };
        let Some(limits) = service.limits.as_ref().filter(|limits| limits.polices()) else { return Ok(()) };
        work.service = found.service;
        Ok(limits.pass(limits.now(), work.headers.ip.len)?)
    }

    /// Lets a flow begin if its service takes another one, or has sorry backends for what is too much: then it notes
    /// one of these.
    pub(super) fn admit(&self, service: &Service, work: &mut Work) -> Result<(), DropReason> {
        let Some(limits) = &service.limits else { return Ok(()) };
        let Err(why) = self.check_limits(service, limits, &work.headers) else { return Ok(()) };
        if limits.config().answer != AtLimit::Sorry {
            return Err(why);
        }
        work.chosen = Some(self.schedulers.pick_sorry(service).ok_or(why)?);
        Ok(())
    }

    /// The sorry backend that takes a flow when all backends have enough.
    pub(super) fn overflow(&self, service: &Service) -> Option<BackendSlot> {
        let sorry = service.limits.as_ref()?.config().answer == AtLimit::Sorry;
        // Without limits nobody has enough: there is nobody.
        (sorry && service.is_limited).then(|| self.schedulers.pick_sorry(service)).flatten()
    }

    fn check_limits(&self, service: &Service, limits: &Limits, headers: &Headers) -> Result<(), DropReason> {
        let flows = || {
            let loads = service.counted.iter().map(|backend| self.team.load(*backend).flows());
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

//! Limits of services: what is too much goes no further.

use config::words::AtLimit;

use super::flows::wide_address;
use super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::limit::{Admitted, Exceeded, Limits};
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
    /// one of these. What is returned is to be dropped when the flow counts.
    pub(super) fn admit<'a>(
        &self,
        service: &'a Service,
        work: &mut Work,
    ) -> Result<Option<Admitted<'a>>, DropReason> {
        let Some(limits) = &service.limits else { return Ok(None) };
        let why = match self.check_limits(service, limits, &work.headers) {
            Ok(admitted) => return Ok(admitted),
            Err(why) => why,
        };
        if limits.config().answer != AtLimit::Sorry {
            return Err(why);
        }
        work.chosen = Some(self.schedulers.pick_sorry(service).ok_or(why)?);
        Ok(None)
    }

    /// The sorry backend that takes a flow when all backends have enough.
    pub(super) fn overflow(&self, service: &Service) -> Option<BackendSlot> {
        let sorry = service.limits.as_ref()?.config().answer == AtLimit::Sorry;
        // Without limits nobody has enough: there is nobody.
        (sorry && service.is_limited).then(|| self.schedulers.pick_sorry(service)).flatten()
    }

    fn check_limits<'a>(
        &self,
        service: &Service,
        limits: &'a Limits,
        headers: &Headers,
    ) -> Result<Option<Admitted<'a>>, DropReason> {
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

//! Limits of services: what is too much goes no further.

use config::words::AtLimit;

use super::flows::wide_address;
use super::{Context, Forwarder, Work};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::limit::{Admitted, Exceeded, Limits};
use crate::packet::Headers;
use crate::snapshot::{Found, Service};
use crate::team::Chosen;

/// How often the scheduler is asked again when other workers took the place that it saw.
const CLAIM_TRIES: usize = 4;

/// What lets a flow begin.
pub(super) enum Admission<'a> {
    /// Its service takes another one. What it counts by until then is to be dropped when the flow counts.
    Within(Option<Admitted<'a>>),
    /// It is too much, and goes to this sorry backend.
    Sorry(Chosen),
}

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

    /// Lets a flow begin if its service takes another one, or has sorry backends for what is too much.
    pub(super) fn admit<'a>(
        &self,
        service: &'a Service,
        headers: &Headers,
    ) -> Result<Admission<'a>, DropReason> {
        let Some(limits) = &service.limits else { return Ok(Admission::Within(None)) };
        let why = match self.check_limits(service, limits, headers) {
            Ok(admitted) => return Ok(Admission::Within(admitted)),
            Err(why) => why,
        };
        if limits.config().answer != AtLimit::Sorry {
            return Err(why);
        }
        let sorry = self.schedulers.pick_sorry(service).ok_or(why)?;
        Ok(Admission::Sorry(Chosen::freely(sorry)))
    }

    /// The backend that the scheduler picks for a new flow, and which no other worker filled meanwhile.
    pub(super) fn pick(
        &mut self,
        context: Context,
        found: Found,
        service: &Service,
        headers: &Headers,
    ) -> Option<Chosen> {
        for _ in 0..CLAIM_TRIES {
            let slot = self.schedulers.pick(context.now, found.service, service, || headers.into())?;
            let chosen = self.team.claim(service, slot);
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }

    /// The sorry backend that takes a flow when all backends have enough.
    pub(super) fn overflow(&self, service: &Service) -> Option<Chosen> {
        let sorry = service.limits.as_ref()?.config().answer == AtLimit::Sorry;
        // Without limits nobody has enough: there is nobody.
        let sorry = (sorry && service.is_limited).then(|| self.schedulers.pick_sorry(service)).flatten();
        sorry.map(Chosen::freely)
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

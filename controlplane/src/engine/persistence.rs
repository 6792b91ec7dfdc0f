//! Persistence templates: listed and forgotten beside the control thread, counted bit by bit by it.
//!
//! There may be hundreds of millions, which take seconds to be looked through.

use std::net::IpAddr;
use std::sync::Arc;

use config::words::ServiceKey;
use dataplane::clock::Seconds;
use dataplane::persist::Templates;
use dataplane::team::Team;
use serde::Serialize;
use tokio::sync::{Semaphore, oneshot};
use tokio::task;

use super::calls::to_value;
use super::{Devices, Engine};
use crate::api::{self, ApiError, Forgotten, MAX_LISTED, TemplateList, TemplateUsage, TemplatesWanted, code};
use crate::report::bindings::{self, Binding, Bindings};
use serde_json::Value;

/// Calls that look through the table at the same time.
pub(super) const MAX_LOOKS: usize = 4;
/// Places that are counted at once: less than a millisecond's.
const COUNTED_PLACES: usize = 1 << 16;

type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// What is known of the table of templates.
pub(super) struct Persistence {
    pub(super) looks: Arc<Semaphore>,
    /// The next place to be counted, and what those before it have come to.
    counting: (usize, usize),
    /// Templates when last counted to the end.
    used: usize,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { looks: Arc::new(Semaphore::new(MAX_LOOKS)), counting: (0, 0), used: 0 }
    }
}

/// Templates that are looked for: in the scopes of these backends, and of this client.
struct Wanted {
    bindings: Bindings,
    client: Option<IpAddr>,
    now: Seconds,
}

impl Wanted {
    /// Those that are found, with what they belong to.
    fn find<'a>(
        &'a self,
        templates: &'a Templates,
    ) -> impl Iterator<Item = (dataplane::persist::Template, &'a Binding)> {
        let all = templates.list(self.now, |slot| self.bindings.scope(slot));
        all.filter_map(|template| {
            let binding = self.bindings.get(template.backend)?;
            self.client.is_none_or(|client| binding.is_of(client, &template)).then_some((template, binding))
        })
    }

    fn list(&self, templates: &Templates, limit: usize) -> TemplateList {
        let (mut found, mut total) = (Vec::new(), 0);
        for (template, binding) in self.find(templates) {
            total += 1;
            if found.len() < limit {
                found.push(binding.describe(&template));
            }
        }
        let used = templates.used(self.now, 0..templates.capacity());
        TemplateList { templates: found, total, usage: usage(used, templates) }
    }

    fn forget(&self, templates: &Templates) -> Forgotten {
        let forgotten = self.find(templates).filter(|(template, _)| templates.forget(template)).count();
        Forgotten { templates: forgotten as u64 }
    }
}

fn usage(used: usize, templates: &Templates) -> TemplateUsage {
    TemplateUsage { used: used as u64, capacity: templates.capacity() as u64 }
}

impl<D: Devices> Engine<D> {
    /// Lists templates.
    pub(super) fn list_templates(&self, wanted: TemplatesWanted, reply: Reply) {
        let limit = wanted.limit.min(MAX_LISTED);
        self.look(wanted.service, wanted.client, reply, move |wanted, templates| {
            wanted.list(templates, limit)
        });
    }

    /// Forgets the templates of a service.
    pub(super) fn forget_templates(
        &self,
        (uid, pid): (u32, i32),
        service: ServiceKey,
        client: Option<IpAddr>,
        reply: Reply,
    ) {
        self.look(Some(service), client, reply, move |wanted, templates| {
            let forgotten = wanted.forget(templates);
            let whose = client.map(|client| format!(" of {client}")).unwrap_or_default();
            tracing::info!(
                uid,
                pid,
                "service {service}: {} templates{whose} are forgotten",
                forgotten.templates
            );
            forgotten
        });
    }

    /// Looks through the templates in a thread of its own.
    fn look<T: Serialize>(
        &self,
        service: Option<ServiceKey>,
        client: Option<IpAddr>,
        reply: Reply,
        with: impl FnOnce(&Wanted, &Templates) -> T + Send + 'static,
    ) {
        // Before any work: calls that are too many must cost next to nothing here.
        let (Some(team), Ok(place)) = (self.team(), Arc::clone(&self.persistence.looks).try_acquire_owned())
        else {
            let message = format!("too many looks at templates; {MAX_LOOKS} are under way; try again");
            let _ = reply.send(Err(ApiError { code: code::LIMIT, message }));
            return;
        };
        let bindings = match bindings::all(&self.state, service) {
            Ok(bindings) => bindings,
            Err(error) => {
                let _ = reply.send(Err(error));
                return;
            }
        };
        let (team, wanted) = (Arc::clone(team), Wanted { bindings, client, now: self.shared.clock.now() });
        task::spawn_blocking(move || {
            // Whoever asked may be gone.
            let _ = reply.send(to_value(&with(&wanted, &team.templates)));
            drop(place);
        });
    }

    /// Counts the next templates.
    pub(super) fn count_templates(&mut self) {
        let Some(templates) = self.team().map(|team| &team.templates) else { return };
        let (from, before) = self.persistence.counting;
        let to = (from + COUNTED_PLACES).min(templates.capacity());
        let (at_end, used) = (to == templates.capacity(), templates.used(self.shared.clock.now(), from..to));
        let counted = before + used;
        if at_end {
            (self.persistence.used, self.persistence.counting) = (counted, (0, 0));
        } else {
            self.persistence.counting = (to, counted);
        }
    }

    /// How many there were when last counted.
    pub(super) fn template_usage(&self) -> api::TemplateUsage {
        self.team().map(|team| usage(self.persistence.used, &team.templates)).unwrap_or_default()
    }

    /// What the workers share.
    fn team(&self) -> Option<&Arc<Team>> {
        self.workers.first().map(|worker| &worker.team)
    }
}

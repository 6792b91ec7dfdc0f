//! Requests that change a site, one after the other, and the time each takes.

use std::thread;
use std::time::{Duration, Instant};

use controlplane::api::{Done, Request};
use controlplane::client::Client;
use serde::Serialize;

use super::site::Site;

/// Time for which nothing is asked before each request, and by which its window goes on behind its answer: old
/// snapshots are freed then.
const PAUSE: Duration = Duration::from_millis(20);

/// A kind of change. Each request is followed by one that takes it back, which is timed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The weight of a backend.
    Weight,
    /// One backend more or less.
    Backend,
    /// One service more or less.
    Service,
    /// The whole file, in which nothing has changed.
    Reload,
}

/// A stretch of time in which something may be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Whatever was before the first one.
    Before,
    /// As long as the pause; nothing was asked.
    Quiet,
    /// A request, its answer, and a pause.
    Change,
}

impl Change {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Weight, Self::Backend, Self::Service, Self::Reload];

    /// The change, and what takes it back.
    fn requests(self, site: &Site) -> [Request; 2] {
        let (service, known) = (site.service().key, site.service().backends[0]);
        let (backend, added) = (site.new_backend(), site.new_service());
        let address = known.address;
        let weight = |weight| Request::BackendSet { service, address, weight: Some(weight), admin: None };
        match self {
            Self::Weight => [weight(known.weight + 1), weight(known.weight)],
            Self::Backend => [
                Request::BackendAdd { service, backend, sorry: false },
                Request::BackendRemove { service, address: backend.address },
            ],
            Self::Service => {
                let removed = Request::ServiceRemove { service: added.key };
                [Request::ServiceAdd(Box::new(added)), removed]
            }
            Self::Reload => [Request::Reload, Request::Reload],
        }
    }
}

/// Makes a change and takes it back, `repeats` times; the milliseconds from each request to its answer, which
/// says that all workers use the result. Calls `over` at the end of each window, with its length.
///
/// # Errors
/// A request is refused.
pub fn repeat(
    client: &mut Client,
    site: &Site,
    change: Change,
    repeats: usize,
    mut over: impl FnMut(Window, Duration),
) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    let requests = change.requests(site);
    let mut begun = Instant::now();
    let mut end = |window| {
        let now = Instant::now();
        over(window, now.duration_since(begun));
        begun = now;
    };
    end(Window::Before);
    for request in requests.iter().cycle().take(2 * repeats) {
        thread::sleep(PAUSE);
        end(Window::Quiet);
        let start = Instant::now();
        client.call::<Done>(request).map_err(|error| error.to_string())?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(PAUSE);
        end(Window::Change);
    }
    Ok(times)
}

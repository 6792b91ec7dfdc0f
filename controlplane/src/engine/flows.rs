//! Lists of flows: workers list their tables bit by bit between packets, one list at a time.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dataplane::worker::Listed;
use serde_json::Value;
use tokio::sync::oneshot;

use super::calls::answer;
use super::{Devices, Engine};
use crate::api::{ApiError, Flow, FlowList, MAX_LISTED, code};
use crate::report;

/// Lists that wait at most.
const MAX_LISTS: usize = 16;
/// Time after which a worker that lists nothing counts as stuck.
const TIMEOUT: Duration = Duration::from_secs(5);

type Reply = oneshot::Sender<Result<Value, ApiError>>;

/// Lists that were asked for.
#[derive(Default)]
pub(super) struct Listings {
    current: Option<Listing>,
    waiting: VecDeque<(usize, Reply)>,
}

/// A list that is being made.
struct Listing {
    limit: usize,
    flows: Vec<Flow>,
    total: u64,
    /// Whether each worker's part is complete.
    complete: Vec<bool>,
    since: Instant,
    /// Gone when it was told that a worker does not list.
    reply: Option<Reply>,
}

impl<D: Devices> Engine<D> {
    /// Asks all workers for their flows, when the lists before this one are complete.
    pub(super) fn list_flows(&mut self, limit: usize, reply: Reply) {
        if self.listings.waiting.len() >= MAX_LISTS {
            let message = format!("too many lists of flows at once; {MAX_LISTS} wait already; try again");
            let _ = reply.send(Err(ApiError { code: code::LIMIT, message }));
            return;
        }
        self.listings.waiting.push_back((limit.min(MAX_LISTED), reply));
    }

    /// Takes what workers have listed since the last turn.
    pub(super) fn collect_flows(&mut self) {
        let Some(mut listing) = self.listings.current.take().or_else(|| self.begin_list()) else { return };
        for (number, worker) in self.workers.iter().enumerate() {
            while let Some(listed) = worker.listing.pop() {
                let Listed::Flow(owner, value, now) = listed else {
                    listing.complete[number] = true;
                    break;
                };
                let Some(flow) = report::flow(&self.state, &self.frame, number, (owner, value, now)) else {
                    continue;
                };
                listing.total += 1;
                if listing.flows.len() < listing.limit {
                    listing.flows.push(flow);
                }
            }
        }
        if listing.complete.iter().all(|complete| *complete) {
            let list = FlowList { flows: listing.flows, total: listing.total };
            if let Some(reply) = listing.reply {
                answer(reply, &list);
            }
            return;
        }
        if listing.since.elapsed() > TIMEOUT
            && let Some(reply) = listing.reply.take()
        {
            let message = "no list of flows; a worker does not answer; see `trutina status`".to_owned();
            let _ = reply.send(Err(ApiError { code: code::UNAVAILABLE, message }));
        }
        // A list nobody waits for any more is still taken to its end: the workers are making it.
        self.listings.current = Some(listing);
    }

    fn begin_list(&mut self) -> Option<Listing> {
        let (limit, reply) = self.listings.waiting.pop_front()?;
        for worker in &self.workers {
            worker.list.store(true, Ordering::Release);
        }
        let (complete, since) = (vec![false; self.workers.len()], Instant::now());
        Some(Listing { limit, flows: Vec::new(), total: 0, complete, since, reply: Some(reply) })
    }
}

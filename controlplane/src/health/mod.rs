//! Health checks: one task for each backend of each service that has a check, and one for each that has an agent.
//!
//! Tasks ask (`probe`), judge (`verdict`) and send what they find; they decide nothing about scheduling.
//! Checks go through the kernel's own network, never through the workers.

pub mod agent;
pub mod probe;
pub mod verdict;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::model::Check;
use config::words::ServiceKey;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{self, Instant, MissedTickBehavior};

use agent::Report;
use verdict::Verdict;

/// Checks under way at the same time, over all backends; bounds sockets and bursts.
const MAX_PROBES: usize = 256;

/// What is checked: a server that is a backend of two services is checked for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The service whose check it is.
    pub service: ServiceKey,
    /// The backend's address and port.
    pub backend: SocketAddr,
}

/// What the checks found, and what agents said; one event for each check and each answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The check changed the verdict.
    Transition {
        /// Who changed.
        target: Target,
        /// Whether it is up from now on.
        up: bool,
        /// What the deciding check saw.
        reason: String,
    },
    /// The check changed nothing.
    Result {
        /// Who was checked.
        target: Target,
        /// Whether the check passed.
        passed: bool,
        /// What it saw.
        reason: String,
    },
    /// An agent was asked.
    Agent {
        /// Of whom.
        target: Target,
        /// What it said, or why it said nothing.
        said: Result<Report, String>,
    },
}

/// Owner of all checks; dropping it stops them.
#[derive(Debug)]
pub struct Checker {
    events: mpsc::Sender<Event>,
    probes: Arc<Semaphore>,
    /// By service, so that a change of one leaves those of all others alone.
    running: HashMap<ServiceKey, HashMap<SocketAddr, Running>>,
}

/// One target's task.
#[derive(Debug)]
struct Running {
    check: Check,
    /// The verdict as last sent, written by the task; a task with another check takes over from it.
    up: Arc<AtomicBool>,
    /// Holds the one task, which ends with it.
    _task: JoinSet<()>,
}

impl Checker {
    /// Checks nothing yet; will send what it finds to `events`, and waits while that is full.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, probes: Arc::new(Semaphore::new(MAX_PROBES)), running: HashMap::new() }
    }

    /// Checks exactly the targets `wanted` from now on. Must be called within a tokio runtime.
    ///
    /// A new target starts as up. One whose check changed starts over but keeps its verdict; all others run
    /// on. Events of a target that is no longer wanted may still be on their way.
    pub fn set(&mut self, wanted: impl Iterator<Item = (Target, Check)>) {
        let mut before = std::mem::take(&mut self.running);
        for (target, check) in wanted {
            let known = before.get_mut(&target.service).and_then(|of| of.remove(&target.backend));
            self.resume(target, check, known);
        }
    }

    /// Checks exactly the targets `wanted` of one service from now on, as [`Checker::set`] does; all others run
    /// on. Must be called within a tokio runtime.
    pub fn set_service(&mut self, service: ServiceKey, wanted: impl Iterator<Item = (Target, Check)>) {
        let mut before = self.running.remove(&service).unwrap_or_default();
        for (target, check) in wanted {
            let known = before.remove(&target.backend);
            self.resume(target, check, known);
        }
    }

    fn resume(&mut self, target: Target, check: Check, known: Option<Running>) {
        let running = match known {
            Some(running) if running.check == check => running,
            Some(changed) => self.start(target, check, changed.up),
            None => self.start(target, check, Arc::new(AtomicBool::new(true))),
        };
        self.running.entry(target.service).or_default().insert(target.backend, running);
    }

    fn start(&self, target: Target, check: Check, up: Arc<AtomicBool>) -> Running {
        let mut task = JoinSet::new();
        task.spawn(watch(target, check.clone(), up.clone(), self.events.clone(), self.probes.clone()));
        Running { check, up, _task: task }
    }
}

/// Checks one target again and again, until nobody wants to know.
async fn watch(
    target: Target,
    check: Check,
    up: Arc<AtomicBool>,
    events: mpsc::Sender<Event>,
    probes: Arc<Semaphore>,
) {
    let mut verdict = Verdict::resume(check.rise, check.fall, up.load(Ordering::Relaxed));
    let interval = Duration::from_millis(check.interval_ms.max(1).into());
    let mut ticks = time::interval_at(Instant::now() + offset(target, interval), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let outcome = {
            let Ok(_permit) = probes.acquire().await else { return };
            probe::probe(&check, target.backend).await
        };
        let Ok(place) = events.reserve().await else { return };
        // No await from here on, so a task that is stopped has either judged and told, or neither.
        let changed = verdict.observe(outcome.passed).is_some();
        up.store(verdict.is_up(), Ordering::Relaxed);
        let (passed, reason) = (outcome.passed, outcome.reason);
        place.send(match changed {
            true => Event::Transition { target, up: passed, reason },
            false => Event::Result { target, passed, reason },
        });
    }
}

/// When within its interval a target is checked: spreads them evenly, and each is the same in every run.
fn offset(target: Target, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    target.hash(&mut hasher);
    let share = hasher.finish() as f64 / u64::MAX as f64;
    interval.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use config::model::CheckKind;
    use tokio::net::TcpListener;

    use super::*;

    fn check(interval_ms: u32) -> Check {
        // Longer than a valid configuration has it, so that a busy test machine fails no check.
        Check { kind: CheckKind::Tcp, port: None, interval_ms, timeout_ms: 10_000, rise: 2, fall: 3 }
    }

    fn target(backend: SocketAddr) -> Target {
        Target { service: "tcp:192.0.2.1:80".parse().unwrap(), backend }
    }

    async fn listen(address: SocketAddr) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
        time::timeout(Duration::from_secs(5), events.recv()).await.expect("no event").unwrap()
    }

    /// Skips results until the verdict changes; says to what, and after how many results.
    async fn transition(events: &mut mpsc::Receiver<Event>) -> (bool, usize) {
        for results in 0.. {
            if let Event::Transition { up, .. } = next(events).await {
                return (up, results);
            }
        }
        unreachable!()
    }

    #[tokio::test]
    async fn a_backend_falls_and_rises_by_the_numbers() {
        let (sender, mut events) = mpsc::channel(1);
        let (listener, address) = listen(ANY).await;
        drop(listener);
        let mut checker = Checker::new(sender);
        checker.set([(target(address), check(20))].into_iter());
        for _ in 0..2 {
            let reason = "connection refused".to_owned();
            assert_eq!(
                next(&mut events).await,
                Event::Result { target: target(address), passed: false, reason }
            );
        }
        let reason = "connection refused".to_owned();
        assert_eq!(next(&mut events).await, Event::Transition { target: target(address), up: false, reason });
        let _listener = listen(address).await;
        assert!(transition(&mut events).await.0);
        assert!(matches!(next(&mut events).await, Event::Result { passed: true, .. }));
    }

    #[tokio::test]
    async fn an_unchanged_target_runs_on_with_its_history() {
        let (sender, mut events) = mpsc::channel(1);
        let (listener, address) = listen(ANY).await;
        drop(listener);
        let mut checker = Checker::new(sender);
        let wanted = || [(target(address), check(20))].into_iter();
        checker.set(wanted());
        next(&mut events).await;
        checker.set(wanted());
        assert_eq!(transition(&mut events).await, (false, 1));
    }

    #[tokio::test]
    async fn a_changed_check_starts_over_from_the_verdict_it_found() {
        let (sender, mut events) = mpsc::channel(1);
        let (listener, address) = listen(ANY).await;
        drop(listener);
        let mut checker = Checker::new(sender);
        checker.set([(target(address), check(20))].into_iter());
        assert_eq!(transition(&mut events).await, (false, 2));
        let _listener = listen(address).await;
        checker.set([(target(address), Check { rise: 1, ..check(30) })].into_iter());
        assert!(transition(&mut events).await.0);
    }

    #[tokio::test]
    async fn what_is_not_wanted_any_more_is_not_checked() {
        let (sender, mut events) = mpsc::channel(8);
        let (_gone, gone) = listen(ANY).await;
        let (_stays, stays) = listen(ANY).await;
        let mut checker = Checker::new(sender);
        checker.set([gone, stays].map(|address| (target(address), check(20))).into_iter());
        next(&mut events).await;
        checker.set([(target(stays), check(20))].into_iter());
        while events.try_recv().is_ok() {}
        for _ in 0..5 {
            assert!(
                matches!(next(&mut events).await, Event::Result { target, .. } if target.backend == stays)
            );
        }
        drop(checker);
        time::timeout(Duration::from_secs(5), async { while events.recv().await.is_some() {} })
            .await
            .expect("its tasks ended with it");
    }

    #[tokio::test]
    async fn a_change_of_one_service_leaves_the_checks_of_others_alone() {
        let (sender, mut events) = mpsc::channel(8);
        let (_gone, gone) = listen(ANY).await;
        let (_stays, stays) = listen(ANY).await;
        let mut checker = Checker::new(sender);
        let other = Target { service: "tcp:192.0.2.2:80".parse().unwrap(), backend: stays };
        checker.set([(target(gone), check(20)), (other, check(20))].into_iter());
        next(&mut events).await;
        checker.set_service(target(gone).service, std::iter::empty());
        while events.try_recv().is_ok() {}
        for _ in 0..5 {
            assert!(matches!(next(&mut events).await, Event::Result { target, .. } if target == other));
        }
    }

    #[tokio::test]
    async fn a_slow_backend_holds_up_no_other() {
        let (sender, mut events) = mpsc::channel(8);
        let (_fast, fast) = listen(ANY).await;
        let (_stalls, stalls) = listen(ANY).await;
        let kind = CheckKind::Http { path: "/".to_owned(), host: None, status: None, proxy: None };
        let mut checker = Checker::new(sender);
        checker.set([(target(stalls), Check { kind, ..check(20) }), (target(fast), check(20))].into_iter());
        for _ in 0..10 {
            assert!(
                matches!(next(&mut events).await, Event::Result { target, .. } if target.backend == fast)
            );
        }
    }

    #[test]
    fn first_checks_spread_over_the_interval() {
        let interval = Duration::from_secs(2);
        let mut tenths = [0; 10];
        for host in 0..10_000_u32 {
            let backend = SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0000 + host).into(), 80);
            let offset = offset(target(backend), interval);
            assert!(offset <= interval);
            tenths[(offset.as_millis() / 200).min(9) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    }
}

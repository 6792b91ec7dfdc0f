//! The workers' threads: each is pinned to its core and makes all its memory there.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context as _, anyhow};
use dataplane::dpdk::eal::Registered;
use dataplane::dpdk::ethdev::PortQueue;
use dataplane::dpdk::mbuf::Mbuf;
use dataplane::worker::{Blueprint, Handle, Shared, Worker};

const PANICKED: &str = "a worker panicked; its flows are lost; report this as a defect";

/// All workers, from when they are made until they have ended.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// By worker: a word lets it poll; when this is gone without one, it ends.
    begin: Vec<Sender<()>>,
}

impl Workers {
    /// Makes each worker on its core, with what the control thread holds of it. None of them polls yet.
    pub fn make(
        cores: &[usize],
        team: Vec<Blueprint<PortQueue>>,
    ) -> anyhow::Result<(Self, Vec<Handle<Mbuf>>)> {
        let mut workers = Self { threads: Vec::new(), begin: Vec::new() };
        let mut made = Vec::new();
        for (number, (blueprint, &core)) in team.into_iter().zip(cores).enumerate() {
            let ((report, reported), (begin, begins)) = (channel(), channel());
            let body = move || {
                let (worker, handle, registered) = match prepare(core, blueprint) {
                    Ok(prepared) => prepared,
                    Err(error) => return drop(report.send(Err(error))),
                };
                // The main thread waits for it.
                let _ = report.send(Ok(handle));
                match begins.recv() {
                    Ok(()) => worker.run(),
                    Err(_) => drop(worker),
                }
                drop(registered);
            };
            workers.threads.push(Builder::new().name(format!("worker-{number}")).spawn(body)?);
            workers.begin.push(begin);
            made.push(reported);
        }
        let handles = made.iter().map(|reported| reported.recv().context(PANICKED)?);
        match handles.collect() {
            Ok(handles) => Ok((workers, handles)),
            Err(error) => {
                workers.end()?;
                Err(error)
            }
        }
    }

    /// Lets them poll.
    pub fn begin(&self) {
        for begin in &self.begin {
            // One that is gone has panicked, which its end tells.
            let _ = begin.send(());
        }
    }

    /// Stops them and waits for their end.
    pub fn stop(self, shared: &Shared) -> anyhow::Result<()> {
        shared.stop.store(true, Ordering::Relaxed);
        self.end()
    }

    fn end(self) -> anyhow::Result<()> {
        drop(self.begin);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!(PANICKED)))
    }
}

/// Takes the calling thread to its core, makes DPDK know it, and makes its worker.
fn prepare(
    core: usize,
    blueprint: Blueprint<PortQueue>,
) -> anyhow::Result<(Worker<PortQueue>, Handle<Mbuf>, Registered)> {
    if !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        return Err(anyhow!(
            "core {core} cannot be used; pinning a thread to it failed; change [cores] workers"
        ));
    }
    let registered = Registered::new(core)?;
    // The kernel may make sleeps 50 µs longer to end several at once, unless told not to. That it knows
    // this call is certain, and a worker that sleeps longer is no reason not to start.
    let _ = nix::sys::prctl::set_timerslack(1);
    let (worker, handle) = blueprint.build()?;
    Ok((worker, handle, registered))
}

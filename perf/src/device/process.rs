//! A program that was started, and is ended by its process id whatever happens.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::bound::bound;

/// Time that a program has to end by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than a worker takes before it polls.
const STARTED: Duration = Duration::from_millis(5);

/// A running program. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Name of the thread that polls.
    worker: &'static str,
}

impl Process {
    /// Starts a program whose worker is the thread named so. What it says goes to a file in `directory`, as
    /// do DPDK's own.
    ///
    /// # Errors
    /// A sentence, if it does not start.
    pub fn start(command: &Command, directory: &Path, worker: &'static str) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = directory.join("log");
        let file = File::create(&log).map_err(|why| format!("{}: {why}", log.display()))?;
        let errors = file.try_clone().map_err(|why| format!("{}: {why}", log.display()))?;
        let mut command = bound(command);
        // Where DPDK puts its runtime files.
        command.env("RUNTIME_DIRECTORY", directory);
        command.stdin(Stdio::piped()).stdout(file).stderr(errors);
        let child = command.spawn().map_err(|why| format!("{name} does not start; {why}"))?;
        Ok(Self { name, child, log, worker })
    }

    /// Sees whether it still runs.
    ///
    /// # Errors
    /// A sentence and the end of its log, if not.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended with {status}; it said:\n{}", self.name, self.said())),
            Err(why) => Err(format!("{} is not known any more; {why}", self.name)),
        }
    }

    /// Tries until `ready` gives something.
    ///
    /// # Errors
    /// A sentence and the end of its log, if it ends first or takes too long.
    pub fn wait_for<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Result<T, String> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() > end {
                return Err(format!("{} is not ready in time; it said:\n{}", self.name, self.said()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last lines of its log.
    pub fn said(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Time that the worker's thread has had on a core, by the kernel's scheduler: what other processes take
    /// from it does not count.
    ///
    /// # Errors
    /// A sentence, if there is no such thread.
    pub fn worker_time(&self) -> Result<Duration, String> {
        let task = task(self.child.id(), self.worker)
            .ok_or_else(|| format!("{} has no thread {}", self.name, self.worker))?;
        time_of(&task)
    }

    /// Waits until the worker polls, which it does when its devices are ready; returns the directory of its thread
    /// under `/proc`.
    ///
    /// # Errors
    /// A sentence and the end of its log, if it ends first or takes too long.
    pub fn wait_for_worker(&mut self) -> Result<PathBuf, String> {
        let (process, worker) = (self.child.id(), self.worker);
        self.wait_for(|| task(process, worker).filter(|task| time_of(task).is_ok_and(|time| time > STARTED)))
    }

    /// Presses a key for it.
    ///
    /// # Errors
    /// A sentence, if it does not read.
    pub fn press_enter(&mut self) -> Result<(), String> {
        let name = &self.name;
        let input = self.child.stdin.as_mut().ok_or_else(|| format!("{name} has no input"))?;
        input.write_all(b"\n").map_err(|why| format!("{name} does not read its input; {why}"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// A sentence, if it failed or goes on.
    pub fn wait(mut self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("{} ended with {status}:\n{}", self.name, self.said()));
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        Err(format!("{} does not end; it is killed", self.name))
    }
}

/// The directory of a process's thread of this name.
fn task(process: u32, name: &str) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let mut tasks = tasks.flatten().map(|task| task.path());
    tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim() == name))
}

/// Time that a thread has had on a core.
fn time_of(task: &Path) -> Result<Duration, String> {
    let text = fs::read_to_string(task.join("schedstat")).map_err(|why| format!("no schedstat; {why}"))?;
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| format!("schedstat is not understood: {text}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        // Does nothing to one that has ended and was waited for: its number may be another's by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Whether a worker kept its core while something was measured.
//!
//! A frame that waits because another process has the worker's core, or another virtual machine, tells nothing of the
//! appliance. The kernel counts how often it took a core from a thread that did not give it away itself, and the
//! time that the hypervisor took.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the kernel counts times of cores (proc_stat(5)).
const CORES: &str = "/proc/stat";
/// Place of stolen time in a line of them, behind its name.
const STOLEN: usize = 7;

/// A thread that is watched.
pub struct Watched {
    /// Its `status` file (proc_pid_status(5)).
    status: PathBuf,
}

impl Watched {
    /// Watches the thread of this directory under `/proc`.
    pub fn new(thread: &Path) -> Self {
        Self { status: thread.join("status") }
    }

    /// A number that is another one when the kernel took its core from it, or the hypervisor one for 10 ms or more.
    ///
    /// # Errors
    /// A sentence, if it is gone.
    pub fn interrupted(&self) -> Result<u64, String> {
        let switches = involuntary(&read(&self.status)?)
            .ok_or_else(|| format!("{} does not count switches", self.status.display()))?;
        let stolen =
            stolen(&read(Path::new(CORES))?).ok_or_else(|| format!("{CORES} does not count stolen time"))?;
        Ok(switches + stolen)
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| format!("{}: {why}", path.display()))
}

/// Hundredths of a second that the hypervisor took from all cores together, which is the first line.
fn stolen(cores: &str) -> Option<u64> {
    cores.lines().next()?.split_whitespace().nth(1 + STOLEN)?.parse().ok()
}

fn involuntary(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_switches_that_a_thread_did_not_want_count() {
        let status = "Name:\tworker-0\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t42\n";
        assert_eq!(involuntary(status), Some(42));
        assert_eq!(involuntary("voluntary_ctxt_switches:\t7\n"), None);
    }

    #[test]
    fn stolen_time_is_that_of_all_cores() {
        let cores = "cpu  1 2 3 4 5 6 7 42 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(stolen(cores), Some(42));
        assert_eq!(stolen("cpu 1 2 3"), None);
    }

    #[test]
    fn the_kernel_counts_for_this_thread() {
        assert!(Watched::new(Path::new("/proc/thread-self")).interrupted().is_ok());
        assert!(Watched::new(Path::new("/proc/0")).interrupted().is_err());
    }
}

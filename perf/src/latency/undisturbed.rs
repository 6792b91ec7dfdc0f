//! Whether a worker kept its core while something was measured.
//!
//! A frame that waits because another process has the worker's core tells nothing of the appliance. The kernel counts
//! how often it took a core from a thread that did not give it away itself.

use std::fs;
use std::path::{Path, PathBuf};

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

    /// Times that the kernel took its core from it.
    ///
    /// # Errors
    /// A sentence, if it is gone.
    pub fn interrupted(&self) -> Result<u64, String> {
        let text =
            fs::read_to_string(&self.status).map_err(|why| format!("{}: {why}", self.status.display()))?;
        involuntary(&text).ok_or_else(|| format!("{} does not count switches", self.status.display()))
    }
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
    fn the_kernel_counts_for_this_thread() {
        assert!(Watched::new(Path::new("/proc/thread-self")).interrupted().is_ok());
        assert!(Watched::new(Path::new("/proc/0")).interrupted().is_err());
    }
}

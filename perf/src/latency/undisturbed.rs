//! Whether threads kept their cores while something was measured.
//!
//! A frame that waits because another process has the core of a worker, or of the generator, tells nothing of the
//! appliance. The kernel counts how often it took a core from a thread that did not give it away itself.

use std::fs;
use std::path::{Path, PathBuf};

/// Threads that are watched.
pub struct Watched {
    /// Their `status` files (proc_pid_status(5)).
    files: Vec<PathBuf>,
}

impl Watched {
    /// Watches the calling thread, and the one of this directory under `/proc`.
    pub fn new(other: &Path) -> Self {
        Self { files: vec!["/proc/thread-self/status".into(), other.join("status")] }
    }

    /// Times that the kernel took a core from one of them.
    ///
    /// # Errors
    /// A sentence, if one is gone.
    pub fn interrupted(&self) -> Result<u64, String> {
        self.files
            .iter()
            .map(|file| {
                let text = fs::read_to_string(file).map_err(|why| format!("{}: {why}", file.display()))?;
                involuntary(&text).ok_or_else(|| format!("{} does not count switches", file.display()))
            })
            .sum()
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

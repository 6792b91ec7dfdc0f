//! What a measurement needs of the machine: two cores, huge pages, and the programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

/// The end that somebody asks for from outside. Waiting notices it, so that guards take everything away.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes SIGINT and SIGTERM.
    ///
    /// # Errors
    /// A sentence, if the kernel refuses.
    pub fn listen() -> Result<Self, String> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&asked))
                .map_err(|why| format!("signals cannot be taken; {why}"))?;
        }
        Ok(Self(asked))
    }

    /// Waits.
    ///
    /// # Errors
    /// A sentence, if the end is asked for meanwhile.
    pub fn sleep(&self, duration: Duration) -> Result<(), String> {
        let end = Instant::now() + duration;
        loop {
            if self.0.load(Ordering::Relaxed) {
                return Err("interrupted; all that was started is ended".to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Cores and programs.
pub struct Machine {
    /// Where everything else runs, the generator too.
    pub control: usize,
    /// Where the measured worker polls.
    pub worker: usize,
    /// Our appliance.
    pub trutinad: PathBuf,
    /// DPDK's.
    pub testpmd: PathBuf,
}

impl Machine {
    /// Finds two cores and both programs.
    ///
    /// # Errors
    /// A sentence that says what is missing and what to do.
    pub fn look() -> Result<Self, String> {
        let cores = cores()?;
        let (&control, &worker) = cores.first().zip(cores.last()).ok_or("no core is known")?;
        if control == worker {
            return Err(
                "two cores are needed, one for the worker alone; this process may use one; start it by `taskset -c 0,1`"
                    .to_owned(),
            );
        }
        Ok(Self { control, worker, trutinad: trutinad()?, testpmd: testpmd()? })
    }

    /// Looks for huge pages for the mbufs that a capture of so many packets needs.
    ///
    /// # Errors
    /// A sentence that says how to get some.
    pub fn check_hugepages(&self, packets: u64, two_processes: bool) -> Result<(), String> {
        const PATH: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
        let pages =
            fs::read_to_string(PATH).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let processes = if two_processes { 2 } else { 1 };
        let wanted = processes * memory_mib(packets).div_ceil(2);
        if pages >= wanted {
            return Ok(());
        }
        Err(format!(
            "{wanted} huge pages of 2 MiB are needed and {pages} are free; \
             as root run `echo {wanted} > /proc/sys/vm/nr_hugepages` (and `echo 0` afterwards), or measure less \
             by --quick, --flows 10k or --device pcap"
        ))
    }
}

/// Mbufs that a capture of so many packets needs: the driver keeps one for each, and the rest is on its way.
pub fn mbufs(packets: u64) -> u64 {
    (packets + 8192).next_power_of_two() - 1
}

/// Memory for these mbufs and for the rings beside them, in MiB: an mbuf with its buffer has 2,432 bytes.
pub fn memory_mib(packets: u64) -> u64 {
    ((mbufs(packets) * 2500) >> 20) + 64
}

/// The cores that this process may use.
fn cores() -> Result<Vec<usize>, String> {
    const KEY: &str = "Cpus_allowed_list:";
    let status =
        fs::read_to_string("/proc/self/status").map_err(|why| format!("no /proc/self/status; {why}"))?;
    let list = status.lines().find_map(|line| line.strip_prefix(KEY)).unwrap_or_default();
    Ok(core_list(list))
}

/// The numbers of a list such as `0-3,8`.
fn core_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The release build beside this program.
fn trutinad() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|why| format!("this program does not find itself; {why}"))?;
    let path = own.parent().unwrap_or(Path::new(".")).join("trutinad");
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no {}; build it by `cargo build --release`", path.display()))
}

fn testpmd() -> Result<PathBuf, String> {
    const NAME: &str = "dpdk-testpmd";
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths)
        .map(|directory| directory.join(NAME))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{NAME} is not installed; on Debian run `apt-get install dpdk-dev`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_have_ranges() {
        assert_eq!(core_list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(core_list("7"), [7]);
        assert_eq!(core_list(""), [0; 0]);
    }

    #[test]
    fn every_packet_of_a_capture_has_an_mbuf_and_some_are_left() {
        for packets in [1024, 10_000, 1_000_000, 2_000_000] {
            assert!(mbufs(packets) > packets + 4096);
            assert!((mbufs(packets) + 1).is_power_of_two());
        }
    }
}

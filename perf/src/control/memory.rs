//! Memory of a process, as the kernel counts it.

/// Resident memory in MiB: now, and the most there was.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// `VmRSS`.
    pub now: f64,
    /// `VmHWM`.
    pub most: f64,
}

/// Memory of a process by its number.
///
/// # Errors
/// There is no such process.
pub fn of(process: u32) -> Result<Resident, String> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let field = |name| kib(&status, name).map(|kib| kib / 1024.0).ok_or(format!("{path}: no {name}"));
    Ok(Resident { now: field("VmRSS:")?, most: field("VmHWM:")? })
}

/// Memory of this process.
///
/// # Errors
/// The kernel does not tell.
pub fn own() -> Result<Resident, String> {
    of(std::process::id())
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells() {
        let own = super::own().unwrap();
        assert!(own.now > 0.0 && own.most >= own.now);
    }
}

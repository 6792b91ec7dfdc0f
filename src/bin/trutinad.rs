//! The appliance: the only place where all parts meet.
//!
//! Configuration → EAL → packet memory → ports → workers → control thread, and back down in the opposite
//! order, so that nothing is freed while somebody may use it.

#[path = "../daemon/mod.rs"]
mod daemon;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Exit code of an invalid configuration; 1 is every other failure, and 2 clap's for wrong usage.
const CONFIG_INVALID: u8 = 3;

/// Trutina, an L4 load balancer on DPDK.
#[derive(Parser)]
#[command(version = env!("TRUTINA_VERSION"))]
struct Arguments {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "/etc/trutina/trutina.toml")]
    config: PathBuf,
    /// Check the configuration and exit; needs neither root nor devices. FILE may be given here.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    check: Option<Option<PathBuf>>,
    /// Stop when no frame came for MS milliseconds, after at least one did; for replays.
    #[arg(long, value_name = "MS")]
    exit_when_idle: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let file = arguments.check.clone().flatten().unwrap_or(arguments.config);
    let config = match config::load(&file) {
        Ok(config) => config,
        Err(error @ config::LoadError::Io { .. }) => return fail(&error.to_string(), 1),
        Err(error) => return fail(&error.to_string(), CONFIG_INVALID),
    };
    if arguments.check.is_some() {
        let backends: usize = config.services.iter().map(|service| service.backends.len()).sum();
        println!("{}: valid; {} services, {backends} backends", file.display(), config.services.len());
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("TRUTINA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(ansi)
        .init();
    let idle = arguments.exit_when_idle.map(Duration::from_millis);
    match daemon::run(config, file, idle) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), 1),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}
